"""`dcnas front`: what latency buys, before a target is chosen.

One short search, for the middle of the space's range, gives the most probable network for every target
(`nas.derive.Frontier`). Beside these stand random networks of the same targets, and DC-Net and
MobileNetV3 of about as many milliseconds. All are trained briefly and equally: what they end at is no
promise for a long training, but orders networks and shows where more time gains little.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from tqdm.auto import tqdm

from ..errors import InputError
from ..latency.table import Table, load_table
from ..nas.derive import Frontier
from ..nas.lut import predicted_ms
from ..nas.settings import latency_range_ms
from ..nas.space import Architecture
from ..options import FrontOptions
from ..paths import write_atomic
from . import figures
from .derivation import log_alphas
from .kinds import Run, Search, images_of
from .own_compare import METRICS, columns_of, scores_of
from .own_runs import search_run, training_of
from .rivals import device_of, families, nearest, random_of, times_ms
from .runs import obtain
from .stats import bootstrap
from .store import is_complete, to_csv

NETWORKS, FRONT, PICTURE = "front.json", "front.csv", "front.png"


def range_of(options: FrontOptions) -> tuple[Search, float, float]:
    """The short search, and the smallest and largest latency of its space in ms, by the table."""
    search = search_run(options)
    network = search.with_target(search.target).network
    return search, *latency_range_ms(search.space, load_table(options.lut), network)


def front(options: FrontOptions) -> pd.DataFrame:
    """Search, choose, train, and write `front.csv` and `front.png`, anew after each training: a row per
    network.
    """
    search, low, high = range_of(options)
    targets = np.linspace(low, high, options.points + 2)[1:-1].round(3).tolist()
    obtain(search, device=options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    with FileLock(options.out / f".{NETWORKS}.lock"):
        rows = _chosen(search, targets, options.out / NETWORKS)
    photos = search.photos["data"], search.photos["resolution"]
    how = options, options.steps
    runs = [training_of(row["net"], f"own {row['network']}", *photos, *how) for row in rows]
    frame = _written(rows, runs, options.out)
    for run in tqdm(runs, "front", unit="network"):
        if not is_complete(run):
            obtain(run, device=options.device)
            frame = _written(rows, runs, options.out)
    return frame


def _chosen(search: Search, targets: list[float], path: Path) -> list[dict]:
    """The networks, {kind, network, latency_ms, latency_by, net}, as chosen before for this search."""
    head = {"search": search.name, "targets_ms": targets}
    if path.exists():
        known = json.loads(path.read_text())
        if known["of"] != head:
            raise InputError(f"{path.parent} holds the front of another search; name another folder.")
        return known["networks"]
    table, network = load_table(Path(search.table)), search.with_target(search.target).network
    classes, space = len(images_of(search).classes), search.space
    best = Frontier(space, table, log_alphas(search), network)
    drawn = {"searched": [best.best(ms) for ms in targets]}
    drawn["random"] = [random_of(space, table, network, ms, n) for n, ms in enumerate(targets)]
    rows = [
        _row(kind, f"{kind} {n + 1}", architecture, network, table)
        for kind, some in drawn.items()
        for n, architecture in enumerate(some)
    ]
    for kind, family in families(network, search.strides[0]).items():
        names = dict.fromkeys(nearest(family, targets, table, classes))
        rows += [{"kind": kind, "network": name, "net": family[name]} for name in names]
    measured = times_ms({row["network"]: row["net"] for row in rows}, table, classes, rounds=10)
    here = device_of(table) is not None
    for row in rows:
        if here or "latency_ms" not in row:
            row["latency_ms"] = measured[row["network"]]
            row["latency_by"] = "measured" if here else "estimated from another device"
    write_atomic(path, json.dumps({"of": head, "networks": rows}, indent=1) + "\n")
    return rows


def _row(kind: str, name: str, architecture: Architecture, network: str, table: Table) -> dict:
    net = {"kind": network, "architecture": json.loads(architecture.to_json())}
    latency = {"latency_ms": predicted_ms(table, architecture, network), "latency_by": "table"}
    return {"kind": kind, "network": name, "net": net} | latency


def _written(rows: list[dict], runs: list[Run], folder: Path) -> pd.DataFrame:
    """The frame of what is trained so far, written as a table and a picture; `psnr_front` and
    `accuracy_front` mark networks than which no faster one is better.
    """
    done = []
    for row, run in zip(rows, runs, strict=True):
        if is_complete(run):
            head = {name: row[name] for name in ("kind", "network", "latency_ms", "latency_by")}
            for metric, values in scores_of([run]).items():
                head |= columns_of(metric, bootstrap(values))
            done.append(head | {"images": values.shape[1], "steps": run.train.steps})
    frame = pd.DataFrame(done)
    if len(frame):
        frame = frame.sort_values("latency_ms", ignore_index=True)
        for metric in (name for name in METRICS if name in frame):
            frame[f"{metric}_front"] = frame[metric] > frame[metric].cummax().shift(fill_value=-np.inf)
        write_atomic(folder / FRONT, to_csv(frame.to_dict("records")))
        write_atomic(folder / PICTURE, figures.png_bytes(front_figure(frame)))
    return frame


def front_figure(frame: pd.DataFrame) -> figures.Figure:
    """Latency against each metric with 95% intervals over images; the front as a stair."""
    metrics = [name for name in METRICS if name in frame]
    figure, axes = figures.new_figure(5.5 * len(metrics), 3.8, 1, len(metrics), squeeze=False)
    for ax, metric in zip(axes[0], metrics, strict=True):
        best = frame[frame[f"{metric}_front"]]
        ax.step(best["latency_ms"], best[metric], where="post", color="0.7", linewidth=3)
        for i, kind in enumerate(dict.fromkeys(frame["kind"].sort_values())):
            some = frame[frame["kind"] == kind]
            reach = (some[metric] - some[f"{metric}_low"], some[f"{metric}_high"] - some[metric])
            look = figures.style(i) | dict(linestyle="", capsize=2, label=kind)
            ax.errorbar(some["latency_ms"], some[metric], reach, **look)
        ax.set(xlabel="latency (ms)", ylabel=f"{'PSNR (dB)' if metric == 'psnr' else 'accuracy (%)'}")
    axes[0, 0].legend()
    return figure
