"""Whether what a claim is judged with works: preconditions and health checks of networks, searches and
controls.

A check is a line of data/paper/comparisons.csv: "supernet noisy S", "recall DC-NAS S", "denoiser D-NAS
S", "agreement C-NAS S, beta removed", "control A / B", "widths MB4-S"; a precondition is a pair of
networks that should be equally fast.
"""

from functools import lru_cache

from ..models import VARIANTS
from ..nas import alphas, recorder
from ..nas.space import Space
from .comparisons import Evidence
from .presets import searches
from .results import largest_class, results
from .scales import scale_named
from .stats import means

LATENCY_PCT = 5.0  # within which two networks are equally fast
BM3D_DB = 0.5  # that a denoiser may be worse than BM3D at SIGMA
SIGMA = 0.2
CONTROL = 0.9  # share of its accuracy at full length that a control must reach


def failed_check(row: dict, evidence: Evidence) -> str | None:
    """The first thing that fails of a comparison's precondition and instruments, with its number; None
    if all hold.
    """
    if pair := row["precondition"]:
        gap_pct = _gap_pct(pair, row["group"], evidence)
        if abs(gap_pct) > LATENCY_PCT:
            return f"latencies differ by {gap_pct:+.0f}%"
    checks = (text.split(" ", 1) for text in row["instrument"].split(" ; ") if text)
    return next(
        (why for kind, what in checks if (why := CHECKS[kind](what, row["group"], evidence))), None
    )


def _gap_pct(pair: str, group: str, evidence: Evidence) -> float:
    rows = evidence.results_of(group).rows.drop_duplicates("run").groupby("label")["latency_ms"].mean()
    a, b = pair.split(" - ")
    for word, other in (("b=equal", " b="), ("b=large", " d=5")):
        if word in b:
            b = next(
                label for label in rows.index if label.startswith(b.split(" ")[0]) and other in label
            )
    return 100 * (rows[a] / rows[b] - 1)


def _supernet(label: str, group: str, evidence: Evidence) -> str | None:
    """A supernet ends well above the largest class: on held-out images, or where nobody looked at these,
    on its batches.
    """
    epochs = evidence.searches_of("searches").only(label).epochs
    name = "held_out_accuracy" if "held_out_accuracy" in epochs else "accuracy"
    accuracy, largest = epochs[name].iloc[-1], largest_class(evidence.scale)
    if accuracy >= largest + recorder.LEAD:
        return None
    return f"its supernet ends at {accuracy:.1f}%, where the largest class has {largest:.1f}%"


def _agreement(label: str, group: str, evidence: Evidence) -> str | None:
    """Seeds of a search agree on operators more than searches that learn nothing do."""
    found = evidence.searches_of("beta_searches")
    ends = [found.last_alphas(label, seed)[1] for name, seed in found.architectures if name == label]
    if len(ends) < 2:
        return "one search"
    scale = found.rows["scale"].iloc[0]
    null, alike = _null(scale), alphas.agreement(ends).mean()
    if alike > null:
        return None
    chance = f"searches that learn nothing on up to {100 * null:.0f}%"
    return f"seeds agree on {100 * alike:.0f}% of layers, {chance}"


@lru_cache(maxsize=4)
def _null(scale: str) -> float:
    settings = searches("beta_searches", scale)[0].with_target(1.0)
    s = scale_named(scale)
    return float(
        alphas.noise_null(Space(4, s.photos["resolution"], 2, s.width, s.strides), settings)[
            "agreement_95"
        ].iloc[-1]
    )


def _denoiser(label: str, group: str, evidence: Evidence) -> str | None:
    """A denoiser is not far below BM3D, which learns nothing."""
    bm3d = _bm3d(evidence.scale)
    mean = means(evidence.results_of(group).scores("psnr"), [label], [SIGMA])
    if label not in mean or mean[label].mean >= bm3d - BM3D_DB:
        return None
    return f"{label} has {mean[label].mean:.1f} dB at σ = {SIGMA:g}, BM3D {bm3d:.1f}"


@lru_cache(maxsize=4)
def _bm3d(scale: str) -> float:
    nets = results("section2", scale)
    return max(
        interval.mean
        for interval in means(nets.scores("psnr"), ["BM3D colour", "BM3D grey"], [SIGMA]).values()
    )


def _recall(label: str, group: str, evidence: Evidence) -> str | None:
    """Every class is named at times, without noise."""
    rows = evidence.results_of(group).rows
    least = rows[(rows["label"] == label) & (rows["sigma"] == 0)]["least_recall"].mean()
    return None if least > 0 else f"{label} never names one of its classes"


def _control(what: str, group: str, evidence: Evidence) -> str | None:
    """A control, trained for as long as what it stands beside, is near what it reaches at full
    length.
    """
    short, full = what.split(" / ")
    ours = means(results("why_joint_classifies_better", evidence.scale).scores("accuracy"), [short])[
        short
    ].mean
    best = means(results("tables_1_and_6", evidence.scale).scores("accuracy"), [full])[full].mean
    return (
        None
        if ours >= CONTROL * best
        else f"{full} reaches {ours:.0f}% at this length of training, {best:.0f}% at full"
    )


def _widths(name: str, group: str, evidence: Evidence) -> str | None:
    """Other widths that fit the FLOPs of a network of Table 6 as well have been trained."""
    variants = [label for label in VARIANTS if label.startswith(name)]
    trained = set(evidence.results_of(group).rows["label"])
    if not variants or set(variants) <= trained:
        return None
    return f"{len(variants) + 1} pairs of widths fit the FLOPs of {name}, one is trained"


CHECKS = {
    "supernet": _supernet,
    "agreement": _agreement,
    "denoiser": _denoiser,
    "recall": _recall,
    "control": _control,
    "widths": _widths,
}
