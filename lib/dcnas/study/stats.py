"""Intervals: bootstrap over images and seeds, paired because every model sees the same images and the same noise."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import comb
from typing import NamedTuple

import numpy as np

from ..data.noise import SIGMAS

DRAWS = 2_000
LEVEL = 0.95


class Interval(NamedTuple):
    """A mean and the bounds of its 95% interval; the bounds are NaN where there is nothing to resample."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def bounds(self, decimals: int = 2) -> str:
        """The bounds for a table: "0.12 to 0.34"."""
        return f"{self.low:.{decimals}f} to {self.high:.{decimals}f}"

    def contains(self, value: float, slack: float = 0.0) -> bool:
        """Whether `value` lies inside, or outside by no more than `slack` (half a unit of a rounded number)."""
        return self.low - slack <= value <= self.high + slack


_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}  # Student's t at 97.5%, by number of values


def of_few(values: Sequence[float]) -> Interval:
    """The mean of a few independent values, such as one per search, with Student's 95% interval; without bounds of a single one."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, np.nan, np.nan)
    half = _T[min(len(values), max(_T))] * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half)


def of_median(values: Sequence[float]) -> Interval:
    """The median of independent values with a 95% interval between two of them, which asks nothing of their distribution.

    As many values lie below the true median as heads fall in as many tosses. Without bounds of fewer than six values.
    """
    ranked, n, rank, ways = np.sort(np.asarray(values, float)), len(values), 0, 1
    while ways <= (1 - LEVEL) / 2 * 2**n:  # of the outcomes of n tosses, those with at most `rank` heads
        rank += 1
        ways += comb(n, rank)
    middle = float(np.median(ranked)) if n else np.nan
    return Interval(middle, float(ranked[rank - 1]), float(ranked[n - rank])) if rank else Interval(middle, np.nan, np.nan)


def _f_quantiles(a: int, b: int, levels: Sequence[float]) -> np.ndarray:
    """Quantiles of the F distribution with `a` and `b` degrees of freedom.

    a F / (a F + b) has a beta distribution: with tan^2 t = a F / b, the density of t is that of sin^(a-1) t cos^(b-1) t.
    """
    t = np.linspace(0, np.pi / 2, 200_001)
    middle = (t[1:] + t[:-1]) / 2
    below = np.concatenate([[0.0], np.cumsum(np.sin(middle) ** (a - 1) * np.cos(middle) ** (b - 1))])
    return b / a * np.tan(np.interp(levels, below / below[-1], t)) ** 2


def ratio_of_spreads(values: Sequence[float], others: Sequence[float]) -> Interval:
    """The standard deviation of a few independent values over that of others, such as one per search, with its 95% interval.

    From the F distribution, so for values that are normal; three values against three can be told apart if the ratio is beyond 6.2.
    Without bounds where one side has a single value, or all its values are equal.
    """
    if min(len(values), len(others)) < 2:
        return Interval(np.nan, np.nan, np.nan)
    top, bottom = float(np.std(values, ddof=1)), float(np.std(others, ddof=1))
    if top == 0 or bottom == 0:
        return Interval(top / bottom if bottom else np.inf if top else np.nan, np.nan, np.nan)
    low, high = _f_quantiles(len(values) - 1, len(others) - 1, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) ** 0.5
    return Interval(top / bottom, float(top / bottom / high), float(top / bottom / low))


def over_sigmas(metric: np.ndarray, sigmas: Sequence[float] = SIGMAS) -> np.ndarray:
    """A number per image: the mean over the given noise levels (and digits) of an array (11, N) or (11, N, digits)."""
    rows = [SIGMAS.index(sigma) for sigma in sigmas]
    chosen = metric[rows].astype(np.float64)
    return chosen.mean(axis=tuple(i for i in range(chosen.ndim) if i != 1))


@lru_cache(maxsize=8)
def _draws(seeds: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Resampled seeds (DRAWS, seeds) and weights of images (DRAWS, images): the same for all comparisons of one size."""
    rng = np.random.default_rng(0)
    return rng.integers(seeds, size=(DRAWS, seeds)), rng.multinomial(images, np.full(images, 1 / images), size=DRAWS) / images


def bootstrap(values: dict[int, np.ndarray], statistic: Callable[[np.ndarray], np.ndarray] = lambda means: means) -> Interval:
    """The mean over seeds of a statistic of the mean over images, with an interval from resampling seeds and images.

    `values[seed]` has the images as its last axis: (N,), such as `over_sigmas` gives, or (..., N). `statistic` takes the means over
    images, (seeds, ...) or of all draws at once (seeds, ..., DRAWS), and gives a number for each seed (and draw).
    """
    matrix = np.stack([values[key] for key in sorted(values)])
    pick_seeds, weights = _draws(len(matrix), matrix.shape[-1])
    by_seed = statistic(matrix @ weights.T)  # (seeds, DRAWS)
    low, high = np.quantile(by_seed[pick_seeds, np.arange(DRAWS)[:, None]].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(statistic(matrix.mean(-1)).mean()), float(low), float(high))


def bootstrap_of_means(values: dict[int, np.ndarray], statistic: Callable[[np.ndarray], np.ndarray]) -> Interval:
    """A statistic of the mean over seeds and images, with an interval from resampling both.

    `values[seed]` has the images as its last axis: (..., N). `statistic` takes means (..., draws) and gives a number for each draw.
    """
    matrix = np.stack([values[key] for key in sorted(values)])
    pick_seeds, weights = _draws(len(matrix), matrix.shape[-1])
    picked = (pick_seeds[..., None] == np.arange(len(matrix))).mean(1)  # (DRAWS, seeds): the share of each seed
    drawn = statistic(np.einsum("s...d,ds->...d", matrix @ weights.T, picked))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(statistic(matrix.mean((0, -1))[..., None])[0]), float(low), float(high))


def widened(by_seed: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Values by seed, (11, N, ...), whose seeds lie so much farther apart that bootstrap intervals are as wide as Student's.

    Resampling n seeds finds too small a spread, by the square root of (n - 1) / n, and takes it for known, where Student's t does
    not; both together are a factor of 2.7 for three seeds. Means, and what images differ in, stay as they are.
    """
    n = len(by_seed)
    if n < 2:
        return by_seed
    factor = _T[min(n, max(_T))] / 1.96 * (n / (n - 1)) ** 0.5
    level = {seed: array.astype(np.float64).mean(tuple(range(1, array.ndim)), keepdims=True) for seed, array in by_seed.items()}
    middle = sum(level.values()) / n
    return {seed: array + (factor - 1) * (level[seed] - middle) for seed, array in by_seed.items()}
