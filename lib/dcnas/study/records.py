"""Records of runs as tables: rows of complete runs, and what is published of them.

A row is a run at one noise level: what the run is, its metrics, where and how it was made.
"""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from ..build import build
from ..data.two_digits import IMAGE_SIZE
from ..errors import InputError
from ..models import count_flops
from ..models.crops import BOX_SIZE
from ..nas.networks import IMAGE_CHANNELS
from ..nas.space import Architecture, from_record, load_architecture
from ..paths import published_dir, runs_dir
from . import presets
from .kinds import Derivation, Filter, Named, Run, Search, images_of
from .scales import PUBLISHED_SCALES, SCALES
from .store import architecture_of, folder_of, is_complete, read_rows

FORMAT = 1  # of published files
PROVENANCE = ("device", "torch", "python", "dcnas", "commit", "date")
HISTORY = (
    "run",
    "label",
    "scale",
    "seed",
    "step",
    "loss",
    "lr",
    "validation_loss",
)  # of published training curves


def architecture_in(run: str, source: str) -> Architecture:
    """The architecture that a search or derivation ended in, by its folder's or its published name."""
    path = runs_dir() / run / "architecture.json"
    return (
        load_architecture(path)
        if source == "runs" and path.exists()
        else from_record(published_architectures()[run])
    )


@lru_cache(maxsize=1)
def published_architectures() -> dict[str, dict]:
    """Name to architecture, of all published searches and derivations."""
    return json.loads((published_dir() / "section4_architectures.json").read_text())


@lru_cache(maxsize=8)
def archive(name: str) -> dict[str, Tensor]:
    """A published archive, kept in memory."""
    return load_file(published_dir() / f"{name}.safetensors")


def stored_tensor(run, what: str, name: str) -> Tensor | None:
    """A tensor of a row's run: "psnr", "ssim", "correct" of its "per_image", "denoised" of its
    "samples", which few have.
    """
    if run.source == "runs":
        path = runs_dir() / run.run / f"{what}.safetensors"
        return load_file(path)[name] if path.exists() else None
    section = (
        "section3"
        if isinstance(getattr(run, "task", None), str)
        else "section4"
        if isinstance(run.network, str)
        else "section2"
    )
    return archive(f"{section}_{what}").get(run.run if what == "samples" else f"{run.run}/{name}")


# ---- reading runs


def head_of(run: Named) -> dict:
    """What a published row says a run is."""
    head = {"format": FORMAT, "run": run.name, "label": run.label}
    if isinstance(run, Filter):
        return head | {
            "scale": run.scale,
            **run.photos,
            "eval_images": run.eval_images,
            "grey": run.grey,
            "seed": run.seed,
        }
    if run.task != "photographs":
        unet = (
            dict.fromkeys(("b", "d", "m", "c"))
            | {"block": "conv"}
            | {k: v for k, v in run.unet.items() if k != "norm_groups"}
        )
        kind = "unet, two norm groups" if "norm_groups" in run.unet else run.net["kind"]
        head |= {
            "task": run.task,
            "network": f"denoised {kind}" if "behind" in run.net else kind,
            "scale": run.scale,
            "seed": run.seed,
        }
        head |= {
            "batch": run.batch,
            "precision": run.train.precision,
            **unet,
            "ce_weight": run.ce_weight,
        }
        return head | {
            "crop": run.data["crop"],
            "clip": run.data["clip"],
            "images": run.train.steps * run.batch,
            "flops": flops_of(run),
        }
    data = images_of(run)
    head |= {"network": run.net["kind"], "scale": run.scale, "seed": run.seed, "data": run.data["data"]}
    head |= {
        "resolution": run.data["resolution"],
        "batch": run.batch,
        "upscaled": run.net.get("upscaled", 1.0),
    }
    head |= {
        "decoder": run.net.get("decoder", "conv"),
        "b": run.unet.get("b"),
        "large": run.unet.get("d", 4) == 5,
    }
    head |= {
        "noisy": run.data["noisy"],
        "derivation": run.source and run.source.name,
        "classes": len(data.classes),
    }
    head |= {"set_images": sum(len(data.rows[part]) for part in ("weights", "alphas"))}
    return head | {"images": run.train.steps * run.batch, "flops": flops_of(run)}


@lru_cache(maxsize=512)  # tracing a network takes as long as many an evaluation at scale smoke
def _counted(net: str, task: str, size: int, classes: int, architecture: Architecture | None) -> int:
    model = build(json.loads(net), classes, architecture)
    size = BOX_SIZE if task == "classify" else size
    boxes = (torch.tensor([[[0, 0, BOX_SIZE, BOX_SIZE]]]),) if task == "joint" else ()
    return count_flops(
        model, torch.zeros(1, IMAGE_CHANNELS if task == "photographs" else 1, size, size), *boxes
    )


def read_runs(runs: Iterable[Named]) -> pd.DataFrame:
    """All complete runs, in their order, a row per noise level: what a run is, its metrics, where and
    how it was made.
    """
    frames = []
    for run in filter(is_complete, runs):
        record = json.loads((folder_of(run) / "provenance.json").read_text())
        names = (
            PROVENANCE
            if isinstance(run, Filter)
            else ("parameters", *PROVENANCE, "train_s", "evaluate_s")
        )
        head, more = head_of(run), {name: record.get(name) for name in names}
        frames += [
            head | row | more
            for row in (
                {k: float(v) for k, v in r.items()} for r in read_rows(folder_of(run) / "metrics.csv")
            )
        ]
    return typed(pd.DataFrame(frames))


def flops_of(run: Run) -> int:
    """FLOPs for one image, as the paper counts them: of a classifier for one digit, of a joint model
    with one digit.
    """
    photographs = run.task == "photographs"
    size, classes = (
        (run.data["resolution"], len(images_of(run).classes)) if photographs else (IMAGE_SIZE, 10)
    )
    architecture = None if run.source is None else architecture_of(run.source)
    return _counted(json.dumps(run.net), run.task, size, classes, architecture)


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Whole numbers as such, also in columns that not every run has."""
    return frame.astype({name: "Int64" for name in ("b", "d", "c", "crop") if name in frame})


def search_row(run: Search) -> dict:
    """What a published row says a search is, how it ended, and where it was made."""
    settings = dict(learn_beta=False, elasticity=True, loss="ce", alpha_gradient="all") | run.settings
    record = json.loads((folder_of(run) / "provenance.json").read_text())
    end = pd.read_csv(folder_of(run) / "metrics.csv").iloc[0].to_dict()
    head = {
        "format": FORMAT,
        "run": run.name,
        "label": run.label,
        "scale": run.scale,
        "seed": run.seed,
        "data": run.photos["data"],
    }
    head |= {
        "resolution": run.photos["resolution"],
        "batch": run.batch,
        "operators": run.operators,
        "target_ms": end["target_ms"],
    }
    head |= {
        name: settings[name]
        for name in (
            "epochs",
            "weight_epochs",
            "steps_per_epoch",
            "alpha_lr",
            "learn_beta",
            "elasticity",
        )
    }
    head |= {
        "noisy": run.noisy,
        "loss": settings["loss"],
        "alpha_gradient": settings["alpha_gradient"],
    } | end
    return head | {name: record[name] for name in ("device", "torch", "commit", "date")}


def derivation_row(run: Derivation) -> dict:
    """How a derivation ended: prediction, measurement and error of the network, measured anew after its
    repairs.
    """
    end = pd.read_csv(folder_of(run) / "metrics.csv").iloc[0].to_dict()
    head = {
        "format": FORMAT,
        "run": run.name,
        "label": run.label,
        "network": run.network,
        "scale": run.scale,
    }
    return end | head | {"seed": run.seed, "random_seed": run.random_seed}


# ---- what is published


def read_published(name: str) -> pd.DataFrame:
    """A file of data/published as it is."""
    path = published_dir() / f"{name}.csv"
    if not path.exists():
        raise InputError(
            f"no results are published in {path.name} yet; use the scale smoke, laptop, gpu or paper."
        )
    return typed(pd.read_csv(path))


def of_best_scale(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the scale that has most trained networks, each seed counted; of the best scale that
    has as many as another.
    """
    counts = rows.drop_duplicates(["scale", "label", "seed"])["scale"].value_counts()
    best = max(counts.index, key=lambda name: (counts[name], SCALES.index(name)))
    return rows[rows["scale"] == best].reset_index(drop=True)


def published_scale() -> str:
    """The scale of which most trainings of Section 4 are published; the best of those with equally
    many.
    """
    return of_best_scale(read_published("section4"))["scale"].iloc[0]


def scale_of(scale: str) -> str:
    """A scale of Section 4; that of the published results at `published`."""
    return published_scale() if scale == "published" else scale


def published_of(group: str) -> pd.DataFrame:
    """The published rows of a group of Section 3 at every scale, seed by seed in the group's order."""
    wanted = dict.fromkeys(
        (scale, run.label) for scale in PUBLISHED_SCALES for run in presets.runs(group, scale)
    )
    order = {label: i for i, label in enumerate(dict.fromkeys(label for _, label in wanted))}
    rows = read_published("section3").assign(source="published")
    rows = rows[[key in wanted for key in zip(rows["scale"], rows["label"], strict=True)]]
    keys = rows["label"].map(order) + rows["seed"] * len(order)
    return rows.iloc[np.argsort(keys, kind="stable")].reset_index(drop=True)


def published_photographs(groups: Sequence[str]) -> pd.DataFrame:
    scale = published_scale()
    order = {
        (run.label, run.seed): i
        for i, run in enumerate(run for group in groups for run in presets.runs(group, scale))
    }
    rows = read_published("section4").assign(source="published")
    rows = rows[rows["scale"] == scale]
    place = pd.Series(
        [order.get(key) for key in zip(rows["label"], rows["seed"], strict=True)],
        index=rows.index,
        dtype=float,
    )
    return (
        rows[place.notna()].iloc[np.argsort(place[place.notna()], kind="stable")].reset_index(drop=True)
    )
