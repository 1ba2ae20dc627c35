"""The command line: what users do wrong ends in one sentence on stderr and exit status 2."""

import shutil
import subprocess
import sys
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from made_up import dcnas, noisy_picture
from PIL import Image

from dcnas.data.mnist import FILES
from dcnas.paths import weights_dir
from dcnas.study import store
from dcnas.study.scales import SCALE

COMMANDS = "data runs run queue collect readme latency study search train evaluate export".split()
COMMANDS += "weights denoise classify lut".split()
SHIPPED = weights_dir()


@pytest.fixture
def project(tmp_path, monkeypatch, downloads):
    """A project folder that has nothing yet."""
    assert SCALE  # of the study, read before
    monkeypatch.setenv("DCNAS_ROOT", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("DCNAS_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shipped(project):
    """One that has the networks that ship."""
    shutil.copytree(SHIPPED, project / "data" / "weights")
    return project


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
        ("run Conv-S --scale smoke --device cuda", "device is 'cuda', but PyTorch finds only cpu"),
        ("study 99_nothing", "notebook is '99_nothing', but the beginning of one of "),
        ("data --folder mnist", "train-images-idx3-ubyte"),
        ("denoise nowhere OUT", "IN is 'nowhere', but a picture, a folder or one of digits, solar"),
        ("denoise text.png OUT", "text.png is not a picture that can be read"),
        ("denoise . OUT --weights none", "weights is 'none', but one of dc-"),
        ("classify text.png --weights unet-b8-d4-m1.5-c2", "which only denoises"),
    ],
)
def test_bad_input(shipped, arguments, why):
    (shipped / "text.png").write_text("no picture")
    (shipped / "mnist").mkdir()
    for name in FILES:
        (shipped / "mnist" / name).write_bytes(b"\x00\x00\x08\x03 not a digit")
    assert why in refused(dcnas(*arguments.split()))
    assert not (shipped / "OUT").exists() and not list(shipped.rglob("downloads/MNIST/raw/*"))


def test_denoising_a_folder_names_what_cannot_be_read(shipped):
    noisy_picture(shipped / "own" / "grey.png", 90, size=(40, 50))
    noisy_picture(shipped / "own" / "deep" / "colour.jpg", 90, size=(70, 50))
    (shipped / "own" / "text.png").write_text("no picture")
    status, out, err = dcnas("denoise", "own", "out", "--sigma", "0.3")
    assert status == 0 and "Wrote 2 pictures" in out
    assert "Left out: text.png is not a picture that can be read" in err
    rows = pd.read_csv(shipped / "out" / "results.csv")
    assert set(rows["name"]) == {"grey.png", "deep/colour.jpg"}
    assert (rows["psnr"] > rows["noisy_psnr"]).all()
    assert Image.open(shipped / "out" / "deep" / "colour.jpg.png").size == (50, 70)
    assert dcnas("classify", "own/grey.png", "--out", "found.csv")[0] == 0
    row = pd.read_csv(shipped / "found.csv").iloc[0]
    assert pd.isna(row["class"]) and "No label: this is unlike anything" in row["notes"]


def test_lists(shipped):
    """Commands, each with its help; trained networks; runs."""
    out = dcnas("--help")[1]
    for name in COMMANDS:
        assert f"│ {name} " in out or f"  {name} " in out
        status, text, err = dcnas(name, "--help")
        assert (status, err) == (0, "") and "Usage: " in text
    assert "dc-net-reduced-integrated: DC-Net Reduced Integrated, trained on" in dcnas("weights")[1]
    lines = dcnas("runs", "--scale", "smoke", "--group", "table_3")[1].splitlines()
    assert len(lines) == 5 and "DC-Net Reduced Integrated, seed 0, smoke" in "".join(lines)
    assert lines[-1].startswith("0 of 4 complete here, 0 published. Groups: section2, ")


def test_trainings_are_made_from_commits(project, monkeypatch):
    """The project as a git checkout with a library of one file, and a queue that only counts."""
    code, started = project / "lib" / "code.py", Mock(return_value=0)
    code.parent.mkdir()
    code.write_text("1\n")
    for command in ("init -q", "add lib", "-c user.name=x -c user.email=x@x commit -qm all"):
        subprocess.run(["git", "-C", str(project), *command.split()], check=True)
    monkeypatch.setattr("dcnas.study.queue.run_queue", started)
    monkeypatch.setattr("dcnas.study.runs.obtain", started)

    def call(*words: str) -> tuple[int, str, str]:
        store.commit.cache_clear()
        return dcnas(*words, "--scale", "laptop", "--group", "table_3")

    (project / "notes.txt").write_text("not of the library")
    assert call("queue")[0] == 0 and started.call_count == 1
    for path in (code, code.with_name("new.py")):  # edited, untracked
        path.write_text("2\n")
        for command in (["queue"], ["run"], ["run", "DC-Net Reduced Integrated"]):
            assert refused(call(*command)).startswith("lib has changes that are not committed")
        subprocess.run(["git", "-C", str(project), "checkout", "-q", "lib"], check=True)
    assert call("run", "--changed-tree")[0] == 0
    shutil.rmtree(project / ".git")
    assert call("queue")[0] == 0 and store.commit() == "unknown" and started.call_count == 3
    store.commit.cache_clear()


HEAVY = "fvcore papermill ipywidgets matplotlib seaborn torchmetrics IPython jupyter"


# a machine that only trains may have torch and little else; help is quick
@pytest.mark.parametrize(
    ("module", "without"), [("dcnas.study.queue", HEAVY), ("dcnas.cli", "torch pandas")]
)
def test_what_an_import_brings_along(module, without):
    code = f"import {module}, sys; print(sorted({set(without.split())} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")
