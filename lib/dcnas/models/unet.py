"""The UNet of Section 3.2 and its four hyper-parameters (Figure 2): b, d, m, c.

Recovered from the FLOPs of Table 2, to the last digit: d levels with d - 1 max poolings, c blocks per
level, 2x2 transposed convolutions up, concatenated skips, a 1x1 output convolution.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .blocks import NORM_GROUPS, ConvBlock, MBConv

UNET_EXPANSION = 2.5  # of the MBConv UNet; the paper does not say, Section 3.1 settles on this rate


def unet_widths(b: int, d: int, m: float) -> list[int]:
    """Channels of the d levels, finest first: b * m^i to the nearest multiple of 4, half upwards."""
    return [max(4, 4 * int(b * m**i / 4 + 0.5)) for i in range(d)]


class Level(nn.Sequential):
    """c blocks: (B, in, H, W) to (B, out, H, W). With `stem`, the first is a normal convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        c: int,
        block: str,
        norm_groups: int,
        stem: bool = False,
    ):
        super().__init__()
        for i in range(c):
            channels = out_channels if i else in_channels
            if block == "conv" or (stem and i == 0):
                self.append(ConvBlock(channels, out_channels, norm_groups))
            else:
                self.append(MBConv(channels, out_channels, UNET_EXPANSION, norm_groups))


class UNet(nn.Module):
    """A noisy image (B, in_channels, H, W) to the denoised one, of the same shape.

    b: width of the first level; d: resolution levels; m: width multiplier per level; c: blocks per
    level; block: "conv" or "mbconv" (all but the first: one image channel, expanded to two or three,
    would lose its brightness in GroupNorm). Edges are repeated up to the next multiple of 2^(d-1) and
    cut off again; `InputError` for an image of less than that.
    """

    def __init__(
        self,
        b: int,
        d: int,
        m: float,
        c: int,
        in_channels: int = 1,
        block: str = "conv",
        norm_groups: int = NORM_GROUPS,
    ):
        super().__init__()
        self.widths = widths = unet_widths(b, d, m)
        self.stride = 2 ** (d - 1)
        steps, pairs = enumerate(pairwise([in_channels, *widths])), list(pairwise(widths))
        self.down = nn.ModuleList(Level(i, o, c, block, norm_groups, k == 0) for k, (i, o) in steps)
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairs)
        self.merge = nn.ModuleList(Level(2 * fine, fine, c, block, norm_groups) for fine, _ in pairs)
        self.out = nn.Conv2d(widths[0], in_channels, 1)

    def pad(self, x: Tensor) -> Tensor:
        """`x` with its right and lower edges repeated up to multiples of 2^(d-1)."""
        height, width = x.shape[-2:]
        if min(height, width) < self.stride:
            size = f"an image of {height} x {width}: at least {self.stride} pixels were expected"
            raise InputError(f"d={len(self.widths)} is too deep for {size}.")
        below, right = -height % self.stride, -width % self.stride
        return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x

    def encode(self, x: Tensor) -> list[Tensor]:
        """The d encoder maps, finest first; `x` as `pad` returns it."""
        maps = []
        for i, level in enumerate(self.down):
            x = level(F.max_pool2d(x, 2) if i else x)
            maps.append(x)
        return maps

    def decode(self, maps: list[Tensor]) -> Tensor:
        """The denoised image from the encoder maps, at the size of the finest one."""
        x = maps[-1]
        for up, merge, skip in reversed(list(zip(self.up, self.merge, maps))):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.out(x)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return self.decode(self.encode(self.pad(x)))[..., :height, :width]
