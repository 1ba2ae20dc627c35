"""Intervals: bootstrap over images and seeds, paired because every model sees the same images and the
same noise.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import stats

from ..data.noise import SIGMAS

DRAWS = 2_000
LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)  # not 0.025: a bound may lie on the border of two roundings
NOISY = SIGMAS[1:]
Scores = dict[tuple[str, int], np.ndarray]  # (label, seed) to a metric (sigmas, images[, digits])


class Interval(NamedTuple):
    """A mean and the bounds of its 95% interval; the bounds are NaN where there is nothing to
    resample.
    """

    mean: float
    low: float = np.nan
    high: float = np.nan

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def bounds(self, decimals: int = 2) -> str:
        """The bounds for a table: "0.12 to 0.34"."""
        return f"{self.low:.{decimals}f} to {self.high:.{decimals}f}"

    def contains(self, value: float, slack: float = 0.0) -> bool:
        """Whether `value` lies inside, or outside by no more than `slack` (half a unit of a rounded
        number).
        """
        return self.low - slack <= value <= self.high + slack


def of_few(values: Sequence[float]) -> Interval:
    """The mean of a few independent values, such as one per search, with Student's interval; a single
    one has no bounds.
    """
    if len(values) < 2:
        return Interval(float(np.mean(values)))
    bounds = stats.ttest_1samp(values, 0).confidence_interval(LEVEL)
    return Interval(float(np.mean(values)), float(bounds.low), float(bounds.high))


def of_median(values: Sequence[float]) -> Interval:
    """The median of independent values with the interval of the sign test; without bounds of fewer than
    six.
    """
    if len(values) < 6:
        return Interval(float(np.median(values)) if len(values) else np.nan)
    bounds = stats.quantile_test(values, p=0.5).confidence_interval(LEVEL)
    return Interval(float(np.median(values)), float(bounds.low), float(bounds.high))


def ratio_of_spreads(values: Sequence[float], others: Sequence[float]) -> Interval:
    """The standard deviation of a few normal values over that of others, with the interval of the F
    distribution.

    Three values against three can be told apart if the ratio is beyond 6.2. Without bounds where one
    side has a single value, or all its values are equal.
    """
    if min(len(values), len(others)) < 2:
        return Interval(np.nan)
    top, bottom = float(np.std(values, ddof=1)), float(np.std(others, ddof=1))
    if top == 0 or bottom == 0:
        return Interval(top / bottom if bottom else np.inf if top else np.nan)
    low, high = stats.f.ppf(TAILS, len(values) - 1, len(others) - 1) ** 0.5
    return Interval(top / bottom, float(top / bottom / high), float(top / bottom / low))


def over_sigmas(metric: np.ndarray, sigmas: Sequence[float] = SIGMAS) -> np.ndarray:
    """A number per image: the mean over the given noise levels (and digits) of an array (11, N) or (11,
    N, digits).
    """
    rows = [SIGMAS.index(sigma) for sigma in sigmas]
    chosen = metric[rows].astype(np.float64)
    return chosen.mean(axis=tuple(i for i in range(chosen.ndim) if i != 1))


@lru_cache(maxsize=8)
def _draws(seeds: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Resampled seeds (DRAWS, seeds) and weights of images (DRAWS, images): the same for all comparisons
    of one size.
    """
    rng = np.random.default_rng(0)
    return rng.integers(seeds, size=(DRAWS, seeds)), rng.multinomial(
        images, np.full(images, 1 / images), size=DRAWS
    ) / images


def _stacked(values: dict[int, np.ndarray] | np.ndarray) -> np.ndarray:
    return (
        np.stack([values[key] for key in sorted(values)])
        if isinstance(values, dict)
        else np.asarray(values)
    )


def bootstrap(
    values: dict[int, np.ndarray] | np.ndarray, statistic: Callable = lambda means: means
) -> Interval:
    """The mean over seeds of a statistic of the mean over images, with an interval from resampling seeds
    and images.

    `values` by seed, or (seeds, ..., N): the images are the last axis, (N,) such as `over_sigmas` gives,
    or (..., N). `statistic` takes the means over images, (seeds, ...) or of all draws at once (seeds,
    ..., DRAWS), and gives a number for each seed (and draw).
    """
    matrix = _stacked(values)
    pick_seeds, weights = _draws(len(matrix), matrix.shape[-1])
    by_seed = statistic(matrix @ weights.T)  # (seeds, DRAWS)
    low, high = np.quantile(by_seed[pick_seeds, np.arange(DRAWS)[:, None]].mean(1), TAILS)
    return Interval(float(statistic(matrix.mean(-1)).mean()), float(low), float(high))


def bootstrap_of_means(values: dict[int, np.ndarray] | np.ndarray, statistic: Callable) -> Interval:
    """A statistic of the mean over seeds and images, with an interval from resampling both.

    `values[seed]` has the images as its last axis: (..., N). `statistic` takes means (..., draws) and
    gives a number for each draw.
    """
    matrix = _stacked(values)
    pick_seeds, weights = _draws(len(matrix), matrix.shape[-1])
    # (DRAWS, seeds): the share of each seed
    picked = (pick_seeds[..., None] == np.arange(len(matrix))).mean(1)
    drawn = statistic(np.einsum("s...d,ds->...d", matrix @ weights.T, picked))
    low, high = np.quantile(drawn, TAILS)
    return Interval(float(statistic(matrix.mean((0, -1))[..., None])[0]), float(low), float(high))


def per_image(scores: Scores, label: str, sigmas: Sequence[float] = SIGMAS) -> dict[int, np.ndarray]:
    """A number per image, the mean over noise levels (and digits), by seed."""
    return {
        seed: over_sigmas(values, sigmas) for (name, seed), values in scores.items() if name == label
    }


def paired(
    scores: Scores, weights: dict[str, float], sigmas: Sequence[float] = SIGMAS
) -> np.ndarray | None:
    """A weighted sum of networks' scores (seeds, images), of the seeds and images that all share; None
    without any.
    """
    networks = {label: per_image(scores, label, sigmas) for label in weights}
    seeds = sorted(set.intersection(*map(set, networks.values()))) if weights else []
    if not seeds:
        return None
    count = min(len(values) for by_seed in networks.values() for values in by_seed.values())
    return np.stack(
        [sum(w * networks[label][seed][:count] for label, w in weights.items()) for seed in seeds]
    )


def contrast(
    scores: Scores, weights: dict[str, float], sigmas: Sequence[float] = SIGMAS, over_seeds: bool = False
) -> tuple[Interval, int] | None:
    """A weighted sum of networks' scores with its paired interval, and how many seeds they share; None
    without any.

    The interval is of a bootstrap over images and seeds or, `over_seeds`, Student's t of the seeds'
    means.
    """
    sums = paired(scores, weights, sigmas)
    if sums is None:
        return None
    return of_few(sums.mean(1)) if over_seeds else bootstrap(sums), len(sums)


def means(
    scores: Scores, labels: Sequence[str], sigmas: Sequence[float] = SIGMAS
) -> dict[str, Interval]:
    """The mean score of each network that has results, with its interval."""
    pairs = {label: contrast(scores, {label: 1.0}, sigmas) for label in labels}
    return {label: pair[0] for label, pair in pairs.items() if pair}


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlations over the first axis of (networks, draws); 0 where all are tied."""
    a, b = (stats.rankdata(side, axis=0) - (len(side) + 1) / 2 for side in np.broadcast_arrays(a, b))
    size = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return (a * b).sum(0) / np.where(size > 0, size, 1.0)
