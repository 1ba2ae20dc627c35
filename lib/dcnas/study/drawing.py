"""Drawings of Section 3's networks (Figure 2), made from the networks themselves, without their weights;
and the trained ones among which a network of one's own stands.

The height of a box grows with the square root of the map's side, its width with that of its channels.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import EngFormatter
from torch import nn

from ..data.two_digits import IMAGE_SIZE
from ..models import CLASSIFIERS, Classifier, UNet, count_parameters
from ..models.crops import BOX_SIZE
from .figures import COLOURS, MARKERS, PALETTE, new_figure
from .latencies import section_3

CLASSES = 10
MIDDLE = {"fontsize": 11, "ha": "center", "va": "center"}
DOWN, UP, SKIP, ONE = COLOURS["red"], COLOURS["green"], "0.35", COLOURS["purple"]
ENCODER, DECODER, HEAD = COLOURS["sky"], COLOURS["blue"], "0.93"  # light and dark, also in grey
BENDS = "angle,angleA=-90,angleB=180", "angle,angleA=0,angleB=-90"  # to and from the deepest level


class Size(NamedTuple):
    """A network: (channels, side) of its maps, FLOPs for one image or digit, parameters, operators."""

    maps: tuple[tuple[int, int], ...]
    flops: int
    parameters: int
    steps: tuple[str, ...] = ()


def layer_flops(layers: nn.Module, pixels: int) -> int:
    """FLOPs, as fvcore counts them, of layers on maps of `pixels` (transposed convolutions: input)."""
    leaves = [layer for layer in layers.modules() if hasattr(layer, "weight")]
    return pixels * sum(x.weight.numel() * (5 if isinstance(x, nn.GroupNorm) else 1) for x in leaves)


@lru_cache(maxsize=512)
def unet_size(b: int, d: int, m: float, c: int, block: str = "conv", joining: str | None = None) -> Size:
    """A UNet, or a DC-Net with one digit: the encoder's maps, finest first, and what it all costs."""
    with torch.device("meta"):
        unet = UNet(b, d, m, c, block=block)
        head = nn.Linear(unet.widths[-1], CLASSES)
    sides = [(IMAGE_SIZE + -IMAGE_SIZE % unet.stride) // 2**i for i in range(d)]
    layers = [*zip(unet.down, sides), *zip(unet.merge, sides), *zip(unet.up, sides[1:])]
    flops = sum(layer_flops(layer, side**2) for layer, side in [*layers, (unet.out, sides[0])])
    parameters = count_parameters(unet)
    if joining == "integrated":
        flops, parameters = flops + layer_flops(head, 1), parameters + count_parameters(head)
    elif joining == "sequential":
        extra = classifier_size(*vars(CLASSIFIERS["MB2.5-M"]).values())
        flops, parameters = flops + extra.flops, parameters + extra.parameters
    return Size(tuple(zip(unet.widths, sides)), flops, parameters)


@lru_cache(maxsize=512)
def classifier_size(first: int, second: int, expansion: float | None = None) -> Size:
    """A classifier of one digit: the maps up to the global pooling, and the operators between them."""
    with torch.device("meta"):
        network = Classifier(first, second, expansion)
    maps, steps, flops = [(1, BOX_SIZE)], [], layer_flops(network.head, 1)
    for layer in network.features.modules():  # in the order of the forward pass
        channels, side = maps[-1]
        if isinstance(layer, nn.Conv2d):
            operator = "depthw." if layer.groups > 1 else "conv"
            steps.append(f"{layer.kernel_size[0]}×{layer.kernel_size[0]}\n{operator}")
            maps.append((layer.out_channels, side))
        elif isinstance(layer, nn.MaxPool2d):
            steps.append("max\npool")
            maps.append((channels, side // 2))
        flops += layer_flops(layer, side**2) if isinstance(layer, nn.Conv2d | nn.GroupNorm) else 0
    return Size(tuple(maps), flops, count_parameters(network), tuple(steps))


def _arrow(axes: Axes, start, end, colour: str, **style: str) -> None:
    look = dict(arrowstyle="-|>", color=colour, linewidth=1.6, shrinkA=1, shrinkB=1)
    axes.annotate("", end, start, arrowprops=look | style)


def _blocks(axes: Axes, x: float, y: float, half: float, tall: float, count: int, colour: str) -> None:
    """`count` boxes side by side around (x, y): 2 * half wide together, 2 * tall high."""
    look, width = dict(facecolor=colour, edgecolor="black", linewidth=0.9), 2 * half / count
    for i in range(count):
        axes.add_patch(Rectangle((x - half + width * i, y - tall), width, 2 * tall, **look))


def _chain(axes: Axes, start, places, texts) -> None:
    """Rounded boxes with text at `places`; arrows from `start` to the first, from each to the next."""
    box = dict(boxstyle="round,pad=0.3", facecolor=HEAD, edgecolor="black")
    arrow = dict(arrowstyle="-|>", color="black", linewidth=1.6, shrinkA=0)
    for before, place, text in zip([start, *places], places, texts):
        patch = axes.text(*place, text, bbox=box, **MIDDLE).get_bbox_patch()
        axes.annotate("", place, before, arrowprops=arrow | dict(patchB=patch), zorder=0)


def _levels(axes: Axes, maps, c: int) -> list[tuple[float, float, float, float]]:
    """All levels with skip connections; (x, y, half width, half height) of each encoder's blocks."""
    widths = [0.045 * channels**0.5 for channels, _ in maps]
    shrink = min(1, 2.6 / (c * widths[-1]), 1.2 / (c * max(widths[:-1], default=0.1)))
    places, top = [], 0.0
    for i, (channels, side) in enumerate(maps):
        half, tall = c * shrink * widths[i] / 2, (side / maps[0][1]) ** 0.5 / 2
        x, y = 5 if i == len(maps) - 1 else 2.2 + 0.25 * i, top - tall
        top -= 2 * tall + 0.45
        places.append((x, y, half, tall))
        _blocks(axes, x, y, half, tall, c, ENCODER)
        if x < 5:  # all but the deepest level, which stands in the middle
            _blocks(axes, 10 - x, y, half, tall, c, DECODER)
            _arrow(axes, (x + half, y), (10 - x - half, y), SKIP, linestyle="--")
        label, box = f"{channels} ch, {side} × {side}", dict(facecolor="white", edgecolor="none", pad=2)
        axes.text(5, y if x < 5 else y + tall + 0.16, label, bbox=box if x < 5 else None, **MIDDLE)
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
        if to_x == 5:
            _arrow(axes, (x, y - tall), (5 - to_half, to_y), DOWN, connectionstyle=BENDS[0])
            _arrow(axes, (5 + to_half, to_y), (10 - x, y - tall), UP, connectionstyle=BENDS[1])
        else:
            _arrow(axes, (x, y - tall), (to_x, to_y + to_tall), DOWN)
            _arrow(axes, (10 - to_x, to_y + to_tall), (10 - x, y - tall), UP)


def _legend(axes: Axes, block: str, deep: bool) -> None:
    name = "3×3 conv blocks" if block == "conv" else "MBConv blocks"
    boxes = {f"encoder: {name}": ENCODER} | ({f"decoder: {name}": DECODER} if deep else {})
    lines = {"1×1 conv": (ONE, "-")}
    if deep:
        lines |= {
            "2×2 max pool ↓": (DOWN, "-"),
            "2×2 transposed conv ↑": (UP, "-"),
            "skip": (SKIP, "--"),
        }
    handles = [Patch(facecolor=colour, edgecolor="black", label=text) for text, colour in boxes.items()]
    handles += [Line2D([], [], color=c, linestyle=line, label=text) for text, (c, line) in lines.items()]
    look = dict(ncols=3, fontsize=10, columnspacing=1.2, borderaxespad=0)
    axes.legend(handles=handles, loc="lower center", **look)


def _finish(axes: Axes, bottom: float, top: float, title: str) -> Figure:
    axes.set(xlim=(0, 10), ylim=(bottom, top), title=title)
    axes.set_axis_off()
    return axes.figure


def unet(b: int, d: int, m: float, c: int, block="conv", joining=None, axes=None) -> Figure:
    """Figure 2: a UNet, or with `joining` "sequential" or "integrated" a DC-Net; on `axes` if given."""
    network = unet_size(b, d, m, c, block, joining)
    axes = axes or new_figure(7, 4.5)[1]
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
    costs = f"{network.flops / 1e6:,.1f} M FLOPs, {network.parameters:,} parameters"
    return _finish(axes, 1.2 * bottom - 0.3, 0.35, f"{name}\n{costs}")


def classifier(first: int, second: int, expansion: float | None = None, axes=None) -> Figure:
    """A classifier of Section 3.1 from the digit's square to the classes; on `axes` if given."""
    network = classifier_size(first, second, expansion)
    axes = axes or new_figure(7, 2.8)[1]
    maps = [*network.maps, (network.maps[-1][0], 1), (CLASSES, 1)]
    steps = ["", *network.steps, "global\nmax p.", "linear"]
    pitch, before = 10 / len(maps), 0.0
    for i, ((channels, side), step) in enumerate(zip(maps, steps)):
        x, half, tall = (i + 0.5) * pitch, 0.026 * channels**0.5, (side / BOX_SIZE) ** 0.5 / 2
        _blocks(axes, x, 0, half, tall, 1, "white" if i == 0 else HEAD if side == 1 else ENCODER)
        text = f"{channels} ch\n{side} × {side}" if side > 1 else f"{channels}"
        axes.text(x, -0.62, text, fontsize=10.5, ha="center", va="top")
        if step:
            _arrow(axes, (before, 0), (x - half, 0), DOWN if "max" in step else "black")
            axes.text((before + x - half) / 2, 0.62, step, fontsize=10.5, ha="center", va="bottom")
        before = x + half
    axes.text(5, -1.4, "not drawn: GroupNorm and ReLU", fontsize=9.5, color=SKIP, ha="center")
    family = "conv" if expansion is None else f"MBConv, rate {expansion:g}"
    costs = f"{network.flops / 1e3:,.1f} K FLOPs, {network.parameters:,} parameters"
    return _finish(axes, -1.4, 1.2, f"Classifier {first}, {second} ({family})\n{costs}")


class Trained:
    """Quality over FLOPs of trained networks (`rows`: label, flops, sigma, `metric`), and a choice."""

    def __init__(self, rows: pd.DataFrame, metric: str, axes):
        self.rows, self.metric, self.axes, self.lines = rows, metric, axes, {}
        for mb, label in ((False, "conv"), (True, "MBConv")):
            look = dict(color=PALETTE[mb], marker=MARKERS[mb], linestyle="", label=label)
            (self.lines[mb],) = axes.plot([], [], **look)
        look = dict(marker="o", markersize=11, markerfacecolor="none", color="black", linestyle="")
        (self.ring,) = axes.plot([], [], label="costs about as much", **look)
        self.choice = axes.axvline(1e6, color="black", linestyle="--", label="this one")
        axes.set(xscale="log", xlabel="FLOPs", xlim=(rows["flops"].min() / 5, rows["flops"].max() * 5))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.minorticks_off()
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, columnspacing=1)
        self.table = lru_cache(self._table)

    def _table(self, sigma: float | None) -> pd.DataFrame:
        """Each network's mean quality at a noise level (None: over all), and the ms of an image."""
        rows = self.rows if sigma is None else self.rows[np.isclose(self.rows["sigma"], sigma)]
        table = rows.groupby("label")[["flops", self.metric]].mean()
        return table.assign(mb=table.index.str.startswith("MB"), ms=section_3(batch=1)["median_ms"])

    def show(self, size: Size, mb: bool, sigma: float | None, unit: str) -> str:
        """Mark a network; in words what it costs, and what those reach that cost about as much."""
        table = self.table(sigma)
        for is_mb, line in self.lines.items():
            line.set_data(*table.loc[table["mb"] == is_mb, ["flops", self.metric]].to_numpy().T)
        self.axes.set_ylim(table[self.metric].min() - 0.8, table[self.metric].max() + 0.8)
        self.choice.set_xdata([size.flops] * 2)
        near = table[(table["mb"] == mb) & table["flops"].between(size.flops / 2, size.flops * 2)]
        same = near[near["flops"] == size.flops]
        listed = near if same.empty else same
        self.ring.set_data(listed["flops"], listed[self.metric])
        text = f"{EngFormatter(places=1)(size.flops)} FLOPs, {size.parameters:,} parameters. "
        if listed.empty:
            return text + "Neither it nor one that costs about as much is trained."
        ends = listed[[self.metric, "ms"]].agg(["min", "max"]).map("{:.1f}".format)
        quality, ms = (" to ".join(ends[name].unique()) for name in (self.metric, "ms"))
        if same.empty:
            text += f"Not trained; trained ones that cost half to twice as much ({len(near)}): "
        return f"{text}{quality}{unit} in {ms} ms."
