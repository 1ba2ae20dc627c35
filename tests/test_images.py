"""The images of Section 4 as a network sees them: decoding of every kind, fixed parts, batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import noisy_picture
from PIL import Image

from dcnas.data import images
from dcnas.data.images import evaluation_images, load_images, make_image_draw, random_boxes, stored_side
from dcnas.errors import InputError
from dcnas.seed import generator


@pytest.fixture
def folder(tmp_path, downloads):
    """Two classes of 12 colour pictures, dark and bright ones."""
    for name, level in (("dark", 40), ("bright", 200)):
        for n in range(12):
            path = tmp_path / "set" / name / ("deep" if n % 2 else "") / f"{n}.png"
            noisy_picture(path, level, n, (50 + n, 60))
    return tmp_path / "set"


def load(folder, **options):
    return load_images(f"folder:{folder}", 32, progress=False, **options)


def assert_labels_fit(data) -> None:
    for row, label in enumerate(data.labels.tolist()):
        assert (data.images[row].mean() > 128) == (data.classes[label] == "bright")


def test_a_folder_of_class_folders_becomes_a_set(folder):
    data = load(folder)
    assert data.classes == ("bright", "dark")
    assert data.images.shape == (24, 3, 64, 64) and data.images.dtype == np.uint8
    assert_labels_fit(data)
    assert "24 colour images of 2 classes" in data.describe()


def test_parts_are_disjoint_stratified_and_always_the_same(folder):
    data, again = load(folder), load(folder)
    rows = torch.cat(list(data.rows.values()))
    assert sorted(rows.tolist()) == list(range(24))
    assert {part: len(r) for part, r in data.rows.items()} == {"weights": 16, "alphas": 4, "test": 4}
    for part, found in data.rows.items():
        assert torch.equal(found, again.rows[part])
        assert torch.bincount(data.labels[found]).tolist() == [len(found) // 2] * 2


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
    whole = (folder / "bright" / "0.png").read_bytes()
    (folder / "bright" / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="2 unreadable files, the first is bright/cut.png"):
        data = load(folder)
    assert set(data.skipped) == {"dark/text.png", "bright/cut.png"}
    assert len(data.labels) == len(data.images) == 24
    assert "2 unreadable files were skipped" in data.describe()
    assert_labels_fit(data)  # images and labels stay together


def test_files_that_may_not_be_read_and_links_to_nothing_are_skipped(folder, monkeypatch):
    (folder / "dark" / "gone.png").symlink_to(folder / "nowhere.png")
    real = Path.read_bytes

    def read_bytes(path):
        if path.parts[-2:] == ("bright", "0.png"):  # the first, which is also looked at for its colours
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.warns(UserWarning, match="2 unreadable files"):
        data = load(folder)
    assert set(data.skipped) == {"dark/gone.png", "bright/0.png"} and len(data.labels) == 23


def test_batches_depend_on_seed_and_step_alone(folder):
    data = load(folder)
    a, b = (make_image_draw(data, ["weights"], 32, 4, seed) for seed in (0, 1))
    (clean, noisy, labels), again, (_, other, _), (_, later, _) = a(7), a(7), b(7), a(8)
    assert all(torch.equal(one, two) for one, two in zip((clean, noisy, labels), again, strict=True))
    assert not torch.equal(noisy, other) and not torch.equal(noisy, later)
    assert clean.shape == (4, 3, 32, 32) and clean.min() >= 0 and clean.max() <= 1
    for image, label in zip(clean, labels.tolist(), strict=True):
        assert (image.mean() > 0.5) == (data.classes[label] == "bright")


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
    sigmas = []
    draw = make_image_draw(data, ["weights"], 32, 16, 0)
    for step in range(40):
        clean, noisy, _ = draw(step)
        sigmas += (noisy - clean).flatten(1).std(1).tolist()
    counts = np.histogram(sigmas, bins=4, range=(0, 1))[0] / len(sigmas)
    assert counts == pytest.approx(0.25, abs=0.06) and max(sigmas) < 1.05


def test_crops_lie_within_the_image_and_vary():
    boxes = random_boxes(2000, 64, generator("x"))
    assert boxes.min() >= 0 and boxes.max() <= 64 + 1e-4
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 64**2
    assert area.min() > 0.2 and area.max() <= 1 and 0.5 < area.mean() < 0.7


def test_what_a_set_is_too_small_for_is_refused(folder):
    assert len(load(folder, limit=6).labels) == 12  # the first of each class
    with pytest.raises(InputError, match="class 'bright' has 2 readable images, but 3"):
        load(folder, limit=2)
    with pytest.raises(InputError, match="16 images for weights, but a batch is 32"):
        make_image_draw(load(folder), ["weights"], 32, 32, 0)


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
