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
from dcnas.data.pictures import in_tiles, png_of, read_picture, square_of, with_channels
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
        (
            file(
                GREY, "GIF", save_all=True, append_images=[Image.new("L", GREY.size, v) for v in (9, 99)]
            ),
            3,
            "first of 3 frames",
        ),
        (file(GREY.convert("RGB"), "WEBP", lossless=True), 3, None),
    ],
    ids=["grey", "bits", "JPEG", "palette", "alpha", "grey alpha", "CMYK", "16 bit", "animated", "WebP"],
)
def test_every_mode_is_read(data, channels, note):
    found = read_picture(data)
    assert found.image.shape == (channels, 20, 40) and found.image.dtype == torch.float32
    assert found.image[:, :, :3].mean() < 0.1 and found.image[:, :, -3:].mean() > 0.9
    assert (note is None and not found.notes) or any(note in text for text in found.notes)


def test_a_phone_photo_is_upright():
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    found = read_picture(file(GREY, "JPEG", exif=exif, quality=95))
    assert found.image.shape == (1, 40, 20) and found.notes == ("It is turned as its camera says.",)


def test_a_large_picture_is_scaled_with_a_note():
    found = read_picture(file(Image.new("RGB", (300, 200))), most_side=100)
    assert found.image.shape == (3, 67, 100)
    assert found.notes == ("It is scaled from 300 x 200 to 100 x 67 pixels.",)


JPEG = file(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "JPEG")


@pytest.mark.parametrize(
    ("data", "says"), [(b"", "is empty."), (b"This is no picture.", "is not a picture that can be read")]
)
def test_what_is_no_picture_gets_a_sentence(data, says):
    with pytest.raises(InputError, match=says):
        read_picture(data)


@pytest.mark.parametrize("tenth", (0, 3, 6, 9))
@pytest.mark.parametrize(
    "whole",
    [JPEG, file(GREY), file(GREY, "GIF"), file(GREY, "TIFF")],
    ids=["JPEG", "PNG", "GIF", "TIFF"],
)
def test_files_cut_anywhere_are_read_or_answered(whole, tenth):
    try:
        assert read_picture(whole[: len(whole) * tenth // 10]).image.ndim == 3
    except InputError as error:
        assert str(error).endswith(".") and "\n" not in str(error)


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 100)
    with pytest.raises(InputError, match="has 40 x 20 pixels, but at most"):
        read_picture(file(GREY))


def test_png_is_what_was_written():
    image = torch.from_numpy(RAMP)[None] / 255
    assert torch.equal(read_picture(png_of(image)).image, image)


def test_channels():
    grey = torch.rand(2, 1, 4, 4)
    assert torch.allclose(with_channels(with_channels(grey, 3), 1), grey, atol=1e-6)
    assert square_of(torch.rand(3, 20, 40), 8).shape == (3, 8, 8)
    image = torch.rand(3, 16, 16)
    assert torch.equal(square_of(image, 16), image)  # an image of the right size stays as it is


# tiles


SIZES = [(1, 1), (5, 300), (64, 64), (100, 37), (256, 256), (257, 256), (500, 700)]


@pytest.mark.parametrize("size", SIZES)
def test_tiles_put_together_are_the_image(size):
    image = torch.rand(1, 3, *size)
    assert torch.allclose(in_tiles(lambda x: x, image), image, atol=1e-6)


@pytest.mark.parametrize("size", [(200, 100), (300, 200), (500, 700)])
def test_a_picture_replaced_by_its_tiles_is_the_same(size):
    """What is written over is not read again, though tiles overlap and go through in batches across
    rows.
    """
    image = torch.rand(2, 3, *size)
    apart = in_tiles(lambda x: x.flip(-1), image, tile=128, overlap=40, batch=3)
    assert torch.equal(
        in_tiles(lambda x: x.flip(-1), image, tile=128, overlap=40, batch=3, overwrite=True), apart
    )
    assert torch.equal(image, apart)


def test_every_pass_has_a_size_that_networks_take():
    seen = []
    in_tiles(
        lambda x: seen.append(x.shape) or x, torch.rand(1, 1, 333, 77), tile=128, overlap=32, batch=2
    )
    assert all(shape[-1] % pictures.STRIDE == 0 and shape[-2] % pictures.STRIDE == 0 for shape in seen)
    assert len(seen) > 1


def test_tiles_of_a_local_network_equal_the_whole():
    torch.manual_seed(0)
    local = nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 1, 5, padding=2)
    ).requires_grad_(False)
    image = torch.rand(1, 1, 320, 320)
    tiled, whole = in_tiles(local, image, tile=128, overlap=48), local(image)
    inner = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    # only each tile's own border sees mirrored edges
    assert (tiled - whole)[inner].abs().mean() < 0.02 * whole.std()


def test_no_seam_shows_with_norms_that_see_a_whole_tile():
    """GroupNorm gives each tile its own brightness: faded into each other, the steps at borders are no
    larger than elsewhere.
    """
    torch.manual_seed(0)
    unet = UNet(b=8, d=4, m=1.5, c=2).requires_grad_(False).eval()
    image = torch.linspace(0, 1, 384).expand(1, 1, 384, 384) + 0.05 * torch.randn(1, 1, 384, 384)
    starts = pictures._starts(384, 128, 32)
    found = in_tiles(unet, image, tile=128, overlap=32)[0, 0]
    steps = found.diff(dim=1).abs().mean(0)
    borders = [edge for start in starts[1:] for edge in (start - 1, start)] + [
        start + 127 for start in starts[:-1]
    ]
    assert steps[borders].max() < 1.5 * steps.quantile(0.95)
