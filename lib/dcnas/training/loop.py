"""One training loop for classifier, denoiser and joint model: an optimiser, a schedule, a progress bar, exact resume.

The loop knows nothing of data sets: `draw(step)` gives the batch of a step and must depend on the step alone. So a run that was
killed goes on from its checkpoint with the very batches it would have seen, and ends with the same bits on a CPU.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau
from tqdm.auto import tqdm

from ..errors import require_choice, require_finite, require_whole
from . import checkpoint, parallel
from .tasks import Batch

PRECISIONS = ("fp32", "tf32", "bf16")
SCHEDULES = ("plateau", "one-cycle", "cosine")
OPTIMISERS = ("adam", "sgd")


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
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            loss = self.loss(self.together, parallel.share(batch))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm, foreach=True)
        self.optimiser.step()
        if self.settings.schedule != "plateau":
            self.schedule.step()
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
    """`validate(model)` for `fit`: the loss on one fixed batch, in evaluation mode."""

    def validate(model: nn.Module) -> float:
        model.eval()
        with torch.no_grad():
            value = loss(model, batch).item()
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
    step, history, loss_sum, seconds, images = 0, [], torch.zeros((), device=trainer.device), 0.0, 0
    if (saved := checkpoint.load(folder, trainer.device)) is not None:
        trainer.restore(saved["trainer"])
        step, history, seconds, images = saved["step"], saved["history"], saved["seconds"], saved["images"]
        loss_sum = saved["loss_sum"].to(trainer.device)

    def save() -> None:
        if not parallel.is_first():
            return
        state = {"trainer": trainer.state(), "step": step, "history": history, "loss_sum": loss_sum}
        checkpoint.save(folder, state | {"seconds": seconds + time.monotonic() - begun, "images": images})

    begun = last_save = last_shown = time.monotonic()
    bar = tqdm(total=settings.steps, initial=step, desc=label, unit="step", disable=not progress, dynamic_ncols=True)
    with bar, _matmul_precision(settings.precision):
        shown_step, shown_images = step, images
        while step < settings.steps:
            batch = draw(step)
            loss = trainer.step(batch)
            step, images = step + 1, images + len(batch.clean)
            loss_sum += loss
            if step % settings.epoch_steps == 0 or step == settings.steps:
                steps_in_row = step - (history[-1]["step"] if history else 0)
                elapsed = seconds + time.monotonic() - begun
                row = {
                    "step": step,
                    "loss": parallel.mean(loss_sum).item() / steps_in_row,
                    "lr": trainer.optimiser.param_groups[0]["lr"],
                }
                row["validation_loss"] = validate(trainer.model)
                row |= {"images_per_s": round(images / max(elapsed, 1e-9), 1), "seconds": round(elapsed, 1)}
                history.append(row)
                loss_sum = torch.zeros_like(loss_sum)
                if settings.schedule == "plateau":
                    trainer.schedule.step(row["validation_loss"])
            now = time.monotonic()
            if now - last_shown > 0.5 or step == settings.steps:
                bar.set_postfix_str(f"loss {loss.item():.4f}, {(images - shown_images) / (now - last_shown):.0f} images/s", False)
                bar.update(step - shown_step)
                last_shown, shown_step, shown_images = now, step, images
            stop = deadline is not None and parallel.told(now > deadline)
            if step < settings.steps and (stop or now - last_save > checkpoint_s):
                save()
                last_save = now
                if stop:
                    return None
    return history


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
