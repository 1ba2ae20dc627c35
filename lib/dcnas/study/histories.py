"""How trainings went: the loss over the images seen, and which seeds failed by a rule that knows no
result.
"""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from . import figures

FAILED = 1.1  # times the final validation loss of its network's median seed, and above
NONE = "No training curves of these networks are published yet."
COLUMNS = 5  # panels side by side
_LOOKS = {
    "training": dict(color=figures.COLOURS["sky"], linewidth=1.0),
    "validation": dict(color=figures.COLOURS["blue"], linewidth=1.4),
    "validation, a seed that failed": dict(color=figures.COLOURS["red"], linewidth=1.4, linestyle="--"),
}


def failed_seeds(history: pd.DataFrame) -> list[tuple[str, int]]:
    """(label, seed) of the trainings that failed: that ended more than 10% above the median seed's
    validation loss.

    The median is that of the same network at the same scale, of an even number of seeds the lower one of
    the two.
    """
    final = history.groupby(["label", "scale", "seed"], sort=False).tail(1)
    losses = final.groupby(["label", "scale"])["validation_loss"]
    failed = final[
        ~(final["validation_loss"] <= FAILED * losses.transform("quantile", 0.5, interpolation="lower"))
    ]
    # among them one that ended in no number
    return list(failed[["label", "seed"]].itertuples(index=False, name=None))


def loss_curves(history: pd.DataFrame, rows: pd.DataFrame) -> Figure:
    """Loss of training and validation over the images seen, a panel per network, a line per seed."""
    labels, failed = list(dict.fromkeys(history["label"])), failed_seeds(history)
    wide = min(COLUMNS, len(labels))
    tall = -(-len(labels) // wide)
    shown = rows[rows["run"].isin(history["run"])]
    # all have the same loss
    alike = len(shown.reindex(columns=["psnr", "accuracy"]).notna().drop_duplicates()) == 1
    figure, grid = figures.new_figure(
        max(6.0, 2.4 * wide), 1.7 * tall + 1.3, tall, wide, squeeze=False, sharex=True, sharey=alike
    )
    for axes, label in zip(grid.flat, labels):
        for seed, curve in history[history["label"] == label].groupby("seed"):
            kind = "validation, a seed that failed" if (label, seed) in failed else "validation"
            for name, column in (("training", "loss"), (kind, "validation_loss")):
                axes.plot(curve["images"] / 1e3, curve[column], marker=".", markersize=3, **_LOOKS[name])
        axes.set(yscale="log")
        axes.set_title(label, fontsize=9.5)
        axes.tick_params(labelsize=9)
    for axes in grid.flat[: len(labels)]:
        low, high = axes.get_ylim()
        # powers of ten alone would leave most panels without any
        ticks = LogLocator() if high > 10 * low else MaxNLocator(4)
        axes.yaxis.set(major_locator=ticks, minor_locator=NullLocator(), major_formatter="{x:g}")
    for axes in grid.flat[len(labels) :]:
        axes.set_axis_off()
    for axes in grid.flat[len(labels) - wide : len(labels)]:  # the lowest of each column
        axes.set_xlabel("thousand images", fontsize=9.5)
        axes.tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel("loss", fontsize=9.5)
    kinds = [name for name in _LOOKS if failed or "failed" not in name]
    handles = [Line2D([], [], label=name, **_LOOKS[name]) for name in kinds]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=10)
    return figures.caption(figure, shown, _caption(history, rows, failed))


def _caption(history: pd.DataFrame, rows: pd.DataFrame, failed: list[tuple[str, int]]) -> str:
    named = "; ".join(f"{label}, seed {seed}" for label, seed in failed) or "none"
    there, wanted = history["run"].nunique(), rows["run"].nunique()
    text = "A line per seed. Seeds that failed (in the end more than 10% above the median seed of their "
    text += f"network): {named}."
    return text if there == wanted else f"{text} Of {wanted} trainings, {there} have a published curve."
