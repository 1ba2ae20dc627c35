"""The run store: each run has a folder, named by its hash, that is filled once and can be continued
after any kill.

`run.json` (the run), `history.csv` (a row per validation), `weights.safetensors`,
`per_image.safetensors` (metrics of each test image), `samples.safetensors` (outputs of the first test
images), `provenance.json` (device, versions, commit, date, seconds) and, last of all, `metrics.csv` (a
row per noise level): where that file stands, the run is complete. What is published is found by label,
scale and seed; names of runs in published files are opaque keys.
"""

import csv
import io
import json
import platform
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save
from torch import Tensor, nn

from .. import __version__
from ..errors import InputError
from ..latency.measure import device_name
from ..nas.space import Architecture, from_record, load_architecture
from ..paths import published_dir, root, runs_dir, write_atomic
from ..training import parallel
from .kinds import Derivation, Filter, Named, Run, Search

SECTION_3 = ("classify", "denoise", "joint")  # tasks


def folder_of(run: Named) -> Path:
    """The run's folder."""
    return runs_dir() / run.name


def is_complete(run: Named) -> bool:
    """Whether the run has ended with all its files."""
    return (folder_of(run) / "metrics.csv").exists()


@contextmanager
def hold(run: Named, wait: bool = True, progress: bool = True) -> Iterator[bool]:
    """The run for this process alone; False with `wait=False` where another process has it.

    The system frees the lock when its process dies, however it dies. What a killed process left of its
    last file goes.
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
        for part in folder.glob(".*.part"):
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
        return "section3" if run.task in SECTION_3 else "section4"
    return {Search: "section4_searches", Derivation: "section4_derivations", Filter: "section2"}[
        type(run)
    ]


def key_of(run: Named) -> tuple:
    """What is published of a run is found by: label, scale and seed, of a derivation also what was
    derived.
    """
    if isinstance(run, Derivation):
        return run.label, run.scale, run.seed, run.network, run.random_seed
    return run.label, run.scale, run.seed


def keys_in(name: str) -> dict[tuple, str]:
    """The keys of a published file's runs, and the names under which they stand there (read without
    pandas).
    """
    path = published_dir() / f"{name}.csv"
    return _keys(path, path.stat().st_mtime_ns) if path.exists() else {}


@lru_cache(maxsize=8)
def _keys(path: Path, _changed: int) -> dict[tuple, str]:
    keys = {}
    for row in read_rows(path):
        key = row["label"], row["scale"], int(row["seed"])
        if "random_seed" in row:
            key += row["network"], int(float(row["random_seed"])) if row["random_seed"] else None
        keys[key] = row["run"]
    return keys


def is_published(run: Named) -> bool:
    """Whether the results of a run are published, so that a queue need not repeat it."""
    return key_of(run) in keys_in(file_of(run))


def architecture_of(source: Search | Derivation) -> Architecture:
    """The architecture that a search or a derivation ended in: from its folder, else the published
    one.
    """
    path = folder_of(source) / "architecture.json"
    if path.exists():
        return load_architecture(path)
    records = json.loads((published_dir() / "section4_architectures.json").read_text())
    return from_record(records[keys_in(file_of(source))[key_of(source)]])


# ---- files of a run


def write_trained(model: nn.Module, history: list[dict], folder: Path) -> None:
    """Write what a training ends in; of several processes the first does."""
    if parallel.is_first():
        write_atomic(folder / "history.csv", to_csv(history))
        write_atomic(folder / "weights.safetensors", save(contiguous(model.state_dict())))


def write_per_image(metrics: dict[str, Tensor], folder: Path) -> None:
    """Write the metrics of each test image, in half precision."""
    compact = {
        name: t.to(torch.uint8) if t.dtype == torch.bool else t.half() for name, t in metrics.items()
    }
    write_atomic(folder / "per_image.safetensors", save(contiguous(compact)))


def finish(folder: Path, device: torch.device, metrics: list[dict], record: dict) -> None:
    """Write a run's last files: where and how it was made, with the seconds of its history, then its
    metrics.
    """
    record = provenance(device) | record
    if (folder / "history.csv").exists():
        record["train_s"] = float(read_rows(folder / "history.csv")[-1]["seconds"])
    write_atomic(folder / "provenance.json", json.dumps(record, indent=1))
    write_atomic(folder / "metrics.csv", to_csv(metrics))


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, as text (without pandas)."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; none where it is missing."""
    return load_file(path) if path.exists() else {}


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them: on the CPU, without gaps."""
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


def to_csv(rows: Iterable[dict]) -> str:
    """Rows of equal keys as CSV text; floats as Python prints them, so that they read back as the same
    bits.
    """
    rows, buffer = list(rows), io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def provenance(device: torch.device) -> dict:
    """Where and with what a result was made."""
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "dcnas": __version__,
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def require_commit() -> None:
    """`InputError` if the library differs from the commit: nobody could make its results again."""
    if commit().endswith("+"):
        raise InputError(
            "lib has changes that are not committed, so results would name a commit that did not make "
            "them; commit first, or add "
            "--changed-tree."
        )


@lru_cache(maxsize=1)
def commit() -> str:
    """The checkout's commit, with a + where the library differs from it; "unknown" without git."""

    def git(*command: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root()), *command], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "lib") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
