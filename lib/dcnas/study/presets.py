"""Every run of the study as data: which networks, at which scale, with which seeds.

A group such as "table_3" lists networks (`section_3`, `section_4`); `runs(group, scale)` crosses it with
the seeds, in the order in which the paper shows them. Nothing is loaded or measured to say what a group
holds.
"""

from dataclasses import replace

from ..errors import InputError
from ..models import JOINING, UNETS, VARIANTS
from .kinds import Filter, Run
from .scales import Scale, scale_named
from .section_3 import FIGURE_3, SECTION_3, unet_label
from .section_4 import SEARCH_GROUPS, SECTION_4, searches

IMAGES_OF_BM3D = 50  # of the test set: BM3D takes a second for an image of 64 x 64 pixels
SECTIONS = ("section2", "section3", "section4", "section4_searches")
GROUPS = (*SECTIONS, *SECTION_3, *SECTION_4, *SEARCH_GROUPS)


def runs(group: str, scale: str) -> list:
    """The runs of a group at a scale, in the paper's order, a seed of all before the next; of a section
    the most useful first.
    """
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
    """A run with its seed; a network is trained with the seed of its search, one of chance drawn with
    it.
    """
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
    """All runs of a section, each once, the most useful first: what the tables compare, one seed of all
    before the next.
    """
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
    """How early a run of Section 3 comes: Table 3's baseline pair, a night on a CPU core, waits for the
    line of b.
    """
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
