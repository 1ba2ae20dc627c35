"""Do the bits stay? Hashes of data sets, smoke trainings of each kind, searches and derived widths, a line each.

Equal lines before and after a change, on one machine, mean that the change moved no bit. Everything goes to a temporary folder.

    python benchmarks/bits.py > before.txt
"""

import hashlib
import os
import tempfile
from dataclasses import asdict, replace

import numpy as np
import torch

from dcnas.data.images import evaluation_images, load_images, make_image_draw
from dcnas.data.mnist import load_mnist
from dcnas.data.two_digits import SPLITS, generate
from dcnas.latency.table import load_table
from dcnas.nas.derive import argmax_architecture, fit_widths, frontier
from dcnas.nas.lut import predicted_ms
from dcnas.nas.settings import latency_range_ms
from dcnas.nas.space import Space, random_architecture
from dcnas.paths import latency_dir
from dcnas.study import experiments, section4, section4_runs  # noqa: F401 (the last carries out runs of Section 4)
from dcnas.study.runs import folder_of, obtain

SETS = {"solar": (32, 64), "tiny-imagenet": (64,), "tiny-imagenet:50": (64,)}
FILES = ("weights.safetensors", "metrics.csv", "per_image.safetensors", "alphas.csv", "architecture.json")
TABLE = latency_dir() / "lut-64px-half-cpu.json"


def digest(*parts: object) -> str:
    total = hashlib.sha256()
    for part in parts:
        array = part.numpy() if isinstance(part, torch.Tensor) else part
        total.update(array.tobytes() if isinstance(array, np.ndarray) else str(array).encode())
    return total.hexdigest()[:16]


def data_sets() -> None:
    print("mnist", digest(*asdict(load_mnist()).values()))
    for split in SPLITS:
        print("two digits", split, digest(*asdict(generate(split, 200)).values()))
    for name, sides in SETS.items():
        if name.startswith("tiny-imagenet") and "DCNAS_TINY_IMAGENET" not in os.environ:
            continue
        for side in sides:
            data = load_images(name, side, progress=False)
            batch = make_image_draw(data, ["weights", "alphas"], side, 16, seed=1)(7)
            test = evaluation_images(data, "test", side, 20)
            print(name, side, digest(data.images, data.labels, data.classes, *data.rows.values(), *batch, *test))


def trainings() -> None:
    groups = (experiments.table_2, experiments.table_3, experiments.tables_1_and_6, experiments.why_joint_classifies_better,
              experiments.figure_3_mbconv, experiments.normalisation_check, experiments.clipping_check)  # fmt: skip
    for group in groups:
        for experiment in group("smoke")[:4]:
            report(experiment)


def searches() -> None:
    """Searches on a published table; their networks trained."""
    table = load_table(TABLE)
    c = table.conditions
    space = Space(4, c.resolution, 4, c.width, c.strides)
    low, high = latency_range_ms(space, table)
    plain = section4.Search(
        "bits", "smoke", 0, "solar", c.resolution, c.width, 24, 8, 4, round((low + high) / 2, 2), str(TABLE), 3, 1, 2, 0.05, 0.2,
        strides=c.strides,
    )  # fmt: skip
    changes = {
        "beta": dict(learn_beta=True, operators=8), "both": dict(loss="both", noisy=True, target_ms=plain.target_ms + 40),
        "two": dict(alpha_gradient="two", rebuild_optimisers=True), "random": dict(random_networks=2, random_steps=2),
    }  # fmt: skip
    for label, change in {"plain": {}, **changes}.items():
        report(replace(plain, label=f"bits {label}", **change))
    text = (folder_of(replace(plain, label="bits plain")) / "architecture.json").read_text()
    common = dict(resolution=c.resolution, steps=2, batch=4, epoch_steps=1, eval_images=4)
    for network in ("C-NAS", "D-NAS", "DC-NAS", "DC-NAS_seq", "DC-Net_tail"):
        report(section4.training("smoke", 0, "bits", network, architecture=text, b=8, **common))
    for network in ("UNet", "DC-Net", "DnCNN", "ResNet-18"):
        report(section4.training("smoke", 0, "bits", network, b=8, **common))


def derived() -> None:
    """From fixed alphas to networks, and the table's latencies of random ones."""
    table = load_table(TABLE)
    c = table.conditions
    space, rng = Space(8, c.resolution, 4, c.width, c.strides), np.random.default_rng(0)
    low, high = latency_range_ms(space, table)
    alphas = [rng.dirichlet(np.ones(8)) for _ in space.layers]
    hidden = [[o.start_hidden(layer.in_channels) for o in space.candidates] for layer in space.layers]
    best = argmax_architecture(space, alphas, hidden)
    for share in (0.3, 0.5, 0.7):
        target = low + share * (high - low)
        fitted = fit_widths(best, target, lambda a: predicted_ms(table, a))
        exact = frontier(space, table, [np.log(a) for a in alphas]).best(target)
        print("derived", share, digest(fitted.to_json(), exact.to_json()))
    networks = ("C-NAS", "D-NAS", "DC-NAS", "DC-NAS_seq")
    print("latencies", digest(*(predicted_ms(table, random_architecture(space, rng), network) for network in networks * 5)))


def report(experiment: object) -> None:
    obtain(experiment, progress=False)
    found = [path for name in FILES if (path := folder_of(experiment) / name).exists()]
    print(type(experiment).__name__, experiment.title, getattr(experiment, "network", ""),
          *(f"{path.stem} {digest(path.read_bytes().hex())}" for path in found), flush=True)  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DCNAS_RUNS"] = folder
        data_sets()
        derived()
        trainings()
        searches()
