"""Carrying runs out: `obtain(run)` trains, searches, derives or filters, and goes on after any kill.

What a step sees depends on seed and step alone, so that a run that was killed ends with the very bits
that it would have had (on a CPU).
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ..build import build
from ..data.images import evaluation_images, evaluation_twins
from ..data.noise import SIGMAS, Noise
from ..errors import InputError
from ..latency.measure import check_device
from ..models import UNETS, count_parameters
from ..nas.lut import predicted_ms
from ..nas.random_search import run_random_search
from ..nas.search import run_search
from ..nas.space import Architecture, save_architecture
from ..paths import write_atomic
from ..seed import generator, set_seed
from ..training import Batch, Trainer, evaluate, fit, parallel, summarise, validation
from ..training import checkpoint as checkpoints
from .derivation import TABLE_LIMIT_PCT, derive, table_of, target_ms
from .filters import BM3D
from .kinds import Derivation, Filter, Named, Run, Search, images_of
from .presets import runs
from .store import (
    architecture_of,
    commit,
    contiguous,
    finish,
    folder_of,
    hold,
    is_complete,
    is_published,
    read_tensors,
    to_csv,
    write_per_image,
)
from .tasks import Digits, Photographs, bank_noisy, batches_of

SAMPLES = 4  # test images whose outputs are kept
SAMPLE_SIGMAS = (0.0, 0.2, 0.4, 0.8, 1.0)
HELD_OUT, HELD_OUT_BATCH = 900, 100  # test images, as many of every class, that supernets are judged by


def needs(run: Named) -> Named | None:
    """The run that must be complete before this one; None also where its result is published."""
    if isinstance(run, Run) and "behind" in run.net:
        unets = (r for r in runs("table_2", run.scale) if r.seed == run.seed)
        return next(r for r in unets if r.unet["b"] == UNETS["reduced"]["b"])
    before = run.source if isinstance(run, Run) else run.search if isinstance(run, Derivation) else None
    return None if before is None or (is_published(before) and not is_complete(before)) else before


def obtain(
    run: Named,
    *,
    device: str = "cpu",
    progress: bool = True,
    deadline: float | None = None,
    wait: bool = True,
    checkpoint_s: float = 30.0,
) -> bool:
    """Carry a run out unless that is done, from its checkpoint if it has one. True once it is complete.

    Two processes never work on the same run: the second waits and then reads, or, with `wait=False`,
    returns False at once. At `deadline` (time.monotonic) training stops with a checkpoint.
    """
    place = parallel.join(check_device(device))
    progress = progress and parallel.is_first()
    if parallel.told(is_complete(run)):
        return True
    commit()  # now, for the library may be edited while it trains
    if (needed := needs(run)) is not None:
        if parallel.world() > 1 and not is_complete(needed):
            raise InputError(f"{run.title} needs {needed.title}; make that first, without torchrun.")
        if not obtain(needed, device=device, progress=progress, deadline=deadline, wait=wait):
            return False
    if isinstance(run, Derivation):
        derive([run], progress)  # which holds its runs itself
        return True
    # the first process of torchrun's holds the run for all
    with hold(run, wait, progress) if parallel.is_first() else nullcontext(True) as mine:
        mine = parallel.told(mine)
        if not mine or parallel.told(is_complete(run)):
            return mine
        threads, perform = torch.get_num_threads(), KINDS[type(run)]
        torch.set_num_threads(run.threads)
        how = dict(progress=progress, deadline=deadline, checkpoint_s=checkpoint_s)
        try:
            return parallel.told(perform(run, folder_of(run), place, **how))
        finally:
            torch.set_num_threads(threads)


# ---- trainings


def _train(run: Run, folder: Path, device: torch.device, *, progress: bool, **limits) -> bool:
    task = task_of(run, device)
    set_seed(run.seed)
    model, weights = network_of(run), folder / "weights.safetensors"
    if weights.exists():  # only the evaluation is left
        model.load_state_dict(read_tensors(weights))
        model.to(device)
    else:
        draw, fixed = task.draws()
        trainer, judge = Trainer(model, task.loss, run.train, device), validation(task.loss, fixed)
        history = fit(trainer, draw, judge, folder, label=run.title, progress=progress, **limits)
        if history is None:
            return False
        if parallel.is_first():
            write_atomic(folder / "history.csv", to_csv(history))
            write_atomic(weights, save(contiguous(model.state_dict())))
    if parallel.is_first():
        _evaluate(run, model.eval(), task, folder, device, progress)
        checkpoints.remove(folder)
    return True


def task_of(run: Run, device: torch.device) -> Digits | Photographs:
    """What the run trains on; a classifier behind a denoiser has it in front, trained and frozen."""
    if run.task == "photographs":
        return Photographs(run, device)
    if "behind" not in run.net:
        return Digits(run, device)
    return Digits(run, device, load_model(needs(run)).to(device).eval().requires_grad_(False))


def _evaluate(run: Run, model: nn.Module, task, folder: Path, device: torch.device, progress: bool):
    """Metrics of each test image at eleven noise levels, with the noise that every network meets."""
    begun = time.monotonic()
    noisy, answer, sigmas = task.noisy, task.answer(model), task.sigmas
    images = task.images, task.boxes, task.labels
    metrics = evaluate(answer, *images, noisy, sigmas, device=device, progress=progress)
    boxes = task.boxes[:SAMPLES].to(device)
    _write_outputs(folder, metrics, noisy, lambda x, _: answer(x.to(device), boxes[: len(x)])[0])
    record = {"parameters": count_parameters(model), "evaluate_s": round(time.monotonic() - begun, 1)}
    labels = task.labels if run.task == "photographs" else None
    finish(folder, device, summarise(metrics, sigmas, labels), record)


def _write_outputs(folder: Path, metrics: dict[str, Tensor], noisy: Callable, denoise: Callable) -> None:
    """The metrics of each image, and outputs of `denoise(noisy, sigma)` for the first ones."""
    write_per_image(metrics, folder)
    if "psnr" in metrics:
        ids = range(min(SAMPLES, metrics["psnr"].shape[1]))
        with torch.inference_mode():
            outputs = [denoise(noisy(ids, sigma), sigma).float().cpu() for sigma in SAMPLE_SIGMAS]
        pictures = (torch.stack(outputs).clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
        write_atomic(folder / "samples.safetensors", save({"denoised": pictures}))


def network_of(run: Run, architecture: Architecture | None = None) -> nn.Module:
    """The network of a run, of `architecture` instead of its own if given, with fresh weights from
    torch's global seed.
    """
    if architecture is None and run.source is not None:
        architecture = architecture_of(run.source)
    classes = 10 if run.task != "photographs" else len(images_of(run).classes)
    own = run.net["architecture"]["space"]["classes"] if "architecture" in run.net else classes
    if run.net["kind"] != "D-NAS" and own != classes:
        raise InputError(f"the architecture is for {own} classes, but {run.data['data']} has {classes}.")
    return build(run.net, classes, architecture)


def load_model(run: Run) -> nn.Module:
    """The trained network of a complete run, on the CPU."""
    model = network_of(run)
    model.load_state_dict(read_tensors(folder_of(run) / "weights.safetensors"))
    return model


# ---- searches


def _search(run: Search, folder: Path, device: torch.device, *, checkpoint_s: float, **how) -> bool:
    if not parallel.is_first():
        return True
    table = table_of(run)
    if run.scale != "own":
        table.require(runtime="pytorch")  # in which all of the study is measured
    if run.scale not in ("smoke", "own"):  # a tiny table need not be good; a reader sets the limit
        table.require_accuracy(TABLE_LIMIT_PCT)
    settings = run.with_target(target_ms(run))
    weights, alphas = (batches_of(run, [x], f"search {x}", device) for x in ("weights", "alphas"))
    what, how = (run.space, table, settings, weights), how | dict(device=device, label=run.title)
    if run.random_networks:
        images = len(images_of(run).rows["alphas"])
        validate = [alphas(step) for step in range(images // run.batch)]  # an epoch: each image once
        sizes = dict(networks=run.random_networks, steps=run.random_steps)
        result = run_random_search(*what, validate, folder, **sizes, **how)
    else:
        how |= dict(held_out=held_out_batches(run, device), checkpoint_s=checkpoint_s)
        result = run_search(*what, alphas, folder, **how)
    if result is None:
        return False
    for name, frame in (("epochs", result.epochs), ("alphas", result.alphas)):
        write_atomic(folder / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
    save_architecture(result.architecture, folder / "architecture.json")
    predicted = predicted_ms(table, result.architecture, settings.network)
    row = {"target_ms": settings.target_ms, "predicted_ms": predicted}
    row |= {"verdict": result.verdict.word, "reason": result.verdict.reason}
    finish(folder, device, [row], {})
    checkpoints.remove(folder)
    return True


def held_out_batches(run: Search, device: torch.device) -> list[Batch]:
    """Test images that show whether a supernet has learned, noisy as those that it is searched on."""
    views, labels = evaluation_images(images_of(run), "test", run.photos["resolution"])
    names = labels[:, 0].unique()
    few = [torch.nonzero(labels[:, 0] == name)[: HELD_OUT // len(names), 0] for name in names]
    few = torch.cat(few).sort().values
    stream, batches, noise = generator("held out", run.seed), [], Noise(**run.photos.get("noise", {}))
    twins = evaluation_twins(images_of(run), "test", run.photos["resolution"])
    for rows in few.split(HELD_OUT_BATCH):
        clean = noisy = (views[rows] / 255).contiguous(memory_format=torch.channels_last)
        if run.noisy and twins is not None:
            noisy = (twins[rows] / 255).contiguous(memory_format=torch.channels_last)
        elif run.noisy:
            levels = torch.rand(len(clean), generator=stream)
            normal = torch.randn(clean.shape, generator=stream)
            noisy = noise.add(clean, levels, normal).contiguous(memory_format=torch.channels_last)
        batches.append(Batch(clean.to(device), noisy.to(device), None, labels[rows, 0].to(device)))
    return batches


# ---- BM3D


def _filter(run: Filter, folder: Path, device: torch.device, *, progress: bool, **_) -> bool:
    views, labels = evaluation_images(images_of(run), "test", run.photos["resolution"], run.eval_images)
    images, noisy, each = (views, torch.zeros(len(views), 1, 4), labels), bank_noisy(views), []
    for sigma in SIGMAS:
        bm3d = BM3D(sigma, run.grey)
        how = dict(batch=1, progress=progress)
        each.append(evaluate(lambda x, _, f=bm3d: (f(x), None), *images, noisy, [sigma], **how))
    metrics = {name: torch.cat([level[name] for level in each]) for name in each[0]}
    _write_outputs(folder, metrics, noisy, lambda x, sigma: BM3D(sigma, run.grey)(x))
    finish(folder, torch.device("cpu"), summarise(metrics, SIGMAS), {})
    return True


KINDS = {Run: _train, Search: _search, Filter: _filter}
