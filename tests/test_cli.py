"""The command line: what users do wrong ends in one sentence on stderr and exit status 2, never in a
traceback."""

import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from made_up import linear_table, noisy_picture
from PIL import Image

from dcnas import cli, options
from dcnas.data.mnist import FILES
from dcnas.errors import InputError
from dcnas.paths import weights_dir
from dcnas.study import derivation, store
from dcnas.study.scales import SCALE

COMMANDS = (
    "data runs run queue collect readme latency study search train evaluate export weights denoise"
)
COMMANDS = [*COMMANDS.split(), "classify", "lut"]
SHIPPED = weights_dir()


@pytest.fixture
def dcnas(tmp_path, monkeypatch, capfd, downloads):
    """`dcnas(arguments)` in a project folder of its own: (exit status, stdout, stderr)."""
    monkeypatch.setenv("DCNAS_ROOT", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("DCNAS_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dcnas", *arguments])
        try:
            cli.main()
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        return status, *capfd.readouterr()

    return call


@pytest.fixture
def shipped(dcnas, tmp_path):
    """The command in a project that has the networks that ship, and nothing else."""
    shutil.copytree(SHIPPED, tmp_path / "data" / "weights")
    return dcnas


def refused(answer: tuple[int, str, str]) -> str:
    """The sentence with which a command was refused."""
    status, out, err = answer
    assert (status, out) == (2, ""), answer
    assert err.startswith("dcnas: ") and err.count("\n") == 1, err
    return err.removeprefix("dcnas: ").strip()


@pytest.mark.parametrize(
    "arguments, why",
    [
        ("runs --group table_9", "group is 'table_9', but one of section2, "),
        ("run MB9-M --scale smoke", "there is no network 'MB9-M'; did you mean 'MB"),
        ("run conv-s --scale smoke", "there is no network 'conv-s'; did you mean 'Conv-S' or "),
        ("run Conv-S --scale smoke --seed 9", "seed is 9, but Conv-S has the seeds 0 at scale smoke."),
        ("run Conv-S --scale smoke --device cuda", "device is 'cuda', but PyTorch finds only cpu"),
        ("queue --changed-tree --device tpu", "device is 'tpu', but PyTorch finds only cpu"),
        ("study 99_nothing", "notebook is '99_nothing', but the beginning of one of "),
        ("study -p sigma", "parameter is 'sigma', but NAME=VALUE was expected."),
        ("lut build --resolution 50 --out x.json", "resolution is 50, but a multiple of "),
        ("lut validate none.json", "No such file or directory: none.json"),
        ("data --folder mnist", "train-images-idx3-ubyte"),
        ("denoise nowhere OUT", "IN is 'nowhere', but a picture, a folder or one of digits, solar"),
        ("denoise text.png OUT", "text.png is not a picture that can be read"),
        ("denoise . OUT --weights none", "weights is 'none', but one of dc-"),
        ("classify text.png --weights unet-b8-d4-m1.5-c2", "which only denoises"),
    ],
)
def test_bad_input(shipped, tmp_path, arguments, why):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "mnist").mkdir()
    for name in FILES:
        (tmp_path / "mnist" / name).write_bytes(b"\x00\x00\x08\x03 not a digit")
    assert why in refused(shipped(*arguments.split()))
    assert not (tmp_path / "OUT").exists() and not list(tmp_path.rglob("downloads/MNIST/raw/*"))


@pytest.mark.parametrize(
    "arguments",
    [
        "nothing",
        "runs --bogus",
        "runs --scale published",
        "study --jobs 0",
        "queue --minutes soon",
        "queue --engine spark",
        "latency --section 5",
        "search --out x",
        "export x --format tflite",
        "denoise a b --sigma -1",
        "train x --decoder up",
    ],
)
def test_bad_usage(dcnas, arguments):
    status, out, err = dcnas(*arguments.split())
    assert (status, out) == (2, "") and "Usage: " in err and "Traceback" not in err


def test_debug_shows_where(dcnas):
    with pytest.raises(InputError, match="group is"):
        dcnas("--debug", "runs", "--group", "table_9")


def test_a_store_that_cannot_be_written_is_one_sentence(dcnas, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DCNAS_RUNS", str(tmp_path / "file"))
    status, out, err = dcnas("run", "Conv-S", "--scale", "smoke")
    assert (status, out) == (2, "") and str(tmp_path / "file") in err and err.count("\n") == 1


def test_denoising_a_folder_names_what_cannot_be_read(shipped, tmp_path):
    noisy_picture(tmp_path / "own" / "grey.png", 90, size=(40, 50))
    noisy_picture(tmp_path / "own" / "deep" / "colour.jpg", 90, size=(70, 50))
    (tmp_path / "own" / "text.png").write_text("no picture")
    status, out, err = shipped("denoise", "own", "out", "--sigma", "0.3")
    assert status == 0 and "Wrote 2 pictures" in out
    assert "Left out: text.png is not a picture that can be read" in err
    rows = pd.read_csv(tmp_path / "out" / "results.csv")
    assert set(rows["name"]) == {"grey.png", "deep/colour.jpg"}
    assert (rows["psnr"] > rows["noisy_psnr"]).all()
    assert Image.open(tmp_path / "out" / "deep" / "colour.jpg.png").size == (50, 70)
    assert shipped("classify", "own/grey.png", "--out", "found.csv")[0] == 0
    assert pd.read_csv(tmp_path / "found.csv")["class"].iloc[0] in range(10)


UNET = ("--weights", "unet-b8-d4-m1.5-c2")


def test_a_file_that_may_not_be_read_is_left_out(shipped, tmp_path, monkeypatch):
    for name in "012":
        noisy_picture(tmp_path / "own" / f"{name}.png", 90)
    (tmp_path / "own" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    real = Path.read_bytes

    def read_bytes(path):
        if path.name == "1.png":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    status, out, err = shipped("denoise", "own", "out", *UNET)
    assert status == 0 and sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("0.png.png", "2.png.png", "results.csv")
    ]
    assert "Left out: 1.png cannot be read (Permission denied)." in err
    assert "Left out: gone.png cannot be read (No such file or directory)." in err


@pytest.mark.parametrize("out", ["own/out", "own/deep/out", "link/out"])
def test_what_was_written_is_not_denoised_again(shipped, tmp_path, out):
    noisy_picture(tmp_path / "own" / "1.png", 90)
    noisy_picture(tmp_path / "own" / "deep" / "2.png", 90)
    (tmp_path / "link").symlink_to("own")
    for _ in range(2):
        assert shipped("denoise", "own", out, *UNET)[0] == 0
        assert len(list((tmp_path / "own").rglob("*.png"))) == 4
    for same in ("own", "own/deep/..", "link"):
        why = refused(shipped("denoise", "own", same, *UNET))
        assert "the folder of the pictures, but another was expected" in why


@pytest.mark.parametrize(
    ("sigma", "says"),
    [
        ("25", "but 0 to 1 was expected: the pixels' range is 1, not 255; of 8-bit pixels 25 is 25/255"),
        ("1e38", "sigma is 1e38, but 0 to 1 was expected"),
        ("nan", "sigma is nan, but 0 to 1 was expected"),
        ("1/0", "sigma is 1/0, but 0 to 1 was expected"),
        ("-0.1", "sigma is -0.1, but 0 to 1 was expected"),
    ],
)
@pytest.mark.parametrize("command", ["denoise digits out", "classify digits"])
def test_what_is_no_noise_level_is_refused_in_words(dcnas, command, sigma, says):
    status, out, err = dcnas(*command.split(), "--sigma", sigma)
    words = " ".join(err.replace("\u2502", " ").split())
    assert (status, out) == (2, "") and says in words and "Traceback" not in err


def test_noise_levels_are_of_pixels_from_0_to_1(shipped, tmp_path):
    noisy_picture(tmp_path / "1.png", 90)
    for sigma in ("1e-10", "25/255", "1"):
        assert shipped("denoise", "1.png", "out", *UNET, "--sigma", sigma)[0] == 0
        row = pd.read_csv(tmp_path / "out" / "results.csv").iloc[0]
        assert row["sigma"] == pytest.approx(options.sigma_of(sigma)) and row["psnr"] > 5
    text = " ".join(shipped("denoise", "--help")[1].replace("\u2502", " ").split())
    assert "pixels range from 0 to 1" in text and "25/255" in text


def test_notes_are_in_the_output_and_in_the_table(shipped, tmp_path):
    pages = [Image.new("L", (40, 40), level) for level in (50, 100, 150)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    for command in (
        f"denoise pages.tif out {' '.join(UNET)}",
        "classify pages.tif --out out/results.csv",
    ):
        status, out, _ = shipped(*command.split())
        assert status == 0 and "pages.tif: The first of 3 frames is taken." in out
        row = pd.read_csv(tmp_path / "out" / "results.csv").iloc[0]
        assert row["notes"] == "The first of 3 frames is taken."


def test_a_picture_that_is_made_worse_is_named(shipped, tmp_path):
    noisy_picture(tmp_path / "own" / "colour.png", 128, size=(200, 200))
    for sigma, worse in (("0.02", True), ("0.8", False), ("0", False)):
        status, out, _ = shipped("denoise", "own", "out", *UNET, "--sigma", sigma)
        row = pd.read_csv(tmp_path / "out" / "results.csv").iloc[0]
        assert status == 0 and worse == (sigma != "0" and row["psnr"] < row["noisy_psnr"])
        assert worse == ("colour.png: The denoised picture is worse than the noisy one." in out)
        assert worse == ("1 of 1 are worse than with the noise: unet-b8-d4-m1.5-c2 knows" in out)


def test_the_shipped_networks_are_listed(shipped):
    status, out, err = shipped("weights")
    assert (status, err) == (0, "")
    assert "dc-net-reduced-integrated: DC-Net Reduced Integrated, trained on" in out


def test_help_lists_the_commands(dcnas):
    out = dcnas("--help")[1]
    assert all(f"│ {name} " in out or f"  {name} " in out for name in COMMANDS)
    for name in COMMANDS:
        status, out, err = dcnas(name, "--help")
        assert (status, err) == (0, "") and "Usage: " in out


def test_runs_lists_the_runs(dcnas):
    status, out, err = dcnas("runs", "--scale", "smoke", "--group", "table_3")
    lines = out.splitlines()
    assert (status, err) == (0, "") and len(lines) == 5
    assert "DC-Net Reduced Integrated, seed 0, smoke" in out
    assert lines[-1].startswith("0 of 4 complete here, 0 published. Groups: section2, ")


def test_without_a_label_run_is_the_queue(dcnas, monkeypatch):
    queue = Mock(return_value=1)
    monkeypatch.setattr("dcnas.study.queue.run_queue", queue)
    options = "--scale smoke --group table_3 --engine ray --address auto".split()
    answers = [dcnas(command, *options) for command in ("run", "queue")]
    assert answers == [(0, "3 of 4 runs of table_3 at scale smoke are complete.\n", "")] * 2
    for call in queue.call_args_list:
        assert len(call.args[0]) == 4
        assert (call.kwargs["engine"], call.kwargs["address"]) == ("ray", "auto")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The project folder as a git checkout with a library of one file, and a queue that only counts how
    often it is started."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "code.py").write_text("1\n")
    user = ["-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], ["add", "lib"], [*user, "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    started = Mock(return_value=0)
    monkeypatch.setattr("dcnas.study.queue.run_queue", started)
    monkeypatch.setattr("dcnas.study.runs.obtain", started)
    store.commit.cache_clear()
    yield tmp_path, started
    store.commit.cache_clear()


def test_trainings_are_made_from_commits(dcnas, checkout):
    folder, started = checkout
    options = ("--scale", "laptop", "--group", "table_3")
    (folder / "notes.txt").write_text("not of the library")
    assert dcnas("queue", *options)[0] == 0 and started.call_count == 1
    for name in ("code.py", "new.py"):  # edited, untracked
        (folder / "lib" / name).write_text("2\n")
        store.commit.cache_clear()
        for command in (["queue"], ["run"], ["run", "DC-Net Reduced Integrated"]):
            assert refused(dcnas(*command, *options)).startswith(
                "lib has changes that are not committed"
            )
        subprocess.run(["git", "-C", str(folder), "checkout", "-q", "lib"], check=True)
    assert started.call_count == 1
    for command in ("queue", "run"):
        assert dcnas(command, *options, "--changed-tree")[0] == 0
    assert dcnas("queue", "--scale", "smoke")[0] == 0  # tests, and `make study`
    shutil.rmtree(folder / ".git")
    store.commit.cache_clear()
    assert dcnas("queue", *options)[0] == 0 and store.commit() == "unknown"
    assert started.call_count == 5


@pytest.mark.parametrize("scale", ["short", "laptop", "gpu", "paper"])
def test_a_missing_table_is_told_with_the_commands_that_make_it(dcnas, monkeypatch, scale):
    sizes, built = SCALE[scale], []

    def build(space, path, **options):
        built.append((space.resolution, space.width, space.strides, path.name, options["device"]))
        return linear_table(space)

    monkeypatch.setattr("dcnas.nas.lut.build_table", build)
    with pytest.raises(InputError, match="is missing; with nothing else running, run") as told:
        derivation.obtain_table(scale)
    make, validate = (command.split()[1:] for command in str(told.value).split("`")[1::2])
    assert dcnas(*make)[0] == 0
    assert built == [(sizes.photos["resolution"], sizes.width, sizes.strides, sizes.table, sizes.device)]
    assert validate == ["lut", "validate", f"data/latency/{sizes.table}", "--device", sizes.device]


def test_collecting_nothing(dcnas, tmp_path):
    status, out, err = dcnas("collect")
    assert (status, err) == (0, "") and out.count(" has 0 runs.") == 5
    assert not (tmp_path / "data" / "published").exists()


HEAVY = "fvcore papermill ipywidgets matplotlib seaborn torchmetrics IPython jupyter"


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("dcnas.study.queue", HEAVY),  # a machine that only trains may have torch and little else
        ("dcnas.cli", "torch pandas"),  # help is quick
    ],
)
def test_what_an_import_brings_along(module, without):
    code = f"import {module}, sys; print(sorted({set(without.split())} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")
