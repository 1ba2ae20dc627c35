"""Every run of the study as data: which networks, at which scale, with which seeds.

A group such as "table_3" lists networks; `runs(group, scale)` crosses it with the seeds, in the order in which the paper shows
them. Nothing is loaded or measured to say what a group holds: a target latency is "S", "M" or "L" until a search looks it up in
the table of its device. A run is named by the hash of its fields, so equal names mean equal runs.
"""

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from ..data.images import ImageSet, load_images, stored_side
from ..errors import InputError
from ..latency.table import load_table
from ..models import CLASSIFIERS, JOINING, UNETS, VARIANTS
from ..nas.settings import SearchSettings
from ..nas.space import STRIDES, Space
from ..paths import root
from ..training import Settings

SCALES = ("published", "smoke", "short", "laptop", "gpu", "paper")
PUBLISHED_SCALES = ("paper", "gpu", "laptop", "short")  # whose results are published, the best first
LABEL_SMOOTHING = 0.1  # "smooth cross-entropy" (Section 4), 0.1 in [16]
IMAGES_OF_BM3D = 50  # of the test set: BM3D takes a second for an image of 64 x 64 pixels


class Named:
    """A frozen dataclass that says all about a run: its label, scale and seed, and what makes it that run."""

    kind = ""

    @cached_property
    def name(self) -> str:
        """The name of the run's folder: 16 hex digits of the SHA-256 of its fields."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """For progress bars and messages."""
        return f"{self.kind}{self.label}, seed {self.seed}, {self.scale}"


@dataclass(frozen=True)
class Search(Named):
    """A search of Section 4, completely; equal ones give equal alphas on the same machine (CPU)."""

    label: str
    scale: str
    seed: int
    photos: dict  # data, resolution, limit: of `load_images`
    width: float  # of the space
    strides: tuple[int, ...]
    operators: int
    target: str | float  # "S", "M", "L", with " + decoder"; or in ms
    table: str  # file in data/latency, or in the runs' folder at scale smoke; or an absolute path
    batch: int
    settings: dict  # of `SearchSettings`, but target and seed
    noisy: bool = False
    random_networks: int = (
        0  # of a random search, which trains so many for `random_steps` each and takes the best
    )
    random_steps: int = 0
    threads: int = 1
    kind = "search: "

    @property
    def space(self) -> Space:
        step = load_table(Path(self.table)).conditions.width_step if self.scale == "own" else 1
        return Space(
            self.operators,
            self.photos["resolution"],
            len(images_of(self).classes),
            self.width,
            self.strides,
            step,
        )

    def with_target(self, target_ms: float) -> SearchSettings:
        """The settings of `nas.search` for a target in ms."""
        return SearchSettings(target_ms=target_ms, seed=self.seed, **self.settings)


@dataclass(frozen=True)
class Derivation(Named):
    """An architecture that meets a target latency on the table's device, as measured, from a search or from chance."""

    search: Search
    network: str = "C-NAS"  # that is to meet the target, with a convolutional decoder where it has one
    target: str | float = ""  # of the search, if empty
    random_seed: int | None = (
        None  # operators and widths drawn from the search's space, instead of what it ended in
    )
    rounds: int = 30
    threads: int = 1  # of this process; the measurement takes the table's
    kind = "derivation: "

    @property
    def label(self) -> str:
        return self.search.label if self.random_seed is None else f"random, {self.search.label}"

    @property
    def scale(self) -> str:
        return self.search.scale

    @property
    def seed(self) -> int:
        return self.search.seed


@dataclass(frozen=True)
class Run(Named):
    """One training and its evaluation, completely; equal runs give equal bits on the same machine (CPU)."""

    label: str  # the network's name in tables and figures
    scale: str
    seed: int
    task: str  # on two digits "classify", "denoise" or "joint"; "photographs" in Section 4
    net: dict  # what `build` takes, and what stands in a card
    data: dict  # of two digits: images, crop, clip; of photographs: data, resolution, limit, noisy
    train: Settings
    batch: int
    eval_images: int
    ce_weight: float = 0.1  # of the cross entropy in the joint loss (Eq. 1)
    source: Derivation | None = None  # of the network's architecture
    threads: int = 1  # bits depend on it; several runs side by side use the cores better than several threads of one

    @property
    def unet(self) -> dict:
        """Hyper-parameters of its UNet: b, d, m, c, block; empty where it has none."""
        return self.net.get("unet", {})


@dataclass(frozen=True)
class Filter(Named):
    """BM3D over the first test images of Section 4, with the noise that the networks meet there."""

    label: str
    scale: str
    photos: dict
    eval_images: int
    grey: bool  # the mean of the channels instead of each
    seed: int = 0
    threads: int = 1


# ---- scales


@dataclass(frozen=True)
class Budget:
    """Training of one kind of network: images in all, images per optimiser step, validations."""

    images: int
    batch: int
    epochs: int
    lr: float = 1e-3
    schedule: str = "plateau"
    crop: int | None = None  # random squares of this size instead of whole images

    def settings(self, **how) -> Settings:
        steps = -(-self.images // self.batch)
        return Settings(steps, -(-steps // self.epochs), self.lr, self.schedule, **how)


@dataclass(frozen=True)
class Scale:
    """The sizes of one scale, of data/scales.toml: of Section 3 on two digits, then of Section 4 on photographs."""

    train_images: int
    classify: Budget  # Tables 1 and 6
    denoise: Budget  # Figure 3 and Table 2
    joint: Budget  # Table 3
    eval_images: int  # test images per network and noise level
    joint_eval_images: int  # more, because accuracy needs them
    precision: str  # of training; evaluation is always float32
    photos: dict
    train: Settings
    train_batch: int
    photos_eval: int
    search: dict  # of `SearchSettings`
    search_batch: int = 32
    long: int | None = None  # images for Table 2 and Table 3's reduced pair, if more than the others'
    seeds: int = 3
    more_seeds: int = 0  # of the searches with beta removed and learned (Table 8, Figure 5)
    width: float = 1.0  # of the space
    stem_stride: int = STRIDES[0]
    table: str = "lut-64px-cpu.json"
    device: str = "cpu"  # that latencies are for
    dropout: float = 0.0  # and drop-connect
    equal_b: int = 8  # of a UNet and a DC-Net about as fast as D-NAS S and DC-NAS S
    large_b: int = 64  # of the large UNet of Table 4, d=5 m=2
    upscaling: float = 4.0  # of the channels of D-NAS S, to be about as fast as that
    random_networks: int = 2  # that a random search trains and compares, and the steps for each
    random_steps: int = 2
    noisy_lr: float = SearchSettings.lr  # of a supernet's weights on noisy images

    @property
    def strides(self) -> tuple[int, ...]:
        return (self.stem_stride, *STRIDES[1:])


def _scale(row: dict) -> Scale:
    budgets = {name: Budget(**row[name]) for name in ("classify", "denoise", "joint")}
    how = dict(lr=4e-3, schedule="one-cycle", clip_norm=5.0, weight_decay=1e-5) | row["train"]
    train = Settings(epoch_steps=max(1, how["steps"] // 8), **how)
    return Scale(**row | budgets | dict(photos=dict(limit=None) | row["photos"], train=train))


def read_scales() -> dict[str, Scale]:
    """Every scale that has runs."""
    return {
        name: _scale(row)
        for name, row in tomllib.loads((root() / "data/scales.toml").read_text()).items()
    }


SCALE = read_scales()


def scale_named(name: str) -> Scale:
    """The sizes of a scale that has runs; `InputError` for another name."""
    if name not in SCALE:
        raise InputError(f"scale is {name!r}, but one of smoke, laptop, gpu, paper was expected.")
    return SCALE[name]


def differs(scale: str) -> str:
    """What a scale does otherwise than the paper in Section 4, or where it gives no number, in a phrase."""
    s, noise, parts = scale_named(scale), [], []
    if s.train.optimiser != "sgd":
        parts.append(f"networks trained with {s.train.optimiser.capitalize()} instead of SGD")
    parts += [] if s.dropout else ["without dropout and drop-connect"]
    if stored_side(s.photos["data"], s.photos["resolution"]) == s.photos["resolution"]:
        parts.append("images flipped and shifted, without random resized crops")
    parts.append(f"label smoothing {LABEL_SMOOTHING:g} where networks classify, none in searches")
    if s.noisy_lr != SearchSettings.lr:
        noise.append(
            f"supernets on noisy images learn with {s.noisy_lr:g} instead of {SearchSettings.lr:g}"
        )
    if s.photos["data"] == "solar":
        grey = "grey images in three channels with noise of their own"
        noise.append(f"{grey}, so that their mean has noise of sigma / 1.73")
    return "; ".join([", ".join(parts), *noise])


@lru_cache(maxsize=4)
def _images(data: str, resolution: int, limit: int | None) -> ImageSet:
    return load_images(data, resolution, limit=limit)


def images_of(run: "Search | Run | Filter") -> ImageSet:
    """The photographs of a run, decoded once."""
    photos = run.data if isinstance(run, Run) else run.photos
    return _images(photos["data"], photos["resolution"], photos["limit"])


# ---- Section 3: networks on two digits

FIGURE_3: dict[
    str, list[dict]
] = {  # a panel per hyper-parameter; a network in several panels is trained once
    "b": [dict(b=b, d=4, m=2, c=2) for b in (4, 8, 16, 32, 64)],
    "d": [dict(b=b, d=d, m=2, c=2) for b in (8, 16, 32) for d in (2, 3, 4, 5)],
    "c": [dict(b=b, d=4, m=2, c=c) for b in (8, 16, 32, 64) for c in (1, 2)],
    "m": [dict(b=8, d=4, m=m, c=2) for m in (1, 1.5, 2)],
}
# the repeat around b=8; depthwise convolutions train five times slower on a CPU
MBCONV = {panel: FIGURE_3[panel][:count] for panel, count in (("b", 3), ("d", 4), ("c", 2), ("m", 3))}


def unet_label(b: int, d: int, m: float, c: int, block: str = "conv", **_) -> str:
    """A UNet's name in tables and figures."""
    return f"{'UNet' if block == 'conv' else 'MB-UNet'} b={b} d={d} m={m:g} c={c}"


def _fast(precision: str, unet: dict) -> dict:
    """Precision and memory format of a UNet's training: what is fastest on CPUs (`benchmarks/precision.py`).

    bfloat16 wins for wide normal convolutions alone; channels_last loses in it elsewhere, and wins in float32 always.
    """
    wide = unet.get("b", 0) >= 16 and unet.get("block", "conv") == "conv"
    if precision == "mixed":
        precision = "bf16" if wide else "fp32"
    return dict(precision=precision, channels_last=precision != "bf16" or wide)


def _digits(
    s: Scale, label: str, task: str, net: dict, budget: Budget, how: dict, many: bool = False
) -> Run:
    data = dict(images=s.train_images, crop=budget.crop, clip=False)
    images = s.joint_eval_images if many else s.eval_images
    return Run(label, "", 0, task, net, data, budget.settings(**how), budget.batch, images)


_PLAIN = dict(precision="fp32", channels_last=False)


def _classifier(s: Scale, name: str) -> Run:
    return _digits(s, name, "classify", dict(kind=name), s.classify, _PLAIN, many=True)


def _unet(s: Scale, unet: dict, label: str = "", long: bool = False, precision: str = "") -> Run:
    budget = replace(s.denoise, images=s.long) if long and s.long else s.denoise
    label = label if long and s.long else unet_label(**unet)
    net = dict(kind="unet", unet=unet | dict(m=float(unet["m"])))
    return _digits(s, label, "denoise", net, budget, _fast(precision or s.precision, unet))


def _dcnet(s: Scale, joining: str, size: str) -> Run:
    budget = replace(s.joint, images=s.long) if size == "reduced" and s.long else s.joint
    unet = UNETS[size] | dict(m=float(UNETS[size]["m"]))
    net = dict(kind=joining, unet=unet) | (dict(classifier="MB2.5-M") if joining == "sequential" else {})
    label = f"DC-Net {size.capitalize()} {joining.capitalize()}"
    return _digits(s, label, "joint", net, budget, _fast(s.precision, unet), many=True)


def _table_2(s: Scale) -> list[Run]:
    """The baseline and the reduced UNet; where they see more images than Figure 3's, runs of their own."""
    return [_unet(s, unet, f"UNet {size.capitalize()}", long=True) for size, unet in UNETS.items()]


def _table_3(s: Scale) -> list[Run]:
    return [_dcnet(s, joining, size) for size in UNETS for joining in JOINING]


def _controls(s: Scale) -> list[Run]:
    """What lifts accuracy from the small classifier's to the joint one's: each differs from its neighbour in one thing."""
    joint = _dcnet(s, "integrated", "reduced")
    plain, alone = replace(joint.train, **_PLAIN), replace(joint, task="classify")
    behind = dict(kind="MB2.5-M", behind=UNETS["reduced"])
    encoder, contiguous = joint.net | dict(kind="encoder"), replace(joint.train, channels_last=False)
    return [
        replace(alone, label="MB2.5-M on the noisy square", net=dict(kind="MB2.5-M"), train=plain),
        replace(alone, label="MB2.5-M on a denoised square", net=behind, train=plain),
        replace(alone, label="Encoder on the noisy square", net=encoder, train=contiguous),
        replace(joint, label="Integrated, cross entropy only", ce_weight=1.0),
    ]


def _each(s: Scale, panels: dict[str, list[dict]], **more) -> list[Run]:
    unets = dict.fromkeys(tuple(unet.items()) for unets in panels.values() for unet in unets)
    return [_unet(s, dict(unet) | more) for unet in unets]


def _two_groups(s: Scale) -> list[Run]:
    """The narrowest UNets with two GroupNorm groups: does b=4 fall off because each channel is its own group?"""
    runs = [_unet(s, unet) for unet in FIGURE_3["b"][:2]]
    nets = [dict(kind="unet", unet=run.unet | dict(norm_groups=2)) for run in runs]
    return [replace(run, label=f"{run.label}, two norm groups", net=net) for run, net in zip(runs, nets)]


def _float32(s: Scale) -> list[Run]:
    """A UNet that is trained in bfloat16, in float32 as well: does that change the result?"""
    unet = UNETS["reduced"] if s.precision != "mixed" else FIGURE_3["b"][2]
    run = _unet(s, unet, precision="fp32")
    return [replace(run, label=f"{run.label}, float32")]


def _clipped(s: Scale) -> list[Run]:
    """Tables 2 and 3 on noisy images clipped to [0, 1]: which of the two did the paper use?"""
    plain = [*_table_2(s), *_table_3(s)]
    runs = [
        replace(run, label=f"{run.label}, clipped", data=run.data | dict(clip=True)) for run in plain
    ]
    return sorted(runs, key=lambda r: (r.task == "joint", r.unet["b"]))


# ---- Section 4: networks on photographs

TARGETS = {
    "S": 0.25,
    "M": 0.4,
    "L": 0.7,
}  # of the way from the fastest to the slowest network; the paper's 6, 8 and 12 ms
REMOVED, LEARNED = "C-NAS S, beta removed", "C-NAS S, beta learned"
TWO_SAMPLED, TF_NAS, CHANCE = "C-NAS M, two operators sampled", "TF-NAS settings M", "random search M"


def operators_label(size: str, count: int) -> str:
    """The search with so many operators; the one at the small target stands in Table 8 and Figure 5 too."""
    return REMOVED if (size, count) == ("S", 4) else f"C-NAS {size}, {count} operators"


C_NAS = operators_label("M", 4)
BY_OPERATORS = {
    operators_label(size, n): dict(target=size, operators=n) for size in TARGETS for n in (4, 6, 8)
}


HOW = {  # what each search of Section 4 does otherwise than one at the target M with four operators
    REMOVED: dict(target="S"),
    LEARNED: dict(target="S", learn_beta=True),
    "noisy S": dict(target="S", noisy=True),
    "noisy M": dict(noisy=True),
    "noisy M, both losses": dict(target="M + decoder", noisy=True, loss="both"),
    **BY_OPERATORS,
    TF_NAS: dict(operators=8, learn_beta=True),
    CHANCE: dict(random=True),
    TWO_SAMPLED: dict(alpha_gradient="two"),
}


def _search(s: Scale, label: str) -> Search:
    how = dict(target="M", operators=4, noisy=False, random=False) | HOW[label]
    target, operators, noisy, random = (
        how.pop(name) for name in ("target", "operators", "noisy", "random")
    )
    settings = s.search | (dict(lr=s.noisy_lr) if noisy else {}) | how
    drawn = (s.random_networks, s.random_steps) if random else (0, 0)
    space = s.photos, s.width, s.strides, operators
    return Search(label, "", 0, *space, target, s.table, s.search_batch, settings, noisy, *drawn)


SEARCH_GROUPS = {
    "beta_searches": [REMOVED, LEARNED],
    "operator_searches": [*BY_OPERATORS],
    "gradient_searches": [C_NAS, TWO_SAMPLED],
    "searches": [*HOW],
}


def searches(group: str, scale: str) -> list[Search]:
    """The searches of a group: a seed of all before the next; those of Table 8 with more seeds where the scale has them."""
    s, made = scale_named(scale), []
    for seed in range(1 if group == "operator_searches" else s.seeds + s.more_seeds):
        labels = [
            label for label in SEARCH_GROUPS[group] if seed < s.seeds or label in (REMOVED, LEARNED)
        ]
        made += [replace(_search(s, label), scale=scale, seed=seed) for label in labels]
    return made


def _photographs(s: Scale, label: str, kind: str, source=None, noisy: bool = True, **net) -> Run:
    net = dict(kind=kind) | net
    if s.dropout and kind not in ("UNet", "D-NAS"):
        net |= dict(dropout=s.dropout, drop_connect=s.dropout)
    what = "photographs", net, s.photos | dict(noisy=noisy), s.train, s.train_batch, s.photos_eval
    return Run(label, "", 0, *what, source=source)


def _derived(s: Scale, label: str, network: str = "C-NAS", target: str = "", random=None) -> Derivation:
    search = _search(s, label)
    if not target and search.settings.get("loss") == "both":
        target = "M"
    return Derivation(search, network, target, random, 1 if s is SCALE["smoke"] else 30)


def _searched(s: Scale, labels: list[str]) -> list[Run]:
    """Searched classifiers, trained on clean images (Section 4.1)."""
    return [_photographs(s, label, "C-NAS", _derived(s, label), noisy=False) for label in labels]


def _figure_7(s: Scale) -> list[Run]:
    c_nas, tf_nas, chance = _searched(s, [C_NAS, TF_NAS, CHANCE])
    random = _photographs(s, "random M", "C-NAS", _derived(s, C_NAS, random=0), noisy=False)
    others = [_photographs(s, name, name, noisy=False) for name in ("ResNet-18", "MobileNetV2")]
    return [c_nas, tf_nas, random, chance, *others]


def _manual(s: Scale, name: str, kind: str, source: Derivation | None = None) -> list[Run]:
    """A manual network reduced, and as fast as the searched one where that is another width."""
    runs = []
    for b in sorted({8, s.equal_b}):
        label = f"{name} Reduced" if b == 8 else f"{name} b={b}"
        runs.append(_photographs(s, label, kind, source, unet=UNETS["reduced"] | dict(b=b)))
    return runs


def _table_4(s: Scale) -> list[Run]:
    small, large = _derived(s, REMOVED), UNETS["reduced"] | dict(b=s.large_b, d=5, m=2)
    return [
        *_manual(s, "UNet", "UNet"),
        _photographs(s, "D-NAS S", "D-NAS", small),
        _photographs(s, f"UNet b={s.large_b} d=5 m=2", "UNet", unet=large),
        _photographs(s, "D-NAS S upscaled", "D-NAS", small, upscaled=s.upscaling),
    ]


def _table_5(s: Scale) -> list[Run]:
    joint, small = "L + decoder", _derived(s, "noisy S")
    rows = {
        "DC-NAS_seq L": ("DC-NAS_seq", _derived(s, REMOVED, "DC-NAS_seq", joint)),
        "DC-NAS L": ("DC-NAS", _derived(s, operators_label("L", 4), "DC-NAS", joint)),
        "DC-NAS clean M": ("DC-NAS", clean := _derived(s, C_NAS)),
        "DC-NAS noisy M": ("DC-NAS", noisy := _derived(s, "noisy M")),
        "DC-NAS noisy M, both losses": ("DC-NAS", _derived(s, "noisy M, both losses")),
        "C-NAS noisy M": ("C-NAS", noisy),
    }
    made = [_photographs(s, label, *row) for label, row in rows.items()]
    for kind in ("mb", "mb 1-op", "mb 3-lay"):
        made.append(_photographs(s, f"DC-NAS clean M, {kind}", "DC-NAS", clean, decoder=kind))
    for pair in zip(
        _manual(s, "DC-Net", "DC-Net"), _manual(s, "DC-Net_tail", "DC-Net_tail", small), strict=True
    ):
        made += pair
    return [*made, _photographs(s, "DC-NAS S", "DC-NAS", small)]


def _related(s: Scale) -> list[Run]:
    """The denoisers of Section 2 beside each other."""
    shown = [
        r for r in (*_table_4(s), *_table_5(s)) if r.label in ("UNet Reduced", "D-NAS S", "DC-NAS S")
    ]
    return [_photographs(s, name, name) for name in ("DnCNN", "DnCNN, residual")] + shown


# ---- groups

SECTION_3 = {
    "table_2": _table_2,
    "table_3": _table_3,
    "tables_1_and_6": lambda s: [_classifier(s, name) for name in CLASSIFIERS],
    "why_joint_classifies_better": _controls,
    "figure_3": lambda s: _each(s, FIGURE_3),
    "figure_3_mbconv": lambda s: _each(s, MBCONV, block="mbconv"),
    "clipping_check": _clipped,
    "precision_check": _float32,
    "normalisation_check": _two_groups,
    "table_6_variants": lambda s: [_classifier(s, name) for name in VARIANTS],
}
SECTION_4 = {
    "table_8": lambda s: _searched(s, [REMOVED, LEARNED]),
    "figure_6": lambda s: _searched(s, [*BY_OPERATORS]),
    "figure_7": _figure_7,
    "gradient_comparison": lambda s: _searched(s, [C_NAS, TWO_SAMPLED]),
    "table_4": _table_4,
    "table_5": _table_5,
    "related_work": _related,
}
SECTIONS = ("section2", "section3", "section4", "section4_searches")
GROUPS = (*SECTIONS, *SECTION_3, *SECTION_4, *SEARCH_GROUPS)


def runs(group: str, scale: str) -> list:
    """The runs of a group at a scale, in the paper's order, a seed of all before the next; of a section the most useful first."""
    s = scale_named(scale)
    if group in SECTIONS:
        return _section(group, scale)
    if group in SEARCH_GROUPS:
        return searches(group, scale)
    if group not in GROUPS:
        raise InputError(f"group is {group!r}, but one of {', '.join(GROUPS)} was expected.")
    seeds = 1 if group == "related_work" else s.seeds + (s.more_seeds if group == "table_8" else 0)
    made = [
        _seeded(run, scale, seed) for seed in range(seeds) for run in (SECTION_3 | SECTION_4)[group](s)
    ]
    if group == "clipping_check":
        made.sort(key=lambda r: (r.task == "joint", r.unet["b"], r.seed))
    return made


def _seeded(run: Run, scale: str, seed: int) -> Run:
    """A run with its seed; a network is trained with the seed of its search, one of chance drawn with it."""
    source = run.source
    if source is not None and source.random_seed is not None:
        source = replace(source, search=replace(source.search, scale=scale), random_seed=seed)
    elif source is not None:
        source = replace(source, search=replace(source.search, scale=scale, seed=seed))
    return replace(run, scale=scale, seed=seed, source=source)


def filters(scale: str) -> list[Filter]:
    """Both readings of BM3D."""
    s = scale_named(scale)
    count, readings = (
        1 if scale == "smoke" else IMAGES_OF_BM3D,
        (("BM3D colour", False), ("BM3D grey", True)),
    )
    return [Filter(label, scale, s.photos, count, grey) for label, grey in readings]


def _section(group: str, scale: str) -> list:
    """All runs of a section, each once, the most useful first: what the tables compare, one seed of all before the next."""
    if group == "section2":
        return [*filters(scale), *runs("related_work", scale)]
    if group == "section4_searches":
        return searches("searches", scale)
    listed = {name: runs(name, scale) for name in (SECTION_3 if group == "section3" else SECTION_4)}
    each = list({run.name: run for part in listed.values() for run in part}.values())
    s = scale_named(scale)
    if group == "section3":
        return sorted(each, key=lambda run: (_use_3(run, listed), run.seed))
    each.sort(key=lambda run: (_use_4(run, listed, s), run.seed))
    derived = {run.source.name: run.source for run in each if run.source is not None}
    return [*searches("searches", scale), *sorted(derived.values(), key=lambda d: d.seed), *each]


def _use_3(run: Run, listed: dict[str, list[Run]]) -> int:
    """How early a run of Section 3 comes: Table 3's baseline pair, a night on a CPU core, waits for the line of b."""
    if run.net["kind"] in VARIANTS:
        return 4
    if run.net["kind"] in JOINING and run.unet["b"] == UNETS["baseline"]["b"]:
        return 2
    if run.label in {r.label for r in listed["table_2"] + listed["table_3"]}:
        return 0
    return 1 if run.label in {unet_label(**unet) for unet in FIGURE_3["b"]} else 3


def _use_4(run: Run, listed: dict[str, list[Run]], s: Scale) -> int:
    """How early a run of Section 4 comes: Table 4's small pair, Table 5's groups 5 and 1, the rest."""
    first = (f"UNet b={s.equal_b}", "UNet Reduced", "D-NAS S", "DC-NAS S", "DC-NAS L", "DC-NAS_seq L")
    if run.label in first or run.net["kind"] in ("DC-Net", "DC-Net_tail"):
        return 1
    groups = ("table_8", "figure_7", "gradient_comparison"), ("table_5",), ("figure_6",)
    places = (
        n
        for n, names in enumerate(groups, 2)
        if run.label in {r.label for g in names for r in listed[g]}
    )
    return next(places, 5)
