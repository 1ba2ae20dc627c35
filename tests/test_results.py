"""Paired comparisons of made-up scores, latencies that are there or not, and which published results a
group has.
"""

import numpy as np
import pandas as pd
import pytest

from dcnas.data.noise import SIGMAS
from dcnas.errors import InputError
from dcnas.study import latencies, records
from dcnas.study.records import of_best_scale
from dcnas.study.results import Results, results
from dcnas.study.stats import DRAWS, bootstrap, contrast, means, spearman
from dcnas.study.tables import beside_the_paper, contrasts

RNG = np.random.default_rng(0)
# what the images have in common is far larger than what tells a from b
IMAGES = RNG.normal(20, 3, (11, 30))
SCORES = {("a", seed): IMAGES + 1 + 0.1 * RNG.normal(size=(11, 30)) for seed in (0, 1)}
# fewer images
SCORES |= {("b", seed): IMAGES[:, :25] + 0.1 * RNG.normal(size=(11, 25)) for seed in (1, 2)}
SCORES |= {("c", 7): IMAGES}
GAP = {"a": 1.0, "b": -1.0}


def test_a_contrast_pairs_images_and_shared_seeds():
    effect, seeds = contrast(SCORES, GAP)
    assert seeds == 1
    assert effect.mean == pytest.approx((SCORES["a", 1][:, :25] - SCORES["b", 1]).mean())
    assert 0.9 < effect.low < effect.mean < effect.high < 1.1


def test_the_bootstrap_resamples_seeds_and_images():
    alone = means({("a", 0): IMAGES}, ["a"], [0.4])["a"]
    apart = means({("a", 0): IMAGES, ("a", 1): IMAGES + 10}, ["a"], [0.4])["a"]
    assert alone.mean == pytest.approx(IMAGES[4].mean()) and alone.low < alone.mean < alone.high
    assert apart.high - apart.low > 9 > alone.high - alone.low


def test_what_cannot_be_compared_is_left_out():
    assert contrast(SCORES, {"a": 1.0, "c": -1.0}) is None  # no shared seed
    assert contrast(SCORES, {"a": 1.0, "x": -1.0}) is None and list(means(SCORES, ["x", "c"])) == ["c"]
    assert (
        len(contrasts(SCORES, {"a minus c": ({"a": 1.0, "c": -1.0}, SIGMAS), "none": (None, SIGMAS)}))
        == 0
    )


def test_a_table_of_contrasts_says_on_which_side_of_0_they_lie():
    table = contrasts(
        SCORES, {("up", 1): (GAP, [0.2]), ("down", 2): ({"b": 1.0, "a": -1.0}, [0.2])}, ["way", "row"]
    )
    assert table["interval is"].tolist() == ["above 0 (one seed)", "below 0 (one seed)"]
    assert table.index.names == ["way", "row"] and table["seeds"].tolist() == [1, 1]


def test_a_statistic_sees_the_means_of_all_draws():
    shapes = []
    statistic = bootstrap(
        {0: IMAGES, 1: IMAGES}, lambda means: shapes.append(means.shape) or means.max(1)
    )
    assert sorted(shapes) == [(2, 11), (2, 11, DRAWS)]
    assert statistic.mean == pytest.approx(IMAGES.mean(1).max())


def test_equal_scores_share_their_ranks():
    assert spearman(np.array([[1.0], [1.0], [2.0]]), np.array([[1.0], [2.0], [3.0]])) == pytest.approx(
        0.75**0.5
    )
    assert spearman(np.ones((3, 1)), np.array([[1.0], [2.0], [3.0]])) == 0


def test_latencies_beside_the_papers(tmp_path, monkeypatch):
    monkeypatch.setattr(latencies, "latency_dir", lambda: tmp_path)
    theirs = pd.Series({"Conv-L": 0.336, "MB2.5-M": 0.384, "MB1-S": 0.300})
    common = dict(unsynchronised_ms=1.0, device="a board", threads=1, q25_ms=1, q75_ms=3)
    rows = [
        dict(label=label, batch=batch, median_ms=ms * batch) | common
        for batch in (1, 32)
        for label, ms in (("Conv-L", 0.1), ("MB2.5-M", 0.15))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "section3-board.csv", index=False)
    table = beside_the_paper(theirs, "Conv-L")
    assert table["batch 32 (ms)"].tolist()[:2] == [3.2, 4.8]
    assert table["batch 1 (ms)"].tolist()[:2] == [0.1, 0.15]
    assert table["batch 32 (relative)"].tolist()[:2] == [1, 1.5]
    assert table["batch 32 (ms)"].isna()["MB1-S"]
    assert table["paper, batch 32 (relative)"].tolist() == [1, 1.14, 0.89]
    assert table["device"].tolist()[:2] == ["a board"] * 2


def test_the_best_scale_has_most_trainings_and_is_the_one_nearest_to_the_paper_if_it_has_as_many():
    rows = pd.DataFrame(
        {"label": [*"abaa"], "seed": [0, 0, 0, 1], "scale": ["laptop", "laptop", "paper", "gpu"]}
    )
    assert set(of_best_scale(rows)["scale"]) == {"laptop"}
    assert set(of_best_scale(rows[rows["label"] == "a"])["scale"]) == {"paper"}
    assert set(of_best_scale(rows[(rows["label"] == "a") & (rows["scale"] != "paper")])["scale"]) == {
        "gpu"
    }
    assert set(of_best_scale(rows.head(1).assign(scale="smoke"))["scale"]) == {"smoke"}
    more_seeds = pd.DataFrame(
        {"label": [*"aab"], "seed": [0, 1, 0], "scale": ["laptop", "laptop", "gpu"]}
    )
    assert set(of_best_scale(more_seeds)["scale"]) == {"laptop"}


def test_groups_are_gathered_at_the_scale_of_the_first(monkeypatch):
    classifier, joint, unet = "MB2.5-M", "DC-Net Reduced Integrated", "UNet b=32 d=4 m=2 c=2"
    runs = [(joint, "laptop"), (classifier, "laptop"), (classifier, "gpu"), (unet, "gpu")]
    rows = [
        {"run": str(n), "label": a, "scale": b, "seed": 0, "sigma": 0.0} for n, (a, b) in enumerate(runs)
    ]
    monkeypatch.setattr(records, "read_published", lambda *_: pd.DataFrame(rows))

    def names(*groups):
        return results(groups, "published").rows["run"].tolist()

    assert names("tables_1_and_6") == ["2"]
    # equally long trained
    assert names("table_3", "tables_1_and_6", "table_2", "normalisation_check") == ["0", "1"]
    assert names("tables_1_and_6", "table_2") == ["2", "3"]
    with pytest.raises(InputError, match="no results of precision_check are published"):
        names("precision_check", "table_2")


@pytest.mark.parametrize("index, sigma", [(-1, 0.4), (4, 0.4), (0.5, 0.4), (0, 0.3)])
def test_pictures_that_were_not_kept(index, sigma):
    with pytest.raises(InputError, match="sample"):
        Results(pd.DataFrame()).pictures(index, sigma)
