"""Results as tidy data: what the notebooks' cells ask for, at any scale.

`results("table_3", "published")` reads what is published; any other scale carries out what is missing
and reads it from the runs' folders. Rows say how well each network does at each noise level, `scores`
how well on each test image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..data.images import ImageSet, evaluation_images
from ..data.two_digits import cached
from ..errors import InputError
from ..latency.table import Table
from ..nas.space import Architecture
from ..paths import published_dir, runs_dir
from . import latencies, presets
from .derivation import obtain_table, table_path
from .kinds import Run, images_of
from .records import (
    HISTORY,
    architecture_in,
    derivation_row,
    of_best_scale,
    published_of,
    published_photographs,
    published_scale,
    read_published,
    read_runs,
    scale_of,
    stored_tensor,
)
from .runs import SAMPLE_SIGMAS, SAMPLES, needs
from .scales import SCALES
from .search_results import carry_out, derivations
from .section_4 import SECTION_4
from .stats import Scores
from .tasks import bank_noisy


@dataclass(frozen=True)
class Results:
    """Networks of a group: a row per run and noise level in `rows`, a number per test image in
    `scores`.
    """

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

    @property
    def networks(self) -> pd.DataFrame:
        """A row per network: seeds, FLOPs (M), parameters (M), latency (ms); means where seeds differ in
        architecture.
        """
        networks = self.rows.drop_duplicates("run").groupby("label", sort=False)
        columns = {
            "seeds": networks["seed"].nunique(),
            "FLOPs (M)": networks["flops"].mean().div(1e6).round(1),
            "parameters (M)": networks["parameters"].mean().div(1e6).round(2),
            "latency (ms)": networks["latency_ms"].mean().round(2),
        }
        return pd.DataFrame(columns).rename_axis("network")

    @property
    def training(self) -> pd.DataFrame:
        """What networks of Section 4 were trained on, and for how long: a row for each kind of
        training.
        """
        seen = self.rows[
            ["scale", "data", "classes", "resolution", "set_images", "images"]
        ].drop_duplicates()
        names = {
            "resolution": "pixels",
            "set_images": "training images",
            "images": "images seen by a network",
        }
        epochs = (seen["images"] / seen["set_images"]).round(1)
        return seen.assign(epochs=epochs).rename(columns=names).set_index("scale")

    def scores(self, metric: str) -> Scores:
        """(label, seed) to "psnr" (dB), "ssim" or "accuracy" (%) of each test image: (sigmas, images[,
        digits]).
        """
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

    def pictures(self, index: int, sigma: float) -> dict[str, np.ndarray]:
        """A test image, (H, W[, 3]) of 0 to 1: "clean", "noisy", and by label the outputs of seed 0."""
        if index not in range(SAMPLES) or sigma not in SAMPLE_SIGMAS:
            levels = ", ".join(map(str, SAMPLE_SIGMAS))
            raise InputError(
                f"sample is {index} at sigma {sigma}, but one of 0 to {SAMPLES - 1} at {levels} "
                "was expected."
            )
        outputs = {
            label: images[SAMPLE_SIGMAS.index(sigma), index] / 255
            for label, images in self.samples.items()
        }
        if "task" in self.rows:
            views = cached("test", SAMPLES).images
        else:
            networks = self.rows.dropna(subset="network").iloc[0]
            views, _ = evaluation_images(
                photographs_of(networks["scale"]), "test", int(networks["resolution"]), SAMPLES
            )
        images = {
            "clean": views[index] / 255,
            "noisy": bank_noisy(views)(range(index, index + 1), sigma)[0],
        } | outputs
        images = {
            name: np.moveaxis(np.asarray(image), 0, -1).clip(0, 1) for name, image in images.items()
        }
        return {name: image[..., 0] if image.shape[-1] == 1 else image for name, image in images.items()}

    @property
    def history(self) -> pd.DataFrame:
        """Loss curves: a row per run and validation, with the images seen till then; empty where none
        are published.
        """
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


def lengths(group: str) -> dict[str, Results]:
    """The published results of a group of Section 3, the shortest training first: "192,000 images, 3
    seeds" to them.
    """
    parts = [Results(part.reset_index(drop=True)) for _, part in published_of(group).groupby("images")]
    return {f"{part.rows['images'].iloc[0]:,} images, {part.seeds.max()} seeds": part for part in parts}


def results(
    group: str | Sequence[str], scale: str, *, device: str = "cpu", progress: bool = True
) -> Results:
    """The results of a group such as "table_3", or of several: each run once, all of the first group's
    scale.
    """
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
        rows = published_photographs(groups)
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


def _section_2(scale: str, *, device: str, progress: bool) -> Results:
    """BM3D beside networks, on those images that every denoiser was given; `latency_ms` of a single
    image.
    """
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


def table_of_scale(scale: str) -> Table:
    """The look-up table of a scale."""
    return obtain_table(scale_of(scale))


def validation_of(scale: str) -> pd.DataFrame:
    """The whole networks that the look-up table of a scale was held against."""
    obtain_table(scale_of(scale))
    return pd.read_csv(table_path(scale_of(scale)).with_suffix(".validation.csv"))


def photographs_of(scale: str) -> ImageSet:
    """The images that a scale searches and trains on."""
    return images_of(presets.filters(scale_of(scale))[0])


def with_recalls(nets: Results) -> pd.DataFrame:
    """The rows with mean and least recall of the classes in %, from the images where results were made
    without them.
    """
    rows = nets.rows
    if "least_recall" in rows and rows["least_recall"].notna().any():
        return rows
    scores = nets.scores("accuracy")
    count = next(iter(scores.values())).shape[1]
    _, labels = evaluation_images(
        photographs_of(rows["scale"].iloc[0]), "test", int(rows["resolution"].iloc[0]), count
    )
    same = [(labels == name).numpy() for name in labels.unique()]
    recalls = {
        key: [[float(level[of].mean()) for of in same] for level in right[..., :1]]
        for key, right in scores.items()
    }
    keys, level = (
        zip(rows["label"], rows["seed"], strict=True),
        rows.groupby(["label", "seed"]).cumcount(),
    )
    each = [recalls[key][n] if key in recalls else [np.nan] for key, n in zip(keys, level, strict=True)]
    return rows.assign(balanced_accuracy=[*map(np.mean, each)], least_recall=[*map(np.min, each)])


def largest_class(scale: str) -> float:
    """The share of the largest class among the images of a scale, in %: who names it always is as often
    right.
    """
    labels = photographs_of(scale).labels
    return 100 * labels.bincount().max().item() / len(labels)
