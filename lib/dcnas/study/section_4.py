"""The searches and networks of Section 4, on photographs, as runs of seed 0.

A target latency is "S", "M" or "L" until a search looks it up in the table of its device.
"""

from dataclasses import replace

from ..models import UNETS
from .kinds import Derivation, Run, Search
from .scales import SCALE, Scale, scale_named

TARGETS = {
    "S": 0.25,
    "M": 0.4,
    "L": 0.7,
}  # of the way from the fastest to the slowest network; the paper's 6, 8 and 12 ms
REMOVED, LEARNED = "C-NAS S, beta removed", "C-NAS S, beta learned"
TWO_SAMPLED, TF_NAS, CHANCE = "C-NAS M, two operators sampled", "TF-NAS settings M", "random search M"


def operators_label(size: str, count: int) -> str:
    """The search with so many operators; the one at the small target stands in Table 8 and Figure 5
    too.
    """
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
    """The searches of a group: a seed of all before the next; those of Table 8 with more seeds where the
    scale has them.
    """
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


SECTION_4 = {
    "table_8": lambda s: _searched(s, [REMOVED, LEARNED]),
    "figure_6": lambda s: _searched(s, [*BY_OPERATORS]),
    "figure_7": _figure_7,
    "gradient_comparison": lambda s: _searched(s, [C_NAS, TWO_SAMPLED]),
    "table_4": _table_4,
    "table_5": _table_5,
    "related_work": _related,
}
