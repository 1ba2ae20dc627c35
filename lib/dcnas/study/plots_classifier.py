"""Tables, figures and claims of notebooks 03_1 and A: the digit classifiers.

Section 3.1 of the paper with Table 1 (C01 to C03) and Appendix A with Table 6 (C04, C05). `accuracy` is what
`results.per_image(rows, "accuracy")` gives.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from ..data.noise import SIGMAS
from ..data.two_digits import IMAGE_SIZE
from ..models import CLASSIFIERS, UNETS, VARIANTS, UNet, build_classifier, count_flops
from ..models.crops import BOX_SIZE
from . import figures, paper
from . import results3 as results
from .claims import COUNTED, TIMED, latency_difference
from .compare import LATENCIES, Scores, claim_rows, contrast, difference, latency_table, mean_score, mean_scores
from .experiments import table_6_variants, tables_1_and_6
from .figures import LINES, style
from .scales import scale_named
from .stats import Interval

TABLE_1 = ("Conv-L", "MB1-S", "MB2.5-M", "MB4-L")
# Table 6: the paper's order of rows, and the experiments that use each section of it
TABLE_6 = dict.fromkeys(TABLE_1, "1-3") | {"MB2.5-S": "2-3", "MB4-S": "2-3", "Conv-S": "3", "Conv-M": "3"}
FAMILIES = {
    "Conv: width": ("Conv-S", "Conv-M", "Conv-L"),
    "MB: expansion rate": ("MB1-S", "MB2.5-M", "MB4-L"),
    "MB: width": ("MB4-S", "MB4-L"),
    "MB: both": ("MB2.5-S", "MB4-L"),
}
TURNS_ON = {  # network with widths that are not identified: the comparison of a claim with it
    "MB4-S": ("C04", "MB2.5-S", "MB4-S"), "MB1-S": ("C04", "MB2.5-S", "MB1-S"), "Conv-S": ("C05", "MB2.5-S", "Conv-S"),
    "Conv-M": ("C05", "MB2.5-M", "Conv-M"),
}  # fmt: skip
FLOPS_TOLERANCE = 0.02  # relative; widths are whole numbers, so the paper's last digit cannot always be met
ABOUT_POINTS = 1.0  # what counts as "about" the paper's difference in accuracy, in points


def classifier_flops() -> dict[str, int]:
    """FLOPs of each classifier for one digit, counted."""
    return {e.label: results.flops_of(e) for e in (*tables_1_and_6("smoke"), *table_6_variants("smoke"))}


def flops_table(names: Sequence[str]) -> pd.DataFrame:
    """FLOPs counted from the networks beside the paper's, in thousands."""
    ours, theirs = classifier_flops(), paper.networks()["flops_k"]
    rows = []
    for name in names:
        spec, off = CLASSIFIERS[name], ours[name] / (1000 * theirs[name]) - 1
        rows.append({
            "network": name, "widths": f"{spec.first}, {spec.second}", "expansion": spec.expansion or "-",
            "ours (K)": round(ours[name] / 1000, 1), "paper (K)": int(theirs[name]), "difference (%)": round(100 * off, 1),
            "verdict": "match" if abs(off) <= FLOPS_TOLERANCE else "no match",
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("network")


def flops_text(names: Sequence[str]) -> str:
    """How many counts match, in one sentence."""
    table = flops_table(names)
    wrong = [f"{n} ({row['difference (%)']:+.1f}%)" for n, row in table.iterrows() if row["verdict"] == "no match"]
    return (
        f"{len(table) - len(wrong)} of {len(table)} counts are within {FLOPS_TOLERANCE:.0%} of the paper's"
        f"{'; no match: ' + ', '.join(wrong) if wrong else ''}."
    )


def which_flops_fit_table_3(name: str = "MB2.5-M") -> pd.DataFrame:
    """Sequential is UNet plus `name`: which FLOPs of `name`, ours or those of Table 1, add up to Table 3?"""
    theirs = paper.networks()
    counted = count_flops(build_classifier(name), torch.zeros(1, 1, BOX_SIZE, BOX_SIZE))
    rows = []
    for size, unet in UNETS.items():
        base = count_flops(UNet(**unet), torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE))
        printed_sum = theirs["flops_m"][f"DC-Net {size.capitalize()} Sequential"]
        for source, flops in {"counted": counted, "printed in Table 1": 1000 * theirs["flops_k"][name]}.items():
            total = round((base + flops) / 1e6, 1)
            rows.append({
                "UNet": size, f"FLOPs of {name}": f"{flops / 1000:.0f} K, {source}", "sum (M)": total, "Table 3 (M)": printed_sum,
                "verdict": "match" if total == printed_sum else "no match",
            })  # fmt: skip
    return pd.DataFrame(rows).set_index("UNet")


def accuracy_table(accuracy: Scores, names: Sequence[str]) -> pd.DataFrame:
    """Accuracy in %, mean over the eleven noise levels, with its interval, beside the paper's. Untrained networks are left out."""
    return paper.beside(mean_scores(accuracy, names), paper.networks()["accuracy_pct"].to_dict(), decimals=1)


def accuracy_text(table: pd.DataFrame, rows: pd.DataFrame) -> str:
    """How our accuracies lie beside the paper's, in two sentences, from `accuracy_table`."""
    matches, off = int((table["verdict"] == "match").sum()), table["difference"]
    orders = [" > ".join(table[whose].sort_values(ascending=False, kind="stable").index) for whose in ("ours", "paper")]
    seen, full = rows["images"].max(), scale_named("paper").classify.images
    return (
        f"{matches} of {len(table)} of the paper's accuracies lie inside our intervals; ours differ from the paper's by "
        f"{off.min():+.1f} to {off.max():+.1f} points, after {seen:,} training images ({100 * seen / full:.2g}% of 100 epochs). "
        f"Order, ours: {orders[0]}; the paper's: {orders[1]}."
    )


def by_length_of_training(names: Sequence[str], against: str = "Conv-L") -> pd.DataFrame:
    """Accuracy in %, mean over the eleven noise levels, and its difference from one network in points, at every published length.

    A pair of columns for each number of training images, with how many seeds it rests on; then the paper's.
    """
    theirs, columns = paper.networks()["accuracy_pct"][list(names)], {}
    for part in results.published_lengths("tables_1_and_6"):
        part = part[part["label"].isin(names)]
        images = part["images"].iloc[0]
        scores = results.per_image(part, "accuracy")
        seeds = part.groupby("label")["seed"].nunique()
        few = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
        head = f"{images:,} images, {few} seed{'s' * (few != '1')}"
        gaps = {name: contrast(scores, difference(name, against)) for name in names if name != against}
        columns[head] = {name: level.mean for name, level in mean_scores(scores, names).items()}
        columns[f"{head}: minus {against}"] = {name: found[0].mean for name, found in gaps.items() if found}
    columns |= {"paper": theirs, f"paper: minus {against}": theirs - theirs[against]}
    return pd.DataFrame(columns).reindex(list(names)).round(1).rename_axis("network")


def variants_table(scale: str, device: str = "cpu") -> pd.DataFrame:
    """The networks of Table 6 with each of the widths that fit its FLOPs: accuracy in %, and the comparison of C04 or C05 that
    turns on it, in points, all after the same length of training. Variants that are not trained yet have no numbers.
    """
    some = scale != "published" or results.published_lengths("table_6_variants")
    groups = ["table_6_variants", "tables_1_and_6"] if some else ["tables_1_and_6"]
    scores = results.per_image(results.gather(groups, scale, device), "accuracy")
    flops, theirs, lines = classifier_flops(), paper.networks(), []
    for name, (claim, *pair) in TURNS_ON.items():
        for label in (name, *(variant for variant in VARIANTS if variant.startswith(name))):
            spec, level = (CLASSIFIERS | VARIANTS)[label], mean_score(scores, label)
            a, b = (label if part == name else part for part in pair)
            found = contrast(scores, difference(a, b))
            lines.append({
                "network": name, "widths": f"{spec.first}, {spec.second}", "FLOPs (K)": round(flops[label] / 1000, 1),
                "paper (K)": int(theirs["flops_k"][name]), "accuracy (%)": level and round(level.mean, 1),
                "comparison": f"{claim}: {' minus '.join(pair)}", "paper": _gap("accuracy_pct", *pair),
                "effect": found and round(found[0].mean, 2), "95% interval": found[0].bounds() if found else "not trained yet",
            })  # fmt: skip
    return pd.DataFrame(lines).set_index("network")


def table_of(accuracy: Scores, names: Sequence[str]) -> pd.DataFrame:
    """Table 1 or 6: FLOPs, latency and accuracy, ours and the paper's."""
    flops, latency, ours = flops_table(names), latency_table(names, "Conv-L"), accuracy_table(accuracy, names)
    theirs = paper.networks().loc[list(names)]
    table = pd.DataFrame({
        "exp.": [TABLE_6[name] for name in names], "size": theirs["size"], "exp. rate": flops["expansion"],
        "FLOPs (K)": flops["ours (K)"], "FLOPs, paper": flops["paper (K)"],
        "lat. (ms)": latency[LATENCIES[0]], "lat., paper": latency[LATENCIES[2]],
        "acc. (%)": ours["ours"], "95% interval": ours["95% interval"], "acc., paper": theirs["accuracy_pct"],
        "acc. verdict": ours["verdict"],
    }, index=list(names))  # fmt: skip
    table["acc. verdict"] = table["acc. verdict"].fillna("not trained yet")
    return (table.drop(columns="exp.") if tuple(names) == TABLE_1 else table).rename_axis("network")


def accuracy_curves(accuracy: Scores, rows: pd.DataFrame, names: Sequence[str], against: str = "Conv-L") -> Figure:
    """Accuracy against sigma, and the paired difference from one network, with 95% intervals."""
    figure, axes = figures.new_figure(10.0, 4.6, 1, 2)
    for i, name in enumerate(mean_scores(accuracy, names)):
        look = style(i) | dict(label=name, alpha=0.12)
        figures.band(axes[0], SIGMAS, [mean_score(accuracy, name, [sigma]) for sigma in SIGMAS], **look)
        found = [contrast(accuracy, difference(name, against), [sigma]) for sigma in SIGMAS]
        if name != against and all(found):
            figures.band(axes[1], SIGMAS, [change for change, _ in found], **look)
    axes[0].axhline(10, color="0.4", linewidth=1, linestyle=":")
    axes[0].text(0, 8.5, "chance", color="0.4", fontsize=9, va="top")
    axes[1].axhline(0, color="0.4", linewidth=1)
    axes[0].set(xlabel="noise level σ", ylabel="accuracy (%)", ylim=(0, 102))
    axes[1].set(xlabel="noise level σ", ylabel=f"difference from {against} (points)")
    axes[0].legend()
    return figures.caption(figure, rows, "Bands: 95% intervals.")


def accuracy_against_flops(accuracy: Scores, rows: pd.DataFrame, names: Sequence[str], families: bool = False) -> Figure:
    """Accuracy against FLOPs with 95% intervals, the paper's points hollow; with `families`, a line per way of scaling."""
    figure, axis = figures.new_figure(8.0, 5.0)
    ours, flops, theirs = mean_scores(accuracy, names), classifier_flops(), paper.networks()[["flops_k", "accuracy_pct"]]
    for i, (name, interval) in enumerate(ours.items()):
        look, bars = style(i) | dict(linestyle=""), figures.bars([interval])
        axis.errorbar(flops[name] / 1000, interval.mean, bars, capsize=4, markersize=8, label=name, zorder=3, **look)
        axis.plot(*theirs.loc[name], mfc="none", markersize=9, **look)
    for line, (family, members) in zip(LINES, FAMILIES.items() if families else ()):
        points = [(flops[name] / 1000, ours[name].mean) if name in ours else (np.nan, np.nan) for name in members]
        axis.plot(*zip(*points), color="0.25", linestyle=line, linewidth=1.5, label=family, zorder=2)
        axis.plot(*theirs.loc[list(members)].to_numpy().T, color="0.6", linestyle=line, linewidth=1)
    axis.plot([], [], "o", color="0.3", mfc="none", markersize=9, linestyle="", label="hollow: the paper")
    axis.set(xlabel="FLOPs for one digit (K)", ylabel="accuracy, mean over eleven σ (%)")
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figures.caption(figure, rows, "Bars: 95% intervals. Hollow MB2.5-M stands where the paper prints it.")


def _better(accuracy: Scores, claim: str, a: str, b: str, **asked) -> list[dict]:
    asked |= dict(paper=_gap("accuracy_pct", a, b))
    return claim_rows(accuracy, claim, {f"accuracy of {a} minus {b}, in points": difference(a, b)}, **asked)


def _gap(column: str, a: str, b: str) -> float:
    """Network a minus network b in the paper's Tables 1 and 6."""
    theirs = paper.networks()[column]
    return round(float(theirs[a] - theirs[b]), 3)


def claims_of_table_1(accuracy: Scores) -> list[dict]:
    """C01 to C03 as comparisons for `claims.verdict_table`: paired differences."""
    flops, table = classifier_flops(), []
    for name in ("MB2.5-M", "MB4-L"):
        fewer = (flops[name] - flops["Conv-L"]) / 1000
        table += _better(accuracy, "C01", name, "Conv-L")
        table.append({
            "claim": "C01", "comparison": f"FLOPs of {name} minus Conv-L, in K", "effect": Interval(fewer, fewer, fewer),
            "direction": "<", "decimals": 1, "paper": _gap("flops_k", name, "Conv-L"), "scale": COUNTED,
        })  # fmt: skip
    about = dict(threshold=_gap("accuracy_pct", "MB1-S", "Conv-L"), direction="about", margin=ABOUT_POINTS)
    table += _better(accuracy, "C02", "MB1-S", "Conv-L", **about)
    table.append({
        "claim": "C03", "comparison": "latency of MB2.5-M minus Conv-L, in ms per batch of 32", "decimals": 3, "scale": TIMED,
        "effect": latency_difference("MB2.5-M", "Conv-L"), "paper": _gap("latency_ms", "MB2.5-M", "Conv-L"),
    })  # fmt: skip
    return table


def claims_of_table_6(accuracy: Scores) -> list[dict]:
    """C04 and C05 as comparisons for `claims.verdict_table`: paired differences."""
    pairs = [("C04", "MB2.5-S", "MB1-S"), ("C04", "MB2.5-S", "MB4-S")]
    pairs += [("C05", name, "Conv-S") for name in ("MB1-S", "MB2.5-S", "MB4-S")] + [("C05", "MB2.5-M", "Conv-M")]
    return [row for claim, a, b in pairs for row in _better(accuracy, claim, a, b)]
