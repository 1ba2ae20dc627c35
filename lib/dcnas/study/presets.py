"""Every run of the study as data: which networks, at which scale, with which seeds.

`runs(group, scale)` crosses the networks of a group such as "table_3" with the seeds, in the paper's
order. A target latency is "S", "M" or "L" until a search looks it up in the table of its device.
"""

from dataclasses import replace

from ..errors import InputError
from ..models import CLASSIFIERS, JOINING, UNETS, VARIANTS
from ..training import Settings
from .kinds import Derivation, Filter, Run, Search
from .scales import SCALE, Budget, Scale

IMAGES_OF_BM3D = 50  # of the test set: BM3D takes a second for an image of 64 x 64 pixels

# ---- Section 3: images of two digits

FIGURE_3 = {  # a panel per hyper-parameter; a network in several panels is trained once
    "b": [dict(b=b, d=4, m=2, c=2) for b in (4, 8, 16, 32, 64)],
    "d": [dict(b=b, d=d, m=2, c=2) for b in (8, 16, 32) for d in (2, 3, 4, 5)],
    "c": [dict(b=b, d=4, m=2, c=c) for b in (8, 16, 32, 64) for c in (1, 2)],
    "m": [dict(b=8, d=4, m=m, c=2) for m in (1, 1.5, 2)],
}
# the repeat around b=8; depthwise convolutions train five times slower on a CPU
MBCONV = {panel: FIGURE_3[panel][:count] for panel, count in dict(b=3, d=4, c=2, m=3).items()}
PLAIN = dict(precision="fp32", channels_last=False)


def unet_label(b: int, d: int, m: float, c: int, block: str = "conv", **_) -> str:
    """A UNet's name in tables and figures."""
    return f"{'UNet' if block == 'conv' else 'MB-UNet'} b={b} d={d} m={m:g} c={c}"


def _digits(s: Scale, label: str, task: str, net: dict, budget: Budget, precision: str = "") -> Run:
    """A network on two digits, trained as is fastest on CPUs (`benchmarks/precision.py`).

    bfloat16 wins for wide normal convolutions alone; channels_last loses in it elsewhere.
    """
    if unet := net.get("unet"):
        net = net | dict(unet=unet | dict(m=float(unet["m"])))
        wide = unet["b"] >= 16 and unet.get("block", "conv") == "conv"
        mixed = "bf16" if wide else "fp32"
        precision = precision or (mixed if s.precision == "mixed" else s.precision)
        how = dict(precision=precision, channels_last=precision != "bf16" or wide)
    else:
        how = PLAIN
    steps = -(-budget.images // budget.batch)
    train = Settings(steps, -(-steps // budget.epochs), budget.lr, budget.schedule, **how)
    data = dict(images=s.train_images, crop=budget.crop, clip=False)
    images = s.eval_images if task == "denoise" else s.joint_eval_images
    return Run(label, "", 0, task, net, data, train, budget.batch, images)


def _unet(s: Scale, unet: dict, **more) -> Run:
    return _digits(s, unet_label(**unet), "denoise", dict(kind="unet", unet=unet), s.denoise, **more)


def _table_2(s: Scale) -> list[Run]:
    """Both UNets; where they see more images than Figure 3's, runs of their own."""
    if not s.long:
        return [_unet(s, unet) for unet in UNETS.values()]
    budget, nets = replace(s.denoise, images=s.long), UNETS.items()
    names = {f"UNet {size.capitalize()}": dict(kind="unet", unet=unet) for size, unet in nets}
    return [_digits(s, label, "denoise", net, budget) for label, net in names.items()]


def _table_3(s: Scale) -> list[Run]:
    made = []
    for size, unet in UNETS.items():
        budget = replace(s.joint, images=s.long) if size == "reduced" and s.long else s.joint
        for joining in JOINING:
            net = dict(kind=joining, unet=unet)
            net |= dict(classifier="MB2.5-M") if joining == "sequential" else {}
            label = f"DC-Net {size.capitalize()} {joining.capitalize()}"
            made.append(_digits(s, label, "joint", net, budget))
    return made


def _controls(s: Scale) -> list[Run]:
    """From the small classifier's accuracy to the joint one's: each differs in one thing."""
    joint = next(run for run in _table_3(s) if run.label == "DC-Net Reduced Integrated")
    plain, alone = replace(joint.train, **PLAIN), replace(joint, task="classify")
    behind = dict(kind="MB2.5-M", behind=UNETS["reduced"])
    encoder, contiguous = joint.net | dict(kind="encoder"), replace(joint.train, channels_last=False)
    return [
        replace(alone, label="MB2.5-M on the noisy square", net=dict(kind="MB2.5-M"), train=plain),
        replace(alone, label="MB2.5-M on a denoised square", net=behind, train=plain),
        replace(alone, label="Encoder on the noisy square", net=encoder, train=contiguous),
        replace(joint, label="Integrated, cross entropy only", ce_weight=1.0),
    ]


def _figure_3(s: Scale, panels: dict[str, list[dict]], **block) -> list[Run]:
    made = [_unet(s, unet | block) for unets in panels.values() for unet in unets]
    return list({run.label: run for run in made}.values())


def _two_groups(s: Scale) -> list[Run]:
    """Does b=4 fall off because in GroupNorm each channel is its own group?"""
    made = [_unet(s, unet) for unet in FIGURE_3["b"][:2]]
    nets = [dict(kind="unet", unet=run.unet | dict(norm_groups=2)) for run in made]
    return [replace(run, label=f"{run.label}, two norm groups", net=net) for run, net in zip(made, nets)]


def _float32(s: Scale) -> list[Run]:
    """A UNet that is trained in bfloat16, in float32 as well: does that change the result?"""
    unet = UNETS["reduced"] if s.precision != "mixed" else FIGURE_3["b"][2]
    run = _unet(s, unet, precision="fp32")
    return [replace(run, label=f"{run.label}, float32")]


def _clipped(s: Scale) -> list[Run]:
    """Tables 2 and 3 on noisy images clipped to [0, 1]: which of the two did the paper use?"""
    plain = sorted([*_table_2(s), *_table_3(s)], key=lambda r: (r.task == "joint", r.unet["b"]))
    return [replace(r, label=f"{r.label}, clipped", data=r.data | dict(clip=True)) for r in plain]


def _classifiers(s: Scale, names) -> list[Run]:
    return [_digits(s, name, "classify", dict(kind=name), s.classify) for name in names]


SECTION_3 = {  # the most useful first
    "table_2": _table_2,
    "tables_1_and_6": lambda s: _classifiers(s, CLASSIFIERS),
    "table_3": _table_3,
    "why_joint_classifies_better": _controls,
    "figure_3": lambda s: _figure_3(s, FIGURE_3),
    "figure_3_mbconv": lambda s: _figure_3(s, MBCONV, block="mbconv"),
    "clipping_check": _clipped,
    "precision_check": _float32,
    "normalisation_check": _two_groups,
    "table_6_variants": lambda s: _classifiers(s, VARIANTS),
}

# ---- Section 4: photographs

TARGETS = {"S": 0.25, "M": 0.4, "L": 0.7}  # of the way from the fastest to the slowest; 6, 8, 12 ms
REMOVED, LEARNED = "C-NAS S, beta removed", "C-NAS S, beta learned"
TWO_SAMPLED, TF_NAS, CHANCE = "C-NAS M, two operators sampled", "TF-NAS settings M", "random search M"


def operators_label(size: str, count: int) -> str:
    """The search with so many operators; one of them stands in Table 8 and Figure 5 too."""
    return REMOVED if (size, count) == ("S", 4) else f"C-NAS {size}, {count} operators"


C_NAS, L_NAS = operators_label("M", 4), operators_label("L", 4)
BY_OPERATORS = {
    operators_label(size, n): dict(target=size, operators=n) for size in TARGETS for n in (4, 6, 8)
}
HOW = {  # what each search does otherwise than one at the target M with four operators
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
SEARCH_GROUPS = {
    "beta_searches": [REMOVED, LEARNED],
    "operator_searches": [*BY_OPERATORS],
    "gradient_searches": [C_NAS, TWO_SAMPLED],
    "searches": [*HOW],
}


def _search(s: Scale, label: str) -> Search:
    how = dict(target="M", operators=4, noisy=False, random=False) | HOW[label]
    first = ("target", "operators", "noisy", "random")
    target, operators, noisy, random = (how.pop(name) for name in first)
    settings = s.search | (dict(lr=s.noisy_lr) if noisy else {}) | how
    drawn = (s.random_networks, s.random_steps) if random else (0, 0)
    space = s.photos, s.width, s.strides, operators
    return Search(label, "", 0, *space, target, s.table, s.search_batch, settings, noisy, *drawn)


def searches(group: str, scale: str) -> list[Search]:
    """The searches of a group, a seed of all before the next; Table 8's with more seeds."""
    s, made = SCALE[scale], []
    for seed in range(1 if group == "operator_searches" else s.seeds + s.more_seeds):
        for label in SEARCH_GROUPS[group]:
            if seed < s.seeds or label in (REMOVED, LEARNED):
                made.append(replace(_search(s, label), scale=scale, seed=seed))
    return made


def _photographs(s: Scale, label: str, kind: str, source=None, noisy: bool = True, **net) -> Run:
    net = dict(kind=kind) | net
    if s.dropout and kind not in ("UNet", "D-NAS"):
        net |= dict(dropout=s.dropout, drop_connect=s.dropout)
    what = "photographs", net, s.photos | dict(noisy=noisy), s.train, s.train_batch, s.photos_eval
    return Run(label, "", 0, *what, source=source)


def _derived(s: Scale, label: str, network: str = "C-NAS", target: str = "", random=None) -> Derivation:
    return Derivation(_search(s, label), network, target, random, 1 if s is SCALE["smoke"] else 30)


def _searched(s: Scale, labels: list[str]) -> list[Run]:
    """Searched classifiers, trained on clean images (Section 4.1)."""
    return [_photographs(s, label, "C-NAS", _derived(s, label), noisy=False) for label in labels]


def _figure_7(s: Scale) -> list[Run]:
    random = _photographs(s, "random M", "C-NAS", _derived(s, C_NAS, random=0), noisy=False)
    others = [_photographs(s, name, name, noisy=False) for name in ("ResNet-18", "MobileNetV2")]
    return [*_searched(s, [C_NAS, TF_NAS]), random, *_searched(s, [CHANCE]), *others]


def _table_4(s: Scale) -> list[Run]:
    small, large = _derived(s, REMOVED), UNETS["reduced"] | dict(b=s.large_b, d=5, m=2)
    manual = {"Reduced" if b == 8 else f"b={b}": b for b in sorted({8, s.equal_b})}
    manual = {f"UNet {size}": UNETS["reduced"] | dict(b=b) for size, b in manual.items()}
    return [
        *(_photographs(s, label, "UNet", unet=unet) for label, unet in manual.items()),
        _photographs(s, "D-NAS S", "D-NAS", small),
        _photographs(s, f"UNet b={s.large_b} d=5 m=2", "UNet", unet=large),
        _photographs(s, "D-NAS S upscaled", "D-NAS", small, upscaled=s.upscaling),
    ]


def _table_5(s: Scale) -> list[Run]:
    joint, small = "L + decoder", _derived(s, "noisy S")
    clean, noisy, both = (_derived(s, name) for name in (C_NAS, "noisy M", "noisy M, both losses"))
    rows = {
        "DC-NAS_seq L": ("DC-NAS_seq", _derived(s, REMOVED, "DC-NAS_seq", joint)),
        "DC-NAS L": ("DC-NAS", _derived(s, L_NAS, "DC-NAS", joint)),
        "DC-NAS clean M": ("DC-NAS", clean),
        "DC-NAS noisy M": ("DC-NAS", noisy),
        "DC-NAS noisy M, both losses": ("DC-NAS", replace(both, target="M")),
        "C-NAS noisy M": ("C-NAS", noisy),
    }
    made = [_photographs(s, label, *row) for label, row in rows.items()]
    for kind in ("mb", "mb 1-op", "mb 3-lay"):
        made.append(_photographs(s, f"DC-NAS clean M, {kind}", "DC-NAS", clean, decoder=kind))
    for b in sorted({8, s.equal_b}):  # reduced, and as fast as the searched one
        size, unet = "Reduced" if b == 8 else f"b={b}", UNETS["reduced"] | dict(b=b)
        for kind, source in (("DC-Net", None), ("DC-Net_tail", small)):
            made.append(_photographs(s, f"{kind} {size}", kind, source, unet=unet))
    return [*made, _photographs(s, "DC-NAS S", "DC-NAS", small)]


def _related(s: Scale) -> list[Run]:
    """The denoisers of Section 2 beside each other."""
    labels = ("UNet Reduced", "D-NAS S", "DC-NAS S")
    shown = [run for run in (*_table_4(s), *_table_5(s)) if run.label in labels]
    return [_photographs(s, name, name) for name in ("DnCNN", "DnCNN, residual")] + shown


SECTION_4 = {
    "table_4": _table_4,
    "table_5": _table_5,
    "table_8": lambda s: _searched(s, [REMOVED, LEARNED]),
    "figure_7": _figure_7,
    "gradient_comparison": lambda s: _searched(s, [C_NAS, TWO_SAMPLED]),
    "figure_6": lambda s: _searched(s, [*BY_OPERATORS]),
    "related_work": _related,
}

# ---- groups

SECTIONS = ("section2", "section3", "section4", "section4_searches")
GROUPS = (*SECTIONS, *SECTION_3, *SECTION_4, *SEARCH_GROUPS)


def runs(group: str, scale: str) -> list:
    """The runs of a group in the paper's order, a seed of all before the next.

    Of a section each once, the most useful group first; of Section 4 what is needed before.
    """
    if group == "section2":
        return [*filters(scale), *runs("related_work", scale)]
    if group == "section4_searches":
        return searches("searches", scale)
    if group in ("section3", "section4"):
        groups = SECTION_3 if group == "section3" else SECTION_4
        each = [*{run.name: run for name in groups for run in runs(name, scale)}.values()]
        if group == "section3":
            return each
        derived = {run.source.name: run.source for run in each if run.source is not None}
        derived = sorted(derived.values(), key=lambda d: d.seed)
        return [*searches("searches", scale), *derived, *each]
    if group in SEARCH_GROUPS:
        return searches(group, scale)
    if group not in GROUPS:
        raise InputError(f"group is {group!r}, but one of {', '.join(GROUPS)} was expected.")
    s, made = SCALE[scale], []
    seeds = 1 if group == "related_work" else s.seeds + (s.more_seeds if group == "table_8" else 0)
    networks = (SECTION_3 | SECTION_4)[group](s)
    for seed in range(seeds):
        for run in networks:
            source = run.source  # a network has the seed of its search; one of chance is drawn with it
            if source is not None:
                by_chance = source.random_seed is not None
                search = replace(source.search, scale=scale, seed=0 if by_chance else seed)
                source = replace(source, search=search, random_seed=seed if by_chance else None)
            made.append(replace(run, scale=scale, seed=seed, source=source))
    return made


def filters(scale: str) -> list[Filter]:
    """Both readings of BM3D."""
    photos, count = SCALE[scale].photos, 1 if scale == "smoke" else IMAGES_OF_BM3D
    readings = {"BM3D colour": False, "BM3D grey": True}
    return [Filter(label, scale, photos, count, grey) for label, grey in readings.items()]
