"""The look-up table's curves for its widget."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..latency.table import Table
from ..nas.lut import key_of
from ..nas.space import Space
from . import figures


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
