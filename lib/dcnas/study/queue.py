"""The queue: takes the most useful unfinished runs, several at a time, until all are done or the time is up.

Workers are processes of their own. They agree through the runs' locks alone, so several queues, on several machines with a
shared folder, may work on the same runs; a worker that dies loses nothing but its last seconds.
"""

import multiprocessing
import sys
import time

from tqdm.auto import tqdm

from ..data.mnist import load_mnist
from ..errors import InputError, require_whole
from ..latency.measure import check_device
from .experiments import Experiment
from .runs import is_complete, obtain, published_runs


def work(experiments: list[Experiment], device: str, deadline: float | None, progress: bool = False) -> None:
    """Go through `experiments` in order, again and again, until each is complete or another process has it."""
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
    try:
        work(*arguments)
    except (InputError, OSError) as error:
        print(f"dcnas: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def run_queue(
    experiments: list[Experiment], *, minutes: float | None = None, jobs: int = 1, device: str = "cpu", progress: bool = True
) -> int:
    """Complete `experiments` in their order with `jobs` processes, for at most `minutes`. Returns how many are unfinished.

    Runs whose results are published already count as complete, also on a machine that does not have their folders.
    `InputError` for bad numbers, a device that is not there, or when a worker fails (the other workers go on to the end).
    """
    require_whole("jobs", jobs)
    if minutes is not None and not minutes > 0:
        raise InputError(f"minutes is {minutes!r}, but a time above 0 was expected.")
    check_device(device)
    published = published_runs()
    experiments = [e for e in experiments if e.name not in published]
    load_mnist(progress=progress)  # once, before the workers ask for it all together
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    workers = [context.Process(target=_worker, args=(experiments, device, deadline)) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    try:
        with tqdm(total=len(experiments), desc="queue", unit="run", disable=not progress, dynamic_ncols=True) as bar:
            while any(worker.is_alive() for worker in workers):
                bar.update(sum(map(is_complete, experiments)) - bar.n)
                time.sleep(0.5)
            bar.update(sum(map(is_complete, experiments)) - bar.n)
    except BaseException:
        for worker in workers:
            worker.terminate()
        raise
    failed = [worker.exitcode for worker in workers if worker.exitcode]
    if failed:
        raise InputError(f"{len(failed)} of {jobs} workers ended with exit codes {failed}; what they said stands above.")
    return sum(not is_complete(e) for e in experiments)
