"""Paired comparisons on made-up scores, and latencies that are there or not."""

import numpy as np
import pandas as pd
import pytest

from dcnas.data.noise import SIGMAS
from dcnas.errors import InputError
from dcnas.study import compare, timing
from dcnas.study import results3 as results
from dcnas.study.compare import combine, contrast, difference, mean_score, rank_correlation, trend_rows
from dcnas.study.results3 import of_best_scale, pictures
from dcnas.study.stats import DRAWS, bootstrap

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(20, 3, (11, 30))  # what the images have in common is far larger than what tells a from b
SCORES = {("a", seed): IMAGES + 1 + 0.1 * RNG.normal(size=(11, 30)) for seed in (0, 1)}
SCORES |= {("b", seed): IMAGES[:, :25] + 0.1 * RNG.normal(size=(11, 25)) for seed in (1, 2)}  # fewer test images
SCORES |= {("c", 7): IMAGES}


def test_a_contrast_pairs_images_and_shared_seeds():
    effect, seeds = contrast(SCORES, difference("a", "b"))
    assert seeds == 1
    assert effect.mean == pytest.approx((SCORES["a", 1][:, :25] - SCORES["b", 1]).mean())
    assert 0.9 < effect.low < effect.mean < effect.high < 1.1


def test_the_bootstrap_resamples_seeds_and_images():
    alone = mean_score({("a", 0): SCORES["a", 0]}, "a", [0.4])
    apart = mean_score({("a", 0): SCORES["a", 0], ("a", 1): SCORES["a", 0] + 10}, "a", [0.4])
    assert alone.mean == pytest.approx(SCORES["a", 0][4].mean()) and alone.low < alone.mean < alone.high
    assert apart.high - apart.low > 9 > alone.high - alone.low


def test_what_cannot_be_compared_is_none():
    assert contrast(SCORES, difference("a", "c")) is None  # no shared seed
    assert contrast(SCORES, difference("a", "x")) is None and mean_score(SCORES, "x") is None
    assert contrast(SCORES, None) is None and combine((1, {"a": 1.0}), (-1, None)) is None
    assert compare.claim_rows(SCORES, "C06", {"a minus x": difference("a", "x")}) == []
    assert len(compare.comparison_table(SCORES, {"a minus c": (difference("a", "c"), SIGMAS)})) == 0
    assert list(compare.mean_scores(SCORES, ["x", "c"])) == ["c"]


def test_weighted_sums_and_their_table():
    assert combine((2, difference("a", "b")), (-1, {"a": 1.0})) == {"a": 1.0, "b": -2.0}
    table = compare.comparison_table(SCORES, {"up": (difference("a", "b"), [0.2]), "down": (difference("b", "a"), [0.2])})
    assert table["interval is"].tolist() == ["above 0 (one seed)", "below 0 (one seed)"] and table["seeds"].tolist() == [1, 1]


def test_a_statistic_sees_the_means_of_all_draws():
    shapes = []
    found = bootstrap({0: IMAGES, 1: IMAGES}, lambda means: shapes.append(means.shape) or means.max(1))
    assert sorted(shapes) == [(2, 11), (2, 11, DRAWS)] and found.mean == pytest.approx(IMAGES.mean(1).max())


def test_rank_correlation_of_the_same_and_the_opposite_order():
    scores = {(label, 0): IMAGES + 5 * i for i, label in enumerate("abcd")}
    there = [(label, 0.4) for label in "abcd"]
    assert rank_correlation(scores, there, there) == (pytest.approx((1, 1, 1)), 1)
    assert rank_correlation(scores, there, there[::-1]) == (pytest.approx((-1, -1, -1)), 1)


def test_seeds_that_disagree_widen_a_rank_correlation():
    alike = {(label, seed): IMAGES + 5 * i for i, label in enumerate("abcd") for seed in range(3)}
    torn = alike | {(label, 1): IMAGES - 20 * i for i, label in enumerate("abcd")}  # seed 1 has the opposite order
    for scores, interval in ((alike, (1, 1, 1)), (torn, (-1, -1, 1))):
        (row,) = trend_rows(scores, "C06", "the place with the score", {label: i for i, label in enumerate("abcd")}, [0.4])
        assert row["effect"] == pytest.approx(interval) and row["seeds"] == 3 and row["threshold"] == 0.8
    (row,) = trend_rows(alike, "C18", "x", {"a": 3, "b": 2, "c": 1}, [0.4], falls=True)
    assert row["effect"].mean == -1 and (row["threshold"], row["direction"]) == (-0.8, "<")
    assert trend_rows(alike, "C06", "x", {"a": 1, "e": 2}) == []


def test_equal_scores_share_their_ranks():
    assert compare._spearman(np.array([[1.0], [1.0], [2.0]]), np.array([[1.0], [2.0], [3.0]])) == pytest.approx(0.75**0.5)
    assert compare._spearman(np.ones((3, 1)), np.array([[1.0], [2.0], [3.0]])) == 0


def test_latencies_beside_the_papers(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "latency_dir", lambda: tmp_path)
    names = ("Conv-L", "MB2.5-M", "MB1-S")
    table = compare.latency_table(names, "Conv-L")
    assert table["ours, batch 32 (ms)"].isna().all() and set(table["quartiles (ms)"]) == {"not measured"}
    assert compare.latency_text(table, "MB2.5-M", "Conv-L").startswith("No latencies of these networks are published yet")

    common = dict(unsynchronised_ms=1.0, threads=1, precision="float32", torch_version="2", device="a board", q25_ms=1, q75_ms=3)
    rows = [
        dict(label=label, batch=batch, median_ms=ms * batch, passes=320 // batch) | common
        for batch in (1, 32) for label, ms in (("Conv-L", 0.1), ("MB2.5-M", 0.15))
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "section3-board.csv", index=False)
    table = compare.latency_table(names, "Conv-L")
    assert table["ours, batch 32 (relative)"].tolist()[:2] == [1, 1.5] and table["quartiles (ms)"].iloc[0] == "1.000 to 3.000"
    assert table["paper, batch 32 (ms)"].tolist() == [0.336, 0.384, 0.300]
    text = compare.latency_text(table, "MB2.5-M", "Conv-L")
    assert text.startswith("Ours: a board, 1 thread, float32, PyTorch 2, the median of 10 passes at batch 32 and of 320 at batch 1")
    assert "ours: Conv-L < MB2.5-M; the paper's: MB1-S < Conv-L < MB2.5-M." in text and "on the paper's device 1.14 times" in text
    assert compare.latency_text(table, "MB1-S", "Conv-L").startswith("No latencies")  # not measured here


def test_the_best_scale_has_most_trainings_and_is_the_one_nearest_to_the_paper_if_it_has_as_many():
    rows = pd.DataFrame({"label": [*"abaa"], "seed": [0, 0, 0, 1], "scale": ["laptop", "laptop", "paper", "gpu"]})
    assert set(of_best_scale(rows)["scale"]) == {"laptop"}
    assert set(of_best_scale(rows[rows["label"] == "a"])["scale"]) == {"paper"}
    assert set(of_best_scale(rows[(rows["label"] == "a") & (rows["scale"] != "paper")])["scale"]) == {"gpu"}
    assert set(of_best_scale(rows.head(1).assign(scale="smoke"))["scale"]) == {"smoke"}
    more_seeds = pd.DataFrame({"label": [*"aab"], "seed": [0, 1, 0], "scale": ["laptop", "laptop", "gpu"]})
    assert set(of_best_scale(more_seeds)["scale"]) == {"laptop"}


def test_groups_are_gathered_at_the_scale_of_the_first(monkeypatch):
    runs = [("DC-Net Reduced Integrated", "laptop"), ("MB2.5-M", "laptop"), ("MB2.5-M", "gpu"), ("UNet b=32 d=4 m=2 c=2", "gpu")]
    rows = [{"run": str(n), "label": label, "scale": scale, "seed": 0, "sigma": 0.0} for n, (label, scale) in enumerate(runs)]
    monkeypatch.setattr(results, "published", lambda: pd.DataFrame(rows))
    assert results.results("tables_1_and_6", "published")["scale"].tolist() == ["gpu"]
    found = results.gather(["table_3", "tables_1_and_6", "table_2", "normalisation_check"], "published")
    assert found["run"].tolist() == ["0", "1"]  # the classifier as long trained as the joint model, and nothing of another length
    assert results.gather(["tables_1_and_6", "table_2"], "published")["run"].tolist() == ["2", "3"]
    with pytest.raises(InputError, match="no results of precision_check are published"):
        results.gather(["precision_check", "table_2"], "published")


@pytest.mark.parametrize("index, sigma", [(-1, 0.4), (4, 0.4), (0.5, 0.4), (0, 0.3)])
def test_pictures_that_were_not_kept(index, sigma):
    with pytest.raises(InputError, match="sample"):
        pictures(pd.DataFrame(), index, sigma)
