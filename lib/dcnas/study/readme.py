"""What the README says in numbers: its answer, from the ledger, and the paper's numbers beside ours.

Section 4 has other images than the paper, so of its networks only differences stand beside the paper's.
"""

import re

import pandas as pd

from ..data.noise import SIGMAS
from ..errors import InputError
from ..paths import figures_dir, root, write_atomic
from .claims import WORDS, counts
from .figures import provenance_line
from .presets import LEARNED, REMOVED, SECTION_4
from .results import Results, results
from .stats import Interval, contrast, means
from .tables import paper

BEGIN, END = "<!-- {}: begin (written by `dcnas readme`) -->", "<!-- {}: end -->"
TABLE_1 = ("Conv-L", "MB1-S", "MB2.5-M", "MB4-L")
# before Table 2 had its own
UNETS = {"UNet Baseline": "UNet b=32 d=4 m=2 c=2", "UNet Reduced": "UNet b=8 d=4 m=1.5 c=2"}
NAMES = {"psnr": "PSNR", "accuracy": "accuracy"}


def _row(quantity: str, theirs: float, ours: Interval, where: str, one_seed: bool = False) -> dict:
    """A line of the table: printed paper value, our mean with its interval, where it is shown."""
    mean, low, high = (f"{value:.1f}" for value in ours)
    text = (mean if low == high else f"{mean} ({low} to {high})") + (" ¹" if one_seed else "")
    return {"quantity": quantity, "paper": f"{theirs:.1f}", "ours": text, "shown in": where}


def _link(stem: str, length: int = 4) -> str:
    return f"[{stem[:length]}](notebooks/{stem}.ipynb)"


def _section_3() -> list[dict]:
    """Classifiers, UNets and DC-Nets: absolute numbers."""
    theirs, link = paper("table1_6_classifiers"), _link("03_1_efficient_classification")
    scores = means(results("tables_1_and_6", "published").scores("accuracy"), TABLE_1)
    lines = [
        _row(
            f"{name}: accuracy, mean of 11 noise levels (%)",
            theirs["accuracy_pct"][name],
            scores[name],
            link,
        )
        for name in TABLE_1
    ]
    nets, link = results("table_2", "published"), _link("03_2_efficient_denoising")
    flops, psnr = nets.rows.groupby("label")["flops"].first() / 1e6, nets.scores("psnr")
    theirs = paper("table2_unet").query("metric == 'PSNR'")
    for name, label in UNETS.items():
        label = name if name in flops else label
        exact = Interval(flops[label], flops[label], flops[label])
        lines.append(_row(f"{name}: FLOPs (M)", theirs["flops_m"][name], exact, link))
        for sigma in (0.2, 0.8):
            ours = means(psnr, [label], [sigma])[label]
            lines.append(
                _row(f"{name}: PSNR at σ = {sigma} (dB)", theirs[f"sigma_{sigma}"][name], ours, link)
            )
    nets, theirs, link = (
        results("table_3", "published"),
        paper("table3_dcnet"),
        _link("03_3_joint_dcnet"),
    )
    theirs.index = theirs.index + " " + theirs["type"]
    for label, row in theirs[theirs.index.isin(nets.labels)].iterrows():
        for metric, column, unit in (("psnr", "psnr", "dB"), ("accuracy", "accuracy_pct", "%")):
            ours = means(nets.scores(metric), [label])[label]
            text = f"{label}: {NAMES[metric]}, mean of 11 ({unit})"
            lines.append(_row(text, row[column], ours, link, nets.seeds[label] == 1))
    return lines


def _section_4() -> list[dict]:
    """Differences between networks of Section 4, at equal latency where the paper's have equal
    latency.
    """
    nets = {group: results(group, "published") for group in ("table_8", "table_4", "table_5")}
    beta = paper("table8_beta", "beta").groupby(level=0)["accuracy_pct"].mean()
    denoisers, joint = paper("table4_dnas"), paper("table5_dcnas")
    unet, tail = _as_fast(nets["table_4"], "UNet"), _as_fast(nets["table_5"], "DC-Net_tail")
    links = {
        "table_8": _link("C_learned_beta", 1),
        "table_4": _link("04_2_d_nas"),
        "table_5": _link("04_3_dc_nas"),
    }
    rows = [
        ("table_8", "accuracy", REMOVED, LEARNED, beta["removed"] - beta["learned"], (0.0,)),
        (
            "table_4",
            "psnr",
            "D-NAS S",
            unet,
            denoisers["psnr"]["D-NAS S"] - denoisers["psnr"]["UNet Reduced"],
            SIGMAS,
        ),
    ]
    for a, b, other in (("DC-NAS L", "DC-NAS_seq L", "DC-NAS_seq L"), ("DC-NAS S", tail, "DC-Net_tail")):
        for metric, column in (("psnr", "psnr"), ("accuracy", "accuracy_pct")):
            rows.append(("table_5", metric, a, b, joint[column][a] - joint[column][other], SIGMAS))
    lines = []
    for group, metric, a, b, theirs, sigmas in rows:
        if pair := contrast(nets[group].scores(metric), {a: 1.0, b: -1.0}, sigmas):
            what = {"psnr": "PSNR (dB)", "accuracy": "accuracy (points)"}[metric]
            lines.append(_row(f"{a} minus {b}: {what}", theirs, pair[0], links[group], pair[1] == 1))
    return lines


def _as_fast(nets: Results, prefix: str) -> str:
    """The manual network that is about as fast as the searched one."""
    labels = [label for label in nets.labels if re.fullmatch(rf"{prefix} b=\d+", label)]
    return labels[0] if labels else f"{prefix} Reduced"


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


def verdicts_line() -> str:
    """Which claims have which verdict, in a sentence."""
    table = read_ledger().reset_index()
    by_word = table.groupby("verdict")["claim"].agg(list)
    parts = [
        f"{len(by_word[word])} {word} ({', '.join(by_word[word])})" for word in WORDS if word in by_word
    ]
    return f"Of the paper's {len(table)} claims: {'; '.join(parts)}."


def summary_markdown() -> str:
    """The table as Markdown, with a line that says what was run."""
    lines = [*_section_3(), *_section_4()]
    head = list(lines[0])
    table = [f"| {' | '.join(line)} |" for line in (head, *(line.values() for line in lines))]
    table.insert(1, f"|{'---|' * len(head)}")
    groups = {"Classifiers": "tables_1_and_6", "UNets": "table_2", "DC-Nets": "table_3"}
    notes = {name: provenance_line(results(group, "published").rows) for name, group in groups.items()}
    section_4 = results(list(SECTION_4), "published").rows
    notes["Section 4"] = f"{provenance_line(section_4)} Photographs of solar cells."
    brackets = (
        "In brackets: 95% bootstrap intervals over test images and seeds; ¹ one seed: over images "
        "alone. Verdicts rest on wider ones, over seeds or searches alone "
        "([05](notebooks/05_conclusion.ipynb))."
    )
    notes_text = "\n".join(f"- {name}: {note}" for name, note in notes.items())
    return "\n".join([*table, "", brackets, "", verdicts_line(), "", notes_text])


def write_readme(check: bool = False) -> bool:
    """Put answer and table between their marker lines, or only `check`. True if they stood there
    already.
    """
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
