"""Section 5's widget: turn the paper's open assumptions about and see which verdicts move."""

from functools import cache

import ipywidgets as W

from . import ledger
from .explore import Drawn, Panel


def assumptions(scale: str, *, device: str = "cpu") -> Panel:
    """All claims at a glance under other assumptions; the first time that one is asked for takes seconds."""
    rows_of = cache(lambda asked: ledger.comparisons(scale, asked, device=device))

    def draw(**turned: bool) -> Drawn:
        asked = ledger.Assumptions(**turned)
        rows = rows_of(asked)
        text = f"{asked.text}. {ledger.clipped_text(rows) if asked.clipped else ''}"
        moved = ledger.moved_text(rows_of(ledger.Assumptions()), rows)
        return ledger.glance(rows, asked.text), f"{text} Verdicts that move: {moved}."

    options = dict(indent=False, layout=W.Layout(width="20em"))
    return Panel("assumptions", {
        "without_zero": W.Checkbox(False, description="means without σ = 0", **options),
        "pooled": W.Checkbox(False, description="PSNR of the pooled error", **options),
        "clipped": W.Checkbox(False, description="noise clipped to [0, 1]", **options),
        "student": W.Checkbox(False, description="intervals: Student's t over seeds", **options),
    }, draw)  # fmt: skip
