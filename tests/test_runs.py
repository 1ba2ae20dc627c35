"""The run store: complete records, the same bits after every kill, one process per run; the queue."""

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
from unittest.mock import patch

import pandas as pd
import pytest
import torch

from dcnas import paths
from dcnas.data.noise import SIGMAS, NoiseBank
from dcnas.data.two_digits import cached
from dcnas.study import queue, runs, store
from dcnas.study.kinds import Run
from dcnas.study.presets import runs as listed
from dcnas.study.runs import load_model, needs, obtain
from dcnas.study.store import folder_of, is_complete, read_tensors
from dcnas.study.tasks import Digits, batch_rows
from dcnas.training import Settings, checkpoint, psnr

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
    """Those columns of a run's history."""
    return pd.read_csv(folder_of(run) / "history.csv")[[*columns]].to_numpy().tolist()


def files_of(run: Run) -> set[str]:
    return {path.name for path in folder_of(run).iterdir() if not path.name.startswith(".")}


def results_of(run: Run) -> dict:
    """Everything in a complete run that depends on the run alone."""
    history = history_of(run, "step", "loss", "validation_loss", "lr")
    names = RECORD - {"history.csv", "provenance.json"}
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


def wait_for(condition, process) -> None:
    """Until `condition()` holds or the process has ended."""
    while not condition() and process.is_alive():
        time.sleep(0.002)


@pytest.mark.parametrize("task", QUICK)
def test_the_record_of_a_run(task, monkeypatch):
    """With the commit that it was begun at and its threads; a complete run is not trained again."""
    run, threads, real = QUICK[task], [torch.get_num_threads()], runs.fit
    monkeypatch.setattr(store, "commit", lambda: "abc")
    counted = lambda *a, **o: threads.append(torch.get_num_threads()) or real(*a, **o)  # noqa: E731
    monkeypatch.setattr(runs, "fit", counted)
    torch.set_num_threads(2)
    assert obtain(run, progress=False) and is_complete(run)
    assert threads[1:] == [run.threads] == [1] and torch.get_num_threads() == 2
    torch.set_num_threads(threads[0])
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
    (folder_of(run) / "metrics.csv").unlink()  # as if it were killed in its evaluation
    assert obtain(run, progress=False) and files_of(run) >= RECORD


@pytest.mark.parametrize("clip", [False, True])
def test_metrics_are_those_of_the_stored_weights(clip):
    run = replace(SHORT, data=DATA | dict(clip=clip))
    obtain(run, progress=False)
    model, clean = load_model(run).eval(), cached("test", 4).images / 255
    rows = pd.read_csv(folder_of(run) / "metrics.csv")
    stored = read_tensors(folder_of(run) / "per_image.safetensors")["psnr"].float()
    for n, sigma in enumerate(SIGMAS):
        noisy = clean + sigma * NoiseBank().noise(range(4), sigma, clean.shape[1:])
        with torch.no_grad():
            denoised = model(noisy.clamp(0, 1) if clip else noisy).clamp(0, 1)
        expected = psnr(denoised, clean)
        torch.testing.assert_close(stored[n], expected, atol=0.02, rtol=0)
        assert rows["psnr"][n] == pytest.approx(expected.mean().item(), rel=1e-3)


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


def draw_of(run: Run, **changes):
    return Digits(replace(run, **changes), CPU).draws()[0]


def test_an_epoch_takes_every_image_once():
    rows = torch.cat([batch_rows(3, step, 5, 20) for step in range(8)])
    assert sorted(rows[:20].tolist()) == sorted(rows[20:].tolist()) == [*range(20)]
    assert rows[:20].tolist() != rows[20:].tolist()
    over = torch.cat([batch_rows(3, step, 6, 20) for step in range(10)])  # a batch may span two epochs
    assert torch.equal(over[:20], rows[:20]) and len(over) == 60


def test_batches_depend_on_seed_and_step_alone():
    first, again, other = draw_of(SHORT)(5), draw_of(SHORT)(5), draw_of(SHORT)(6)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first.noisy, other.noisy)
    assert first.clean.shape == (4, 1, 96, 96) and first.boxes.shape == (4, 2, 4)
    assert 0 <= first.clean.min() <= first.clean.max() <= 1
    crop = draw_of(SHORT, data=DATA | dict(crop=32))(5).clean
    assert crop.shape == (4, 1, 32, 32)
    patches = first.clean.unfold(2, 32, 1).unfold(3, 32, 1)[0].reshape(-1, 32, 32)
    assert (patches == crop[0, 0]).flatten(1).all(1).any()  # a part of the very image
    digit = draw_of(QUICK["classify"])(0)  # both digits of each image, as images of their own
    assert digit.clean.shape == (8, 1, 32, 32) and digit.labels.shape == (8, 1)
    assert digit.boxes.tolist()[0] == [[0, 0, 32, 32]]


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
    assert [(tmp_path / f"{name}.ended").read_text() for name in "ab"] == ["True", "True"]
    assert [len(list(tmp_path.glob(f"*.{name}"))) for name in ("fit", "evaluate")] == [1, 1]
    assert results_of(TINY) == undisturbed


def test_a_deadline_stops_and_the_same_call_goes_on(undisturbed):
    for _ in range(3):
        assert obtain(TINY, progress=False, deadline=time.monotonic()) is False
        assert (folder_of(TINY) / checkpoint.NAME).exists() and not is_complete(TINY)
    assert checkpoint.load(folder_of(TINY))["step"] == 3
    assert obtain(TINY, progress=False) is True
    assert results_of(TINY) == undisturbed and not list(folder_of(TINY).glob("checkpoint*"))


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, call):
    checkpoint.save(tmp_path, {"step": 1})
    full = OSError(28, "No space left on device")
    with patch(f"dcnas.paths.{call}", side_effect=full), pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, {"step": 2})
    assert checkpoint.load(tmp_path) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NAME]


@pytest.mark.slow
def test_two_processes_of_torchrun_train_as_one(tmp_path):
    run = replace(SHORT, net=dict(kind="unet", unet=dict(b=8, d=2, m=1.0, c=1)))
    # group norm: the halves of a batch have, in the mean, the gradient of the whole
    assert obtain(run, progress=False)
    expected = [float(loss) for [loss] in history_of(run, "loss")]
    shutil.rmtree(folder_of(run))
    program = tmp_path / "together.py"
    names = "from dcnas.study.runs import *\nfrom dcnas.training import Settings\n"
    program.write_text(f"{names}assert obtain({run!r}, progress=False)\n")
    launch = [sys.executable, "-m", *"torch.distributed.run --standalone --nproc-per-node 2".split()]
    subprocess.run([*launch, str(program)], check=True, capture_output=True, timeout=300)
    losses = [float(loss) for [loss] in history_of(run, "loss")]
    assert losses == pytest.approx(expected, rel=1e-3)
    assert is_complete(run) and files_of(run) >= RECORD


@pytest.mark.slow
def test_two_workers_and_then_nothing_is_left():
    queued = listed("table_2", "smoke")
    assert queue.run_queue(queued, jobs=2, progress=False) == 0 and all(map(is_complete, queued))
    before = [(folder_of(run) / "metrics.csv").stat().st_mtime_ns for run in queued]
    assert queue.run_queue(queued, jobs=2, progress=False) == 0
    assert before == [(folder_of(run) / "metrics.csv").stat().st_mtime_ns for run in queued]


@pytest.mark.slow
def test_ray_does_the_same():
    pytest.importorskip("ray")
    queued = listed("normalisation_check", "smoke")
    assert queue.run_queue(queued, jobs=2, engine="ray", progress=False) == 0
    assert all(map(is_complete, queued))


@pytest.mark.slow
def test_workers_end_with_a_queue_that_was_killed(tmp_path):
    """Or they would go on, unseen, and hold their runs."""
    command = "-m dcnas.cli queue --scale laptop --group clipping_check --jobs 2 --changed-tree".split()
    env = os.environ | {"DCNAS_RUNS": str(tmp_path), "DCNAS_DOWNLOADS": str(paths.downloads_dir())}
    family = subprocess.Popen([sys.executable, *command], env=env, stderr=subprocess.DEVNULL)
    try:
        while len(list(tmp_path.glob("*/run.json"))) < 2:  # both are at work, or the test's time is up
            assert family.poll() is None
            time.sleep(0.1)
        workers = Path(f"/proc/{family.pid}/task/{family.pid}/children").read_text().split()
        assert len(workers) >= 2
    finally:
        family.kill()
        family.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in workers):  # or they outlive it
        time.sleep(0.1)
