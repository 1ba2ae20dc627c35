"""Section 3's images: MNIST; the two-digit set, the same bits everywhere; noise."""

import gzip
import hashlib
import io
import itertools
import shutil

import numpy as np
import pytest
import torch

from dcnas.data import mnist as source
from dcnas.data.noise import SIGMAS, NoiseBank, degrade
from dcnas.data.two_digits import SPLITS, generate
from dcnas.errors import InputError
from dcnas.paths import downloads_dir
from dcnas.seed import derive, generator

MD5 = {  # the original IDX files, as published in many places
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@pytest.fixture
def stored(tmp_path, monkeypatch, mnist):
    """The folder with MNIST's files; the downloads of the test are empty, and no mirror answers."""
    found = downloads_dir() / "MNIST" / "raw"
    monkeypatch.setenv("DCNAS_DOWNLOADS", str(tmp_path / "downloads"))
    monkeypatch.delenv("DCNAS_MNIST", raising=False)
    monkeypatch.setattr(source.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    return found


def test_the_files_are_the_published_ones(stored):
    assert {name: hashlib.md5((stored / name).read_bytes()).hexdigest() for name in source.FILES} == MD5
    data = source.load_mnist(stored)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.train_labels).tolist() == counts
    assert data.train_images.shape == (60_000, 28, 28) and data.test_images.shape == (10_000, 28, 28)
    assert {array.dtype for array in data} == {np.dtype(np.uint8)}


def test_a_users_folder_of_packed_files_comes_first(stored, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    for name in source.FILES:  # called as Kaggle does
        packed = gzip.compress((stored / name).read_bytes(), 1)
        (tmp_path / "mine" / f"{name.replace('-idx', '.idx')}.gz").write_bytes(packed)
    monkeypatch.setenv("DCNAS_MNIST", str(tmp_path / "mine"))
    assert not source.has_mnist()
    source.load_mnist()
    assert source.has_mnist()


def test_a_wrong_file_of_the_user_is_named_and_nothing_stored(stored, tmp_path):
    mine, name = shutil.copytree(stored, tmp_path / "mine"), "t10k-labels-idx1-ubyte"
    data = (mine / name).read_bytes()
    (mine / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match=name):
        source.load_mnist(mine)
    assert not list((tmp_path / "downloads").rglob("*ubyte"))


def test_a_pickle_is_read_without_unpickling():
    """The wheel's is of Python 2: its arrays lie in BINSTRING opcodes."""
    content = bytes(range(256)) * 40
    old = b"\x80\x02T" + len(content).to_bytes(4, "little") + content + b"."
    assert list(source.long_strings(io.BytesIO(old))) == [content]


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


def test_the_same_bits_as_ever(sample):
    split, data = sample
    parts = (getattr(data, field)[:16].contiguous().numpy().tobytes() for field in FIELDS)
    assert hashlib.sha256(b"".join(parts)).hexdigest() == SHA256[split] and len(data) == 2_000


def test_boxes_lie_inside_and_do_not_overlap(sample):
    _, data = sample
    left, top, right, bottom = data.boxes.unbind(-1)
    assert (right - left == 32).all() and (bottom - top == 32).all()
    assert data.boxes.min() >= 0 and data.boxes.max() <= 96
    assert ((left.diff().abs() >= 32) | (top.diff().abs() >= 32)).all()
    assert left.unique().numel() == top.unique().numel() == 65  # every place occurs


def test_images_are_what_boxes_and_digits_say(sample, mnist):
    """Pixel by pixel: grey background, and the ink of each digit over it in the middle of its box."""
    split, data = sample
    source = mnist.test_images if split == "test" else mnist.train_images
    parts = (data.images[:300, 0].numpy(), data.boxes.numpy(), data.digits.numpy())
    for image, boxes, digits in zip(*parts, strict=False):
        ink = np.zeros((96, 96))
        for (left, top, _, _), digit in zip(boxes, digits, strict=True):
            ink[top + 2 : top + 30, left + 2 : left + 30] = source[digit] / 255
        (grey,) = np.unique(image[ink == 0])  # one grey all over
        assert 26 <= grey <= 76
        assert np.abs(grey * (1 - ink) + 255 * ink - image).max() <= 0.5 + 1e-9
        assert image.max() > 200


SHAPE = (1, 96, 96)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_measured_noise_level(sigma):
    images = torch.rand(50, *SHAPE, generator=generator("images"))
    drawn = torch.randn(images.shape, generator=generator("level", str(sigma)))
    noise = degrade(images, sigma, drawn) - images
    assert noise.std().item() == pytest.approx(sigma, rel=0.01)
    assert abs(noise.mean().item()) <= 0.01 * sigma
    if sigma:
        within = [(noise.abs() < k * sigma).float().mean().item() for k in (1, 2)]
        assert within == pytest.approx([0.6827, 0.9545], abs=0.005)  # as of a Gaussian


def test_the_bank_does_not_depend_on_batches():
    bank = NoiseBank()
    whole = bank.noise(range(20), 0.3, SHAPE)
    parts = [NoiseBank().noise(range(i, min(i + 7, 20)), 0.3, SHAPE) for i in range(0, 20, 7)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(bank.noise([13, 2], 0.3, SHAPE), whole[[13, 2]])
    assert torch.equal(bank.noise(range(20), 0.3, SHAPE), whole)  # nor on what was asked before


def test_the_bank_is_keyed_by_image_sigma_and_seed():
    keys = itertools.product((0, 1, 2, 999), (0.1, 0.2, 1.0), (0, 1))
    patterns = [NoiseBank(seed).noise([image], sigma, SHAPE).flatten() for image, sigma, seed in keys]
    correlations = torch.corrcoef(torch.stack(patterns)).fill_diagonal_(0)
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
    assert torch.equal(*(torch.rand(2, generator=generator("x", 1)) for _ in range(2)))
