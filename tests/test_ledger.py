"""The ledger: verdicts of claims from comparisons with known answers, and what assumptions do to scores."""

import numpy as np
import pandas as pd
import pytest
from dcnas.study.scales import SCALES

from dcnas.data.noise import SIGMAS
from dcnas.models import JOINING
from dcnas.paths import notebooks_dir, paper_dir
from dcnas.study import ledger, paper
from dcnas.study import results3 as results
from dcnas.study.claims import judge
from dcnas.study.ledger import Assumptions, clearance
from dcnas.study.stats import Interval, contrast

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
    rows = [row | {"scale": "timed" if row["claim"] == "C10" else "laptop"} for row in ROWS]
    table = ledger.summary([*rows, rows[0] | {"seeds": 1, "scale": "counted"}])
    assert table.loc["C01", "parts"] == "1 of 3" and table.loc["C01", "seeds"] == "1 to 3"
    assert table.loc["C05", "parts"] == "0 of 0" and table.loc["C02", "seeds"] == "" and list(table)[-1] == "verdict"
    wide = [row | {"effect": Interval(2, -1, 5)} if row["comparison"] == "d" else row for row in rows]
    table = ledger.summary(rows, wide)
    assert (
        table.loc["C03"].tolist()[-2:] == ["not reproduced", "undecided"] and table.loc["C02"].tolist()[-2:] == ["reproduced"] * 2
    )
    assert table["scale"][["C01", "C05", "C10"]].tolist() == ["laptop", "", "timed"]
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


def test_student_s_intervals_are_wider_about_the_same_effect():
    scores = {(label, seed): np.full((11, 20), 20.0 + place * seed) for label, place in (("a", 1), ("b", 0)) for seed in range(3)}
    changed = Assumptions(student=True).apply(scores, "psnr")
    plain, wide = (contrast(found, {"a": 1.0, "b": -1.0})[0] for found in (scores, changed))
    assert (
        plain == pytest.approx((1, 0, 2))
        and wide.mean == pytest.approx(1)
        and wide.high - wide.low == pytest.approx(5.38, abs=0.01)
    )


def test_twins_are_those_of_the_same_scale_under_the_plain_names():
    rows = pd.DataFrame({"label": ["a", "b"], "scale": "laptop"})
    labels = {"a, clipped": "laptop", "b, clipped": "paper", "a": "laptop", "c, clipped": "laptop"}
    among = pd.DataFrame([*labels.items()], columns=["label", "scale"])
    assert ledger.twins_of(rows, among).values.tolist() == [["a", "laptop"]]


def test_only_comparisons_whose_networks_all_have_twins_are_clipped():
    of_noise = [row | {"clipped": False} for row in ROWS[:2]]
    twin = ROWS[1] | {"effect": Interval(-2, -3, -1)}  # the first has none
    found = ledger.with_twins([*of_noise, ROWS[2]], [twin, ROWS[2] | {"effect": Interval(0, 0, 0)}])
    assert found == [of_noise[0], twin | {"clipped": True}, ROWS[2]]  # latency is that of any noise
    assert ledger.clipped_text(found).startswith("Clipped: 1 of 2 comparisons")


@pytest.fixture(scope="module")
def exchanged():
    """All comparisons as published, and again with twins of the reduced DC-Nets that have each other's scores."""
    published = results.published()
    there = published[~published["label"].str.endswith(ledger.TWIN)]
    reduced = [f"DC-Net Reduced {joining.capitalize()}" for joining in JOINING]
    other = {a: b + ledger.TWIN for a, b in (reduced, reduced[::-1])}
    twins = there[there["label"].isin(other)]
    twins = twins.assign(label=twins["label"].map(other))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "published", lambda: pd.concat([there, twins], ignore_index=True))
        return [ledger.comparisons("published", Assumptions(clipped=clipped)) for clipped in (False, True)]


def test_clipped_twins_replace_the_scores_of_their_networks_everywhere(exchanged):
    plain, clipped = exchanged
    turned = [(a, b) for a, b in zip(plain, clipped, strict=True) if b.get("clipped")]
    assert {b["claim"] for _, b in turned} == {"C12", "C13"} and all("reduced" in b["comparison"] for _, b in turned)
    assert all(b["effect"].mean == pytest.approx(-a["effect"].mean) for a, b in turned)
    assert all("noise clipped" in b["assumed"] and "noise not clipped" in a["assumed"] for a, b in turned)
    kept = [(a, b) for a, b in zip(plain, clipped, strict=True) if not b.get("clipped")]
    assert all(repr(a) == repr(b) for a, b in kept) and len(kept) > len(turned) > 3  # by repr, because NaN is not NaN


def test_every_claim_says_what_it_rests_on(exchanged):
    table = ledger.ledger(exchanged[0])
    assert list(table)[2:] == ["paper", "effect", "95% interval", "scale", "seeds", "verdict", "assumed", "claim's verdict"]
    assert list(dict.fromkeys(table.index)) == list(paper.claims().index)
    assert (table[["scale", "assumed"]] != "").all(axis=None) and not table["assumed"].str.contains("[{}]|nan", regex=True).any()
    trained = table[~table["scale"].isin(["counted", "timed"])]
    assert set(trained["scale"]) <= set(SCALES) and trained["seeds"].ne("").mean() > 0.8  # latencies have none
    assert set(table[table["paper"] == "not given"].index) <= {"C06", "C07", "C08", "C09", "C10", "C11", "C12", "C15", "C18", "C19"}
    assert not any("the paper +" in text or "the paper -" in text for text in table["comparison"])


def test_on_a_page_what_is_assumed_stands_once_for_the_parts_of_a_claim():
    rows = [row | {"assumed": "much" if row["comparison"] != "e" else "more"} for row in (*ROWS, ROWS[4], ROWS[4])]
    table = ledger.shown(ledger.ledger(rows))
    assert table["assumed"].tolist() == ["much", "as above", "much", "much", "more", "much", "more", "as above"]
    assert table.index.tolist() == [row["claim"] for row in rows] and "statement" not in table


def test_assumptions_are_those_of_a_section_or_a_claim():
    claims, of = paper.claims(), pd.read_csv(paper_dir() / "assumptions.csv")["of"]
    assert of.is_unique and set(claims["section"]) <= set(of) <= {*claims["section"], *claims.index}


def test_fewer_seeds_are_the_first_ones():
    scores = {("a", seed): np.full((11, 20), float(seed)) for seed in range(3)}
    assert contrast(Assumptions(seeds=2).apply(scores, "psnr"), {"a": 1.0}) == (pytest.approx((0.5, 0, 1)), 2)


def test_what_more_evidence_has_moved(monkeypatch, exchanged):
    fewer = [row | {"effect": Interval(1, -1, 3)} if row["claim"] == "C07" else row for row in exchanged[0]]
    monkeypatch.setattr(ledger, "comparisons", lambda *_, **__: fewer)
    table = ledger.by_evidence(exchanged[0], "published")
    assert table.loc["C07"].tolist()[::2] == ["undecided", "not reproduced"] and table.loc["C07"].tolist()[1] == ""
    assert list(table)[1].startswith("classifiers after 192,000") and "C20" not in table.index
    assert set(table.index) - {"C07"} <= {"C01", "C02", "C04", "C05"}


def test_turning_assumptions_about_names_what_moves(monkeypatch):
    marked = [row | {"clipped": False} for row in ROWS]
    other = [row | {"effect": Interval(5, 4, 6)} if row["comparison"] == "b" else row for row in marked]
    monkeypatch.setattr(ledger, "comparisons", lambda scale, asked, *, device="cpu": other if asked.clipped else marked)
    table, moves = ledger.flips(marked, "published"), "C01: undecided → reproduced"
    assert len(table) == 5  # each alone, and all
    assert table.iloc[:, 0].tolist() == ["0 of 6", "0 of 6", "1 of 6", "0 of 6", "1 of 6"]
    assert table["verdicts that move"].tolist() == ["none", "none", moves, "none", moves]


def test_the_paper_s_inconsistencies_are_named_with_the_notebook_that_shows_them():
    odd = paper.inconsistencies()
    text = odd.apply(lambda row: " ".join([row.name, *row]), axis=1)
    for words in (("350 K", "305 K"), ("Section 4.3, Exp 2", "Table 5"), ("without waiting", "not named"), ("dominated by σ = 0",),
                  ("Section 3.2, Exp 2", "Figure 3")):  # fmt: skip
        assert any(all(word in line for word in words) for line in text), words
    assert all(any(path.name.startswith(start) for path in notebooks_dir().glob("*.ipynb")) for start in odd["shown in"])


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
    assert not figure.axes[0].texts
    again = ledger.glance([*ROWS, *[ROWS[-1] | {"comparison": f"f{n}"} for n in range(2)]])
    assert [text.get_text() for text in again.axes[0].texts] == ["3"]  # marks that share the place at the edge
