"""Paired comparisons of networks, and the tables, sentences and curves that the notebooks of Sections 3.1 to 3.3 share.

Every comparison is a weighted sum of networks (`contrast`) on the same images and the same noise, so that its interval is paired.
`Scores` are what `results.per_image(rows, metric)` gives: (label, seed) to an array (11 sigmas, N images, ...). A network that has
no results yet is left out of figures, and the comparisons that need it are left out of tables.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..data.noise import SIGMAS
from ..data.two_digits import cached
from ..models import UNETS
from ..training import evaluate
from . import figures, paper
from .experiments import denoiser
from .results3 import missing_labels, per_image
from .runs import bank_noisy
from .scales import scale_named
from .stats import Interval, bootstrap, bootstrap_of_means, over_sigmas
from .timing import latencies

NOISY = tuple(s for s in SIGMAS if s > 0)
TREND_RHO = 0.8  # rank correlation: our reading of "the same trend" and "grow with"

Scores = dict[tuple[str, int], np.ndarray]
Weights = dict[str, float]


def unet_label(block: str = "conv", **unet) -> str:
    """The label of a UNet in results, from its hyper-parameters b, d, m, c."""
    return denoiser(scale_named("paper"), 0, **unet, block=block).label


TABLE_2 = {f"UNet {size.capitalize()}": unet_label(**unet) for size, unet in UNETS.items()}  # the paper's name to ours
BASELINE, REDUCED = TABLE_2.values()


def flops_by_label(rows: pd.DataFrame) -> dict[str, float]:
    """FLOPs of each network."""
    return rows.groupby("label", sort=False)["flops"].first().to_dict()


@lru_cache(maxsize=4)
def noisy_input(images: int) -> dict[str, np.ndarray]:
    """PSNR and SSIM, "psnr" and "ssim" (11, images), of the noisy test images themselves, with the noise that every model meets."""
    data = cached("test", images)
    found = evaluate(lambda noisy, _: (noisy, None), data.images, data.boxes, data.labels, bank_noisy(data.images), SIGMAS)
    return {name: values.numpy() for name, values in found.items()}


def with_noisy_input(scores: Scores, metric: str) -> Scores:
    """`scores` with one more network, "noisy input", under every seed, so that it pairs with any other."""
    noisy = noisy_input(next(iter(scores.values())).shape[1])[metric]
    return scores | {("noisy input", seed): noisy for _, seed in scores}


def contrast(scores: Scores, weights: Weights | None, sigmas: Sequence[float] = SIGMAS) -> tuple[Interval, int] | None:
    """The weighted sum of networks' scores, with its interval over images and shared seeds, and the number of those seeds.

    None if there are no weights, a network has no results or they share no seed.
    """
    if not weights:
        return None
    found = {label: _by_seed(scores, label, sigmas) for label in weights}
    shared = sorted(set.intersection(*map(set, found.values())))
    if not shared:
        return None
    count = min(len(values) for by_seed in found.values() for values in by_seed.values())
    sums = {seed: sum(w * found[label][seed][:count] for label, w in weights.items()) for seed in shared}
    return bootstrap(sums), len(shared)


def mean_score(scores: Scores, label: str, sigmas: Sequence[float] = SIGMAS) -> Interval | None:
    """The mean score of one network with its interval; None if it has no results."""
    found = contrast(scores, {label: 1.0}, sigmas)
    return found and found[0]


def mean_scores(scores: Scores, labels: Iterable[str], sigmas: Sequence[float] = SIGMAS) -> dict[str, Interval]:
    """`mean_score` by label, of those that have results."""
    return {label: found for label in labels if (found := mean_score(scores, label, sigmas))}


def difference(a: str, b: str) -> Weights:
    """Network a minus network b."""
    return {a: 1.0, b: -1.0}


def combine(*terms: tuple[float, Weights | None]) -> Weights | None:
    """The sum of several weighted sums, each times its factor; None if one of them cannot be made."""
    total: Weights = {}
    for factor, weights in terms:
        if weights is None:
            return None
        for label, weight in weights.items():
            total[label] = total.get(label, 0.0) + weight * factor
    return total


def claim_rows(
    scores: Scores, claim: str, parts: dict[str, Weights | None], sigmas: Sequence[float] = SIGMAS, **asked
) -> list[dict]:
    """Rows for `claims.verdict_table`, one for each comparison that can be made."""
    found = {text: contrast(scores, weights, sigmas) for text, weights in parts.items()}
    return [{"claim": claim, "comparison": text, "effect": f[0], "seeds": f[1]} | asked for text, f in found.items() if f]


def rank_correlation(
    scores: Scores, networks: Sequence[tuple[str, float]], others: Sequence[tuple[str, float]]
) -> tuple[Interval, int]:  # fmt: skip
    """Spearman's rank correlation of the mean scores of two lists of (label, sigma), and the number of seeds that all share."""
    sides = [[_by_seed(scores, label, [sigma]) for label, sigma in side] for side in (networks, others)]
    shared = sorted(set.intersection(*(set(network) for side in sides for network in side)))
    found = bootstrap_of_means(
        {seed: np.stack([[network[seed] for network in side] for side in sides]) for seed in shared},
        lambda means: _spearman(*means),
    )
    return found, len(shared)


def trend_rows(
    scores: Scores, claim: str, text: str, values: dict[str, float], sigmas: Sequence[float] = SIGMAS, falls: bool = False
) -> list[dict]:  # fmt: skip
    """Whether networks' scores grow, or fall, with a number of each, as a row for `claims.verdict_table`; not if one is missing."""
    found = [_by_seed(scores, label, sigmas) for label in values]
    shared = sorted(set.intersection(*map(set, found)))
    if not shared:
        return []
    numbers = np.array([*values.values()])[:, None]
    rho = bootstrap_of_means(
        {seed: np.stack([network[seed] for network in found]) for seed in shared},
        lambda means: _spearman(means, np.broadcast_to(numbers, means.shape)),
    )
    asked = dict(threshold=-TREND_RHO, direction="<") if falls else dict(threshold=TREND_RHO)
    return [{"claim": claim, "comparison": f"rank correlation of {text}", "effect": rho, "seeds": len(shared)} | asked]


def _by_seed(scores: Scores, label: str, sigmas: Sequence[float]) -> dict[int, np.ndarray]:
    """The scores of one network, a number per image, by seed."""
    return {seed: over_sigmas(array, sigmas) for (name, seed), array in scores.items() if name == label}


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlations over the first axis of two arrays (networks, draws); ties share their ranks, 0 where all are tied."""
    a, b = (((side[:, None] > side).sum(1) + (side[:, None] >= side).sum(1) - len(side)) / 2 for side in (a, b))
    size = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return (a * b).sum(0) / np.where(size > 0, size, 1.0)


def comparison_table(scores: Scores, parts: dict, name: str = "comparison") -> pd.DataFrame:
    """A row per comparison (weights, sigmas) that can be made: effect, 95% interval, seeds, which side of 0 the interval is on."""
    table = {}
    for part, (weights, sigmas) in parts.items():
        if found := contrast(scores, weights, sigmas):
            effect, seeds = found
            side = "above 0" if effect.low > 0 else "below 0" if effect.high < 0 else "includes 0"
            side += " (one seed)" if seeds == 1 else ""
            table[part] = [round(effect.mean, 2), effect.bounds(), seeds, side]
    columns = ["effect", "95% interval", "seeds", "interval is"]
    return pd.DataFrame.from_dict(table, orient="index", columns=columns).rename_axis(name)


def plural(count: int, noun: str) -> str:
    """The count with its noun: "1 seed", "3 seeds"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def training_text(rows: pd.DataFrame, group: str) -> str:
    """How long the networks trained against the paper's, how many seeds each has, and which are missing."""
    full, (images, *others) = scale_named("paper").denoise.images, sorted(rows["images"].unique())
    text = (
        f"These results are of scale `{rows['scale'].iloc[0]}`: each network saw {'at least ' if others else ''}{images:,} "
        f"training images, {100 * images / full:.2g}% of the paper's {full:,}. "
    )
    if images < full:
        text += (
            "So absolute values are expected to fall short of the paper's. All networks are trained alike, but at this length one "
            "seed can differ from another by as much as networks do. "
        )
    seeds = rows.groupby("label", sort=False)["seed"].nunique()
    few = seeds[seeds < seeds.max()]
    text += f"Every network has {plural(seeds.max(), 'seed')}"
    text += f", except these with {few.min()}: {'; '.join(few.index)}." if len(few) else "."
    if seeds.min() == 1:
        text += " No claim is judged on one seed: its verdict is undecided, whatever the interval over images."
    if missing := missing_labels(group, rows):
        text += f" Not there yet: {'; '.join(missing)}."
    return text


def verdicts_text(table: pd.DataFrame, what: str) -> str:
    """How many rows of a `paper.beside` table match, and the largest difference."""
    worst = table["difference"].abs().idxmax()
    name = ", ".join(map(str, worst)) if isinstance(worst, tuple) else worst
    matches = (table["verdict"] == "match").sum()
    return (
        f"{matches} of {len(table)} values of {what} match the paper's; the largest difference is "
        f"{table['difference'][worst]:+g} ({name})."
    )


def mismatch_text(beside: Sequence[pd.DataFrame], verdicts: pd.DataFrame) -> str:
    """What did not match: values of tables beyond the interval, and claims that are not reproduced or undecided."""
    lines = []
    for table in beside:
        missed = table[table["verdict"] == "no match"]
        for name, part in missed.groupby(level=0, sort=False):
            gaps = f"{part['difference'].min():+g} to {part['difference'].max():+g}"
            lines.append(f"- {name}: {len(part)} of {len(table.loc[name])} values differ from the paper's, by {gaps}.")
    for row in verdicts[verdicts["verdict"] != "reproduced"].to_dict("records"):
        found = "not measured" if np.isnan(row["effect"]) else f"found {row['effect']:g} ({row['95% interval']})"
        lines.append(f"- {row['claim']}, {row['verdict']}: {row['comparison']}; {found}.")
    return "\n".join(lines) or "Everything compared here matched."


LATENCIES = ("ours, batch 32 (ms)", "ours, batch 1 (ms)", "paper, batch 32 (ms)")


def latency_table(labels: Sequence[str], reference: str) -> pd.DataFrame:
    """Latencies in ms per batch, ours (medians) and the paper's, then relative to `reference`; NaN where none were measured."""
    ours, single = (latencies(batch).reindex(labels) for batch in (32, 1))
    theirs = paper.networks()["latency_ms"].rename(TABLE_2)[list(labels)]
    table = pd.DataFrame(dict(zip(LATENCIES, (ours["median_ms"].round(3), single["median_ms"].round(3), theirs))))
    quartiles = zip(ours["q25_ms"], ours["q75_ms"])
    table.insert(1, "quartiles (ms)", [f"{low:.3f} to {high:.3f}" if low == low else "not measured" for low, high in quartiles])
    table.insert(2, "unsynchronised mean (ms)", ours["unsynchronised_ms"].round(3))
    for name in LATENCIES:
        table[name.replace("(ms)", "(relative)")] = (table[name] / table[name][reference]).round(2)
    return table.rename_axis("network")


def latency_text(table: pd.DataFrame, slow: str, fast: str) -> str:
    """From `latency_table`: on what ours were measured, whose order is which, and how much longer `slow` takes than `fast`."""
    if table.loc[[slow, fast], list(LATENCIES)].isna().any(axis=None):
        return "No latencies of these networks are published yet; `dcnas latency` measures them, and this page then shows them."
    how, passes_1 = latencies(32).loc[slow], latencies(1)["passes"][slow]
    order, _, theirs = (" < ".join(table[name].dropna().sort_values().index) for name in LATENCIES)
    ratios = [f"{table[name][slow] / table[name][fast]:.2f}" for name in LATENCIES]
    return (
        f"Ours: {how['device']}, {plural(how['threads'], 'thread')}, {how['precision']}, PyTorch {how['torch_version']}, the "
        f"median of {how['passes']} passes at batch 32 and of {passes_1} at batch 1. The paper does not name its device for this "
        f"table, and milliseconds of two devices are not comparable; order and ratios are. At batch 32, ours: {order}; the "
        f"paper's: {theirs}. {slow} takes {ratios[0]} times as long as {fast} at batch 32 and {ratios[1]} times at batch 1; on the "
        f"paper's device {ratios[2]} times."
    )


def curve(axes, scores: Scores, label: str, sigmas: Sequence[float], i: int) -> None:
    """The scores of a network against sigma with a 95% band, as the i-th line of a figure."""
    found = [mean_score(scores, label, [sigma]) for sigma in sigmas]
    figures.band(axes, sigmas, found, **figures.style(i), markersize=5, label=label)


def curves(rows: pd.DataFrame, labels: Sequence[str], metrics: Sequence[str]) -> Figure:
    """Metrics ("psnr", "ssim", "accuracy") of networks against sigma with 95% bands; images beside the noisy input's."""
    rows = rows[rows["label"].isin(labels)]
    alone = len(metrics) == 1
    figure, grid = figures.new_figure(9 if alone else 4.6 * len(metrics) + 0.6, 4.8, 1, len(metrics), squeeze=False)
    names = {"psnr": "PSNR (dB)", "ssim": "SSIM", "accuracy": "accuracy (%)"}
    for axes, metric in zip(grid[0], metrics):
        scores = per_image(rows, metric)
        for i, label in enumerate(label for label in labels if label in set(rows["label"])):
            curve(axes, scores, label, SIGMAS, i)
        if metric != "accuracy":
            scores = with_noisy_input(scores, metric)
            curve(axes, scores, "noisy input", NOISY if metric == "psnr" else SIGMAS, 6)
        axes.set(xlabel="noise level σ", ylabel=names[metric], xticks=np.linspace(0, 1, 6))
    place = dict(loc="outside center right") if alone else dict(loc="outside upper center", ncols=3)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), frameon=False, fontsize=10, **place)
    return figures.caption(figure, rows, "Bands: 95% over images and seeds.")
