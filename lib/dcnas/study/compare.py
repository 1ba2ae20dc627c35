"""Paired comparisons of networks.

Every comparison is a weighted sum of networks (`contrast`) on the same images and the same noise, so that its interval is paired.
`Scores` are what `results.per_image(rows, metric)` gives: (label, seed) to an array (11 sigmas, N images, ...). A network that has
no results yet is left out of figures, and the comparisons that need it are left out of tables.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..data.noise import SIGMAS
from ..models import UNETS
from . import figures
from .experiments import denoiser
from .scales import scale_named
from .stats import Interval, bootstrap, bootstrap_of_means, over_sigmas

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


def difference(a: str, b: str) -> Weights:
    """Network a minus network b."""
    return {a: 1.0, b: -1.0}


def claim_rows(
    scores: Scores, claim: str, parts: dict[str, Weights | None], sigmas: Sequence[float] = SIGMAS, **asked
) -> list[dict]:
    """Rows for `claims.verdict_table`, one for each comparison that can be made."""
    found = {text: contrast(scores, weights, sigmas) for text, weights in parts.items()}
    return [{"claim": claim, "comparison": text, "effect": f[0], "seeds": f[1]} | asked for text, f in found.items() if f]


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


def curve(axes, scores: Scores, label: str, sigmas: Sequence[float], i: int) -> None:
    """The scores of a network against sigma with a 95% band, as the i-th line of a figure."""
    found = [mean_score(scores, label, [sigma]) for sigma in sigmas]
    figures.band(axes, sigmas, found, **figures.style(i), markersize=5, label=label)
