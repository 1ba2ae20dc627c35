"""Section 5's widget: turn the paper's open assumptions about and see which verdicts move."""

from functools import cache

import ipywidgets as W

from . import ledger
from .explore import Drawn, Panel


def assumptions(scale: str, *, device: str = "cpu") -> Panel:
    """All claims at a glance under other assumptions; the first time that one is asked for takes seconds."""
    rows_of = cache(lambda asked: ledger.comparisons(scale, asked, device=device))

    def draw(without_zero: bool, pooled: bool) -> Drawn:
        asked = ledger.Assumptions(without_zero, pooled)
        rows = rows_of(asked)
        moved = ledger.moved(ledger.verdicts(rows_of(ledger.Assumptions())), ledger.verdicts(rows))
        text = "; ".join(f"{claim}: {before} → {after}" for claim, before, after in moved.itertuples())
        return ledger.glance(rows, asked.text), f"{asked.text}. Verdicts that move: {text or 'none'}."

    options = dict(indent=False, layout=W.Layout(width="26em"))
    return Panel("assumptions", {
        "without_zero": W.Checkbox(False, description="means without σ = 0", **options),
        "pooled": W.Checkbox(False, description="PSNR of the pooled error", **options),
    }, draw)  # fmt: skip
