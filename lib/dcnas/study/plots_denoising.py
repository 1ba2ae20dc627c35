"""Figures, tables and judgements of notebooks 03_2 (the UNet study, Section 3.2) and 03_3 (DC-Net, Section 3.3).

Every comparison is a weighted sum of networks (`contrast`) on the same images and the same noise, so that its interval is paired.
`scores` is what `results.per_image(rows, metric)` gives: (label, seed) to an array (11 sigmas, N images, ...). A network that has
no results yet is left out of figures, and the comparisons that need it are left out of tables.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter, ScalarFormatter

from ..boxes import BOX_SIZE
from ..data.noise import SIGMAS
from ..data.two_digits import cached
from ..errors import InputError, require_choice, require_whole
from ..models import UNETS, unet_widths
from ..training import evaluate
from . import experiments as lists
from . import figures, paper, timing
from .claims import latency_difference
from .results import missing_labels, per_image, results, samples
from .runs import SAMPLE_SIGMAS, SAMPLES, bank_noisy
from .scales import scale_named
from .stats import DRAWS, LEVEL, Interval, bootstrap, over_sigmas

NOISY = tuple(s for s in SIGMAS if s > 0)
LETTERS = {"b": "a", "d": "b", "c": "c", "m": "d"}  # of the panels in the paper's Figure 3
MEANING = {"b": "base width b", "d": "depth d", "c": "blocks per level c", "m": "multiplier m"}
SMALL_DB = 0.2  # our reading of "retains the performance" and "the difference is small"; the paper gives no number
ABOUT = 1.0  # dB or points: our reading of "by 5.7 dB" and "about 1.5 points"
TREND_RHO = 0.8  # our reading of "the same trend"
LEAST_GAIN_DB = 8.0  # over the noisy input at sigma 0.4: less means that a network has not learned to denoise

Scores = dict[tuple[str, int], np.ndarray]
Weights = dict[str, float]


def label_of(block: str = "conv", **unet) -> str:
    """The label of a UNet in results, from its hyper-parameters b, d, m, c."""
    return lists.denoiser(scale_named("paper"), 0, **unet, block=block).label


BASELINE, REDUCED = (label_of(**UNETS[size]) for size in ("baseline", "reduced"))
DCNETS = {(size, joining): f"DC-Net {size.capitalize()} {joining.capitalize()}" for size in UNETS for joining in lists.JOINING}


# ---- what is shown, and how it was trained


def gather(groups: Sequence[str], scale: str, device: str = "cpu") -> pd.DataFrame:
    """The rows of several groups, each run once, all of the scale of the first group: budgets are never mixed."""
    frames = [results(groups[0], scale, device=device)]
    for group in groups[1:]:
        try:
            frames.append(results(group, scale, device=device))
        except InputError:
            if scale != "published":  # there a group may not be published yet
                raise
    rows = pd.concat(frames, ignore_index=True).drop_duplicates(["run", "sigma"])
    return rows[rows["scale"] == frames[0]["scale"].iloc[0]].reset_index(drop=True)


def training_text(rows: pd.DataFrame, group: str) -> str:
    """How long the networks trained against the paper's, how many seeds each has, and which are missing."""
    full, (images, *others) = scale_named("paper").denoise.images, sorted(rows["images"].unique())
    least = "" if not others else "at least "
    text = (
        f"These results are of scale `{rows['scale'].iloc[0]}`: each network saw {least}{images:,} training images, "
        f"{100 * images / full:.2g}% of the paper's {full:,}. "
    )
    if images < full:
        text += "So absolute values are expected to fall short of the paper's; comparisons between networks are fair. "
    seeds = rows.groupby("label", sort=False)["seed"].nunique()
    few = seeds[seeds < seeds.max()]
    text += f"Every network has {_plural(seeds.max(), 'seed')}"
    text += f", except these with {few.min()}: {'; '.join(few.index)}." if len(few) else "."
    if seeds.min() == 1:
        text += " No claim is judged on one seed: its verdict is undecided, whatever the interval over images."
    if missing := missing_labels(group, rows):
        text += f" Not there yet: {'; '.join(missing)}."
    return text


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@lru_cache(maxsize=4)
def noisy_input(images: int, clip: bool = False) -> dict[str, np.ndarray]:
    """PSNR and SSIM, "psnr" and "ssim" (11, images), of the noisy test images themselves, with the noise that every model meets."""
    data = cached("test", images)
    found = evaluate(lambda noisy, _: (noisy, None), data.images, data.boxes, data.labels, bank_noisy(data, clip), SIGMAS)
    return {name: values.numpy() for name, values in found.items()}


def with_noisy_input(scores: Scores, metric: str) -> Scores:
    """`scores` with one more network, "noisy input", under every seed, so that it pairs with any other."""
    seeds = {seed for _, seed in scores}
    noisy = noisy_input(next(iter(scores.values())).shape[1])[metric]
    return scores | {("noisy input", seed): noisy for seed in seeds}


# ---- paired comparisons


def contrast(scores: Scores, weights: Weights, sigmas: Sequence[float]) -> tuple[Interval, int] | None:
    """The weighted sum of networks' scores, with its interval over images and shared seeds, and the number of those seeds.

    None if a network has no results or they share no seed.
    """
    found = {
        label: {seed: over_sigmas(array, sigmas) for (name, seed), array in scores.items() if name == label} for label in weights
    }
    shared = sorted(set.intersection(*map(set, found.values())))
    if not shared:
        return None
    count = min(len(values) for by_seed in found.values() for values in by_seed.values())
    sums = {seed: sum(w * found[label][seed][:count] for label, w in weights.items()) for seed in shared}
    return bootstrap(sums), len(shared)


def difference(a: str, b: str) -> Weights:
    """Network a minus network b."""
    return {a: 1.0, b: -1.0}


def at_equal_flops(flops: dict[str, float], line: Sequence[str], label: str) -> Weights | None:
    """`label` minus the networks of `line`, interpolated over log FLOPs to the FLOPs of `label`; None if it lies beyond them."""
    if label not in flops:
        return None
    for left, right in zip(line, line[1:]):
        if left in flops and right in flops and flops[left] <= flops[label] <= flops[right]:
            t = np.log(flops[label] / flops[left]) / np.log(flops[right] / flops[left])
            return {left: t - 1, right: -t, label: 1.0}
    return None


def _sum(parts: dict, factors: dict) -> Weights | None:
    """The sum of several weighted sums, each times its factor; None if one of them cannot be made."""
    total: Weights = {}
    for key, weights in parts.items():
        if weights is None:
            return None
        for label, weight in weights.items():
            total[label] = total.get(label, 0.0) + weight * factors[key]
    return total


def best_seeded(scores: Scores, parts: dict[int, Weights | None], sigma: float) -> tuple[list[int], Weights | None]:
    """Of comparisons by b, the b whose networks share most seeds, and the mean comparison over those."""
    seeds = {b: found[1] for b, weights in parts.items() if weights and (found := contrast(scores, weights, [sigma]))}
    kept = [b for b, count in seeds.items() if count == max(seeds.values())]
    return kept, _sum({b: parts[b] for b in kept}, dict.fromkeys(kept, 1 / len(kept))) if kept else None


def _claim(scores: Scores, claim: str, comparison: str, weights: Weights | None, sigmas: Sequence[float], **asked) -> list[dict]:
    """A row for `claims.verdict_table`, or none if the comparison cannot be made."""
    found = weights and contrast(scores, weights, sigmas)
    if not found:
        return []
    return [{"claim": claim, "comparison": comparison, "effect": found[0], "seeds": found[1]} | asked]


def _flops(rows: pd.DataFrame) -> dict[str, float]:
    return rows.groupby("label", sort=False)["flops"].first().to_dict()


def comparison_table(scores: Scores, parts: dict[str, Weights | None], sigmas: Sequence[float], decimals: int = 2) -> pd.DataFrame:
    """A row per comparison that can be made: effect, 95% interval, seeds, and which side of zero the interval is on."""
    table = []
    for name, weights in parts.items():
        if found := weights and contrast(scores, weights, sigmas):
            effect, seeds = found
            side = "above 0" if effect.low > 0 else "below 0" if effect.high < 0 else "includes 0"
            table.append({"comparison": name, **_effect_cells(effect, decimals), "seeds": seeds, "interval is": side})
    columns = ["comparison", "effect", "95% interval", "seeds", "interval is"]
    return pd.DataFrame(table, columns=columns).set_index("comparison")


def _effect_cells(effect: Interval, decimals: int) -> dict:
    return {"effect": round(effect.mean, decimals), "95% interval": f"{effect.low:.{decimals}f} to {effect.high:.{decimals}f}"}


# ---- Figure 3


def _lines(panel: str, unets: list[dict]) -> dict[str, list[dict]]:
    """The lines of a panel: one for b and m, one for each b where d or c changes."""
    if panel in "bm":
        return {"": unets}
    return {f"b={b}": [unet for unet in unets if unet["b"] == b] for b in dict.fromkeys(unet["b"] for unet in unets)}


def _summary(rows: pd.DataFrame, sigma: float) -> pd.DataFrame:
    """FLOPs, mean PSNR over seeds and its standard deviation by label, at one sigma."""
    at = rows[np.isclose(rows["sigma"], sigma)]
    return at.groupby("label", sort=False).agg(flops=("flops", "first"), psnr=("psnr", "mean"), spread=("psnr", "std"))


def _draw_line(axes, rows: pd.DataFrame, sigma: float, unets: list[dict], panel: str, block: str, style: dict) -> None:
    """Seeds as small points, their means as a line with error bars of a standard deviation, and the values of the parameter."""
    table = _summary(rows, sigma)
    values = {label_of(block, **unet): unet[panel] for unet in unets}
    table = table.loc[[label for label in values if label in table.index]]
    if table.empty:
        return
    seeds = rows[np.isclose(rows["sigma"], sigma) & rows["label"].isin(table.index)]
    axes.plot(seeds["flops"] / 1e6, seeds["psnr"], ".", color=style["color"], alpha=0.45, markersize=6)
    spread = table["spread"] if table["spread"].notna().any() else None
    axes.errorbar(table["flops"] / 1e6, table["psnr"], yerr=spread, capsize=3, linewidth=1.8, markersize=7, **style)
    place = (-9, 6) if block == "conv" else (9, -14)  # beside the point, where a twin's number cannot be
    for label, row in table.iterrows():
        axes.annotate(
            f"{values[label]:g}", (row["flops"] / 1e6, row["psnr"]), xytext=place, textcoords="offset points",
            ha="center", fontsize=10, color=style["color"],
        )  # fmt: skip


def _style(i: int, block: str = "conv", label: str = "") -> dict:
    look = dict(color=figures.PALETTE[i], marker=figures.MARKERS[i], linestyle=figures.LINES[i], label=label)
    return look if block == "conv" else look | dict(linestyle="--", markerfacecolor="white")


def _log_flops(axes) -> None:
    """A logarithmic axis with plain numbers, more of them where it spans less than a decade."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    steps = (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)
    axes.set_xticks([t for power in (10, 100, 1000) for t in (power * step for step in steps) if low <= t <= high])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(y=0.16)


def _draw_panel(axes, rows: pd.DataFrame, panel: str, sigma: float) -> None:
    """One panel of Figure 3, with the paper's Table 2 networks as stars where it has them."""
    for i, (name, unets) in enumerate(_lines(panel, lists.FIGURE_3[panel]).items()):
        _draw_line(axes, rows, sigma, unets, panel, "conv", _style(i, label=name or "ours"))
    column = f"sigma_{sigma:g}" if sigma < 1 else "sigma_1.0"
    published = paper.table("table2_unet").query("metric == 'PSNR'")
    if column in published and panel in "bm":
        model = published[published["b"] == (32 if panel == "b" else 8)].iloc[0]
        axes.plot(
            model["flops_m"], model[column], "*", markersize=14, color="black", markerfacecolor="none", label="paper, Table 2"
        )  # fmt: skip
    _log_flops(axes)
    axes.set_title(f"{LETTERS[panel]}: {MEANING[panel]}")
    axes.legend(fontsize=10, frameon=False)


def _label_axes(figure: Figure, grid: np.ndarray, sigma: float) -> None:
    for axes in np.atleast_2d(grid)[-1]:
        axes.set_xlabel("FLOPs (M)")
    for axes in np.atleast_2d(grid)[:, 0]:
        axes.set_ylabel(f"PSNR at σ = {sigma:g} (dB)")


BARS = "Small points: seeds; line: their mean; bars: a standard deviation over seeds."


def figure_3_panel(rows: pd.DataFrame, panel: str, sigma: float) -> Figure:
    """Figure 3 a, b, c or d: PSNR against FLOPs while `panel` ("b", "d", "c" or "m") changes."""
    require_choice("panel", panel, LETTERS)
    figure, axes = figures.new_figure(6.4, 4.4)
    _draw_panel(axes, rows, panel, sigma)
    _label_axes(figure, np.array([[axes]]), sigma)
    return figures.caption(figure, _of_panels(rows, [panel]), BARS)


def _of_panels(rows: pd.DataFrame, panels: Iterable[str]) -> pd.DataFrame:
    labels = {label_of(**unet) for panel in panels for unet in lists.FIGURE_3[panel]}
    return rows[rows["label"].isin(labels)]


def figure_3(rows: pd.DataFrame, sigma: float) -> Figure:
    """All four panels of Figure 3."""
    figure, grid = figures.new_figure(11, 8, 2, 2, sharey=True)
    for axes, panel in zip(grid.flat, LETTERS):
        _draw_panel(axes, rows, panel, sigma)
    _label_axes(figure, grid, sigma)
    return figures.caption(figure, _of_panels(rows, LETTERS), BARS)


def figure_3_text(rows: pd.DataFrame, scores: Scores, panel: str, sigma: float) -> str:
    """What a panel shows: the PSNR of each network on it, line by line."""
    table = _summary(rows, sigma)
    sentences = []
    for name, unets in _lines(panel, lists.FIGURE_3[panel]).items():
        known = {label_of(**unet): unet[panel] for unet in unets if label_of(**unet) in table.index}
        values = ", ".join(f"{table['psnr'][label]:.2f} dB at {panel}={value:g}" for label, value in known.items())
        steps = [contrast(scores, difference(b, a), [sigma])[0] for a, b in zip(known, list(known)[1:])]
        growing = sum(step.low > 0 for step in steps)
        sentences.append(f"- {name + ': ' if name else ''}{values}; a sure gain in {growing} of {_plural(len(steps), 'step')}.")
    head = f"PSNR at σ = {sigma:g} as {MEANING[panel]} grows (a step is a sure gain if the whole paired 95% interval is above 0):"
    return head + "\n\n" + "\n".join(sentences)


def scaling_table(rows: pd.DataFrame, scores: Scores, sigma: float) -> pd.DataFrame:
    """Which parameter scales down best: each network of Figure 3 minus the b line (d=4, m=2, c=2) at equal FLOPs, in dB."""
    flops, line = _flops(rows), _b_line()
    others = [unet for panel in "dcm" for unet in lists.FIGURE_3[panel] if label_of(**unet) not in line]
    names = {label_of(**unet): unet for unet in others}
    return comparison_table(scores, {name: at_equal_flops(flops, line, name) for name in names}, [sigma])


def _b_line(block: str = "conv") -> list[str]:
    panels = lists.FIGURE_3 if block == "conv" else lists.MBCONV
    return [label_of(block, **unet) for unet in panels["b"]]


# ---- do the other sigmas show the same trend?


def _resampled(scores: Scores, labels: Sequence[str], sigma: float, seed: int = 0) -> np.ndarray:
    """Mean scores over seeds and images (labels, 1 + draws): the plain ones first, then with resampled images."""
    by_label = [np.mean([over_sigmas(a, [sigma]) for (name, _), a in scores.items() if name == label], 0) for label in labels]
    matrix = np.stack(by_label)
    images = matrix.shape[1]
    weights = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=DRAWS) / images
    return np.concatenate([matrix.mean(1, keepdims=True), matrix @ weights.T], 1)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> Interval:
    """Spearman's rank correlation down the rows of `_resampled` arrays, with its interval over resampled images."""
    ranks = [np.argsort(np.argsort(x, axis=0), axis=0).astype(float) for x in (a, b)]
    ranks = [r - r.mean(0) for r in ranks]
    norm = np.sqrt((ranks[0] ** 2).sum(0) * (ranks[1] ** 2).sum(0))
    found = (ranks[0] * ranks[1]).sum(0) / norm
    low, high = np.quantile(found[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(found[0]), float(low), float(high))


def trend_intervals(rows: pd.DataFrame, scores: Scores, sigma: float) -> dict[float, Interval]:
    """Rank correlation across the networks of Figure 3 between their PSNR at `sigma` and at each other sigma."""
    labels = list(dict.fromkeys(_of_panels(rows, LETTERS)["label"]))
    here = _resampled(scores, labels, sigma)
    return {other: rank_correlation(here, _resampled(scores, labels, other)) for other in SIGMAS if other != sigma}


def trend_table(rows: pd.DataFrame, scores: Scores, sigma: float) -> pd.DataFrame:
    """`trend_intervals` as a table, with whether the interval lies above `TREND_RHO`."""
    found = trend_intervals(rows, scores, sigma)
    table = [
        {"sigma": other, "rank correlation": round(rho.mean, 2), "95% interval": f"{rho.low:.2f} to {rho.high:.2f}",
         "same trend": "yes" if rho.low > TREND_RHO else "no" if rho.high < TREND_RHO else "undecided"}
        for other, rho in found.items()
    ]  # fmt: skip
    return pd.DataFrame(table).set_index("sigma")


def trend_text(table: pd.DataFrame, sigma: float) -> str:
    """The sentence "the other results show the same trend", tested."""
    lowest = table["rank correlation"].idxmin()
    counts = table["same trend"].value_counts()
    return (
        f"Against σ = {sigma:g} the order of the networks is the same (whole interval of the rank correlation above {TREND_RHO:g}) "
        f"at {counts.get('yes', 0)} of {len(table)} other noise levels, undecided at {counts.get('undecided', 0)} and another at "
        f"{counts.get('no', 0)}. The correlation is lowest at σ = {lowest:g}: {table['rank correlation'][lowest]:.2f} "
        f"({table['95% interval'][lowest]})."
    )


def other_sigmas(rows: pd.DataFrame, scores: Scores, sigma: float) -> Figure:
    """Figure 3 at every other noise level: all networks, by which parameter differs from the b line."""
    rho = trend_intervals(rows, scores, sigma)
    figure, grid = figures.new_figure(13, 6.6, 2, 5, sharex=True)
    for axes, other in zip(grid.flat, rho):
        table = _summary(rows, other)
        for i, panel in enumerate("dcmb"):
            labels = [label_of(**unet) for unet in lists.FIGURE_3[panel]]
            part = table.loc[[x for x in labels if x in table.index and (panel == "b" or x not in _b_line())]]
            axes.plot(
                part["flops"] / 1e6, part["psnr"], marker=figures.MARKERS[i], color=figures.PALETTE[(i + 1) % 4],
                linestyle="-" if panel == "b" else "", markersize=6, label=MEANING[panel],
            )  # fmt: skip
        _log_flops(axes)
        axes.set_xticks([20, 200, 2000])
        axes.set_title(f"σ = {other:g}   ρ = {rho[other].mean:.2f}")
    for axes in grid[-1]:
        axes.set_xlabel("FLOPs (M)")
    for axes in grid[:, 0]:
        axes.set_ylabel("PSNR (dB)")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=11)
    return figures.caption(figure, _of_panels(rows, LETTERS), f"ρ: rank correlation of the networks with σ = {sigma:g}.")


# ---- Table 2


def table_2_flops(rows: pd.DataFrame) -> pd.DataFrame:
    """FLOPs of the two UNets beside the paper's, to its last printed digit; counted, not measured."""
    flops = _flops(rows)
    names = {"UNet Baseline": BASELINE, "UNet Reduced": REDUCED}
    theirs = paper.table("table2_unet").groupby("model")["flops_m"].first().to_dict()
    table = paper.beside({name: flops[label] / 1e6 for name, label in names.items()}, theirs, 1, exact=True)
    widths = {name: ", ".join(map(str, unet_widths(u["b"], u["d"], u["m"]))) for name, u in zip(names, UNETS.values())}
    table.insert(0, "widths", pd.Series(widths))
    return table.rename_axis("FLOPs (M)")


def table_2_quality(psnr: Scores, ssim: Scores) -> pd.DataFrame:
    """PSNR and SSIM of the two UNets at the paper's four noise levels, beside the paper's."""
    parts = []
    for metric, scores, decimals in (("PSNR", psnr, 1), ("SSIM", ssim, 2)):
        for model, label in {"UNet Baseline": BASELINE, "UNet Reduced": REDUCED}.items():
            row = paper.table("table2_unet").query("model == @model and metric == @metric").iloc[0]
            theirs = {f"{float(c.removeprefix('sigma_')):.1f}": row[c] for c in row.index if c.startswith("sigma_")}
            ours = {s: found[0] for s in theirs if (found := contrast(scores, {label: 1.0}, [float(s)]))}
            parts.append(pd.concat({(metric, model): paper.beside(ours, theirs, decimals)}, names=["metric", "model"]))
    return pd.concat(parts).rename_axis(index={"network": "sigma"})


def verdicts_text(table: pd.DataFrame, what: str) -> str:
    """How many rows of a `paper.beside` table match, and the largest difference."""
    worst = table["difference"].abs().idxmax()
    name = ", ".join(map(str, worst)) if isinstance(worst, tuple) else worst
    matches = (table["verdict"] == "match").sum()
    return (
        f"{matches} of {len(table)} values of {what} match the paper's; the largest difference is "
        f"{table['difference'][worst]:+g} ({name})."
    )


def latency_table(paper_ms: dict[str, float]) -> pd.DataFrame:
    """Our latencies beside the paper's, by label; empty if none are published."""
    try:
        big, one = timing.latencies(32), timing.latencies(1)
    except InputError:
        return pd.DataFrame()
    table = [
        {"network": label, "batch 32 (ms)": round(big["median_ms"][label], 2), "quartiles (ms)": _quartiles(big.loc[label]),
         "batch 1 (ms)": round(one["median_ms"][label], 3), "paper, batch 32 (ms)": theirs,
         "device": f"{big['device'][label]}, {_plural(int(big['threads'][label]), 'thread')}"}
        for label, theirs in paper_ms.items() if label in big.index and label in one.index
    ]  # fmt: skip
    return pd.DataFrame(table).set_index("network") if table else pd.DataFrame()


def _quartiles(row: pd.Series) -> str:
    return f"{row['q25_ms']:.2f} to {row['q75_ms']:.2f}"


def latency_text(table: pd.DataFrame, slow: str, fast: str) -> str:
    """How many times `slow` takes as long as `fast`, here and in the paper: what two devices have in common."""
    if table.empty or not {slow, fast} <= set(table.index):
        return "No latencies are published for these networks yet; `dcnas latency` measures them on this machine."
    columns = ("batch 32 (ms)", "batch 1 (ms)", "paper, batch 32 (ms)")
    ours, single, theirs = (table[column][slow] / table[column][fast] for column in columns)
    return (
        f"On {table['device'].iloc[0]}, {slow} takes {ours:.2f} times as long as {fast} at batch 32 and {single:.2f} times at "
        f"batch 1; on the paper's device {theirs:.2f} times. Milliseconds of two devices are not comparable, ratios are."
    )


def table_2_latency() -> pd.DataFrame:
    """Latencies of the two UNets."""
    theirs = paper.table("table2_unet").groupby("model")["latency_ms"].first()
    return latency_table({BASELINE: theirs["UNet Baseline"], REDUCED: theirs["UNet Reduced"]})


def loss_table(scores: Scores) -> pd.DataFrame:
    """What reducing the UNet costs: baseline minus reduced, in dB, at each noise level."""
    parts = [comparison_table(scores, {f"{s:g}": difference(BASELINE, REDUCED)}, [s]) for s in SIGMAS]
    return pd.concat(parts).rename_axis("sigma")


def gain_table(scores: Scores) -> pd.DataFrame:
    """PSNR of the noisy input and what each UNet adds to it, in dB, at each noise level above 0 (there it has no error)."""
    scores = with_noisy_input(scores, "psnr")
    table = []
    for sigma in NOISY:
        row = {"sigma": sigma, "noisy input (dB)": round(contrast(scores, {"noisy input": 1.0}, [sigma])[0].mean, 2)}
        for name, label in {"baseline": BASELINE, "reduced": REDUCED}.items():
            if found := contrast(scores, difference(label, "noisy input"), [sigma]):
                row[f"{name} gains (dB)"] = str(found[0])
        table.append(row)
    return pd.DataFrame(table).set_index("sigma")


def gain_text(scores: Scores) -> str:
    """The check that both UNets denoise: their gain at sigma 0.4."""
    scores = with_noisy_input(scores, "psnr")
    parts, passed = [], True
    for name, label in {"baseline": BASELINE, "reduced": REDUCED}.items():
        if found := contrast(scores, difference(label, "noisy input"), [0.4]):
            parts.append(f"the {name} UNet {found[0]} dB")
            passed &= found[0].mean >= LEAST_GAIN_DB
    word = "passed" if passed else "**not passed**"
    return f"Over the noisy input at σ = 0.4 {' and '.join(parts)}; the check of at least {LEAST_GAIN_DB:g} dB is {word}."


# ---- pictures


def _shown(rows: pd.DataFrame, index: int, sigma: float | None = None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A clean test image and label to its outputs (sigmas, 96, 96), all in [0, 1]; checks index and sigma."""
    require_whole("sample", index, 0)
    require_choice("sample", index, range(SAMPLES))
    if sigma is not None:
        require_choice("sigma of the sample", sigma, SAMPLE_SIGMAS)
    outputs = {label: tensor[:, index, 0].numpy() / 255 for label, tensor in samples(rows).items()}
    return cached("test", SAMPLES).images[index, 0].numpy() / 255, outputs


def _noisy_sample(index: int, sigma: float) -> np.ndarray:
    return bank_noisy(cached("test", SAMPLES), False)(range(index, index + 1), sigma)[0, 0].numpy()


def _picture(axes, image: np.ndarray, title: str = "", limits=(0, 1), cmap="gray"):
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    if title:
        axes.set_title(title)
    return axes.imshow(image, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest")


def sample_images(rows: pd.DataFrame, index: int) -> Figure:
    """Clean, noisy, denoised and residual (denoised minus clean) of both UNets, a row per noise level."""
    clean, outputs = _shown(rows, index)
    figure, grid = figures.new_figure(12, 8, 4, 6)
    names = {"reduced": REDUCED, "baseline": BASELINE}
    for row, sigma in zip(grid, SAMPLE_SIGMAS[1:]):
        top = sigma == SAMPLE_SIGMAS[1]
        _picture(row[0], clean, "clean" if top else "")
        _picture(row[1], _noisy_sample(index, sigma), "noisy" if top else "")
        row[0].set_ylabel(f"σ = {sigma:g}", fontsize=12)
        for (name, label), pair in zip(names.items(), (row[2:4], row[4:6])):
            denoised = outputs[label][SAMPLE_SIGMAS.index(sigma)]
            _picture(pair[0], denoised, name if top else "")
            residual = _picture(pair[1], denoised - clean, "residual" if top else "", (-0.5, 0.5), "RdBu_r")
    bar = figure.colorbar(residual, ax=grid[:, -1], shrink=0.6)
    bar.set_label("denoised minus clean (grey value, 0 to 1)")
    shown = rows[rows["label"].isin(names.values()) & (rows["seed"] == 0)]
    return figures.caption(figure, shown, f"Test image {index}.")


# ---- the MBConv repeat


def _mb(**unet) -> str:
    return label_of("mbconv", **unet)


def mbconv_figure(rows: pd.DataFrame, sigma: float) -> Figure:
    """The four panels again: Conv UNets (solid) and MBConv UNets (dashed, hollow) that have an MBConv twin."""
    figure, grid = figures.new_figure(11, 8, 2, 2, sharey=True)
    for axes, panel in zip(grid.flat, LETTERS):
        for i, block in enumerate(("conv", "mbconv")):
            name = {"conv": "Conv", "mbconv": "MBConv"}[block]
            _draw_line(axes, rows, sigma, lists.MBCONV[panel], panel, block, _style(i, block, name))
        _log_flops(axes)
        axes.set_title(f"{LETTERS[panel]}: {MEANING[panel]}")
        axes.legend(fontsize=10, frameon=False)
    _label_axes(figure, grid, sigma)
    unets = [unet for unets in lists.MBCONV.values() for unet in unets]
    labels = {label_of(block, **unet) for unet in unets for block in ("conv", "mbconv")}
    return figures.caption(figure, rows[rows["label"].isin(labels)], BARS)


def mbconv_table(rows: pd.DataFrame, scores: Scores, sigma: float) -> pd.DataFrame:
    """Conv minus MBConv in dB: with the same hyper-parameters, and at equal FLOPs (the Conv b line, interpolated)."""
    flops = _flops(rows)
    unets = {tuple(u.items()): u for unets in lists.MBCONV.values() for u in unets}.values()
    table = {}
    for how in ("same hyper-parameters", "equal FLOPs"):
        for unet in unets:
            conv, mb = label_of(**unet), _mb(**unet)
            weights = difference(conv, mb) if how.startswith("same") else _minus(at_equal_flops(flops, _b_line(), mb))
            table[how, conv.removeprefix("UNet ")] = weights
    found = comparison_table(scores, {f"{how}: {name}": w for (how, name), w in table.items()}, [sigma])
    return found.rename_axis("Conv minus MBConv (dB)")


def _minus(weights: Weights | None) -> Weights | None:
    return _sum({0: weights}, {0: -1.0})


# ---- claims of Section 3.2


def unet_claims(rows: pd.DataFrame, scores: Scores, sigma: float) -> list[dict]:
    """C06 to C11 as comparisons for `claims.verdict_table`."""
    parts = (_claims_b, _claims_d, _claims_c, _claims_m)
    found = [row for part in parts for row in part(rows, scores, sigma)]
    return found + _claims_reduced(rows, scores) + _claims_mbconv(rows, scores, sigma)


def _claims_b(rows: pd.DataFrame, scores: Scores, sigma: float) -> list[dict]:
    line = _b_line()
    found = []
    for unet, small, large in zip(lists.FIGURE_3["b"], line, line[1:]):
        if large != line[-1]:
            text = f"gain in dB from b={unet['b']} to b={2 * unet['b']}"
            found += _claim(scores, "C06", text, difference(large, small), [sigma])
    fall = {line[1]: 2.0, line[0]: -1.0, line[2]: -1.0}
    found += _claim(scores, "C06", "gain in dB from b=4 to b=8 minus that from b=8 to b=16", fall, [sigma])
    last = difference(line[-1], line[-2])
    return found + _claim(scores, "C06", "gain in dB from b=32 to b=64", last, [sigma], threshold=SMALL_DB, direction="<")


def _claims_d(rows: pd.DataFrame, scores: Scores, sigma: float) -> list[dict]:
    flops, line = _flops(rows), _b_line()
    above = {(b, d): at_equal_flops(flops, line, label_of(b=b, d=d, m=2, c=2)) for b in (8, 16, 32) for d in (2, 3, 5)}
    tests = {  # weights of d=2, 3 and 5, each relative to the b line, where d=4 is 0
        "b scaled down instead of d (to 3 and 2)": {2: -0.5, 3: -0.5},
        "d=4 minus d=5": {5: -1.0}, "d=3 minus d=2": {3: 1.0, 2: -1.0},
    }  # fmt: skip
    found = []
    for text, signs in tests.items():
        parts = {b: _sum({d: above[b, d] for d in signs}, signs) for b in (8, 16, 32)}
        kept, weights = best_seeded(scores, parts, sigma)
        text = f"{text}, dB at equal FLOPs, mean over b={', '.join(map(str, kept))}"
        found += _claim(scores, "C07", text, weights, [sigma])
    return found


def _claims_c(rows: pd.DataFrame, scores: Scores, sigma: float) -> list[dict]:
    pairs = {b: [label_of(b=b, d=4, m=2, c=c) for c in (1, 2)] for b in (8, 16, 32, 64)}
    kept, weights = best_seeded(scores, {b: difference(two, one) for b, (one, two) in pairs.items()}, sigma)
    found = _claim(scores, "C08", f"c=2 minus c=1 in dB, mean over b={', '.join(map(str, kept))}", weights, [sigma])
    equal = {b: _minus(at_equal_flops(_flops(rows), _b_line(), one)) for b, (one, _) in pairs.items()}
    kept, weights = best_seeded(scores, equal, sigma)
    text = f"c=2 minus c=1 in dB at equal FLOPs, mean over b={', '.join(map(str, kept))}"
    return found + _claim(scores, "C08", text, weights, [sigma])


def _claims_m(rows: pd.DataFrame, scores: Scores, sigma: float, block: str = "conv", claim: str = "C09") -> list[dict]:
    name = "" if block == "conv" else "MBConv: "
    one, middle, two = [label_of(block, **unet) for unet in lists.FIGURE_3["m"]]
    keeps, loses = difference(two, middle), difference(two, one)
    found = _claim(scores, claim, f"{name}m=2 minus m=1.5 in dB at b=8", keeps, [sigma], threshold=SMALL_DB, direction="<")
    return found + _claim(scores, claim, f"{name}m=2 minus m=1 in dB at b=8", loses, [sigma], threshold=SMALL_DB)


def _claims_reduced(rows: pd.DataFrame, scores: Scores) -> list[dict]:
    flops = _flops(rows)
    if not {BASELINE, REDUCED} <= {label for label, _ in scores}:
        return []
    ratio = flops[BASELINE] / flops[REDUCED]
    exact = Interval(ratio, ratio, ratio)
    found = [{"claim": "C10", "comparison": "baseline's FLOPs over reduced's, counted", "effect": exact, "threshold": 25}]
    means = {s: contrast(scores, difference(BASELINE, REDUCED), [s]) for s in SIGMAS}
    shown = [float(c.removeprefix("sigma_")) for c in paper.table("table2_unet") if c.startswith("sigma_")]
    for where, sigmas in (("Table 2's levels", shown), ("all levels above 0", NOISY), ("all eleven levels", SIGMAS)):
        worst = max(sigmas, key=lambda s: means[s][0].mean)
        text = f"largest loss in dB of {where}, at σ = {worst:g}"
        found += _claim(scores, "C10", text, difference(BASELINE, REDUCED), [worst], threshold=0.8, direction="<")
    return found


def _claims_mbconv(rows: pd.DataFrame, scores: Scores, sigma: float) -> list[dict]:
    unets = {tuple(u.items()): u for unets in lists.MBCONV.values() for u in unets}.values()
    have = {label for label, _ in scores}
    twins = [(label_of(**u), _mb(**u)) for u in unets if {label_of(**u), _mb(**u)} <= have]
    found = []
    if len(twins) > 2:
        rho = rank_correlation(*(_resampled(scores, labels, sigma) for labels in zip(*twins)))
        seeds = min(len({seed for name, seed in scores if name == mb}) for _, mb in twins)
        text = f"rank correlation of {len(twins)} MBConv UNets with their Conv twins"
        found.append({"claim": "C11", "comparison": text, "effect": rho, "threshold": TREND_RHO, "seeds": seeds})
    found += _claims_m(rows, scores, sigma, "mbconv", "C11")[:1]
    flops = _flops(rows)
    for name, unet in (("b=8 m=2", UNETS["reduced"] | {"m": 2}), ("b=8 m=1.5", UNETS["reduced"])):
        weights = _minus(at_equal_flops(flops, _b_line(), _mb(**unet)))
        found += _claim(scores, "C11", f"Conv minus MBConv {name} in dB at equal FLOPs", weights, [sigma])
    return found


# ---- Table 3


def pooled_psnr(scores: Scores, label: str) -> Interval:
    """PSNR of the mean squared error of all images together, averaged over the eleven sigmas, with its interval."""
    arrays = [array for (name, _), array in sorted(scores.items()) if name == label]
    error = 10 ** (-np.stack(arrays).astype(np.float64) / 10)
    seeds, _, images = error.shape
    rng = np.random.default_rng(0)
    pick = rng.integers(seeds, size=(DRAWS, seeds))
    weights = rng.multinomial(images, np.full(images, 1 / images), size=DRAWS) / images
    means = (-10 * np.log10(error @ weights.T)).mean(1)[pick, np.arange(DRAWS)[:, None]].mean(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float((-10 * np.log10(error.mean(2))).mean()), float(low), float(high))


def percent(scores: Scores) -> Scores:
    """Correctness as percent."""
    return {key: 100 * array for key, array in scores.items()}


def _ours(scores: Scores, sigmas: Sequence[float]) -> dict[str, Interval]:
    return {label: found[0] for label in DCNETS.values() if (found := contrast(scores, {label: 1.0}, sigmas))}


def table_3(rows: pd.DataFrame, psnr: Scores, ssim: Scores, accuracy: Scores) -> pd.DataFrame:
    """The four DC-Nets beside the paper's Table 3; three readings of its "PSNR", because it does not define the mean."""
    theirs = paper.table("table3_dcnet")
    theirs.index = [f"DC-Net {m.split()[-1]} {t}" for m, t in zip(theirs["model"], theirs["type"])]
    flops = {label: value / 1e6 for label in DCNETS.values() if (value := _flops(rows).get(label))}
    pooled = {label: pooled_psnr(psnr, label) for label in _ours(psnr, SIGMAS)}
    columns = {
        "FLOPs (M)": (flops, "flops_m", 1), "PSNR (dB)": (_ours(psnr, SIGMAS), "psnr", 1),
        "PSNR without σ = 0 (dB)": (_ours(psnr, NOISY), "psnr", 1), "PSNR of pooled error (dB)": (pooled, "psnr", 1),
        "SSIM": (_ours(ssim, SIGMAS), "ssim", 2), "accuracy (%)": (_ours(accuracy, SIGMAS), "accuracy_pct", 1),
    }  # fmt: skip
    parts = {name: paper.beside(ours, theirs[column].to_dict(), decimals) for name, (ours, column, decimals) in columns.items()}
    parts["FLOPs (M)"]["95% interval"] = "exact"
    return pd.concat(parts, names=["mean over sigmas"])


def table_3_latency() -> pd.DataFrame:
    """Latencies of the four DC-Nets."""
    theirs = paper.table("table3_dcnet")
    labels = [f"DC-Net {m.split()[-1]} {t}" for m, t in zip(theirs["model"], theirs["type"])]
    return latency_table(dict(zip(labels, theirs["latency_ms"])))


def curves(rows: pd.DataFrame, labels: Sequence[str], metrics: Sequence[str]) -> Figure:
    """Metrics ("psnr", "ssim", "correct") of networks against sigma with 95% bands; images beside the noisy input's."""
    rows = rows[rows["label"].isin(labels)]
    alone = len(metrics) == 1
    figure, grid = figures.new_figure(9 if alone else 4.6 * len(metrics) + 0.6, 4.8, 1, len(metrics), squeeze=False)
    names = {"psnr": "PSNR (dB)", "ssim": "SSIM", "correct": "accuracy (%)"}
    for axes, metric in zip(grid[0], metrics):
        scores = percent(per_image(rows, metric)) if metric == "correct" else per_image(rows, metric)
        for i, label in enumerate(label for label in labels if label in set(rows["label"])):
            _band(axes, scores, label, SIGMAS, i)
        if metric != "correct":
            scores = with_noisy_input(scores, metric)
            _band(axes, scores, "noisy input", NOISY if metric == "psnr" else SIGMAS, 6)
        axes.set(xlabel="noise level σ", ylabel=names[metric], xticks=np.linspace(0, 1, 6))
    place = dict(loc="outside center right") if alone else dict(loc="outside upper center", ncols=3)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), frameon=False, fontsize=10, **place)
    return figures.caption(figure, rows, "Bands: 95% over images and seeds.")


def _band(axes, scores: Scores, label: str, sigmas: Sequence[float], i: int) -> None:
    found = [contrast(scores, {label: 1.0}, [sigma])[0] for sigma in sigmas]
    colour = figures.PALETTE[i]
    axes.plot(
        sigmas, [x.mean for x in found], color=colour, linestyle=figures.LINES[i], marker=figures.MARKERS[i], markersize=5,
        linewidth=1.8, label=label,
    )  # fmt: skip
    axes.fill_between(sigmas, [x.low for x in found], [x.high for x in found], color=colour, alpha=0.18, linewidth=0)


# ---- Integrated against Sequential


def _joining_difference(size: str) -> Weights:
    return difference(DCNETS[size, "integrated"], DCNETS[size, "sequential"])


def joining_table(psnr: Scores) -> pd.DataFrame:
    """Integrated minus Sequential in dB at each sigma and both sizes, and which of the two is better."""
    parts = []
    for size in UNETS:
        found = [comparison_table(psnr, {(size, f"{s:g}"): _joining_difference(size)}, [s]) for s in SIGMAS]
        parts += [table for table in found if len(table)]
    table = pd.concat(parts)
    table.index = pd.MultiIndex.from_tuples(table.index, names=["size", "sigma"])
    words = {"above 0": "Integrated", "below 0": "Sequential", "includes 0": "undecided"}
    table["better"] = table.pop("interval is").map(words)
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
    for i, size in enumerate(UNETS):
        found = {s: contrast(psnr, _joining_difference(size), [s]) for s in SIGMAS}
        sigmas = [s for s in SIGMAS if found[s]]
        mean = np.array([found[s][0].mean for s in sigmas])
        ends = np.array([[found[s][0].mean - found[s][0].low, found[s][0].high - found[s][0].mean] for s in sigmas]).T
        axes.errorbar(np.array(sigmas) + 0.008 * (2 * i - 1), mean, yerr=ends, capsize=3, linewidth=1.8, **_style(i, label=size))
    axes.axhline(0, color="black", linewidth=1)
    axes.set(xlabel="noise level σ", ylabel="Integrated minus Sequential (dB)", xticks=np.linspace(0, 1, 6))
    axes.legend(fontsize=10, frameon=False)
    return figures.caption(figure, rows[rows["label"].isin(DCNETS.values())], "Bars: paired 95% intervals.")


# ---- Figure 4


def figure_4(rows: pd.DataFrame, index: int, sigma: float, zoom: int = 26) -> Figure:
    """Figure 4: ground truth, noisy input and the four outputs (S: reduced, L: baseline); below, the red squares enlarged."""
    clean, outputs = _shown(rows, index, sigma)
    images = {"ground truth": clean, "noisy": _noisy_sample(index, sigma)}
    for size, letter in (("reduced", "S"), ("baseline", "L")):
        for joining in ("sequential", "integrated"):
            if DCNETS[size, joining] in outputs:
                images[f"{joining} {letter}"] = outputs[DCNETS[size, joining]][SAMPLE_SIGMAS.index(sigma)]
    left, top = (cached("test", SAMPLES).boxes[index, 0, :2] + (BOX_SIZE - zoom) // 2).tolist()
    figure, grid = figures.new_figure(13, 5, 2, len(images), squeeze=False)
    for axes, below, letter, (name, image) in zip(*grid, "abcdef", images.items()):
        _picture(axes, image, f"{letter}: {name}")
        axes.add_patch(Rectangle((left - 0.5, top - 0.5), zoom, zoom, edgecolor="red", facecolor="none", linewidth=2))
        _picture(below, image[top : top + zoom, left : left + zoom])
        for spine in below.spines.values():
            spine.set(visible=True, color="red", linewidth=2)
    shown = rows[rows["label"].isin(DCNETS.values()) & (rows["seed"] == 0)]
    return figures.caption(figure, shown, f"Test image {index}, σ = {sigma:g}; S: reduced, L: baseline.")


def overview(rows: pd.DataFrame, index: int, sigma: float) -> Figure:
    """What the study is about, for the README: a noisy image, what DC-Net Reduced Integrated makes of it, and how it denoises."""
    label = DCNETS["reduced", "integrated"]
    _, outputs = _shown(rows, index, sigma)
    right = per_image(rows[(rows["label"] == label) & (rows["seed"] == 0)], "correct")[label, 0][SIGMAS.index(sigma), index]
    data = cached("test", SAMPLES)
    figure, (noisy, denoised, chart) = figures.new_figure(11, 4.2, 1, 3, width_ratios=(1, 1, 1.25))
    _picture(noisy, _noisy_sample(index, sigma), f"in: noisy, σ = {sigma:g}")
    _picture(denoised, outputs[label][SAMPLE_SIGMAS.index(sigma)], "out: denoised and classified")
    for box, digit, correct in zip(data.boxes[index].tolist(), data.labels[index].tolist(), right):
        colour = figures.COLOURS["sky" if correct else "red"]
        denoised.add_patch(
            Rectangle((box[0] - 0.5, box[1] - 0.5), BOX_SIZE, BOX_SIZE, edgecolor=colour, facecolor="none", linewidth=2)
        )
        text = f"{digit}" if correct else f"not {digit}"
        denoised.text(box[0] + 1, box[1] + 1, text, color=colour, fontsize=13, fontweight="bold", va="top")
    shown = rows[rows["label"].isin(DCNETS["reduced", joining] for joining in lists.JOINING)]
    scores = with_noisy_input(per_image(shown, "psnr"), "psnr")
    for i, joining in enumerate(lists.JOINING):
        _band(chart, scores, DCNETS["reduced", joining], NOISY, i)
    _band(chart, scores, "noisy input", NOISY, 6)
    chart.set(xlabel="noise level σ", ylabel="PSNR (dB)")
    chart.legend(fontsize=9)
    return figures.caption(figure, shown, f"Test image {index}. Bands: 95% over images and seeds.")


# ---- claims of Section 3.3


def joint_claims(psnr: Scores, accuracy: Scores) -> list[dict]:
    """C12, C13 and C14 as comparisons for `claims.verdict_table`."""
    theirs = paper.table("table3_dcnet").pivot(index="model", columns="type", values=["psnr", "accuracy_pct"])
    found = {"C12": [], "C13": [], "C14": []}
    for size in UNETS:
        row = theirs.loc[f"DC-Net {size.capitalize()}"]
        gap, weights = round(row["psnr", "Integrated"] - row["psnr", "Sequential"], 1), _joining_difference(size)
        text = f"{size}: Integrated minus Sequential in dB, mean over"
        found["C12"] += _claim(psnr, "C12", f"{text} eleven σ", weights, SIGMAS)
        found["C12"] += _claim(psnr, "C12", f"{text} σ above 0.2", weights, [s for s in SIGMAS if s > 0.2])
        how = dict(direction="about", margin=ABOUT)
        found["C12"] += _claim(psnr, "C12", f"{text} eleven σ, against the paper's", weights, SIGMAS, threshold=gap, **how)
        gap = round(row["accuracy_pct", "Sequential"] - row["accuracy_pct", "Integrated"], 1)
        text = f"{size}: Sequential minus Integrated in points"
        found["C13"] += _claim(accuracy, "C13", text, _minus(weights), SIGMAS, decimals=1)
        text += ", against the paper's"
        found["C13"] += _claim(accuracy, "C13", text, _minus(weights), SIGMAS, decimals=1, threshold=gap, **how)
        effect = latency_difference(DCNETS[size, "sequential"], DCNETS[size, "integrated"])
        text = f"{size}: Sequential minus Integrated in ms at batch 32"
        found["C14"].append({"claim": "C14", "comparison": text, "effect": effect})
    return [row for rows in found.values() for row in rows]


# ---- why joint accuracy is so far above the small classifier's

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
            if not (level := contrast(accuracy, {label: 1.0}, SIGMAS)):
                continue
            row = {"path": path, "network": label, "change": change, "training images": images[label]}
            row["accuracy (%)"] = round(level[0].mean, 1)
            row["95% interval"] = f"{level[0].low:.1f} to {level[0].high:.1f}"
            row["at σ = 0 (%)"] = round(contrast(accuracy, {label: 1.0}, [0.0])[0].mean, 1)
            step = before and contrast(accuracy, difference(label, before), SIGMAS)
            row["step (points)"] = round(step[0].mean, 1) + 0.0 if step else np.nan
            row["step's interval"] = f"{step[0].low:.1f} to {step[0].high:.1f}" if step else ""
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
        share = f", {100 * steps[most] / gain:.0f}% of the whole" if gain > 0 else ""
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
    theirs = {f"{m} {t}": a for m, t, a in paper.table("table3_dcnet")[["model", "type", "accuracy_pct"]].itertuples(index=False)}
    theirs |= paper.table("table1_6_classifiers").set_index("model")["accuracy_pct"].to_dict()
    for axes, (path, steps) in zip(grid, PATHS.items()):
        known = [(change, label) for change, label in steps if contrast(accuracy, {label: 1.0}, SIGMAS)]
        for y, (_, label) in enumerate(known):
            level, clean = (contrast(accuracy, {label: 1.0}, sigmas)[0] for sigmas in (SIGMAS, [0.0]))
            axes.barh(y, level.mean, color=figures.PALETTE[5], height=0.6, label="mean over eleven σ")
            ends = [[level.mean - level.low], [level.high - level.mean]]
            axes.errorbar(level.mean, y, xerr=ends, color="black", capsize=4, linewidth=1.8)
            axes.plot(clean.mean, y, "D", color="black", markerfacecolor="white", markersize=8, label="σ = 0")
            if label in theirs:
                axes.plot(theirs[label], y, "*", color="black", markerfacecolor="none", markersize=14, label="the paper, mean")
            axes.text(105, y, f"{level.mean:.1f}%", va="center", fontsize=11)
        axes.set_yticks(range(len(known)), [f"{label}\n({change})" for change, label in known], fontsize=10)
        axes.invert_yaxis()
        axes.set(title=path, xlabel="accuracy (%)", xlim=(0, 122), xticks=range(0, 101, 20))
    handles = dict(zip(*grid[0].get_legend_handles_labels()[::-1]))
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=3, frameon=False, fontsize=11)
    return figures.caption(figure, rows)


def mismatch_text(beside: Sequence[pd.DataFrame], verdicts: pd.DataFrame) -> str:
    """What did not match: values of tables beyond the interval, and claims that are not reproduced or undecided."""
    lines = []
    for table in beside:
        missed = table[table["verdict"] == "no match"]
        for name, part in missed.groupby(level=0, sort=False):
            gaps = f"{part['difference'].min():+g} to {part['difference'].max():+g}"
            lines.append(f"- {name}: {len(part)} of {len(table.loc[name])} values differ from the paper's, by {gaps}.")
    for claim, part in verdicts[verdicts["verdict"] != "reproduced"].groupby("claim", sort=False):
        for row in part.itertuples():
            found = "not measured" if np.isnan(row.effect) else f"found {row.effect:g} ({row[5]})"
            lines.append(f"- {claim}, {row.verdict}: {row.comparison}; {found}.")
    return "\n".join(lines) or "Everything compared here matched."
