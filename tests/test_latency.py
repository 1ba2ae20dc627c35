"""Latencies: the protocol, what the clock sees, and that the caller finds all as it was; the table."""

import copy
import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import accumulate
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from made_up import interrupted, linear_table, start_architecture
from torch import nn

import dcnas.latency.measure as latency
from dcnas.errors import InputError
from dcnas.latency.measure import check_device, measure, measure_many, measure_pair
from dcnas.latency.table import Correction, Curve, Table, load_table
from dcnas.nas import lut
from dcnas.nas.networks import DECODERS, NETWORKS
from dcnas.nas.space import OPERATORS, Space, random_architecture

X = torch.rand(4, 3, 8, 8)


class Spy(nn.Module):
    """A small network that calls `action(self, x)` in every pass (a deep copy keeps functions)."""

    def __init__(self, action=lambda self, x: None):
        super().__init__()
        self.action, self.conv, self.norm = action, nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x, *more):
        self.action(self, x)
        return self.norm(self.conv(x))


def fake_clock(monkeypatch, durations_ms):
    """Each timed pass reads the clock twice; the readings lie the given durations apart."""
    readings = iter(accumulate(step for ms in durations_ms for step in (7_000_000, int(ms * 1e6))))
    monkeypatch.setattr(latency, "clock", lambda: next(readings))


@pytest.mark.parametrize("fails", [False, True])
def test_the_caller_finds_everything_as_it_was(fails):
    def action(self, x):
        flags = [self.training, torch.get_num_threads(), torch.is_inference_mode_enabled()]
        layouts = [t.is_contiguous(memory_format=torch.channels_last) for t in (self.conv.weight, x)]
        seen.append((*flags, *layouts))
        x.add_(1)
        if fails:
            raise RuntimeError("out of memory")

    seen, model, x = [], Spy(action).train(), X.clone()
    model.conv.eval()  # a part frozen by its owner stays frozen
    state, threads = copy.deepcopy(model.state_dict()), torch.get_num_threads()
    with pytest.raises(RuntimeError, match="out of memory") if fails else nullcontext():
        assert measure(model, x, threads=threads + 1, warmup=1, passes=2).threads == threads + 1
    assert set(seen) == {(False, threads + 1, True, True, True)}
    assert (model.training, model.norm.training, model.conv.training) == (True, True, False)
    assert torch.get_num_threads() == threads and not torch.is_inference_mode_enabled()
    assert model.conv.weight.is_contiguous() and torch.equal(x, X) and x.is_contiguous()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_models_take_turns(monkeypatch):
    fake_clock(monkeypatch, [1, 3, 10, 30, 2, 4, 20, 40])
    order = []
    models = {name: (Spy(lambda self, x, name=name: order.append(name)), (X,)) for name in "ab"}
    result = measure_many(models, rounds=2, warmup=1, passes=2)
    assert "".join(order) == "aaabbb" * 2
    assert list(result) == ["a", "b"] and result["a"].passes == 4
    assert [latency.median_ms for latency in result.values()] == [2.5, 25]  # both rounds, pooled


def test_a_pair_goes_side_by_side_and_takes_turns_in_going_first(monkeypatch):
    fake_clock(monkeypatch, [1, 10, 20, 2, 3, 30])
    order, before = [], torch.get_num_threads()
    action = lambda self, x, n: order.append((n, torch.get_num_threads()))  # noqa: E731
    models = {name: (Spy(partial(action, n=name)), (X,)) for name in "ab"}
    assert measure_pair(models, rounds=3, threads=before + 1) == {"a": [1, 2, 3], "b": [10, 20, 30]}
    assert order == [(name, before + 1) for name in "aabbbbaaaabb"] and torch.get_num_threads() == before


@pytest.mark.parametrize("synchronise", [True, False])
def test_cuda_is_idle_when_the_clock_starts_and_before_it_stops(monkeypatch, synchronise):
    log, device = [], torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda d: log.append("wait" if d == device else d))
    monkeypatch.setattr(latency, "clock", lambda: log.append("clock") or 0)
    latency._times_ms(lambda x: log.append("pass"), [X], device, 1, 2, synchronise)
    once = ["wait", "clock", "pass", "wait", "clock"] if synchronise else ["clock", "pass", "clock"]
    assert log == ["pass"] + 2 * once


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("tpu", "cuda"):
        with pytest.raises(InputError, match=f"device is '{device}', but PyTorch finds only cpu"):
            measure(Spy(), X, device=device)
    assert check_device("cpu") == torch.device("cpu") == check_device(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert check_device("cuda") == torch.device("cuda") and check_device("cuda:1").index == 1
    with pytest.raises(InputError, match="only cpu, cuda, cuda:0, cuda:1"):
        check_device("cuda:2")


TINY = Space(operators=4, resolution=32, classes=2, width=0.25)


def test_the_design_measures_every_variant_of_every_layer():
    for space in (Space(4), Space(6), Space(8)):
        networks = lut.design(space)
        for i, layer in enumerate(space.layers):
            seen = {(n.choices[i].operator, n.choices[i].hidden) for n, _ in networks}
            assert seen == {(c.operator, c.hidden) for c in lut.variants(layer, space.candidates)}
        assert len(networks) >= len(DECODERS)


def test_parts_add_up_and_the_sequential_network_runs_its_encoder_twice():
    table, a = linear_table(Space(4)), start_architecture(Space(4))
    c, d, joint, sequential = (lut.predicted_ms(table, a, name) for name in NETWORKS)
    assert sequential == pytest.approx(c + d)
    assert joint == pytest.approx(c + table.part_ms("decoder conv"))
    hidden = [[o.start_hidden(layer.in_channels) for o in OPERATORS[:4]] for layer in Space(4).layers]
    for some, total in (
        (table, c),
        (corrected := table.with_correction(Correction(1.25, 3.0)), 1.25 * c + 3),
    ):
        first = sum(float(ms[0]) for ms in lut.operators_ms(some, Space(4), hidden))
        assert lut.base_ms(some) + first == pytest.approx(total, rel=1e-6)
    assert lut.predicted_ms(corrected, a) == pytest.approx(1.25 * c + 3)


def test_widths_between_two_points_are_interpolated():
    curve = Curve((10, 20), (1.0, 3.0), (0.1, 0.1), (5, 5))
    table = Table(linear_table(TINY).conditions, {"x": curve})
    assert table.part_ms("x", 15) == pytest.approx(2.0)
    with pytest.raises(InputError, match="widths of 10 to 20, but 21"):
        table.part_ms("x", 21)
    with pytest.raises(InputError, match="no entry y"):
        table.part_ms("y")


def test_a_table_is_measured_and_a_killed_build_goes_on(tmp_path):
    """The second call keeps the rounds of the first: after it each layer has as many samples as an
    undisturbed build."""
    path, how = tmp_path / "t.json", dict(batch=1, threads=1, rounds=2, passes=1, progress=False)
    with interrupted(lut, "_measure", 16):  # in the second round of ten networks
        lut.build_table(TINY, path, **how)
    assert not path.exists() and json.loads((tmp_path / "t.json.part").read_text())["rounds"] == 1
    with pytest.raises(InputError, match="t.json.part was begun with other settings; remove it"):
        lut.build_table(TINY, path, **how | dict(batch=2))
    with patch.object(lut, "_measure", wraps=lut._measure) as again:
        table = lut.build_table(TINY, path, **how)
    assert again.call_count == len(lut.design(TINY))
    assert load_table(path) == table and [p.name for p in tmp_path.iterdir()] == ["t.json"]
    assert set(table.curves) == set(linear_table(TINY).curves)
    assert all(min(curve.samples) >= 2 and min(curve.median_ms) > 0 for curve in table.curves.values())


def test_the_correction_is_fitted_on_one_half_and_tested_on_the_other():
    """Networks that take 1.3 times the table's sum plus 2 ms: the correction finds both, the error
    vanishes."""
    space, rng = replace(TINY, operators=8), np.random.default_rng(0)
    table = linear_table(space)
    times = [1.3 * lut.predicted_ms(table, random_architecture(space, rng)) + 2 for _ in range(8)]
    found = {n: SimpleNamespace(median_ms=ms, spread_ms=0.1) for n, ms in enumerate(times)}
    with patch.object(lut, "measure_many", lambda *_, **__: found):
        frame, corrected = lut.validate_table(table, networks=8, progress=False)
    correction, errors = corrected.correction, lut.table_errors(frame, "predicted_ms")
    assert (correction.scale, correction.offset_ms) == pytest.approx((1.3, 2.0))
    assert correction.error_pct == pytest.approx(0, abs=1e-6)
    assert errors["spearman"] == pytest.approx(1) and errors["bias_pct"] < -20
    assert list(frame["half"]) == ["fit", "test"] * 4
