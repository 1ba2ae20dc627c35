"""Drawings of the networks of Section 3 (Figure 2), made from the networks themselves: widths, map sizes, FLOPs and parameters.

Networks are built on torch's meta device, without weights, so that any size is drawn at once. In a drawing the height of a box
grows with the square root of the map's side, its width with the square root of its channels.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from torch import nn

from ..data.two_digits import IMAGE_SIZE
from ..errors import InputError, require_choice, require_whole
from ..models import CLASSIFIERS, JOINING, Classifier, UNet, count_parameters
from ..models.crops import BOX_SIZE
from ..models.unet import UNET_EXPANSION
from .figures import COLOURS, new_figure

CLASSES = 10
MIDDLE = {"fontsize": 11, "ha": "center", "va": "center"}
DOWN, UP, SKIP, ONE = COLOURS["red"], COLOURS["green"], "0.35", COLOURS["purple"]
ENCODER, DECODER, HEAD = COLOURS["sky"], COLOURS["blue"], "0.93"  # light, dark: told apart in grey as well
GAP = 0.45  # between levels, where the largest box is 1 high


class Size(NamedTuple):
    """A network without its weights: (channels, side) of its maps, FLOPs for one image or digit, parameters, operators."""

    maps: tuple[tuple[int, int], ...]
    flops: int
    parameters: int
    steps: tuple[str, ...] = ()


def layer_flops(layers: nn.Module, pixels: int) -> int:
    """FLOPs, as fvcore counts them, of layers that all work on maps of `pixels` (a transposed convolution: its input)."""
    total = 0
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            total += pixels * layer.weight.numel()
        elif isinstance(layer, nn.GroupNorm):
            total += pixels * 5 * layer.num_channels
    return total


@lru_cache(maxsize=512)
def unet_size(b: int, d: int, m: float, c: int, block: str = "conv", joining: str | None = None, size: int = IMAGE_SIZE) -> Size:
    """A UNet, or a DC-Net with one digit, for images of `size`: the encoder's maps, finest first, and what it all costs."""
    with torch.device("meta"):
        unet = UNet(b, d, m, c, block=block)
        head = nn.Linear(unet.widths[-1], CLASSES)
    if require_whole("size", size) < unet.stride:
        raise InputError(f"d={d} is too deep for images of {size} pixels: at least {unet.stride} were expected.")
    sides = [(size + -size % unet.stride) // 2**i for i in range(d)]
    flops, parameters = layer_flops(unet.out, sides[0] ** 2), count_parameters(unet)
    for layers, at in ((unet.down, sides), (unet.merge, sides), (unet.up, sides[1:])):
        flops += sum(layer_flops(layer, side**2) for layer, side in zip(layers, at))
    if joining is not None and require_choice("joining", joining, JOINING) == "sequential":
        extra = classifier_size(*vars(CLASSIFIERS["MB2.5-M"]).values())
        flops, parameters = flops + extra.flops, parameters + extra.parameters
    elif joining is not None:
        flops, parameters = flops + layer_flops(head, 1), parameters + count_parameters(head)
    return Size(tuple(zip(unet.widths, sides)), flops, parameters)


@lru_cache(maxsize=512)
def classifier_size(first: int, second: int, expansion: float | None = None) -> Size:
    """A classifier of one digit's square: the maps from the square to the last before the global pooling, and the operator
    in front of each map but the first."""
    with torch.device("meta"):
        network = Classifier(first, second, expansion)
    channels, side = 1, BOX_SIZE
    maps, steps, flops = [(channels, side)], [], layer_flops(network.head, 1)
    for layer in network.features.modules():  # in the order of the forward pass
        if isinstance(layer, nn.Conv2d):
            kernel, channels = layer.kernel_size[0], layer.out_channels
            steps.append(f"{kernel}×{kernel}" + ("\ndepthw." if layer.groups > 1 else "\nconv"))
        elif isinstance(layer, nn.MaxPool2d):
            side //= 2
            steps.append("max\npool")
        flops += layer_flops(layer, side**2) if isinstance(layer, nn.Conv2d | nn.GroupNorm) else 0
        maps += [(channels, side)] * (len(steps) - len(maps) + 1)
    return Size(tuple(maps), flops, count_parameters(network), tuple(steps))


def _arrow(axes: Axes, start, end, colour: str, line: str = "-", bend: str = "arc3") -> None:
    style = dict(arrowstyle="-|>", color=colour, linestyle=line, linewidth=1.6, shrinkA=1, shrinkB=1, connectionstyle=bend)
    axes.annotate("", end, start, arrowprops=style)


def _blocks(axes: Axes, x: float, y: float, half: float, tall: float, count: int, colour: str) -> None:
    """`count` boxes side by side around (x, y): 2 * half wide together, 2 * tall high."""
    for i in range(count):
        corner = (x - half + 2 * half * i / count, y - tall)
        axes.add_patch(Rectangle(corner, 2 * half / count, 2 * tall, facecolor=colour, edgecolor="black", linewidth=0.9))


def _chain(axes: Axes, start, places, texts) -> None:
    """Rounded boxes with text at `places`; arrows from `start` to the first and on from each to the next."""
    for before, place, text in zip([start, *places], places, texts):
        box = axes.text(*place, text, **MIDDLE, bbox=dict(boxstyle="round,pad=0.3", facecolor=HEAD, edgecolor="black"))
        style = dict(arrowstyle="-|>", color="black", linewidth=1.6, shrinkA=0, patchB=box.get_bbox_patch())
        axes.annotate("", place, before, arrowprops=style, zorder=0)


def _levels(axes: Axes, maps, c: int) -> list[tuple[float, float, float, float]]:
    """Draw all levels with their skip connections; (x, y, half width, half height) of each level's encoder blocks."""
    widths = [0.045 * channels**0.5 for channels, _ in maps]
    shrink = min(1, 2.6 / (c * widths[-1]), 1.2 / (c * max(widths[:-1], default=0.1)))
    places, top = [], 0.0
    for i, (channels, side) in enumerate(maps):
        half, tall = c * shrink * widths[i] / 2, (side / maps[0][1]) ** 0.5 / 2
        x, y = 5 if i == len(maps) - 1 else 2.2 + 0.25 * i, top - tall
        top -= 2 * tall + GAP
        places.append((x, y, half, tall))
        _blocks(axes, x, y, half, tall, c, ENCODER)
        label = f"{channels} ch, {side} × {side}"
        if i == len(maps) - 1:
            axes.text(x, y + tall + 0.16, label, **MIDDLE)
            continue
        _blocks(axes, 10 - x, y, half, tall, c, DECODER)
        _arrow(axes, (x + half, y), (10 - x - half, y), SKIP, "--")
        axes.text(5, y, label, **MIDDLE, bbox=dict(facecolor="white", edgecolor="none", pad=2))
    return places


def _connect(axes: Axes, places) -> None:
    """Input and output images, max poolings down, transposed convolutions up."""
    x, y, half, tall = places[0]
    for at, name in ((0.5, "noisy"), (9.5, "denoised")):
        _blocks(axes, at, y, 0.07, tall, 1, "white")
        axes.text(at, y + tall + 0.16, name, **MIDDLE)
    _arrow(axes, (0.57, y), (x - half, y), "black")
    _arrow(axes, (10 - x + half, y), (9.43, y), ONE)
    for (x, y, _, tall), (to_x, to_y, to_half, to_tall) in zip(places, places[1:]):
        if to_x == 5:  # the deepest level stands in the middle
            _arrow(axes, (x, y - tall), (5 - to_half, to_y), DOWN, bend="angle,angleA=-90,angleB=180")
            _arrow(axes, (5 + to_half, to_y), (10 - x, y - tall), UP, bend="angle,angleA=0,angleB=-90")
        else:
            _arrow(axes, (x, y - tall), (to_x, to_y + to_tall), DOWN)
            _arrow(axes, (10 - to_x, to_y + to_tall), (10 - x, y - tall), UP)


def _legend(axes: Axes, block: str, deep: bool) -> None:
    name = "3×3 conv blocks" if block == "conv" else f"MBConv {UNET_EXPANSION:g} blocks"
    lines = [(DOWN, "-", "2×2 max pool ↓"), (UP, "-", "2×2 transposed conv ↑"), (SKIP, "--", "skip, concatenated")] if deep else []
    boxes = [Patch(facecolor=ENCODER, edgecolor="black", label=f"encoder: {name}")]
    boxes += [Patch(facecolor=DECODER, edgecolor="black", label=f"decoder: {name}")] if deep else []
    arrows = [Line2D([], [], color=colour, linestyle=line, label=label) for colour, line, label in [*lines, (ONE, "-", "1×1 conv")]]
    axes.legend(handles=boxes + arrows, loc="lower center", ncols=3, fontsize=10, columnspacing=1.2, borderaxespad=0, frameon=False)


def fixed(width: float, height: float, *shape: int, **margins):
    """`new_figure` with fixed margins (parts of the figure) instead of the layout engine, which would double the time to draw."""
    grid = dict(left=0.01, right=0.99, bottom=0.02, top=0.88, wspace=0.05) | margins
    figure, axes = new_figure(width, height, *shape, gridspec_kw=grid)
    figure.set_layout_engine("none")
    return figure, axes


def _finish(axes: Axes, bottom: float, top: float, title: str) -> Figure:
    axes.set(xlim=(0, 10), ylim=(bottom, top))
    axes.set_axis_off()
    axes.set_title(title, fontsize=12, y=1)  # a y that is given is not searched for at every drawing
    return axes.figure


def unet(
    b: int, d: int, m: float, c: int, block="conv", joining: str | None = None, size=IMAGE_SIZE, axes: Axes | None = None
) -> Figure:
    """Figure 2: a UNet, or with `joining` "sequential" or "integrated" a DC-Net, for images of `size`; on `axes` if given."""
    network = unet_size(b, d, m, c, block, joining, size)
    axes = axes or fixed(7, 4.5)[1]
    places = _levels(axes, network.maps, c)
    _connect(axes, places)
    x, y, _, tall = places[-1]
    bottom = min(-2.6, y - tall)
    if joining == "sequential":
        texts = (f"digit {BOX_SIZE} × {BOX_SIZE}", "MB2.5-M", f"{CLASSES} classes")
        _chain(axes, (9.5, -1), [(9.1, -1.45 - 0.5 * i) for i in range(3)], texts)
    elif joining == "integrated":
        side, bottom = max(1, BOX_SIZE // 2 ** (d - 1)), bottom - 0.75
        texts = (f"digit {side} × {side}", "global max pool", f"linear → {CLASSES}")
        _chain(axes, (x, y - tall), [(5, bottom), (7.1, bottom), (9.2, bottom)], texts)
    _legend(axes, block, d > 1)
    name = ("UNet" if block == "conv" else "MB-UNet") + f" b={b}, d={d}, m={m:g}, c={c}"
    name = name if joining is None else f"DC-Net {joining.capitalize()}: {name}"
    return _finish(axes, 1.2 * bottom - 0.3, 0.35, f"{name}\n{network.flops / 1e6:,.1f} M FLOPs, {network.parameters:,} parameters")


def classifier(first: int, second: int, expansion: float | None = None, axes: Axes | None = None) -> Figure:
    """A classifier of Section 3.1 from the digit's square to the classes; on `axes` if given."""
    network = classifier_size(first, second, expansion)
    axes = axes or fixed(7, 2.8, top=0.8)[1]
    maps = [*network.maps, (network.maps[-1][0], 1), (CLASSES, 1)]
    steps = ["", *network.steps, "global\nmax p.", "linear"]
    pitch, before = 10 / len(maps), 0.0
    for i, ((channels, side), step) in enumerate(zip(maps, steps)):
        x, half, tall = (i + 0.5) * pitch, 0.026 * channels**0.5, (side / BOX_SIZE) ** 0.5 / 2
        _blocks(axes, x, 0, half, tall, 1, "white" if i == 0 else HEAD if side == 1 else ENCODER)
        axes.text(x, -0.62, f"{channels} ch\n{side} × {side}" if side > 1 else f"{channels}", fontsize=10.5, ha="center", va="top")
        if step:
            _arrow(axes, (before, 0), (x - half, 0), DOWN if "max" in step else "black")
            axes.text((before + x - half) / 2, 0.62, step, fontsize=10.5, ha="center", va="bottom")
        before = x + half
    axes.text(5, -1.4, "not drawn: GroupNorm after each convolution, and ReLU", fontsize=9.5, color=SKIP, ha="center")
    family = "conv" if expansion is None else f"MBConv, rate {expansion:g}"
    title = f"Classifier {first}, {second} ({family})\n{network.flops / 1e3:,.1f} K FLOPs, {network.parameters:,} parameters"
    return _finish(axes, -1.4, 1.2, title)
