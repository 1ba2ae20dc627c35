"""The ledger: verdicts of claims from comparisons with known answers, and what assumptions do to scores."""

import numpy as np
import pytest

from dcnas.data.noise import SIGMAS
from dcnas.study import ledger, paper
from dcnas.study.claims import judge
from dcnas.study.compare import contrast
from dcnas.study.ledger import Assumptions, clearance
from dcnas.study.stats import Interval

ROWS = [
    {"claim": "C01", "comparison": "a", "effect": Interval(2, 1, 3), "seeds": 3},
    {"claim": "C01", "comparison": "b", "effect": Interval(1, -1, 3), "seeds": 3},
    {"claim": "C02", "comparison": "c", "effect": Interval(-7, -7.5, -6.5), "threshold": -7, "direction": "about", "margin": 1},
    {"claim": "C03", "comparison": "d", "effect": Interval(-2, -3, -1), "seeds": 3},
    {"claim": "C04", "comparison": "e", "effect": Interval(2, 1, 3), "seeds": 1},
    {"claim": "C10", "comparison": "f", "effect": Interval(25.4, 25.4, 25.4), "threshold": 25},
]


def test_each_verdict_at_least_once():
    found = ledger.verdicts(ROWS)
    assert found[["C01", "C02", "C03", "C04", "C05", "C10"]].tolist() == [
        "undecided", "reproduced", "not reproduced", "undecided (one seed)", "no results", "reproduced",
    ]  # fmt: skip
    assert list(found.index) == list(paper.claims().index)


def test_the_summary_counts_comparisons_and_seeds():
    table = ledger.summary([*ROWS, ROWS[0] | {"seeds": 1}])
    assert table.loc["C01", "comparisons"] == 3 and table.loc["C01", "seeds"] == "1 to 3"
    assert table.loc["C05", "comparisons"] == 0 and table.loc["C02", "seeds"] == ""
    assert ledger.ledger(ROWS).loc["C03", "claim's verdict"] == "not reproduced"


@pytest.mark.parametrize("direction", [">", "<", "about"])
def test_clearance_agrees_with_the_verdict(direction):
    rng = np.random.default_rng(0)
    for _ in range(300):
        mean = rng.normal(0, 2)
        effect = Interval(mean, mean - rng.exponential(), mean + rng.exponential())
        row = {"effect": effect, "threshold": 0.3, "direction": direction, "margin": 1.5 if direction == "about" else 0.0}
        value = clearance(row)
        word = judge(effect, **{k: v for k, v in row.items() if k != "effect"})
        assert word == ("reproduced" if value > 1 else "not reproduced" if value < -1 else "undecided"), (row, value)
    assert clearance({"effect": Interval(2, 2, 2)}) == np.inf and np.isnan(clearance({"effect": Interval(2, np.nan, np.nan)}))


def test_pooling_has_the_pooled_psnr_as_its_mean():
    psnr = np.random.default_rng(0).normal(25, 3, (len(SIGMAS), 200))
    error = (10 ** (-psnr / 10)).mean(1)
    assert ledger.pooled(psnr).mean(1) == pytest.approx(-10 * np.log10(error), abs=1e-9)
    samples = np.random.default_rng(1).integers(200, size=(2000, 200))  # and the spread of the bootstrapped pooled PSNR
    real = -10 * np.log10((10 ** (-psnr[0] / 10))[samples].mean(1))
    linear = ledger.pooled(psnr)[0][samples].mean(1)
    assert linear.std() == pytest.approx(real.std(), rel=0.1)


def test_without_zero_a_mean_over_eleven_levels_is_that_over_ten():
    scores = {("a", 0): np.arange(22.0).reshape(11, 2), ("b", 0): np.zeros((11, 2))}
    changed = Assumptions(without_zero=True).apply(scores, "psnr")
    assert contrast(changed, {"a": 1.0, "b": -1.0})[0].mean == pytest.approx(contrast(scores, {"a": 1.0}, SIGMAS[1:])[0].mean)
    assert (changed["a", 0][1:] == scores["a", 0][1:]).all()
    assert Assumptions().apply(scores, "psnr") is scores


def test_what_moved_is_listed():
    before, after = ledger.verdicts(ROWS), ledger.verdicts(ROWS[1:])
    assert before["C01"] == "undecided" and ledger.moved(before, after).empty
    after = ledger.verdicts([row for row in ROWS if row["comparison"] != "b"])
    assert ledger.moved(before, after).loc["C01"].tolist() == ["undecided", "reproduced"]


def test_the_glance_has_a_mark_for_each_comparison_with_an_interval():
    figure = ledger.glance([*ROWS, {"claim": "C17", "comparison": "g", "effect": Interval(1, np.nan, np.nan)}])
    marks = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert len(marks) == len(ROWS) and max(float(line.get_xdata()[0]) for line in marks) == 4.0  # an exact one at the end
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()][2] == "C03  not reproduced"
