"""Evaluation speed on a CPU: all metrics at eleven noise levels against the bare forward passes that
they need.

The reduced UNet on the test images, in turns of one batch of images in one process, so that other load
on the machine hits both alike. Times of other machines, or of other moments, are not comparable; the
ratio is.

    python benchmarks/evaluation.py --images 1000 --json results.json
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from tqdm.auto import tqdm

from dcnas.data.noise import SIGMAS
from dcnas.data.two_digits import TwoDigits, cached
from dcnas.latency.measure import device_name
from dcnas.models import UNETS, UNet
from dcnas.seed import set_seed
from dcnas.study.tasks import bank_noisy
from dcnas.training import evaluate, predict

BATCH = 64  # what `evaluate` takes
TARGET = 1.3  # time of the evaluation over that of the forward passes, at most


def evaluation_seconds(model: torch.nn.Module, data: TwoDigits) -> float:
    """Images, noise, forward passes, PSNR and SSIM, as `dcnas.study.runs` puts them together."""
    start = time.perf_counter()
    noisy = bank_noisy(data.images)
    evaluate(
        lambda x, boxes: predict("denoise", model, x, boxes),
        data.images,
        data.boxes,
        data.labels,
        noisy,
        SIGMAS,
        batch=BATCH,
    )
    return time.perf_counter() - start


def forward_seconds(model: torch.nn.Module, noisy: torch.Tensor) -> float:
    """As many forward passes, of images that are there already."""
    start = time.perf_counter()
    with torch.inference_mode():
        for _ in SIGMAS:
            model(noisy)
    return time.perf_counter() - start


def measure(images: int = 1_000, threads: int = 2, progress: bool = True) -> list[tuple[float, float]]:
    """Seconds of (evaluation, forward passes) for each batch of test images; the first turn of each is
    not counted.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        set_seed(0)
        model = UNet(**UNETS["reduced"]).eval().to(memory_format=torch.channels_last)
        everything = cached("test", images)
        starts = range(0, images, BATCH)
        seconds = []
        for start in tqdm([0, *starts], desc="evaluation", unit="batch", disable=not progress):
            rows = slice(start, start + BATCH)
            data = TwoDigits(
                everything.images[rows],
                everything.boxes[rows],
                everything.labels[rows],
                everything.digits[rows],
            )
            noisy = data.images / 255 + 0.5 * torch.randn(data.images.shape)
            seconds.append((evaluation_seconds(model, data), forward_seconds(model, noisy)))
        return seconds[1:]
    finally:
        torch.set_num_threads(before)


def report(seconds: list[tuple[float, float]], images: int) -> dict[str, float | str]:
    """Print the table and the verdict; they come back as data."""
    whole, forward = (sum(column) for column in zip(*seconds, strict=True))
    values = [a / b for a, b in seconds]
    middle, (low, high) = median(values), np.quantile(values, [0.25, 0.75]).tolist()
    verdict = "reached" if middle <= TARGET else "MISSED"
    print(f"{images} images at {len(SIGMAS)} noise levels")
    print(f"evaluation      {whole:8.2f} s  {images * len(SIGMAS) / whole:8.1f} images/s")
    print(f"forward passes  {forward:8.2f} s  {images * len(SIGMAS) / forward:8.1f} images/s")
    print(
        f"evaluation / forward passes: {middle:.3f} (quartiles {low:.3f} to {high:.3f}), at most "
        f"{TARGET} wanted: {verdict}"
    )
    return {
        "evaluation_s": whole,
        "forward_s": forward,
        "median": middle,
        "q25": low,
        "q75": high,
        "target": TARGET,
        "verdict": verdict,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all numbers there")
    options = parser.parse_args(arguments)
    if options.images < 1 or options.threads < 1:
        parser.error("images and threads from 1 on were expected")
    found = report(measure(options.images, options.threads), options.images)
    if options.json:
        settings = {
            "device": device_name(torch.device("cpu")),
            "torch": torch.__version__,
            "threads": options.threads,
        }
        options.json.write_text(json.dumps(settings | found, indent=1))


if __name__ == "__main__":
    main()
