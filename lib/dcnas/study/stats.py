"""Intervals: bootstrap over images and seeds, paired because every model sees the same images and the same noise.

`values[seed]` is an array with a number per image (PSNR, or correctness of its digits), as `over_sigmas` makes it from
`results.per_image`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..data.noise import SIGMAS
from ..errors import InputError

DRAWS = 2_000
LEVEL = 0.95


class Interval(NamedTuple):
    """A mean and the bounds of its 95% interval; the bounds are NaN where there is nothing to resample."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def contains(self, value: float, slack: float = 0.0) -> bool:
        """Whether `value` lies inside, or outside by no more than `slack` (half a unit of a rounded number)."""
        return self.low - slack <= value <= self.high + slack


def over_sigmas(metric: np.ndarray, sigmas: Sequence[float] = SIGMAS) -> np.ndarray:
    """A number per image: the mean over the given noise levels (and digits) of an array (11, N) or (11, N, digits)."""
    rows = [SIGMAS.index(sigma) for sigma in sigmas]
    chosen = metric[rows].astype(np.float64)
    return chosen.mean(axis=tuple(i for i in range(chosen.ndim) if i != 1))


@lru_cache(maxsize=8)
def _draws(seeds: int, images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Resampled seeds (DRAWS, seeds) and weights of images (DRAWS, images): the same for all comparisons of one size."""
    rng = np.random.default_rng(seed)
    return rng.integers(seeds, size=(DRAWS, seeds)), rng.multinomial(images, np.full(images, 1 / images), size=DRAWS) / images


def bootstrap(values: dict[int, np.ndarray], seed: int = 0) -> Interval:
    """The mean over seeds and images, with an interval from resampling both."""
    matrix = np.stack([values[key] for key in sorted(values)])
    pick_seeds, weights = _draws(*matrix.shape, seed)
    means = (matrix @ weights.T)[pick_seeds, np.arange(DRAWS)[:, None]].mean(1)  # (seeds, draws), then the seeds of each draw
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(matrix.mean()), float(low), float(high))


def paired_difference(a: dict[int, np.ndarray], b: dict[int, np.ndarray], seed: int = 0) -> Interval:
    """The mean of a - b over the seeds and images that both have, with its interval; `InputError` if they share no seed."""
    shared = sorted(set(a) & set(b))
    if not shared:
        raise InputError(f"the two models share no seed ({sorted(a)} and {sorted(b)}), but a paired difference needs one.")
    return bootstrap({key: a[key] - b[key] for key in shared}, seed)
