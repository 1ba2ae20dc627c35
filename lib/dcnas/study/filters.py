"""BM3D [5], the denoiser of Section 2 that learns nothing, with the face of a network.

It comes from the package `bm3d` (free for research and other noncommercial use) and is told the noise
level, which a network has to find out by itself. Of grey photographs in three channels it can also clean
the mean of the channels, where the noise is weaker by the root of three: networks learn that from such
images by themselves.
"""

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError

STRONG = 0.16  # 40 of 255: above, the profile for strong noise, which the package leaves to its caller


class BM3D(nn.Module):
    """BM3D for noise of a known level: noisy images (B, 3, H, W) to denoised ones of the same shape."""

    def __init__(self, sigma: float, grey: bool = False):
        super().__init__()
        self.sigma, self.grey = sigma, grey

    def forward(self, noisy: Tensor) -> Tensor:
        if self.sigma == 0:
            return noisy.clone()
        try:
            import bm3d  # here: it is not free for all uses, so not everyone has it
        except ImportError:
            need = "BM3D needs the package bm3d: `.venv/bin/python -m pip install bm3d`."
            raise InputError(need) from None
        images, sigma, denoise = noisy.cpu().movedim(1, -1), self.sigma, bm3d.bm3d_rgb
        if self.grey:
            images, sigma, denoise = noisy.cpu().mean(1), sigma / noisy.shape[1] ** 0.5, bm3d.bm3d
        profile = "vn" if sigma > STRONG else "np"
        cleaned = [np.asarray(denoise(image.numpy(), sigma, profile), np.float32) for image in images]
        cleaned = torch.from_numpy(np.stack(cleaned))
        return (cleaned[..., None] if self.grey else cleaned).movedim(-1, 1).expand_as(noisy)
