"""A network for one's own board and images: a folder that `dcnas search`, `train` and `evaluate` fill, and `export` reads.

Runs are carried out in the run store, where they go on after a kill; what they gave is then written here, the records last:

- of the search: `architecture.json` and `.png`, `search.csv` (a row per epoch) and `.png`, `search.json` (the record);
- of the training: `weights.safetensors` with its card;
- of the evaluation: `quality.png`, `samples.png`, `metrics.csv` (a row per noise level, with 95% intervals over the test images),
  and `network.png` where another network was trained than was searched;
- of an evaluation on another set: `metrics-NAME.csv`, by the set's name;
- `report.html`, one page with all of it but other sets, written anew after each.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from .. import reading
from ..data.images import ImageSet, evaluation_images, load_images
from ..data.noise import SIGMAS
from ..data.two_digits import IMAGE_SIZE, cached
from ..deploy.weights import Network, load_network
from ..errors import InputError, spelled
from ..latency.measure import measure_many
from ..latency.table import Table
from ..models import count_parameters
from ..models.flops import count_flops
from ..nas.lut import predicted_ms
from ..nas.networks import IMAGE_CHANNELS, build_network
from ..nas.space import Architecture, from_record, load_architecture, save_architecture
from ..paths import shown, write_atomic
from ..training import evaluate
from . import figures, plots_own, plots_search, report
from .results3 import ship_run
from .results4 import Searched, card_of, derivation_row, read_runs, read_search
from .runs import bank_noisy, folder_of, to_csv
from .section4 import Derivation, Search, Training
from .stats import bootstrap

FORMAT = 1
CALIBRATION = 64  # images
DIGITS = "digits"
RECORD, ARCHITECTURE, WEIGHTS, METRICS = "search.json", "architecture.json", "weights.safetensors", "metrics.csv"
DRAWING = "network.png"


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
    if not path.exists():
        raise InputError(f"{shown(path)} does not exist; `dcnas search --out {shown(folder)}` makes it.")
    record = report.read_search(path)
    reading.require_kinds(path, record, {"run": reading.TEXT, "format": reading.WHOLE})
    if record["format"] != FORMAT:
        raise InputError(f"{shown(path)} has the format {spelled(record['format'])}, but {FORMAT} was expected.")
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
    if (folder / ARCHITECTURE).exists() and load_architecture(folder / ARCHITECTURE) != architecture:
        for name in (WEIGHTS, "weights.card.json", METRICS, "quality.png", "samples.png", DRAWING):  # they are of another network
            (folder / name).unlink(missing_ok=True)
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
    text = "Latency: solid of the most probable operators, dotted the expected one, grey the target."
    return plots_search.search_curves({"search": found.epochs}, found.target_ms, text)


def _write_figure(figure, path: Path) -> None:
    write_atomic(path, figures.png_bytes(figure))


def write_training(folder: Path, training: Training) -> pd.DataFrame:
    """The weights of a complete training with their card, and then its evaluation."""
    rows = read_runs([training])
    network = f" --network {training.network}" + (f" --decoder '{training.decoder}'" if training.decoder != "conv" else "")
    command = f"dcnas train DIR{network} --data {training.data} --steps {training.steps} --batch {training.batch}"
    command += f" --seed {training.seed}" + ("" if training.noisy else " --no-noisy")
    card = card_of(training, command) | {"noisy": training.noisy, "flops": int(rows["flops"].iloc[0])}
    ship_run(training, folder / WEIGHTS, card, rows, half=False)
    return write_evaluation(folder)


def is_longer(folder: Path, training: Training) -> bool:
    """Whether the folder has a longer training of the same architecture already, which a repeated search leaves there."""
    if not (folder / WEIGHTS).exists():
        return False
    card = trained(folder).card
    same = card["network"].get("architecture") == json.loads(training.architecture)
    return same and card.get("steps", 0) > training.steps


def trained(folder: Path) -> Network:
    """The folder's network; `InputError` where it was not trained yet."""
    if not (folder / WEIGHTS).exists():
        raise InputError(f"{shown(folder / WEIGHTS)} does not exist; `dcnas train {shown(folder)}` makes it.")
    return load_network(str(folder / WEIGHTS))


def judged_images(network: Network, data: str, *, whole: bool = False, progress: bool = True) -> ImageSet:
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
    record = read_record(folder) if (folder / RECORD).exists() else None  # what is wrong with it is told before images are judged
    known = network.card.get("data")
    if data is None and known is None:
        raise InputError(f"the card in {shown(folder)} does not name its images; --data says which ones to judge on.")
    own = data in (None, known)
    path = folder / METRICS if own else other_metrics(folder, data)
    images = judged_images(network, known if own else data, whole=not own, progress=progress)
    metrics = judge(network, images, progress=progress)
    if not own:
        write_atomic(path, to_csv(metrics.assign(data=data).to_dict("records")))
        return metrics
    _write_drawing(folder, network, record)
    _write_figure(plots_own.quality_figure(metrics), folder / "quality.png")
    _write_figure(plots_own.samples_figure(network, images), folder / "samples.png")
    write_atomic(path, to_csv(metrics.to_dict("records")))
    report.write(folder)
    return metrics


def _write_drawing(folder: Path, network: Network, record: dict | None) -> None:
    """Draw the trained network where the search, if there was one, drew another."""
    card = network.card["network"]
    if "architecture" not in card or (record is not None and report.is_of(record, network.card)):
        (folder / DRAWING).unlink(missing_ok=True)
        return
    architecture, decoder = from_record(card["architecture"]), card.get("decoder", "conv")
    figure = plots_search.architecture_figure(architecture, report.network_text(card), network.kind, decoder=decoder)
    _write_figure(figure, folder / DRAWING)


def other_metrics(folder: Path, data: str) -> Path:
    """Where the metrics on another set go: by its name, and by its place as well where that name is taken by another set's."""
    name = Path(data.removeprefix("folder:")).name or "other"
    path = folder / f"metrics-{name}.csv"
    if not path.exists() or reading.read_rows(path)[0].get("data") == data:
        return path
    return folder / f"metrics-{name}-{hashlib.sha256(data.encode()).hexdigest()[:8]}.csv"


def judge(network: Network, images: ImageSet, *, progress: bool = False) -> pd.DataFrame:
    """A row per noise level: PSNR of the noisy images (dB), PSNR, SSIM and accuracy (%) with 95% intervals over the images."""
    found = per_image(network.answer, images, network.card["resolution"], progress=progress)
    before = per_image(lambda x: (x, None), images, network.card["resolution"])["psnr"]
    rows = []
    for i, sigma in enumerate(SIGMAS):
        row = {"sigma": sigma, "images": before.shape[1], "noisy_psnr": before[i].mean().item()}
        for name, tensor in found.items():
            name, scale = ("accuracy", 100) if name == "correct" else (name, 1)
            interval = bootstrap({0: scale * tensor[i].flatten().double().numpy()})
            row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
        rows.append(row)
    return pd.DataFrame(rows)


def per_image(answer: Callable, images: ImageSet, resolution: int, *, progress: bool = False) -> dict[str, Tensor]:
    """Metrics of each test image at each noise level (`training.evaluate`) of `answer(noisy)`, which gives denoised and logits."""
    views, labels = evaluation_images(images, "test", resolution)
    boxes = torch.zeros(len(views), 1, 4)
    return evaluate(lambda x, _: answer(x), views, boxes, labels, bank_noisy(views), SIGMAS, progress=progress)


# ---- export


def source(name: str, data: str | None) -> tuple[Network, str, Path]:
    """The network to export by its folder, its file or its name, the set that it is compared on, and the folder for the files."""
    folder = Path(name)
    network = trained(folder) if folder.is_dir() else load_network(name)
    if network.of_digits and data is not None:
        raise InputError(f"data is {data!r}, but {network.name} is of Section 3 and compared on its digits; leave it out.")
    data = data or network.card.get("data") or (DIGITS if network.of_digits else None)
    if data is None:
        raise InputError(f"the card of {name} does not name its images; --data says which ones to compare on.")
    return network, data, folder if folder.is_dir() else Path(name).parent if name.endswith(".safetensors") else Path()


def write_export(network: Network, data: str, path: Path, *, int8: bool = False, threads: int | None = None) -> dict:
    """The network as an ONNX file (and `-int8` beside it), compared and timed; what was found, also in a JSON file beside it."""
    from ..deploy import export  # needs packages of the extra `export`

    if int8 and network.of_digits:
        raise InputError(f"int8 is for networks of Section 4, but {network.name} is of Section 3.")
    size = IMAGE_SIZE if network.of_digits else network.card["resolution"]
    if network.of_digits:
        real = cached("test", CALIBRATION).images / 255
    else:
        images = judged_images(network, data)
        real = _noisy_training_images(images, size)
    files = {"ONNX Runtime": path}
    found = {"format": FORMAT, "network": network.label, "largest_difference": export.export_onnx(network, path, real[:8])}
    if int8:
        files["ONNX Runtime, int8"] = path.with_name(f"{path.stem}-int8.onnx")
        export.quantise(path, files["ONNX Runtime, int8"], real)
        found["int8_cost"] = _cost(network, export.Session(files["ONNX Runtime, int8"], threads), images, size)
    inputs = export.example(network, 1, size, size)
    models = {"PyTorch": (network.model, inputs)}
    models |= {name: (export.Session(path, threads), inputs) for name, path in files.items()}
    times = measure_many(models, rounds=20, warmup=3, passes=5, threads=threads)
    found |= {"size_px": size, "threads": times["PyTorch"].threads, "device": times["PyTorch"].device}
    found["latency_ms"] = {name: {"median": t.median_ms, "q25": t.q25_ms, "q75": t.q75_ms} for name, t in times.items()}
    found["mib"] = {file.name: file.stat().st_size / 2**20 for file in files.values()}
    write_atomic(path.with_suffix(".onnx.json"), json.dumps(found, indent=1) + "\n")
    return found


def _noisy_training_images(images: ImageSet, size: int) -> Tensor:
    """Images to calibrate on: of the training part, at noise levels spread over 0 to 1."""
    views, _ = evaluation_images(replace(images, rows={"test": images.rows["weights"]}), "test", size, CALIBRATION)
    noisy = bank_noisy(views)
    return torch.cat([noisy(range(n, n + 1), n / max(1, len(views) - 1)) for n in range(len(views))])


def _cost(network: Network, session: Callable, images: ImageSet, size: int) -> list[dict]:
    """What 8 bits cost at each noise level: PSNR (dB) and accuracy (points), quantised minus float, with 95% intervals."""
    before = per_image(network.answer, images, size)
    after = per_image(lambda x: _with_classes(session(x)), images, size)
    rows = []
    for i, sigma in enumerate(SIGMAS):
        row = {"sigma": sigma}
        for name, scale, unit in (("psnr", 1, "psnr_db"), ("correct", 100, "accuracy_points")):
            if name in before:
                gap = scale * (after[name][i].flatten().double() - before[name][i].flatten().double())
                interval = bootstrap({0: gap.numpy()})
                row |= {unit: interval.mean, f"{unit}_low": interval.low, f"{unit}_high": interval.high}
        rows.append(row)
    return rows


def _with_classes(found: tuple[Tensor | None, Tensor | None]) -> tuple[Tensor | None, Tensor | None]:
    denoised, logits = found
    return denoised, None if logits is None else logits[:, None]
