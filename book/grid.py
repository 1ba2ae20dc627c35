"""The published trainings as data for the book's sliders: Figure 3's UNets and Table 3's DC-Nets."""

import json

import pandas as pd

from dcnas.data.noise import SIGMAS
from dcnas.study.figures import provenance_line
from dcnas.study.latencies import section_3
from dcnas.study.results import results
from dcnas.study.stats import of_few


def curve(rows: pd.DataFrame, metric: str, most: float = 100) -> list[list[float | None]]:
    """[mean, low, high, each training ...] at each noise level.

    The bounds are Student's 95%, cut at `most`, and None of a single training.
    """
    levels = []
    for sigma in SIGMAS:
        values = rows.loc[rows["sigma"] == sigma, metric].to_list()
        numbers = (*of_few(values), *values)
        levels.append([None if pd.isna(number) else round(min(number, most), 2) for number in numbers])
    return levels


def unet(name: str, rows: pd.DataFrame, latency_ms: float) -> dict:
    """A UNet: its hyper-parameters, FLOPs (M), ms for a single image and PSNR (dB)."""
    settings = rows[["b", "d", "m", "c", "block"]].iloc[0].to_dict()
    cost = {"mflops": round(rows["flops"].iloc[0] / 1e6, 1), "ms": round(latency_ms, 1)}
    return {"name": name} | settings | cost | {"psnr": curve(rows, "psnr")}


def dcnet(name: str, rows: pd.DataFrame) -> dict:
    """A DC-Net: PSNR (dB) and accuracy (%)."""
    return {"name": name} | {metric: curve(rows, metric) for metric in ("psnr", "accuracy")}


def grid() -> str:
    """As JSON: `sigmas`, `device`, `unets` and `dcnets`, in `from` how they were trained."""
    unets = results(["figure_3", "figure_3_mbconv"], "published").rows
    dcnets, latency = results("table_3", "published").rows, section_3(batch=1)
    each, joint = (rows.groupby("label", sort=False) for rows in (unets, dcnets))
    data = {
        "sigmas": SIGMAS,
        "device": f"{latency['device'].iloc[0]}, {latency['threads'].iloc[0]} threads",
        "unets": [unet(name, rows, latency["median_ms"][name]) for name, rows in each],
        "dcnets": [dcnet(name.removeprefix("DC-Net "), rows) for name, rows in joint],
        "from": {"unets": provenance_line(unets), "dcnets": provenance_line(dcnets)},
    }
    return json.dumps(data, default=lambda number: number.item(), separators=(",", ":"))
