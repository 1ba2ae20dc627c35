"""The queue: takes the most useful unfinished runs, several at a time, until all are done or the time is
up.

Workers are processes of this machine, or tasks of a Ray cluster whose machines share the runs' folder:
the same interface, that of a pool. They agree through the runs' locks alone, so several queues may work
on the same runs; a worker that dies loses nothing but its last seconds. What measures latency goes
alone, after what it needs.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tqdm.auto import tqdm

from ..data.mnist import load_mnist
from ..errors import InputError
from ..latency.measure import check_device
from .derivation import derive
from .kinds import Derivation, Named, Run
from .runs import needs, obtain
from .store import is_complete, is_published

RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",
}  # nothing is sent to its makers; busy machines are slow


def run_queue(
    listed: list[Named],
    *,
    minutes: float | None = None,
    jobs: int | None = None,
    device: str = "cpu",
    progress: bool = True,
    engine: str = "local",
    address: str | None = None,
    skip_published: bool = True,
) -> int:
    """Complete runs in their order, `jobs` at once, for at most `minutes`. Returns how many are
    unfinished.

    Without `jobs` one at a time here, and on Ray as many as the cluster at `address` has cores, or GPUs
    where `device` is cuda. Runs whose results are published count as complete. What a run raises ends
    the queue, once the others of its wave are done.
    """
    check_device(device)
    listed = [run for run in listed if not (skip_published and is_published(run))]
    if any(isinstance(run, Run) and run.task != "photographs" for run in listed):
        load_mnist()  # once, before the workers ask for it all together
    # other machines have other monotonic clocks
    ends = None if minutes is None else time.time() + 60 * minutes
    bar = tqdm(total=len(listed), desc="queue", unit="run", disable=not progress, dynamic_ncols=True)
    with bar, _pool(engine, address, jobs, device) as pool:
        for wave in waves(listed):
            if isinstance(
                wave[0], Derivation
            ):  # here and alone; what a deadline has kept their searches from, they lack
                derive([run for run in wave if needs(run) is None or is_complete(needs(run))], progress)
                continue
            for _ in pool.imap_unordered(partial(_carry_out, device=device, ends=ends), wave):
                bar.update(sum(map(is_complete, listed)) - bar.n)
        bar.update(sum(map(is_complete, listed)) - bar.n)
    return sum(not is_complete(run) for run in listed)


def waves(listed: list[Named]) -> list[list[Named]]:
    """Runs that may go side by side: what derivations need, then these, whose networks are measured,
    then the rest.
    """
    derived = {d.name: d for run in listed for d in (run, needs(run)) if isinstance(d, Derivation)}
    first = {s.name: s for d in derived.values() if (s := needs(d)) is not None}
    rest = [run for run in listed if run.name not in derived and run.name not in first]
    needed = {n.name: n for run in rest if (n := needs(run)) is not None and n.name not in derived}
    rest = [run for run in rest if run.name not in needed]
    return [wave for wave in ([*first.values()], [*derived.values()], [*needed.values()], rest) if wave]


def _carry_out(run: Named, device: str, ends: float | None) -> bool:
    """A run in a worker; False if the time was up, or another process has it."""
    left = 0.0 if ends is None else ends - time.time()
    if left < 0:
        return False
    deadline = None if ends is None else time.monotonic() + left
    return obtain(run, device=device, progress=False, deadline=deadline, wait=False)


@contextmanager
def _pool(engine: str, address: str | None, jobs: int | None, device: str) -> Iterator:
    """A pool of processes here, or of a Ray cluster."""
    if engine == "local":
        if address is not None:
            raise InputError(
                f"address is {address!r}, but the engine is local, which has none; add --engine ray."
            )
        with multiprocessing.get_context("spawn").Pool(
            jobs or 1, _end_with_parent
        ) as pool:  # CUDA does not survive a fork
            yield pool
        return
    if engine != "ray":
        raise InputError(f"engine is {engine!r}, but local or ray was expected.")
    os.environ.update(RAY | os.environ)
    try:
        import ray
        from ray.util.multiprocessing import Pool
    except ImportError:
        raise InputError(
            "engine is 'ray', but Ray is not installed here; in the project's folder, "
            "`pip install -e '.[ray]'` does that."
        ) from None
    try:
        ray.init(address or "local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray's own kinds, among them the bare Exception
        raise InputError(
            f"address is {address!r}, but Ray cannot work there: {str(error).splitlines()[-1]}"
        ) from None
    try:
        kind = "GPU" if device.startswith("cuda") else "CPU"
        if not (count := int(ray.cluster_resources().get(kind, 0))):
            raise InputError(f"device is {device!r}, but no machine of the Ray cluster offers a {kind}.")
        with Pool(
            jobs or count, ray_remote_args={"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}
        ) as pool:
            yield pool
    finally:
        ray.shutdown()


def _end_with_parent() -> None:
    """End this worker when the queue was killed: nobody would know that it goes on. Its checkpoint is
    seconds old.

    Ctrl-C is the parent's: it ends its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
