"""The losses of Sections 3 and 4: cross entropy, Charbonnier [2], SSIM and the joint losses (Eq. 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .metrics import ssim

CE_WEIGHT = 0.1  # of the joint loss; the denoising part has 1 - CE_WEIGHT (Section 3.3 and Eq. 1)
SSIM_WEIGHT = 0.2  # of the denoising part in Section 4 (Eq. 1); Section 3 uses Charbonnier alone


def charbonnier(denoised: Tensor, clean: Tensor, eps: float = 1e-3) -> Tensor:
    """Mean of sqrt(error^2 + eps^2) over all pixels. The paper does not state eps; 1e-3 is usual."""
    return torch.sqrt((denoised - clean).square() + eps * eps).mean()


def ssim_loss(denoised: Tensor, clean: Tensor) -> Tensor:
    """1 - SSIM, averaged over the batch; images (B, C, H, W) in [0, 1]."""
    return 1 - ssim(denoised, clean).mean()


def denoising_loss(denoised: Tensor, clean: Tensor, ssim_weight: float = 0.0) -> Tensor:
    """Charbonnier, or with an `ssim_weight` (0.2 in Eq. 1) its weighted sum with the SSIM loss."""
    loss = charbonnier(denoised, clean)
    return (1 - ssim_weight) * loss + ssim_weight * ssim_loss(denoised, clean) if ssim_weight else loss


def joint_loss(
    denoised: Tensor,
    logits: Tensor,
    clean: Tensor,
    labels: Tensor,
    ce_weight: float = CE_WEIGHT,
    ssim_weight: float = 0.0,
) -> Tensor:
    """ce_weight * cross entropy + (1 - ce_weight) * denoising loss (Section 3.3; Eq. 1 with SSIM).

    logits (..., classes) and labels (...) of any leading shape.
    """
    cross_entropy = F.cross_entropy(logits.flatten(0, -2), labels.flatten())
    return ce_weight * cross_entropy + (1 - ce_weight) * denoising_loss(denoised, clean, ssim_weight)
