"""A notebook that is killed goes on where it was, and ends as if nothing had happened."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dcnas.data.mnist import load_mnist
from dcnas.errors import InputError
from dcnas.paths import downloads_dir

REAL = Path(__file__).resolve().parents[1]
NAME = "03_1_efficient_classification"
KEPT = ("config.json", "metrics.csv", "per_image.safetensors", "weights.safetensors")


def run_files(project: Path) -> dict[str, bytes]:
    paths = sorted((project / "data" / "runs").glob("*/*"))
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in paths if path.name in KEPT}


def complete(project: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (project / "data" / "runs").glob("*/metrics.csv")}


def kernels_of(project: Path) -> list[int]:
    """Processes that work in a project: a kernel has a session of its own, and outlives who started
    it.
    """
    pids = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"DCNAS_ROOT={project}\0".encode() in path.read_bytes():
                pids.append(int(path.parent.name))
        except OSError:
            continue
    return pids


def study(tmp_path: Path, place: str) -> tuple[Path, list[str], dict]:
    project = tmp_path / place
    (project / "data").mkdir(parents=True)
    for part in ("paper", "published", "latency", "weights", "scales.toml"):
        (project / "data" / part).symlink_to(REAL / "data" / part)
    (project / "notebooks").mkdir()
    shutil.copy(REAL / "notebooks" / f"{NAME}.ipynb", project / "notebooks")
    folders = {
        "DCNAS_ROOT": project,
        "DCNAS_DOWNLOADS": downloads_dir(),
        "DCNAS_RUNS": project / "data" / "runs",
    }
    environment = (
        os.environ
        | {"PYTHONPATH": str(REAL / "lib")}
        | {name: str(path) for name, path in folders.items()}
    )
    return project, [sys.executable, "-m", "dcnas.cli", "study", NAME, "--scale", "smoke"], environment


@pytest.mark.slow
def test_a_notebook_killed_in_the_middle_goes_on(tmp_path):
    try:
        load_mnist()
    except (InputError, OSError) as error:
        pytest.skip(f"needs MNIST: {error}")
    project, command, environment = study(tmp_path, "killed")
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = subprocess.Popen(command, env=environment, start_new_session=True, **quiet)
    while len(complete(project)) < 3:
        assert first.poll() is None
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    for pid in kernels_of(project):
        if pid != first.pid:
            os.kill(pid, signal.SIGKILL)
    first.wait()
    assert not (project / "out" / "smoke" / f"{NAME}.ipynb").exists()
    before = complete(project)
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert 3 <= len(before) < len(complete(project)) and before.items() <= complete(project).items()
    undisturbed, command, environment = study(tmp_path, "undisturbed")
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert len(run_files(project)) > 20 and run_files(project) == run_files(undisturbed)
