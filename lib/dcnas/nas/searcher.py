"""The supernet in search: how a step trains its weights and its alphas (Section 4.1, after TF-NAS [16]).

A step trains the weights of two sampled paths, one by Gumbel and one uniformly among the other operators
(bi-sampling); every second step updates the alphas, with all operators at work and the paper's latency
penalty. Each freedom is a setting.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..latency.table import Table
from ..seed import generator, set_seed
from ..training.losses import SSIM_WEIGHT, denoising_loss, joint_loss
from ..training.metrics import psnr
from ..training.tasks import Batch
from .alphas import alpha_optimiser, alpha_update
from .blocks import InvertedResidual, SqueezeExcite
from .derive import argmax_architecture, fit_widths
from .lut import base_ms, has_layer, operators_ms, predicted_ms
from .settings import SearchSettings
from .space import Architecture, Space
from .supernet import Supernet


def gumbel(shape: tuple[int, ...], stream: torch.Generator) -> Tensor:
    """Standard Gumbel noise."""
    return -torch.empty(shape).exponential_(generator=stream).log()


class Searcher:
    """A supernet in search: `weight_step` and `alpha_step` are what `run_search` repeats."""

    def __init__(
        self, space: Space, table: Table, settings: SearchSettings, device: torch.device | str = "cpu"
    ):
        self.space, self.table, self.settings, self.device = space, table, settings, torch.device(device)
        set_seed(settings.seed)
        decoder, classifies = settings.loss != "ce", settings.loss != "denoise"
        supernet = Supernet(space, settings.learn_beta, decoder, classifies)
        self.supernet = supernet.to(self.device, memory_format=torch.channels_last).train()
        self.weights = supernet.weight_parameters()
        self.architecture = supernet.architecture_parameters()
        self.base_ms = base_ms(table, settings.network)
        self.make_optimisers()
        self.refresh_latencies()

    def make_optimisers(self) -> None:
        s = self.settings
        how = dict(lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay, foreach=True)
        self.sgd, self.adam = torch.optim.SGD(self.weights, **how), alpha_optimiser(self.architecture, s)

    def begin_epoch(self, epoch: int) -> None:
        """The weights' learning rate by the cosine schedule; new optimisers where settings say so."""
        if self.settings.rebuild_optimisers:
            self.make_optimisers()
        for group in self.sgd.param_groups:
            group["lr"] = self.settings.lr * (1 + math.cos(math.pi * epoch / self.settings.epochs)) / 2

    def hidden(self) -> list[list[int]]:
        """The present hidden widths of each layer's operators."""
        return [list(layer.hidden) for layer in self.supernet.layers]

    def refresh_latencies(self) -> None:
        """Look up the operators' latencies at their present hidden widths."""
        network = self.settings.network
        layers_ms = operators_ms(self.table, self.space, self.hidden(), network)
        self.block_ms = [ms.to(self.device) for ms in layers_ms]

    def _loss(self, output: tuple[Tensor | None, Tensor], batch: Batch) -> Tensor:
        denoised, logits = output
        if denoised is None:
            return F.cross_entropy(logits, batch.labels)
        if logits is None:
            return denoising_loss(denoised, batch.clean, SSIM_WEIGHT)
        return joint_loss(denoised, logits, batch.clean, batch.labels, ssim_weight=SSIM_WEIGHT)

    def sample_paths(self, step: int, both: bool) -> list[list[int]]:
        """A path by Gumbel and, with `both`, one uniformly random among each layer's other operators."""
        stream = generator("paths", self.settings.seed, step)
        first, second = [], []
        for alphas in self.supernet.alphas():
            noisy = alphas.detach().cpu() + gumbel(alphas.shape, stream)
            first.append(int(noisy.argmax()))
            other = int(torch.randint(len(alphas) - 1, (), generator=stream))
            second.append(other + (other >= first[-1]))
        return [first, second] if both else [first]

    def weight_step(self, step: int, batch: Batch, both: bool = True) -> tuple[Tensor, Tensor]:
        """Train the weights of one or two sampled paths.

        The summed loss, and the share of right answers of the Gumbel path.
        """
        outputs = self.supernet.forward_paths(batch.noisy, self.sample_paths(step, both))
        loss = sum(self._loss(output, batch) for output in outputs)
        self.sgd.zero_grad(set_to_none=True)
        loss.backward(inputs=self.weights)
        torch.nn.utils.clip_grad_norm_(self.weights, self.settings.clip, foreach=True)
        self.sgd.step()
        logits = outputs[0][1]
        right = loss.new_zeros(1) if logits is None else (logits.argmax(1) == batch.labels).float()
        return loss.detach(), right.mean()

    def alpha_step(self, step: int, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
        """Train alphas (and betas) on the task's loss and the latency penalty: the two losses."""
        s, stream = self.settings, generator("alphas", self.settings.seed, step)
        alphas = self.supernet.alphas()
        noisy = [F.log_softmax(a, 0) + gumbel(a.shape, stream).to(a.device) for a in alphas]
        weights = mixture = [F.softmax(z / temperature, 0) for z in noisy]
        pairs = None
        if s.alpha_gradient == "two":
            chances = (a.detach().cpu().exp() for a in alphas)
            pairs = [torch.multinomial(p, 2, generator=stream).tolist() for p in chances]
            mixture = [F.softmax(z[pair] / temperature, 0) for z, pair in zip(noisy, pairs)]
        output = self.supernet.forward_mixed(batch.noisy, mixture, pairs)
        task = self._loss(output, batch)
        latency = self.supernet.expected_latency_ms(weights, self.block_ms, self.base_ms)
        penalty = s.latency_weight * (latency / s.target_ms - 1).abs()
        self.adam.zero_grad(set_to_none=True)
        (task + penalty).backward(inputs=self.architecture)
        alpha_update(self.adam, s)
        return task.detach(), penalty.detach()

    def probabilities(self) -> list[np.ndarray]:
        """Of each layer's operators."""
        return _probabilities(self.supernet.alphas())

    def depth_probabilities(self) -> list[np.ndarray]:
        """Of each stage's depths; empty where beta is removed."""
        return _probabilities(self.supernet.betas or ())

    def argmax(self) -> Architecture:
        """The most probable architecture at the present hidden widths."""
        depths = [int(p.argmax()) + 1 for p in self.depth_probabilities()]
        return argmax_architecture(self.space, self.probabilities(), self.hidden(), depths)

    def expected_ms(self) -> float:
        """Latency of the mixture by the alphas themselves, without Gumbel noise."""
        weights = [F.softmax(a.detach(), 0) for a in self.supernet.alphas()]
        with torch.no_grad():
            return float(self.supernet.expected_latency_ms(weights, self.block_ms, self.base_ms))

    def latency_ms(self, architecture: Architecture) -> float:
        return predicted_ms(self.table, architecture, self.settings.network)

    def cheapest_share(self) -> float:
        """The share of layers whose best operator is their cheapest."""
        pairs = zip(self.probabilities(), self.block_ms, self.used(), strict=True)
        return float(np.mean([int(p.argmax()) == int(ms.argmin()) for p, ms, used in pairs if used]))

    def used(self) -> list[bool]:
        """Whether the searched network has each layer."""
        return [has_layer(self.settings.network, layer) for layer in self.space.layers]

    def scale_elastically(self) -> None:
        """Shrink or widen the most probable operators to the target; their strongest channels stay."""
        fitted = fit_widths(self.argmax(), self.settings.target_ms, self.latency_ms)
        for layer, choice in zip(self.supernet.layers, fitted.choices, strict=True):
            if choice is not None:
                index = self.space.candidates.index(choice.operator)
                if layer.hidden[index] != choice.hidden:
                    self._sort_channels(layer.blocks[index])
                    layer.hidden[index] = choice.hidden
        self.refresh_latencies()

    def _sort_channels(self, block: InvertedResidual) -> None:
        """Put a block's channels, and momenta, in the order of their depthwise filters' L1 norm."""
        depthwise = block.depthwise[0].weight
        order = depthwise.detach().abs().sum((1, 2, 3)).argsort(descending=True, stable=True)
        axes = {block.expand[0].weight: 0, depthwise: 0, block.project[0].weight: 1}
        if isinstance(block.se, SqueezeExcite):
            axes |= {block.se.reduce.weight: 1, block.se.expand.weight: 0, block.se.expand.bias: 0}
        for parameter, axis in axes.items():
            momentum = self.sgd.state.get(parameter, {}).get("momentum_buffer")
            for tensor in (parameter.detach(), momentum):
                if tensor is not None:
                    tensor.copy_(tensor.index_select(axis, order))

    def held_out(self, batches: Sequence[Batch]) -> dict[str, float]:
        """How the most probable path does on images that no step has seen.

        Accuracies in %, cross entropy, and the largest class in %: a supernet that has learned is better
        than always naming that. Each batch is normed by its own statistics, as everywhere in a search.
        """
        best = [int(p.argmax()) for p in self.probabilities()]
        if self.settings.loss == "denoise":
            return self._held_out_psnr(batches, best)
        with torch.no_grad():
            outputs = [self.supernet.forward_paths(batch.noisy, [best])[0] for batch in batches]
        logits = torch.cat([logits for _, logits in outputs]).cpu()
        labels = torch.cat([batch.labels for batch in batches]).cpu()
        right = logits.argmax(1) == labels
        counts = torch.bincount(labels, minlength=self.space.classes)
        recalls = torch.bincount(labels[right], minlength=self.space.classes) / counts.clamp(min=1)
        return {
            "held_out_accuracy": 100 * right.float().mean().item(),
            "held_out_balanced_accuracy": 100 * recalls[counts > 0].mean().item(),
            "held_out_loss": F.cross_entropy(logits, labels).item(),
            "largest_class": 100 * counts.max().item() / len(labels),
        }

    def _held_out_psnr(self, batches: Sequence[Batch], best: list[int]) -> dict:
        noisy, denoised = [], []
        with torch.no_grad():
            for batch in batches:
                image = self.supernet.forward_paths(batch.noisy, [best])[0][0]
                denoised.append(psnr(image.clamp(0, 1), batch.clean))
                noisy.append(psnr(batch.noisy.clamp(0, 1), batch.clean))
        means = {"held_out_psnr": torch.cat(denoised), "held_out_noisy_psnr": torch.cat(noisy)}
        return {name: values.mean().item() for name, values in means.items()}

    def state(self) -> dict:
        """All that the next step depends on, but for the step's number."""
        parts = {"supernet": self.supernet, "sgd": self.sgd, "adam": self.adam}
        return {name: part.state_dict() for name, part in parts.items()} | {"hidden": self.hidden()}

    def restore(self, state: dict) -> None:
        for name in ("supernet", "sgd", "adam"):
            getattr(self, name).load_state_dict(state[name])
        for layer, hidden in zip(self.supernet.layers, state["hidden"], strict=True):
            layer.hidden = list(hidden)
        self.refresh_latencies()


def _probabilities(log_probabilities: Iterable[Tensor]) -> list[np.ndarray]:
    return [F.softmax(p.detach().double().cpu(), 0).numpy() for p in log_probabilities]
