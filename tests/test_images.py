"""Real images: folders that users bring, decoding of every kind of picture, fixed parts, batches from the step alone."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from dcnas.data import images
from dcnas.data.images import decode, evaluation_images, load_images, make_image_draw, random_boxes, split_rows, stored_side
from dcnas.errors import InputError
from dcnas.seed import generator


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two classes of 12 colour pictures: dark ones with a bright left half, and bright ones."""
    monkeypatch.setenv("DCNAS_DOWNLOADS", str(tmp_path / "downloads"))
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("bright", 200)):
        (tmp_path / "set" / name / "deep").mkdir(parents=True)
        for n in range(12):
            pixels = np.clip(level + rng.integers(-30, 30, (50 + n, 60, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / ("deep" if n % 2 else "") / f"{n}.png")
    return tmp_path / "set"


def load(folder, **options):
    return load_images(f"folder:{folder}", 32, progress=False, **options)


def test_a_folder_of_class_folders_becomes_a_set(folder):
    data = load(folder)
    assert data.classes == ("bright", "dark") and data.images.shape == (24, 3, 64, 64) and data.images.dtype == np.uint8
    for row, label in enumerate(data.labels.tolist()):
        assert (data.images[row].mean() > 128) == (data.classes[label] == "bright")
    assert "24 colour images of 2 classes" in data.describe()


def test_parts_are_disjoint_stratified_and_always_the_same(folder):
    data, again = load(folder), load(folder)
    rows = torch.cat(list(data.rows.values()))
    assert sorted(rows.tolist()) == list(range(24))
    assert {part: len(r) for part, r in data.rows.items()} == {"weights": 16, "alphas": 4, "test": 4}
    for part, found in data.rows.items():
        assert torch.equal(found, again.rows[part])
        assert torch.bincount(data.labels[found]).tolist() == [len(found) // 2] * 2


def test_the_parts_do_not_depend_on_how_a_path_is_spelled(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    plain, other = (load_images(f"folder:{path}", 48) for path in (folder, f"./{folder.name}"))
    assert all(torch.equal(plain.rows[part], other.rows[part]) for part in plain.rows)


def test_a_set_s_own_test_part_is_respected():
    labels, test = torch.tensor([0, 1] * 20), [n >= 30 for n in range(40)]
    rows = split_rows(labels, test, "x")
    assert rows["test"].tolist() == list(range(30, 40)) and len(rows["alphas"]) == 6


def test_the_second_load_decodes_nothing_and_a_changed_file_does(folder, monkeypatch):
    load(folder)
    calls = []
    real = images.decode
    monkeypatch.setattr(images, "decode", lambda *args: calls.append(1) or real(*args))
    load(folder)
    assert not calls
    Image.new("RGB", (60, 60)).save(folder / "dark" / "new.png")
    assert len(load(folder).labels) == 25 and len(calls) == 25


def test_a_killed_decoding_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    calls = []

    def dies(*args):
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return real(*args)

    real = images.decode
    monkeypatch.setattr(images, "decode", dies)
    with pytest.raises(KeyboardInterrupt):
        load(folder)
    assert not [p for p in (tmp_path / "downloads" / "decoded").iterdir() if p.suffix != ".lock"]
    monkeypatch.setattr(images, "decode", real)
    assert len(load(folder).labels) == 24


def test_unreadable_files_are_named_counted_and_skipped(folder):
    (folder / "dark" / "text.png").write_text("no picture")
    (folder / "dark" / "empty.jpg").write_bytes(b"")
    whole = (folder / "bright" / "0.png").read_bytes()
    (folder / "bright" / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="3 files could not be read and are left out: .*cut.png"):
        data = load(folder)
    assert len(data.labels) == 24 and set(data.skipped) == {"dark/text.png", "dark/empty.jpg", "bright/cut.png"}
    assert len(data.images) == 24 and "3 unreadable files were skipped" in data.describe()
    for row, label in enumerate(data.labels.tolist()):  # images and labels stay together
        assert (data.images[row].mean() > 128) == (data.classes[label] == "bright")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: None, "is not a folder"),
        (lambda p: p.mkdir(), "has no class folder with images"),
        (lambda p: (p / "a").mkdir(parents=True) or Image.new("L", (8, 8)).save(p / "a" / "1.png"), "only the class 'a'"),
        (
            lambda p: [(p / c).mkdir(parents=True) or Image.new("L", (8, 8)).save(p / c / "1.png") for c in "ab"],
            "class 'a' has 1 readable images",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_gets_one_sentence(make, says, tmp_path, monkeypatch):
    monkeypatch.setenv("DCNAS_DOWNLOADS", str(tmp_path / "downloads"))
    make(tmp_path / "set")
    with pytest.raises(InputError, match=says):
        load(tmp_path / "set")


def test_unknown_sets_and_missing_imagenet_are_named(monkeypatch):
    monkeypatch.delenv("DCNAS_IMAGENET", raising=False)
    with pytest.raises(InputError, match="data set is 'mnist'"):
        load_images("mnist")
    with pytest.raises(InputError, match="DCNAS_IMAGENET"):
        load_images("imagenet100")


def png(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


RAMP = np.tile(np.linspace(0, 255, 40), (20, 1))


@pytest.mark.parametrize(
    "data",
    [
        png(Image.fromarray(RAMP.astype(np.uint8))),
        png(Image.fromarray((RAMP * 257).astype(np.uint16))),
        png(Image.fromarray(RAMP.astype(np.uint8)).convert("P")),
        png(Image.fromarray(RAMP.astype(np.uint8)).convert("RGBA")),
        png(Image.fromarray(RAMP.astype(np.uint8)).convert("CMYK"), "JPEG", quality=95),
        png(Image.fromarray(RAMP.astype(np.uint8)), "GIF"),
    ],
    ids=["grey", "16 bit", "palette", "alpha", "CMYK", "GIF"],
)
@pytest.mark.parametrize("grey", [True, False])
def test_every_kind_of_picture_keeps_its_brightness(data, grey):
    found = decode(data, 10, grey).astype(float)
    assert found.shape == (1 if grey else 3, 10, 10)
    middle = np.linspace(0, 255, 40)[10:30].reshape(10, 2).mean(1)  # the middle square of a 40 x 20 picture
    assert abs(found.mean(0).mean(0) - middle).max() < 12


def test_a_photo_is_turned_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    data = png(Image.fromarray(np.tile(RAMP.astype(np.uint8), (2, 1))), "JPEG", exif=exif, quality=95)
    found = decode(data, 10, True)[0].astype(float)
    assert found[-1].mean() - found[0].mean() > 150 and abs(found[:, 0].mean() - found[:, -1].mean()) < 20


def test_one_pixel_is_enough_to_decode():
    assert decode(png(Image.new("L", (1, 1), 77)), 32, True).tolist() == [[[77] * 32] * 32]


# batches


def test_batches_depend_on_seed_and_step_alone(folder):
    data = load(folder)
    a, b = (make_image_draw(data, ["weights"], 32, 4, seed) for seed in (0, 1))
    first, again, other, later = a(7), a(7), b(7), a(8)
    (clean, noisy, labels), (_, noisy_other, _), (_, noisy_later, _) = first, other, later
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(noisy, noisy_other) and not torch.equal(noisy, noisy_later)
    assert clean.shape == (4, 3, 32, 32) and clean.min() >= 0 and clean.max() <= 1
    for image, label in zip(clean, labels.tolist(), strict=True):
        assert (image.mean() > 0.5) == (data.classes[label] == "bright")


def test_an_epoch_shows_every_image_once_and_only_those_of_its_parts(folder):
    data = load(folder)
    seen = []
    rows = data.rows["weights"]
    for step in range(4):
        seen += rows[images._order_of(step, 4, len(rows), "images", 0)].tolist()
    assert sorted(seen) == rows.tolist()
    following = rows[images._order_of(4, 4, len(rows), "images", 0)].tolist()
    assert following != seen[:4]  # the next epoch has another order


def test_noise_is_uniform_in_sigma_and_absent_where_asked(folder):
    data = load(folder)
    clean, noisy, _ = make_image_draw(data, ["weights"], 32, 16, 0, noisy=False)(0)
    assert torch.equal(clean, noisy)
    sigmas = []
    draw = make_image_draw(data, ["weights"], 32, 16, 0)
    for step in range(40):
        clean, noisy, _ = draw(step)
        sigmas += (noisy - clean).flatten(1).std(1).tolist()
    counts = np.histogram(sigmas, bins=np.linspace(0, 1, 5))[0] / len(sigmas)
    assert abs(counts - 0.25).max() < 0.06 and max(sigmas) < 1.05


def test_crops_lie_within_the_image_and_vary():
    boxes = random_boxes(2000, 64, generator("x"))
    assert boxes.min() >= 0 and boxes.max() <= 64 + 1e-4
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 64**2
    assert area.min() > 0.2 and area.max() <= 1 and 0.5 < area.mean() < 0.7


def test_cutting_out_the_whole_image_is_its_average():
    image = torch.rand(2, 3, 64, 64)
    whole = torch.tensor([[0.0, 0, 64, 64]] * 2)
    torch.testing.assert_close(images.cut_out(image, whole, 32), torch.nn.functional.avg_pool2d(image, 2), atol=1e-5, rtol=0)


def test_evaluation_views_are_fixed_centre_crops(folder):
    data = load(folder)
    views, labels = evaluation_images(data, "test", 32)
    assert views.shape == (4, 3, 32, 32) and views.dtype == torch.uint8 and labels.shape == (4, 1)
    fewer, _ = evaluation_images(data, "test", 32, count=2)
    assert torch.equal(fewer, views[:2])
    assert sorted(labels.flatten().tolist()) == [0, 0, 1, 1]


def test_a_batch_larger_than_the_set_is_refused(folder):
    with pytest.raises(InputError, match="16 images for weights, but a batch of 32"):
        make_image_draw(load(folder), ["weights"], 32, 32, 0)


def test_a_limit_keeps_the_first_of_each_class(folder):
    assert len(load(folder, limit=6).labels) == 12


def test_a_limit_keeps_test_images_of_a_set_that_names_them(folder):
    source = images._folder(folder, folder)  # every image is there for training and again for testing
    limited = images._limited(source, 3)
    assert limited.test == [False] * 3 + [True] * 3 + [False] * 3 + [True] * 3
    assert limited.names[:3] == source.names[:3] and limited.read(3) == source.read(12)


def test_folders_without_images_are_named(folder):
    (folder / "nothing").mkdir()
    with pytest.warns(UserWarning, match="1 folders without images are left out as classes: nothing"):
        assert load(folder).classes == ("bright", "dark")


def test_stored_images_are_larger_than_the_input_where_the_set_s_are():
    assert [stored_side("solar", n) for n in (32, 64, 224)] == [64, 128, 256]
    assert [stored_side(name, n) for name in ("tiny-imagenet", "tiny-imagenet:50") for n in (32, 64)] == [32, 64] * 2


def test_grey_sets_stay_grey_on_disk_and_become_three_channels(tmp_path, monkeypatch):
    monkeypatch.setenv("DCNAS_DOWNLOADS", str(tmp_path / "downloads"))
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        for n in range(5):
            Image.new("L", (40, 40), 20 * n).save(tmp_path / "set" / name / f"{n}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(tmp_path / "set")
    assert data.images.shape[1] == 1
    assert make_image_draw(data, ["weights"], 32, 2, 0)(0)[0].shape == (2, 3, 32, 32)
