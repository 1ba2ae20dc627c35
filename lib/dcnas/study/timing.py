"""Latency of every network of Section 3 on one device, measured together and interleaved, kept in `data/latency/`.

The paper times batches of 32 with 100 warm-up and 1000 timed passes, apparently without synchronising; `unsynchronised_ms`
is that reading. Batch 1 is what an edge device sees. Two networks whose latencies a claim compares are also timed side by side.
"""

from dataclasses import fields
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..data.two_digits import IMAGE_SIZE
from ..errors import InputError
from ..latency.measure import Latency, check_device, device_name, measure_many, measure_pair
from ..models.crops import BOX_SIZE
from ..paths import latency_dir, shown, write_atomic
from ..reading import read_frame
from . import experiments as lists
from .experiments import Experiment, build

BATCHES = (1, 32)
PAIRS = (  # whose latencies C03 and C14 compare, at a batch of 32
    ("MB2.5-M", "Conv-L"),
    ("DC-Net Baseline Sequential", "DC-Net Baseline Integrated"),
    ("DC-Net Reduced Sequential", "DC-Net Reduced Integrated"),
)


def inputs_of(experiment: Experiment, batch: int) -> tuple[Tensor, ...]:
    """Random inputs: squares for a classifier, images, or images with two boxes each for a joint model."""
    if experiment.task == "classify":
        return (torch.rand(batch, 1, BOX_SIZE, BOX_SIZE),)
    images = torch.rand(batch, 1, IMAGE_SIZE, IMAGE_SIZE)
    if experiment.task == "denoise":
        return (images,)
    boxes = torch.tensor([[0, 0, 32, 32], [48, 48, 80, 80]]).expand(batch, 2, 4).contiguous()
    return images, boxes


def _networks() -> dict[str, Experiment]:
    """Every network that a table or Figure 3 shows, by label."""
    groups = (lists.tables_1_and_6, lists.figure_3, lists.figure_3_mbconv, lists.table_3)
    return {e.label: e for group in groups for e in group("smoke")}


def measure_section3(device: str = "cpu", threads: int | None = None, rounds: int = 5) -> Path:
    """Measure all networks and write a CSV file named by the device, in place of one of the same device and threads.

    Beside it goes a file of the `PAIRS`, see `measure_pairs`, in twenty times as many rounds.
    """
    rows, on_gpu = [], check_device(device).type == "cuda"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for batch in BATCHES:
            models: dict[str, tuple[nn.Module, tuple]] = {
                label: (build(e), inputs_of(e, batch)) for label, e in _networks().items()
            }
            passes, warmup = (20, 5) if batch == 1 else (2, 1)
            found = measure_many(
                models, rounds=rounds, warmup=warmup, passes=passes, threads=threads, device=device, unsynchronised=on_gpu,
                progress=True,
            )  # fmt: skip
            rows += [{"label": label} | latency.as_row() for label, latency in found.items()]
    if not on_gpu:  # a call returns when its work is done, so the mean is that reading
        rows = [row | {"unsynchronised_ms": row["mean_ms"]} for row in rows]
    measure_pairs(device, threads, 20 * rounds)
    return write_atomic(_path("section3", device, threads), pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


def measure_pairs(device: str = "cpu", threads: int | None = None, rounds: int = 100) -> Path:
    """Time the `PAIRS` side by side in batches of 32 and write every pass to a CSV file, named as that of all networks."""
    frames = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for a, b in tqdm(PAIRS, desc="pairs"):
            models = {label: (build(e), inputs_of(e, 32)) for label, e in _networks().items() if label in (a, b)}
            times = measure_pair(models, rounds, threads, device)
            frames.append(pd.DataFrame({"a": a, "b": b, "round": range(rounds), "a_ms": times[a], "b_ms": times[b]}))
    text = pd.concat(frames).to_csv(index=False, lineterminator="\n", float_format="%.4f")
    return write_atomic(_path("pairs", device, threads), text)


def _path(what: str, device: str, threads: int | None) -> Path:
    name = "-".join("".join(ch if ch.isalnum() else " " for ch in device_name(device).lower()).split())
    return latency_dir() / f"{what}-{name}-{threads or torch.get_num_threads()}threads.csv"


def latencies(batch: int = 32) -> pd.DataFrame:
    """The published latencies at one batch size, a row per network (index `label`), of the first device in the folder.

    Without rows if there are none: `dcnas latency` measures them.
    """
    files = sorted(latency_dir().glob("section3-*.csv"))
    names = ["label", *(f.name for f in fields(Latency))]
    frame = read_frame(files[0], ("label", "batch", "device", "median_ms")) if files else pd.DataFrame(columns=names, dtype=float)
    labels = {size: set(part["label"]) for size, part in frame.groupby("batch")}
    if files and any(found != labels.get(batch) for found in labels.values()):
        raise InputError(f"{shown(files[0])} has not all its networks at a batch of {batch}: it was cut short; measure it anew.")
    return frame[frame["batch"] == batch].set_index("label")


def pair_passes(a: str, b: str) -> pd.DataFrame:
    """The published passes of two networks side by side, a row per round: `a_ms` and `b_ms`. Without rows where none were timed."""
    columns = ["a", "b", "round", "a_ms", "b_ms"]
    files = sorted(latency_dir().glob("pairs-*.csv"))
    frame = read_frame(files[0], columns) if files else pd.DataFrame(columns=columns)
    if files and (frame.groupby(["a", "b"]).size().nunique() > 1 or set(PAIRS) - set(zip(frame["a"], frame["b"]))):
        raise InputError(f"{shown(files[0])} has not all its rounds: it was cut short; measure it anew.")
    return frame[(frame["a"] == a) & (frame["b"] == b)]


def beside_the_paper(theirs: pd.Series, reference: str) -> pd.DataFrame:
    """Latencies in ms per batch, our medians and the paper's (by label, batch 32), then relative to that of `reference`."""
    ours, single = (latencies(batch).reindex(theirs.index) for batch in (32, 1))
    spread = {"q25_ms": "25% of passes (ms)", "q75_ms": "75% of passes (ms)", "unsynchronised_ms": "unsynchronised mean (ms)"}
    table = pd.DataFrame({
        "batch 32 (ms)": ours["median_ms"], "batch 1 (ms)": single["median_ms"], "paper, batch 32 (ms)": theirs,
    })  # fmt: skip
    relative = (table / table.loc[reference]).rename(columns=lambda name: name.replace("(ms)", "(relative)"))
    table = table.join(relative.round(2)).join(ours[[*spread]].rename(columns=spread)).round(3)
    return table.join(ours[["device", "threads"]]).rename_axis("network")
