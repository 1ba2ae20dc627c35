"""Latencies that are there or not, and which published results a group has."""

import pandas as pd
import pytest

from dcnas.errors import InputError
from dcnas.study import latencies
from dcnas.study import results as reading
from dcnas.study.results import Results, best_scale, results
from dcnas.study.tables import beside_the_paper


def test_latencies_beside_the_papers(tmp_path, monkeypatch):
    monkeypatch.setattr(latencies, "latency_dir", lambda: tmp_path)
    theirs = pd.Series({"Conv-L": 0.336, "MB2.5-M": 0.384, "MB1-S": 0.300})
    rows = [
        dict(label=label, batch=batch, median_ms=ms * batch)
        for batch in (1, 32)
        for label, ms in (("Conv-L", 0.1), ("MB2.5-M", 0.15))
    ]
    measured = pd.DataFrame(rows).assign(device="a board", threads=1, unsynchronised_ms=1.0)
    measured.assign(q25_ms=1, q75_ms=3).to_csv(tmp_path / "section3-board.csv", index=False)
    table = beside_the_paper(theirs, "Conv-L")
    ours = table.loc[["Conv-L", "MB2.5-M"]]
    assert ours["batch 32 (ms)"].tolist() == [3.2, 4.8] and ours["batch 1 (ms)"].tolist() == [0.1, 0.15]
    assert ours["batch 32 (relative)"].tolist() == [1, 1.5] and ours["device"].eq("a board").all()
    assert table.isna()["batch 32 (ms)"]["MB1-S"]
    assert table["paper, batch 32 (relative)"].tolist() == [1, 1.14, 0.89]


@pytest.mark.parametrize(
    ("labels", "seeds", "scales", "best"),
    [
        ("abaa", [0, 0, 0, 1], ["laptop", "laptop", "paper", "gpu"], "laptop"),  # has most networks
        ("aaa", [0, 0, 1], ["laptop", "paper", "gpu"], "paper"),  # is nearest to the paper
        ("a", [0], ["smoke"], "smoke"),
        ("aab", [0, 1, 0], ["laptop", "laptop", "gpu"], "laptop"),  # has most trainings
    ],
)
def test_the_best_scale(labels, seeds, scales, best):
    rows = pd.DataFrame({"label": [*labels], "seed": seeds, "scale": scales})
    assert best_scale(rows) == best


def test_groups_are_gathered_at_the_scale_of_the_first(monkeypatch):
    classifier, joint, unet = "MB2.5-M", "DC-Net Reduced Integrated", "UNet b=32 d=4 m=2 c=2"
    runs = [(joint, "laptop"), (classifier, "laptop"), (classifier, "gpu"), (unet, "gpu")]
    rows = pd.DataFrame(runs, columns=["label", "scale"]).assign(run=[*"0123"], seed=0, sigma=0.0)
    monkeypatch.setattr(reading, "read_published", lambda *_: rows)

    def names(*groups):
        return results(groups, "published").rows["run"].tolist()

    assert names("tables_1_and_6") == ["2"]
    assert names("table_3", "tables_1_and_6", "table_2") == ["0", "1"]  # equally long trained
    assert names("tables_1_and_6", "table_2") == ["2", "3"]
    with pytest.raises(InputError, match="no results of precision_check are published"):
        names("precision_check", "table_2")


@pytest.mark.parametrize("index, sigma", [(-1, 0.4), (4, 0.4), (0, 0.3)])
def test_pictures_that_were_not_kept(index, sigma):
    with pytest.raises(InputError, match="sample"):
        Results(pd.DataFrame()).pictures(index, sigma)
