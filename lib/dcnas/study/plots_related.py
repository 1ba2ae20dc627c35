"""Figures, tables and claims of Section 2's notebook: BM3D, DnCNN, UNet, D-NAS and DC-NAS as denoisers, quality against time.

`rows` and `scores` are what `section2.results` gives. Levels leave out σ = 0, where BM3D, which is told so, has nothing to do.
"""

from math import exp, hypot, log

import pandas as pd
from matplotlib.figure import Figure

from ..data.noise import SIGMAS
from ..latency.measure import median_error
from . import figures
from .claims import criterion, judge
from .compare import NOISY, Scores, contrast, curve, difference, mean_score
from .stats import Interval

COLOUR, GREY = "BM3D colour", "BM3D grey"
CHAINS = DNCNN, RESIDUAL = "DnCNN", "DnCNN, residual"
UNET, SEARCHED, JOINT = "UNet Reduced", "D-NAS S", "DC-NAS S"
NETWORKS = (*CHAINS, UNET, SEARCHED, JOINT)
LEVELS = (0.2, 0.5, 1.0)


def denoisers_table(rows: pd.DataFrame, scores: dict[str, Scores]) -> pd.DataFrame:
    """A row per denoiser: what it is told, parameters, time for a single image, PSNR and SSIM."""
    lines = []
    for label, part in rows.groupby("label", sort=False):
        first, learned = part.iloc[0], part["network"].notna().any()
        line = {"denoiser": label, "is told σ": "no" if learned else "yes"}
        line["parameters (M)"] = f"{first['parameters'] / 1e6:.2f}" if learned else "none"
        line["one image (ms)"] = round(first["latency_ms"], 1)
        level = mean_score(scores["psnr"], label, NOISY)
        line |= {"PSNR (dB)": round(level.mean, 1), "PSNR, 95%": level.bounds(1)}
        line |= {f"PSNR at σ = {sigma:g}": round(mean_score(scores["psnr"], label, (sigma,)).mean, 1) for sigma in LEVELS}
        level = mean_score(scores["ssim"], label, NOISY)
        lines.append(line | {"SSIM": round(level.mean, 3), "SSIM, 95%": level.bounds(3)})
    return pd.DataFrame(lines).set_index("denoiser")


def speed_figure(rows: pd.DataFrame, scores: dict[str, Scores]) -> Figure:
    """PSNR against the time for a single image on the left, against the noise level on the right."""
    figure, (left, right) = figures.new_figure(12, 4.8, 1, 2)
    latency = rows.groupby("label", sort=False)["latency_ms"].first()
    for i, label in enumerate(latency.index):
        level = mean_score(scores["psnr"], label, NOISY)
        left.errorbar(latency[label], level.mean, figures.bars([level]), label=label, capsize=3, markersize=9, **figures.style(i))
        curve(right, scores["psnr"], label, SIGMAS[1:], i)
    left.set_xscale("log")
    left.set(xlabel="time for a single image (ms)", ylabel="PSNR, mean without σ = 0 (dB)")
    right.set(xlabel="noise level σ", ylabel="PSNR (dB)")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    count = next(iter(scores["psnr"].values())).shape[1]
    text = f"The first {count} test images. Bars and bands: 95% over these images."
    return figures.caption(figure, rows[rows["network"].notna()], text)


def _speedup(rows: pd.DataFrame, fast: str, slow: str) -> Interval:
    """How many times as long `slow` takes as `fast`, with a 95% interval from the quartiles of their passes."""
    medians, errors = [], []
    for label in (slow, fast):
        first = rows[rows["label"] == label].iloc[0]
        medians.append(first["latency_ms"])
        errors.append(median_error(first["q75_ms"] - first["q25_ms"], first["passes"]) / first["latency_ms"])
    middle, half = log(medians[0] / medians[1]), 1.96 * hypot(*errors)
    return Interval(exp(middle), exp(middle - half), exp(middle + half))


def claims_table(rows: pd.DataFrame, scores: dict[str, Scores]) -> pd.DataFrame:
    """What Section 2 says of denoisers, as comparisons with verdicts. Images are resampled; a network has one training."""
    lines, there = [], set(rows["label"])
    pairs = [(label, other) for label in NETWORKS for other in (COLOUR, GREY)] + [(UNET, chain) for chain in CHAINS]
    for a, b in pairs:
        if not {a, b} <= there:
            continue
        hierarchy = b in CHAINS
        said = "Encoder-decoders extract features efficiently" if hierarchy else "Networks denoise faster than BM3D"
        lines.append((said, f"time of {b} over that of {a}", _speedup(rows, a, b), dict(threshold=1.0), 1))
        said = said if hierarchy else "Networks denoise well beside BM3D"
        asked = dict(threshold=-0.2) if hierarchy else {}
        lines.append((said, f"PSNR, {a} minus {b}, in dB", contrast(scores["psnr"], difference(a, b), NOISY)[0], asked, 2))
    found = [
        {"the paper says": said, "comparison": f"{text}: {criterion(**asked)}", "effect": round(effect.mean, decimals),
         "95% interval": effect.bounds(decimals), "verdict": judge(effect, **asked)}
        for said, text, effect, asked, decimals in lines
    ]  # fmt: skip
    order = {said: n for n, said in enumerate(dict.fromkeys(line["the paper says"] for line in found))}
    return pd.DataFrame(sorted(found, key=lambda line: order[line["the paper says"]])).set_index("the paper says")


def claims_text(table: pd.DataFrame) -> str:
    """A sentence per claim."""
    sentences = []
    for said, part in table.groupby(level=0, sort=False):
        words = part["verdict"].value_counts()
        counts = ", ".join(f"{count} {word}" for word, count in words.items())
        low, high = part["effect"].min(), part["effect"].max()
        sentences.append(f"- **{said}:** of {len(part)} comparisons {counts} (effects from {low:g} to {high:g}).")
    return "\n".join(sentences)
