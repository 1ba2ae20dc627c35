"""Every verdict on every kind of claim, from made-up results with known answers put through the study's own claim functions.

A kind has one comparison here, and four worlds: in one the claim is true, in one it is false, in one seeds (or images) disagree,
and in one there is a single seed.
"""

import math

import numpy as np
import pandas as pd
import pytest
from test_plots_nas import search

from dcnas.study import ledger, paper, plots_classifier, plots_nas, plots_unet
from dcnas.study.compare import BASELINE, REDUCED
from dcnas.study.plots_nas import LEARNED, REMOVED
from dcnas.study.stats import bootstrap, of_few, over_sigmas, ratio_of_spreads, widened

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(0, 0.05, (11, 60))
TRUE, FALSE, TORN, ALONE = WORLDS = ("reproduced", "not reproduced", "undecided", "undecided (one seed)")


def scores(levels: dict[str, float], world: str, digits: bool = False) -> dict:
    """Scores of 60 images about a level for each network; seeds disagree about the first network where that is the answer."""
    first, wobble = next(iter(levels)), 4.0 if world == TORN else 0.0
    found = {
        (label, seed): level + IMAGES + (wobble * (seed - 1) if label == first else 0.0)
        for label, level in levels.items() for seed in range(1 if world == ALONE else 3)
    }  # fmt: skip
    return {key: array[..., None] for key, array in found.items()} if digits else found


def the(rows: list[dict], start: str) -> dict:
    """The comparison whose text begins so."""
    (row,) = (row for row in rows if row["comparison"].startswith(start))
    return row


def order(world: str) -> dict:
    """C04: MB2.5-S classifies better than MB1-S."""
    levels = {"MB2.5-S": 55.0 if world == FALSE else 58.4, "MB1-S": 56.2}
    return the(plots_classifier.claims_of_table_6(scores(levels, world, digits=True)), "accuracy of MB2.5-S minus MB1-S")


def effect(world: str) -> dict:
    """C02: MB1-S loses about 7 points."""
    levels = {"MB1-S": 60.0 if world == FALSE else 56.2, "Conv-L": 63.2}
    return the(plots_classifier.claims_of_table_1(scores(levels, world, digits=True)), "accuracy of MB1-S minus Conv-L")


def equivalence(world: str) -> dict:
    """C22: the large networks of Table 4 are alike."""
    levels = {"D-NAS S upscaled": 28.0 if world == FALSE else 26.6, "UNet b=64 d=5 m=2": 26.5}
    rows = pd.DataFrame({"label": ["other"]})
    return the(plots_nas.denoiser_claims(rows, scores(levels, world), {}), "PSNR, D-NAS S upscaled minus UNet b=64")


def trend(world: str) -> dict:
    """C06: PSNR grows with b. Seeds disagree if one of them has the opposite order."""
    levels = {label: 20.0 - i if world == FALSE else 20.0 + i for i, label in enumerate(plots_unet.B_LINE)}
    found = scores(levels, world if world == ALONE else TRUE)
    if world == TORN:
        found |= {(label, 1): found[label, 1] - 40 * i for i, label in enumerate(levels)}
    return the(plots_unet._claims_b(dict.fromkeys(levels, 1.0), found, 0.8), "rank correlation")


def stability(world: str) -> dict:
    """C17: with beta removed, latencies of searches spread less than with learned beta."""
    near, far, middle = [30.0, 30.1, 29.9], [30.0, 33.0, 27.0], [30.0, 30.3, 29.7]
    removed, learned = {FALSE: (far, near), TORN: (near, middle)}.get(world, (near, far))
    many = 1 if world == ALONE else 3
    rows = [{"beta": beta, "search": i, plots_nas.TABLE_8_MS: ms, "accuracy (%)": 80.0 + i}
            for beta, of_beta in (("removed", removed), ("learned", learned)) for i, ms in enumerate(of_beta[:many])]  # fmt: skip
    searched = [search(label, seed, 0, 30.0) for label in (REMOVED, LEARNED) for seed in range(many)]  # C15 needs some
    table = pd.DataFrame(rows).set_index(["beta", "search"])
    return the(plots_nas.beta_claims(table, {}, searched), "standard deviation of latency")


KINDS = {"order": order, "effect": effect, "equivalence": equivalence, "trend": trend, "stability": stability}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_claim_can_have_each_verdict(kind, world):
    row = KINDS[kind](world)
    assert paper.claims()["kind"][row["claim"]] == kind
    assert ledger.verdict_of(row) == world, row
    assert ledger.ledger([row])["verdict"].tolist() == [world]


def test_no_kind_of_claim_is_left_out():
    assert set(paper.claims()["kind"]) == set(KINDS)


def test_the_paper_s_number_stands_beside_the_comparison():
    assert order(TRUE)["paper"] == 2.2 and effect(TRUE)["paper"] == effect(TRUE)["threshold"] == -7.0
    assert equivalence(TRUE)["paper"] == pytest.approx(-0.1) and "paper" not in trend(TRUE)
    assert stability(TRUE)["paper"] == pytest.approx(0.57 / 0.04)
    losses = plots_unet._claims_reduced({BASELINE: 25.4, REDUCED: 1.0}, scores({REDUCED: 23.3, BASELINE: 23.8}, TRUE))
    assert the(losses, "largest loss in dB of Table 2")["paper"] == 0.8  # 29.5 - 28.7
    everywhere = the(losses, "largest loss in dB of all eleven")
    assert "paper" not in everywhere and everywhere["threshold"] == 0.8 and everywhere["at"].startswith("σ = ")


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
