"""One training loop for classifier, denoiser and joint model: an optimiser, a schedule, exact resume.

The loop knows nothing of data sets: `draw(step)` gives the batch of a step and must depend on the step
alone. So a run that was killed goes on from its checkpoint with the very batches it would have seen, and
ends with the same bits on a CPU.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau
from tqdm.auto import tqdm

from . import checkpoint, parallel
from .tasks import Batch

Loss = Callable[[nn.Module, Batch], Tensor]

AT_ONCE = 64  # images of a validation: its memory does not grow with their number
SHOWN_S = 0.5  # between two losses on the progress bar: reading one waits for a GPU


@dataclass(frozen=True)
class Settings:
    """How to train. Section 3: Adam, lr 1e-3, plateau schedule, 100 epochs of 30,000 images.

    Section 4, as in [16]: SGD with momentum 0.9, lr 0.2, cosine schedule, weight decay 1e-5, gradients
    clipped to a norm of 5.
    """

    steps: int  # optimiser steps in all
    epoch_steps: int  # steps between two validations (an epoch of the plateau schedule)
    lr: float = 1e-3  # of Adam; the peak of the one-cycle schedule
    schedule: str = "plateau"  # a tenth after 10 epochs without progress; or "cosine", "one-cycle"
    precision: str = "fp32"  # or "tf32", "bf16", of both passes; weights and Adam stay float32
    channels_last: bool = True  # memory format; which one is faster depends on widths and precision
    optimiser: str = "adam"  # or "sgd", with momentum 0.9
    weight_decay: float = 0.0
    clip_norm: float | None = None  # largest norm of the gradients
    recorded: bool = True  # on one GPU, replay forward and backward as CUDA graphs

    @classmethod
    def of(cls, run) -> "Settings":
        """The settings among the fields of a run; those it does not have are as they are by default."""
        return cls(**{f.name: getattr(run, f.name) for f in fields(cls) if hasattr(run, f.name)})


class BatchLoss(nn.Module):
    """The loss of a batch in the training's precision: a module of tensors, as CUDA graphs need it."""

    def __init__(self, model: nn.Module, loss: Loss, precision: str):
        super().__init__()
        self.model, self.loss, self.precision = model, loss, precision

    def forward(self, clean: Tensor, noisy: Tensor, labels: Tensor, boxes: Tensor | None = None):
        with torch.autocast(clean.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.loss(self.model, Batch(clean, noisy, boxes, labels))


class Trainer:
    """A model in training: `step(batch)` is the bare step that `fit` repeats."""

    def __init__(self, model: nn.Module, loss: Loss, settings: Settings, device="cpu"):
        self.device, self.settings = torch.device(device), settings
        layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.model = model.to(self.device, memory_format=layout).train()
        self.batch_loss = BatchLoss(parallel.wrap(self.model), loss, settings.precision)
        self.unrecorded = settings.recorded and self.device.type == "cuda" and parallel.world() == 1
        options = dict(lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        if settings.optimiser == "adam":
            self.optimiser = torch.optim.Adam(self.model.parameters(), **options)
        else:
            self.optimiser = torch.optim.SGD(self.model.parameters(), momentum=0.9, **options)
        if settings.schedule == "plateau":
            self.schedule = ReduceLROnPlateau(self.optimiser)
        elif settings.schedule == "cosine":
            self.schedule = CosineAnnealingLR(self.optimiser, settings.steps)
        else:
            self.schedule = OneCycleLR(self.optimiser, settings.lr, total_steps=settings.steps)

    def step(self, batch: Batch) -> Tensor:
        """One optimiser step; the detached loss, still on the device."""
        clean, noisy, boxes, labels = parallel.share(batch)
        tensors = (clean, noisy, labels) if boxes is None else (clean, noisy, labels, boxes)
        if self.unrecorded:
            self._record(tensors)
        loss = self.batch_loss(*tensors)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm, foreach=True)
        self.optimiser.step()
        if self.settings.schedule != "plateau":
            self.schedule.step()
        return loss.detach()

    def _record(self, tensors: tuple[Tensor, ...]) -> None:
        """Replay the loss and its gradients as CUDA graphs from now on, for batches of these shapes.

        The study's networks are so small that a GPU waits for Python to launch their kernels.
        """
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        with torch.cuda.device(self.device):
            inputs = tuple(tensor.clone() for tensor in tensors)
            torch.cuda.make_graphed_callables(self.batch_loss, inputs, allow_unused_input=True)
        for (
            buffer,
            before,
        ) in buffers:  # the recording runs the model, which moves batch norm's statistics
            buffer.copy_(before)
        self.unrecorded = False

    def state(self) -> dict:
        """All that the next step depends on."""
        parts = {"model": self.model, "optimiser": self.optimiser, "schedule": self.schedule}
        states = {name: part.state_dict() for name, part in parts.items()}
        return states | {"torch_rng": torch.get_rng_state()}

    def restore(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["torch_rng"].cpu())


def validation(loss: Loss, batch: Batch) -> Callable[[nn.Module], float]:
    """`validate(model)` for `fit`: the loss on the same images each time, in evaluation mode."""
    starts = range(0, len(batch.clean), AT_ONCE)
    parts = [Batch(*(None if rows is None else rows[i : i + AT_ONCE] for rows in batch)) for i in starts]

    def validate(model: nn.Module) -> float:
        model.eval()
        with torch.no_grad():
            value = sum(loss(model, part) * len(part.clean) for part in parts).item() / len(batch.clean)
        model.train()
        return value

    return validate


@dataclass
class Progress:
    """How far a training is; all of it is in the checkpoint."""

    loss_sum: Tensor  # since the last row of the history
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)


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
    """Train to the last step and return the history, a row per epoch.

    Goes on from the checkpoint in `folder` if there is one, and writes one every `checkpoint_s` seconds.
    At `deadline` (time.monotonic) it writes a checkpoint and returns None: the same call goes on later.
    """
    settings, done = trainer.settings, Progress(torch.zeros((), device=trainer.device))
    if (saved := checkpoint.load(folder, trainer.device)) is not None:
        trainer.restore(saved.pop("trainer"))
        done = Progress(**saved)
    begun_s = time.monotonic() - done.seconds
    saved_s = shown_s = time.monotonic()
    bar = tqdm(total=settings.steps, initial=done.step, desc=label, unit="step", disable=not progress)
    with bar, matmul_precision(settings.precision):
        while done.step < settings.steps:
            batch = draw(done.step)
            loss = trainer.step(batch)
            done.step, done.images = done.step + 1, done.images + len(batch.clean)
            done.loss_sum += loss
            now = time.monotonic()
            done.seconds = now - begun_s
            last = done.step == settings.steps
            if last or done.step % settings.epoch_steps == 0:
                _end_epoch(trainer, validate, done)
            if last or now - shown_s > SHOWN_S:
                speed = done.images / max(done.seconds, 1e-9)
                bar.set_postfix_str(f"loss {loss.item():.4f}, {speed:.0f} images/s", False)
                bar.update(done.step - bar.n)
                shown_s = now
            stop = deadline is not None and parallel.told(now > deadline)
            if not last and (stop or now - saved_s > checkpoint_s):
                if parallel.is_first():
                    checkpoint.save(folder, {"trainer": trainer.state(), **vars(done)})
                saved_s = now
                if stop:
                    return None
    return done.history


def _end_epoch(trainer: Trainer, validate: Callable[[nn.Module], float], done: Progress) -> None:
    """A row of the history, where `loss` is the mean since the last row; the plateau schedule's step."""
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


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """TF32 for matrix products and convolutions inside the block where `precision` is "tf32"."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
