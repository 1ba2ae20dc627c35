"""Training speed on a CPU: the study's whole loop against the bare training step, and that against plain
eager PyTorch.

All three train the reduced UNet at batch 32 in float32 with two threads, in turns of a few steps in one
process, so that other load on the machine hits all alike. Times of other machines, or of other moments,
are not comparable; the ratios are.

    python benchmarks/training_loop.py --rounds 5 --json results.json
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import torch

from dcnas.latency.measure import device_name
from dcnas.seed import set_seed
from dcnas.study import presets, runs
from dcnas.study.kinds import Run
from dcnas.training import Batch, Trainer, charbonnier, task_loss

LOOP, BARE, EAGER = "whole loop", "bare step", "plain eager"
# speed of the first over speed of the second, at least
TARGETS = {(LOOP, BARE): 0.95, (BARE, EAGER): 1.1}
TURN = 5  # steps before the next contender has its turn


def run_of(rounds: int, steps: int, batch: int, threads: int) -> Run:
    """The reduced UNet of the paper's scale; an epoch with its validation is a round, one step more
    marks the end.
    """
    paper = next(run for run in presets.runs("table_2", "paper") if run.unet["b"] == 8)
    train = replace(
        paper.train, precision="fp32", channels_last=True, steps=rounds * steps + 1, epoch_steps=steps
    )
    return replace(paper, label="benchmark", train=train, batch=batch, eval_images=1, threads=threads)


def bare_step(run: Run, batch: Batch) -> Callable[[], object]:
    """The step that the loop repeats, always on the same batch."""
    set_seed(0)
    trainer = Trainer(
        runs.network_of(run), lambda model, b: task_loss("denoise", model, b, 0.1), run.train
    )
    return lambda: trainer.step(batch)


def eager_step(run: Run, batch: Batch) -> Callable[[], object]:
    """What anyone would write: channels first, Adam as it comes."""
    set_seed(0)
    model = runs.network_of(run).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=run.train.lr)

    def step() -> None:
        loss = charbonnier(model(batch.noisy), batch.clean)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def seconds_of(step: Callable[[], object]) -> float:
    """Of one turn."""
    start = time.perf_counter()
    for _ in range(TURN):
        step()
    return time.perf_counter() - start


def measure(
    rounds: int = 5, steps: int = 50, batch: int = 32, threads: int = 2
) -> dict[str, list[float]]:
    """Images per second of each contender in each round.

    The loop is `obtain` itself: data set, order, noise, progress bar, history, validations and
    checkpoints. Its `draw` hands the turn to the others every few steps and stops the clock meanwhile.
    """
    run = run_of(rounds, steps, batch, threads)
    spent = {name: [0.0] * rounds for name in (LOOP, BARE, EAGER)}
    others: dict[str, Callable] = {}
    real = runs.Digits.draws
    resumed = 0.0

    def interrupted(task) -> tuple[Callable[[int], Batch], Batch]:
        draw, fixed = real(task)
        for name, make in ((BARE, bare_step), (EAGER, eager_step)):
            others[name] = make(run, draw(0))
            seconds_of(others[name])  # warm up

        def turn(step: int) -> Batch:
            nonlocal resumed
            if step and step % TURN == 0:
                row = (step - 1) // steps
                spent[LOOP][row] += time.perf_counter() - resumed
                for name in others:
                    spent[name][row] += seconds_of(others[name])
            if step % TURN == 0:
                resumed = time.perf_counter()
            return draw(step)

        return turn, fixed

    with tempfile.TemporaryDirectory() as folder:
        with patch.dict(os.environ, DCNAS_RUNS=folder), patch.object(runs.Digits, "draws", interrupted):
            runs.obtain(run)
    return {name: [steps * batch / seconds for seconds in times] for name, times in spent.items()}


def ratios(speeds: dict[str, list[float]], first: str, second: str) -> list[float]:
    """Median and quartiles of the ratio in each round."""
    values = [a / b for a, b in zip(speeds[first], speeds[second], strict=True)]
    return [median(values), *np.quantile(values, [0.25, 0.75]).tolist()]


def report(speeds: dict[str, list[float]]) -> dict[str, dict]:
    """Print the table and the verdicts; they come back as data."""
    print(f"{'':12}  images/s, median of {len(speeds[LOOP])} rounds")
    for name, values in speeds.items():
        print(f"{name:12}  {median(values):8.1f}")
    found = {}
    for (first, second), target in TARGETS.items():
        middle, low, high = ratios(speeds, first, second)
        verdict = "reached" if middle >= target else "MISSED"
        print(
            f"{first} / {second}: {middle:.3f} (quartiles {low:.3f} to {high:.3f}), at least "
            f"{target} wanted: {verdict}"
        )
        found[f"{first} / {second}"] = {
            "median": middle,
            "q25": low,
            "q75": high,
            "target": target,
            "verdict": verdict,
        }
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--steps", type=int, default=50, help="steps of each contender in a round, a multiple of 5"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all numbers there")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.threads < 1 or options.steps < TURN or options.steps % TURN:
        parser.error(f"rounds and threads from 1 on, and steps a multiple of {TURN}, were expected")
    speeds = measure(options.rounds, options.steps, threads=options.threads)
    print(
        f"{device_name(torch.device('cpu'))}, {options.threads} threads, torch {torch.__version__}",
        file=sys.stderr,
    )
    found = report(speeds)
    if options.json:
        settings = {
            "device": device_name(torch.device("cpu")),
            "torch": torch.__version__,
            "threads": options.threads,
        }
        options.json.write_text(
            json.dumps(settings | {"images_per_s": speeds, "ratios": found}, indent=1)
        )


if __name__ == "__main__":
    main()
