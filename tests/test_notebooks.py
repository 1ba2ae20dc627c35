"""Running notebooks strictly, and the form of the notebooks of the study."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from dcnas.errors import InputError
from dcnas.paths import downloads_dir
from dcnas.study import notebooks
from dcnas.study.notebooks import execute, notebook_paths, run_study

PARAMETERS = "scale = 'published'  # which results\ndevice = 'cpu'\nseed = 0  # whole number"
STUDY = notebook_paths()


def write(path: Path, *cells: str, parameters: str | None = PARAMETERS) -> Path:
    """A notebook with a parameters cell and `cells`; its kernel has a name that exists nowhere else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first = [] if parameters is None else [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    notebook = new_notebook(cells=first + [new_code_cell(cell) for cell in cells])
    names = {"name": "kernel-of-another-machine", "display_name": "x", "language": "python"}
    notebook.metadata["kernelspec"] = names
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project folder of three notebooks."""
    monkeypatch.setenv("DCNAS_ROOT", str(tmp_path))
    for name in ("A_details", "03_2_denoise", "01_introduction", "own_network"):
        write(tmp_path / "notebooks" / f"{name}.ipynb")
    return tmp_path


def test_a_notebook_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    cell = "import pathlib; print(scale, seed, pathlib.Path.cwd())"
    source, target = write(tmp_path / "a" / "book.ipynb", cell), tmp_path / "out" / "book.ipynb"
    before = source.read_bytes()
    assert execute(source, target, {"scale": "smoke"}, progress=False) == target
    # in the notebook's folder, whatever the caller's
    assert nbformat.read(target, 4).cells[-1].outputs[0].text == f"smoke 0 {source.parent}\n"
    assert [p.name for p in target.parent.iterdir()] == ["book.ipynb"] and source.read_bytes() == before


@pytest.mark.parametrize(
    "cells",
    [
        ["1 / 0", "print('more')"],
        ["import sys; sys.exit(0)", "print('more')"],
        ["import os; os.kill(os.getpid(), 9)"],
    ],
    ids=["failing", "leaving early", "killed"],
)
def test_what_does_not_run_to_the_end_leaves_no_file(tmp_path, cells):
    source, target = write(tmp_path / "book.ipynb", *cells), tmp_path / "out" / "book.ipynb"
    write(target, "print('of an earlier run')")
    with pytest.raises(Exception) as failure:
        execute(source, target, {"seed": 1}, progress=False)
    assert not isinstance(failure.value, InputError | AssertionError) and not target.exists()


def test_unknown_parameters_are_refused(tmp_path):
    source, target = write(tmp_path / "book.ipynb", "open('ran', 'w')"), tmp_path / "out" / "book.ipynb"
    bare = write(tmp_path / "bare.ipynb", "1", parameters=None)
    for notebook, parameters, says in (
        (
            source,
            {"sacle": "smoke", "sed": 1},
            "has no parameter sacle, sed; it has scale, device, seed",
        ),
        (bare, {"scale": "smoke"}, "bare.ipynb has no parameter scale; it has none"),
        (source, {"seed": "one"}, "is 'one', but a value of the type int was expected"),
    ):
        with pytest.raises(InputError, match=says):
            execute(notebook, target, parameters, progress=False)
    assert not target.exists() and not (tmp_path / "ran").exists()


def test_where_latency_counts_notebooks_run_one_after_the_other(project, monkeypatch):
    together = threading.Barrier(3)
    monkeypatch.setattr(notebooks, "execute", lambda *_, **__: together.wait(60))
    run_study("smoke", jobs=3)  # all three meet
    monkeypatch.setattr(notebooks, "execute", lambda *_, **__: together.wait(0.5))
    with pytest.raises(notebooks.StudyFailed, match="3 of 3"):
        run_study("laptop", jobs=3)


@pytest.mark.parametrize("path", STUDY, ids=lambda path: path.stem)
def test_form(path):
    """Small, valid, short cells, one of parameters; executed without errors from top to bottom or not
    at all."""
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 1_000_000
    assert not {"widgets", "papermill"} & set(notebook.metadata)  # GitHub shows none that has the former
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    (first,) = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert first.splitlines()[0].split("#")[0].replace('"', "'").replace(" ", "") == "scale='published'"
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output.get("evalue") for output in outputs if output.output_type == "error"]
    counts = [cell.execution_count for cell in cells]
    assert counts in (list(range(1, len(counts) + 1)), [None] * len(counts))
    assert max(len(cell.source.splitlines()) for cell in cells) <= 25


REAL = Path(__file__).resolve().parents[1]
NAME = "03_1_efficient_classification"
KEPT = ("config.json", "metrics.csv", "per_image.safetensors", "weights.safetensors")


def run_files(project: Path) -> dict[str, bytes]:
    paths = sorted((project / "data" / "runs").glob("*/*"))
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in paths if path.name in KEPT}


def complete(project: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (project / "data" / "runs").glob("*/metrics.csv")}


def kernels_of(project: Path) -> list[int]:
    """Processes that work in a project: a kernel has a session of its own and outlives its parent."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"DCNAS_ROOT={project}\0".encode() in path.read_bytes():
                pids.append(int(path.parent.name))
    return pids


def study(project: Path) -> tuple[list[str], dict]:
    """A command in a project folder, and its environment."""
    (project / "data").mkdir(parents=True)
    for part in ("paper", "published", "latency", "weights", "scales.toml"):
        (project / "data" / part).symlink_to(REAL / "data" / part)
    (project / "notebooks").mkdir()
    shutil.copy(REAL / "notebooks" / f"{NAME}.ipynb", project / "notebooks")
    folders = {"DCNAS_ROOT": project, "DCNAS_DOWNLOADS": downloads_dir(), "PYTHONPATH": REAL / "lib"}
    folders["DCNAS_RUNS"] = project / "data" / "runs"
    environment = os.environ | {name: str(path) for name, path in folders.items()}
    return [sys.executable, "-m", "dcnas.cli", "study", NAME, "--scale", "smoke"], environment


@pytest.mark.slow
def test_a_notebook_killed_in_the_middle_goes_on(tmp_path, mnist):
    project, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    killed = study(project)
    first = subprocess.Popen(killed[0], env=killed[1], stderr=subprocess.DEVNULL)
    while len(complete(project)) < 3:
        assert first.poll() is None
        time.sleep(0.02)
    for pid in {first.pid, *kernels_of(project)}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    first.wait()
    assert not (project / "out" / "smoke" / f"{NAME}.ipynb").exists()
    before = complete(project)
    for command, environment in (killed, study(undisturbed)):
        subprocess.run(command, env=environment, check=True, capture_output=True)
    assert 3 <= len(before) < len(complete(project)) and before.items() <= complete(project).items()
    assert len(run_files(project)) > 20 and run_files(project) == run_files(undisturbed)
