"""Was the search worth it, and what does latency buy: others beside the found network, and the front."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import linear_table, two_classes

from dcnas.build import build
from dcnas.latency.measure import Latency, device_name
from dcnas.models import count_parameters
from dcnas.nas.settings import latency_range_ms
from dcnas.nas.space import Space, from_record
from dcnas.options import CompareOptions, FrontOptions, SearchOptions, TrainOptions
from dcnas.study import derivation, own, own_compare, own_front, rivals, runs

SPACE = Space(4, 32, 2, 0.25)


def measured(models, *_, **__):
    """A device on which latency is proportional to size, today as on the day of the table."""
    ms = {name: count_parameters(model) / 1e5 for name, model in models.items()}
    how = (None, 4, 3, 1, 1, device_name(), "", "channels_last", "float32")
    return {name: Latency(t, t, t, t, t, *how) for name, t in ms.items()}, 1.0


@pytest.fixture
def few(tmp_path, monkeypatch, run_store, downloads):
    """Options of a tiny search, on a made-up device and pictures."""
    table = linear_table(Space(8, 32, 2, 0.25), batch=4)
    table = table.with_correction(replace(table.correction, error_pct=1.0))
    monkeypatch.setattr(derivation, "latencies_by_table", measured)
    monkeypatch.setattr(rivals, "latencies_by_table", measured)
    monkeypatch.setattr(rivals, "UNET_WIDTHS", (4, 8))
    monkeypatch.setattr(rivals, "MOBILE_WIDTHS", (0.25, 0.5))
    monkeypatch.setattr(rivals, "count_flops", lambda model, _: count_parameters(model))
    sizes = dict(epochs=2, steps_per_epoch=1, batch=4, threads=1)
    data = str(two_classes(tmp_path / "set"))
    return dict(lut=table.save(tmp_path / "t.json"), data=data, out=tmp_path / "mine", **sizes)


@pytest.fixture
def found(few):
    """A folder with a found and trained network, DC-NAS in the middle of the range."""
    low, high = latency_range_ms(SPACE, own.load_table(few["lut"]), "DC-NAS")
    options = SearchOptions(**few, target_ms=round((low + high) / 2, 2), measure=False)
    own.search(options)
    own.train(TrainOptions(options.out, steps=2, batch=4, threads=1))
    return options.out


def test_others_of_the_same_latency_are_trained_equally(found, monkeypatch):
    options = CompareOptions(found, random=2, seeds=2)
    frame = own_compare.compare(options)
    assert [*frame["network"][:1], *frame["network"][3:]] == [
        "this network", "random 1", "random 2", "mean of 2 random"
    ]  # fmt: skip
    assert frame["network"][1].startswith("DC-Net b=") and frame["network"][2].startswith("MobileNetV3")
    chosen = json.loads((found / own_compare.RIVALS).read_text())["nets"]
    assert from_record(chosen["random 1"]["architecture"]) != from_record(
        chosen["random 2"]["architecture"]
    )
    row, mean = frame.iloc[0], frame.iloc[-1]
    assert row["psnr_gain"] == 0 and set(frame["seeds"]) == {2}
    drawn = frame[frame["network"].str.startswith("random")]
    assert mean["psnr_gain"] == pytest.approx((row["psnr"] - drawn["psnr"]).mean(), abs=1e-6)
    assert mean["psnr_gain_low"] < mean["psnr_gain"] < mean["psnr_gain_high"]
    assert " over the mean of 2 random networks of the same latency" in own_compare.sentence(frame)
    before = (found / own_compare.COMPARISON).read_bytes()
    monkeypatch.setattr(runs, "fit", None)  # all are trained
    monkeypatch.setattr(own_compare, "nearest", None)  # and chosen
    own_compare.compare(options)
    assert (found / own_compare.COMPARISON).read_bytes() == before


def test_what_the_comparison_says_follows_its_intervals():
    def frame(psnr, accuracy):
        names = ["this network", "DC-Net b=8 m=1.5", "random 1", "random 2", "mean of 2 random"]
        gains = {"psnr": psnr, "accuracy": accuracy}
        values = {"network": names, "seeds": 1, "psnr": [30, 29, 28, 28, 28], "accuracy": [50.0] * 5}
        for name, (low, high) in gains.items():
            ends = {"": (low + high) / 2, "_low": low, "_high": high}
            values |= {f"{name}_gain{end}": value for end, value in ends.items()}
        return pd.DataFrame(values)

    says = {
        "The search was worth it: +1.00 dB PSNR (0.50 to 1.50)": ((0.5, 1.5), (-1, 1)),
        "The search was worse than chance": ((-2, 1), (-3, -1)),
        "The search gained in one thing and lost": ((0.5, 1), (-3, -1)),
        "The search is not told apart from chance": ((-0.5, 1), (-3, 1)),
    }
    for words, intervals in says.items():
        assert own_compare.sentence(frame(*intervals)).startswith(words)
    assert "It is better than DC-Net b=8 m=1.5: +1.00 dB PSNR" in own_compare.sentence(
        frame((0.5, 1.5), (-1, 1))
    )


@pytest.mark.parametrize("network", ["C-NAS", "D-NAS", "DC-NAS"])
def test_the_nearest_of_a_family_is_taken(network, monkeypatch):
    monkeypatch.setattr(rivals, "latencies_by_table", measured)
    monkeypatch.setattr(rivals, "count_flops", lambda model, _: count_parameters(model))
    table = linear_table(SPACE)
    for family in rivals.families(network, 1).values():
        some = dict([*family.items()][:: max(1, len(family) // 6)])
        models = {name: build(net, 5) for name, net in some.items()}
        known = {name: t.median_ms for name, t in measured(models)[0].items()}
        image = torch.rand(2, 3, 64, 96)
        denoised, logits = next(iter(models.values())).eval()(image)
        assert (denoised is None) == (network == "C-NAS") and (logits is None) == (network == "D-NAS")
        assert denoised is None or denoised.shape == image.shape
        assert logits is None or logits.shape == (2, 5)
        targets = np.quantile([*known.values()], [0, 0.4, 1]) * [0.9, 1.03, 2]
        closest = [min(known, key=lambda n: abs(np.log(known[n] / ms))) for ms in targets]
        assert rivals.nearest(some, targets, table, 5) == closest


def test_the_front_grows_with_each_training(few, monkeypatch):
    options = FrontOptions(**few, points=2, steps=2)
    search, low, high = own_front.range_of(options)
    real, calls = own_front.obtain, []

    def dies(run, **how):
        calls.append(run)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(run, **how)

    monkeypatch.setattr(own_front, "obtain", dies)
    with pytest.raises(KeyboardInterrupt):
        own_front.front(options)
    assert len(pd.read_csv(options.out / own_front.FRONT)) == 2  # the first call was the search's
    monkeypatch.setattr(own_front, "nearest", None)  # the choice stands
    frame = own_front.front(options)
    kinds = frame["kind"].value_counts()
    assert kinds["searched"] == kinds["random"] == 2 and {*kinds.index} > {"DC-Net", "MobileNetV3"}
    assert (options.out / own_front.PICTURE).read_bytes()[:4] == b"\x89PNG"
    for metric in ("psnr", "accuracy"):
        for _, row in frame.iterrows():
            faster = frame[frame["latency_ms"] < row["latency_ms"]][metric]
            assert row[f"{metric}_front"] == (faster < row[metric]).all()
    with pytest.raises(own_front.InputError, match="mine holds the front of another search"):
        own_front.front(replace(options, seed=1))
