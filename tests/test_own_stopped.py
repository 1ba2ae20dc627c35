"""Commands for one's own network that are stopped by Ctrl-C, killed, or started twice."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from made_up import linear_table, two_classes

from dcnas.latency.table import Correction
from dcnas.nas.settings import latency_range_ms
from dcnas.nas.space import Space

LIB = Path(__file__).resolve().parents[1] / "lib"
pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path):
    """`start(command, ..., runs=NAME)`: the process of a command with few steps, in a run store."""
    table = linear_table(Space(8, 32, 2, 0.25), batch=4).with_correction(Correction(error_pct=1.0))
    low, high = latency_range_ms(Space(4, 32, 2, 0.25), table, "C-NAS")
    table.save(tmp_path / "t.json")
    own = f"--lut {tmp_path / 't.json'} --data {two_classes(tmp_path / 'set')} --batch 4 --threads 1"
    few = {
        "search": f"{own} --target-ms {(low + high) / 2:.3f} --loss ce --epochs 8 --steps-per-epoch 4 "
        "--no-measure --train-steps 40",
        "front": f"{own} --loss ce --points 2 --epochs 2 --steps-per-epoch 1 --steps 4",
        "compare": "--random 2",
    }

    def begin(command: str, *words, runs: str = "runs") -> subprocess.Popen:
        places = {"DCNAS_RUNS": tmp_path / runs, "DCNAS_DOWNLOADS": tmp_path / "downloads"}
        env = (
            os.environ | {"PYTHONPATH": str(LIB)} | {name: str(place) for name, place in places.items()}
        )
        line = [sys.executable, "-m", "dcnas.cli", command, *few[command].split(), *map(str, words)]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        # whoever runs the tests may ignore Ctrl-C
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(line, env=env, preexec_fn=heard, **pipes)

    return begin


def stopped(process: subprocess.Popen, folder: Path, pattern: str, how: int) -> tuple[int, str]:
    """The process stopped by a signal as soon as a file is there: its exit status and errors."""
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(how)
    _, errors = process.communicate()
    return process.returncode, errors


def ended(process: subprocess.Popen) -> str:
    text, errors = process.communicate()
    assert process.returncode == 0, errors
    return text


def test_a_search_goes_on_and_ends_as_if_nothing_had_happened(start, tmp_path):
    out = tmp_path / "mine"
    status, errors = stopped(
        start("search", "--out", out), tmp_path / "runs", "*/run.json", signal.SIGINT
    )
    assert status == 130 and "Traceback" not in errors
    assert errors.rstrip().endswith("stopped; no file is half written, and the same command goes on.")
    status, _ = stopped(start("search", "--out", out), out, "search.json", signal.SIGKILL)
    assert status == -signal.SIGKILL and not (out / "weights.safetensors").exists()
    assert "report.html" in ended(start("search", "--out", out))
    assert "report.html" in ended(start("search", "--out", tmp_path / "calm", runs="others"))
    for name in ("architecture.json", "search.csv", "weights.safetensors", "metrics.csv"):
        assert (out / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


def test_a_comparison_goes_on(start, tmp_path):
    out = tmp_path / "mine"
    ended(start("search", "--out", out))
    status, errors = stopped(start("compare", out), out, "rivals.json", signal.SIGINT)
    assert status == 130 and "Traceback" not in errors
    chosen = (out / "rivals.json").read_bytes()
    text = ended(start("compare", out))
    sentence = next(line for line in text.splitlines() if line.startswith("The search "))
    assert (
        "random networks of the same latency" in sentence
        and (out / "rivals.json").read_bytes() == chosen
    )
    assert sentence[:40] in (out / "report.html").read_text()


def test_two_searches_in_one_folder(start, tmp_path):
    out = tmp_path / "mine"
    first = start("search", "--out", out, "--epochs", 60)
    while not list((tmp_path / "runs").glob("*/run.json")):
        time.sleep(0.01)
    second = start("search", "--out", out, "--seed", 1)
    _, errors = second.communicate()
    assert (
        second.returncode == 2 and "another search is at work in" in errors and errors.count("\n") == 1
    )
    ended(first)


def test_two_fronts_in_one_folder_share_the_work(start, tmp_path):
    out = tmp_path / "front"
    status, errors = stopped(start("front", "--out", out), out, "front.json", signal.SIGINT)
    assert status == 130 and "Traceback" not in errors
    texts = [ended(process) for process in (start("front", "--out", out), start("front", "--out", out))]
    assert all("are in reach" in text for text in texts)
    assert set(pd.read_csv(out / "front.csv")["kind"]) == {"searched", "random", "MobileNetV3"}
    begun = [path.parent for path in (tmp_path / "runs").glob("*/run.json")]
    assert all((folder / "metrics.csv").exists() for folder in begun)
