"""Whether what a claim is judged with works: preconditions and health checks of networks, searches and
controls.

A check stands in data/paper/comparisons.csv: "supernet noisy S", "recall DC-NAS S", "denoiser D-NAS S",
"agreement C-NAS S, beta removed", "control A / B", "widths MB4-S"; a precondition is a pair of networks
that should be equally fast.
"""

from functools import lru_cache

from ..models import VARIANTS
from ..nas import alphas, recorder
from ..nas.space import Space
from .comparisons import Evidence
from .presets import searches
from .results import largest_class, results
from .scales import SCALE
from .stats import means

LATENCY_PCT = 5.0  # within which two networks are equally fast
BM3D_DB = 0.5  # that a denoiser may be worse than BM3D at SIGMA
SIGMA = 0.2
CONTROL = 0.9  # share of its accuracy at full length that a control must reach


def failed_check(row: dict, evidence: Evidence) -> str | None:
    """The first thing that fails of a comparison's precondition and instruments, with its number; None
    if all hold.
    """
    if row["precondition"]:
        a, b = row["precondition"].split(" - ")
        runs = evidence.results_of(row["group"]).rows.drop_duplicates("run")
        latency_ms = runs.groupby("label")["latency_ms"].mean()
        gap_pct = 100 * (latency_ms[a] / latency_ms[b] - 1)
        if abs(gap_pct) > LATENCY_PCT:
            return f"latencies differ by {gap_pct:+.0f}%"
    checks = [text.split(" ", 1) for text in row["instrument"].split(" ; ") if text]
    return next(
        (why for kind, what in checks if (why := CHECKS[kind](what, row["group"], evidence))), None
    )


def _supernet(label: str, group: str, evidence: Evidence) -> str | None:
    """A supernet ends well above the largest class: on held-out images, if it was tried on these."""
    epochs = evidence.searches_of("searches").only(label).epochs
    name = "held_out_accuracy" if "held_out_accuracy" in epochs else "accuracy"
    accuracy, largest = epochs[name].iloc[-1], largest_class(evidence.scale)
    if accuracy < largest + recorder.LEAD:
        return f"its supernet ends at {accuracy:.1f}%, where the largest class has {largest:.1f}%"


def _agreement(label: str, group: str, evidence: Evidence) -> str | None:
    """Seeds of a search agree on operators more than searches that learn nothing do."""
    found = evidence.searches_of("beta_searches")
    ends = [found.last_alphas(label, seed)[1] for name, seed in found.architectures if name == label]
    if len(ends) < 2:
        return "one search"
    null, alike = _null(found.rows["scale"].iloc[0]), alphas.agreement(ends).mean()
    if alike <= null:
        chance = f"searches that learn nothing on up to {100 * null:.0f}%"
        return f"seeds agree on {100 * alike:.0f}% of layers, {chance}"


@lru_cache(maxsize=4)
def _null(scale: str) -> float:
    s, settings = SCALE[scale], searches("beta_searches", scale)[0].with_target(1.0)
    space = Space(4, s.photos["resolution"], 2, s.width, s.strides)
    return float(alphas.noise_null(space, settings)["agreement_95"].iloc[-1])


def _denoiser(label: str, group: str, evidence: Evidence) -> str | None:
    """A denoiser is not far below BM3D, which learns nothing."""
    psnr = results("section2", evidence.scale).scores("psnr")
    bm3d = max(level.mean for level in means(psnr, ["BM3D colour", "BM3D grey"], [SIGMA]).values())
    ours = means(evidence.results_of(group).scores("psnr"), [label], [SIGMA])
    if label in ours and ours[label].mean < bm3d - BM3D_DB:
        return f"{label} has {ours[label].mean:.1f} dB at σ = {SIGMA:g}, BM3D {bm3d:.1f}"


def _recall(label: str, group: str, evidence: Evidence) -> str | None:
    """Every class is named at times, without noise."""
    rows = evidence.results_of(group).rows
    least = rows[(rows["label"] == label) & (rows["sigma"] == 0)]["least_recall"].mean()
    return None if least > 0 else f"{label} never names one of its classes"


def _control(what: str, group: str, evidence: Evidence) -> str | None:
    """A control, trained as long as what it stands beside, is near what it reaches at full length."""
    short, full = what.split(" / ")
    accuracy = results("why_joint_classifies_better", evidence.scale).scores("accuracy")
    full_length = results("tables_1_and_6", evidence.scale).scores("accuracy")
    ours, best = means(accuracy, [short])[short].mean, means(full_length, [full])[full].mean
    if ours < CONTROL * best:
        return f"{full} reaches {ours:.0f}% at this length of training, {best:.0f}% at full"


def _widths(name: str, group: str, evidence: Evidence) -> str | None:
    """Other widths that fit the FLOPs of a network of Table 6 as well have been trained."""
    variants = {label for label in VARIANTS if label.startswith(name)}
    if variants - set(evidence.results_of(group).rows["label"]):
        return f"{len(variants) + 1} pairs of widths fit the FLOPs of {name}, one is trained"


CHECKS = {
    "supernet": _supernet,
    "agreement": _agreement,
    "denoiser": _denoiser,
    "recall": _recall,
    "control": _control,
    "widths": _widths,
}
