"""Style, captions and files of all figures and tables, and the drawing that several of them share.

The plots themselves are in the notebooks' cells. Figures of widgets are never pyplot's.
"""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from cycler import cycler
from IPython.display import Image as Picture
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from PIL import Image

from ..errors import InputError
from ..paths import figures_dir, write_atomic
from .scales import SCALES
from .stats import SIGMAS, Interval, Scores, means

DPI = 110
FAILED = 1.1  # times the final validation loss of its network's median seed, and above
# Okabe and Ito's, distinguishable by the colour-blind; but grey for yellow, which is too pale
COLOURS = {
    "blue": "#0072B2",
    "red": "#D55E00",
    "green": "#009E73",
    "orange": "#E69F00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "black": "#000000",
    "grey": "#7F7F7F",
}
PALETTE = [*COLOURS.values()]  # markers and line styles tell them apart in grey as well
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
LINES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2, 1, 2))]
STYLE = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "image.cmap": "gray",
    "axes.prop_cycle": cycler(color=PALETTE),
}

# lines, legends and markers look their style up when drawn; a reader's own matplotlibrc has no say
matplotlib.rcdefaults()
matplotlib.rcParams.update(sns.axes_style("whitegrid") | STYLE)
pd.options.display.max_colwidth = None  # tables show claims and comparisons whole
pd.options.display.max_rows = 100


def new_figure(width=7.0, height=4.2, rows=1, columns=1, layout="constrained", **options):
    """(figure, axes) in the study's style, sizes in inches; axes as `Figure.subplots` gives them."""
    figure = Figure(figsize=(width, height), layout=layout)
    return figure, figure.subplots(rows, columns, **options)


def style(i: int) -> dict:
    """Colour, marker and line of the i-th network of a figure; hollow from the ninth on."""
    hollow = dict(markerfacecolor="none") if i >= len(PALETTE) else {}
    i %= len(PALETTE)
    return dict(color=PALETTE[i], marker=MARKERS[i], linestyle=LINES[i]) | hollow


def bars(intervals: Sequence[Interval]) -> np.ndarray:
    """Lengths of error bars below and above the means, (2, N), as matplotlib takes them."""
    return np.array([[i.mean - i.low for i in intervals], [i.high - i.mean for i in intervals]]).clip(0)


def curves(axes, scores: Scores, labels: Sequence[str], sigmas: Sequence[float] = SIGMAS) -> None:
    """The mean score of each network that has results against sigma, with bands of 95% over images and
    seeds.
    """
    for i, label in enumerate(labels):
        levels = [means(scores, [label], [sigma]).get(label) for sigma in sigmas]
        if all(levels):
            mean, low, high = np.transpose(levels)
            axes.plot(sigmas, mean, label=label, markersize=5, **style(i))
            axes.fill_between(sigmas, low, high, color=style(i)["color"], alpha=0.18, linewidth=0)
    axes.set(xlabel="noise level σ", xticks=np.linspace(0, 1, 6))


def picture(axes, image: np.ndarray, title: str = "", limits=(0, 1), cmap: str = "gray"):
    """An image (H, W) without ticks, its values shown from the first of `limits` to the second."""
    axes.set(xticks=[], yticks=[], title=title)
    return axes.imshow(image, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest")


def square(axes, left: float, top: float, size: float, colour: str, text="", fontsize=12) -> None:
    """The outline of a square of pixels in a picture, with a text in its corner."""
    look = dict(fill=False, edgecolor=colour, linewidth=2)
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), size, size, **look))
    axes.text(left + 1, top + 1, text, color=colour, fontsize=fontsize, fontweight="bold", va="top")


def enlarged(pictures: dict[str, np.ndarray], figure: Figure | None = None) -> Figure:
    """Pictures (H, W[, 3]) of 0 to 1 side by side; below, what is in the red square of each.

    On a `figure` that it gave for as many before, if there is one.
    """
    count = len(pictures)
    if figure is None:
        figure, _ = new_figure(min(13, 3 * count), 5.6 if count < 5 else 4.4, 2, count)
    above, below = figure.axes[:count], figure.axes[count:]
    for whole, part, letter, (name, image) in zip(above, below, "abcdefghij", pictures.items()):
        corner, zoom = len(image) // 4, len(image) // 3
        for artist in (*whole.images, *whole.patches, *whole.texts, *part.images):
            artist.remove()  # of a panel's last move
        title = name.replace(" ", "\n", len(name) > 8)
        picture(whole, image, f"{letter}: {title}")
        square(whole, corner, corner, zoom, "red")
        picture(part, image[corner : corner + zoom, corner : corner + zoom])
    return figure


def note(figure: Figure | sns.FacetGrid, text: str) -> Figure:
    """Write a text below a figure, or below a grid of seaborn's, whose legend goes above its panels."""
    if isinstance(figure, sns.FacetGrid):
        if figure.legend is not None:
            look = dict(ncols=4, title="", frameon=False)
            sns.move_legend(figure, "outside upper center", **look)
        figure = figure.figure
        figure.set_layout_engine("constrained")
    figure.supxlabel(text, fontsize=9.5, color="0.3", wrap=True)
    return figure


def caption(figure: Figure | sns.FacetGrid, rows: pd.DataFrame, text: str = "") -> Figure:
    """Write below the figure which scale, how many seeds and training images it shows, and what its
    intervals leave out.
    """
    if "95%" in text and rows.groupby("label")["seed"].nunique().min() == 1:
        text += " Of one seed: over images alone."
    return note(figure, f"{provenance_line(rows)} {text}".rstrip())


def provenance_line(rows: pd.DataFrame) -> str:
    """One sentence: scale, seeds, training images per network."""
    seeds = sorted({*rows.groupby("label")["seed"].nunique()})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    crop = rows["crop"].max() if "crop" in rows else np.nan
    squares = "" if pd.isna(crop) else f" (random squares of {crop:.0f} x {crop:.0f})"
    images = " or ".join(f"{count:,.0f}" for count in sorted(rows["images"].dropna().unique()))
    scales, plural = ", ".join(sorted(rows["scale"].unique())), "s" if seeds != [1] else ""
    return f"Scale {scales}, {count} seed{plural}, {images} training images{squares} per network."


def loss_curves(history: pd.DataFrame, rows: pd.DataFrame) -> Figure:
    """Loss of training and validation over the images seen, a panel per network, a line per seed.

    A seed failed if it ended more than 10% above the validation loss of its network's median seed.
    """
    names = {"loss": "training", "validation_loss": "validation"}
    curves = history.rename(columns=names)
    curves = curves.melt(["label", "seed", "images"], [*names.values()], "curve", "loss")
    look = dict(kind="line", units="seed", estimator=None, facet_kws=dict(sharey=False))
    look |= dict(x="images", y="loss", hue="curve", col="label", col_wrap=5, height=1.9, aspect=1.2)
    grid = sns.relplot(curves, **look).set(yscale="log").set_titles("{col_name}", size=9.5)
    for axes in grid.axes.flat:
        low, high = axes.get_ylim()
        ticks = LogLocator(subs=(1, 3)) if high > 10 * low else MaxNLocator(4)
        axes.yaxis.set(major_locator=ticks, minor_locator=NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
    final = history.groupby(["label", "seed"], sort=False)["validation_loss"].last()
    median = final.groupby("label").transform("quantile", interpolation="lower")
    failed = [f"{label}, seed {seed}" for label, seed in final.index[~(final <= FAILED * median)]]
    text = f"A line per seed. Seeds that failed: {'; '.join(failed) or 'none'}."
    return caption(grid, rows[rows["run"].isin(history["run"])], text)


def show(thing: Figure | sns.FacetGrid | pd.DataFrame, name: str, scale: str):
    """Write a figure or a table to figures/NAME.png or .csv, other scales in a folder of their own.

    Returns what the cell displays: the picture, or the table itself.
    """
    if scale not in SCALES:
        raise InputError(f"scale is {scale!r}, but one of {', '.join(SCALES)} was expected.")
    if isinstance(thing, pd.DataFrame):
        write_atomic(figures_dir(scale) / f"{name}.csv", thing.to_csv(lineterminator="\n"))
        return thing
    compact, figure = io.BytesIO(), getattr(thing, "figure", thing)  # seaborn's grids have one
    full = Image.open(io.BytesIO(png_bytes(figure))).convert("RGB")
    # a third of the size, looks the same
    full.quantize(256, dither=Image.Dither.NONE).save(compact, format="png", optimize=True)
    plt.close(figure)  # or the cell would display a figure of seaborn's twice
    return Picture(filename=str(write_atomic(figures_dir(scale) / f"{name}.png", compact.getvalue())))


def png_bytes(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as PNG, without a date or version in it, so that equal figures are equal files."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


class Pictures:
    """Rows of pictures in a figure that is kept; right of a row, a plot that is `plot` pictures wide."""

    def __init__(self, count: int, plot: float = 0, rows: int = 1, height: float = 3.1):
        ratios = dict(width_ratios=[1] * count + [plot]) if plot else {}
        self.figure, axes = new_figure(9.2, height, rows, count + bool(plot), squeeze=False, **ratios)
        self.plot, self.places = axes[0, -1], axes[:, :count].flatten()

    def show(self, n: int, image, title: str = "") -> None:
        """A picture (C, H, W), limited to [0, 1], and its title in the n-th place, without marks."""
        pixels = np.asarray(image).transpose(1, 2, 0).clip(0, 1)
        self.places[n].clear()
        picture(self.places[n], pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        self.places[n].set_title(title, fontsize=10)
        self.places[n].set_axis_off()

    def mark(self, n: int, box: Sequence[int], text: str, colour: str) -> None:
        """The outline of a box (left, top, right, bottom in pixels) in the n-th picture, with a text."""
        left, top, right, bottom = box
        look = dict(fill=False, edgecolor=colour, linewidth=2)
        label = dict(facecolor=colour, edgecolor="none", pad=1.5)
        self.places[n].add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, **look))
        self.places[n].text(left, top, text, color="white", fontsize=9, va="top", bbox=label)
