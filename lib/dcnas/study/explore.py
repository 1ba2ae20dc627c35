"""The study's widgets: noise, classifier, UNet and joint model under sliders.

The four functions at the end make a `Panel` each: `noise(scale).view` in one cell, `.figure` in the next, for readers without a
kernel. All that they show comes from the `draw_...` functions, which work without widgets. Nothing is trained here.
"""

import gc
import io
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple
from functools import cache, lru_cache, partial
from html import escape
from itertools import count, islice
from queue import PriorityQueue

import anywidget
import ipywidgets as W
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import BboxImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle, StepPatch
from PIL import Image
from torch import Tensor, nn

from ..data.noise import check_sigma
from ..data.two_digits import IMAGE_SIZE, cached
from ..deploy.weights import full
from ..errors import InputError, require_choice
from ..latency.measure import measure
from ..models import CLASSIFIERS, UNETS, Classifier, UNet
from ..models.crops import BOX_SIZE
from ..paths import published_dir, weights_dir
from ..training.metrics import psnr, ssim
from . import drawing, timing
from . import results3 as results
from .experiments import Experiment, build, figure_3, figure_3_mbconv
from .figures import COLOURS, Backdrop, columns, new_figure
from .runs import bank_noisy, folder_of, is_complete, read_tensors
from .scales import SCALES

REDUCED = "UNet b=8 d=4 m=1.5 c=2"
SHOWN = 16  # test images that can be chosen
CHEAP_MS = 150  # a pass that is predicted to take longer is not measured
JOINT = ("DC-Net Reduced Integrated", "DC-Net Reduced Sequential")
CHOICE = dict(color="black", linestyle="--", label="this network")
ABOVE = dict(loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=10, frameon=False, borderaxespad=0.2)  # of legends
PIXELS = {"noisy": dict(color=COLOURS["red"], linewidth=1.5), "clean": dict(color=COLOURS["black"], linestyle="--", linewidth=1.5)}
NEAREST = dict(color="black", marker="o", markersize=13, markerfacecolor="none", linestyle="", label="nearest trained")
Drawn = tuple[Figure, str]  # with the text of the status line


@contextmanager
def quiet() -> Iterator[None]:
    """Inference on one thread: small images gain nothing from more, and on a busy machine threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


def fixed(width: float, height: float, *shape: int, **margins):
    """`new_figure` with fixed margins (parts of the figure) instead of the layout engine, which takes its time."""
    grid = dict(left=0.01, right=0.99, bottom=0.02, top=0.88, wspace=0.05) | margins
    figure, axes = new_figure(width, height, *shape, gridspec_kw=grid)
    figure.set_layout_engine("none")
    return figure, axes



def png(figure: Figure, canvas: FigureCanvasAgg) -> bytes:
    """A figure of fixed layout as PNG, drawn once (`Figure.savefig` draws twice) and packed lightly.

    A canvas that is used again knows how large the texts of the last figure were, which takes long to find.
    """
    canvas.figure, buffer = figure, io.BytesIO()
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


class Page(anywidget.AnyWidget):
    """Nothing to see: it tells the panel around it that a reader has it before them or no longer, and keeps its keys.

    Jupyter Notebook would take the arrows of a slider to move among its cells.
    """

    _esm = """
    function render({ model, el }) {
      const mark = () => {
        const panel = el.closest(".dcnas-panel");
        if (panel) panel.addEventListener("focusin", event => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
        else requestAnimationFrame(mark);  // not in the page yet
      };
      mark();
      model.send({ shown: true });
      return () => model.send({ shown: false });
    }
    export default { render };
    """


class Panel:
    """Controls, a status line and a picture: show `view`; `figure` is the picture at the defaults.

    `draw(**values of the controls)` gives a Figure or a PNG, and the status. With `keep` it depends on nothing else, so pictures
    are kept, and `ahead` of those around are drawn while the reader looks. JupyterLab calls back in two threads (so: locks, and no
    pyplot) in which the main thread's inference mode does not hold. An exception ends in the status line and in `error`.
    """

    KEPT, AHEAD = 64, 32  # pictures
    lock = threading.Lock()  # of all panels: matplotlib's fonts and torch's number of threads are shared
    _worker = ThreadPoolExecutor(1, "dcnas-ahead")
    _plans: PriorityQueue = PriorityQueue()  # (rank, panel, values to draw ahead), the newest first
    _ranks = count(0, -1)

    def __init__(self, name: str, controls: dict[str, W.ValueWidget], draw: Callable[..., Drawn], *, keep: bool = True,
                 ahead: int | None = None):  # fmt: skip
        self.ahead = self.AHEAD if ahead is None else ahead
        self.controls, self.draw, self.keep = controls, draw, keep
        self.error: Exception | None = None
        self._default: Figure | None = None
        self._places: list | None = None
        self._known: dict[tuple, tuple[bytes, str]] = {}
        self._first = _key(self._values())
        self._asked, self._shown, self._showing = count(), -1, threading.Lock()
        self._plan: Iterator[dict] | None = None
        self._canvas = FigureCanvasAgg(Figure())
        self.status, self.image = W.HTML(), W.Image(format="png", layout=W.Layout(max_width="100%", object_fit="contain"))
        row = W.Box([*controls.values()], layout=W.Layout(flex_flow="row wrap"))
        page = Page()
        page.on_msg(lambda _, message, __: self._plan_ahead() if message["shown"] else self._stop())
        self.view = W.VBox([row, self.status, self.image, page])
        self.view.add_class("dcnas-panel")
        for widget, part in ((self.view, name), (self.status, f"{name}-status"), (self.image, f"{name}-image")):
            widget.add_class(f"dcnas-{part}")
        for control in controls.values():
            control.observe(self._moved, names="value")
        self.refresh()

    def refresh(self, *_) -> None:
        """Show the picture for what the controls say now; one that is late never replaces a newer one."""
        number, values = next(self._asked), self._values()
        found = self._known.get(_key(values)) if self.keep else None
        error = None
        if found is None:
            with self.lock:
                number, values = next(self._asked), self._values()  # by now
                try:
                    found = self._picture(values)
                except InputError as failed:  # the reader's doing, told in a sentence
                    error, text = failed, f"<b>{escape(str(failed))}</b>"
                except Exception as failed:
                    error, text = failed, f"<b>{type(failed).__name__}</b>: {escape(str(failed))}"
        with self._showing:
            if number > self._shown:
                self._shown, self.error = number, error
                if error is None:
                    self.image.value, text = found[0], escape(found[1])
                self.status.value = text

    def _values(self) -> dict:
        return {name: control.value for name, control in self.controls.items()}

    def _picture(self, values: dict) -> tuple[bytes, str]:
        """The PNG and the status for these values, drawn where they are not known; the lock is held."""
        key = _key(values)
        if self.keep and key in self._known:
            return self._known[key]
        with quiet():
            found, status = self.draw(**values)
            picture = found if isinstance(found, bytes) else png(self._laid_out(found), self._canvas)
        if self._default is None and key == self._first:
            self._default = found
        if self.keep:
            self._known[key] = picture, status
            for old in list(self._known)[: -self.KEPT]:
                del self._known[old]
        return picture, status

    def _moved(self, change: dict) -> None:
        self.refresh()
        name = next(name for name, control in self.controls.items() if control is change["owner"])
        self._plan_ahead(name)

    def _plan_ahead(self, moved: str = "") -> None:
        """Draw what the reader may ask for next, while nothing else is asked for; this panel's earlier plan is forgotten."""
        settled()
        if self.keep and self.error is None:
            self._plan = islice(self._around(moved), self.ahead)
            self._put((next(self._ranks), self, self._plan))

    def _stop(self) -> None:
        self._plan = None

    def _around(self, moved: str) -> Iterator[dict]:
        """Values of the controls with one slider moved: the one that was moved last comes first, near values before far ones."""
        now = self._values()
        steps = [(name, n) for name in self.controls for n in range(-self.ahead, self.ahead + 1) if n]
        for name, n in sorted(steps, key=lambda step: (step[0] != moved, abs(step[1]), -step[1])):
            value = _stepped(self.controls[name], now[name], n)
            if value is not None:
                yield now | {name: value}

    @classmethod
    def _put(cls, plan: tuple) -> None:
        cls._plans.put(plan)
        cls._worker.submit(cls._draw_ahead)

    @classmethod
    def _draw_ahead(cls) -> None:
        """The next picture of the newest plan. A job for each picture: what is left does not keep a kernel from ending."""
        try:
            rank, panel, plan = cls._plans.get()
            values = next(plan, None) if panel._plan is plan else None
            if values is not None:
                cls._put((rank, panel, plan))
                time.sleep(0.002)  # who waits for the lock comes first
                with cls.lock:
                    panel._picture(values)
        finally:
            cls._plans.task_done()

    def _laid_out(self, figure: Figure) -> Figure:
        """The figure with the places of the first one's axes: finding them anew would double the time to draw."""
        if self._places is None:
            figure.draw_without_rendering()
            self._places = [axes.get_position() for axes in figure.axes]
        elif len(self._places) == len(figure.axes):
            figure.set_layout_engine("none")
            for axes, place in zip(figure.axes, self._places, strict=True):
                axes.set_position(place)
        return figure

    @property
    def figure(self) -> Figure:
        """The first picture, drawn at the defaults; raises what went wrong if there is none."""
        if self._default is None:
            raise self.error
        return self._default


def _key(values: dict) -> tuple:
    """Values of controls to look pictures up by: the browser's fractions may differ from ours in their last bits."""
    return tuple(round(value, 9) if isinstance(value, float) else value for value in values.values())


def _stepped(control: W.ValueWidget, value, steps: int):
    """Where so many steps from `value` lead on a slider; None beyond its ends, or for no slider."""
    if isinstance(control, W.SelectionSlider):
        values = [option for _, option in control._options_full]
        at = values.index(value) + steps
        return values[at] if 0 <= at < len(values) else None
    if isinstance(control, (W.IntSlider, W.FloatSlider)):
        value += steps * control.step
        value = round(value, 9) if isinstance(control, W.FloatSlider) else value
        return value if control.min <= value <= control.max else None
    return None


@cache
def settled() -> None:
    """Leave what was loaded up to now out of the garbage collector's rounds: through all of torch it stops a slider for 0.3 s."""
    gc.freeze()


# What has been trained


def _is_published() -> bool:
    return (published_dir() / "section3.csv").exists()


def trained(group: str, label: str, scale: str) -> tuple[nn.Module | None, str]:
    """A trained network for the CPU and where it comes from: published weights, else a complete run of `scale`, else None."""
    require_choice("scale", scale, SCALES)
    scales = results.PUBLISHED_SCALES if scale == "published" else (scale,)
    runs = [e for name in scales for e in results.GROUPS[group](name) if e.label == label]
    rows = results.published() if _is_published() else pd.DataFrame(columns=["label", "seed", "scale"])
    known = rows.loc[(rows["label"] == label) & (rows["seed"] == 0), "scale"].unique()
    origin = ", ".join(["published", "seed 0", *(f"scale {name}" for name in known)])
    places = [(weights_dir() / f"{results.slug(label)}.safetensors", origin)]
    places += [(folder_of(e) / "weights.safetensors", f"scale {e.scale}, seed {e.seed}") for e in runs if is_complete(e)]
    for path, origin in places:
        if path.exists():
            with torch.device("meta"):  # weights are not drawn: torch's global stream may be in use in the other thread
                model = build(runs[0])
            model.load_state_dict(full(read_tensors(path)), assign=True)
            return model.eval().requires_grad_(False), origin
    return None, f"no trained {label} at scale {scale} yet"


def _flops(e: Experiment) -> int:
    size = drawing.classifier_size(*astuple(CLASSIFIERS[e.network])) if e.task == "classify" else drawing.unet_size(**e.unet)
    return size.flops


def networks(groups: tuple[str, ...], scale: str, metric: str, sigma: float | None = None) -> tuple[pd.DataFrame, str]:
    """A row per trained network (mean, min, max, std and count over seeds of `metric`), and a sentence where there is none.

    `sigma=None` takes the mean over all noise levels.
    """
    require_choice("scale", scale, SCALES)
    frames, why = [], f"no network is trained at scale {scale} yet"
    for group in groups:
        if scale != "published":
            complete = [e for e in results.GROUPS[group](scale) if is_complete(e)]
            frames += [results.read_runs(complete, {e.label: _flops(e) for e in complete})] if complete else []
        elif _is_published():
            try:
                frames.append(results.results(group, scale))
            except InputError as error:
                why = str(error).rstrip(".")
    if not frames:
        return pd.DataFrame(columns=["label", "flops", "scale", "mean", "min", "max", "std", "count", "mb"]), why
    rows = pd.concat(frames)
    rows = rows if sigma is None else rows[np.isclose(rows["sigma"], sigma)]
    seeds = rows.groupby(["label", "flops", "scale", "seed"], sort=False)[metric].mean()
    found = seeds.groupby(["label", "flops", "scale"], sort=False).agg(["mean", "min", "max", "std", "count"]).reset_index()
    return found.assign(mb=found["label"].str.startswith("MB")), ""


def nearest(found: pd.DataFrame, flops: int, mb: bool) -> pd.Series | None:
    """The trained network of the same family (MBConv or not) whose FLOPs are the nearest by ratio."""
    family = found[found["mb"] == mb]
    return None if family.empty else family.loc[np.log(family["flops"] / flops).abs().astype(float).idxmin()]


# How long a pass takes here


@lru_cache(maxsize=512)
@quiet()
def measured(kind: type[nn.Module], settings: tuple, side: int, about_ms: float) -> tuple[float, str]:
    """Milliseconds of `kind(*settings)` for one image, in so many passes that they take about 40 ms, and how it was done."""
    with torch.device("meta"):
        network = kind(*settings)
    for parameter in network.to_empty(device="cpu").parameters():
        parameter.data.fill_(0.01)
    found = measure(network, torch.full((1, 1, side, side), 0.5), warmup=1, passes=max(3, min(15, int(40 / about_ms))))
    return found.median_ms, f"measured here: batch 1, median of {found.passes} passes, threads: {found.threads}"


@lru_cache(maxsize=2)
def _timed(block: str) -> tuple[dict[int, float], str]:
    """FLOPs to milliseconds of UNets that were timed, and where: the published table, else the reduced UNet here and now."""
    table = timing.latencies(batch=1)
    nets = [e for e in figure_3("smoke") + figure_3_mbconv("smoke") if e.block == block and e.label in table.index]
    if known := {_flops(e): float(table.loc[e.label, "median_ms"]) for e in nets}:
        return known, f"the published latencies on {table['device'].iloc[0]}"
    reduced = tuple(UNETS["reduced"].values())
    return {drawing.unet_size(*reduced).flops: measured(UNet, reduced, IMAGE_SIZE, 5)[0]}, "the reduced UNet, measured here"


def unet_latency(b: int, d: int, m: float, c: int, block: str = "conv") -> tuple[float, str]:
    """Milliseconds for one image, and how they were found: measured here, or predicted by FLOPs where that would take long."""
    flops = drawing.unet_size(b, d, m, c, block).flops
    known, where = _timed(block)
    near = min(known, key=lambda other: abs(math.log(other / flops)))
    predicted = known[near] * flops / near
    if predicted > CHEAP_MS:
        return predicted, f"predicted by FLOPs from {where}"
    return measured(UNet, (b, d, m, c, 1, block), IMAGE_SIZE, predicted)


# Pictures, each with its status line


def scene(index: int, sigma: float, clipped: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Test image `index`: clean and noisy (1, 1, 96, 96) as in every evaluation of the study, boxes (1, 2, 4), labels (2,)."""
    check_sigma(sigma)
    require_choice("test image", index, range(SHOWN))
    data = cached("test", SHOWN)
    noisy = bank_noisy(data.images, clipped)(range(index, index + 1), sigma)
    return data.images[index : index + 1] / 255, noisy, data.boxes[index : index + 1], data.labels[index]


def _stage(width: float, height: float, ratio: float, **margins: float) -> tuple[Figure, list[Axes]]:
    """A figure of fixed layout with axes for three images, which are not seen, and for a plot beside them."""
    grid = dict(right=0.94, top=0.84, width_ratios=[1, 1, 1, ratio]) | margins
    figure, axes = fixed(width, height, 1, 4, **grid)
    for place in axes[:3]:
        place.set(xlim=(-0.5, IMAGE_SIZE - 0.5), ylim=(IMAGE_SIZE - 0.5, -0.5), aspect="equal")
        place.set_axis_off()
    return figure, axes


def _show(figure: Figure, axes: Axes, name: str, image: Tensor | None, clean: Tensor | None = None) -> None:
    """An image with its name in the place of `axes`, and PSNR and SSIM against `clean`; limited to [0, 1], as all results are."""
    place = dict(ha="center", transform=axes.transAxes)
    if image is None:
        figure.text(0.5, 0.5, f"{name}:\nnot trained yet", va="center", **place)
        return
    limited = image.clamp(0, 1)
    figure.add_artist(BboxImage(axes.bbox, cmap="gray", norm=Normalize(0, 1), data=limited[0, 0].numpy()))
    if clean is not None:
        quality = psnr(limited, clean).item()
        name += f"\nPSNR {f'{quality:.1f}' if math.isfinite(quality) else '∞'} dB, SSIM {ssim(limited, clean).item():.2f}"
    figure.text(0.5, 1.03, name, va="bottom", fontsize=11, **place)


@cache
def _noise_backdrop() -> tuple[Backdrop, list[Axes]]:
    figure, axes = _stage(11, 3.1, 1.1, bottom=0.16)
    axes[3].axvspan(0, 1, color="0.92", zorder=0)
    for name, look in PIXELS.items():
        axes[3].plot([], [], label=name, **look)
    axes[3].set(xlabel="pixel value (0 black, 1 white)", xlim=(-3.9, 4.9), yscale="log", ylim=(0.005, 150))
    axes[3].set_yticks((0.01, 0.1, 1, 10, 100), ("0.01", "0.1", "1", "10", "100"), minor=False)
    _finish(axes[3], "pixels (%)", 2)
    return Backdrop(figure), axes


def draw_noise(sigma: float, index: int, clipped: bool, load: Callable[[], tuple[nn.Module | None, str]]) -> Drawn:
    """A test image clean, noisy and denoised, and its pixel values."""
    clean, noisy, _, _ = scene(index, sigma, clipped)
    model, origin = load()
    backdrop, axes = _noise_backdrop()
    figure = backdrop.below()
    _show(figure, axes[0], f"clean\ntest image {index}", clean)
    _show(figure, axes[1], f"noisy, σ = {sigma:.2f}", noisy, clean)
    _show(figure, axes[2], "denoised", None if model is None else model(noisy), clean)
    edges = np.linspace(-3.5, 4.5, 101)
    for image, look in zip((noisy, clean), PIXELS.values(), strict=True):
        share = np.histogram(image.numpy(), edges)[0] / image.numel()
        figure.add_artist(StepPatch(100 * share, edges, fill=False, transform=axes[3].transData, clip_box=axes[3].bbox, **look))
    what = f"{REDUCED}, weights: {origin}" if model is not None else f"Not denoised: {origin}"
    note = " It was trained on noise that is not clipped." if clipped and model is not None else ""
    return figure, f"Test image {index}, σ = {sigma:.2f}, noisy image {'' if clipped else 'not '}clipped to [0, 1]. {what}.{note}"


def _side(axes: Axes, ylabel: str, side: str = "right") -> None:
    """Label and ticks of the y axis on one side; no minor ticks, they take long to draw."""
    axes.yaxis.set_ticks_position(side)
    axes.yaxis.set_label_position(side)
    axes.set_ylabel(ylabel)
    axes.minorticks_off()


def _finish(axes: Axes, ylabel: str, columns: int, side: str = "right") -> None:
    """The y axis as in `_side`, and a legend above that covers nothing."""
    _side(axes, ylabel, side)
    axes.legend(ncols=columns, **ABOVE)


def _mark(figure: Figure, axes: Axes, box: Tensor, text: str, colour: str, line: str = "-") -> None:
    (left, top), at = box[:2].tolist(), dict(transform=axes.transData)
    style = dict(fill=False, edgecolor=colour, linestyle=line, linewidth=2)
    figure.add_artist(Rectangle((left - 0.5, top - 0.5), BOX_SIZE, BOX_SIZE, **style, **at))
    figure.text(left, top, text, color="white", fontsize=9, va="top", bbox=dict(facecolor=colour, edgecolor="none", pad=1.5), **at)


@cache
def _joint_backdrop() -> tuple[Backdrop, list[Axes]]:
    figure, axes = _stage(11.5, 3.2, 1.25, bottom=0.15)
    axes[3].set(xticks=range(10), xlim=(-0.9, 9.9), ylim=(0, 112), yticks=range(0, 101, 25), xlabel="class (▼ true)")
    _side(axes[3], "probability (%)")
    return Backdrop(figure), axes


def draw_joint(sigma: float, index: int, model: str, load: Callable[[str], tuple[nn.Module | None, str]]) -> Drawn:
    """A test image clean, noisy and denoised, with both digits' predictions and class probabilities."""
    clean, noisy, boxes, labels = scene(index, sigma)
    network, origin = load(model)
    begun = time.perf_counter()
    denoised, logits = (None, None) if network is None else network(noisy, boxes)
    ms = 1000 * (time.perf_counter() - begun)
    backdrop, axes = _joint_backdrop()
    figure = backdrop.below()
    _show(figure, axes[0], f"clean\ntest image {index}", clean)
    _show(figure, axes[1], f"noisy, σ = {sigma:.2f}", noisy, clean)
    _show(figure, axes[2], model if network is None else "denoised", denoised, clean)
    for name, box, label in zip("AB", boxes[0], labels.tolist()):
        _mark(figure, axes[0], box, f"{name}: {label}", COLOURS["blue"])
    head = f"{model}, test image {index}, σ = {sigma:.2f}"
    if logits is None:
        return figure, f"{head}. Not denoised or classified: {origin}."
    handles = []
    for k, (name, box, label, chances) in enumerate(zip("AB", boxes[0], labels.tolist(), logits[0].softmax(-1).numpy())):
        said = chances.argmax().item()
        sign, colour, line = ("✓", "green", "-") if said == label else ("✗", "red", "--")
        _mark(figure, axes[2], box, f"{sign} {name}: {said}", COLOURS[colour], line)
        style = dict(facecolor=COLOURS[("sky", "orange")[k]], edgecolor="black", linewidth=0.6, hatch=("", "///")[k])
        columns(figure, axes[3], np.arange(10) + 0.4 * k - 0.2, 0 * chances, 100 * chances, 0.4, **style)
        handles.append(Patch(**style, label=f"{name}: true {label}, says {said} {sign}"))
        true = dict(marker="v", color="black", markersize=5, transform=axes[3].transData)
        figure.add_artist(Line2D([label + 0.4 * k - 0.2], [104], **true))
    figure.legend(handles=handles, **ABOVE, bbox_transform=axes[3].transAxes)
    right = (logits[0].argmax(-1) == labels).sum().item()
    return figure, f"{head}: {right} of 2 digits right. Weights: {origin}. Inference {ms:.1f} ms (batch 1, this pass)."


class Scatter:
    """Quality against FLOPs of all trained networks (bars: lowest and highest seed), on a part of a figure of fixed layout.

    It is the same for every choice, so it is drawn once, as pixels; a move adds the choice as a line, and its nearest ringed.
    """

    def __init__(self, found: Callable[[], tuple[pd.DataFrame, str]], unit: str, ylabel: str, make: Callable):
        """`make()` gives the figure and its two axes, of which the second is for this one."""
        self.rows, self.why = found()
        self.make, self.size = make, {"K": 1e3, "M": 1e6}[unit]
        figure, (left, self.axes) = make()
        left.remove()
        for mb, marker, colour, name in ((False, "o", "blue", "conv"), (True, "s", "red", "MBConv")):
            part = self.rows[self.rows["mb"] == mb]
            if len(part):
                bars = [part["mean"] - part["min"], part["max"] - part["mean"]]
                look = dict(fmt=marker, color=COLOURS[colour], label=name, markersize=5)
                self.axes.errorbar(part["flops"] / self.size, part["mean"], bars, **look)
        for look in (CHOICE, NEAREST):
            self.axes.plot([], [], **look)
        low, high, ticks = {"K": (30, 4_000, (30, 100, 300, 1_000, 3_000)), "M": (0.3, 20_000, (1, 10, 100, 1_000, 10_000))}[unit]
        self.axes.set(xlabel=f"FLOPs ({unit})", xscale="log", xlim=(low, high))
        self.axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        _finish(self.axes, ylabel, 2 if unit == "M" else 4, "left")
        self.backdrop = Backdrop(figure)

    def paint(self, flops: int, near: pd.Series | None) -> tuple[Figure, Axes]:
        """A figure with the pixels and the choice; and the axes beside them, to draw on."""
        figure, (axes, right) = self.make()
        right.remove()
        self.backdrop.below(figure)
        place = dict(transform=self.axes.get_xaxis_transform())
        figure.add_artist(Line2D([flops / self.size] * 2, [0, 1], **place, **CHOICE))
        if near is None:
            text = "no trained network\nof this kind yet"
            figure.text(0.5, 0.5, text, ha="center", va="center", transform=self.axes.transAxes)
        else:
            figure.add_artist(Line2D([near["flops"] / self.size], [near["mean"]], transform=self.axes.transData, **NEAREST))
        return figure, axes


def _status(size: drawing.Size, unit: str, latency: tuple[float, str], near: pd.Series | None, why: str, metric: str) -> str:
    per = {"K": 1e3, "M": 1e6}[unit]
    ms = f"{latency[0]:,.{2 if latency[0] < 10 else 0}f} ms ({latency[1]})"
    text = f"{size.flops / per:,.1f} {unit} FLOPs, {size.parameters:,} parameters, {ms}. "
    if near is None:
        return text + f"Nothing to compare with: {why or 'no network of this kind is trained yet'}."
    which = "This network" if near["flops"] == size.flops else f"Nearest, {near['label']} with {near['flops'] / per:,.1f} {unit}"
    spread = f" ± {near['std']:.1f}" if near["count"] > 1 else ""
    return text + f"{which}, trained: {near['mean']:.1f}{spread}{metric}, seeds: {near['count']}, scale {near['scale']}."


def draw_classifier(first: int, second: int, expansion: float | None, scatter: Callable[[], Scatter]) -> Drawn:
    """A classifier's drawing above the accuracy of all trained ones."""
    trained_ones = scatter()
    size = drawing.classifier_size(first, second, expansion)
    near = nearest(trained_ones.rows, size.flops, expansion is not None)
    latency = measured(Classifier, (first, second, expansion), BOX_SIZE, 1)
    figure, axes = trained_ones.paint(size.flops, near)
    drawing.classifier(first, second, expansion, axes=axes)
    return figure, _status(size, "K", latency, near, trained_ones.why, "% accuracy over 11 noise levels")


def draw_unet(b: int, d: int, m: float, c: int, block: str, scatter: Callable[[], Scatter]) -> Drawn:
    """A UNet's drawing beside the PSNR at sigma 0.8 of all trained ones (Figure 3)."""
    trained_ones = scatter()
    size = drawing.unet_size(b, d, m, c, block)
    near = nearest(trained_ones.rows, size.flops, block == "mbconv")
    figure, axes = trained_ones.paint(size.flops, near)
    drawing.unet(b, d, m, c, block, axes=axes)
    return figure, _status(size, "M", unet_latency(b, d, m, c, block), near, trained_ones.why, " dB PSNR at σ = 0.8")


# The panels


def _control(kind: type, description: str, **options) -> W.ValueWidget:
    options |= {} if kind in (W.Dropdown, W.Checkbox) else {"continuous_update": False}
    return kind(description=description, style={"description_width": "10em"}, layout=W.Layout(width="28em"), **options)


def _scene_controls(sigma: float, index: int) -> dict[str, W.ValueWidget]:
    require_choice("test image", index, range(SHOWN))
    return {
        "sigma": _control(W.FloatSlider, "noise σ (0 to 1)", value=sigma, min=0, max=1, step=0.05, readout_format=".2f"),
        "index": _control(W.IntSlider, "test image", value=index, min=0, max=SHOWN - 1),
    }


def noise(scale: str, index: int = 0) -> Panel:
    """What noise does to an image, and what the reduced UNet makes of it."""
    controls = _scene_controls(0.4, index) | {"clipped": _control(W.Checkbox, "clipped to [0, 1]", value=False)}
    return Panel("noise", controls, partial(draw_noise, load=cache(partial(trained, "table_2", REDUCED, scale))))


def classifier(scale: str) -> Panel:
    """A classifier of any width and expansion rate: drawing, cost, and the nearest trained one of Table 6."""
    rates = [("none (3×3 conv)", None), ("1", 1), ("2.5", 2.5), ("4", 4)]
    controls = {
        "first": _control(W.IntSlider, "first layer (channels)", value=6, min=1, max=16),
        "second": _control(W.IntSlider, "second layer (channels)", value=24, min=4, max=48),
        "expansion": _control(W.Dropdown, "MBConv expansion rate", options=rates, value=2.5),
    }
    found = partial(networks, ("tables_1_and_6",), scale, "accuracy")
    make = partial(fixed, 7.5, 5.8, 2, 1, left=0.08, bottom=0.09, top=0.91, hspace=0.2)
    return Panel(
        "classifier", controls, partial(draw_classifier, scatter=cache(partial(Scatter, found, "K", "accuracy (%)", make)))
    )


def unet(scale: str) -> Panel:
    """The UNet's hyper-parameters of Figures 2 and 3: drawing, cost, and the nearest trained UNet."""
    controls = {
        "b": _control(W.SelectionSlider, "b: base width (channels)", options=(4, 8, 16, 32, 64), value=8),
        "d": _control(W.IntSlider, "d: depth (levels)", value=4, min=1, max=6),
        "m": _control(W.SelectionSlider, "m: width multiplier", options=(1, 1.25, 1.5, 1.75, 2), value=1.5),
        "c": _control(W.IntSlider, "c: blocks per level", value=2, min=1, max=3),
        "block": _control(W.Dropdown, "block", options=(("3×3 conv", "conv"), ("MBConv", "mbconv")), value="conv"),
    }
    found = partial(networks, ("figure_3", "figure_3_mbconv"), scale, "psnr", 0.8)
    make = partial(fixed, 11.5, 4.6, 1, 2, bottom=0.11, wspace=0.15, width_ratios=[1.65, 1])
    scatter = cache(partial(Scatter, found, "M", "PSNR at σ = 0.8 (dB)", make))
    # The next step alone: a picture may take a measurement of half a second, for which a move would have to wait.
    return Panel("unet", controls, partial(draw_unet, scatter=scatter), ahead=2)


def joint(scale: str) -> Panel:
    """The reduced DC-Nets at work: denoised image, both digits' labels and probabilities."""
    controls = _scene_controls(0.4, 0) | {"model": _control(W.Dropdown, "network", options=JOINT, value=JOINT[0])}
    return Panel("joint", controls, partial(draw_joint, load=cache(partial(trained, "table_3", scale=scale))))
