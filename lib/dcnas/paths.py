"""Where things lie, and how a file is written so that nothing is ever half written.

Every path is absolute, so notebooks and commands work from any folder. Set DCNAS_ROOT, DCNAS_DOWNLOADS
or DCNAS_RUNS to keep the project, its downloads or its runs elsewhere; relative paths are the project's.
"""

import os
import tempfile
from pathlib import Path


def root() -> Path:
    """The project folder: the checkout that this package is installed from (editable), or DCNAS_ROOT."""
    if not (value := os.environ.get("DCNAS_ROOT")):
        return Path(__file__).resolve().parents[2]
    os.environ["DCNAS_ROOT"] = os.path.abspath(os.path.expanduser(value))  # for what we start, too
    return Path(os.environ["DCNAS_ROOT"])


def folder_named(variable: str) -> Path | None:
    """The folder that a variable of the environment names, if it is set: one, wherever we are."""
    value = os.environ.get(variable)
    return root() / Path(value).expanduser() if value else None


def shown(path: Path) -> str:
    """A path for messages: relative to the project where it lies inside, so that outputs name no
    machine.
    """
    path = Path(path)
    return str(path.relative_to(root())) if path.is_relative_to(root()) else str(path)


def downloads_dir() -> Path:
    """Data sets of others, fetched once; never tracked."""
    return folder_named("DCNAS_DOWNLOADS") or root() / "data" / "downloads"


def runs_dir() -> Path:
    """One folder per run, named by the hash of its experiment; never tracked."""
    return folder_named("DCNAS_RUNS") or root() / "data" / "runs"


def paper_dir() -> Path:
    """The paper's tables as CSV files."""
    return root() / "data" / "paper"


def published_dir() -> Path:
    """The results that this study publishes: tidy CSV files, tracked."""
    return root() / "data" / "published"


def latency_dir() -> Path:
    """Measured latencies, a file per device; tracked."""
    return root() / "data" / "latency"


def weights_dir() -> Path:
    """Small trained weights for the widgets; tracked."""
    return root() / "data" / "weights"


def figures_dir(scale: str = "published") -> Path:
    """Figures and tables, written only by notebooks. Those of `published` are tracked, other scales keep
    apart.
    """
    return root() / "figures" if scale == "published" else root() / "figures" / scale


def notebooks_dir() -> Path:
    """The numbered notebooks, one per paper section."""
    return root() / "notebooks"


def executed_dir(scale: str) -> Path:
    """Executed copies of the notebooks; never tracked."""
    return root() / "out" / scale


def write_atomic(path: Path, data: bytes | str) -> Path:
    """Write `data` to `path` wholly or not at all: a temporary file beside it, flushed to the disk, then
    renamed.

    An OSError (a full disk, a read-only folder) passes through and leaves nothing behind. Names of files
    that are no UTF-8 are written with question marks.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode(errors="replace") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes private files; results are meant to be read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
