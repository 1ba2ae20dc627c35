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

# 40 of 255: above, the profile for strong noise, as BM3D's authors do; their package leaves that to the
# caller
STRONG = 0.16


class BM3D(nn.Module):
    """BM3D for noise of a known level: noisy images (B, 3, H, W) to denoised ones of the same shape."""

    def __init__(self, sigma: float, grey: bool = False):
        super().__init__()
        self.sigma, self.grey = sigma, grey

    def forward(self, noisy: Tensor) -> Tensor:
        return (
            noisy.clone()
            if self.sigma == 0
            else torch.stack([self._one(image) for image in noisy.cpu()])
        )

    def _one(self, image: Tensor) -> Tensor:
        try:
            import bm3d  # here: it is not free for all uses, so not everyone has it
        except ImportError:
            raise InputError(
                "BM3D needs the package bm3d: `.venv/bin/python -m pip install bm3d`."
            ) from None
        sigma = self.sigma / len(image) ** 0.5 if self.grey else self.sigma
        profile = "vn" if sigma > STRONG else "np"
        if self.grey:
            cleaned = bm3d.bm3d(image.mean(0).numpy(), sigma, profile)
            return torch.from_numpy(np.asarray(cleaned, np.float32).reshape(image.shape[1:])).expand_as(
                image
            )
        cleaned = bm3d.bm3d_rgb(image.permute(1, 2, 0).numpy(), sigma, profile)
        return torch.from_numpy(np.asarray(cleaned, np.float32)).permute(2, 0, 1)
