"""Does a search beat chance? Five searches and five random networks of the same measured latency,
trained equally, with Student's interval on the difference of their means.

    python benchmarks/search_against_chance.py --lut board.json [--share 0.5] [--steps 1000]

The table is one of ONNX Runtime for 64 pixels (`dcnas lut build --resolution 64 --batch 1`), of this
machine; the target lies at `--share` of the range of DC-NAS. Searches differ in their seed; so do random
networks, whose widths are fitted, measured and repaired as the searched ones' are. Images are those of
`tiny-imagenet`; all networks are trained from one seed. On two cores a search of the defaults takes
about six minutes and a training of 1,000 steps about four, so that the whole takes about an hour and a
half. The same command goes on where it was killed, and prints what is there so far after each training.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from dcnas.latency.table import load_table
from dcnas.nas.lut import space_of
from dcnas.nas.settings import latency_range_ms
from dcnas.options import SearchOptions
from dcnas.paths import write_atomic
from dcnas.study.derivation import derive
from dcnas.study.kinds import Derivation
from dcnas.study.own_compare import METRICS, scores_of
from dcnas.study.own_runs import search_run, training_of
from dcnas.study.records import derivation_row
from dcnas.study.runs import obtain
from dcnas.study.store import is_complete

SEARCHED, CHANCE = "searched", "random"


def difference(rows: pd.DataFrame, metric: str) -> tuple[float, float, float]:
    """Mean of the searched minus mean of the random networks, with the interval of Welch's t."""
    a, b = (rows[rows["kind"] == kind][metric] for kind in (SEARCHED, CHANCE))
    bounds = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return a.mean() - b.mean(), bounds.low, bounds.high


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lut", type=Path, required=True)
    parser.add_argument("--data", default="tiny-imagenet")
    parser.add_argument("--share", type=float, default=0.5, help="of the range of latencies")
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1_000, help="of each training")
    parser.add_argument("--epochs", type=int, default=SearchOptions.epochs)
    parser.add_argument("--steps-per-epoch", type=int, default=SearchOptions.steps_per_epoch)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/search_against_chance.csv"))
    args = parser.parse_args()
    table = load_table(args.lut)
    low, high = latency_range_ms(space_of(table.conditions, 4), table, "DC-NAS")
    target_ms = round(low + args.share * (high - low), 3)
    sizes = dict(epochs=args.epochs, steps_per_epoch=args.steps_per_epoch, threads=args.threads)
    plain = SearchOptions(
        lut=args.lut, out=args.out.parent, data=args.data, target_ms=target_ms, loss="both", **sizes
    )
    searches = [search_run(replace(plain, seed=n), target_ms) for n in range(args.networks)]
    for search in searches:
        obtain(search)
    found = [Derivation(search, "DC-NAS", target_ms) for search in searches]
    drawn = [Derivation(searches[0], "DC-NAS", target_ms, n) for n in range(args.networks)]
    derive([*found, *drawn])
    print(f"{table.conditions.device}, {table.conditions.runtime}: target {target_ms:.2f} ms")
    runs = {}
    for pair in zip(found, drawn, strict=True):  # in turn, so that an unfinished comparison is fair
        for kind, derivation in zip((SEARCHED, CHANCE), pair, strict=True):
            photos = searches[0].photos["data"], searches[0].photos["resolution"]
            run = training_of({"kind": "DC-NAS"}, f"own {kind}", *photos, plain, args.steps)
            runs[derivation] = kind, replace(run, source=derivation)
    for _, run in runs.values():
        if not is_complete(run):
            obtain(run)
            report(runs, args.out)
    report(runs, args.out)


def report(runs: dict, path: Path) -> None:
    """A row per trained network, and the differences where there are two of each kind or more."""
    rows = []
    for derivation, (kind, run) in runs.items():
        if is_complete(run):
            measured_ms = derivation_row(derivation)["measured_ms"]
            means = {name: float(np.mean(values)) for name, values in scores_of([run]).items()}
            rows.append({"kind": kind, "measured_ms": measured_ms} | means)
    frame = pd.DataFrame(rows)
    write_atomic(path, frame.to_csv(index=False, lineterminator="\n"))
    print(frame.round(2).to_string(index=False))
    if frame["kind"].value_counts().reindex([SEARCHED, CHANCE]).min() >= 2:
        for metric, unit in METRICS.items():
            mean, low, high = difference(frame, metric)
            print(f"searched minus random: {mean:+.2f} {unit} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
