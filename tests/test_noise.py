"""The noise of training and evaluation: its level and its independence."""

import pytest
import torch

from dcnas.data.noise import SIGMAS, NoiseBank, degrade
from dcnas.seed import derive, generator

SHAPE = (1, 96, 96)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


@pytest.mark.parametrize("sigma", SIGMAS)
def test_measured_noise_level(sigma):
    images = torch.rand(50, *SHAPE, generator=generator("images"))
    noise = (
        degrade(images, sigma, torch.randn(images.shape, generator=generator("level", str(sigma))))
        - images
    )
    assert noise.std().item() == pytest.approx(sigma, rel=0.01)
    assert abs(noise.mean().item()) <= 0.01 * sigma
    if sigma:
        z = noise / sigma  # Gaussian: 68.3% and 95.4% lie within one and two sigmas
        assert [(z.abs() < k).float().mean().item() for k in (1, 2)] == pytest.approx(
            [0.6827, 0.9545], abs=0.005
        )


def test_degrade():
    images, noise = torch.rand(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    sigmas = torch.tensor([0.0, 0.5, 1.0])
    expected = torch.stack([image + s * n for image, s, n in zip(images, sigmas, noise, strict=True)])
    assert torch.equal(degrade(images, sigmas, noise), expected)
    assert torch.equal(degrade(images, sigmas, noise, clip=True), expected.clamp(0, 1))
    assert torch.equal(degrade(images, 0.5, noise), images + 0.5 * noise)


# the bank


def test_the_bank_does_not_depend_on_batches():
    bank = NoiseBank()
    whole = bank.noise(range(20), 0.3, SHAPE)
    parts = [NoiseBank().noise(range(i, min(i + 7, 20)), 0.3, SHAPE) for i in range(0, 20, 7)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(bank.noise([13, 2], 0.3, SHAPE), whole[[13, 2]])
    assert torch.equal(bank.noise(range(20), 0.3, SHAPE), whole)  # nor on what was asked before


def test_the_bank_is_keyed_by_image_sigma_and_seed():
    keys = [
        (image, sigma, seed) for image in (0, 1, 2, 999) for sigma in (0.1, 0.2, 1.0) for seed in (0, 1)
    ]
    patterns = [NoiseBank(seed).noise([image], sigma, SHAPE) for image, sigma, seed in keys]
    worst = max(abs(correlation(a, b)) for i, a in enumerate(patterns) for b in patterns[:i])
    assert worst < 0.05  # 276 pairs, standard error 0.0104


def test_no_pattern_of_the_study_occurs_twice():
    """The CPU generator of torch uses 32 bits of its seed: here no two of the 11,000 seeds agree."""
    rows = torch.cat([NoiseBank().noise(range(1_000), sigma, (16,)) for sigma in SIGMAS])
    assert len(rows.unique(dim=0)) == len(rows) == 11_000


def test_the_bank_has_the_same_bits_as_ever():
    """Published results were measured on this noise."""
    noise = NoiseBank().noise([0, 7], 0.4, SHAPE)[:, 0, 50, :3]
    pinned = [[-0.3854389, 0.6815624, -0.9160510], [-0.4564655, 0.6641712, -0.2981895]]
    torch.testing.assert_close(noise, torch.tensor(pinned), rtol=0, atol=1e-5)


# seeds


def test_derived_seeds():
    assert derive("two digits", 0, "train") == 6_603_804_213_723_569_480
    keys = [("a", 1), ("a1",), ("a", "1", ""), (1, "a"), ("a", 12), ("a", 1, 2)]
    seeds = {derive(*key) for key in keys}
    assert len(seeds) == len(keys) and all(0 <= seed < 2**63 for seed in seeds)
    assert torch.equal(
        torch.rand(2, generator=generator("x", 1)), torch.rand(2, generator=generator("x", 1))
    )
