"""Results as tidy data: what the notebooks' cells ask for, at any scale.

`results("table_3", "published")` reads what is published; any other scale carries out what is missing and reads it from the runs'
folders. Rows say how well each network does at each noise level, `scores` how well on each test image.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from ..build import build
from ..data.images import ImageSet
from ..data.two_digits import IMAGE_SIZE
from ..errors import InputError
from ..models import count_flops
from ..models.crops import BOX_SIZE
from ..nas.networks import IMAGE_CHANNELS
from ..nas.space import Architecture, from_record, load_architecture
from ..paths import published_dir, runs_dir
from . import latencies, presets
from .derivation import derive, obtain_table, table_path
from .presets import (
    PUBLISHED_SCALES,
    SCALES,
    SECTION_4,
    Derivation,
    Filter,
    Named,
    Run,
    Search,
    images_of,
)
from .runs import needs, obtain
from .stats import Scores
from .store import architecture_of, folder_of, is_complete, read_rows
from .tables import beside, beside_the_paper, contrasts, paper, quality, with_noisy_input  # noqa: F401

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
METRICS = ("psnr", "psnr_pooled", "ssim", "accuracy")


@dataclass(frozen=True)
class Results:
    """Networks of a group: a row per run and noise level in `rows`, a number per test image in `scores`."""

    rows: pd.DataFrame
    compared: dict[str, Scores] = field(
        default_factory=dict
    )  # scores cut to the images that all networks have

    @property
    def labels(self) -> list[str]:
        """The networks' names, in the group's order."""
        return list(dict.fromkeys(self.rows["label"]))

    @property
    def seeds(self) -> pd.Series:
        """How many seeds each network was trained with."""
        return self.rows.groupby("label", sort=False)["seed"].nunique()

    def scores(self, metric: str) -> Scores:
        """(label, seed) to "psnr" (dB), "ssim" or "accuracy" (%) of each test image: (sigmas, images[, digits])."""
        if metric in self.compared:
            return self.compared[metric]
        stored, factor = ("correct", 100) if metric == "accuracy" else (metric, 1)
        runs = self.rows[self.rows[metric].notna()].drop_duplicates("run")
        return {
            (run.label, run.seed): factor * stored_tensor(run, "per_image", stored).float().numpy()
            for run in runs.itertuples()
        }

    @property
    def samples(self) -> dict[str, np.ndarray]:
        """label to the outputs of seed 0 for the first test images: uint8 (sigmas, images, C, H, W)."""
        runs = self.rows[(self.rows["seed"] == 0) & self.rows["psnr"].notna()].drop_duplicates("run")
        outputs = {run.label: stored_tensor(run, "samples", "denoised") for run in runs.itertuples()}
        return {label: images.numpy() for label, images in outputs.items() if images is not None}

    @property
    def history(self) -> pd.DataFrame:
        """Loss curves: a row per run and validation, with the images seen till then; empty where none are published."""
        runs = self.rows[["run", "label", "scale", "seed", "batch", "source"]].drop_duplicates()
        frames = [pd.DataFrame(columns=["run", *HISTORY[4:]])]
        if "published" in set(runs["source"]):
            frames += [
                pd.read_csv(path) for path in sorted(published_dir().glob("section*_history.csv"))
            ]
        for run in runs.loc[runs["source"] == "runs", "run"]:
            frames.append(pd.read_csv(runs_dir() / run / "history.csv").assign(run=run))
        curves = pd.concat(frames[1:] or frames)[["run", *HISTORY[4:]]]
        curves = runs.drop(columns="source").merge(curves, on="run")
        return curves.assign(images=curves["step"] * curves["batch"])

    @property
    def architectures(self) -> dict[tuple[str, int], Architecture]:
        """(label, seed) to the architecture, before it was upscaled, of the networks that have one."""
        runs = self.rows.drop_duplicates("run").dropna(subset="derivation")
        return {
            (run.label, run.seed): architecture_in(run.derivation, run.source)
            for run in runs.itertuples()
        }


@dataclass(frozen=True)
class Searches:
    """Searches of a group: `rows` a row per search, `epochs` and `alphas` with the columns run, label, seed of each."""

    rows: pd.DataFrame
    epochs: pd.DataFrame
    alphas: pd.DataFrame
    architectures: dict[tuple[str, int], Architecture]


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
    """A tensor of a row's run: "psnr", "ssim", "correct" of its "per_image", "denoised" of its "samples", which few have."""
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
    """All complete runs, in their order, a row per noise level: what a run is, its metrics, where and how it was made."""
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
    """FLOPs for one image, as the paper counts them: of a classifier for one digit, of a joint model with one digit."""
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
    """How a derivation ended: prediction, measurement and error of the network, measured anew after its repairs."""
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
    """The rows of the scale that has most trained networks, each seed counted; of the best scale that has as many as another."""
    counts = rows.drop_duplicates(["scale", "label", "seed"])["scale"].value_counts()
    best = max(counts.index, key=lambda name: (counts[name], SCALES.index(name)))
    return rows[rows["scale"] == best].reset_index(drop=True)


def published_scale() -> str:
    """The scale of which most trainings of Section 4 are published; the best of those with equally many."""
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


def lengths(group: str) -> dict[str, Results]:
    """The published results of a group of Section 3, the shortest training first: "192,000 images, 3 seeds" to them."""
    parts = [Results(part.reset_index(drop=True)) for _, part in published_of(group).groupby("images")]
    return {f"{part.rows['images'].iloc[0]:,} images, {part.seeds.max()} seeds": part for part in parts}


def _published_photographs(groups: Sequence[str]) -> pd.DataFrame:
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


# ---- what notebooks call


def results(
    group: str | Sequence[str], scale: str, *, device: str = "cpu", progress: bool = True
) -> Results:
    """The results of a group such as "table_3", or of several: each run once, all of the first group's scale."""
    groups = [group] if isinstance(group, str) else list(group)
    if scale not in SCALES:
        raise InputError(f"scale is {scale!r}, but one of {', '.join(SCALES)} was expected.")
    if groups == ["section2"]:
        return _section_2(scale, device=device, progress=progress)
    if scale != "published":
        listed = {run.name: run for name in groups for run in presets.runs(name, scale)}.values()
        carry_out(listed, device=device, progress=progress)
        rows = read_runs(listed).assign(source="runs")
        if groups[0] in SECTION_4 or groups[0] == "section4":
            if scale == "smoke":
                latencies.measure_section4(scale, listed, rounds=1, passes=1)
            derived = [
                derivation_row(run.source)
                for run in listed
                if isinstance(run, Run) and needs(run) is not None
            ]
            rows = latencies.with_latency(rows, scale, pd.DataFrame(derived))
        return Results(rows)
    if groups[0] in SECTION_4:
        rows = _published_photographs(groups)
        return Results(latencies.with_latency(rows, published_scale(), derivations("published")))
    first = published_of(groups[0])
    if first.empty:
        raise InputError(
            f"no results of {groups[0]} are published yet; use the scale smoke, laptop, gpu or paper."
        )
    first = of_best_scale(first)  # budgets are never mixed
    rows = pd.concat([first, *map(published_of, groups[1:])], ignore_index=True).drop_duplicates(
        ["run", "sigma"]
    )
    return Results(rows[rows["scale"] == first["scale"].iloc[0]].reset_index(drop=True))


def carry_out(listed: Iterable[Named], *, device: str, progress: bool) -> None:
    """Complete runs; what they derive together, measured side by side."""
    listed = list(listed)
    derived = {
        run.source.name: run.source
        for run in listed
        if isinstance(run, Run) and isinstance(needs(run), Derivation)
    }
    for run in derived.values():
        if (search := needs(run)) is not None:
            obtain(search, device=device, progress=progress)
    derive(list(derived.values()), progress)
    for run in listed:
        obtain(run, device=device, progress=progress)


def _section_2(scale: str, *, device: str, progress: bool) -> Results:
    """BM3D beside networks, on those images that every denoiser was given; `latency_ms` of a single image."""
    networks = results("related_work", scale, device=device, progress=progress)
    if scale == "published":
        rows = read_published("section2").assign(source="published")
        rows = rows[rows["scale"] == published_scale()]
    else:
        carry_out(presets.filters(scale), device=device, progress=progress)
        rows = read_runs(presets.filters(scale)).assign(source="runs")
    of_filters, compared = Results(rows.assign(network=None)), {}
    for metric in ("psnr", "ssim"):
        scores = of_filters.scores(metric)
        count = min(values.shape[1] for values in scores.values())
        compared[metric] = {
            key: values[:, :count] for key, values in (scores | networks.scores(metric)).items()
        }
    rows = pd.concat([rows, networks.rows[networks.rows["psnr"].notna()]], ignore_index=True)
    known = latencies.section_2(scale_of(scale)).set_index("label")[
        ["median_ms", "q25_ms", "q75_ms", "passes"]
    ]
    rows = rows.drop(columns=["latency_ms", "q25_ms", "q75_ms", "passes"]).join(known, on="label")
    return Results(rows.rename(columns={"median_ms": "latency_ms"}), compared)


def searches(group: str, scale: str, *, device: str = "cpu", progress: bool = True) -> Searches:
    """The searches of a group such as "beta_searches", in its order, with the name "label, seed N" for each."""
    if scale == "published":
        listed = {(run.label, run.seed): None for run in presets.searches(group, published_scale())}
        rows = (
            read_published("section4_searches")
            .query("scale == @published_scale()")
            .set_index(["label", "seed"], drop=False)
        )
        rows = rows.loc[[key for key in listed if key in rows.index]].reset_index(drop=True)
        frames = [
            pd.read_csv(published_dir() / f"section4_{name}").groupby("run")
            for name in ("epochs.csv", "alphas.csv.gz")
        ]
        frames = [[of.get_group(run) for run in rows["run"]] for of in frames]
    else:
        listed = presets.searches(group, scale)
        carry_out(listed, device=device, progress=progress)
        rows = pd.DataFrame(map(search_row, listed))
        frames = [
            [pd.read_csv(folder_of(run) / f"{name}.csv") for run in listed]
            for name in ("epochs", "alphas")
        ]
    source = "published" if scale == "published" else "runs"
    heads = [
        dict(run=f"{row.label}, seed {row.seed}", label=row.label, seed=row.seed)
        for row in rows.itertuples()
    ]
    architectures = {
        (row.label, row.seed): architecture_in(row.run, source) for row in rows.itertuples()
    }
    named = [
        pd.concat([f.assign(**h) for f, h in zip(of, heads, strict=True)], ignore_index=True)
        for of in frames
    ]
    more = ["scale", "target_ms", "predicted_ms", "verdict", "reason"]
    return Searches(pd.DataFrame(heads).join(rows[more]), *named, architectures)


def derivations(scale: str, *, device: str = "cpu", progress: bool = True) -> pd.DataFrame:
    """A row per derived network: target, prediction and measurement in ms."""
    if scale == "published":
        return (
            read_published("section4_derivations")
            .query("scale == @published_scale()")
            .reset_index(drop=True)
        )
    listed = {
        run.name: run for run in presets.runs("section4", scale) if isinstance(run, Derivation)
    }.values()
    for run in listed:
        if (search := needs(run)) is not None:
            obtain(search, device=device, progress=progress)
    derive(list(listed), progress)
    return pd.DataFrame(map(derivation_row, listed))


def table_of_scale(scale: str):
    """The look-up table of a scale."""
    return obtain_table(scale_of(scale))


def validation_of(scale: str) -> pd.DataFrame:
    """The whole networks that the look-up table of a scale was held against."""
    obtain_table(scale_of(scale))
    return pd.read_csv(table_path(scale_of(scale)).with_suffix(".validation.csv"))


def photographs_of(scale: str) -> ImageSet:
    """The images that a scale searches and trains on."""
    return images_of(presets.filters(scale_of(scale))[0])
