"""Latencies of Section 4's kinds of networks on one device: synchronised, and as the authors' public
script reads the clock.

That script takes the mean of 1,000 passes after 100 at 32 x 3 x 224 x 224 on CUDA without synchronising.
Here every network is read both ways, at 224 and at 64 pixels, in batches of 32 and of 1; on a CPU both
readings are the same. Writes data/latency/readings-DEVICE.csv.

    python benchmarks/readings.py --device cuda
"""

import argparse
import re

import numpy as np
import pandas as pd
import torch

from dcnas.build import build
from dcnas.latency.measure import device_name, measure_many
from dcnas.models import UNETS
from dcnas.nas.networks import IMAGE_CHANNELS, NETWORKS, OnlyClassifies, build_network
from dcnas.nas.space import Space, random_architecture, strides_for
from dcnas.paths import latency_dir, shown, write_atomic

LARGE = dict(b=64, d=5, m=2, c=2)  # Table 4


def networks(resolution: int) -> dict[str, torch.nn.Module]:
    """The study's kinds of networks, searched ones with operators at chance, and others that a reader
    would ask about.
    """
    from torchvision import models

    space = Space(4, resolution, 100, strides=strides_for(resolution))
    architecture = random_architecture(space, np.random.default_rng(0))
    made = {name: build_network(name, architecture) for name in NETWORKS}
    for size, unet in UNETS.items():
        for name in ("UNet", "DC-Net", "DC-Net_tail"):
            net = {"kind": name, "unet": unet}
            made[f"{name} {size}"] = build(net, space.classes, architecture)
    made |= {"UNet large": build({"kind": "UNet", "unet": LARGE}), "DnCNN": build({"kind": "DnCNN"})}
    for name in ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"):
        made[name] = OnlyClassifies(getattr(models, name)(num_classes=space.classes))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[224, 64])
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 1])
    parser.add_argument("--warmup", type=int, default=20, help="untimed passes at every visit")
    parser.add_argument("--passes", type=int, default=50, help="timed ones")
    parser.add_argument("--rounds", type=int, default=4, help="visits to every network, in turns")
    asked = parser.parse_args()
    rows = []
    for resolution in asked.resolutions:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = networks(resolution)
        for batch in asked.batches:
            image = torch.rand(batch, IMAGE_CHANNELS, resolution, resolution)
            found = measure_many(
                {name: (network, image) for name, network in made.items()},
                rounds=asked.rounds,
                warmup=asked.warmup,
                passes=asked.passes,
                device=asked.device,
                unsynchronised=True,
                progress=True,
            )
            rows += [
                {"network": name, "resolution": resolution, **latency.as_row()}
                for name, latency in found.items()
            ]
    slug = re.sub(r"\W+", "-", device_name(asked.device).lower()).strip("-")
    frame = pd.DataFrame(rows)
    path = write_atomic(
        latency_dir() / f"readings-{slug}.csv", frame.to_csv(index=False, lineterminator="\n")
    )
    frame["share"] = frame["unsynchronised_ms"] / frame["mean_ms"]
    shown_columns = ["network", "resolution", "batch", "median_ms", "unsynchronised_ms", "share"]
    print(frame[shown_columns].round(3).to_string(index=False))
    print(f"wrote {shown(path)}")


if __name__ == "__main__":
    main()
