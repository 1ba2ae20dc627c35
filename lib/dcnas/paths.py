"""Where things lie, and how a file is written so that nothing is ever half written.

Every path is absolute, so notebooks and commands work from any folder. Set DCNAS_ROOT, DCNAS_DOWNLOADS
or DCNAS_RUNS to keep the project, its downloads or its runs elsewhere.
"""

import os
import tempfile
from pathlib import Path


def root() -> Path:
    """The project folder: the checkout that this package is installed from (editable), or DCNAS_ROOT."""
    return Path(os.environ.get("DCNAS_ROOT") or Path(__file__).resolve().parents[2])


def shown(path: Path) -> str:
    """A path for messages: relative to the project where it lies inside, so that outputs name no
    machine.
    """
    path = Path(path)
    return str(path.relative_to(root())) if path.is_relative_to(root()) else str(path)


def downloads_dir() -> Path:
    """Data sets of others, fetched once; never tracked."""
    return Path(os.environ.get("DCNAS_DOWNLOADS") or root() / "data" / "downloads")


def runs_dir() -> Path:
    """One folder per run, named by the hash of its experiment; never tracked."""
    return Path(os.environ.get("DCNAS_RUNS") or root() / "data" / "runs")


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

    An OSError (a full disk, a read-only folder) passes through and leaves nothing behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes private files; results are meant to be read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
