"""Figures, tables and claims of Section 4's notebooks about the networks that were found: Figures 6, 7 and 9, Tables 4, 5 and 8.

`rows` are what `results4.results` gives; `psnr`, `ssim`, `accuracy` (in %) are scores as `results4.per_image` gives them. All
networks see the same test images with the same noise, so differences are paired. Classifiers of Section 4.1 are trained and judged
without noise (sigma 0), as in the paper. What has no results yet is left out.
"""

from collections.abc import Sequence
from math import hypot

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from ..data.images import evaluation_images
from ..data.noise import SIGMAS
from ..latency.table import Table
from ..nas.lut import predicted_ms
from ..nas.networks import NETWORKS
from ..nas.recorder import FLIP_RATE, TAIL
from ..nas.space import Architecture
from . import compare, figures, paper
from .compare import Scores, claim_rows, contrast, difference, mean_score, trend_rows
from .results4 import Searched, images_of_scale, samples
from .runs import SAMPLE_SIGMAS, SAMPLES, bank_noisy
from .section4 import TARGETS, TWO_SAMPLED, operators_label
from .stats import Interval, of_few, ratio_of_spreads

CLEAN = (0.0,)
NEVER = 1.0  # % of a class's images: below that a network does as good as never name it
RECALLS = {"balanced_accuracy": "balanced accuracy (%)", "least_recall": "least recall of a class (%)"}
TABLE_8_MS = "argmax by the table (ms)"  # as searched, which is what the paper's Table 8 gives
REMOVED, LEARNED = "C-NAS S, beta removed", "C-NAS S, beta learned"
C_NAS, TF_NAS = operators_label("M", 4), "TF-NAS settings M"


def training_text(rows: pd.DataFrame) -> str:
    """What the networks were trained on and for how long, and how many seeds each has."""
    first = rows.iloc[0]
    seeds = rows.groupby("label", sort=False)["seed"].nunique()
    few = seeds[seeds < seeds.max()]
    text = (
        f"Scale `{first['scale']}`: {first['set_images']:,.0f} training images of {first['classes']:.0f} classes "
        f"({first['data']}), {first['resolution']} x {first['resolution']} pixels. A network sees {first['images']:,.0f} of them, "
        f"{first['images'] / first['set_images']:.0f} epochs (the paper: 250 epochs of ImageNet-100 at 224 x 224), so absolute "
        f"values cannot be compared with the paper's; orders and differences can. Every network has "
        f"{compare.plural(seeds.max(), 'seed')}"
    )
    return text + (f", except these with {few.min()}: {'; '.join(few.index)}." if len(few) else ".")


def latencies_ms(rows: pd.DataFrame) -> pd.Series:
    """Median measured latency of each network, in ms; the mean over its seeds where they have architectures of their own."""
    return rows.drop_duplicates(["label", "seed"]).groupby("label", sort=False)["latency_ms"].mean()


def network_table(rows: pd.DataFrame, scores: dict[str, Scores], sigmas: Sequence[float] = SIGMAS) -> pd.DataFrame:
    """A row per network: FLOPs, parameters, measured latency, the mean of each score ("accuracy (%)", ...) with its interval.

    Of networks whose seeds have architectures of their own, the mean over these.
    """
    latency, table = latencies_ms(rows), []
    for label, of_label in rows.drop_duplicates(["label", "seed"]).groupby("label", sort=False):
        row = {"network": label, "seeds": of_label["seed"].nunique(), "FLOPs (M)": round(of_label["flops"].mean() / 1e6, 1)}
        row |= {"parameters (M)": round(of_label["parameters"].mean() / 1e6, 2), "latency (ms)": round(latency[label], 2)}
        for name, of_all in scores.items():
            level, decimals = mean_score(of_all, label, sigmas), 3 if name == "SSIM" else 1
            row[name] = round(level.mean, decimals) if level else np.nan
            row[f"{name}, 95%"] = level.bounds(decimals) if level else ""
        recalls = rows[(rows["label"] == label) & rows["sigma"].isin(sigmas)]
        row |= {text: round(recalls[name].mean(), 1) for name, text in RECALLS.items() if "accuracy (%)" in scores and name in rows}
        table.append(row)
    return pd.DataFrame(table).set_index("network")


def recalls_text(table: pd.DataFrame, largest: float) -> str:
    """What accuracy is worth here: the share `largest` of the largest class in %, and which networks never name some class."""
    text = f"Always naming the largest class is right for {largest:.1f}% of the images."
    recall = table.get(RECALLS["least_recall"], pd.Series(dtype=float)).dropna()
    if recall.empty:
        return text
    names = recall.index.get_level_values("network")
    never = "; ".join(names[recall < NEVER])
    return f"{text} Networks that all but never name one of the classes (recall below {NEVER:g}%): {never or 'none'}."


def prediction_table(rows: pd.DataFrame, found: dict[tuple[str, int], Architecture], table: Table) -> pd.DataFrame:
    """The table's prediction of every network that was derived, beside its measurement among all the others."""
    lines = {}
    for line in rows.drop_duplicates(["label", "seed"]).itertuples():
        if (line.label, line.seed) in found and line.network in NETWORKS and line.upscaled == 1:
            predicted = predicted_ms(table, found[line.label, line.seed], line.network, line.decoder)
            error = 100 * (predicted / line.latency_ms - 1)
            lines.setdefault((line.label, line.network), []).append((predicted, line.latency_ms, error))
    means = {key: np.mean(values, 0).round(2) for key, values in lines.items()}
    index = pd.MultiIndex.from_tuples(means, names=["network", "built as"])
    return pd.DataFrame([*means.values()], index=index, columns=["table (ms)", "measured (ms)", "error of the table (%)"])


def predictions_text(predictions: pd.DataFrame) -> str:
    """How far the table is off for networks with the usual decoder, and for those with another one."""
    error = predictions["error of the table (%)"].abs()
    other = [", mb" in label for label, _ in predictions.index]
    usual = error[[not o for o in other]]
    text = f"With convolutional decoders the table is {usual.median():.1f}% off at the median, {usual.max():.1f}% at most"
    if not any(other):
        return f"{text}."
    return (
        f"{text}; with MBConv decoders {error[other].min():.0f} to {error[other].max():.0f}%, so of these believe the measurement "
        "alone. No search uses their entries."
    )


def same_latency_rows(
    rows: pd.DataFrame, claim: str, a: str, b: str, theirs: Sequence[float], within_pct: float = 5.0
) -> list[dict]:  # fmt: skip
    """Whether two networks that are compared at the same latency have it, as a row for `claims.verdict_table`.

    `theirs`: the paper's latencies of the two, in ms.
    """
    if not {a, b} <= set(rows["label"]):
        return []
    gap, scale = _latency_gap(rows, a, b), 100 / latencies_ms(rows)[b]
    effect = Interval(gap.mean * scale, gap.low * scale, gap.high * scale)
    return [{"claim": claim, "comparison": f"latency, {a} minus {b}, in %", "effect": effect, "direction": "about",
             "margin": within_pct, "decimals": 1, "paper": 100 * (theirs[0] / theirs[1] - 1)}]  # fmt: skip


def _latency_gap(rows: pd.DataFrame, a: str, b: str) -> Interval:
    """Measured latency of `a` minus that of `b` in ms, with a 95% interval from the error of each measurement.

    Trainings of one network share one measurement: it counts as often as there are trainings, but its error does not shrink.
    """
    errors = []
    for label in (a, b):
        part = rows[rows["label"] == label].drop_duplicates("seed")
        each = part["error_ms"].groupby(part["derivation"].fillna("made by hand")).sum()
        errors.append(float((each**2).sum() ** 0.5 / len(part)))
    change, half = latencies_ms(rows)[a] - latencies_ms(rows)[b], 1.96 * hypot(*errors)
    return Interval(change, change - half, change + half)


def against_paper(
    scores: Scores, claim: str, text: str, weights: dict, theirs: float, margin: float, sigmas: Sequence[float] = SIGMAS, **asked
) -> list[dict]:
    """A difference beside the paper's: above 0, and about as large as there."""
    asked |= dict(paper=round(theirs, 3))
    found = claim_rows(scores, claim, {text: weights}, sigmas, **asked)
    asked |= dict(threshold=round(theirs, 3), direction="about", margin=margin)
    return found + claim_rows(scores, claim, {f"{text}, against the paper's": weights}, sigmas, **asked)


def _axes_with_bars(axes, x: Sequence[float], levels: Sequence[Interval], i: int, label: str) -> None:
    axes.errorbar(x, [level.mean for level in levels], figures.bars(levels), capsize=3, label=label, **figures.style(i))


# ---- Section 4.1: beta (Table 8), number of operators (Figure 6), other networks (Figure 7), the cheaper gradient


def table_8(searched: list[Searched], rows: pd.DataFrame, accuracy: Scores) -> pd.DataFrame:
    """A row per search: verdict, latency of its argmax before widths are fitted, latency as derived and measured, accuracy."""
    measured, table = rows.drop_duplicates(["label", "seed"]).set_index(["label", "seed"])["latency_ms"], []
    for s in searched:
        last = s.epochs.iloc[-1]
        level = mean_score({key: a for key, a in accuracy.items() if key == (s.label, s.seed)}, s.label, CLEAN)
        table.append({
            "beta": "learned" if s.label == LEARNED else "removed", "search": s.seed + 1, "verdict": s.verdict,
            "blocks": sum(choice is not None for choice in s.architecture.choices), "entropy at the end": round(last["entropy"], 2),
            "target (ms)": s.target_ms, TABLE_8_MS: round(last["argmax_ms"], 2),
            "derived, measured (ms)": round(measured.get((s.label, s.seed), np.nan), 2),
            "accuracy (%)": round(level.mean, 1) if level else np.nan, "95% interval": level.bounds(1) if level else "",
        })  # fmt: skip
    return pd.DataFrame(table).sort_values(["beta", "search"], ascending=[False, True]).set_index(["beta", "search"])


def table_8_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and range over the searches of each setting, ours and the paper's; and how many searches decided."""
    theirs, lines = paper.table("table8_beta"), []
    for beta in ("removed", "learned"):
        ours, paper_rows = table.loc[beta], theirs[theirs["beta"] == beta]
        for who, accuracy, found, derived in (
            ("ours", ours["accuracy (%)"], ours[TABLE_8_MS], ours["derived, measured (ms)"]),
            ("the paper's", paper_rows["accuracy_pct"], paper_rows["latency_ms"], None),
        ):
            level = of_few(accuracy)
            lines.append({
                "beta": beta, "whose": who, "searches": len(accuracy), "accuracy, mean (%)": round(level.mean, 1),
                "95% interval": level.bounds(1) if who == "ours" else "", "accuracy, range (points)": round(np.ptp(accuracy), 1),
                "latency as searched, range (ms)": round(np.ptp(found), 2),
                "latency as derived, range (ms)": "" if derived is None else round(np.ptp(derived), 2),
                "decided": f"{(ours['verdict'] == 'decided').sum()} of {len(ours)}" if who == "ours" else "",
            })  # fmt: skip
    return pd.DataFrame(lines).set_index(["beta", "whose"])


def agreement_table(searched: list[Searched]) -> pd.DataFrame:
    """How alike the searches of one setting are: share of layers where two seeds found the same operator, and by chance."""
    table = []
    searched = [s for s in searched if "entropy" in s.epochs]  # a random search has no alphas
    for label in dict.fromkeys(s.label for s in searched):
        found = [s for s in searched if s.label == label]
        pairs = [(a, b) for i, a in enumerate(found) for b in found[i + 1 :]]
        if not pairs:
            continue
        choices = [zip(a.architecture.choices, b.architecture.choices, strict=True) for a, b in pairs]
        same = [np.mean([x.operator == y.operator for x, y in pair if x and y]) for pair in choices]
        operators = found[0].architecture.space.operators
        table.append({
            "searches": label, "pairs of seeds": len(pairs), "same operator (% of layers)": round(100 * float(np.mean(same)), 0),
            "by chance (%)": round(100 / operators, 0),
            "entropy at the end": round(float(np.mean([s.epochs["entropy"].iloc[-1] for s in found])), 2),
        })  # fmt: skip
    columns = ["searches", "pairs of seeds", "same operator (% of layers)", "by chance (%)", "entropy at the end"]
    return pd.DataFrame(table, columns=columns).set_index("searches")  # without rows where all searches have one seed


def beta_claims(table: pd.DataFrame, accuracy: Scores, searched: list[Searched]) -> list[dict]:
    """C15, C16 and C17 as comparisons for `claims.verdict_table`; C17, which the paper judges by ranges, by standard deviations."""
    flips = {label: {s.seed: _flips_pct(s) for s in searched if s.label == label} for label in (REMOVED, LEARNED)}
    both = sorted(set(flips[REMOVED]) & set(flips[LEARNED]))
    text, limit = "best operators that change per epoch at the end", 100 * FLIP_RATE
    rows = [
        {"claim": "C15", "comparison": f"{text}, learned minus removed, in % of layers", "seeds": len(both), "decimals": 1,
         "effect": of_few([flips[LEARNED][seed] - flips[REMOVED][seed] for seed in both])},
        {"claim": "C15", "comparison": f"{text}, removed, in % of layers", "seeds": len(both), "decimals": 1,
         "effect": of_few([*flips[REMOVED].values()]), "direction": "<", "threshold": limit},
    ]  # fmt: skip
    theirs = paper.table("table8_beta").groupby("beta")["accuracy_pct"].mean()
    text, weights = "accuracy, removed minus learned, in points", difference(REMOVED, LEARNED)
    rows += against_paper(accuracy, "C16", text, weights, theirs["removed"] - theirs["learned"], 1.0, CLEAN)
    for what, column in (("latency", TABLE_8_MS), ("accuracy", "accuracy (%)")):
        ours = [table.loc[beta][column].dropna() for beta in ("learned", "removed")]
        rows.append({
            "claim": "C17", "comparison": f"standard deviation of {what} over searches, learned over removed",
            "effect": ratio_of_spreads(*ours), "threshold": 1.0, "seeds": min(map(len, ours)), "paper": paper_spreads()[what].mean,
        })  # fmt: skip
    return rows


def paper_spreads() -> dict[str, Interval]:
    """What C17 asks of the searches of the paper's Table 8: the spread of "latency" and "accuracy", learned over removed beta."""
    theirs = paper.table("table8_beta").set_index("beta")
    columns = {"latency": "latency_ms", "accuracy": "accuracy_pct"}
    return {what: ratio_of_spreads(*(theirs.loc[beta, name] for beta in ("learned", "removed"))) for what, name in columns.items()}


def spreads_text() -> str:
    """What the paper's own searches say of C17 by the same rule, in a sentence."""
    parts = " and ".join(f"{found} for {what}" for what, found in paper_spreads().items())
    return f"By the same rule the paper's own searches give, learned over removed, {parts}."


def _flips_pct(searched: Searched) -> float:
    """Best operators that change from one epoch to the next in the last third of the alphas' training, in % of layers."""
    trained = searched.epochs[searched.epochs["alphas_trained"]]
    tail = trained.tail(max(2, int(len(trained) * TAIL)))
    return 100 * float(tail["flips"].mean()) / len(searched.architecture.space.layers)


def figure_6(rows: pd.DataFrame, accuracy: Scores) -> Figure:
    """Accuracy without noise of networks from spaces of 4, 6 and 8 operators against their measured latency."""
    figure, axes = figures.new_figure(7.5, 4.6)
    latency = latencies_ms(rows)
    for i, count in enumerate((4, 6, 8)):
        labels = [operators_label(size, count) for size in TARGETS if operators_label(size, count) in latency]
        levels = [mean_score(accuracy, label, CLEAN) for label in labels]
        _axes_with_bars(axes, [latency[label] for label in labels], levels, i, f"{count} operators")
    axes.set(xlabel=_latency_axis(rows), ylabel="accuracy without noise (%)")
    axes.legend()
    return figures.caption(figure, rows, "Bars: 95% over test images and seeds.")


def _latency_axis(rows: pd.DataFrame) -> str:
    return f"measured latency, batch of {rows['latency_batch'].iloc[0]:.0f} (ms)"


def operator_claims(accuracy: Scores) -> list[dict]:
    """C18: nothing gained by more operators at the small targets; fewer are better at the large one."""
    rows = []
    for size in TARGETS:
        for count in (6, 8):
            weights = difference(operators_label(size, 4), operators_label(size, count))
            asked = {} if size == "L" else dict(direction="about", margin=1.0)
            rows += claim_rows(
                accuracy, "C18", {f"{size}: accuracy, 4 minus {count} operators, in points": weights}, CLEAN, **asked
            )
    counts = {operators_label("L", count): count for count in (4, 6, 8)}
    return rows + trend_rows(accuracy, "C18", "the number of operators with accuracy, L", counts, CLEAN, falls=True)


def figure_7(rows: pd.DataFrame, accuracy: Scores) -> Figure:
    """Accuracy without noise against measured latency: C-NAS M, TF-NAS's settings, random ones, ResNet-18, MobileNetV2."""
    figure, axes = figures.new_figure(7.5, 4.6)
    latency = latencies_ms(rows)
    for i, label in enumerate(latency.index):
        _axes_with_bars(axes, [latency[label]], [mean_score(accuracy, label, CLEAN)], i, label)
    axes.set(xlabel=_latency_axis(rows), ylabel="accuracy without noise (%)")
    axes.legend()
    return figures.caption(figure, rows, "Bars: 95% over test images and seeds.")


def classifier_claims(rows: pd.DataFrame, accuracy: Scores, derived: pd.DataFrame) -> list[dict]:
    """C19 and C20: C-NAS M beside TF-NAS's settings, ResNet-18, MobileNetV2; and its latency beside its target."""
    ours = derived[(derived["label"] == C_NAS) & derived["random_seed"].isna() & (derived["network"] == "C-NAS")]
    found = []
    text = "accuracy, C-NAS M minus"
    found += claim_rows(accuracy, "C19", {f"{text} {TF_NAS}, in points": difference(C_NAS, TF_NAS)}, CLEAN)
    if {C_NAS, TF_NAS} <= set(rows["label"]):
        gap = _latency_gap(rows, C_NAS, TF_NAS)
        found.append({"claim": "C19", "comparison": f"latency, C-NAS M minus {TF_NAS}, in ms", "effect": gap, "direction": "<"})
    found += claim_rows(accuracy, "C19", {f"{text} ResNet-18, in points": difference(C_NAS, "ResNet-18")}, CLEAN)
    about = dict(direction="about", margin=1.0)
    found += claim_rows(accuracy, "C19", {f"{text} MobileNetV2, in points": difference(C_NAS, "MobileNetV2")}, CLEAN, **about)
    for column, text in (("first_error_pct", "before any repair"), ("error_pct", "as derived")):
        if len(ours):
            found.append({
                "claim": "C20", "comparison": f"measured latency against the target, {text}, in %", "direction": "about",
                "margin": 3.0, "effect": of_few(ours[column]), "seeds": len(ours), "paper": 0.0,
            })  # fmt: skip
    return found


def random_table(accuracy: Scores) -> pd.DataFrame:
    """Is searching better than chance? The search's networks minus random ones of the same latency and the same training."""
    parts = {f"{C_NAS} minus random M": (difference(C_NAS, "random M"), CLEAN)}
    parts[f"{TF_NAS} minus random M"] = (difference(TF_NAS, "random M"), CLEAN)
    drawn = "random search M"
    parts |= {f"{a} minus {b}": (difference(a, b), CLEAN) for a, b in ((C_NAS, drawn), (drawn, "random M"))}
    return compare.comparison_table(accuracy, parts, "accuracy without noise, points")


def gradient_table(searched: list[Searched], accuracy: Scores) -> pd.DataFrame:
    """The faithful gradient of the alphas beside the cheaper one: accuracy of what was found, seed by seed."""
    table = {}
    for s in searched:
        if (s.label, s.seed) not in accuracy:
            continue
        key = "two sampled operators" if s.label == TWO_SAMPLED else "all operators"
        level = mean_score({(s.label, s.seed): accuracy[s.label, s.seed]}, s.label, CLEAN)
        table.setdefault(key, {})[f"seed {s.seed} (%)"] = round(level.mean, 1)
        table[key]["verdicts"] = ", ".join(t.verdict for t in searched if t.label == s.label)
    for key, label in {"all operators": C_NAS, "two sampled operators": TWO_SAMPLED}.items():
        level = mean_score(accuracy, label, CLEAN)
        table[key] |= {"mean (%)": round(level.mean, 1), "95% interval": level.bounds(1)}
    frame = pd.DataFrame.from_dict(table, orient="index").rename_axis("gradient of the alphas")
    return frame[[c for c in frame if c.startswith("seed")] + ["mean (%)", "95% interval", "verdicts"]]


# ---- Section 4.2: D-NAS (Table 4)


def manual_label(rows: pd.DataFrame, prefix: str) -> str:
    """The manual network that is about as fast as the searched one: with more channels where there is one, else the reduced one."""
    labels = [label for label in dict.fromkeys(rows["label"]) if label.startswith(f"{prefix} b=") and "d=5" not in label]
    return labels[0] if labels else f"{prefix} Reduced"


def large_label(rows: pd.DataFrame) -> str:
    """The large UNet of these rows; the paper's where it has no results yet."""
    return next((label for label in dict.fromkeys(rows["label"]) if "d=5" in label), "UNet b=64 d=5 m=2")


def table_4(rows: pd.DataFrame, psnr: Scores, ssim: Scores) -> pd.DataFrame:
    """D-NAS and UNets beside the paper's Table 4; ours mean over eleven sigmas, and without sigma 0."""
    table = network_table(rows, {"PSNR (dB)": psnr, "SSIM": ssim})
    table["PSNR without σ = 0 (dB)"] = [round(mean_score(psnr, label, compare.NOISY).mean, 1) for label in table.index]
    names = {"UNet Reduced": "UNet Reduced", "D-NAS S": "D-NAS S"}
    if "b=64" in large_label(rows):  # the paper's; a smaller one is not to be compared with its numbers
        names |= {"D-NAS S upscaled": "D-NAS S upscaled", large_label(rows): "UNet"}
    theirs = paper.table("table4_dnas").set_index("model")
    for column, name in (("latency_ms", "paper: latency (ms)"), ("psnr", "paper: PSNR (dB)"), ("ssim", "paper: SSIM")):
        table[name] = [theirs[column].get(names.get(label)) for label in table.index]
    return table


def denoiser_claims(rows: pd.DataFrame, psnr: Scores, ssim: Scores) -> list[dict]:
    """C21 and C22: D-NAS S beside the UNets, at equal latency and as in the paper; the large ones."""
    theirs, found = paper.table("table4_dnas").set_index("model"), []
    ms, gap = theirs["latency_ms"], theirs.loc["D-NAS S"] - theirs.loc["UNet Reduced"]
    for label in dict.fromkeys(["UNet Reduced", manual_label(rows, "UNet")]):
        weights, text = difference("D-NAS S", label), f"D-NAS S minus {label}"
        found += same_latency_rows(rows, "C21", "D-NAS S", label, (ms["D-NAS S"], ms["UNet Reduced"]))
        found += against_paper(psnr, "C21", f"PSNR, {text}, in dB", weights, gap["psnr"], 0.5)
        found += against_paper(ssim, "C21", f"SSIM, {text}", weights, gap["ssim"], 0.015, decimals=3)
    large = large_label(rows)
    found += same_latency_rows(rows, "C22", "D-NAS S upscaled", large, (ms["D-NAS S upscaled"], ms["UNet"]), 10.0)
    about = dict(direction="about", margin=0.2, paper=theirs["psnr"]["D-NAS S upscaled"] - theirs["psnr"]["UNet"])
    text = f"PSNR, D-NAS S upscaled minus {large}, in dB"
    return found + claim_rows(psnr, "C22", {text: difference("D-NAS S upscaled", large)}, **about)


def latency_quality(rows: pd.DataFrame, scores: Scores, name: str, sigmas: Sequence[float] = SIGMAS) -> Figure:
    """A score of every network against its measured latency."""
    figure, axes = figures.new_figure(8.5, 4.8)
    latency = latencies_ms(rows)
    for i, label in enumerate(latency.index):
        if level := mean_score(scores, label, sigmas):
            _axes_with_bars(axes, [latency[label]], [level], i, label)
    if latency.max() > 4 * latency.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel=_latency_axis(rows), ylabel=name)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    return figures.caption(figure, rows, "Bars: 95% over test images and seeds.")


def curves(rows: pd.DataFrame, labels: Sequence[str], scores: dict[str, Scores], largest: float | None = None) -> Figure:
    """Scores ("PSNR (dB)", ...) of networks against sigma, with 95% bands; with accuracies the `largest` class's share in %."""
    figure, grid = figures.new_figure(4.6 * len(scores) + 0.6, 4.8, 1, len(scores), squeeze=False)
    for axes, (name, of_all) in zip(grid[0], scores.items(), strict=True):
        there = [label for label in labels if any(key[0] == label for key in of_all)]
        for label in there:
            compare.curve(axes, of_all, label, SIGMAS, list(labels).index(label))
        if largest is not None and name == "accuracy (%)":
            axes.axhline(largest, color="0.4", linewidth=1, linestyle="--", label="the largest class, always")
        axes.set(xlabel="noise level σ", ylabel=name, xticks=np.linspace(0, 1, 6))
    handles = {text: h for axes in grid[0] for h, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=3, frameon=False, fontsize=10)
    return figures.caption(figure, rows[rows["label"].isin(labels)], "Bands: 95% over images and seeds.")


# ---- Section 4.3: DC-NAS (Table 5)

PAPER_5 = {  # our label to the paper's row
    "DC-NAS_seq L": "DC-NAS_seq L", "DC-NAS L": "DC-NAS L", "DC-NAS clean M": "DC-NAS_clean M", "DC-NAS noisy M": "DC-NAS_noisy M",
    "DC-NAS noisy M, both losses": "DC-NAS_noisy M (searched on both losses)", "C-NAS noisy M": "C-NAS_noisy M",
    "DC-NAS clean M, mb": "DC-NAS^mb", "DC-NAS clean M, mb 1-op": "DC-NAS^mb_1-op", "DC-NAS clean M, mb 3-lay": "DC-NAS^mb_3-lay",
    "DC-Net Reduced": "DC-Net_reduced", "DC-Net_tail Reduced": "DC-Net_tail", "DC-NAS S": "DC-NAS S",
}  # fmt: skip
GROUP_5 = {label: group for group, labels in enumerate((
    ("DC-NAS_seq L", "DC-NAS L"), ("DC-NAS clean M", "DC-NAS noisy M", "DC-NAS noisy M, both losses"), ("C-NAS noisy M",),
    ("DC-NAS clean M, mb", "DC-NAS clean M, mb 1-op", "DC-NAS clean M, mb 3-lay"),
), 1) for label in labels}  # fmt: skip  # all others: group 5


def table_5(rows: pd.DataFrame, psnr: Scores, ssim: Scores, accuracy: Scores) -> pd.DataFrame:
    """All five groups beside the paper's Table 5; ours mean over eleven sigmas."""
    table = network_table(rows, {"PSNR (dB)": psnr, "SSIM": ssim, "accuracy (%)": accuracy}).drop(columns=["FLOPs (M)"])
    theirs = paper.table("table5_dcnas").set_index("model")
    columns = (("latency_ms", "latency (ms)"), ("psnr", "PSNR (dB)"), ("ssim", "SSIM"), ("accuracy_pct", "accuracy (%)"))
    for column, name in columns:
        table[f"paper: {name}"] = [theirs[column].get(PAPER_5.get(label)) for label in table.index]
    table.insert(0, "group", [GROUP_5.get(label, 5) for label in table.index])
    return table.sort_values("group", kind="stable").set_index("group", append=True).swaplevel()


def joint_claims(rows: pd.DataFrame, psnr: Scores, ssim: Scores, accuracy: Scores) -> list[dict]:
    """C23 to C27 as comparisons for `claims.verdict_table`."""
    about_db, about_points = dict(direction="about", margin=0.2), dict(direction="about", margin=1.0)
    theirs, there = paper.table("table5_dcnas").set_index("model"), set(rows["label"])
    gap = lambda a, b, column: float(theirs[column][PAPER_5[a]] - theirs[column][PAPER_5[b]])  # noqa: E731
    ms = lambda *labels: [theirs["latency_ms"][PAPER_5[label]] for label in labels]  # noqa: E731
    a, b = "DC-NAS L", "DC-NAS_seq L"
    weights, text = difference(a, b), f"{a} minus {b}"
    found = same_latency_rows(rows, "C23", a, b, ms(a, b))
    found += against_paper(psnr, "C23", f"PSNR, {text}, in dB", weights, gap(a, b, "psnr"), 0.25)
    accuracy_gap = dict(paper=gap(a, b, "accuracy_pct"))
    found += claim_rows(accuracy, "C23", {f"accuracy, {text}, in points": weights}, **about_points, **accuracy_gap)
    noisy = "DC-NAS noisy M"
    for other in ("DC-NAS clean M", "DC-NAS noisy M, both losses"):
        weights, text = difference(noisy, other), f"{noisy} minus {other}"
        points, db = (gap(noisy, other, column) for column in ("accuracy_pct", "psnr"))
        found += claim_rows(accuracy, "C24", {f"accuracy, {text}, in points": weights}, paper=points)
        found += claim_rows(psnr, "C24", {f"PSNR, {text}, in dB": weights}, paper=db, **about_db)
    text, alone = f"accuracy, {noisy} minus C-NAS noisy M, in points", "C-NAS noisy M"
    found += against_paper(accuracy, "C25", text, difference(noisy, alone), gap(noisy, alone, "accuracy_pct"), 1.0)
    base = "DC-NAS clean M"
    for kind in ("mb", "mb 1-op", "mb 3-lay"):
        label = f"{base}, {kind}"
        if {label, base} <= there:
            text, asked = f"{kind} decoder minus convolutional", {} if kind == "mb" else about_db
            asked = asked | dict(paper=gap(label, base, "psnr"))
            found += claim_rows(psnr, "C26", {f"PSNR, {text}, in dB": difference(label, base)}, **asked)
            found.append({
                "claim": "C26", "comparison": f"latency, {text}, in ms", "effect": _latency_gap(rows, label, base),
                "paper": gap(label, base, "latency_ms"),
            })  # fmt: skip
    for prefix in ("DC-Net", "DC-Net_tail"):
        reduced = f"{prefix} Reduced"
        for other in dict.fromkeys([reduced, manual_label(rows, prefix)]):
            weights, text = difference("DC-NAS S", other), f"DC-NAS S minus {other}"
            found += same_latency_rows(rows, "C27", "DC-NAS S", other, ms("DC-NAS S", reduced))
            for scores, what, column, half, decimals in (
                (psnr, f"PSNR, {text}, in dB", "psnr", 0.05, 2), (ssim, f"SSIM, {text}", "ssim", 0.005, 3),
                (accuracy, f"accuracy, {text}, in points", "accuracy_pct", 0.05, 1),
            ):  # fmt: skip
                gaps = {name: gap("DC-NAS S", f"{name} Reduced", column) for name in ("DC-Net", "DC-Net_tail")}
                least = round(min(gaps.values()) - half, 3)  # "at least" as printed: half a unit of the last digit may be missing
                asked = dict(threshold=least, decimals=decimals, paper=gaps[prefix])
                found += claim_rows(scores, "C27", {what: weights}, **asked)
    return found


def figure_9(rows: pd.DataFrame, index: int, sigma: float, labels: Sequence[str] = ("DC-Net_tail Reduced", "DC-NAS S")) -> Figure:
    """One test image: clean, noisy, and the outputs of networks of `SHOWN`; below, a part of each enlarged."""
    return pictures_figure(rows, samples(rows, labels), index, sigma)


def pictures_figure(rows: pd.DataFrame, outputs: dict[str, np.ndarray], index: int, sigma: float) -> Figure:
    """One test image: clean, noisy, and the outputs, as `samples` gives them; below, a part of each enlarged."""
    data = images_of_scale(rows["scale"].iloc[0])
    views, _ = evaluation_images(data, "test", int(rows["resolution"].iloc[0]), SAMPLES)
    shown = {"clean": views[index] / 255, "noisy": bank_noisy(views)(range(index, index + 1), sigma)[0]}
    pictures = {name: image.permute(1, 2, 0).numpy().clip(0, 1) for name, image in shown.items()}
    for label, images in outputs.items():
        pictures[label] = images[SAMPLE_SIGMAS.index(sigma), index].transpose(1, 2, 0) / 255
    figure, grid = figures.new_figure(min(13, 3 * len(pictures)), 5.6 if len(pictures) < 5 else 4.4, 2, len(pictures))
    side = views.shape[-1]
    corner, zoom = side // 4, side // 3
    for axes, below, letter, (name, image) in zip(*grid, "abcdefghij", pictures.items(), strict=False):
        figures.picture(axes, image, f"{letter}: {name}".replace(", ", ",\n"))
        figures.square(axes, corner, corner, zoom, "red")
        figures.picture(below, image[corner : corner + zoom, corner : corner + zoom])
    of_seed_0 = rows[rows["label"].isin([*pictures]) & (rows["seed"] == 0)]
    return figures.caption(figure, of_seed_0 if len(of_seed_0) else rows, f"Test image {index}, σ = {sigma:g}.")


# ---- derivations


def derivation_table(derived: pd.DataFrame) -> pd.DataFrame:
    """Target, prediction and measurement of every derived network; `error` is of a measurement made anew after the repairs."""
    names = [
        (row.label if pd.isna(row.random_seed) else f"{row.label} {row.random_seed:.0f}") + f", seed {row.seed}, as {row.network}"
        for row in derived.itertuples()
    ]
    columns = {
        "target_ms": "target (ms)", "first_error_pct": "error before repair (%)", "repairs": "repairs",
        "predicted_ms": "table (ms)", "measured_ms": "measured (ms)", "noise_ms": "95% noise (± ms)", "error_pct": "error (%)",
    }  # fmt: skip
    return derived[list(columns)].rename(columns=columns).set_index(pd.Index(names, name="network")).round(2)


def derivation_text(derived: pd.DataFrame, limit_pct: float = 3.0) -> str:
    """How close derived networks come to their targets."""
    error, first = derived["error_pct"].abs(), derived["first_error_pct"].abs()
    return (
        f"As the table predicts them, {(first <= limit_pct).sum()} of {len(first)} networks are within {limit_pct:g}% of their "
        f"target when measured; after repairs of {(derived['repairs'] > 0).sum()} of them and a new measurement, "
        f"{(error <= limit_pct).sum()} are (median error {error.median():.2f}%, largest {error.max():.2f}%)."
    )


def effect_text(scores: Scores, a: str, b: str, unit: str, sigmas: Sequence[float] = SIGMAS) -> str:
    """One sentence: how much `a` is above `b`, with its interval."""
    found = contrast(scores, difference(a, b), sigmas)
    if not found:
        return f"{a} and {b} share no seed."
    effect, seeds = found
    return f"{a} minus {b}: {effect.mean:+.2f} {unit} ({effect.bounds()}), {compare.plural(seeds, 'seed')}."
