"""What others' users have met, by their public reports, must not happen here."""

import base64
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import dcnas, file_of, noisy_picture, two_classes
from PIL import Image, PngImagePlugin
from scipy import stats

from dcnas import paths
from dcnas.data import images, pictures
from dcnas.data.noise import SIGMAS
from dcnas.data.photographs import SUFFIXES, photographs, pictures_in
from dcnas.data.pictures import read_picture
from dcnas.deploy import apply
from dcnas.errors import InputError
from dcnas.latency import measure
from dcnas.options import sigma_of
from dcnas.study import latencies, own
from dcnas.study.stats import of_few

UNET = ("--weights", "unet-b8-d4-m1.5-c2")
HALF = np.tile(np.arange(129, dtype=np.uint16), (32, 1))  # up to half of the brightness


def load(folder: Path) -> images.ImageSet:
    return images.load_images(f"folder:{folder}", 32, progress=False)


def test_what_no_person_means_is_no_class_and_no_picture(tmp_path):
    """qView#651, mmpretrain#507."""
    litter = ("__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN", ".thumbnails")
    inside = [f"{name}/cat" for name in litter] + [f"cat/{name}" for name in litter]
    for place in ("cat", "dog", *inside):
        noisy_picture(tmp_path / place / "1.png", 99)
    (tmp_path / "dog" / "._1.png").write_bytes(b"\0\5\x16\7" + bytes(120))  # as macOS packs
    data = photographs(f"folder:{tmp_path}")
    assert data.classes == ("cat", "dog") and [file.path.name for file in data.files] == ["1.png"] * 2


def test_pictures_of_other_kinds_are_counted_and_named(tmp_path):
    """darktable#12608; all suffixes of what Pillow reads are known."""
    registered = Image.registered_extensions()
    assert {suffix for suffix, kind in registered.items() if kind in pictures.FORMATS} <= set(SUFFIXES)
    for name in ("a.jfif", "b.JPG", "c.avif"):
        noisy_picture(tmp_path / "x.png", 9).rename(tmp_path / name)
    for name in ("d.heic", "e.CR2", "notes.txt"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.warns(UserWarning, match="2 of kinds that are not read are left out: d.heic, e.CR2[.]"):
        assert [path.name for path in pictures_in(tmp_path)] == ["a.jfif", "b.JPG", "c.avif"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    """pytorch-image-models#334."""
    noisy_picture(tmp_path / "elsewhere" / "far.png", 9)
    noisy_picture(tmp_path / "own" / "near.png", 9)
    for name, target in (("own/more", "elsewhere"), ("own/back", "own"), ("elsewhere/home", "own")):
        (tmp_path / name).symlink_to(tmp_path / target)
    found = [str(path.relative_to(tmp_path / "own")) for path in pictures_in(tmp_path / "own")]
    assert found == ["more/far.png", "near.png"]


def test_what_may_not_be_read_is_left_out_by_name(tmp_path, downloads):
    """Files and folders, also by root, who may run this."""
    place = two_classes(tmp_path / "set")
    (place / "dark" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    noisy_picture(place / "dark" / "closed" / "1.png", 9)

    def forbidding(method):
        def read(path):
            if path.name in ("0.png", "closed"):
                raise PermissionError(13, "Permission denied", str(path))
            return method(path)

        return patch.object(Path, method.__name__, read)

    with forbidding(Path.read_bytes), forbidding(Path.iterdir):
        with pytest.warns(UserWarning, match="closed is left out: Permission denied"):
            data = load(place)
        assert set(data.skipped) == {"dark/gone.png", "bright/0.png", "dark/0.png"}
        with pytest.warns(UserWarning, match="closed is left out"):
            status, _, err = dcnas("denoise", place / "dark", tmp_path / "out", *UNET)
    assert status == 0 and len(list((tmp_path / "out").iterdir())) == 12
    assert "Left out: 0.png cannot be read (Permission denied)." in err
    assert "Left out: gone.png cannot be read (No such file or directory)." in err


def test_what_was_written_is_not_denoised_again(tmp_path, monkeypatch):
    """upscayl#1196."""
    monkeypatch.chdir(tmp_path)
    noisy_picture(tmp_path / "own" / "1.png", 90)
    noisy_picture(tmp_path / "own" / "deep" / "2.png", 90)
    (tmp_path / "link").symlink_to("own")
    for out in ("own/deep/out", "link/deep/out"):
        assert dcnas("denoise", "own", out, *UNET)[0] == 0
    assert len(list((tmp_path / "own").rglob("*.png"))) == 4
    for same in ("own", "own/deep/..", "link"):
        assert "the folder of the pictures, but another" in dcnas("denoise", "own", same, *UNET)[2]


def test_names_that_are_no_utf_8(tmp_path, downloads):
    """maestral#230: alone, in a set, in the CSV and on the terminal."""
    place = two_classes(tmp_path / "set")
    os.rename(place / "dark" / "0.png", os.fsencode(place / "dark") + b"/caf\xe9.png")
    assert len(load(place).labels) == 24
    status, out, err = dcnas("denoise", place / "dark", tmp_path / "out")
    assert status == 0 and "Wrote 12" in out, err
    assert "caf?.png" in set(pd.read_csv(tmp_path / "out" / "results.csv")["name"])


def test_a_decoded_set_needs_no_lock(tmp_path, downloads):
    """datasets#2837: a store that may only be read."""
    place = two_classes(tmp_path / "set")
    first = load(place)
    with patch.object(images, "FileLock", side_effect=PermissionError):
        assert torch.equal(load(place).labels, first.labels)


def test_a_full_disk_is_met_before_anything_is_decoded(tmp_path, downloads):
    """numpy#21964: writing to the memory map of a sparse file would kill the process."""
    full = OSError(28, "No space left on device")
    with patch.object(os, "posix_fallocate", side_effect=full), pytest.raises(OSError, match="No space"):
        load(two_classes(tmp_path / "set"))
    assert not [path for path in downloads.rglob("*") if path.suffix != ".lock" and path.is_file()]


def test_a_relative_folder_is_one_place(monkeypatch, tmp_path):
    monkeypatch.setenv("DCNAS_DOWNLOADS", "data")
    before = paths.downloads_dir()
    monkeypatch.chdir(tmp_path)
    assert before == paths.downloads_dir() == paths.root() / "data"


LINEAR = zlib.decompress(  # an ICC profile of sRGB's colours with a gamma of 1
    base64.b64decode(
        "eNpjYGC8wgAETA4MDLl5JUVB7k4KEZFRCuyvGBiBEAwSk4sLGPCCb9cgai/rMpAOOFNSi5OB9AcgTkkuKCphYGAMAb"
        "J5yksKQOwEIFukCOgoILsExE6HsDtA7CQIew5YTUiQM5C9AaQ3HcLeA2InQdgnQGyoXSDAnpOZl5pYxEB1UJJaAXIn"
        "A8giUFiihxFCLH8eA4PFNwYG5n6EWNI0Bobt7QwMEncQYiqLGBj4mxkYtp1PLi0qg9mDiw0AsLc6Gg=="
    )
)
WITH_GAMMA = PngImagePlugin.PngInfo()
WITH_GAMMA.add(b"gAMA", struct.pack(">I", 100_000))


@pytest.mark.parametrize("mode", ["RGB", "P"])
@pytest.mark.parametrize(
    ("described", "level", "note"),
    [
        ({}, 55, ""),
        ({"icc_profile": LINEAR}, 128, "taken to sRGB from its own profile"),
        ({"pnginfo": WITH_GAMMA}, 128, "Its gamma of 1 is taken to sRGB's."),
        ({"icc_profile": LINEAR[:200]}, 55, "Its colour profile cannot be used."),
    ],
    ids=["plain", "profile", "gamma", "broken"],
)
def test_colours_are_those_that_the_file_describes(mode, described, level, note):
    """PWABuilder#4515."""
    plain = Image.new("RGB", (32, 32), (55, 55, 55))
    data = file_of(plain.quantize(2) if mode == "P" else plain, **described)
    pixels, notes = read_picture(data)
    assert (pixels.float() - level).abs().max() <= 2 and note in "".join(notes)
    assert abs(images.decode(data, 32, False).mean() - level) <= 2  # in a set too


@pytest.mark.parametrize("look", [{}, {"progressive": True}, {"restart_marker_blocks": 2}], ids=str)
def test_a_jpeg_without_its_end_marker_is_read_with_a_note(look):
    """Pillow#4414."""
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    whole = file_of(photograph, "JPEG", **look)
    for cut in (1, 2):
        pixels, notes = read_picture(whole[:-cut])
        assert torch.equal(pixels, read_picture(whole)[0]) and notes == ("Its end marker is missing.",)
        assert (images.decode(whole[:-cut], 32, False) == images.decode(whole, 32, False)).all()
    for cut in (8, 40, len(whole) // 2):  # some of the picture is missing too
        with pytest.raises(InputError, match="damaged or cut short"):
            read_picture(whole[:-cut])


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (HALF * 257, "PNG"),
        (HALF.astype(np.int32) * 257, "PPM"),
        (HALF.astype(np.int32) * 257, "TIFF"),
        (HALF.astype(np.float32), "TIFF"),
        (HALF.astype(np.float32) / 255, "TIFF"),
    ],
    ids=["PNG", "PGM", "32 bits", "floats to 255", "floats to 1"],
)
def test_deep_pictures_keep_their_brightness(pixels, kind):
    """Pillow#3159: white is that of the format, not of the picture."""
    found, notes = read_picture(file_of(Image.fromarray(pixels), kind))
    assert np.abs(found[0].numpy() - HALF.astype(int)).max() <= 1 and "8" in notes[0]


def test_an_error_of_ours_is_no_bad_file(tmp_path, downloads):
    """has_transparency_data is of Pillow 10.1: with 10.0 every picture was called damaged."""
    low = re.search(r'"pillow>=([\d.]+)', (paths.root() / "pyproject.toml").read_text())[1]
    assert tuple(map(int, low.split("."))) >= (10, 1)
    noisy_picture(tmp_path / "a.png", 9)
    with patch.object(pictures, "upright", side_effect=AttributeError), pytest.raises(AttributeError):
        read_picture((tmp_path / "a.png").read_bytes())
    with patch.object(images, "decode", side_effect=AttributeError), pytest.raises(AttributeError):
        load(two_classes(tmp_path / "set"))


def test_noise_levels_are_of_pixels_from_0_to_1(tmp_path):
    """DnCNN#27."""
    picture = noisy_picture(tmp_path / "own" / "1.png", 90, size=(200, 200))
    for sigma in ("25", "1e38", "nan", "1/0", "-0.1"):
        for command in (("denoise", picture, tmp_path / "out"), ("classify", picture)):
            status, out, err = dcnas(*command, "--sigma", sigma)
            assert (status, out) == (2, "") and "but 0 to 1 was expected" in err.replace("\n", " ")
    for sigma, worse in (("1e-10", None), ("0.02", True), ("25/255", None), ("0.8", False)):
        out = dcnas("denoise", picture, tmp_path / "out", *UNET, "--sigma", sigma)[1]
        row = pd.read_csv(tmp_path / "out" / "results.csv").iloc[0]
        assert row["sigma"] == pytest.approx(sigma_of(sigma))
        if worse is not None:
            assert worse == (row["psnr"] < row["noisy_psnr"])
            assert worse == ("1.png: The denoised picture is worse than the noisy one." in out)


def test_notes_are_in_the_output_and_in_the_table(tmp_path):
    """docling#1903."""
    pages, path = [Image.new("L", (40, 40), level) for level in (50, 100, 150)], tmp_path / "pages.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    table = tmp_path / "out" / "results.csv"
    for command in (("denoise", path, table.parent, *UNET), ("classify", path, "--out", table)):
        assert "pages.tif: The first of 3 frames is taken." in dcnas(*command)[1]
        assert pd.read_csv(table)["notes"].tolist() == ["The first of 3 frames is taken."]


def test_no_two_own_pictures_share_a_pattern_of_noise(tmp_path):
    for name, level in (("a", 100), ("b", 120), ("again", 100)):
        Image.new("L", (48, 48), level).save(tmp_path / f"{name}.png")
    scenes = [make() for make in apply.scenes_of(str(tmp_path)).values()]  # a, again, b
    patterns = [(apply.with_noise(scene, 0.2) - scene.image).flatten() for scene in scenes]
    assert torch.corrcoef(torch.stack(patterns[::2]))[0, 1].abs() < 0.1
    assert torch.equal(patterns[0], patterns[1])  # one content, one pattern, wherever it lies


FIGURE = """
import numpy as np
from dcnas.study.figures import new_figure, picture, png_bytes
figure, (left, right) = new_figure(6, 3, 1, 2)
picture(left, np.repeat([[1.0], [0.0]], 2, 1), "white above black")
right.plot([0, 1], label="line")
right.legend()
print(hash(png_bytes(figure)))
"""


def test_a_reader_s_matplotlibrc_changes_no_figure(tmp_path):
    """holoviews#2312."""
    own, hashes = tmp_path / "matplotlibrc", []
    own.write_text("image.origin: lower\nlegend.loc: center\nxtick.direction: in\nfont.family: serif\n")
    for more in ({}, {"MATPLOTLIBRC": str(own)}):
        options = dict(env=os.environ | {"PYTHONHASHSEED": "0"} | more, capture_output=True, check=True)
        hashes.append(subprocess.run([sys.executable, "-c", FIGURE], **options).stdout)
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("count", [2, 3, 20])
def test_student_s_interval_is_scipy_s(count):
    values = np.random.default_rng(0).normal(size=count)
    found, error = of_few(values), stats.sem(values)
    half = stats.t.ppf(0.975, count - 1) * error
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half))


def test_all_of_a_few_right_is_not_certain(monkeypatch):
    """NVIDIA/garak#2076: 22 of 22 are 85 to 100%, by Wilson."""
    metrics = {"psnr": torch.arange(22.0).expand(11, 22), "accuracy": torch.full((11, 22), 100.0)}
    monkeypatch.setattr(own, "per_image", lambda *_, **__: metrics)
    monkeypatch.setattr(own, "met", lambda *_: (None, None, SIGMAS, None))
    network = SimpleNamespace(card={"resolution": 64}, answer=None)
    row = own.judge(network, SimpleNamespace()).iloc[0]
    expected = (100, 100 * 22 / (22 + stats.norm.ppf(0.975) ** 2), 100)
    assert tuple(row[f"accuracy{end}"] for end in ("", "_low", "_high")) == pytest.approx(expected)


CPUS = {  # /proc/cpuinfo, /proc/device-tree/model
    "AMD EPYC": ("model name\t: AMD EPYC\nmodel name\t: AMD EPYC\n", ""),
    "Raspberry Pi 4": ("CPU part\t: 0xd08\n\nModel\t\t: Raspberry Pi 4\n", "Raspberry Pi 4\0"),
    "Rock 5": ("CPU part\t: 0xd0b\n", "Rock 5\0"),
    "aarch64 0x4e 0x004": ("CPU implementer\t: 0x4e\nCPU part\t: 0x004\n", ""),
}


@pytest.mark.parametrize("name", CPUS)
def test_boards_have_names(name):
    """raspberrypi/linux#3991: each is an aarch64; `measure.py` says the same."""
    board = pytest.importorskip("dcnas.latency.board")
    texts = dict(zip(("/proc/cpuinfo", "/proc/device-tree/model"), CPUS[name]))
    with (
        patch.object(Path, "exists", lambda path: bool(texts.get(str(path)))),
        patch.object(Path, "read_text", lambda path, **_: texts[str(path)]),
        patch("platform.processor", lambda: ""),
        patch("platform.machine", lambda: "aarch64"),
    ):
        assert measure.device_name() == board.device_name() == name


def test_a_large_seed_is_answered():
    status, _, err = dcnas("run", "Conv-S", "--seed", 2**64)
    assert status == 2 and "Usage: " in err and "--seed" in err


def test_latencies_are_those_of_the_reader_s_device(tmp_path, monkeypatch):
    monkeypatch.setattr(latencies, "latency_dir", lambda: tmp_path)
    monkeypatch.setattr(latencies, "device_name", lambda: "Intel(R) Xeon(R)")
    for device, file in (("AMD", "amd"), ("Intel(R) Xeon(R)", "intel-r-xeon-r")):
        frame = pd.DataFrame(dict(label="a", batch=32, median_ms=1.0, device=device), index=[0])
        frame.to_csv(tmp_path / f"section3-{file}-2threads.csv", index=False)
    assert latencies.section_3(32)["device"].tolist() == ["Intel(R) Xeon(R)"]
    monkeypatch.setattr(latencies, "device_name", lambda: "another")
    assert latencies.section_3(32)["device"].tolist() == ["AMD"]  # the first; the table says whose
