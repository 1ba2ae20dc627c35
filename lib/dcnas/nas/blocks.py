"""The blocks of Section 4: MBConv with batch norm, squeeze-and-excitation and a free hidden width, as in
TF-NAS [16].

During a search batch norm has neither affine parameters nor running statistics (`affine=False`); derived
networks have both.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {"relu": nn.ReLU, "swish": nn.SiLU}


def batch_norm(channels: int, affine: bool) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, affine=affine, track_running_stats=affine)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, activation (none for ""): (B, in, H, W) to (B, out, H /
    stride, W / stride)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        activation: str = "",
        groups: int = 1,
        affine: bool = True,
    ):
        conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        layers = [conv, batch_norm(out_channels, affine)]
        super().__init__(*layers, *([ACTIVATIONS[activation](inplace=True)] if activation else []))


class SqueezeExcite(nn.Module):
    """A gate in (0, 1) for each channel from the map's mean [15]."""

    def __init__(self, channels: int, hidden: int, activation: str):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        self.activation = ACTIVATIONS[activation](inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.expand(self.activation(self.reduce(x.mean((2, 3), keepdim=True)))))


class InvertedResidual(nn.Module):
    """MBConv: 1x1 expansion to `hidden`, depthwise `kernel`, squeeze-and-excitation (`se` channels, 0
    for none), 1x1 projection.

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
        expand = hidden > in_channels
        self.expand = (
            ConvNorm(in_channels, hidden, 1, activation=activation, affine=affine)
            if expand
            else nn.Identity()
        )
        self.depthwise = ConvNorm(
            hidden, hidden, kernel, stride, activation, groups=hidden, affine=affine
        )
        self.se = SqueezeExcite(hidden, se, activation) if se else nn.Identity()
        self.project = ConvNorm(hidden, out_channels, 1, affine=affine)
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
        self.mix, self.dropout = (
            ConvNorm(in_channels, hidden, 1, activation="swish", affine=affine),
            dropout,
        )
        self.linear = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.dropout(self.mix(x).mean((2, 3)), self.dropout, self.training))
