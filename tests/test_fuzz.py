"""What comes from outside, made up and spoiled at random: only `InputError` may come out, in bounded memory, and nothing is run.

The same examples every time. `DCNAS_FUZZ=50 pytest tests/test_fuzz.py` takes fifty times as many, drawn anew.
"""

import atexit
import contextlib
import gzip
import io
import json
import math
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from made_up import grains, linear_table, start_architecture
from PIL import Image
from safetensors.torch import load, save

from dcnas import apply, cli, shipped
from dcnas.boxes import crop_boxes
from dcnas.data import images
from dcnas.data.noise import add_noise, check_sigma
from dcnas.errors import InputError
from dcnas.latency.table import load_table
from dcnas.models import Classifier, DnCNN, UNet, build_classifier, build_dcnet
from dcnas.nas.networks import build_network
from dcnas.nas.search import latency_range_ms
from dcnas.nas.space import Space, from_record, load_architecture, random_architecture, save_architecture
from dcnas.pictures import read_picture
from dcnas.reading import read_json, read_rows
from dcnas.study import own, results4
from dcnas.study import results3 as results
from dcnas.study.demo import MOST_SIDE
from dcnas.study.figures import provenance_line
from dcnas.study.runs import read_tensors

MORE = int(os.environ.get("DCNAS_FUZZ", 0))
TABLE = linear_table(Space(4, 32, 3, 0.25))
CARD = Path(__file__).resolve().parents[1] / "data" / "weights" / "unet-b8-d4-m1.5-c2.card.json"
SPACE = Space(4, 32, 3, 0.25)

pytestmark = pytest.mark.usefixtures("one_thread")


def fuzz(examples: int):
    return settings(
        max_examples=examples * max(1, MORE), derandomize=not MORE, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@contextlib.contextmanager
def answered(*others: type[Exception]):
    """Only an `InputError` of one sentence, or what else the docstring names, may come out."""
    try:
        yield
    except InputError as error:
        assert str(error).strip() and "\n" not in str(error).strip() and len(str(error)) < 2_000, str(error)[:3_000]
    except others:
        pass


# numbers and other things where numbers were expected

HUGE = st.sampled_from([10**9, 2**31, 2**63, 2**64, 10**30, 10**400, -1, 0, -(10**400), 1e9, 1e308, -1e308, 5e-324])
ODD = st.sampled_from([math.nan, math.inf, -math.inf, True, False, None, "", "8", "nan", [], [8], {}, {"b": 8}])
NUMBERS = st.one_of(HUGE, ODD, st.integers(-3, 70), st.floats())
JSON = st.recursive(
    st.one_of(NUMBERS, st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)


def places(record, at: tuple = ()) -> list[tuple]:
    """Ways to every entry of a JSON value."""
    found = [at]
    if isinstance(record, dict):
        found += [way for key in record for way in places(record[key], (*at, key))]
    elif isinstance(record, list):
        found += [way for n in range(len(record)) for way in places(record[n], (*at, n))]
    return found


def changed(record, way: tuple, value, drop: bool):
    """A JSON value with another entry at one place, or without it."""
    if not way:
        return value
    copy = dict(record) if isinstance(record, dict) else list(record)
    if drop and len(way) == 1:
        del copy[way[0]]
    else:
        copy[way[0]] = changed(copy[way[0]], way[1:], value, drop)
    return copy


def spoiled(record) -> st.SearchStrategy:
    """`record` with one to three entries that are others or gone."""

    @st.composite
    def draw(pick):
        found = record
        for _ in range(pick(st.integers(1, 3))):
            ways = places(found)
            found = changed(found, ways[pick(st.integers(0, len(ways) - 1))], pick(JSON), pick(st.booleans()))
            if not isinstance(found, dict | list):
                break
        return found

    return draw()


def bytes_of(content: bytes) -> st.SearchStrategy[bytes]:
    """Bytes that were flipped, cut, doubled or made up."""

    @st.composite
    def draw(pick):
        data = bytearray(content)
        for _ in range(pick(st.integers(1, 8))):
            at = pick(st.integers(0, max(0, len(data) - 1)))
            what = pick(st.sampled_from(["flip", "cut", "insert", "double"]))
            if what == "flip" and data:
                data[at] = pick(st.integers(0, 255))
            elif what == "cut":
                del data[at : at + pick(st.integers(1, 64))]
            elif what == "insert":
                data[at:at] = pick(st.binary(max_size=16))
            else:
                data[at:at] = data[: pick(st.integers(0, 64))]
        return bytes(data)

    return draw()


TABLE_JSON = {
    "format": 1, "unit": "ms", "conditions": TABLE.conditions.__dict__, "correction": TABLE.correction.__dict__,
    "curves": {key: curve.__dict__ for key, curve in list(TABLE.curves.items())[:3]},
}  # fmt: skip
TABLE_JSON = json.loads(json.dumps(TABLE_JSON))
ARCHITECTURE_JSON = json.loads(start_architecture(SPACE).to_json())
CARD_JSON = json.loads(CARD.read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


# files of the study


@fuzz(120)
@given(record=spoiled(TABLE_JSON))
@example(record=TABLE_JSON | {"conditions": {"\n": 0}})
@example(record=changed(TABLE_JSON, ("curves", min(TABLE_JSON["curves"]), "median_ms", 0), 2**64, False))  # found by many more
@example(record=changed(TABLE_JSON, ("curves", min(TABLE_JSON["curves"]), "median_ms", 0), 10**400, False))
def test_tables(place, record):
    path = place / "table.json"
    path.write_text(json.dumps(record))
    with answered():
        table = load_table(path)
        for key, curve in table.curves.items():
            assert math.isfinite(table.part_ms(key, curve.hidden[0])) and table.part_ms(key, curve.hidden[-1]) >= 0
        with answered():
            Space(8, table.conditions.resolution, width=table.conditions.width)


@fuzz(150)
@given(record=spoiled(ARCHITECTURE_JSON))
def test_architectures(place, record):
    path = place / "architecture.json"
    path.write_text(json.dumps(record))
    with answered():
        found = load_architecture(path)
        assert from_record(json.loads(found.to_json())) == found and found.space.candidates and found.space.layers
    with answered():
        from_record(record)


@fuzz(60)
@given(data=bytes_of(json.dumps(ARCHITECTURE_JSON).encode()))
def test_bytes_of_json(place, data):
    path = place / "bytes.json"
    path.write_bytes(data)
    for read in (read_json, load_architecture, load_table, shipped.read_card):
        with answered():
            read(path)


WEIGHTS = (CARD.parent / "unet-b8-d4-m1.5-c2.safetensors").read_bytes()


def load_shipped(path: Path):
    shipped._load.cache_clear()
    return shipped.load_network(str(path))


@fuzz(150)
@given(card=spoiled(CARD_JSON))
@example(card=CARD_JSON | {"classes": ["a", "b"]})  # of a network that only denoises
def test_cards(place, card):
    """What is loaded can be used: it denoises or classifies a picture."""
    path = place / "some.safetensors"
    path.write_bytes(WEIGHTS)
    shipped.card_path(path).write_text(json.dumps(card))
    with answered():
        network = load_shipped(path)
        outcome = apply.apply(network, apply.Scene("x", grains(1, 40, 36)))
        assert outcome.denoised.shape == (1, 40, 36)
        for row in network.card["metrics"]:
            cli._metrics_text(row)


@fuzz(100)
@given(data=bytes_of(WEIGHTS[:6_000]), tail=st.booleans())
def test_weights(place, data, tail):
    path = place / "other.safetensors"
    path.write_bytes(data + WEIGHTS[6_000:] if tail else data)
    shipped.card_path(path).write_text(CARD.read_text())
    with answered():
        load_shipped(path)
    with answered():
        read_tensors(path)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_weights_of_other_types(place, kind):
    """Floats are taken as they are meant, anything else is refused; both before a picture is."""
    path = place / "typed.safetensors"
    path.write_bytes(save({name: (t.float() * 3).to(kind) for name, t in load(WEIGHTS).items()}))
    shipped.card_path(path).write_text(CARD.read_text())
    if kind.is_floating_point:
        apply.apply(load_shipped(path), apply.Scene("x", grains(1, 40, 36)))
    else:
        with pytest.raises(InputError, match="typed.safetensors does not fit its card"):
            load_shipped(path)


CSV = ("format,run," + ",".join(results.COLUMNS[1:]) + "\n" + "1,abc" + ",1" * (len(results.COLUMNS) - 1) + "\n").encode()


@fuzz(120)
@given(data=st.one_of(bytes_of(CSV), st.binary(max_size=200)))
def test_result_files(place, data):
    path = place / "section3.csv"
    path.write_bytes(data)
    for read in (
        results.read_results_file,
        lambda path: results.read_results_file(path, results4.COLUMNS, whole=("b",)),
        read_rows,
        lambda path: results4.read_frame(path, ["run"]),
    ):
        with answered():
            read(path)


@pytest.fixture
def published(tmp_path, monkeypatch) -> Path:
    """A copy of what is published of Sections 3 and 4, to be spoiled."""
    folder = tmp_path / "data" / "published"
    folder.mkdir(parents=True)
    for path in (CARD.parents[1] / "published").glob("section[34]*.csv"):
        shutil.copy(path, folder)
    shutil.copytree(CARD.parents[1] / "latency", tmp_path / "data" / "latency")
    monkeypatch.setenv("DCNAS_ROOT", str(tmp_path))
    monkeypatch.setenv("DCNAS_RUNS", str(tmp_path / "runs"))
    return folder


def with_cell(path: Path, column: str, text: str) -> None:
    """Another text in the second row of a CSV file."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    frame.loc[1, column] = text
    frame.to_csv(path, index=False)


CELLS = ["x", "", "True", "-1", "1.5", "1e400", "1" * 400]
READ = {
    "section3.csv": lambda: results.results("table_3", "published"),
    "section4.csv": lambda: results4.results("table_5", "published"),
}


@pytest.mark.parametrize("name", READ)
def test_cells_of_result_files(published, name):
    """As `dcnas readme` reads them."""
    whole = (published / name).read_text()
    for column in whole.split("\n")[0].split(","):
        for text in CELLS:
            with_cell(published / name, column, text)
            with answered():
                provenance_line(READ[name]())
            (published / name).write_text(whole)
    READ[name]()


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize(
    ("column", "text", "wanted"),
    [
        ("flops", "x", "'x' somewhere, but a whole number of at least 0"),
        ("seed", "x", "'x' somewhere, but a whole number of at least 0"),
        ("seed", "", "empty somewhere, but a whole number of at least 0"),
        ("seed", "1.5", "1.5 somewhere, but a whole number of at least 0"),
        ("scale", "tiny", "'tiny' somewhere, but one of published, "),
        ("psnr", "x", "'x' somewhere, but a number was"),
    ],
)
def test_a_wrong_cell_is_named(published, name, column, text, wanted):
    with_cell(published / name, column, text)
    with pytest.raises(InputError, match=f"{column} in .*{name} is {wanted}"):
        READ[name]()


# a folder of one's own


SEARCH_JSON = {
    "format": 1, "run": "abc", "network": "DC-NAS", "data": "solar", "target_ms": 9.0, "predicted_ms": 9.1, "measured_ms": 9.0,
    "noise_ms": 0.1, "error_pct": 0.3, "first_error_pct": -2.0, "repairs": 1, "parameters": 10_000, "flops": 10**6,
    "verdict": "settled", "reason": "made up", "conditions": json.loads(json.dumps(TABLE.conditions.__dict__)),
    "table_error_pct": 1.0, "settings": {},
}  # fmt: skip
METRICS_CSV = "sigma,images,noisy_psnr,psnr,psnr_low,psnr_high,accuracy,accuracy_low,accuracy_high\n" + "".join(
    f"{n / 10},4,{20.5 if n else 'inf'},30.5,29.5,31.5,50.0,25.0,75.0\n" for n in range(11)
)


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """The folder of a search and a training; where images would be judged, all has been read."""
    network = build_network("DC-NAS", random_architecture(Space(4, 32, 2, 0.25), np.random.default_rng(0)))
    architecture = json.loads(random_architecture(Space(4, 32, 2, 0.25), np.random.default_rng(0)).to_json())
    card = {
        "label": "own", "network": {"kind": "DC-NAS", "decoder": "conv", "architecture": architecture},
        "classes": ["bright", "dark"], "resolution": 32, "data": f"folder:{own_inputs()['SET']}", "training": "made up",
        "command": "dcnas train DIR", "metrics": [], "scale": "own", "seed": 0, "steps": 10, "batch": 4,
        "parameters": sum(weights.numel() for weights in network.parameters()), "noisy": True, "flops": 10**6,
    }  # fmt: skip
    shipped.ship(network.state_dict(), card, tmp_path / own.WEIGHTS)
    (tmp_path / own.RECORD).write_text(json.dumps(SEARCH_JSON))
    (tmp_path / own.METRICS).write_text(METRICS_CSV)
    monkeypatch.setattr(own, "judged_images", reached)
    evaluate(tmp_path)
    return tmp_path


def reached(*arguments, **options):
    raise InputError("reached")


def evaluate(folder: Path) -> None:
    """`dcnas evaluate` up to where images are judged, and the report that it writes then."""
    try:
        cli.app(["evaluate", str(folder)], standalone_mode=False)
    except InputError as error:
        if str(error) != "reached":
            raise
    own.report.write(folder)


WRONG = ["x", "", None, True, -1, 5, 1.5, 10**400, math.nan, -math.inf, [], [5], {}, {"x": 5}]


@pytest.mark.parametrize("name", [own.RECORD, "weights.card.json"])
def test_entries_of_other_types(mine, name):
    """Each entry in turn, and each taken away: a sentence from `evaluate` and from the report alone."""
    record = json.loads((mine / name).read_text())
    for way in places(record)[1:]:
        if "layers" in way or "space" in way:  # of an architecture, which is spoiled elsewhere
            continue
        for n, value in enumerate([*WRONG, None]):
            (mine / name).write_text(json.dumps(changed(record, way, value, drop=n == len(WRONG))))
            if name != own.RECORD:
                shipped._load.cache_clear()
            for read in (evaluate, own.report.write):
                with answered():
                    read(mine)


@fuzz(60)
@given(record=spoiled(SEARCH_JSON))
def test_records_of_searches(place, record):
    (place / own.RECORD).write_text(json.dumps(record))
    for read in (own.report.write, own.read_record):
        with answered():
            read(place)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        (own.RECORD, {"parameters": "x"}, "parameters in .*search.json is 'x', but a whole number of at least 0 was expected"),
        (own.RECORD, {"flops": None}, "flops in .*search.json is None, but a whole number"),
        (own.RECORD, {"conditions": {}}, "search.json lacks conditions.device"),
        (own.RECORD, {"conditions": []}, r"conditions in .*search.json is \[\], but a JSON object was expected"),
        (own.RECORD, {"predicted_ms": "x"}, "predicted_ms in .*search.json is 'x', but a finite number"),
        (own.RECORD, {"table_error_pct": "bad"}, "table_error_pct in .*search.json is 'bad', but a finite number or null"),
        (own.RECORD, {"noise_ms": ...}, "search.json lacks noise_ms"),
        (own.RECORD, {"format": 2}, "search.json has the format 2, but 1 was expected"),
        ("weights.card.json", {"steps": "x"}, "steps in .*card.json is 'x', but a whole number of at least 0"),
        ("weights.card.json", {"data": 5}, "data in .*card.json is 5, but a text was expected"),
        ("weights.card.json", {"noisy": "no"}, "noisy in .*card.json is 'no', but true or false was expected"),
        ("weights.card.json", {"network": {"kind": 5}}, "network.kind in .*card.json is 5, but one of unet"),
    ],
)
def test_a_wrong_entry_is_named_before_images_are_judged(mine, name, change, says):
    record = json.loads((mine / name).read_text()) | change
    (mine / name).write_text(json.dumps({key: value for key, value in record.items() if value is not ...}))
    shipped._load.cache_clear()
    with pytest.raises(InputError, match=says):
        cli.app(["evaluate", str(mine)], standalone_mode=False)


def test_a_record_without_a_measurement_is_sound(mine):
    record = {key: value for key, value in SEARCH_JSON.items() if key not in own.report.MEASURED}
    (mine / own.RECORD).write_text(json.dumps(record | {"table_error_pct": None}))
    evaluate(mine)


def test_cells_of_metrics(mine):
    for column in METRICS_CSV.split("\n")[0].split(","):
        for text in CELLS:
            (mine / own.METRICS).write_text(METRICS_CSV)
            with_cell(mine / own.METRICS, column, text)
            with answered():
                own.report.write(mine)
    for column, wanted in (("images", "a whole number of at least 0"), ("psnr", "a number"), ("accuracy_high", "a number")):
        (mine / own.METRICS).write_text(METRICS_CSV)
        with_cell(mine / own.METRICS, column, "x")
        with pytest.raises(InputError, match=f"{column} in .*metrics.csv is 'x' somewhere, but {wanted} was expected"):
            own.report.write(mine)


# pictures


def file(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


RAMP = Image.fromarray(np.tile(np.linspace(0, 255, 24).astype(np.uint8), (18, 1)))
EXIF = Image.Exif()
EXIF[0x0112] = 6
PICTURES = [
    file(RAMP, "PNG"), file(RAMP.convert("RGB"), "JPEG", exif=EXIF), file(RAMP, "GIF", save_all=True, append_images=[RAMP]),
    file(RAMP.convert("F"), "TIFF"), file(RAMP.convert("RGBA"), "WEBP"), file(RAMP.convert("P"), "BMP"), file(RAMP, "PPM"),
    file(RAMP.convert("RGB"), "TIFF", compression="tiff_lzw"), file(RAMP.convert("LA"), "PNG"),
]  # fmt: skip


def with_an_empty_frame(tiff: bytes) -> bytes:
    """A TIFF file whose second frame has no entries."""
    (at,) = struct.unpack_from("<I", tiff, 4)
    (entries,) = struct.unpack_from("<H", tiff, at)
    after = at + 2 + 12 * entries
    return tiff[:after] + struct.pack("<I", len(tiff)) + tiff[after + 4 :] + bytes(6)


@fuzz(250)
@given(data=st.sampled_from(PICTURES).flatmap(bytes_of))
@example(data=with_an_empty_frame(PICTURES[3]))  # at which Pillow raises a TypeError
@pytest.mark.filterwarnings("ignore")
def test_pictures(data):
    """By the command, by the demo's upload, and into the cache of training images."""
    for most_side in (None, 16, MOST_SIDE):
        with answered():
            found = read_picture(data, most_side=most_side).image
            assert len(found) in (1, 3) and 0 <= found.min() and found.max() <= 1
    with answered():
        apply.file_scene("own.png", data, MOST_SIDE)
    try:
        assert images.decode(data, 8, True).shape == (1, 8, 8)
    except Exception as error:  # the cache leaves the file out, whatever Pillow raises, but for faults of the disk
        assert not (isinstance(error, OSError) and error.errno), error


@fuzz(4)
@given(data=st.lists(st.one_of(st.sampled_from(PICTURES).flatmap(bytes_of), st.sampled_from(PICTURES)), min_size=6, max_size=6))
@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_pictures(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("set")
    for n, content in enumerate(data):
        (folder / "ab"[n % 2]).mkdir(exist_ok=True)
        (folder / "ab"[n % 2] / f"{n}.png").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch, answered():
        patch.setenv("DCNAS_DOWNLOADS", str(folder / "downloads"))
        found = images.load_images(f"folder:{folder}", 32, progress=False)
        assert len(found.images) + len(found.skipped) == 6


# parameters


@fuzz(150)
@given(b=NUMBERS, d=NUMBERS, m=NUMBERS, c=NUMBERS, channels=NUMBERS, block=st.sampled_from(["conv", "mbconv", "", None, [1]]))
def test_unets(b, d, m, c, channels, block):
    with answered(), torch.device("meta"):
        UNet(b, d, m, c, channels, block)


@fuzz(150)
@given(data=st.data())
def test_other_networks(data):
    n = lambda: data.draw(NUMBERS)  # noqa: E731
    with torch.device("meta"):
        with answered():
            Classifier(n(), n(), data.draw(st.one_of(st.none(), NUMBERS)), n(), n())
        with answered():
            DnCNN(n(), n(), n())
        with answered():
            build_dcnet(n(), "reduced")
        with answered():
            build_dcnet("integrated", n())
        with answered():
            build_classifier(n())


@fuzz(200)
@given(operators=st.one_of(NUMBERS, st.sampled_from([4, 6.0, 8])), resolution=NUMBERS, classes=NUMBERS, width=NUMBERS)
def test_spaces(operators, resolution, classes, width):
    with answered():
        space = Space(operators, resolution, classes, width)
        assert space.candidates and space.layers


@fuzz(150)
@given(sigma=st.one_of(NUMBERS, st.lists(st.floats(), max_size=3).map(torch.tensor)))
def test_noise(sigma):
    with answered():
        check_sigma(sigma)
    with answered():
        add_noise(torch.zeros(2, 1, 4, 4), sigma, torch.Generator().manual_seed(0))


BOXES = st.lists(st.lists(st.integers(-40, 140), min_size=3, max_size=4), min_size=1, max_size=2)


@fuzz(150)
@given(boxes=st.one_of(BOXES, st.just([]), st.just([[0.0, 0.0, 32.0, 32.0]])))
def test_boxes(boxes):
    """A square is the image at its place, or the box is refused: no wrapping around, no part of another image."""
    assume(len({len(box) for box in boxes}) <= 1)
    image = torch.arange(96.0 * 80).view(1, 1, 96, 80)
    with answered():
        found = crop_boxes(image, torch.tensor([boxes]))
        for square, (left, top, *_) in zip(found, boxes, strict=True):
            assert torch.equal(square, image[0, :, top : top + 32, left : left + 32])


# the command line

ABSURD = ["-1", "0", "1e9", "nan", "inf", "-inf", "1000000000000", str(10**30), "", "x", "ü", "../..", "/dev/null/x", "\x01"]
OPTIONS = {
    "runs": ["--scale", "--group"],
    "run": ["--scale", "--group", "--seed", "--device", "--engine", "--address"],
    "queue": ["--scale", "--group", "--minutes", "--jobs", "--device", "--engine", "--address"],
    "study": ["--scale", "--jobs", "--device"],
    "latency": ["--device", "--threads", "--section", "--scale"],
    "lut build": ["--resolution", "--batch", "--device", "--threads", "--width"],
    "lut validate": ["--networks", "--rounds", "--device"],
    "search": [
        "--lut",
        "--target-ms",
        "--out",
        "--data",
        "--operators",
        "--loss",
        "--alpha-gradient",
        "--alpha-lr",
        "--temperature-decay",
        "--epochs",
        "--steps-per-epoch",
        "--batch",
        "--seed",
        "--device",
        "--threads",
        "--table-limit-pct",
        "--train-steps",
    ],
    "train": ["--network", "--data", "--decoder", "--steps", "--batch", "--seed", "--device", "--threads"],
    "evaluate": ["--data"],
    "export": ["--format", "--data", "--out", "--threads"],
    "denoise": ["--weights", "--sigma"],
    "classify": ["--weights", "--sigma", "--out"],
    "data": ["--folder"],
}
NEEDED = {
    "run": ["Conv-S"], "study": ["99"], "lut build": ["--out", "OUT/t.json"], "lut validate": ["nothing.json"],
    "search": ["--lut", "TABLE", "--target-ms", "TARGET", "--out", "OUT/m", "--data", "SET"],
    "train": ["MINE", "--network", "DC-NAS", "--data", "SET"], "evaluate": ["MINE"], "export": ["MINE"],
    "denoise": ["nothing", "OUT"], "classify": ["nothing"],
}  # fmt: skip


@lru_cache(maxsize=1)
def own_inputs() -> dict[str, str]:
    """What a search and a training of one's own need: a table, a target within reach, pictures, a folder with an architecture."""
    folder, space = Path(tempfile.mkdtemp()), Space(8, 32, 2, 0.25)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    table = linear_table(space, batch=4)
    table = table.with_correction(replace(table.correction, error_pct=1.0))
    for name in ("bright", "dark"):
        (folder / "set" / name).mkdir(parents=True)
        for n in range(3):
            Image.new("RGB", (40, 40), (60 * n, 9, 9)).save(folder / "set" / name / f"{n}.png")
    save_architecture(random_architecture(Space(4, 32, 2, 0.25), np.random.default_rng(0)), folder / "mine" / "architecture.json")
    target = sum(latency_range_ms(Space(4, 32, 2, 0.25), table, "DC-NAS")) / 2
    paths = {"TABLE": table.save(folder / "table.json"), "SET": folder / "set", "MINE": folder / "mine"}
    return {name: str(path) for name, path in paths.items()} | {"TARGET": f"{target:.3f}"}


COMMANDS = st.sampled_from(list(OPTIONS)).flatmap(
    lambda name: st.tuples(
        st.just(name), st.lists(st.tuples(st.sampled_from(OPTIONS[name]), st.sampled_from(ABSURD)), min_size=1, max_size=3)
    )
)


@fuzz(60)
@given(command=COMMANDS)
@example(command=("lut build", [("--threads", "1000000000000")]))
@example(command=("lut build", [("--batch", "1000000000000")]))
@example(command=("queue", [("--jobs", "1000000000000")]))
def test_the_command_line(tmp_path_factory, command):
    """Exit status 2, one sentence or the usage, no traceback and no file. Whatever would start real work counts as reached."""
    ask(tmp_path_factory.mktemp("cli"), *command)


@pytest.mark.parametrize("name", ["run", "queue", "search", "train"])
def test_without_absurd_options_the_command_line_comes_to_work(tmp_path, name):
    """Or else what is tried above would be refused for what surrounds it."""
    assert ask(tmp_path, name, [("--seed", "1")] if name in ("search", "train") else [])


def ask(folder: Path, name: str, options: list[tuple[str, str]]) -> bool:
    """Whether a command with these options would have come to work."""
    reached, inputs = [], own_inputs()

    def work(*args, **more):
        reached.append(1)
        raise InputError("reached")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DCNAS_ROOT", str(folder))
        patch.setenv("DCNAS_RUNS", str(folder / "runs"))
        patch.setattr("dcnas.study.runs.obtain", work)
        patch.setattr("dcnas.study.queue.run_wave", work)
        patch.setattr("dcnas.study.queue.load_mnist", lambda **_: None)
        patch.setattr("dcnas.data.mnist.load_mnist", work)
        patch.setattr("dcnas.nas.lut._measure", work)
        patch.setattr("dcnas.nas.lut.measure_many", work)
        patch.setattr("dcnas.study.timing.measure_many", work)
        patch.setattr("dcnas.study.timing.measure_pair", work)
        needed = [inputs.get(word, word) for word in NEEDED.get(name, [])]
        patch.setattr(sys, "argv", ["dcnas", *name.split(), *needed, *[word for pair in options for word in pair]])
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
                status = 0
            except SystemExit as ended:
                status = ended.code
    said = err.getvalue()
    assert "Traceback" not in said + out.getvalue()
    assert status == 2 or name == "runs" and status in (0, None), (status, said)
    if status == 2:
        lines = said.splitlines()  # a progress bar may have begun
        assert "Usage: " in said or [line.startswith("dcnas: ") for line in lines if line.strip()][-1:] == [True], said
        assert "Usage: " in said or sum("dcnas: " in line for line in lines) == 1, said
    assert not [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return bool(reached)


# memory: a file of a megabyte at most may not take two gigabytes


def png(side: int, kind: int, rows: int) -> bytes:
    """A PNG of one colour, of RGB (2) or RGBA (6), with so many of its rows."""
    pack, row = zlib.compressobj(), b"\0" + b"\x80" * (side * {2: 3, 6: 4}[kind])
    data = b"".join(pack.compress(row) for _ in range(rows)) + pack.flush()
    chunk = lambda name, body: struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))  # noqa: E731
    head = struct.pack(">IIBBBBB", side, side, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tensors_that_claim(length: int, end: int) -> bytes:
    head = json.dumps({"x": {"dtype": "F32", "shape": [end // 4], "data_offsets": [0, end]}}).encode()
    return struct.pack("<Q", length or len(head)) + head


def of_a_billion(record: dict, *ways: tuple) -> bytes:
    for way in ways:
        record = changed(record, way, 10**9, False)
    return json.dumps(record).encode()


BOMBS = {
    "picture of 49 million pixels": ("read_picture", png(7_000, 6, 7_000)),
    "picture of 100 million pixels": ("read_picture", png(10_000, 2, 10_000)),
    "training image of 400 million pixels": ("decode", png(20_000, 2, 9)),
    "deep JSON": ("load_architecture", b"[" * 1_000_000),
    "long list": ("load_table", b'{"format":1,"unit":"ms","curves":[' + b"[]," * 300_000 + b"[]]}"),
    "packed CSV of a gigabyte": ("read_frame", gzip.compress(b"a,b\n") + 250 * gzip.compress(1_000_000 * b"1,2\n")),
    "CSV of 250,000 columns": ("read_frame", 250_000 * b"a," + b"\n" + 250_000 * b"1," + b"\n"),
    "long number": ("load_table", b"1" * 1_000_000),
    "space of a billion": ("load_architecture", of_a_billion(ARCHITECTURE_JSON, ("space", "width"), ("space", "classes"))),
    "UNet of a billion channels": ("load_network", of_a_billion(CARD_JSON, ("network", "unet", "b"))),
    "UNet of a billion blocks": ("load_network", of_a_billion(CARD_JSON, ("network", "unet", "c"))),
    "UNet of a billion levels": ("load_network", of_a_billion(CARD_JSON, ("network", "unet", "d"))),
    "header of a terabyte": ("read_tensors", tensors_that_claim(2**40, 64)),
    "tensor of a terabyte": ("read_tensors", tensors_that_claim(0, 2**40)),
}
PROGRAM = """
import resource, sys
from pathlib import Path
from dcnas.data.images import decode as decode_image
from dcnas.errors import InputError
from dcnas.latency.table import load_table
from dcnas.nas.space import load_architecture
from dcnas.pictures import read_picture as read_bytes
from dcnas.reading import read_frame
from dcnas.shipped import load_network as load_named
from dcnas.study.runs import read_tensors

decode = lambda path: decode_image(path.read_bytes(), 64, False)
read_picture = lambda path: read_bytes(path.read_bytes())
load_network = lambda path: load_named(str(path).replace(".card.json", ".safetensors"))
for line in sys.stdin:
    name, path = line.split(maxsplit=1)
    try:
        globals()[name](Path(path.strip()))
        said = "read"
    except InputError as error:
        said = f"InputError {len(str(error))}"
    print(said, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)
"""


def test_small_files_take_little_memory(tmp_path):
    """All in one process, whose peak is read after each."""
    lines = []
    for n, (name, data) in enumerate(BOMBS.values()):
        assert len(data) < 1_300_000
        packed = data.startswith(b"\x1f\x8b")
        path = tmp_path / (f"{n}.card.json" if name == "load_network" else f"{n}.csv.gz" if packed else f"{n}.bin")
        path.write_bytes(data)
        if name == "load_network":
            (tmp_path / f"{n}.safetensors").write_bytes(WEIGHTS)
        lines.append(f"{name} {path}")
    ended = subprocess.run([sys.executable, "-c", PROGRAM], input="\n".join(lines), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for what, line in zip(BOMBS, ended.stdout.splitlines(), strict=True):
        *said, megabytes = line.split()
        assert int(megabytes) < 2_000, f"{what}: {megabytes} MB"
        assert (said == ["read"]) == (what == "picture of 49 million pixels"), (what, said)
        assert said == ["read"] or int(said[1]) < 1_000, (what, said)


THROUGH_A_NETWORK = """
import resource, sys
import torch
from dcnas import apply, cli, shipped

def denoise(path):
    cli.app(["denoise", path, sys.argv[1], "--weights", "dc-nas-s-solar", "--sigma", "0.2"], standalone_mode=False)

denoise(sys.argv[2])
shipped.Network.denoise = lambda self, images: torch.full_like(images, 0.5)  # what takes time, but no memory for each pixel
apply.ssim_in_parts = lambda *_, **__: torch.ones(())
denoise(sys.argv[3])
print("MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_a_large_picture_goes_through_a_network_in_little_memory(tmp_path):
    """One of 0.8 million pixels as it is; one of 49 million, with noise, in all but the network itself and SSIM."""
    for side in (900, 7_000):
        (tmp_path / f"{side}.png").write_bytes(png(side, 2, side))
    names = ["out", "900.png", "7000.png"]
    ended = subprocess.run(
        [sys.executable, "-c", THROUGH_A_NETWORK, *(str(tmp_path / name) for name in names)], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    megabytes = int(ended.stdout.split()[-1])
    assert megabytes < 2_000, f"{megabytes} MB"
    assert (tmp_path / "out" / "7000.png.png").exists()


# nothing is run


class Canary:
    """A pickle that writes a file when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_no_pickle_is_read(place, tmp_path):
    canary = tmp_path / "canary"
    plain, packed = pickle.dumps(Canary(canary)), io.BytesIO()
    torch.save({"x": Canary(canary)}, packed)
    for data in (plain, packed.getvalue()):
        path = tmp_path / "weights.safetensors"
        path.write_bytes(data)
        shipped.card_path(path).write_text(CARD.read_text())
        for read in (read_tensors, load_shipped, load_table, load_architecture, read_json, read_rows, results.read_results_file):
            with answered():
                read(path)
                raise AssertionError("a pickle was read")
        with pytest.raises(InputError):
            read_picture(data)
        with pytest.raises(InputError):
            shipped.load_network(str(tmp_path / "weights.pt"))
    assert not canary.exists()
    pickle.loads(plain)
    assert canary.exists()  # it would have sung


def test_no_postscript_is_run(tmp_path):
    """Pillow would hand it to Ghostscript, a program that runs what a file says."""
    with pytest.raises(InputError, match="is not a picture that can be read"):
        read_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
