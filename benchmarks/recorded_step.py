"""A training step on a GPU, replayed as a CUDA graph against launched from Python, in turns of a few
steps in one process.

Times of other machines, or of other moments, are not comparable; the ratios are.

    python benchmarks/recorded_step.py --rounds 20
"""

import argparse
import sys
import time
from dataclasses import replace

import numpy as np
import torch

from dcnas.seed import set_seed
from dcnas.study.kinds import Run
from dcnas.study.presets import runs
from dcnas.study.runs import network_of
from dcnas.study.tasks import Digits
from dcnas.training import Trainer

TURN = 10  # steps before the other one has its turn
WARMUP = 6  # the recording among them


def contender(run: Run, recorded: bool, device: torch.device):
    """`turn(step)`: seconds of `TURN` steps from `step` on, drawing of the batches included."""
    set_seed(0)

    task = Digits(run, device)
    trainer = Trainer(network_of(run), task.loss, replace(run.train, recorded=recorded), device)
    draw, _ = task.draws()

    def turn(step: int) -> float:
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        for n in range(step, step + TURN):
            trainer.step(draw(n))
        torch.cuda.synchronize(device)
        return time.perf_counter() - start

    for n in range(WARMUP):
        trainer.step(draw(n))
    return turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    if not torch.cuda.is_available():
        sys.exit("recorded_step: there is no GPU here, and only there a step is recorded")
    device, wanted = torch.device("cuda"), ("UNet b=8 d=4 m=1.5 c=2", "DC-Net Baseline Sequential")
    print(
        f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}, {rounds} rounds of "
        f"{TURN} steps"
    )
    for run in (run for run in runs("section3", "gpu") if run.label in wanted and run.seed == 0):
        turns = {word: contender(run, word == "recorded", device) for word in ("eager", "recorded")}
        times = {word: [] for word in turns}
        for n in range(rounds):
            for word, turn in turns.items():
                times[word].append(1_000 * turn(WARMUP + TURN * n) / TURN)
        low, middle, high = np.quantile(np.divide(times["recorded"], times["eager"]), [0.25, 0.5, 0.75])
        print(
            f"{run.label}, batch {run.batch}: eager {np.median(times['eager']):.2f} ms, recorded "
            f"{np.median(times['recorded']):.2f} ms, ratio {middle:.2f} (quartiles {low:.2f} to "
            f"{high:.2f})"
        )


if __name__ == "__main__":
    main()
