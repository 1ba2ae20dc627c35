"""The run store under load: five hundred runs by four processes that are killed again and again.

The runs are of a kind of its own, so small that hashing, locks and files are all there is to them; everything else is real: the
queue's `work`, locks, checkpoints, records, processes and SIGKILL.
"""

import json
import multiprocessing
import os
import random
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from dcnas.study.experiments import Experiment

from dcnas.data.noise import SIGMAS
from dcnas.seed import generator
from dcnas.study import queue, runs
from dcnas.study.runs import finish, folder_of, is_complete, perform, read_tensors, write_per_image
from dcnas.training import checkpoint as checkpoints

RUNS, PROCESSES, KILLS = 500, 4, 30
JITTER_S = 0.02  # so that kills fall anywhere in a run
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["pytest", "dcnas.study.queue"])
LOG = "DCNAS_SOAK_LOG"


@dataclass(frozen=True)
class Grain(Experiment):
    """A run in two parts with a checkpoint between them, which ends in numbers that depend on its seed alone."""


def part(seed: int, number: int) -> torch.Tensor:
    return torch.rand(len(SIGMAS), 4, generator=generator("grain", seed, number))


def say(what: str, experiment: Grain) -> None:
    """A line in the log; what is appended by one call to an open file is never mixed with another's."""
    handle = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND)
    os.write(handle, f"{what} {experiment.seed}\n".encode())
    os.close(handle)


@perform.register
def _(experiment: Grain, folder: Path, device, progress: bool, deadline: float | None, checkpoint_s: float) -> bool:
    saved = checkpoints.load(folder)
    say("continued" if saved else "begun", experiment)
    if saved is None:
        saved = {"first": part(experiment.seed, 0)}
        checkpoints.save(folder, saved)
    psnr = saved["first"] + part(experiment.seed, 1)
    write_per_image({"psnr": psnr}, folder)
    record = {"parameters": 1, "train_s": 0.0, "evaluate_s": 0.0}
    finish(folder, device, [{"sigma": sigma, "psnr": row.mean().item()} for sigma, row in zip(SIGMAS, psnr, strict=True)], record)
    say("completed", experiment)
    checkpoints.remove(folder)
    return True


def grains(count: int) -> list[Grain]:
    common = dict(
        task="denoise", network="unet", scale="smoke", steps=2, batch=1, epoch_steps=1, lr=1e-3, schedule="one-cycle",
        precision="fp32", channels_last=True, train_images=1, eval_images=4, b=4, d=2, m=1.0, c=1,
    )  # fmt: skip
    return [Grain(label="grain", seed=seed, **common) for seed in range(count)]


def labourer(store: str, log: str, count: int) -> None:
    """What a process runs: the queue's own loop."""
    os.environ |= {"DCNAS_RUNS": store, LOG: log}
    runs._commit = lambda: "none"  # a process would ask git for it once, which takes longer than a run
    queue.work(grains(count), "cpu", None)


@pytest.fixture(scope="module")
def soaked(tmp_path_factory):
    """The store after all runs, the lines of the log, and how many processes were killed."""
    place, dice = tmp_path_factory.mktemp("soak"), random.Random(0)
    store, log = place / "runs", place / "log"
    log.touch()

    def start():
        process = SERVER.Process(target=labourer, args=(str(store), str(log), RUNS), daemon=True)
        process.start()
        return process

    crew, kills, end = [start() for _ in range(PROCESSES)], 0, time.monotonic() + 500
    while any(process.is_alive() for process in crew):
        assert time.monotonic() < end, f"{len(list(store.glob('*/metrics.csv')))} of {RUNS} runs after 500 s"
        time.sleep(dice.uniform(0, JITTER_S))
        n, lines = dice.randrange(PROCESSES), log.read_bytes().count(b"\n")
        if kills < KILLS and lines > 2 * RUNS * kills / KILLS and crew[n].is_alive():  # spread over the work, not over time
            crew[n].kill()
            crew[n].join()
            crew[n], kills = start(), kills + 1
    assert {process.exitcode for process in crew} == {0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCNAS_RUNS", str(store))
        yield store, [line.split() for line in log.read_text().splitlines()], kills


pytestmark = pytest.mark.slow


def test_every_run_was_done_once(soaked):
    """A run that was killed and went on counts once, and only what was killed is begun or continued more than once."""
    store, lines, kills = soaked
    assert kills == KILLS and all(map(is_complete, grains(RUNS)))
    assert {path.name for path in store.iterdir()} == {grain.name for grain in grains(RUNS)}
    counts = {what: Counter(seed for said, seed in lines if said == what) for what in ("begun", "continued", "completed")}
    assert len(counts["begun"]) == RUNS and max(counts["completed"].values()) == 1
    assert len(counts["completed"]) >= RUNS - kills  # a kill may come between the last file and the line in the log
    assert counts["begun"].total() + counts["continued"].total() <= RUNS + kills
    assert counts["continued"].total() > 0, "no kill hit a run between its checkpoint and its end"


def test_no_file_is_half_written(soaked):
    """All files of all runs are whole, hold what their run gives undisturbed, and nothing else lies about."""
    store, _, _ = soaked
    for grain in grains(RUNS):
        folder, expected = folder_of(grain), part(grain.seed, 0) + part(grain.seed, 1)
        left = {path.name for path in folder.iterdir()} - {checkpoints.NAME, ".lock"}  # a kill may come before its removal
        assert left == {"config.json", "per_image.safetensors", "provenance.json", "metrics.csv"}
        assert json.loads((folder / "config.json").read_text()) == {"format": 1, "experiment": asdict(grain)}
        assert torch.equal(read_tensors(folder / "per_image.safetensors")["psnr"], expected.half())
        metrics, record = runs.read_metrics(folder, ("device", "torch", "commit", "date"))
        assert [row["psnr"] for row in metrics] == expected.mean(1).tolist() and record["parameters"] == 1
        if (folder / checkpoints.NAME).exists():
            assert torch.equal(checkpoints.load(folder)["first"], part(grain.seed, 0))
