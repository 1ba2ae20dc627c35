"""Running the numbered notebooks with papermill: strict parameters, executed copies apart, nothing half written.

papermill by itself runs on with a misspelt parameter, calls a killed kernel completed, and starts in the caller's folder.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import InputError, require_choice, require_whole
from ..paths import executed_dir, figures_dir, notebooks_dir, shown
from .presets import PUBLISHED_SCALES, SCALES


class StudyFailed(RuntimeError):
    """Some notebooks did not run to their end."""


def notebook_paths(names: Sequence[str] = ()) -> list[Path]:
    """The notebooks in reading order, or those whose names begin with one of `names`; `InputError` for a name without one."""
    everything = sorted(notebooks_dir().glob("*.ipynb"), key=_reading_order)
    if not names:
        return everything
    chosen = {name: [path for path in everything if path.name.startswith(name)] for name in names}
    for name, paths in chosen.items():
        if not paths:
            known = ", ".join(path.stem for path in everything)
            raise InputError(f"notebook is {name!r}, but the beginning of one of {known} was expected.")
    return [path for path in everything if any(path in paths for paths in chosen.values())]


def _reading_order(path: Path) -> tuple[bool, str]:
    """Numbered sections first, then the appendices A, B, C."""
    return (not path.stem[0].isdigit(), path.stem)


def execute(source: Path, target: Path, parameters: dict, *, progress: bool = True) -> Path:
    """Run `source` with `parameters` and write the executed copy to `target`.

    An unknown parameter, an error in a cell, an early exit and a dead kernel all raise, and leave no file at `target`
    (the cells run so far stay beside it as NAME.partial.ipynb).
    """
    import papermill  # here, because it takes a second to import

    known = papermill.inspect_notebook(str(source))
    if unknown := sorted(set(parameters) - set(known)):
        raise InputError(f"{source.name} has no parameter {', '.join(unknown)}; it has {', '.join(known) or 'none'}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # a copy of an earlier run must not pass for this one's
    partial = target.with_name(f"{target.stem}.partial.ipynb")
    notebook = papermill.execute_notebook(
        str(source), str(partial), parameters, cwd=str(source.parent), kernel_name="python3", progress_bar=progress,
        coalesce_streams=True, extra_arguments=["--log-level=40"],
    )  # fmt: skip
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and "papermill" in cell.metadata]
    left = [cell for cell in cells if cell.metadata.papermill["status"] != "completed" or cell.execution_count is None]
    if left:
        raise RuntimeError(f"{source.name}: {len(left)} of {len(cells)} cells did not run; see {shown(partial)}.")
    os.replace(partial, target)
    return target


def run_study(
    scale: str, names: Sequence[str] = (), *, jobs: int = 1, progress: bool = True, device: str = "cpu"
) -> tuple[list[Path], dict[str, float]]:
    """Execute the notebooks at `scale` into `out/SCALE`; the figure and table files they wrote, and seconds by notebook.

    `StudyFailed`, when all are through, if some failed.

    At the scales that are published one after the other, because latency is not measured while something else trains.
    """
    from papermill.exceptions import PapermillExecutionError  # here, because it takes a second to import

    require_choice("scale", scale, SCALES)
    require_whole("jobs", jobs)
    jobs = 1 if scale in PUBLISHED_SCALES else jobs
    begun = time.time()
    seconds, failed = {}, {}

    def run(path: Path) -> None:
        start = time.monotonic()
        asked = {"scale": (scale, "published"), "device": (device, "cpu")}
        parameters = {name: value for name, (value, default) in asked.items() if value != default}  # defaults inject no cell
        try:
            execute(path, executed_dir(scale) / path.name, parameters, progress=progress)
        except (RuntimeError, InputError, PapermillExecutionError) as error:  # the other notebooks go on
            what = f"{error.ename}: {error.evalue}" if isinstance(error, PapermillExecutionError) else str(error)
            failed[path.stem] = what.strip()
        seconds[path.stem] = time.monotonic() - start

    with ThreadPoolExecutor(jobs) as pool:  # each notebook is a process of its own; threads only wait for them
        for future in [pool.submit(run, path) for path in notebook_paths(names)]:
            future.result()
    if failed:
        what = "; ".join(f"{stem}: {failed[stem]}" for stem in sorted(failed))
        raise StudyFailed(
            f"{len(failed)} of {len(seconds)} notebooks failed; their cells up to there are in "
            f"{shown(executed_dir(scale))}/*.partial.ipynb. {what}"
        )
    figures = figures_dir(scale)
    written = sorted(path for path in figures.glob("*.*") if path.stat().st_mtime >= begun - 1) if figures.exists() else []
    return written, seconds
