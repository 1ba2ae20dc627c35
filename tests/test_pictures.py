"""Pictures that people bring: every mode and state is read or answered in words; tiles leave no
seams.
"""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torch import nn

from dcnas.data import pictures
from dcnas.data.images import decode
from dcnas.data.photographs import SUFFIXES
from dcnas.data.pictures import as_float, in_tiles, png_of, read_picture, square_of, with_channels
from dcnas.errors import InputError
from dcnas.models import UNet

RAMP = np.tile(np.linspace(0, 255, 40), (20, 1)).astype(np.uint8)


def file(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


GREY = Image.fromarray(RAMP)


@pytest.mark.parametrize(
    ("data", "channels", "note"),
    [
        (file(GREY), 1, None),
        (file(GREY.convert("1")), 1, None),
        (file(GREY.convert("RGB"), "JPEG", quality=95), 3, None),
        (file(GREY.convert("P")), 3, None),
        (file(GREY.convert("RGBA")), 3, "shown on white"),
        (file(GREY.convert("LA")), 1, "shown on white"),
        (file(GREY.convert("CMYK"), "JPEG", quality=95), 3, None),
        (file(Image.fromarray(RAMP.astype(np.uint16) * 257)), 1, "scaled to 8"),
        (file(GREY, "GIF", save_all=True, append_images=[GREY.rotate(90)]), 3, "first of 2 frames"),
        (file(GREY.convert("RGB"), "WEBP", lossless=True), 3, None),
    ],
    ids=["grey", "bits", "JPEG", "palette", "alpha", "grey alpha", "CMYK", "16 bit", "animated", "WebP"],
)
def test_every_mode_is_read(data, channels, note):
    pixels, notes = read_picture(data)
    assert pixels.shape == (channels, 20, 40) and pixels.dtype == torch.uint8
    assert pixels[:, :, :3].float().mean() < 26 and pixels[:, :, -3:].float().mean() > 230
    assert (note is None and not notes) or any(note in text for text in notes)


def test_a_picture_is_turned_and_scaled_with_a_note():
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    pixels, notes = read_picture(file(GREY, "JPEG", exif=exif, quality=95))
    assert pixels.shape == (1, 40, 20) and notes == ("It is turned as its camera says.",)
    pixels, notes = read_picture(file(Image.new("RGB", (300, 200))), most_side=100)
    assert pixels.shape == (3, 67, 100)
    assert notes == ("It is scaled from 300 x 200 to 100 x 67 pixels.",)


LINEAR = zlib.decompress(  # an ICC profile of sRGB's colours with a gamma of 1
    base64.b64decode(
        "eNpjYGC8wgAETA4MDLl5JUVB7k4KEZFRCuyvGBiBEAwSk4sLGPCCb9cgai/rMpAOOFNSi5OB9AcgTkkuKCphYGAMAbJ5yksK"
        "QOwEIFukCOgoILsExE6HsDtA7CQIew5YTUiQM5C9AaQ3HcLeA2InQdgnQGyoXSDAnpOZl5pYxEB1UJJaAXInA8giUFiihxFC"
        "LH8eA4PFNwYG5n6EWNI0Bobt7QwMEncQYiqLGBj4mxkYtp1PLi0qg9mDiw0AsLc6Gg=="
    )
)
WITH_GAMMA = PngImagePlugin.PngInfo()
WITH_GAMMA.add(b"gAMA", struct.pack(">I", 100_000))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize(
    ("described", "level", "note"),
    [
        ({}, 55, None),
        ({"icc_profile": LINEAR}, 128, "taken to sRGB from its own profile"),
        ({"pnginfo": WITH_GAMMA}, 128, "Its gamma of 1 is taken to sRGB's."),
        ({"icc_profile": LINEAR[:200]}, 55, "Its colour profile cannot be used."),
    ],
    ids=["plain", "profile", "gamma", "broken"],
)
def test_colours_are_those_that_the_file_describes(mode, described, level, note):
    plain = Image.new("RGB", (32, 32), (55, 55, 55))
    data = file(plain.quantize(2) if mode == "P" else plain.convert(mode), **described)
    pixels, notes = read_picture(data)
    assert (pixels.float() - level).abs().max() <= 2
    assert (note or "") in "".join(notes) and bool(note) == any("white" not in text for text in notes)
    assert abs(decode(data, 32, False).mean() - level) <= 2  # in a set too


@pytest.mark.parametrize("bytes_cut", [1, 2])
@pytest.mark.parametrize("look", [{}, {"progressive": True}, {"restart_marker_blocks": 2}], ids=str)
def test_a_jpeg_without_its_end_marker_is_read_with_a_note(look, bytes_cut):
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    whole = file(photograph, "JPEG", **look)
    assert whole.endswith(pictures.END_OF_JPEG)
    pixels, notes = read_picture(whole[:-bytes_cut])
    assert torch.equal(pixels, read_picture(whole)[0]) and notes == ("Its end marker is missing.",)
    assert (decode(whole[:-bytes_cut], 32, False) == decode(whole, 32, False)).all()
    for cut in (8, 40, len(whole) // 2):  # some of the picture is missing too
        with pytest.raises(InputError, match="damaged or cut short"):
            read_picture(whole[:-cut])


def test_what_pillow_reads_of_these_formats_is_read_by_any_of_their_suffixes():
    registered = Image.registered_extensions()
    assert {suffix for suffix, kind in registered.items() if kind in pictures.FORMATS} <= set(SUFFIXES)
    for kind in ("AVIF", "JPEG2000"):
        if kind in Image.SAVE:  # of Pillow 11.3 on
            assert read_picture(file(GREY.convert("RGB"), kind))[0].shape == (3, 20, 40)


@pytest.mark.parametrize("tenth", (0, 3, 6, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF"])
def test_files_cut_anywhere_are_read_or_answered(kind, tenth):
    whole = file(GREY, kind)
    try:
        assert read_picture(whole[: len(whole) * tenth // 10])[0].ndim == 3
    except InputError as error:
        assert str(error).endswith(".") and "\n" not in str(error)


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 100)
    with pytest.raises(InputError, match="has 40 x 20 pixels, but at most"):
        read_picture(file(GREY))


def test_grey_and_png_keep_every_level():
    grey = torch.from_numpy(RAMP)[None] / 255
    assert torch.equal(as_float(read_picture(png_of(grey))[0]), grey)
    assert torch.allclose(with_channels(with_channels(grey[None], 3), 1), grey[None], atol=1e-6)
    assert square_of(torch.rand(3, 20, 40), 8).shape == (3, 8, 8)


# tiles


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (64, 64), (257, 256), (500, 700)])
def test_tiles_put_together_are_the_image(size):
    """Every pass has a size that networks take; what is written over is not read again."""
    image, seen = torch.rand(2, 3, *size), []
    options = dict(tile=128, overlap=40, batch=3)
    tiled = in_tiles(lambda x: seen.append(x.shape[2:]) or x, image.clone(), **options)
    assert torch.allclose(tiled, image, atol=1e-6)
    assert not any(side % pictures.STRIDE for shape in seen for side in shape)


def test_tiles_of_a_local_network_equal_the_whole():
    torch.manual_seed(0)
    local = nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 1, 5, padding=2))
    local, image = local.requires_grad_(False), torch.rand(1, 1, 320, 320)
    whole, tiled = local(image), in_tiles(local, image, tile=128, overlap=48)
    inside = (tiled - whole)[..., 8:-8, 8:-8]  # only each tile's own border sees mirrored edges
    assert inside.abs().mean() < 0.02 * whole.std()


def test_no_seam_shows_with_norms_that_see_a_whole_tile():
    """GroupNorm gives each tile its own brightness: faded into each other, the steps at borders are no
    larger than elsewhere.
    """
    torch.manual_seed(0)
    unet = UNet(b=8, d=4, m=1.5, c=2).requires_grad_(False).eval()
    image = torch.linspace(0, 1, 384).expand(1, 1, 384, 384) + 0.05 * torch.randn(1, 1, 384, 384)
    steps = in_tiles(unet, image, tile=128, overlap=32)[0, 0].diff(dim=1).abs().mean(0)
    assert steps[8:-8].max() < 1.5 * steps.quantile(0.95)
