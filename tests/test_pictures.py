"""Pictures that people bring: every mode and state is read or answered in words; tiles leave no
seams.
"""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dcnas.data import pictures
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
