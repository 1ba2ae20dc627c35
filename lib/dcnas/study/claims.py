"""Verdicts on the paper's claims: reproduced, not reproduced, or undecided because the interval is wider than the effect.

A claim is put as a number with an interval and what it must be: above or below a threshold, or about a value.
"""

from collections.abc import Sequence

import pandas as pd

from ..errors import require_choice
from . import paper
from .stats import Interval

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
DIRECTIONS = (">", "<", "about")


def judge(effect: Interval, threshold: float = 0.0, direction: str = ">", *, margin: float = 0.0, seeds: int | None = None) -> str:
    """Whether the whole interval is where the claim says ("reproduced"), wholly elsewhere ("not reproduced"), or "undecided".

    `direction` ">" or "<": beyond `threshold`; "about": within `threshold` +- `margin`. With `seeds=1`, whatever the interval,
    "undecided (one seed)": it cannot show how far another training would differ. Leave `seeds` out where nothing is trained.
    """
    require_choice("direction", direction, DIRECTIONS)
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


def verdict_table(rows: list[dict]) -> pd.DataFrame:
    """A row per comparison: claim, statement, comparison, effect, 95% interval, verdict.

    Each dict has `claim` (its id), `comparison` (what the effect is, with its unit) and `effect` (an `Interval`), and where they
    differ from `judge`'s defaults `threshold`, `direction`, `margin`, `seeds`; `decimals` (2) is how the effect is printed.
    """
    statements = paper.claims()["statement"]
    table = []
    for row in rows:
        effect, decimals = row["effect"], row.get("decimals", 2)
        asked = {name: row[name] for name in ("threshold", "direction", "margin") if name in row}
        known = effect.low == effect.low and effect.high == effect.high
        table.append({
            "claim": row["claim"], "statement": statements[row["claim"]],
            "comparison": f"{row['comparison']}: {criterion(**asked)}",
            "effect": round(effect.mean, decimals),
            "95% interval": f"{effect.low:.{decimals}f} to {effect.high:.{decimals}f}" if known else "none",
            "verdict": judge(effect, **asked, seeds=row.get("seeds")),
        })  # fmt: skip
    return pd.DataFrame(table, columns=["claim", "statement", "comparison", "effect", "95% interval", "verdict"])


def overall(verdicts: Sequence[str]) -> str:
    """The verdict on a claim of several parts: reproduced if every part is, not reproduced if one is not."""
    for verdict in (NOT_REPRODUCED, f"{UNDECIDED} (one seed)", UNDECIDED):
        if verdict in verdicts:
            return verdict
    return REPRODUCED


def verdict_text(table: pd.DataFrame) -> str:
    """One sentence per claim of a `verdict_table`, as Markdown: "**C01 is reproduced:** the statement (effects)."."""
    lines = []
    for claim, rows in table.groupby("claim", sort=False):
        effects = "; ".join(f"{r.comparison}, found {r.effect:g}" for r in rows.itertuples())
        lines.append(f"- **{claim} is {overall(list(rows['verdict']))}:** {rows['statement'].iloc[0]} ({effects}).")
    return "\n".join(lines)
