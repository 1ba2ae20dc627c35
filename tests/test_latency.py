"""Latencies: the protocol, what the clock sees, and that the caller finds everything as it was."""

import copy
from itertools import accumulate

import pytest
import torch
from torch import nn

import dcnas.latency.measure as latency
from dcnas.errors import InputError
from dcnas.latency.measure import check_device, measure, measure_many, measure_pair

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


@pytest.mark.parametrize("warmup, passes", [(0, 1), (3, 5)])
def test_runs_exactly_warmup_plus_passes(warmup, passes):
    calls = []
    result = measure(Spy(lambda self, x: calls.append(1)), X, warmup=warmup, passes=passes)
    assert len(calls) == warmup + passes
    assert (result.warmup, result.passes, result.unsynchronised_ms) == (warmup, passes, None)


def test_one_slow_pass_shifts_the_mean_but_not_the_median(monkeypatch):
    fake_clock(monkeypatch, [2, 1, 1000, 3, 2, 2])
    result = measure(Spy(), X, warmup=4, passes=6)
    assert (result.median_ms, result.min_ms) == (2, 1)
    assert result.mean_ms == pytest.approx(1010 / 6)
    assert (result.q25_ms, result.q75_ms, result.spread_ms) == (2, 2.75, 0.75)


def test_only_the_published_protocol_does_not_synchronise(monkeypatch):
    def times_ms(model, inputs, device, warmup, passes, synchronise=True):
        return [5.0 if synchronise else 1.0] * passes

    monkeypatch.setattr(latency, "_times_ms", times_ms)
    result = measure(Spy(), X, unsynchronised=True)
    assert (result.median_ms, result.unsynchronised_ms) == (5, 1)


@pytest.mark.parametrize("fails", [False, True])
def test_the_caller_finds_everything_as_it_was(fails):
    def action(self, x):
        seen.append(
            (
                self.training,
                torch.get_num_threads(),
                torch.is_inference_mode_enabled(),
                self.conv.weight.is_contiguous(memory_format=torch.channels_last),
                x.is_contiguous(memory_format=torch.channels_last),
            )
        )
        x.add_(1)
        if fails:
            raise RuntimeError("out of memory")

    seen, model, x = [], Spy(action).train(), X.clone()
    model.conv.eval()  # a part frozen by its owner stays frozen
    state, threads = copy.deepcopy(model.state_dict()), torch.get_num_threads()
    if fails:
        with pytest.raises(RuntimeError, match="out of memory"):
            measure(model, x, threads=threads + 1)
    else:
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
    assert (result["a"].median_ms, result["b"].median_ms) == (
        2.5,
        25,
    )  # the samples of both rounds, pooled


def test_a_pair_goes_side_by_side_and_takes_turns_in_going_first(monkeypatch):
    fake_clock(monkeypatch, [1, 10, 20, 2, 3, 30])
    order, before = [], torch.get_num_threads()
    models = {
        name: (Spy(lambda self, x, name=name: order.append((name, torch.get_num_threads()))), (X,))
        for name in "ab"
    }
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    model = Spy()
    result = measure(model, X, device="cuda", warmup=2, passes=5, unsynchronised=True)
    assert result.device == torch.cuda.get_device_name() and result.unsynchronised_ms > 0
    assert model.conv.weight.device.type == "cpu"


@pytest.mark.parametrize("device", ["tpu", "cuda:99", None, "cuda"])
def test_missing_devices(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=f"device is '{device}', but PyTorch finds only cpu"):
        measure(Spy(), X, device=device)


def test_present_devices(monkeypatch):
    assert check_device("cpu") == torch.device("cpu") == check_device(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert check_device("cuda") == torch.device("cuda") and check_device("cuda:1").index == 1
    with pytest.raises(InputError, match="only cpu, cuda, cuda:0, cuda:1"):
        check_device("cuda:2")
