"""The images of Section 4 as a network sees them: decoding of every kind, fixed parts, batches."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from dcnas.data import images
from dcnas.data.images import (
    evaluation_images,
    load_images,
    make_image_draw,
    random_boxes,
    split_rows,
    stored_side,
)
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
            Image.fromarray(pixels).save(
                tmp_path / "set" / name / ("deep" if n % 2 else "") / f"{n}.png"
            )
    return tmp_path / "set"


def load(folder, **options):
    return load_images(f"folder:{folder}", 32, progress=False, **options)


def test_a_folder_of_class_folders_becomes_a_set(folder):
    data = load(folder)
    assert data.classes == ("bright", "dark")
    assert data.images.shape == (24, 3, 64, 64)
    assert data.images.dtype == np.uint8
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


def test_a_sets_own_test_part_is_respected():
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


def test_unreadable_files_are_named_counted_and_skipped(folder):
    (folder / "dark" / "text.png").write_text("no picture")
    (folder / "dark" / "empty.jpg").write_bytes(b"")
    whole = (folder / "bright" / "0.png").read_bytes()
    (folder / "bright" / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="3 unreadable files, the first is bright/cut.png"):
        data = load(folder)
    assert len(data.labels) == 24
    assert set(data.skipped) == {"dark/text.png", "dark/empty.jpg", "bright/cut.png"}
    assert len(data.images) == 24 and "3 unreadable files were skipped" in data.describe()
    for row, label in enumerate(data.labels.tolist()):  # images and labels stay together
        assert (data.images[row].mean() > 128) == (data.classes[label] == "bright")


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
        seen += rows[images.order_of(step, 4, len(rows), "images", 0)].tolist()
    assert sorted(seen) == rows.tolist()
    following = rows[images.order_of(4, 4, len(rows), "images", 0)].tolist()
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


def test_evaluation_views_are_fixed_centre_crops(folder):
    data = load(folder)
    views, labels = evaluation_images(data, "test", 32)
    assert views.shape == (4, 3, 32, 32) and views.dtype == torch.uint8 and labels.shape == (4, 1)
    fewer, _ = evaluation_images(data, "test", 32, count=2)
    assert torch.equal(fewer, views[:2])
    assert sorted(labels.flatten().tolist()) == [0, 0, 1, 1]


def test_a_batch_larger_than_the_set_is_refused(folder):
    with pytest.raises(InputError, match="16 images for weights, but a batch is 32"):
        make_image_draw(load(folder), ["weights"], 32, 32, 0)


def test_a_limit_keeps_the_first_of_each_class(folder):
    assert len(load(folder, limit=6).labels) == 12
    with pytest.raises(InputError, match="class 'bright' has 2 readable images, but 3"):
        load(folder, limit=2)


def test_stored_images_are_larger_than_the_input_where_the_set_s_are():
    assert [stored_side("solar", n) for n in (32, 64, 224)] == [64, 128, 256]
    assert [stored_side("tiny-imagenet:50", n) for n in (32, 64)] == [32, 64]
    with pytest.raises(InputError, match="resolution is 96, but tiny-imagenet has 64 pixels"):
        stored_side("tiny-imagenet", 96)


def test_images_of_the_networks_size_are_only_flipped_and_shifted(folder):
    data = load_images(f"folder:{folder}", 32, progress=False)  # stored at 64
    draw = make_image_draw(data, ["weights"], 64, 8, 0, noisy=False)
    stored = data.images[data.rows["weights"].numpy()]
    padded = np.pad(stored, ((0, 0), (0, 0), (8, 8), (8, 8)), mode="reflect")
    moved = {
        padded[n, :, y : y + 64, x : x + 64][:, 30, ::turn].tobytes()
        for n in range(len(stored))
        for y in range(17)
        for x in range(17)
        for turn in (1, -1)
    }
    clean, _, _ = draw(0)
    assert all(image[:, 30].tobytes() in moved for image in (255 * clean).round().byte().numpy())
    views, _ = evaluation_images(data, "test", 64)
    tested = {data.images[row].tobytes() for row in data.rows["test"]}
    assert {view.tobytes() for view in views.numpy()} == tested  # to the bit, not averaged


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
