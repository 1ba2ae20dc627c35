"""Section 4's records as tidy data, and their publication: searches, derivations, trainings and latencies.

`results(group, scale)` and `searches(group, scale)` are what notebooks call. At `published` they load the best that exists, at
any other scale they carry out what is missing.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from ..data.images import ImageSet, evaluation_images, load_images
from ..errors import InputError, require_choice
from ..latency.measure import Latency, device_named, median_error
from ..latency.table import Table, load_table
from ..models import count_flops
from ..nas.networks import IMAGE_CHANNELS
from ..nas.space import Architecture, from_record, load_architecture
from ..paths import latency_dir, published_dir, runs_dir, weights_dir, write_atomic
from ..reading import read_frame, read_json, read_record
from . import results3
from . import section4 as lists
from .experiments import FORMAT
from .results3 import PUBLISHED_SCALES, archive, merge_histories, merge_rows, merge_tensors, of_best_scale, read_results_file
from .runs import AGAIN, SAMPLE_SIGMAS, SAMPLES, bank_noisy, folder_of, is_complete, needs, obtain, read_metrics, read_tensors
from .scales import SCALES
from .section4 import Derivation, Search, Training, images_of
from .section4_runs import architecture_of, build_of, derive, latencies_by_table, published_architectures, unet_of

GROUPS: dict[str, Callable[[str], list[Training]]] = {
    name: getattr(lists, name)
    for name in ("table_8", "figure_6", "figure_7", "gradient_comparison", "table_4", "table_5", "related_work", "trainings")
}
SEARCHES: dict[str, Callable[[str], list[Search]]] = {
    name: getattr(lists, name) for name in ("beta_searches", "operator_searches", "gradient_searches", "searches")
}
SHIPPED = ("DC-NAS S",)  # with their weights, which are nearly all that 5 MB hold
SHOWN = (  # networks whose images are kept
    "D-NAS S", "UNet Reduced", "DC-NAS S", "DC-Net Reduced", "DC-Net_tail Reduced", "DnCNN", "DnCNN, residual",
)  # fmt: skip
_IDENTITY = (
    "label", "network", "scale", "seed", "data", "resolution", "batch", "upscaled", "decoder", "b", "large", "noisy",
)  # fmt: skip
_PROVENANCE = ("parameters", "device", "torch", "python", "dcnas", "commit", "date", "train_s")
_SEARCHED = ("target_ms", "predicted_ms", "verdict", "reason")  # what the last file of a search must have, and of a derivation
_DERIVED = ("target_ms", "predicted_ms", "measured_ms", "noise_ms", "error_pct", "first_error_pct", "repairs")
_SETTINGS = (
    "label", "scale", "seed", "data", "resolution", "batch", "operators", "target_ms", "epochs", "weight_epochs", "steps_per_epoch",
    "alpha_lr", "learn_beta", "elasticity", "noisy", "loss", "alpha_gradient",
)  # fmt: skip


# ---- searches


@dataclass(frozen=True)
class Searched:
    """A complete search. `epochs` has a row per epoch, `alphas` a row per epoch, place and choice."""

    label: str
    scale: str
    seed: int
    target_ms: float
    predicted_ms: float  # of `architecture` by the table
    verdict: str
    reason: str
    architecture: Architecture
    epochs: pd.DataFrame
    alphas: pd.DataFrame


def searches(group: str, scale: str, *, device: str = "cpu", progress: bool = True) -> list[Searched]:
    """The searches of a list of `section4`, such as "beta_searches", in its order."""
    make = SEARCHES[require_choice("group", group, SEARCHES)]
    if require_choice("scale", scale, SCALES) == "published":
        wanted = make(published_scale())
        rows, epochs, alphas, found = _published_searches()
        known = {(row.label, row.seed): row for row in rows.itertuples()}
        return [
            _searched(known[e.label, e.seed], epochs, alphas, found) for e in wanted if (e.label, e.seed) in known
        ]  # fmt: skip
    experiments = make(scale)
    for experiment in experiments:
        obtain(experiment, device=device, progress=progress)
    return [read_search(experiment) for experiment in experiments]


def largest_class(scale: str) -> float:
    """The share of the largest class among the images of a scale, in %: who names it always is as often right."""
    labels = images_of_scale(scale).labels
    return 100 * labels.bincount().max().item() / len(labels)


def read_search(experiment: Search) -> Searched:
    """A complete search from its folder."""
    folder = folder_of(experiment)
    row = _search_row(experiment)
    frames = [read_frame(folder / f"{name}.csv", advice=AGAIN).assign(run=experiment.name) for name in ("epochs", "alphas")]
    record = {experiment.name: read_json(folder / "architecture.json", AGAIN)}
    return _searched(pd.Series(row), *frames, record)


def _searched(row, epochs: pd.DataFrame, alphas: pd.DataFrame, architectures: dict) -> Searched:
    of_run = [frame[frame["run"] == row.run].drop(columns="run").reset_index(drop=True) for frame in (epochs, alphas)]
    of_run[0] = of_run[0].dropna(axis=1, how="all").infer_objects()  # without what other kinds of search have
    architecture = from_record(architectures[row.run])
    return Searched(row.label, row.scale, row.seed, row.target_ms, row.predicted_ms, row.verdict, row.reason, architecture, *of_run)


def _search_row(experiment: Search) -> dict:
    folder = folder_of(experiment)
    names = ("device", "torch", "commit", "date")
    record = read_record(folder / "provenance.json", names, AGAIN)
    found = read_frame(folder / "metrics.csv", _SEARCHED, AGAIN).iloc[0].to_dict()
    settings = {name: value for name, value in asdict(experiment).items() if name in _SETTINGS}
    head = {"format": FORMAT, "run": experiment.name} | settings | found
    return head | {name: record[name] for name in names}


# ---- derivations


def derivation_row(experiment: Derivation) -> pd.DataFrame:
    """How a derivation ended: prediction, measurement and error of the network that was kept, measured anew after its repairs."""
    head = dict(
        format=FORMAT, run=experiment.name, label=experiment.label, network=experiment.network, scale=experiment.search.scale
    )
    head |= dict(seed=experiment.seed, random_seed=experiment.random_seed, target_ms=experiment.target_ms)
    return read_frame(folder_of(experiment) / "metrics.csv", _DERIVED, AGAIN).assign(**head)


def derived(scale: str, *, device: str = "cpu", progress: bool = True) -> pd.DataFrame:
    """A row per derived network, as `derivation_row` gives it."""
    if scale == "published":
        rows = _read_published("section4_derivations")
        return rows[rows["scale"] == lists.searched_at(published_scale())].reset_index(drop=True)
    experiments = lists.derivations(scale)
    derive(experiments, device=device, progress=progress)
    return pd.concat(map(derivation_row, experiments), ignore_index=True)


# ---- trainings


def results(group: str, scale: str, *, device: str = "cpu", progress: bool = True) -> pd.DataFrame:
    """The rows of a group of trainings, a row per run and sigma, with the latency of each network on the table's device."""
    make = GROUPS[require_choice("group", group, GROUPS)]
    if require_choice("scale", scale, SCALES) == "published":
        wanted = make(published_scale())
        rows = published()
        order = {(e.label, e.seed): i for i, e in enumerate(wanted)}
        place = pd.Series([order.get(key) for key in zip(rows["label"], rows["seed"], strict=True)], index=rows.index, dtype=float)
        rows = rows[place.notna()].iloc[np.argsort(place[place.notna()], kind="stable")].reset_index(drop=True)
    else:
        wanted = make(scale)
        derive([e.derivation for e in wanted if needs(e) is not None], device=device, progress=progress)
        for experiment in wanted:
            obtain(experiment, device=device, progress=progress)
        rows = read_runs(wanted).assign(source="runs")
        if scale == "smoke":
            measure_section4(scale, wanted, rounds=1, passes=1)
    if rows.empty:
        raise InputError(f"no results of {group} are published yet; use the scale smoke, laptop, gpu or paper.")
    if scale == "published":
        return _with_latency(rows, derived(scale))
    return _with_latency(rows, pd.DataFrame([derivation_row(e.derivation).iloc[0] for e in wanted if needs(e) is not None]))


def _with_latency(rows: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """With the latency of each row's very network, for another one of the same label has another, and its standard error.

    The error is that of the median of the passes, or, where it is larger, what two measurements of one network differ by: the
    derivations `found` measured theirs before.
    """
    scale = rows["scale"].iloc[0]
    known = latencies(scale)
    for name in ("median_ms", "q25_ms", "q75_ms"):  # in the milliseconds of the table, which targets are in
        known[name] /= known["slowdown"]
    known = known.rename(columns={"median_ms": "latency_ms", "batch": "latency_batch"}).drop_duplicates("network")
    known = known.set_index("network")[["latency_ms", "q25_ms", "q75_ms", "passes", "latency_batch"]]
    error_ms = median_error(known["q75_ms"] - known["q25_ms"], known["passes"])
    known["error_ms"] = np.maximum(error_ms, repeat_error(known["latency_ms"], found) * known["latency_ms"])
    keys = [_network_key(row) for row in rows.astype(object).where(rows.notna(), None).itertuples()]
    if missing := sorted({label for label, key in zip(rows["label"], keys, strict=True) if key not in known.index}):
        raise InputError(
            f"the latency of {', '.join(missing)} was not measured on this scale's device; with nothing else running, run "
            f"`dcnas latency --section 4 --scale {scale}`."
        )
    return rows.join(known.loc[keys].set_axis(rows.index))


def repeat_error(latency_ms: pd.Series, found: pd.DataFrame) -> float:
    """Relative standard error of one measurement, from networks that were measured twice; 0 where there are fewer than three.

    `latency_ms` has the keys of networks as its index; the derivations `found` have the other measurement. What all networks of a
    session have in common is left out: it cancels where two of them are compared.
    """
    keys = [f"{row.network} {row.run} conv 1.0" for row in found.itertuples()]  # of the very network that was derived
    pairs = [(latency_ms[key], ms) for key, ms in zip(keys, found.get("measured_ms", ())) if key in latency_ms.index]
    return float(np.std([np.log(a / b) for a, b in pairs], ddof=1) / 2**0.5) if len(pairs) > 2 else 0.0


def read_runs(experiments: Sequence[Training]) -> pd.DataFrame:
    """All complete trainings among `experiments`, in their order."""
    heads, found = [], []
    for experiment in filter(is_complete, experiments):
        metrics, record = read_metrics(folder_of(experiment), _PROVENANCE)
        head = {"format": FORMAT, "run": experiment.name}
        head |= {name: value for name, value in asdict(experiment).items() if name in _IDENTITY}
        head |= {"derivation": experiment.derivation and experiment.derivation.name}
        data = images_of(experiment)
        head |= {"classes": len(data.classes), "set_images": sum(len(data.rows[part]) for part in ("weights", "alphas"))}
        head |= {"images": experiment.steps * experiment.batch, "flops": flops_of(experiment)}
        heads.append((head, record))
        found.append(metrics)
    return results3.tidy(heads, found, _PROVENANCE)


def flops_of(experiment: Training) -> int:
    """FLOPs for one image, as the paper counts them."""
    has_one = experiment.derivation is not None or experiment.architecture is not None
    return _counted(replace(experiment, label="", seed=0), architecture_of(experiment) if has_one else None)


@lru_cache(maxsize=512)
def _counted(experiment: Training, architecture: Architecture | None) -> int:
    size = experiment.resolution
    return count_flops(build_of(experiment, architecture), torch.zeros(1, IMAGE_CHANNELS, size, size))


def per_image(rows: pd.DataFrame, metric: str) -> dict[tuple[str, int], np.ndarray]:
    """(label, seed) to a metric of each test image, as `results.per_image` gives it, of the networks that have it."""
    return results3.per_image(rows[rows[metric].notna()], metric, "section4_per_image")


def with_recalls(rows: pd.DataFrame) -> pd.DataFrame:
    """With each row's mean and least recall of the classes, in %, from the images where the results were made without them."""
    if {"balanced_accuracy", "least_recall"} <= set(rows) and rows["least_recall"].notna().any():
        return rows
    found = per_image(rows, "accuracy")
    count = next(iter(found.values())).shape[1]
    _, labels = evaluation_images(images_of_scale(rows["scale"].iloc[0]), "test", int(rows["resolution"].iloc[0]), count)
    same = [(labels == name).numpy() for name in labels.unique()]
    recalls = {key: [[float(level[of].mean()) for of in same] for level in right[..., :1]] for key, right in found.items()}
    keys, level = zip(rows["label"], rows["seed"], strict=True), rows.groupby(["label", "seed"]).cumcount()
    each = [recalls[key][n] if key in recalls else [np.nan] for key, n in zip(keys, level, strict=True)]
    return rows.assign(balanced_accuracy=[*map(np.mean, each)], least_recall=[*map(np.min, each)])


def architectures(rows: pd.DataFrame) -> dict[tuple[str, int], Architecture]:
    """(label, seed) to the architecture, before it was upscaled, of the networks of `rows` that have one."""
    runs = rows[["label", "seed", "derivation", "source"]].drop_duplicates().dropna(subset="derivation")
    found = published_architectures()
    result = {}
    for label, seed, run, source in runs.itertuples(index=False):
        here = runs_dir() / run / "architecture.json"
        result[label, seed] = from_record(found[run]) if source == "published" or not here.exists() else load_architecture(here)
    return result


def samples(rows: pd.DataFrame, shown: Sequence[str] = SHOWN, published_as: str = "section4_samples") -> dict[str, np.ndarray]:
    """label to the outputs of seed 0 for the first test images, of networks in `shown`: uint8 (sigmas, images, 3, H, W)."""
    runs = rows.loc[(rows["seed"] == 0) & rows["label"].isin(shown), ["run", "label", "source"]].drop_duplicates()
    found = archive(published_as) if "published" in set(runs["source"]) else {}
    return {
        label: (found[run] if source == "published" else read_tensors(runs_dir() / run / "samples.safetensors")["denoised"]).numpy()
        for run, label, source in runs.itertuples(index=False)
    }


def pictures(rows: pd.DataFrame, outputs: dict[str, np.ndarray], index: int, sigma: float) -> dict[str, np.ndarray]:
    """Test image `index` as (H, W, 3) of 0 to 1: "clean", "noisy", and by label the `outputs`, which `samples` gave."""
    require_choice("sample", index, range(SAMPLES))
    require_choice("sigma of the sample", sigma, SAMPLE_SIGMAS)
    networks = rows.dropna(subset="network").iloc[0]
    views, _ = evaluation_images(images_of_scale(networks["scale"]), "test", int(networks["resolution"]), SAMPLES)
    images = {"clean": views[index] / 255, "noisy": bank_noisy(views)(range(index, index + 1), sigma)[0]}
    images |= {label: output[SAMPLE_SIGMAS.index(sigma), index] / 255 for label, output in outputs.items()}
    return {name: np.moveaxis(np.asarray(image), 0, -1).clip(0, 1) for name, image in images.items()}


def table_of(scale: str) -> Table:
    """The look-up table of a scale; of the published results' scale at `published`."""
    return lists.obtain_table(published_scale() if scale == "published" else scale)


def validation_of(scale: str) -> pd.DataFrame:
    """The whole networks that the look-up table was held against."""
    table_of(scale)
    path = lists.table_path(published_scale() if scale == "published" else scale)
    return read_frame(path.with_suffix(".validation.csv"))


def images_of_scale(scale: str) -> ImageSet:
    """The images that a scale searches and trains on, fetched and decoded where they are not here yet."""
    sizes = lists.scale4(published_scale() if scale == "published" else scale)
    return load_images(sizes.data, sizes.resolution, limit=sizes.limit)


# ---- latencies


def latencies(scale: str) -> pd.DataFrame:
    """The measured latencies of all networks of a scale, a row per network and seed; without rows if there are none.

    At scale smoke, networks that need no search are measured where nothing was measured yet.
    """
    scale = published_scale() if scale == "published" else scale
    path = latency_path(scale)
    if scale == "smoke" and not path.exists():
        lists.obtain_table(scale, progress=False)
        measure_section4(scale, [e for e in lists.trainings(scale) if e.derivation is None], rounds=1, passes=1)
    if path.exists():
        return read_frame(path, ("label", "seed", "network", "median_ms", "slowdown"))
    return pd.DataFrame(columns=["label", "seed", "network", *(f.name for f in fields(Latency)), "spread_ms", "slowdown"])


def search_steps() -> pd.DataFrame:
    """What a search step costs, ours and TF-NAS's, as `benchmarks/search_step.py --out` wrote it."""
    return read_frame(latency_dir() / "search-step.csv")


def latency_path(scale: str) -> Path:
    """Where the latencies of all networks of a scale lie: with those of the scale that they were derived at."""
    scale = lists.searched_at(scale)
    return runs_dir() / "latency-section4.csv" if scale == "smoke" else latency_dir() / f"section4-{scale}.csv"


def _network_key(e: Training | tuple) -> str:
    """What two trainings of one network have in common: the network, where its architecture comes from, and its variant.

    Of a training, or of its row in the results.
    """
    source = e.derivation.name if isinstance(e.derivation, Derivation) else e.derivation
    parts = (e.network, source, e.decoder, e.b and f"b={e.b}", e.large and "large", e.upscaled)
    return " ".join(str(part) for part in parts if part)


def measure_section4(
    scale: str, experiments: Sequence[Training] | None = None, *, rounds: int = 30, passes: int = 1, progress: bool = False
) -> Path:  # fmt: skip
    """Measure networks (all that can be built, if none are given) together, interleaved, under the look-up table's conditions.

    Networks that the scale's file has already are left as they are. Leave the machine alone meanwhile.
    """
    path, table = latency_path(scale), load_table(lists.table_path(scale))
    device, names = device_named(table.conditions.device), published_architectures()
    if experiments is None:
        experiments = [
            e for e in lists.trainings(scale)
            if e.derivation is None or e.derivation.name in names or is_complete(e.derivation)
        ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        needed = ["label", "seed", "network", "device"]
        known = read_frame(path, needed) if path.exists() else pd.DataFrame(columns=needed)
        known = known[known["device"] == table.conditions.device]  # of another one, nothing may stay beside what is measured now
        there = set(known["network"])
        wanted = [e for e in experiments if _network_key(e) not in there]
        if not wanted:
            return path
        with torch.random.fork_rng():
            models = {_network_key(e): build_of(e) for e in {_network_key(e): e for e in wanted}.values()}
        found, slowdown = latencies_by_table(models, table, rounds=rounds, passes=passes, progress=progress)
        rows = pd.DataFrame([
            {"label": e.label, "seed": e.seed, "network": _network_key(e), "slowdown": slowdown} | found[_network_key(e)].as_row()
            for e in wanted
        ])  # fmt: skip
        if device.type == "cpu":  # a call returns when its work is done, so the mean is that reading
            rows["unsynchronised_ms"] = rows["mean_ms"]
        replaced = set(zip(rows["label"], rows["seed"], strict=True))
        known = known[[key not in replaced for key in zip(known["label"], known["seed"], strict=True)]]
        frames = [frame for frame in (known, rows) if len(frame)]
        return write_atomic(path, pd.concat(frames, ignore_index=True).to_csv(index=False, lineterminator="\n"))


# ---- publication

COLUMNS = (
    "run",
    *_IDENTITY,
    "derivation",
    "classes",
    "set_images",
    "images",
    "flops",
    "sigma",
    "psnr",
    "ssim",
    "accuracy",
    *_PROVENANCE,
)


def published() -> pd.DataFrame:
    """All published rows of Section 4's trainings, of the best scale."""
    rows = read_results_file(published_dir() / "section4.csv", COLUMNS, whole=("b",)).assign(source="published")
    return rows[rows["scale"] == published_scale()].reset_index(drop=True)


def published_scale() -> str:
    """The scale of which most trainings are published, or, before there are any, searches; the best of those with equally many."""
    path = published_dir() / "section4.csv"
    rows = read_results_file(path, COLUMNS, whole=("b",)) if path.exists() else _read_published("section4_searches")
    return of_best_scale(rows)["scale"].iloc[0]


def _read_published(name: str) -> pd.DataFrame:
    path = published_dir() / f"{name}.csv"
    if not path.exists():
        raise InputError(f"no searches are published yet ({path.name} is missing); use the scale smoke, laptop, gpu or paper.")
    if name == "section4_epochs":  # of the runs in section4_searches
        return read_frame(path, ("run", "epoch"))
    return results3.read_results_file(path, ("run", "label", "scale", "seed"), ())


def _published_searches() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, dict]:
    alphas = read_frame(published_dir() / "section4_alphas.csv.gz", ("run", "epoch", "parameter", "place", "probability"))
    rows, epochs = _read_published("section4_searches"), _read_published("section4_epochs")
    return rows[rows["scale"] == lists.searched_at(published_scale())], epochs, alphas, published_architectures()


def collect() -> dict[str, int]:
    """Merge complete searches, derivations and trainings of the scales that are published into `data/published`.

    A run that is there already is replaced, and so is one of the same label, scale and seed. Returns how many of each there are.
    """
    scales = [scale for scale in reversed(PUBLISHED_SCALES) if lists.table_path(scale).exists()]
    found: dict[type, list] = {Search: [], Derivation: [], Training: []}
    for scale in scales:
        found[Search] += lists.searches(scale)
        found[Derivation] += lists.derivations(scale)
        found[Training] += lists.trainings(scale)
    found = {kind: list({e.name: e for e in runs}.values()) for kind, runs in found.items()}  # two scales may share searches
    here = {kind: [e for e in runs if is_complete(e)] for kind, runs in found.items()}
    order = {e.name: i for runs in found.values() for i, e in enumerate(runs)}
    searched = merge_rows("section4_searches.csv", pd.DataFrame(map(_search_row, here[Search])), order)
    for name in ("epochs.csv", "alphas.csv.gz"):
        frames = [read_frame(folder_of(e) / name.removesuffix(".gz"), advice=AGAIN).assign(run=e.name) for e in here[Search]]
        merge_rows(f"section4_{name}", pd.concat(frames) if frames else pd.DataFrame(), order, searched)
    frames = [derivation_row(e) for e in here[Derivation]]
    kept = merge_rows("section4_derivations.csv", pd.concat(frames) if frames else pd.DataFrame(), order)
    _merge_architectures([*here[Search], *here[Derivation]], searched | kept)
    runs = merge_rows("section4.csv", read_runs(here[Training]), order)
    if runs:
        merge_histories("section4_history.csv", here[Training], order, runs)
        merge_tensors("section4_per_image", here[Training], runs, run_tensors("per_image"))
        merge_tensors("section4_samples", here[Training], runs, lambda e: output_of(e) if e.label in SHOWN and e.seed == 0 else {})
        rows = read_frame(published_dir() / "section4.csv")
        for e in here[Training]:
            if e.seed == 0 and e.label in SHIPPED:
                card = card_of(e, results3.command_of(e, "section4_trainings"))
                place = weights_dir() / f"{results3.slug(e.label)}-{e.data}.safetensors"
                results3.ship_run(e, place, card, rows[rows["run"] == e.name])
    return {"trainings": len(runs), "searches": len(searched), "derivations": len(kept)}


def card_of(experiment: Training, command: str) -> dict:
    """What rebuilds a network of Section 4, for its card."""
    network = {"kind": experiment.network}
    if experiment.b is not None:
        network |= {"unet": unet_of(experiment)}
    if experiment.derivation is not None or experiment.architecture is not None:
        network |= {"decoder": experiment.decoder, "architecture": json.loads(architecture_of(experiment).to_json())}
    data = images_of(experiment)
    return {
        "network": network,
        "classes": [] if experiment.network in ("UNet", "DnCNN", "DnCNN, residual", "D-NAS") else list(data.classes),
        "resolution": experiment.resolution, "data": experiment.data, "training": data.describe().rstrip("."),
        "command": command,
    }  # fmt: skip


def run_tensors(name: str) -> Callable[[Training], dict]:
    """What `merge_tensors` takes of a run's file of that name."""
    return lambda e: {f"{e.name}/{key}": t for key, t in read_tensors(folder_of(e) / f"{name}.safetensors").items()}


def output_of(experiment: Training) -> dict:
    """What `merge_tensors` takes of a run's outputs for the first test images."""
    return {experiment.name: read_tensors(folder_of(experiment) / "samples.safetensors")["denoised"]}


def _merge_architectures(here: list, runs: set[str]) -> None:
    path = published_dir() / "section4_architectures.json"
    merged = {run: record for run, record in published_architectures().items() if run in runs}
    merged |= {e.name: read_json(folder_of(e) / "architecture.json", AGAIN) for e in here}
    if merged:
        lines = ",\n".join(f"{json.dumps(run)}: {json.dumps(merged[run])}" for run in sorted(merged))
        write_atomic(path, f"{{\n{lines}\n}}\n")
