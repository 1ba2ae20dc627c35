"""The blocks of Section 4: MBConv with squeeze-and-excitation and a free hidden width, as in [16].

During a search batch norm has neither affine parameters nor running statistics (`affine=False`); derived
networks have both.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

ACTIVATIONS = {"relu": nn.ReLU, "swish": nn.SiLU, "": None}


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    activation: str = "",
    groups: int = 1,
    affine: bool = True,
) -> nn.Sequential:
    """Convolution, batch norm, activation: (B, in, H, W) to (B, out, H / stride, W / stride)."""
    norm = partial(nn.BatchNorm2d, affine=affine, track_running_stats=affine)
    layers = dict(norm_layer=norm, activation_layer=ACTIVATIONS[activation])
    return Conv2dNormActivation(in_channels, out_channels, kernel, stride, groups=groups, **layers)


class SqueezeExcite(nn.Module):
    """A gate in (0, 1) for each channel from the map's mean [15]."""

    def __init__(self, channels: int, hidden: int, activation: str):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        self.activation = ACTIVATIONS[activation](inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.expand(self.activation(self.reduce(x.mean((2, 3), keepdim=True)))))


class InvertedResidual(nn.Module):
    """MBConv: 1x1 expansion to `hidden`, depthwise, squeeze-and-excitation, 1x1 projection.

    `kernel`: of the depthwise convolution; `se`: channels inside squeeze-and-excitation, 0 for none.
    The input is added where shape allows; `drop_connect` drops whole residual branches while training,
    per image. At a hidden width of no more than the input's there is no expansion.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int,
        kernel: int = 3,
        stride: int = 1,
        se: int = 0,
        activation: str = "swish",
        affine: bool = True,
        drop_connect: float = 0.0,
    ):
        super().__init__()
        how = dict(activation=activation, affine=affine)
        expand = hidden > in_channels
        self.expand = conv_norm(in_channels, hidden, 1, **how) if expand else nn.Identity()
        self.depthwise = conv_norm(hidden, hidden, kernel, stride, groups=hidden, **how)
        self.se = SqueezeExcite(hidden, se, activation) if se else nn.Identity()
        self.project = conv_norm(hidden, out_channels, 1, affine=affine)
        self.residual, self.drop_connect = stride == 1 and in_channels == out_channels, drop_connect

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.se(self.depthwise(self.expand(x))))
        if not self.residual:
            return out
        if self.training and self.drop_connect:
            keep = 1 - self.drop_connect
            out = out * (torch.rand(len(x), 1, 1, 1, device=x.device) < keep) / keep
        return x + out


class Head(nn.Module):
    """1x1 convolution, mean over the map, dropout, linear: (B, in, H, W) to logits (B, classes)."""

    def __init__(
        self, in_channels: int, hidden: int, classes: int, affine: bool = True, dropout: float = 0.0
    ):
        super().__init__()
        self.mix = conv_norm(in_channels, hidden, 1, activation="swish", affine=affine)
        self.linear, self.dropout = nn.Linear(hidden, classes), dropout

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.dropout(self.mix(x).mean((2, 3)), self.dropout, self.training))
