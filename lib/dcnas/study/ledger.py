"""The ledger (Section 5): every claim of the paper with its verdict and what it rests on, from the results of one scale.

The comparisons are those of the notebooks. Here they stand together, and assumptions that the paper leaves open can be turned
about: `Assumptions` changes the scores before any claim looks at them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import figures, paper, plots_classifier, plots_joint, plots_nas, plots_unet, results, results4
from .claims import NOT_REPRODUCED, REPRODUCED, UNDECIDED, judge, overall, verdict_table
from .compare import Scores
from .figures import COLOURS

SIGMA = 0.8  # of Figure 3's claims
DECIBEL = 10 / np.log(10)
VERDICT_LOOK = {REPRODUCED: ("green", "o"), NOT_REPRODUCED: ("red", "X"), UNDECIDED: ("orange", "s")}


@dataclass(frozen=True)
class Assumptions:
    """What the paper leaves open about its means. The defaults are those of the notebooks."""

    without_zero: bool = False  # means over the ten noise levels above 0 instead of all eleven
    pooled: bool = False  # PSNR of the error pooled over all images instead of the mean of each image's PSNR

    @property
    def text(self) -> str:
        mean = "ten noise levels above 0" if self.without_zero else "eleven noise levels"
        kind = "of the error pooled over images" if self.pooled else "averaged over images"
        return f"means over {mean}, PSNR {kind}"

    def apply(self, scores: Scores, metric: str) -> Scores:
        """The scores as these assumptions have them."""
        if self.pooled and metric == "psnr":
            scores = {key: pooled(values) for key, values in scores.items()}
        if self.without_zero:  # σ = 0 counts as much as the mean of the others, so a mean over eleven is that over ten
            scores = {key: np.concatenate([values[1:].mean(0, keepdims=True), values[1:]]) for key, values in scores.items()}
        return scores


def pooled(psnr: np.ndarray) -> np.ndarray:
    """A number for each image whose mean over images is the PSNR of the pooled error, (11, N) to (11, N).

    To first order the spread of that mean is the spread of the pooled PSNR, which is not a mean itself.
    """
    error = 10 ** (-psnr.astype(np.float64) / 10)
    mean = error.mean(1, keepdims=True)
    return -DECIBEL * (np.log(mean) + error / mean - 1)


def comparisons(scale: str, assumptions: Assumptions = Assumptions(), *, device: str = "cpu") -> list[dict]:
    """All comparisons of all claims in the paper's order, as `claims.verdict_table` takes them."""

    def scores_of(rows: pd.DataFrame, metric: str, of: Callable = results.per_image) -> Scores:
        return assumptions.apply(of(rows, metric), metric)

    rows = results.results("tables_1_and_6", scale, device=device)
    accuracy = scores_of(rows, "accuracy")
    found = plots_classifier.claims_of_table_1(accuracy) + plots_classifier.claims_of_table_6(accuracy)
    rows = results.gather(["figure_3", "figure_3_mbconv"], scale, device)
    found += plots_unet.unet_claims(rows, scores_of(rows, "psnr"), SIGMA)
    rows = results.results("table_3", scale, device=device)
    found += plots_joint.joint_claims(scores_of(rows, "psnr"), scores_of(rows, "accuracy"))

    # Section 4.1 judges without noise, which no assumption here is about
    rows, searched = results4.results("table_8", scale, device=device), results4.searches("beta_searches", scale, device=device)
    accuracy = results4.per_image(rows, "accuracy")
    found += plots_nas.beta_claims(plots_nas.table_8(searched, rows, accuracy), accuracy, searched)
    rows = results4.results("figure_6", scale, device=device)
    found += plots_nas.operator_claims(results4.per_image(rows, "accuracy"))
    rows = results4.results("figure_7", scale, device=device)
    derived = results4.derived(scale, device=device)
    found += plots_nas.classifier_claims(rows, results4.per_image(rows, "accuracy"), derived)

    rows = results4.results("table_4", scale, device=device)
    found += plots_nas.denoiser_claims(rows, *(scores_of(rows, m, results4.per_image) for m in ("psnr", "ssim")))
    rows = results4.results("table_5", scale, device=device)
    found += plots_nas.joint_claims(rows, *(scores_of(rows, m, results4.per_image) for m in ("psnr", "ssim", "accuracy")))
    return sorted(found, key=lambda row: row["claim"])


def asked_of(row: dict) -> dict:
    """What `claims.judge` is asked of a comparison."""
    return {name: row[name] for name in ("threshold", "direction", "margin", "seeds") if name in row}


def verdict_of(row: dict) -> str:
    """The verdict on one comparison, of several seeds or one."""
    return judge(row["effect"], **asked_of(row))


def verdicts(rows: Sequence[dict]) -> pd.Series:
    """The verdict on each claim; the claims without any comparison are "no results"."""
    judged: dict[str, list[str]] = {}
    for row in rows:
        judged.setdefault(row["claim"], []).append(verdict_of(row))
    found = {claim: overall(judged[claim]) if claim in judged else "no results" for claim in paper.claims().index}
    return pd.Series(found, name="verdict").rename_axis("claim")


def ledger(rows: Sequence[dict]) -> pd.DataFrame:
    """A row per comparison: claim, statement, comparison, effect, interval, verdict; and the verdict on the whole claim."""
    table = verdict_table(list(rows))
    table["claim's verdict"] = table["claim"].map(verdicts(rows))
    return table.set_index("claim")


def summary(rows: Sequence[dict]) -> pd.DataFrame:
    """A row per claim: where it stands in the paper, what it says, how many comparisons were made, the verdict."""
    table = paper.claims()[["section", "source", "statement"]].copy()
    counts = pd.Series([row["claim"] for row in rows]).value_counts()
    table["comparisons"] = counts.reindex(table.index, fill_value=0)
    table["seeds"] = [_seeds([row for row in rows if row["claim"] == claim]) for claim in table.index]
    table["verdict"] = verdicts(rows)
    return table


def _seeds(rows: Sequence[dict]) -> str:
    counts = sorted({row["seeds"] for row in rows if "seeds" in row})
    return "" if not counts else f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def clearance(row: dict) -> float:
    """How clearly an effect is where the claim says: its distance from the border in half widths of its interval towards it.

    Above 1 is "reproduced", below -1 "not reproduced"; NaN without an interval, infinite for an exact number.
    """
    effect, threshold, direction = row["effect"], row.get("threshold", 0.0), row.get("direction", ">")
    margin = row.get("margin", 0.0)
    above = threshold - margin if direction == "about" else threshold if direction == ">" else -np.inf  # the claim's region
    below = threshold + margin if direction == "about" else threshold if direction == "<" else np.inf
    if above <= effect.mean <= below:
        return min(_ratio(effect.mean - above, effect.mean - effect.low), _ratio(below - effect.mean, effect.high - effect.mean))
    if effect.mean < above:
        return -_ratio(above - effect.mean, effect.high - effect.mean)
    return -_ratio(effect.mean - below, effect.mean - effect.low)


def _ratio(distance: float, half: float) -> float:
    return np.inf if half == 0 else distance / half


def glance(rows: Sequence[dict], text: str = "", limit: float = 4.0) -> Figure:
    """All claims at a glance: a mark for each comparison, how clearly it is on the claim's side, coloured by its verdict."""
    names = list(paper.claims().index)
    figure, axes = figures.new_figure(9, 0.27 * len(names) + 1.6)
    whole = verdicts(rows)
    axes.axvspan(-1, 1, color="0.93", zorder=0)
    for row in rows:
        place, value = names.index(row["claim"]), clearance(row)
        colour, marker = VERDICT_LOOK[verdict_of(row).removesuffix(" (one seed)")]
        hollow = dict(markerfacecolor="white") if row.get("seeds") == 1 else {}
        if not np.isnan(value):
            axes.plot(np.clip(value, -limit, limit), place, marker, color=COLOURS[colour], markersize=7, alpha=0.8, **hollow)
    axes.set_yticks(range(len(names)), [f"{name}  {whole[name]}" for name in names])
    axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(-limit - 0.3, limit + 0.3))
    axes.set_xlabel("how clearly the effect is where the claim says, in half widths of its 95% interval")
    handles = [Line2D([], [], color=COLOURS[c], marker=m, linestyle="", label=word) for word, (c, m) in VERDICT_LOOK.items()]
    handles.append(Line2D([], [], color=COLOURS["orange"], marker="s", linestyle="", markerfacecolor="white", label="one seed"))
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    return figures.note(figure, text)


def moved(before: pd.Series, after: pd.Series) -> pd.DataFrame:
    """Claims whose verdict differs."""
    both = pd.DataFrame({"verdict": before, "with these assumptions": after})
    return both[both["verdict"] != both["with these assumptions"]]
