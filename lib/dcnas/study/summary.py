"""The README's table: the paper's numbers of Section 3 beside ours, generated from the published results alone."""

import pandas as pd

from ..errors import InputError
from ..paths import figures_dir, root, write_atomic
from . import paper
from .claims import overall
from .compare import TABLE_2, flops_by_label, mean_score
from .figures import provenance_line
from .plots_classifier import TABLE_1
from .results import per_image, results
from .stats import Interval

BEGIN, END = "<!-- results: begin (written by `dcnas readme`) -->", "<!-- results: end -->"


def _row(quantity: str, theirs: float, ours: Interval, decimals: int, where: str) -> dict:
    """A line of the table: printed paper value, our mean with its interval, where it is shown."""
    mean, low, high = (f"{value:.{decimals}f}" for value in ours)
    text = mean if low == high else f"{mean} ({low} to {high})"
    return {"quantity": quantity, "paper": f"{theirs:.{decimals}f}", "ours": text, "shown in": where}


def summary_rows() -> list[dict]:
    """All lines of the table, in the paper's order."""
    lines, theirs = [], paper.networks()
    accuracy = per_image(results("tables_1_and_6", "published"), "accuracy")
    link = "[03_1](notebooks/03_1_efficient_classification.ipynb)"
    for label in TABLE_1:
        quantity = f"{label}: accuracy, mean of 11 noise levels (%)"
        lines.append(_row(quantity, theirs["accuracy_pct"][label], mean_score(accuracy, label), 1, link))
    rows = results("table_2", "published")
    psnr = per_image(rows, "psnr")
    link = "[03_2](notebooks/03_2_efficient_denoising.ipynb)"
    for name, label in TABLE_2.items():
        flops = flops_by_label(rows)[label] / 1e6
        lines.append(_row(f"{name}: FLOPs (M)", theirs["flops_m"][name], Interval(flops, flops, flops), 1, link))
        for sigma in (0.2, 0.8):
            quality = paper.unet_quality(name, "PSNR")[sigma]
            lines.append(_row(f"{name}: PSNR at σ = {sigma} (dB)", quality, mean_score(psnr, label, (sigma,)), 1, link))
    rows = results("table_3", "published")
    psnr, accuracy = per_image(rows, "psnr"), per_image(rows, "accuracy")
    link = "[03_3](notebooks/03_3_joint_dcnet.ipynb)"
    for label, line in theirs[theirs["ssim"].notna()].iterrows():
        if ours := mean_score(psnr, label):
            found = [_row(f"{label}: PSNR, mean of 11 (dB)", line["psnr"], ours, 1, link)]
            found.append(_row(f"{label}: accuracy, mean of 11 (%)", line["accuracy_pct"], mean_score(accuracy, label), 1, link))
            alone = rows.loc[rows["label"] == label, "seed"].nunique() == 1
            lines += [row | {"ours": row["ours"] + " ¹" * alone} for row in found]
    return lines


def verdicts_line() -> str:
    """How the claims of Section 3 were judged, in one sentence, from the tables that the notebooks wrote."""
    tables = [pd.read_csv(path) for path in sorted(figures_dir().glob("*_claims.csv"))]
    if not tables:
        return ""
    judged = pd.concat(tables).groupby("claim")["verdict"].agg(lambda verdicts: overall(list(verdicts)).removesuffix(" (one seed)"))
    parts = [f"{len(names)} {word} ({', '.join(names)})" for word, names in judged.groupby(judged).groups.items()]
    return f"Of the paper's {len(judged)} claims about these networks, at this length of training: {'; '.join(parts)}."


def summary_markdown() -> str:
    """The table as Markdown, with a line that says what was run."""
    lines = summary_rows()
    head = list(lines[0])
    table = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(line.values())} |" for line in lines)]
    notes = {name: provenance_line(results(group, "published")) for name, group in _SOURCES.items()}
    notes_text = "\n".join(f"- {name}: {note}" for name, note in notes.items())
    brackets = "In brackets: 95% bootstrap intervals over test images and seeds; ¹ one seed: over images alone, and too narrow."
    return "\n".join([*table, "", brackets, "", verdicts_line(), "", notes_text])


_SOURCES = {"Classifiers": "tables_1_and_6", "UNets": "table_2", "DC-Nets": "table_3"}


def write_readme(check: bool = False) -> bool:
    """Put the table between the README's two marker lines. True if it stood there already; with `check` nothing is written."""
    path = root() / "README.md"
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise InputError(f"{path} must have the two lines {BEGIN!r} and {END!r} once each.")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    new = f"{before}{BEGIN}\n{summary_markdown()}\n{END}{after}"
    if new != text and not check:
        write_atomic(path, new)
    return new == text
