"""What runs train on and are judged by: images of two digits (Section 3) and photographs (Section 4).

What a step sees depends on seed and step alone.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.images import evaluation_images, evaluation_twins, make_image_draw
from ..data.noise import GAUSSIAN, SIGMAS, Noise, NoiseBank, degrade, sample_sigmas
from ..data.two_digits import cached
from ..models.crops import BOX_SIZE, crop_boxes, crop_squares
from ..seed import generator
from ..training import Batch, predict, task_loss
from ..training.loop import AT_ONCE
from ..training.losses import CE_WEIGHT, SSIM_WEIGHT, denoising_loss
from .kinds import Run, Search, images_of
from .scales import LABEL_SMOOTHING

VALIDATION_IMAGES = 64
PLATEAU_IMAGES = 1_000  # where the learning rate follows the validation loss: it must not move by chance
Answer = Callable[[Tensor, Tensor], tuple[Tensor | None, Tensor | None]]


class Digits:
    """Images of two digits, with noise of their own in every step.

    A classifier that sees only the digits' squares gets them as images of their own. With `crop`, clean
    and noisy are random squares; behind a trained denoiser, noisy is what that makes of it.
    """

    def __init__(self, run: Run, device: torch.device, front: nn.Module | None = None):
        self.run, self.device, self.front = run, device, front
        self.test = cached("test", run.eval_images)
        self.images, self.boxes, self.labels = self.test.images, self.test.boxes, self.test.labels
        self.sigmas, self.noisy = SIGMAS, bank_noisy(self.images, run.data["clip"])

    def _denoised(self, batch: Batch) -> Batch:
        if self.front is None:
            return batch
        with torch.no_grad():
            parts = [self.front(part) for part in batch.noisy.split(AT_ONCE)]
        return batch._replace(noisy=torch.cat(parts))

    def draws(self) -> tuple[Callable[[int], Batch], Batch]:
        """The batch of a step, and one for validation, always the same."""
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
                places, shape = clean.shape[-1] - crop + 1, (2, len(clean), 1)
                corner = torch.randint(places, shape, generator=stream, device=device)
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
        front = self.front or nn.Identity()
        return lambda images, boxes: predict(self.run.task, model, front(images), boxes)


class Photographs:
    """Photographs of Section 4."""

    def __init__(self, run: Run, device: torch.device):
        self.run, self.device, size = run, device, run.data["resolution"]
        self.images, self.labels = evaluation_images(images_of(run), "test", size, run.eval_images)
        self.boxes = torch.zeros(len(self.images), 1, 4)
        twins = evaluation_twins(images_of(run), "test", size, run.eval_images)
        self.sigmas, self.noisy = noise_met(self.images, Noise(**run.data.get("noise", {})), twins)

    def draws(self) -> tuple[Callable[[int], Batch], Batch]:
        """The batch of a step; for validation one of training images, augmented once."""
        draw = batches_of(self.run, ["weights", "alphas"], "training", self.device)
        return draw, draw(-1)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Smooth cross entropy, Charbonnier with SSIM, or both as in Eq. 1: by its outputs."""
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


@lru_cache(maxsize=2)
def _order(key: int, epoch: int, size: int) -> Tensor:
    return torch.randperm(size, generator=generator("order", key, epoch))


def batch_rows(seed: int, step: int, batch: int, size: int) -> Tensor:
    """Rows of the training set in `step`: epoch by epoch, each in an order of its own."""
    first, parts = step * batch, []
    while first < (step + 1) * batch:
        epoch, start = divmod(first, size)
        stop = min(size, start + (step + 1) * batch - first)
        parts.append(_order(seed, epoch, size)[start:stop])
        first += stop - start
    return torch.cat(parts)


def validation_images(run: Run) -> int:
    """How many images a training is validated on: not more than it sees itself."""
    count = PLATEAU_IMAGES if run.train.schedule == "plateau" else VALIDATION_IMAGES
    return max(VALIDATION_IMAGES, min(count, run.train.steps * run.batch))


def batches_of(
    run: Search | Run, parts: list[str], stream: str, device: torch.device
) -> Callable[[int], Batch]:
    """`draw(step)`: training batches of photographs."""
    photos, noisy = (run.data, run.data["noisy"]) if isinstance(run, Run) else (run.photos, run.noisy)
    how = dict(noisy=noisy, noise=Noise(**photos.get("noise", {})), stream_name=stream, device=device)
    draw = make_image_draw(images_of(run), parts, photos["resolution"], run.batch, run.seed, **how)

    def batch(step: int) -> Batch:
        clean, noisy, labels = draw(step)
        return Batch(clean, noisy, None, labels)

    return batch


def bank_noisy(
    images: Tensor, clip: bool = False, noise: Noise = GAUSSIAN
) -> Callable[[range, float], Tensor]:
    """`noisy(ids, level)`: images (N, C, H, W) of 0 to 255 with the same noise for every model."""
    bank = NoiseBank()

    def noisy(ids: range, level: float) -> Tensor:
        clean = images[ids.start : ids.stop] / 255
        if level == 0:
            return clean
        image = noise.add(clean, level, bank.noise(ids, level, clean.shape[1:]))
        return image.clamp_(0, 1) if clip else image

    return noisy


def noise_met(
    images: Tensor, noise: Noise = GAUSSIAN, twins: Tensor | None = None
) -> tuple[tuple[float, ...], Callable[[range, float], Tensor]]:
    """What networks are judged by: sigmas, and `noisy(ids, sigma)` of images (N, C, H, W) of 0 to 255.

    Eleven levels of noise, or, of pairs, the real one, whose standard deviation stands for sigma.
    """
    if twins is not None:
        sigma = (twins.float() - images).std().item() / 255
        return (round(sigma, 4),), lambda ids, _: twins[ids.start : ids.stop] / 255
    noisy, levels = bank_noisy(images, noise=noise), {level * noise.sigma: level for level in SIGMAS}
    return tuple(levels), lambda ids, sigma: noisy(ids, levels.get(sigma, sigma))
