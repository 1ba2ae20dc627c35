"""The search of Section 4.1: TF-NAS [16] with beta removed and fewer operators, for a target latency on the table's device.

Weights and alphas are trained in turn, on two disjoint parts of the training images. A step trains the weights of two sampled
paths, one by Gumbel and one uniformly among the other operators (bi-sampling); every second step updates the alphas, with all
operators at work and the paper's latency penalty. Each freedom is a setting. All draws depend on (seed, step) alone and
everything is checkpointed, so a killed search goes on and ends with the same alphas, bit for bit, on a CPU.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import InputError, require_choice, require_finite, require_whole
from ..latency.table import Table
from ..seed import generator, set_seed
from ..training import checkpoint
from ..training.losses import SSIM_WEIGHT, joint_loss
from ..training.tasks import Batch
from .alphas import alpha_optimiser, alpha_update
from .derive import argmax_architecture, fit_widths
from .lut import base_ms, operators_ms, predicted_ms, require_operators
from .recorder import Verdict, alpha_rows, describe, judge_search
from .space import Architecture, Space
from .supernet import MixedLayer, Supernet

LOSSES = ("ce", "both")
GRADIENTS = ("all", "two")


@dataclass(frozen=True)
class SearchSettings:
    """How to search. Defaults are the paper's, and TF-NAS's where the paper says nothing."""

    target_ms: float
    steps_per_epoch: int
    epochs: int = 90
    weight_epochs: int = 10  # the first, which train weights only
    seed: int = 0
    learn_beta: bool = False  # the paper's proposal: removed
    elasticity: bool = True  # hidden widths follow the target after every epoch [16]
    loss: str = "ce"  # or "both": Eq. 1, with a decoder (Section 4.3 Exp 2)
    alpha_gradient: str = "all"  # or "two": two sampled operators per layer, as ProxylessNAS; cheaper
    rebuild_optimisers: bool = False  # TF-NAS makes new optimisers every epoch, which forgets momentum and Adam's moments
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-5
    clip: float = 5.0  # norm of gradients
    alpha_lr: float = 0.01
    alpha_betas: tuple[float, float] = (0.5, 0.999)
    alpha_weight_decay: float = 5e-4
    temperature: float = 5.0  # of Gumbel softmax, in the first epoch that trains alphas
    temperature_decay: float = 0.96  # per epoch
    latency_weight: float = 0.1

    def __post_init__(self):
        for name, least in (("steps_per_epoch", 1), ("epochs", 1), ("weight_epochs", 0), ("seed", 0)):
            require_whole(name, getattr(self, name), least)
        for name in ("lr", "alpha_lr", "latency_weight", "clip", "weight_decay", "alpha_weight_decay"):
            require_finite(name, getattr(self, name))
        for name in ("target_ms", "temperature", "temperature_decay"):
            if not require_finite(name, getattr(self, name)) > 0:
                raise InputError(f"{name} is {getattr(self, name)!r}, but a number above 0 was expected.")
        require_choice("loss", self.loss, LOSSES)
        require_choice("alpha_gradient", self.alpha_gradient, GRADIENTS)
        if self.weight_epochs >= self.epochs:
            raise InputError(f"weight_epochs is {self.weight_epochs}, but fewer than the {self.epochs} epochs were expected.")

    @property
    def network(self) -> str:
        """The network whose latency the target is: the classifier, or with both losses the joint model."""
        return "DC-NAS" if self.loss == "both" else "C-NAS"


@dataclass(frozen=True)
class SearchResult:
    """What a search found. `epochs` has a row per epoch, `alphas` a row per epoch, place and choice."""

    architecture: Architecture  # argmax, hidden widths fitted to the target by the table
    log_alphas: tuple[np.ndarray, ...]
    epochs: pd.DataFrame
    alphas: pd.DataFrame
    verdict: Verdict


def gumbel(shape: tuple[int, ...], stream: torch.Generator) -> Tensor:
    """Standard Gumbel noise."""
    return -torch.empty(shape).exponential_(generator=stream).log()


class Searcher:
    """A supernet in search: `weight_step` and `alpha_step` are the bare steps that `run_search` repeats."""

    def __init__(self, space: Space, table: Table, settings: SearchSettings, device: torch.device | str = "cpu"):
        self.space, self.table, self.settings, self.device = space, table, settings, torch.device(device)
        set_seed(settings.seed)
        supernet = Supernet(space, settings.learn_beta, decoder=settings.loss == "both")
        self.supernet = supernet.to(self.device, memory_format=torch.channels_last).train()
        self.weights, self.architecture = supernet.weight_parameters(), supernet.architecture_parameters()
        self.base_ms = base_ms(table, settings.network)
        self.make_optimisers()
        self.refresh_latencies()

    def make_optimisers(self) -> None:
        s = self.settings
        self.sgd = torch.optim.SGD(self.weights, lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay, foreach=True)
        self.adam = alpha_optimiser(self.architecture, s)

    def refresh_latencies(self) -> None:
        """Look up the operators' latencies at their present hidden widths."""
        found = operators_ms(self.table, self.space, [layer.hidden for layer in self.supernet.layers])
        self.block_ms = [ms.to(self.device) for ms in found]

    def _loss(self, output: tuple[Tensor | None, Tensor], batch: Batch) -> Tensor:
        denoised, logits = output
        if denoised is None:
            return F.cross_entropy(logits, batch.labels)
        return joint_loss(denoised, logits, batch.clean, batch.labels, ssim_weight=SSIM_WEIGHT)

    def sample_paths(self, step: int, both: bool) -> list[list[int]]:
        """A path by Gumbel and, with `both`, one that is uniformly random among the other operators, layer by layer."""
        stream = generator("paths", self.settings.seed, step)
        first, second = [], []
        for alphas in self.supernet.alphas():
            noisy = alphas.detach().cpu() + gumbel(alphas.shape, stream)
            first.append(int(noisy.argmax()))
            other = int(torch.randint(len(alphas) - 1, (), generator=stream))
            second.append(other + (other >= first[-1]))
        return [first, second] if both else [first]

    def weight_step(self, step: int, batch: Batch, both: bool = True) -> tuple[Tensor, Tensor]:
        """Train the weights of one or two sampled paths: the summed loss, and the share of right answers of the Gumbel path."""
        outputs = self.supernet.forward_paths(batch.noisy, self.sample_paths(step, both))
        loss = sum(self._loss(output, batch) for output in outputs)
        self.sgd.zero_grad(set_to_none=True)
        loss.backward(inputs=self.weights)
        torch.nn.utils.clip_grad_norm_(self.weights, self.settings.clip, foreach=True)
        self.sgd.step()
        return loss.detach(), (outputs[0][1].argmax(1) == batch.labels).float().mean()

    def alpha_step(self, step: int, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
        """Train alphas (and betas) on the task's loss and the latency penalty: the two losses."""
        s, stream = self.settings, generator("alphas", self.settings.seed, step)
        alphas = self.supernet.alphas()
        noisy = [F.log_softmax(a, 0) + gumbel(a.shape, stream).to(a.device) for a in alphas]
        weights = [F.softmax(z / temperature, 0) for z in noisy]
        if s.alpha_gradient == "all":
            output = self.supernet.forward_mixed(batch.noisy, weights)
        else:
            pairs = [torch.multinomial(a.detach().cpu().exp(), 2, generator=stream).tolist() for a in alphas]
            some = [F.softmax(z[pair] / temperature, 0) for z, pair in zip(noisy, pairs, strict=True)]
            output = self.supernet.forward_mixed(batch.noisy, some, pairs)
        task = self._loss(output, batch)
        latency = self.supernet.expected_latency_ms(weights, self.block_ms, self.base_ms)
        penalty = s.latency_weight * (latency / s.target_ms - 1).abs()
        self.adam.zero_grad(set_to_none=True)
        (task + penalty).backward(inputs=self.architecture)
        alpha_update(self.adam, s)
        return task.detach(), penalty.detach()

    def probabilities(self) -> list[np.ndarray]:
        """Of each layer's operators."""
        return [F.softmax(a.detach().double().cpu(), 0).numpy() for a in self.supernet.alphas()]

    def depth_probabilities(self) -> list[np.ndarray]:
        """Of each stage's depths; empty where beta is removed."""
        return [F.softmax(b.detach().double().cpu(), 0).numpy() for b in self.supernet.betas or ()]

    def argmax(self) -> Architecture:
        """The most probable architecture at the present hidden widths."""
        depths = [int(p.argmax()) + 1 for p in self.depth_probabilities()] or None
        return argmax_architecture(self.space, self.probabilities(), [layer.hidden for layer in self.supernet.layers], depths)

    def expected_ms(self) -> float:
        """Latency of the mixture by the alphas themselves, without Gumbel noise."""
        weights = [F.softmax(a.detach(), 0) for a in self.supernet.alphas()]
        with torch.no_grad():
            return float(self.supernet.expected_latency_ms(weights, self.block_ms, self.base_ms))

    def latency_ms(self, architecture: Architecture) -> float:
        return predicted_ms(self.table, architecture, self.settings.network)

    def cheapest_share(self) -> float:
        """The share of layers whose best operator is their cheapest."""
        pairs = zip(self.probabilities(), self.block_ms, strict=True)
        return float(np.mean([int(p.argmax()) == int(ms.argmin()) for p, ms in pairs]))

    def scale_elastically(self) -> None:
        """Shrink or widen the hidden widths of the most probable operators to the target; the strongest channels take part."""
        fitted = fit_widths(self.argmax(), self.settings.target_ms, self.latency_ms)
        for layer, choice in zip(self.supernet.layers, fitted.choices, strict=True):
            if choice is not None:
                index = self.space.candidates.index(choice.operator)
                if layer.hidden[index] != choice.hidden:
                    self._sort_channels(layer, index)
                    layer.hidden[index] = choice.hidden
        self.refresh_latencies()

    def _sort_channels(self, layer: MixedLayer, index: int) -> None:
        """Put the channels of an operator in the order of the L1 norm of their depthwise filters, with their momentum."""
        block = layer.blocks[index]
        order = block.depthwise[0].weight.detach().abs().sum((1, 2, 3)).argsort(descending=True, stable=True)
        places = [(block.expand[0].weight, 0), (block.depthwise[0].weight, 0), (block.project[0].weight, 1)]
        if layer.operators[index].se:
            places += [(block.se.reduce.weight, 1), (block.se.expand.weight, 0), (block.se.expand.bias, 0)]
        with torch.no_grad():
            for parameter, dim in places:
                parameter.copy_(parameter.index_select(dim, order))
                momentum = self.sgd.state.get(parameter, {}).get("momentum_buffer")
                if momentum is not None:
                    momentum.copy_(momentum.index_select(dim, order))

    def held_out(self, batches: Sequence[Batch]) -> dict:
        """How the most probable path does on images that no step has seen: accuracies in %, cross entropy, the largest class.

        Each batch is normed by its own statistics, as everywhere in a search. A supernet that has learned is better than always
        naming the largest class.
        """
        best = [int(p.argmax()) for p in self.probabilities()]
        with torch.no_grad():
            logits = torch.cat([self.supernet.forward_paths(batch.noisy, [best])[0][1] for batch in batches]).cpu()
        labels = torch.cat([batch.labels for batch in batches]).cpu()
        right = logits.argmax(1) == labels
        counts = torch.bincount(labels, minlength=self.space.classes)
        recalls = torch.bincount(labels[right], minlength=self.space.classes) / counts.clamp(min=1)
        return {
            "held_out_accuracy": 100 * right.float().mean().item(),
            "held_out_balanced_accuracy": 100 * recalls[counts > 0].mean().item(),
            "held_out_loss": F.cross_entropy(logits, labels).item(), "largest_class": 100 * counts.max().item() / len(labels),
        }  # fmt: skip

    def state(self) -> dict:
        """All that the next step depends on, but for the step's number."""
        return {
            "supernet": self.supernet.state_dict(), "hidden": [layer.hidden for layer in self.supernet.layers],
            "sgd": self.sgd.state_dict(), "adam": self.adam.state_dict(),
        }  # fmt: skip

    def restore(self, state: dict) -> None:
        self.supernet.load_state_dict(state["supernet"])
        for layer, hidden in zip(self.supernet.layers, state["hidden"], strict=True):
            layer.hidden = list(hidden)
        self.sgd.load_state_dict(state["sgd"])
        self.adam.load_state_dict(state["adam"])
        self.refresh_latencies()


def check_target(space: Space, table: Table, settings: SearchSettings) -> None:
    """Raise `InputError` unless the table knows every operator and the target lies between the fastest and the slowest network."""
    require_operators(table, space)
    low, high = latency_range_ms(space, table, settings.network, settings.learn_beta)
    if not low <= settings.target_ms <= high:
        raise InputError(f"target_ms is {settings.target_ms:g}, but this space and table reach {low:.2f} to {high:.2f} ms.")


def latency_range_ms(space: Space, table: Table, network: str = "C-NAS", learn_beta: bool = False) -> tuple[float, float]:
    """Latencies of the fastest and the slowest network: of all layers, or with learned beta the fastest of one block per stage."""
    ends = []
    for name, pick in (("least_hidden", torch.min), ("most_hidden", torch.max)):
        hidden = [[getattr(o, name)(layer.in_channels) for o in space.candidates] for layer in space.layers]
        fastest = learn_beta and pick is torch.min
        layers = [stage[0] for stage in space.stages] if fastest else range(len(space.layers))
        block_ms = operators_ms(table, space, hidden)
        ends.append(base_ms(table, network) + sum(float(pick(block_ms[i])) for i in layers))
    return ends[0], ends[1]


def temperature_of(settings: SearchSettings, epoch: int) -> float:
    """Gumbel temperature of an epoch (from 0): constant while weights train alone, then falling."""
    return settings.temperature * settings.temperature_decay ** max(0, epoch - settings.weight_epochs)


def run_search(
    space: Space, table: Table, settings: SearchSettings, draw_weights: Callable[[int], Batch], draw_alphas: Callable[[int], Batch],
    folder: Path, *, held_out: Sequence[Batch] = (), device: str | torch.device = "cpu", progress: bool = True,
    deadline: float | None = None, checkpoint_s: float = 60.0, label: str = "search",
) -> SearchResult | None:  # fmt: skip
    """Search, going on from the checkpoint in `folder` where there is one; None if the deadline (time.monotonic) came first.

    `draw_weights(step)` and `draw_alphas(step)` give batches as functions of the step alone, from disjoint parts of the images;
    every epoch ends with a look at `held_out`, of a third part, if it is given.
    """
    check_target(space, table, settings)
    searcher = Searcher(space, table, settings, device)
    step, epochs, alphas, sums, before = 0, [], [], [0.0] * 4, None
    if (saved := checkpoint.load(folder, torch.device(device))) is not None:
        if saved["asked"] != repr((space, settings)):
            raise InputError(f"the search in {folder.name} was begun with other settings; remove its folder, or use those it had.")
        searcher.restore(saved["searcher"])
        step, epochs, alphas, sums = saved["step"], saved["epochs"], saved["alphas"], saved["sums"]
        before = [np.array(p) for p in saved["before"]] if saved["before"] else None

    def save() -> None:
        state = {"searcher": searcher.state(), "step": step, "epochs": epochs, "alphas": alphas, "sums": sums}
        state |= {"before": [p.tolist() for p in before] if before else None, "asked": repr((space, settings))}
        checkpoint.save(folder, state)

    last_save, total = time.monotonic(), settings.epochs * settings.steps_per_epoch
    bar = tqdm(total=total, initial=step, desc=label, unit="step", disable=not progress, dynamic_ncols=True)
    with bar:
        while step < total:
            epoch, within = divmod(step, settings.steps_per_epoch)
            training_alphas = epoch >= settings.weight_epochs
            if within == 0:
                if settings.rebuild_optimisers:
                    searcher.make_optimisers()
                for group in searcher.sgd.param_groups:
                    group["lr"] = settings.lr * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
            loss, right = searcher.weight_step(step, draw_weights(step), both=training_alphas)
            found = [loss.item(), right.item(), 0.0, 0.0]
            if training_alphas and within % 2 == 0:
                task, penalty = searcher.alpha_step(step, draw_alphas(step), temperature_of(settings, epoch))
                found[2:] = [task.item(), penalty.item()]
            sums = [a + b for a, b in zip(sums, found, strict=True)]
            step += 1
            if step % settings.steps_per_epoch == 0:
                row, before = _end_epoch(searcher, epoch, sums, before, held_out)
                epochs.append(row)
                alphas += alpha_rows(space, epoch, searcher.probabilities(), searcher.depth_probabilities())
                sums = [0.0] * 4
                bar.set_postfix_str(f"loss {row['loss']:.3f}, {row['argmax_ms']:.2f} of {settings.target_ms:.2f} ms", False)
            bar.update()
            now = time.monotonic()
            stop = deadline is not None and now > deadline
            if step < total and (stop or now - last_save > checkpoint_s):
                save()
                last_save = now
                if stop:
                    return None
    return _result(searcher, epochs, alphas)


def _end_epoch(
    searcher: Searcher, epoch: int, sums: list[float], before, held_out: Sequence[Batch]
) -> tuple[dict, list[np.ndarray]]:
    """The epoch's row, and its probabilities; hidden widths are scaled after the row is written."""
    s, probabilities = searcher.settings, searcher.probabilities()
    training_alphas, steps = epoch >= s.weight_epochs, s.steps_per_epoch
    alpha_steps = max(1, (steps + 1) // 2)
    row = {"epoch": epoch, "alphas_trained": training_alphas, "temperature": temperature_of(s, epoch)}
    row |= {"lr": searcher.sgd.param_groups[0]["lr"], "loss": sums[0] / steps, "accuracy": 100 * sums[1] / steps}
    row |= {"alpha_loss": sums[2] / alpha_steps, "latency_loss": sums[3] / alpha_steps} | describe(probabilities, before)
    row |= searcher.held_out(held_out) if held_out else {}
    row |= {"expected_ms": searcher.expected_ms(), "argmax_ms": searcher.latency_ms(searcher.argmax())}
    if s.elasticity and training_alphas:
        searcher.scale_elastically()
    row["scaled_ms"] = searcher.latency_ms(searcher.argmax())
    return row, probabilities


def _result(searcher: Searcher, epochs: list[dict], alphas: list[dict]) -> SearchResult:
    s = searcher.settings
    frame = pd.DataFrame(epochs)
    fitted = fit_widths(searcher.argmax(), s.target_ms, searcher.latency_ms)
    verdict = judge_search(frame, len(searcher.space.layers), s.target_ms, searcher.cheapest_share())
    logs = tuple(np.log(np.clip(p, 1e-12, 1)) for p in searcher.probabilities())
    return SearchResult(fitted, logs, frame, pd.DataFrame(alphas), verdict)
