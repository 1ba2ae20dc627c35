"""The two-digit set: the same bits everywhere, and every image what its boxes and labels say."""

import hashlib

import numpy as np
import pytest
import torch

from dcnas.data import two_digits
from dcnas.data.two_digits import SPLITS, generate

FIELDS = ("images", "boxes", "labels", "digits")
SHA256 = {  # of the first 16 images of each split with their boxes, labels and digits
    "train": "fb6587946aababd2f68f2ca721e72c58b725bb0dce1d74d9c2a8c84b23efc444",
    "validation": "72e5a28a96ef3057bc9d50c4ab766b781ccce7fc1b9c1fde2a2652c51f8c53a4",
    "test": "4da391aa8e7133b5fc27f26b28a731044e0011c32b4273f4ebe4a4bba32c65d8",
}


@pytest.fixture(scope="module", params=SPLITS)
def sample(request, mnist):
    """(split, 2,000 of its images)"""
    return request.param, generate(request.param, 2_000, mnist=mnist)


def same(a, b) -> bool:
    return all(torch.equal(getattr(a, field), getattr(b, field)) for field in FIELDS)


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_bits_as_ever(mnist, split):
    data = generate(split, 16, mnist=mnist)
    digest = hashlib.sha256()
    for field in FIELDS:
        digest.update(getattr(data, field).contiguous().numpy().tobytes())
    assert digest.hexdigest() == SHA256[split]
    assert same(data, generate(split, 16, mnist=mnist))


def test_a_smaller_set_is_the_beginning_of_a_larger_one(sample, mnist):
    split, data = sample
    small = generate(split, 37, mnist=mnist)
    assert len(small) == 37
    assert all(torch.equal(getattr(small, field), getattr(data, field)[:37]) for field in FIELDS)


def test_boxes_lie_inside_and_do_not_overlap(sample):
    _, data = sample
    left, top, right, bottom = data.boxes.unbind(-1)
    assert (right - left == 32).all() and (bottom - top == 32).all()
    assert (left >= 0).all() and (top >= 0).all() and (right <= 96).all() and (bottom <= 96).all()
    apart = [
        (low[:, 1] >= high[:, 0]) | (low[:, 0] >= high[:, 1])
        for low, high in ((left, right), (top, bottom))
    ]
    assert (apart[0] | apart[1]).all()
    assert left.unique().numel() == top.unique().numel() == 65  # every place occurs


def test_images_are_what_boxes_and_digits_say(sample, mnist):
    """Pixel by pixel: grey background, and the ink of each digit over it in the middle of its box."""
    split, data = sample
    source = mnist.test_images if split == "test" else mnist.train_images
    for image, boxes, digits in zip(
        data.images[:300, 0].numpy(), data.boxes.numpy(), data.digits.numpy(), strict=False
    ):
        ink = np.zeros((96, 96))
        for (left, top, _, _), digit in zip(boxes, digits, strict=True):
            ink[top + 2 : top + 30, left + 2 : left + 30] = source[digit] / 255
        (grey,) = np.unique(image[ink == 0])  # one grey all over
        assert 26 <= grey <= 76
        assert np.abs(grey * (1 - ink) + 255 * ink - image).max() <= 0.5 + 1e-9
        assert image.max() > 200


def test_when_no_pair_of_places_fits():
    """All tries at the same place, which has a chance of one in 10^8: opposite corners."""
    raw = np.zeros((3, 2 * two_digits._TRIES), np.uint64)
    raw[1, -1] = ~np.uint64(0)  # the last try fits
    assert two_digits._places(raw).tolist() == [[[0, 0], [64, 64]]] * 3
    raw[1, 1] = 2**63  # the first fits as well: half way down, on the left
    assert two_digits._places(raw)[1].tolist() == [[0, 0], [32, 0]]
