"""Every search, derivation and training of Section 4 as frozen experiments. A run is named by the hash of its experiment.

A search ends in an architecture fitted to its target by the look-up table. A derivation measures it on the device and repairs it
where it misses, which must not happen while anything trains. A training takes what was derived. `section4_runs` carries them out.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from filelock import FileLock

from ..data.images import ImageSet, load_images
from ..errors import InputError, require_choice
from ..latency.table import Table, load_table
from ..nas.lut import build_table, validate_table
from ..nas.settings import SearchSettings, latency_range_ms
from ..nas.space import STRIDES, Space, strides_for
from ..paths import latency_dir, runs_dir, shown, write_atomic
from .experiments import Named

DROPOUT = DROP_CONNECT = 0.2  # [16]
OWN = "short"  # the scale whose sizes a reader's own searches and trainings take
TEMPERATURE_FALL = 0.04  # of the Gumbel softmax over a whole search: 0.96 to the power of 80 epochs [16]


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
    alpha_lr: float  # as in [16] at scale paper; larger where there are few steps
    temperature_decay: float  # per epoch; from 5 to 0.19 over the epochs that train alphas, as 80 epochs of 0.96 do
    train_batch: int
    train_steps: int
    lr: float
    optimiser: str
    schedule: str
    precision: str
    eval_images: int
    seeds: int
    regularised: bool  # dropout and drop-connect, for long trainings
    device: str = "cpu"  # that latencies are for; searches and trainings may run on another one
    equal_b: int = 8  # of a UNet and a DC-Net about as fast as D-NAS S and DC-NAS S: the reduced ones are, on the paper's device
    large_b: int = 64  # of the large UNet (Table 4): b=64 d=5 m=2 c=2
    upscaling: float = 4.0  # of the channels of D-NAS S, to be about as fast as the large UNet
    searches: str | None = None  # the scale whose searches and derivations its trainings take; None: its own
    strides: tuple[int, ...] = STRIDES  # of the space
    table: str = "lut-64px-cpu.json"  # the look-up table's file
    random_networks: int = 2  # that a random search trains and compares, and the optimiser's steps for each
    random_steps: int = 2
    noisy_lr: float = 0.02  # of a supernet's weights on noisy images
    more_seeds: int = 0  # of the searches with beta removed and learned, which Table 8 and Figure 5 compare


SCALES4 = {
    "smoke": Scale4(
        "smoke", "solar", 32, 0.25, 24, search_batch=8, epochs=3, weight_epochs=1, steps_per_epoch=2, alpha_lr=0.05,
        temperature_decay=0.2, train_batch=8, train_steps=4, lr=4e-3, optimiser="adam", schedule="one-cycle", precision="fp32",
        eval_images=8, seeds=1, regularised=False, large_b=12, upscaling=2.0,
    ),
    "short": Scale4(
        "short", "solar", 64, 1.0, None, search_batch=32, epochs=25, weight_epochs=5, steps_per_epoch=24, alpha_lr=0.07,
        temperature_decay=0.85, train_batch=32, train_steps=1_000, lr=4e-3, optimiser="adam", schedule="one-cycle",
        precision="fp32", eval_images=500, seeds=3, regularised=False, equal_b=16, large_b=24, upscaling=2.35,
    ),
    "laptop": Scale4(
        "laptop", "tiny-imagenet", 64, 0.5, None, search_batch=32, epochs=20, weight_epochs=8, steps_per_epoch=90, alpha_lr=0.07,
        temperature_decay=0.76, train_batch=32, train_steps=4_000, lr=4e-3, optimiser="adam", schedule="one-cycle",
        precision="fp32", eval_images=2_700, seeds=3, regularised=False, equal_b=16, large_b=40, upscaling=2.0,
        strides=strides_for(64), table="lut-64px-half-cpu.json", random_networks=6, random_steps=1_000, noisy_lr=0.1,
        more_seeds=2,
    ),
    "gpu": Scale4(
        "gpu", "tiny-imagenet:50", 64, 1.0, None, search_batch=64, epochs=30, weight_epochs=10, steps_per_epoch=250, alpha_lr=0.03,
        temperature_decay=0.85, train_batch=64, train_steps=8_000, lr=4e-3, optimiser="adam", schedule="one-cycle",
        precision="fp32", eval_images=7_500, seeds=3, regularised=False, device="cuda", equal_b=16, large_b=64, upscaling=2.0,
        strides=strides_for(64), table="lut-64px-cuda.json", random_networks=8, random_steps=4_000, noisy_lr=0.1,
        more_seeds=2,
    ),
    "paper": Scale4(
        "paper", "imagenet100", 224, 1.0, None, search_batch=32, epochs=90, weight_epochs=10, steps_per_epoch=3_192, alpha_lr=0.01,
        temperature_decay=0.96, train_batch=512, train_steps=62_250, lr=0.2, optimiser="sgd", schedule="cosine", precision="bf16",
        eval_images=5_000, seeds=3, regularised=True, device="cuda", table="lut-224px-cuda.json", random_networks=8,
        random_steps=40_000, more_seeds=2,
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
    alpha_lr: float
    temperature_decay: float
    learn_beta: bool = False
    elasticity: bool = True
    noisy: bool = False
    loss: str = "ce"
    alpha_gradient: str = "all"
    rebuild_optimisers: bool = False
    lr: float = 0.02  # of the weights, as in [16]
    strides: tuple[int, ...] = STRIDES
    random_networks: int = 0  # of a random search, which trains so many for `random_steps` each and takes the best; 0: TF-NAS's
    random_steps: int = 0
    threads: int = 1

    @property
    def title(self) -> str:
        return f"search: {self.label}, seed {self.seed}, {self.scale}"

    @property
    def space(self) -> Space:
        return Space(self.operators, self.resolution, len(images_of(self).classes), self.width, self.strides)

    @property
    def settings(self) -> SearchSettings:
        names = ("target_ms", "seed", "epochs", "weight_epochs", "steps_per_epoch", "alpha_lr", "temperature_decay", "learn_beta")
        names += ("elasticity", "loss", "alpha_gradient", "rebuild_optimisers", "lr")
        return SearchSettings(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Derivation(Named):
    """An architecture that meets a target latency on the device, as measured, from a search or from chance."""

    label: str
    search: Search
    network: str  # the network, with a convolutional decoder where it has one, that is to meet the target
    target_ms: float
    random_seed: int | None = None  # operators and widths drawn from the search's space, instead of what it found
    rounds: int = 30
    threads: int = 1  # of this process; the measurement takes the table's
    measures_latency: ClassVar[bool] = True

    @property
    def scale(self) -> str:
        return self.search.scale

    @property
    def seed(self) -> int:
        return self.search.seed

    @property
    def title(self) -> str:
        return f"derivation: {self.label}, seed {self.seed}, {self.search.scale}"


@dataclass(frozen=True)
class Training(Named):
    """A network of Section 4, trained and evaluated, completely."""

    label: str
    network: str  # one of NETWORKS or "DC-Net_tail", with a derivation; "UNet", "DC-Net", "ResNet-18" or "MobileNetV2"
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
    derivation: Derivation | None = None  # where the architecture comes from
    architecture: str | None = None  # or the text of its file, for a network that is not of the study
    upscaled: float = 1.0  # width multiplier after the derivation (Table 4)
    decoder: str = "conv"
    b: int | None = None  # of a UNet or DC-Net
    large: bool = False  # the UNet with d=5 m=2 (Table 4) instead of the reduced one with d=4 m=1.5
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


def searched_at(scale: str) -> str:
    """The scale whose searches and derivations the trainings of a scale take."""
    return scale4(scale).searches or scale


def table_path(scale: str) -> Path:
    """Where the look-up table of a scale lies: committed in data/latency, but for smoke beside the runs."""
    scale = searched_at(scale)
    return (runs_dir() if scale == "smoke" else latency_dir()) / scale4(scale).table


def obtain_table(scale: str, *, progress: bool = True) -> Table:
    """The validated look-up table of a scale, of all eight operators. At scale smoke it is measured where it is missing."""
    path, s = table_path(scale), scale4(scale)
    if path.exists():
        return load_table(path)
    if scale != "smoke":
        raise InputError(
            f"{shown(path)} is missing; with nothing else running, run `dcnas lut build --resolution {s.resolution} "
            f"--width {s.width:g} --stem-stride {s.strides[0]} --device {s.device} --out {shown(path)}` and `dcnas lut validate "
            f"{shown(path)} --device {s.device}`."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # several notebooks may run side by side, hence one thread as well
        if not path.exists():
            space, unfinished = Space(8, s.resolution, 2, s.width, s.strides), path.with_suffix(".unvalidated.json")
            table = build_table(space, unfinished, batch=4, threads=1, rounds=2, progress=progress)
            frame, table = validate_table(table, space, networks=30, rounds=2, offset=False, progress=progress)
            write_atomic(path.with_suffix(".validation.csv"), frame.to_csv(index=False, lineterminator="\n"))
            table.save(path)
            unfinished.unlink()
    return load_table(path)


def table_file(found: Search) -> Path:
    """The table of a search: its file in data/latency, at scale smoke beside the runs; or an absolute path."""
    return (runs_dir() if found.scale == "smoke" else latency_dir()) / found.table


TARGETS = {"S": 0.25, "M": 0.4, "L": 0.7}  # of the way from the fastest to the slowest network; the paper's 6, 8 and 12 ms


def target_ms(scale: str, size: str) -> float:
    """The target latency "S", "M" or "L", in ms, to two decimals."""
    sizes = scale4(scale)
    low, high = latency_range_ms(Space(4, sizes.resolution, 2, sizes.width, sizes.strides), obtain_table(scale))
    return round(low + TARGETS[require_choice("size", size, TARGETS)] * (high - low), 2)


# ---- the lists


def search(scale: str, seed: int, label: str, size: str = "M", operators: int = 4, **changes) -> Search:
    """A search of Section 4 with the sizes of a scale. With both losses the decoder's latency is added to the target."""
    scale = searched_at(scale)
    s, target = scale4(scale), target_ms(scale, size)
    if changes.get("loss") == "both":
        target = round(target + decoder_ms(scale), 2)
    found = Search(
        label, scale, seed, s.data, s.resolution, s.width, s.limit, s.search_batch, operators, target,
        table_path(scale).name, s.epochs, s.weight_epochs, s.steps_per_epoch, s.alpha_lr, s.temperature_decay, strides=s.strides,
    )  # fmt: skip
    return replace(found, **changes)


def derivation(found: Search, network: str = "C-NAS", target: float | None = None, random_seed: int | None = None) -> Derivation:
    """What a search found, or chance in its space, at the search's target as a classifier or at another target."""
    label = found.label if random_seed is None else f"random, {found.label}"
    if target is None:
        target = found.target_ms if found.loss == "ce" else target_ms(found.scale, "M")
    return Derivation(label, found, network, target, random_seed, rounds=1 if found.scale == "smoke" else 30)


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


def searched_with(scale: str, seed: int) -> int:
    """The seed of the search whose network is trained with `seed`: its own, but at the scales that search most settings once."""
    return seed if scale4(searched_at(scale)).more_seeds else 0


def operators_label(size: str, count: int) -> str:
    """Name of a search with so many operators; the one at the small target stands in Table 8 and Figure 5 too."""
    return "C-NAS S, beta removed" if (size, count) == ("S", 4) else f"C-NAS {size}, {count} operators"


TWO_SAMPLED = "C-NAS M, two operators sampled"


def beta_searches(scale: str) -> list[Search]:
    """Table 8 and Figure 5: beta removed and learned, at the small target, several seeds."""
    sizes = scale4(searched_at(scale))
    return [
        search(scale, seed, f"C-NAS S, beta {word}", "S", learn_beta=word == "learned")
        for seed in range(sizes.seeds + sizes.more_seeds) for word in ("removed", "learned")
    ]  # fmt: skip


def operator_searches(scale: str, seed: int = 0) -> list[Search]:
    """Figure 6: 4, 6 and 8 operators at three targets."""
    return [search(scale, seed, operators_label(size, count), size, count) for size in TARGETS for count in (4, 6, 8)]


def tfnas_search(scale: str, seed: int = 0) -> Search:
    """The original settings, which stand in for TF-NAS C: eight operators, beta learned, elasticity scaling."""
    return search(scale, seed, "TF-NAS settings M", "M", 8, learn_beta=True)


def random_search(scale: str, seed: int = 0) -> Search:
    """The baseline: as many random networks, trained briefly, as a search at the same target costs; the best in validation."""
    s = scale4(searched_at(scale))
    return search(scale, seed, "random search M", "M", random_networks=s.random_networks, random_steps=s.random_steps)


def gradient_searches(scale: str) -> list[Search]:
    """The cheaper gradient of the alphas against the faithful one."""
    labels = {"all": operators_label("M", 4), "two": TWO_SAMPLED}
    return [
        search(scale, seed, labels[word], "M", alpha_gradient=word)
        for seed in _seeds(scale) for word in ("all", "two")
    ]  # fmt: skip


def noisy_searches(scale: str, seed: int = 0) -> dict[str, Search]:
    """Table 5: searches on noisy images, with the classification loss alone and with both."""
    how = dict(noisy=True, lr=scale4(searched_at(scale)).noisy_lr)
    return {
        "noisy S": search(scale, seed, "noisy S", "S", **how), "noisy": search(scale, seed, "noisy M", "M", **how),
        "both": search(scale, seed, "noisy M, both losses", "M", loss="both", **how),
    }  # fmt: skip


def searches(scale: str) -> list[Search]:
    """All searches of Section 4, each once: a seed of all before the next."""
    found = beta_searches(scale)
    for seed in {searched_with(scale, seed) for seed in _seeds(scale)}:
        found += [
            *noisy_searches(scale, seed).values(), *operator_searches(scale, seed), tfnas_search(scale, seed),
            random_search(scale, seed),
        ]  # fmt: skip
    return _once([*found, *gradient_searches(scale)])


def _once(runs: list) -> list:
    return sorted({e.name: e for e in runs}.values(), key=lambda e: e.seed)


def classifier(scale: str, found: Derivation, seed: int, label: str | None = None) -> Training:
    """A derived classifier, trained on clean images as in Section 4.1."""
    return training(scale, seed, label or found.label, "C-NAS", derivation=found, noisy=False)


def table_8(scale: str) -> list[Training]:
    """Classifiers with beta removed and learned: each seed is a search and a training of its own."""
    return [classifier(scale, derivation(s), s.seed) for s in beta_searches(scale)]


def figure_6(scale: str) -> list[Training]:
    """Classifiers from spaces of 4, 6 and 8 operators at three target latencies, trained with several seeds.

    Where other figures search a setting with several seeds, each seed has its own search here too.
    """
    searched = {(s.label, s.seed): s for s in searches(scale)}
    return [
        classifier(scale, derivation(searched.get((s.label, seed), s)), seed)
        for seed in _seeds(scale) for s in operator_searches(scale)
    ]  # fmt: skip


def gradient_comparison(scale: str) -> list[Training]:
    """Classifiers from searches with the faithful and with the cheaper gradient of the alphas."""
    return [classifier(scale, derivation(s), s.seed) for s in gradient_searches(scale)]


def figure_7(scale: str) -> list[Training]:
    """C-NAS M, TF-NAS's settings, random architectures of the same latency, ResNet-18 and MobileNetV2."""
    faithful = [s for s in gradient_searches(scale) if s.alpha_gradient == "all"]
    rows = []
    for seed, found in zip(_seeds(scale), faithful, strict=True):
        rows += [
            classifier(scale, derivation(found), seed),
            classifier(scale, derivation(tfnas_search(scale, searched_with(scale, seed))), seed),
            classifier(scale, derivation(faithful[0], random_seed=seed), seed, "random M"),
            classifier(scale, derivation(random_search(scale, searched_with(scale, seed))), seed),
            training(scale, seed, "ResNet-18", "ResNet-18", noisy=False),
            training(scale, seed, "MobileNetV2", "MobileNetV2", noisy=False),
        ]
    return rows


def table_4(scale: str) -> list[Training]:
    """D-NAS S beside the reduced UNet and beside a UNet as fast, and both large."""
    s, rows = scale4(scale), []
    for seed in _seeds(scale):
        small = derivation(beta_searches(scale)[2 * searched_with(scale, seed)])
        rows.append(training(scale, seed, "UNet Reduced", "UNet", b=8))
        if s.equal_b != 8:
            rows.append(training(scale, seed, f"UNet b={s.equal_b}", "UNet", b=s.equal_b))
        rows += [
            training(scale, seed, "D-NAS S", "D-NAS", derivation=small),
            training(scale, seed, f"UNet b={s.large_b} d=5 m=2", "UNet", b=s.large_b, large=True),
            training(scale, seed, "D-NAS S upscaled", "D-NAS", derivation=small, upscaled=s.upscaling),
        ]
    return rows


def table_5(scale: str) -> list[Training]:
    """The joint models of all five groups, in the paper's order."""
    s, rows = scale4(scale), []
    for seed in _seeds(scale):
        searched = searched_with(scale, seed)
        large = search(scale, searched, operators_label("L", 4), "L")
        joint_ms = round(large.target_ms + decoder_ms(scale), 2)
        architectures = {
            "seq L": derivation(beta_searches(scale)[2 * searched], "DC-NAS_seq", joint_ms),
            "L": derivation(large, "DC-NAS", joint_ms), "clean": derivation(gradient_searches(scale)[2 * searched]),
            **{word: derivation(found) for word, found in noisy_searches(scale, searched).items()},
        }  # fmt: skip

        def row(label: str, network: str, source: str | None = None, **changes) -> Training:
            found = None if source is None else architectures[source]  # noqa: B023, used in this turn only
            return training(scale, seed, label, network, derivation=found, **changes)  # noqa: B023

        rows += [
            row("DC-NAS_seq L", "DC-NAS_seq", "seq L"), row("DC-NAS L", "DC-NAS", "L"),
            row("DC-NAS clean M", "DC-NAS", "clean"), row("DC-NAS noisy M", "DC-NAS", "noisy"),
            row("DC-NAS noisy M, both losses", "DC-NAS", "both"), row("C-NAS noisy M", "C-NAS", "noisy"),
        ]  # fmt: skip
        rows += [row(f"DC-NAS clean M, {kind}", "DC-NAS", "clean", decoder=kind) for kind in ("mb", "mb 1-op", "mb 3-lay")]
        for b in sorted({8, s.equal_b}):
            word = "Reduced" if b == 8 else f"b={b}"
            rows += [row(f"DC-Net {word}", "DC-Net", b=b), row(f"DC-Net_tail {word}", "DC-Net_tail", "noisy S", b=b)]
        rows.append(row("DC-NAS S", "DC-NAS", "noisy S"))
    return rows


def related_work(scale: str) -> list[Training]:
    """The denoisers of Section 2, trained and tested alike: DnCNN beside a UNet, D-NAS and DC-NAS."""
    searched = [e for e in (*table_4(scale), *table_5(scale)) if e.seed == 0 and e.label in ("UNet Reduced", "D-NAS S", "DC-NAS S")]
    return [training(scale, 0, "DnCNN", "DnCNN"), training(scale, 0, "DnCNN, residual", "DnCNN, residual"), *searched]


def decoder_ms(scale: str) -> float:
    """What the convolutional decoder adds to a network's latency, by the table, in ms."""
    table = obtain_table(scale)
    return table.correction.scale * table.part_ms("decoder conv")


def trainings(scale: str) -> list[Training]:
    """All trainings of Section 4, each once, the most useful first: Table 4's small pair, Table 5's groups 5 and 1, the rest."""
    groups = (table_4, table_5, table_8, figure_7, gradient_comparison, figure_6, related_work)
    useful = {
        **dict.fromkeys((e.label for e in figure_6(scale)), 4), **dict.fromkeys((e.label for e in table_5(scale)), 3),
        **dict.fromkeys((e.label for e in (*table_8(scale), *figure_7(scale), *gradient_comparison(scale))), 2),
    }  # fmt: skip
    first = (f"UNet b={scale4(scale).equal_b}", "UNet Reduced", "D-NAS S", "DC-NAS S", "DC-NAS L", "DC-NAS_seq L")
    found = _once([e for group in groups for e in group(scale)])

    def usefulness(e: Training) -> tuple[int, int]:
        return 1 if e.label in first or e.network in ("DC-Net", "DC-Net_tail") else useful.get(e.label, 5), e.seed

    return sorted(found, key=usefulness)


def derivations(scale: str) -> list[Derivation]:
    """All derivations that trainings need."""
    return _once([e.derivation for e in trainings(scale) if e.derivation is not None])


def everything(scale: str) -> list[Search | Derivation | Training]:
    """All runs of Section 4."""
    return [*searches(scale), *derivations(scale), *trainings(scale)]
