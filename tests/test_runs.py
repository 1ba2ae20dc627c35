"""The run store: complete records, the same bits after every kill, one process per run, and disks that fail.

Child processes are forked from a server that has imported the library (`forkserver`), so that ten of them start in seconds.
"""

import csv
import errno
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

import pytest
import torch

from dcnas import paths
from dcnas.data.mnist import load_mnist
from dcnas.data.noise import SIGMAS, NoiseBank
from dcnas.data.two_digits import cached
from dcnas.errors import InputError
from dcnas.paths import write_atomic
from dcnas.seed import set_seed
from dcnas.study import queue, runs
from dcnas.study import results3 as results
from dcnas.study.experiments import (
    Experiment,
    build,
    clipping_check,
    depends_on,
    section3,
    table_2,
    table_3,
    why_joint_classifies_better,
)
from dcnas.study.runs import batch_indices, folder_of, is_complete, load_model, make_draw, obtain, read_tensors
from dcnas.training import Batch, Settings, checkpoint, evaluate, parallel, predict, summarise

CPU = torch.device("cpu")
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["dcnas.study.runs"])
RECORD = {".lock", "config.json", "history.csv", "weights.safetensors", "per_image.safetensors", "provenance.json", "metrics.csv"}
TINY = Experiment(
    label="tiny", task="denoise", network="unet", scale="smoke", seed=0, steps=60, batch=4, epoch_steps=20, lr=4e-3,
    schedule="one-cycle", precision="fp32", channels_last=True, train_images=64, eval_images=4, b=4, d=2, m=1.0, c=1,
)  # fmt: skip
NO_UNET = dict(b=None, d=None, m=None, c=None, channels_last=False)
QUICK = {
    "denoise": replace(TINY, steps=3, epoch_steps=2),
    "classify": replace(TINY, steps=3, epoch_steps=2, task="classify", network="Conv-S", **NO_UNET),
    "joint": replace(TINY, steps=3, epoch_steps=2, task="joint", network="integrated", b=8, d=4, m=1.5, c=2),
}


@pytest.fixture(autouse=True, scope="module")
def mnist():
    try:
        return load_mnist()
    except (InputError, OSError) as error:
        pytest.skip(f"needs MNIST: {error}")


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Path:
    """An empty run store."""
    monkeypatch.setenv("DCNAS_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@contextmanager
def elsewhere(folder: Path):
    """Another run store for a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCNAS_RUNS", str(folder))
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    """What TINY gives when nothing happens to it."""
    with elsewhere(tmp_path_factory.mktemp("undisturbed")):
        assert obtain(TINY, progress=False)
        return results_of(TINY)


def results_of(experiment: Experiment) -> dict:
    """Everything in a complete run that depends on the experiment alone."""
    folder = folder_of(experiment)
    with (folder / "history.csv").open() as file:
        history = [[row[name] for name in ("step", "loss", "validation_loss", "lr")] for row in csv.DictReader(file)]
    names = ("config.json", "weights.safetensors", "per_image.safetensors", "metrics.csv")
    return {name: (folder / name).read_bytes() for name in names} | {"history": history}


def child(folder: Path, experiment: Experiment, options: dict, told: Path) -> None:
    """What a child process runs: obtain, and a note of whether it was this process that trained and evaluated."""
    os.environ["DCNAS_RUNS"] = str(folder)

    def noted(name: str):
        real = getattr(runs, name)
        return lambda *args, **options: told.with_suffix(f".{name}").touch() or real(*args, **options)

    runs.fit, runs.evaluate = noted("fit"), noted("evaluate")
    with told.open("w") as file:
        os.dup2(file.fileno(), 1)
        ended = obtain(experiment, **options)
    told.with_suffix(".ended").write_text(str(ended))


def start(folder: Path, told: Path, experiment: Experiment = TINY, **options):
    process = SERVER.Process(target=child, args=(folder, experiment, {"progress": False} | options, told), daemon=True)
    process.start()
    return process


def wait_for(condition, process, seconds: float = 60) -> None:
    """Until `condition()` holds or the process has ended."""
    end = time.monotonic() + seconds
    while not condition() and process.is_alive() and time.monotonic() < end:
        time.sleep(0.002)


# training


@pytest.mark.parametrize("clip", [False, True])
def test_a_run_trains_every_weight_as_it_says(clip):
    """Also with clipped noise, which is another thing than clipped gradients: the loop's settings have names of their own."""
    experiment = replace(TINY, clip=clip)
    assert obtain(experiment, progress=False)
    set_seed(experiment.seed)
    fresh, trained = build(experiment).state_dict(), read_tensors(folder_of(experiment) / "weights.safetensors")
    assert not [name for name in fresh if torch.equal(fresh[name], trained[name])]
    settings = Settings.of(experiment)
    assert settings.clip_norm is None and settings.optimiser == "adam" and settings.lr == experiment.lr


@pytest.mark.parametrize(
    "schedule, scale, images", [("plateau", "paper", 1_000), ("one-cycle", "laptop", 64), ("plateau", "smoke", 64)]
)
def test_a_plateau_is_seen_on_a_thousand_images(schedule, scale, images, monkeypatch):
    """Fewer move by chance; scale smoke is too short for a plateau and stays fast."""
    experiment = table_2(scale)[1]
    assert experiment.schedule == schedule and runs.validation_images(experiment) == images
    counts = []
    monkeypatch.setattr(runs, "fit", lambda *args, **_: counts.append(args[2](args[0].model)))
    monkeypatch.setattr(runs, "task_loss", lambda task, model, batch, weight: torch.tensor(float(len(batch.clean))))
    obtain(replace(experiment, train_images=8), progress=False)
    sizes = [64] * (images // 64) + [images % 64] * (images % 64 > 0)
    assert counts == [pytest.approx(sum(n * n for n in sizes) / images)]


# names


def test_a_name_is_stable():
    """Published results and runs of others are found by it; if this fails, raise FORMAT and know why."""
    assert TINY.name == "7404759880c7d989"
    assert TINY.name == replace(TINY).name and len(TINY.name) == 16


def test_a_name_depends_on_every_field():
    other = {str: "other", int: 7, float: 0.7, type(None): 64}
    names = {TINY.name}
    for field in fields(Experiment):
        value = getattr(TINY, field.name)
        changed = (not value) if isinstance(value, bool) else other[type(value)]
        names.add(replace(TINY, **{field.name: changed}).name)
    assert len(names) == 1 + len(fields(Experiment))


def test_no_two_runs_of_the_study_share_a_name():
    for scale in ("smoke", "short", "laptop", "gpu", "paper"):
        experiments = section3(scale)
        assert len({e.name for e in experiments}) == len({(e.label, e.seed) for e in experiments}) == len(experiments)


def test_nothing_trains_at_scale_short(store, monkeypatch):
    monkeypatch.setattr(runs, "fit", None)
    for experiment in (table_2("short")[1], table_3("short")[0]):
        with pytest.raises(InputError, match="short: nothing trains at scale short any more; use laptop, gpu or paper."):
            obtain(experiment, progress=False)
    assert not store.exists() or not list(store.rglob("*.safetensors"))
    with pytest.raises(InputError, match="scale for training is 'published', but one of smoke, laptop, gpu, paper was"):
        section3("published")


def test_tables_2_and_3_have_clipped_twins():
    plain, twins = [*table_2("laptop"), *table_3("laptop")], clipping_check("laptop")
    assert twins[0].label == "UNet Reduced, clipped"
    assert {(e.label, e.seed): replace(e, clip=False, label=e.label.removesuffix(", clipped")) for e in twins} == {
        (f"{e.label}, clipped", e.seed): e for e in plain
    }


# records


@pytest.mark.parametrize("task", QUICK)
def test_the_record_of_a_run(task):
    experiment = QUICK[task]
    assert not is_complete(experiment)
    assert obtain(experiment, progress=False) is True
    assert is_complete(experiment)
    folder = folder_of(experiment)
    assert {p.name for p in folder.iterdir()} == RECORD | ({"samples.safetensors"} if task != "classify" else set())

    config = json.loads((folder / "config.json").read_text())
    assert Experiment(**config["experiment"]) == experiment and config["format"] == 1

    with (folder / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [row["step"] for row in history] == ["2", "3"]
    with (folder / "metrics.csv").open() as file:
        metrics = list(csv.DictReader(file))
    assert [float(row["sigma"]) for row in metrics] == list(SIGMAS)
    denoised, classified = ["psnr", "psnr_pooled", "ssim"], ["accuracy"]
    wanted = {"denoise": denoised, "classify": classified, "joint": denoised + classified}[task]
    assert list(metrics[0]) == ["sigma", *wanted]

    per_image = {name: (tuple(t.shape), t.dtype) for name, t in read_tensors(folder / "per_image.safetensors").items()}
    assert per_image == {
        name: ((11, 4, 2), torch.uint8) if name == "correct" else ((11, 4), torch.float16)
        for name in {"denoise": ("psnr", "ssim"), "classify": ("correct",), "joint": ("psnr", "ssim", "correct")}[task]
    }
    if task != "classify":
        samples = read_tensors(folder / "samples.safetensors")["denoised"]
        assert samples.shape == (5, 4, 1, 96, 96) and samples.dtype == torch.uint8

    record = json.loads((folder / "provenance.json").read_text())
    assert set(record) == {"device", "torch", "python", "dcnas", "commit", "date", "parameters", "train_s", "evaluate_s"}
    assert record["parameters"] == sum(p.numel() for p in build(experiment).parameters())
    assert record["torch"] == torch.__version__ and record["train_s"] >= 0


def test_threads_are_those_of_the_experiment_and_then_the_callers(monkeypatch):
    seen, before = [], torch.get_num_threads()
    for name in ("fit", "evaluate"):
        real = getattr(runs, name)
        monkeypatch.setattr(runs, name, lambda *a, real=real, **o: seen.append(torch.get_num_threads()) or real(*a, **o))
    torch.set_num_threads(3)
    try:
        obtain(replace(QUICK["denoise"], threads=2), progress=False)
        assert seen == [2, 2] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("clip", [False, True])
def test_metrics_are_those_of_the_stored_weights(clip):
    experiment = replace(QUICK["joint"], clip=clip)
    obtain(experiment, progress=False)
    model, data = load_model(experiment).eval(), cached("test", 4, 0)

    def noisy(ids, sigma):
        images = data.images[list(ids)] / 255 + sigma * NoiseBank(0).noise(ids, sigma, (1, 96, 96))
        return images.clamp(0, 1) if clip else images

    found = evaluate(partial(predict, "joint", model), data.images, data.boxes, data.labels, noisy, SIGMAS)
    with (folder_of(experiment) / "metrics.csv").open() as file:
        stored = list(csv.DictReader(file))
    for row, ours in zip(stored, summarise(found, SIGMAS), strict=True):
        assert {name: float(value) for name, value in row.items()} == pytest.approx(ours, rel=1e-3)


def test_a_complete_run_is_not_trained_again(monkeypatch):
    obtain(QUICK["denoise"], progress=False)
    before = {p: p.stat().st_mtime_ns for p in folder_of(QUICK["denoise"]).iterdir()}
    monkeypatch.setattr(runs, "fit", None)
    monkeypatch.setattr(runs, "evaluate", None)
    assert obtain(QUICK["denoise"], progress=False) is True
    assert {p: p.stat().st_mtime_ns for p in folder_of(QUICK["denoise"]).iterdir()} == before


def test_a_run_names_the_commit_that_it_was_begun_at(monkeypatch):
    """Whoever goes on editing while it trains has not trained what was edited."""
    runs._commit.cache_clear()
    real = runs.fit

    def fit(*args, **options):
        monkeypatch.setattr(runs.subprocess, "run", None)  # from now on git is not asked
        return real(*args, **options)

    monkeypatch.setattr(runs, "fit", fit)
    obtain(QUICK["denoise"], progress=False)
    assert json.loads((folder_of(QUICK["denoise"]) / "provenance.json").read_text())["commit"] == runs._commit()


def test_progress_and_silence(capfd):
    obtain(QUICK["denoise"], progress=False)
    assert capfd.readouterr() == ("", "")
    obtain(replace(QUICK["denoise"], seed=1))
    shown = capfd.readouterr().err
    assert "tiny, seed 1, smoke" in shown and "3/3" in shown


def test_a_classifier_behind_a_denoiser_trains_the_denoiser_first():
    (behind,) = [e for e in why_joint_classifies_better("smoke") if depends_on(e)]
    behind = replace(behind, steps=2, epoch_steps=2, eval_images=2)
    assert obtain(behind, progress=False, deadline=time.monotonic()) is False and not folder_of(behind).exists()
    assert obtain(behind, progress=False)
    front = depends_on(behind)
    assert is_complete(front) and front.network == "unet" and front.seed == behind.seed
    assert (front.b, front.m, front.scale) == (8, 1.5, "smoke")


# the same seed, the same bits


def test_same_seed_same_bits_and_other_seed_other_bits(tmp_path, undisturbed):
    torch.rand(7)  # whatever was drawn before
    assert obtain(TINY, progress=False)
    assert results_of(TINY) == undisturbed
    other = replace(TINY, seed=1)
    assert obtain(other, progress=False)
    assert all(results_of(other)[name] != undisturbed[name] for name in undisturbed)


def unrelated(a: Batch, b: Batch) -> bool:
    """Whether the noise of two batches has nothing in common."""
    pairs = [torch.stack([(x - y).flatten() for x, y in pair]) for pair in zip(zip(a.noisy, a.clean), zip(b.noisy, b.clean))]
    found = [torch.corrcoef(pair)[0, 1].abs() for pair in pairs if pair.std(1).min() > 0.05]
    return bool(found) and max(found) < 0.05


def test_a_seed_decides_weights_order_and_noise():
    models, orders, draws = [], [], []
    data = cached("train", 64, 0)
    for experiment in (TINY, TINY, replace(TINY, seed=1)):
        runs.set_seed(experiment.seed)
        models.append([p.detach() for p in build(experiment).parameters() if p.dim() > 1])
        orders.append(torch.cat([batch_indices(experiment, step, 64) for step in range(16)]))
        draws.append(make_draw(experiment, data, CPU)(3))
    same, other = ([torch.equal(a, b) for a, b in zip(models[0], models[i], strict=True)] for i in (1, 2))
    assert all(same) and not any(other)
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])
    assert all(torch.equal(a, b) for a, b in zip(draws[0], draws[1], strict=True))
    assert unrelated(draws[0], draws[2])


def test_an_epoch_takes_every_image_once():
    """Batches run on over the end of an epoch; each epoch has an order of its own."""
    experiment = replace(TINY, batch=7)
    rows = torch.cat([batch_indices(experiment, step, 20) for step in range(20)])
    epochs = rows.view(7, 20)
    assert all(epoch.sort().values.equal(torch.arange(20)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 7
    large = replace(TINY, batch=50)  # larger than the set
    assert batch_indices(large, 0, 20).bincount(minlength=20).tolist() == [2 + (i in rows[40:50]) for i in range(20)]


def test_batches(mnist):
    data = cached("train", 64, 0)
    batch = make_draw(TINY, data, CPU)(5)
    rows = batch_indices(TINY, 5, 64)
    assert torch.equal(batch.clean, data.images[rows] / 255) and torch.equal(batch.boxes, data.boxes[rows])
    assert torch.equal(batch.labels, data.labels[rows])
    again = make_draw(TINY, data, CPU)(5)
    assert torch.equal(batch.noisy, again.noisy) and unrelated(batch, make_draw(TINY, data, CPU)(6))
    clipped = make_draw(replace(TINY, clip=True), data, CPU)(5)
    assert torch.equal(clipped.noisy, batch.noisy.clamp(0, 1))
    many = make_draw(replace(TINY, batch=64), data, CPU)(0)
    levels = (many.noisy - many.clean).flatten(1).std(1)
    assert ((levels * 10).round() / 10 - levels).abs().max() < 0.03 and levels.min() == 0 and levels.max() > 0.9


def test_random_squares():
    """With `crop`, every square lies in its image, and they lie everywhere."""
    data, experiment, places = cached("train", 64, 0), replace(TINY, crop=24, batch=16), set()
    for step in range(8):
        batch = make_draw(experiment, data, CPU)(step)
        assert batch.clean.shape == batch.noisy.shape == (16, 1, 24, 24)
        assert torch.equal(batch.noisy, make_draw(experiment, data, CPU)(step).noisy)
        for row, square in zip(batch_indices(experiment, step, 64), batch.clean, strict=True):
            windows = (data.images[row, 0] / 255).unfold(0, 24, 1).unfold(1, 24, 1)
            found = (windows == square).all(-1).all(-1).nonzero().tolist()
            assert found
            places |= {tuple(found[0])} if len(found) == 1 else set()  # bare background lies in many places
    assert len(places) > 45 and min(map(min, places)) < 8 and max(map(max, places)) > 64
    with pytest.raises(InputError, match="crop is 24 for the task joint, but only denoisers"):
        replace(QUICK["joint"], crop=24)


def test_batches_of_a_classifier_are_the_squares_of_the_digits():
    data, experiment = cached("train", 64, 0), QUICK["classify"]
    batch = make_draw(experiment, data, CPU)(2)
    assert batch.clean.shape == batch.noisy.shape == (8, 1, 32, 32) and batch.labels.shape == (8, 1)
    for i, row in enumerate(batch_indices(experiment, 2, 64).tolist()):
        for k, (left, top, right, bottom) in enumerate(data.boxes[row].tolist()):
            assert torch.equal(batch.clean[2 * i + k], data.images[row, :, top:bottom, left:right] / 255)
            assert batch.labels[2 * i + k] == data.labels[row, k]
    crops = runs.crop_boxes(batch.noisy, batch.boxes)
    assert torch.equal(crops, batch.noisy)


# killed, stopped, at once


def test_killed_at_ten_random_moments(tmp_path, store, undisturbed):
    """SIGKILL while it starts, while it trains and while it evaluates; the same command again ends with the same bits."""
    dice, killed = random.Random(0), 0
    folder = folder_of(TINY)

    def written() -> int:
        newest = folder / checkpoint.NAME
        return newest.stat().st_mtime_ns if newest.exists() else 0

    for moment in ["start"] * 2 + ["training"] * 6 + ["evaluation"] * 2:
        before = written()
        process = start(store, tmp_path / "told", checkpoint_s=0.0)
        if moment == "training":
            wait_for(lambda before=before: written() != before, process)
        elif moment == "evaluation":
            wait_for((folder / "weights.safetensors").exists, process)
        time.sleep(dice.uniform(0, 0.5 if moment == "start" else 0.03))
        process.kill()
        process.join()
        killed += process.exitcode == -9
        assert moment == "evaluation" or not is_complete(TINY)
    assert killed >= 8  # an evaluation may have been quicker than its kill
    process = start(store, tmp_path / "told", checkpoint_s=0.0)
    process.join()
    assert process.exitcode == 0 and (tmp_path / "told.ended").read_text() == "True"
    assert results_of(TINY) == undisturbed
    left = {p.name for p in folder.iterdir() if not p.name.startswith(".")}
    assert left == (RECORD | {"samples.safetensors"}) - {".lock"}


def test_two_processes_at_once(tmp_path, store, undisturbed):
    """Started together: one trains, the other waits and finds the run complete."""
    both = [start(store, tmp_path / name, progress=True) for name in "ab"]
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert [(tmp_path / f"{name}.ended").read_text() for name in "ab"] == ["True", "True"]
    assert [len(list(tmp_path.glob(f"*.{name}"))) for name in ("fit", "evaluate")] == [1, 1]
    assert results_of(TINY) == undisturbed


def test_the_second_process_says_that_it_waits(tmp_path, store, monkeypatch):
    experiment = replace(TINY, steps=5_000)
    first = start(store, tmp_path / "first", experiment)
    wait_for((tmp_path / "first.fit").exists, first)
    monkeypatch.setattr(runs, "fit", None)
    assert obtain(experiment, progress=False, wait=False) is False  # a queue goes on to the next
    second = start(store, tmp_path / "second", experiment, progress=True, deadline=time.monotonic())
    wait_for(lambda: (tmp_path / "second").exists() and (tmp_path / "second").read_text(), second)
    assert "tiny, seed 0, smoke: another process is training it; waiting" in (tmp_path / "second").read_text()
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


def test_a_run_stopped_before_its_evaluation_does_not_train_again(monkeypatch, undisturbed):
    obtain(TINY, progress=False)
    for name in ("metrics.csv", "provenance.json", "per_image.safetensors"):
        (folder_of(TINY) / name).unlink()
    monkeypatch.setattr(runs, "fit", None)
    assert obtain(TINY, progress=False) and results_of(TINY) == undisturbed


# damage


def test_a_broken_config_is_written_anew(undisturbed):
    folder_of(TINY).mkdir(parents=True)
    (folder_of(TINY) / "config.json").write_text('{"format": 1, "experi')
    assert obtain(TINY, progress=False) and results_of(TINY) == undisturbed


def test_damaged_weights_are_told_in_one_sentence():
    experiment = QUICK["denoise"]
    obtain(experiment, progress=False)
    path = folder_of(experiment) / "weights.safetensors"
    whole = path.read_bytes()
    other = replace(experiment, b=8)
    obtain(other, progress=False)
    for content in (whole[: len(whole) // 2], b"", b"\xff" * 100, (folder_of(other) / path.name).read_bytes()):
        path.write_bytes(content)
        with pytest.raises(InputError, match=str(path)) as told:
            load_model(experiment)
        assert "\n\n" not in str(told.value)
    path.unlink()
    with pytest.raises(InputError, match=str(path)):
        load_model(experiment)
    (folder_of(experiment) / "metrics.csv").unlink()
    path.write_bytes(whole[:50])
    with pytest.raises(InputError, match="not a sound safetensors file .* delete it to make it again"):
        obtain(experiment, progress=False)
    path.unlink()
    assert obtain(experiment, progress=False) and path.read_bytes() == whole


def test_a_broken_checkpoint_is_passed_over(undisturbed):
    for _ in range(2):
        obtain(TINY, progress=False, deadline=time.monotonic())
    newest = folder_of(TINY) / checkpoint.NAME
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=f"{checkpoint.NAME} is broken"):
        assert obtain(TINY, progress=False)
    assert results_of(TINY) == undisturbed


# disks


def files_under(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_write_atomic_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch, call):
    path = write_atomic(tmp_path / "sub" / "file.txt", "old")
    assert path.read_text() == "old" and path.stat().st_mode & 0o777 == 0o644

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(call, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_text() == "old" and files_under(tmp_path) == ["file.txt"]
    write_atomic(path, b"new")
    assert path.read_text() == "new" and files_under(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("what", ["config.json", "checkpoint.pt", "history.csv", "weights.safetensors", "metrics.csv"])
def test_a_full_disk_is_an_error_and_the_same_command_goes_on(store, monkeypatch, undisturbed, what):
    """The disk is full when `what` is written."""
    real = paths.os.fsync

    def fsync(handle):
        if f"/.{what}." in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(paths.os, "fsync", fsync)
        with pytest.raises(OSError, match="No space left"):
            obtain(TINY, progress=False, checkpoint_s=0.05 if what == "checkpoint.pt" else 1e9)
    assert not is_complete(TINY) and what not in files_under(store)
    assert not [name for name in files_under(store) if name.endswith(".part")]
    assert obtain(TINY, progress=False) and results_of(TINY) == undisturbed


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 40 KB, and a function that gives it another size."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "dcnas", place], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield place, lambda options: subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full(small_disk, undisturbed):
    place, remount = small_disk
    with elsewhere(place):
        with pytest.raises(OSError) as told:
            obtain(TINY, progress=False, checkpoint_s=0)
        assert told.value.errno == errno.ENOSPC
        assert not [name for name in files_under(place) if name.endswith(".part")] and not is_complete(TINY)
        assert Experiment(**json.loads((folder_of(TINY) / "config.json").read_text())["experiment"]) == TINY
        remount("size=10m")
        assert obtain(TINY, progress=False) and results_of(TINY) == undisturbed


def test_a_read_only_store(small_disk):
    place, remount = small_disk
    remount("ro")
    with elsewhere(place / "runs"), pytest.raises(OSError) as told:
        obtain(TINY, progress=False)
    assert told.value.errno == errno.EROFS


def test_a_store_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with elsewhere(tmp_path / "file"), pytest.raises(OSError, match="file"):
        obtain(TINY, progress=False)


# the queue


def test_a_worker_takes_the_first_unfinished_run_until_the_time_is_up(monkeypatch):
    order = []
    monkeypatch.setattr(queue, "obtain", lambda e, **options: order.append(e.seed) or obtain(e, **options))
    three = [replace(QUICK["denoise"], seed=seed) for seed in (2, 0, 1)]
    queue.work(three, "cpu", time.monotonic() - 1)
    assert order == []
    queue.work([replace(TINY, steps=100_000)], "cpu", time.monotonic() + 0.2)
    assert order == [0] and not is_complete(replace(TINY, steps=100_000))
    queue.work(three, "cpu", None)
    assert order == [0, 2, 0, 1] and all(map(is_complete, three))


@pytest.mark.parametrize("busy", [0, 1])
def test_a_worker_comes_back_to_what_another_one_gave_up(monkeypatch, busy):
    """Busy at first, free later: the run must not be left behind."""
    two, refused = [replace(QUICK["denoise"], seed=seed) for seed in (0, 1)], []

    def busy_once(experiment, **options):
        if experiment.seed == busy and not refused:
            refused.append(1)
            return False
        return obtain(experiment, **options)

    monkeypatch.setattr(queue, "obtain", busy_once)
    queue.work(two, "cpu", None)
    assert all(map(is_complete, two))


def test_a_queue_of_two_workers(capfd):
    """Five runs, one of which needs a sixth; first without the time for any."""
    (behind,) = [e for e in why_joint_classifies_better("smoke") if depends_on(e)]
    experiments = [*QUICK.values(), replace(QUICK["denoise"], seed=1), replace(behind, steps=2, epoch_steps=2, eval_images=2)]
    assert queue.run_queue(experiments, minutes=1e-6, progress=False) == 5
    assert queue.run_queue(experiments, jobs=2) == 0
    assert all(map(is_complete, experiments)) and is_complete(depends_on(behind))
    shown = capfd.readouterr()
    assert "5/5" in shown.err and "Traceback" not in shown.err


def test_a_failing_worker_is_told_in_one_sentence(store, capfd):
    store.write_text("no folder")
    with pytest.raises(InputError, match=r"2 of 2 workers ended with exit codes \[2, 2\]; what they said stands above"):
        queue.run_queue([QUICK["denoise"]], jobs=2, progress=False)
    said = capfd.readouterr().err
    assert [line.startswith("dcnas: ") and str(store) in line for line in said.splitlines()] == [True, True], said


def test_a_queue_skips_what_is_published(tmp_path, monkeypatch):
    monkeypatch.setenv("DCNAS_ROOT", str(tmp_path))
    write_atomic(tmp_path / "data" / "published" / "section3.csv", f"format,run\n1,{TINY.name}\n")
    monkeypatch.setattr(queue, "load_mnist", lambda **options: None)
    assert queue.run_queue([TINY], minutes=1e-6, progress=False) == 0


@pytest.mark.parametrize(
    "options, why",
    [
        (dict(jobs=0), "jobs is 0, but a whole number of at least 1"),
        (dict(minutes=0), "minutes is 0, but a time above 0"),
        (dict(minutes=-3.0), "minutes is -3.0"),
        (dict(minutes=float("nan")), "minutes is nan"),
        (dict(device="tpu"), "device is 'tpu', but PyTorch finds only"),
    ],
)
def test_bad_input_for_the_queue(options, why):
    with pytest.raises(InputError, match=why):
        queue.run_queue([TINY], **options)


def test_collecting_nothing_new_leaves_the_published_file_as_it_is():
    """Whole numbers stay whole: a clone without runs of its own can collect without a difference."""
    path = paths.published_dir() / "section3.csv"
    before = path.read_bytes()
    frame = results.read_results_file(path)
    assert frame.to_csv(index=False, lineterminator="\n").encode() == before


# several processes that train together


@pytest.mark.slow
def test_two_processes_of_torchrun_train_as_one(tmp_path):
    experiment = replace(QUICK["denoise"], b=8)  # group norm: the halves of a batch have, in the mean, the gradient of the whole
    assert obtain(experiment, progress=False)
    with (folder_of(experiment) / "history.csv").open() as file:
        expected = [float(row["loss"]) for row in csv.DictReader(file)]
    shutil.rmtree(folder_of(experiment))
    program = tmp_path / "together.py"
    program.write_text(
        "import json, sys\nfrom dcnas.study.experiments import Experiment\nfrom dcnas.study.runs import obtain\n"
        "assert obtain(Experiment(**json.loads(sys.argv[1])), progress=False)\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    subprocess.run([*launch, json.dumps(asdict(experiment))], check=True, capture_output=True, timeout=300)
    with (folder_of(experiment) / "history.csv").open() as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == pytest.approx(expected, rel=1e-3)
    assert is_complete(experiment) and {path.name for path in folder_of(experiment).iterdir()} >= RECORD


def test_each_process_has_its_share_of_a_batch(monkeypatch):
    batch = Batch(torch.arange(6), torch.arange(6) + 10, None, torch.arange(6) + 20)
    assert parallel.share(batch) is batch
    monkeypatch.setattr(parallel, "world", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(parallel.dist, "get_rank", lambda rank=rank: rank)
        shares.append(parallel.share(batch))
    assert [part.clean.tolist() for part in shares] == [[0, 2, 4], [1, 3, 5]] and shares[1].labels.tolist() == [21, 23, 25]
    assert shares[0].boxes is None


def test_workers_end_with_a_queue_that_was_killed(tmp_path):
    """Or they would go on, unseen, and hold their runs."""
    command = [sys.executable, "-m", "dcnas.cli", "queue", "--scale", "laptop", "--group", "table_2", "--jobs", "2"]
    env = os.environ | {"DCNAS_RUNS": str(tmp_path), "DCNAS_ROOT": str(tmp_path), "DCNAS_DOWNLOADS": str(paths.downloads_dir())}
    family = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while len(list(tmp_path.glob("*/config.json"))) < 2:  # both are at work
            assert time.monotonic() < end and family.poll() is None
            time.sleep(0.1)
        workers = Path(f"/proc/{family.pid}/task/{family.pid}/children").read_text().split()
        assert len(workers) >= 2
    finally:
        family.kill()
        family.wait()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < end, "workers outlived their queue"
        time.sleep(0.1)
