"""What the README says in numbers, from the tables that the notebooks wrote: its answer and verdicts
from the ledger, the paper's numbers beside ours from Table 3.
"""

import pandas as pd

from ..errors import InputError
from ..paths import figures_dir, root, write_atomic
from .claims import counts

BEGIN, END = "<!-- {}: begin (written by `dcnas readme`) -->", "<!-- {}: end -->"
READINGS = ["FLOPs (M)", "PSNR (dB)", "SSIM", "accuracy (%)"]  # of Table 3, means over eleven levels
CONCLUSION = "[05](notebooks/05_conclusion.ipynb)"


def read_ledger() -> pd.DataFrame:
    """The verdicts as notebook 05 wrote them, a row per claim."""
    return pd.read_csv(figures_dir() / "section_5_ledger.csv", index_col="claim")


def answer_markdown() -> str:
    """What was found, in three sentences: the five words counted, networks by hand, searches."""
    table = read_ledger()

    def against_paper(claim: str) -> str:
        row = table.loc[claim]
        paper, budget = abs(float(row["paper"])), float(row["images (% of the paper's)"])
        after = f"after {budget:.3g}% of the paper's training images"
        return f"(the paper: {paper:g}; *{row['verdict']}*, {after})"

    joined, small = (f"{abs(table['ours'][claim]):.1f}" for claim in ("C12", "C02"))
    search, target = table.loc["C15"], table["verdict"]["C20"]
    return f"""\
- Of the paper's {len(table)} claims: **{counts(table["verdict"])}**.
  One comparison decides each, chosen before its result was seen.
- By hand, one encoder for both tasks denoises {joined} dB better than a denoiser before a classifier
  {against_paper("C12")}, and the smallest MBConv classifier loses {small} points of accuracy
  {against_paper("C02")}.
- The searches reach their target latency (*{target}*); whether they settle, and on anything better
  than chance, is *{search["verdict"]}*: {search["why"]}."""


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, its index first."""
    rows = table.reset_index().fillna("").astype(str)
    lines = [rows.columns, ["---"] * rows.shape[1], *rows.to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary_markdown() -> str:
    """Every claim with its numbers and its verdict, and Table 3 beside the paper's."""
    verdicts = read_ledger()[["comparison", "paper", "ours", "95% interval", "verdict"]]
    joint = pd.read_csv(figures_dir() / "table_3.csv", index_col=0).loc[READINGS]
    return f"""\
{markdown(verdicts)}

Intervals are over seeds or searches; {CONCLUSION} says why a verdict is what it is. Table 3, the
joint networks, means over eleven noise levels ([03_3](notebooks/03_3_joint_dcnet.ipynb)):

{markdown(joint[["network", "paper", "ours", "95% interval"]])}"""


def write_readme(check: bool = False) -> bool:
    """Put answer and tables between their marker lines, or only `check`. True if they stood there."""
    path = root() / "README.md"
    text = new = path.read_text()
    for name, written in (("answer", answer_markdown()), ("results", summary_markdown())):
        begin, end = BEGIN.format(name), END.format(name)
        if text.count(begin) != 1 or text.count(end) != 1:
            raise InputError(f"{path} must have the two lines {begin!r} and {end!r} once each.")
        before, rest = new.split(begin)
        new = f"{before}{begin}\n{written}\n{end}{rest.split(end)[1]}"
    if new != text and not check:
        write_atomic(path, new)
    return new == text
