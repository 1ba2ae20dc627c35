"""The queue: carries unfinished runs out in order, several at a time, until all are done or time is up.

Workers are processes of this machine, or tasks of a Ray cluster whose machines share the runs' folder.
They agree through the runs' locks alone, so several queues may work on the same runs; a worker that
dies loses nothing but its last seconds. What measures latency goes alone, after what it needs.
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

# nothing is sent to its makers; busy machines are slow
RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}


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
    """Complete runs in their order, `jobs` at once, for at most `minutes`; how many are unfinished.

    Without `jobs` one at a time here, and on Ray as many as the cluster at `address` has cores, or GPUs
    where `device` is cuda. What a run raises ends the queue.
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
            if isinstance(wave[0], Derivation):  # here and alone
                ready = [run for run in wave if needs(run) is None or is_complete(needs(run))]
                derive(ready, progress)
                continue
            for _ in pool.imap_unordered(partial(_carry_out, device=device, ends=ends), wave):
                bar.update(sum(map(is_complete, listed)) - bar.n)
        bar.update(sum(map(is_complete, listed)) - bar.n)
    return sum(not is_complete(run) for run in listed)


def waves(listed: list[Named]) -> list[list[Named]]:
    """Runs that may go side by side: what derivations need, then these, whose networks are measured,
    then what others need, then the rest.
    """
    derived = {d.name: d for run in listed for d in (run, needs(run)) if isinstance(d, Derivation)}
    first = {s.name: s for d in derived.values() if (s := needs(d)) is not None}
    rest = {run.name: run for run in listed if run.name not in derived | first}
    needed = [needs(run) for run in rest.values()]
    needed = {n.name: n for n in needed if n is not None and n.name not in derived}
    rest = {name: run for name, run in rest.items() if name not in needed}
    return [[*wave.values()] for wave in (first, derived, needed, rest) if wave]


def _carry_out(run: Named, device: str, ends: float | None) -> bool:
    """A run in a worker; False if the time was up, or another process has it."""
    left_s = 0.0 if ends is None else ends - time.time()
    if left_s < 0:
        return False
    deadline = None if ends is None else time.monotonic() + left_s
    return obtain(run, device=device, progress=False, deadline=deadline, wait=False)


@contextmanager
def _pool(engine: str, address: str | None, jobs: int | None, device: str) -> Iterator:
    """A pool of processes here, or of a Ray cluster."""
    if engine == "local":
        if address is not None:
            raise InputError(f"address is {address!r}, but the engine is local; add --engine ray.")
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        with context.Pool(jobs or 1, _end_with_parent) as pool:
            yield pool
        return
    os.environ.update(RAY | os.environ)
    try:
        import ray
        from ray.util.multiprocessing import Pool
    except ImportError:
        raise InputError(
            "engine is 'ray', but Ray is not installed: `pip install -e '.[ray]'`"
        ) from None
    try:
        ray.init(address or "local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray's own kinds, among them the bare Exception
        why = str(error).splitlines()[-1]
        raise InputError(f"address is {address!r}, but Ray cannot work there: {why}") from None
    try:
        kind = "GPU" if device.startswith("cuda") else "CPU"
        if not (count := int(ray.cluster_resources().get(kind, 0))):
            raise InputError(f"device is {device!r}, but no machine of the Ray cluster offers a {kind}.")
        with Pool(jobs or count, ray_remote_args={f"num_{kind.lower()}s": 1}) as pool:
            yield pool
    finally:
        ray.shutdown()


def _end_with_parent() -> None:
    """End this worker when the queue was killed: nobody would know that it goes on.

    Ctrl-C is the parent's: it ends its workers. A lock between processes, which tqdm would make, is
    left behind where a worker is ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(threading.RLock())

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
