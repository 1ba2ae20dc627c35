"""The images of Section 4 as a network sees them: decoded once, split into parts, and made into batches.

Each set of `photographs` is kept as one array of squares beside the downloads. Batches are functions of
the step alone: random resized crops, flips and noise; images that are stored at the network's own size
(Tiny ImageNet) are not enlarged but flipped, and shifted with reflected borders.
"""

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from PIL import ImageOps
from PIL.Image import Resampling
from torch import Tensor
from torchvision.ops import roi_align
from tqdm.auto import tqdm

from ..errors import InputError
from ..models.crops import crop_squares
from ..paths import downloads_dir
from ..seed import generator
from .noise import GAUSSIAN, Noise
from .pairs import PATCHES, pair_patches
from .photographs import TINY_SIDE, Photograph, photographs
from .pictures import DEEP_GREY, OURS, open_picture, upright, with_channels

PARTS = ("weights", "alphas", "test")
TEST_SHARE, ALPHA_SHARE = 0.2, 0.2  # of a class, where a set has no test part of its own; of the rest
VIEW = 7 / 8  # of the side is the test's centre crop, as 224 of 256
SHIFT = 1 / 8  # of the side: how far images that are stored at the network's own size are moved at most
CROP_AREA = (0.25, 1.0)  # of random crops; below a quarter a stored image would be enlarged
CROP_RATIO = (3 / 4, 4 / 3)
GREY_LOOKS = 16  # images that are looked at to see whether a set is grey


@dataclass(frozen=True)
class ImageSet:
    """A decoded set: which rows of images and labels are in which part."""

    name: str
    classes: tuple[str, ...]
    images: np.ndarray  # uint8 (N, 1 or 3, side, side), a memory map: sets larger than memory work too
    labels: Tensor  # (N,)
    rows: dict[str, Tensor]  # part to row numbers
    skipped: tuple[str, ...]  # files that could not be read
    noisy: np.ndarray | None = None  # of a set of pairs the same images with real noise

    @property
    def grey(self) -> bool:
        return self.images.shape[1] == 1

    @property
    def side(self) -> int:
        return self.images.shape[-1]

    def describe(self) -> str:
        """One sentence: images, classes, parts, what was skipped."""
        counts = ", ".join(f"{len(rows):,} for {part}" for part, rows in self.rows.items())
        kind = "grey images" if self.grey else "colour images"
        kind += " with noisy twins" if self.noisy is not None else ""
        skipped = f"; {len(self.skipped)} unreadable files were skipped" if self.skipped else ""
        of = f" of {len(self.classes)} classes" if self.classes else ""
        size = f"{len(self.labels):,} {kind}{of}"
        return f"{self.name}: {size}, {counts}, stored at {self.side} px{skipped}."


def stored_side(name: str, resolution: int) -> int:
    """Of stored images: twice the network's input, or of large inputs 8/7; no more than they have."""
    if name.partition(":")[0] == "tiny-imagenet":
        if resolution > TINY_SIDE:
            raise InputError(f"resolution is {resolution}, but tiny-imagenet has {TINY_SIDE} pixels.")
        return resolution
    return 2 * resolution if resolution <= 128 else round(resolution / VIEW)


def load_images(
    name: str = "solar", resolution: int = 64, *, progress: bool = True, limit: int | None = None
) -> ImageSet:
    """A set by its name in `photographs`, for a network's input of `resolution` pixels.

    `limit` keeps the first images of each class, and of its test images where the set names them.
    `InputError` for a set that cannot be had or used.
    """
    side, source = stored_side(name, resolution), photographs(name)
    key = hashlib.sha256(os.fsencode(f"{name} {side} {source.identity} {limit}")).hexdigest()[:16]
    folder = downloads_dir() / "decoded" / key
    if not folder.exists():  # what is decoded may lie in a store that may only be read
        files, seen = [], Counter()
        for file in source.files:
            seen[file.label, file.test] += 1
            if limit is None or seen[file.label, file.test] <= limit:
                files.append(file)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.exists():  # no other process was quicker
                bar = tqdm(files, desc=f"{name}: decoding", unit="img", disable=not progress)
                _decode_all(bar, files, side, folder)
    record = json.loads((folder / "record.json").read_text())
    skipped, labels = record["skipped"], torch.tensor(record["labels"], dtype=torch.int64)
    if skipped:
        text = f"{name}: {len(skipped)} unreadable files, the first is {skipped[0]}."
        warnings.warn(text, stacklevel=2)
    counts = torch.bincount(labels, minlength=max(1, len(source.classes)))
    if (least := counts.min()) < len(PARTS):
        few = f"the class {source.classes[counts.argmin()]!r}" if source.classes else "the folder"
        few += f" has {least} readable images"
        raise InputError(f"{name}: {few}, but 3 were expected.")
    rows = split_rows(labels, record["test"], name.partition(":")[0])  # however a path is spelled
    stored = [folder / f"{part}.npy" for part in ("images", "noisy")]
    arrays = [np.load(path, mmap_mode="r")[: len(labels)] for path in stored if path.exists()]
    return ImageSet(name, source.classes, arrays[0], labels, rows, tuple(skipped), *arrays[1:])


def _decode_all(bar: tqdm, files: Sequence[Photograph], side: int, folder: Path) -> None:
    """Read every image once; the folder appears when all is done."""
    done, skipped, grey = [], [], look_grey(files)
    with TemporaryDirectory(dir=folder.parent) as place:
        part = Path(place) / folder.name
        part.mkdir()
        paired, channels = files[0].noisy is not None, 1 if grey else 3
        shape = (len(files) * (PATCHES if paired else 1), channels, side, side)
        stores = [
            np.lib.format.open_memmap(part / f"{name}.npy", "w+", np.uint8, shape)
            for name in ("images", "noisy")[: 1 + paired]
        ]
        for path in part.iterdir():
            _reserve(path)
        for n, file in enumerate(bar):
            if paired and file.test is None:  # here, lest patches of one picture were in several parts
                file = file._replace(test=n % round(1 / TEST_SHARE) == 0)
            try:
                views = pair_patches(file, side, grey) if paired else _view(file, side, grey)
            except OURS:
                raise
            except Exception:  # Pillow's parsers raise whatever a damaged file makes them stumble over
                skipped.append("/".join(file.path.parts[-2:]))
                continue
            for store, some in zip(stores, views, strict=True):
                store[len(done) : len(done) + len(some)] = some
            done += [file] * len(views[0])
        for store in stores:
            store.flush()  # with empty rows at its end where files were skipped
        labels, test = [file.label for file in done], [file.test for file in done]
        record = {"labels": labels, "test": test, "skipped": skipped}
        (part / "record.json").write_text(json.dumps(record))
        os.replace(part, folder)


def _reserve(path: Path) -> None:
    """Space for a whole sparse file: writing to its memory map on a full disk would kill the process."""
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path.parent.parent)) from None


def look_grey(files: Sequence[Photograph]) -> bool:
    """Whether all of a few pictures spread over a set are grey."""
    return all(map(_is_grey, files[:: max(1, len(files) // GREY_LOOKS)]))


def _is_grey(file: Photograph) -> bool:
    """Whether a picture is grey, or none."""
    try:
        with open_picture(file.path.read_bytes()) as image:
            return image.mode in ("L", "1", *DEEP_GREY)
    except (InputError, OSError):
        return True


def _view(file: Photograph, side: int, grey: bool) -> list[np.ndarray]:
    return [decode(file.path.read_bytes(), side, grey)[None]]


def decode(data: bytes, side: int, grey: bool) -> np.ndarray:
    """The bytes of a picture as uint8 (1 or 3, side, side): upright, the middle square."""
    square = ImageOps.fit(upright(data, grey)[0], (side, side), Resampling.BILINEAR)
    pixels = np.asarray(square, np.uint8)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def split_rows(labels: Tensor, test: list[bool | None], name: str) -> dict[str, Tensor]:
    """Rows of each part, class by class in fixed shares, from the name and the labels alone."""
    parts: dict[str, list[Tensor]] = {part: [] for part in PARTS}
    given = None if None in test else torch.tensor(test)
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
            parts[part].append(chosen)
    return {part: torch.cat(rows).sort().values for part, rows in parts.items()}


def random_boxes(count: int, side: int, stream: torch.Generator) -> Tensor:
    """Random crops within the image, (B, 4) as left, top, right, bottom in pixels."""
    area = torch.empty(count).uniform_(*CROP_AREA, generator=stream)
    ratio = torch.empty(count).uniform_(*np.log(CROP_RATIO).tolist(), generator=stream).exp()
    size = side * torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1.0)
    corner = torch.rand(count, 2, generator=stream) * (side - size)
    return torch.cat([corner, corner + size], 1)


def shifted(images: Tensor, stream: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each moved by up to `SHIFT` of its side; borders are reflected."""
    count, _, height, width = images.shape
    reach = round(SHIFT * height)
    moves = torch.randint(2 * reach + 1, (count, 2), generator=stream).tolist()
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    views = [image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, moves)]
    return torch.stack(views)


def cut_out(images: Tensor, boxes: Tensor, resolution: int) -> Tensor:
    """A box (B, 4) of each image (B, C, H, W), averaged to (B, C, resolution, resolution)."""
    index = torch.arange(len(images), device=images.device, dtype=images.dtype)[:, None]
    places = torch.cat([index, boxes.to(images)], 1)
    return roi_align(images, places, resolution, sampling_ratio=2, aligned=True)


def make_image_draw(
    data: ImageSet,
    parts: Sequence[str],
    resolution: int,
    batch: int,
    seed: int,
    *,
    noisy: bool = True,
    noise: Noise = GAUSSIAN,
    stream_name: str = "images",
    device: torch.device | str = "cpu",
) -> Callable[[int], tuple[Tensor, Tensor, Tensor]]:
    """`draw(step)`: clean and noisy images (B, 3, resolution, resolution), augmented, and their labels.

    Each image's level of noise is uniform in 0 to 1; pairs have their own noise, and are cut without
    scaling, which would average it. `noisy=False` gives the clean images as the noisy ones too.
    """
    rows = torch.cat([data.rows[part] for part in parts])
    if len(rows) < batch:
        uses = " and ".join(parts)
        raise InputError(f"{data.name} has {len(rows)} images for {uses}, but a batch is {batch}.")

    def draw(step: int) -> tuple[Tensor, Tensor, Tensor]:
        stream = generator(stream_name, seed, step)
        picked = rows[order_of(step, batch, len(rows), stream_name, seed)]
        arrays = [data.images] if data.noisy is None else [data.images, data.noisy]
        stored = torch.cat([torch.from_numpy(array[picked.numpy()]) for array in arrays], 1)
        stored = stored.to(device).float() / 255
        if data.noisy is not None:
            corners = torch.randint(data.side - resolution + 1, (2, batch, 1), generator=stream)
            views = crop_squares(stored, *corners.to(device), resolution)
        elif data.side == resolution:
            views = shifted(stored, stream)
        else:
            views = cut_out(stored, random_boxes(batch, data.side, stream), resolution)
        flips = torch.rand(batch, generator=stream) < 0.5
        views = torch.where(flips.view(-1, 1, 1, 1).to(device), views.flip(3), views)
        clean, *twin = (in_colour(view) for view in views.chunk(len(arrays), 1))
        labels = data.labels[picked].to(device)
        if not noisy or twin:
            return clean, twin[0] if noisy else clean, labels
        levels = torch.rand(batch, generator=stream).to(device)
        if clean.device.type != "cpu":
            stream = generator(stream_name, seed, step, "noise", device=clean.device)
        normal = torch.randn(clean.shape, generator=stream, device=clean.device)
        return clean, in_colour(noise.add(clean, levels, normal)), labels

    return draw


def in_colour(images: Tensor) -> Tensor:
    """(B, 1 or 3, H, W) with three channels, in the memory format that is fast."""
    return with_channels(images, 3).contiguous(memory_format=torch.channels_last)


def order_of(step: int, batch: int, size: int, name: str, seed: int) -> Tensor:
    """Positions in `step`: every epoch in an order of its own, without its last incomplete batch."""
    epoch, within = divmod(step, size // batch)
    order = torch.randperm(size, generator=generator("order", name, seed, epoch))
    return order[within * batch : (within + 1) * batch]


def evaluation_images(
    data: ImageSet, part: str, resolution: int, count: int | None = None
) -> tuple[Tensor, Tensor]:
    """uint8 (N, 3, resolution, resolution) and labels (N, 1); the first `count` of a fixed shuffle.

    Centre crops; whole images where they are stored at the network's own size.
    """
    rows = _evaluated(data, part, count)
    return _views(data.images, data, rows, resolution), data.labels[rows, None]


def evaluation_twins(
    data: ImageSet, part: str, resolution: int, count: int | None = None
) -> Tensor | None:
    """What `evaluation_images` gives, with the real noise of a set of pairs; None of other sets."""
    if data.noisy is None:
        return None
    return _views(data.noisy, data, _evaluated(data, part, count), resolution)


def _evaluated(data: ImageSet, part: str, count: int | None) -> Tensor:
    rows = data.rows[part]
    return rows[torch.randperm(len(rows), generator=generator("evaluation", data.name))][:count]


def _views(array: np.ndarray, data: ImageSet, rows: Tensor, resolution: int) -> Tensor:
    edge, corner = data.side * (1 - VIEW) / 2, (data.side - resolution) // 2
    box = torch.tensor([edge, edge, data.side - edge, data.side - edge])
    views = []
    for some in rows.split(256):
        stored = torch.from_numpy(array[some.numpy()])
        if data.noisy is not None:
            stored = stored[..., corner : corner + resolution, corner : corner + resolution]
        elif data.side != resolution:  # averaging would blur an image of this size already
            centres = cut_out(stored.float(), box.expand(len(some), 4), resolution)
            stored = centres.round().to(torch.uint8)
        views.append(with_channels(stored, 3))
    return torch.cat(views)
