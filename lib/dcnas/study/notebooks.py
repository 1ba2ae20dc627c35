"""Running the numbered notebooks with papermill: strict parameters, executed copies apart, nothing half
written.

papermill by itself runs on with a misspelt parameter, calls a killed kernel completed, and starts in the
caller's folder.
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
    """The study's notebooks in reading order, or those whose names begin with one of `names`, each of
    which must exist.
    """
    paths = [path for path in notebooks_dir().glob("*.ipynb") if path.name != OWN_NETWORK]
    # numbered sections before the appendices
    paths.sort(key=lambda path: (not path.stem[0].isdigit(), path.stem))
    for name in names:
        if not any(path.name.startswith(name) for path in paths):
            known = ", ".join(path.stem for path in paths)
            raise InputError(f"notebook is {name!r}, but the beginning of one of {known} was expected.")
    return [path for path in paths if not names or path.name.startswith(tuple(names))]


def check_parameters(source: Path, parameters: Mapping[str, object]) -> None:
    """`InputError` for a parameter that the notebook does not have, or a value of another type than its
    default's.
    """
    known = papermill.inspect_notebook(str(source))
    if unknown := sorted(set(parameters) - set(known)):
        raise InputError(
            f"{source.name} has no parameter {', '.join(unknown)}; it has {', '.join(known) or 'none'}."
        )
    for name, value in parameters.items():
        default = ast.literal_eval(known[name]["default"])
        kinds = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, kinds):
            kind = type(default).__name__
            raise InputError(
                f"{name} of {source.name} is {value!r}, but a value of the type {kind} was expected."
            )


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
    notebook = papermill.execute_notebook(
        str(source),
        str(partial),
        dict(parameters),
        cwd=str(source.parent),
        kernel_name="python3",
        progress_bar=progress,
        coalesce_streams=True,
        extra_arguments=["--log-level=40"],
    )
    cells = [
        cell for cell in notebook.cells if cell.cell_type == "code" and "papermill" in cell.metadata
    ]
    left = [
        cell
        for cell in cells
        if cell.metadata.papermill["status"] != "completed" or cell.execution_count is None
    ]
    if left:
        raise RuntimeError(
            f"{source.name}: {len(left)} of {len(cells)} cells did not run; see {shown(partial)}."
        )
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
    seconds by notebook.

    `parameters`: others of the notebooks' parameters, which all of them must have. `StudyFailed`, when
    all are through, if some failed. At the scales that are published one after the other: latency is not
    measured while others train.
    """
    changes = {"scale": scale, "device": device, **(parameters or {})}
    # which inject no cell
    changes = {name: value for name, value in changes.items() if (name, value) not in DEFAULTS}
    paths = notebook_paths(names)
    for path in paths:
        check_parameters(path, changes)
    begun = time.time()
    seconds, failures = {}, {}

    def run(path: Path) -> None:
        start = time.monotonic()
        try:
            execute(path, executed_dir(scale) / path.name, changes)
        except PapermillExecutionError as error:  # the other notebooks go on
            failures[path.stem] = f"{error.ename}: {error.evalue}".strip()
        except (RuntimeError, InputError) as error:
            failures[path.stem] = str(error).strip()
        seconds[path.stem] = time.monotonic() - start

    # a notebook is a process of its own
    with ThreadPoolExecutor(1 if scale in PUBLISHED_SCALES else jobs) as pool:
        list(pool.map(run, paths))
    if failures:
        reasons = "; ".join(f"{stem}: {failures[stem]}" for stem in sorted(failures))
        raise StudyFailed(
            f"{len(failures)} of {len(seconds)} notebooks failed; their cells up to there are in "
            f"{shown(executed_dir(scale))}/*.partial.ipynb. {reasons}"
        )
    written = [path for path in figures_dir(scale).glob("*.*") if path.stat().st_mtime >= begun - 1]
    return sorted(written), seconds
