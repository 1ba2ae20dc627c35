"""The queue: takes the most useful unfinished runs, several at a time, until all are done or the time is up.

Workers of the engine `local` are processes of their own; those of `ray` are on several machines, see `engine_ray`. They agree
through the runs' locks alone, so several queues, on several machines with a shared folder, may work on the same runs; a worker
that dies loses nothing but its last seconds.
"""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from tqdm.auto import tqdm

from ..data.mnist import load_mnist
from ..errors import InputError, require_choice, require_whole
from ..latency.measure import check_device
from .experiments import Experiment
from .runs import is_complete, needs, obtain, published_runs

ENGINES = ("local", "ray")
MOST_JOBS = 256  # processes; more than any machine has cores for would only take its memory


def work(experiments: list[Experiment], device: str, deadline: float | None, progress: bool = False) -> None:
    """Go through `experiments` in order, again and again, until each is complete or another process has it.

    Those that measure latency are carried out together, all at once, and the deadline does not interrupt them.
    """
    if not all(isinstance(e, Experiment) for e in experiments):
        from .section4_runs import derive  # here: a machine for Section 3 alone may lack what it imports

        if experiments[0].measures_latency:
            return derive(experiments, device=device, progress=progress)
    left, going_on = experiments, True
    while left and going_on:
        going_on = False
        for experiment in left:
            if deadline is not None and time.monotonic() > deadline:
                return
            going_on |= obtain(experiment, device=device, progress=progress, deadline=deadline, wait=False)
        left = [e for e in left if not is_complete(e)]


def _worker(*arguments) -> None:
    """`work` in a process of its own: errors of users and of the machine in one sentence, exit status 2."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(*arguments)
    except (InputError, OSError) as error:
        sys.stderr.write(f"dcnas: {error}\n")  # in one piece: another worker may be saying the same
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _end_with_parent() -> None:
    """End this worker when the queue was killed: nobody would know that it goes on. Its checkpoint is seconds old."""
    multiprocessing.parent_process().join()
    os._exit(1)


def run_queue(
    experiments: list[Experiment], *, minutes: float | None = None, jobs: int | None = None, device: str = "cpu",
    progress: bool = True, engine: str = "local", address: str | None = None, skip_published: bool = True,
) -> int:  # fmt: skip
    """Complete `experiments` in their order, `jobs` at once, for at most `minutes`. Returns how many are unfinished.

    Without `jobs` one at a time here, and on Ray as many as the cluster at `address` has cores, or GPUs where `device` is cuda.
    Where some of them measure latency, what those need comes first, then they, one at a time, then the rest.
    Runs whose results are published already count as complete, also on a machine that does not have their folders.
    `InputError` for bad numbers, a device that is not there, or when a worker fails (the other workers go on to the end).
    """
    if jobs is not None and require_whole("jobs", jobs) > MOST_JOBS:
        raise InputError(f"jobs is {jobs}, but at most {MOST_JOBS} processes were expected.")
    if minutes is not None and not minutes > 0:
        raise InputError(f"minutes is {minutes!r}, but a time above 0 was expected.")
    published = published_runs() if skip_published else ()
    experiments = [e for e in experiments if e.name not in published]
    with _engine(engine, address, device) as run_one_wave:
        if any(isinstance(e, Experiment) for e in experiments):
            load_mnist()  # once, before the workers ask for it all together
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        with tqdm(total=len(experiments), desc="queue", unit="run", disable=not progress, dynamic_ncols=True) as bar:
            for wave, at_once in waves(experiments, jobs):
                run_one_wave(wave, at_once, device, deadline, lambda: bar.update(sum(map(is_complete, experiments)) - bar.n))
    return sum(not is_complete(e) for e in experiments)


def _engine(name: str, address: str | None, device: str) -> AbstractContextManager[Callable]:
    """What carries out a wave, as `run_wave` does, while the context lasts."""
    if require_choice("engine", name, ENGINES) == "ray":
        from .engine_ray import cluster

        return cluster(address, device)
    if address is not None:
        raise InputError(f"address is {address!r}, but the engine is local, which has none; add --engine ray.")
    check_device(device)
    return nullcontext(run_wave)


def waves(experiments: list, jobs: int | None) -> list[tuple[list, int | None]]:
    """Runs that may go side by side, with how many at once: a run that measures latency goes alone, after those that it needs."""
    measuring = list({e.name: e for run in experiments for e in [*needed_by(run), run] if e.measures_latency}.values())
    first = list({e.name: e for run in measuring for e in needed_by(run)}.values())
    early = {e.name for e in (*first, *measuring)}
    found = [(first, jobs), (measuring, 1), ([e for e in experiments if e.name not in early], jobs)]
    return [(wave, at_once) for wave, at_once in found if wave]


def needed_by(run) -> list:
    """The runs that must be complete before this one, the first of them first."""
    before = needs(run)
    return [] if before is None else [*needed_by(before), before]


def run_wave(experiments: list, jobs: int | None, device: str, deadline: float | None, tick: Callable[[], object]) -> None:
    """Carry out runs that may go side by side with processes of this machine; `tick` is called now and then."""
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    workers = [context.Process(target=_worker, args=(experiments, device, deadline)) for _ in range(jobs or 1)]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            tick()
            time.sleep(0.5)
        tick()
    except BaseException:
        for worker in workers:
            worker.terminate()
        raise
    failed = [worker.exitcode for worker in workers if worker.exitcode]
    if failed:
        raise InputError(f"{len(failed)} of {len(workers)} workers ended with exit codes {failed}; what they said stands above.")
