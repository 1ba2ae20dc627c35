"""Figures, tables and claims of notebook 03_3: the joint DC-Nets, and the ladder from the small classifier to them.

Section 3.3 of the paper: Table 3 and Figure 4 (C12 to C14). The paper does not say why joint accuracy is so far above that of Table
1; the controls of the ladder do. `psnr`, `ssim` and `accuracy` (in %) are scores as `results.per_image` gives them.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..data.noise import SIGMAS
from ..data.two_digits import cached
from ..models import JOINING, UNETS
from ..models.crops import BOX_SIZE
from . import compare, figures, paper
from .claims import TIMED, latency_difference
from .compare import NOISY, Scores, claim_rows, combine, contrast, difference, mean_score, mean_scores
from .figures import picture
from .results3 import per_image, pictures
from .runs import SAMPLES
from .stats import Interval, bootstrap

DCNETS = {(size, joining): f"DC-Net {size.capitalize()} {joining.capitalize()}" for size in UNETS for joining in JOINING}
# Integrated minus Sequential, by size
GAPS = {size: difference(DCNETS[size, "integrated"], DCNETS[size, "sequential"]) for size in UNETS}
ABOUT = 1.0  # dB or points: our reading of "by 5.7 dB" and "about 1.5 points"


def pooled_psnr(scores: Scores, label: str) -> Interval:
    """PSNR of the mean squared error of all images together, averaged over the eleven sigmas, with its interval."""
    errors = {seed: 10 ** (-array.astype(np.float64) / 10) for (name, seed), array in scores.items() if name == label}
    return bootstrap(errors, lambda error: (-10 * np.log10(error)).mean(1))


def table_3(rows: pd.DataFrame, psnr: Scores, ssim: Scores, accuracy: Scores) -> pd.DataFrame:
    """The four DC-Nets beside the paper's Table 3; three readings of its "PSNR", because it does not define the mean."""
    theirs, flops = paper.networks(), compare.flops_by_label(rows)
    labels = [label for label in DCNETS.values() if label in flops]
    columns = {
        "FLOPs (M)": ({label: flops[label] / 1e6 for label in labels}, "flops_m", 1),
        "PSNR (dB)": (mean_scores(psnr, labels), "psnr", 1),
        "PSNR without σ = 0 (dB)": (mean_scores(psnr, labels, NOISY), "psnr", 1),
        "PSNR of pooled error (dB)": ({label: pooled_psnr(psnr, label) for label in labels}, "psnr", 1),
        "SSIM": (mean_scores(ssim, labels), "ssim", 2), "accuracy (%)": (mean_scores(accuracy, labels), "accuracy_pct", 1),
    }  # fmt: skip
    parts = {name: paper.beside(ours, theirs[column].to_dict(), decimals) for name, (ours, column, decimals) in columns.items()}
    parts["FLOPs (M)"]["95% interval"] = "exact"
    return pd.concat(parts, names=["mean over sigmas"])


def joining_table(psnr: Scores) -> pd.DataFrame:
    """Integrated minus Sequential in dB at each sigma and both sizes, and which of the two is better."""
    parts = {(size, f"{sigma:g}"): (weights, [sigma]) for size, weights in GAPS.items() for sigma in SIGMAS}
    table = compare.comparison_table(psnr, parts)
    table.index = pd.MultiIndex.from_tuples(table.index, names=["size", "sigma"])
    words = {"above 0": "Integrated", "below 0": "Sequential", "includes 0": "undecided"}
    table["better"] = table.pop("interval is").str.removesuffix(" (one seed)").map(words)
    table.loc[table["seeds"] == 1, "better"] = "undecided (one seed)"
    return table


def joining_text(table: pd.DataFrame) -> str:
    """The test of "Integrated denoises better than Sequential at every sigma above 0.2"."""
    above = table[[float(sigma) > 0.2 for sigma in table.index.get_level_values("sigma")]]
    lines = []
    for size, part in above.groupby(level="size", sort=False):
        wins, losses = (part["better"] == "Integrated").sum(), (part["better"] == "Sequential").sum()
        word = "holds" if wins == len(part) else "does not hold" if losses else "is undecided"
        lines.append(
            f"- {size}: it {word}. Of {len(part)} noise levels above 0.2 Integrated is better at {wins}, Sequential at {losses}, "
            f"undecided {len(part) - wins - losses}; the differences run from {part['effect'].min():+.2f} to "
            f"{part['effect'].max():+.2f} dB."
        )
    return '"Integrated denoises better than Sequential at every sigma above 0.2":\n\n' + "\n".join(lines)


def joining_figure(rows: pd.DataFrame, psnr: Scores) -> Figure:
    """Integrated minus Sequential against sigma, with paired intervals."""
    figure, axes = figures.new_figure(7, 4.4)
    for i, (size, weights) in enumerate(GAPS.items()):
        found = {s: change[0] for s in SIGMAS if (change := contrast(psnr, weights, [s]))}
        shifted = np.array(list(found)) + 0.008 * (2 * i - 1)  # so that the bars of the two sizes stand side by side
        means, bars = [change.mean for change in found.values()], figures.bars(found.values())
        axes.errorbar(shifted, means, bars, capsize=3, label=size, **figures.style(i))
    axes.axhline(0, color="black", linewidth=1)
    axes.set(xlabel="noise level σ", ylabel="Integrated minus Sequential (dB)", xticks=np.linspace(0, 1, 6))
    axes.legend(fontsize=10, frameon=False)
    return figures.caption(figure, rows[rows["label"].isin(DCNETS.values())], "Bars: paired 95% intervals.")


def figure_4(rows: pd.DataFrame, index: int, sigma: float, zoom: int = 26) -> Figure:
    """Figure 4: ground truth, noisy input and the four outputs (S: reduced, L: baseline); below, the red squares enlarged."""
    shown = pictures(rows, index, sigma)
    images = {"ground truth": shown["clean"], "noisy": shown["noisy"]}
    for size, letter in (("reduced", "S"), ("baseline", "L")):
        for joining in ("sequential", "integrated"):
            if DCNETS[size, joining] in shown:
                images[f"{joining} {letter}"] = shown[DCNETS[size, joining]]
    left, top = (cached("test", SAMPLES).boxes[index, 0, :2] + (BOX_SIZE - zoom) // 2).tolist()
    figure, grid = figures.new_figure(13, 5, 2, len(images), squeeze=False)
    for axes, below, letter, (name, image) in zip(*grid, "abcdef", images.items()):
        picture(axes, image, f"{letter}: {name}")
        figures.square(axes, left, top, zoom, "red")
        picture(below, image[top : top + zoom, left : left + zoom])
        for spine in below.spines.values():
            spine.set(visible=True, color="red", linewidth=2)
    of_seed_0 = rows[rows["label"].isin(DCNETS.values()) & (rows["seed"] == 0)]
    return figures.caption(figure, of_seed_0, f"Test image {index}, σ = {sigma:g}; S: reduced, L: baseline.")


def overview(rows: pd.DataFrame, index: int, sigma: float) -> Figure:
    """What the study is about, for the README: a noisy image, what DC-Net Reduced Integrated makes of it, and how it denoises."""
    label = DCNETS["reduced", "integrated"]
    shown, data = pictures(rows, index, sigma), cached("test", SAMPLES)
    right = per_image(rows[rows["label"] == label], "accuracy")[label, 0][SIGMAS.index(sigma), index]
    figure, (noisy, denoised, chart) = figures.new_figure(11, 4.2, 1, 3, width_ratios=(1, 1, 1.25))
    picture(noisy, shown["noisy"], f"in: noisy, σ = {sigma:g}")
    picture(denoised, shown[label], "out: denoised and classified")
    for (left, top, *_), digit, correct in zip(data.boxes[index].tolist(), data.labels[index].tolist(), right):
        colour, text = (figures.COLOURS["sky"], f"{digit}") if correct else (figures.COLOURS["red"], f"not {digit}")
        figures.square(denoised, left, top, BOX_SIZE, colour, text, fontsize=13)
    both = [DCNETS["reduced", joining] for joining in JOINING]
    rows = rows[rows["label"].isin(both)]
    scores = compare.with_noisy_input(per_image(rows, "psnr"), "psnr")
    for i, name in zip((0, 1, 6), (*both, "noisy input")):
        compare.curve(chart, scores, name, NOISY, i)
    chart.set(xlabel="noise level σ", ylabel="PSNR (dB)")
    chart.legend(fontsize=9)
    return figures.caption(figure, rows, f"Test image {index}. Bands: 95% over images and seeds.")


def joint_claims(psnr: Scores, accuracy: Scores) -> list[dict]:
    """C12, C13 and C14 as comparisons for `claims.verdict_table`."""
    theirs, about, found = paper.networks(), dict(direction="about", margin=ABOUT), []
    for size, weights in GAPS.items():
        integrated, sequential = weights
        gap = (theirs.loc[integrated] - theirs.loc[sequential])[["psnr", "accuracy_pct", "latency_ms"]].astype(float).round(2)
        psnr_gap, points_gap = dict(paper=gap["psnr"]), dict(paper=-gap["accuracy_pct"], decimals=1)
        text = f"{size}: Integrated minus Sequential in dB, mean over"
        found += claim_rows(psnr, "C12", {f"{text} eleven σ": weights}, **psnr_gap)
        found += claim_rows(psnr, "C12", {f"{text} σ above 0.2": weights}, [s for s in SIGMAS if s > 0.2])
        about_gap = about | psnr_gap | dict(threshold=gap["psnr"])
        found += claim_rows(psnr, "C12", {f"{text} eleven σ, against the paper's": weights}, **about_gap)
        text, loss = f"{size}: Sequential minus Integrated in points", combine((-1, weights))
        found += claim_rows(accuracy, "C13", {text: loss}, **points_gap)
        about_loss = about | points_gap | dict(threshold=-gap["accuracy_pct"])
        found += claim_rows(accuracy, "C13", {f"{text}, against the paper's": loss}, **about_loss)
        text = f"{size}: Sequential minus Integrated in ms at batch 32"
        found.append({
            "claim": "C14", "comparison": text, "effect": latency_difference(sequential, integrated),
            "paper": -gap["latency_ms"], "scale": TIMED,
        })  # fmt: skip
    return sorted(found, key=lambda row: row["claim"])


ALONE, CONTROL = "MB2.5-M", "MB2.5-M on the noisy square"
PATHS: dict[str, list[tuple[str, str]]] = {  # what changes in a step, and the network after it
    "to Sequential": [
        ("the small classifier of Table 1, alone", ALONE),
        ("trained with the budget of the DC-Nets", CONTROL),
        ("sees the output of a trained, frozen denoiser", "MB2.5-M on a denoised square"),
        ("denoiser and classifier train together", DCNETS["reduced", "sequential"]),
        ("the larger denoiser", DCNETS["baseline", "sequential"]),
    ],
    "to Integrated": [
        ("the small classifier of Table 1, alone", ALONE),
        ("trained with the budget of the DC-Nets", CONTROL),
        ("the UNet's encoder as classifier", "Encoder on the noisy square"),
        ("sees the whole image, not the square alone", "Integrated, cross entropy only"),
        ("denoises as well", DCNETS["reduced", "integrated"]),
        ("the larger UNet", DCNETS["baseline", "integrated"]),
    ],
}  # fmt: skip


def ladder_labels(size: str = "") -> list[str]:
    """The networks of both paths, each once; with `size` "reduced" or "baseline" without the DC-Nets of the other size."""
    other = {label for (name, _), label in DCNETS.items() if size and name != size}
    return [label for label in dict.fromkeys(label for steps in PATHS.values() for _, label in steps) if label not in other]


def ladder_table(rows: pd.DataFrame, accuracy: Scores) -> pd.DataFrame:
    """Accuracy step by step from the small classifier to the DC-Nets, with the paired difference to the step before."""
    table, images = [], rows.groupby("label")["images"].first()
    for path, steps in PATHS.items():
        before = None
        for change, label in steps:
            if not (level := mean_score(accuracy, label)):
                continue
            row = {"path": path, "network": label, "change": change, "training images": images[label]}
            row["accuracy (%)"] = round(level.mean, 1)
            row["95% interval"] = level.bounds(1)
            by_seed = [mean_score({key: array}, label).mean for key, array in sorted(accuracy.items()) if key[0] == label]
            row["by seed (%)"] = " / ".join(f"{value:.0f}" for value in by_seed)
            row["at σ = 0 (%)"] = round(mean_score(accuracy, label, [0.0]).mean, 1)
            step = before and contrast(accuracy, difference(label, before))
            row["step (points)"] = round(step[0].mean, 1) + 0.0 if step else np.nan
            row["step's seeds"] = step[1] if step else 0
            row["step's interval"] = step[0].bounds(1) if step else ""
            table.append(row)
            before = label
    return pd.DataFrame(table).set_index(["path", "network"])


def ladder_text(table: pd.DataFrame) -> str:
    """Which step explains most of the gain of the reduced DC-Nets over a classifier that is trained as they are."""
    lines = []
    for path, part in table.groupby(level="path", sort=False):
        part = part.droplevel("path")
        end = DCNETS["reduced", path.split()[-1].lower()]
        if not {CONTROL, end} <= set(part.index):
            lines.append(f"- **{path}**: {CONTROL} or {end} has no results yet.")
            continue
        part = part.loc[CONTROL:end]
        steps, gain = part["step (points)"].iloc[1:], part["accuracy (%)"].iloc[-1] - part["accuracy (%)"].iloc[0]
        most, values = (
            steps.idxmax(),
            [f"{part[c][label]:.1f}%" for c in ("accuracy (%)", "at σ = 0 (%)") for label in (CONTROL, end)],
        )
        share = f", {100 * steps[most] / gain:.0f}% of the whole" if 0 < steps[most] <= gain else ""
        others = "; ".join(f"*{part['change'][label]}* {steps[label]:+.1f}" for label in steps.index if label != most)
        lines.append(
            f"- **{path}** ({end}): with the same budget, the small classifier reaches {values[0]} and the DC-Net {values[1]}, "
            f"{gain:+.1f} points. The step that adds most is *{part['change'][most]}*: {steps[most]:+.1f} points "
            f"({part.loc[most].iloc[-1]}){share}. "
            f"The others: {others}. Without noise (σ = 0) accuracy goes from {values[2]} to {values[3]}."
        )
    return "\n".join(lines)


def ladder_figure(rows: pd.DataFrame, accuracy: Scores) -> Figure:
    """Accuracy of every step: over all noise levels (bars, with 95% intervals), without noise (diamonds), the paper's (stars)."""
    figure, grid = figures.new_figure(13, 5, 1, 2, sharex=True)
    theirs = paper.networks()["accuracy_pct"]
    for axes, (path, steps) in zip(grid, PATHS.items()):
        levels = mean_scores(accuracy, [label for _, label in steps])
        for y, (label, level) in enumerate(levels.items()):
            axes.barh(y, level.mean, color=figures.PALETTE[5], height=0.6, label="mean over eleven σ")
            axes.errorbar(level.mean, y, xerr=figures.bars([level]), color="black", capsize=4)
            clean = mean_score(accuracy, label, [0.0]).mean
            axes.plot(clean, y, "D", color="black", markerfacecolor="white", markersize=8, label="σ = 0")
            if label in theirs:
                axes.plot(theirs[label], y, "*", color="black", markerfacecolor="none", markersize=14, label="the paper, mean")
            axes.text(105, y, f"{level.mean:.1f}%", va="center", fontsize=11)
        names = [f"{label}\n({change})" for change, label in steps if label in levels]
        axes.set_yticks(range(len(names)), names, fontsize=10)
        axes.invert_yaxis()
        axes.set(title=path, xlabel="accuracy (%)", xlim=(0, 122), xticks=range(0, 101, 20))
    handles = dict(zip(*grid[0].get_legend_handles_labels()[::-1]))
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=3, frameon=False, fontsize=11)
    return figures.caption(figure, rows)
