"""PSNR, SSIM [33] and accuracy, per image and noise level (Section 3, "Dataset & settings").

Definitions, because the paper gives none: images are clamped to [0, 1], PSNR is that of each image and
averaged, SSIM has an 11 x 11 Gaussian window of sigma 1.5 with reflected edges, as in torchmetrics.
"""

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor
from tqdm.auto import tqdm

_WINDOW, _SIGMA, _C1, _C2 = 11, 1.5, 0.01**2, 0.03**2
_DECIBEL = (10 / torch.tensor(10.0).log()).item()
PART = 512  # side of the parts in which a large image is compared


def psnr(images: Tensor, clean: Tensor) -> Tensor:
    """In dB of each image (B,), inputs (B, C, H, W); infinite for equals. Bits are torchmetrics'."""
    error = images - clean
    return -(error * error).sum((1, 2, 3)).div(clean[0].numel()).log() * _DECIBEL


# An evaluation may come first, and a training must be able to use the result.
@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _gaussian(size: int, device: torch.device) -> Tensor:
    """The Gaussian filter along an axis, reflected at both ends, as a banded matrix (size, size)."""
    reach = _WINDOW // 2
    taps = torch.exp(-((torch.arange(_WINDOW, dtype=torch.float64) - reach) ** 2) / (2 * _SIGMA**2))
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for tap, offset in zip(taps / taps.sum(), range(-reach, reach + 1), strict=True):
        at = (torch.arange(size) + offset).abs()
        at = torch.where(at < size, at, 2 * (size - 1) - at)  # the border pixel itself is not repeated
        matrix[torch.arange(size), at] += tap
    return matrix.to(device, torch.float32)


def ssim(images: Tensor, clean: Tensor) -> Tensor:
    """Structural similarity of each image (B,), inputs (B, C, H, W) of 11 x 11 or more pixels."""
    return ssim_map(images, clean).flatten(1).mean(1)


def ssim_map(images: Tensor, clean: Tensor) -> Tensor:
    """SSIM at each place (B, C, H, W).

    The window is applied as two matrix products, which for images of the study is many times faster than
    torchmetrics' convolution and equals it to rounding (there is a test).
    """
    height, width = clean.shape[-2:]
    with torch.autocast(images.device.type, enabled=False):
        x, y = images.float(), clean.float()
        rows, columns = _gaussian(height, x.device), _gaussian(width, x.device).T
        maps = torch.stack([x, y, x * x, y * y, x * y])
        mean_x, mean_y, xx, yy, xy = (rows @ (maps @ columns)).unbind()
        product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
        structure = (2 * (xy - product) + _C2) / (xx + yy - squares + _C2)
        return (2 * product + _C1) / (squares + _C1) * structure


Cut = Callable[[slice, slice], tuple[Tensor, Tensor]]  # rows and columns to (1, C, H, W) of two images


def quality(cut: Cut, height: int, width: int, *, progress: bool = False) -> tuple[float, float]:
    """PSNR in dB and SSIM (NaN below 11 pixels) of one image of any size, of which `cut` gives parts."""
    reach, count, squares, similarity = _WINDOW // 2, 0, 0.0, 0.0
    places = list(product(range(0, height, PART), range(0, width, PART)))
    for top, left in tqdm(places, "judge", unit="part", disable=not progress, leave=False, delay=2):
        # with a margin, so that edges are reflected at the image's borders alone
        above = max(min(top, height - _WINDOW) - reach, 0)
        before = max(min(left, width - _WINDOW) - reach, 0)
        pair = cut(slice(above, top + PART + reach), slice(before, left + PART + reach))
        inner = ..., slice(top - above, top - above + PART), slice(left - before, left - before + PART)
        squares += torch.sub(*pair)[inner].square().sum().item()
        similarity += ssim_map(*pair)[inner].sum().item() if min(height, width) >= _WINDOW else math.nan
        count += pair[0][inner].numel()
    return -10 * math.log10(squares / count) if squares else math.inf, similarity / count


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
    """Of each image at each noise level: "psnr" (S, N), "ssim" (S, N), "correct" (S, N, K) on the CPU.

    `predict(noisy, boxes)` gives denoised images, logits (B, K, classes), or None for what the model
    does not do. clean uint8 (N, C, H, W), boxes (N, K, 4), labels (N, K); `noisy(ids, sigma)` gives the
    noisy images of a range of rows.
    """
    scores: dict[str, list[Tensor]] = {}
    sigmas, starts = list(sigmas), range(0, len(clean), batch)
    steps = tqdm(list(product(sigmas, starts)), "evaluate", disable=not progress, leave=False)
    with torch.inference_mode():
        for sigma, start in steps:
            ids = range(start, min(start + batch, len(clean)))
            part = slice(ids.start, ids.stop)
            denoised, logits = predict(noisy(ids, sigma).to(device), boxes[part].to(device))
            if denoised is not None:
                target, image = clean[part].to(device) / 255, denoised.float().clamp(0, 1)
                scores.setdefault("psnr", []).append(psnr(image, target).cpu())
                scores.setdefault("ssim", []).append(ssim(image, target).cpu())
            if logits is not None:
                correct = logits.argmax(-1) == labels[part].to(device)
                scores.setdefault("correct", []).append(correct.cpu())
    return {name: torch.cat(parts).unflatten(0, (len(sigmas), -1)) for name, parts in scores.items()}


def summarise(
    scores: dict[str, Tensor], sigmas: Iterable[float], labels: Tensor | None = None
) -> list[dict[str, float]]:
    """A row per sigma: psnr (mean over images), psnr_pooled (of the mean squared error of all images),
    ssim, accuracy in %.

    With the images' labels (N, 1) also the mean and the least of the classes' recalls in %.
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
            correct = scores["correct"][i].double()
            row["accuracy"] = 100 * correct.mean().item()
            if labels is not None:
                classes = labels[:, 0].unique()
                recalls = torch.stack([correct[labels[:, 0] == label, 0].mean() for label in classes])
                row["balanced_accuracy"] = 100 * recalls.mean().item()
                row["least_recall"] = 100 * recalls.min().item()
        rows.append(row)
    return rows
