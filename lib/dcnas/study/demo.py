"""Pictures under sliders: the demo of the introduction (Figure 1), Section 3.3's panel.

All numbers are those of `dcnas.deploy.apply`, and so of `dcnas denoise` and `dcnas classify`.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import anywidget
import ipywidgets as W
import numpy as np
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from ..deploy.apply import (
    COUNT,
    FOR_PHOTOGRAPHS,
    WORSE,
    Outcome,
    Scene,
    apply,
    best_classes,
    file_scene,
    no_label,
    study_scene,
)
from ..deploy.weights import Network, load_network, names
from ..errors import InputError
from .figures import COLOURS, Pictures
from .widgets import WIDE, Panel

MOST_SIDE = 256  # of an own picture; larger ones are scaled, so that a move stays quick
KINDS = DIGITS, SOLAR, PHOTOGRAPHS, OWN = "two digits", "solar cells", "photographs", "own picture"
RIGHT = COLOURS["green"]


class Drop(anywidget.AnyWidget):
    """A field to choose a picture with, which may also be dropped anywhere on its panel.

    `value` is (number, name, content) of the last one, or (). A file comes in pieces: ipywidgets' upload
    sends one message, and Jupyter's connection breaks at 10 MiB, which a photograph can have.
    """

    value = traitlets.Tuple()
    _esm = """
    function render({ model, el }) {
      const zone = document.createElement("label"), input = document.createElement("input");
      const text = document.createElement("span"), piece = 4 * 2 ** 20;
      async function send(file) {
        if (!file) return;
        text.textContent = file.name;
        const bytes = await file.arrayBuffer();
        for (let at = 0; at === 0 || at < bytes.byteLength; at += piece) {
          const head = { name: file.name, first: at === 0, last: at + piece >= bytes.byteLength };
          model.send(head, undefined, [bytes.slice(at, at + piece)]);
        }
        input.value = "";  // the same file may be chosen again
      }
      const listen = () => {
        const panel = el.closest(".dcnas-panel");
        if (!panel) return requestAnimationFrame(listen);  // not in the page yet
        for (const name of ["dragenter", "dragover", "drop"])
          panel.addEventListener(name, event => {
            event.preventDefault();  // or the browser would open the file
            event.stopPropagation();
            if (name === "drop") send(event.dataTransfer.files[0]);
          });
      };
      zone.className = "dcnas-drop";
      zone.style = "display: inline-block; border: 2px dashed #767676; padding: 8px; cursor: pointer";
      text.textContent = " or drop a picture here";
      Object.assign(input, { type: "file", accept: "image/*", onchange: () => send(input.files[0]) });
      zone.append(input, text);
      el.append(zone);
      listen();
    }
    export default { render };
    """

    def __init__(self):
        super().__init__()
        self.pieces: list[bytes] = []
        self.on_msg(self.receive)

    def receive(self, _, message: dict, buffers: Sequence[memoryview]) -> None:
        """Take a piece; the last one makes the picture."""
        self.pieces = [*([] if message["first"] else self.pieces), *map(bytes, buffers)]
        if message["last"]:
            self.value = (self.value[0] + 1 if self.value else 1, message["name"], b"".join(self.pieces))


@lru_cache(maxsize=64)
def scene_of(kind: str, index: int, upload: tuple) -> Scene:
    """A test image of a set, or the own picture."""
    if kind != OWN:
        return study_scene({DIGITS: "digits", SOLAR: "solar"}.get(kind, kind), index)
    if not upload:
        raise InputError("There is no picture yet: drop one here, or choose one.")
    return file_scene(*upload[1:], MOST_SIDE)


def quality(title: str, db: float | None, similarity: float | None) -> str:
    """The title of a picture, with PSNR and SSIM where there are any."""
    numbers = [f"{db:.2f} dB"] if db is not None and math.isfinite(db) else []
    numbers += [f"SSIM {similarity:.3f}"] if numbers and math.isfinite(similarity) else []
    return f"{title}\n{', '.join(numbers)}"


def sentence(network: Network, scene: Scene, outcome: Outcome) -> str:
    """The status line: what the network says, and how far it is to be believed."""
    text = f"{network.label} took {outcome.ms:.0f} ms. "
    if outcome.familiar:
        truth = f"; the truth is {', '.join(scene.labels)}" if scene.labels else ""
        text += f"It says {words(network, outcome.own)}{truth}. "
        if network.kind == "sequential" and outcome.before is not None:
            text += f"Without its denoiser its classifier says {words(network, outcome.before)}. "
    elif outcome.own is not None:
        text += no_label(network, scene, outcome.sigma) + " "
    return (text + " ".join([WORSE] * outcome.is_worse + [*scene.notes])).strip()


def words(network: Network, probabilities: Tensor) -> str:
    """The label of each object and its probability."""
    answers = best_classes(probabilities, network.classes)
    return ", ".join(f"{label} ({100 * chance:.0f}%)" for label, chance in answers)


def bars(axes, classes: Sequence[str], probabilities: Sequence, truths: Sequence[str]) -> None:
    """Class probabilities of each object, the true class green; nothing where there are none."""
    axes.clear()
    axes.set_visible(len(probabilities) > 0)
    if len(classes) > 10 and len(probabilities):  # the most probable ones
        first = np.sum(probabilities, 0).argsort()[:-7:-1]
        classes, probabilities = [classes[i] for i in first], probabilities[:, first]
    for k, (row, truth) in enumerate(zip(probabilities, truths)):
        y, high = np.arange(len(classes)) + 0.4 * k - 0.2 * (len(truths) - 1), 0.8 / len(truths)
        look = dict(color=[RIGHT if name == truth else COLOURS["orange"] for name in classes])
        axes.barh(y, 100 * row, high, hatch="///" if k else "", edgecolor="black", linewidth=0.6, **look)
    for y, name in enumerate(classes if len(classes) < 10 else ()):  # too long to stand outside
        axes.text(2, y, name, va="center")
    axes.set_yticks(range(10) if len(classes) == 10 else [])
    axes.set(xlim=(0, 100), ylim=(len(classes) - 0.5, -0.5), xlabel="probability (%)")
    axes.set_title(
        "what it says\n(green: the truth)" if truths[0] in classes else "what it says", fontsize=10
    )


def demo(*networks: str, kinds: Sequence[str] = KINDS, index: int = 3, sigma: float = 0.8) -> Panel:
    """A picture, a noise level, a network by name: clean, noisy, denoised, and what the network says."""
    networks = networks or sorted(names(), key=lambda name: "integrated" not in name)
    shown = Pictures(3, plot=0.9)

    def draw(kind: str, index: int, network: str, sigma: float, upload=()) -> tuple[Figure, str]:
        scene, net = scene_of(kind, index, upload), load_network(network)
        outcome = apply(net, scene, sigma)
        noisy = quality(f"noisy, σ = {sigma:.2f}", outcome.noisy_psnr, outcome.noisy_ssim)
        shown.show(0, scene.image, "as it came\n" if kind == OWN else "clean\n")
        shown.show(1, outcome.noisy, noisy)
        shown.show(2, outcome.denoised, quality("denoised", outcome.psnr, outcome.ssim))
        chances = outcome.own.numpy() if outcome.familiar else ()
        for k, box in enumerate([] if scene.boxes is None else scene.boxes[0].tolist()):
            shown.mark(0, box, scene.labels[k], COLOURS["blue"])
            if len(chances):
                label = net.classes[chances[k].argmax()]
                right = label == scene.labels[k]
                shown.mark(2, box, label + (" ✓" if right else " ✗"), RIGHT if right else COLOURS["red"])
        bars(shown.plot, net.classes or "-", chances, scene.labels or ["unknown"])
        return shown.figure, sentence(net, scene, outcome)

    labels = [(load_network(name).label, name) for name in networks]
    levels = dict(min=0, max=1, step=0.05, readout_format=".2f")
    panel = Panel(
        draw,
        kind=W.Dropdown(options=[*kinds], description="picture", **WIDE),
        index=W.IntSlider(index, 0, COUNT - 1, description="number", **WIDE),
        network=W.Dropdown(options=labels, description="network", **WIDE),
        sigma=W.FloatSlider(sigma, description="noise σ", **levels, **WIDE),
        **({"upload": Drop()} if OWN in kinds else {}),
    )
    kind, number, network, _, *upload = panel.controls.values()

    def chosen(change: dict) -> None:
        """Photographs and own pictures by the network of photographs that does best by them."""
        number.disabled = change["new"] == OWN
        if change["new"] in (PHOTOGRAPHS, OWN):
            network.value = next((n for n in networks if n == FOR_PHOTOGRAPHS), network.value)

    kind.observe(chosen, names="value")
    for field in upload:
        field.observe(lambda _: kind.set_trait("value", OWN), names="value")
    return panel
