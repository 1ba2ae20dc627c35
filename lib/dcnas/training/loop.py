"""One training loop for classifier, denoiser and joint model: an optimiser, a schedule, a progress bar, exact resume.

The loop knows nothing of data sets: `draw(step)` gives the batch of a step and must depend on the step alone. So a run that was
killed goes on from its checkpoint with the very batches it would have seen, and ends with the same bits on a CPU.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau
from tqdm.auto import tqdm

from ..errors import InputError, require_choice, require_finite, require_whole
from . import checkpoint, parallel
from .recorded import Recorded
from .tasks import Batch

PRECISIONS = ("fp32", "tf32", "bf16")
SCHEDULES = ("plateau", "one-cycle", "cosine")
OPTIMISERS = ("adam", "sgd")
AT_ONCE = 64  # images of a validation: its memory does not grow with their number


@dataclass(frozen=True)
class Settings:
    """How to train. Section 3: Adam, lr 1e-3, plateau schedule, 100 epochs of 30,000 images; batch size not stated.

    Section 4, as in [16]: SGD with momentum 0.9, lr 0.2, cosine schedule, weight decay 1e-5, gradients clipped to a norm of 5.
    """

    steps: int  # optimiser steps in all
    epoch_steps: int  # steps between two validations (an epoch of the plateau schedule)
    lr: float = 1e-3  # of Adam; the peak of the one-cycle schedule
    schedule: str = "plateau"  # PyTorch's defaults: a tenth after 10 epochs without progress; or "one-cycle" for short runs
    precision: str = "fp32"  # of the forward and backward pass; weights and Adam stay float32
    channels_last: bool = True  # memory format; which one is faster depends on widths and precision
    optimiser: str = "adam"  # or "sgd", with momentum 0.9
    weight_decay: float = 0.0
    clip_norm: float | None = None  # largest norm of the gradients
    recorded: bool = True  # on one GPU, replay forward and backward as a CUDA graph

    def __post_init__(self):
        require_whole("steps", self.steps)
        require_whole("epoch_steps", self.epoch_steps)
        require_finite("lr", self.lr)
        require_choice("schedule", self.schedule, SCHEDULES)
        require_choice("precision", self.precision, PRECISIONS)
        require_choice("optimiser", self.optimiser, OPTIMISERS)
        require_finite("weight_decay", self.weight_decay)

    @classmethod
    def of(cls, experiment) -> "Settings":
        """The settings among the fields of an experiment; those it does not have are as they are by default."""
        return cls(**{field.name: getattr(experiment, field.name) for field in fields(cls) if hasattr(experiment, field.name)})


class Trainer:
    """A model in training: `step(batch)` is the bare step that `fit` repeats (and that the benchmark compares it with)."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Batch], Tensor], settings: Settings, device="cpu"):
        self.device, self.settings, self.loss = torch.device(device), settings, loss
        layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.model = model.to(self.device, memory_format=layout).train()
        self.together = parallel.wrap(self.model)
        alone_on_gpu = self.device.type == "cuda" and parallel.world() == 1
        self.recorded = Recorded(self.device) if alone_on_gpu and settings.recorded else None
        how = dict(lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        if settings.optimiser == "adam":
            self.optimiser = torch.optim.Adam(self.model.parameters(), **how)
        else:
            self.optimiser = torch.optim.SGD(self.model.parameters(), momentum=0.9, **how)
        if settings.schedule == "plateau":
            self.schedule = ReduceLROnPlateau(self.optimiser)
        elif settings.schedule == "cosine":
            self.schedule = CosineAnnealingLR(self.optimiser, settings.steps)
        else:
            self.schedule = OneCycleLR(self.optimiser, settings.lr, total_steps=settings.steps)

    def step(self, batch: Batch) -> Tensor:
        """One optimiser step; the detached loss, still on the device."""
        loss = self._gradients(batch) if self.recorded is None else self.recorded(self._gradients, batch)
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm, foreach=True)
        self.optimiser.step()
        if self.settings.schedule != "plateau":
            self.schedule.step()
        return loss

    def _gradients(self, batch: Batch) -> Tensor:
        """Forward and backward: fresh gradients of the weights, and the detached loss."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            loss = self.loss(self.together, parallel.share(batch))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        return loss.detach()

    def state(self) -> dict:
        """All that the next step depends on."""
        return {
            "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(), "torch_rng": torch.get_rng_state(),
        }  # fmt: skip

    def restore(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["torch_rng"].cpu())


def validation(loss: Callable[[nn.Module, Batch], Tensor], batch: Batch) -> Callable[[nn.Module], float]:
    """`validate(model)` for `fit`: the loss on the same images each time, `AT_ONCE` at once, in evaluation mode."""
    starts = range(0, len(batch.clean), AT_ONCE)
    parts = [Batch(*(None if rows is None else rows[i : i + AT_ONCE] for rows in batch)) for i in starts]

    def validate(model: nn.Module) -> float:
        model.eval()
        with torch.no_grad():
            value = sum(loss(model, part) * len(part.clean) for part in parts).item() / len(batch.clean)
        model.train()
        return value

    return validate


def fit(
    trainer: Trainer,
    draw: Callable[[int], Batch],
    validate: Callable[[nn.Module], float],
    folder: Path,
    *,
    label: str = "training",
    progress: bool = True,
    checkpoint_s: float = 30.0,
    deadline: float | None = None,
) -> list[dict] | None:
    """Train to the last step and return the history, a row per epoch: step, loss, validation_loss, lr, images_per_s, seconds.

    Goes on from the checkpoint in `folder` if there is one, and writes one every `checkpoint_s` seconds. At `deadline`
    (time.monotonic) it writes a checkpoint and returns None: the same call goes on later. `loss` is the mean since the last row.
    """
    settings = trainer.settings
    done = _Progress(torch.zeros((), device=trainer.device))
    if (saved := checkpoint.load(folder, trainer.device)) is not None:
        if missing := {"trainer", *vars(done)} - set(saved):
            what = ", ".join(sorted(missing))
            raise InputError(f"the checkpoint in {folder} lacks {what}, as those of another version do; delete it to train anew.")
        trainer.restore(saved["trainer"])
        done = _Progress(**{name: saved[name] for name in vars(done)})
    begun, before = time.monotonic(), done.seconds
    last_save = begun
    bar = tqdm(total=settings.steps, initial=done.step, desc=label, unit="step", disable=not progress, dynamic_ncols=True)
    with bar, _matmul_precision(settings.precision):
        show = _shown(bar, done)
        while done.step < settings.steps:
            batch = draw(done.step)
            loss = trainer.step(batch)
            done.step, done.images = done.step + 1, done.images + len(batch.clean)
            done.loss_sum += loss
            now = time.monotonic()
            done.seconds = before + now - begun
            last = done.step == settings.steps
            if last or done.step % settings.epoch_steps == 0:
                _end_epoch(trainer, validate, done)
            show(now, loss, last)
            stop = deadline is not None and parallel.told(now > deadline)
            if not last and (stop or now - last_save > checkpoint_s):
                if parallel.is_first():
                    checkpoint.save(folder, {"trainer": trainer.state(), **vars(done)})
                last_save = now
                if stop:
                    return None
    return done.history


@dataclass
class _Progress:
    """How far a training is; all of it is in the checkpoint."""

    loss_sum: Tensor  # since the last row of the history
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)


def _end_epoch(trainer: Trainer, validate: Callable[[nn.Module], float], done: _Progress) -> None:
    """A row of the history, and the plateau schedule's step."""
    steps = done.step - (done.history[-1]["step"] if done.history else 0)
    row = {
        "step": done.step,
        "loss": parallel.mean(done.loss_sum).item() / steps,
        "lr": trainer.optimiser.param_groups[0]["lr"],
        "validation_loss": validate(trainer.model),
        "images_per_s": round(done.images / max(done.seconds, 1e-9), 1),
        "seconds": round(done.seconds, 1),
    }
    done.history.append(row)
    done.loss_sum = torch.zeros_like(done.loss_sum)
    if trainer.settings.schedule == "plateau":
        trainer.schedule.step(row["validation_loss"])


def _shown(bar: tqdm, done: _Progress) -> Callable[[float, Tensor, bool], None]:
    """`show(now, loss, last)`: twice a second at most, because reading a loss waits for a GPU."""
    shown_s, step, images = time.monotonic(), done.step, done.images

    def show(now: float, loss: Tensor, last: bool) -> None:
        nonlocal shown_s, step, images
        if now - shown_s > 0.5 or last:
            bar.set_postfix_str(f"loss {loss.item():.4f}, {(done.images - images) / max(now - shown_s, 1e-9):.0f} images/s", False)
            bar.update(done.step - step)
            shown_s, step, images = now, done.step, done.images

    return show


class _matmul_precision:
    """TF32 for the matrix products inside the block where `precision` asks for it."""

    def __init__(self, precision: str):
        self.wanted = "high" if precision == "tf32" else "highest"

    def __enter__(self):
        self.before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision(self.wanted)
        torch.backends.cudnn.allow_tf32 = self.wanted == "high"

    def __exit__(self, *_):
        torch.set_float32_matmul_precision(self.before[0])
        torch.backends.cudnn.allow_tf32 = self.before[1]
