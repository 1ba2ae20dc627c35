"""The README's table: the paper's numbers beside ours, generated from the published results alone.

Section 4 has other images than the paper, so of its networks only differences stand beside the paper's.
"""

import re

from ..data.noise import SIGMAS
from ..errors import InputError
from ..paths import figures_dir, root, write_atomic
from ..reading import read_frame
from .figures import provenance_line
from .ledger import STRICTER
from .results import paper, results
from .stats import Interval, contrast, means

BEGIN, END = "<!-- results: begin (written by `dcnas readme`) -->", "<!-- results: end -->"


def _row(quantity: str, theirs: float, ours: Interval, decimals: int, where: str) -> dict:
    """A line of the table: printed paper value, our mean with its interval, where it is shown."""
    mean, low, high = (f"{value:.{decimals}f}" for value in ours)
    text = mean if low == high else f"{mean} ({low} to {high})"
    return {"quantity": quantity, "paper": f"{theirs:.{decimals}f}", "ours": text, "shown in": where}


def summary_rows() -> list[dict]:
    """All lines of the table, in the paper's order."""
    return [*classifier_rows(), *denoiser_rows(), *joint_rows(), *section4_rows()]


def classifier_rows() -> list[dict]:
    """Table 1: accuracies."""
    theirs = paper("table1_6_classifiers")["accuracy_pct"]
    labels = ["Conv-L", "MB1-S", "MB2.5-M", "MB4-L"]
    ours = means(results("tables_1_and_6", "published").scores("accuracy"), labels)
    link = "[03_1](notebooks/03_1_efficient_classification.ipynb)"
    quantity = "accuracy, mean of 11 noise levels (%)"
    return [_row(f"{label}: {quantity}", theirs[label], ours[label], 1, link) for label in labels]


def denoiser_rows() -> list[dict]:
    """Table 2: FLOPs and PSNR."""
    printed, nets = paper("table2_unet").query("metric == 'PSNR'"), results("table_2", "published")
    psnr, flops = nets.scores("psnr"), nets.rows.groupby("label")["flops"].first() / 1e6
    link, lines = "[03_2](notebooks/03_2_efficient_denoising.ipynb)", []
    for name, label in (("UNet Baseline", "UNet b=32 d=4 m=2 c=2"), ("UNet Reduced", "UNet b=8 d=4 m=1.5 c=2")):
        exact = Interval(flops[label], flops[label], flops[label])
        lines.append(_row(f"{name}: FLOPs (M)", printed["flops_m"][name], exact, 1, link))
        for sigma in (0.2, 0.8):
            theirs, ours = printed[f"sigma_{sigma}"][name], means(psnr, [label], [sigma])[label]
            lines.append(_row(f"{name}: PSNR at σ = {sigma} (dB)", theirs, ours, 1, link))
    return lines


def joint_rows() -> list[dict]:
    """Table 3: PSNR and accuracy."""
    nets, printed, lines = results("table_3", "published"), paper("table3_dcnet"), []
    printed.index = printed.index + " " + printed["type"]
    link = "[03_3](notebooks/03_3_joint_dcnet.ipynb)"
    columns = {"psnr": ("psnr", "PSNR, mean of 11 (dB)"), "accuracy": ("accuracy_pct", "accuracy, mean of 11 (%)")}
    ours = {metric: means(nets.scores(metric), nets.labels) for metric in columns}
    for label in printed.index.intersection(nets.labels, sort=False):
        for metric, (column, text) in columns.items():
            row = _row(f"{label}: {text}", printed[column][label], ours[metric][label], 1, link)
            lines.append(row | {"ours": row["ours"] + " ¹" * int(nets.seeds[label] == 1)})
    return lines


def section4_rows() -> list[dict]:
    """Differences between networks of Section 4, at equal latency where the paper's have equal latency."""
    beta = paper("table8_beta", "beta")["accuracy_pct"].groupby("beta").mean()
    denoisers, joint = paper("table4_dnas"), paper("table5_dcnas")
    nets = {group: results(group, "published") for group in ("table_8", "table_4", "table_5")}
    unet, tail = (
        next(label for label in nets[group].labels if re.fullmatch(f"{prefix} b=[0-9]+", label))
        for group, prefix in (("table_4", "UNet"), ("table_5", "DC-Net_tail"))  # about as fast as the searched one
    )
    c, d, dc = (
        f"[{name[:n]}](notebooks/{name}.ipynb)"
        for name, n in (("C_learned_beta", 1), ("04_2_d_nas", 4), ("04_3_dc_nas", 4))
    )
    removed, learned = "C-NAS S, beta removed", "C-NAS S, beta learned"
    gain = denoisers["psnr"]["D-NAS S"] - denoisers["psnr"]["UNet Reduced"]
    effects = [
        ("table_8", "accuracy", removed, learned, beta["removed"] - beta["learned"], (0.0,), c),
        ("table_4", "psnr", "D-NAS S", unet, gain, SIGMAS, d),
    ]
    for a, b, other in (("DC-NAS L", "DC-NAS_seq L", "DC-NAS_seq L"), ("DC-NAS S", tail, "DC-Net_tail")):
        for metric, column in (("psnr", "psnr"), ("accuracy", "accuracy_pct")):
            effects.append(("table_5", metric, a, b, joint[column][a] - joint[column][other], SIGMAS, dc))
    lines = []
    for group, metric, a, b, theirs, sigmas, link in effects:
        if pair := contrast(nets[group].scores(metric), {a: 1.0, b: -1.0}, sigmas):
            what = {"psnr": "PSNR (dB)", "accuracy": "accuracy (points)"}[metric]
            line = _row(f"{a} minus {b}: {what}", theirs, pair[0], 1, link)
            lines.append(line | {"ours": line["ours"] + " ¹" * (pair[1] == 1)})
    return lines


def verdicts_line() -> str:
    """How the claims were judged, and how with wider intervals, in two sentences, from the table that notebook 05 wrote."""
    path = figures_dir() / "section_5_summary.csv"
    if not path.exists():
        return ""
    table = read_frame(path, ["id", "verdict", STRICTER])
    listed = {}
    for column in ("verdict", STRICTER):
        by_word = table.groupby(table[column].str.removesuffix(" (one seed)"))["id"].agg(list)
        listed[column] = "; ".join(f"{len(names)} {word} ({', '.join(names)})" for word, names in by_word.items())
    return (
        f"Of the paper's {len(table)} claims, at these lengths of training: {listed['verdict']}. With intervals as wide as those "
        f"of Student's t over seeds: {listed[STRICTER]}."
    )


def summary_markdown() -> str:
    """The table as Markdown, with a line that says what was run."""
    lines = summary_rows()
    head = list(lines[0])
    table = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(line.values())} |" for line in lines)]
    notes = {name: provenance_line(results(group, "published").rows) for name, group in _SOURCES.items()}
    notes["Section 4"] = f"{provenance_line(results('trainings', 'published').rows)} Photographs of solar cells."
    notes_text = "\n".join(f"- {name}: {note}" for name, note in notes.items())
    brackets = (
        "In brackets: 95% bootstrap intervals over test images and seeds, too narrow where three seeds differ more than images do "
        "([05](notebooks/05_conclusion.ipynb) says how much); ¹ one seed: over images alone."
    )
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
