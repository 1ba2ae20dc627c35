"""How the run store carries out searches, derivations and trainings of Section 4, and how their records are read."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from ..data.images import evaluation_images, make_image_draw, stored_side
from ..data.noise import SIGMAS, degrade
from ..errors import InputError, require_choice
from ..latency.measure import Latency, device_named, measure_many
from ..latency.table import Table, load_table
from ..models import UNETS, count_parameters
from ..nas.derive import fit_widths, repair
from ..nas.lut import predicted_ms
from ..nas.networks import IMAGE_CHANNELS, MANUAL, NETWORKS, OnlyClassifies, build_manual, build_network
from ..nas.random_search import run_random_search
from ..nas.search import run_search
from ..nas.settings import SearchSettings
from ..nas.space import Architecture, Space, from_record, load_architecture, random_architecture, save_architecture, widened
from ..paths import published_dir, write_atomic
from ..reading import read_record
from ..seed import generator, set_seed
from ..training import Batch, Settings, Trainer, evaluate, fit, parallel, summarise, validation
from ..training import checkpoint as checkpoints
from ..training.losses import CE_WEIGHT, SSIM_WEIGHT, denoising_loss
from .runs import (
    SAMPLE_SIGMAS,
    SAMPLES,
    bank_noisy,
    finish,
    folder_of,
    hold,
    is_complete,
    needs,
    obtain,
    perform,
    to_csv,
    trained_before,
    write_per_image,
    write_trained,
)
from .section4 import Derivation, Search, Training, images_of, scale4, table_file

LABEL_SMOOTHING = 0.1  # "smooth cross-entropy" (Section 4), 0.1 in [16]
TABLE_LIMIT_PCT = 5.0  # a search refuses a table that is worse, unless told otherwise
HELD_OUT, HELD_OUT_BATCH = 900, 100  # test images, as many of every class, that a supernet is looked at with after each epoch
REFERENCES = 8
BUSY = 1.5  # times as slow as on the day of the table: something else runs
TORCHVISION = ("ResNet-18", "MobileNetV2")


# ---- networks of a run


def published_architectures() -> dict[str, dict]:
    """Run to the record of the architecture that it ended in, of all published searches and derivations."""
    path = published_dir() / "section4_architectures.json"
    return read_record(path, ()) if path.exists() else {}


def found_by(run: Search | Derivation) -> Architecture:
    """The architecture that a search or a derivation ended in: from its folder, or the published one."""
    path, published = folder_of(run) / "architecture.json", published_architectures()
    return from_record(published[run.name]) if run.name in published and not path.exists() else load_architecture(path)


def architecture_of(experiment: Training) -> Architecture:
    """The architecture of a training's derivation; widened, if it is upscaled. Or the one that is given in its stead."""
    if experiment.architecture is not None:
        return from_record(json.loads(experiment.architecture))
    found = found_by(experiment.derivation)
    return found if experiment.upscaled == 1 else widened(found, found.space.width * experiment.upscaled)


def build_of(experiment: Training, architecture: Architecture | None = None) -> nn.Module:
    """The network of a training, with fresh weights from torch's global seed; of `architecture` instead of its own, if given."""
    regular = dict(dropout=experiment.dropout, drop_connect=experiment.drop_connect)
    classes, name = len(images_of(experiment).classes), experiment.network
    if experiment.architecture is not None and architecture_of(experiment).space.classes != classes:
        raise InputError(
            f"the architecture is for {architecture_of(experiment).space.classes} classes, but {experiment.data} has {classes}."
        )
    require_choice("network", name, (*NETWORKS, *MANUAL, *TORCHVISION))
    if architecture is None and (experiment.derivation is not None or experiment.architecture is not None):
        architecture = architecture_of(experiment)
    if name in NETWORKS:
        return build_network(name, architecture, experiment.decoder, **({} if name == "D-NAS" else regular))
    if name in MANUAL:
        return build_manual(name, unet_of(experiment), classes, architecture, **regular)
    from torchvision.models import mobilenet_v2, resnet18  # here, because they take a second to import

    return OnlyClassifies((resnet18 if name == "ResNet-18" else mobilenet_v2)(num_classes=classes))


def unet_of(experiment: Training) -> dict:
    """Hyper-parameters of the UNet of a training of `MANUAL`."""
    return UNETS["reduced"] | dict(b=experiment.b) | (dict(d=5, m=2) if experiment.large else {})


def differs(scale: str) -> str:
    """What searches and trainings of a scale of Section 4 do otherwise than the paper, or where it gives no number, in a phrase."""
    s, noise = scale4(scale), []
    parts = [] if s.optimiser == "sgd" else [f"networks trained with {s.optimiser.capitalize()} instead of SGD"]
    parts += [] if s.regularised else ["without dropout and drop-connect"]
    if stored_side(s.data, s.resolution) == s.resolution:
        parts.append("images flipped and shifted, without random resized crops")
    parts.append(f"label smoothing {LABEL_SMOOTHING:g} where networks classify, none in searches")
    if s.noisy_lr != SearchSettings.lr:
        noise.append(f"supernets on noisy images learn with {s.noisy_lr:g} instead of {SearchSettings.lr:g}")
    if s.data == "solar":
        noise.append("grey images in three channels with noise of their own, so that their mean has noise of sigma / 1.73")
    return "; ".join([", ".join(parts), *noise])


def image_loss(output: tuple[Tensor | None, Tensor | None], batch: Batch) -> Tensor:
    """Smooth cross entropy, Charbonnier with SSIM, or both as in Eq. 1, by what the network gives."""
    denoised, logits = output
    losses = []
    if logits is not None:
        entropy = F.cross_entropy(logits.float(), batch.labels, label_smoothing=LABEL_SMOOTHING)
        losses.append(entropy if denoised is None else CE_WEIGHT * entropy)
    if denoised is not None:
        loss = denoising_loss(denoised.float(), batch.clean, SSIM_WEIGHT)
        losses.append(loss if logits is None else (1 - CE_WEIGHT) * loss)
    return sum(losses)


def batches_of(
    experiment: Search | Training, parts: Sequence[str], stream_name: str, device: torch.device
) -> Callable[[int], Batch]:
    """`draw(step)`: the training batches of a run."""
    draw = make_image_draw(
        images_of(experiment), parts, experiment.resolution, experiment.batch, experiment.seed, noisy=experiment.noisy,
        stream_name=stream_name, device=device,
    )  # fmt: skip

    def batch(step: int) -> Batch:
        clean, noisy, labels = draw(step)
        return Batch(clean, noisy, None, labels)

    return batch


def held_out_batches(experiment: Search, device: torch.device) -> list[Batch]:
    """Test images that show whether a supernet has learned; noisy ones, of all sigmas alike, where it is searched on noisy ones."""
    views, labels = evaluation_images(images_of(experiment), "test", experiment.resolution)
    names = labels[:, 0].unique()
    few = torch.cat([torch.nonzero(labels[:, 0] == name)[: HELD_OUT // len(names), 0] for name in names]).sort().values
    views, labels = views[few], labels[few]
    stream, batches = generator("held out", experiment.seed), []
    for some, names in zip(views.split(HELD_OUT_BATCH), labels[:, 0].split(HELD_OUT_BATCH), strict=True):
        clean = (some / 255).contiguous(memory_format=torch.channels_last)
        noisy = clean
        if experiment.noisy:
            sigmas, noise = torch.rand(len(clean), generator=stream), torch.randn(clean.shape, generator=stream)
            noisy = degrade(clean, sigmas, noise).contiguous(memory_format=torch.channels_last)
        batches.append(Batch(clean.to(device), noisy.to(device), None, names.to(device)))
    return batches


# ---- latencies in the table's milliseconds


def latencies_by_table(
    models: Mapping[str, nn.Module], table: Table, *, rounds: int, passes: int = 1, progress: bool = False
) -> tuple[dict[str, Latency], float]:
    """Networks measured under the table's conditions, and how slow the device is: 1 as on the day of the table, 2 half as fast.

    All take turns, so that other load and clock rates, which come and go in seconds, hit all alike; random networks whose latency
    the table knows run among them, and the slowdown is theirs.
    """
    c = table.conditions
    device, image = device_named(c.device), torch.rand(c.batch, IMAGE_CHANNELS, c.resolution, c.resolution)
    space = Space(4, c.resolution, 2, c.width, c.strides)
    known = {f"reference {n}": random_architecture(space, np.random.default_rng([REFERENCES, n])) for n in range(REFERENCES)}
    with torch.random.fork_rng():
        run = dict(models) | {name: build_network("C-NAS", architecture) for name, architecture in known.items()}
    found = measure_many(
        {name: (model, (image,)) for name, model in run.items()}, rounds=rounds, warmup=1, passes=passes, threads=c.threads,
        device=device, progress=progress, unsynchronised=device.type != "cpu",
    )  # fmt: skip
    slowdown = float(np.median([found[name].median_ms / predicted_ms(table, a) for name, a in known.items()]))
    return {name: found[name] for name in models}, slowdown


# ---- carrying out


@needs.register
def _(experiment: Search) -> None:
    return None


@needs.register
def _(experiment: Derivation) -> Search | None:
    return None if experiment.search.name in published_architectures() else experiment.search


@needs.register
def _(experiment: Training) -> Derivation | None:
    derivation = experiment.derivation
    return None if derivation is None or derivation.name in published_architectures() else derivation


@perform.register
def _(experiment: Search, folder: Path, device: torch.device, progress: bool, deadline: float | None, checkpoint_s: float) -> bool:
    if not parallel.is_first():
        return True
    table = load_table(table_file(experiment))
    table.require(resolution=experiment.resolution, width=experiment.width, strides=experiment.strides)
    if experiment.scale not in ("smoke", "own"):  # a tiny table need not be good; a reader's own is checked with their limit
        table.require_accuracy(TABLE_LIMIT_PCT)
    draws = [batches_of(experiment, [part], f"search {part}", device) for part in ("weights", "alphas")]
    how = dict(device=device, progress=progress, deadline=deadline, label=experiment.title)
    if experiment.random_networks:
        images = len(images_of(experiment).rows["alphas"])
        validate = [draws[1](step) for step in range(images // experiment.batch)]  # an epoch: each image once
        sizes = dict(networks=experiment.random_networks, steps=experiment.random_steps)
        found = run_random_search(experiment.space, table, experiment.settings, draws[0], validate, folder, **sizes, **how)
    else:
        held_out = held_out_batches(experiment, device)
        found = run_search(
            experiment.space, table, experiment.settings, *draws, folder, held_out=held_out, checkpoint_s=checkpoint_s, **how
        )  # fmt: skip
    if found is None:
        return False
    write_atomic(folder / "epochs.csv", found.epochs.to_csv(index=False, lineterminator="\n"))
    write_atomic(folder / "alphas.csv", found.alphas.to_csv(index=False, lineterminator="\n"))
    save_architecture(found.architecture, folder / "architecture.json")
    row = {
        "target_ms": experiment.target_ms, "predicted_ms": predicted_ms(table, found.architecture, experiment.settings.network),
        "verdict": found.verdict.word, "reason": found.verdict.reason,
    }  # fmt: skip
    finish(folder, device, [row], {})
    checkpoints.remove(folder)
    return True


@perform.register
def _(
    experiment: Derivation, folder: Path, device: torch.device, progress: bool, deadline: float | None, checkpoint_s: float
) -> bool:
    if parallel.is_first():
        _derive([experiment], progress)
    return True


def derive(experiments: Sequence[Derivation], *, device: str = "cpu", progress: bool = True) -> None:
    """Complete derivations together, after the searches that they need: measured side by side they disturb each other alike.

    `device` is for the searches; networks are measured on the device of their table.
    """
    todo = sorted({e.name: e for e in experiments if not is_complete(e)}.values(), key=lambda e: e.name)
    for needed in filter(None, map(needs, todo)):
        obtain(needed, device=device, progress=progress)
    with ExitStack() as locks:
        for experiment in todo:  # in the order of their names, so that two processes do not wait for each other
            locks.enter_context(hold(experiment))
        todo = [e for e in todo if not is_complete(e)]
        for _, group in groupby(sorted(todo, key=_table_of), key=_table_of):
            _derive(list(group), progress)


def _table_of(experiment: Derivation) -> Path:
    return table_file(experiment.search)


def _derive(experiments: Sequence[Derivation], progress: bool) -> None:
    """Fit, measure, repair and measure again what searches, or chance, have given; all of one table."""
    table, by_name = load_table(_table_of(experiments[0])), {e.name: e for e in experiments}
    targets = {name: e.target_ms for name, e in by_name.items()}
    predict = {name: partial(predicted_ms, table, network=e.network) for name, e in by_name.items()}
    starts = {name: fit_widths(_start(e), targets[name], predict[name]) for name, e in by_name.items()}

    def measure(architectures: Mapping[str, Architecture]) -> dict[str, tuple[float, float]]:
        models = {name: build_network(by_name[name].network, a) for name, a in architectures.items()}
        found, slowdown = latencies_by_table(models, table, rounds=experiments[0].rounds, progress=progress)
        if slowdown > BUSY:
            warnings.warn(
                f"{table.conditions.device} takes {slowdown:.1f} times as long as on the day of the look-up table: does "
                "anything else run? Measurements under load are slow and noisy.", stacklevel=2,
            )  # fmt: skip
        return {name: (f.median_ms / slowdown, 1.96 * f.median_error_ms / slowdown) for name, f in found.items()}

    repaired, rows = repair(starts, targets, predict, measure)
    for name, (ms, noise) in measure(repaired).items():  # anew: what was chosen for its measurement would be flattered by it
        folder, target = folder_of(by_name[name]), targets[name]
        save_architecture(repaired[name], folder / "architecture.json")
        write_atomic(folder / "derivation.csv", to_csv(rows[name]))
        found = {"target_ms": target, "predicted_ms": predict[name](repaired[name]), "measured_ms": ms, "noise_ms": noise}
        found |= {"error_pct": 100 * (ms / target - 1), "first_error_pct": rows[name][0]["error_pct"]}
        found |= {"repairs": len({row["predicted_ms"] for row in rows[name]}) - 1}
        finish(folder, device_named(table.conditions.device), [found], {})


def _start(experiment: Derivation) -> Architecture:
    if experiment.random_seed is None:
        return found_by(experiment.search)
    return random_architecture(experiment.search.space, np.random.default_rng(experiment.random_seed))


@perform.register
def _(
    experiment: Training, folder: Path, device: torch.device, progress: bool, deadline: float | None, checkpoint_s: float
) -> bool:
    set_seed(experiment.seed)
    model = build_of(experiment)
    if not trained_before(model, folder, device):
        draw = batches_of(experiment, ["weights", "alphas"], "training", device)
        fixed = draw(-1)  # training images, augmented once: the curve of the same batch from end to end

        def loss(net: nn.Module, batch: Batch) -> Tensor:
            return image_loss(net(batch.noisy), batch)

        history = fit(
            Trainer(model, loss, Settings.of(experiment), device), draw, validation(loss, fixed), folder, label=experiment.title,
            progress=progress, checkpoint_s=checkpoint_s, deadline=deadline,
        )  # fmt: skip
        if history is None:
            return False
        write_trained(model, history, folder)
    if not parallel.is_first():
        return True
    found = evaluate_network(model.eval(), experiment, device, progress)
    write_per_image(found, folder)
    if "psnr" in found:
        write_atomic(folder / "samples.safetensors", save({"denoised": outputs_of(model, experiment, device)}))
    _, labels = evaluation_images(images_of(experiment), "test", experiment.resolution, experiment.eval_images)
    finish(folder, device, summarise(found, SIGMAS, labels), {"parameters": count_parameters(model)})
    checkpoints.remove(folder)
    return True


def outputs_of(model: nn.Module, experiment: Training, device: torch.device) -> Tensor:
    """The denoised first test images at `SAMPLE_SIGMAS`: uint8 (sigmas, images, 3, H, W)."""
    views, _ = evaluation_images(images_of(experiment), "test", experiment.resolution, SAMPLES)
    noisy, ids = bank_noisy(views), range(len(views))
    with torch.inference_mode():
        found = [model(noisy(ids, sigma).to(device))[0].float().clamp(0, 1).cpu() for sigma in SAMPLE_SIGMAS]
    return (torch.stack(found) * 255).round().to(torch.uint8).contiguous()


def evaluate_network(model: nn.Module, experiment: Training, device: torch.device, progress: bool) -> dict[str, Tensor]:
    """Metrics of each test image at eleven noise levels, with the noise that every network meets."""
    views, labels = evaluation_images(images_of(experiment), "test", experiment.resolution, experiment.eval_images)

    def answer(images: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None]:
        denoised, logits = model(images.contiguous(memory_format=torch.channels_last))
        return denoised, None if logits is None else logits[:, None]

    boxes = torch.zeros(len(views), 1, 4)
    return evaluate(answer, views, boxes, labels, bank_noisy(views), SIGMAS, device=device, progress=progress)
