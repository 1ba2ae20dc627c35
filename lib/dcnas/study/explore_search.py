"""Section 4's widgets: the look-up table, the best network for any target latency, a search epoch by epoch, denoised images.

Each function makes a `Panel` (see `explore`). What a move shows is looked up, never searched: the frontier is solved beforehand.
"""

from functools import cache

import ipywidgets as W
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox

from ..latency.table import Table
from ..nas.derive import frontier
from ..nas.lut import predicted_ms
from ..nas.space import Space
from . import nas_figures, plots_search, results4
from .explore import Drawn, Panel
from .figures import PALETTE, Backdrop, columns, enlarged, new_figure
from .runs import SAMPLE_SIGMAS, SAMPLES


def table(found: Table, space: Space) -> Panel:
    """The latencies of all operators in one layer over their hidden width."""

    @cache
    def still() -> tuple[Backdrop, Bbox]:
        figure = plots_search.curves_figure(found, space, [0], "Bars: interquartile range of the samples.")
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        figure.axes[0].set_visible(False)
        return Backdrop(figure), figure.axes[0].get_position()

    def draw(layer: int) -> Drawn:
        chosen = space.layers[layer - 1]
        backdrop, place = still()
        figure = backdrop.below()
        plots_search.draw_curves(figure.add_axes(place, ylabel="latency of the block (ms)"), found, space, layer - 1)
        low, high = plots_search.extremes_ms(found, space, layer - 1)
        return figure, f"layer {layer} of {len(space.layers)}, {chosen.name}: from {low:.2f} to {high:.2f} ms"

    slider = W.IntSlider(1, 1, len(space.layers), description="layer", continuous_update=True)
    return Panel("table", {"layer": slider}, draw)


def target(
    found: Table, searches: dict[str, tuple[Space, list[np.ndarray]]], network: str = "C-NAS", decoder: str = "conv"
) -> Panel:
    """The best network for a target latency, from the alphas of one of several searches: drawing and predicted latency, at once.

    `searches`: a name to the search's space and the log-probabilities of the operators of its layers.
    """
    solved = {name: frontier(space, found, log_alphas, network, decoder) for name, (space, log_alphas) in searches.items()}
    low, high = max(f.range_ms[0] for f in solved.values()), min(f.range_ms[1] for f in solved.values())
    low += (high - low) / 200  # the grid rounds up

    @cache
    def still(search: str) -> tuple[Backdrop, float, Axes, dict[int, float]]:
        figure, [(axes, places)] = nas_figures.network_frame(searches[search][0], "", network)
        title = figure.suptitle(network, fontsize=12)
        figure.draw_without_rendering()  # finds a place for the title, which changes
        figure.set_layout_engine("none")
        title.set_text("")
        return Backdrop(figure), title.get_position()[1], axes, places

    def draw(search: str, target_ms: float) -> Drawn:
        space, log_alphas = searches[search]
        best = solved[search].best(target_ms)
        backdrop, height, axes, places = still(search)
        figure = backdrop.below()
        nas_figures.draw_blocks(figure, axes, places, best)
        latency_ms = predicted_ms(found, best, network)
        figure.suptitle(f"{network} for {target_ms:.2f} ms, {latency_ms:.2f} ms by the table", y=height, fontsize=12)
        likelihood = sum(a[space.candidates.index(c.operator)] for a, c in zip(log_alphas, best.choices, strict=True))
        return figure, (
            f"prediction of the table: {solved[search].latency_ms(best):.2f} ms of {target_ms:.2f} ms asked; "
            f"probability of its operators by the alphas {np.exp(likelihood / len(best.choices)):.2f} per layer"
        )

    middle = round((low + high) / 2, 2)
    slider = W.FloatSlider(
        middle, min=round(low, 2), max=np.floor(100 * high) / 100, step=round((high - low) / 100, 3), description="target (ms)",
        style={"description_width": "initial"}, layout=W.Layout(width="420px"),
    )  # fmt: skip
    choice = W.Dropdown(options=list(searches), description="search")
    return Panel("target", {"search": choice, "target_ms": slider}, draw)


def outputs(rows: pd.DataFrame) -> Panel:
    """What the networks whose images are kept make of a test image at a noise level."""
    return pictures(rows, results4.samples(rows))


def pictures(rows: pd.DataFrame, found: dict[str, np.ndarray]) -> Panel:
    """The same for outputs that were read already, as `results4.samples` gives them."""

    def draw(image: int, sigma: float) -> Drawn:
        return enlarged(results4.pictures(rows, found, image, sigma)), f"test image {image}, σ = {sigma:g}"

    controls = {
        "image": W.IntSlider(0, 0, SAMPLES - 1, description="image"),
        "sigma": W.SelectionSlider(options=SAMPLE_SIGMAS, value=0.4, description="noise σ"),
    }
    return Panel("outputs", controls, draw)


def replay(alphas: pd.DataFrame, epochs: pd.DataFrame, target_ms: float) -> Panel:
    """A search epoch by epoch: the probability of every operator in every layer, and the latency so far."""
    part = alphas[alphas["parameter"] == "alpha"]
    places, choices = list(dict.fromkeys(part["place"])), list(dict.fromkeys(part["choice"]))
    cube = part.pivot_table(index=["epoch", "place"], columns="choice", values="probability", sort=False)

    bars = [dict(facecolor=PALETTE[n], edgecolor="white", hatch="//" if c.endswith("-se") else "") for n, c in enumerate(choices)]
    curves = {"argmax": dict(color=PALETTE[0]), "expected": dict(color=PALETTE[1], linestyle="--")}

    @cache
    def still() -> tuple[Backdrop, Axes, Axes]:
        figure, (left, right) = new_figure(12, 4, 1, 2, width_ratios=(2, 1))
        labels = [place.replace("stage", "").replace("block", "") for place in places]
        left.set_xticks(range(len(places)), labels, fontsize=8)
        left.set(xlabel="layer (stage.block)", ylabel="probability", xlim=(-0.9, len(places) - 0.1), ylim=(0, 1))
        handles = [Patch(label=choice, **look) for choice, look in zip(choices, bars, strict=True)]
        left.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=8)
        lines = [right.plot(epochs["epoch"], epochs[f"{name}_ms"], label=name, **look)[0] for name, look in curves.items()]
        right.axhline(target_ms, color="0.4", linewidth=1, label="target")
        right.set(xlabel="epoch", ylabel="latency by the table (ms)", xlim=(-0.5, epochs["epoch"].max() + 0.5))
        right.legend(fontsize=8)
        for line in lines:  # they have found the limits and the legend its place
            line.set_visible(False)
        return Backdrop(figure), left, right

    def draw(epoch: int) -> Drawn:
        backdrop, left, right = still()
        figure = backdrop.below()
        tops = cube.loc[epoch].loc[places, choices].to_numpy().cumsum(1).T
        for low, high, look in zip([0 * tops[0], *tops], tops, bars, strict=False):
            columns(figure, left, np.arange(len(places)), low, high, 0.85, **look)
        upto = epochs[epochs["epoch"] <= epoch]
        for name, look in curves.items():
            figure.add_artist(Line2D(upto["epoch"], upto[f"{name}_ms"], transform=right.transData, **look))
        now = epochs[epochs["epoch"] == epoch].iloc[0]
        text = f"entropy {now['entropy']:.2f}, {now['flips']:.0f} best operators changed, argmax {now['argmax_ms']:.2f} ms"
        return figure, f"epoch {epoch}: {text}"

    last = int(epochs["epoch"].max())
    slider = W.IntSlider(last, int(epochs["epoch"].min()), last, description="epoch")
    return Panel("replay", {"epoch": slider}, draw)
