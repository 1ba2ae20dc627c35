"""One search step beside TF-NAS's own code: the same batch, resolution, classes and eight operators, on
the same threads.

A step trains weights on two paths, and every second step alphas with all operators: a weight step plus
half an alpha step. TF-NAS is not part of this project: clone it (https://github.com/AberHu/TF-NAS) and
say where it lies.

    python benchmarks/search_step.py --peer ../TF-NAS

Limits: the faithful step at most 0.75 of the peer's, the cheaper alpha gradient (two operators per
layer) at most 0.5.
"""

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from dcnas.latency.measure import device_name
from dcnas.latency.table import Conditions, Curve, Table
from dcnas.nas.lut import key_of
from dcnas.nas.search import Searcher, SearchSettings
from dcnas.nas.space import Space
from dcnas.paths import write_atomic
from dcnas.training.tasks import Batch

CLASSES = 100


def flat_table(space: Space) -> Table:
    """A table in which everything costs 1 ms: the search's arithmetic does not depend on the values."""
    keys = {key_of(layer, o): layer.in_channels for layer in space.layers for o in space.candidates}
    curves = {key: Curve((0, 9 * n), (1.0, 1.0), (0.0, 0.0), (1, 1)) for key, n in keys.items()}
    curves |= {
        key: Curve((0,), (1.0,), (0.0,), (1,))
        for key in ("stem.first", "stem.second", "head", "decoder conv")
    }
    conditions = Conditions(
        "", 1, 1, space.resolution, 1.0, "channels_last", "float32", torch.__version__, ""
    )
    return Table(conditions, curves)


class Peer:
    """TF-NAS's network in its own training step, with its own settings."""

    def __init__(self, path: str, channels_last: bool = False):
        sys.path.insert(0, path)
        from models.model_search import Network
        from tools.config import mc_mask_dddict

        masks = {
            stage: {
                block: {i: int(mask.sum()) for i, mask in ops.items()} for block, ops in blocks.items()
            }
            for stage, blocks in mc_mask_dddict.items()
        }

        class Anything(dict):
            def __missing__(self, key):
                return defaultdict(lambda: 1.0)

        self.net = Network(CLASSES, masks, Anything(base=1.0))
        self.net.set_temperature(5.0)
        self.net.train()
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.net.to(memory_format=self.layout)
        self.sgd = torch.optim.SGD(
            self.net.weight_parameters(), lr=0.025, momentum=0.9, weight_decay=1e-5
        )
        self.adam = torch.optim.Adam(
            self.net.arch_parameters(), lr=0.01, betas=(0.5, 0.999), weight_decay=5e-4
        )

    def _train(self, weights: bool) -> None:
        for p in self.net.weight_parameters():
            p.requires_grad = weights
        for p in self.net.arch_parameters():
            p.requires_grad = not weights

    def weight_step(self, x, y) -> None:
        self._train(weights=True)
        x = x.contiguous(memory_format=self.layout)
        loss = sum(
            F.cross_entropy(self.net(x, sampling=True, mode=mode)[0], y) for mode in ("gumbel", "random")
        )
        self.sgd.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.weight_parameters(), 5.0)
        self.sgd.step()

    def alpha_step(self, x, y) -> None:
        self._train(weights=False)
        logits, latency = self.net(x.contiguous(memory_format=self.layout), sampling=False)
        loss = F.cross_entropy(logits, y) + 0.1 * torch.abs(latency / 15.0 - 1.0)
        self.adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.arch_parameters(), 5.0)
        self.adam.step()
        for p in self.net.arch_parameters():
            p.data = F.log_softmax(p.detach().data, dim=-1)


class Ours:
    """Our searcher, with the peer's freedoms: eight operators, beta learned."""

    def __init__(self, resolution: int, gradient: str):
        space = Space(8, resolution, CLASSES)
        settings = SearchSettings(
            target_ms=15.0, steps_per_epoch=1, learn_beta=True, alpha_gradient=gradient
        )
        self.searcher, self.steps = Searcher(space, flat_table(space), settings), 0

    def _batch(self, x, y) -> Batch:
        return Batch(x, x.contiguous(memory_format=torch.channels_last), None, y)

    def weight_step(self, x, y) -> None:
        self.steps += 1
        self.searcher.weight_step(self.steps, self._batch(x, y))

    def alpha_step(self, x, y) -> None:
        self.searcher.alpha_step(self.steps, self._batch(x, y), 5.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", required=True, help="a clone of TF-NAS")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--resolution", type=int, default=64, help="pixels")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--out", type=Path, help="also write a CSV; 04_1 shows data/latency/search-step.csv"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    x, y = (
        torch.randn(args.batch, 3, args.resolution, args.resolution),
        torch.randint(CLASSES, (args.batch,)),
    )
    systems = {
        "TF-NAS": Peer(args.peer),
        "TF-NAS, channels_last": Peer(args.peer, channels_last=True),
        "ours": Ours(args.resolution, "all"),
        "ours, two operators": Ours(args.resolution, "two"),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in systems}
    for turn in range(args.rounds + 2):  # in turn, so that other load hits all alike
        for name, system in systems.items():
            start = time.perf_counter()
            system.weight_step(x, y)
            middle = time.perf_counter()
            system.alpha_step(x, y)
            if turn >= 2:
                times[name].append((middle - start, time.perf_counter() - middle))
    cost = {name: np.array(rows) @ [1.0, 0.5] for name, rows in times.items()}
    limits, lines = {"ours": 0.75, "ours, two operators": 0.5}, []
    print(
        f"batch {args.batch}, {args.resolution} px, {args.threads} threads, {args.rounds} rounds, "
        "medians"
    )
    for name, rows in times.items():
        ratios = cost[name] / cost["TF-NAS"]  # of the same round
        low, ratio, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        weights, alphas = np.median(rows, 0)
        lines.append(
            {
                "search": name,
                "weights_s": weights,
                "alphas_s": alphas,
                "ratio": ratio,
                "ratio_q25": low,
                "ratio_q75": high,
                "batch": args.batch,
                "resolution": args.resolution,
                "threads": args.threads,
                "rounds": args.rounds,
                "device": device_name(),
                "torch": torch.__version__,
            }
        )
        limit = f", at most {limits[name]} asked" if name in limits else ""
        print(
            f"{name:22s} weights {weights:.3f} s, alphas {alphas:.3f} s; step / TF-NAS {ratio:.2f} "
            f"({low:.2f} to {high:.2f}){limit}"
        )
    if args.out:
        write_atomic(args.out, pd.DataFrame(lines).round(4).to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    main()
