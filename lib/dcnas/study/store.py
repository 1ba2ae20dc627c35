"""The run store: a folder for each run, named by its hash, filled once, continued after any kill.

`run.json` (the run), `history.csv` (a row per validation), `weights.safetensors`,
`per_image.safetensors` (metrics of each test image), `samples.safetensors` (outputs of the first test
images), `provenance.json` and, last of all, `metrics.csv` (a row per noise level): where it stands, the
run is complete. What is published is found by label, scale and seed; its runs' names are opaque keys.
"""

import json
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save
from torch import Tensor

from .. import __version__
from ..errors import InputError
from ..latency.measure import device_name
from ..nas.space import Architecture, from_record, load_architecture
from ..paths import published_dir, root, runs_dir, shown, write_atomic
from ..training import Settings
from .kinds import Derivation, Filter, Named, Run, Search

FILES = {Search: "section4_searches", Derivation: "section4_derivations", Filter: "section2"}


def folder_of(run: Named) -> Path:
    """The run's folder."""
    return runs_dir() / run.name


def run_named(name: str) -> Run | Search:
    """A training or search of this store by its name; `InputError` where there is none."""
    path = runs_dir() / name / "run.json"
    if not path.exists():
        raise InputError(f"{shown(path.parent)} is missing: the network was made in another store.")
    record = json.loads(path.read_text())
    fields = record["run"]
    if record["kind"] == "Search":
        return Search(**fields | {"strides": tuple(fields["strides"])})
    return Run(**fields | {"train": Settings(**fields["train"])})


def is_complete(run: Named) -> bool:
    """Whether the run has ended with all its files."""
    return (folder_of(run) / "metrics.csv").exists()


@contextmanager
def hold(run: Named, wait: bool = True, progress: bool = True) -> Iterator[bool]:
    """The run for this process alone; False with `wait=False` where another process has it.

    The system frees the lock when its process dies, however it dies.
    """
    folder = folder_of(run)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            yield False
            return
        if progress:
            print(f"{run.title}: another process is training it; waiting for it to end.", flush=True)
        lock.acquire()
    try:
        for part in folder.glob(".*.part"):  # what a killed process left of its last file
            part.unlink()
        if not is_complete(run):
            record = {"kind": type(run).__name__, "title": run.title, "run": asdict(run)}
            write_atomic(folder / "run.json", json.dumps(record, indent=1))
        yield True
    finally:
        lock.release()


# ---- published runs


def file_of(run: Named) -> str:
    """The file in data/published that has the results of such runs."""
    if isinstance(run, Run):
        return "section4" if run.task == "photographs" else "section3"
    return FILES[type(run)]


def key_of(run: Named) -> tuple:
    """By which a published run is found; of a derivation also what was derived."""
    derived = (run.network, run.random_seed) if isinstance(run, Derivation) else ()
    return (run.label, run.scale, run.seed, *derived)


def published_name(run: Named) -> str | None:
    """The name of the run's results in data/published; None where they are not published."""
    path = published_dir() / f"{file_of(run)}.csv"
    return _names(path, path.stat().st_mtime_ns).get(key_of(run)) if path.exists() else None


@lru_cache(maxsize=8)
def _names(path: Path, _changed: int) -> dict[tuple, str]:
    rows = pd.read_csv(path, dtype={"run": str}).drop_duplicates("run")
    columns = [name for name in ("label", "scale", "seed", "network", "random_seed") if name in rows]
    keys = rows[columns if "random_seed" in rows else columns[:3]].astype(object)
    keys = keys.where(keys.notna(), None).itertuples(index=False, name=None)
    return dict(zip(keys, rows["run"]))


def is_published(run: Named) -> bool:
    """Whether the results of a run are published, so that a queue need not repeat it."""
    return published_name(run) is not None


def architecture_of(source: Search | Derivation) -> Architecture:
    """What a search or a derivation ended in: from its folder, else the published one."""
    here = (folder_of(source) / "architecture.json").exists()
    return architecture_named(source.name if here else published_name(source))


def architecture_named(name: str) -> Architecture:
    """What the search or derivation of that name ended in."""
    path = runs_dir() / name / "architecture.json"
    return load_architecture(path) if path.exists() else from_record(published_architectures()[name])


@lru_cache(maxsize=1)
def published_architectures() -> dict[str, dict]:
    """Name to architecture, of all published searches and derivations."""
    return json.loads((published_dir() / "section4_architectures.json").read_text())


# ---- files of a run


def write_per_image(metrics: dict[str, Tensor], folder: Path) -> None:
    """Write the metrics of each test image, in half precision."""
    compact = {
        name: t.to(torch.uint8) if t.dtype == torch.bool else t.half() for name, t in metrics.items()
    }
    write_atomic(folder / "per_image.safetensors", save(contiguous(compact)))


def finish(folder: Path, device: torch.device, metrics: list[dict], record: dict) -> None:
    """Write a run's last files: where and how it was made, then its metrics."""
    record = {
        "device": device_name(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "dcnas": __version__,
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    } | record
    if (folder / "history.csv").exists():
        record["train_s"] = float(pd.read_csv(folder / "history.csv")["seconds"].iloc[-1])
    write_atomic(folder / "provenance.json", json.dumps(record, indent=1))
    write_atomic(folder / "metrics.csv", to_csv(metrics))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; none where it is missing."""
    return load_file(path) if path.exists() else {}


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them: on the CPU, without gaps."""
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


def to_csv(rows: list[dict]) -> str:
    """Rows as CSV text; floats as Python prints them, which read back as the same bits."""
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def require_commit() -> None:
    """`InputError` if the library differs from the commit: nobody could make its results again."""
    if commit().endswith("+"):
        raise InputError("lib has changes that are not committed; commit first, or add --changed-tree.")


@lru_cache(maxsize=1)
def commit() -> str:
    """The checkout's commit, with a + where the library differs from it; "unknown" without git."""
    git, how = ["git", "-C", str(root())], dict(capture_output=True, text=True, check=True)
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], **how).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "lib"], **how).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + "+" * bool(changed)
