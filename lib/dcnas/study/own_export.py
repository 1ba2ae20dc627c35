"""`dcnas export`: a trained network for a board, compared with PyTorch, timed beside it, and in 8 bits
at a known cost.
"""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ..data.images import ImageSet, evaluation_images
from ..data.noise import SIGMAS
from ..data.photographs import set_named
from ..data.two_digits import IMAGE_SIZE, cached
from ..deploy import export
from ..deploy.weights import Network
from ..errors import InputError
from ..latency.measure import measure_many
from ..paths import write_atomic
from .own import images_for, intervals, per_image
from .tasks import bank_noisy

CALIBRATION = 64  # images


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
    if network.of_digits and (int8 or data is not None):
        raise InputError(
            f"{network.name} is of Section 3: it is compared on its digits, and has no 8-bit copy."
        )
    files, size = {"ONNX Runtime": path}, IMAGE_SIZE if network.of_digits else network.card["resolution"]
    if network.of_digits:
        trial = cached("test", CALIBRATION).images / 255
    else:
        images = images_for(network, set_named(data or network.card["data"]))
        trial = _noisy_training_images(images, size)
    result = {"network": network.label, "size_px": size}
    result["largest_difference"] = export.export_onnx(network, path, trial[:8])
    if int8:
        files["ONNX Runtime, int8"] = path.with_name(f"{path.stem}-int8.onnx")
        export.quantise(path, files["ONNX Runtime, int8"], trial)
        cost = int8_cost(network, export.Session(files["ONNX Runtime, int8"], threads), images)
        result["int8_cost"] = cost.to_dict("records")
    inputs = export.example(network, 1, size, size)
    models = {"PyTorch": (network.model, inputs)}
    models |= {name: (export.Session(file, threads), inputs) for name, file in files.items()}
    times = measure_many(models, rounds=20, warmup=3, passes=5, threads=threads)
    result |= {"threads": times["PyTorch"].threads, "device": times["PyTorch"].device}
    result["latency_ms"] = {
        name: {"median": t.median_ms, "q25": t.q25_ms, "q75": t.q75_ms} for name, t in times.items()
    }
    for name, file in files.items():
        t = times[name]
        latency = f"{t.median_ms:.3f} ms at batch 1, {size} x {size} px, {t.threads} threads"
        export.mark(file, **export.facts(network), latency=latency, device=t.device)
    result["mib"] = {file.name: file.stat().st_size / 2**20 for file in files.values()}
    write_atomic(path.with_suffix(".onnx.json"), json.dumps(result, indent=1) + "\n")
    return result


def _noisy_training_images(images: ImageSet, size: int) -> Tensor:
    """Images to calibrate on: of the training part, at noise levels spread over 0 to 1."""
    views, _ = evaluation_images(
        replace(images, rows={"test": images.rows["weights"]}), "test", size, CALIBRATION
    )
    noisy = bank_noisy(views)
    return torch.cat([noisy(range(n, n + 1), n / max(1, len(views) - 1)) for n in range(len(views))])


def int8_cost(network: Network, session: export.Session, images: ImageSet) -> pd.DataFrame:
    """What 8 bits cost at each noise level: psnr (dB), ssim, accuracy (points), quantised minus float,
    with 95% intervals.
    """

    def answer(noisy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        denoised, logits = session(noisy)
        return denoised, None if logits is None else logits[:, None]

    size = network.card["resolution"]
    before, after = per_image(network.answer, images, size), per_image(answer, images, size)
    cost = intervals({name: after[name].double() - before[name].double() for name in before})
    cost.insert(0, "sigma", SIGMAS)
    return cost
