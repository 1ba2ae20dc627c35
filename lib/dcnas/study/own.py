"""A network for one's own board and images: a folder that `dcnas search`, `train` and `evaluate` fill, and `export` reads.

Runs are carried out in the run store, where they go on after a kill; what they gave is then written here, the records last:

- of the search: `architecture.json` and `.png`, `search.csv` (a row per epoch) and `.png`, `search.json` (the record);
- of the training: `weights.safetensors` with its card;
- of the evaluation: `quality.png`, `samples.png`, `metrics.csv` (a row per noise level, with 95% intervals over the test images);
- `report.html`, one page with all of it, written anew after each.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import torch

from ..data.images import ImageSet, evaluation_images, load_images
from ..data.noise import SIGMAS
from ..errors import InputError
from ..latency.table import Table
from ..models import count_parameters
from ..models.flops import count_flops
from ..nas.lut import predicted_ms
from ..nas.networks import IMAGE_CHANNELS, build_network
from ..nas.space import Architecture, load_architecture, save_architecture
from ..paths import shown, write_atomic
from ..shipped import Network, load_network
from ..training import evaluate
from . import figures, plots_own, plots_search, report
from .results import ship_run
from .results4 import Searched, card_of, derivation_row, read_runs, read_search
from .runs import bank_noisy, folder_of, to_csv
from .section4 import Derivation, Search, Training
from .stats import bootstrap

FORMAT = 1
RECORD, ARCHITECTURE, WEIGHTS, METRICS = "search.json", "architecture.json", "weights.safetensors", "metrics.csv"
_FIELDS = {"network": str, "data": str, "target_ms": (int, float), "predicted_ms": (int, float), "run": str}


def claim(folder: Path, search: Search) -> None:
    """`InputError` if the folder holds another search: nothing is written over."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"out is {shown(folder)}, which is a file; a folder was expected.")
    if not (folder / RECORD).exists():
        return
    record = read_record(folder)
    if record["run"] != search.name:
        raise InputError(
            f"{shown(folder)} holds another search (target {record['target_ms']:g} ms, {record['data']}, or other settings); "
            "name another folder."
        )


def read_record(folder: Path) -> dict:
    """The record of the folder's search; `InputError` where there is none or it is not sound."""
    path = folder / RECORD
    try:
        record = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{shown(path)} does not exist; `dcnas search --out {shown(folder)}` makes it.") from None
    except ValueError as error:
        raise InputError(f"{shown(path)} is not JSON: {error}.") from None
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(record, dict) or not isinstance(record.get(name), kind)]
    if wrong or record.get("format") != FORMAT:
        raise InputError(f"{shown(path)} is no record of a search of format {FORMAT}: {', '.join(wrong) or 'format'} is wrong.")
    return record


def write_search(folder: Path, search: Search, derivation: Derivation | None, table: Table) -> dict:
    """What a complete search found, and what its derivation measured if there was one. The record."""
    found, network, measured = read_search(search), search.settings.network, {}
    architecture = found.architecture
    if derivation is not None:
        architecture = load_architecture(folder_of(derivation) / ARCHITECTURE)
        row = derivation_row(derivation).iloc[0]
        names = ("measured_ms", "noise_ms", "error_pct", "first_error_pct")
        measured = {name: float(row[name]) for name in names} | {"repairs": int(row["repairs"])}
    record = {
        "format": FORMAT, "run": search.name, "network": network, "data": search.data, "target_ms": search.target_ms,
        "predicted_ms": predicted_ms(table, architecture, network), **measured, **_size(architecture, network),
        "verdict": found.verdict, "reason": found.reason, "conditions": asdict(table.conditions),
        "table_error_pct": table.correction.error_pct, "settings": asdict(search),
    }  # fmt: skip
    save_architecture(architecture, folder / ARCHITECTURE)
    write_atomic(folder / "search.csv", found.epochs.to_csv(index=False, lineterminator="\n"))
    _write_figure(plots_search.architecture_figure(architecture, network, network, table), folder / "architecture.png")
    _write_figure(_curves(found), folder / "search.png")
    write_atomic(folder / RECORD, json.dumps(record, indent=1) + "\n")
    report.write(folder)
    return record


def _size(architecture: Architecture, network: str) -> dict:
    side = architecture.space.resolution
    with torch.random.fork_rng():
        model = build_network(network, architecture)
    return {"parameters": count_parameters(model), "flops": count_flops(model, torch.zeros(1, IMAGE_CHANNELS, side, side))}


def _curves(found: Searched):
    text = f"Grey: the target. {found.verdict}: {found.reason}."
    return plots_search.search_curves({"search": found.epochs}, found.target_ms, text)


def _write_figure(figure, path: Path) -> None:
    write_atomic(path, figures.png_bytes(figure))


def write_training(folder: Path, training: Training) -> pd.DataFrame:
    """The weights of a complete training with their card, and then its evaluation."""
    rows = read_runs([training])
    network = f" --network {training.network}" + (f" --decoder '{training.decoder}'" if training.decoder != "conv" else "")
    command = f"dcnas train DIR{network} --data {training.data} --steps {training.steps} --seed {training.seed}"
    ship_run(training, folder / WEIGHTS, card_of(training, command) | {"data": training.data}, rows, half=False)
    return write_evaluation(folder)


def trained(folder: Path) -> Network:
    """The folder's network; `InputError` where it was not trained yet."""
    if not (folder / WEIGHTS).exists():
        raise InputError(f"{shown(folder / WEIGHTS)} does not exist; `dcnas train {shown(folder)}` makes it.")
    return load_network(str(folder / WEIGHTS))


def test_images(network: Network, data: str, *, whole: bool = False, progress: bool = True) -> ImageSet:
    """The set that a network is judged on: its test part, or with `whole` all of it; `InputError` if its classes are others."""
    images = load_images(data, network.card["resolution"], progress=progress)
    if network.classes and images.classes != network.classes:
        raise InputError(f"{data} has the classes {', '.join(images.classes)}, but the network knows {', '.join(network.classes)}.")
    return replace(images, rows={"test": torch.arange(len(images.labels))}) if whole else images


def write_evaluation(folder: Path, data: str | None = None, *, progress: bool = True) -> pd.DataFrame:
    """Judge the folder's network: on the test part of what it was trained on, or on all images of another set.

    Another set's metrics go to a file of their own, and the report stays as it is.
    """
    network = trained(folder)
    own = data is None or data == network.card.get("data")
    images = test_images(network, network.card["data"] if own else data, whole=not own, progress=progress)
    metrics = judge(network, images, progress=progress)
    if not own:
        write_atomic(other_metrics(folder, data), to_csv(metrics.to_dict("records")))
        return metrics
    _write_figure(plots_own.quality_figure(metrics), folder / "quality.png")
    _write_figure(plots_own.samples_figure(network, images), folder / "samples.png")
    write_atomic(folder / METRICS, to_csv(metrics.to_dict("records")))
    report.write(folder)
    return metrics


def other_metrics(folder: Path, data: str) -> Path:
    """Where the metrics on another set go."""
    return folder / f"metrics-{Path(data.removeprefix('folder:')).name or 'other'}.csv"


def judge(network: Network, images: ImageSet, *, progress: bool = False) -> pd.DataFrame:
    """A row per noise level: PSNR of the noisy images (dB), PSNR, SSIM and accuracy (%) with 95% intervals over the images."""
    views, labels = evaluation_images(images, "test", network.card["resolution"])
    boxes, noisy = torch.zeros(len(views), 1, 4), bank_noisy(views)
    found = evaluate(lambda x, _: network.answer(x), views, boxes, labels, noisy, SIGMAS, progress=progress)
    before = evaluate(lambda x, _: (x, None), views, boxes, labels, noisy, SIGMAS)["psnr"]
    rows = []
    for i, sigma in enumerate(SIGMAS):
        row = {"sigma": sigma, "images": len(views), "noisy_psnr": before[i].mean().item()}
        for name, tensor in found.items():
            name, scale = ("accuracy", 100) if name == "correct" else (name, 1)
            interval = bootstrap({0: scale * tensor[i].flatten().double().numpy()})
            row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
        rows.append(row)
    return pd.DataFrame(rows)
