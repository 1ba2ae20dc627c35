"""The search of Section 4.1: TF-NAS [16] with beta removed and fewer operators, for a target latency.

Weights and alphas are trained in turn, on two disjoint parts of the training images. All draws depend on
(seed, step) alone and everything is checkpointed, so a killed search goes on and ends with the same
alphas, bit for bit, on a CPU.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from ..errors import InputError
from ..latency.table import Table
from ..training import checkpoint
from ..training.tasks import Batch
from .derive import fit_widths
from .recorder import Verdict, alpha_rows, describe, judge_search
from .searcher import Searcher
from .settings import SearchSettings, check_target
from .space import Architecture, Space


@dataclass(frozen=True)
class SearchResult:
    """What a search found. `epochs` has a row per epoch, `alphas` a row per epoch, place and choice."""

    architecture: Architecture  # argmax, hidden widths fitted to the target by the table
    log_alphas: tuple[np.ndarray, ...]
    epochs: pd.DataFrame
    alphas: pd.DataFrame
    verdict: Verdict


def run_search(
    space: Space,
    table: Table,
    settings: SearchSettings,
    draw_weights: Callable[[int], Batch],
    draw_alphas: Callable[[int], Batch],
    folder: Path,
    *,
    held_out: Sequence[Batch] = (),
    device: str | torch.device = "cpu",
    progress: bool = True,
    deadline: float | None = None,
    checkpoint_s: float = 60.0,
    label: str = "search",
) -> SearchResult | None:
    """Search, going on from the checkpoint in `folder` where there is one.

    `draw_weights(step)` and `draw_alphas(step)` give batches as functions of the step alone, from
    disjoint parts of the images; every epoch ends with a look at `held_out`, of a third part, if it is
    given. None if the deadline (time.monotonic) came first.
    """
    check_target(space, table, settings)
    searcher = Searcher(space, table, settings, device)
    done = Progress()
    if (saved := checkpoint.load(folder, torch.device(device))) is not None:
        if saved.pop("settings") != repr((space, settings)):
            text = "has other settings; remove its folder, or use those."
            raise InputError(f"the search in {folder.name} {text}")
        searcher.restore(saved.pop("searcher"))
        done = Progress(**saved)
    saved_s, total = time.monotonic(), settings.epochs * settings.steps_per_epoch
    bar = tqdm(total=total, initial=done.step, desc=label, unit="step", disable=not progress)
    with bar:
        while done.step < total:
            epoch, within = divmod(done.step, settings.steps_per_epoch)
            training_alphas = epoch >= settings.weight_epochs
            if within == 0:
                searcher.begin_epoch(epoch)
            loss, right = searcher.weight_step(done.step, draw_weights(done.step), both=training_alphas)
            values = [loss.item(), right.item(), 0.0, 0.0]
            if training_alphas and within % 2 == 0:
                temperature = settings.temperature(epoch)
                losses = searcher.alpha_step(done.step, draw_alphas(done.step), temperature)
                values[2:] = [value.item() for value in losses]
            done.sums = [a + b for a, b in zip(done.sums, values, strict=True)]
            done.step += 1
            if done.step % settings.steps_per_epoch == 0:
                _end_epoch(searcher, epoch, done, held_out)
                row = done.epochs[-1]
                bar.set_postfix_str(f"loss {row['loss']:.3f}, {row['argmax_ms']:.2f} ms", False)
            bar.update()
            now = time.monotonic()
            stop = deadline is not None and now > deadline
            if done.step < total and (stop or now - saved_s > checkpoint_s):
                state = {"searcher": searcher.state(), "settings": repr((space, settings)), **vars(done)}
                checkpoint.save(folder, state)
                saved_s = now
                if stop:
                    return None
    epochs = pd.DataFrame(done.epochs)
    fitted = fit_widths(searcher.argmax(), settings.target_ms, searcher.latency_ms)
    layers = sum(searcher.used())
    verdict = judge_search(epochs, layers, settings.target_ms, searcher.cheapest_share())
    logs = tuple(np.log(np.clip(p, 1e-12, 1)) for p in searcher.probabilities())
    return SearchResult(fitted, logs, epochs, pd.DataFrame(done.alphas), verdict)


@dataclass
class Progress:
    """How far a search is; all of it is in the checkpoint."""

    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)  # of this epoch: losses, right answers
    epochs: list[dict] = field(default_factory=list)
    alphas: list[dict] = field(default_factory=list)
    before: list[list[float]] | None = None  # probabilities at the end of the last epoch


def _end_epoch(searcher: Searcher, epoch: int, done: Progress, held_out: Sequence[Batch]) -> None:
    """The epoch's row and alphas; hidden widths are scaled after the row is written."""
    s, probabilities = searcher.settings, searcher.probabilities()
    alpha_steps = max(1, (s.steps_per_epoch + 1) // 2)
    loss, right, alpha_loss, latency_loss = done.sums
    row = {
        "epoch": epoch,
        "alphas_trained": epoch >= s.weight_epochs,
        "temperature": s.temperature(epoch),
        "lr": searcher.sgd.param_groups[0]["lr"],
        "loss": loss / s.steps_per_epoch,
        "accuracy": 100 * right / s.steps_per_epoch,
        "alpha_loss": alpha_loss / alpha_steps,
        "latency_loss": latency_loss / alpha_steps,
    }
    pair = probabilities, done.before or probabilities
    moved = [[p for p, used in zip(some, searcher.used()) if used] for some in pair]
    row |= describe(*moved)
    row |= searcher.held_out(held_out) if held_out else {}
    row |= {"expected_ms": searcher.expected_ms(), "argmax_ms": searcher.latency_ms(searcher.argmax())}
    if s.elasticity and row["alphas_trained"]:
        searcher.scale_elastically()
    row["scaled_ms"] = searcher.latency_ms(searcher.argmax())
    done.epochs.append(row)
    done.alphas += alpha_rows(searcher.space, epoch, probabilities, searcher.depth_probabilities())
    done.sums, done.before = [0.0] * 4, [p.tolist() for p in probabilities]
