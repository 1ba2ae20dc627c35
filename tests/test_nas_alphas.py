"""What the optimiser of the alphas makes of noise: as much agreement as chance, and more where gradients
know something."""

import numpy as np
import pytest
import torch
from test_nas_search import TABLE, TINY, draw, settings
from torch import nn

from dcnas.nas.alphas import (
    GRADIENT,
    agreement,
    alpha_optimiser,
    alpha_update,
    noise_null,
    random_alphas,
)
from dcnas.nas.search import Searcher
from dcnas.nas.space import Space

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = dict(steps_per_epoch=24, epochs=8, weight_epochs=2, alpha_lr=0.07)


@pytest.mark.parametrize("operators", [4, 8])
def test_seeds_of_noise_agree_as_chance_does(operators):
    null = noise_null(Space(operators, 32, 3, 0.25), settings(**SHORT))
    assert null["epoch"].tolist() == [2, 3, 4, 5, 6, 7]
    assert (null["agreement"] - 1 / operators).abs().max() < 0.04
    assert ((null["agreement_95"] > null["agreement"]) & (null["agreement_95"] < 0.6)).all()
    assert (
        null["flips"].iloc[-1] > 0.05 and null["entropy"].is_monotonic_decreasing
    )  # noise flips, and sharpens, too


def test_searches_that_know_something_agree_beyond_noise():
    best = torch.randint(4, (18,), generator=torch.Generator().manual_seed(0))
    liked = torch.nn.functional.one_hot(best, 4)
    found = [random_alphas(TINY, settings(**SHORT), seed, -GRADIENT * liked) for seed in range(4)]
    limit = noise_null(TINY, settings(**SHORT))["agreement_95"].iloc[-1]
    assert agreement([path[-1] for path in found]).min() > limit
    assert np.mean(found[0][-1].argmax(1) == best.numpy()) > 0.9


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
        for copy, parameter in zip(copies, searcher.architecture, strict=True):
            torch.testing.assert_close(copy, parameter)
