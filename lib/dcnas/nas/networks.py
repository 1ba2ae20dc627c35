"""The networks of Section 4, of an architecture or by hand (Figure 8, Tables 4 and 5).

All take noisy images (B, 3, H, W) with H and W multiples of 32 and return (denoised, logits), either of
which is None where the network does not do it. The encoder is the architecture's stems and first four
stages; what follows is its classification branch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..models import UNETS, DnCNN, UNet
from . import space as spaces
from .blocks import Head, InvertedResidual, conv_norm
from .space import ENCODER_STAGES, Architecture, Layer, Operator, Space

IMAGE_CHANNELS = 3
DECODERS = ("conv", "mb", "mb 1-op", "mb 3-lay")  # Table 5:4
DROPPED_SHARE = 0.28  # of the decoder's time is what "3-lay" saves in Table 5:4
NETWORKS = ("C-NAS", "D-NAS", "DC-NAS", "DC-NAS_seq")
MANUAL = ("UNet", "DC-Net", "DC-Net_tail", "DnCNN", "DnCNN, residual")


def make_stem(space: Space, affine: bool = True) -> nn.ModuleDict:
    """Both stems: (B, 3, H, W) to (B, 16, H / 2, W / 2), or without the first one's stride."""
    first, second = space.channels(spaces.STEM_CHANNELS), space.channels(spaces.SECOND_CHANNELS)
    conv = conv_norm(IMAGE_CHANNELS, first, 3, space.strides[0], "relu", affine=affine)
    block = InvertedResidual(first, second, first, se=spaces.SECOND_SE, activation="relu", affine=affine)
    return nn.ModuleDict({"first": conv, "second": block})


def make_block(
    layer: Layer, operator: Operator, hidden: int, affine: bool = True, drop_connect: float = 0.0
) -> InvertedResidual:
    """The block of an operator in the place of a layer."""
    se = operator.se_hidden(layer.in_channels)
    shape = (layer.in_channels, layer.out_channels, hidden, operator.kernel, layer.stride, se)
    return InvertedResidual(*shape, layer.activation, affine, drop_connect)


def make_head(space: Space, affine: bool = True, dropout: float = 0.0) -> Head:
    """Pooling and linear layer after the last stage."""
    hidden = space.channels(spaces.HEAD_CHANNELS)
    return Head(space.layers[-1].out_channels, hidden, space.classes, affine, dropout)


@dataclass(frozen=True)
class Level:
    """A map of the encoder."""

    channels: int
    ratio: int  # how many times smaller it is than the next finer one, the first one than the image


def encoder_levels(space: Space) -> list[Level]:
    """The encoder's maps, finest first (1/2 to 1/16 of the image at the paper's strides)."""
    channels = {space.resolution // space.strides[0]: space.channels(spaces.SECOND_CHANNELS)}
    encoder = (layer for layer in space.layers if layer.stage < ENCODER_STAGES)
    channels |= {layer.size // layer.stride: layer.out_channels for layer in encoder}
    finer = [space.resolution, *channels]
    return [Level(n, before // size) for before, (size, n) in zip(finer, channels.items())]


class Classifier(nn.Module):
    """C-NAS: stems, searched stages, head."""

    def __init__(self, architecture: Architecture, dropout: float = 0.0, drop_connect: float = 0.0):
        super().__init__()
        space = architecture.space
        self.stem = make_stem(space)
        pairs = list(zip(space.layers, architecture.choices, strict=True))
        self.stages = nn.ModuleList(nn.ModuleList() for _ in space.stages)
        for i, (layer, choice) in enumerate(pairs):
            if choice is not None:  # deeper blocks are dropped more often, as in [16]
                rate = drop_connect * (i + 2) / (len(pairs) + 1)
                block = make_block(layer, choice.operator, choice.hidden, drop_connect=rate)
                self.stages[layer.stage].append(block)
        self.head = make_head(space, dropout=dropout)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Maps of all sizes, finest first: the last of each size among stems and first four stages."""
        x = self.stem["second"](self.stem["first"](x))
        maps = [x]
        for stage in self.stages[:ENCODER_STAGES]:
            for block in stage:
                x = block(x)
            maps = [*maps[:-1], x] if x.shape[-1] == maps[-1].shape[-1] else [*maps, x]
        return maps

    def classify(self, x: Tensor) -> Tensor:
        """Logits from the encoder's last map: the classification branch."""
        for stage in self.stages[ENCODER_STAGES:]:
            for block in stage:
                x = block(x)
        return self.head(x)

    def forward(self, x: Tensor) -> tuple[None, Tensor]:
        return None, self.classify(self.encode(x)[-1])


class Decoder(nn.Module):
    """UNet decoder: per level a transposed convolution, the skip, two blocks (Section 4.2); 1x1 at last.

    Skips are the encoder's maps and, at full size, the noisy image itself: the paper does not say what
    its last level joins. `kind`: "conv"; "mb" with MB-k3-e3 blocks; "mb 1-op" with one of them per
    level; "mb 3-lay" without the level whose share of the decoder's multiplications comes nearest the
    28% that the paper saves (`shares`); its neighbour upsamples for both.
    """

    def __init__(self, levels: Sequence[Level], kind: str = "conv", affine: bool = True):
        super().__init__()
        self.kind = kind
        dropped = dropped_level(levels) if kind == "mb 3-lay" else None
        self.up, self.merge, self.skips = nn.ModuleList(), nn.ModuleList(), []
        ratio, coarse = 1, levels[-1].channels
        for i in reversed(range(len(levels))):
            ratio *= levels[i].ratio
            if i == dropped:
                continue
            skip, out = _ends(levels, i)
            self.up.append(nn.ConvTranspose2d(coarse, out, ratio, stride=ratio))
            self.merge.append(nn.Sequential(*self._blocks(kind, out + skip, out, affine)))
            self.skips.append(i - 1)
            ratio, coarse = 1, out
        last = nn.ConvTranspose2d if ratio > 1 else nn.Conv2d  # the finest level may have been dropped
        self.out = last(coarse, IMAGE_CHANNELS, ratio, stride=ratio)

    @staticmethod
    def _blocks(kind: str, in_channels: int, channels: int, affine: bool) -> list[nn.Module]:
        steps = [(in_channels, channels), (channels, channels)][: 1 if kind == "mb 1-op" else 2]
        if kind == "conv":
            return [conv_norm(i, o, 3, activation="relu", affine=affine) for i, o in steps]
        return [InvertedResidual(i, o, 3 * i, activation="relu", affine=affine) for i, o in steps]

    def forward(self, image: Tensor, maps: list[Tensor]) -> Tensor:
        """The denoised image (B, 3, H, W) from the noisy one and the encoder's maps, finest first."""
        x = maps[-1]
        for up, merge, skip in zip(self.up, self.merge, self.skips, strict=True):
            x = merge(torch.cat([image if skip < 0 else maps[skip], up(x)], 1))
        return self.out(x)


def _ends(levels: Sequence[Level], i: int) -> tuple[int, int]:
    """Channels of the skip connection of a decoder's level, and of its output."""
    return (levels[i - 1].channels,) * 2 if i else (IMAGE_CHANNELS, levels[0].channels)


def shares(levels: Sequence[Level]) -> list[float]:
    """Each level's share, finest first, of the multiplications of a decoder of MBConv blocks."""
    costs, places = [], 1.0
    for i, level in enumerate(levels):
        places /= levels[i - 1].ratio ** 2 if i else 1
        skip, out = _ends(levels, i)
        # expansion, depthwise 3x3, projection
        blocks = sum(3 * inside * (inside + 9 + out) for inside in (skip + out, out))
        costs.append(places * (level.channels * out + blocks))
    return [cost / sum(costs) for cost in costs]


def dropped_level(levels: Sequence[Level]) -> int:
    """The level, from 0 for the finest, that "mb 3-lay" does without."""
    return min(range(len(levels)), key=lambda i: abs(shares(levels)[i] - DROPPED_SHARE))


class Denoiser(nn.Module):
    """D-NAS: the encoder of a classifier and a decoder (Figure 8 ii)."""

    def __init__(self, architecture: Architecture, decoder: str = "conv"):
        super().__init__()
        self.classifier = Classifier(architecture)
        del self.classifier.stages[ENCODER_STAGES:], self.classifier.head
        self.decoder = Decoder(encoder_levels(architecture.space), decoder)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.decoder(x, self.classifier.encode(x)), None


class Joint(nn.Module):
    """DC-NAS, Integrated: encoder, decoder and classification branch (Figure 8 iii)."""

    def __init__(self, architecture: Architecture, decoder: str = "conv", **regularisation: float):
        super().__init__()
        self.classifier = Classifier(architecture, **regularisation)
        self.decoder = Decoder(encoder_levels(architecture.space), decoder)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.classifier.encode(x)
        return self.decoder(x, maps), self.classifier.classify(maps[-1])


class SequentialJoint(nn.Module):
    """DC-NAS_seq: D-NAS, then C-NAS of the same architecture on its output (Figure 8 iv)."""

    def __init__(self, architecture: Architecture, decoder: str = "conv", **regularisation: float):
        super().__init__()
        self.denoiser = Denoiser(architecture, decoder)
        self.classifier = Classifier(architecture, **regularisation)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        denoised, _ = self.denoiser(x)
        return denoised, self.classifier(denoised)[1]


class ManualJoint(nn.Module):
    """DC-Net for colour images of one object (Table 5:5): Integrated, its branch pools the deepest map.

    With an `architecture` it is DC-Net_tail: the last stages and the head of that network replace
    pooling and linear layer, on maps pooled once more, to the sixteenth of the image at which those
    stages stand in the paper.
    """

    def __init__(
        self, classes: int, architecture: Architecture | None = None, unet=None, **regularisation: float
    ):
        super().__init__()
        self.unet = UNet(**(unet or UNETS["reduced"]), in_channels=IMAGE_CHANNELS)
        deepest = self.unet.widths[-1]
        if architecture is None:
            linear = nn.Linear(deepest, classes)
            self.branch = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), linear)
            return
        tail = Classifier(architecture, **regularisation)
        first = architecture.space.layers[architecture.space.stages[ENCODER_STAGES][0]]
        blocks = [block for stage in tail.stages[ENCODER_STAGES:] for block in stage]
        mix = conv_norm(deepest, first.in_channels, 1)
        self.branch = nn.Sequential(nn.MaxPool2d(2), mix, *blocks, tail.head)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.unet.encode(x)
        return self.unet.decode(maps), self.branch(maps[-1])


class OnlyDenoises(nn.Module):
    """A UNet of Section 3 for colour images, in the form of the networks above (Table 4)."""

    def __init__(self, **unet):
        super().__init__()
        self.unet = UNet(**unet, in_channels=IMAGE_CHANNELS)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.unet(x), None


class PlainDenoiser(DnCNN):
    """DnCNN in the form of the networks above (Section 2)."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return super().forward(x), None


class Grey(nn.Module):
    """A network of three channels for grey images: (B, 1, H, W), or three equal channels, to its
    outputs; the denoised image is grey, of as many channels.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        denoised, logits = self.model(x if x.shape[1] == IMAGE_CHANNELS else x.expand(-1, 3, -1, -1))
        return None if denoised is None else denoised.mean(1, keepdim=True).expand_as(x), logits


class OnlyClassifies(nn.Module):
    """A classifier of torchvision in the form of the networks above (Figure 7)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[None, Tensor]:
        return None, self.model(x)


def build_network(
    name: str, architecture: Architecture, decoder: str = "conv", **regularisation: float
) -> nn.Module:
    """One of `NETWORKS`; `regularisation`: dropout, drop_connect (none in a denoiser)."""
    if name == "C-NAS":
        return Classifier(architecture, **regularisation)
    if name == "D-NAS":
        return Denoiser(architecture, decoder)
    return (Joint if name == "DC-NAS" else SequentialJoint)(architecture, decoder, **regularisation)
