"""Widgets: a `Panel` of controls, a status line and a picture, and two that several notebooks show.

`draw(**values of the controls)` draws on a figure that it keeps, and returns the figure and the status
line. Nothing is trained. Panels of pictures are in `demo`.
"""

import base64
import io
import threading
from collections.abc import Callable
from functools import lru_cache
from html import escape

import anywidget
import ipywidgets as W
import numpy as np
import torch
import traitlets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from ..errors import InputError
from ..latency.table import Table
from ..nas.derive import Frontier
from ..nas.lut import parts
from .figures import COLOURS, enlarged, new_figure
from .results import Results
from .runs import SAMPLE_SIGMAS, SAMPLES

LOCK = threading.Lock()  # JupyterLab calls back in a thread of its own
# of controls, so that labels are whole
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
        self.draw, self.controls, self.error = draw, controls, None
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
        with LOCK, torch.inference_mode():
            figure, text = self.draw(**dict(zip(self.controls, values)))
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


def target(measured: Table, searches: dict, network: str = "C-NAS") -> Panel:
    """The most probable network for a target latency by the alphas of a search, as a timeline.

    `searches`: name to (space, log-probabilities of the operators of its layers).
    """
    solved = {key: Frontier(s, measured, logs, network) for key, (s, logs) in searches.items()}
    slowest = {key: each.latency_ms(each.best(each.range_ms[1])) for key, each in solved.items()}
    ends = {key: np.ceil(10 * ms) / 10 for key, ms in slowest.items()}
    low = np.ceil(10 * max(each.range_ms[0] for each in solved.values())) / 10
    looks = KERNELS | {"stem, head": "0.85", "decoder": COLOURS["green"]}
    handles = [Patch(facecolor=colour, edgecolor="black", label=name) for name, colour in looks.items()]
    handles += [Patch(facecolor="white", edgecolor="black", hatch="//", label="squeeze-and-excitation")]
    figure, axes = new_figure(9.6, 3.2)

    def draw(search: str, target_ms: float) -> tuple[Figure, str]:
        space, log_alphas = searches[search]
        best = solved[search].best(target_ms)
        total_ms, pieces = solved[search].latency_ms(best), parts(best, network)
        times = np.array([measured.part_ms(*piece) for piece in pieces])
        times *= total_ms / times.sum()  # corrected, as their sum is
        axes.clear()
        blocks = zip(space.layers, best.choices)
        for (key, hidden), left, width in zip(pieces, times.cumsum() - times, times):
            look = dict(height=1, color=looks["decoder" if "decoder" in key else "stem, head"])
            if hidden:
                layer, choice = next(blocks)
                look = dict(height=hidden / layer.in_channels, hatch="//" if choice.operator.se else "")
                look["color"] = looks[f"kernel {choice.operator.kernel}"]
                if layer.block == 0:
                    axes.text(left, 8.4, str(layer.stage + 1))
            axes.bar(left, width=width, align="edge", edgecolor="black", linewidth=0.8, **look)
        axes.axvline(target_ms, color="black", linestyle="--")
        axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5, fontsize=10)
        axes.set(xlabel="latency (ms); a block is as wide as the time it takes, 1 to 6: stages")
        axes.set(ylabel="expansion rate", ylim=(0, 9.2), xlim=(0, 1.02 * max(ends.values())))
        logs = [alpha[space.candidates.index(c.operator)] for alpha, c in zip(log_alphas, best.choices)]
        text = f"{network}, {search}: {total_ms:.2f} ms by the table, for at most {target_ms:.1f} ms; "
        return figure, f"{text}probability of its operators {np.exp(np.mean(logs)):.2f} per layer."

    choice = W.Dropdown(options=list(searches), description="search", **WIDE)
    first, look = ends[choice.value], dict(description="target (ms)", step=0.1, readout_format=".1f")
    slider = W.FloatSlider(round((low + first) / 2, 1), min=low, max=first, **look, **WIDE)
    choice.observe(lambda change: slider.set_trait("max", ends[change["new"]]), names="value")
    return Panel(draw, search=choice, target_ms=slider)  # a target beyond its end would change nothing


def outputs(nets: Results) -> Panel:
    """A test image at a noise level: clean, noisy, and by each network; below, a part of each."""
    figure = enlarged(nets.pictures(0, 0.4))
    count = len(figure.axes) // 2
    figure.set_size_inches(9.6, min(4.3, 1 + 17 / count))

    def draw(image: int, sigma: float) -> tuple[Figure, str]:
        pictures = nets.pictures(image, sigma)
        return enlarged(pictures, figure), f"Test image {image}, σ = {sigma:g}: {', '.join(pictures)}."

    return Panel(
        draw,
        image=W.IntSlider(0, 0, SAMPLES - 1, description="test image", **WIDE),
        sigma=W.SelectionSlider(options=SAMPLE_SIGMAS, value=0.4, description="noise σ", **WIDE),
    )
