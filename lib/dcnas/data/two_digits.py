"""The paper's synthetic set: two MNIST digits on a grey background (Section 3; Figure 4a).

Recovered where the paper is silent: 96 x 96 pixels, one channel; a digit's box is its 28 x 28 image in
the middle of a 32 x 32 square. Train and validation digits come from different MNIST training images.
Image i depends on (seed, split, i) alone, by PCG64's raw stream and integers: the same bits everywhere.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..models.crops import BOX_SIZE
from ..seed import derive
from .mnist import Mnist, load_mnist

IMAGE_SIZE = 96
SPLITS = ("train", "validation", "test")
VALIDATION_DIGITS = 10_000  # the last MNIST training images are kept for validation

_MARGIN = (BOX_SIZE - 28) // 2
_PLACES = IMAGE_SIZE - BOX_SIZE + 1
_TRIES = 32  # pairs of places tried per image; one pair in two fits, so all 32 fail once in 10^8 images
_GREYS = (26, 76)  # 0.1 and 0.3 of 255


@dataclass(frozen=True)
class TwoDigits:
    """N images of one split."""

    images: Tensor  # uint8 (N, 1, 96, 96)
    boxes: Tensor  # int64 (N, 2, 4): left, top, right, bottom in pixels, right and bottom excluded
    labels: Tensor  # int64 (N, 2)
    digits: Tensor  # int64 (N, 2): rows of MNIST (test: of its test part)

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "TwoDigits":
        return TwoDigits(*(tensor.to(device) for tensor in vars(self).values()))


def _below(raw: np.ndarray, limit: int) -> np.ndarray:
    """Whole numbers in [0, limit) from raw 64-bit words, by their upper 32 bits."""
    return ((raw >> np.uint64(32)) * np.uint64(limit) >> np.uint64(32)).astype(np.int64)


def _places(raw: np.ndarray) -> np.ndarray:
    """The first of the tried pairs of places that do not overlap: (N, 2 digits, 2) as top, left."""
    pairs = np.stack([_below(raw, _PLACES), _below(raw << np.uint64(32), _PLACES)], -1)
    pairs = pairs.reshape(len(raw), _TRIES, 2, 2)
    fits = (np.abs(pairs[:, :, 0] - pairs[:, :, 1]) >= BOX_SIZE).any(-1)
    first = pairs[np.arange(len(raw)), fits.argmax(1)]
    first[~fits.any(1)] = [[0, 0], [_PLACES - 1, _PLACES - 1]]
    return first


def generate(split: str, size: int, seed: int = 0, mnist: Mnist | None = None) -> TwoDigits:
    """`size` images of `split` ("train", "validation" or "test")."""
    mnist = mnist or load_mnist()
    source, labels = mnist[2:] if split == "test" else mnist[:2]
    first = len(source) - VALIDATION_DIGITS if split == "validation" else 0
    count = len(source) - VALIDATION_DIGITS if split == "train" else len(source) - first

    raw = np.random.PCG64(derive("two digits", seed, split)).random_raw((size, 3 + 2 * _TRIES))
    digits = first + _below(raw[:, :2], count)
    greys = _GREYS[0] + _below(raw[:, 2], _GREYS[1] - _GREYS[0] + 1)
    corners = _places(raw[:, 3:])

    images = np.empty((size, 1, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    images[:] = greys[:, None, None, None]
    for k in range(2):  # the digit's ink covers the background: grey * (1 - ink) + ink, in integers
        ink = source[digits[:, k]].astype(np.uint16)
        grey = greys[:, None, None].astype(np.uint16)
        patches = ((grey * (255 - ink) + 255 * ink + 127) // 255).astype(np.uint8)
        for image, (top, left), patch in zip(images[:, 0], corners[:, k] + _MARGIN, patches):
            image[top : top + 28, left : left + 28] = patch

    boxes = np.concatenate([corners[..., ::-1], corners[..., ::-1] + BOX_SIZE], -1)
    return TwoDigits(*map(torch.from_numpy, (images, boxes, labels[digits].astype(np.int64), digits)))


cached = lru_cache(maxsize=4)(generate)  # several runs of one process share a set
