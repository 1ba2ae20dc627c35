"""Verdicts in five words, from made-up effects and from the published results; statistics."""

import json
import math
import re

import numpy as np
import pytest
from scipy import stats

from dcnas.data.noise import SIGMAS
from dcnas.models import JOINING
from dcnas.paths import notebooks_dir, root
from dcnas.study import claims, instruments
from dcnas.study.claims import WORDS, counts, judge, narrow
from dcnas.study.comparisons import above_zero, asked, compared, pooled_psnr
from dcnas.study.readme import read_ledger, summary_markdown
from dcnas.study.results import paper, results
from dcnas.study.stats import (
    Interval,
    bootstrap,
    bootstrap_of_means,
    contrast,
    means,
    of_few,
    of_median,
    ratio_of_spreads,
    spearman,
)

REPRODUCED, DIRECTION, INCONCLUSIVE, CONTRADICTED, NOT_TESTABLE = WORDS
PLAIN = dict(claim="C01", primary=True, comparison="a - b", ask="> 0", paper=1.0, seeds=3)
PLAIN |= dict(budget_pct=50.0, failed=None)
REDUCED = [f"DC-Net Reduced {joining.capitalize()}" for joining in JOINING]
MEAN_GAP = "reduced: Integrated minus Sequential in dB, mean over eleven"


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
        (Interval(1.2, 1.1, 1.3), dict(ask="> 1", paper=1.3), REPRODUCED),  # a ratio
        (Interval(0.1, -0.2, 0.4), dict(ask="equal within 0.5", paper=0.0), REPRODUCED),
        (Interval(0.9, 0.8, 1.0), dict(ask="equal within 0.5", paper=0.0), CONTRADICTED),
        (Interval(0.4, -2.1, 2.9), dict(ask="equal within 0.5", paper=0.0), NOT_TESTABLE),
    ],
)
def test_each_word(effect, change, word):
    found, why = judge(PLAIN | dict(effect=effect) | change)
    assert found == word and why


def test_two_one_sided_tests_have_the_interval_of_90_percent():
    values = np.array([0.1, 0.3, 0.5, 0.2])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9).high
    assert narrow(of_few(values), len(values)).high == pytest.approx(expected)


def test_each_claim_has_one_primary_comparison_that_can_be_made():
    rows, names = asked(), list(paper("claims", "id").index)
    primary = rows[rows["primary"] == "yes"]
    assert list(dict.fromkeys(rows["claim"])) == list(primary["claim"]) == names and len(names) == 27
    assert primary["ask"].str.fullmatch(r"[<>] [\d.]+|equal within [\d.]+").all()
    assert primary["paper"].ne("").all()  # the paper's effect
    checks = {text.split(" ")[0] for text in primary["instrument"] for text in text.split(" ; ") if text}
    assert checks <= set(instruments.CHECKS)


@pytest.fixture(scope="module")
def published():
    return claims.comparisons()


def test_the_paper_s_numbers(published):
    rows = {row["claim"]: row for row in published if row["primary"]}
    expected = dict(C01=0.9, C02=-7.0, C03=0.048, C12=5.2, C14=0.42, C16=2.1, C21=1.0, C23=0.5, C27=0.8)
    assert {claim: rows[claim]["paper"] for claim in expected} == pytest.approx(expected)
    assert rows["C17"]["paper"] == pytest.approx(0.57 / 0.04)
    budgets = {claim: rows[claim]["budget_pct"] for claim in ("C01", "C12")}
    assert budgets == pytest.approx(dict(C01=100, C12=0.53), rel=0.02)


def effect_of_c12(**options):
    return next(row for row in compared(["C12"], **options) if row["comparison"].startswith(MEAN_GAP))


def test_a_comparison_is_of_seeds_that_all_share_and_of_the_same_images():
    scores = results("table_3", "published").scores("psnr")
    a, b = ([np.mean(scores[label, s], dtype=float) for s in range(3)] for label in REDUCED)
    row = effect_of_c12()
    assert row["effect"] == pytest.approx(of_few(np.subtract(a, b))) and row["seeds"] == 3


def test_pooling_has_the_pooled_psnr_as_its_mean():
    psnr = np.random.default_rng(0).normal(25, 3, (len(SIGMAS), 200))
    error = (10 ** (-psnr / 10)).mean(1)
    assert pooled_psnr(psnr).mean(1) == pytest.approx(-10 * np.log10(error), abs=1e-9)


def test_without_zero_a_mean_over_eleven_levels_is_that_over_ten():
    scores = {("a", 0): np.arange(22.0).reshape(11, 2), ("b", 0): np.zeros((11, 2))}
    changed = above_zero(scores)
    ten = contrast(scores, {"a": 1.0}, SIGMAS[1:])[0].mean
    assert contrast(changed, {"a": 1.0, "b": -1.0})[0].mean == pytest.approx(ten)


def test_the_bootstrap_resamples_seeds_and_images():
    images = np.random.default_rng(0).normal(20, 3, (11, 30))
    alone = means({("a", 0): images}, ["a"], [0.4])["a"]
    apart = means({("a", 0): images, ("a", 1): images + 10}, ["a"], [0.4])["a"]
    assert alone.mean == pytest.approx(images[4].mean()) and alone.low < alone.mean < alone.high
    assert apart.high - apart.low > 9 > alone.high - alone.low


def test_a_contrast_pairs_images_and_shared_seeds():
    """What the images have in common is far larger than what tells a from b; b has fewer images."""
    rng = np.random.default_rng(0)
    images = rng.normal(20, 3, (11, 30))
    scores = {("a", seed): images + 1 + 0.1 * rng.normal(size=(11, 30)) for seed in (0, 1)}
    scores |= {("b", seed): images[:, :25] + 0.1 * rng.normal(size=(11, 25)) for seed in (1, 2)}
    effect, seeds = contrast(scores | {("c", 7): images}, {"a": 1.0, "b": -1.0})
    assert seeds == 1
    assert effect.mean == pytest.approx((scores["a", 1][:, :25] - scores["b", 1]).mean())
    assert 0.9 < effect.low < effect.mean < effect.high < 1.1
    assert contrast(scores, {"a": 1.0, "c": -1.0}) is None  # no shared seed


def test_rank_correlations():
    order = np.arange(4.0)[:, None]
    assert spearman(order, order) == 1 and spearman(order, order[::-1]) == -1
    tied, plain = np.array([[1.0], [1.0], [2.0]]), np.arange(3.0)[:, None]
    assert spearman(tied, plain) == pytest.approx(stats.spearmanr(tied, plain).statistic)
    torn = np.stack([np.arange(4.0), np.arange(4.0)[::-1]])[:, :, None] + np.zeros((2, 4, 30))
    effect = bootstrap_of_means(torn, lambda m: spearman(m, np.broadcast_to(order, m.shape)))
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


README = (root() / "README.md").read_text()
COUNTS = counts(read_ledger()["verdict"])
ANSWER = README.split("## What was found")[1].split("![")[0]


def test_readme_begins_with_the_answer_of_the_ledger():
    table, top = read_ledger(), README.split("## Two commands")[0]
    assert COUNTS in ANSWER and table["why"]["C15"] in ANSWER and "figures/section_5_glance.png" in top
    for claim in ("C12", "C02", "C20", "C15"):
        assert f"*{table['verdict'][claim]}*" in ANSWER
    assert summary_markdown() in README


def test_no_number_stands_in_the_readme_s_answer_that_the_ledger_lacks():
    table = read_ledger()
    own = set(re.findall(r"\d+\.\d+", ANSWER))
    columns = ("paper", "ours", "images (% of the paper's)")
    known = [abs(float(value)) for name in columns for value in table[name]]
    assert own and all(any(abs(float(number) - value) < 0.051 for value in known) for number in own)


def test_book_and_conclusion_have_the_same_counts():
    index = (notebooks_dir() / "index.md").read_text()
    assert "{include} ../README.md" in index and ':end-before: "## Two commands"' in index
    cells = json.loads((notebooks_dir() / "05_conclusion.ipynb").read_text())["cells"]
    outputs = [out.get("data", {}) for cell in cells for out in cell.get("outputs", ())]
    assert COUNTS in "".join("".join(data.get("text/markdown", "")) for data in outputs)


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(((?!https?:|#)[^)]+)\)", README)
    missing = [link for link in links if not (root() / link.split("#")[0]).exists()]
    assert len(links) > 20 and not missing
