"""Where the images of Section 4 come from: every set is a folder with a folder of pictures per class.

The default, photographs of solar cells, needs no more than pip: industrial inspection is a use that the
paper names. Tiny ImageNet stands in for the paper's ImageNet-100: 18 of its 200 classes are also among
the paper's 100.
"""

import csv
import hashlib
import io
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from PIL import Image
from torchvision.datasets import CIFAR10, Imagenette
from torchvision.datasets.utils import download_and_extract_archive

from ..errors import InputError
from ..paths import downloads_dir, paper_dir
from .wheels import fetch_wheel, last_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
SOLAR_WHEEL = "elpv-dataset==1.0.0.post1"  # 2,624 photographs, CC BY-NC-SA 4.0
SOLAR_SHA256 = "85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c"
SOLAR_CLASSES = ("mono, functional", "mono, defective", "poly, functional", "poly, defective")
TINY_SIDE = 64  # pixels of every image of Tiny ImageNet
TINY_HELD_OUT = (
    1 / 5
)  # of a class's training images, the last ones, are for testing, beside its 50 of `val`
TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


class Photograph(NamedTuple):
    """A picture's file, its class, and whether it is for testing (None where the set does not say)."""

    path: Path
    label: int
    test: bool | None


@dataclass(frozen=True)
class Photographs:
    """The classes and files of a set."""

    classes: tuple[str, ...]
    files: list[Photograph]

    @property
    def identity(self) -> str:
        """A text that changes with the files."""
        states = ((path, path.stat()) for path, *_ in self.files)
        text = "".join(f"{path} {state.st_size} {state.st_mtime_ns}\n" for path, state in states)
        return hashlib.sha256(text.encode()).hexdigest()


def photographs(name: str) -> Photographs:
    """A set by name: "solar", "tiny-imagenet" or "tiny-imagenet:CLASSES", "cifar10", "imagenette",
    "imagenet100", "folder:PATH".

    `InputError` for a set that is unknown, cannot be had, or has fewer than two classes.
    """
    kind, _, option = name.partition(":")
    if kind not in SETS or option and kind not in ("folder", "tiny-imagenet"):
        raise InputError(
            f"data set is {name!r}, but one of {', '.join(NAMED)}, folder:PATH was expected."
        )
    data = SETS[kind](option)
    if len(data.classes) < 2:
        has = f"only the class {data.classes[0]!r}" if data.classes else "no class folder with images"
        raise InputError(
            f"{name} has {has}, but two or more folders with images, one per class, were expected."
        )
    return data


def set_named(text: str) -> str:
    """What a user calls a set, as `photographs` takes it: a path as "folder:PATH", all else as it is."""
    if text in NAMED or text.startswith("tiny-imagenet:"):
        return text
    place = Path(text.removeprefix("folder:")).expanduser()
    if not text.startswith("folder:") and not place.exists():
        raise InputError(
            f"data is {text!r}, but a folder of class folders or one of {', '.join(NAMED)} was expected."
        )
    return f"folder:{place.resolve()}"


def identity_of(name: str) -> str:
    """A text that changes with the files of a user's folder; other sets are always the same."""
    return photographs(name).identity if name.startswith("folder:") else name


def _classes_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder, but a folder of class folders was expected.")
    return sorted(
        place.name for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")
    )


def _pictures_in(folder: Path, test: bool | None) -> list[tuple[Path, bool | None]]:
    """At any depth, in the order of their paths."""
    paths = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    return [(path, test) for path in paths]


def _listed(pictures: dict[str, list[tuple[Path, bool | None]]]) -> Photographs:
    """The set of pictures by class."""
    files = [
        Photograph(path, label, test)
        for label, some in enumerate(pictures.values())
        for path, test in some
    ]
    return Photographs(tuple(pictures), files)


def _own_folder(path: str) -> Photographs:
    root = Path(path).expanduser().resolve()
    pictures = {name: _pictures_in(root / name, None) for name in _classes_in(root)}
    if empty := [name for name, some in pictures.items() if not some]:
        warnings.warn(
            f"{root}: folders without images are left out as classes: {first_of(empty)}.", stacklevel=2
        )
    return _listed({name: some for name, some in pictures.items() if some})


def first_of(names: Sequence[str]) -> str:
    """The first names of many, for a message."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} others" if len(names) > 10 else "")


def _train_and_val(root: Path, classes: Sequence[str] = ()) -> Photographs:
    """A folder with train/CLASS and val/CLASS, as ImageNet comes."""
    train, val = root / "train", root / "val"
    names = classes or _classes_in(train)
    return _listed(
        {name: _pictures_in(train / name, False) + _pictures_in(val / name, True) for name in names}
    )


def _imagenet100(_: str) -> Photographs:
    """The 100 synsets of [16] from the user's ImageNet folder."""
    root = os.environ.get("DCNAS_IMAGENET")
    if not root:
        raise InputError(
            "imagenet100 needs ImageNet: set DCNAS_IMAGENET to a folder with train/CLASS and val/CLASS."
        )
    return _train_and_val(
        Path(root).expanduser(), (paper_dir() / "imagenet100_synsets.txt").read_text().split()
    )


def _obtained(name: str, make: Callable[[Path], None]) -> Path:
    """The set's folder in the downloads; where it is missing, `make(place)` makes place/NAME, whole or
    not at all."""
    root = downloads_dir() / name
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.with_name(f"{name}.lock")), tempfile.TemporaryDirectory(dir=root.parent) as place:
        try:
            if not root.exists():
                make(Path(place))
                os.replace(Path(place) / name, root)
        except (RuntimeError, OSError, InputError) as error:
            reason = last_line(error)
            raise InputError(
                f"{name} could not be obtained ({reason}); put it into {root}, or use folder:PATH."
            ) from None
    return root


def _imagenette(_: str) -> Photographs:
    return _train_and_val(
        _obtained("imagenette2-320", lambda place: Imagenette(place, size="320px", download=True))
    )


def _unpack(root: Path, files: Iterable[tuple[str, str, bytes]]) -> None:
    """Write (CLASS/FILE, "yes" or "no" for testing, content) of a set below `root`, and their order to
    `index.csv`."""
    rows = [("file", "test")]
    for name, test, content in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        rows.append((name, test))
    with (root / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def _indexed(root: Path, classes: Sequence[str]) -> Photographs:
    """What `_unpack` wrote."""
    with (root / "index.csv").open(newline="") as file:
        rows = [
            (root / row["file"], {"yes": True, "no": False}.get(row["test"]))
            for row in csv.DictReader(file)
        ]
    return Photographs(
        tuple(classes), [Photograph(path, classes.index(path.parent.name), test) for path, test in rows]
    )


def _solar(_: str) -> Photographs:
    """Mono- and polycrystalline cells, functional (probability of a defect below 0.5) or defective."""

    def make(place: Path) -> None:
        with zipfile.ZipFile(fetch_wheel(SOLAR_WHEEL, SOLAR_SHA256, place)) as archive:
            lines = archive.read("elpv_dataset/data/labels.csv").decode().splitlines()
            _unpack(place / "solar", (picture(archive, *line.split()) for line in lines))

    def picture(
        archive: zipfile.ZipFile, name: str, probability: str, kind: str
    ) -> tuple[str, str, bytes]:
        label = SOLAR_CLASSES[2 * (kind == "poly") + (float(probability) >= 0.5)]
        return f"{label}/{Path(name).name}", "", archive.read(f"elpv_dataset/data/{name}")

    return _indexed(_obtained("solar", make), SOLAR_CLASSES)


def _cifar10(_: str) -> Photographs:
    def make(place: Path) -> None:
        parts = (CIFAR10(place, train=train, download=True) for train in (True, False))
        _unpack(place / "cifar10", (picture for part in parts for picture in pictures(part)))

    def pictures(part: CIFAR10) -> Iterable[tuple[str, str, bytes]]:
        for n, (pixels, label) in enumerate(zip(part.data, part.targets, strict=True)):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            name, test = ("train", "no") if part.train else ("test", "yes")
            yield f"{part.classes[label]}/{name}-{n}.png", test, buffer.getvalue()

    root = _obtained("cifar10", make)
    return _indexed(root, _classes_in(root))


def tiny_classes() -> list[str]:
    """The 50 classes that `tiny-imagenet:50` means; the first 18 are among the paper's 100."""
    with (paper_dir() / "tiny_imagenet_classes.csv").open(newline="") as file:
        return [row["class"] for row in csv.DictReader(file)]


def _tiny_imagenet(option: str) -> Photographs:
    """18 (""), 50 or 200 classes, or WordNet identities with commas, of the folder DCNAS_TINY_IMAGENET
    or the published zip.

    The folder is the unpacked zip, whose val/val_annotations.txt has the classes of val/images, or has
    train/CLASS and val/CLASS.
    """

    def make(place: Path) -> None:
        download_and_extract_archive(TINY_URL, str(place), md5=TINY_MD5)

    given = os.environ.get("DCNAS_TINY_IMAGENET")
    root = Path(given).expanduser() if given else _obtained("tiny-imagenet-200", make)
    every = _classes_in(root / "train")
    counts = {"": tiny_classes()[:18], "18": tiny_classes()[:18], "50": tiny_classes(), "200": every}
    annotations = root / "val" / "val_annotations.txt"
    lines = annotations.read_text().splitlines() if annotations.exists() else []
    class_of = dict(line.split("\t")[:2] for line in lines)  # by file name
    of_val: dict[str, list[Path]] = {}
    for path in (root / "val").rglob("*.JPEG"):
        of_val.setdefault(class_of.get(path.name, path.parent.name), []).append(path)
    pictures = {}
    for name in counts.get(option) or option.split(","):
        train = sorted((root / "train" / name).rglob("*.JPEG"), key=_number)
        val = sorted(of_val.get(name, ()), key=_number)
        if not (train and val):
            raise InputError(
                f"{root} is not tiny-imagenet-200: {name} lacks .JPEG images in train or in val."
            )
        with Image.open(train[0]) as image:
            if image.size != (TINY_SIDE, TINY_SIDE):
                raise InputError(
                    f"{train[0]} has {image.width} x {image.height} pixels instead of 64 x 64."
                )
        count = len(train) - round(TINY_HELD_OUT * len(train))
        pictures[name] = [(path, n >= count) for n, path in enumerate([*train, *val])]
    return _listed(pictures)


def _number(path: Path) -> tuple[int, str]:
    """The order of the set's numbered files."""
    return len(path.name), path.name


SETS: dict[str, Callable[[str], Photographs]] = {
    "solar": _solar,
    "imagenette": _imagenette,
    "cifar10": _cifar10,
    "imagenet100": _imagenet100,
    "tiny-imagenet": _tiny_imagenet,
    "folder": _own_folder,
}
NAMED = tuple(SETS)[:-1]
