"""Intervals of 95%, paired: every model sees the same images and the same noise."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from scipy import stats

from ..data.noise import SIGMAS

DRAWS, LEVEL = 2_000, 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)  # not 0.025: a bound may lie on the border of two roundings
NOISY = SIGMAS[1:]
Scores = dict[tuple[str, int], np.ndarray]  # (label, seed) to a metric (sigmas, images[, digits])


class Interval(NamedTuple):
    """A mean and the bounds of its interval; these are NaN where there is nothing to resample."""

    mean: float
    low: float = np.nan
    high: float = np.nan

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def bounds(self, decimals: int = 2) -> str:
        return f"{self.low:.{decimals}f} to {self.high:.{decimals}f}"


def of_few(values: Sequence[float]) -> Interval:
    """The mean of a few independent values, one per seed or search, with Student's interval."""
    if len(values) < 2:
        return Interval(float(np.mean(values)))
    bounds = stats.ttest_1samp(values, 0).confidence_interval(LEVEL)
    return Interval(float(np.mean(values)), float(bounds.low), float(bounds.high))


def of_median(values: Sequence[float]) -> Interval:
    """The median of independent values with the interval of the sign test; of six or more."""
    bounds = stats.quantile_test(values, p=0.5).confidence_interval(LEVEL)
    return Interval(float(np.median(values)), float(bounds.low), float(bounds.high))


def of_share(values: Sequence[float]) -> Interval:
    """The mean of values that are 0 or 100 (%), with Wilson's interval: it holds where all are equal."""
    share = stats.binomtest(int(np.sum(np.asarray(values) > 0)), len(values))
    bounds = share.proportion_ci(LEVEL, method="wilson")
    return Interval(100 * share.statistic, 100 * float(bounds.low), 100 * float(bounds.high))


def ratio_of_spreads(values: Sequence[float], others: Sequence[float]) -> Interval:
    """The standard deviation of a few normal values over that of others, with the interval of the F
    distribution: three values against three can be told apart beyond 6.2.
    """
    top, bottom = (float(np.std(side, ddof=1)) if len(side) > 1 else 0 for side in (values, others))
    if not top * bottom:
        return Interval(np.nan)
    low, high = stats.f.ppf(TAILS, len(values) - 1, len(others) - 1) ** 0.5
    return Interval(top / bottom, float(top / bottom / high), float(top / bottom / low))


@lru_cache(maxsize=8)
def _draws(seeds: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Resampled seeds (DRAWS, seeds) and weights of images (DRAWS, images), the same in each call."""
    rng = np.random.default_rng(0)
    picked = rng.integers(seeds, size=(DRAWS, seeds))
    return picked, rng.multinomial(images, np.full(images, 1 / images), size=DRAWS) / images


def bootstrap(values: np.ndarray, statistic: Callable = np.asarray) -> Interval:
    """The mean over seeds of a statistic of the means over images, resampling seeds and images.

    `values` (seeds, ..., images). `statistic` takes means (seeds, ...[, DRAWS]), gives (seeds[, DRAWS]).
    """
    picked, weights = _draws(len(values), values.shape[-1])
    by_seed = statistic(values @ weights.T)
    low, high = np.quantile(by_seed[picked, np.arange(DRAWS)[:, None]].mean(1), TAILS)
    return Interval(float(statistic(values.mean(-1)).mean()), float(low), float(high))


def bootstrap_of_means(values: np.ndarray, statistic: Callable) -> Interval:
    """A statistic of the means over seeds and images, (..., DRAWS) to (DRAWS,), resampling both."""
    picked, weights = _draws(len(values), values.shape[-1])
    shares = (picked[..., None] == np.arange(len(values))).mean(1)  # (DRAWS, seeds)
    low, high = np.quantile(statistic(np.einsum("s...d,ds->...d", values @ weights.T, shares)), TAILS)
    return Interval(float(statistic(values.mean((0, -1))[..., None])[0]), float(low), float(high))


def per_image(scores: Scores, label: str, sigmas: Sequence[float] = SIGMAS) -> dict[int, np.ndarray]:
    """A number per image, the mean over noise levels (and digits), by seed."""
    rows, by_seed = [SIGMAS.index(sigma) for sigma in sigmas], {}
    for (name, seed), values in sorted(scores.items(), key=itemgetter(0)):
        if name == label:
            levels = values[rows].astype(np.float64)
            by_seed[seed] = levels.mean(axis=tuple(i for i in range(levels.ndim) if i != 1))
    return by_seed


def contrast(
    scores: Scores, weights: dict[str, float], sigmas: Sequence[float] = SIGMAS, over_seeds: bool = False
) -> tuple[Interval, int] | None:
    """A weighted sum of networks' scores with its paired interval, and how many seeds they share; None
    without any. The interval is of the bootstrap or, `over_seeds`, Student's t.
    """
    networks = {label: per_image(scores, label, sigmas) for label in weights}
    seeds = sorted(set.intersection(*map(set, networks.values()))) if weights else []
    if not seeds:
        return None
    count = min(len(values) for by_seed in networks.values() for values in by_seed.values())
    sums = [sum(w * networks[label][seed][:count] for label, w in weights.items()) for seed in seeds]
    matrix = np.stack(sums)
    return of_few(matrix.mean(1)) if over_seeds else bootstrap(matrix), len(seeds)


def means(
    scores: Scores, labels: Sequence[str], sigmas: Sequence[float] = SIGMAS
) -> dict[str, Interval]:
    """The mean score of each network that has results, with its interval."""
    each = {label: per_image(scores, label, sigmas) for label in labels}
    each = {label: [*by_seed.values()] for label, by_seed in each.items() if by_seed}
    return {label: bootstrap(np.stack(seeds)) for label, seeds in each.items()}


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlations over the first axis of (networks, draws); 0 where all are tied."""
    a, b = (stats.rankdata(side, axis=0) - (len(side) + 1) / 2 for side in np.broadcast_arrays(a, b))
    size = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return (a * b).sum(0) / np.where(size > 0, size, 1.0)
