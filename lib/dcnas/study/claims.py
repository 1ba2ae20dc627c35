"""Verdicts on the paper's claims: reproduced, not reproduced, or undecided because the interval is wider than the effect.

A claim is put as a number with an interval and what it must be: above or below a threshold, or about a value.
"""

from collections.abc import Sequence
from math import isnan

import pandas as pd

from . import paper
from .latencies import pair_passes
from .stats import Interval, of_median

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
COUNTED, TIMED = "counted", "timed"  # instead of a scale: what needs no training


def judge(effect: Interval, threshold: float = 0.0, direction: str = ">", *, margin: float = 0.0, seeds: int | None = None) -> str:
    """Whether the whole interval is where the claim says ("reproduced"), wholly elsewhere ("not reproduced"), or "undecided".

    `direction` ">" or "<": beyond `threshold`; "about": within `threshold` +- `margin`. With `seeds=1`, whatever the interval,
    "undecided (one seed)": it cannot show how far another training would differ. Leave `seeds` out where nothing is trained.
    """
    if seeds == 1:
        return f"{UNDECIDED} (one seed)"
    low, high = effect.low, effect.high
    if direction == "<":
        low, high, threshold = -high, -low, -threshold
    if direction == "about":
        inside = low >= threshold - margin and high <= threshold + margin
        outside = high < threshold - margin or low > threshold + margin
    else:
        inside, outside = low > threshold, high < threshold  # both are false for NaN
    return REPRODUCED if inside else NOT_REPRODUCED if outside else UNDECIDED


def criterion(threshold: float = 0.0, direction: str = ">", margin: float = 0.0) -> str:
    """What is asked of the effect, in words: "above 0", "about -7 (within 1)"."""
    if direction == "about":
        return f"about {threshold:g} (within {margin:g})"
    return f"{'above' if direction == '>' else 'below'} {threshold:g}"


def latency_difference(a: str, b: str) -> Interval:
    """Latency of `a` minus that of `b` in ms, timed side by side in batches of 32: the median over rounds; NaN if not measured."""
    passes = pair_passes(a, b)
    return of_median(passes["a_ms"] - passes["b_ms"])


def verdict_table(rows: list[dict]) -> pd.DataFrame:
    """A row per comparison: claim, statement, comparison, the paper's number, effect (ours), 95% interval, verdict.

    Each dict has `claim` (its id), `comparison` (what the effect is, with its unit) and `effect` (an `Interval`), and where they
    differ from `judge`'s defaults `threshold`, `direction`, `margin`, `seeds`; `paper` is the paper's number for the effect, where
    it gives one, `at` where the effect was found (a noise level), `decimals` (2) how both numbers are printed.
    """
    statements = paper.claims()["statement"]
    table = []
    for row in rows:
        effect, decimals, theirs = row["effect"], row.get("decimals", 2), row.get("paper")
        asked = {name: row[name] for name in ("threshold", "direction", "margin") if name in row}
        table.append({
            "claim": row["claim"], "statement": statements[row["claim"]],
            "comparison": f"{row['comparison']}{', at ' + row['at'] if 'at' in row else ''}: {criterion(**asked)}",
            "paper": "not given" if theirs is None else f"{round(theirs, decimals) + 0.0:g}",  # as 0, not as -0
            "effect": round(effect.mean, decimals),
            "95% interval": _bounds(effect, decimals),
            "verdict": judge(effect, **asked, seeds=row.get("seeds")),
        })  # fmt: skip
    return pd.DataFrame(table, columns=["claim", "statement", "comparison", "paper", "effect", "95% interval", "verdict"])


def _bounds(effect: Interval, decimals: int) -> str:
    if isnan(effect.mean):
        return "not measured"
    if isnan(effect.low) or isnan(effect.high):
        return "none"
    return "exact" if effect.low == effect.high else effect.bounds(decimals)


def overall(verdicts: Sequence[str]) -> str:
    """The verdict on a claim of several parts: reproduced if every part is, not reproduced if one is not."""
    for verdict in (NOT_REPRODUCED, f"{UNDECIDED} (one seed)", UNDECIDED):
        if verdict in verdicts:
            return verdict
    return REPRODUCED


def verdict_text(table: pd.DataFrame) -> str:
    """A line per claim of a `verdict_table`, as Markdown: the verdict on the whole claim, its statement, and how its parts did."""
    lines = []
    for claim, rows in table.groupby("claim", sort=False):
        verdicts = list(rows["verdict"])
        parts = f" ({verdicts.count(REPRODUCED)} of {len(verdicts)} comparisons reproduced)" if len(verdicts) > 1 else ""
        lines.append(f"- **{claim}, {overall(verdicts)}**{parts}: {rows['statement'].iloc[0]}.")
    return "\n".join(lines)
