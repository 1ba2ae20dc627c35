"""The images of Section 4: sets, decoding, fixed parts, batches; pictures that people bring."""

import shutil
import zipfile
from unittest.mock import Mock, patch

import numpy as np
import pytest
import torch
from made_up import file_of, noisy_picture, two_classes
from PIL import Image

from dcnas.data import images, pictures
from dcnas.data import photographs as sets
from dcnas.data.images import evaluation_images, load_images, make_image_draw, stored_side
from dcnas.data.photographs import identity_of, photographs, set_named
from dcnas.data.pictures import as_float, in_tiles, png_of, read_picture, square_of, with_channels
from dcnas.errors import InputError
from dcnas.models import UNet

pytestmark = pytest.mark.usefixtures("downloads")
CLASSES = ["n03", "n01", "n02"]  # in the order of the study's list, not of the alphabet


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A made-up Tiny ImageNet as its zip unpacks: three classes of 15 + 5 images, dark to bright."""
    monkeypatch.setattr(sets, "tiny_classes", lambda: CLASSES)
    root, lines = tmp_path / "tiny", []
    for c, name in enumerate(sorted(CLASSES)):
        for n in range(15):
            noisy_picture(root / "train" / name / "images" / f"{name}_{n}.JPEG", 50 + 80 * c, n)
        for n in range(3 * 5)[c::3]:
            noisy_picture(root / "val" / "images" / f"val_{n}.JPEG", 50 + 80 * c, 100 + n)
            lines.append(f"val_{n}.JPEG\t{name}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    monkeypatch.setenv("DCNAS_TINY_IMAGENET", str(root))
    return root


def test_tiny_imagenet_keeps_the_last_fifth_and_val_for_testing(tiny):
    data = photographs("tiny-imagenet")
    assert data.classes == tuple(CLASSES) and len(data.files) == 60
    for label, name in enumerate(CLASSES):
        tested = [file.path.name for file in data.files if file.label == label and file.test]
        assert tested[:3] == [f"{name}_{n}.JPEG" for n in range(12, 15)]  # by number, not by letters
        assert len(tested) == 8 and all(other.startswith("val_") for other in tested[3:])


def test_what_is_not_tiny_imagenet_gets_one_sentence(tiny):
    def refused(says: str, name: str = "tiny-imagenet") -> None:
        with pytest.raises(InputError, match=says):
            photographs(name)

    refused("7 lacks .JPEG images", "tiny-imagenet:7")
    refused("has 1 classes with images, but a folder for each", "tiny-imagenet:n01")
    noisy_picture(tiny / "train/n01/images/n01_0.JPEG", 9, size=(80, 80))
    refused("n01_0.JPEG has 80 x 80 pixels instead of 64 x 64")
    (tiny / "val/val_annotations.txt").unlink()
    refused("n03 lacks .JPEG images")
    shutil.rmtree(tiny)
    refused("train is not a folder")


def test_solar_cells_are_unpacked_once_and_keep_their_order(downloads, monkeypatch):
    chances, kinds = ("0.0", "0.3333", "0.6667", "1.0"), ("mono", "poly")
    lines = [(f"cell{n:04}.png", chances[n % 4], kinds[n % 3 == 0]) for n in range(16)]

    def fetch(requirement, sha256, folder):
        with zipfile.ZipFile(folder / "elpv.whl", "w") as archive:
            rows = [f"images/{name} {chance}   {kind}" for name, chance, kind in lines]
            archive.writestr("elpv_dataset/data/labels.csv", "\n".join(rows))
            for n, (name, *_) in enumerate(lines):
                picture = noisy_picture(folder / "cell.png", 9 * n)
                archive.write(picture, f"elpv_dataset/data/images/{name}")
        return folder / "elpv.whl"

    monkeypatch.setattr(sets, "fetch_wheel", fetch)
    data = photographs("solar")
    for file, (name, chance, kind) in zip(data.files, lines, strict=True):
        assert file.path.name == name
        assert file.label == 2 * (kind == "poly") + (chance in chances[2:])
        assert file.path.parent.name == data.classes[file.label] and file.test is None
    monkeypatch.setattr(sets, "fetch_wheel", None)  # not asked again
    assert photographs("solar") == data


def test_a_set_that_cannot_be_had_gets_one_sentence(monkeypatch):
    monkeypatch.setattr(sets, "fetch_wheel", Mock(side_effect=OSError("Network is unreachable")))
    for name, says in (
        ("solar", "solar could not be obtained .Network is unreachable.; put it"),
        ("imagenet100", "DCNAS_IMAGENET"),
        ("mnist", "data set is 'mnist'"),
        ("folder:nowhere", "is not a folder"),
    ):
        with pytest.raises(InputError, match=says):
            photographs(name)


def test_own_folders_are_named_by_their_paths(tmp_path, monkeypatch):
    root = tmp_path / "own"
    for n in range(6):
        noisy_picture(root / "ab"[n % 2] / f"{n}.png", 99, n)
    (root / "nothing").mkdir()
    with pytest.warns(UserWarning, match="folders without images are left out as classes: nothing"):
        assert photographs(f"folder:{root}").classes == ("a", "b")
        before = identity_of(f"folder:{root}")
        noisy_picture(root / "a" / "new.png", 9)
        assert identity_of(f"folder:{root}") != before
    monkeypatch.chdir(tmp_path)
    assert set_named("own") == set_named("folder:./own") == f"folder:{root}"
    with pytest.raises(InputError, match="data is 'nowhere', but a folder"):
        set_named("nowhere")


@pytest.fixture
def folder(tmp_path, downloads):
    """Two classes of 12 colour pictures, dark and bright ones, one of them deep."""
    place = two_classes(tmp_path / "set")
    (place / "dark" / "deep").mkdir()
    (place / "dark" / "0.png").rename(place / "dark" / "deep" / "0.png")
    return place


def load(folder, **options):
    return load_images(f"folder:{folder}", 32, progress=False, **options)


def assert_labels_fit(data) -> None:
    bright = data.images.mean((1, 2, 3)) > 128
    assert (bright == (data.labels.numpy() == data.classes.index("bright"))).all()


def test_a_folder_of_class_folders_becomes_a_set(folder):
    """Decoded once, and anew when a file is changed."""
    data = load(folder)
    assert data.classes == ("bright", "dark")
    assert data.images.shape == (24, 3, 64, 64) and data.images.dtype == np.uint8
    assert_labels_fit(data)
    assert "24 colour images of 2 classes" in data.describe()
    with patch.object(images, "decode", wraps=images.decode) as decode:
        load(folder)
        assert not decode.called
        Image.new("RGB", (60, 60)).save(folder / "dark" / "new.png")
        assert len(load(folder).labels) == 25 and decode.call_count == 25


def test_parts_are_disjoint_stratified_and_always_the_same(folder):
    data, again = load(folder), load(folder)
    rows = torch.cat(list(data.rows.values()))
    assert sorted(rows.tolist()) == list(range(24))
    assert {part: len(r) for part, r in data.rows.items()} == {"weights": 16, "alphas": 4, "test": 4}
    for part, found in data.rows.items():
        assert torch.equal(found, again.rows[part])
        assert torch.bincount(data.labels[found]).tolist() == [len(found) // 2] * 2


def test_batches_depend_on_seed_and_step_alone(folder):
    data = load(folder)
    a, b = (make_image_draw(data, ["weights"], 32, 4, seed) for seed in (0, 1))
    (clean, noisy, labels), again, (_, other, _), (_, later, _) = a(7), a(7), b(7), a(8)
    assert all(torch.equal(one, two) for one, two in zip((clean, noisy, labels), again, strict=True))
    assert not torch.equal(noisy, other) and not torch.equal(noisy, later)
    assert clean.shape == (4, 3, 32, 32) and clean.min() >= 0 and clean.max() <= 1
    assert (clean.mean((1, 2, 3)) > 0.5).equal(labels == data.classes.index("bright"))


def test_an_epoch_shows_every_image_once_and_only_those_of_its_parts(folder):
    data = load(folder)
    draw = make_image_draw(data, ["weights"], 64, 4, 0, noisy=False)
    means = [draw(step)[0].mean((1, 2, 3)) for step in range(8)]
    first, second = torch.cat(means[:4]), torch.cat(means[4:])
    stored = torch.from_numpy(data.images[data.rows["weights"].numpy()]).float().mean((1, 2, 3)) / 255
    torch.testing.assert_close(first.sort().values, stored.sort().values, atol=0.02, rtol=0)
    assert not torch.allclose(first, second, atol=0.05)  # the next epoch has another order


def test_noise_is_uniform_in_sigma_and_absent_where_asked(folder):
    data = load(folder)
    clean, noisy, _ = make_image_draw(data, ["weights"], 32, 16, 0, noisy=False)(0)
    assert torch.equal(clean, noisy)
    steps, sigmas = map(make_image_draw(data, ["weights"], 32, 16, 0), range(40)), []
    for clean, noisy, _ in steps:
        sigmas += (noisy - clean).flatten(1).std(1).tolist()
    counts = np.histogram(sigmas, bins=4, range=(0, 1))[0] / len(sigmas)
    assert counts == pytest.approx(0.25, abs=0.06) and max(sigmas) < 1.05


def test_what_a_set_is_too_small_for_is_refused(folder):
    assert len(load(folder, limit=6).labels) == 12  # the first of each class
    with pytest.raises(InputError, match="class 'bright' has 2 readable images, but 3"):
        load(folder, limit=2)
    with pytest.raises(InputError, match="16 images for weights, but a batch is 32"):
        make_image_draw(load(folder), ["weights"], 32, 32, 0)
    assert [stored_side("solar", n) for n in (32, 64, 224)] == [64, 128, 256]
    assert [stored_side("tiny-imagenet:50", n) for n in (32, 64)] == [32, 64]
    with pytest.raises(InputError, match="resolution is 96, but tiny-imagenet has 64 pixels"):
        stored_side("tiny-imagenet", 96)


def test_images_of_the_networks_size_are_only_flipped_and_shifted(folder):
    data = load_images(f"folder:{folder}", 32, progress=False)  # stored at 64
    draw = make_image_draw(data, ["weights"], 64, 8, 0, noisy=False)
    stored = data.images[data.rows["weights"].numpy()]
    rows = np.pad(stored, ((0, 0), (0, 0), (8, 8), (8, 8)), mode="reflect")[:, :, 30:47]
    shifts = [rows[..., x : x + 64][..., ::turn] for x in range(17) for turn in (1, -1)]
    moved = {row.tobytes() for some in shifts for image in some for row in image.transpose(1, 0, 2)}
    clean, _, _ = draw(0)
    assert all(image[:, 30].tobytes() in moved for image in (255 * clean).round().byte().numpy())
    views, _ = evaluation_images(data, "test", 64)
    tested = {data.images[row].tobytes() for row in data.rows["test"]}
    assert {view.tobytes() for view in views.numpy()} == tested  # to the bit, not averaged


RAMP = np.tile(np.linspace(0, 255, 40), (20, 1)).astype(np.uint8)


GREY = Image.fromarray(RAMP)


@pytest.mark.parametrize(
    ("data", "channels", "note"),
    [
        (file_of(GREY), 1, None),
        (file_of(GREY.convert("1")), 1, None),
        (file_of(GREY.convert("RGB"), "JPEG", quality=95), 3, None),
        (file_of(GREY.convert("P")), 3, None),
        (file_of(GREY.convert("RGBA")), 3, "shown on white"),
        (file_of(GREY.convert("LA")), 1, "shown on white"),
        (file_of(GREY.convert("CMYK"), "JPEG", quality=95), 3, None),
        (file_of(GREY, "GIF", save_all=True, append_images=[GREY.rotate(90)]), 3, "first of 2 frames"),
        (file_of(GREY.convert("RGB"), "WEBP", lossless=True), 3, None),
    ],
    ids=["grey", "bits", "JPEG", "palette", "alpha", "grey alpha", "CMYK", "animated", "WebP"],
)
def test_every_mode_is_read(data, channels, note):
    pixels, notes = read_picture(data)
    assert pixels.shape == (channels, 20, 40) and pixels.dtype == torch.uint8
    assert pixels[:, :, :3].float().mean() < 26 and pixels[:, :, -3:].float().mean() > 230
    assert (note is None and not notes) or any(note in text for text in notes)


def test_a_picture_is_turned_and_scaled_with_a_note():
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    pixels, notes = read_picture(file_of(GREY, "JPEG", exif=exif, quality=95))
    assert pixels.shape == (1, 40, 20) and notes == ("It is turned as its camera says.",)
    pixels, notes = read_picture(file_of(Image.new("RGB", (300, 200))), most_side=100)
    assert pixels.shape == (3, 67, 100)
    assert notes == ("It is scaled from 300 x 200 to 100 x 67 pixels.",)


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 100)
    with pytest.raises(InputError, match="has 40 x 20 pixels, but at most"):
        read_picture(file_of(GREY))


def test_grey_and_png_keep_every_level():
    grey = torch.from_numpy(RAMP)[None] / 255
    assert torch.equal(as_float(read_picture(png_of(grey))[0]), grey)
    assert torch.allclose(with_channels(with_channels(grey[None], 3), 1), grey[None], atol=1e-6)
    assert square_of(torch.rand(3, 20, 40), 8).shape == (3, 8, 8)


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (257, 256), (500, 700)])
def test_tiles_put_together_are_the_image(size):
    """Every pass has a size that networks take; what is written over is not read again."""
    image, seen = torch.rand(2, 3, *size), []
    options = dict(tile=128, overlap=40, batch=3)
    tiled = in_tiles(lambda x: seen.append(x.shape[2:]) or x, image.clone(), **options)
    assert torch.allclose(tiled, image, atol=1e-6)
    assert not any(side % pictures.STRIDE for shape in seen for side in shape)


def test_no_seam_shows_with_norms_that_see_a_whole_tile():
    """GroupNorm gives each tile its own brightness: faded into each other, the steps at borders are no
    larger than elsewhere.
    """
    torch.manual_seed(0)
    unet = UNet(b=8, d=4, m=1.5, c=2).requires_grad_(False).eval()
    image = torch.linspace(0, 1, 384).expand(1, 1, 384, 384) + 0.05 * torch.randn(1, 1, 384, 384)
    steps = in_tiles(unet, image, tile=128, overlap=32)[0, 0].diff(dim=1).abs().mean(0)
    assert steps[8:-8].max() < 1.5 * steps.quantile(0.95)
