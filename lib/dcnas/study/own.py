"""A network for one's own board and images: a folder that `dcnas search`, `train` and `evaluate` fill.

Runs are carried out in the run store, where they go on after a kill; what they gave is then written
here:

- of the search: `architecture.json`, `search.csv` (a row per epoch) and, last, `search.json` (the
  record);
- of the training: `weights.safetensors` with its card;
- of the evaluation: `metrics.csv`, or of another set's `metrics-NAME-DIGEST.csv`;
- `report.html`: the notebook `own_network.ipynb` about it.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from filelock import FileLock, Timeout
from nbconvert import HTMLExporter
from pydantic import BaseModel, FiniteFloat, NonNegativeInt
from torch import Tensor

from ..data.images import ImageSet, evaluation_images, evaluation_twins, load_images
from ..data.noise import GAUSSIAN, Noise
from ..data.photographs import identity_of, set_named
from ..deploy.weights import Network, card_path, load_network
from ..errors import InputError, in_file
from ..latency.measure import device_named
from ..latency.table import Conditions, Table, load_table
from ..models import count_flops, count_parameters
from ..nas.lut import predicted_ms
from ..nas.networks import IMAGE_CHANNELS, NETWORKS, build_network
from ..nas.space import load_architecture, save_architecture
from ..options import SearchOptions, TrainOptions
from ..paths import notebooks_dir, shown, write_atomic
from ..training import evaluate as evaluate_images
from .derivation import fitted
from .kinds import Derivation, Run, Search
from .notebooks import OWN_NETWORK, execute
from .own_runs import search_run, training_of
from .publish import ship_run
from .records import derivation_row, search_row
from .runs import obtain
from .stats import bootstrap, of_share
from .store import architecture_of, folder_of, run_named, to_csv
from .tasks import noise_met

RECORD, ARCHITECTURE, EPOCHS = "search.json", "architecture.json", "search.csv"
WEIGHTS, METRICS, REPORT = "weights.safetensors", "metrics.csv", "report.html"
PRINTED = ["sigma", "noisy_psnr", "psnr", "ssim", "accuracy"]
MEASURED = ["measured_ms", "noise_ms", "error_pct", "first_error_pct", "repairs"]
STYLE = "body { font: 15px/1.5 system-ui; max-width: 60rem; margin: auto } img { max-width: 100% }"


class Record(BaseModel):
    """A search's network and its latency in ms, by the table and, if it was measured, on the device."""

    format: Literal[1] = 1
    run: str
    network: Literal[NETWORKS]
    data: str
    noise: dict[str, float | bool] = {}  # what `Noise` takes, if it is not the paper's
    target_ms: FiniteFloat
    predicted_ms: FiniteFloat
    measured_ms: FiniteFloat | None = None
    noise_ms: FiniteFloat | None = None
    error_pct: FiniteFloat | None = None  # of the target
    first_error_pct: FiniteFloat | None = None  # before repairs
    repairs: NonNegativeInt | None = None
    parameters: NonNegativeInt
    flops: NonNegativeInt
    verdict: str
    reason: str
    conditions: Conditions
    table_error_pct: FiniteFloat | None


def search(options: SearchOptions) -> Record:
    """Search, measure and repair, and write the network to the folder `out`; `InputError` if it has
    another's.
    """
    run = checked(options)
    with alone_in(options.out, wait=False):
        return _search(options, run, load_table(options.lut))


def checked(options: SearchOptions) -> Search:
    """The search of the options; `InputError` if it cannot be made, or not be measured here."""
    if options.measure:
        device_named(load_table(options.lut).conditions.device)
    return search_run(options, options.target_ms)


def _search(options: SearchOptions, run: Search, table: Table) -> Record:
    out = options.out
    if (out / RECORD).exists() and (known := read_record(out)).run != run.name:
        settings = f"target {known.target_ms:g} ms, {known.data}, or other settings"
        raise InputError(f"{shown(out)} holds another search ({settings}); name another folder.")
    obtain(run, device=options.device)
    network, measured, end = run.with_target(options.target_ms).network, {}, search_row(run)
    if options.measure:
        derivation = Derivation(run, network, options.target_ms)
        obtain(derivation, device=options.device)
        measured = {name: derivation_row(derivation)[name] for name in MEASURED}
        architecture = architecture_of(derivation)
    else:
        architecture = fitted(run, network, options.target_ms)
    with torch.random.fork_rng():
        model = build_network(network, architecture)
    side = architecture.space.resolution
    sizes = {"parameters": count_parameters(model)}
    sizes |= {"flops": count_flops(model, torch.zeros(1, IMAGE_CHANNELS, side, side))}
    judged = {name: end[name] for name in ("target_ms", "verdict", "reason")} | measured | sizes
    told = {"predicted_ms": predicted_ms(table, architecture, network), "conditions": table.conditions}
    told |= {"data": run.photos["data"], "table_error_pct": table.correction.error_pct}
    told |= {"noise": run.photos.get("noise", {})}
    record = Record(run=run.name, network=network, **judged, **told)
    if (out / ARCHITECTURE).exists() and load_architecture(out / ARCHITECTURE) != architecture:
        # they are of another network
        for path in (out / WEIGHTS, card_path(out / WEIGHTS), out / METRICS):
            path.unlink(missing_ok=True)
    save_architecture(architecture, out / ARCHITECTURE)
    write_atomic(out / EPOCHS, (folder_of(run) / "epochs.csv").read_text())
    write_atomic(out / RECORD, record.model_dump_json(indent=1) + "\n")
    return record


@contextmanager
def alone_in(folder: Path, wait: bool) -> Iterator[None]:
    """The folder, made where it is missing, for this process alone; `InputError` where another has it,
    unless it is to `wait`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        text = f"another search is at work in {shown(folder)}; wait for it, or name another folder."
        raise InputError(text) from None
    try:
        yield
    finally:
        lock.release()


def read_record(folder: Path) -> Record:
    """The record of the folder's search; `InputError` where it is not sound."""
    with in_file(folder / RECORD):
        return Record.model_validate_json((folder / RECORD).read_bytes())


def table_of(record: Record) -> Table | None:
    """The table of the folder's search, if search and table are still here."""
    try:
        table = load_table(Path(run_named(record.run).table))
    except InputError:
        return None
    return table if table.conditions == record.conditions else None


def train(options: TrainOptions) -> pd.DataFrame:
    """Train the folder's architecture, write its weights with their card, and judge it (`judge`)."""
    folder, network, data = options.folder, options.network, options.data
    if network is None or data is None:
        record = read_record(folder)
        network, data = network or record.network, data or record.data
        if options.noise is None and record.noise:
            sigma, gain = record.noise["sigma"], record.noise["gain"]
            kind = "poisson-gaussian" if gain else None  # pairs have neither
            options = replace(options, noise=kind, noise_sigma=sigma, noise_gain=gain)
    run = training_run(options, network, set_named(data))
    obtain(run, device=options.device)
    command = (
        f"dcnas train DIR --network {network} --data {run.data['data']} --decoder '{options.decoder}'"
    )
    command += f" --batch {run.batch} --seed {run.seed}{'' if options.noisy else ' --no-noisy'}"
    command += f" --steps {run.train.steps} --noise-sigma {options.noise_sigma:g}"
    if options.noise_gain:
        command += f" --noise poisson-gaussian --noise-gain {options.noise_gain:g}"
    more = dict(half=False, noisy=options.noisy, noise=run.data.get("noise", {}))
    more |= {"judged": options.judged} if options.judged else {}
    with alone_in(folder, wait=True):  # weights, card and metrics of one training
        ship_run(run, folder / WEIGHTS, command, **more)
        return evaluate(folder)[0]


def training_run(options: TrainOptions, network: str, data: str) -> Run:
    """The training of the folder's architecture on a reader's own images."""
    architecture = load_architecture(options.folder / ARCHITECTURE)
    net = dict(kind=network, architecture=json.loads(architecture.to_json()), decoder=options.decoder)
    label = f"own {network}, {hashlib.sha256(identity_of(data).encode()).hexdigest()[:8]}"
    run = training_of(net, label, data, architecture.space.resolution, options, options.steps)
    return replace(run, eval_images=min(run.eval_images, options.judged or run.eval_images))


def evaluate(folder: Path, data: str | None = None) -> tuple[pd.DataFrame, Path]:
    """Judge the folder's network on the test part of what it was trained on, or on all images of another
    set.

    Metrics as `judge` gives them, and the file that they are in: `metrics.csv`, or another set's own.
    """
    network, path = load_network(str(folder / WEIGHTS)), folder / METRICS
    known = network.card["data"]
    data = known if data is None else set_named(data)
    images = images_for(network, data)
    if data == known and (judged := network.card.get("judged")):
        rows = images.rows["test"]
        few = rows[:: max(1, len(rows) // judged)][:judged]
        images = replace(images, rows=images.rows | {"test": few})
    if data != known:
        images = replace(images, rows={"test": torch.arange(len(images.labels))})
        digest = hashlib.sha256(data.encode()).hexdigest()[:8]  # two sets may have folders of one name
        path = folder / f"metrics-{Path(data.removeprefix('folder:')).name}-{digest}.csv"
    metrics = judge(network, images)
    return metrics, write_atomic(path, to_csv(metrics.to_dict("records")))


def images_for(network: Network, data: str) -> ImageSet:
    """A set at the network's resolution, labelled as the network counts classes; `InputError` if it has
    others.
    """
    images, knows = load_images(data, network.card["resolution"]), network.classes
    # a set that names its classes by numbers is the same one by words
    same = data == network.card["data"] and not data.startswith("folder:")
    if not knows or same or images.classes == knows:
        return images
    if not images.classes or not set(images.classes) <= set(knows):
        classes = f"{data} has the classes {', '.join(images.classes) or '(none)'}"
        raise InputError(f"{classes}, but the network knows {', '.join(knows)}.")
    places = torch.tensor([knows.index(name) for name in images.classes])
    return replace(images, classes=knows, labels=places[images.labels])


def judge(network: Network, images: ImageSet) -> pd.DataFrame:
    """A row per noise level: PSNR (dB) of noisy images; PSNR, SSIM, accuracy (%) with 95% intervals."""
    size, noise = network.card["resolution"], Noise(**network.card.get("noise", {}))
    before = per_image(lambda x: (x, None), images, size, noise)["psnr"]
    sigmas = met(images, size, noise)[2]
    head = pd.DataFrame(
        {"sigma": sigmas, "images": before.shape[1], "noisy_psnr": before.mean(1).tolist()}
    )
    return head.join(intervals(per_image(network.answer, images, size, noise), shares=["accuracy"]))


def met(images: ImageSet, resolution: int, noise: Noise = GAUSSIAN) -> tuple:
    """The test images (N, 3, H, W), their labels, sigmas, and `noisy(ids, sigma)`."""
    views, labels = evaluation_images(images, "test", resolution)
    return views, labels, *noise_met(views, noise, evaluation_twins(images, "test", resolution))


def per_image(
    answer: Callable, images: ImageSet, resolution: int, noise: Noise = GAUSSIAN
) -> dict[str, Tensor]:
    """psnr (dB), ssim, accuracy (%) of each test image at each noise level: (sigmas, images), of
    `answer(noisy)`.
    """
    views, labels, sigmas, noisy = met(images, resolution, noise)
    boxes = torch.zeros(len(views), 1, 4)
    metrics = evaluate_images(lambda x, _: answer(x), views, boxes, labels, noisy, sigmas, progress=True)
    if "correct" in metrics:
        metrics["accuracy"] = 100 * metrics.pop("correct").flatten(1)
    return metrics


def intervals(metrics: dict[str, Tensor], shares: Sequence[str] = ()) -> pd.DataFrame:
    """Means over images with 95% intervals, a row per noise level: the columns NAME, NAME_low and
    NAME_high. Of `shares`, whose values are 0 or 100, the interval is Wilson's.
    """
    frames = []
    for name, values in metrics.items():
        of_level = of_share if name in shares else lambda level: bootstrap(level[None])
        levels = [of_level(level.double().numpy()) for level in values]
        columns = [name, f"{name}_low", f"{name}_high"]
        frames.append(pd.DataFrame([(i.mean, i.low, i.high) for i in levels], columns=columns))
    return pd.concat(frames, axis=1)


def write_report(folder: Path) -> Path:
    """`report.html`: the notebook about the folder, without its code."""
    with tempfile.TemporaryDirectory() as place:
        done, parameters = Path(place) / OWN_NETWORK, {"folder": str(folder.resolve())}
        execute(notebooks_dir() / OWN_NETWORK, done, parameters, progress=False)
        without = {"exclude_input": True, "exclude_output_prompt": True, "exclude_anchor_links": True}
        exporter = HTMLExporter(template_name="basic", **without)
        body, _ = exporter.from_filename(str(done))
    head = f'<html lang="en"><meta charset="utf-8"><title>{folder.name}</title><style>{STYLE}</style>'
    return write_atomic(folder / REPORT, f"<!doctype html>\n{head}\n<body>{body}</body></html>\n")
