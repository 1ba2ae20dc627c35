"""Every search and every training of Section 4 as frozen experiments, and how the run store carries them out.

A search ends in an architecture fitted to its target by the look-up table. `derive` then measures it on the device and repairs it
where it misses, which must not happen while anything trains; a training takes what was derived.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from ..data.images import ImageSet, evaluation_images, load_images, make_image_draw
from ..data.noise import SIGMAS, NoiseBank, degrade
from ..errors import InputError, require_choice
from ..latency.measure import measure_many
from ..latency.table import Table, load_table
from ..models import UNETS, count_parameters
from ..nas.derive import fit_widths, repair
from ..nas.lut import build_table, predicted_ms, validate_table
from ..nas.networks import NETWORKS, ManualJoint, OnlyClassifies, OnlyDenoises, build_network
from ..nas.search import SearchSettings, latency_range_ms, run_search
from ..nas.space import Architecture, Space, load_architecture, random_architecture, save_architecture, widened
from ..paths import latency_dir, runs_dir, shown, write_atomic
from ..seed import set_seed
from ..training import Batch, Settings, Trainer, evaluate, fit, summarise
from ..training import checkpoint as checkpoints
from ..training.losses import CE_WEIGHT, SSIM_WEIGHT, denoising_loss
from .experiments import Named
from .runs import contiguous, finish, folder_of, needs, perform, read_tensors, to_csv

LABEL_SMOOTHING = 0.1  # "smooth cross-entropy" (Section 4), 0.1 in [16]
DROPOUT = DROP_CONNECT = 0.2  # [16]
OTHERS = ("DC-Net", "DC-Net_tail", "UNet Reduced", "UNet Large", "ResNet-18", "MobileNetV2")
TABLE_LIMIT_PCT = 5.0  # a search refuses a table that is worse


@dataclass(frozen=True)
class Scale4:
    """The sizes of Section 4 at one scale."""

    name: str
    data: str
    resolution: int
    width: float  # of the space
    limit: int | None  # images of a class; None: all
    search_batch: int
    epochs: int
    weight_epochs: int
    steps_per_epoch: int
    train_batch: int
    train_steps: int
    lr: float
    optimiser: str
    schedule: str
    precision: str
    eval_images: int
    seeds: int
    regularised: bool  # dropout and drop-connect, for long trainings
    large_b: int = 64  # of the large UNet (Table 4): b=64 d=5 m=2 c=2


SCALES4 = {
    "smoke": Scale4(
        "smoke", "solar", 32, 0.25, 24, search_batch=8, epochs=3, weight_epochs=1, steps_per_epoch=2, train_batch=8, train_steps=4,
        lr=4e-3, optimiser="adam", schedule="one-cycle", precision="fp32", eval_images=8, seeds=1, regularised=False, large_b=8,
    ),
    "laptop": Scale4(
        "laptop", "solar", 64, 1.0, None, search_batch=32, epochs=25, weight_epochs=5, steps_per_epoch=30, train_batch=32,
        train_steps=3_000, lr=4e-3, optimiser="adam", schedule="one-cycle", precision="fp32", eval_images=500, seeds=3,
        regularised=False,
    ),
    "paper": Scale4(
        "paper", "imagenet100", 224, 1.0, None, search_batch=32, epochs=90, weight_epochs=10, steps_per_epoch=3_192,
        train_batch=512, train_steps=62_250, lr=0.2, optimiser="sgd", schedule="cosine", precision="bf16", eval_images=5_000,
        seeds=3, regularised=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Search(Named):
    """A search, completely; equal ones give equal alphas on the same machine (CPU)."""

    label: str
    scale: str
    seed: int
    data: str
    resolution: int
    width: float
    limit: int | None
    batch: int
    operators: int
    target_ms: float
    table: str  # file in data/latency, or in the runs' folder at scale smoke
    epochs: int
    weight_epochs: int
    steps_per_epoch: int
    learn_beta: bool = False
    elasticity: bool = True
    noisy: bool = False
    loss: str = "ce"
    alpha_gradient: str = "all"
    rebuild_optimisers: bool = False
    threads: int = 1

    @property
    def title(self) -> str:
        return f"search: {self.label}, seed {self.seed}, {self.scale}"

    @property
    def space(self) -> Space:
        return Space(self.operators, self.resolution, len(images_of(self).classes), self.width)

    @property
    def settings(self) -> SearchSettings:
        names = ("epochs", "weight_epochs", "steps_per_epoch", "learn_beta", "elasticity", "loss", "alpha_gradient")
        values = {name: getattr(self, name) for name in names}
        return SearchSettings(self.target_ms, seed=self.seed, rebuild_optimisers=self.rebuild_optimisers, **values)


@dataclass(frozen=True)
class Training(Named):
    """A network of Section 4, trained and evaluated, completely."""

    label: str
    network: str  # one of NETWORKS, with an architecture, or of OTHERS
    scale: str
    seed: int
    data: str
    resolution: int
    limit: int | None
    steps: int
    batch: int
    epoch_steps: int
    lr: float
    optimiser: str
    schedule: str
    precision: str
    eval_images: int
    dropout: float
    drop_connect: float
    search: Search | None = None  # where the architecture comes from
    random_seed: int | None = None  # a random architecture of that search's space and target instead of its own
    upscaled: float = 1.0  # width multiplier after the derivation (Table 4)
    decoder: str = "conv"
    noisy: bool = True  # trained on noisy images; Section 4.1 trains classifiers on clean ones
    clip_norm: float | None = 5.0
    weight_decay: float = 1e-5
    channels_last: bool = True
    threads: int = 1

    @property
    def title(self) -> str:
        return f"{self.label}, seed {self.seed}, {self.scale}"


def scale4(name: str) -> Scale4:
    """The sizes of a scale that trains."""
    return SCALES4[require_choice("scale for training", name, tuple(SCALES4))]


@lru_cache(maxsize=4)
def _images(data: str, resolution: int, limit: int | None) -> ImageSet:
    return load_images(data, resolution, limit=limit)


def images_of(experiment: Search | Training) -> ImageSet:
    """The images of a run, decoded once."""
    return _images(experiment.data, experiment.resolution, experiment.limit)


# ---- tables


def table_path(scale: str, device: str = "cpu") -> Path:
    """Where the look-up table of a scale lies: committed in data/latency, but for smoke beside the runs."""
    folder = runs_dir() if scale == "smoke" else latency_dir()
    return folder / f"lut-{scale4(scale).resolution}px-{device}.json"


def obtain_table(scale: str, device: str = "cpu", *, progress: bool = True) -> Table:
    """The validated look-up table of a scale, of all eight operators. At scale smoke it is measured where it is missing."""
    path, sizes = table_path(scale, device), scale4(scale)
    if not path.exists() and scale != "smoke":
        raise InputError(
            f"{shown(path)} is missing; on a quiet machine run `dcnas lut build --resolution {sizes.resolution} --out "
            f"{shown(path)}` and `dcnas lut validate` on it."
        )
    if not path.exists():
        space = Space(8, sizes.resolution, 2, sizes.width)
        table = build_table(space, path, batch=4, device=device, rounds=2, progress=progress)
        frame, table = validate_table(table, space, device=device, rounds=2, progress=progress)
        write_atomic(path.with_suffix(".validation.csv"), frame.to_csv(index=False, lineterminator="\n"))
        table.save(path)
    return load_table(path)


TARGETS = {"S": 0.25, "M": 0.4, "L": 0.7}  # of the way from the fastest to the slowest network; the paper's 6, 8 and 12 ms


def target_ms(scale: str, size: str, device: str = "cpu") -> float:
    """The target latency "S", "M" or "L" on a device, in ms, to two decimals."""
    sizes = scale4(scale)
    low, high = latency_range_ms(Space(4, sizes.resolution, 2, sizes.width), obtain_table(scale, device))
    return round(low + TARGETS[require_choice("size", size, TARGETS)] * (high - low), 2)


# ---- the lists


def search(scale: str, seed: int, label: str, size: str = "M", operators: int = 4, **changes) -> Search:
    """A search of Section 4 with the sizes of a scale. With both losses the decoder's latency is added to the target."""
    s, target = scale4(scale), target_ms(scale, size)
    if changes.get("loss") == "both":
        table = obtain_table(scale)
        target = round(target + table.correction.scale * table.part_ms("decoder conv"), 2)
    found = Search(
        label, scale, seed, s.data, s.resolution, s.width, s.limit, s.search_batch, operators, target,
        table_path(scale).name, s.epochs, s.weight_epochs, s.steps_per_epoch,
    )  # fmt: skip
    return replace(found, **changes)


def training(scale: str, seed: int, label: str, network: str, **changes) -> Training:
    """A training of Section 4 with the sizes of a scale."""
    s = scale4(scale)
    regular = dict(dropout=DROPOUT, drop_connect=DROP_CONNECT) if s.regularised else dict(dropout=0.0, drop_connect=0.0)
    found = Training(
        label, network, scale, seed, s.data, s.resolution, s.limit, s.train_steps, s.train_batch, max(1, s.train_steps // 8), s.lr,
        s.optimiser, s.schedule, s.precision, s.eval_images, **regular,
    )  # fmt: skip
    return replace(found, **changes)


def _seeds(scale: str) -> range:
    return range(scale4(scale).seeds)


def beta_searches(scale: str) -> list[Search]:
    """Table 8 and Figure 5: beta removed and learned, at the small target, several seeds."""
    return [
        search(scale, seed, f"C-NAS S, beta {word}", "S", learn_beta=word == "learned")
        for seed in _seeds(scale) for word in ("removed", "learned")
    ]  # fmt: skip


def operator_searches(scale: str) -> list[Search]:
    """Figure 6: 4, 6 and 8 operators at three targets."""
    return [
        search(scale, 0, f"C-NAS {size}, {count} operators", size, count)
        if (size, count) != ("S", 4) else search(scale, 0, "C-NAS S, beta removed", "S")
        for size in TARGETS for count in (4, 6, 8)
    ]  # fmt: skip


def tfnas_search(scale: str) -> Search:
    """The original settings, which stand in for TF-NAS C: eight operators, beta learned, elasticity scaling."""
    return search(scale, 0, "TF-NAS settings M", "M", 8, learn_beta=True)


def gradient_searches(scale: str) -> list[Search]:
    """The cheaper gradient of the alphas against the faithful one."""
    labels = {"all": "C-NAS M, 4 operators", "two": "C-NAS M, two operators sampled"}
    return [
        search(scale, seed, labels[word], "M", alpha_gradient=word)
        for seed in _seeds(scale) for word in ("all", "two")
    ]  # fmt: skip


def noisy_searches(scale: str) -> dict[str, Search]:
    """Table 5: searches on noisy images, with the classification loss alone and with both."""
    return {
        "noisy": search(scale, 0, "noisy M", "M", noisy=True),
        "both": search(scale, 0, "noisy M, both losses", "M", noisy=True, loss="both"),
        "noisy S": search(scale, 0, "noisy S", "S", noisy=True),
    }


def searches(scale: str) -> list[Search]:
    """All searches of Section 4, each once: a seed of all before the next."""
    found = [
        *beta_searches(scale), *operator_searches(scale), tfnas_search(scale), *noisy_searches(scale).values(),
        *gradient_searches(scale),
    ]  # fmt: skip
    return sorted({e.name: e for e in found}.values(), key=lambda e: e.seed)


# ---- networks of a run


def architecture_of(experiment: Training) -> Architecture:
    """The architecture of a training: its search's, derived and measured; a random one of equal latency; or an upscaled one."""
    source = experiment.search
    if experiment.random_seed is not None:
        rng, table = np.random.default_rng(experiment.random_seed), load_table(table_path(source.scale))
        found = random_architecture(source.space, rng)
        return fit_widths(found, source.target_ms, lambda a: predicted_ms(table, a))
    found = load_architecture(folder_of(source) / "architecture.json")
    return found if experiment.upscaled == 1 else widened(found, found.space.width * experiment.upscaled)


def build_of(experiment: Training) -> nn.Module:
    """The network of a training, with fresh weights from torch's global seed."""
    regular = dict(dropout=experiment.dropout, drop_connect=experiment.drop_connect)
    classes = len(images_of(experiment).classes)
    if experiment.network in NETWORKS:
        extra = {} if experiment.network == "D-NAS" else regular
        return build_network(experiment.network, architecture_of(experiment), experiment.decoder, **extra)
    require_choice("network", experiment.network, OTHERS)
    if experiment.network == "DC-Net":
        return ManualJoint(classes)
    if experiment.network == "DC-Net_tail":
        return ManualJoint(classes, architecture_of(experiment), **regular)
    if experiment.network.startswith("UNet"):
        large = dict(b=scale4(experiment.scale).large_b, d=5, m=2, c=2)
        return OnlyDenoises(**(UNETS["reduced"] if experiment.network == "UNet Reduced" else large))
    from torchvision.models import mobilenet_v2, resnet18  # here, because they take a second to import

    return OnlyClassifies((resnet18 if experiment.network == "ResNet-18" else mobilenet_v2)(num_classes=classes))


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


# ---- carrying out


@needs.register
def _(experiment: Search) -> None:
    return None


@needs.register
def _(experiment: Training) -> Search | None:
    return experiment.search


@perform.register
def _(experiment: Search, folder: Path, device: torch.device, progress: bool, deadline: float | None, checkpoint_s: float) -> bool:
    table = load_table(table_path(experiment.scale, device.type))
    if experiment.scale != "smoke":
        table.require_accuracy(TABLE_LIMIT_PCT)
    data, space = images_of(experiment), experiment.space

    def draw(part: str) -> Callable[[int], Batch]:
        return make_image_draw(
            data, [part], experiment.resolution, experiment.batch, experiment.seed, noisy=experiment.noisy,
            stream_name=f"search {part}", device=device,
        )  # fmt: skip

    found = run_search(
        space, table, experiment.settings, draw("weights"), draw("alphas"), folder, device=device, progress=progress,
        deadline=deadline, checkpoint_s=checkpoint_s, label=experiment.title,
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
    experiment: Training, folder: Path, device: torch.device, progress: bool, deadline: float | None, checkpoint_s: float
) -> bool:
    set_seed(experiment.seed)
    model, data = build_of(experiment), images_of(experiment)
    weights = folder / "weights.safetensors"
    if weights.exists() and (folder / "history.csv").exists():
        model.load_state_dict(read_tensors(weights))
        model.to(device)
    else:
        draw = make_image_draw(
            data, ["weights", "alphas"], experiment.resolution, experiment.batch, experiment.seed, noisy=experiment.noisy,
            stream_name="training", device=device,
        )  # fmt: skip
        held_out = draw(-1)

        def loss(net: nn.Module, batch: Batch) -> Tensor:
            return image_loss(net(batch.noisy), batch)

        def validate(net: nn.Module) -> float:
            net.eval()
            with torch.no_grad():
                value = loss(net, held_out).item()
            net.train()
            return value

        history = fit(
            Trainer(model, loss, Settings.of(experiment), device), draw, validate, folder, label=experiment.title,
            progress=progress, checkpoint_s=checkpoint_s, deadline=deadline,
        )  # fmt: skip
        if history is None:
            return False
        write_atomic(folder / "history.csv", to_csv(history))
        write_atomic(weights, save(contiguous(model.state_dict())))
    found = evaluate_network(model.eval(), experiment, data, device, progress)
    compact = {name: t.to(torch.uint8) if t.dtype == torch.bool else t.half() for name, t in found.items()}
    write_atomic(folder / "per_image.safetensors", save(contiguous(compact)))
    finish(folder, device, summarise(found, SIGMAS), {"parameters": count_parameters(model)})
    checkpoints.remove(folder)
    return True


def evaluate_network(
    model: nn.Module, experiment: Training, data: ImageSet, device: torch.device, progress: bool
) -> dict[str, Tensor]:
    """Metrics of each test image at eleven noise levels, with the noise that every network meets."""
    views, labels = evaluation_images(data, "test", experiment.resolution, experiment.eval_images)
    bank = NoiseBank()

    def noisy(ids: range, sigma: float) -> Tensor:
        clean = views[ids.start : ids.stop] / 255
        return clean if sigma == 0 else degrade(clean, sigma, bank.noise(ids, sigma, clean.shape[1:]))

    def answer(images: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None]:
        denoised, logits = model(images.contiguous(memory_format=torch.channels_last))
        return denoised, None if logits is None else logits[:, None]

    boxes = torch.zeros(len(views), 1, 4)
    return evaluate(answer, views, boxes, labels, noisy, SIGMAS, device=device, progress=progress)


def derive(experiment: Search, *, device: str = "cpu", rounds: int = 5, passes: int = 3) -> list[dict]:
    """Measure a search's architecture on the device and repair it where it misses its target; a row per attempt.

    The architecture file of the run is replaced by the repaired one; `derivation.csv` beside it keeps the rows.
    """
    folder = folder_of(experiment)
    if not (folder / "metrics.csv").exists():
        raise InputError(f"{experiment.title} is not complete, so there is nothing to derive; `dcnas queue` makes it.")
    table, found = load_table(table_path(experiment.scale, device)), load_architecture(folder / "architecture.json")
    network, conditions = experiment.settings.network, table.conditions
    image = torch.rand(conditions.batch, 3, conditions.resolution, conditions.resolution)

    def measured(architecture: Architecture) -> tuple[float, float]:
        latency = measure_many(
            {"it": (build_network(network, architecture), (image,))}, rounds=rounds, warmup=1, passes=passes,
            threads=conditions.threads, device=device,
        )["it"]  # fmt: skip
        error = 1.96 * 1.2533 * latency.spread_ms / 1.349 / latency.passes**0.5  # of the median, from the quartiles
        return latency.median_ms, error

    repaired, rows = repair(found, experiment.target_ms, table, measured, network=network)
    save_architecture(repaired, folder / "architecture.json")
    write_atomic(folder / "derivation.csv", to_csv(rows))
    return rows


def read_search(experiment: Search) -> dict:
    """A complete search: its architecture, epochs and alphas as they lie in its folder, verdict and reason."""
    import pandas as pd

    folder = folder_of(experiment)
    try:
        row = pd.read_csv(folder / "metrics.csv").iloc[0].to_dict()
        frames = {name: pd.read_csv(folder / f"{name}.csv") for name in ("epochs", "alphas")}
    except FileNotFoundError as error:
        raise InputError(f"{experiment.title} is not complete: {shown(Path(error.filename))} is missing.") from None
    record = json.loads((folder / "provenance.json").read_text())
    return {"architecture": load_architecture(folder / "architecture.json"), **frames, **row, "provenance": record}
