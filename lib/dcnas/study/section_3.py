"""The networks of Section 3, on images of two digits: classifiers, UNets and DC-Nets, as runs of seed
0.
"""

from dataclasses import replace

from ..models import CLASSIFIERS, JOINING, UNETS, VARIANTS
from .kinds import Run
from .scales import Budget, Scale

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
    """Precision and memory format of a UNet's training: what is fastest on CPUs
    (`benchmarks/precision.py`).

    bfloat16 wins for wide normal convolutions alone; channels_last loses in it elsewhere, and wins in
    float32 always.
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
    """The baseline and the reduced UNet; where they see more images than Figure 3's, runs of their
    own.
    """
    return [_unet(s, unet, f"UNet {size.capitalize()}", long=True) for size, unet in UNETS.items()]


def _table_3(s: Scale) -> list[Run]:
    return [_dcnet(s, joining, size) for size in UNETS for joining in JOINING]


def _controls(s: Scale) -> list[Run]:
    """What lifts accuracy from the small classifier's to the joint one's: each differs from its
    neighbour in one thing.
    """
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
    """The narrowest UNets with two GroupNorm groups: does b=4 fall off because each channel is its own
    group?
    """
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
