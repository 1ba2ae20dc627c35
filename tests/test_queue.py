"""The queue: processes of this machine and tasks of Ray, which end with it, and on one folder never do a
run twice.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dcnas import paths
from dcnas.data.mnist import load_mnist
from dcnas.errors import InputError
from dcnas.study import queue
from dcnas.study.presets import runs
from dcnas.study.store import folder_of, is_complete


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    try:
        load_mnist()
    except (InputError, OSError) as error:
        pytest.skip(f"needs MNIST: {error}")
    monkeypatch.setenv("DCNAS_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.mark.slow
def test_two_workers_and_then_nothing_is_left(capfd):
    listed = runs("table_2", "smoke")
    assert queue.run_queue(listed, jobs=2, progress=False) == 0 and all(map(is_complete, listed))
    before = [(folder_of(run) / "metrics.csv").stat().st_mtime_ns for run in listed]
    assert queue.run_queue(listed, jobs=2, progress=False) == 0
    assert before == [(folder_of(run) / "metrics.csv").stat().st_mtime_ns for run in listed]


@pytest.mark.slow
def test_ray_does_the_same():
    pytest.importorskip("ray")
    listed = runs("normalisation_check", "smoke")
    assert queue.run_queue(listed, jobs=2, engine="ray", progress=False) == 0
    assert all(map(is_complete, listed))


def test_published_results_are_not_made_again():
    listed = [run for run in runs("section3", "laptop") if run.label == "UNet Reduced" and run.seed == 0]
    assert queue.run_queue(listed, progress=False) == 0 and not any(map(is_complete, listed))


@pytest.mark.slow
def test_workers_end_with_a_queue_that_was_killed(tmp_path):
    """Or they would go on, unseen, and hold their runs."""
    command = [
        sys.executable,
        "-m",
        "dcnas.cli",
        "queue",
        "--scale",
        "laptop",
        "--group",
        "clipping_check",
        "--jobs",
        "2",
    ]
    command += ["--changed-tree"]
    env = os.environ | {"DCNAS_RUNS": str(tmp_path), "DCNAS_DOWNLOADS": str(paths.downloads_dir())}
    family = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        while len(list(tmp_path.glob("*/run.json"))) < 2:  # both are at work
            assert time.monotonic() < end and family.poll() is None
            time.sleep(0.1)
        workers = Path(f"/proc/{family.pid}/task/{family.pid}/children").read_text().split()
        assert len(workers) >= 2
    finally:
        family.kill()
        family.wait()
    end = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < end, "workers outlived their queue"
        time.sleep(0.1)
