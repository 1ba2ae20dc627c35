"""Drawings of Section 4's networks (Figure 8), made from their architectures."""

from collections import defaultdict

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..latency.table import Table
from ..nas.lut import parts
from ..nas.networks import encoder_levels
from ..nas.space import Architecture, Space
from .figures import COLOURS, new_figure, note

KERNEL_COLOURS = {3: COLOURS["sky"], 5: COLOURS["blue"]}  # light and dark: told apart in grey as well
FIXED, DECODER = "0.85", COLOURS["green"]
LOOKS = {f"MBConv, kernel {size}": dict(facecolor=colour) for size, colour in KERNEL_COLOURS.items()}
LOOKS |= {"with SE": dict(facecolor="white", hatch="//"), "fixed": dict(facecolor=FIXED)}
IN_TURN = {"D-NAS": "first, the denoiser", "C-NAS": "then, the classifier on its output"}


def architecture_figure(
    architecture: Architecture, title: str, network="C-NAS", table: Table | None = None, decoder="conv"
) -> Figure:
    """Figure 8 as a timeline: a box per block, as wide as the table's milliseconds for it, as high as
    its expansion rate, dark for kernel 5, hatched with SE.

    Without a table all are equally wide. DC-NAS_seq is two timelines, one after the other.
    """
    rows = IN_TURN if network == "DC-NAS_seq" else {network: ""}
    figure, grid = new_figure(10, 3.1 * len(rows) + 0.6, len(rows), 1, squeeze=False)
    total_ms = longest_ms = 0.0
    for axes, (part, order) in zip(grid[:, 0], rows.items()):
        boxes, ticks = _boxes(architecture, part, table, decoder)
        width, height, color, hatch, texts = zip(*boxes)
        left = np.cumsum((0, *width[:-1]))
        look = dict(color=color, edgecolor="black", hatch=hatch, align="edge")
        bars = axes.bar(left, height, width, **look)
        axes.bar_label(bars, texts, fontsize=9, padding=3, rotation=90)
        edges = np.cumsum((0, *(sum(width[i] for i in some) for some in ticks.values())))
        names = [n if w > sum(width) / 25 else "" for n, w in zip(ticks, np.diff(edges))]
        axes.set_xticks((edges[1:] + edges[:-1]) / 2, names, fontsize=9)
        axes.set(ylim=(0, 10.4), ylabel="expansion rate", yticks=range(0, 9, 2), title=order)
        axes.vlines(edges, -0.5, 0, color="0.5", clip_on=False)
        axes.grid(False, axis="x")
        total_ms, longest_ms = total_ms + edges[-1], max(longest_ms, edges[-1])
    for axes in grid[:, 0]:  # a millisecond is as wide in both
        axes.set_xlim(-0.01 * longest_ms, 1.01 * longest_ms)
    handles = [Patch(edgecolor="black", label=name, **look) for name, look in LOOKS.items()]
    if network != "C-NAS":
        handles.append(Patch(edgecolor="black", label="decoder", facecolor=DECODER))
    figure.legend(handles=handles, ncols=5, loc="outside upper center", fontsize=9)
    latency = f", {table.corrected(total_ms):.2f} ms by the table" if table else ""
    grid[0, 0].set_title("\n".join(filter(None, (f"{title}{latency}", grid[0, 0].get_title()))))
    wide = "its latency" if table else "the same for all"
    text = f"Width of a block: {wide}; height: its expansion rate; the number: hidden channels."
    return note(figure, text)


def _boxes(
    architecture: Architecture, network: str, table: Table | None, decoder: str
) -> tuple[list[tuple], dict[str, list[int]]]:
    """(width, height, colour, hatch, text) of each part of a network in the order in which it runs, and
    the parts below each name of the axis.
    """
    space, boxes, ticks = architecture.space, [], defaultdict(list)
    pairs = zip(space.layers, architecture.choices, strict=True)
    blocks = iter([(layer, choice) for layer, choice in pairs if choice is not None])
    for n, (key, hidden) in enumerate(parts(architecture, network, decoder)):
        width = table.part_ms(key, hidden) if table else 1.0
        look, name = (2, FIXED, "", ""), key.partition(".")[0]
        if key.startswith("decoder"):
            look, name = (2, DECODER, "", ""), "decoder" if decoder == "conv" else key
        elif hidden:
            layer, choice = next(blocks)
            height, hatch = hidden / layer.in_channels, "//" if choice.operator.se else ""
            look = height, KERNEL_COLOURS[choice.operator.kernel], hatch, f"{hidden}"
            last = space.layers[space.stages[layer.stage][-1]]
            size = f"{last.out_channels} ch.\n{last.size // last.stride} px"
            name = f"stage {layer.stage + 1}\n{size}"
        boxes.append((width, *look))
        ticks[name].append(n)
    return boxes, ticks


def map_sizes(space: Space) -> list[int]:
    """Sides of the encoder's maps in pixels, finest first."""
    ratios = [level.ratio for level in encoder_levels(space)]
    return [int(side) for side in space.resolution // np.cumprod(ratios)]
