"""The look-up table's curves for its widget, and a search's curves for the report of an engineer's own search."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..latency.table import Table
from ..nas.lut import key_of
from ..nas.space import Space
from . import figures
from .figures import PALETTE


def curves_figure(table: Table, space: Space, layers: Sequence[int], text: str) -> Figure:
    """Latency over hidden width of every operator in a few layers, with the interquartile range of the samples."""
    figure, grid = figures.new_figure(4.2 * len(layers), 4.2, 1, len(layers), squeeze=False)
    for axes, i in zip(grid[0], layers, strict=True):
        draw_curves(axes, table, space, i)
    grid[0, 0].set_ylabel("latency of the block (ms)")
    columns = 4 if len(layers) > 1 else 2
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=columns, frameon=False)
    return figures.note(figure, text)


def draw_curves(axes: Axes, table: Table, space: Space, i: int) -> None:
    """A layer of `curves_figure`, without its legend."""
    layer = space.layers[i]
    for n, operator in enumerate(space.candidates):
        curve = table.curves[key_of(layer, operator)]
        low, high = operator.least_hidden(layer.in_channels), operator.most_hidden(layer.in_channels)
        inside = [k for k, hidden in enumerate(curve.hidden) if low <= hidden <= high]
        axes.errorbar(
            [curve.hidden[k] for k in inside], [curve.median_ms[k] for k in inside], [curve.spread_ms[k] / 2 for k in inside],
            capsize=2, label=operator.name, **figures.style(n),
        )  # fmt: skip
    axes.set_title(f"{layer.name}: {layer.in_channels} to {layer.out_channels}, {layer.size} px", y=1)  # not searched for
    axes.set_xlabel("hidden width (channels)")
    axes.set_ylim(bottom=0)


def extremes_ms(table: Table, space: Space, index: int) -> tuple[float, float]:
    """The fastest and the slowest choice of a layer."""
    layer = space.layers[index]
    ends = [(o.least_hidden(layer.in_channels), o.most_hidden(layer.in_channels)) for o in space.candidates]
    times = [table.part_ms(key_of(layer, o), n) for o, pair in zip(space.candidates, ends, strict=True) for n in pair]
    return min(times), max(times)



def search_curves(epochs: dict[str, pd.DataFrame], target_ms: float, text: str) -> Figure:
    """Expected and argmax latency, entropy of the alphas and flips of the best operator over the epochs of several searches."""
    figure, grid = figures.new_figure(13, 4.6, 1, 3)
    for i, (name, frame) in enumerate(epochs.items()):
        look = dict(color=PALETTE[i])
        grid[0].plot(frame["epoch"], frame["argmax_ms"], linestyle=figures.LINES[i], **look)
        grid[0].plot(frame["epoch"], frame["expected_ms"], linestyle=":", linewidth=1, **look)
        grid[1].plot(frame["epoch"], frame["entropy"], label=name, linestyle=figures.LINES[i], **look)
        grid[2].plot(frame["epoch"], frame["flips"], label=name, linestyle=figures.LINES[i], **look)
    grid[0].axhline(target_ms, color="0.4", linewidth=1)
    grid[0].set(xlabel="epoch", ylabel="latency by the table (ms)")
    grid[1].set(xlabel="epoch", ylabel="entropy of the alphas (1: undecided)")
    grid[2].set(xlabel="epoch", ylabel="layers whose best operator changed")
    figure.legend(*grid[1].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figures.note(figure, text)
