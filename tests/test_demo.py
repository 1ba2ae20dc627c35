"""The demo as a visitor uses it: own pictures of every kind, answers equal to those of the command
line.
"""

import io

import numpy as np
import pytest
from PIL import Image

from dcnas.deploy import apply
from dcnas.deploy.weights import Network, load_network, names
from dcnas.study import demo

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def shown():
    return demo.demo()


def move(panel, **values) -> str:
    """The status line after these moves."""
    for name, value in values.items():
        panel.controls[name].value = value
    assert panel.error is None, panel.error
    return panel.status.value


def upload(panel, data: bytes, name: str = "own.png") -> str:
    """As the browser sends it: in pieces."""
    half = len(data) // 2
    for n, piece in enumerate((data[:half], data[half:])):
        message = {"name": name, "first": n == 0, "last": n == 1}
        panel.controls["upload"].receive(None, message, [memoryview(piece)])
    return panel.status.value


def file(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", names())
def test_a_move_of_sigma_changes_the_picture(shown, name):
    move(shown, kind="solar cells" if "solar" in name else "two digits", network=name)
    pictures = set()
    for sigma in (0.0, 0.3, 0.9):
        move(shown, sigma=sigma)
        pictures.add(shown.screen.png)
    assert len(pictures) == 3


def test_what_is_said_is_what_the_command_line_says(shown):
    network = load_network("dc-net-reduced-integrated")
    for index, make in enumerate(list(apply.scenes_of("digits").values())[:3]):
        row = apply.row_of(make(), network, 0.4, apply.apply(network, make(), 0.4))
        text = move(shown, index=index, sigma=0.4)
        says = zip(row["class"].split(), row["probability"].split())
        words = ", ".join(f"{label} ({100 * float(chance):.0f}%)" for label, chance in says)
        assert f"It says {words}; the truth is {', '.join(row['true'].split())}." in text
    assert "Without its denoiser its classifier says" in move(shown, network="dc-net-reduced-sequential")


def test_a_network_says_nothing_of_pictures_that_it_does_not_know(shown):
    text = move(shown, kind="solar cells")
    assert "No label" in text and "It says" not in text
    assert "It says" in move(shown, network="dc-nas-s-solar")


PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8))
EXIF = Image.Exif()
EXIF[0x0112] = 6


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "own.png is not a picture that can be read"),
        (b"plain text", "own.png is not a picture that can be read"),
        (file(PHOTO, "JPEG")[:700], "own.png is damaged or cut short"),
        (file(Image.new("L", (1, 1), 9)), " ms. "),
        (file(Image.new("L", (4000, 3000), 9)), "It is scaled from 4000 x 3000 to 256 x 192 pixels."),
        (
            file(PHOTO, "GIF", save_all=True, append_images=[PHOTO.rotate(90)]),
            "The first of 2 frames is taken.",
        ),
        (file(PHOTO.convert("CMYK"), "JPEG"), " ms. "),
        (
            file(Image.fromarray(np.arange(5400, dtype=np.uint16).reshape(60, 90) * 12)),
            "More than 8 bits",
        ),
        (file(PHOTO, "JPEG", exif=EXIF), "It is turned as its camera says."),
    ],
    ids=["empty", "text", "cut", "one pixel", "large", "animated", "CMYK", "16 bit", "turned"],
)
def test_uploads_are_shown_or_answered_in_words(shown, data, says):
    text = upload(shown, data)
    assert shown.controls["kind"].value == demo.OWN and shown.controls["index"].disabled
    assert says in text and "Traceback" not in text and (shown.error is None) == ("own.png" not in says)
    assert load_network(shown.controls["network"].value).channels == 3
    assert "It says" in move(
        shown, kind=demo.DIGITS, network="dc-net-reduced-integrated"
    )  # and it goes on


def test_an_own_picture_is_waited_for_and_shown_again(shown):
    shown.controls["kind"].value = demo.OWN
    assert "There is no picture yet" in shown.status.value
    upload(shown, file(PHOTO), "twice.png")
    move(shown, kind=demo.DIGITS)
    assert "half.png is not a picture" in upload(shown, b"", "half.png")  # what came before is forgotten
    assert " ms. " in upload(shown, file(PHOTO), "twice.png") and shown.error is None


@pytest.mark.parametrize("name", [name for name in names() if load_network(name).classes])
def test_an_own_picture_gets_a_label_or_the_error_rates_of_the_rule(shown, monkeypatch, name):
    move(shown, sigma=0.4)
    upload(shown, file(PHOTO))
    (rates,) = (row for row in load_network(name).card["refusal"]["rates"] if row["sigma"] == 0.4)
    for refuses in (True, False):
        monkeypatch.setattr(Network, "refuses", lambda *_, refuses=refuses: refuses)
        shown.drawn.cache_clear()
        move(shown, network=names()[0] if name != names()[0] else names()[1])
        text = move(shown, network=name)
        assert ("No label: this is unlike anything" in text) == refuses != ("It says " in text)
        rule = f"At σ = 0.4 the rule refuses {rates['refused']:.0f}% of those too, and labels "
        assert (f"{rule}{rates['labelled']:.0f}% of others." in text) == refuses


def test_a_picture_that_is_made_worse_is_said_to_be(shown):
    upload(shown, file(Image.fromarray(np.full((90, 120, 3), (200, 40, 90), np.uint8))))
    text = move(shown, network="unet-b8-d4-m1.5-c2", sigma=0.05)
    assert "The denoised picture is worse than the noisy one." in text
    assert "worse" not in move(shown, network="unet-b16-tiny-imagenet", sigma=0.4)
