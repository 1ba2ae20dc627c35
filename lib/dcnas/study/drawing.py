"""Drawings of Section 3's UNets and DC-Nets (Figure 2), made from the networks themselves, and the
trained networks among which one stands.

The height of a box grows with the square root of the map's side, its width with that of its channels.
"""

from functools import lru_cache

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import EngFormatter

from ..build import build
from ..data.two_digits import IMAGE_SIZE
from ..models import count_flops, count_parameters, unet_widths
from ..models.crops import BOX_SIZE
from .figures import COLOURS, MARKERS, PALETTE, new_figure
from .latencies import section_3

CLASSES = 10
MIDDLE = {"fontsize": 11, "ha": "center", "va": "center"}
DOWN, UP, SKIP, ONE = COLOURS["red"], COLOURS["green"], "0.35", COLOURS["purple"]
ENCODER, DECODER, HEAD = COLOURS["sky"], COLOURS["blue"], "0.93"  # light and dark, also in grey
BENDS = "angle,angleA=-90,angleB=180", "angle,angleA=0,angleB=-90"  # to and from the deepest level


@lru_cache(maxsize=512)
def unet_cost(b, d, m, c, block="conv", joining=None) -> tuple[int, int]:
    """FLOPs for one image, of a DC-Net with one digit, and parameters."""
    net = dict(kind=joining or "unet", unet=dict(b=b, d=d, m=m, c=c, block=block))
    model, side, boxes = build(net | dict(classifier="MB2.5-M")), IMAGE_SIZE, []
    if joining:
        boxes = [torch.tensor([[[0, 0, BOX_SIZE, BOX_SIZE]]])]
    else:
        side = max(32, 2**d)  # a slider must not wait: all of a UNet grows with the pixels
    flops = count_flops(model, torch.zeros(1, 1, side, side), *boxes)
    return flops * IMAGE_SIZE**2 // side**2, count_parameters(model)


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


def unet(b: int, d: int, m: float, c: int, block="conv", joining=None, axes=None) -> Figure:
    """Figure 2: a UNet, or with `joining` "sequential" or "integrated" a DC-Net; on `axes` if given."""
    axes = axes or new_figure(7, 4.5)[1]
    maps = [(width, IMAGE_SIZE // 2**i) for i, width in enumerate(unet_widths(b, d, m))]
    places = _levels(axes, maps, c)
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
    flops, parameters = unet_cost(b, d, m, c, block, joining)
    title = f"{name}\n{flops / 1e6:,.1f} M FLOPs, {parameters:,} parameters"
    axes.set(xlim=(0, 10), ylim=(1.2 * bottom - 0.3, 0.35), title=title)
    axes.set_axis_off()
    return axes.figure


def among_trained(axes: Axes, rows: pd.DataFrame, metric: str, flops: int, mb: bool, unit: str) -> str:
    """Draw quality over FLOPs of trained networks (`rows`: label, flops, `metric`), a mark at `flops`.

    In words what those of its kind (`mb`: MBConv) reach that cost about as much, in how many ms.
    """
    axes.clear()
    trained = rows.groupby("label")[["flops", metric]].mean().join(section_3(batch=1)["median_ms"])
    is_mb = trained.index.str.startswith("MB")
    for kind, label in enumerate(("conv", "MBConv")):
        points = trained[is_mb == kind]
        look = dict(color=PALETTE[kind], marker=MARKERS[kind], linestyle="", label=label)
        axes.plot(points["flops"], points[metric], **look)
    near = trained[(is_mb == mb) & trained["flops"].between(flops / 2, flops * 2)]
    same = near[near["flops"] == flops]
    listed = near if same.empty else same
    ring = dict(marker="o", markersize=11, markerfacecolor="none", color="black", linestyle="")
    axes.plot(listed["flops"], listed[metric], label="costs about as much", **ring)
    axes.axvline(flops, color="black", linestyle="--", label="this one")
    axes.set(xscale="log", xlabel="FLOPs", xlim=(rows["flops"].min() / 5, rows["flops"].max() * 5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.minorticks_off()
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, columnspacing=1)
    if listed.empty:
        return "Neither it nor one that costs about as much is trained."
    ends = listed[[metric, "median_ms"]].agg(["min", "max"]).map("{:.1f}".format)
    quality, ms = (" to ".join(ends[name].unique()) for name in (metric, "median_ms"))
    text = f"Not trained; trained ones that cost half to twice as much ({len(near)}): "
    return f"{text if same.empty else ''}{quality}{unit} in {ms} ms."
