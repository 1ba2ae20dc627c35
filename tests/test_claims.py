"""Verdicts in five words: from made-up effects, and from the published results against
comparisons.csv.
"""

import math

import numpy as np
import pandas as pd
import pytest

from dcnas.data.noise import SIGMAS
from dcnas.models import JOINING
from dcnas.paths import figures_dir, notebooks_dir
from dcnas.study import claims, instruments
from dcnas.study.claims import (
    CONTRADICTED,
    DIRECTION,
    INCONCLUSIVE,
    NOT_TESTABLE,
    REPRODUCED,
    Assumptions,
    judge,
    narrow,
)
from dcnas.study.comparisons import Evidence, asked, compared
from dcnas.study.results import Results, results
from dcnas.study.stats import (
    Interval,
    bootstrap,
    bootstrap_of_means,
    contrast,
    of_few,
    of_median,
    ratio_of_spreads,
    spearman,
)

PLAIN = dict(
    claim="C01",
    primary=True,
    comparison="a - b",
    ask="> 0",
    paper=1.0,
    seeds=3,
    budget_pct=50.0,
    failed=None,
)


@pytest.mark.parametrize(
    "effect, change, word",
    [
        (Interval(0.9, 0.5, 1.3), {}, REPRODUCED),
        (Interval(3.0, 2.6, 3.4), {}, DIRECTION),  # three times the paper's
        # no word about size below a tenth of the images
        (Interval(0.9, 0.5, 1.3), dict(budget_pct=0.5), DIRECTION),
        (Interval(0.2, -0.1, 0.5), {}, INCONCLUSIVE),
        (Interval(0.2, -2.0, 2.4), {}, INCONCLUSIVE),
        (Interval(-0.9, -1.3, -0.5), {}, CONTRADICTED),
        (Interval(-0.9, -1.3, -0.5), dict(budget_pct=0.5), NOT_TESTABLE),
        (Interval(-0.9, -1.7, -0.1), {}, NOT_TESTABLE),  # cannot see half of the paper's effect
        (Interval(0.9, 0.5, 1.3), dict(failed="latencies differ by +22%"), NOT_TESTABLE),
        (Interval(0.9, math.nan, math.nan), dict(seeds=1), NOT_TESTABLE),
        (Interval(-7.1, -8.4, -5.7), dict(ask="< 0", paper=-7.0), REPRODUCED),
        (Interval(7.1, 6.4, 7.7), dict(ask="< 0", paper=-7.0), CONTRADICTED),
        (Interval(1.2, 1.1, 1.3), dict(ask="> 1", paper=1.3), REPRODUCED),  # a ratio
        (Interval(0.1, -0.2, 0.4), dict(ask="equal within 0.5", paper=0.0), REPRODUCED),
        (Interval(0.9, 0.8, 1.0), dict(ask="equal within 0.5", paper=0.0), CONTRADICTED),
        (Interval(0.4, 0.1, 0.7), dict(ask="equal within 0.5", paper=0.0), INCONCLUSIVE),
        (Interval(0.4, -2.1, 2.9), dict(ask="equal within 0.5", paper=0.0), NOT_TESTABLE),
    ],
)
def test_each_word(effect, change, word):
    found, why = judge(PLAIN | dict(effect=effect) | change)
    assert found == word and why


def test_two_one_sided_tests_have_the_interval_of_90_percent():
    values = np.array([0.1, 0.3, 0.5, 0.2])
    narrower = narrow(of_few(values), len(values))
    from scipy import stats

    assert narrower.high == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(0.9).high)


# ---- what is asked


def test_each_claim_has_one_primary_comparison_that_can_be_made():
    rows = asked()
    assert rows.groupby("claim")["primary"].agg(lambda p: (p == "yes").sum()).eq(1).all()
    assert list(dict.fromkeys(rows["claim"])) == list(claims.paper_claims().index)
    assert rows["claim"].nunique() == 27
    primary = rows[rows["primary"] == "yes"]
    assert primary["ask"].str.fullmatch(r"[<>] [\d.]+|equal within [\d.]+").all()
    assert (primary["paper"] + primary["effect"]).ne("").all()  # the paper's effect
    checks = {text.split(" ")[0] for text in primary["instrument"] for text in text.split(" ; ") if text}
    assert checks <= set(instruments.CHECKS)


@pytest.fixture(scope="module")
def published():
    return claims.comparisons()


def test_every_row_can_be_compared_as_published(published):
    missing = len(asked()) - len(published)
    assert missing <= 4
    assert all(row["claim"] == "C11" or "equal" in row["comparison"] for row in published[:0])
    table = claims.ledger(published)
    assert list(table.index) == list(claims.paper_claims().index)
    assert set(table["verdict"]) <= set(claims.WORDS)
    assert (table["why"] != "").all()
    for row in published:
        if row["primary"] and judge(row)[0] == CONTRADICTED:
            assert row["budget_pct"] is None or row["budget_pct"] >= 10


def test_the_tables_are_those_that_were_published(published):
    """README, book and notebook 05 take the words from this file."""
    stored = pd.read_csv(figures_dir() / "section_5_ledger.csv", index_col="claim")
    assert claims.ledger(published)["verdict"].to_dict() == stored["verdict"].to_dict()


def test_the_paper_s_numbers():
    rows = {row["claim"]: row for row in compared() if row["primary"]}
    expected = {
        "C01": 0.9,
        "C02": -7.0,
        "C03": 0.048,
        "C12": 5.2,
        "C14": 0.42,
        "C16": 2.1,
        "C21": 1.0,
        "C23": 0.5,
        "C27": 0.8,
    }
    assert {claim: rows[claim]["paper"] for claim in expected} == pytest.approx(expected)
    assert rows["C01"]["budget_pct"] == pytest.approx(100, rel=0.001)
    assert rows["C12"]["budget_pct"] == pytest.approx(0.53, abs=0.01)
    assert rows["C17"]["paper"] == pytest.approx(0.57 / 0.04)


def test_a_comparison_is_of_seeds_that_all_share_and_of_the_same_images():
    nets = results("table_3", "published")
    scores = nets.scores("psnr")
    names = [f"DC-Net Reduced {joining.capitalize()}" for joining in JOINING]
    means = [np.mean([scores[name, seed].astype(float).mean() for seed in range(3)]) for name in names]
    evidence = Evidence()
    start = "reduced: Integrated minus Sequential in dB, mean over eleven"
    row = next(r for r in compared(["C12"], evidence) if r["comparison"].startswith(start))
    assert row["effect"].mean == pytest.approx(means[0] - means[1]) and row["seeds"] == 3
    each = [
        scores[names[0], s].astype(float).mean() - scores[names[1], s].astype(float).mean()
        for s in range(3)
    ]
    assert row["effect"] == pytest.approx(of_few(each))


def test_instruments_name_what_fails_with_its_number():
    row = dict(precondition="", instrument="supernet noisy M", group="table_5")
    assert "where the largest class has 41.8%" in instruments.failed_check(row, Evidence())
    row = dict(precondition="DC-NAS S - DC-Net_tail b=equal", instrument="", group="table_5")
    assert instruments.failed_check(row, Evidence()).startswith("latencies differ by")
    assert (
        instruments.failed_check(dict(precondition="", instrument="", group="table_3"), Evidence())
        is None
    )


def test_other_networks_can_stand_in_their_place():
    """Clipped twins: the two reduced DC-Nets with each other's scores give the opposite sign."""
    nets = results("table_3", "published")
    names = [f"DC-Net Reduced {joining.capitalize()}" for joining in JOINING]
    swap = dict(zip(names, names[::-1]))

    def exchanged(rows):
        return rows.assign(label=rows["label"].replace(swap))

    sides = (compared(["C12"], Evidence(select=select)) for select in (lambda rows: rows, exchanged))
    plain, other = ({row["comparison"]: row["effect"].mean for row in side} for side in sides)
    one = next(
        text
        for text in plain
        if text.startswith("reduced: Integrated minus Sequential in dB, mean over eleven")
    )
    assert other[one] == pytest.approx(-plain[one]) and isinstance(nets, Results)
    twins = pd.DataFrame(
        [["a, clipped", "laptop"], ["b, clipped", "paper"], ["a", "laptop"]], columns=["label", "scale"]
    )
    rows = pd.DataFrame({"label": ["a", "b"], "scale": "laptop"})
    assert claims.twins_of(rows, twins).to_numpy().tolist() == [["a", "laptop"]]


# ---- assumptions


def test_pooling_has_the_pooled_psnr_as_its_mean():
    psnr = np.random.default_rng(0).normal(25, 3, (len(SIGMAS), 200))
    error = (10 ** (-psnr / 10)).mean(1)
    assert claims.pooled(psnr).mean(1) == pytest.approx(-10 * np.log10(error), abs=1e-9)


def test_without_zero_a_mean_over_eleven_levels_is_that_over_ten():
    scores = {("a", 0): np.arange(22.0).reshape(11, 2), ("b", 0): np.zeros((11, 2))}
    changed = Assumptions(without_zero=True).change(scores, "psnr", clean=False)
    ten = contrast(scores, {"a": 1.0}, SIGMAS[1:])[0].mean
    assert contrast(changed, {"a": 1.0, "b": -1.0})[0].mean == pytest.approx(ten)
    assert Assumptions(without_zero=True).change(scores, "psnr", clean=True) is scores


def test_sixteen_combinations_are_stored():
    stored = pd.read_csv(figures_dir() / "section_5_assumptions.csv", index_col=0)
    assert len(stored) == 16 and set(claims.paper_claims().index) <= set(stored)
    plain = stored[(~stored[["without_zero", "pooled", "clipped", "images"]]).all(axis=1)].iloc[0]
    assert (
        plain["C02"]
        == pd.read_csv(figures_dir() / "section_5_ledger.csv", index_col="claim")["verdict"]["C02"]
    )


def test_the_paper_s_inconsistencies_are_named_with_the_notebook_that_shows_them():
    odd = claims.inconsistencies()
    text = odd.apply(lambda row: " ".join([row.name, *row]), axis=1)
    for words in (
        ("350 K", "305 K"),
        ("Section 4.3, Exp 2", "Table 5"),
        ("without waiting", "not named"),
    ):
        assert any(all(word in line for word in words) for line in text), words
    assert all(
        any(path.name.startswith(start) for path in notebooks_dir().glob("*.ipynb"))
        for start in odd["shown in"]
    )


# ---- statistics, against scipy and by simulation


def test_the_bootstrap_resamples_seeds_and_images():
    images = np.random.default_rng(0).normal(20, 3, (11, 30))
    alone = contrast({("a", 0): images}, {"a": 1.0}, [0.4])[0]
    apart = contrast({("a", 0): images, ("a", 1): images + 10}, {"a": 1.0}, [0.4])[0]
    assert alone.mean == pytest.approx(images[4].mean()) and alone.low < alone.mean < alone.high
    assert apart.high - apart.low > 9 > alone.high - alone.low
    # no shared seed
    assert contrast({("a", 0): images, ("b", 1): images}, {"a": 1.0, "b": -1.0}) is None


def test_rank_correlations():
    means = np.arange(4.0)[:, None]
    assert spearman(means, means) == 1 and spearman(means, means[::-1]) == -1
    assert spearman(np.array([[1.0], [1.0], [2.0]]), np.array([[1.0], [2.0], [3.0]])) == pytest.approx(
        0.75**0.5
    )
    torn = np.stack([np.arange(4.0), np.arange(4.0)[::-1]])[:, :, None] + np.zeros((2, 4, 30))
    effect = bootstrap_of_means(torn, lambda m: spearman(m, np.broadcast_to(means, m.shape)))
    assert effect.low == -1 and effect.high == 1


def test_medians_and_spreads():
    for n, rank in ((6, 1), (60, 22), (100, 40)):  # of the lower bound, in tables of the sign test
        assert of_median(np.arange(1, n + 1)[::-1]) == Interval((n + 1) / 2, rank, n + 1 - rank)
    values = np.array([1.0, 2.0, 3.0])
    found = ratio_of_spreads(10 + 2 * values, values)
    assert found.mean == pytest.approx(2.0) and found.high == pytest.approx(2 * math.sqrt(39), rel=1e-4)
    assert math.isnan(ratio_of_spreads([1.0, 1.0, 1.0], values).low)


def test_student_s_interval_over_seeds_holds_the_truth_and_the_bootstrap_s_less_often():
    rng, held = np.random.default_rng(0), []
    for _ in range(200):
        seeds = rng.normal(0, 1, 3)[:, None] + rng.normal(0, 1, 100)
        both = of_few(seeds.mean(1)), bootstrap(seeds)
        held.append([i.low < 0 < i.high for i in both])
    student, over_images = np.mean(held, 0)
    assert student > 0.92 and over_images < student
