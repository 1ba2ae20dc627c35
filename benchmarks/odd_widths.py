"""Do hidden widths that are no multiples of 8 cost extra? The same random networks with both, in turns,
beside the table.

The look-up table measures its entries at round widths, and a search moves widths channel by channel.

    python benchmarks/odd_widths.py --table data/latency/lut-64px-cpu.json
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from dcnas.latency.measure import device_named, measure_many
from dcnas.latency.table import load_table
from dcnas.nas.lut import predicted_ms
from dcnas.nas.networks import IMAGE_CHANNELS, build_network
from dcnas.nas.space import Architecture, Choice, Space, random_architecture


def with_widths(architecture: Architecture, remainder: int) -> Architecture:
    """Each hidden width moved to the nearest one that leaves this remainder by 8, within the operator's
    range.
    """
    choices = []
    for layer, choice in zip(architecture.space.layers, architecture.choices, strict=True):
        low, high = (
            choice.operator.least_hidden(layer.in_channels),
            choice.operator.most_hidden(layer.in_channels),
        )
        near = [n for n in range(low, high + 1) if n % 8 == remainder]
        choices.append(Choice(choice.operator, min(near, key=lambda n: abs(n - choice.hidden))))
    return Architecture(architecture.space, tuple(choices))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    table = load_table(args.table)
    c = table.conditions
    space, image = (
        Space(8, c.resolution, width=c.width),
        torch.rand(c.batch, IMAGE_CHANNELS, c.resolution, c.resolution),
    )
    found = {}
    for n in range(args.networks):
        drawn = random_architecture(space, np.random.default_rng(n))
        found |= {(n, remainder): with_widths(drawn, remainder) for remainder in (0, 4, 3)}
    models = {
        key: (build_network("C-NAS", architecture), (image,)) for key, architecture in found.items()
    }
    options = dict(
        rounds=args.rounds,
        warmup=1,
        passes=1,
        threads=c.threads,
        device=device_named(c.device),
        progress=True,
    )
    measured = {key: latency.median_ms for key, latency in measure_many(models, **options).items()}
    predicted = {key: predicted_ms(table, architecture) for key, architecture in found.items()}
    for remainder, text in ((4, "multiples of 4, not of 8"), (3, "odd")):
        ratios = [
            (measured[n, remainder] / measured[n, 0]) / (predicted[n, remainder] / predicted[n, 0])
            for n in range(args.networks)
        ]
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(
            f"{text}: {middle:.3f} ({low:.3f} to {high:.3f}) times what the table predicts "
            "relative to multiples of 8"
        )


if __name__ == "__main__":
    main()
