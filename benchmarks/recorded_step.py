"""A training step on a GPU, replayed as a CUDA graph against launched from Python, in turns of a few steps in one process.

Times of other machines, or of other moments, are not comparable; the ratios are.

    python benchmarks/recorded_step.py --rounds 20
"""

import argparse
import sys
import time
from dataclasses import replace

import numpy as np
import torch
from dcnas.study.experiments import Experiment, build, dcnet, denoiser
from dcnas.study.scales import scale_named

from dcnas.data.two_digits import cached
from dcnas.models import UNETS
from dcnas.seed import set_seed
from dcnas.study.runs import make_draw
from dcnas.training import Settings, Trainer, task_loss

TURN = 10  # steps before the other one has its turn
WARMUP = 6  # the recording among them


def contender(experiment: Experiment, recorded: bool, device: torch.device):
    """`turn(step)`: seconds of `TURN` steps from `step` on, drawing of the batches included."""
    set_seed(0)

    def loss(model, batch):
        return task_loss(experiment.task, model, batch, experiment.ce_weight)

    trainer = Trainer(build(experiment), loss, replace(Settings.of(experiment), recorded=recorded), device)
    draw = make_draw(experiment, cached("train", 1_000).to(device), device)

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
    device, scale = torch.device("cuda"), scale_named("gpu")
    print(f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}, {rounds} rounds of {TURN} steps")
    for experiment in (denoiser(scale, 0, **UNETS["reduced"]), dcnet(scale, 0, "sequential", "baseline")):
        turns = {word: contender(experiment, word == "recorded", device) for word in ("eager", "recorded")}
        times = {word: [] for word in turns}
        for n in range(rounds):
            for word, turn in turns.items():
                times[word].append(1_000 * turn(WARMUP + TURN * n) / TURN)
        low, middle, high = np.quantile(np.divide(times["recorded"], times["eager"]), [0.25, 0.5, 0.75])
        print(
            f"{experiment.label}, batch {experiment.batch}: eager {np.median(times['eager']):.2f} ms, recorded "
            f"{np.median(times['recorded']):.2f} ms, ratio {middle:.2f} (quartiles {low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
