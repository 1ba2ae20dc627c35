"""The queue's engine for several machines: each run is a task of a Ray cluster, whose machines need not share a disk.

A task carries out its run in the runs' folder of the machine that it lands on and returns the record's files, which this process,
the driver, writes into its own store. Records that a run needs are sent along; published ones are in every machine's checkout. Ray
repeats a task whose worker or machine dies. What measures latency stays here, while no task is out. Ray is imported only here.
"""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from ..errors import InputError, require_choice
from ..paths import runs_dir, write_atomic
from ..training import checkpoint as checkpoints
from .experiments import Experiment
from .queue import needed_by, run_wave
from .runs import folder_of, hold, is_complete, needs, obtain

RETRIES = 5  # of a run whose worker or machine dies; more is no accident
PATIENCE_S = 10.0  # for an answer from a cluster's address; Ray itself waits for many minutes
TICK_S = 0.5
SETTINGS = {  # a busy machine may take longer to start Ray than the seconds that Ray gives itself; nothing is sent to its makers
    "RAY_raylet_start_wait_time_s": "120", "RAY_agent_register_timeout_ms": "120000", "RAY_USAGE_STATS_ENABLED": "0",
}  # fmt: skip
RECORD = (".json", ".csv", ".safetensors")  # a checkpoint is nobody else's


@contextmanager
def cluster(address: str | None, device: str) -> Iterator[Callable]:
    """`run_wave` on the machines of the Ray cluster at `address`; without one, Ray starts one on this machine."""
    os.environ.update(SETTINGS | os.environ)
    try:
        import ray
    except ImportError:
        raise InputError(
            "engine is 'ray', but Ray is not installed here; in the project's folder, `pip install -e '.[ray]'` does that."
        ) from None
    require_choice("device", device, ("cpu", "cuda"))  # which of several GPUs a run gets, Ray says
    if address is not None:
        _require_answer(address)
    try:
        ray.init(address or "local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray's own kinds, among them the bare Exception
        raise InputError(f"address is {address!r}, but Ray cannot work there: {_line(error)}") from None
    try:
        kind = "GPU" if device == "cuda" else "CPU"
        if not ray.cluster_resources().get(kind):
            raise InputError(f"device is {device!r}, but no machine of the Ray cluster offers a {kind}.")
        yield partial(_run_wave, ray, kind)
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """`InputError` where nothing listens at an address of the form HOST:PORT."""
    if address == "auto":
        return
    found = re.fullmatch(r"(?:ray://)?([^/]+):(\d+)", address)
    if not found:
        raise InputError(f"address is {address!r}, but a Ray cluster's HOST:PORT, or auto, was expected.")
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"address is {address!r}, but no Ray cluster answers there ({_line(error)}).") from None


def _line(error: BaseException) -> str:
    """The last line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _run_wave(ray, kind: str, runs: list, jobs: int | None, device: str, deadline: float | None, tick: Callable) -> None:
    """Carry out a wave of the queue, each run once those that it needs are complete; `InputError` when a run failed."""
    if runs[0].measures_latency:  # here and alone; what their searches lack then, a deadline has kept from them
        ready = [run for run in runs if _is_ready(run)]
        return run_wave(ready, 1, "cpu", deadline, tick) if ready else None
    todo = {e.name: e for run in runs for e in (*needed_by(run), run) if not e.measures_latency and not is_complete(e)}
    task = ray.remote(max_retries=RETRIES)(_carry_out)
    ends = None if deadline is None else time.time() + deadline - time.monotonic()  # another machine's monotonic clock is another
    tasks, failed = {}, []
    while True:
        room = jobs or int(ray.cluster_resources().get(kind, 0))
        for run in [run for run in todo.values() if _is_ready(run)]:
            if failed or len(tasks) >= room or (deadline is not None and time.monotonic() > deadline):
                break
            share = {"num_cpus": run.threads, "num_gpus": 1 if kind == "GPU" else 0}
            tasks[task.options(name=run.title, **share).remote(todo.pop(run.name), _sent_along(run), device, ends)] = run
        if not tasks:
            break
        for done in ray.wait(list(tasks), timeout=TICK_S)[0]:
            run = tasks.pop(done)
            try:
                if record := ray.get(done):
                    _store(run, record)
            except ray.exceptions.RayError as error:  # the rest of what is out is collected first
                failed.append((run, error))
        tick()
    for run, error in failed:
        cause = getattr(error, "cause", None)  # what the run itself has raised, if it was not its worker that died
        if cause is not None and not isinstance(cause, (InputError, OSError)):
            raise error
        raise InputError(f"{run.title} failed on Ray: {_line(cause or error)}")


def _is_ready(run) -> bool:
    needed = needs(run)
    return needed is None or is_complete(needed)


def _carry_out(run, sent: tuple, device: str, ends: float | None) -> dict[str, bytes] | None:
    """The task, on any machine: the record of `run`, complete; None if the time was up before."""
    if not isinstance(run, Experiment):
        from . import section4_runs  # noqa: F401, what `needs` and `obtain` know of Section 4
    needed, (record, tables) = needs(run), sent
    if needed is not None:
        if record is None and not is_complete(needed):
            raise InputError(f"it needs {needed.title}, which is published elsewhere; all machines must have the same checkout.")
        _store(needed, record or {})
    for name, table in tables.items():
        write_atomic(runs_dir() / name, table)
    deadline = None if ends is None else time.monotonic() + ends - time.time()
    return _record(run) if obtain(run, device=device, progress=False, deadline=deadline) else None


def _sent_along(run) -> tuple[dict[str, bytes] | None, dict[str, bytes]]:
    """What another machine may lack: the record that a run needs, and the table of a search at scale smoke."""
    needed, tables = needs(run), {}
    if not isinstance(run, Experiment):
        from .section4 import Search, table_file

        if isinstance(run, Search) and table_file(run).parent == runs_dir():
            tables = {run.table: table_file(run).read_bytes()}
    return None if needed is None else _record(needed), tables


def _record(run) -> dict[str, bytes]:
    """The files of a complete run by name."""
    return {path.name: path.read_bytes() for path in folder_of(run).iterdir() if path.suffix in RECORD}


def _store(run, record: dict[str, bytes]) -> None:
    """Write a record, metrics.csv last, unless the store has the run, or gets it from another process meanwhile."""
    if is_complete(run):
        return
    with hold(run, progress=False):
        if not is_complete(run):
            for name in sorted(record, key=lambda name: name == "metrics.csv"):
                write_atomic(folder_of(run) / name, record[name])
        checkpoints.remove(folder_of(run))
