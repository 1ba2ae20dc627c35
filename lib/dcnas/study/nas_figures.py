"""Drawings of Section 4's networks (Figure 8), made from their architectures."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ..latency.table import Table
from ..nas.lut import predicted_ms
from ..nas.networks import dropped_level, encoder_levels
from ..nas.space import ENCODER_STAGES, Architecture, Space
from .figures import COLOURS, new_figure, note

KERNEL_COLOURS = {3: COLOURS["sky"], 5: COLOURS["blue"]}  # light and dark: told apart in grey as well
FIXED = "0.85"


def architecture_figure(
    architecture: Architecture, title: str, network="C-NAS", table: Table | None = None, decoder="conv"
) -> Figure:
    """Figure 8: a box per block, as high as its expansion rate, dark for kernel 5, hatched with SE.

    The decoder of D-NAS and DC-NAS stands below the levels that it joins; DC-NAS_seq is two drawings.
    """
    latency = f", {predicted_ms(table, architecture, network):.2f} ms by the table" if table else ""
    parts = {"D-NAS": "first", "C-NAS": "then, on its output"}
    parts = parts if network == "DC-NAS_seq" else {network: ""}
    heights = [4.2 if part == "C-NAS" else 5.4 for part in parts]
    figure, grid = new_figure(13, sum(heights), len(parts), 1, squeeze=False, height_ratios=heights)
    for axes, (part, order) in zip(grid[:, 0], parts.items()):
        axes.set_title(order)
        _draw_network(axes, architecture, part, decoder)
    figure.suptitle(f"{title}{latency}", fontsize=12)
    text = "Height: expansion rate; the number above a block: its hidden width in channels."
    return note(figure, text)


def _draw_network(axes: Axes, architecture: Architecture, network: str, decoder: str) -> None:
    """Stem, blocks (an empty box where one is left out), head and decoder of a network."""
    space, sizes = architecture.space, map_sizes(architecture.space)
    boxes = [(0.0, 2, FIXED, "black", "", "3x3"), (1.0, 2, FIXED, "black", "", "MB")]
    x, ticks, ends = 2.0, [(0.9, "stem")], {0: 2.0}
    for s, stage in enumerate(space.stages[:ENCODER_STAGES] if network == "D-NAS" else space.stages):
        first, last = x + 0.35, space.layers[stage[-1]]
        for n, i in enumerate(stage):
            layer, choice = space.layers[i], architecture.choices[i]
            look = (1, "none", "0.7", "", "")
            if choice is not None:
                height, hatch = choice.hidden / layer.in_channels, "//" if choice.operator.se else ""
                colour = KERNEL_COLOURS[choice.operator.kernel]
                look = height, colour, "black", hatch, f"{choice.hidden}"
            boxes.append((first + n, *look))
        x = first + len(stage)
        size = last.size // last.stride
        ticks.append(((first + x) / 2 - 0.1, f"stage {s + 1}\n{last.out_channels} ch., {size} px"))
        if s < ENCODER_STAGES:
            ends[sizes.index(size)] = x
    if network != "D-NAS":
        boxes.append((x + 0.35, 2, FIXED, "black", "", "1x1\npool\nlinear"))
        ticks.append((x + 0.75, "head"))
    left, height, color, edgecolor, hatch, texts = zip(*boxes)
    look = dict(color=color, edgecolor=edgecolor, hatch=hatch, align="edge")
    axes.bar_label(axes.bar(left, height, 0.8, **look), texts, fontsize=9)
    if network != "C-NAS":
        _draw_decoder(axes, space, ends, decoder)
    bottom = -0.2 if network == "C-NAS" else -2.6
    right = x + (5.2 if network == "D-NAS" else 1.6)  # room for the text beside the decoder
    axes.set(xlim=(-0.3, right), ylim=(bottom, 9.6), ylabel="expansion rate", yticks=range(0, 9, 2))
    axes.set_xticks(*zip(*ticks), fontsize=9)
    axes.grid(False, axis="x")
    looks = {f"MBConv, kernel {size}": dict(facecolor=colour) for size, colour in KERNEL_COLOURS.items()}
    looks |= {"with SE": dict(facecolor="white", hatch="//"), "fixed": dict(facecolor=FIXED)}
    handles = [Patch(edgecolor="black", label=name, **look) for name, look in looks.items()]
    axes.legend(handles=handles, ncols=4, loc="upper left", fontsize=9)


def map_sizes(space: Space) -> list[int]:
    """Sides of the encoder's maps in pixels, finest first."""
    ratios = [level.ratio for level in encoder_levels(space)]
    return [int(side) for side in space.resolution // np.cumprod(ratios)]


def _draw_decoder(axes: Axes, space: Space, ends: dict[int, float], decoder: str) -> None:
    """The decoder, from the deepest level to full size; `ends`: where the encoder's maps end."""
    sides, levels = [space.resolution, *map_sizes(space)], encoder_levels(space)
    dropped = dropped_level(levels) if decoder == "mb 3-lay" else None
    places = {i: ends[i - 1] - 1.0 if i else 0.0 for i in range(len(levels)) if i != dropped}
    arrow = dict(arrowstyle="->", color="black")
    for i, x in places.items():
        axes.add_patch(Rectangle((x, -2.2), 0.9, 1.2, facecolor=COLOURS["green"], edgecolor="black"))
        axes.text(x + 0.45, -1.6, f"{sides[i]}", fontsize=9, color="white", ha="center", va="center")
        if i:  # the skip connection
            axes.annotate("", (x + 0.45, -1.0), (x + 0.45, 0), arrowprops=arrow | dict(color="0.35"))
    for finer, x in zip(places.values(), [*places.values()][1:]):
        axes.annotate("", (finer + 0.9, -1.6), (x, -1.6), arrowprops=arrow)
    deepest, start = ends[len(levels) - 1], max(places.values()) + 0.9
    bend = arrow | dict(connectionstyle="angle3")
    axes.annotate("", (start, -1.4), (deepest - 0.6, 0), arrowprops=bend)
    blocks = {"conv": "two blocks", "mb 1-op": "one MBConv block"}.get(decoder, "two MBConv blocks")
    text = f"decoder: transposed convolution,\nskip connection, {blocks}; size in pixels"
    axes.text(deepest, -1.6, text, va="center", fontsize=9)
