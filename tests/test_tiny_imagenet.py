"""Tiny ImageNet: both layouts and the download of a made-up one, its parts, what is refused, its augmentation, runs on it."""

import functools
import http.server
import io
import shutil
import threading
import zipfile
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from made_up import linear_table
from PIL import Image
from test_section4 import run, small  # noqa: F401, a fixture

from dcnas.data import tiny_imagenet
from dcnas.data.images import PARTS, evaluation_images, identity_of, load_images, make_image_draw, set_named, shifted
from dcnas.errors import InputError
from dcnas.nas.search import Searcher
from dcnas.nas.space import Space, strides_for
from dcnas.paths import paper_dir
from dcnas.seed import generator
from dcnas.study import section4, section4_runs
from dcnas.study.runs import folder_of, obtain
from dcnas.training import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = ("n03", "n01", "n02")  # in the order of the study's list, not of the alphabet
TRAIN, VAL = 15, 5  # images of a class; a fifth of the former is for testing


def picture(level: int, seed: int, side: int = 64) -> bytes:
    pixels = np.clip(level + np.random.default_rng(seed).integers(-30, 30, (side, side, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def published() -> dict[str, bytes]:
    """The files of the published zip, made up: three classes, dark to bright, one of which the list has first."""
    files, lines = {"wnids.txt": b"n01\nn02\nn03\n", "test/images/test_0.JPEG": picture(99, 0)}, []
    for c, name in enumerate(sorted(CLASSES)):
        files[f"train/{name}/{name}_boxes.txt"] = b"boxes"
        for n in range(TRAIN):
            files[f"train/{name}/images/{name}_{n}.JPEG"] = picture(50 + 80 * c, 100 * c + n)
        for n in range(VAL):
            files[f"val/images/val_{3 * n + c}.JPEG"] = picture(50 + 80 * c, 1_000 + 100 * c + n)
            lines.append(f"val_{3 * n + c}.JPEG\t{name}\t0\t0\t62\t62\n")
    return files | {"val/val_annotations.txt": "".join(lines).encode()}


def in_folders(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same images with a folder per class."""
    of_val = dict(line.split("\t")[:2] for line in files["val/val_annotations.txt"].decode().splitlines())
    found = {}
    for path, data in files.items():
        *_, name = path.split("/")
        if path.startswith("train/") and name.endswith(".JPEG"):
            found[path.replace("images/", "")] = data
        elif path.startswith("val/images/"):
            found[f"val/{of_val[name]}/{name}"] = data
    return found


def unpack(files: dict[str, bytes], folder):
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("notes.txt", "beside the folder")
        for path, data in reversed(files.items()):  # the order of a zip or of a disk is any
            archive.writestr(f"tiny-imagenet-200/{path}", data)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def classes(tmp_path, monkeypatch):
    """The three classes for the study's list; downloads of its own, and no folder of the set."""
    monkeypatch.setattr(tiny_imagenet, "class_names", lambda: dict.fromkeys(CLASSES, "words"))
    monkeypatch.setenv("DCNAS_DOWNLOADS", str(tmp_path / "downloads"))
    monkeypatch.delenv(tiny_imagenet.VARIABLE, raising=False)


@pytest.fixture
def folder(published, tmp_path, monkeypatch):
    """The unpacked zip, named by the environment."""
    monkeypatch.setenv(tiny_imagenet.VARIABLE, str(unpack(published, tmp_path / "tiny")))
    return tmp_path / "tiny"


def load(name: str = "tiny-imagenet", resolution: int = 64):
    return load_images(name, resolution, progress=False)


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives `whole`; cuts an answer after `cuts.pop(0)` bytes of it, and knows ranges if `ranges`. `asked`: from which byte."""

    def __init__(self, *arguments, shop, **options):
        self.shop = shop
        super().__init__(*arguments, **options)

    def do_GET(self):
        begin = int((self.headers.get("Range") or "bytes=0-")[len("bytes=") : -1])
        self.shop.asked.append(begin)
        begin *= self.shop.ranges
        body = self.shop.whole[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.shop.cuts.pop(0) if self.shop.cuts else None])

    def log_message(self, *_):
        pass


class Shop:
    def __init__(self, whole: bytes):
        self.whole, self.cuts, self.ranges, self.asked = whole, [], True, []


@pytest.fixture
def shop(published, monkeypatch):
    """A server of the made-up zip, in the place of the published one."""
    found = Shop(zipped(published))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, shop=found)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(tiny_imagenet, "URL", f"http://127.0.0.1:{server.server_port}/tiny-imagenet-200.zip")
        monkeypatch.setattr(tiny_imagenet, "ZIP_BYTES", len(found.whole))
        files = {tuple(path.split("/")): (len(data), lambda data=data: data) for path, data in published.items()}
        monkeypatch.setattr(tiny_imagenet, "FILES_SHA256", tiny_imagenet.digest(files))
        yield found
        server.shutdown()


# ---- what it is


def test_both_layouts_and_the_zip_are_the_same_set(published, folder, shop, tmp_path, monkeypatch):
    found = [(tiny_imagenet.photographs(), load())]
    monkeypatch.setenv(tiny_imagenet.VARIABLE, str(unpack(in_folders(published), tmp_path / "by class")))
    monkeypatch.setenv("DCNAS_DOWNLOADS", str(tmp_path / "others"))  # or what was decoded before would be taken
    found.append((tiny_imagenet.photographs(), load()))
    monkeypatch.delenv(tiny_imagenet.VARIABLE)
    monkeypatch.setenv("DCNAS_DOWNLOADS", str(tmp_path / "third"))
    found.append((tiny_imagenet.photographs(progress=False), load()))
    (first, data), others = found[0], found[1:]
    assert first.classes == data.classes == CLASSES and data.images.shape == (60, 3, 64, 64)
    for other, again in others:
        assert (other.names, other.labels, other.test, other.identity) == (first.names, first.labels, first.test, first.identity)
        assert np.array_equal(again.images, data.images) and torch.equal(again.labels, data.labels)
        assert all(torch.equal(again.rows[part], data.rows[part]) for part in PARTS)
    assert len(shop.asked) == 1  # fetched once, then read as it is
    assert first.names[:3] == ["n03/n03_0.JPEG", "n03/n03_1.JPEG", "n03/n03_2.JPEG"]  # by number: the last are held out
    for image, name in zip(data.images, first.names, strict=True):
        stored = published.get(f"train/{name.replace('/', '/images/')}") or published[f"val/images/{name.partition('/')[2]}"]
        assert np.array_equal(image.transpose(1, 2, 0), np.asarray(Image.open(io.BytesIO(stored))))  # as it is, never enlarged


def test_the_last_fifth_and_val_are_for_testing(folder):
    names, data = np.array(tiny_imagenet.photographs().names), load()
    assert {part: len(rows) for part, rows in data.rows.items()} == {"weights": 30, "alphas": 6, "test": 24}
    for c, name in enumerate(CLASSES):
        tested = {names[row] for row in data.rows["test"] if data.labels[row] == c}
        held = {f"{name}/{name}_{n}.JPEG" for n in range(12, 15)}
        assert held < tested and all("/val_" in other for other in tested - held) and len(tested) == 3 + VAL


def test_options_choose_classes(folder):
    assert load("tiny-imagenet:50").classes == load("tiny-imagenet:18").classes == CLASSES
    assert load("tiny-imagenet:200").classes == tuple(sorted(CLASSES))  # all that the folder has
    chosen = load("tiny-imagenet:n02,n01,n02")
    assert chosen.classes == ("n02", "n01") and len(chosen.images) == 40
    assert chosen.images[chosen.labels == 0].mean() > chosen.images[chosen.labels == 1].mean() + 50
    assert set_named("tiny-imagenet:n01,n02") == identity_of("tiny-imagenet:n01,n02") == "tiny-imagenet:n01,n02"


def test_the_study_s_list_has_18_of_the_paper_s_classes_first(monkeypatch):
    monkeypatch.undo()
    theirs = (paper_dir() / "imagenet100_synsets.txt").read_text().split()
    assert [name in theirs for name in tiny_imagenet.class_names()] == [True] * 18 + [False] * 32


# ---- what is refused


@pytest.mark.parametrize(
    ("spoil", "name", "says"),
    [
        (lambda f: shutil.rmtree(f), "tiny-imagenet", "DCNAS_TINY_IMAGENET is .*, but a folder with train and val"),
        (lambda f: shutil.rmtree(f / "train"), "tiny-imagenet", "is not Tiny ImageNet: no class has .JPEG images both in train"),
        (lambda f: [p.rename(p.with_suffix(".png")) for p in f.rglob("*.JPEG")], "tiny-imagenet", "is not Tiny ImageNet"),
        (lambda f: (f / "val" / "val_annotations.txt").unlink(), "tiny-imagenet", "is not whole: .* no val/val_annotations.txt"),
        (lambda f: shutil.rmtree(f / "train" / "n02"), "tiny-imagenet", "has no images of n02, which was asked for"),
        (lambda f: None, "tiny-imagenet:n01,n7", "has no images of n7, which was asked for"),
        (lambda f: None, "tiny-imagenet:n01", "has only the class 'n01', but at least two"),
        (lambda f: None, "tiny-imagenet:7", "tiny-imagenet:7 asks for 7 classes, but 18, 50, 200 or their names were expected"),
        (
            lambda f: (f / "train/n01/images/n01_3.JPEG").write_bytes(picture(9, 9, 80)), "tiny-imagenet",
            "tiny-imagenet's n01/n01_3.JPEG has 80 x 80 pixels, but 64 x 64 were expected",
        ),
    ],
)  # fmt: skip
def test_bad_input_gets_one_sentence(folder, spoil, name, says):
    spoil(folder)
    with pytest.raises(InputError, match=says) as told:
        load(name)
    assert str(told.value).count(". ") == 0 and str(told.value).endswith(".")


def test_no_image_is_enlarged(folder):
    assert load(resolution=32).images.shape[2:] == (32, 32)
    with pytest.raises(InputError, match="resolution is 96, but tiny-imagenet has 64 pixels, and no image is enlarged"):
        load(resolution=96)


def test_a_damaged_image_is_left_out_and_named(folder):
    (folder / "train/n01/images/n01_3.JPEG").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="n01/n01_3.JPEG"):
        assert len(load().images) == 59


# ---- the download


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_download_that_was_cut_goes_on(shop, tmp_path, ranges):
    shop.cuts, shop.ranges = [1_000, 5_000], ranges
    reached = (1_000, 6_000) if ranges else (1_000, 5_000)
    for size in reached:
        with pytest.raises(InputError, match=f"ended after {size:,} of {len(shop.whole):,} bytes; call again, and it goes on"):
            load()
    assert load().classes == CLASSES and shop.asked == [0, *reached]
    assert (tmp_path / "downloads" / "tiny-imagenet" / "tiny-imagenet-200.zip").read_bytes() == shop.whole


@pytest.mark.parametrize("spoil", ["longer", "damaged", "another zip"])
def test_another_file_is_refused_and_removed(shop, published, tmp_path, monkeypatch, spoil):
    whole = shop.whole
    if spoil == "longer":
        shop.whole = whole + b"0"
    elif spoil == "damaged":
        shop.whole = b"0" * len(whole)
    else:
        shop.whole = zipped(published | {"train/n01/images/n01_0.JPEG": picture(200, 7)})
        monkeypatch.setattr(tiny_imagenet, "ZIP_BYTES", len(shop.whole))
    with pytest.raises(InputError, match="what http://127.* gives is not the published zip"):
        load()
    assert [path.name for path in (tmp_path / "downloads" / "tiny-imagenet").iterdir()] == ["lock"]


def test_no_server_and_a_spoiled_zip_are_told(shop, tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(InputError, match="could not be fetched .*set DCNAS_TINY_IMAGENET"):
        patched.setattr(tiny_imagenet, "URL", "http://127.0.0.1:9/none.zip")
        load()
    load()
    path = tmp_path / "downloads" / "tiny-imagenet" / "tiny-imagenet-200.zip"
    path.write_bytes(shop.whole[:999])
    with pytest.raises(InputError, match="tiny-imagenet-200.zip is not a sound zip file .*; delete it to fetch it again"):
        load()


# ---- batches


def moved(image: np.ndarray, y: int, x: int, reach: int = 8) -> np.ndarray:
    """An image (3, 64, 64) moved by y - reach and x - reach, its borders reflected."""
    return np.pad(image, ((0, 0), (reach, reach), (reach, reach)), mode="reflect")[:, y : y + 64, x : x + 64]


def test_augmentation_only_flips_and_shifts(folder):
    data, flips, places = load(), 0, set()
    draw = make_image_draw(data, ["weights"], 64, 10, 0, noisy=False)
    for step in range(3):
        clean, _, labels = draw(step)
        assert torch.equal(clean, make_image_draw(data, ["weights"], 64, 10, 0, noisy=False)(step)[0])
        for image, label in zip((255 * clean).round().byte().numpy(), labels.tolist(), strict=True):
            rows = [row for row in data.rows["weights"].tolist() if data.labels[row] == label]
            found = [
                (y, x, flipped)
                for row in rows for flipped in (False, True) for y in range(17) for x in range(17)
                if np.array_equal(moved(data.images[row], y, x)[:, 30], (image[:, :, ::-1] if flipped else image)[:, 30])
                and np.array_equal(moved(data.images[row], y, x), image[:, :, ::-1] if flipped else image)
            ]  # fmt: skip
            assert len(found) == 1
            flips += found[0][2]
            places.add(found[0][:2])
    assert 5 < flips < 25 and len(places) > 15 and not torch.equal(draw(0)[0], draw(1)[0])


def test_shifts_reach_an_eighth_and_each_image_has_its_own():
    image = torch.arange(64.0).expand(1, 1, 64, 64).repeat(400, 1, 1, 1)
    moves = {round(row[0, 32, 32].item()) - 32 for row in shifted(image, generator("x"))}
    assert moves == set(range(-8, 9))


def test_evaluation_sees_whole_images(folder):
    data = load()
    views, labels = evaluation_images(data, "test", 64)
    known = {data.images[row].tobytes(): data.labels[row].item() for row in data.rows["test"]}
    assert len(views) == len(known) == 24 and views.dtype == torch.uint8
    found = [known.get(view.numpy().tobytes()) for view in views]
    assert found == labels.flatten().tolist()  # to the bit, not averaged


# ---- runs


@pytest.fixture
def smoke(small, folder, tmp_path, monkeypatch):  # noqa: F811
    """Scale smoke on the made-up set, with the first stem of small images."""
    sizes = replace(section4.SCALES4["smoke"], data="tiny-imagenet", strides=strides_for(32))
    monkeypatch.setitem(section4.SCALES4, "smoke", sizes)
    linear_table(Space(8, 32, 2, 0.25, strides_for(32)), batch=4).save(section4.table_path("smoke"))
    section4._images.cache_clear()  # the same name, other files
    yield
    section4._images.cache_clear()


def results_of(experiment) -> dict[str, bytes]:
    names = ("weights.safetensors", "per_image.safetensors", "alphas.csv", "epochs.csv", "architecture.json", "metrics.csv")
    return {name: (folder_of(experiment) / name).read_bytes() for name in names if (folder_of(experiment) / name).exists()}


@pytest.mark.parametrize(("kind", "step", "count"), [("search", (Searcher, "weight_step"), 4), ("training", (Trainer, "step"), 3)])
def test_a_killed_run_goes_on_to_the_same_bits(smoke, kind, step, count):
    found = section4.search("smoke", 0, "test", "M")
    if kind == "training":
        found = section4.training("smoke", 0, "DC-NAS", "DC-NAS", derivation=section4.derivation(found))
    run(found)
    before = results_of(found)
    assert len(before) == (4 if kind == "search" else 3)
    for path in folder_of(found).iterdir():
        path.unlink()
    real, calls = getattr(*step), []

    def dies(*arguments, **options):
        calls.append(1)
        if len(calls) in (2, count):  # so the second call gets further than the first
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with patch.object(*step, dies):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                obtain(found, progress=False, checkpoint_s=0.0)
    run(found)
    assert results_of(found) == before


def test_a_search_looks_at_test_images_and_refuses_a_table_of_other_strides(smoke):
    found = section4.search("smoke", 0, "test", "M")
    batches = section4_runs.held_out_batches(found, torch.device("cpu"))
    tested = {image.tobytes() for image in evaluation_images(load(resolution=32), "test", 32)[0].numpy()}
    seen = [(255 * image).round().byte().numpy().tobytes() for batch in batches for image in batch.clean]
    assert len(seen) == 24 and set(seen) == tested
    assert all(torch.equal(batch.clean, batch.noisy) for batch in batches)
    linear_table(Space(8, 32, 2, 0.25), batch=4).save(section4.table_path("smoke"))
    with pytest.raises(InputError, match=r"measured with strides = \(2, 2, 2, 2, 1, 2, 1\), but \(1, 2, 2, 2, 1, 2, 1\) was"):
        run(replace(found, seed=1))
