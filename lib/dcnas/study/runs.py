"""Carrying runs out: `obtain(run)` trains, searches, derives or filters unless that is done, and goes on
after any kill.

Section 3 trains on images of two digits, Section 4 on photographs. What a step sees depends on seed and
step alone, so that a run that was killed ends with the very bits that it would have had (on a CPU).
"""

import time
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ..build import build
from ..data.images import evaluation_images
from ..data.noise import SIGMAS, degrade
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
    finish,
    folder_of,
    hold,
    is_complete,
    is_published,
    read_tensors,
    write_per_image,
    write_trained,
)
from .tasks import Digits, Photographs, bank_noisy, batches_of

SAMPLES = 4  # test images whose outputs are kept
SAMPLE_SIGMAS = (0.0, 0.2, 0.4, 0.8, 1.0)
HELD_OUT, HELD_OUT_BATCH = (
    900,
    100,
)  # test images, as many of every class, that a supernet is looked at with after each epoch


def needs(run: Named) -> Named | None:
    """The run that must be complete before this one; None also where its result is published."""
    if isinstance(run, Run) and "behind" in run.net:
        return next(
            r
            for r in runs("table_2", run.scale)
            if (r.seed, r.unet["b"]) == (run.seed, UNETS["reduced"]["b"])
        )
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
    """Carry a run out unless that is done, going on from a checkpoint where there is one. True once it
    is complete.

    Two processes never work on the same run: the second waits and then reads, or, with `wait=False`,
    returns False at once. At `deadline` (time.monotonic) training stops with a checkpoint and False is
    returned.
    """
    place = parallel.join(check_device(device))
    progress = progress and parallel.is_first()
    if parallel.told(is_complete(run)):
        return True
    if run.scale == "short":
        raise InputError(
            f"{run.title}: nothing trains at scale short any more; use laptop, gpu or paper."
        )
    commit()  # now, for the library may be edited while it trains
    needed = needs(run)
    if needed is not None and parallel.world() > 1 and not is_complete(needed):
        raise InputError(
            f"{run.title} needs {needed.title}, which is not complete; make that first, without "
            "torchrun."
        )
    if needed is not None and not obtain(
        needed, device=device, progress=progress, deadline=deadline, wait=wait
    ):
        return False
    if isinstance(run, Derivation):
        derive([run], progress)  # which holds its runs itself
        return True
    if not parallel.is_first():  # the first process holds the run for all
        return _perform(run, place, False, deadline, checkpoint_s)
    with hold(run, wait, progress) as mine:
        return _perform(run, place, progress, deadline, checkpoint_s, mine)


def _perform(
    run: Named,
    device: torch.device,
    progress: bool,
    deadline: float | None,
    checkpoint_s: float,
    mine: bool = True,
) -> bool:
    if not parallel.told(mine):
        return False
    if parallel.told(is_complete(run)):
        return True
    threads = torch.get_num_threads()
    torch.set_num_threads(run.threads)
    how = dict(progress=progress, deadline=deadline, checkpoint_s=checkpoint_s)
    kinds = {Run: _train, Search: _search, Filter: _filter}
    try:
        return parallel.told(kinds[type(run)](run, folder_of(run), device, **how))
    finally:
        torch.set_num_threads(threads)


# ---- trainings


def _train(
    run: Run,
    folder: Path,
    device: torch.device,
    *,
    progress: bool,
    deadline: float | None,
    checkpoint_s: float,
) -> bool:
    task = task_of(run, device)
    set_seed(run.seed)
    model = network_of(run)
    if (folder / "weights.safetensors").exists() and (
        folder / "history.csv"
    ).exists():  # only the evaluation is left
        model.load_state_dict(read_tensors(folder / "weights.safetensors"))
        model.to(device)
    else:
        draw, fixed = task.draws()
        history = fit(
            Trainer(model, task.loss, run.train, device),
            draw,
            validation(task.loss, fixed),
            folder,
            label=run.title,
            progress=progress,
            checkpoint_s=checkpoint_s,
            deadline=deadline,
        )
        if history is None:
            return False
        write_trained(model, history, folder)
    if parallel.is_first():
        _evaluate(run, model.eval(), task, folder, device, progress)
        checkpoints.remove(folder)
    return True


def task_of(run: Run, device: torch.device) -> Digits | Photographs:
    """What the run trains on; a classifier behind a denoiser has it in front, trained and frozen."""
    if run.task == "photographs":
        return Photographs(run, device)
    front = (
        load_model(needs(run)).to(device).eval().requires_grad_(False) if "behind" in run.net else None
    )
    return Digits(run, device, front)


def _evaluate(
    run: Run,
    model: nn.Module,
    task: Digits | Photographs,
    folder: Path,
    device: torch.device,
    progress: bool,
) -> None:
    """Metrics of each test image at eleven noise levels, with the noise that every network meets;
    outputs for the first images.
    """
    begun, photographs = time.monotonic(), run.task == "photographs"
    noisy, answer = bank_noisy(task.images, run.data.get("clip", False)), task.answer(model)
    metrics = evaluate(
        answer, task.images, task.boxes, task.labels, noisy, SIGMAS, device=device, progress=progress
    )
    write_per_image(metrics, folder)
    if "psnr" in metrics:
        ids = range(min(SAMPLES, len(task.images)))
        boxes = task.boxes[: len(ids)].to(device)
        with torch.inference_mode():
            outputs = [
                answer(noisy(ids, sigma).to(device), boxes)[0].float().clamp(0, 1).cpu()
                for sigma in SAMPLE_SIGMAS
            ]
        pictures = (torch.stack(outputs) * 255).round().to(torch.uint8).contiguous()
        write_atomic(folder / "samples.safetensors", save({"denoised": pictures}))
    record = {"parameters": count_parameters(model), "evaluate_s": round(time.monotonic() - begun, 1)}
    finish(folder, device, summarise(metrics, SIGMAS, task.labels if photographs else None), record)


def network_of(run: Run, architecture: Architecture | None = None) -> nn.Module:
    """The network of a run, with fresh weights from torch's global seed; of `architecture` instead of
    its own, if given.
    """
    if architecture is None and run.source is not None:
        architecture = architecture_of(run.source)
    classes = 10 if run.task != "photographs" else len(images_of(run).classes)
    if "architecture" in run.net and (own := run.net["architecture"]["space"]["classes"]) != classes:
        raise InputError(f"the architecture is for {own} classes, but {run.data['data']} has {classes}.")
    return build(run.net, classes, architecture)


def load_model(run: Run) -> nn.Module:
    """The trained network of a complete run, on the CPU."""
    model = network_of(run)
    model.load_state_dict(read_tensors(folder_of(run) / "weights.safetensors"))
    return model


# ---- searches


def _search(
    run: Search,
    folder: Path,
    device: torch.device,
    *,
    progress: bool,
    deadline: float | None,
    checkpoint_s: float,
) -> bool:
    if not parallel.is_first():
        return True
    table = table_of(run)
    if run.scale != "own":
        table.require(runtime="pytorch")  # in which all of the study is measured
    sizes = dict(width=run.width, strides=run.strides, width_step=run.space.width_step)
    table.require(resolution=run.photos["resolution"], **sizes)
    if run.scale not in (
        "smoke",
        "own",
    ):  # a tiny table need not be good; a reader's own is checked with their limit
        table.require_accuracy(TABLE_LIMIT_PCT)
    settings = run.with_target(target_ms(run))
    draws = [batches_of(run, [part], f"search {part}", device) for part in ("weights", "alphas")]
    how = dict(device=device, progress=progress, deadline=deadline, label=run.title)
    if run.random_networks:
        images = len(images_of(run).rows["alphas"])
        validate = [draws[1](step) for step in range(images // run.batch)]  # an epoch: each image once
        sizes = dict(networks=run.random_networks, steps=run.random_steps)
        result = run_random_search(
            run.space, table, settings, draws[0], validate, folder, **sizes, **how
        )
    else:
        looked_at = held_out_batches(run, device)
        result = run_search(
            run.space,
            table,
            settings,
            *draws,
            folder,
            held_out=looked_at,
            checkpoint_s=checkpoint_s,
            **how,
        )
    if result is None:
        return False
    write_atomic(folder / "epochs.csv", result.epochs.to_csv(index=False, lineterminator="\n"))
    write_atomic(folder / "alphas.csv", result.alphas.to_csv(index=False, lineterminator="\n"))
    save_architecture(result.architecture, folder / "architecture.json")
    predicted = predicted_ms(table, result.architecture, settings.network)
    row = {
        "target_ms": settings.target_ms,
        "predicted_ms": predicted,
        "verdict": result.verdict.word,
        "reason": result.verdict.reason,
    }
    finish(folder, device, [row], {})
    checkpoints.remove(folder)
    return True


def held_out_batches(run: Search, device: torch.device) -> list[Batch]:
    """Test images that show whether a supernet has learned; noisy ones, of all sigmas alike, where it is
    searched on noisy ones.
    """
    views, labels = evaluation_images(images_of(run), "test", run.photos["resolution"])
    names = labels[:, 0].unique()
    few = (
        torch.cat([torch.nonzero(labels[:, 0] == name)[: HELD_OUT // len(names), 0] for name in names])
        .sort()
        .values
    )
    views, labels = views[few], labels[few]
    stream, batches = generator("held out", run.seed), []
    for some, of_some in zip(
        views.split(HELD_OUT_BATCH), labels[:, 0].split(HELD_OUT_BATCH), strict=True
    ):
        clean = (some / 255).contiguous(memory_format=torch.channels_last)
        noisy = clean
        if run.noisy:
            sigmas, noise = (
                torch.rand(len(clean), generator=stream),
                torch.randn(clean.shape, generator=stream),
            )
            noisy = degrade(clean, sigmas, noise).contiguous(memory_format=torch.channels_last)
        batches.append(Batch(clean.to(device), noisy.to(device), None, of_some.to(device)))
    return batches


# ---- BM3D


def _filter(
    run: Filter,
    folder: Path,
    device: torch.device,
    *,
    progress: bool,
    deadline: float | None,
    checkpoint_s: float,
) -> bool:
    views, labels = evaluation_images(images_of(run), "test", run.photos["resolution"], run.eval_images)
    boxes, noisy = torch.zeros(len(views), 1, 4), bank_noisy(views)
    saved = checkpoints.load(folder)
    done: list[dict[str, Tensor]] = saved["done"] if saved else []
    for sigma in SIGMAS[len(done) :]:
        if deadline is not None and time.monotonic() > deadline:
            return False
        bm3d = BM3D(sigma, run.grey)
        metrics = evaluate(
            lambda x, _, bm3d=bm3d: (bm3d(x), None),
            views,
            boxes,
            labels,
            noisy,
            [sigma],
            batch=1,
            progress=progress,
        )
        done.append(metrics)
        checkpoints.save(folder, {"done": done})
    metrics = {name: torch.cat([level[name] for level in done]) for name in done[0]}
    write_per_image(metrics, folder)
    ids = range(min(SAMPLES, len(views)))
    outputs = torch.stack([BM3D(sigma, run.grey)(noisy(ids, sigma)) for sigma in SAMPLE_SIGMAS])
    pictures = (outputs.clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
    write_atomic(folder / "samples.safetensors", save({"denoised": pictures}))
    finish(folder, torch.device("cpu"), summarise(metrics, SIGMAS), {})
    checkpoints.remove(folder)
    return True
