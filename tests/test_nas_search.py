"""The supernet, the search, exact resume, what moves alphas, and the best network for a target."""

import itertools
import time
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from made_up import interrupted, linear_table, start_architecture
from torch import nn

from dcnas.errors import InputError
from dcnas.nas import derive
from dcnas.nas.alphas import (
    GRADIENT,
    agreement,
    alpha_optimiser,
    alpha_update,
    noise_null,
    random_alphas,
)
from dcnas.nas.lut import predicted_ms
from dcnas.nas.random_search import run_random_search
from dcnas.nas.recorder import healthy, judge_search
from dcnas.nas.search import Searcher, SearchSettings, run_search
from dcnas.nas.settings import latency_range_ms
from dcnas.nas.space import Space, random_architecture
from dcnas.nas.supernet import Supernet
from dcnas.seed import generator
from dcnas.training import Trainer
from dcnas.training.tasks import Batch

TINY = Space(operators=4, resolution=32, classes=3, width=0.25)
TABLE = linear_table(TINY)
LOW, HIGH = latency_range_ms(TINY, TABLE)
MIDDLE = (LOW + HIGH) / 2


def settings(**changes) -> SearchSettings:
    target_ms = MIDDLE + (TABLE.part_ms("decoder conv") if changes.get("loss") == "both" else 0.0)
    few = dict(target_ms=target_ms, steps_per_epoch=2, epochs=3, weight_epochs=1)
    return SearchSettings(**few | changes)


def draw(part: str, batch: int = 4):
    """Batches of three kinds of images that differ in brightness, from the step alone."""

    def at(step: int) -> Batch:
        stream = generator(part, step)
        labels = torch.randint(3, (batch,), generator=stream)
        grain = 0.2 * torch.rand(batch, 3, 32, 32, generator=stream)
        clean = (labels.view(-1, 1, 1, 1) / 3 + grain).clamp(0, 1)
        return Batch(clean, clean + 0.1 * torch.randn(clean.shape, generator=stream), None, labels)

    return at


def search(folder, *, checkpoint_s=60.0, deadline=None, **changes):
    options = dict(checkpoint_s=checkpoint_s, deadline=deadline, progress=False)
    draws = draw("weights"), draw("alphas")
    return run_search(TINY, TABLE, settings(**changes), *draws, folder, **options)


def predict(architecture) -> float:
    return predicted_ms(TABLE, architecture)


@pytest.mark.parametrize("indices", [None, [6, 1]], ids=str)
def test_the_mixture_is_the_weighted_sum_of_its_operators(indices):
    torch.manual_seed(0)
    supernet = Supernet(replace(TINY, operators=8)).to(memory_format=torch.channels_last)
    x = supernet.run_stem(torch.rand(4, 3, 32, 32).to(memory_format=torch.channels_last))
    for layer in supernet.layers:
        weights = torch.rand(8 if indices is None else 2).softmax(0)
        plain = sum(w * layer.one(x, i) for w, i in zip(weights, indices or range(8), strict=True))
        torch.testing.assert_close(layer.mixed(x, weights, indices), plain, atol=2e-5, rtol=1e-4)
        x = plain.detach()


def test_expected_latency_at_certain_alphas_is_the_table_s():
    searcher = Searcher(TINY, TABLE, settings())
    picks = [n % 4 for n in range(18)]
    with torch.no_grad():
        for layer, pick in zip(searcher.supernet.layers, picks, strict=True):
            layer.alphas.copy_(torch.full((4,), -60.0)).view(-1)[pick] = 0.0
    assert searcher.argmax() == start_architecture(TINY, picks)
    assert searcher.expected_ms() == pytest.approx(predict(searcher.argmax()), rel=1e-5)


def moved(parameters, before) -> list[bool]:
    return [not torch.equal(p, q) for p, q in zip(parameters, before, strict=True)]


def test_a_weight_step_trains_the_sampled_paths_and_no_alpha():
    searcher = Searcher(TINY, TABLE, settings())
    alphas = [p.detach().clone() for p in searcher.architecture]
    layers = enumerate(searcher.supernet.layers)
    blocks = {(i, n): block for i, layer in layers for n, block in enumerate(layer.blocks)}
    weights = {key: block.depthwise[0].weight for key, block in blocks.items()}
    before = {key: weight.detach().clone() for key, weight in weights.items()}
    paths = searcher.sample_paths(5, both=True)
    searcher.weight_step(5, draw("weights")(5))
    assert not any(moved(searcher.architecture, alphas))
    changed = {key for key, weight in weights.items() if not torch.equal(weight, before[key])}
    assert changed == {(n, path[n]) for path in paths for n in range(18)}


@pytest.mark.parametrize("gradient", ["all", "two"])
def test_an_alpha_step_trains_all_alphas_and_no_weight(gradient):
    searcher = Searcher(TINY, TABLE, settings(alpha_gradient=gradient))
    both = searcher.weights, searcher.architecture
    weights, alphas = ([p.detach().clone() for p in some] for some in both)
    searcher.alpha_step(5, draw("alphas")(5), 5.0)
    assert not any(moved(searcher.weights, weights))
    assert all(moved(searcher.architecture, alphas))
    for parameter in searcher.architecture:
        assert parameter.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_the_second_path_never_takes_the_first_s_operator_and_both_reach_all():
    searcher = Searcher(TINY, TABLE, settings())
    paths = np.array([searcher.sample_paths(step, both=True) for step in range(60)])
    assert (paths[:, 0] != paths[:, 1]).all()
    for n in (0, 1):  # equal alphas: uniform
        assert np.bincount(paths[:, n].ravel()) / (60 * 18) == pytest.approx([0.25] * 4, abs=0.05)
    with torch.no_grad():
        for layer in searcher.supernet.layers:
            layer.alphas[2] += 3.0
    assert np.mean([np.equal(searcher.sample_paths(step, False)[0], 2) for step in range(40)]) > 0.8


def test_the_latency_penalty_pulls_towards_the_target():
    for target_ms, cheap in ((LOW, True), (HIGH, False)):
        how = settings(target_ms=target_ms, latency_weight=50.0, alpha_lr=0.1)
        searcher = Searcher(TINY, TABLE, how)
        start = searcher.expected_ms()
        for step in range(6):
            searcher.alpha_step(step, draw("alphas")(step), 1.0)
        assert (searcher.expected_ms() < start) == cheap


def equal(a, b) -> None:
    pd.testing.assert_frame_equal(a.epochs, b.epochs, check_exact=True)
    pd.testing.assert_frame_equal(a.alphas, b.alphas, check_exact=True)
    assert a.architecture == b.architecture and a.verdict == b.verdict


def test_a_search_ends_with_an_architecture_within_the_target(tmp_path):
    found = search(tmp_path)
    assert predict(found.architecture) <= MIDDLE
    assert found.epochs["alphas_trained"].tolist() == [False, True, True]
    assert len(found.alphas) == 3 * 18 * 4
    assert found.alphas.groupby(["epoch", "place"])["probability"].sum().round(6).eq(1).all()
    # the first epoch trains weights only
    assert found.alphas.query("epoch == 0")["probability"].round(6).eq(0.25).all()
    assert search(tmp_path, deadline=0.0) is None
    with pytest.raises(InputError, match="has other settings"):
        search(tmp_path, seed=3)


@pytest.mark.parametrize(
    "changes", [dict(learn_beta=True, alpha_gradient="two"), dict(rebuild_optimisers=True, loss="both")]
)
def test_a_killed_search_goes_on_to_the_same_bits(changes, tmp_path):
    undisturbed = search(tmp_path / "a", **changes)
    (tmp_path / "b").mkdir()
    for call in (4, 3):  # in steps 3 and 5
        with interrupted(Searcher, "weight_step", call):
            search(tmp_path / "b", checkpoint_s=0.0, **changes)
    again = search(tmp_path / "b", **changes)
    equal(undisturbed, again)
    assert np.array_equal(undisturbed.log_alphas, again.log_alphas)


@pytest.mark.parametrize(
    ("labels", "named", "accuracy", "balanced", "largest"),
    [([0, 0, 0, 0, 1, 2], 1, 100 / 6, 100 / 3, 400 / 6), ([0, 0, 1], 0, 200 / 3, 50, 200 / 3)],
)
def test_a_look_at_held_out_images_says_what_was_learned(labels, named, accuracy, balanced, largest):
    """Of a supernet that always names the same class, asked for its most probable path."""
    searcher, paths = Searcher(TINY, TABLE, settings()), []
    searcher.probabilities = lambda: [np.eye(4)[2 if n == 3 else 1] for n in range(18)]
    logits = 2.0 * torch.eye(3)[named]
    answer = lambda x, asked: paths.extend(asked) or [(None, logits.expand(len(x), 3))]  # noqa: E731
    searcher.supernet = SimpleNamespace(forward_paths=answer)
    parts = [torch.tensor(labels[:2]), torch.tensor(labels[2:])]
    batches = [Batch(None, torch.rand(len(part), 3, 32, 32), None, part) for part in parts]
    loss = np.mean([np.log(np.exp(2) + 2) - 2 * (label == named) for label in labels])
    found = list(searcher.held_out(batches).values())
    assert found == pytest.approx([accuracy, balanced, loss, largest])
    assert paths == [[1, 1, 1, 2, *[1] * 14]] * 2


SHORT = dict(steps_per_epoch=24, epochs=8, weight_epochs=2, alpha_lr=0.07)


@pytest.mark.parametrize("operators", [4, 8])
def test_seeds_of_noise_agree_as_chance_does(operators):
    null = noise_null(Space(operators, 32, 3, 0.25), settings(**SHORT))
    assert null["epoch"].tolist() == [2, 3, 4, 5, 6, 7]
    assert (null["agreement"] - 1 / operators).abs().max() < 0.04
    assert null["agreement_95"].between(null["agreement"], 0.6, inclusive="neither").all()
    assert null["flips"].iloc[-1] > 0.05  # noise flips, and sharpens, too
    assert null["entropy"].is_monotonic_decreasing


def test_searches_that_know_something_agree_beyond_noise():
    best = torch.randint(4, (18,), generator=torch.Generator().manual_seed(0))
    liked = -GRADIENT * F.one_hot(best, 4)
    found = [random_alphas(TINY, settings(**SHORT), seed, liked)[-1] for seed in range(4)]
    assert agreement(found).min() > noise_null(TINY, settings(**SHORT))["agreement_95"].iloc[-1]
    assert np.mean(found[0].argmax(1) == best.numpy()) > 0.9


def test_the_optimiser_is_that_of_the_search():
    """The gradients of a real search, clipped, lead to its alphas; those of betas too."""
    searcher = Searcher(TINY, TABLE, settings(learn_beta=True, alpha_lr=0.07))
    copies = [nn.Parameter(p.detach().clone()) for p in searcher.architecture]
    optimiser = alpha_optimiser(copies, searcher.settings)
    for step in range(6):
        searcher.alpha_step(step, draw("alphas")(step), 5.0)
        for copy, parameter in zip(copies, searcher.architecture, strict=True):
            copy.grad = parameter.grad.clone()
        alpha_update(optimiser, searcher.settings)
        torch.testing.assert_close(copies, list(searcher.architecture))


def test_random_search_is_the_best_of_a_few_networks_by_validation(tmp_path):
    """Within the target, and the same after a deadline and a kill."""
    validate = [draw("alphas", 6)(step) for step in range(2)]
    options = dict(networks=3, steps=3, progress=False, deadline=None)

    def run(name: str, seed: int = 0, **changes):
        asked = (settings(seed=seed), draw("weights"), validate, tmp_path / name)
        return run_random_search(TINY, TABLE, *asked, **options | changes)

    found, real, steps = run("a"), Trainer.step, []
    latencies = found.epochs["argmax_ms"]
    assert latencies.between(0.9 * MIDDLE, MIDDLE).all()
    assert predict(found.architecture) == latencies[found.epochs["accuracy"].idxmax()]
    assert found.alphas.groupby("epoch")["probability"].agg(tuple).nunique() == 3
    assert run("other", 1, networks=1).architecture != run("same", networks=1).architecture
    assert np.allclose(np.exp(found.log_alphas), 0.25)
    assert run("b", deadline=time.monotonic()) is None
    with interrupted(Trainer, "step", 5):  # in the second network
        run("b")
    assert [path.parent.name for path in (tmp_path / "b").rglob("row.json")] == ["network-0"]
    with patch.object(Trainer, "step", lambda self, batch: steps.append(1) or real(self, batch)):
        equal(run("b"), found)
    assert len(steps) <= 6  # what was finished is not trained again
    assert not list((tmp_path / "b").rglob("checkpoint*"))


def test_the_knapsack_equals_trying_everything():
    rng = np.random.default_rng(0)
    for _ in range(20):
        costs, values = rng.integers(0, 9, (5, 4)), rng.normal(size=(5, 4))
        best, _ = derive.knapsack(costs, values)
        options = np.array(list(itertools.product(range(4), repeat=5)))
        cost, value = (table[range(5), options].sum(1) for table in (costs, values))
        for budget in range(best.shape[1]):
            assert best[-1, budget] == pytest.approx(max(value[cost <= budget], default=-np.inf))


LOGS = [np.log(p / p.sum()) for p in np.random.default_rng(1).random((18, 4)) + 0.1]


def value_of(architecture) -> float:
    """The knapsack's value of an architecture."""
    value = 0.0
    for layer, choice, logs in zip(TINY.layers, architecture.choices, LOGS, strict=True):
        value += logs[TINY.candidates.index(choice.operator)]
        value += derive.WIDTH_VALUE * np.log2(choice.hidden / layer.in_channels)
    return value


@pytest.mark.parametrize("network", ["D-NAS", "DC-NAS_seq"])
def test_the_frontier_is_within_every_target_and_better_than_random(network):
    found, rng = derive.Frontier(TINY, TABLE, LOGS, network, bins=2000), np.random.default_rng(0)
    low, high = found.range_ms
    values, others = [], [random_architecture(TINY, rng) for _ in range(100)]
    for target in np.linspace(low + 0.02 * (high - low), high, 9):
        best = found.best(target)
        assert found.latency_ms(best) <= target * (1 + 1e-9)
        values.append(value_of(best))
        assert all(value_of(o) <= values[-1] + 0.05 for o in others if found.latency_ms(o) <= target)
    assert values == sorted(values)
    for target in (low * 0.5, high * 1.01):
        with pytest.raises(InputError, match=f"reach {low:.2f} to {high:.2f} ms"):
            found.best(target)


def at_end(architecture, end: int):
    """The architecture at the least (0) or largest (1) widths of its operators."""
    pairs = zip(architecture.space.layers, architecture.choices, strict=True)
    widths = (replace(c, hidden=layer.hidden_range(c.operator)[end]) for layer, c in pairs)
    return replace(architecture, choices=tuple(widths))


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_widths_are_fitted_from_below(share):
    for start in (start_architecture(TINY, 0), start_architecture(TINY, 3)):
        low, high = (predict(at_end(start, end)) for end in (0, 1))
        target = low + share * (high - low)
        fitted = derive.fit_widths(start, target, predict)
        assert target - 0.1 * (high - low) < predict(fitted) <= target
        assert [c.operator for c in fitted.choices] == [c.operator for c in start.choices]


def test_all_ways_to_an_architecture_keep_to_the_steps():
    """Fitting, repair, the knapsack and a search's elasticity, in a space of steps of 8."""
    stepped = replace(TINY, width_step=8)
    table = linear_table(stepped)
    latency = lambda a: predicted_ms(table, a)  # noqa: E731
    start = random_architecture(stepped, np.random.default_rng(3))
    low, high = (latency(at_end(start, end)) for end in (0, 1))
    target = low + 0.55 * (high - low)
    fitted = derive.fit_widths(start, target, latency)
    assert latency(fitted) <= target
    measured = lambda found: {name: (1.2 * latency(a), 0.0) for name, a in found.items()}  # noqa: E731
    repaired, _ = derive.repair({"a": fitted}, {"a": target}, {"a": latency}, measured)
    assert 1.2 * latency(repaired["a"]) == pytest.approx(target, rel=derive.TOLERANCE_PCT / 100)
    best = derive.Frontier(stepped, table, LOGS, "C-NAS").best(target)
    searcher = Searcher(stepped, table, settings(target_ms=target))
    searcher.scale_elastically()
    widths = [n for layer in searcher.supernet.layers for n in layer.hidden]
    widths += [c.hidden for found in (fitted, repaired["a"], best) for c in found.choices]
    assert {n % 8 for n in widths} == {0}


DEVICES = {
    "faster": lambda ms: 0.8 * ms,
    "slower": lambda ms: 1.25 * ms,
    # takes a tenth more beyond a width: to and fro by ratios would never end
    "a step": lambda ms: ms * (0.93 + 0.12 * np.clip((ms / MIDDLE - 1) / 0.04, 0, 1)),
}


@pytest.mark.parametrize("device", DEVICES)
def test_repair_brings_the_measurement_to_the_target(device):
    """On a device that is not what its table says; the second network needs no repair there."""
    measure = lambda a: DEVICES[device](predict(a))  # noqa: E731
    fits = start_architecture(TINY, 0)
    misses = derive.fit_widths(start_architecture(TINY, 2), MIDDLE, predict)
    starts, targets = {"misses": misses, "fits": fits}, {"misses": MIDDLE, "fits": measure(fits)}
    measured = lambda found: {name: (measure(a), 0.0) for name, a in found.items()}  # noqa: E731
    repaired, rows = derive.repair(starts, targets, dict.fromkeys(starts, predict), measured)
    assert abs(rows["misses"][0]["error_pct"]) > derive.TOLERANCE_PCT
    assert measure(repaired["misses"]) == pytest.approx(MIDDLE, rel=derive.TOLERANCE_PCT / 100)
    assert repaired["fits"] == fits
    assert len(rows["fits"]) == len(rows["misses"]) <= 5  # all take turns, every time


def test_the_verdict_on_a_search():
    for flips, argmax_ms, cheapest, word in (
        ([5, 3, 2, 0, 0, 0], [9, 11, 10, 10, 10, 10], 0.3, "decided"),
        ([5, 3, 2, 4, 3, 4], [10] * 6, 0.3, "oscillating"),
        ([5, 3, 2, 0, 0, 0], [9, 11, 10, 10, 9, 11], 0.3, "oscillating"),
        ([5, 3, 0, 0, 0, 0], [9, 8, 7, 6, 5, 5], 0.95, "collapsed"),
        ([5, 3], [9, 9], 0.3, "undecided"),
    ):
        epochs = pd.DataFrame(dict(flips=flips, argmax_ms=argmax_ms, alphas_trained=True, margin=0.5))
        found = judge_search(epochs, 18, 10.0, cheapest)
        assert found.word == word and found.reason
    for accuracy, above in ((41.9, False), (46.9, True)):  # the largest class on held-out images
        found = pd.DataFrame(dict(held_out_accuracy=[60.0, 50.0, accuracy], largest_class=41.8))
        assert healthy(found)[0] is above and healthy(found[["largest_class"]])[0] is None
