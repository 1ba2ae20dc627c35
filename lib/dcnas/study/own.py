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
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from nbconvert import HTMLExporter
from pydantic import BaseModel, FiniteFloat, NonNegativeInt
from torch import Tensor

from ..data.images import ImageSet, evaluation_images, load_images
from ..data.noise import SIGMAS
from ..data.photographs import identity_of, set_named
from ..deploy.weights import Network, card_path, load_network
from ..errors import InputError, in_file
from ..latency.measure import device_named
from ..latency.table import Conditions, load_table
from ..models import count_flops, count_parameters
from ..nas.lut import predicted_ms, space_of
from ..nas.networks import IMAGE_CHANNELS, NETWORKS, build_network
from ..nas.settings import check_target
from ..nas.space import load_architecture, save_architecture
from ..options import SearchOptions, TrainOptions
from ..paths import notebooks_dir, shown, write_atomic
from ..training import evaluate as evaluate_images
from .kinds import Derivation, Run, Search
from .notebooks import OWN_NETWORK, execute
from .publish import ship_run
from .records import derivation_row, search_row
from .runs import obtain
from .scales import SCALE
from .stats import bootstrap, of_share
from .store import architecture_of, folder_of, to_csv
from .tasks import bank_noisy

TEMPERATURE_FALL = 0.04  # of the Gumbel softmax over a whole search: 0.96 to the power of 80 epochs [16]
SETTINGS = (
    "epochs",
    "steps_per_epoch",
    "alpha_lr",
    "learn_beta",
    "elasticity",
    "loss",
    "alpha_gradient",
    "rebuild_optimisers",
)

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
    table, out = load_table(options.lut).require_accuracy(options.table_limit_pct), options.out
    if options.measure:
        device_named(table.conditions.device)
    run = search_run(options)
    if (out / RECORD).exists() and (known := read_record(out)).run != run.name:
        settings = f"target {known.target_ms:g} ms, {known.data}, or other settings"
        raise InputError(f"{shown(out)} holds another search ({settings}); name another folder.")
    out.mkdir(parents=True, exist_ok=True)
    obtain(run, device=options.device)
    network, measured, source = run.with_target(options.target_ms).network, {}, run
    if options.measure:
        source = Derivation(run, network, options.target_ms)
        obtain(source, device=options.device)
        measured = {name: derivation_row(source)[name] for name in MEASURED}
    architecture, end = architecture_of(source), search_row(run)
    with torch.random.fork_rng():
        model = build_network(network, architecture)
    side = architecture.space.resolution
    sizes = {"parameters": count_parameters(model)}
    sizes |= {"flops": count_flops(model, torch.zeros(1, IMAGE_CHANNELS, side, side))}
    judged = {name: end[name] for name in ("target_ms", "verdict", "reason")} | measured | sizes
    told = {"predicted_ms": predicted_ms(table, architecture, network), "conditions": table.conditions}
    told |= {"data": run.photos["data"], "table_error_pct": table.correction.error_pct}
    record = Record(run=run.name, network=network, **judged, **told)
    if (out / ARCHITECTURE).exists() and load_architecture(out / ARCHITECTURE) != architecture:
        # they are of another network
        for path in (out / WEIGHTS, card_path(out / WEIGHTS), out / METRICS):
            path.unlink(missing_ok=True)
    save_architecture(architecture, out / ARCHITECTURE)
    write_atomic(out / EPOCHS, (folder_of(run) / "epochs.csv").read_text())
    write_atomic(out / RECORD, record.model_dump_json(indent=1) + "\n")
    return record


def search_run(options: SearchOptions) -> Search:
    """The search of the options, named after its table and images; `InputError` for a target out of
    reach.
    """
    if options.loss == "both" and not options.noisy:
        raise InputError(
            "loss is 'both', which denoises as well; without noise (--no-noisy) there is none."
        )
    table, data, epochs = load_table(options.lut), set_named(options.data), options.epochs
    c, weight_epochs = table.conditions, max(1, epochs // 5)
    decay = options.temperature_decay or TEMPERATURE_FALL ** (1 / (epochs - weight_epochs))
    digest = hashlib.sha256(options.lut.read_bytes() + identity_of(data).encode()).hexdigest()[:8]
    settings = {name: getattr(options, name) for name in SETTINGS}
    settings |= {"weight_epochs": weight_epochs, "temperature_decay": decay}
    run = Search(
        f"own search, {digest}",
        "own",
        options.seed,
        photos=dict(data=data, resolution=c.resolution, limit=None),
        width=c.width,
        strides=c.strides,
        operators=int(options.operators),
        target=options.target_ms,
        table=str(options.lut.resolve()),
        batch=options.batch,
        settings=settings,
        noisy=options.noisy,
        threads=_threads(options),
    )
    space = space_of(c, run.operators)
    check_target(space, table, run.with_target(options.target_ms))
    return run


def _threads(options: SearchOptions | TrainOptions) -> int:
    return options.threads or torch.get_num_threads()


def read_record(folder: Path) -> Record:
    """The record of the folder's search; `InputError` where it is not sound."""
    with in_file(folder / RECORD):
        return Record.model_validate_json((folder / RECORD).read_bytes())


def train(options: TrainOptions) -> pd.DataFrame:
    """Train the folder's architecture, write its weights with their card, and judge it (`judge`)."""
    folder, network, data = options.folder, options.network, options.data
    if network is None or data is None:
        record = read_record(folder)
        network, data = network or record.network, data or record.data
    run = training_run(options, network, set_named(data))
    obtain(run, device=options.device)
    command = (
        f"dcnas train DIR --network {network} --data {run.data['data']} --decoder '{options.decoder}'"
    )
    command += f" --batch {run.batch} --seed {run.seed}{'' if options.noisy else ' --no-noisy'}"
    ship_run(
        run, folder / WEIGHTS, f"{command} --steps {run.train.steps}", half=False, noisy=options.noisy
    )
    return evaluate(folder)[0]


def training_run(options: TrainOptions, network: str, data: str) -> Run:
    """The training of the folder's architecture on a reader's own images."""
    architecture = load_architecture(options.folder / ARCHITECTURE)
    label = f"own {network}, {hashlib.sha256(identity_of(data).encode()).hexdigest()[:8]}"
    net = dict(kind=network, architecture=json.loads(architecture.to_json()), decoder=options.decoder)
    photos = dict(data=data, resolution=architecture.space.resolution, limit=None, noisy=options.noisy)
    how = replace(SCALE["short"].train, steps=options.steps, epoch_steps=max(1, options.steps // 8))
    sizes = dict(batch=options.batch, eval_images=SCALE["short"].photos_eval, threads=_threads(options))
    return Run(label, "own", options.seed, "photographs", net, photos, how, **sizes)


def evaluate(folder: Path, data: str | None = None) -> tuple[pd.DataFrame, Path]:
    """Judge the folder's network on the test part of what it was trained on, or on all images of another
    set.

    Metrics as `judge` gives them, and the file that they are in: `metrics.csv`, or another set's own.
    """
    network, path = load_network(str(folder / WEIGHTS)), folder / METRICS
    known = network.card["data"]
    data = known if data is None else set_named(data)
    images = images_for(network, data)
    if data != known:
        images = replace(images, rows={"test": torch.arange(len(images.labels))})
        digest = hashlib.sha256(data.encode()).hexdigest()[:8]  # two sets may have folders of one name
        path = folder / f"metrics-{Path(data.removeprefix('folder:')).name}-{digest}.csv"
    metrics = judge(network, images)
    return metrics, write_atomic(path, to_csv(metrics.to_dict("records")))


def images_for(network: Network, data: str) -> ImageSet:
    """A set at the network's resolution; `InputError` if it has other classes."""
    images = load_images(data, network.card["resolution"])
    # a set that names its classes by numbers is the same one by words
    same = data == network.card["data"] and not data.startswith("folder:")
    if network.classes and images.classes != network.classes and not same:
        classes = f"{data} has the classes {', '.join(images.classes)}"
        raise InputError(f"{classes}, but the network knows {', '.join(network.classes)}.")
    return images


def judge(network: Network, images: ImageSet) -> pd.DataFrame:
    """A row per noise level: PSNR (dB) of noisy images; PSNR, SSIM, accuracy (%) with 95% intervals."""
    size = network.card["resolution"]
    before = per_image(lambda x: (x, None), images, size)["psnr"]
    head = pd.DataFrame(
        {"sigma": SIGMAS, "images": before.shape[1], "noisy_psnr": before.mean(1).tolist()}
    )
    return head.join(intervals(per_image(network.answer, images, size), shares=["accuracy"]))


def per_image(answer: Callable, images: ImageSet, resolution: int) -> dict[str, Tensor]:
    """psnr (dB), ssim, accuracy (%) of each test image at each noise level: (sigmas, images), of
    `answer(noisy)`.
    """
    views, labels = evaluation_images(images, "test", resolution)
    boxes, noisy = torch.zeros(len(views), 1, 4), bank_noisy(views)
    metrics = evaluate_images(lambda x, _: answer(x), views, boxes, labels, noisy, SIGMAS, progress=True)
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
