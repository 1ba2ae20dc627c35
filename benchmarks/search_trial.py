"""How fast does a supernet learn? The weights of one sampled path a step, as in the first epochs of a
search, at several rates.

Appends a row every 90 steps to data/published/supernet_trials.csv, from which the rates of scale
`laptop` were chosen. A supernet that has learned names more test images right than the largest class
has.

    python benchmarks/search_trial.py --noisy --lr 0.1 --steps 900
"""

import argparse
import csv
import math
from dataclasses import replace

import torch

from dcnas.nas.searcher import Searcher
from dcnas.paths import published_dir
from dcnas.study.derivation import obtain_table, target_ms
from dcnas.study.presets import REMOVED, searches
from dcnas.study.runs import held_out_batches
from dcnas.study.tasks import batches_of

EVERY, WARMUP = 90, 20  # steps
COLUMNS = (
    "images",
    "optimiser",
    "lr",
    "batch",
    "steps",
    "step",
    "accuracy",
    "held_out_accuracy",
    "held_out_balanced_accuracy",
    "held_out_loss",
    "largest_class",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--noisy", action="store_true", help="noise of a sigma uniform in 0 to 1 on every image"
    )
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--optimiser", choices=("sgd", "adam"), default="sgd")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    label = "noisy S" if asked.noisy else REMOVED
    search = next(s for s in searches("searches", "laptop") if s.label == label)
    settings = search.settings | dict(lr=asked.lr)
    search, device = replace(search, batch=asked.batch, settings=settings), torch.device("cpu")
    searcher = Searcher(
        search.space, obtain_table("laptop"), search.with_target(target_ms(search)), device
    )
    if asked.optimiser == "adam":
        searcher.sgd = torch.optim.Adam(searcher.weights, lr=asked.lr)
    draw, held_out = (
        batches_of(search, ["weights"], "search weights", device),
        held_out_batches(search, device),
    )
    path = published_dir() / "supernet_trials.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        right = 0.0
        for step in range(asked.steps):
            for group in searcher.sgd.param_groups:  # warmed up, then falling as a cosine
                group["lr"] = (
                    asked.lr
                    * min(1, (step + 1) / WARMUP)
                    * (1 + math.cos(math.pi * step / asked.steps))
                    / 2
                )
            right += searcher.weight_step(step, draw(step), both=False)[1].item()
            if (step + 1) % EVERY == 0:
                row = {
                    "images": "noisy" if asked.noisy else "clean",
                    "optimiser": asked.optimiser,
                    "lr": asked.lr,
                }
                row |= {
                    "batch": asked.batch,
                    "steps": asked.steps,
                    "step": step + 1,
                    "accuracy": 100 * right / EVERY,
                }
                row |= searcher.held_out(held_out)
                writer.writerow(
                    {name: round(v, 2) if isinstance(v, float) else v for name, v in row.items()}
                )
                file.flush()
                print(", ".join(f"{name} {value}" for name, value in row.items()))
                right = 0.0


if __name__ == "__main__":
    main()
