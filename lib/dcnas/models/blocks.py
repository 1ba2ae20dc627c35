"""The paper's two operators: a convolution and MobileNetV2's inverted residual (Sections 3.1 and 3.2).

Every convolution is followed by GroupNorm; the paper does not say of how many groups.
"""

import math

from torch import Tensor, nn

NORM_GROUPS = 4


def group_norm(channels: int, norm_groups: int = NORM_GROUPS) -> nn.GroupNorm:
    """GroupNorm over `channels` with gcd(channels, norm_groups) groups."""
    return nn.GroupNorm(math.gcd(channels, norm_groups), channels)


def conv_norm(
    in_channels: int, out_channels: int, kernel: int, groups: int = 1, norm_groups: int = NORM_GROUPS
) -> list[nn.Module]:
    """Convolution of stride 1 that keeps height and width, then GroupNorm.

    The convolution keeps its bias although GroupNorm has one: without it a network of such pairs cannot
    see how bright an image is, because GroupNorm divides any common factor of its input away.
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups)
    return [conv, group_norm(out_channels, norm_groups)]


class ConvBlock(nn.Sequential):
    """3x3 convolution, GroupNorm, ReLU: (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, norm_groups: int = NORM_GROUPS):
        layers = conv_norm(in_channels, out_channels, 3, norm_groups=norm_groups)
        super().__init__(*layers, nn.ReLU(inplace=True))


class MBConv(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection: (B, in, H, W) to (B, out, H, W).

    At rate 1 there is no expansion convolution. The input is added where widths agree.
    """

    def __init__(
        self, in_channels: int, out_channels: int, expansion: float, norm_groups: int = NORM_GROUPS
    ):
        super().__init__()
        hidden = round(in_channels * expansion)
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += conv_norm(in_channels, hidden, 1, 1, norm_groups) + [nn.ReLU(inplace=True)]
        layers += conv_norm(hidden, hidden, 3, hidden, norm_groups) + [nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, *conv_norm(hidden, out_channels, 1, 1, norm_groups))
        self.residual = in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)
