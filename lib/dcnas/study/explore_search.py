"""Section 4's widgets: the look-up table, the best network for any target latency, a search epoch by epoch, denoised images.

Each function makes a `Panel` (see `explore`). What a move shows is looked up, never searched: the frontier is solved beforehand.
"""

import ipywidgets as W
import numpy as np
import pandas as pd

from ..latency.table import Table
from ..nas.derive import frontier
from ..nas.space import Space
from . import plots_nas, plots_search
from .explore import Drawn, Panel
from .figures import PALETTE, new_figure
from .results4 import samples
from .runs import SAMPLE_SIGMAS, SAMPLES


def table(found: Table, space: Space) -> Panel:
    """The latencies of all operators in one layer over their hidden width."""

    def draw(layer: int) -> Drawn:
        chosen = space.layers[layer - 1]
        figure = plots_search.curves_figure(found, space, [layer - 1], "Bars: interquartile range of the samples.")
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

    def draw(search: str, target_ms: float) -> Drawn:
        space, log_alphas = searches[search]
        best = solved[search].best(target_ms)
        figure = plots_search.architecture_figure(best, f"{network} for {target_ms:.2f} ms", network, found)
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
    return pictures(rows, samples(rows))


def pictures(rows: pd.DataFrame, found: dict[str, np.ndarray]) -> Panel:
    """The same for outputs that were read already, as `results4.samples` gives them."""

    def draw(image: int, sigma: float) -> Drawn:
        return plots_nas.pictures_figure(rows, found, image, sigma), f"test image {image}, σ = {sigma:g}"

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

    def draw(epoch: int) -> Drawn:
        figure, (left, right) = new_figure(12, 4, 1, 2, width_ratios=(2, 1))
        values = cube.loc[epoch].loc[places, choices].to_numpy()
        bottom = np.zeros(len(places))
        for n, choice in enumerate(choices):
            look = dict(color=PALETTE[n], edgecolor="white", hatch="//" if choice.endswith("-se") else "")
            left.bar(range(len(places)), values[:, n], bottom=bottom, width=0.85, label=choice, **look)
            bottom += values[:, n]
        labels = [place.replace("stage", "").replace("block", "") for place in places]
        left.set_xticks(range(len(places)), labels, fontsize=8)
        left.set(xlabel="layer (stage.block)", ylabel="probability", ylim=(0, 1))
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=8)
        upto = epochs[epochs["epoch"] <= epoch]
        right.plot(upto["epoch"], upto["argmax_ms"], color=PALETTE[0], label="argmax")
        right.plot(upto["epoch"], upto["expected_ms"], color=PALETTE[1], linestyle="--", label="expected")
        right.axhline(target_ms, color="0.4", linewidth=1, label="target")
        right.set(xlabel="epoch", ylabel="latency by the table (ms)", xlim=(-0.5, epochs["epoch"].max() + 0.5))
        right.legend(fontsize=8)
        now = epochs[epochs["epoch"] == epoch].iloc[0]
        text = f"entropy {now['entropy']:.2f}, {now['flips']:.0f} best operators changed, argmax {now['argmax_ms']:.2f} ms"
        return figure, f"epoch {epoch}: {text}"

    last = int(epochs["epoch"].max())
    slider = W.IntSlider(last, int(epochs["epoch"].min()), last, description="epoch")
    return Panel("replay", {"epoch": slider}, draw)
