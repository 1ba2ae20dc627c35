"""Latencies of the study's networks, measured together and interleaved, kept in data/latency.

The paper times batches of 32 with 100 warm-up and 1000 timed passes, apparently without synchronising;
`unsynchronised_ms` is that reading. Networks of Section 4 are measured under the conditions of their
look-up table, and in its milliseconds.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from torch import Tensor
from tqdm.auto import tqdm

from ..data.images import evaluation_images
from ..data.two_digits import IMAGE_SIZE
from ..errors import InputError
from ..latency.measure import check_device, device_name, device_named, measure_many, measure_pair
from ..latency.table import load_table
from ..models.crops import BOX_SIZE
from ..paths import latency_dir, runs_dir, write_atomic
from .derivation import latencies_by_table, obtain_table, table_path
from .filters import BM3D
from .kinds import Named, Run, images_of
from .presets import filters, runs
from .runs import network_of
from .store import is_complete, is_published
from .tasks import bank_noisy

PAIRS = (  # whose latencies C03 and C14 compare, at a batch of 32
    ("MB2.5-M", "Conv-L"),
    ("DC-Net Baseline Sequential", "DC-Net Baseline Integrated"),
    ("DC-Net Reduced Sequential", "DC-Net Reduced Integrated"),
)
SIGMA = 0.4  # at which BM3D is timed


def _write(path: Path, frame: pd.DataFrame, digits: str | None = None) -> Path:
    return write_atomic(path, frame.to_csv(index=False, lineterminator="\n", float_format=digits))


# ---- Section 3


def _inputs(run: Run, batch: int) -> tuple[Tensor, ...]:
    """Squares for a classifier, images, or images with two boxes each for a joint model."""
    if run.task == "classify":
        return (torch.rand(batch, 1, BOX_SIZE, BOX_SIZE),)
    images = torch.rand(batch, 1, IMAGE_SIZE, IMAGE_SIZE)
    boxes = torch.tensor([[0, 0, 32, 32], [48, 48, 80, 80]]).expand(batch, 2, 4).contiguous()
    return (images,) if run.task == "denoise" else (images, boxes)


def measure_section3(device: str = "cpu", threads: int | None = None, rounds: int = 5) -> Path:
    """Measure every network that a table or Figure 3 shows, and the `PAIRS` in 20 times as many rounds.

    Writes two CSV files named by the device and its threads.
    """
    groups, rows, frames = ("tables_1_and_6", "figure_3", "figure_3_mbconv", "table_3"), [], []
    networks = {run.label: run for group in groups for run in runs(group, "smoke")}
    on_gpu = check_device(device).type == "cuda"
    how = dict(rounds=rounds, threads=threads, device=device, unsynchronised=on_gpu, progress=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for batch, warmup, passes in ((1, 5, 20), (32, 1, 2)):
            models = {label: (network_of(run), _inputs(run, batch)) for label, run in networks.items()}
            latencies = measure_many(models, warmup=warmup, passes=passes, **how)
            rows += [{"label": label} | latency.as_row() for label, latency in latencies.items()]
        for pair in tqdm(PAIRS, desc="pairs"):
            models = {name: (network_of(networks[name]), _inputs(networks[name], 32)) for name in pair}
            a_ms, b_ms = measure_pair(models, 20 * rounds, threads, device).values()
            names = dict(a=pair[0], b=pair[1], round=range(20 * rounds))
            frames.append(pd.DataFrame(names | dict(a_ms=a_ms, b_ms=b_ms)))
    table = pd.DataFrame(rows)
    if not on_gpu:  # a call returns when its work is done, so the mean is that reading
        table["unsynchronised_ms"] = table["mean_ms"]
    name = f"{_slug(device_name(device))}-{threads or torch.get_num_threads()}threads.csv"
    _write(latency_dir() / f"pairs-{name}", pd.concat(frames), "%.4f")
    return _write(latency_dir() / f"section3-{name}", table)


def _slug(device: str) -> str:
    return "-".join("".join(ch if ch.isalnum() else " " for ch in device.lower()).split())


def _of_a_device(kind: str) -> Path:
    """The file of the reader's own device, or else of the first."""
    own = f"{kind}-{_slug(device_name())}-"
    return min(latency_dir().glob(f"{kind}-*.csv"), key=lambda p: (not p.name.startswith(own), p.name))


def section_3(batch: int = 32) -> pd.DataFrame:
    """The latencies at a batch size, by label, of the reader's own device or else the first published;
    the column `device` says whose they are.
    """
    frame = pd.read_csv(_of_a_device("section3"))
    return frame[frame["batch"] == batch].set_index("label")


def pair_passes(a: str, b: str) -> pd.DataFrame:
    """The passes of two networks side by side, a row per round: `a_ms` and `b_ms`."""
    frame = pd.read_csv(_of_a_device("pairs"))
    return frame[(frame["a"] == a) & (frame["b"] == b)]


# ---- Sections 2 and 4


def latency_path(section: int, scale: str) -> Path:
    """Where the latencies of a section's networks lie."""
    if scale == "smoke":
        return runs_dir() / f"latency-section{section}.csv"
    return latency_dir() / f"section{section}-{scale}.csv"


def measured(section: int, scale: str) -> pd.DataFrame:
    """The measured latencies of Section 2 or 4 at a scale; at smoke measured where they are missing."""
    path = latency_path(section, scale)
    if scale == "smoke" and not path.exists():
        (measure_section2 if section == 2 else measure_section4)(scale, rounds=1)
    if not path.exists():
        command = f"`dcnas latency --section {section} --scale {scale}`"
        raise InputError(f"{path.name} is missing; with nothing else running, run {command}.")
    return pd.read_csv(path)


def network_key(kind: str, source: str | None, decoder: str, b, large: bool, upscaled: float) -> str:
    """What two trainings of one network share: the network, its architecture's source, its variant."""
    parts = (kind, source, decoder, b and f"b={b}", large and "large", upscaled)
    return " ".join(str(part) for part in parts if part)


def _key(run: Run) -> str:
    net, unet = run.net, run.unet
    variant = net.get("decoder", "conv"), unet.get("b"), unet.get("d") == 5, net.get("upscaled", 1.0)
    return network_key(net["kind"], run.source and run.source.name, *variant)


def measure_section4(
    scale: str, listed: Iterable[Named] = (), *, rounds: int = 30, progress=False
) -> Path:
    """Measure networks (all that can be built, if none are given) under the look-up table's conditions.

    Networks that the scale's file has already are left as they are. Leave the machine alone meanwhile.
    """
    path, table = latency_path(4, scale), obtain_table(scale, progress=False)
    listed = [run for run in listed or runs("section4", scale) if isinstance(run, Run)]
    listed = [r for r in listed if r.source is None or is_complete(r.source) or is_published(r.source)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        known = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["network", "device"])
        known = known[known["device"] == table.conditions.device]  # nothing of another one stays
        new = {_key(run): run for run in listed if _key(run) not in set(known["network"])}
        if not new:
            return path
        with torch.random.fork_rng():
            models = {key: network_of(run) for key, run in new.items()}
        latencies, slowdown = latencies_by_table(models, table, rounds=rounds, progress=progress)
        rows = [
            {"label": run.label, "seed": run.seed, "network": key, "slowdown": slowdown}
            | latencies[key].as_row()
            for key, run in new.items()
        ]
        rows = pd.DataFrame(rows)
        if device_named(table.conditions.device).type == "cpu":  # the mean is that reading
            rows["unsynchronised_ms"] = rows["mean_ms"]
        rows = pd.concat([known, rows], ignore_index=True) if len(known) else rows
        return _write(path, rows.drop_duplicates(["label", "seed"], keep="last"))


def with_latency(rows: pd.DataFrame, scale: str) -> pd.DataFrame:
    """With the latency of each row's very network, in the table's milliseconds."""
    known = measured(4, scale).drop_duplicates("network").set_index("network")
    known = known.rename(columns={"median_ms": "latency_ms", "batch": "latency_batch"})
    times = ["latency_ms", "q25_ms", "q75_ms"]
    known[times] = known[times].div(known["slowdown"], axis=0)
    parts = rows[["network", "derivation", "decoder", "b", "large", "upscaled"]].astype(object)
    parts = parts.where(parts.notna(), None)
    keys = [network_key(*part) for part in parts.itertuples(index=False)]
    if missing := sorted(set(rows["label"][~pd.Index(keys).isin(known.index)])):
        raise InputError(
            f"the latency of {', '.join(missing)} was not measured on this scale's device; with nothing "
            f"else running, run `dcnas latency --section 4 --scale {scale}`."
        )
    return rows.join(known.loc[keys, [*times, "passes", "latency_batch"]].set_axis(rows.index))


def repeat_error(latency_ms: pd.Series, derived: pd.DataFrame) -> float:
    """Relative standard error of one measurement, from networks measured twice; 0 of fewer than three.

    What all networks of a session have in common is left out: it cancels where two are compared.
    """
    keys = derived["network"] + " " + derived["run"] + " conv 1.0"  # as `network_key` has them
    logs = np.log(latency_ms / derived["measured_ms"].set_axis(keys)).dropna()
    return float(logs.std() / 2**0.5) if len(logs) > 2 else 0.0


def measure_section2(scale: str, *, rounds: int = 30, progress: bool = False) -> Path:
    """Time BM3D (on the CPU) and the networks in turns, one image, on the table's device and threads."""
    path, conditions = latency_path(2, scale), load_table(table_path(scale)).conditions
    device, each = device_named(conditions.device), filters(scale)
    views, _ = evaluation_images(images_of(each[0]), "test", conditions.resolution, 1)
    image = bank_noisy(views)(range(1), SIGMA)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")), torch.random.fork_rng():
        models = {run.label: (BM3D(SIGMA, run.grey), (image,)) for run in each}
        others = {run.label: (network_of(run), (image,)) for run in runs("related_work", scale)}
        how = dict(rounds=rounds, warmup=1, passes=1, threads=conditions.threads, progress=progress)
        if device.type == "cpu":
            latencies = measure_many(models | others, **how)
        else:
            latencies = measure_many(models, **how) | measure_many(others, device=device, **how)
        rows = [{"label": label} | latency.as_row() for label, latency in latencies.items()]
        return _write(path, pd.DataFrame(rows))
