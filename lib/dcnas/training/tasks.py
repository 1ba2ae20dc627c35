"""What a network is trained for: classify crops, denoise images, or both (Sections 3.1, 3.2, 3.3).

All three see the same batch: clean and noisy images, the digits' boxes and labels.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from ..models.crops import crop_boxes
from .losses import charbonnier, joint_loss

TASKS = ("classify", "denoise", "joint")


class Batch(NamedTuple):
    """clean and noisy (B, C, H, W) in [0, 1] (noisy may leave it), boxes (B, K, 4), labels (B, K)."""

    clean: Tensor
    noisy: Tensor
    boxes: Tensor
    labels: Tensor


def predict(
    task: str, model: nn.Module, noisy: Tensor, boxes: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """(denoised images or None, logits (B, K, classes) or None)."""
    if task == "classify":
        return None, model(crop_boxes(noisy, boxes)).unflatten(0, boxes.shape[:2])
    if task == "denoise":
        return model(noisy), None
    return model(noisy, boxes)


def task_loss(task: str, model: nn.Module, batch: Batch, ce_weight: float) -> Tensor:
    """Cross entropy, Charbonnier, or their weighted sum with `ce_weight` for the cross entropy."""
    denoised, logits = predict(task, model, batch.noisy, batch.boxes)
    if denoised is None:
        return F.cross_entropy(logits.float().flatten(0, -2), batch.labels.flatten())
    if logits is None:
        return charbonnier(denoised.float(), batch.clean)
    return joint_loss(denoised.float(), logits.float(), batch.clean, batch.labels, ce_weight)
