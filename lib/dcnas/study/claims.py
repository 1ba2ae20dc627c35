"""Verdicts on the paper's claims in five words, from one primary comparison each
(data/paper/comparisons.csv).

The primary was written down, with its direction, the paper's effect and the gates below, before the
results that it is judged by were looked at; all other comparisons are shown and decide nothing. Gates:
the precondition (equal latency) and the instrument (searches, controls and denoisers that work) must
hold; a verdict against the paper also needs the power to see half of its effect and at least a tenth of
its training images. Intervals are Student's t over seeds, or searches.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from .comparisons import Evidence, asked, compared
from .instruments import failed_check
from .results import paper, read_published, results
from .stats import Interval

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


def comparisons(
    claims: Iterable[str] = (),
    scale: str = "published",
    *,
    sigma: float = 0.8,
    device: str = "cpu",
    clipped: bool = False,
    **assumed: bool,
) -> list[dict]:
    """The comparisons of some claims or of all, with `failed`: what of their precondition or instrument
    does not hold.

    `clipped`: of networks trained and tested on clipped noisy images, where there are any; what else may
    be `assumed` has `Evidence`.
    """
    evidence = Evidence(scale, sigma, device, **assumed)
    rows = compared(claims, evidence)
    noisy = asked(claims).query("group in @NOISY_GROUPS")["claim"].unique()
    if clipped and len(noisy):
        there = read_published("section3")
        if scale != "published":
            there = results("clipping_check", scale, device=device).rows
        select = partial(twins_of, among=there)
        twins = compared(noisy, Evidence(scale, sigma, device, select, **assumed))
        instead = {(row["claim"], row["comparison"]): row for row in twins if row["seeds"]}
        rows = [instead.get((row["claim"], row["comparison"]), row) for row in rows]
    return [row | {"failed": failed_check(row, evidence) if row["primary"] else None} for row in rows]


def twins_of(rows: pd.DataFrame, among: pd.DataFrame) -> pd.DataFrame:
    """The rows of clipped twins, of the same scale, of networks in `rows`; under the labels of these."""
    there = among[among["label"].isin(rows["label"] + TWIN) & among["scale"].isin(rows["scale"])]
    return there.assign(label=there["label"].str.removesuffix(TWIN))


def judge(row: dict) -> tuple[str, str]:
    """The verdict on a primary comparison, one of `WORDS`, and its reason."""
    sign, *numbers = row["ask"].split()
    effect, budget, number = row["effect"], row["budget_pct"], float(numbers[-1])
    if row["failed"]:
        return NOT_TESTABLE, row["failed"]
    if np.isnan(effect.low):
        return NOT_TESTABLE, "one seed: no interval" if row["seeds"] == 1 else "not measured"
    after = "" if budget is None else f"after {budget:.3g}% of the paper's images"
    then = after and f", {after}"
    cheap = budget is not None and budget < LEAST_BUDGET_PCT
    if sign == "equal":  # two one-sided tests
        effect = narrow(effect, row["seeds"])
        half = (effect.high - effect.low) / 2
        if -number < effect.low and effect.high < number:
            return REPRODUCED, f"within ± {number:g}{then}"
        if effect.low > number or effect.high < -number:
            text = f"beyond ± {number:g}"
            return (NOT_TESTABLE, f"{text}, but {after}") if cheap else (CONTRADICTED, text)
        text = f"± {half:.2g} for a margin of {number:g}{then}"
        return (NOT_TESTABLE if half > number else INCONCLUSIVE), text
    side = 1 if sign == ">" else -1
    low, high = sorted((side * (effect.low - number), side * (effect.high - number)))
    theirs, half = side * (row["paper"] - number), (high - low) / 2
    if low > 0:
        ratio = side * (effect.mean - number) / theirs
        text = f"{ratio:.2g} times the paper's effect{then}"
        return (REPRODUCED if 0.5 <= ratio <= 2 and not cheap else DIRECTION), text
    if high > 0:
        return INCONCLUSIVE, f"± {half:.2g} where the paper has {abs(theirs):.2g}{then}"
    if cheap:
        return NOT_TESTABLE, f"against the claim, but {after}"
    if half > abs(theirs) / 2:
        return NOT_TESTABLE, f"± {half:.2g} where the paper has {theirs:.2g}"
    return CONTRADICTED, f"the opposite sign{then}"


def narrow(effect: Interval, seeds: int | None) -> Interval:
    """The interval of 90% from that of 95% (Student's t; normal where nothing was trained)."""
    law = stats.t(seeds - 1) if seeds and seeds > 1 else stats.norm()
    share = law.ppf(0.95) / law.ppf(0.975)
    below, above = effect.mean - effect.low, effect.high - effect.mean
    return Interval(effect.mean, effect.mean - share * below, effect.mean + share * above)


def _line(row: dict) -> dict:
    effect, decimals, paper = row["effect"], row["decimals"], row["paper"]
    bounds = "none" if np.isnan(effect.low) else effect.bounds(decimals)
    return {
        "comparison": row["comparison"],
        "paper": "not given" if paper is None else f"{round(paper, decimals) + 0.0:g}",
        "ours": round(effect.mean, decimals),
        "95% interval": "exact" if effect.low == effect.high else bounds,
        "seeds": str(row["seeds"] or ""),
        "scale": row["scale"],
        "images (% of the paper's)": "" if row["budget_pct"] is None else f"{row['budget_pct']:.3g}",
    }


def ledger(rows: Sequence[dict]) -> pd.DataFrame:
    """A row per claim: its statement, its primary comparison, the paper's effect and ours, the verdict
    and why.
    """
    statements = paper("claims", "id")["statement"]
    lines = {
        row["claim"]: {"statement": statements[row["claim"]]}
        | _line(row)
        | dict(zip(("verdict", "why"), judge(row)))
        for row in rows
        if row["primary"]
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("claim")


def secondary(rows: Sequence[dict]) -> pd.DataFrame:
    """The comparisons that decide nothing: what is asked, the paper's effect and ours."""
    lines = [{"claim": row["claim"]} | _line(row) for row in rows if not row["primary"]]
    return pd.DataFrame(lines).set_index("claim")


def counts(verdicts: pd.Series) -> str:
    """How many claims have each word: "4 reproduced, 6 reproduced in direction, ..."."""
    number = verdicts.value_counts()
    return ", ".join(f"{number.get(word, 0)} {word}" for word in WORDS)


def answers(table: pd.DataFrame) -> str:
    """A line of Markdown for each claim of a `ledger`: the word, the statement, both numbers, why."""
    lines = []
    for claim, row in table.iterrows():
        bounds = "" if row["95% interval"] in ("exact", "none") else f" ({row['95% interval']})"
        numbers = f"{row['ours']:+g}{bounds}, paper {row['paper']}"
        judged = f"- **{claim}: {row['verdict']}.** {row['statement']}. "
        lines.append(f"{judged}*{row['comparison']}: {numbers}; {row['why']}.*")
    return "\n".join(lines)
