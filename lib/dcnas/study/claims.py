"""Verdicts on the paper's claims in five words, from one primary comparison each
(data/paper/comparisons.csv).

The primary was written down, with its direction, the paper's effect and the gates below, before the
results that it is judged by were looked at; all other comparisons are shown and decide nothing. Gates:
the precondition (equal latency) and the instrument (searches, controls and denoisers that work) must
hold; a verdict against the paper also needs the power to see half of its effect and at least a tenth of
its training images. Intervals are Student's t over seeds, or searches.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats as distributions

from ..paths import paper_dir
from . import figures
from .comparisons import Evidence, asked, compared
from .figures import COLOURS
from .instruments import failed_check
from .results import lengths, read_published, results
from .stats import Interval, Scores

REPRODUCED, DIRECTION, INCONCLUSIVE = "reproduced", "reproduced in direction", "inconclusive"
CONTRADICTED, NOT_TESTABLE = "contradicted under our conditions", "not testable here"
WORDS = {  # with the colour and the mark that they have in figures
    REPRODUCED: ("green", "o"),
    DIRECTION: ("sky", "D"),
    INCONCLUSIVE: ("orange", "s"),
    CONTRADICTED: ("red", "X"),
    NOT_TESTABLE: ("grey", "v"),
}
LEAST_BUDGET_PCT = 10.0  # of the paper's images, for a verdict against it and for words about size
NOISY_GROUPS = ("tables_1_and_6", "figure_3", "table_3", "table_4", "table_5")  # judged on noisy images
TWIN = ", clipped"  # ends the label of a network that was trained and tested on clipped images


@dataclass(frozen=True)
class Assumptions:
    """What the paper leaves open about its noise and its means, and what intervals are over. The
    defaults are the notebooks'.
    """

    without_zero: bool = False  # means over the ten noise levels above 0 instead of all eleven
    # PSNR of the error pooled over all images instead of the mean of each image's PSNR
    pooled: bool = False
    # noisy images clipped to [0, 1], where every network was trained and tested so too
    clipped: bool = False
    # intervals of a bootstrap over images and seeds instead of Student's t over seeds
    images: bool = False

    @property
    def text(self) -> str:
        levels = "ten noise levels above 0" if self.without_zero else "eleven noise levels"
        psnr = "of the error pooled over images" if self.pooled else "averaged over images"
        noise = "noise clipped where it can be" if self.clipped else "noise not clipped"
        over = "a bootstrap over images and seeds" if self.images else "Student's t over seeds"
        return f"means over {levels}, PSNR {psnr}, {noise}, intervals: {over}"

    def change(self, scores: Scores, metric: str, clean: bool) -> Scores:
        """The scores as these assumptions have them; without noise, neither what noise is nor what means
        are over matters.
        """
        if self.pooled and metric == "psnr" and not clean:
            scores = {key: pooled(values) for key, values in scores.items()}
        if self.without_zero and not clean:  # σ = 0 counts as much as the mean of the others
            scores = {
                key: np.concatenate([values[1:].mean(0, keepdims=True), values[1:]])
                for key, values in scores.items()
            }
        return scores


def pooled(psnr: np.ndarray) -> np.ndarray:
    """A number for each image whose mean over images is the PSNR of the pooled error, (11, N) to (11,
    N).

    To first order the spread of that mean is the spread of the pooled PSNR, which is not a mean itself.
    """
    error = 10 ** (-psnr.astype(np.float64) / 10)
    mean = error.mean(1, keepdims=True)
    return -10 / np.log(10) * (np.log(mean) + error / mean - 1)


def comparisons(
    claims: Iterable[str] = (),
    scale: str = "published",
    assumptions: Assumptions = Assumptions(),
    *,
    sigma: float = 0.8,
    device: str = "cpu",
) -> list[dict]:
    """The comparisons of some claims or of all, with `failed`: what of their precondition or instrument
    does not hold.
    """
    how = dict(sigma=sigma, device=device, change=assumptions.change, over_seeds=not assumptions.images)
    evidence = Evidence(scale, **how)
    rows = compared(claims, evidence)
    if assumptions.clipped:
        there = read_published("section3")
        if scale != "published":
            there = results("clipping_check", scale, device=device).rows
        twins = Evidence(scale, select=lambda rows: twins_of(rows, there), **how)
        listed = asked(claims)
        noisy = sorted(set(listed.loc[listed["group"].isin(NOISY_GROUPS), "claim"]))
        instead = (
            {(row["claim"], row["comparison"]): row for row in compared(noisy, twins) if row["seeds"]}
            if noisy
            else {}
        )
        rows = [instead.get((row["claim"], row["comparison"]), row) for row in rows]
    return [row | {"failed": failed_check(row, evidence) if row["primary"] else None} for row in rows]


def twins_of(rows: pd.DataFrame, among: pd.DataFrame) -> pd.DataFrame:
    """The rows in `among` of the clipped twins, of the same scale, of networks in `rows`; under the
    labels of these.
    """
    there = among[among["label"].isin(rows["label"] + TWIN) & among["scale"].isin(rows["scale"])]
    return there.assign(label=there["label"].str.removesuffix(TWIN))


# ---- judging


def judge(row: dict) -> tuple[str, str]:
    """The verdict on a primary comparison, one of `WORDS`, and its reason."""
    sign, *numbers = row["ask"].split()
    effect, budget = row["effect"], row["budget_pct"]
    if row["failed"]:
        return NOT_TESTABLE, row["failed"]
    if np.isnan(effect.low):
        return NOT_TESTABLE, "one seed: no interval" if row["seeds"] == 1 else "not measured"
    after = "" if budget is None else f", after {budget:.3g}% of the paper's images"
    cheap = budget is not None and budget < LEAST_BUDGET_PCT
    if sign == "equal":
        return _judge_equal(narrow(effect, row["seeds"]), float(numbers[-1]), cheap, after)
    null = float(numbers[0])
    side = 1 if sign == ">" else -1
    low, high = sorted((side * (effect.low - null), side * (effect.high - null)))
    theirs, half = side * (row["paper"] - null), (high - low) / 2
    if low > 0:
        ratio = side * (effect.mean - null) / theirs
        text = f"{ratio:.2g} times the paper's effect{after}"
        return (REPRODUCED if 0.5 <= ratio <= 2 and not cheap else DIRECTION), text
    power = half <= abs(theirs) / 2
    if high < 0:
        if cheap:
            return NOT_TESTABLE, f"against the claim, but{after.removeprefix(',')}"
        return (
            (CONTRADICTED, f"the opposite sign{after}")
            if power
            else (NOT_TESTABLE, f"± {half:.2g} where the paper has {theirs:.2g}")
        )
    return INCONCLUSIVE, f"± {half:.2g} where the paper has {abs(theirs):.2g}{after}"


def _judge_equal(effect: Interval, margin: float, cheap: bool, after: str) -> tuple[str, str]:
    """Two one-sided tests: `effect` has its interval of 90%."""
    if -margin < effect.low and effect.high < margin:
        return REPRODUCED, f"within ± {margin:g}{after}"
    if effect.low > margin or effect.high < -margin:
        return (
            (NOT_TESTABLE, f"beyond ± {margin:g}, but{after.removeprefix(',')}")
            if cheap
            else (CONTRADICTED, f"beyond ± {margin:g}")
        )
    half = (effect.high - effect.low) / 2
    return (
        NOT_TESTABLE if half > margin else INCONCLUSIVE
    ), f"± {half:.2g} for a margin of {margin:g}{after}"


def narrow(effect: Interval, seeds: int | None) -> Interval:
    """The interval of 90% from that of 95% (Student's t; normal where nothing was trained)."""
    law = distributions.t(seeds - 1) if seeds and seeds > 1 else distributions.norm()
    share = law.ppf(0.95) / law.ppf(0.975)
    return Interval(
        effect.mean,
        effect.mean - share * (effect.mean - effect.low),
        effect.mean + share * (effect.high - effect.mean),
    )


# ---- tables


def paper_claims() -> pd.DataFrame:
    """The paper's claims: section, source, statement, kind; index is the id."""
    return pd.read_csv(paper_dir() / "claims.csv").set_index("id")


def inconsistencies() -> pd.DataFrame:
    """What does not fit together in the paper: where, what it says, why it cannot be, what stands here,
    in which notebook.
    """
    return pd.read_csv(paper_dir() / "inconsistencies.csv").set_index("where")


def _bounds(effect: Interval, decimals: int) -> str:
    return (
        "exact"
        if effect.low == effect.high
        else "none"
        if np.isnan(effect.low)
        else effect.bounds(decimals)
    )


def _line(row: dict) -> dict:
    effect, decimals, paper = row["effect"], row["decimals"], row["paper"]
    return {
        "comparison": row["comparison"],
        "paper": "not given" if paper is None else f"{round(paper, decimals) + 0.0:g}",
        "ours": round(effect.mean, decimals),
        "95% interval": _bounds(effect, decimals),
        "seeds": str(row["seeds"] or ""),
        "scale": row["scale"],
        "images (% of the paper's)": "" if row["budget_pct"] is None else f"{row['budget_pct']:.3g}",
    }


def ledger(rows: Sequence[dict]) -> pd.DataFrame:
    """A row per claim: its statement, its primary comparison, the paper's effect and ours, the verdict
    and why.
    """
    known, table = paper_claims(), {}
    for row in rows:
        if row["primary"]:
            word, why = judge(row)
            table[row["claim"]] = (
                {"statement": known["statement"][row["claim"]]}
                | _line(row)
                | {"verdict": word, "why": why}
            )
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("claim")


def secondary(rows: Sequence[dict]) -> pd.DataFrame:
    """The comparisons that decide nothing: what is asked, the paper's effect and ours."""
    lines = [{"claim": row["claim"]} | _line(row) for row in rows if not row["primary"]]
    return pd.DataFrame(lines).set_index("claim")


def counts(verdicts: pd.Series) -> str:
    """How many claims have each word: "4 reproduced, 6 reproduced in direction, ..."."""
    number = verdicts.value_counts()
    return ", ".join(f"{number.get(word, 0)} {word}" for word in WORDS)


def answers(table: pd.DataFrame) -> str:
    """A line of Markdown for each claim of a `ledger`: the word, the statement, our number beside the
    paper's, why.
    """
    lines = []
    for claim, row in table.iterrows():
        bounds = "" if row["95% interval"] in ("exact", "none") else f" ({row['95% interval']})"
        lines.append(
            f"- **{claim}: {row['verdict']}.** {row['statement']}. "
            f"*{row['comparison']}: {row['ours']:+g}{bounds}, paper "
            f"{row['paper']}; {row['why']}.*"
        )
    return "\n".join(lines)


def assumed(scale: str = "published", *, device: str = "cpu") -> pd.DataFrame:
    """The verdict on each claim under each of the sixteen combinations of `Assumptions`: a row per
    combination.
    """
    names = [field.name for field in fields(Assumptions)]
    rows = {}
    for turned in product((False, True), repeat=len(names)):
        table = ledger(comparisons(scale=scale, assumptions=Assumptions(*turned), device=device))
        rows[turned] = table["verdict"]
    return pd.DataFrame(list(rows.values()), pd.MultiIndex.from_tuples(rows, names=names))


def by_length(claims: Iterable[str], group: str) -> pd.DataFrame:
    """Primary effects at every length of training that is published of a group of Section 3: towards the
    paper's or away?
    """
    columns = {}
    for length, nets in lengths(group).items():
        rows = compared(claims, Evidence(select=lambda rows, nets=nets: nets.rows))
        for row in (row for row in rows if row["primary"] and row["seeds"]):
            columns.setdefault(row["claim"], {"comparison": row["comparison"]})[length] = str(
                row["effect"]
            )
            columns[row["claim"]]["paper"] = row["paper"]
    return pd.DataFrame.from_dict(columns, orient="index").rename_axis("claim")


def glance(rows: Sequence[dict], limit: float = 3.0) -> Figure:
    """Every claim in words: the effect as a share of the paper's, with its interval, coloured by its
    verdict.
    """
    primary = [row for row in rows if row["primary"]]
    figure, axes = figures.new_figure(10.2, 0.34 * len(primary) + 1.5)
    axes.axvline(0, color="0.4", linewidth=1)
    axes.axvline(1, color="0.4", linewidth=1, linestyle="--")
    for place, row in enumerate(primary):
        word, why = judge(row)
        colour, marker = WORDS[word]
        null = 0.0 if row["ask"].startswith("equal") else float(row["ask"].split()[1])
        unit = float(row["ask"].split()[-1]) if row["ask"].startswith("equal") else row["paper"] - null
        low, mean, high = (
            float(np.clip((v - null) / unit, -limit, limit))
            for v in (row["effect"].low, row["effect"].mean, row["effect"].high)
        )
        if not np.isnan(low):
            axes.plot([low, high], [place, place], color=COLOURS[colour], linewidth=2)
        axes.plot(mean, place, marker, color=COLOURS[colour], markersize=7)
        axes.text(limit + 0.15, place, why, va="center", fontsize=9, color="0.25")
    statements = paper_claims()["statement"]
    labels = [f"{row['claim']}  {_short(statements[row['claim']])}" for row in primary]
    axes.set_yticks(range(len(primary)), labels, fontsize=9)
    axes.set(ylim=(len(primary) - 0.5, -0.5), xlim=(-limit, limit))
    axes.set_xlabel("effect as a share of the paper's (1: as large; of an equivalence: of its margin)")
    handles = [
        Line2D([], [], color=COLOURS[c], marker=m, linestyle="", label=word)
        for word, (c, m) in WORDS.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False, fontsize=9)
    return figure


def _short(statement: str, length: int = 52) -> str:
    return statement if len(statement) <= length else statement[: length - 1].rsplit(" ", 1)[0] + " …"
