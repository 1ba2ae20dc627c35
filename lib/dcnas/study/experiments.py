"""Every network that Section 3 trains, as frozen experiments. A run is named by the hash of its experiment.

Lists are in the order in which the paper shows them; `section3` puts the most useful runs first.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import ClassVar

from torch import nn

from ..data.two_digits import IMAGE_SIZE
from ..errors import InputError
from ..models import CLASSIFIERS, JOINING, UNETS, VARIANTS, UNet, build_classifier, build_dcnet
from ..models.dcnet import Integrated
from .scales import Budget, Scale, scale_named

TWO_GROUPS = "unet, two norm groups"  # a control of Section 3.2
FORMAT = 1  # of run records and published results


class Named:
    """A frozen dataclass that says all about a run, and so names it."""

    measures_latency: ClassVar[bool] = False  # a run that does is carried out while nothing else runs

    @cached_property
    def name(self) -> str:
        """The run's name: the first 16 hex digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(asdict(self) | {"format": FORMAT}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Experiment(Named):
    """One training and its evaluation, completely. Equal experiments give equal bits on the same machine (CPU)."""

    label: str  # the network's name in tables and figures
    task: str  # "classify", "denoise" or "joint"
    network: str  # a classifier's name, "unet", "integrated", "sequential", or a control of Section 3.3
    scale: str
    seed: int
    steps: int
    batch: int
    epoch_steps: int
    lr: float
    schedule: str
    precision: str
    channels_last: bool
    train_images: int
    eval_images: int
    b: int | None = None
    d: int | None = None
    m: float | None = None
    c: int | None = None
    block: str = "conv"
    ce_weight: float = 0.1  # of the cross entropy in the joint loss
    crop: int | None = None  # size of the random squares to train a denoiser on; None: whole images, as the paper does
    clip: bool = False  # noisy images clipped to [0, 1]; the paper does not say
    data_seed: int = 0
    threads: int = 1  # bits depend on it; several runs side by side use the cores better than several threads of one

    def __post_init__(self):
        if self.crop is not None and (self.task != "denoise" or not 1 <= self.crop <= IMAGE_SIZE):
            raise InputError(
                f"crop is {self.crop} for the task {self.task}, but only denoisers train on squares, of 1 to {IMAGE_SIZE} pixels."
            )

    @property
    def title(self) -> str:
        """For progress bars and messages."""
        return f"{self.label}, seed {self.seed}, {self.scale}"

    @property
    def unet(self) -> dict:
        """The UNet's hyper-parameters."""
        return dict(b=self.b, d=self.d, m=self.m, c=self.c, block=self.block)


def build(experiment: Experiment) -> nn.Module:
    """The network of an experiment, with fresh weights from torch's global seed."""
    if experiment.network in JOINING:
        size = next(size for size, unet in UNETS.items() if unet["b"] == experiment.b)
        return build_dcnet(experiment.network, size)
    if experiment.network == "unet":
        return UNet(**experiment.unet)
    if experiment.network == TWO_GROUPS:
        return UNet(**experiment.unet, norm_groups=2)
    if experiment.network == "encoder":
        return EncoderClassifier(UNet(**experiment.unet))
    return build_classifier(experiment.network.removeprefix("denoised "))


class EncoderClassifier(nn.Module):
    """A control of Section 3.3: Integrated's encoder and head, but fed with the digit's noisy square alone."""

    def __init__(self, unet: UNet):
        super().__init__()
        joint = Integrated(unet)
        self.encoder, self.head = joint.unet.down, joint.head

    def forward(self, crops):
        for i, level in enumerate(self.encoder):
            crops = level(nn.functional.max_pool2d(crops, 2) if i else crops)
        return self.head(crops.amax((-2, -1)))


def depends_on(experiment: Experiment) -> Experiment | None:
    """The run whose weights an experiment needs: the denoiser in front of a classifier that is trained after it."""
    if not experiment.network.startswith("denoised "):
        return None
    return next(e for e in table_2(experiment.scale) if (e.seed, e.b) == (experiment.seed, UNETS["reduced"]["b"]))


def _make(scale: Scale, budget: Budget, seed: int, *, channels_last: bool, precision: str, **fields) -> Experiment:
    fields.setdefault("eval_images", scale.eval_images)
    return Experiment(
        scale=scale.name, seed=seed, steps=budget.steps, batch=budget.batch, epoch_steps=budget.epoch_steps, lr=budget.lr,
        schedule=budget.schedule, precision=precision, channels_last=channels_last, crop=budget.crop,
        train_images=scale.train_images, **fields,
    )  # fmt: skip


def _fast(precision: str, b: int, block: str = "conv") -> dict:
    """Precision and memory format of a UNet's training: what is fastest on CPUs (`benchmarks/precision.py`).

    bfloat16 wins for wide normal convolutions alone; channels_last loses in it elsewhere, and wins in float32 always.
    """
    wide = b >= 16 and block == "conv"
    if precision == "mixed":
        precision = "bf16" if wide else "fp32"
    return {"precision": precision, "channels_last": precision != "bf16" or wide}


def _longer(scale: Scale, budget: Budget) -> Budget:
    """The budget of the networks that the paper's tables compare, where they get more images than the others."""
    return budget if scale.long is None else replace(budget, images=scale.long)


def classifier(scale: Scale, seed: int, name: str) -> Experiment:
    """A classifier of Table 6 on noisy digit squares."""
    budget = scale.classify
    return _make(
        scale, budget, seed, channels_last=False, label=name, task="classify", network=name, precision="fp32",
        eval_images=scale.joint_eval_images,
    )  # fmt: skip


def denoiser(scale: Scale, seed: int, b: int, d: int, m: float, c: int, block: str = "conv", **changes) -> Experiment:
    """A UNet of Section 3.2."""
    prefix = "UNet" if block == "conv" else "MB-UNet"
    experiment = _make(
        scale, scale.denoise, seed, **_fast(changes.get("precision", scale.precision), b, block),
        label=f"{prefix} b={b} d={d} m={m:g} c={c}", task="denoise", network="unet", b=b, d=d, m=float(m), c=c, block=block,
    )  # fmt: skip
    return replace(experiment, **changes)


def dcnet(scale: Scale, seed: int, joining: str, size: str, **changes) -> Experiment:
    """A joint DC-Net of Section 3.3."""
    unet = UNETS[size]
    budget = _longer(scale, scale.joint) if size == "reduced" else scale.joint
    experiment = _make(
        scale, budget, seed, **_fast(scale.precision, unet["b"]),
        label=f"DC-Net {size.capitalize()} {joining.capitalize()}", task="joint", network=joining,
        b=unet["b"], d=unet["d"], m=float(unet["m"]), c=unet["c"], eval_images=scale.joint_eval_images,
    )  # fmt: skip
    return replace(experiment, **changes)


def tables_1_and_6(scale_name: str) -> list[Experiment]:
    """The eight classifiers, in the order of Table 6."""
    scale = scale_named(scale_name)
    return [classifier(scale, seed, name) for seed in range(scale.seeds) for name in CLASSIFIERS]


def table_6_variants(scale_name: str) -> list[Experiment]:
    """Networks of Table 6 with other widths that fit its FLOPs as well: do the claims depend on which were meant?"""
    scale = scale_named(scale_name)
    return [classifier(scale, seed, name) for seed in range(scale.seeds) for name in VARIANTS]


# Figure 3: one panel per hyper-parameter; a network that stands in several panels is trained once
FIGURE_3: dict[str, list[dict]] = {
    "b": [dict(b=b, d=4, m=2, c=2) for b in (4, 8, 16, 32, 64)],
    "d": [dict(b=b, d=d, m=2, c=2) for b in (8, 16, 32) for d in (2, 3, 4, 5)],
    "c": [dict(b=b, d=4, m=2, c=c) for b in (8, 16, 32, 64) for c in (1, 2)],
    "m": [dict(b=8, d=4, m=m, c=2) for m in (1, 1.5, 2)],
}
# the MBConv repeat: every panel of Figure 3 around b=8; depthwise convolutions train five times slower on a CPU
MBCONV: dict[str, list[dict]] = {
    "b": [dict(b=b, d=4, m=2, c=2) for b in (4, 8, 16)],
    "d": [dict(b=8, d=d, m=2, c=2) for d in (2, 3, 4, 5)],
    "c": [dict(b=8, d=4, m=2, c=c) for c in (1, 2)],
    "m": [dict(b=8, d=4, m=m, c=2) for m in (1, 1.5, 2)],
}


def _denoisers(scale_name: str, panels: dict[str, list[dict]], block: str) -> list[Experiment]:
    """The UNets of all panels, each once, seed by seed."""
    scale = scale_named(scale_name)
    unique = {tuple(unet.items()): unet for unets in panels.values() for unet in unets}.values()
    return [denoiser(scale, seed, **unet, block=block) for seed in range(scale.seeds) for unet in unique]


def figure_3(scale_name: str) -> list[Experiment]:
    """The UNets of Figure 3."""
    return _denoisers(scale_name, FIGURE_3, "conv")


def figure_3_mbconv(scale_name: str) -> list[Experiment]:
    """The MBConv repeat of the study (Section 3.2, last paragraph)."""
    return _denoisers(scale_name, MBCONV, "mbconv")


def table_2(scale_name: str) -> list[Experiment]:
    """The baseline and the reduced UNet; where they get more images than Figure 3's, runs of their own."""
    scale, budget = scale_named(scale_name), _longer(scale_named(scale_name), scale_named(scale_name).denoise)
    found = []
    for seed in range(scale.seeds):
        for size, unet in UNETS.items():
            changes = dict(steps=budget.steps, epoch_steps=budget.epoch_steps, label=f"UNet {size.capitalize()}")
            found.append(denoiser(scale, seed, **unet, **(changes if scale.long else {})))
    return found


def table_3(scale_name: str) -> list[Experiment]:
    """The four DC-Nets."""
    scale = scale_named(scale_name)
    return [dcnet(scale, seed, joining, size) for seed in range(scale.seeds) for size in UNETS for joining in JOINING]


def why_joint_classifies_better(scale_name: str) -> list[Experiment]:
    """The controls of notebook 03_3: what lifts accuracy from the small classifier's level to the joint one's.

    All see as many images as the DC-Nets do; each differs from its neighbour in one thing.
    """
    scale = scale_named(scale_name)
    found = []
    for seed in range(scale.seeds):
        small = replace(dcnet(scale, seed, "integrated", "reduced"), task="classify", channels_last=False)
        mb = dict(b=None, d=None, m=None, c=None)
        found += [
            replace(small, label="MB2.5-M on the noisy square", network="MB2.5-M", precision="fp32", **mb),
            replace(small, label="MB2.5-M on a denoised square", network="denoised MB2.5-M", precision="fp32", **mb),
            replace(small, label="Encoder on the noisy square", network="encoder"),
            dcnet(scale, seed, "integrated", "reduced", label="Integrated, cross entropy only", ce_weight=1.0),
        ]
    return found


def precision_check(scale_name: str) -> list[Experiment]:
    """A UNet that is trained in bfloat16, in float32 as well: does that change the result?"""
    scale = scale_named(scale_name)
    unet = UNETS["reduced"] if scale.precision != "mixed" else FIGURE_3["b"][2]
    plain = [denoiser(scale, seed, **unet) for seed in range(scale.seeds)]
    return [replace(e, label=f"{e.label}, float32", precision="fp32", channels_last=True) for e in plain]


def clipping_check(scale_name: str) -> list[Experiment]:
    """Tables 2 and 3 on noisy images clipped to [0, 1], the reduced UNet first: which of the two did the paper use?"""
    plain = [*table_2(scale_name), *table_3(scale_name)]
    clipped = [replace(e, label=f"{e.label}, clipped", clip=True) for e in plain]
    return sorted(clipped, key=lambda e: (e.task == "joint", e.b, e.seed))


def normalisation_check(scale_name: str) -> list[Experiment]:
    """The narrowest UNets of Figure 3a with two GroupNorm groups: does b=4 fall off because each channel is its own group?"""
    scale = scale_named(scale_name)
    found = []
    for seed in range(scale.seeds):
        for unet in FIGURE_3["b"][:2]:
            plain = denoiser(scale, seed, **unet)
            found.append(replace(plain, label=f"{plain.label}, two norm groups", network=TWO_GROUPS))
    return found


def section3(scale_name: str) -> list[Experiment]:
    """All runs of Section 3, the most useful first: what the tables need, the line of b, the rest; seed by seed.

    Table 3's baseline pair, a night on a CPU core, waits for the line of b; variants of classifiers come last.
    """
    groups = (
        table_2, table_3, tables_1_and_6, why_joint_classifies_better, figure_3, figure_3_mbconv, clipping_check, precision_check,
        normalisation_check,
    )  # fmt: skip
    unique = {e.name: e for group in groups for e in group(scale_name)}
    line = {denoiser(scale_named(scale_name), 0, **net).label for net in FIGURE_3["b"]}

    def usefulness(e: Experiment) -> tuple[int, int]:
        if e.network in JOINING and e.b == UNETS["baseline"]["b"]:
            return 2, e.seed
        return 0 if e.label in first else 1 if e.label in line else 3, e.seed

    first = {e.label for group in groups[:2] for e in group(scale_name)}
    return [*sorted(unique.values(), key=usefulness), *table_6_variants(scale_name)]
