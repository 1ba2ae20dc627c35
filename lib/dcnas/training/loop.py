"""One training loop for classifier, denoiser and joint model: an optimiser, a schedule, exact resume.

`draw(step)` gives the batch of a step and must depend on the step alone: so a run that was killed goes
on with the very batches it would have seen, and ends with the same bits on a CPU.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
PROGRESS = ("loss_sum", "step", "images", "seconds", "history")  # how far a training is, in a checkpoint


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
        for buffer, before in buffers:  # the recording has run the model, which moved their statistics
            buffer.copy_(before)
        self.unrecorded = False

    def state(self) -> dict:
        """All that the next step depends on."""
        states = {name: getattr(self, name).state_dict() for name in ("model", "optimiser", "schedule")}
        return states | {"torch_rng": torch.get_rng_state()}

    def restore(self, state: dict) -> None:
        for name in ("model", "optimiser", "schedule"):
            getattr(self, name).load_state_dict(state[name])
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
    settings, loss_sum = trainer.settings, torch.zeros((), device=trainer.device)
    step, images, seconds, history = 0, 0, 0.0, []
    if (saved := checkpoint.load(folder, trainer.device)) is not None:
        trainer.restore(saved["trainer"])
        loss_sum, step, images, seconds, history = (saved[name] for name in PROGRESS)
    begun_s = time.monotonic() - seconds
    saved_s = shown_s = time.monotonic()
    bar = tqdm(total=settings.steps, initial=step, desc=label, unit="step", disable=not progress)
    with bar, matmul_precision(settings.precision):
        while step < settings.steps:
            batch = draw(step)
            loss = trainer.step(batch)
            loss_sum += loss
            step, images, now = step + 1, images + len(batch.clean), time.monotonic()
            seconds, last = now - begun_s, step == settings.steps
            speed = images / max(seconds, 1e-9)
            if last or step % settings.epoch_steps == 0:
                steps = step - (history[-1]["step"] if history else 0)
                row = {"step": step, "loss": parallel.mean(loss_sum).item() / steps}
                row |= {"lr": trainer.optimiser.param_groups[0]["lr"]}
                row |= {"validation_loss": validate(trainer.model)}
                row |= {"images_per_s": round(speed, 1), "seconds": round(seconds, 1)}
                history.append(row)
                loss_sum = torch.zeros_like(loss_sum)
                if settings.schedule == "plateau":
                    trainer.schedule.step(row["validation_loss"])
            if last or now - shown_s > SHOWN_S:
                bar.set_postfix_str(f"loss {loss.item():.4f}, {speed:.0f} images/s", False)
                bar.update(step - bar.n)
                shown_s = now
            stop = deadline is not None and parallel.told(now > deadline)
            if not last and (stop or now - saved_s > checkpoint_s):
                if parallel.is_first():
                    values = loss_sum, step, images, seconds, history
                    state = dict(zip(PROGRESS, values)) | {"trainer": trainer.state()}
                    checkpoint.save(folder, state)
                saved_s = now
                if stop:
                    return None
    return history


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
