"""The command line: what users do wrong ends in one sentence on stderr and exit status 2, never in a
traceback.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import linear_table
from PIL import Image

from dcnas import cli
from dcnas.data.mnist import FILES
from dcnas.errors import InputError
from dcnas.study import derivation, store
from dcnas.study.scales import SCALE

COMMANDS = [
    "data",
    "runs",
    "run",
    "queue",
    "collect",
    "readme",
    "latency",
    "study",
    "search",
    "train",
    "evaluate",
    "export",
    "weights",
    "denoise",
    "classify",
    "lut",
]


@pytest.fixture
def dcnas(tmp_path, monkeypatch, capfd):
    """`dcnas(arguments)` in a project folder of its own: (exit status, stdout, stderr)."""
    monkeypatch.setenv("DCNAS_ROOT", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("DCNAS_RUNS", "DCNAS_DOWNLOADS", "DCNAS_MNIST"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dcnas", *arguments])
        try:
            cli.main()
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        return status, *capfd.readouterr()

    return call


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
    ],
)
def test_bad_input(dcnas, arguments, why):
    assert why in refused(dcnas(*arguments.split()))


@pytest.mark.parametrize(
    "arguments",
    [
        "nothing",
        "runs --bogus",
        "runs --scale tiny",
        "runs --scale published",
        "study --scale tiny",
        "study --jobs 0",
        "queue --minutes soon",
        "queue --minutes -1",
        "queue --jobs 0",
        "queue --engine spark",
        "latency --rounds 0",
        "latency --section 5",
        "search --out x",
        "search --lut x --out x --target-ms 9 --operators 5",
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
    assert refused(dcnas("runs", "--group", "table_9"))  # the next call is as before


def test_a_corrupt_mnist_file(dcnas, tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes(b"\x00\x00\x08\x03 not a digit")
    said = refused(dcnas("data", "--folder", str(folder)))
    assert "train-images-idx3-ubyte" in said
    assert not list(tmp_path.rglob("downloads/MNIST/raw/*"))


@pytest.fixture
def shipped(dcnas, tmp_path, monkeypatch):
    """The command in a project that has the networks that ship, and nothing else."""
    shutil.copytree(weights_dir_of(Path(__file__).parents[1]), weights_dir_of(tmp_path))
    return dcnas


def weights_dir_of(project: Path) -> Path:
    return project / "data" / "weights"


def test_denoising_a_folder_names_what_cannot_be_read(shipped, tmp_path):
    folder = tmp_path / "own"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(np.full((40, 50), 90, np.uint8)).save(folder / "grey.png")
    Image.fromarray(np.full((70, 50, 3), 90, np.uint8)).save(folder / "deep" / "colour.jpg")
    (folder / "text.png").write_text("no picture")
    status, out, err = shipped("denoise", str(folder), str(tmp_path / "out"), "--sigma", "0.3")
    assert status == 0
    assert "Left out: text.png is not a picture that can be read" in err
    assert "Wrote 2 pictures" in out
    rows = pd.read_csv(tmp_path / "out" / "results.csv")
    assert set(rows["name"]) == {"grey.png", "deep/colour.jpg"}
    assert (rows["psnr"] > rows["noisy_psnr"]).all()
    assert Image.open(tmp_path / "out" / "deep" / "colour.jpg.png").size == (50, 70)
    status, out, err = shipped(
        "classify", str(folder / "grey.png"), "--out", str(tmp_path / "found.csv")
    )
    assert status == 0 and pd.read_csv(tmp_path / "found.csv")["class"].iloc[0] in range(10)


def test_the_shipped_networks_are_listed(shipped):
    status, out, err = shipped("weights")
    assert (status, err) == (0, "")
    assert "dc-net-reduced-integrated: DC-Net Reduced Integrated, trained on" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            "denoise nowhere OUT",
            "IN is 'nowhere', but a picture, a folder or one of digits, solar was expected.",
        ),
        ("denoise text.png OUT", "text.png is not a picture that can be read"),
        ("denoise . OUT --weights none", "weights is 'none', but one of dc-"),
        (
            "classify text.png --weights unet-b8-d4-m1.5-c2",
            "weights is 'unet-b8-d4-m1.5-c2', which only denoises",
        ),
    ],
)
def test_bad_pictures(shipped, tmp_path, monkeypatch, arguments, says):
    (tmp_path / "text.png").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    assert refused(shipped(*arguments.split())).startswith(says)
    assert not (tmp_path / "OUT").exists()


def test_a_store_that_cannot_be_written(dcnas, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DCNAS_RUNS", str(tmp_path / "file"))
    status, out, err = dcnas("run", "Conv-S", "--scale", "smoke")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert str(tmp_path / "file") in err
    assert "Traceback" not in err


def test_help_lists_the_commands(dcnas):
    status, out, err = dcnas("--help")
    assert (status, err) == (0, "")
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
    calls = []
    monkeypatch.setattr(
        "dcnas.study.queue.run_queue",
        lambda *arguments, **options: calls.append((arguments, options)) or 1,
    )
    options = "--scale smoke --group table_3 --engine ray --address auto".split()
    assert (
        dcnas("run", *options)
        == dcnas("queue", *options)
        == (0, "3 of 4 runs of table_3 at scale smoke are complete.\n", "")
    )
    assert calls[0][0] == calls[1][0] and len(calls[0][0][0]) == 4
    assert (calls[0][1]["engine"], calls[0][1]["address"]) == ("ray", "auto")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The project folder as a git checkout with a library of one file, and a queue that counts how often
    it is started.
    """

    def git(*command):
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x", *command],
            check=True,
        )

    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "code.py").write_text("1\n")
    git("init", "-q")
    git("add", "lib")
    git("commit", "-qm", "all")
    started = []
    monkeypatch.setattr("dcnas.study.queue.run_queue", lambda *_, **__: started.append(1) or 0)
    monkeypatch.setattr("dcnas.study.runs.obtain", lambda *_, **__: started.append(1))
    store.commit.cache_clear()
    yield tmp_path, started
    store.commit.cache_clear()


def test_trainings_are_made_from_commits(dcnas, checkout):
    folder, started = checkout
    queue = ("queue", "--scale", "laptop", "--group", "table_3")
    (folder / "notes.txt").write_text("not of the library")
    assert dcnas(*queue)[0] == 0 and len(started) == 1
    for name in ("code.py", "new.py"):  # edited, untracked
        (folder / "lib" / name).write_text("2\n")
        store.commit.cache_clear()
        for command in (queue, ("run", *queue[1:]), ("run", "DC-Net Reduced Integrated", *queue[1:])):
            assert refused(dcnas(*command)).startswith("lib has changes that are not committed")
        assert len(started) == 1
        subprocess.run(["git", "-C", str(folder), "checkout", "-q", "lib"], check=True)
    assert dcnas(*queue, "--changed-tree")[0] == dcnas("run", *queue[1:], "--changed-tree")[0] == 0
    assert len(started) == 3
    assert dcnas("queue", "--scale", "smoke")[0] == 0 and len(started) == 4  # tests, and `make study`


def test_without_git_trainings_go_on(dcnas, checkout):
    folder, started = checkout
    (folder / "lib" / "code.py").write_text("2\n")
    shutil.rmtree(folder / ".git")
    assert dcnas("queue", "--scale", "laptop")[0] == 0
    assert len(started) == 1
    assert store.commit() == "unknown"


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


def test_an_error_of_the_machine_is_one_sentence(dcnas, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device", "/some/file")

    monkeypatch.setattr("dcnas.study.publish.collect", full)
    assert dcnas("collect") == (2, "", "dcnas: No space left on device: /some/file\n")


# as a program


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


def test_as_a_module():
    ended = python("-m", "dcnas.cli", "runs", "--group", "tiny")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("dcnas: group is 'tiny'")


HEAVY = set("fvcore papermill ipywidgets matplotlib seaborn torchmetrics IPython jupyter".split())


def test_the_queue_needs_little():
    """A machine that only trains may have torch, torchvision and little else."""
    ended = python("-c", f"import dcnas.study.queue, sys; print(sorted({HEAVY} & set(sys.modules)))")
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


def test_help_is_quick():
    """Nothing heavy is imported before a command needs it."""
    ended = python("-c", "import dcnas.cli, sys; print('torch' in sys.modules, 'pandas' in sys.modules)")
    assert ended.stdout == "False False\n", ended.stderr
