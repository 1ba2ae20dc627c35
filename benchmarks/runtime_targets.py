"""Networks for five targets in ONNX Runtime: does what is promised come out, and what do steps buy?

A table of `runtime_table.py` is read; networks with random operators are fitted to five targets over
its range, measured in the runtime and repaired, once in the steps of hidden widths that the table has
and once in single channels, which this runtime does not like. Printed are how far the first measurement
is from its prediction and the last from its target, the FLOPs of either, and FLOPs a millisecond, for
single channels may miss the target however they are repaired. Times are in the table's milliseconds:
networks that it knows run among the others and tell how fast the machine is now.

    python benchmarks/runtime_targets.py runs/runtime-table/board.json
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dcnas.latency.table import Table
from dcnas.models.flops import count_flops
from dcnas.nas.derive import fit_widths, frontier, repair
from dcnas.nas.lut import predicted_ms, space_of
from dcnas.nas.networks import IMAGE_CHANNELS, build_network
from dcnas.nas.packs import read_table
from dcnas.nas.space import Space
from dcnas.study.derivation import latencies_by_table

TARGETS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the way from the fastest network to the slowest
NETWORK = "DC-NAS"


def derived(space: Space, table: Table, targets_ms: list[float], rounds: int) -> tuple[dict, dict]:
    """Architectures by target as measured and repaired, and the rows of `repair`."""
    # the table's curves are asked between its widths as well, where this runtime breaks their promise
    widths = replace(table, conditions=replace(table.conditions, width_step=space.width_step))
    predict = partial(predicted_ms, widths, network=NETWORK)
    targets, starts = dict(enumerate(targets_ms)), {}
    for n, target_ms in targets.items():
        # operators of chance, the same in either space
        rng, alphas = np.random.default_rng(n), []
        for _ in space.layers:
            alphas.append(np.log(rng.dirichlet(np.ones(space.operators))))
        front = frontier(space, widths, alphas, NETWORK)
        starts[n] = fit_widths(front.best(target_ms), target_ms, predict)

    def measure(architectures: dict) -> dict:
        models = {n: build_network(NETWORK, a) for n, a in architectures.items()}
        times, slowdown = latencies_by_table(models, table, rounds=rounds, passes=3)
        return {
            n: (t.median_ms / slowdown, 1.96 * t.median_error_ms / slowdown) for n, t in times.items()
        }

    found, rows = repair(starts, targets, dict.fromkeys(targets, predict), measure)
    for n, (ms, _) in measure(found).items():  # anew: the chosen one was chosen for its measurement
        rows[n].append({"measured_ms": ms, "error_pct": 100 * (ms / targets[n] - 1)})
    return found, rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path, help="what measure.py of a pack wrote: board.json")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    table, _ = read_table(args.result)
    c = table.conditions
    space, image = space_of(c), torch.rand(1, IMAGE_CHANNELS, c.resolution, c.resolution)
    flat = [np.zeros(space.operators)] * len(space.layers)
    low, high = frontier(space, table, flat, NETWORK).range_ms
    targets_ms = [round(low + share * (high - low), 2) for share in TARGETS]
    print(f"{c.device}, {c.threads} threads, {NETWORK} of {low:.2f} to {high:.2f} ms")
    flops, per_ms = {}, {}
    for step in (c.width_step, 1):
        found, rows = derived(replace(space, width_step=step), table, targets_ms, args.rounds)
        flops[step] = [count_flops(build_network(NETWORK, a).eval(), image) for a in found.values()]
        times = [rows[n][-1]["measured_ms"] for n in found]
        per_ms[step] = [count / ms for count, ms in zip(flops[step], times, strict=True)]
        print(f"hidden widths in steps of {step}:")
        for n, target_ms in enumerate(targets_ms):
            first, last = rows[n][0], rows[n][-1]["error_pct"]
            off = 100 * (first["measured_ms"] / first["predicted_ms"] - 1)
            print(
                f"  {target_ms:6.2f} ms: first measured {off:+6.2f}% from its prediction, after "
                f"{len(rows[n]) - 2} repairs {last:+5.2f}% from the target, "
                f"{flops[step][n] / 1e6:7.1f} M FLOPs"
            )
    for name, by_step in (("FLOPs", flops), ("FLOPs a millisecond", per_ms)):
        ratios = [a / b for a, b in zip(by_step[c.width_step], by_step[1], strict=True)]
        spread = f"median {np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name}, steps of {c.width_step} over single channels: {spread}")


if __name__ == "__main__":
    main()
