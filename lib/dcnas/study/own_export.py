"""`dcnas export`: a trained network for a board, compared with PyTorch, timed beside it, and in 8 bits
at a known cost.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.images import evaluation_images, evaluation_twins
from ..data.noise import GAUSSIAN, SIGMAS, Noise
from ..data.photographs import set_named
from ..data.two_digits import IMAGE_SIZE, cached
from ..deploy import export, quantise
from ..deploy.weights import Network
from ..errors import InputError
from ..latency import board
from ..latency.measure import measure_many
from ..models.dcnet import JOINING
from ..paths import write_atomic
from ..training import evaluate
from .own import images_for, intervals
from .tasks import noise_met

CALIBRATION = 88  # images, eight for each noise level
TRIALS = 256  # training images by which layers are chosen that stay in floating point
TESTS = 1_000  # test images, at most
LOSS = {"psnr": 0.5, "ssim": 0.02, "accuracy": 1.0}  # dB, 1, points: most at any noise level
MARGIN = 0.5  # of it where layers are chosen: test images are others
Answer = Callable[[Tensor, Tensor], tuple[Tensor | None, Tensor | None]]


class Images(NamedTuple):
    """What a network is compared on."""

    clean: Tensor  # uint8 (N, C, H, W)
    boxes: Tensor  # (N, K, 4)
    labels: Tensor  # (N, K)
    noise: Noise = GAUSSIAN
    twins: Tensor | None = None  # of pairs `clean` with its real noise

    def met(self) -> tuple[tuple[float, ...], Callable[[range, float], Tensor]]:
        """Sigmas, and the noisy images of each: what `noise_met` gives."""
        return noise_met(self.clean, self.noise, self.twins)

    def inputs(self, network: Network, count: int) -> list[tuple[Tensor, ...]]:
        """Of single passes: the first images, at all noise levels in turn."""
        sigmas, noisy = self.met()
        rows = [n % len(self.clean) for n in range(count)]  # a small set's more than once
        images = [noisy(range(k, k + 1), sigmas[n % len(sigmas)]) for n, k in enumerate(rows)]
        boxed = network.kind in JOINING
        return [(x, self.boxes[k : k + 1]) if boxed else (x,) for k, x in zip(rows, images)]


def images_of(network: Network, data: str | None, part: str, count: int) -> Images:
    """The first images of a part of a set ("weights", for training, or "test"): of the network's own set
    if none is named.
    """
    if network.of_digits:
        if data is not None:
            raise InputError(f"{network.name} is of Section 3: it is compared on its digits alone.")
        digits = cached("test" if part == "test" else "train", count)
        return Images(digits.images, digits.boxes, digits.labels)
    images = images_for(network, set_named(data or network.card["data"]))
    how = images, part, network.card["resolution"], count
    (views, labels), twins = evaluation_images(*how), evaluation_twins(*how)
    views, twins = (x if x is None else x[:, : network.channels] for x in (views, twins))
    noise = Noise(**network.card.get("noise", {}))
    return Images(views, torch.zeros(len(views), 1, 4), labels, noise, twins)


def write_export(
    network: Network,
    path: Path,
    data: str | None = None,
    *,
    int8: bool = False,
    threads: int | None = None,
) -> dict:
    """The network as an ONNX file (and `-int8` beside it); what was found, also in `path`.json.

    `data`: the images to compare and calibrate on, of a network of Section 4.
    """
    files, size = {"ONNX Runtime": path}, IMAGE_SIZE if network.of_digits else network.card["resolution"]
    training = images_of(network, data, "weights", TRIALS)
    result = {"network": network.label, "size_px": size}
    trial = training.inputs(network, len(SIGMAS))
    result["largest_difference"] = export.export_onnx(network, path, trial)
    entries = {"ONNX Runtime": {}}
    if int8:
        files["ONNX Runtime, int8"] = small = path.with_name(f"{path.stem}-int8.onnx")
        result |= write_int8(network, path, small, training, images_of(network, data, "test", TESTS))
        floating = {"float_layers": result["float_layers"], "int8_cost": cost_text(result)}
        entries["ONNX Runtime, int8"] = floating
    inputs = export.example(network, 1, size, size)
    models = {"PyTorch": (network.model, inputs)}
    models |= {name: (export.Session(file, threads), inputs) for name, file in files.items()}
    times = measure_many(models, rounds=20, warmup=3, passes=5, threads=threads)
    result |= {"threads": times["PyTorch"].threads, "device": times["PyTorch"].device}
    result["latency_ms"] = {
        name: {"median": t.median_ms, "q25": t.q25_ms, "q75": t.q75_ms} for name, t in times.items()
    }
    if export.has_branches(network):
        how = (result["threads"], inputs[0].numpy(), 5, 20)
        result["branches"] = board.branches_gain(path, *how)
    for name, file in files.items():
        t = times[name]
        latency = f"{t.median_ms:.3f} ms at batch 1, {size} x {size} px, {t.threads} threads"
        facts = export.facts(network) | entries[name]
        export.mark(file, **facts, latency=latency, device=t.device)
    result["mib"] = {file.name: file.stat().st_size / 2**20 for file in files.values()}
    write_atomic(path.with_suffix(".onnx.json"), json.dumps(result, indent=1) + "\n")
    return result


def write_int8(network: Network, path: Path, out: Path, training: Images, test: Images) -> dict:
    """The 8-bit copy: the names of its layers, in 8 bits and in floating point, and what it costs."""
    exact = answer_of(export.Session(path))
    before = metrics_of(exact, training)

    def holds(session: export.Session) -> bool:
        after = metrics_of(answer_of(session), training)
        return worst(over_levels(before), over_levels(after)) <= MARGIN

    calibration = training.inputs(network, CALIBRATION)
    small, floating = quantise.quantise(path, out, calibration, holds)
    quantised = answer_of(export.Session(out))
    before, after = metrics_of(exact, test), metrics_of(quantised, test)
    cost = intervals({name: after[name].double() - before[name].double() for name in before})
    cost.insert(0, "sigma", test.met()[0])
    return {
        "int8_layers": small,
        "float_layers": floating,
        "int8_holds": worst(before, after) <= 1,
        "int8_cost": cost.to_dict("records"),
    }


def answer_of(session: export.Session) -> Answer:
    """The outputs of a file for any number of images; those with boxes one by one."""

    def answer(noisy: Tensor, boxes: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if len(session.session.get_inputs()) > 1:
            pairs = [session(image[None], places[None]) for image, places in zip(noisy, boxes)]
            return tuple(map(torch.cat, zip(*pairs)))
        denoised, logits = session(noisy)
        return denoised, None if logits is None else logits[:, None]

    return answer


def metrics_of(answer: Answer, images: Images) -> dict[str, Tensor]:
    """psnr (dB), ssim, accuracy (%) of each image at each noise level: (sigmas, images)."""
    sigmas, noisy = images.met()
    metrics = evaluate(answer, *images[:3], noisy, sigmas, progress=True)
    if "correct" in metrics:
        metrics["accuracy"] = 100 * metrics.pop("correct").double().mean(-1)
    return metrics


def over_levels(metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    """Accuracy as one mean: at single levels that of so few images moves by chance."""
    means = {name: x.mean(0, keepdim=True).expand_as(x) for name, x in metrics.items()}
    return metrics | {name: means[name] for name in means if name == "accuracy"}


def worst(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """The largest loss of a mean at any noise level, as a share of what is allowed."""
    losses = [(before[x] - after[x]).double().mean(1) / LOSS[x] for x in LOSS if x in before]
    return float(torch.stack(losses).max())


def cost_text(result: dict) -> str:
    """What the 8-bit copy costs at the worst noise level, beside what it may."""
    rows, parts = result["int8_cost"], []
    for name, unit in (("psnr", "dB of PSNR"), ("ssim", "of SSIM"), ("accuracy", "points of accuracy")):
        if name in rows[0]:
            loss = max(0.0, *(-row[name] for row in rows))
            parts.append(f"{loss:.3f} {unit}, limit {LOSS[name]:g}")
    verdict = "" if result["int8_holds"] else ": MORE than the limit"
    return f"int8 costs at most {'; '.join(parts)}{verdict}"


def int8_text(result: dict) -> str:
    """What the 8-bit copy leaves in floating point, costs and gains, in sentences."""
    small, floating = result["int8_layers"], result["float_layers"]
    lines = [f"int8: {len(small)} of {len(small) + len(floating)} layers; floating point: "]
    lines[0] += ", ".join(floating) or "none"
    for row in result["int8_cost"]:
        means = [f"{name} {x:.2f}" for name, x in row.items() if not name.endswith(("_low", "_high"))]
        lines.append(f"int8 minus float: {', '.join(means)}")
    lines.append(f"{cost_text(result)}.")
    full, small = result["mib"].values()
    lines.append(f"Its file has {100 * small / full:.0f}% of the size.")
    times = [result["latency_ms"][name]["median"] for name in ("ONNX Runtime", "ONNX Runtime, int8")]
    speed = f"{times[0] / times[1]:.2f} times as fast as floating point"
    lines.append(f"It is {speed}{'' if times[1] < times[0] else ': it gains no time on this machine'}.")
    return "\n".join(lines)
