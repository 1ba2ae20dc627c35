"""The README's table: the paper's numbers of Section 3 beside ours, generated from the published results alone."""

from ..data.noise import SIGMAS
from ..errors import InputError
from ..paths import root, write_atomic
from . import paper
from .figures import provenance_line
from .results import per_image, results
from .stats import Interval, bootstrap, over_sigmas

BEGIN, END = "<!-- results: begin (written by `dcnas readme`) -->", "<!-- results: end -->"
UNET_LABELS = {"UNet Baseline": "UNet b=32 d=4 m=2 c=2", "UNet Reduced": "UNet b=8 d=4 m=1.5 c=2"}


def interval_of(arrays: dict, label: str, sigmas=SIGMAS, percent: bool = False) -> Interval:
    """The interval of one network's metric, averaged over `sigmas`; `arrays` as `results.per_image` gives them."""
    values = {seed: over_sigmas(array, sigmas) for (name, seed), array in arrays.items() if name == label}
    interval = bootstrap(values)
    return Interval(*(100 * value for value in interval)) if percent else interval


def _row(quantity: str, theirs: float, ours: Interval, decimals: int, where: str) -> dict:
    """A line of the table: printed paper value, our mean with its interval, where it is shown."""
    mean, low, high = (f"{value:.{decimals}f}" for value in ours)
    text = mean if low == high else f"{mean} ({low} to {high})"
    return {"quantity": quantity, "paper": f"{theirs:.{decimals}f}", "ours": text, "shown in": where}


def summary_rows() -> list[dict]:
    """All lines of the table, in the paper's order."""
    lines = []
    rows = results("tables_1_and_6", "published")
    correct = per_image(rows, "correct")
    link = "[03_1](notebooks/03_1_efficient_classification.ipynb)"
    for line in paper.table("table1_6_classifiers").query("tables.str.startswith('1')").itertuples():
        ours = interval_of(correct, line.model, percent=True)
        lines.append(_row(f"{line.model}: accuracy, mean of 11 noise levels (%)", line.accuracy_pct, ours, 1, link))
    rows = results("table_2", "published")
    psnr = per_image(rows, "psnr")
    link = "[03_2](notebooks/03_2_efficient_denoising.ipynb)"
    for line in paper.table("table2_unet").query("metric == 'PSNR'").to_dict("records"):
        label = UNET_LABELS[line["model"]]
        flops = rows.loc[rows["label"] == label, "flops"].iloc[0] / 1e6
        lines.append(_row(f"{line['model']}: FLOPs (M)", line["flops_m"], Interval(flops, flops, flops), 1, link))
        for sigma in (0.2, 0.8):
            ours = interval_of(psnr, label, (sigma,))
            lines.append(_row(f"{line['model']}: PSNR at σ = {sigma} (dB)", line[f"sigma_{sigma}"], ours, 1, link))
    rows = results("table_3", "published")
    psnr, correct = per_image(rows, "psnr"), per_image(rows, "correct")
    link = "[03_3](notebooks/03_3_joint_dcnet.ipynb)"
    for line in paper.table("table3_dcnet").itertuples():
        label = f"{line.model} {line.type}"
        if label in set(rows["label"]):
            lines.append(_row(f"{label}: PSNR, mean of 11 (dB)", line.psnr, interval_of(psnr, label), 1, link))
            ours = interval_of(correct, label, percent=True)
            lines.append(_row(f"{label}: accuracy, mean of 11 (%)", line.accuracy_pct, ours, 1, link))
    return lines


def summary_markdown() -> str:
    """The table as Markdown, with a line that says what was run."""
    lines = summary_rows()
    head = list(lines[0])
    table = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(line.values())} |" for line in lines)]
    notes = {name: provenance_line(results(group, "published")) for name, group in _SOURCES.items()}
    notes_text = "\n".join(f"- {name}: {note}" for name, note in notes.items())
    return "\n".join([*table, "", "In brackets: 95% bootstrap intervals over test images and seeds.", "", notes_text])


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
