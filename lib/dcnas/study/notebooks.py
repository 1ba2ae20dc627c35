"""Running the numbered notebooks with papermill: strict parameters, executed copies apart, nothing half
written. Papermill alone runs on with a misspelt parameter and calls a killed kernel completed.
"""

import ast
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import papermill
from papermill.exceptions import PapermillExecutionError

from ..errors import InputError
from ..paths import executed_dir, figures_dir, notebooks_dir, shown
from .scales import PUBLISHED_SCALES

OWN_NETWORK = "own_network.ipynb"  # the report of a reader's own network, which is no part of the study
DEFAULTS = {("scale", "published"), ("device", "cpu")}  # of the notebooks' parameters


class StudyFailed(RuntimeError):
    """Some notebooks did not run to their end."""


def notebook_paths(names: Sequence[str] = ()) -> list[Path]:
    """The study's notebooks in reading order, or those whose names begin with one of `names`."""
    paths = [path for path in notebooks_dir().glob("*.ipynb") if path.name != OWN_NETWORK]
    paths.sort(key=lambda path: (not path.stem[0].isdigit(), path.stem))  # the appendices last
    for name in names:
        if not any(path.name.startswith(name) for path in paths):
            known = ", ".join(path.stem for path in paths)
            raise InputError(f"notebook is {name!r}, but the beginning of one of {known} was expected.")
    return [path for path in paths if not names or path.name.startswith(tuple(names))]


def check_parameters(source: Path, parameters: Mapping[str, object]) -> None:
    """`InputError` for a parameter that the notebook lacks, or a value of another type than its own."""
    known = papermill.inspect_notebook(str(source))
    if unknown := ", ".join(sorted(set(parameters) - set(known))):
        names = ", ".join(known) or "none"
        raise InputError(f"{source.name} has no parameter {unknown}; it has {names}.")
    for name, value in parameters.items():
        kind = type(ast.literal_eval(known[name]["default"]))
        if not isinstance(value, (int, float) if kind is float else kind):
            expected = f"a value of the type {kind.__name__} was expected"
            raise InputError(f"{name} of {source.name} is {value!r}, but {expected}.")


def execute(
    source: Path, target: Path, parameters: Mapping[str, object], *, progress: bool = True
) -> Path:
    """Run `source` with `parameters` and write the executed copy to `target`.

    An unknown parameter, an error in a cell, an early exit and a dead kernel all raise, and leave no
    file at `target` (the cells run so far stay beside it as NAME.partial.ipynb).
    """
    check_parameters(source, parameters)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # a copy of an earlier run must not pass for this one's
    partial = target.with_name(f"{target.stem}.partial.ipynb")
    how = dict(cwd=str(source.parent), kernel_name="python3", progress_bar=progress)
    how |= dict(coalesce_streams=True, extra_arguments=["--log-level=40"])
    notebook = papermill.execute_notebook(str(source), str(partial), dict(parameters), **how)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "papermill" in cell.metadata:
            if cell.metadata.papermill["status"] != "completed" or cell.execution_count is None:
                raise RuntimeError(f"{source.name}: not all of its cells ran; see {shown(partial)}.")
    os.replace(partial, target)
    return target


def run_study(
    scale: str,
    names: Sequence[str] = (),
    *,
    jobs: int = 1,
    device: str = "cpu",
    parameters: Mapping[str, object] | None = None,
) -> tuple[list[Path], dict[str, float]]:
    """Execute the notebooks at `scale` into `out/SCALE`; the figure and table files they wrote, and
    seconds by notebook. `StudyFailed`, when all are through, if some failed.

    At the scales that are published one after the other: latency is not measured while others train.
    """
    changes = {"scale": scale, "device": device, **(parameters or {})}
    # a default injects no cell
    changes = {name: value for name, value in changes.items() if (name, value) not in DEFAULTS}
    paths, begun, seconds, failures = notebook_paths(names), time.time(), {}, []
    for path in paths:
        check_parameters(path, changes)

    def run(path: Path) -> None:
        start = time.monotonic()
        try:
            execute(path, executed_dir(scale) / path.name, changes)
        except PapermillExecutionError as error:  # the other notebooks go on
            failures.append(f"{path.stem}: {error.ename}: {error.evalue}".strip())
        except (RuntimeError, InputError) as error:
            failures.append(f"{path.stem}: {error}")
        seconds[path.stem] = time.monotonic() - start

    with ThreadPoolExecutor(1 if scale in PUBLISHED_SCALES else jobs) as pool:
        list(pool.map(run, paths))
    if failures:
        copies = f"{shown(executed_dir(scale))}/*.partial.ipynb"
        raise StudyFailed(
            f"{len(failures)} of {len(seconds)} notebooks failed; their cells up to there are in "
            f"{copies}. {'; '.join(sorted(failures))}"
        )
    written = [path for path in figures_dir(scale).glob("*.*") if path.stat().st_mtime >= begun - 1]
    return sorted(written), seconds
