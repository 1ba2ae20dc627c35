"""Widgets: a `Panel` of controls, a status line and a picture, and panels that several notebooks show.

`draw(**values of the controls)` changes the artists of a figure that it keeps, and returns the figure
and the status line. Nothing is trained. Panels of pictures are in `demo`.
"""

import base64
import io
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from html import escape

import anywidget
import ipywidgets as W
import numpy as np
import pandas as pd
import torch
import traitlets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from ..errors import InputError
from ..latency.table import Table
from ..nas.derive import Frontier
from ..nas.lut import key_of, parts
from ..nas.space import ENCODER_STAGES, Space
from . import drawing
from .figures import COLOURS, LINES, MARKERS, PALETTE, new_figure

LOCK = threading.Lock()  # JupyterLab calls back in a thread of its own
# Of controls: whole labels
WIDE = dict(style={"description_width": "initial"}, layout=W.Layout(width="23em"))
KERNELS = {"kernel 3": COLOURS["sky"], "kernel 5": COLOURS["blue"]}  # told apart in grey as well


class Screen(anywidget.AnyWidget):
    """A PNG and a text for those who do not see it.

    It names its panel's sliders for screen readers, and keeps their arrow keys from JupyterLab.
    """

    png, alt = traitlets.Bytes().tag(sync=True), traitlets.Unicode().tag(sync=True)
    _esm = """
    function render({ model, el }) {
      const image = document.createElement("img");
      const paint = () => {
        URL.revokeObjectURL(image.src);
        image.src = URL.createObjectURL(new Blob([model.get("png")], { type: "image/png" }));
        image.alt = model.get("alt");
      };
      const name = () => {
        const panel = el.closest(".dcnas-panel");
        if (!panel) return requestAnimationFrame(name);  // not in the page yet
        for (const knob of panel.querySelectorAll(".noUi-handle"))
          knob.ariaLabel = knob.closest(".widget-slider").querySelector("label").textContent;
        panel.addEventListener("focusin", e => { e.target.dataset.lmSuppressShortcuts = "true" });
      };
      image.style = "max-width: 100%; max-height: 480px; object-fit: contain";
      model.on("change:png", paint);
      paint();
      name();
      el.append(image);
    }
    export default { render };
    """


def png(figure: Figure) -> bytes:
    """A figure as PNG, laid out the first time. (`Figure.savefig` draws twice and packs for long.)"""
    if not isinstance(figure.canvas, FigureCanvasAgg):
        FigureCanvasAgg(figure)
    if figure.get_constrained_layout():
        figure.get_layout_engine().set(w_pad=0.12)  # inches: tick labels may get a digit more
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    figure.canvas.draw()
    buffer = io.BytesIO()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


class Panel:
    """Controls, a status line and a picture; a cell displays it, without a kernel its first picture.

    An exception of `draw` ends in the status line and in `error`; the first picture's is raised.
    """

    def __init__(self, draw: Callable[..., tuple[Figure, str]], **controls: W.ValueWidget):
        self.draw, self.controls, self.error, self.slow = draw, controls, None, False
        self.drawn = lru_cache(maxsize=64)(self._drawn)
        self.status, self.screen = W.HTML(), Screen()
        row = W.Box([*controls.values()], layout=W.Layout(flex_flow="row wrap"))
        self.view = W.VBox([row, self.status, self.screen])
        self.view.add_class("dcnas-panel")
        self.status.add_class("dcnas-status")
        for control in controls.values():
            control.observe(self.refresh, names="value")
        self._show()

    def _drawn(self, *values) -> tuple[bytes, str]:
        begun = time.monotonic()
        if self.slow:
            self.status.value = "Counting again ..."
        with LOCK, torch.inference_mode():
            figure, text = self.draw(**dict(zip(self.controls, values)))
            self.slow = time.monotonic() - begun > 1
            return png(figure), text

    def _show(self) -> None:
        image, text = self.drawn(*(control.value for control in self.controls.values()))
        self.screen.alt, self.status.value = text, escape(text)
        self.screen.png = image

    def refresh(self, _=None) -> None:
        """Show the picture for what the controls say now."""
        try:
            self._show()
            self.error = None
        except Exception as error:
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            self.error, self.status.value = error, f"<b>{escape(f'{kind}{error}')}</b>"

    def _repr_mimebundle_(self, **options) -> dict:
        source = "data:image/png;base64," + base64.b64encode(self.screen.png).decode()
        html = f'<img src="{source}" alt="{escape(self.screen.alt)}"><br>{self.status.value}'
        return self.view._repr_mimebundle_(**options) | {
            "text/html": html,
            "text/plain": self.screen.alt,
        }


def classifier(rows: pd.DataFrame) -> Panel:
    """A classifier of any widths and expansion rate, drawn, among the trained ones of Table 6."""
    figure, (left, right) = new_figure(9.6, 3.3, 1, 2, width_ratios=[2.1, 1])
    trained = drawing.Trained(rows, "accuracy", right)
    right.set_ylabel("accuracy (%)")

    def draw(first: int, second: int, expansion: float | None) -> tuple[Figure, str]:
        left.clear()
        drawing.classifier(first, second, expansion, axes=left)
        size = drawing.classifier_size(first, second, expansion)
        return figure, trained.show(size, expansion is not None, None, "% (mean over the noise levels)")

    rates = [("none (3×3 conv)", None), ("1", 1), ("2.5", 2.5), ("4", 4)]
    return Panel(
        draw,
        first=W.IntSlider(6, 1, 16, description="first layer (channels)", **WIDE),
        second=W.IntSlider(24, 4, 48, description="second layer (channels)", **WIDE),
        expansion=W.Dropdown(options=rates, value=2.5, description="MBConv expansion rate", **WIDE),
    )


def table(measured: Table, space: Space) -> Panel:
    """The latencies of all operators in one layer over their hidden width."""
    figure, axes = new_figure(9.2, 3.4)
    axes.set(xlabel="hidden width (channels)", ylabel="latency of the block (ms)")
    lines = []
    for n, operator in enumerate(space.candidates):
        look = dict(color=PALETTE[n], marker=MARKERS[n], linestyle=LINES[n])
        lines += axes.plot([], [], label=operator.name, **look)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))

    def draw(layer: int) -> tuple[Figure, str]:
        place, points = space.layers[layer - 1], []
        for operator, line in zip(space.candidates, lines):
            curve = measured.curves[key_of(place, operator)]
            low, high = place.hidden_range(operator)
            own = [(x, ms) for x, ms in zip(curve.hidden, curve.median_ms) if low <= x <= high]
            line.set_data(*np.transpose(own))
            points += own
        (_, least_ms), (width, most_ms) = np.min(points, 0), np.max(points, 0)
        axes.set(xlim=(0, 1.05 * width), ylim=(0, 1.1 * most_ms))
        axes.set_title(f"{place.name}: {place.in_channels} to {place.out_channels} ch, {place.size} px")
        return figure, f"Layer {layer} of {len(space.layers)}: from {least_ms:.2f} to {most_ms:.2f} ms."

    return Panel(draw, layer=W.IntSlider(1, 1, len(space.layers), description="layer", **WIDE))


def target(measured: Table, searches: dict, network: str = "C-NAS", decoder: str = "conv") -> Panel:
    """The most probable network for a target latency by the alphas of a search, as a timeline.

    `searches`: name to (space, log-probabilities of the operators of its layers).
    """
    solved = {key: Frontier(s, measured, logs, network, decoder) for key, (s, logs) in searches.items()}
    largest = {key: found.best(found.range_ms[1]) for key, found in solved.items()}
    ends = {key: np.ceil(10 * solved[key].latency_ms(best)) / 10 for key, best in largest.items()}
    low = np.ceil(10 * max(found.range_ms[0] for found in solved.values())) / 10
    first, count = next(iter(searches)), len(parts(next(iter(largest.values())), network, decoder))
    figure, axes = new_figure(9.6, 3.2)
    bars = axes.bar(range(count), 1, align="edge", edgecolor="black", linewidth=0.8)
    stages = [axes.text(0, 8.4, str(n + 1)) for n in range(ENCODER_STAGES if network == "D-NAS" else 6)]
    aim = axes.axvline(0, color="black", linestyle="--")
    looks = KERNELS | {"stem, head": "0.85", "decoder": COLOURS["green"]}
    handles = [Patch(facecolor=colour, edgecolor="black", label=name) for name, colour in looks.items()]
    handles += [Patch(facecolor="white", edgecolor="black", hatch="//", label="squeeze-and-excitation")]
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5, fontsize=10)
    axes.set(xlabel="latency (ms); a block is as wide as the time it takes, 1 to 6: stages")
    axes.set(ylabel="expansion rate", ylim=(0, 9.2), xlim=(0, 1.02 * max(ends.values())))

    def draw(search: str, target_ms: float) -> tuple[Figure, str]:
        space, log_alphas = searches[search]
        best = solved[search].best(target_ms)
        total_ms, pieces = solved[search].latency_ms(best), parts(best, network, decoder)
        times = np.array([measured.part_ms(*piece) for piece in pieces])
        times *= total_ms / times.sum()  # corrected, as their sum is
        blocks = zip(space.layers, best.choices)
        for bar, (key, hidden), left, width in zip(bars, pieces, times.cumsum() - times, times):
            bar.set(x=left, width=width, height=1, hatch="")
            bar.set_facecolor(looks["decoder" if "decoder" in key else "stem, head"])
            if hidden:
                layer, choice = next(blocks)
                bar.set(height=hidden / layer.in_channels, hatch="//" if choice.operator.se else "")
                bar.set_facecolor(looks[f"kernel {choice.operator.kernel}"])
                if layer.block == 0:
                    stages[layer.stage].set_x(left)
        aim.set_xdata([target_ms] * 2)
        logs = [alpha[space.candidates.index(c.operator)] for alpha, c in zip(log_alphas, best.choices)]
        text = f"{network}, {search}: {total_ms:.2f} ms by the table, for at most {target_ms:.1f} ms; "
        return figure, f"{text}probability of its operators {np.exp(np.mean(logs)):.2f} per layer."

    choice = W.Dropdown(options=list(searches), description="search", **WIDE)
    look = dict(description="target (ms)", step=0.1, readout_format=".1f")
    slider = W.FloatSlider(round((low + ends[first]) / 2, 1), min=low, max=ends[first], **look, **WIDE)
    choice.observe(lambda change: slider.set_trait("max", ends[change["new"]]), names="value")
    return Panel(draw, search=choice, target_ms=slider)  # a target beyond its end would change nothing


def replay(alphas: pd.DataFrame, epochs: pd.DataFrame, target_ms: float) -> Panel:
    """A search epoch by epoch: the probability of every operator in every layer, the latency so far."""
    part = alphas[alphas["parameter"] == "alpha"]
    places, choices = list(dict.fromkeys(part["place"])), list(dict.fromkeys(part["choice"]))
    cube = part.pivot_table(index=["epoch", "choice"], columns="place", values="probability")[places]
    first, last = int(epochs["epoch"].min()), int(epochs["epoch"].max())
    figure, (left, right) = new_figure(9.8, 3.2, 1, 2, width_ratios=(1.9, 1))
    image = left.imshow(cube.loc[last].loc[choices], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    (best,) = left.plot([], [], "o", color=COLOURS["red"], markersize=4)
    labels = [place.replace("stage", "").replace("block", "") for place in places]
    left.set_xticks(range(len(places)), labels, fontsize=9)
    left.set_yticks(range(len(choices)), choices, fontsize=9)
    left.set(xlabel="layer (stage.block)", title="probability (white 0, blue 1; dot: the largest)")
    left.grid(False)
    curves = {
        name: right.plot(epochs["epoch"], epochs[f"{name}_ms"], label=name)[0]
        for name in ("argmax", "expected")
    }
    right.axhline(target_ms, color="0.4", linewidth=1, label="target")
    right.set(xlabel="epoch", ylabel="latency by the table (ms)", xlim=(first - 0.5, last + 0.5))
    right.legend()

    def draw(epoch: int) -> tuple[Figure, str]:
        chances = cube.loc[epoch].loc[choices].to_numpy()
        image.set_data(chances)
        best.set_data(range(len(places)), chances.argmax(0))
        past = epochs[epochs["epoch"] <= epoch]
        for name, line in curves.items():
            line.set_data(past["epoch"], past[f"{name}_ms"])
        now = epochs[epochs["epoch"] == epoch].iloc[0]
        text = f"entropy {now['entropy']:.2f}, {now['flips']:.0f} best operators changed"
        return figure, f"Epoch {epoch}: {text}, argmax {now['argmax_ms']:.2f} ms."

    return Panel(draw, epoch=W.IntSlider(last, first, last, description="epoch", **WIDE))
