"""Additive white Gaussian noise: y = x + n with n ~ N(0, sigma^2), x in [0, 1] (Sections 2 and 3); and
for cameras noise that grows with brightness.

The paper trains and tests on eleven sigmas on [0, 1]. It does not say whether the noisy image is clipped
to [0, 1]; unclipped is the default (the paper's PSNR at high noise is closer to it).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..seed import derive

SIGMAS: tuple[float, ...] = tuple(i / 10 for i in range(11))


def sample_sigmas(count: int, generator: torch.Generator) -> Tensor:
    """Noise levels drawn uniformly from `SIGMAS`, float32 (count,), on the generator's device."""
    index = torch.randint(len(SIGMAS), (count,), generator=generator, device=generator.device)
    return index / 10


def degrade(images: Tensor, sigma: float | Tensor, noise: Tensor, *, clip: bool = False) -> Tensor:
    """images + sigma * noise. `sigma` is one number or one per image (B,)."""
    scale = sigma.view(-1, 1, 1, 1) if isinstance(sigma, Tensor) and sigma.dim() else sigma
    noisy = images + scale * noise
    return noisy.clamp_(0, 1) if clip else noisy


@dataclass(frozen=True)
class Noise:
    """The noise of a camera, in full at level 1: y = x + sqrt(gain x + sigma^2) n with n ~ N(0, 1).

    Without gain it is Gaussian; level 1 is the paper's sigma of 1. With gain it is Poisson-Gaussian as
    Foi et al. (2008) approximate it: the more light, the more its photons scatter. Gain and sigma fall
    with the level in proportion. In `grey` pictures all channels have the same noise.
    """

    sigma: float = 1.0
    gain: float = 0.0
    grey: bool = False

    def __str__(self) -> str:
        gain = f" and gain up to {self.gain:g}" if self.gain else ""
        kind = "Poisson-Gaussian" if self.gain else "Gaussian"
        return f"{'grey ' * self.grey}{kind} noise of sigma up to {self.sigma:g}{gain}"

    def add(self, images: Tensor, level: float | Tensor, normal: Tensor) -> Tensor:
        """Noisy images (B, C, H, W); one level or one per image (B,), `normal` of the images' shape."""
        normal = normal[:, :1] if self.grey else normal
        if not self.gain:
            return degrade(images, level * self.sigma, normal)
        level = level.view(-1, 1, 1, 1) if isinstance(level, Tensor) else level
        return images + (level * self.gain * images + (level * self.sigma) ** 2).sqrt() * normal


GAUSSIAN = Noise()


class NoiseBank:
    """The noise of evaluation, keyed by (image, sigma, seed): every model sees the same noise on the
    same image, and no two images or noise levels share a pattern. Drawn on the CPU on any device.
    """

    def __init__(self, seed: int = 0):
        self.seed = seed
        self._generator = torch.Generator()

    def noise(self, image_ids: range | list[int], sigma: float, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise, float32 of shape (len(image_ids), *shape)."""
        out = torch.empty(len(image_ids), *shape)
        base = derive("noise bank", self.seed, f"{float(sigma):.6f}")
        for row, image in zip(out, image_ids, strict=True):
            seed = (base + image * 0x9E3779B97F4A7C15) % 2**63
            row.normal_(generator=self._generator.manual_seed(seed))
        return out
