"""Losses, metrics and the training loop of Section 3."""

from .loop import Settings, Trainer, fit, validation
from .losses import charbonnier, joint_loss, ssim_loss
from .metrics import evaluate, psnr, ssim, summarise
from .tasks import TASKS, Batch, predict, task_loss

__all__ = ["TASKS", "Batch", "Settings", "Trainer", "charbonnier", "evaluate", "fit", "joint_loss"]
__all__ += ["predict", "psnr", "ssim", "ssim_loss", "summarise", "task_loss", "validation"]
