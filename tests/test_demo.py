"""The demo as a visitor uses it: every control, own pictures of every kind, numbers equal to those of the command line."""

import io

import numpy as np
import pytest
from PIL import Image

from dcnas.deploy import apply
from dcnas.deploy.weights import load_network, names
from dcnas.study import demo

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shown():
    return demo.Demo()


def upload(shown: demo.Demo, data: bytes, name: str = "own.png") -> None:
    """As the browser sends it: in pieces."""
    half = len(data) // 2
    for n, piece in enumerate((data[:half], data[half:])):
        message = {"name": name, "first": n == 0, "last": n == 1}
        shown.controls["upload"]._handle_custom_msg(message, [memoryview(piece)])


def file(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", [name for name in names() if "solar" not in name])
def test_a_move_of_sigma_changes_picture_and_numbers(shown, name):
    shown.controls["kind"].value, shown.controls["network"].value = demo.DIGITS_SET, name
    seen = set()
    for sigma in (0.0, 0.3, 0.9):
        shown.controls["sigma"].value = sigma
        assert shown.error is None and f"σ = {sigma:.2f}" in shown.words.value
        seen.add(shown.image.value)
    assert len(seen) == 3


def test_numbers_are_those_of_the_command_line(shown):
    shown.controls["kind"].value, shown.controls["network"].value = demo.DIGITS_SET, "dc-net-reduced-integrated"
    network = load_network("dc-net-reduced-integrated")
    for index, make in enumerate(list(apply.scenes_of("digits").values())[:3]):
        scene = make()
        outcome = apply.apply(network, scene, 0.4)
        row = apply.row_of(scene, network, 0.4, outcome)
        shown.controls["index"].value, shown.controls["sigma"].value = index, 0.4
        text = shown.words.value
        assert f"{row['noisy_psnr']:.2f} dB, SSIM {row['noisy_ssim']:.3f}" in text
        assert f"{row['psnr']:.2f} dB, SSIM {row['ssim']:.3f}" in text
        for said, truth in zip(row["class"].split(), row["true"].split(), strict=True):
            assert f"(true: {truth})" in text and f"label stays {said}" in text or "label changes" in text


def test_probabilities_and_the_mark_of_a_changed_label():
    """The Sequential network's classifier has never seen noise: denoising brings labels back."""
    network = load_network("dc-net-reduced-sequential")
    scene = apply.study_scene("digits", 3)
    outcome = apply.apply(network, scene, 0.8)
    rows = demo.verdicts(scene, network, outcome)
    assert [row["truth"] for row in rows] == list(scene.labels) and any(row["changed"] for row in rows)
    text = demo.bars_html(scene, network, outcome)
    assert text.count("⚑") == sum(row["changed"] for row in rows) and f"{100 * outcome.before[0].max():.0f}%" in text


PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8))
EXIF = Image.Exif()
EXIF[0x0112] = 6


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "own.png is empty."),
        (b"plain text", "own.png is not a picture that can be read"),
        (file(PHOTO, "JPEG")[:700], "own.png is damaged or cut short"),
        (file(Image.new("L", (1, 1), 9)), "for 1 x 1 pixels"),
        (file(Image.new("L", (4000, 3000), 9)), "It is scaled from 4000 x 3000 to 512 x 384 pixels."),
        (file(PHOTO, "GIF", save_all=True, append_images=[PHOTO.rotate(90)]), "The first of 2 frames is taken."),
        (file(PHOTO.convert("CMYK"), "JPEG"), "for 90 x 60 pixels"),
        (file(Image.fromarray(np.arange(5400, dtype=np.uint16).reshape(60, 90) * 12)), "More than 8 bits"),
        (file(PHOTO, "JPEG", exif=EXIF), "It is turned as its camera says."),
    ],
    ids=["empty", "text", "cut", "one pixel", "large", "animated", "CMYK", "16 bit", "turned"],
)
def test_uploads_are_shown_or_answered_in_words(shown, data, says):
    shown.controls["sigma"].value = 0.2
    shown.controls["network"].value = "unet-b8-d4-m1.5-c2"
    upload(shown, data)
    assert shown.controls["kind"].value == demo.OWN and says in shown.status.value
    assert "Traceback" not in shown.status.value and (shown.error is None) == ("own.png" not in says)
    shown.controls["kind"].value = demo.DIGITS_SET
    assert shown.error is None  # and it goes on


def test_an_own_picture_is_waited_for():
    fresh = demo.Demo()
    fresh.controls["kind"].value = demo.OWN
    assert "There is no picture yet" in fresh.status.value


def test_the_same_picture_again_is_shown_again(shown):
    upload(shown, file(PHOTO), "twice.png")
    shown.controls["kind"].value = demo.DIGITS_SET
    upload(shown, b"", "half.png")  # what came before is forgotten
    assert "half.png is empty." in shown.status.value
    upload(shown, file(PHOTO), "twice.png")
    assert shown.controls["kind"].value == demo.OWN and shown.error is None and "for 90 x 60 pixels" in shown.status.value
    shown.controls["kind"].value = demo.DIGITS_SET


def test_a_colour_network_takes_over_for_own_pictures(shown):
    others = [name for name in names() if not load_network(name).of_digits]
    shown.controls["network"].value = "dc-net-reduced-integrated"
    upload(shown, file(PHOTO.resize((64, 64))), "again.png")
    assert shown.controls["network"].value in (others or ["dc-net-reduced-integrated"]) and shown.error is None


def test_the_strip_holds_the_pictures_side_by_side():
    scene, network = apply.study_scene("digits", 0), load_network("dc-net-reduced-integrated")
    outcome = apply.apply(network, scene, 0.0)
    with Image.open(io.BytesIO(demo.strip(scene, network, outcome))) as image:
        pixels = np.asarray(image.convert("L")).astype(int)
    assert image.size == (4 * demo.HEIGHT + 3 * demo.GAP, demo.HEIGHT)
    parts = [pixels[:, n * (demo.HEIGHT + demo.GAP) :][:, : demo.HEIGHT] for n in range(4)]
    corner = (slice(0, 20), slice(0, 20))  # without a digit
    grey = round(scene.image[0, 0, 0].item() * 255)
    assert abs(parts[0][corner] - grey).max() <= 1 and abs(parts[1][corner] - grey).max() <= 1  # sigma is 0
    assert abs(parts[3] - 128).mean() < 12  # nothing much was removed


def test_figures_and_table_show_what_ships():
    assert list(demo.cards_table().index) == names()
    assert len(demo.cards_figure().axes) == 2 and demo.figure(sigma=0.4).axes
