"""Running notebooks strictly, and the form of the notebooks of the study."""

import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from dcnas.errors import InputError
from dcnas.study import notebooks
from dcnas.study.notebooks import execute, notebook_paths, run_study

PARAMETERS = "scale = 'published'  # which results\ndevice = 'cpu'\nseed = 0  # whole number"
STUDY = notebook_paths()


def write(path: Path, *cells: str, parameters: str | None = PARAMETERS) -> Path:
    """A notebook with a parameters cell and `cells`; its kernel has a name that exists nowhere else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first = [] if parameters is None else [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    notebook = new_notebook(cells=first + [new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {
        "name": "kernel-of-another-machine",
        "display_name": "x",
        "language": "python",
    }
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """An empty project folder."""
    monkeypatch.setenv("DCNAS_ROOT", str(tmp_path))
    return tmp_path


# the strict wrapper


def test_a_notebook_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    source = write(
        tmp_path / "a" / "book.ipynb", "import pathlib; print(scale, seed, pathlib.Path.cwd())"
    )
    before = source.read_bytes()
    target = tmp_path / "out" / "book.ipynb"
    assert execute(source, target, {"scale": "smoke"}, progress=False) == target
    cells = nbformat.read(target, 4).cells
    # in the notebook's folder, whatever the caller's
    assert cells[-1].outputs[0].text == f"smoke 0 {source.parent}\n"
    assert [p.name for p in target.parent.iterdir()] == ["book.ipynb"] and source.read_bytes() == before


BAD = {
    "a failing cell": "1 / 0",
    "an early exit": "import sys; sys.exit(0)",
    "an exit with an error": "import sys; sys.exit(3)",
    "a killed kernel": "import os; os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("what", BAD)
def test_what_does_not_run_to_the_end_leaves_no_file(tmp_path, what):
    source, target = (
        write(tmp_path / "book.ipynb", BAD[what], "print('more')"),
        tmp_path / "out" / "book.ipynb",
    )
    write(target, "print('of an earlier run')")
    with pytest.raises(Exception) as told:
        execute(source, target, {"seed": 1}, progress=False)
    assert not isinstance(told.value, InputError | AssertionError)
    assert not target.exists()


@pytest.mark.parametrize("what", ["an early exit", "a killed kernel"])
def test_nor_does_one_that_ends_in_its_last_cell(tmp_path, what):
    source, target = write(tmp_path / "book.ipynb", BAD[what]), tmp_path / "out" / "book.ipynb"
    with pytest.raises(Exception) as told:
        execute(source, target, {}, progress=False)
    assert not isinstance(told.value, AssertionError) and not target.exists()


def test_unknown_parameters_are_refused(tmp_path):
    source, target = write(tmp_path / "book.ipynb", "open('ran', 'w')"), tmp_path / "out" / "book.ipynb"
    with pytest.raises(
        InputError, match="book.ipynb has no parameter sacle, sed; it has scale, device, seed"
    ):
        execute(source, target, {"sacle": "smoke", "sed": 1, "seed": 2}, progress=False)
    bare = write(tmp_path / "bare.ipynb", "1", parameters=None)
    with pytest.raises(InputError, match="bare.ipynb has no parameter scale; it has none"):
        execute(bare, target, {"scale": "smoke"}, progress=False)
    with pytest.raises(
        InputError, match="seed of book.ipynb is 'one', but a value of the type int was expected"
    ):
        execute(source, target, {"seed": "one"}, progress=False)
    assert not target.exists() and not (tmp_path / "ran").exists()


# the study


def test_reading_order_and_choice(project):
    for name in (
        "B_search",
        "03_2_denoise",
        "A_details",
        "01_introduction",
        "03_1_classify",
        "own_network",
    ):
        write(project / "notebooks" / f"{name}.ipynb")
    everything = ["01_introduction", "03_1_classify", "03_2_denoise", "A_details", "B_search"]
    assert [path.stem for path in notebook_paths()] == everything
    assert [path.stem for path in notebook_paths(["A", "03"])] == everything[1:4]
    with pytest.raises(
        InputError,
        match="notebook is '04', but the beginning of one of 01_introduction, .* was expected",
    ):
        notebook_paths(["01", "04"])


def test_run_study(project, monkeypatch):
    calls = []

    def fake(source, target, parameters):
        calls.append((source.name, target, parameters))
        for folder in ("figures", "figures/smoke"):
            (project / folder).mkdir(parents=True, exist_ok=True)
            (project / folder / f"{source.stem}.png").write_text("")

    monkeypatch.setattr(notebooks, "execute", fake)
    for name in ("02", "01"):
        write(project / "notebooks" / f"{name}.ipynb")
    written, seconds = run_study("smoke", jobs=2, device="cuda:1")
    parameters = {"scale": "smoke", "device": "cuda:1"}
    assert sorted(calls) == [
        (f"{n}.ipynb", project / "out" / "smoke" / f"{n}.ipynb", parameters) for n in ("01", "02")
    ]
    assert written == [project / "figures" / "smoke" / f"{n}.png" for n in ("01", "02")]
    assert set(seconds) == {"01", "02"}
    calls.clear()
    run_study("published", ["02"], parameters={"seed": 3})
    # defaults inject no cell
    assert calls == [("02.ipynb", project / "out" / "published" / "02.ipynb", {"seed": 3})]
    with pytest.raises(InputError, match="01.ipynb has no parameter sed"):
        run_study("published", parameters={"sed": 3})
    assert len(calls) == 1


def test_where_latency_counts_notebooks_run_one_after_the_other(project, monkeypatch):
    at_work, most = [], []

    def fake(source, *_, **__):
        at_work.append(source)
        most.append(len(at_work))
        time.sleep(0.05)
        at_work.remove(source)

    monkeypatch.setattr(notebooks, "execute", fake)
    for name in ("01", "02", "03"):
        write(project / "notebooks" / f"{name}.ipynb")
    run_study("laptop", jobs=3)
    assert max(most) == 1
    run_study("smoke", jobs=3)
    assert max(most) == 3


def test_a_failing_notebook_fails_the_study(project, monkeypatch):
    def fake(source, *args, **options):
        if source.stem == "02":
            raise RuntimeError("02: 3 of 4 cells did not run")

    monkeypatch.setattr(notebooks, "execute", fake)
    for name in ("01", "02", "03"):
        write(project / "notebooks" / f"{name}.ipynb")
    with pytest.raises(RuntimeError, match="3 of 4 cells did not run"):
        run_study("smoke")


# the notebooks of this repository


def code_cells(path: Path) -> list:
    return [
        cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code" and cell.source.strip()
    ]


@pytest.mark.parametrize("path", STUDY, ids=lambda path: path.stem)
class TestForm:
    def test_is_valid_and_small(self, path):
        notebook = nbformat.read(path, 4)
        nbformat.validate(notebook)
        assert path.stat().st_size < 1_000_000
        assert "widgets" not in notebook.metadata  # GitHub shows no notebook that has them
        assert "papermill" not in notebook.metadata

    def test_has_one_parameters_cell_that_starts_at_published(self, path):
        tagged = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
        assert len(tagged) == 1
        first = tagged[0].source.splitlines()[0].split("#")[0].replace('"', "'").replace(" ", "")
        assert first == "scale='published'"

    def test_has_no_errors(self, path):
        outputs = [output for cell in code_cells(path) for output in cell.outputs]
        assert not [output.get("evalue") for output in outputs if output.output_type == "error"]

    def test_was_executed_once_from_top_to_bottom_or_not_at_all(self, path):
        counts = [cell.execution_count for cell in code_cells(path)]
        assert counts in (list(range(1, len(counts) + 1)), [None] * len(counts))

    def test_has_short_cells(self, path):
        long = [
            cell.source.splitlines()[0]
            for cell in code_cells(path)
            if len(cell.source.splitlines()) > 25
        ]
        assert not long
