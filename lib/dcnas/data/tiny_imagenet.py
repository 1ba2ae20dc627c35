"""Tiny ImageNet, the stand-in for Section 4's ImageNet-100: colour photographs of 64 x 64 pixels, 500 of a class to train on.

18 of its 200 classes are also among the paper's 100 and are the default. It is read from the folder that DCNAS_TINY_IMAGENET
names, as the published zip unpacks (`train/CLASS/images/`, `val/images/` with `val_annotations.txt`) or with a folder per class
(`train/CLASS/`, `val/CLASS/`); else from the published zip, which is fetched once and read as it is.
"""

import csv
import hashlib
import http.client
import io
import os
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from ..errors import InputError
from ..paths import downloads_dir, paper_dir, shown

VARIABLE = "DCNAS_TINY_IMAGENET"
SIDE = 64  # pixels of every image
HELD_OUT = 1 / 5  # of a class's training images, the last ones, are for testing, beside its 50 of `val`
COUNTS = ("18", "50", "200")  # of classes
URL, ZIP_BYTES = "http://cs231n.stanford.edu/tiny-imagenet-200.zip", 248_100_043
FILES_SHA256 = "0bbea952d5237202ef8a0be99fc0b3b74e1626b70e76d20f035e3856fe0ef95a"  # `digest` of the 50 classes
TIMEOUT_S, PIECE = 20, 1 << 20  # of one answer of the server; bytes that are read at once

Files = dict[tuple[str, ...], tuple[int, Callable[[], bytes]]]  # parts of a path below the root to size and reader


class WrongSize(InputError):
    """An image that is not 64 x 64: it is no image of this set, and none is enlarged or cut to look like one."""


@dataclass(frozen=True)
class Photographs:
    """All images of some classes, class by class, those for training first."""

    classes: tuple[str, ...]
    names: list[str]  # CLASS/FILE
    labels: list[int]
    test: list[bool]
    read: Callable[[int], bytes]
    identity: str  # the same for every layout


def class_names() -> dict[str, str]:
    """The 50 classes that `tiny-imagenet:50` means, WordNet identity to words; the first 18 are among the paper's 100."""
    with (paper_dir() / "tiny_imagenet_classes.csv").open(newline="") as file:
        return {row["class"]: row["words"] for row in csv.DictReader(file)}


def photographs(option: str = "", *, progress: bool = True) -> Photographs:
    """The images of `tiny-imagenet:OPTION`: a number of classes (18 for ""; 50; 200), or WordNet identities with commas.

    `InputError` where there is no such folder or no network, where it holds something else, or lacks a class.
    """
    place = os.environ.get(VARIABLE)
    files = _in_folder(Path(place).expanduser()) if place else _in_zip(_fetched(progress))
    return _chosen(place or URL.rpartition("/")[2], files, option)


def _chosen(where: str, files: Files, option: str) -> Photographs:
    by_class = _by_class(where, files)
    if option.isdigit() and option not in COUNTS:
        raise InputError(f"tiny-imagenet:{option} asks for {option} classes, but {', '.join(COUNTS)} or their names were expected.")
    if option == COUNTS[-1]:
        classes = tuple(sorted(by_class))
    elif option.isdigit() or not option:
        classes = tuple(class_names())[: int(option or COUNTS[0])]
    else:
        classes = tuple(dict.fromkeys(option.split(",")))
    if gone := [name for name in classes if name not in by_class]:
        raise InputError(f"{where} has no images of {', '.join(gone[:5])}{' and others' if gone[5:] else ''}, which was asked for.")
    names, labels, test, readers, seen = [], [], [], [], hashlib.sha256()
    for label, name in enumerate(classes):
        trained, held = by_class[name]
        kept = len(trained) - round(HELD_OUT * len(trained))
        for at, (file, size, read) in enumerate([*trained, *held]):
            names.append(f"{name}/{file}")
            labels.append(label)
            test.append(at >= kept)
            readers.append(read)
            seen.update(f"{names[-1]} {size} {test[-1]}\n".encode())
    return Photographs(classes, names, labels, test, partial(_read, names, readers), seen.hexdigest())


def _read(names: list[str], readers: list[Callable[[], bytes]], row: int) -> bytes:
    data = readers[row]()
    try:
        with Image.open(io.BytesIO(data)) as image:
            size = image.size
    except UnidentifiedImageError:  # told, and left out, by who decodes it
        return data
    if size != (SIDE, SIDE):
        raise WrongSize(f"tiny-imagenet's {names[row]} has {size[0]} x {size[1]} pixels, but {SIDE} x {SIDE} were expected.")
    return data


def _by_class(where: str, files: Files) -> dict[str, tuple[list, list]]:
    """Class to (file name, size, reader) of its training images and of those of `val`, each in the order of their numbers."""
    found: dict[str, tuple[list, list]] = {}
    of_val = {}
    if ("val", "val_annotations.txt") in files:
        lines = files["val", "val_annotations.txt"][1]().decode(errors="replace").splitlines()
        of_val = dict(line.split("\t")[:2] for line in lines if "\t" in line)
    elif any(path[:2] == ("val", "images") for path in files):
        raise InputError(f"{where} is not whole: it has val/images, but no val/val_annotations.txt that says what they show.")
    for path, (size, read) in files.items():
        if path[-1].endswith(".JPEG") and path[0] in ("train", "val") and len(path) in (3, 4):
            name = of_val.get(path[-1]) if path[:2] == ("val", "images") else path[1]
            if name is not None:
                found.setdefault(name, ([], []))[path[0] == "val"].append((path[-1], size, read))
    found = {name: parts for name, parts in found.items() if parts[0] and parts[1]}
    if not found:
        raise InputError(
            f"{where} is not Tiny ImageNet: no class has .JPEG images both in train/CLASS and in val; the folder of the unpacked "
            "zip tiny-imagenet-200 was expected."
        )
    for parts in found.values():
        for images in parts:
            images.sort(key=lambda image: (len(image[0]), image[0]))
    return found


def _in_folder(root: Path) -> Files:
    if not root.is_dir():
        raise InputError(f"{VARIABLE} is {str(root)!r}, but a folder with train and val of Tiny ImageNet was expected.")
    found = {}
    for part in ("train", "val"):
        for path in (root / part).rglob("*"):
            if path.is_file():
                found[path.relative_to(root).parts] = (path.stat().st_size, path.read_bytes)
    return found


def _in_zip(path: Path) -> Files:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise InputError(f"{shown(path)} is not a sound zip file ({error}); delete it to fetch it again.") from None
    entries = [entry for entry in archive.infolist() if not entry.is_dir() and "/" in entry.filename]
    return {tuple(e.filename.split("/")[1:]): (e.file_size, partial(archive.read, e)) for e in entries}


def digest(files: Files) -> str:
    """SHA-256 over the names and sizes of all images of the study's 50 classes: whether these are the published files."""
    return _chosen("the zip", files, "50").identity


def _fetched(progress: bool) -> Path:
    """The published zip, fetched once; an interrupted download goes on where it was."""
    path = downloads_dir() / "tiny-imagenet" / "tiny-imagenet-200.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / "lock"):
        if not path.exists():
            part = path.with_suffix(".part")
            try:
                _download(part, progress)
            except (OSError, http.client.HTTPException) as error:  # urllib's errors are among the former
                raise InputError(
                    f"Tiny ImageNet is not here and could not be fetched ({error}); set {VARIABLE} to its folder, or call again: "
                    "what has come is kept."
                ) from None
            _check_zip(part)
            os.replace(part, path)
    return path


def _download(part: Path, progress: bool) -> None:
    begun = part.stat().st_size if part.exists() else 0
    if begun >= ZIP_BYTES:
        return
    request = urllib.request.Request(URL, headers={"Range": f"bytes={begun}-"} if begun else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        if begun and answer.status != 206:  # the server sends all of it again
            begun = 0
        bar = tqdm(total=ZIP_BYTES, initial=begun, desc="tiny-imagenet", unit="B", unit_scale=True, disable=not progress)
        with bar, part.open("ab" if begun else "wb") as file:
            while piece := answer.read(PIECE):
                file.write(piece)
                bar.update(len(piece))


def _check_zip(part: Path) -> None:
    """Remove what is whole but not the published file, with an `InputError`; raise one where some of it is still to come."""
    size = part.stat().st_size
    if size < ZIP_BYTES:
        raise InputError(f"the download of Tiny ImageNet ended after {size:,} of {ZIP_BYTES:,} bytes; call again, and it goes on.")
    try:
        sound = size == ZIP_BYTES and digest(_in_zip(part)) == FILES_SHA256
    except InputError:
        sound = False
    if not sound:
        part.unlink()
        raise InputError(f"what {URL} gives is not the published zip (its size or its files differ); set {VARIABLE} to its folder.")
