"""The supernet, the search and the derivation: equal sums, exact resume, what moves alphas, and the best
network for a target."""

import itertools
from dataclasses import replace
from functools import lru_cache
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import linear_table, start_architecture

from dcnas.errors import InputError
from dcnas.nas import derive
from dcnas.nas.lut import predicted_ms
from dcnas.nas.recorder import healthy, judge_search
from dcnas.nas.search import Searcher, SearchSettings, check_target, run_search
from dcnas.nas.settings import latency_range_ms
from dcnas.nas.space import Space, random_architecture
from dcnas.nas.supernet import Supernet
from dcnas.seed import generator
from dcnas.training.tasks import Batch

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = Space(operators=4, resolution=32, classes=3, width=0.25)
TABLE = linear_table(TINY)
LOW, HIGH = latency_range_ms(TINY, TABLE)
MIDDLE = (LOW + HIGH) / 2


def settings(**changes) -> SearchSettings:
    target_ms = MIDDLE + (TABLE.part_ms("decoder conv") if changes.get("loss") == "both" else 0.0)
    return SearchSettings(
        **dict(target_ms=target_ms, steps_per_epoch=2, epochs=3, weight_epochs=1) | changes
    )


def draw(part: str, batch: int = 4):
    """Batches of three kinds of images that differ in brightness, from the step alone."""

    def at(step: int) -> Batch:
        stream = generator(part, step)
        labels = torch.randint(3, (batch,), generator=stream)
        clean = (
            labels.view(-1, 1, 1, 1) / 3 + 0.2 * torch.rand(batch, 3, 32, 32, generator=stream)
        ).clamp(0, 1)
        return Batch(clean, clean + 0.1 * torch.randn(clean.shape, generator=stream), None, labels)

    return at


def search(folder, *, checkpoint_s=60.0, deadline=None, **changes):
    draws, options = (
        (draw("weights"), draw("alphas")),
        dict(checkpoint_s=checkpoint_s, deadline=deadline),
    )
    return run_search(TINY, TABLE, settings(**changes), *draws, folder, progress=False, **options)


@lru_cache
def supernet(operators: int = 8) -> Supernet:
    torch.manual_seed(0)
    return Supernet(replace(TINY, operators=operators)).to(memory_format=torch.channels_last)


# ---- the supernet


@pytest.mark.parametrize("indices", [None, [6, 1], [0], [2, 3, 5]], ids=str)
def test_the_mixture_is_the_weighted_sum_of_its_operators(indices):
    x = torch.rand(4, 3, 32, 32).to(memory_format=torch.channels_last)
    x = supernet().run_stem(x)
    for layer in supernet().layers:
        weights = torch.rand(8 if indices is None else len(indices)).softmax(0)
        plain = sum(
            w * layer.one(x, i)
            for w, i in zip(weights, range(8) if indices is None else indices, strict=True)
        )
        mixed = layer.mixed(x, weights, indices)
        torch.testing.assert_close(mixed, plain, atol=2e-5, rtol=1e-4)
        x = plain.detach()


def test_expected_latency_at_certain_alphas_is_the_table_s():
    searcher = Searcher(TINY, TABLE, settings())
    picks = [n % 4 for n in range(18)]
    with torch.no_grad():
        for layer, pick in zip(searcher.supernet.layers, picks, strict=True):
            layer.alphas.copy_(torch.full((4,), -60.0)).view(-1)[pick] = 0.0
    assert searcher.expected_ms() == pytest.approx(
        predicted_ms(TABLE, start_architecture(TINY, picks)), rel=1e-5
    )
    assert searcher.argmax() == start_architecture(TINY, picks)


# ---- steps


def snapshot(parameters):
    return [p.detach().clone() for p in parameters]


def moved(parameters, before):
    return [not torch.equal(p, q) for p, q in zip(parameters, before, strict=True)]


def test_a_weight_step_trains_the_sampled_paths_and_no_alpha():
    searcher = Searcher(TINY, TABLE, settings(learn_beta=True))
    alphas = snapshot(searcher.architecture)
    blocks = {
        (n, i): b for n, layer in enumerate(searcher.supernet.layers) for i, b in enumerate(layer.blocks)
    }
    before = {key: b.depthwise[0].weight.detach().clone() for key, b in blocks.items()}
    paths = searcher.sample_paths(5, both=True)
    searcher.weight_step(5, draw("weights")(5))
    assert not any(moved(searcher.architecture, alphas))
    sampled = {(n, path[n]) for path in paths for n in range(18)}
    assert {
        key for key, b in blocks.items() if not torch.equal(b.depthwise[0].weight, before[key])
    } == sampled


@pytest.mark.parametrize("gradient", ["all", "two"])
def test_an_alpha_step_trains_all_alphas_and_no_weight(gradient):
    searcher = Searcher(TINY, TABLE, settings(alpha_gradient=gradient))
    weights, alphas = snapshot(searcher.weights), snapshot(searcher.architecture)
    searcher.alpha_step(5, draw("alphas")(5), 5.0)
    assert not any(moved(searcher.weights, weights)) and all(moved(searcher.architecture, alphas))
    for parameter in searcher.architecture:
        assert parameter.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_the_second_path_never_takes_the_first_s_operator_and_both_reach_all():
    searcher = Searcher(TINY, TABLE, settings())
    seen = np.zeros((2, 4), int)
    for step in range(60):
        first, second = searcher.sample_paths(step, both=True)
        assert all(a != b for a, b in zip(first, second, strict=True))
        for n, path in enumerate((first, second)):
            seen[n] += np.bincount(path, minlength=4)
    assert (abs(seen / seen.sum(1, keepdims=True) - 0.25) < 0.05).all()  # equal alphas: uniform
    with torch.no_grad():
        for layer in searcher.supernet.layers:
            layer.alphas[2] += 3.0
    assert np.mean([p == 2 for step in range(40) for p in searcher.sample_paths(step, False)[0]]) > 0.8


@pytest.mark.parametrize(("target", "cheap"), [("low", True), ("high", False)])
def test_the_latency_penalty_pulls_towards_the_target(target, cheap):
    """With a heavy penalty, operators of small expansion gain at a low target and lose at a high one."""
    asked = settings(target_ms=LOW if target == "low" else HIGH, latency_weight=50.0, alpha_lr=0.1)
    searcher = Searcher(TINY, TABLE, asked)
    start = searcher.expected_ms()
    for step in range(6):
        searcher.alpha_step(step, draw("alphas")(step), 1.0)
    assert (searcher.expected_ms() < start) == cheap


def test_elasticity_brings_the_argmax_to_the_target():
    searcher = Searcher(TINY, TABLE, settings(target_ms=LOW + 0.3 * (HIGH - LOW)))
    with torch.no_grad():
        for layer in searcher.supernet.layers:
            layer.alphas[1] += 1.0
    assert searcher.latency_ms(searcher.argmax()) > searcher.settings.target_ms
    searcher.scale_elastically()
    found = searcher.latency_ms(searcher.argmax())
    assert found <= searcher.settings.target_ms
    assert found == pytest.approx(searcher.settings.target_ms, rel=0.03)


# ---- whole searches


def test_a_search_ends_with_an_architecture_within_the_target(tmp_path):
    found = search(tmp_path)
    assert predicted_ms(TABLE, found.architecture) <= MIDDLE
    assert list(found.epochs["epoch"]) == [0, 1, 2]
    assert list(found.epochs["alphas_trained"]) == [False, True, True]
    assert found.alphas.groupby(["epoch", "place"])["probability"].sum().round(6).eq(1).all()
    assert len(found.alphas) == 3 * 18 * 4
    first = found.alphas[found.alphas["epoch"] == 0]["probability"]
    assert first.round(6).eq(0.25).all()  # the first epoch trains weights only


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(learn_beta=True),
        dict(alpha_gradient="two"),
        dict(rebuild_optimisers=True),
        dict(loss="both"),
    ],
    ids=str,
)
def test_a_killed_search_goes_on_to_the_same_bits(changes, tmp_path):
    undisturbed = search(tmp_path / "a", **changes)
    real = Searcher.weight_step
    kills = iter([3, 5])
    stop = [next(kills)]

    def dies(self, step, *args, **kwargs):
        if step == stop[0]:
            stop[0] = next(kills, -1)
            raise KeyboardInterrupt
        return real(self, step, *args, **kwargs)

    (tmp_path / "b").mkdir()
    with patch.object(Searcher, "weight_step", dies):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                search(tmp_path / "b", checkpoint_s=0.0, **changes)
        again = search(tmp_path / "b", **changes)
    pd.testing.assert_frame_equal(undisturbed.alphas, again.alphas, check_exact=True)
    pd.testing.assert_frame_equal(undisturbed.epochs, again.epochs, check_exact=True)
    assert undisturbed.architecture == again.architecture
    assert all(
        np.array_equal(a, b) for a, b in zip(undisturbed.log_alphas, again.log_alphas, strict=True)
    )


# ---- what a supernet has learned


class Answers:
    """A supernet that always names the same class, as surely as `logit` says, and notes how it was
    asked."""

    def __init__(self, named: int, logit: float):
        self.logits, self.asked = torch.eye(3)[named] * logit, []

    def forward_paths(self, images, paths):
        assert not torch.is_grad_enabled()
        self.asked.append((len(images), paths))
        return [(None, self.logits.expand(len(images), 3))]


@pytest.mark.parametrize(
    ("labels", "named", "accuracy", "balanced", "largest"),
    [
        ([0, 1, 2] * 2, 0, 100 / 3, 100 / 3, 100 / 3),
        ([0, 0, 0, 0, 1, 2], 1, 100 / 6, 100 / 3, 400 / 6),
        ([0, 0, 1], 0, 200 / 3, 50, 200 / 3),
    ],
)
def test_a_look_at_held_out_images_says_what_was_learned(labels, named, accuracy, balanced, largest):
    searcher = Searcher(TINY, TABLE, settings())
    with torch.no_grad():
        searcher.supernet.layers[3].alphas[2] += 1.0
    searcher.supernet = Answers(named, 2.0)
    searcher.probabilities = lambda: [np.eye(4)[2 if n == 3 else 1] for n in range(18)]
    parts = [torch.tensor(labels[:2]), torch.tensor(labels[2:])]
    found = searcher.held_out(
        [Batch(None, torch.rand(len(part), 3, 32, 32), None, part) for part in parts]
    )
    loss = np.mean([np.log(np.exp(2) + 2) - 2 * (label == named) for label in labels])
    assert list(found.values()) == pytest.approx([accuracy, balanced, loss, largest])
    path = [1, 1, 1, 2, *[1] * 14]  # the most probable one
    assert searcher.supernet.asked == [(2, [path]), (len(labels) - 2, [path])]


def test_a_search_is_not_continued_with_other_settings(tmp_path):
    assert search(tmp_path, deadline=0.0) is None
    with pytest.raises(InputError, match="has other settings"):
        search(tmp_path, seed=3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(target_ms=float("nan")), "target_ms: Input should be a finite number"),
        (dict(epochs=0), "epochs: Input should be greater than 0"),
        (dict(loss="mse"), "loss: Input should be 'ce' or 'both'"),
        (dict(lr=-1.0), "lr: Input should be greater than or equal to 0"),
    ],
)
def test_bad_settings_get_one_sentence(changes, says):
    with pytest.raises(InputError, match=says):
        check_target(TINY, TABLE, settings(**changes))


@pytest.mark.parametrize("target", [LOW * 0.9, HIGH * 1.1])
def test_a_target_out_of_reach_is_refused_with_the_range(target):
    with pytest.raises(InputError, match=f"reach {LOW:.2f} to {HIGH:.2f} ms"):
        check_target(TINY, TABLE, settings(target_ms=target))


# ---- derivation


def test_the_knapsack_equals_trying_everything():
    rng = np.random.default_rng(0)
    for _ in range(20):
        costs = [rng.integers(0, 9, 4) for _ in range(5)]
        values = [rng.normal(size=4) for _ in range(5)]
        best, picks = derive.knapsack(costs, values)
        for budget in range(best.shape[1]):
            sums = [
                sum(v[n] for v, n in zip(values, option, strict=True))
                for option in itertools.product(range(4), repeat=5)
                if sum(c[n] for c, n in zip(costs, option, strict=True)) <= budget
            ]
            assert best[-1, budget] == pytest.approx(max(sums, default=-np.inf))
        assert picks.shape == (5, best.shape[1])


LOGS = [np.log(p / p.sum()) for p in np.random.default_rng(1).random((18, 4)) + 0.1]


def value_of(architecture):
    """The knapsack's value of an architecture."""
    return sum(
        logs[architecture.space.candidates.index(choice.operator)]
        + derive.WIDTH_VALUE * np.log2(choice.hidden / layer.in_channels)
        for layer, choice, logs in zip(
            architecture.space.layers, architecture.choices, LOGS, strict=True
        )
    )


@pytest.mark.parametrize("network", ["C-NAS", "D-NAS", "DC-NAS", "DC-NAS_seq"])
def test_the_frontier_is_within_every_target_and_better_than_random(network):
    found, rng = derive.frontier(TINY, TABLE, LOGS, network, bins=2000), np.random.default_rng(0)
    low, high = found.range_ms
    values = []
    for target in np.linspace(low + 0.02 * (high - low), high, 9):
        best = found.best(target)
        assert found.latency_ms(best) <= target * (1 + 1e-9)
        values.append(value_of(best))
        others = [random_architecture(TINY, rng) for _ in range(50)]
        assert all(value_of(o) <= values[-1] + 0.05 for o in others if found.latency_ms(o) <= target)
    assert values == sorted(values)
    with pytest.raises(InputError, match=f"reach {low:.2f} to {high:.2f} ms"):
        found.best(low * 0.5)
    with pytest.raises(InputError, match=f"reach {low:.2f} to {high:.2f} ms"):
        found.best(high * 1.01)


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_widths_are_fitted_from_below(share):
    latency = lambda a: predicted_ms(TABLE, a)  # noqa: E731
    for operator in (0, 3):
        start = start_architecture(TINY, operator)
        ends = [derive._moved(start, range(18), sign * 10**4) for sign in (-1, 1)]
        low, high = map(latency, ends)
        target = low + share * (high - low)
        fitted = derive.fit_widths(start, target, latency)
        assert latency(fitted) <= target
        assert [c.operator for c in fitted.choices] == [c.operator for c in start.choices]
        assert latency(fitted) > target - 0.1 * (high - low)


STEPPED = replace(TINY, width_step=8)


def test_all_ways_to_an_architecture_keep_to_the_steps():
    """Fitting, repair, the knapsack and a search's elasticity, in a space of steps of 8."""
    table = linear_table(STEPPED)
    latency = lambda a: predicted_ms(table, a)  # noqa: E731
    start = random_architecture(STEPPED, np.random.default_rng(3))
    low, high = (latency(derive._moved(start, range(18), sign * 10**4)) for sign in (-1, 1))
    target = low + 0.55 * (high - low)
    fitted = derive.fit_widths(start, target, latency)
    step_ms = [  # no layer has room left for a step
        latency(derive._moved(fitted, [i], 1)) - target
        for i in range(18)
        if derive._moved(fitted, [i], 1) != fitted
    ]
    assert latency(fitted) <= target < target + min(step_ms)
    measured = lambda found: {name: (1.2 * latency(a), 0.0) for name, a in found.items()}  # noqa: E731
    repaired, _ = derive.repair({"a": fitted}, {"a": target}, {"a": latency}, measured)
    assert abs(1.2 * latency(repaired["a"]) / target - 1) <= derive.TOLERANCE_PCT / 100
    best = derive.frontier(STEPPED, table, LOGS, "C-NAS").best(target)
    searcher = Searcher(STEPPED, table, SearchSettings(target_ms=target, steps_per_epoch=1))
    searcher.scale_elastically()
    widths = [n for layer in searcher.supernet.layers for n in layer.hidden]
    for architecture in (fitted, repaired["a"], best):
        widths += [choice.hidden for choice in architecture.choices]
    assert {n % 8 for n in widths} == {0}
    with pytest.raises(InputError, match="in steps of 8, but [0-9]+ was asked for"):
        predicted_ms(
            table, replace(start, choices=tuple(replace(c, hidden=c.hidden + 4) for c in start.choices))
        )


def predict(architecture):
    return predicted_ms(TABLE, architecture)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_repair_brings_the_measurement_to_the_target(factor):
    """A device that is faster or slower than its table says, by a factor; the second network needs no
    repair there."""
    start = derive.fit_widths(start_architecture(TINY, 2), MIDDLE, predict)
    fits = start_architecture(TINY, 0)

    def measured(found):
        return {name: (factor * predict(a), 0.0) for name, a in found.items()}

    starts, targets = {"misses": start, "fits": fits}, {"misses": MIDDLE, "fits": factor * predict(fits)}
    repaired, rows = derive.repair(starts, targets, dict.fromkeys(starts, predict), measured)
    assert abs(rows["misses"][0]["error_pct"]) > 10
    assert abs(measured(repaired)["misses"][0] / MIDDLE - 1) <= derive.TOLERANCE_PCT / 100
    assert repaired["fits"] == fits and len(rows["fits"]) == len(
        rows["misses"]
    )  # all take turns, every time


def test_repair_where_a_little_width_costs_a_lot():
    """A device that takes a tenth more beyond a width: to and fro by ratios would never end."""
    start = derive.fit_widths(start_architecture(TINY, 2), MIDDLE, predict)

    def measured(a):
        return predict(a) * (0.93 + 0.12 * np.clip((predict(a) / MIDDLE - 1) / 0.04, 0, 1))

    repaired, rows = derive.repair(
        {"a": start},
        {"a": MIDDLE},
        {"a": predict},
        lambda found: {name: (measured(a), 0.0) for name, a in found.items()},
    )
    assert abs(measured(repaired["a"]) / MIDDLE - 1) <= derive.TOLERANCE_PCT / 100
    assert len(rows["a"]) <= 5


# ---- the recorder


def epochs(flips, argmax_ms, trained=None, margin=0.5):
    return pd.DataFrame(
        {
            "flips": flips,
            "argmax_ms": argmax_ms,
            "alphas_trained": trained or [True] * len(flips),
            "margin": margin,
        }
    )


@pytest.mark.parametrize(
    ("flips", "argmax_ms", "cheapest", "word"),
    [
        ([5, 3, 2, 0, 0, 0], [9, 11, 10, 10, 10, 10], 0.3, "decided"),
        ([5, 3, 2, 4, 3, 4], [10] * 6, 0.3, "oscillating"),
        ([5, 3, 2, 0, 0, 0], [9, 11, 10, 10, 9, 11], 0.3, "oscillating"),
        ([5, 3, 0, 0, 0, 0], [9, 8, 7, 6, 5, 5], 0.95, "collapsed"),
        ([5, 3, 0, 0, 0, 0], [9, 9, 10, 10, 10, 10], 0.95, "decided"),
        ([5, 3], [9, 9], 0.3, "undecided"),
    ],
)
def test_the_verdict_on_a_search(flips, argmax_ms, cheapest, word):
    found = judge_search(epochs(flips, argmax_ms), 18, 10.0, cheapest)
    assert found.word == word and found.reason


@pytest.mark.parametrize(("accuracy", "word"), [(41.9, False), (46.9, True), (None, None)])
def test_a_healthy_supernet_is_above_the_largest_class_on_held_out_images(accuracy, word):
    found = epochs([0] * 3, [10] * 3)
    if accuracy is not None:
        found = found.assign(held_out_accuracy=[60.0, 50.0, accuracy], largest_class=41.8)
    verdict, reason = healthy(found)
    assert verdict is word and ("never looked" in reason) == (word is None)
