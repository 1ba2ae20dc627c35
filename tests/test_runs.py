"""The run store: complete records, the same bits after every kill, one process per run.

Child processes are forked from a server that has imported the library (`forkserver`), so that ten of
them start in seconds.
"""

import csv
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from dcnas.data.noise import SIGMAS, NoiseBank
from dcnas.data.two_digits import cached
from dcnas.study import runs, store
from dcnas.study.kinds import Run, Search
from dcnas.study.presets import runs as listed
from dcnas.study.runs import load_model, needs, obtain
from dcnas.study.store import folder_of, is_complete, read_tensors
from dcnas.study.tasks import Digits, batch_rows, validation_images
from dcnas.training import Batch, Settings, checkpoint, evaluate, parallel, summarise

CPU = torch.device("cpu")
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["dcnas.study.runs"])
RECORD = {"run.json", "history.csv", "provenance.json", "metrics.csv"}
RECORD |= {"weights.safetensors", "per_image.safetensors"}
NET = dict(kind="unet", unet=dict(b=4, d=2, m=1.0, c=1))
DATA = dict(images=64, crop=None, clip=False)
TRAIN = Settings(60, 20, 4e-3, "one-cycle")
TINY = Run("tiny", "smoke", 0, "denoise", NET, DATA, TRAIN, batch=4, eval_images=4)
SHORT = replace(TINY, train=replace(TINY.train, steps=3, epoch_steps=2))
JOINT = dict(kind="integrated", unet=dict(b=8, d=4, m=1.5, c=2))
QUICK = {
    "denoise": SHORT,
    "classify": replace(SHORT, task="classify", net=dict(kind="Conv-S")),
    "joint": replace(SHORT, task="joint", net=JOINT),
}


pytestmark = pytest.mark.usefixtures("mnist", "run_store")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, mnist) -> dict:
    """What TINY gives when nothing happens to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCNAS_RUNS", str(tmp_path_factory.mktemp("undisturbed")))
        assert obtain(TINY, progress=False)
        return results_of(TINY)


def history_of(run: Run, *columns: str) -> list:
    """Those columns of a run's history, as text."""
    with (folder_of(run) / "history.csv").open() as file:
        return [[row[name] for name in columns] for row in csv.DictReader(file)]


def files_of(run: Run) -> set[str]:
    return {path.name for path in folder_of(run).iterdir() if not path.name.startswith(".")}


def results_of(run: Run) -> dict:
    """Everything in a complete run that depends on the run alone."""
    history = history_of(run, "step", "loss", "validation_loss", "lr")
    names = ("run.json", "weights.safetensors", "per_image.safetensors", "metrics.csv")
    return {name: (folder_of(run) / name).read_bytes() for name in names} | {"history": history}


def child(folder: Path, run: Run, options: dict, told: Path) -> None:
    """In a child process: obtain, and notes of whether it was this one that trained and evaluated."""
    os.environ["DCNAS_RUNS"] = str(folder)

    def noted(name: str):
        real = getattr(runs, name)
        return lambda *args, **options: told.with_suffix(f".{name}").touch() or real(*args, **options)

    runs.fit, runs.evaluate = noted("fit"), noted("evaluate")
    with told.open("w") as file:
        os.dup2(file.fileno(), 1)
        ended = obtain(run, **options)
    told.with_suffix(".ended").write_text(str(ended))


def start(folder: Path, told: Path, run: Run = TINY, **options):
    arguments = (folder, run, {"progress": False} | options, told)
    process = SERVER.Process(target=child, args=arguments, daemon=True)
    process.start()
    return process


def wait_for(condition, process, seconds: float = 60) -> None:
    """Until `condition()` holds or the process has ended."""
    end = time.monotonic() + seconds
    while not condition() and process.is_alive() and time.monotonic() < end:
        time.sleep(0.002)


# ---- what a run is


@pytest.mark.parametrize("task", QUICK)
def test_the_record_of_a_run(task, monkeypatch):
    """With the commit that it was begun at; a complete run is not trained again."""
    run = QUICK[task]
    monkeypatch.setattr(store, "commit", lambda: "abc")
    assert obtain(run, progress=False) and is_complete(run)
    assert files_of(run) == RECORD | ({"samples.safetensors"} if task != "classify" else set())
    assert json.loads((folder_of(run) / "run.json").read_text())["run"]["label"] == "tiny"
    record = json.loads((folder_of(run) / "provenance.json").read_text())
    assert record["parameters"] == sum(p.numel() for p in load_model(run).parameters())
    assert record["commit"] == "abc"
    torch.manual_seed(run.seed)
    fresh = runs.network_of(run).state_dict()
    trained = read_tensors(folder_of(run) / "weights.safetensors")
    assert not [name for name in fresh if "weight" in name and torch.equal(fresh[name], trained[name])]
    monkeypatch.setattr(runs, "fit", None)
    for name in ("per_image.safetensors", "metrics.csv"):  # as if it were killed before its evaluation
        (folder_of(run) / name).unlink(missing_ok=name != "metrics.csv")
    assert obtain(run, progress=False) and files_of(run) >= RECORD


@pytest.mark.parametrize("clip", [False, True])
def test_metrics_are_those_of_the_stored_weights(clip):
    run = replace(SHORT, data=DATA | dict(clip=clip))
    obtain(run, progress=False)
    model, data, bank = load_model(run).eval(), cached("test", 4), NoiseBank()

    def noisy(ids: range, sigma: float):
        clean = data.images[ids.start : ids.stop] / 255
        found = clean + sigma * bank.noise(ids, sigma, clean.shape[1:]) if sigma else clean
        return found.clamp(0, 1) if clip else found

    denoise = lambda x, _: (model(x), None)  # noqa: E731
    expected = evaluate(denoise, data.images, data.boxes, data.labels, noisy, SIGMAS)
    stored = read_tensors(folder_of(run) / "per_image.safetensors")
    assert torch.allclose(stored["psnr"].float(), expected["psnr"], atol=0.02)
    row = next(csv.DictReader((folder_of(run) / "metrics.csv").open()))
    assert float(row["psnr"]) == pytest.approx(summarise(expected, SIGMAS)[0]["psnr"], rel=1e-3)


def test_threads_are_those_of_the_run_and_then_the_callers(monkeypatch):
    before, seen, real = torch.get_num_threads(), [], runs.fit

    def count(*args, **options):
        seen.append(torch.get_num_threads())
        return real(*args, **options)

    monkeypatch.setattr(runs, "fit", count)
    obtain(SHORT, progress=False)
    assert seen == [1] and torch.get_num_threads() == before


def test_a_classifier_behind_a_denoiser_trains_the_denoiser_first():
    run = next(r for r in listed("why_joint_classifies_better", "smoke") if "behind" in r.net)
    before = needs(run)
    assert before.label == "UNet b=8 d=4 m=1.5 c=2" and before in listed("table_2", "smoke")
    assert obtain(run, progress=False) and is_complete(before)
    batch = runs.task_of(run, CPU).draws()[0](0)
    plain = draw_of(run, net=dict(kind="MB2.5-M"), task="joint")(0)
    assert torch.equal(batch.clean, plain.clean) and not torch.equal(batch.noisy, plain.noisy)
    with torch.no_grad():
        assert torch.allclose(batch.noisy, load_model(before).eval()(plain.noisy), atol=1e-5)


# ---- batches


def draw_of(run: Run, **changes):
    return Digits(replace(run, **changes), CPU).draws()[0]


def test_an_epoch_takes_every_image_once():
    rows = torch.cat([batch_rows(3, step, 5, 20) for step in range(8)])
    assert sorted(rows[:20].tolist()) == sorted(rows[20:].tolist()) == [*range(20)]
    assert rows[:20].tolist() != rows[20:].tolist()
    over = torch.cat([batch_rows(3, step, 6, 20) for step in range(10)])  # a batch may span two epochs
    assert torch.equal(over[:20], rows[:20]) and len(over) == 60


def test_batches_depend_on_seed_and_step_alone():
    draw = draw_of(SHORT)
    first, again, other = draw(5), draw_of(SHORT)(5), draw(6)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first.noisy, other.noisy)
    assert first.clean.shape == (4, 1, 96, 96) and first.boxes.shape == (4, 2, 4)
    assert 0 <= first.clean.min() <= first.clean.max() <= 1


def test_squares():
    crop, whole = draw_of(SHORT, data=DATA | dict(crop=32))(0).clean, draw_of(SHORT)(0).clean
    assert crop.shape == (4, 1, 32, 32)
    patches = whole.unfold(2, 32, 1).unfold(3, 32, 1)[0].reshape(-1, 32, 32)
    assert (patches == crop[0, 0]).flatten(1).all(1).any()  # a part of the very image
    digit = draw_of(QUICK["classify"])(0)  # both digits of each image, as images of their own
    assert digit.clean.shape == (8, 1, 32, 32) and digit.labels.shape == (8, 1)
    assert digit.boxes.tolist()[0] == [[0, 0, 32, 32]]


@pytest.mark.parametrize(
    "schedule, steps, images", [("one-cycle", 1_000, 64), ("plateau", 1_000, 1_000), ("plateau", 20, 80)]
)
def test_a_plateau_is_seen_on_a_thousand_images(schedule, steps, images):
    train = replace(TINY.train, schedule=schedule, steps=steps)
    assert validation_images(replace(TINY, train=train)) == images


# ---- killed, stopped, at once


def test_killed_at_ten_random_moments(tmp_path, run_store, undisturbed):
    """SIGKILL while it starts, while it trains and while it evaluates; the same command again ends with
    the same bits.
    """
    dice, killed, own = random.Random(0), 0, folder_of(TINY)

    def written() -> int:
        newest = own / checkpoint.NAME
        return newest.stat().st_mtime_ns if newest.exists() else 0

    for moment in ["start"] * 2 + ["training"] * 6 + ["evaluation"] * 2:
        before = written()
        process = start(run_store, tmp_path / "told", checkpoint_s=0.0)
        if moment == "training":
            wait_for(lambda before=before: written() != before, process)
        elif moment == "evaluation":
            wait_for((own / "weights.safetensors").exists, process)
        time.sleep(dice.uniform(0, 0.5 if moment == "start" else 0.03))
        process.kill()
        process.join()
        killed += process.exitcode == -9
        assert moment == "evaluation" or not is_complete(TINY)
    assert killed >= 8  # an evaluation may have been quicker than its kill
    process = start(run_store, tmp_path / "told", checkpoint_s=0.0)
    process.join()
    assert process.exitcode == 0 and (tmp_path / "told.ended").read_text() == "True"
    assert results_of(TINY) == undisturbed
    assert files_of(TINY) == RECORD | {"samples.safetensors"}


def test_two_processes_at_once(tmp_path, run_store, undisturbed):
    """Started together: one trains, the other waits and finds the run complete."""
    both = [start(run_store, tmp_path / name, progress=True) for name in "ab"]
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert [(tmp_path / f"{name}.ended").read_text() for name in "ab"] == ["True", "True"]
    assert [len(list(tmp_path.glob(f"*.{name}"))) for name in ("fit", "evaluate")] == [1, 1]
    assert results_of(TINY) == undisturbed


def test_the_second_process_says_that_it_waits(tmp_path, run_store):
    run = replace(TINY, train=replace(TINY.train, steps=5_000))
    first = start(run_store, tmp_path / "first", run)
    wait_for((tmp_path / "first.fit").exists, first)
    assert obtain(run, progress=False, wait=False) is False  # a queue goes on to the next
    said = tmp_path / "second"
    second = start(run_store, said, run, progress=True, deadline=time.monotonic())
    wait_for(lambda: said.exists() and said.read_text(), second)
    assert "tiny, seed 0, smoke: another process is training it; waiting" in said.read_text()
    assert second.is_alive() and not (tmp_path / "second.fit").exists()
    first.kill()  # the lock of a dead process is free
    second.join()
    assert second.exitcode == 0 and (tmp_path / "second.ended").read_text() == "False"


def test_a_deadline_stops_and_the_same_call_goes_on(undisturbed):
    for _ in range(3):
        assert obtain(TINY, progress=False, deadline=time.monotonic()) is False
        assert (folder_of(TINY) / checkpoint.NAME).exists() and not is_complete(TINY)
    assert checkpoint.load(folder_of(TINY))["step"] == 3
    assert obtain(TINY, progress=False) is True
    assert results_of(TINY) == undisturbed and not list(folder_of(TINY).glob("checkpoint*"))


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, call):
    checkpoint.save(tmp_path, {"step": 1})
    monkeypatch.setattr(f"dcnas.paths.{call}", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, {"step": 2})
    assert checkpoint.load(tmp_path) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NAME]


# ---- several processes for one training


@pytest.mark.slow
def test_two_processes_of_torchrun_train_as_one(tmp_path):
    run = replace(SHORT, net=dict(kind="unet", unet=dict(b=8, d=2, m=1.0, c=1)))
    # group norm: the halves of a batch have, in the mean, the gradient of the whole
    assert obtain(run, progress=False)
    expected = [float(loss) for [loss] in history_of(run, "loss")]
    shutil.rmtree(folder_of(run))
    program = tmp_path / "together.py"
    program.write_text(
        "from dcnas.study.presets import *\nfrom dcnas.study.runs import obtain\n"
        f"from dcnas.training import Settings\nassert obtain({run!r}, progress=False)\n"
    )
    launch = [sys.executable, "-m", *"torch.distributed.run --standalone --nproc-per-node 2".split()]
    subprocess.run([*launch, str(program)], check=True, capture_output=True, timeout=300)
    losses = [float(loss) for [loss] in history_of(run, "loss")]
    assert losses == pytest.approx(expected, rel=1e-3)
    assert is_complete(run) and files_of(run) >= RECORD


def test_each_process_has_its_share_of_a_batch(monkeypatch):
    batch = Batch(torch.arange(6), torch.arange(6) + 10, None, torch.arange(6) + 20)
    assert parallel.share(batch) is batch
    monkeypatch.setattr(parallel, "world", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(parallel.dist, "get_rank", lambda rank=rank: rank)
        part = parallel.share(batch)
        assert part.clean.tolist() == [rank, rank + 2, rank + 4] and part.boxes is None
        assert part.labels.tolist() == [rank + 20, rank + 22, rank + 24]


def test_a_published_result_is_found_by_label_scale_and_seed():
    run = next(r for r in listed("table_2", "laptop") if (r.label, r.seed) == ("UNet Reduced", 0))
    assert store.is_published(run) and not store.is_published(replace(run, seed=7))
    search = next(r for r in listed("searches", "laptop") if isinstance(r, Search))
    assert store.is_published(search) and not is_complete(search)
    assert store.architecture_of(search).space.width == 0.5
