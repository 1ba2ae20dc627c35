"""From run records to tidy data frames, and to the published results (a row per run and sigma, with its provenance).

`results(group, scale)` is what notebooks call: at `published` it loads the best results that exist, at any other scale it trains
what is missing. A group is one of the lists of `experiments`, such as "table_3".
"""

import gzip
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save
from torch import Tensor

from ..data.noise import SIGMAS
from ..data.two_digits import IMAGE_SIZE, cached
from ..deploy.weights import DIGITS, compact, metrics_of, ship
from ..errors import InputError, require_choice, require_whole
from ..models import count_flops
from ..models.crops import BOX_SIZE
from ..paths import published_dir, runs_dir, shown, weights_dir, write_atomic
from ..reading import read_frame
from . import experiments as lists
from .experiments import FORMAT, Experiment, build
from .runs import SAMPLE_SIGMAS, SAMPLES, bank_noisy, folder_of, is_complete, obtain, read_history, read_metrics, read_tensors
from .scales import PUBLISHED_SCALES, SCALES

GROUPS: dict[str, Callable[[str], list[Experiment]]] = {
    name: getattr(lists, name)
    for name in (
        "tables_1_and_6", "figure_3", "figure_3_mbconv", "table_2", "table_3", "why_joint_classifies_better",
        "clipping_check", "precision_check", "normalisation_check", "table_6_variants", "section3",
    )
}  # fmt: skip


_IDENTITY = (
    "label", "task", "network", "b", "d", "m", "c", "block", "scale", "seed", "batch", "precision", "crop", "clip", "ce_weight",
)  # fmt: skip
_FIELDS = [field.name for field in fields(Experiment) if field.name in _IDENTITY]
_PROVENANCE = ("parameters", "device", "torch", "python", "dcnas", "commit", "date", "train_s", "evaluate_s")
COLUMNS = ("run", *_IDENTITY, "sigma", *_PROVENANCE)  # that a published file must have, beside its format and the metrics
HISTORY = ("run", "label", "scale", "seed", "step", "loss", "lr", "validation_loss")  # columns of the published training curves
METRICS, RECALLS = ("psnr", "psnr_pooled", "ssim", "accuracy"), ("balanced_accuracy", "least_recall")
SHIPPED = ("DC-Net Reduced Integrated", "DC-Net Reduced Sequential", "UNet b=8 d=4 m=1.5 c=2")  # with their weights


def flops_of(experiment: Experiment) -> int:
    """FLOPs for one image, as the paper counts them: of a classifier for one digit, of a joint model with one digit."""
    return _counted(replace(experiment, label="", seed=0, clip=False))


@lru_cache(maxsize=512)  # tracing a network takes as long as many an evaluation at scale smoke
def _counted(experiment: Experiment) -> int:
    model = build(experiment)
    size = BOX_SIZE if experiment.task == "classify" else IMAGE_SIZE
    boxes = (torch.tensor([[[0, 0, BOX_SIZE, BOX_SIZE]]]),) if experiment.task == "joint" else ()
    return count_flops(model, torch.zeros(1, 1, size, size), *boxes)


def read_runs(experiments: list[Experiment], flops: dict[str, int] | None = None) -> pd.DataFrame:
    """All complete runs among `experiments`, in their order, a row per sigma: identity, metrics and provenance.

    `flops`: of a label, where they are known already.
    """
    heads, found, flops = [], [], dict(flops or {})
    for experiment in filter(is_complete, experiments):
        if experiment.label not in flops:
            flops[experiment.label] = flops_of(experiment)
        metrics, record = read_metrics(folder_of(experiment), _PROVENANCE)
        head = {"format": FORMAT, "run": experiment.name} | {name: getattr(experiment, name) for name in _FIELDS}
        head |= {"images": experiment.steps * experiment.batch, "flops": flops[experiment.label]}
        heads.append((head, record))
        found.append(metrics)
    return tidy(heads, found, _PROVENANCE)


def tidy(heads: Sequence[tuple[dict, dict]], metrics: Sequence[list[dict[str, float]]], provenance: Sequence[str]) -> pd.DataFrame:
    """Runs as one frame, a row per sigma: what a run is, its metrics at that sigma, where and how it was made.

    Put together column by column: a frame of its own for each run would take milliseconds.
    """
    rows = [row for of_run in metrics for row in of_run]
    if not rows:
        return pd.DataFrame()
    owner = np.repeat(np.arange(len(heads)), [len(of_run) for of_run in metrics])

    def repeated(values: list) -> pd.Series:
        kind = object if None in values else None  # or whole numbers beside a None would become floats
        return pd.Series(values, dtype=kind).take(owner).reset_index(drop=True)

    columns = {name: repeated([head[name] for head, _ in heads]) for name in heads[0][0]}
    there = {name for row in rows for name in row}  # recalls are of Section 4's networks alone
    names = ("sigma", *METRICS, *(name for name in RECALLS if name in there))
    columns |= {name: [row.get(name, np.nan) for row in rows] for name in names}
    return pd.DataFrame(columns | {name: repeated([record[name] for _, record in heads]) for name in provenance})


def read_results_file(path: Path, columns: Sequence[str] = COLUMNS, whole: Sequence[str] = ("b", "d", "c", "crop")) -> pd.DataFrame:
    """A published results file; `InputError` if it is missing, damaged, of another format, or a cell is no value of its column.

    `whole` columns are whole numbers where they are not empty.
    """
    try:
        frame = read_frame(path)
    except FileNotFoundError:
        raise InputError(f"{shown(path)} does not exist; `dcnas collect` makes it from complete runs.") from None
    formats = sorted(set(frame["format"])) if "format" in frame else ["none"]
    if formats != [FORMAT]:
        raise InputError(f"{shown(path)} has results of format {', '.join(map(str, formats))}, but format {FORMAT} was expected.")
    if missing := [name for name in columns if name not in frame]:
        raise InputError(f"{shown(path)} lacks the columns {', '.join(missing)}, which a file of `dcnas collect` has.")
    if "sigma" in columns:
        levels = frame.groupby("run")["sigma"].agg(tuple)
        if cut := [run for run, found in levels.items() if found != SIGMAS]:
            raise InputError(f"{shown(path)} lacks noise levels of the run {cut[0]}: it was cut short.")
    try:  # not every network has them: without this they would be read, and written again, as 8.0
        return frame.astype(dict.fromkeys(whole, "Int64"))
    except (ValueError, TypeError, OverflowError) as error:  # the last where a cell is infinite
        raise InputError(f"{shown(path)} has no whole numbers in one of {', '.join(whole)} ({error}).") from None


def published() -> pd.DataFrame:
    """All published rows of Section 3."""
    return read_results_file(published_dir() / "section3.csv").assign(source="published")


def results(group: str, scale: str, *, device: str = "cpu", progress: bool = True) -> pd.DataFrame:
    """The rows of a group of experiments, a row per run and sigma; `source` says whether they are of `runs` here or `published`.

    `published`: those of the best scale that has (most of) the group. Other scales: trained here and now where missing.
    """
    require_choice("scale", scale, SCALES)
    require_choice("group", group, GROUPS)
    if scale != "published":
        experiments = GROUPS[group](scale)
        for experiment in experiments:
            obtain(experiment, device=device, progress=progress)
        return read_runs(experiments).assign(source="runs")
    rows = _published_of(group)
    if rows.empty:
        raise InputError(f"no results of {group} are published yet; use the scale smoke, laptop, gpu or paper.")
    return of_best_scale(rows)


def _published_of(group: str) -> pd.DataFrame:
    """The published rows of a group at every scale, seed by seed in the group's order."""
    wanted = dict.fromkeys((scale, e.label) for scale in PUBLISHED_SCALES for e in GROUPS[group](scale))
    order = {label: i for i, label in enumerate(dict.fromkeys(label for _, label in wanted))}
    rows = published()
    rows = rows[[key in wanted for key in zip(rows["scale"], rows["label"], strict=True)]]
    keys = rows["label"].map(order) + rows["seed"] * len(order)
    return rows.iloc[np.argsort(keys, kind="stable")].reset_index(drop=True)


def published_lengths(group: str) -> list[pd.DataFrame]:
    """The published rows of a group by length of training, the shortest first."""
    rows = _published_of(group)
    return [part.reset_index(drop=True) for _, part in rows.groupby("images")]


def of_best_scale(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the scale that has most trained networks, each seed counted; of the best scale that has as many as another."""
    counts = rows.drop_duplicates(["scale", "label", "seed"])["scale"].value_counts()
    best = max(counts.index, key=lambda name: (counts[name], SCALES.index(name)))
    return rows[rows["scale"] == best].reset_index(drop=True)


def gather(groups: Sequence[str], scale: str, device: str = "cpu") -> pd.DataFrame:
    """The rows of several groups, each run once, all of the scale of the first group: budgets are never mixed."""
    first = results(groups[0], scale, device=device)
    others = _published_of if scale == "published" else partial(results, scale=scale, device=device)  # perhaps of several scales
    rows = pd.concat([first, *map(others, groups[1:])], ignore_index=True).drop_duplicates(["run", "sigma"])
    return rows[rows["scale"] == first["scale"].iloc[0]].reset_index(drop=True)


def missing_labels(group: str, rows: pd.DataFrame) -> list[str]:
    """Networks of a group that `rows` lacks."""
    return [label for label in dict.fromkeys(e.label for e in GROUPS[group]("paper")) if label not in set(rows["label"])]


def per_image(rows: pd.DataFrame, metric: str, published_as: str = "section3_per_image") -> dict[tuple[str, int], np.ndarray]:
    """(label, seed) to the metric of each test image at each sigma: "psnr", "ssim" (11, N), or "accuracy" in % (11, N, digits)."""
    stored, factor = ("correct", 100) if metric == "accuracy" else (metric, 1)
    runs = rows[["run", "label", "seed", "source"]].drop_duplicates()
    stored_here = archive(published_as) if "published" in set(runs["source"]) else {}
    found = {}
    for run, label, seed, source in runs.itertuples(index=False):
        of_run = stored_here if source == "published" else read_tensors(runs_dir() / run / "per_image.safetensors")
        key = f"{run}/{stored}" if source == "published" else stored
        if key not in of_run:
            raise InputError(f"{metric} of each image of {label}, seed {seed}, is not among what is stored of the run {run}.")
        found[label, seed] = factor * of_run[key].float().numpy()
    return found


def samples(rows: pd.DataFrame) -> dict[str, Tensor]:
    """label to the outputs of its seed 0 for the first test images: uint8 (sigmas, images, 1, 96, 96)."""
    runs = rows.loc[rows["seed"] == 0, ["run", "label", "source"]].drop_duplicates()
    kept = archive("section3_samples") if "published" in set(runs["source"]) else {}
    found = {}
    for run, label, source in runs.itertuples(index=False):
        if source == "runs":
            found[label] = read_tensors(runs_dir() / run / "samples.safetensors")["denoised"]
        elif run in kept:
            found[label] = kept[run]
    return found


def pictures(rows: pd.DataFrame, index: int, sigma: float) -> dict[str, np.ndarray]:
    """Test image `index` as (96, 96), black 0 and white 1: "clean", "noisy", and by label the outputs that `samples` has."""
    require_choice("sample", require_whole("sample", index, 0), range(SAMPLES))
    require_choice("sigma of the sample", sigma, SAMPLE_SIGMAS)
    data = cached("test", SAMPLES)
    inputs = {"clean": data.images[index] / 255, "noisy": bank_noisy(data.images)(range(index, index + 1), sigma)[0]}
    outputs = {label: output[SAMPLE_SIGMAS.index(sigma), index] / 255 for label, output in samples(rows).items()}
    return {name: image[0].numpy() for name, image in (inputs | outputs).items()}


@lru_cache(maxsize=2)
def archive(name: str) -> dict[str, Tensor]:
    """A published archive, kept in memory."""
    return read_tensors(published_dir() / f"{name}.safetensors")


def collect(progress: bool = True) -> dict[str, int]:
    """Merge the complete runs of the scales that are published into `data/published` and `data/weights`.

    A run that is there already is replaced. Returns how many runs are new and how many are published in all.
    """
    everything = [e for scale in reversed(PUBLISHED_SCALES) if scale != "short" for e in lists.section3(scale)]
    complete = [e for e in everything if is_complete(e)]
    path = published_dir() / "section3.csv"
    old = read_results_file(path) if path.exists() else pd.DataFrame(columns=["run", "scale"])
    known = {e.name: e for e in everything}
    ended = old["scale"] == "short"  # nothing trains at it any more, so they stay as they are
    kept = old[ended | old["run"].isin(set(known) - {e.name for e in complete})]  # results of settings that no longer exist go
    fresh = read_runs(complete)
    frames = [frame for frame in (kept, fresh) if len(frame)]
    if not frames:
        return {"new": 0, "published": 0}
    merged = pd.concat(frames, ignore_index=True)
    order = {name: i for i, name in enumerate(known)}
    merged = merged.iloc[np.argsort(merged["run"].map(order), kind="stable")]
    runs = set(merged["run"])
    write_atomic(path, merged.to_csv(index=False, lineterminator="\n"))
    merge_histories("section3_history.csv", complete, order, runs)
    merge_tensors("section3_per_image", complete, runs, _per_image_tensors)
    merge_tensors("section3_samples", complete, runs, _sample_tensors)
    for experiment in complete:
        scales = set(merged.loc[merged["label"] == experiment.label, "scale"])
        best = next(scale for scale in PUBLISHED_SCALES if scale in scales)
        if experiment.seed == 0 and experiment.scale == best and experiment.label in SHIPPED:
            place = weights_dir() / f"{slug(experiment.label)}.safetensors"
            ship_run(experiment, place, _card(experiment), merged[merged["run"] == experiment.name])
    return {"new": len(runs - set(old["run"])), "published": len(runs)}


def _card(experiment: Experiment) -> dict:
    """What rebuilds a network of Section 3."""
    unet = dict(b=experiment.b, d=experiment.d, m=experiment.m, c=experiment.c)
    network = {"kind": experiment.network, "unet": unet} | ({"classifier": "MB2.5-M"} if experiment.network == "sequential" else {})
    return {
        "network": network, "classes": [] if experiment.task == "denoise" else list(DIGITS), "resolution": IMAGE_SIZE,
        "training": "generated images of two MNIST digits", "command": command_of(experiment, "section3"),
    }  # fmt: skip


def ship_run(experiment, path: Path, card: dict, rows: pd.DataFrame, *, half: bool = True) -> None:
    """Write a run's weights, at half precision unless told otherwise, and their card; `rows`: the run's results."""
    card = {"label": experiment.label} | card | {
        "scale": experiment.scale, "seed": experiment.seed, "steps": experiment.steps, "batch": experiment.batch,
        "parameters": int(rows["parameters"].iloc[0]), "run": experiment.name, "commit": rows["commit"].iloc[0],
        "metrics": metrics_of(rows.to_dict("records")),
    }  # fmt: skip
    weights = read_tensors(folder_of(experiment) / "weights.safetensors")
    ship(compact(weights) if half else weights, card, path)


def command_of(experiment, group: str) -> str:
    """What to type to repeat a run of the study."""
    return f'dcnas run "{experiment.label}" --scale {experiment.scale} --seed {experiment.seed} --group {group}'


def slug(label: str) -> str:
    """A label as a file name: "UNet b=8 d=4 m=1.5 c=2" to "unet-b8-d4-m1.5-c2"."""
    return label.lower().replace("=", "").replace(",", "").replace(" ", "-")


def _per_image_tensors(experiment: Experiment) -> dict[str, Tensor]:
    tensors = read_tensors(folder_of(experiment) / "per_image.safetensors")
    return {f"{experiment.name}/{metric}": tensor for metric, tensor in tensors.items()}


def _is_shown(experiment: Experiment) -> bool:
    """Whether images of this network are shown: seed 0 of Tables 2 and 3."""
    return experiment.seed == 0 and experiment.label in {
        e.label for group in (lists.table_2, lists.table_3) for e in group(experiment.scale)
    }


def _sample_tensors(experiment: Experiment) -> dict[str, Tensor]:
    if not _is_shown(experiment):
        return {}
    return {experiment.name: read_tensors(folder_of(experiment) / "samples.safetensors")["denoised"]}


def merge_tensors(name: str, complete: list, runs: set[str], take: Callable) -> None:
    """Write one archive of all published runs: what it held, without runs that are gone, and what `take` gives of new ones."""
    archive.cache_clear()
    path = published_dir() / f"{name}.safetensors"
    merged = {k: t for k, t in read_tensors(path).items() if k.split("/")[0] in runs} if path.exists() else {}
    for experiment in complete:
        merged |= take(experiment)
    write_atomic(path, save({key: merged[key] for key in sorted(merged)}))


_KEY = ("label", "scale", "seed", "random_seed", "network")  # what a published file has one run of


def _keys(rows: pd.DataFrame) -> list[tuple]:
    return [*rows[[name for name in _KEY if name in rows]].astype(str).itertuples(index=False, name=None)]


def merge_rows(name: str, fresh: pd.DataFrame, order: dict[str, int], runs: set[str] | None = None) -> set[str]:
    """Write a published file: what it held, with fresh rows in place of those of the same run or the same key. The runs it now has.

    With `runs`, which another file has kept, what it held of other runs goes.
    """
    path = published_dir() / name
    old = read_frame(path, ["run"]) if path.exists() else pd.DataFrame(columns=["run"])
    if len(fresh):
        replaced = set(_keys(fresh))
        old = old[~old["run"].isin(set(fresh["run"]))]
        if runs is None:
            old = old[[key not in replaced for key in _keys(old)]]
    if runs is not None:
        old = old[old["run"].isin(runs)]
    frames = [frame for frame in (old, fresh) if len(frame)]
    if not frames:
        return set()
    rows = pd.concat(frames, ignore_index=True)
    rows = rows.iloc[np.argsort(rows["run"].map(order), kind="stable")]
    if "probability" in rows:
        rows["probability"] = rows["probability"].round(4)
    text = rows.to_csv(index=False, lineterminator="\n")
    write_atomic(path, gzip.compress(text.encode(), mtime=0) if name.endswith(".gz") else text)
    return set(rows["run"])


def merge_histories(name: str, complete: list, order: dict[str, int], runs: set[str]) -> None:
    """Write the training curves of all published runs, to five digits; how fast the machine was is no result."""
    frames = [
        pd.DataFrame(read_history(folder_of(e))).assign(run=e.name, label=e.label, scale=e.scale, seed=e.seed) for e in complete
    ]
    fresh = pd.concat(frames)[[*HISTORY]].astype({"step": int}) if frames else pd.DataFrame()
    for column in HISTORY[5:] if frames else ():
        fresh[column] = [float(f"{value:.5g}") for value in fresh[column]]
    merge_rows(name, fresh, order, runs)
