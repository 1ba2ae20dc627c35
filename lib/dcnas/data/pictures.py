"""Pictures that people bring, of any size, mode and state; large ones go through a network in tiles."""

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import InputError

DEEP_GREY = ("I;16", "I;16B", "I;16L", "I", "F")  # Pillow's modes of more than 8 bits
ORIENTATION = 0x0112  # of EXIF
# no other parser sees a file: Pillow's EPS starts Ghostscript
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "AVIF", "JPEG2000")
END_OF_JPEG, FILLING = b"\xff\xd9", b"\xaa" * 4096
MODE_OF_PROFILE = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # Pillow's, by the profile's colours
OURS = (AttributeError, NameError, ImportError)  # errors of programs, not of files
MOST_PIXELS = 50_000_000  # decoding takes up to 24 bytes each
Image.MAX_IMAGE_PIXELS = None  # Pillow's own, lower limit
STRIDE = 32  # networks of Section 4 halve an image five times, UNets up to four times
STRIP = 256  # rows of a picture that are converted at a time


def open_picture(data: bytes) -> Image.Image:
    """The picture in the bytes of a file, not yet decoded; an `InputError` follows the file's name."""
    Image.init()  # an older Pillow has no AVIF
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        opened = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        raise InputError(f"is not a picture that can be read ({', '.join(formats)} can).") from None
    if opened.width * opened.height > MOST_PIXELS:
        size = f"{opened.width} x {opened.height} pixels"
        raise InputError(f"has {size}, but at most {MOST_PIXELS / 1e6:.0f} million were expected.")
    return opened


def upright(data: bytes, grey: bool | None = None) -> tuple[Image.Image, list[str]]:
    """The picture of a file as it is meant to be seen, and what was done to it: the first frame, turned
    as EXIF says, 8 bits of sRGB, grey or in colour (None: as it is).
    """
    image, notes = open_picture(data), []
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"The first of {image.n_frames} frames is taken.")
        image.seek(0)
    try:
        image.load()
    except OSError:
        if image.format not in ("JPEG", "MPO"):
            raise
        image = _ended(data)
        notes.append("Its end marker is missing.")
    described = image.info
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
        notes.append("It is turned as its camera says.")
    grey = image.mode in ("L", "1", "LA", *DEEP_GREY) if grey is None else grey
    if image.mode in DEEP_GREY:  # Pillow would clip instead of scaling
        values = np.nan_to_num(np.asarray(image, np.float32), posinf=0).clip(0)
        image = Image.fromarray(
            (values * (255 / _white_of(image.mode, values))).round().astype(np.uint8)
        )
        notes.append("More than 8 bits per pixel are scaled to 8.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        notes.append("What is transparent is shown on white.")
    image, note = _in_srgb(image, described)
    return image.convert("L" if grey else "RGB"), [*notes, *note]


def _ended(data: bytes) -> Image.Image:
    """A JPEG that lacks its end marker alone, as network cameras send it; `OSError` where more is cut.

    Missing blocks would be decoded from what follows: if two endings give one picture, none is missing.
    """
    body = data.rstrip(END_OF_JPEG[:1])
    files = (io.BytesIO(body + filling + END_OF_JPEG) for filling in (b"", FILLING))
    image, other = (Image.open(file, formats=["JPEG"]) for file in files)
    if ImageChops.difference(image, other).getbbox():
        raise OSError("image file is truncated")
    return image


def _in_srgb(image: Image.Image, described: dict) -> tuple[Image.Image, list[str]]:
    """Colours as the file describes them, by an ICC profile or a PNG's gamma, in sRGB; with a note."""
    if profile := described.get("icc_profile"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            name = ImageCms.getProfileDescription(source).strip()
            if "sRGB" in name:
                return image, []
            image = image.convert(MODE_OF_PROFILE[source.profile.xcolor_space.strip()])
            target = ImageCms.createProfile("sRGB")
            image = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            return image, [f"Its colours are taken to sRGB from its own profile ({name})."]
        except (OSError, KeyError, ImageCms.PyCMSError):
            return image, ["Its colour profile cannot be used."]
    gamma = described.get("gamma") or 1 / 2.2
    if "srgb" in described or not 0.05 < abs(2.2 * gamma - 1) < 10:
        return image, []
    levels = [round(255 * (level / 255) ** (1 / (2.2 * gamma))) for level in range(256)]
    image = image.convert("L" if image.mode in ("L", "1") else "RGB")
    return image.point(levels * len(image.getbands())), [f"Its gamma of {gamma:g} is taken to sRGB's."]


def _white_of(mode: str, values: np.ndarray) -> float:
    """The value of white: of 16 bits or, where a value needs more, of 32; of floats perhaps 1 or 255."""
    whites = (*((1.0, 255.0) if mode == "F" else ()), 65_535.0, 2.0**32)
    return next((white for white in whites if values.max() <= white), float(values.max()))


def read_picture(data: bytes, *, most_side: int | None = None) -> tuple[Tensor, tuple[str, ...]]:
    """uint8 (1 or 3, H, W) of the bytes of a file, at most `most_side` large, and what was done to it.

    `InputError`, to be put after the file's name, for what is no picture, cut short or too large.
    """
    try:
        image, notes = upright(data)
    except (InputError, *OURS):
        raise
    except Exception as error:  # Pillow's parsers raise whatever a damaged file makes them stumble over
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise InputError(f"is damaged or cut short ({reason}).") from None
    if most_side is not None and max(image.size) > most_side:
        before = f"{image.width} x {image.height}"
        image.thumbnail((most_side, most_side), Image.Resampling.LANCZOS)
        notes.append(f"It is scaled from {before} to {image.width} x {image.height} pixels.")
    pixels = np.array(image, np.uint8)
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(pixels)), tuple(notes)


def as_float(pixels: Tensor) -> Tensor:
    """uint8 of any shape as float32 in [0, 1]."""
    return pixels.to(torch.float32).div_(255)


def as_uint8(image: Tensor) -> np.ndarray:
    """(1 or 3, H, W) in any range, limited to [0, 1], as uint8 (H, W) or (H, W, 3)."""
    pixels = torch.empty(*image.shape[1:], len(image), dtype=torch.uint8)
    for rows, out in zip(
        image.split(STRIP, 1), pixels.split(STRIP)
    ):  # whole, it would take three copies
        out.copy_((rows.clamp(0, 1) * 255).round().permute(1, 2, 0))
    return (pixels[..., 0] if len(image) == 1 else pixels).numpy()


def png_of(image: Tensor) -> bytes:
    """(1 or 3, H, W), limited to [0, 1], as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(as_uint8(image)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def with_channels(images: Tensor, channels: int) -> Tensor:
    """(B, 1 or 3, H, W) with 1 or 3 channels: grey repeated, or colours as Rec. 601 weighs them."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    return (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


def square_of(image: Tensor, side: int) -> Tensor:
    """The middle square of (C, H, W) as (C, side, side), averaged so that nothing aliases."""
    size = min(image.shape[-2:])
    top, left = (image.shape[-2] - size) // 2, (image.shape[-1] - size) // 2
    square = image[None, :, top : top + size, left : left + size]
    return F.interpolate(square, size=(side, side), mode="bilinear", antialias=True)[0]


def in_tiles(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    tile: int = 256,
    overlap: int = 64,
    batch: int = 4,
    *,
    progress: bool = False,
) -> Tensor:
    """`network` on images (B, C, H, W) of any size, its output of the same shape.

    What fits a tile goes through whole. What is larger goes in tiles that overlap and fade into each
    other, so that no seam shows, and is replaced by the result: the memory may hold no second copy.
    """
    height, width = images.shape[-2:]
    if max(height, width) <= tile:
        return network(_padded(images))[..., :height, :width]
    rows, columns = starts(height, tile, overlap), starts(width, tile, overlap)
    places = [(top, left) for top in rows for left in columns]
    fade = _fade(min(tile, height), overlap)[:, None] * _fade(min(tile, width), overlap)
    total = len(images) * len(places)
    with tqdm(total=total, desc="tiles", unit="tile", disable=not progress, leave=False, delay=2) as bar:
        for image in images:
            # sums of tiles and of weights, from row `done` on
            band, done = image.new_zeros(len(image) + 1, len(fade), width), 0
            for first in range(0, len(places), batch):
                some = places[first : first + batch]
                cut = torch.stack([image[:, top : top + tile, left : left + tile] for top, left in some])
                pieces = network(_padded(cut))[..., : cut.shape[-2], : cut.shape[-1]]
                for (top, left), piece in zip(some, pieces):
                    if count := top - done:  # no tile to come reaches above `top`, to read or to add
                        image[:, done:top] = band[:-1, :count] / band[-1, :count]
                        band, done = F.pad(band[:, count:], (0, 0, 0, count)), top
                    band[:-1, :, left : left + tile] += piece * fade
                    band[-1, :, left : left + tile] += fade
                bar.update(len(some))
            image[:, done:] = band[:-1] / band[-1]
    return images


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles of equal size begin that cover a length and overlap by at least so much."""
    count = max(1, -(-(length - overlap) // (tile - overlap)))
    return [round(i * (length - tile) / max(1, count - 1)) for i in range(count)]


def _fade(length: int, overlap: int) -> Tensor:
    """Weights of a tile along an axis: rising over the overlap at both ends, never zero."""
    ramp = torch.arange(1.0, length + 1)
    return (torch.minimum(ramp, ramp.flip(0)) / (overlap + 1)).clamp(max=1)


def _padded(images: Tensor) -> Tensor:
    """Images mirrored below and on the right up to multiples of `STRIDE`; small ones repeated."""
    height, width = images.shape[-2:]
    below, right = -height % STRIDE, -width % STRIDE
    mode = "reflect" if below < height and right < width else "replicate"
    return F.pad(images, (0, right, 0, below), mode=mode) if below or right else images
