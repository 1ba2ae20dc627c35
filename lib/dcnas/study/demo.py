"""The demo of the introduction (Figure 1): see the noise go, and see the label come back.

`Demo().view` is the widget; `figure` is the same picture without a kernel. Pictures are put together and written as PNG directly,
so that a slider answers at once; all numbers are those of `dcnas.apply`, and so of `dcnas denoise` and `dcnas classify`.
"""

import io
import math
from functools import lru_cache
from html import escape

import ipywidgets as W
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from ..data.pictures import as_uint8
from ..deploy.apply import COUNT, Outcome, Scene, apply, best_classes, file_scene, study_scene
from ..deploy.weights import Network, load_network, names
from ..errors import InputError
from .explore import Panel
from .figures import COLOURS, new_figure, note, picture, square, style
from .picture_drop import PictureDrop

MOST_SIDE = 512  # of an own picture; larger ones are scaled, so that a move stays quick; `dcnas denoise` takes any size
HEIGHT, GAP = 240, 12  # of the pictures on the screen, and between them, in pixels
DIGITS_SET, SOLAR_SET, OWN = "two digits", "solar cells", "own picture"


@lru_cache(maxsize=64)
def _sample(kind: str, index: int) -> Scene:
    return study_scene({DIGITS_SET: "digits", SOLAR_SET: "solar"}[kind], index)


@lru_cache(maxsize=4)
def _own(name: str, data: bytes) -> Scene:
    return file_scene(name, data, MOST_SIDE)


@lru_cache(maxsize=128)
def _outcome(name: str, scene_key: tuple, sigma: float) -> Outcome:
    return apply(load_network(name), _scene(*scene_key), sigma)


def _scene(kind: str, key: int | str, data: bytes = b"") -> Scene:
    return _own(str(key), data) if kind == OWN else _sample(kind, int(key))


def pictures_of(scene: Scene, outcome: Outcome) -> list[tuple[str, np.ndarray]]:
    """Name and uint8 pixels of the pictures, (H, W) or (H, W, 3): what was removed is shown around mid-grey."""
    noisy = outcome.noisy
    found = [("clean", scene.image), ("noisy", noisy)]
    if outcome.denoised is not None:
        found += [("denoised", outcome.denoised), ("removed", (noisy - outcome.denoised) / 2 + 0.5)]
    return [(name, as_uint8(image)) for name, image in found]


def _width(scene: Scene) -> int:
    """Of a picture on the screen, in pixels."""
    height, width = scene.pixels.shape[-2:]
    return max(1, round(width * HEIGHT / height))


def strip(scene: Scene, network: Network, outcome: Outcome) -> bytes:
    """The pictures side by side as PNG, digits marked where they are: right ones green, wrong ones red with a cross."""
    found, size = pictures_of(scene, outcome), (_width(scene), HEIGHT)
    height, width = found[0][1].shape[:2]
    smooth = Image.Resampling.NEAREST if HEIGHT >= height else Image.Resampling.BOX
    whole = Image.new("RGB", (len(found) * (size[0] + GAP) - GAP, HEIGHT), "white")
    for n, (_, pixels) in enumerate(found):
        whole.paste(Image.fromarray(pixels).convert("RGB").resize(size, smooth), (n * (size[0] + GAP), 0))
    if scene.boxes is not None:
        draw, scale = ImageDraw.Draw(whole), size[0] / width
        answers = best_classes(outcome.own, network.classes) if network.of_digits and outcome.own is not None else []
        for k, box in enumerate(scene.boxes[0].tolist()):
            _mark(draw, 0, box, scale, scene.labels[k], COLOURS["blue"])
            if answers and outcome.denoised is not None:
                label = answers[k][0]
                right = label == scene.labels[k]
                _mark(draw, 2 * (size[0] + GAP), box, scale, label + ("" if right else " ✗"), COLOURS["green" if right else "red"])
    buffer = io.BytesIO()
    whole.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _mark(draw: ImageDraw.ImageDraw, left: int, box: list[int], scale: float, text: str, colour: str) -> None:
    x0, y0, x1, y1 = (round(scale * value) for value in box)
    draw.rectangle((left + x0, y0, left + x1 - 1, y1 - 1), outline=colour, width=3)
    place = (left + x0 + 5, y0 + 2)
    draw.rectangle(draw.textbbox(place, text, font_size=18), fill=colour, outline=colour, width=3)
    draw.text(place, text, fill="white", font_size=18)


def _db(psnr: float) -> str:
    return "∞ dB" if math.isinf(psnr) else f"{psnr:.2f} dB"


def captions(scene: Scene, sigma: float, outcome: Outcome) -> dict[str, str]:
    """What stands below each picture: PSNR and SSIM against the clean one."""
    found = {"clean": "clean" if scene.labels else "as it came"}
    found["noisy"] = f"noisy, σ = {sigma:.2f}"
    if sigma > 0:
        found["noisy"] += f": {_db(outcome.noisy_psnr)}, SSIM {outcome.noisy_ssim:.3f}"
    if outcome.denoised is not None:
        found["denoised"] = "denoised"
        if sigma > 0:
            found["denoised"] += f": {_db(outcome.psnr)}, SSIM {outcome.ssim:.3f}"
        found["removed"] = "noisy − denoised"
    return found


def verdicts(scene: Scene, network: Network, outcome: Outcome) -> list[dict]:
    """For each object: the classes that the noisy and the denoised image give, whether they differ, and which is right."""
    if outcome.before is None:
        return []
    truths = scene.labels if network.of_digits == (scene.boxes is not None) else ()
    rows = []
    pairs = zip(best_classes(outcome.before, network.classes), best_classes(outcome.after, network.classes), strict=True)
    for k, (first, second) in enumerate(pairs):
        truth = truths[k] if k < len(truths) and truths[k] in network.classes else None
        rows.append({
            "noisy": first[0], "noisy_probability": first[1], "denoised": second[0], "denoised_probability": second[1],
            "changed": first[0] != second[0], "truth": truth,
        })  # fmt: skip
    return rows


def sentence(scene: Scene, network: Network, sigma: float, outcome: Outcome) -> str:
    """The status line: network, where its weights come from, milliseconds, and notes on the picture."""
    size = f"{scene.pixels.shape[-1]} x {scene.pixels.shape[-2]}"
    parts = [f"{network.label}, trained at scale {network.card.get('scale', 'own')}: {outcome.ms:.1f} ms for {size} pixels."]
    if network.of_digits and scene.boxes is None:
        parts.append("It has seen nothing but digits on grey: any other picture is beyond it.")
    elif not network.of_digits and (scene.boxes is not None or not scene.labels):
        parts.append(f"It was trained on {network.card['training'].split(':')[0]} images alone, and sees them everywhere.")
    return " ".join([*parts, *scene.notes])


def bars_html(scene: Scene, network: Network, outcome: Outcome) -> str:
    """Class probabilities as bars, by the noisy and by the denoised image, and a mark where the label changes."""
    rows, parts = verdicts(scene, network, outcome), []
    for k, row in enumerate(rows):
        head = f"<b>{'object' if len(rows) == 1 else f'digit {k + 1}'}</b>"
        if row["truth"] is not None:
            head += f" (true: {escape(row['truth'])})"
        word = "changes from" if row["changed"] else "stays"
        text = f"{escape(row['noisy'])} to {escape(row['denoised'])}" if row["changed"] else escape(row["noisy"])
        colour = COLOURS["red"] if row["changed"] else "#555"
        head += (
            f"<br><span class='dcnas-demo-change' style='color:{colour}'>{'⚑ ' if row['changed'] else ''}label {word} {text}</span>"
        )
        lines = []
        for name, p, q in zip(network.classes, outcome.before[k].tolist(), outcome.after[k].tolist(), strict=True):
            true = " ◂" if name == row["truth"] else ""
            lines.append(
                f"<tr><td style='text-align:right;padding-right:6px;white-space:nowrap'>{escape(name)}{true}</td>"
                f"<td>{_bar(p, COLOURS['orange'], 'noisy')}{_bar(q, COLOURS['blue'], 'denoised')}</td></tr>"
            )
        parts.append(f"<div style='margin-right:32px'>{head}<table style='line-height:1.1'>{''.join(lines)}</table></div>")
    if not parts:
        return "<i>This network denoises only.</i>"
    key = "".join(
        f"<span style='background:{COLOURS[colour]};display:inline-block;width:12px;height:10px;margin:0 4px 0 12px'></span>{name}"
        for colour, name in (("orange", "by the noisy image"), ("blue", "by the denoised image"))
    )
    return f"<div>Class probabilities{key}</div><div style='display:flex;flex-wrap:wrap'>{''.join(parts)}</div>"


def _bar(share: float, colour: str, name: str) -> str:
    return (
        f"<div title='{name}: {100 * share:.1f}%' style='display:flex;align-items:center;height:9px;font-size:9px'>"
        f"<div style='background:{colour};height:7px;width:{max(1, round(160 * share))}px;margin-right:4px'></div>"
        f"{f'{100 * share:.0f}%' if share >= 0.05 else ''}</div>"
    )


def figure(kind: str = DIGITS_SET, index: int = 0, sigma: float = 0.4, network: str = "dc-net-reduced-integrated") -> Figure:
    """The demo as a figure: pictures above, probabilities below."""
    scene, net = _sample(kind, index), load_network(network)
    outcome = apply(net, scene, sigma)
    found, text = pictures_of(scene, outcome), captions(scene, sigma, outcome)
    rows = verdicts(scene, net, outcome)
    drawn, axes = new_figure(11, 5.4 if rows else 3.2, 2 if rows else 1, 4, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (name, pixels) in zip(axes[0], found, strict=False):
        picture(axis, pixels, text[name].replace(": ", "\n"), (0, 255))
        axis.set_axis_on()
        if scene.boxes is not None and name in ("clean", "denoised"):
            answers = (
                scene.labels if name == "clean" else [row["noisy" if net.kind != "sequential" else "denoised"] for row in rows]
            )
            for box, label, truth in zip(scene.boxes[0].tolist(), answers, scene.labels, strict=False):
                colour = COLOURS["blue"] if name == "clean" else COLOURS["green" if label == truth else "red"]
                square(axis, box[0], box[1], box[2] - box[0], colour, label)
    for k, row in enumerate(rows[:2]):
        axis = drawn.add_subplot(axes[1, 0].get_gridspec()[1, 2 * k : 2 * k + 2])
        places = np.arange(len(net.classes))
        for n, (values, name, hatch) in enumerate(((outcome.before[k], "noisy", ""), (outcome.after[k], "denoised", "///"))):
            look = dict(color=COLOURS[("orange", "blue")[n]], edgecolor="white", hatch=hatch)
            axis.bar(places + 0.4 * n - 0.2, 100 * values.numpy(), 0.4, label=f"by the {name} image", **look)
        axis.set_xticks(places, [name.replace(", ", ",\n") for name in net.classes])
        change = f"label changes from {row['noisy']} to {row['denoised']}" if row["changed"] else f"label stays {row['noisy']}"
        axis.set(ylabel="probability (%)", ylim=(0, 105), title=f"true {row['truth']}: {change}")
        axis.legend(loc="upper right")
    return note(drawn, sentence(scene, net, sigma, outcome).split(":")[0] + ".")


class Demo(Panel):
    """The widget: a sample or a picture of one's own, a noise level, a network by name."""

    def __init__(self, network: str = "dc-net-reduced-integrated"):
        wide = dict(style={"description_width": "6em"}, layout=W.Layout(width="24em"))
        controls = {
            "kind": W.Dropdown(options=[DIGITS_SET, SOLAR_SET, OWN], description="picture", **wide),
            "index": W.IntSlider(0, 0, COUNT - 1, description="number", **wide),
            "upload": PictureDrop(),
            "network": W.Dropdown(options=[(load_network(name).label + _trained_on(name), name) for name in names()], value=network,
                                  description="network", style={"description_width": "6em"}, layout=W.Layout(width="34em")),
            "sigma": W.FloatSlider(0.4, min=0, max=1, step=0.05, description="noise σ", readout_format=".2f", **wide),
        }  # fmt: skip
        self.words = W.HTML()
        self.words.add_class("dcnas-demo-bars")
        super().__init__("demo", controls, self._show, keep=False)  # it keeps outcomes
        self.view.children = (*self.view.children, self.words)
        controls["upload"].observe(self._uploaded, names="value")

    def _uploaded(self, change: dict) -> None:
        """Show the picture, by a network that knows more than digits if there is one."""
        if change["new"]:
            others = [name for name in names() if not load_network(name).of_digits]
            if others and load_network(self.controls["network"].value).of_digits:
                self.controls["network"].value = min(others, key=lambda name: ("dc-nas" not in name, name))
            self.controls["kind"].value = OWN

    def _show(self, kind: str, index: int, upload: tuple, network: str, sigma: float) -> tuple[bytes, str]:
        key = (kind, index)
        if kind == OWN:
            if not upload:
                raise InputError("There is no picture yet: drop one on the field, or choose one there.")
            key = (OWN, *upload[1:])
        scene, net = _scene(*key), load_network(network)
        outcome = _outcome(network, key, sigma)
        image = strip(scene, net, outcome)
        texts = captions(scene, sigma, outcome).values()
        row = "".join(f"<div style='flex:1;padding-right:{GAP}px;box-sizing:border-box'>{escape(text)}</div>" for text in texts)
        width = len(texts) * (_width(scene) + GAP) - GAP
        self.image.layout.width = f"{width}px"  # as its captions, also where the page is narrower
        line = f"<div style='display:flex;width:{width}px;max-width:100%;line-height:1.3;font-size:12px'>{row}</div>"
        self.words.value = line + bars_html(scene, net, outcome)
        return image, sentence(scene, net, sigma, outcome)


def _trained_on(name: str) -> str:
    return ", solar cells" if name.endswith("-solar") else ", digits"


# ---- the networks that ship


def _cards() -> pd.DataFrame:
    """A row per network and noise level, from the cards."""
    frames = []
    for name in names():
        card = load_network(name).card
        frames.append(pd.DataFrame(card["metrics"]).assign(name=name, label=card["label"], card=[card] * len(card["metrics"])))
    return pd.concat(frames, ignore_index=True)


def cards_table(sigmas: tuple[float, ...] = (0.0, 0.2, 0.5, 1.0)) -> pd.DataFrame:
    """What ships: parameters, training, and PSNR (dB) and accuracy (%) at some noise levels."""
    rows = []
    for name, part in _cards().groupby("name", sort=True):
        card, at = part["card"].iloc[0], part.set_index("sigma")
        row = {"name": name, "network": card["label"], "parameters": card["parameters"], "steps": card["steps"]}
        row |= {f"PSNR σ={s:g}": at["psnr"].get(s) for s in sigmas} | {f"accuracy σ={s:g}": at["accuracy"].get(s) for s in sigmas}
        rows.append(row)
    return pd.DataFrame(rows).set_index("name").round(1)


def cards_figure() -> Figure:
    """PSNR and accuracy of what ships over the noise level."""
    cards = _cards()
    drawn, axes = new_figure(11, 4.2, 1, 2)
    for n, (name, part) in enumerate(cards.groupby("name", sort=True)):
        for axis, metric in zip(axes, ("psnr", "accuracy"), strict=True):
            if metric in part and part[metric].notna().any():
                axis.plot(part["sigma"], part[metric], label=name, **style(n))
    axes[0].set(xlabel="noise σ", ylabel="PSNR (dB)")
    axes[1].set(xlabel="noise σ", ylabel="accuracy (%)", ylim=(0, 102))
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    drawn.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3)
    scales = ", ".join(dict.fromkeys(card["scale"] for card in cards["card"]))
    return note(
        drawn, f"Seed 0, scale {scales}; digits and solar cells are different test sets and not to be compared with each other."
    )
