"""Carrying runs out: `obtain(run)` trains, searches, derives or filters unless that is done, and goes on after any kill.

Section 3 trains on images of two digits, Section 4 on photographs. What a step sees depends on seed and step alone, so that a
run that was killed ends with the very bits that it would have had (on a CPU).
"""

import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from ..build import build
from ..data.images import evaluation_images, make_image_draw
from ..data.noise import SIGMAS, NoiseBank, degrade, sample_sigmas
from ..data.two_digits import cached
from ..errors import InputError
from ..latency.measure import check_device
from ..models import UNETS, count_parameters
from ..models.crops import BOX_SIZE, crop_boxes, crop_squares
from ..nas.lut import predicted_ms
from ..nas.random_search import run_random_search
from ..nas.search import run_search
from ..nas.space import Architecture, save_architecture
from ..paths import write_atomic
from ..seed import generator, set_seed
from ..training import Batch, Trainer, evaluate, fit, parallel, predict, summarise, task_loss, validation
from ..training import checkpoint as checkpoints
from ..training.loop import AT_ONCE
from ..training.losses import CE_WEIGHT, SSIM_WEIGHT, denoising_loss
from .derivation import TABLE_LIMIT_PCT, derive, table_of, target_ms
from .filters import BM3D
from .presets import LABEL_SMOOTHING, Derivation, Filter, Named, Run, Search, images_of, runs
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

SAMPLES = 4  # test images whose outputs are kept
SAMPLE_SIGMAS = (0.0, 0.2, 0.4, 0.8, 1.0)
VALIDATION_IMAGES = 64
PLATEAU_IMAGES = (
    1_000  # where the learning rate follows the validation loss, which must not move by chance
)
HELD_OUT, HELD_OUT_BATCH = (
    900,
    100,
)  # test images, as many of every class, that a supernet is looked at with after each epoch
Answer = Callable[[Tensor, Tensor], tuple[Tensor | None, Tensor | None]]


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
    """Carry a run out unless that is done, going on from a checkpoint where there is one. True once it is complete.

    Two processes never work on the same run: the second waits and then reads, or, with `wait=False`, returns False at once.
    At `deadline` (time.monotonic) training stops with a checkpoint and False is returned.
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
            f"{run.title} needs {needed.title}, which is not complete; make that first, without torchrun."
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


class Digits:
    """What a run of Section 3 trains on and is judged by: images of two digits, with noise of its own in every step.

    A classifier that sees only the digits' squares gets them as images of their own: noise elsewhere would be thrown away. With
    `crop`, clean and noisy are random squares; behind a trained denoiser, noisy is what that makes of it.
    """

    def __init__(self, run: Run, device: torch.device):
        self.run, self.device = run, device
        self.test = cached("test", run.eval_images)
        self.images, self.boxes, self.labels = self.test.images, self.test.boxes, self.test.labels
        before = needs(run) if "behind" in run.net else None
        self.front = (
            None if before is None else load_model(before).to(device).eval().requires_grad_(False)
        )

    def _denoised(self, batch: Batch) -> Batch:
        if self.front is None:
            return batch
        with torch.no_grad():
            return batch._replace(
                noisy=torch.cat([self.front(part) for part in batch.noisy.split(AT_ONCE)])
            )

    def draws(self) -> tuple[Callable[[int], Batch], Batch]:
        """The batch of a step, as a function of seed and step alone; and one for validation, always the same."""
        run, device, clip = self.run, self.device, self.run.data["clip"]
        data = cached("train", run.data["images"]).to(device)
        squares = run.task == "classify" and "behind" not in run.net

        def draw(step: int) -> Batch:
            rows = batch_rows(run.seed, step, run.batch, len(data)).to(device)
            stream = generator("noise", run.seed, step, device=device)
            clean, boxes, labels = data.images[rows], data.boxes[rows], data.labels[rows]
            if squares:
                clean, labels = crop_boxes(clean, boxes), labels.view(-1, 1)
                boxes = boxes.new_tensor([0, 0, BOX_SIZE, BOX_SIZE]).expand(len(clean), 1, 4)
            if (crop := run.data["crop"]) is not None:
                corner = torch.randint(
                    clean.shape[-1] - crop + 1, (2, len(clean), 1), generator=stream, device=device
                )
                clean = crop_squares(clean, *corner, crop)
            clean = clean / 255
            sigmas = sample_sigmas(len(clean), stream)
            noise = torch.randn(clean.shape, generator=stream, device=device)
            return self._denoised(Batch(clean, degrade(clean, sigmas, noise, clip=clip), boxes, labels))

        part = cached("validation", validation_images(run)).to(device)
        stream, clean = generator("validation", device=device), part.images / 255
        noise = torch.randn(clean.shape, generator=stream, device=device)
        noisy = degrade(clean, sample_sigmas(len(clean), stream), noise, clip=clip)
        return draw, self._denoised(Batch(clean, noisy, part.boxes, part.labels))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return task_loss(self.run.task, model, batch, self.run.ce_weight)

    def answer(self, model: nn.Module) -> Answer:
        model = model.to(memory_format=torch.channels_last)  # the faster one in float32
        return lambda images, boxes: predict(
            self.run.task, model, images if self.front is None else self.front(images), boxes
        )


class Photographs:
    """What a run of Section 4 trains on and is judged by."""

    def __init__(self, run: Run, device: torch.device):
        self.run, self.device, size = run, device, run.data["resolution"]
        self.images, self.labels = evaluation_images(images_of(run), "test", size, run.eval_images)
        self.boxes = torch.zeros(len(self.images), 1, 4)

    def draws(self) -> tuple[Callable[[int], Batch], Batch]:
        """The batch of a step; for validation one of training images, augmented once."""
        draw = batches_of(self.run, ["weights", "alphas"], "training", self.device)
        return draw, draw(-1)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Smooth cross entropy, Charbonnier with SSIM, or both as in Eq. 1, by what the network gives."""
        denoised, logits = model(batch.noisy)
        losses = []
        if logits is not None:
            entropy = F.cross_entropy(logits.float(), batch.labels, label_smoothing=LABEL_SMOOTHING)
            losses.append(entropy if denoised is None else CE_WEIGHT * entropy)
        if denoised is not None:
            loss = denoising_loss(denoised.float(), batch.clean, SSIM_WEIGHT)
            losses.append(loss if logits is None else (1 - CE_WEIGHT) * loss)
        return sum(losses)

    def answer(self, model: nn.Module) -> Answer:
        def of(images: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None]:
            denoised, logits = model(images.contiguous(memory_format=torch.channels_last))
            return denoised, None if logits is None else logits[:, None]

        return of


def _train(
    run: Run,
    folder: Path,
    device: torch.device,
    *,
    progress: bool,
    deadline: float | None,
    checkpoint_s: float,
) -> bool:
    task = (Photographs if run.task == "photographs" else Digits)(run, device)
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


def _evaluate(
    run: Run,
    model: nn.Module,
    task: Digits | Photographs,
    folder: Path,
    device: torch.device,
    progress: bool,
) -> None:
    """Metrics of each test image at eleven noise levels, with the noise that every network meets; outputs for the first images."""
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
    """The network of a run, with fresh weights from torch's global seed; of `architecture` instead of its own, if given."""
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


@lru_cache(maxsize=2)
def _order(key: int, epoch: int, size: int) -> Tensor:
    return torch.randperm(size, generator=generator("order", key, epoch))


def batch_rows(seed: int, step: int, batch: int, size: int) -> Tensor:
    """Rows of the training set in `step`: epoch by epoch, each in an order of its own, depending on seed and step alone."""
    first, parts = step * batch, []
    while first < (step + 1) * batch:
        epoch, start = divmod(first, size)
        stop = min(size, start + (step + 1) * batch - first)
        parts.append(_order(seed, epoch, size)[start:stop])
        first += stop - start
    return torch.cat(parts)


def validation_images(run: Run) -> int:
    """How many images a training is validated on: not more than it sees itself, so that scale smoke stays fast."""
    wanted = PLATEAU_IMAGES if run.train.schedule == "plateau" else VALIDATION_IMAGES
    return max(VALIDATION_IMAGES, min(wanted, run.train.steps * run.batch))


def batches_of(
    run: Search | Run, parts: list[str], stream: str, device: torch.device
) -> Callable[[int], Batch]:
    """`draw(step)`: training batches of photographs."""
    size, noisy = (
        (run.data["resolution"], run.data["noisy"])
        if isinstance(run, Run)
        else (run.photos["resolution"], run.noisy)
    )
    draw = make_image_draw(
        images_of(run), parts, size, run.batch, run.seed, noisy=noisy, stream_name=stream, device=device
    )

    def batch(step: int) -> Batch:
        clean, noisy, labels = draw(step)
        return Batch(clean, noisy, None, labels)

    return batch


def bank_noisy(images: Tensor, clip: bool = False) -> Callable[[range, float], Tensor]:
    """`noisy(ids, sigma)` for `evaluate`: the same images (N, C, H, W) of 0 to 255 and the same noise for every model."""
    bank = NoiseBank()

    def noisy(ids: range, sigma: float) -> Tensor:
        clean = images[ids.start : ids.stop] / 255
        return (
            clean
            if sigma == 0
            else degrade(clean, sigma, bank.noise(ids, sigma, clean.shape[1:]), clip=clip)
        )

    return noisy


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
    """Test images that show whether a supernet has learned; noisy ones, of all sigmas alike, where it is searched on noisy ones."""
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
