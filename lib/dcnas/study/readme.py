"""The README's tables, from those of the notebooks: every claim with its verdict, and Table 3."""

import pandas as pd

from ..paths import figures_dir, root, write_atomic

BEGIN, END = "<!-- results: begin (written by `dcnas readme`) -->", "<!-- results: end -->"
READINGS = ["FLOPs (M)", "PSNR (dB)", "SSIM", "accuracy (%)"]  # of Table 3, means over eleven levels
CONCLUSION = "[05](notebooks/05_conclusion.ipynb)"


def read_ledger() -> pd.DataFrame:
    """The verdicts as notebook 05 wrote them, a row per claim."""
    return pd.read_csv(figures_dir() / "section_5_ledger.csv", index_col="claim")


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


def write_readme() -> bool:
    """Put the tables between their marker lines. True if they stood there."""
    text = (root() / "README.md").read_text()
    (before, rest), written = text.split(BEGIN), f"{BEGIN}\n{summary_markdown()}\n"
    new = before + written + END + rest.split(END)[1]
    write_atomic(root() / "README.md", new)
    return new == text
