"""Drawings of the networks of Section 3 (Figure 2), made from the networks themselves: widths, map sizes, FLOPs and parameters.

Networks are built on torch's meta device, without weights, so that any size is drawn at once. In a drawing the height of a box
grows with the square root of the map's size, its width with the square root of its channels.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from torch import nn

from ..boxes import BOX_SIZE
from ..data.two_digits import IMAGE_SIZE
from ..errors import InputError, require_choice, require_whole
from ..models import JOINING, Classifier, UNet, build_classifier, count_parameters
from .figures import COLOURS, new_figure

CLASSES = 10
FIT = {"fontsize": 11, "ha": "center", "va": "center"}
DOWN, UP, SKIP, ONE = COLOURS["red"], COLOURS["green"], "0.35", COLOURS["purple"]
ENCODER, DECODER, HEAD = COLOURS["sky"], COLOURS["blue"], "0.93"


class Size(NamedTuple):
    """A network without its weights: (channels, height = width) of each map, FLOPs for one image (one digit), parameters."""

    maps: tuple[tuple[int, int], ...]
    flops: int
    parameters: int


def layer_flops(layers: nn.Module, pixels: int) -> int:
    """FLOPs, counted as fvcore does, of layers that all work on maps of `pixels` (a transposed convolution: its input)."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    convolutions = sum(layer.weight.numel() for layer in layers.modules() if isinstance(layer, kinds))
    return pixels * (convolutions + 5 * sum(layer.num_channels for layer in layers.modules() if isinstance(layer, nn.GroupNorm)))


@lru_cache(maxsize=512)
def unet_size(b: int, d: int, m: float, c: int, block: str = "conv", joining: str | None = None, size: int = IMAGE_SIZE) -> Size:
    """The encoder's maps, finest first, of a UNet or joint model for images of `size`, and what it all costs with one digit."""
    with torch.device("meta"):
        unet = UNet(b, d, m, c, block=block)
        head = nn.Linear(unet.widths[-1], CLASSES)
    if require_whole("size", size) < unet.stride:
        raise InputError(f"d={d} is too deep for images of {size} pixels: at least {unet.stride} were expected.")
    sides = [(size + -size % unet.stride) // 2**i for i in range(d)]
    flops = layer_flops(unet.out, sides[0] ** 2)
    flops += sum(layer_flops(level, side**2) for level, side in zip(unet.down, sides))
    flops += sum(layer_flops(level, side**2) for level, side in zip(unet.merge, sides))
    flops += sum(layer_flops(layer, side**2) for layer, side in zip(unet.up, sides[1:]))
    parameters = count_parameters(unet)
    if joining is not None and require_choice("joining", joining, JOINING) == "sequential":
        extra = classifier_size()
        flops, parameters = flops + extra.flops, parameters + extra.parameters
    elif joining is not None:
        flops, parameters = flops + layer_flops(head, 1), parameters + count_parameters(head)
    return Size(tuple(zip(unet.widths, sides)), flops, parameters)


def _classifier_steps(network: Classifier) -> list[tuple[str, nn.Module]]:
    """(operator's name, layer) for each layer that changes the map, in order."""
    found = []
    for layer in network.features.modules():
        if isinstance(layer, nn.MaxPool2d):
            found.append(("max\npool", layer))
        elif isinstance(layer, nn.Conv2d):
            kernel = layer.kernel_size[0]
            found.append((f"{kernel}×{kernel}\n{'depthw.' if layer.groups > 1 else 'conv'}", layer))
    return found


@lru_cache(maxsize=512)
def classifier_size(first: int | None = None, second: int = 0, expansion: float | None = None) -> Size:
    """The maps of a classifier of one digit's square, from the square to the last one (all before the global pooling); without
    widths those of MB2.5-M."""
    with torch.device("meta"):
        network = build_classifier("MB2.5-M") if first is None else Classifier(first, second, expansion)
    channels, side = 1, BOX_SIZE
    maps, flops = [(channels, side)], layer_flops(network.head, 1)
    for layer in network.features.modules():
        if isinstance(layer, nn.Conv2d | nn.GroupNorm):
            flops += layer_flops(layer, side**2)
        if isinstance(layer, nn.MaxPool2d | nn.Conv2d):
            side //= 2 if isinstance(layer, nn.MaxPool2d) else 1
            channels = getattr(layer, "out_channels", channels)
            maps.append((channels, side))
    return Size(tuple(maps), flops, count_parameters(network))


def _canvas(axes: Axes | None, width: float, height: float) -> Axes:
    axes = new_figure(width, height)[1] if axes is None else axes
    axes.set_axis_off()
    return axes


def _arrow(axes: Axes, start, end, colour: str, line: str = "-", bend: str = "arc3") -> None:
    style = dict(arrowstyle="-|>", color=colour, linestyle=line, linewidth=1.6, shrinkA=1, shrinkB=1, connectionstyle=bend)
    axes.annotate("", end, start, arrowprops=style)


def _blocks(axes: Axes, x: float, y: float, width: float, height: float, count: int, colour: str) -> None:
    for i in range(count):
        left = x + (i - count / 2) * width
        axes.add_patch(Rectangle((left, y - height / 2), width, height, facecolor=colour, edgecolor="black", linewidth=0.9))


def _chain(axes: Axes, places, texts) -> None:
    """Boxes with text at `places`, each after the first with an arrow from the one before."""
    for place, text in zip(places, texts):
        axes.text(*place, text, **FIT, bbox=dict(boxstyle="round,pad=0.25", facecolor=HEAD, edgecolor="black", linewidth=0.9))
    for (x, y), (to_x, to_y) in zip(places, places[1:]):
        step = (0.62 if to_x > x else 0, 0.33 if to_y < y else 0)
        _arrow(axes, (x + step[0], y - step[1]), (to_x - step[0], to_y + step[1]), "black")


def _levels(axes: Axes, maps, c: int) -> list[tuple[float, float, float, float]]:
    """Draw the U; (x, y, half width, half height) of each level's encoder blocks."""
    sides = [side for _, side in maps]
    heights = [(side / sides[0]) ** 0.5 for side in sides]
    widths = [0.045 * channels**0.5 for channels, _ in maps]
    shrink = min(1, 2.6 / (c * widths[-1]), 1.5 / (c * max(widths[:-1], default=0.1)))
    places, y = [], 0.0
    for i, (width, height) in enumerate(zip(widths, heights)):
        y -= 0.5 * height + (0.45 + 0.5 * heights[i - 1] if i else 0)
        x = 5 if i == len(maps) - 1 else 2.2 + 0.3 * i
        places.append((x, y, c * shrink * width / 2, height / 2))
        y += 0.5 * height - height / 2
    for (x, y, half, tall), (channels, side) in zip(places, maps):
        _blocks(axes, x, y, 2 * half / c, 2 * tall, c, ENCODER)
        if x == 5:
            axes.text(5, y + tall + 0.2, f"{channels} ch, {side} × {side}", **FIT)
            continue
        _blocks(axes, 10 - x, y, 2 * half / c, 2 * tall, c, DECODER)
        _arrow(axes, (x + half, y), (10 - x - half, y), SKIP, "--")
        axes.text(5, y, f"{channels} ch, {side} × {side}", **FIT, bbox=dict(facecolor="white", edgecolor="none", pad=2))
    return places
