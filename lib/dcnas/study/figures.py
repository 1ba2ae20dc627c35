"""Style, captions and files of all figures and tables, and the drawing that several of them share.

The plots themselves are in the notebooks' cells. Figures of widgets are never pyplot's.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from cycler import cycler
from IPython.display import Image as Picture
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from ..paths import figures_dir, write_atomic
from .scales import SCALES
from .stats import SIGMAS, Interval, Scores, means

DPI = 110
# Okabe and Ito's colours, distinguishable by the colour-blind; markers and line styles tell them apart
# in grey as well
COLOURS = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "red": "#D55E00",
    "purple": "#CC79A7",
    "grey": "#7F7F7F",
}
# grey for yellow, which is too pale for hollow markers
PALETTE = [
    *(COLOURS[name] for name in ("blue", "red", "green", "orange", "purple", "sky", "black", "grey"))
]
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


def new_figure(
    width: float = 7.0,
    height: float = 4.2,
    rows: int = 1,
    columns: int = 1,
    layout: str = "constrained",
    **options,
):
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


def band(
    axes, x: Sequence[float], intervals: Sequence[Interval], *, alpha: float = 0.18, **look
) -> None:
    """A line through the means, and a band over the intervals."""
    axes.plot(x, [i.mean for i in intervals], **look)
    lows, highs = [i.low for i in intervals], [i.high for i in intervals]
    axes.fill_between(x, lows, highs, color=look["color"], alpha=alpha, linewidth=0)


def curves(axes, scores: Scores, labels: Sequence[str], sigmas: Sequence[float] = SIGMAS) -> None:
    """The mean score of each network that has results against sigma, with bands of 95% over images and
    seeds.
    """
    for i, label in enumerate(labels):
        levels = [means(scores, [label], [sigma]).get(label) for sigma in sigmas]
        if all(levels):
            band(axes, sigmas, levels, **style(i), markersize=5, label=label)
    axes.set(xlabel="noise level σ", xticks=np.linspace(0, 1, 6))


def picture(
    axes, image: np.ndarray, title: str = "", limits: tuple[float, float] = (0, 1), cmap: str = "gray"
):
    """An image (H, W) without ticks, its values shown from the first of `limits` to the second."""
    axes.set(xticks=[], yticks=[], title=title)
    return axes.imshow(image, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest")


def square(
    axes, left: float, top: float, size: float, colour: str, text: str = "", fontsize: float = 12
) -> None:
    """The outline of a square of pixels in a picture, with a text in its corner."""
    axes.add_patch(
        Rectangle((left - 0.5, top - 0.5), size, size, fill=False, edgecolor=colour, linewidth=2)
    )
    axes.text(left + 1, top + 1, text, color=colour, fontsize=fontsize, fontweight="bold", va="top")


def enlarged(pictures: dict[str, np.ndarray]) -> Figure:
    """Pictures (H, W[, 3]) of 0 to 1 side by side; below, what is in the red square of each."""
    figure, grid = new_figure(
        min(13, 3 * len(pictures)), 5.6 if len(pictures) < 5 else 4.4, 2, len(pictures)
    )
    for above, below, letter, (name, image) in zip(*grid, "abcdefghij", pictures.items()):
        corner, zoom = len(image) // 4, len(image) // 3
        picture(above, image, f"{letter}: {name}".replace(", ", ",\n"))
        square(above, corner, corner, zoom, "red")
        picture(below, image[corner : corner + zoom, corner : corner + zoom])
    return figure


def note(figure: Figure | sns.FacetGrid, text: str, legend_columns: int = 4) -> Figure:
    """Write a text below a figure, or below a grid of seaborn's, whose legend goes above its panels."""
    if isinstance(figure, sns.FacetGrid):
        if figure.legend is not None:
            sns.move_legend(
                figure, "outside upper center", ncols=legend_columns, title="", frameon=False
            )
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
    """One sentence: scale, seeds, training images per network, device."""
    seeds = rows.groupby("label")["seed"].nunique()
    seeds_text = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    crops = rows["crop"].dropna().unique() if "crop" in rows else ()
    squares = f" (random squares of {crops[0]:.0f} x {crops[0]:.0f})" if len(crops) else ""
    images = sorted(rows["images"].dropna().unique())
    images_text = " or ".join(f"{count:,.0f}" for count in images)
    plural = "s" if seeds_text != "1" else ""
    scales = ", ".join(sorted(rows["scale"].unique()))
    return (
        f"Scale {scales}, {seeds_text} seed{plural}, {images_text} training images{squares} per network."
    )


def save_figure(figure: Figure, name: str, scale: str) -> Path:
    """Write `figures/NAME.png` (other scales in a folder of their own). `name` begins with the paper's
    number: "figure_3a".
    """
    assert scale in SCALES
    compact = io.BytesIO()
    full = Image.open(io.BytesIO(png_bytes(figure))).convert("RGB")
    # a third of the size, looks the same
    full.quantize(256, dither=Image.Dither.NONE).save(compact, format="png", optimize=True)
    return write_atomic(figures_dir(scale) / f"{name}.png", compact.getvalue())


def show(thing: Figure | pd.DataFrame, name: str, scale: str):
    """Write a figure or a table to `figures/` and return what the cell displays: the picture, or the
    table itself.
    """
    if isinstance(thing, pd.DataFrame):
        save_table(thing, name, scale)
        return thing
    figure = getattr(thing, "figure", thing)  # seaborn's grids have one
    path = save_figure(figure, name, scale)
    plt.close(figure)  # or the cell would display a figure of seaborn's twice
    return Picture(filename=str(path))


def save_table(frame: pd.DataFrame, name: str, scale: str) -> Path:
    """Write `figures/NAME.csv`: "table_1" for the paper's Table 1."""
    return write_atomic(figures_dir(scale) / f"{name}.csv", frame.to_csv(lineterminator="\n"))


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
        self.plot, self.marks = axes[0, -1], []
        self.images = [picture(place, np.zeros((2, 2))) for place in axes[:, :count].flat]
        for image in self.images:
            image.axes.set_axis_off()
            image.axes.title.set_fontsize(10)

    def show(self, n: int, image, title: str = "") -> None:
        """A picture (C, H, W), limited to [0, 1], and its title in the n-th place."""
        pixels = np.asarray(image).transpose(1, 2, 0).clip(0, 1)
        height, width, channels = pixels.shape
        self.images[n].set_data(pixels[..., 0] if channels == 1 else pixels)
        self.images[n].set_extent((-0.5, width - 0.5, height - 0.5, -0.5))
        self.images[n].axes.set_title(title)

    def mark(self, n: int, box: Sequence[int], text: str, colour: str) -> None:
        """The outline of a box (left, top, right, bottom in pixels) in the n-th picture, with a text."""
        axes, (left, top, right, bottom) = self.images[n].axes, box
        outline = Rectangle(
            (left - 0.5, top - 0.5), right - left, bottom - top, fill=False, ec=colour, lw=2
        )
        label = dict(facecolor=colour, edgecolor="none", pad=1.5)
        text = axes.text(left, top, text, color="white", fontsize=9, va="top", bbox=label)
        self.marks += [axes.add_patch(outline), text]

    def clear(self) -> None:
        """Remove all marks."""
        while self.marks:
            self.marks.pop().remove()
