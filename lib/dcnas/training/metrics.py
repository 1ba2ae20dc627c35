"""PSNR, SSIM [33] and accuracy, per image and noise level (Section 3, "Dataset & settings").

Definitions, because the paper gives none: images are clamped to [0, 1] first, the range of the data is
1, PSNR is that of each image and averaged, SSIM has the usual 11 x 11 Gaussian window of sigma 1.5 with
reflected edges and is averaged over all places, as torchmetrics does it.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

import torch
from torch import Tensor
from tqdm.auto import tqdm

_WINDOW, _SIGMA, _C1, _C2 = 11, 1.5, 0.01**2, 0.03**2
_DECIBEL = (10 / torch.tensor(10.0).log()).item()
LARGEST_SIDE = 512  # of images that are compared whole; larger matrices are slower than a convolution


def psnr(images: Tensor, clean: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image (B,), inputs (B, C, H, W) in [0, 1]; infinite for
    equals.

    The bits are those of torchmetrics (there is a test).
    """
    error = images - clean
    return -(error * error).sum((1, 2, 3)).div(clean[0].numel()).log() * _DECIBEL


@lru_cache(maxsize=16)
@torch.inference_mode(
    False
)  # an evaluation may come first, and a training must be able to use the result
def _gaussian(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The Gaussian filter along an axis, reflected at both ends, as a banded matrix (size, size)."""
    reach = _WINDOW // 2
    taps = torch.exp(-((torch.arange(_WINDOW, dtype=torch.float64) - reach) ** 2) / (2 * _SIGMA**2))
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for tap, offset in zip(taps / taps.sum(), range(-reach, reach + 1), strict=True):
        at = (torch.arange(size) + offset).abs()
        at = torch.where(at < size, at, 2 * (size - 1) - at)  # the border pixel itself is not repeated
        matrix[torch.arange(size), at] += tap
    return matrix.to(device, dtype)


def ssim(images: Tensor, clean: Tensor) -> Tensor:
    """Structural similarity of each image (B,), inputs (B, C, H, W) in [0, 1] of 11 x 11 or more
    pixels."""
    if max(clean.shape[-2:]) <= LARGEST_SIDE:
        return _ssim_map(images, clean).flatten(1).mean(1)
    return ssim_in_parts(lambda *place: (images[..., *place], clean[..., *place]), *clean.shape[-2:])


Cut = Callable[
    [slice, slice], tuple[Tensor, Tensor]
]  # rows and columns to that part of images and clean ones


def ssim_in_parts(cut: Cut, height: int, width: int, *, progress: bool = False) -> Tensor:
    """SSIM (B,) of large images, of which `cut` gives a part at a time: whole maps would fill the
    memory."""
    reach, total, count = _WINDOW // 2, 0, 0
    bar = tqdm(
        list(_parts(height, width)), desc="SSIM", unit="part", disable=not progress, leave=False, delay=2
    )
    for rows, columns in bar:
        # a margin, so that edges are reflected at the image's borders alone
        top = max(min(rows.start, height - _WINDOW) - reach, 0)
        left = max(min(columns.start, width - _WINDOW) - reach, 0)
        part = cut(
            slice(top, min(rows.stop + reach, height)), slice(left, min(columns.stop + reach, width))
        )
        places = _ssim_map(*part)[
            ..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]
        total, count = total + places.flatten(1).sum(1), count + places[0].numel()
    return total / count


def _ssim_map(images: Tensor, clean: Tensor) -> Tensor:
    """SSIM at each place (B, C, H, W).

    The Gaussian window is applied as two matrix products, which up to `LARGEST_SIDE` is many times
    faster than torchmetrics' 11 x 11 convolution and equals it to rounding (there is a test).
    """
    height, width = clean.shape[-2:]
    with torch.autocast(images.device.type, enabled=False):
        x, y = images.float(), clean.float()
        rows = _gaussian(height, x.device, x.dtype)
        columns = _gaussian(width, x.device, x.dtype).T
        maps = torch.stack([x, y, x * x, y * y, x * y])
        mean_x, mean_y, xx, yy, xy = (rows @ (maps @ columns)).unbind()
        product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
        structure = (2 * (xy - product) + _C2) / (xx + yy - squares + _C2)
        return (2 * product + _C1) / (squares + _C1) * structure


def psnr_in_parts(cut: Cut, height: int, width: int) -> float:
    """PSNR in dB of one large image, of which `cut` gives a part at a time."""
    total = count = 0
    for rows, columns in _parts(height, width):
        error = torch.sub(*cut(rows, columns))
        total, count = total + (error * error).sum().item(), count + error.numel()
    return math.inf if total == 0 else -10 * math.log10(total / count)


def _parts(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of squares that make up an image."""
    for top in range(0, height, LARGEST_SIDE):
        for left in range(0, width, LARGEST_SIDE):
            yield (
                slice(top, min(top + LARGEST_SIDE, height)),
                slice(left, min(left + LARGEST_SIDE, width)),
            )


def evaluate(
    predict: Callable[[Tensor, Tensor], tuple[Tensor | None, Tensor | None]],
    clean: Tensor,
    boxes: Tensor,
    labels: Tensor,
    noisy: Callable[[range, float], Tensor],
    sigmas: Iterable[float],
    *,
    device: torch.device | str = "cpu",
    batch: int = 64,
    progress: bool = False,
) -> dict[str, Tensor]:
    """Metrics of each image at each noise level: "psnr" (S, N), "ssim" (S, N), "correct" (S, N, K) on
    the CPU.

    `predict(noisy, boxes)` gives denoised images, logits (B, K, classes), or None for what the model
    does not do. clean uint8 (N, C, H, W), boxes (N, K, 4), labels (N, K); `noisy(ids, sigma)` gives the
    noisy images of a range of rows.
    """
    scores: dict[str, list[Tensor]] = {}
    sigmas = list(sigmas)
    bar = tqdm(
        total=len(sigmas) * len(clean), desc="evaluate", unit="img", disable=not progress, leave=False
    )
    with torch.inference_mode(), bar:
        for sigma in sigmas:
            rows: dict[str, list[Tensor]] = {}
            for start in range(0, len(clean), batch):
                ids = range(start, min(start + batch, len(clean)))
                part = slice(ids.start, ids.stop)
                denoised, logits = predict(noisy(ids, sigma).to(device), boxes[part].to(device))
                if denoised is not None:
                    target, image = clean[part].to(device) / 255, denoised.float().clamp(0, 1)
                    rows.setdefault("psnr", []).append(psnr(image, target))
                    rows.setdefault("ssim", []).append(ssim(image, target))
                if logits is not None:
                    rows.setdefault("correct", []).append(logits.argmax(-1) == labels[part].to(device))
                bar.update(len(ids))
            for name, parts in rows.items():
                scores.setdefault(name, []).append(torch.cat(parts).cpu())
    return {name: torch.stack(levels) for name, levels in scores.items()}


def summarise(
    scores: dict[str, Tensor], sigmas: Iterable[float], labels: Tensor | None = None
) -> list[dict[str, float]]:
    """A row per sigma: psnr (mean over images), psnr_pooled (of the mean squared error of all images),
    ssim, accuracy in %.

    With the images' labels (N, 1) also the mean and the least of the classes' recalls in %:
    balanced_accuracy, least_recall.
    """
    rows = []
    for i, sigma in enumerate(sigmas):
        row: dict[str, float] = {"sigma": sigma}
        if "psnr" in scores:
            level = scores["psnr"][i].double()
            row["psnr"] = level.mean().item()
            row["psnr_pooled"] = (-10 * torch.log10((10 ** (-level / 10)).mean())).item()
            row["ssim"] = scores["ssim"][i].double().mean().item()
        if "correct" in scores:
            row["accuracy"] = 100 * scores["correct"][i].double().mean().item()
            if labels is not None:
                right = scores["correct"][i, :, 0].double()
                recalls = torch.stack([right[labels[:, 0] == label].mean() for label in labels.unique()])
                row["balanced_accuracy"] = 100 * recalls.mean().item()
                row["least_recall"] = 100 * recalls.min().item()
        rows.append(row)
    return rows
