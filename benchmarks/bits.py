"""Do the bits stay? Hashes of data sets, smoke trainings, searches and derived widths, a line each.
line each.

Equal lines before and after a change, on one machine, mean that the change moved no bit. Everything goes
to a temporary folder.

    python benchmarks/bits.py > before.txt
"""

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, replace

import numpy as np
import torch

from dcnas.data.images import evaluation_images, load_images, make_image_draw
from dcnas.data.mnist import load_mnist
from dcnas.data.two_digits import SPLITS, generate
from dcnas.latency.table import load_table
from dcnas.models import UNETS
from dcnas.nas.derive import Frontier, argmax_architecture, fit_widths
from dcnas.nas.lut import predicted_ms
from dcnas.nas.settings import latency_range_ms
from dcnas.nas.space import Space, random_architecture
from dcnas.paths import latency_dir
from dcnas.study.kinds import Run, Search
from dcnas.study.presets import runs
from dcnas.study.runs import obtain
from dcnas.study.store import folder_of
from dcnas.training import Settings

SECTION_3 = ("table_2", "table_3", "tables_1_and_6", "why_joint_classifies_better", "figure_3_mbconv")
SECTION_3 += ("normalisation_check", "clipping_check")
SETS = {"solar": (32, 64), "tiny-imagenet": (64,), "tiny-imagenet:50": (64,)}
FILES = (
    "weights.safetensors",
    "metrics.csv",
    "per_image.safetensors",
    "alphas.csv",
    "architecture.json",
)
TABLE = latency_dir() / "lut-64px-half-cpu.json"


def digest(*parts: object) -> str:
    total = hashlib.sha256()
    for part in parts:
        array = part.numpy() if isinstance(part, torch.Tensor) else part
        total.update(array.tobytes() if isinstance(array, np.ndarray) else str(array).encode())
    return total.hexdigest()[:16]


def data_sets() -> None:
    print("mnist", digest(*load_mnist()))
    for split in SPLITS:
        print("two digits", split, digest(*asdict(generate(split, 200)).values()))
    for name, sides in SETS.items():
        if name.startswith("tiny-imagenet") and "DCNAS_TINY_IMAGENET" not in os.environ:
            continue
        for side in sides:
            data = load_images(name, side, progress=False)
            batch = make_image_draw(data, ["weights", "alphas"], side, 16, seed=1)(7)
            test = evaluation_images(data, "test", side, 20)
            print(
                name,
                side,
                digest(data.images, data.labels, data.classes, *data.rows.values(), *batch, *test),
            )


def trainings() -> None:
    """Of Section 3."""
    for group in SECTION_3:
        for run in runs(group, "smoke")[:4]:
            report(run)


def searches() -> None:
    """On a published table, and their networks, trained on photographs."""
    table, photos = load_table(TABLE), {"data": "solar", "resolution": 64, "limit": 24}
    c = table.conditions
    low, high = latency_range_ms(Space(4, c.resolution, 4, c.width, c.strides), table)
    settings = dict(epochs=3, weight_epochs=1, steps_per_epoch=2, alpha_lr=0.05, temperature_decay=0.2)
    target_ms = round((low + high) / 2, 2)
    plain = Search("plain", "own", 0, photos, c.width, c.strides, 4, target_ms, str(TABLE), 8, settings)
    changes = {
        "beta": dict(settings=settings | {"learn_beta": True}, operators=8),
        "both": dict(settings=settings | {"loss": "both"}, noisy=True, target=target_ms + 40),
        "two": dict(settings=settings | {"alpha_gradient": "two", "rebuild_optimisers": True}),
        "random": dict(random_networks=2, random_steps=2),
    }
    for label, change in {"plain": {}, **changes}.items():
        report(replace(plain, label=label, **change))
    architecture = json.loads((folder_of(plain) / "architecture.json").read_text())
    train = Settings(2, 1, 4e-3, "one-cycle", weight_decay=1e-5, clip_norm=5.0)
    nets = {kind: {"architecture": architecture} for kind in ("C-NAS", "D-NAS", "DC-NAS", "DC-NAS_seq")}
    nets |= {"DC-Net_tail": {"architecture": architecture, "unet": UNETS["reduced"]}}
    nets |= {kind: {"unet": UNETS["reduced"]} for kind in ("UNet", "DC-Net")} | {
        "DnCNN": {},
        "ResNet-18": {},
    }
    for kind, net in nets.items():
        what = "photographs", {"kind": kind} | net, photos | {"noisy": True}, train, 4, 4
        report(Run(kind, "own", 0, *what))


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
        exact = Frontier(space, table, [np.log(a) for a in alphas]).best(target)
        print("derived", share, digest(fitted.to_json(), exact.to_json()))
    networks = ("C-NAS", "D-NAS", "DC-NAS", "DC-NAS_seq")
    print(
        "latencies",
        digest(
            *(predicted_ms(table, random_architecture(space, rng), network) for network in networks * 5)
        ),
    )


def report(run: Run | Search) -> None:
    obtain(run, progress=False)
    paths = [path for name in FILES if (path := folder_of(run) / name).exists()]
    print(run.title, *(f"{path.stem} {digest(path.read_bytes().hex())}" for path in paths), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DCNAS_RUNS"] = folder
        data_sets()
        derived()
        trainings()
        searches()
