"""The run store: each experiment has a folder, named by its hash, that is filled once and can be continued after any kill.

`config.json` (the experiment), `history.csv` (a row per epoch), `weights.safetensors`, `per_image.safetensors` (metrics of each
test image), `samples.safetensors` (outputs of the first test images), `provenance.json` (device, versions, commit, date,
seconds) and, last of all, `metrics.csv` (a row per sigma): where that file stands, the run is complete.
"""

import csv
import io
import json
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache, singledispatch
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from .. import __version__
from ..data.noise import SIGMAS, NoiseBank, degrade, sample_sigmas
from ..data.two_digits import TwoDigits, cached
from ..errors import InputError
from ..latency.measure import check_device, device_name
from ..models import count_parameters
from ..models.crops import BOX_SIZE, crop_boxes, crop_squares
from ..paths import published_dir, root, runs_dir, shown, write_atomic
from ..reading import numbers, read_record, read_rows
from ..seed import generator, set_seed
from ..training import Batch, Settings, Trainer, evaluate, fit, parallel, predict, summarise, task_loss, validation
from ..training import checkpoint as checkpoints
from ..training.loop import AT_ONCE
from .experiments import FORMAT, Experiment, build, depends_on

SAMPLES = 4  # test images whose outputs are kept
SAMPLE_SIGMAS = (0.0, 0.2, 0.4, 0.8, 1.0)
VALIDATION_IMAGES = 64
PLATEAU_IMAGES = 1_000  # where the learning rate follows the validation loss, which must not move by chance
AGAIN = "; delete metrics.csv of that run to make it again"


def folder_of(experiment: Experiment) -> Path:
    """The run's folder."""
    return runs_dir() / experiment.name


def is_complete(experiment: Experiment) -> bool:
    """Whether the run has ended with all its files."""
    return (folder_of(experiment) / "metrics.csv").exists()


def published_runs() -> set[str]:
    """Names of the runs whose results are published, which a queue need not repeat (read without pandas)."""
    names = set()
    for path in published_dir().glob("section*.csv"):
        names |= {row["run"] for row in read_rows(path, ["run"]) if row.get("format") == str(FORMAT)}
    return names


@lru_cache(maxsize=2)
def _order(key: int, epoch: int, size: int) -> Tensor:
    return torch.randperm(size, generator=generator("order", key, epoch))


def batch_indices(experiment: Experiment, step: int, size: int) -> Tensor:
    """Rows of the training set in `step`: epoch by epoch, each in an order of its own, depending on seed and step alone."""
    first = step * experiment.batch
    parts = []
    while first < (step + 1) * experiment.batch:
        epoch, start = divmod(first, size)
        stop = min(size, start + (step + 1) * experiment.batch - first)
        parts.append(_order(experiment.seed, epoch, size)[start:stop])
        first += stop - start
    return torch.cat(parts)


def make_draw(experiment: Experiment, data: TwoDigits, device: torch.device) -> Callable[[int], Batch]:
    """`draw(step)`: clean images, a sigma for each, noise, boxes and labels, as a function of seed and step alone.

    A classifier that sees only the digits' squares gets them as images of their own: noise elsewhere would be thrown away.
    With `crop`, clean and noisy are random squares of the images; boxes are then of no use, so only denoisers may ask for it.
    """
    squares = experiment.task == "classify" and depends_on(experiment) is None

    def draw(step: int) -> Batch:
        rows = batch_indices(experiment, step, len(data)).to(device)
        stream = generator("noise", experiment.seed, step, device=device)
        clean, boxes, labels = data.images[rows], data.boxes[rows], data.labels[rows]
        if squares:
            clean, labels = crop_boxes(clean, boxes), labels.view(-1, 1)
            boxes = boxes.new_tensor([0, 0, BOX_SIZE, BOX_SIZE]).expand(len(clean), 1, 4)
        if experiment.crop is not None:
            corner = torch.randint(clean.shape[-1] - experiment.crop + 1, (2, len(clean), 1), generator=stream, device=device)
            clean = crop_squares(clean, *corner, experiment.crop)
        clean = clean / 255
        sigmas = sample_sigmas(len(clean), stream)
        noise = torch.randn(clean.shape, generator=stream, device=device)
        return Batch(clean, degrade(clean, sigmas, noise, clip=experiment.clip), boxes, labels)

    return draw


def _denoise_first(experiment: Experiment, device: torch.device) -> nn.Module | None:
    """The trained and frozen denoiser in front of the network, for the control that needs one."""
    needed = depends_on(experiment)
    return None if needed is None else load_model(needed).to(device).eval().requires_grad_(False)


def _front(batch: Batch, denoise: nn.Module | None) -> Batch:
    if denoise is None:
        return batch
    with torch.no_grad():
        return batch._replace(noisy=torch.cat([denoise(part) for part in batch.noisy.split(AT_ONCE)]))


def validation_images(experiment: Experiment) -> int:
    """How many images a training is validated on: not more than it sees itself, so that scale smoke stays fast."""
    wanted = PLATEAU_IMAGES if experiment.schedule == "plateau" else VALIDATION_IMAGES
    return max(VALIDATION_IMAGES, min(wanted, experiment.steps * experiment.batch))


def bank_noisy(images: Tensor, clip: bool = False) -> Callable[[range, float], Tensor]:
    """`noisy(ids, sigma)` for `evaluate`: the same images (N, C, H, W) of 0 to 255 and the same noise for every model."""
    bank = NoiseBank()

    def noisy(ids: range, sigma: float) -> Tensor:
        clean = images[ids.start : ids.stop] / 255
        return clean if sigma == 0 else degrade(clean, sigma, bank.noise(ids, sigma, clean.shape[1:]), clip=clip)

    return noisy


def obtain(
    experiment: Experiment, *, device: str = "cpu", progress: bool = True, deadline: float | None = None, wait: bool = True,
    checkpoint_s: float = 30.0,
) -> bool:  # fmt: skip
    """Train and evaluate unless that is done, going on from a checkpoint where there is one. True once the run is complete.

    Two processes never train the same run: the second waits and then reads, or, with `wait=False`, returns False at once.
    At `deadline` (time.monotonic) training stops with a checkpoint and False is returned.
    """
    place = parallel.join(check_device(device))
    progress = progress and parallel.is_first()
    if parallel.told(is_complete(experiment)):
        return True
    if getattr(experiment, "scale", None) == "short":
        raise InputError(f"{experiment.title}: nothing trains at scale short any more; use laptop, gpu or paper.")
    _commit()  # now, for the library may be edited while it trains
    needed = needs(experiment)
    if needed is not None and parallel.world() > 1 and not is_complete(needed):
        raise InputError(f"{experiment.title} needs {needed.title}, which is not complete; make that first, without torchrun.")
    if needed is not None and not obtain(needed, device=device, progress=progress, deadline=deadline, wait=wait):
        return False
    folder = folder_of(experiment)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")  # the system frees it when its process dies, however it dies
    try:
        if not parallel.told(not parallel.is_first() or _acquire(lock, experiment, wait, progress)):
            return False
        if parallel.told(is_complete(experiment)):
            return True
        threads = torch.get_num_threads()
        torch.set_num_threads(experiment.threads)
        try:
            if parallel.is_first():
                _write_config(experiment)
            return parallel.told(perform(experiment, folder, place, progress, deadline, checkpoint_s))
        finally:
            torch.set_num_threads(threads)
    finally:
        lock.release()


def _write_config(experiment) -> None:
    """The run's first file, by who holds its lock; what a killed process left of its last file goes."""
    for part in folder_of(experiment).glob(".*.part"):
        part.unlink()
    config = {"format": FORMAT, "experiment": asdict(experiment)}
    write_atomic(folder_of(experiment) / "config.json", json.dumps(config, indent=1))


@contextmanager
def hold(experiment, progress: bool = True) -> Iterator[None]:
    """The run for this process alone, after another one that has it, for work that `obtain` does not do."""
    folder_of(experiment).mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder_of(experiment) / ".lock")
    _acquire(lock, experiment, True, progress)
    try:
        _write_config(experiment)
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, experiment, wait: bool, progress: bool) -> bool:
    """Whether the run's lock is ours now; with `wait`, after another process that has it."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            return False
        if progress:
            print(f"{experiment.title}: another process is training it; waiting for it to end.", flush=True)
        lock.acquire()
    return True


@singledispatch
def needs(experiment) -> object | None:
    """The run that must be complete before this one."""
    raise TypeError(f"{type(experiment).__name__} is no kind of run")


@singledispatch
def perform(experiment, folder: Path, device: torch.device, progress: bool, deadline: float | None, checkpoint_s: float) -> bool:
    """Carry out a run in its folder, whose last file is metrics.csv; False if the deadline came first. A function per kind."""
    raise TypeError(f"{type(experiment).__name__} is no kind of run")


needs.register(Experiment)(depends_on)


@perform.register
def _(
    experiment: Experiment, folder: Path, device: torch.device, progress: bool, deadline: float | None, checkpoint_s: float
) -> bool:
    front = _denoise_first(experiment, device)
    set_seed(experiment.seed)
    model = build(experiment)
    if not trained_before(model, folder, device):
        history = _train(experiment, model, front, folder, device, progress, deadline, checkpoint_s)
        if history is None:
            return False
        write_trained(model, history, folder)
    if not parallel.is_first():
        return True
    _evaluate(experiment, model.eval(), front, folder, device, progress)
    checkpoints.remove(folder)
    return True


def _train(experiment, model, front, folder, device, progress, deadline, checkpoint_s) -> list[dict] | None:
    data = cached("train", experiment.train_images, experiment.data_seed).to(device)
    held_out = cached("validation", validation_images(experiment), experiment.data_seed).to(device)
    draw = make_draw(experiment, data, device)
    stream = generator("validation", device=device)
    clean = held_out.images / 255
    noise = torch.randn(clean.shape, generator=stream, device=device)
    noisy = degrade(clean, sample_sigmas(len(clean), stream), noise, clip=experiment.clip)
    fixed = _front(Batch(clean, noisy, held_out.boxes, held_out.labels), front)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return task_loss(experiment.task, model, batch, experiment.ce_weight)

    return fit(
        Trainer(model, loss, Settings.of(experiment), device), lambda step: _front(draw(step), front), validation(loss, fixed),
        folder, label=experiment.title, progress=progress, checkpoint_s=checkpoint_s, deadline=deadline,
    )  # fmt: skip


def _evaluate(experiment: Experiment, model: nn.Module, front, folder: Path, device: torch.device, progress: bool) -> None:
    begun = time.monotonic()
    model = model.to(memory_format=torch.channels_last)  # the faster one in float32
    data = cached("test", experiment.eval_images, experiment.data_seed)
    noisy = bank_noisy(data.images, experiment.clip)

    def answer(images: Tensor, boxes: Tensor):
        return predict(experiment.task, model, images if front is None else front(images), boxes)

    found = evaluate(answer, data.images, data.boxes, data.labels, noisy, SIGMAS, device=device, progress=progress)
    write_per_image(found, folder)
    if experiment.task != "classify":
        write_atomic(folder / "samples.safetensors", save(_samples(answer, data, noisy, device)))
    record = {"parameters": count_parameters(model), "evaluate_s": round(time.monotonic() - begun, 1)}
    finish(folder, device, summarise(found, SIGMAS), record)


def trained_before(model: nn.Module, folder: Path, device: torch.device) -> bool:
    """Whether the run's training was complete; then the model holds its weights, and only the evaluation is left."""
    if not ((folder / "weights.safetensors").exists() and (folder / "history.csv").exists()):
        return False
    model.load_state_dict(read_tensors(folder / "weights.safetensors"))
    model.to(device)
    return True


def write_trained(model: nn.Module, history: list[dict], folder: Path) -> None:
    """Write what a training ends in; of several processes the first does."""
    if not parallel.is_first():
        return
    write_atomic(folder / "history.csv", to_csv(history))
    write_atomic(folder / "weights.safetensors", save(contiguous(model.state_dict())))


def write_per_image(found: dict[str, Tensor], folder: Path) -> None:
    """Write the metrics of each test image, in half precision."""
    compact = {name: t.to(torch.uint8) if t.dtype == torch.bool else t.half() for name, t in found.items()}
    write_atomic(folder / "per_image.safetensors", save(contiguous(compact)))


def finish(folder: Path, device: torch.device, metrics: list[dict], record: dict) -> None:
    """Write a run's last files: where and how it was made, with the seconds of its history, then its metrics."""
    record = provenance(device) | record
    if (folder / "history.csv").exists():
        record["train_s"] = float(read_history(folder)[-1]["seconds"])
    write_atomic(folder / "provenance.json", json.dumps(record, indent=1))
    write_atomic(folder / "metrics.csv", to_csv(metrics))


def _samples(answer: Callable, data: TwoDigits, noisy: Callable, device: torch.device) -> dict[str, Tensor]:
    """Outputs for the first test images at `SAMPLE_SIGMAS`: uint8 (sigmas, images, 1, H, W)."""
    ids = range(min(SAMPLES, len(data)))
    boxes = data.boxes[: len(ids)].to(device)
    with torch.inference_mode():
        outputs = [answer(noisy(ids, sigma).to(device), boxes)[0].float().clamp(0, 1).cpu() for sigma in SAMPLE_SIGMAS]
    return {"denoised": (torch.stack(outputs) * 255).round().to(torch.uint8)}


def read_history(folder: Path) -> list[dict[str, float]]:
    """The history of a training, a row per epoch; `InputError` if its file is damaged."""
    path, advice = folder / "history.csv", "; delete it to train anew"
    return numbers(path, read_rows(path, ["step", "seconds"], advice), advice)


def read_metrics(folder: Path, names: Sequence[str] = (), sigmas: Sequence[float] = SIGMAS) -> tuple[list[dict[str, float]], dict]:
    """Metrics of a complete run, a row per sigma, and its provenance, which must have `names`; `InputError` if one is damaged."""
    path = folder / "metrics.csv"
    rows = numbers(path, read_rows(path, ["sigma"], AGAIN), AGAIN)
    if tuple(row["sigma"] for row in rows) != tuple(sigmas):
        raise InputError(f"{shown(path)} has {len(rows)} noise levels instead of {len(sigmas)}: it was cut short{AGAIN}.")
    return rows, read_record(folder / "provenance.json", names, AGAIN)


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them: on the CPU, without gaps."""
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


def load_model(experiment: Experiment) -> nn.Module:
    """The trained network of a complete run, on the CPU; `InputError` if its weights are missing or damaged."""
    model = build(experiment)
    path = folder_of(experiment) / "weights.safetensors"
    try:
        model.load_state_dict(read_tensors(path))
    except (FileNotFoundError, RuntimeError) as error:
        raise InputError(f"{shown(path)} does not hold the weights of {experiment.title}: {error}") from None
    return model


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; `InputError` in one sentence if it is damaged."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{shown(path)} is not a sound safetensors file ({error}); delete it to make it again.") from None


def to_csv(rows: Iterable[dict]) -> str:
    """Rows of equal keys as CSV text; floats as Python prints them, so that they read back as the same bits."""
    rows = list(rows)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def provenance(device: torch.device) -> dict:
    """Where and with what a result was made."""
    return {
        "device": device_name(device), "torch": torch.__version__, "python": platform.python_version(), "dcnas": __version__,
        "commit": _commit(), "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }  # fmt: skip


def require_commit() -> None:
    """`InputError` if the library differs from the commit: nobody could make its results again."""
    if _commit().endswith("+"):
        raise InputError(
            "lib has changes that are not committed, so results would name a commit that did not make them; commit first, or add "
            "--changed-tree."
        )


@lru_cache(maxsize=1)
def _commit() -> str:
    """The checkout's commit, with a + where the library differs from it; "unknown" without git."""

    def git(*command: str) -> str:
        return subprocess.run(["git", "-C", str(root()), *command], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "lib") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
