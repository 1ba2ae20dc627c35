"""The published trainings as data for the book's page with sliders: Figure 3's UNets and Table 3's DC-Nets."""

import json

import pandas as pd

from dcnas.data.noise import SIGMAS
from dcnas.study.figures import provenance_line
from dcnas.study.latencies import section_3
from dcnas.study.results import results
from dcnas.study.stats import of_few

SETTINGS = ["b", "d", "m", "c", "block"]


def curve(rows: pd.DataFrame, metric: str, most: float = 100) -> list[list[float | None]]:
    """[mean, low, high, each training ...] at each noise level; the bounds, at `most`, are Student's 95%, none of one training."""
    levels = []
    for sigma in SIGMAS:
        values = rows.loc[rows["sigma"] == sigma, metric].to_list()
        levels.append([None if pd.isna(value) else round(min(value, most), 2) for value in (*of_few(values), *values)])
    return levels


def grid() -> str:
    """As JSON: `sigmas`, `device`, `unets` and `dcnets` with their curves, and a sentence on where each comes from."""
    unets, dcnets = results(["figure_3", "figure_3_mbconv"], "published").rows, results("table_3", "published").rows
    latency = section_3(batch=1)
    data = {
        "sigmas": SIGMAS,
        "device": f"{latency['device'].iloc[0]}, {latency['threads'].iloc[0]} threads",
        "unets": [
            {"name": name, **{key: rows[key].iloc[0] for key in SETTINGS}, "mflops": round(rows["flops"].iloc[0] / 1e6, 1),
             "ms": round(latency["median_ms"][name], 1), "psnr": curve(rows, "psnr")}
            for name, rows in unets.groupby("label", sort=False)
        ],
        "dcnets": [
            {"name": name.removeprefix("DC-Net "), "psnr": curve(rows, "psnr"), "accuracy": curve(rows, "accuracy")}
            for name, rows in dcnets.groupby("label", sort=False)
        ],
        "from": {"unets": provenance_line(unets), "dcnets": provenance_line(dcnets)},
    }  # fmt: skip
    return json.dumps(data, default=lambda number: number.item(), separators=(",", ":"))
