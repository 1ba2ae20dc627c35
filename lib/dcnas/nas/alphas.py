"""The optimiser of a search's alphas, and what it makes of gradients that know nothing: the yardstick
for what a search found.

Adam divides gradients by their size, so alphas move, sharpen and settle on operators also where there is
nothing to learn. Only what goes beyond that is knowledge, first of all that searches of several seeds
agree.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..seed import generator
from .recorder import describe
from .settings import SearchSettings
from .space import Space

GRADIENT = 0.03  # standard deviation of an alpha's gradient, about that of a real one


def alpha_optimiser(parameters: Sequence[nn.Parameter], settings: SearchSettings) -> torch.optim.Adam:
    """Adam as the settings have it."""
    how = dict(betas=settings.alpha_betas, weight_decay=settings.alpha_weight_decay, foreach=True)
    return torch.optim.Adam(parameters, settings.alpha_lr, **how)


def alpha_update(optimiser: torch.optim.Adam, settings: SearchSettings) -> None:
    """A step on the gradients that the parameters have, clipped."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, settings.clip, foreach=True)
    optimiser.step()
    with torch.no_grad():  # they stay log-probabilities, as in [16]
        for parameter in parameters:
            parameter.copy_(F.log_softmax(parameter, -1))


def random_alphas(
    space: Space, settings: SearchSettings, seed: int, mean: Tensor | float = 0.0
) -> list[np.ndarray]:
    """Probabilities (layers, operators) after each epoch that trains alphas, by random gradients.

    The gradients have this mean; there are as many steps as a search of these settings takes.
    """
    stream = generator("random alphas", seed)
    alphas = nn.Parameter(torch.zeros(len(space.layers), space.operators).log_softmax(-1))
    optimiser, epochs = alpha_optimiser([alphas], settings), []
    for _ in range(settings.epochs - settings.weight_epochs):
        if settings.rebuild_optimisers:
            optimiser = alpha_optimiser([alphas], settings)
        for _ in range(0, settings.steps_per_epoch, 2):  # every second step trains alphas
            alphas.grad = mean + GRADIENT * torch.randn(alphas.shape, generator=stream)
            alpha_update(optimiser, settings)
        epochs.append(F.softmax(alphas.detach().double(), -1).numpy())
    return epochs


def agreement(searches: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Of each pair of searches, as (layers, operators), the share of layers with the same best one."""
    best = np.array(searches).argmax(2)
    return np.array([np.mean(a == b) for a, b in combinations(best, 2)])


def noise_null(space: Space, settings: SearchSettings, seeds: int = 20) -> pd.DataFrame:
    """What a search shows that learned nothing, a row per epoch that trains alphas.

    Means over `seeds`: flips (of the best operator, as a share of layers), entropy, margin, agreement of
    two seeds. And the 95th percentile of that agreement, which searches that learned something must
    exceed.
    """
    paths = [random_alphas(space, settings, seed) for seed in range(seeds)]
    before = [np.full_like(path[0], 1 / space.operators) for path in paths]  # as a search begins
    rows = []
    for epoch, now in enumerate(zip(*paths), settings.weight_epochs):
        row = pd.DataFrame(map(describe, now, before)).mean()
        row["flips"] /= len(space.layers)
        pairs, before = agreement(now), now
        row["agreement"], row["agreement_95"] = pairs.mean(), np.quantile(pairs, 0.95)
        rows.append({"epoch": epoch, **row})
    return pd.DataFrame(rows)
