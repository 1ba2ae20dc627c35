"""Folders as people have them: with train and val, without classes, grey, in noisy pairs."""

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from made_up import linear_table, noisy_picture, two_classes
from PIL import Image

from dcnas.data.images import evaluation_images, evaluation_twins, load_images, make_image_draw
from dcnas.data.noise import GAUSSIAN, Noise, degrade
from dcnas.data.photographs import photographs
from dcnas.deploy.weights import load_network
from dcnas.errors import InputError
from dcnas.latency.table import Correction
from dcnas.nas.settings import latency_range_ms
from dcnas.nas.space import Space
from dcnas.options import SearchOptions, TrainOptions
from dcnas.study import own, own_export

pytestmark = pytest.mark.usefixtures("downloads")
OFFSET = 20  # that a made-up camera adds


def load(root, resolution=32):
    return load_images(f"folder:{root}", resolution, progress=False)


def grey_pictures(folder, count, size=(64, 64)):
    for n in range(count):
        noisy_picture(folder / f"{n}.png", 60 + 5 * n, n, size)
        Image.open(folder / f"{n}.png").convert("L").save(folder / f"{n}.png")


@pytest.fixture
def pairs(tmp_path):
    """Ten grey pictures of 100 x 150, and each brighter by `OFFSET`."""
    grey_pictures(tmp_path / "pairs" / "clean", 10, (100, 150))
    (tmp_path / "pairs" / "noisy").mkdir()
    for path in (tmp_path / "pairs" / "clean").iterdir():
        pixels = np.asarray(Image.open(path)).astype(np.uint8) + OFFSET
        Image.fromarray(pixels).save(tmp_path / "pairs" / "noisy" / path.name)
    return tmp_path / "pairs"


@pytest.mark.parametrize("name", ["val", "valid", "test", "Test"])
def test_train_and_val_are_parts_and_no_classes(tmp_path, name):
    two_classes(tmp_path / "set" / "train")
    for label in ("dark", "bright"):
        noisy_picture(tmp_path / "set" / name / label / "x.png", 90)
    data = load(tmp_path / "set")
    assert data.classes == ("bright", "dark") and len(data.rows["test"]) == 2
    tested = [file for file in photographs(data.name).files if file.test]
    assert {file.path.parent.parent.name for file in tested} == {name}
    noisy_picture(tmp_path / "set" / name / "red" / "x.png", 90)
    with pytest.raises(InputError, match="has the class 'red', but .*train has none"):
        load(tmp_path / "set")


def test_train_alone_and_classes_of_those_names(tmp_path):
    two_classes(tmp_path / "a" / "train")
    assert load(tmp_path / "a").classes == ("bright", "dark")
    for label in ("train", "bus"):  # what stands in a street is no part
        for n in range(5):
            noisy_picture(tmp_path / "b" / label / f"{n}.png", 90, n)
    assert load(tmp_path / "b").classes == ("bus", "train")


def test_pictures_alone_have_no_classes(tmp_path):
    grey_pictures(tmp_path / "set" / "train", 8)
    grey_pictures(tmp_path / "set" / "val", 3)
    data = load(tmp_path / "set")
    assert data.classes == () and data.grey and len(data.rows["test"]) == 3
    assert data.describe().endswith(
        "11 grey images, 6 for weights, 2 for alphas, 3 for test, stored at 64 px."
    )


def test_pairs_are_cut_at_the_same_places_and_not_scaled(pairs):
    data = load(pairs)
    assert len(data.images) == len(data.noisy) > 10 and data.side == 64
    kept = {Image.open(p).crop((0, 0, 64, 64)).tobytes() for p in (pairs / "clean").iterdir()}
    assert kept <= {image.tobytes() for image in data.images}
    clean, noisy, _ = make_image_draw(data, ["weights"], 32, 8, 0)(3)
    torch.testing.assert_close(noisy - clean, torch.full_like(clean, OFFSET / 255), atol=1e-5, rtol=0)
    assert clean.shape == (8, 3, 32, 32) and clean[0].std() > 0.01
    views, twins = evaluation_images(data, "test", 32)[0], evaluation_twins(data, "test", 32)
    assert (twins.int() - views == OFFSET).all() and len(views) == 2 * len(data.images) // 10
    (pairs / "noisy" / "3.png").unlink()
    with pytest.raises(InputError, match="3.png has no noisy picture"):
        load(pairs)


def test_noise_of_photons_grows_with_brightness():
    normal = torch.randn(2, 3, 300, 300, generator=torch.Generator().manual_seed(0))
    levels, images = torch.tensor([1.0, 0.5]), torch.full_like(normal, 0.25)
    assert torch.equal(GAUSSIAN.add(images, levels, normal), degrade(images, levels, normal))
    images[..., 150:] = 1.0
    noise = Noise(0.1, 0.04, grey=True).add(images, levels, normal) - images
    assert torch.allclose(noise[:, 0], noise[:, 2])  # of a grey camera
    for n, level in enumerate(levels):
        for part, x in ((noise[n, 0, :, :150], 0.25), (noise[n, 0, :, 150:], 1.0)):
            assert part.var() == pytest.approx(float(level * 0.04 * x + (0.1 * level) ** 2), rel=0.03)


@pytest.fixture
def search(tmp_path, run_store, monkeypatch):
    """`search(data, ...)`: a tiny search and training; its folder."""
    table = linear_table(Space(8, 32, 2, 0.25), batch=4).with_correction(Correction(error_pct=1.0))
    middle = {
        loss: sum(latency_range_ms(Space(4, 32, 2, 0.25), table, network)) / 2
        for loss, network in (("ce", "C-NAS"), ("denoise", "D-NAS"), ("both", "DC-NAS"))
    }
    few = dict(lut=table.save(tmp_path / "t.json"), out=tmp_path / "mine")
    few |= dict(epochs=3, steps_per_epoch=2, batch=4, threads=1, measure=False)

    def run(data, **options):
        target_ms = middle[options.get("loss", "denoise")]
        options = SearchOptions(**few | options, data=str(data), target_ms=target_ms)
        own.search(options)
        metrics = own.train(TrainOptions(options.out, steps=2, batch=4, threads=1))
        return options.out, metrics

    return run


def test_grey_pictures_alone_give_a_grey_denoiser(search, tmp_path):
    grey_pictures(tmp_path / "set", 30)
    out, metrics = search(tmp_path / "set", noise="poisson-gaussian", noise_sigma=0.1, noise_gain=0.02)
    record, network = own.read_record(out), load_network(str(out / own.WEIGHTS))
    assert record.network == "D-NAS" and network.classes == () and network.channels == 1
    assert metrics["sigma"].tolist() == pytest.approx([n / 100 for n in range(11)])
    assert "accuracy" not in metrics and metrics["noisy_psnr"].iloc[-1] == pytest.approx(16, abs=1.5)
    assert network.card["noise"] == {"sigma": 0.1, "gain": 0.02, "grey": True}
    colour = torch.rand(1, 1, 32, 32).expand(-1, 3, -1, -1)
    three, one = network.answer(colour)[0], network.answer(colour[:, :1])[0]
    assert three.shape == colour.shape and one.shape == (1, 1, 32, 32)
    torch.testing.assert_close(three[:, :1], one)
    assert own_export.write_export(network, tmp_path / "x.onnx")["largest_difference"] < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    assert [x.shape[1] for x in (*session.get_inputs(), *session.get_outputs())] == [1, 1]
    assert "grey" in {p.key: p.value for p in onnx.load(tmp_path / "x.onnx").metadata_props}["input"]
    with pytest.raises(InputError, match="loss is 'both', but .* has no classes to tell apart"):
        search(tmp_path / "set", loss="both", out=tmp_path / "other")


@pytest.mark.slow
def test_pairs_are_judged_by_their_own_noise(search, pairs):
    out, metrics = search(pairs)
    assert metrics["sigma"].tolist() == [0.0]  # all are brighter alike
    assert metrics["noisy_psnr"][0] == pytest.approx(20 * np.log10(255 / OFFSET), abs=0.01)
    assert "with noisy twins" in load_network(str(out / own.WEIGHTS)).card["training"]
    page = own.write_report(out).read_text()
    assert "real noise, of pairs" in page and page.count("data:image/png;base64,") == 4
    with pytest.raises(InputError, match="has pairs, with noise of their own"):
        search(pairs, noise="gaussian", out=out.with_name("other"))


def test_a_set_with_some_of_the_classes_in_another_order_is_judged(search, tmp_path):
    for n, name in enumerate(("c", "a", "b")):
        for i in range(12):
            noisy_picture(tmp_path / "set" / name / f"{i}.png", 40 + 80 * n, i)
    out, _ = search(tmp_path / "set", loss="ce")
    network = load_network(str(out / own.WEIGHTS))
    images = own.images_for(network, f"folder:{tmp_path / 'set'}")
    every = pd.Series(images.labels.numpy()).value_counts()
    assert len(every) == 3
    (tmp_path / "set" / "a").rename(tmp_path / "gone")
    some = own.images_for(network, f"folder:{tmp_path / 'set'}")
    assert some.classes == ("a", "b", "c") and set(some.labels.tolist()) == {1, 2}
    noisy_picture(tmp_path / "set" / "d" / "x.png", 9)
    with pytest.raises(InputError, match="the network knows a, b, c"):
        noisy_picture(tmp_path / "set" / "d" / "y.png", 9)
        noisy_picture(tmp_path / "set" / "d" / "z.png", 9)
        own.images_for(network, f"folder:{tmp_path / 'set'}")


def test_a_first_look_judges_few_images(search, tmp_path):
    grey_pictures(tmp_path / "set", 30)
    out, metrics = search(tmp_path / "set")
    few = own.train(TrainOptions(out, steps=2, batch=4, threads=1, judged=2))
    assert (metrics["images"][0], few["images"][0], own.evaluate(out)[0]["images"][0]) == (6, 2, 2)
