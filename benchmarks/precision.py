"""A training step of UNets in float32 and in bfloat16, in both memory formats, in turns of a few steps
in one process.

Which is fastest depends on the network's width and on the processor; `study.presets` takes bfloat16 for
wide normal convolutions alone. Times of other machines, or of other moments, are not comparable; the
ratios to float32 are.

    python benchmarks/precision.py --rounds 5
"""

import argparse
import time

import numpy as np
import torch

from dcnas.data.two_digits import IMAGE_SIZE
from dcnas.latency.measure import device_name
from dcnas.models import UNETS, UNet
from dcnas.seed import set_seed
from dcnas.training import Batch, Settings, Trainer, task_loss

NETWORKS = {
    "UNet Reduced": UNETS["reduced"],
    "UNet b=8": dict(b=8, d=4, m=2, c=2),
    "UNet b=16": dict(b=16, d=4, m=2, c=2),
    "UNet Baseline": UNETS["baseline"],
    "MB-UNet b=8": dict(b=8, d=4, m=2, c=2, block="mbconv"),
}
WAYS = {
    f"{precision} {layout}": (precision, layout == "channels_last")
    for precision in ("fp32", "bf16")
    for layout in ("channels_last", "contiguous")
}
BATCH, TURN = 16, 2  # images in a step; steps before the next way has its turn


def contender(unet: dict, precision: str, channels_last: bool):
    """`turn()`: seconds of `TURN` training steps."""
    set_seed(0)
    settings = Settings(1_000, 1_000, precision=precision, channels_last=channels_last)
    trainer = Trainer(
        UNet(**unet), lambda model, batch: task_loss("denoise", model, batch, 0.1), settings
    )
    clean = torch.rand(BATCH, 1, IMAGE_SIZE, IMAGE_SIZE)
    batch = Batch(clean, clean + 0.5 * torch.randn_like(clean), None, None)

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(TURN):
            trainer.step(batch)
        return time.perf_counter() - start

    turn()
    return turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)  # as the study's runs
    print(
        f"{device_name(torch.device('cpu'))}, one thread, PyTorch {torch.__version__}, {rounds} rounds"
    )
    for name, unet in NETWORKS.items():
        turns = {way: contender(unet, *how) for way, how in WAYS.items()}
        seconds = np.array([[turn() for turn in turns.values()] for _ in range(rounds)])
        plain = seconds[:, :1]
        for way, ratios in zip(WAYS, (plain / seconds).T, strict=True):
            low, middle, high = np.quantile(ratios, [0, 0.5, 1])
            speed = TURN * BATCH / np.median(seconds[:, list(WAYS).index(way)])
            print(
                f"{name:14s} {way:20s} {speed:6.1f} images/s, ratio to the first {middle:.2f} "
                f"({low:.2f} to {high:.2f})"
            )


if __name__ == "__main__":
    main()
