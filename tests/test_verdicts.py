"""Intervals of spreads over searches and over seeds hold the truth as often as they say."""

import math

import numpy as np
import pytest

from dcnas.study.stats import bootstrap, of_few, over_sigmas, ratio_of_spreads, widened

IMAGES = np.random.default_rng(0).normal(0, 0.05, (11, 60))


# ---- spread over searches


def test_three_searches_against_three_are_told_apart_beyond_six():
    values = np.array([1.0, 2.0, 3.0])
    found = ratio_of_spreads(10 + 2 * values, values)
    assert found.mean == pytest.approx(2.0)  # the F distribution with 2 and 2 degrees of freedom has p / (1 - p) as its quantiles
    assert found.low == pytest.approx(2 / math.sqrt(39), rel=1e-4) and found.high == pytest.approx(2 * math.sqrt(39), rel=1e-4)
    many = ratio_of_spreads([*values, 4.0, 5.0], values)  # 4 and 2 degrees of freedom: no longer the same on both sides
    assert (many.high / many.mean) ** 2 == pytest.approx(10.649, rel=1e-3)  # F with 2 and 4, at 97.5%
    assert (many.mean / many.low) ** 2 == pytest.approx(39.248, rel=1e-3)  # F with 4 and 2
    assert ratio_of_spreads(6.2 * values, values).low < 1 < ratio_of_spreads(6.3 * values, values).low


def test_the_interval_of_a_ratio_of_spreads_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [ratio_of_spreads(rng.normal(0, 3, 3), rng.normal(0, 1, 3)) for _ in range(400)]
    assert 0.92 < np.mean([i.low < 3 < i.high for i in intervals]) < 0.98


@pytest.mark.parametrize(("values", "others"), [([1.0], [1.0, 2.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([1.0, 2.0], [5.0, 5.0])])
def test_without_spread_there_is_no_interval(values, others):
    found = ratio_of_spreads(values, others)
    assert math.isnan(found.low) and math.isnan(found.high)
    assert math.isnan(of_few(values[:1]).low)


# ---- spread over seeds


@pytest.mark.parametrize(("seeds", "ratio", "plain", "wide"), [
    (3, 0.3, (0.90, 0.99), (0.92, 1.0)),  # seeds differ less than images do
    (3, 10, (0.66, 0.82), (0.91, 0.98)),  # three seeds that differ far more
    (5, 10, (0.80, 0.92), (0.91, 0.98)),
])  # fmt: skip
def test_widened_seeds_hold_the_truth_as_often_as_they_say_and_the_bootstrap_s_own_less_often(seeds, ratio, plain, wide):
    rng, held = np.random.default_rng(0), []
    for _ in range(250):
        images = rng.normal(0, 1, 100)
        by_seed = {seed: np.tile(rng.normal(0, ratio / 10) + images, (11, 1)) for seed in range(seeds)}
        found = [bootstrap({seed: over_sigmas(values) for seed, values in of.items()}) for of in (by_seed, widened(by_seed))]
        held.append([i.low < 0 < i.high for i in found])
    shares = np.mean(held, 0)
    assert plain[0] < shares[0] < plain[1] and wide[0] < shares[1] <= wide[1], shares


def test_widened_seeds_keep_their_mean_and_what_images_differ_in():
    by_seed = {seed: IMAGES + seed for seed in range(3)}
    found = widened(by_seed)
    assert sum(found.values()) / 3 == pytest.approx(IMAGES + 1)
    assert found[2] - found[0] == pytest.approx(2 * 4.30265 / 1.96 * 1.5**0.5)
    assert widened({0: IMAGES})[0] is IMAGES
