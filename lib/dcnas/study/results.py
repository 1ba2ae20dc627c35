"""Results as tidy data: what the notebooks' cells ask for, at any scale.

`results("table_3", "published")` reads what is published; any other scale carries out what is missing
and reads it from the runs' folders. Rows say how well each network does at each noise level, `scores`
how well on each test image.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from safetensors.torch import load_file
from torch import Tensor

from ..data.images import ImageSet, evaluation_images
from ..data.two_digits import cached
from ..errors import InputError
from ..latency.table import Table
from ..nas.space import Architecture, Space
from ..paths import paper_dir, published_dir, runs_dir
from . import latencies, presets
from .derivation import derive, obtain_table
from .kinds import Derivation, Named, images_of
from .presets import SECTION_4
from .records import INTEGERS, NAMES, derivation_row, read_runs, search_row
from .runs import SAMPLE_SIGMAS, SAMPLES, needs, obtain
from .scales import PUBLISHED_SCALES, SCALES
from .stats import Scores
from .store import architecture_named, folder_of, is_complete
from .tasks import bank_noisy

RECALLS = ["balanced_accuracy", "least_recall"]  # in a file of their own
CURVE = ["run", "step", "loss", "lr", "validation_loss"]
archive = lru_cache(maxsize=8)(load_file)  # keeps published tensors in memory


@dataclass(frozen=True)
class Results:
    """Networks of a group: a row per run and noise level."""

    rows: pd.DataFrame

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
        """A row per network; means where seeds differ in architecture."""
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
        """What networks of Section 4 were trained on: a row for each kind of training."""
        columns = ["scale", "data", "classes", "resolution", "set_images", "images"]
        seen = self.rows[columns].drop_duplicates()
        seen["epochs"] = (seen["images"] / seen["set_images"]).round(1)
        names = {"resolution": "pixels", "set_images": "training images"}
        return seen.rename(columns=names | {"images": "images seen by a network"}).set_index("scale")

    def scores(self, metric: str) -> Scores:
        """(label, seed) to "psnr" (dB), "ssim" or "accuracy" (%): (sigmas, images[, digits])."""
        stored, factor = ("correct", 100) if metric == "accuracy" else (metric, 1)
        runs = self.rows[self.rows[metric].notna()].drop_duplicates("run")
        return {
            (run.label, run.seed): factor * _tensor(run, "per_image", stored).float().numpy()
            for run in runs.itertuples()
        }

    @property
    def samples(self) -> dict[str, np.ndarray]:
        """label to the outputs of seed 0 for the first test images: uint8 (sigmas, images, C, H, W)."""
        runs = self.rows[(self.rows["seed"] == 0) & self.rows["psnr"].notna()].drop_duplicates("run")
        outputs = {run.label: _tensor(run, "samples", "denoised") for run in runs.itertuples()}
        return {label: images.numpy() for label, images in outputs.items() if images is not None}

    def pictures(self, index: int, sigma: float) -> dict[str, np.ndarray]:
        """A test image, (H, W[, 3]) of 0 to 1: "clean", "noisy", and by label the outputs of seed 0."""
        if index not in range(SAMPLES) or sigma not in SAMPLE_SIGMAS:
            kept = f"0 to {SAMPLES - 1} at {', '.join(map(str, SAMPLE_SIGMAS))}"
            raise InputError(f"sample is {index} at sigma {sigma}, but one of {kept} was expected.")
        if "task" in self.rows:
            views = cached("test", SAMPLES).images
        else:
            row = self.rows.dropna(subset="network").iloc[0]
            data = photographs_of(row["scale"])
            views, _ = evaluation_images(data, "test", int(row["resolution"]), SAMPLES)
        images = {"clean": views[index] / 255}
        images["noisy"] = bank_noisy(views)(range(index, index + 1), sigma)[0]
        level = SAMPLE_SIGMAS.index(sigma)
        images |= {label: outputs[level, index] / 255 for label, outputs in self.samples.items()}
        pixels = {name: np.moveaxis(np.asarray(x), 0, -1).clip(0, 1) for name, x in images.items()}
        return {name: x[..., 0] if x.shape[-1] == 1 else x for name, x in pixels.items()}

    @property
    def history(self) -> pd.DataFrame:
        """Loss curves: a row per run and validation, with the images seen till then."""
        runs = self.rows[["run", "label", "scale", "seed", "batch", "source"]].drop_duplicates()
        frames = [pd.DataFrame(columns=CURVE)]
        for source, of_source in runs.groupby("source")["run"]:
            if source == "runs":
                frames += [pd.read_csv(runs_dir() / r / "history.csv").assign(run=r) for r in of_source]
            elif (path := published_dir() / f"{source}_history.csv").exists():
                frames.append(pd.read_csv(path, dtype=NAMES))
        curves = pd.concat(frames[1:] or frames)[CURVE]
        curves = runs.drop(columns="source").merge(curves, on="run")
        return curves.assign(images=curves["step"] * curves["batch"])

    @property
    def architectures(self) -> dict[tuple[str, int], Architecture]:
        """(label, seed) to the architecture, before it was upscaled, of the networks that have one."""
        runs = self.rows.drop_duplicates("run").dropna(subset="derivation").itertuples()
        return {(run.label, run.seed): architecture_named(run.derivation) for run in runs}


def results(group: str | Sequence[str], scale: str, *, device: str = "cpu") -> Results:
    """The results of a group such as "table_3", or of several, at the first group's scale."""
    groups = [group] if isinstance(group, str) else list(group)
    if scale not in SCALES:
        raise InputError(f"scale is {scale!r}, but one of {', '.join(SCALES)} was expected.")
    if groups == ["section2"]:
        return _section_2(scale, device)
    of_photographs = groups[0] in SECTION_4
    if scale == "published":
        every = read_published("section4" if of_photographs else "section3")
        scale = best_scale(every if of_photographs else _of_groups(every, groups[:1]))
        rows = _of_groups(every[every["scale"] == scale], groups)  # budgets are never mixed
    else:
        listed = {run.name: run for name in groups for run in presets.runs(name, scale)}.values()
        carry_out(listed, device)
        rows = read_runs(listed)
        if of_photographs and scale == "smoke":
            latencies.measure_section4(scale, listed, rounds=1)
    return Results(latencies.with_latency(rows, scale) if of_photographs else rows)


def _of_groups(published: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """The published rows of groups, in the groups' order, the best scale first."""
    rows = published.set_index(["label", "seed", "scale"], drop=False)
    scales = [scale for scale in PUBLISHED_SCALES if scale in set(published["scale"])]
    runs = (run for scale in scales for group in groups for run in presets.runs(group, scale))
    keys = dict.fromkeys((run.label, run.seed, run.scale) for run in runs)
    return rows.loc[[key for key in keys if key in rows.index]].reset_index(drop=True)


def _section_2(scale: str, device: str) -> Results:
    """BM3D beside networks; `latency_ms` of a single image."""
    networks = results("related_work", scale, device=device).rows
    if scale == "published":
        rows = read_published("section2")
        rows = rows[rows["scale"] == networks["scale"].iloc[0]]
    else:
        carry_out(presets.filters(scale), device)
        rows = read_runs(presets.filters(scale))
    rows = [rows.assign(network=None), networks[networks["psnr"].notna()]]
    times = latencies.measured(2, scale_of(scale)).rename(columns={"median_ms": "latency_ms"})
    times = times.set_index("label")[["latency_ms", "q25_ms", "q75_ms", "passes"]]
    rows = pd.concat(rows, ignore_index=True).drop(columns=times.columns)
    return Results(rows.join(times, on="label"))


def lengths(group: str) -> dict[str, Results]:
    """The published results of a group of Section 3, by length of training, the shortest first."""
    rows = _of_groups(read_published("section3"), [group])
    parts = [Results(part.reset_index(drop=True)) for _, part in rows.groupby("images")]
    return {f"{part.rows['images'].iloc[0]:,} images, {part.seeds.max()} seeds": part for part in parts}


def carry_out(listed: Iterable[Named], device: str) -> None:
    """Complete runs; what they derive together, measured side by side."""
    listed = list(listed)
    derived = [run if isinstance(run, Derivation) else needs(run) for run in listed]
    derived = {run.name: run for run in derived if isinstance(run, Derivation)}
    for search in filter(None, map(needs, derived.values())):
        obtain(search, device=device)
    derive([*derived.values()])
    for run in listed:
        obtain(run, device=device)


# ---- searches and derivations


@dataclass(frozen=True)
class Searches:
    """Searches of a group: a row per search; `epochs` and `alphas` with run, label and seed of each."""

    rows: pd.DataFrame
    epochs: pd.DataFrame
    alphas: pd.DataFrame
    architectures: dict[tuple[str, int], Architecture]

    def only(self, label: str, seed: int = 0) -> "Searches":
        """One of them."""
        frames = self.rows, self.epochs, self.alphas
        parts = [frame[(frame["label"] == label) & (frame["seed"] == seed)] for frame in frames]
        return Searches(*parts, {(label, seed): self.architectures[label, seed]})

    def last_alphas(self, label: str, seed: int = 0) -> tuple[Space, list[np.ndarray]]:
        """A search's space, and of each layer its operators' log-probabilities at the end."""
        alphas = self.only(label, seed).alphas.query("parameter == 'alpha'")
        last = alphas[alphas["epoch"] == alphas["epoch"].max()].groupby("place", sort=False)
        logs = [np.log(np.clip(each.to_numpy(), 1e-6, 1)) for _, each in last["probability"]]
        return self.architectures[label, seed].space, logs


def searches(group: str, scale: str, *, device: str = "cpu") -> Searches:
    """The searches of a group such as "beta_searches", in its order."""
    if scale == "published":
        rows = read_published("section4_searches")
        rows = _of_groups(rows[rows["scale"] == scale_of(scale)], [group])
        files = "section4_epochs.csv", "section4_alphas.csv.gz"
        frames = [pd.read_csv(published_dir() / file, dtype=NAMES) for file in files]
    else:
        listed, files = presets.searches(group, scale), ("epochs.csv", "alphas.csv")
        carry_out(listed, device)
        rows = pd.DataFrame(map(search_row, listed))
        parts = [(run.name, folder_of(run)) for run in listed]
        frames = [[pd.read_csv(at / file).assign(run=name) for name, at in parts] for file in files]
        frames = [pd.concat(each) for each in frames]
    frames = [rows[["run", "label", "seed"]].merge(each, on="run") for each in frames]
    frames = [each.dropna(axis=1, how="all").infer_objects() for each in frames]
    architectures = {(s.label, s.seed): architecture_named(s.run) for s in rows.itertuples()}
    return Searches(rows, *frames, architectures)


def derivations(scale: str) -> pd.DataFrame:
    """A row per derived network that there is: target, prediction and measurement in ms."""
    if scale == "published":
        rows = read_published("section4_derivations")
        return rows[rows["scale"] == scale_of(scale)].reset_index(drop=True)
    listed = [run for run in presets.runs("section4", scale) if isinstance(run, Derivation)]
    return pd.DataFrame(map(derivation_row, filter(is_complete, listed)))


# ---- what is published


def paper(name: str, index: str = "model") -> pd.DataFrame:
    """One of the paper's tables in data/paper, such as "table3_dcnet"."""
    return pd.read_csv(paper_dir() / f"{name}.csv").set_index(index)


def read_published(name: str) -> pd.DataFrame:
    """A file of data/published; its name is the rows' `source`."""
    rows = pd.read_csv(published_dir() / f"{name}.csv", dtype=INTEGERS | NAMES).assign(source=name)
    recalls = published_dir() / f"{name}_recalls.csv"
    return (
        rows.merge(pd.read_csv(recalls, dtype=NAMES), "left", ["run", "sigma"])
        if recalls.exists()
        else rows
    )


def best_scale(rows: pd.DataFrame) -> str:
    """The scale with most trained networks, each seed counted; of two with as many the better one."""
    counts = rows.drop_duplicates(["scale", "label", "seed"])["scale"].value_counts()
    return SCALES[max((count, SCALES.index(scale)) for scale, count in counts.items())[1]]


def scale_of(scale: str) -> str:
    """A scale of Section 4; at `published` that of which most trainings are published."""
    return best_scale(read_published("section4")) if scale == "published" else scale


def _tensor(run, file: str, name: str) -> Tensor | None:
    """A tensor of a row's run: its "per_image", or its "samples", which few have."""
    if run.source != "runs":
        published = archive(published_dir() / f"{run.source}_{file}.safetensors")
        return published.get(run.run if file == "samples" else f"{run.run}/{name}")
    path = runs_dir() / run.run / f"{file}.safetensors"
    return load_file(path)[name] if path.exists() else None


# ---- tables and images of a scale


def table_of_scale(scale: str) -> Table:
    """The look-up table of a scale."""
    return obtain_table(scale_of(scale))


def photographs_of(scale: str) -> ImageSet:
    """The images that a scale searches and trains on."""
    return images_of(presets.filters(scale_of(scale))[0])


def largest_class(scale: str) -> float:
    """The share of the largest class of a scale's images in %: who names it always is as often right."""
    labels = photographs_of(scale).labels
    return 100 * labels.bincount().max().item() / len(labels)
