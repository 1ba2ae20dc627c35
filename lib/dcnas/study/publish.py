"""From the runs' folders to what the study publishes: tidy CSV files, archives of safetensors, weights
with their cards.

A run that is published already is replaced by a newer one of the same label, scale and seed; what is no
longer listed goes, but for the scale `short`, at which nothing trains any more.
"""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.torch import save
from torch import Tensor

from ..data.two_digits import IMAGE_SIZE
from ..deploy.weights import DIGITS, compact, metrics_of, ship
from ..nas.space import widened
from ..paths import published_dir, weights_dir, write_atomic
from .derivation import table_path
from .kinds import Derivation, Named, Run, Search, images_of
from .presets import filters, runs
from .records import HISTORY, archive, derivation_row, published_architectures, read_runs, search_row
from .scales import PUBLISHED_SCALES
from .store import architecture_of, file_of, folder_of, is_complete, key_of, read_tensors

SHIPPED = (
    "DC-Net Reduced Integrated",
    "DC-Net Reduced Sequential",
    "UNet b=8 d=4 m=1.5 c=2",
    "DC-NAS S",
    "UNet b=16",
    "DC-Net b=16",
)  # with weights
SHOWN = {  # whose outputs for the first test images are published
    "section3": [run.label for group in ("table_2", "table_3") for run in runs(group, "short")]
    + ["UNet Baseline", "UNet Reduced"],
    "section4": [
        "D-NAS S",
        "UNet Reduced",
        "DC-NAS S",
        "DC-Net Reduced",
        "DC-Net_tail Reduced",
        "DnCNN",
        "DnCNN, residual",
    ],
    "section2": [run.label for run in filters("smoke")],
}


def collect() -> dict[str, int]:
    """Merge complete runs of the scales that are published into data/published and data/weights; how
    many each file has now.
    """
    listed: dict[str, list[Named]] = {}
    for scale in reversed(PUBLISHED_SCALES):
        tables = table_path(scale).exists()  # without one nothing of Section 4 can have been made
        for run in [
            *runs("section3", scale),
            *([*runs("section4", scale), *filters(scale)] if tables else []),
        ]:
            listed.setdefault(file_of(run), []).append(run)
    counts = {}
    for name in ("section2", "section3", "section4_searches", "section4_derivations", "section4"):
        order = {
            key_of(run): i
            for i, run in enumerate({run.name: run for run in listed.get(name, [])}.values())
        }
        here = [run for run in listed.get(name, []) if run.scale != "short" and is_complete(run)]
        counts[name] = (
            _collect(name, here, order) if here else len(_keys(_read(f"{name}.csv")).drop_duplicates())
        )
    archive.cache_clear()
    published_architectures.cache_clear()
    return counts


def _collect(name: str, here: list[Named], order: dict[tuple, int]) -> int:
    rows_of = {"section4_searches": search_row, "section4_derivations": derivation_row}.get(name)
    fresh = read_runs(here) if rows_of is None else pd.DataFrame(map(rows_of, here))
    names = merge(f"{name}.csv", fresh, order)
    if rows_of is not None:
        _merge_architectures(here)
    if name == "section4_searches":
        for file in ("epochs.csv", "alphas.csv.gz"):
            frames = [
                pd.read_csv(folder_of(run) / file.removesuffix(".gz")).assign(run=run.name)
                for run in here
            ]
            merge_parts(f"section4_{file}", pd.concat(frames), names)
    elif rows_of is None:
        merge_tensors(f"{name}_per_image", here, names, "per_image")
        shown = [run for run in here if run.seed == 0 and run.label in SHOWN[name]]
        merge_tensors(f"{name}_samples", shown, names, "samples")
        if name != "section2":
            merge_parts(f"{name}_history.csv", pd.concat(map(_history, here)), names)
            _ship_all(here)
    return len(names)


def _read(name: str) -> pd.DataFrame:
    path = published_dir() / name
    return (
        pd.read_csv(path, dtype=dict.fromkeys(("b", "d", "c", "crop"), "Int64"))
        if path.exists()
        else pd.DataFrame(columns=["run"])
    )


def _keys(rows: pd.DataFrame) -> pd.Series:
    """The key of each row, as `key_of` gives it."""
    if rows.empty:
        return pd.Series(dtype=object)
    parts = [rows["label"], rows["scale"], rows["seed"].astype(int)]
    if "random_seed" in rows:
        parts += [
            rows["network"],
            [None if pd.isna(seed) else int(seed) for seed in rows["random_seed"]],
        ]
    return pd.Series(list(zip(*parts, strict=True)), index=rows.index)


def merge(name: str, fresh: pd.DataFrame, order: dict[tuple, int]) -> set[str]:
    """Write a published file: fresh rows in the place of those of the same key, new ones at its end. The
    runs that it has.
    """
    old = _read(name)
    keys, of_fresh = _keys(old), set(_keys(fresh))
    places = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    old = old[[key not in of_fresh and (key in order or key[1] == "short") for key in keys]]
    rows = pd.concat([frame for frame in (old, fresh) if len(frame)], ignore_index=True)
    place = [places.get(key, len(places) + order.get(key, 0)) for key in _keys(rows)]
    rows = rows.iloc[sorted(range(len(rows)), key=place.__getitem__)]
    _write(name, rows)
    return set(rows["run"])


def merge_parts(name: str, fresh: pd.DataFrame, names: set[str]) -> None:
    """Write a file with several rows of each run: what it held of runs that are still published, then
    fresh ones.
    """
    old = _read(name)
    old = old[old["run"].isin(names - set(fresh["run"]))]
    rows = pd.concat([frame for frame in (old, fresh) if len(frame)], ignore_index=True)
    if "probability" in rows:
        rows["probability"] = rows["probability"].round(4)
    _write(name, rows)


def _write(name: str, rows: pd.DataFrame) -> None:
    text = rows.to_csv(index=False, lineterminator="\n")
    write_atomic(
        published_dir() / name, gzip.compress(text.encode(), mtime=0) if name.endswith(".gz") else text
    )


def merge_tensors(name: str, fresh: Iterable[Named], names: set[str], what: str) -> None:
    """Write an archive: what it held of runs that are still published, and what fresh ones have in their
    file `what`.
    """
    path = published_dir() / f"{name}.safetensors"
    merged: dict[str, Tensor] = {
        key: t for key, t in read_tensors(path).items() if key.split("/")[0] in names
    }
    for run in fresh:
        tensors = read_tensors(folder_of(run) / f"{what}.safetensors")
        merged |= (
            {run.name: tensors["denoised"]}
            if what == "samples"
            else {f"{run.name}/{key}": t for key, t in tensors.items()}
        )
    write_atomic(path, save({key: merged[key] for key in sorted(merged)}))


def _history(run: Run) -> pd.DataFrame:
    """A training's curve to five digits; how fast the machine was is no result."""
    curve = pd.read_csv(folder_of(run) / "history.csv").assign(
        run=run.name, label=run.label, scale=run.scale, seed=run.seed
    )
    for column in HISTORY[5:]:
        curve[column] = [float(f"{value:.5g}") for value in curve[column]]
    return curve[[*HISTORY]].astype({"step": int})


def _merge_architectures(here: list[Search | Derivation]) -> None:
    path = published_dir() / "section4_architectures.json"
    names = set(pd.concat([_read("section4_searches.csv"), _read("section4_derivations.csv")])["run"])
    merged = (
        {run: record for run, record in json.loads(path.read_text()).items() if run in names}
        if path.exists()
        else {}
    )
    merged |= {run.name: json.loads((folder_of(run) / "architecture.json").read_text()) for run in here}
    lines = ",\n".join(f"{json.dumps(run)}: {json.dumps(merged[run])}" for run in sorted(merged))
    write_atomic(path, f"{{\n{lines}\n}}\n")


# ---- weights


def slug(label: str) -> str:
    """A label as a file name: "UNet b=8 d=4 m=1.5 c=2" to "unet-b8-d4-m1.5-c2"."""
    return label.lower().replace("=", "").replace(",", "").replace(" ", "-")


def _ship_all(here: list[Run]) -> None:
    """Of the networks that ship, the seed with the median validation loss, at the best scale that was
    made here.
    """
    for label in SHIPPED:
        for scale in PUBLISHED_SCALES:
            if seeds := [run for run in here if (run.label, run.scale) == (label, scale)]:
                losses = [
                    pd.read_csv(folder_of(run) / "history.csv")["validation_loss"].iloc[-1]
                    for run in seeds
                ]
                run = seeds[int(np.argsort(losses)[(len(losses) - 1) // 2])]
                of_set = f"-{run.data['data']}" if run.task == "photographs" else ""
                group = "section4" if of_set else "section3"
                command = (
                    f'dcnas run "{run.label}" --scale {run.scale} --seed {run.seed} --group {group}'
                )
                ship_run(run, weights_dir() / f"{slug(label)}{of_set}.safetensors", command)
                break


def ship_run(run: Run, path: Path, command: str, *, half: bool = True, **more) -> None:
    """Write a complete run's weights, at half precision unless told otherwise, and the card that
    rebuilds and describes it.
    """
    network = {
        name: value
        for name, value in run.net.items()
        if name not in ("upscaled", "dropout", "drop_connect")
    }
    if run.source is not None:
        architecture = architecture_of(run.source)
        if (factor := run.net.get("upscaled", 1.0)) != 1:
            architecture = widened(architecture, architecture.space.width * factor)
        network["architecture"] = json.loads(architecture.to_json())
    rows = read_runs([run]).to_dict("records")
    card = {"label": run.label, "network": network}
    if run.task == "photographs":
        data = images_of(run)
        card |= {
            "classes": list(data.classes)
            if "accuracy" in rows[0] and rows[0]["accuracy"] == rows[0]["accuracy"]
            else []
        }
        card |= {
            "resolution": run.data["resolution"],
            "data": run.data["data"],
            "training": data.describe().rstrip("."),
        }
    else:
        card |= {"classes": [] if run.task == "denoise" else list(DIGITS), "resolution": IMAGE_SIZE}
        card |= {"training": "generated images of two MNIST digits"}
    card |= {
        "command": command,
        "scale": run.scale,
        "seed": run.seed,
        "steps": run.train.steps,
        "batch": run.batch,
    }
    card |= {
        "parameters": int(rows[0]["parameters"]),
        "run": run.name,
        "commit": rows[0]["commit"],
        "metrics": metrics_of(rows),
    }
    card |= {"flops": int(rows[0]["flops"])} | more
    tensors = read_tensors(folder_of(run) / "weights.safetensors")
    ship(compact(tensors) if half else tensors, card, path)
