"""From the runs' folders to what the study publishes: CSV files, archives of safetensors, weights.

A run that is published already is replaced by a newer one of the same label, scale and seed.
"""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.torch import save

from ..data.two_digits import IMAGE_SIZE
from ..deploy.weights import DIGITS, compact, metrics_of, ship
from ..nas.space import widened
from ..paths import published_dir, weights_dir, write_atomic
from .derivation import table_path
from .kinds import Named, Run, images_of
from .presets import filters, runs
from .records import INTEGERS, NAMES, derivation_row, read_runs, search_row
from .results import CURVE, RECALLS, archive
from .scales import PUBLISHED_SCALES
from .store import (
    architecture_of,
    file_of,
    folder_of,
    is_complete,
    published_architectures,
    read_tensors,
)

SHIPPED = (  # with weights
    "DC-Net Reduced Integrated",
    "DC-Net Reduced Sequential",
    "UNet b=8 d=4 m=1.5 c=2",
    "DC-NAS S",
    "UNet b=16",
    "DC-Net b=16",
)
SHOWN = {  # whose outputs for the first test images are published
    "section3": [run.label for group in ("table_2", "table_3") for run in runs(group, "short")]
    + ["UNet Baseline", "UNet Reduced"],
    "section4": ["D-NAS S", "UNet Reduced", "DC-NAS S", "DC-Net Reduced", "DC-Net_tail Reduced"]
    + ["DnCNN", "DnCNN, residual"],
    "section2": [run.label for run in filters("smoke")],
}
KEY = ["label", "scale", "seed", "network", "random_seed"]  # by which a published run is found
ROWS = {"section4_searches": search_row, "section4_derivations": derivation_row}


def collect() -> dict[str, int]:
    """Merge complete runs into data/published and data/weights; how many runs each file has now."""
    here = {name: [] for name in ("section2", "section3", *ROWS, "section4")}
    for scale in reversed(PUBLISHED_SCALES):
        listed = [*runs("section3", scale)]
        if table_path(scale).exists():  # without a table nothing of Section 4 can have been made
            listed += [*runs("section4", scale), *filters(scale)]
        for run in filter(is_complete, listed):
            here[file_of(run)].append(run)
    for name, fresh in here.items():
        if fresh:
            _collect(name, fresh)
    archive.cache_clear()
    published_architectures.cache_clear()
    return {name: _read(f"{name}.csv")["run"].nunique() for name in here}


def _collect(name: str, here: list[Named]) -> None:
    fresh = pd.DataFrame(map(ROWS[name], here)) if name in ROWS else read_runs(here)
    plain = fresh.drop(columns=["source", *RECALLS], errors="ignore")
    rows = _merged(_read(f"{name}.csv"), plain)
    _write(f"{name}.csv", rows)
    names = set(rows["run"])
    if name in ROWS:
        _write_architectures(here)
    else:
        shown = [run for run in here if run.seed == 0 and run.label in SHOWN[name]]
        _write_tensors(f"{name}_per_image", here, names)
        _write_tensors(f"{name}_samples", shown, names)
    if name == "section4_searches":
        for file in ("epochs.csv", "alphas.csv"):
            parts = [pd.read_csv(folder_of(run) / file).assign(run=run.name) for run in here]
            packed = ".gz" if file.startswith("alphas") else ""
            _write_parts(f"section4_{file}{packed}", pd.concat(parts), names)
    if name in ("section3", "section4"):
        _write_parts(f"{name}_history.csv", pd.concat(map(_history, here)), names)
        _ship_all(here)
    if name == "section4":
        recalls = fresh[["run", "sigma"]].join(fresh.reindex(columns=RECALLS)).dropna()
        _write_parts("section4_recalls.csv", recalls, names)


def _read(name: str) -> pd.DataFrame:
    path = published_dir() / name
    return pd.read_csv(path, dtype=INTEGERS | NAMES) if path.exists() else pd.DataFrame(columns=["run"])


def _merged(old: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    """Fresh rows in the place of those of the same key, new ones at the end."""
    if old.empty:
        return fresh
    rows = pd.concat([old, fresh], ignore_index=True)
    key = [name for name in KEY if name in ("label", "scale", "seed") or "random_seed" in rows]
    place = rows.groupby(key, sort=False, dropna=False).ngroup()
    stale = place.isin(place[len(old) :]) & (rows.index < len(old))
    return rows[~stale].iloc[np.argsort(place[~stale], kind="stable")]


def _write_parts(name: str, fresh: pd.DataFrame, names: set[str]) -> None:
    """Write a file with several rows of each run: of those still published, then fresh ones."""
    old = _read(name)
    old = old[old["run"].isin(names - set(fresh["run"]))]
    rows = pd.concat([frame for frame in (old, fresh) if len(frame)] or [fresh], ignore_index=True)
    if "probability" in rows:
        rows["probability"] = rows["probability"].round(4)
    _write(name, rows)


def _write(name: str, rows: pd.DataFrame) -> None:
    data = rows.to_csv(index=False, lineterminator="\n").encode()
    write_atomic(published_dir() / name, gzip.compress(data, mtime=0) if name[-3:] == ".gz" else data)


def _write_tensors(name: str, fresh: list[Named], names: set[str]) -> None:
    """Write an archive: of runs that are still published, and of fresh ones."""
    path, file = published_dir() / f"{name}.safetensors", name.split("_", 1)[1]
    merged = {key: t for key, t in read_tensors(path).items() if key.split("/")[0] in names}
    for run in fresh:
        tensors = read_tensors(folder_of(run) / f"{file}.safetensors")
        if file == "samples":
            merged[run.name] = tensors["denoised"]
        else:
            merged |= {f"{run.name}/{key}": t for key, t in tensors.items()}
    write_atomic(path, save({key: merged[key] for key in sorted(merged)}))


def _history(run: Run) -> pd.DataFrame:
    """A training's curve to five digits; how fast the machine was is no result."""
    curve = pd.read_csv(folder_of(run) / "history.csv").astype({"step": int})
    for column in ("loss", "lr", "validation_loss"):
        curve[column] = [float(f"{value:.5g}") for value in curve[column]]
    head = {"run": run.name, "label": run.label, "scale": run.scale, "seed": run.seed}
    return curve.assign(**head)[[*head, *CURVE[1:]]]


def _write_architectures(here: list[Named]) -> None:
    path = published_dir() / "section4_architectures.json"
    names = {run for name in ROWS for run in _read(f"{name}.csv")["run"]}
    merged = json.loads(path.read_text()) if path.exists() else {}
    merged |= {run.name: json.loads((folder_of(run) / "architecture.json").read_text()) for run in here}
    lines = [f"{json.dumps(run)}: {json.dumps(merged[run])}" for run in sorted(merged) if run in names]
    write_atomic(path, "{\n" + ",\n".join(lines) + "\n}\n")


# ---- weights


def slug(label: str) -> str:
    """A label as a file name: "UNet b=8 d=4 m=1.5 c=2" to "unet-b8-d4-m1.5-c2"."""
    return label.lower().replace("=", "").replace(",", "").replace(" ", "-")


def _ship_all(here: list[Run]) -> None:
    """Of the networks that ship, the seed with the median validation loss, at the best scale here."""
    for label in SHIPPED:
        seeds = [run for scale in PUBLISHED_SCALES for run in here if run.scale == scale]
        seeds = [run for run in seeds if run.label == label]
        seeds = [run for run in seeds if run.scale == seeds[0].scale]
        if seeds:
            curves = [pd.read_csv(folder_of(run) / "history.csv")["validation_loss"] for run in seeds]
            order = np.argsort([curve.iloc[-1] for curve in curves])
            run = seeds[int(order[(len(seeds) - 1) // 2])]
            of_set = f"-{run.data['data']}" if run.task == "photographs" else ""
            where = f"--scale {run.scale} --seed {run.seed} --group {file_of(run)}"
            path = weights_dir() / f"{slug(label)}{of_set}.safetensors"
            ship_run(run, path, f'dcnas run "{run.label}" {where}')


def ship_run(run: Run, path: Path, command: str, *, half: bool = True, **more) -> None:
    """Write a complete run's weights, and the card that rebuilds and describes them."""
    training_only = ("upscaled", "dropout", "drop_connect")
    network = {name: value for name, value in run.net.items() if name not in training_only}
    if run.source is not None:
        architecture = architecture_of(run.source)
        if (factor := run.net.get("upscaled", 1.0)) != 1:
            architecture = widened(architecture, architecture.space.width * factor)
        network["architecture"] = json.loads(architecture.to_json())
    rows = read_runs([run]).to_dict("records")
    card = {"label": run.label, "network": network}
    if run.task == "photographs":
        data = images_of(run)
        classifies = pd.notna(rows[0].get("accuracy"))
        card |= {"classes": list(data.classes) if classifies else []}
        card |= {"resolution": run.data["resolution"], "data": run.data["data"]}
        card |= {"training": data.describe().rstrip(".")}
    else:
        card |= {"classes": [] if run.task == "denoise" else list(DIGITS), "resolution": IMAGE_SIZE}
        card |= {"training": "generated images of two MNIST digits"}
    card |= {"command": command, "scale": run.scale, "seed": run.seed}
    card |= {"steps": run.train.steps, "batch": run.batch, "parameters": int(rows[0]["parameters"])}
    card |= {"run": run.name, "commit": rows[0]["commit"], "metrics": metrics_of(rows)}
    tensors = read_tensors(folder_of(run) / "weights.safetensors")
    ship(compact(tensors) if half else tensors, card | {"flops": int(rows[0]["flops"])} | more, path)
