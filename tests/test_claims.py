"""Verdicts on made-up effects."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from dcnas.study import latencies
from dcnas.study.claims import judge, overall, verdict_table, verdict_text
from dcnas.study.comparisons import Evidence
from dcnas.study.stats import Interval, of_median

NAN = math.nan


@pytest.mark.parametrize(
    ("effect", "asked", "verdict"),
    [
        (Interval(1.0, 0.2, 1.8), {}, "reproduced"),
        (Interval(-1.0, -1.8, -0.2), {}, "not reproduced"),
        (Interval(0.5, -0.1, 1.1), {}, "undecided"),
        (Interval(0.5, 0.0, 1.1), {}, "undecided"),  # touches the threshold
        (Interval(5.0, 4.8, 5.2), {"threshold": 5.5}, "not reproduced"),
        (Interval(5.0, 4.8, 5.7), {"threshold": 5.5}, "undecided"),
        (Interval(-1.0, -1.8, -0.2), {"direction": "<"}, "reproduced"),
        (Interval(1.0, 0.2, 1.8), {"direction": "<"}, "not reproduced"),
        (Interval(0.7, 0.5, 0.9), {"direction": "<", "threshold": 0.8}, "undecided"),
        (Interval(-6.8, -7.3, -6.3), {"direction": "about", "threshold": -7, "margin": 1}, "reproduced"),
        (Interval(-4.0, -4.5, -3.5), {"direction": "about", "threshold": -7, "margin": 1}, "not reproduced"),
        (Interval(-6.8, -8.5, -5.5), {"direction": "about", "threshold": -7, "margin": 1}, "undecided"),
        (Interval(1.0, NAN, NAN), {}, "undecided"),
        (Interval(1.0, NAN, NAN), {"direction": "<"}, "undecided"),
        (Interval(1.0, NAN, NAN), {"direction": "about", "margin": 2}, "undecided"),
        (Interval(1.0, 0.2, 1.8), {"seeds": 1}, "undecided (one seed)"),
        (Interval(1.0, 0.2, 1.8), {"seeds": 3}, "reproduced"),
    ],
)
def test_each_verdict(effect, asked, verdict):
    assert judge(effect, **asked) == verdict


def test_a_claim_of_several_parts_is_as_good_as_its_worst():
    assert overall(["reproduced", "reproduced"]) == "reproduced"
    assert overall(["reproduced", "undecided"]) == "undecided"
    assert overall(["undecided", "not reproduced"]) == "not reproduced"
    assert overall(["reproduced", "undecided (one seed)"]) == "undecided (one seed)"


def test_table_and_text_take_statements_from_the_paper():
    rows = [
        {"claim": "C01", "comparison": "MB2.5-M minus Conv-L", "effect": Interval(1.234, 0.5, 2.0), "seeds": 3, "paper": 0.9},
        {"claim": "C01", "comparison": "MB4-L minus Conv-L", "at": "σ = 0", "effect": Interval(0.2, NAN, NAN), "decimals": 1},
    ]
    table = verdict_table(rows)
    assert list(table) == ["claim", "statement", "comparison", "paper", "effect", "95% interval", "verdict"]
    assert table["comparison"][0] == "MB2.5-M minus Conv-L: above 0"
    assert table["comparison"][1] == "MB4-L minus Conv-L, at σ = 0: above 0" and table["paper"].tolist() == ["0.9", "not given"]
    assert table["95% interval"].tolist() == ["0.50 to 2.00", "none"]
    assert table["verdict"].tolist() == ["reproduced", "undecided"]
    assert verdict_text(table).startswith("- **C01, undecided** (1 of 2 comparisons reproduced): MB2.5-M and MB4-L classify better")


def test_bounds_of_what_is_exact_or_not_measured():
    rows = [{"claim": "C03", "comparison": "x", "effect": effect} for effect in (Interval(-3, -3, -3), Interval(NAN, NAN, NAN))]
    assert verdict_table(rows)["95% interval"].tolist() == ["exact", "not measured"]
    assert verdict_table(rows)["verdict"].tolist() == ["not reproduced", "undecided"]


def test_the_latency_difference_is_paired(tmp_path, monkeypatch):
    monkeypatch.setattr(latencies, "latency_dir", lambda: tmp_path)
    load = np.random.default_rng(0).uniform(10, 20, 60)  # what the machine does meanwhile meets both
    slower = load + 0.5 + 0.001 * (np.arange(60) % 3)
    passes = pd.DataFrame({"a": "MB2.5-M", "b": "Conv-L", "round": range(60), "a_ms": slower, "b_ms": load})
    passes.to_csv(tmp_path / "pairs-board.csv", index=False)
    for networks, sign in (("MB2.5-M - Conv-L", 1), ("Conv-L - MB2.5-M", -1)):
        row = SimpleNamespace(metric="pair", networks=networks, sigmas="all", group="tables_1_and_6")
        effect, _, _ = Evidence().effect(row)
        assert effect.mean == pytest.approx(sign * 0.501) and effect.high - effect.low < 0.0021


def test_the_median_has_the_ranks_of_statistical_tables():
    for n, rank in ((6, 1), (60, 22), (100, 40)):  # rank of the lower bound, the smallest value being the first
        assert of_median(np.arange(1, n + 1)[::-1]) == Interval((n + 1) / 2, rank, n + 1 - rank)
    assert of_median([1, 2, 3, 4, 100]).mean == 3 and math.isnan(of_median([1, 2, 3, 4, 100]).low)
    assert math.isnan(of_median([]).mean)
