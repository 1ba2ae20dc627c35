"""The noise of training and evaluation: its level and its independence."""

import itertools
import math

import pytest
import torch

from dcnas.data.noise import SIGMAS, NoiseBank, check_sigma, degrade
from dcnas.errors import InputError
from dcnas.seed import derive, generator

SHAPE = (1, 96, 96)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_measured_noise_level(sigma):
    images = torch.rand(50, *SHAPE, generator=generator("images"))
    draws = torch.randn(images.shape, generator=generator("level", str(sigma)))
    noise = degrade(images, sigma, draws) - images
    assert noise.std().item() == pytest.approx(sigma, rel=0.01)
    assert abs(noise.mean().item()) <= 0.01 * sigma


def test_degrade():
    images, noise = torch.rand(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    sigmas = torch.tensor([0.0, 0.5, 1.0])
    expected = torch.stack([image + s * n for image, s, n in zip(images, sigmas, noise, strict=True)])
    assert torch.equal(degrade(images, sigmas, noise), expected)
    assert torch.equal(degrade(images, sigmas, noise, clip=True), expected.clamp(0, 1))


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf])
def test_a_noise_level_that_is_none_is_refused(sigma):
    with pytest.raises(InputError, match=f"sigma is {sigma}, but a finite noise level of at least 0"):
        check_sigma(sigma)


# the bank


def test_the_bank_does_not_depend_on_batches():
    bank = NoiseBank()
    whole = bank.noise(range(20), 0.3, SHAPE)
    parts = [NoiseBank().noise(range(i, min(i + 7, 20)), 0.3, SHAPE) for i in range(0, 20, 7)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(bank.noise([13, 2], 0.3, SHAPE), whole[[13, 2]])


def test_the_bank_is_keyed_by_image_sigma_and_seed():
    keys = itertools.product((0, 1, 2, 999), (0.1, 0.2, 1.0), (0, 1))
    patterns = [NoiseBank(seed).noise([image], sigma, SHAPE).flatten() for image, sigma, seed in keys]
    correlations = torch.corrcoef(torch.stack(patterns)) - torch.eye(24)
    assert correlations.abs().max() < 0.05  # 276 pairs, standard error 0.0104


def test_no_pattern_of_the_study_occurs_twice():
    """The CPU generator of torch uses 32 bits of its seed: here no two of the 11,000 seeds agree."""
    rows = torch.cat([NoiseBank().noise(range(1_000), sigma, (16,)) for sigma in SIGMAS])
    assert len(rows.unique(dim=0)) == len(rows) == 11_000


def test_the_bank_has_the_same_bits_as_ever():
    """Published results were measured on this noise."""
    noise = NoiseBank().noise([0, 7], 0.4, SHAPE)[:, 0, 50, :3]
    pinned = [[-0.3854389, 0.6815624, -0.9160510], [-0.4564655, 0.6641712, -0.2981895]]
    torch.testing.assert_close(noise, torch.tensor(pinned), rtol=0, atol=1e-5)


def test_derived_seeds():
    assert derive("two digits", 0, "train") == 6_603_804_213_723_569_480
    keys = [("a", 1), ("a1",), ("a", "1", ""), (1, "a"), ("a", 12), ("a", 1, 2)]
    seeds = {derive(*key) for key in keys}
    assert len(seeds) == len(keys) and all(0 <= seed < 2**63 for seed in seeds)
