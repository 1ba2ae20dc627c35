"""Figures of the report on one's own network: quality over the noise level, and sample images."""

import pandas as pd
import torch
from matplotlib.figure import Figure

from ..data.images import ImageSet, evaluation_images
from ..deploy.weights import Network
from ..training.metrics import psnr
from . import figures
from .figures import COLOURS
from .runs import bank_noisy

SHOWN_SIGMAS = (0.2, 0.5, 0.8)
SHOWN_IMAGES = 4


def quality_figure(metrics: pd.DataFrame) -> Figure:
    """PSNR and accuracy over the noise level, with their intervals; `metrics` as `own.judge` gives them."""
    names = {"psnr": "PSNR (dB)", "accuracy": "accuracy (%)"}
    present = [name for name in names if name in metrics]
    figure, grid = figures.new_figure(5.5 * len(present), 3.6, 1, len(present), squeeze=False)
    for axes, name in zip(grid[0], present, strict=True):
        axes.plot(metrics["sigma"], metrics[name], color=COLOURS["blue"], marker="o", label="this network")
        axes.fill_between(
            metrics["sigma"], metrics[f"{name}_low"], metrics[f"{name}_high"], color=COLOURS["blue"], alpha=0.2, linewidth=0
        )
        axes.set(xlabel="noise σ", ylabel=names[name])
        if name == "psnr":
            some = metrics[metrics["sigma"] > 0]  # without noise it is infinite
            axes.plot(some["sigma"], some["noisy_psnr"], color="0.4", linestyle="--", marker="x", label="the noisy image")
            axes.legend()
        else:
            axes.set_ylim(0, 102)
    return figures.note(figure, f"{metrics['images'].iloc[0]:,} test images; bands: 95% bootstrap intervals over them.")


def samples_figure(network: Network, data: ImageSet, sigmas: tuple[float, ...] = SHOWN_SIGMAS) -> Figure:
    """Test images of different classes, clean, noisy and as the network answers: denoised with PSNR, and the label it gives."""
    size = network.card["resolution"]
    views, labels = evaluation_images(data, "test", size)
    firsts = [int((labels[:, 0] == n).nonzero()[0, 0]) for n in labels.unique().tolist()]
    rows = (firsts + [n for n in range(len(views)) if n not in firsts])[:SHOWN_IMAGES]
    clean, noisy = views[rows] / 255, bank_noisy(views[rows])
    kinds = ("noisy", "denoised") if network.denoises else ("noisy",)
    figure, grid = figures.new_figure(
        1.9 * (1 + len(kinds) * len(sigmas)), 2.2 * len(rows) + 0.3, len(rows), 1 + len(kinds) * len(sigmas), squeeze=False
    )
    for n, line in enumerate(grid):
        figures.picture(line[0], _pixels(clean[n]), "clean\n" + data.classes[labels[rows[n], 0]])
    for k, sigma in enumerate(sigmas):
        images = noisy(range(len(rows)), sigma)
        with torch.inference_mode():
            denoised, logits = network.answer(images)
        for n, line in enumerate(grid):
            said = "" if logits is None else _answer(logits[n, 0], labels[rows[n], 0], data.classes)
            place = line[1 + len(kinds) * k :]
            figures.picture(place[0], _pixels(images[n]), f"noisy, σ = {sigma:g}" + ("" if denoised is not None else f"\n{said}"))
            if denoised is not None:
                quality = psnr(denoised[n : n + 1].clamp(0, 1), clean[n : n + 1]).item()
                figures.picture(place[1], _pixels(denoised[n]), f"denoised, {quality:.1f} dB\n{said}")
    return figure


def _answer(logits: torch.Tensor, label: torch.Tensor, classes: tuple[str, ...]) -> str:
    best = int(logits.argmax())
    return f"{'✓' if best == label else '✗'} {classes[best]}"


def _pixels(image: torch.Tensor):
    return image.permute(1, 2, 0).numpy().clip(0, 1)
