"""Latencies of the study's networks, measured together and interleaved, kept in data/latency.

The paper times batches of 32 with 100 warm-up and 1000 timed passes, apparently without synchronising;
`unsynchronised_ms` is that reading. Batch 1 is what an edge device sees. Networks of Section 4 are
measured under the conditions of their look-up table, and in its milliseconds. Two networks whose
latencies a claim compares are also timed side by side.
"""

from collections.abc import Sequence
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
from ..latency.measure import (
    check_device,
    device_name,
    device_named,
    measure_many,
    measure_pair,
    median_error,
)
from ..latency.table import load_table
from ..models.crops import BOX_SIZE
from ..paths import latency_dir, runs_dir, write_atomic
from .derivation import latencies_by_table, obtain_table, table_path
from .filters import BM3D
from .kinds import Run, images_of
from .presets import filters, runs
from .runs import network_of
from .store import is_complete, is_published
from .tasks import bank_noisy

BATCHES = (1, 32)
PAIRS = (  # whose latencies C03 and C14 compare, at a batch of 32
    ("MB2.5-M", "Conv-L"),
    ("DC-Net Baseline Sequential", "DC-Net Baseline Integrated"),
    ("DC-Net Reduced Sequential", "DC-Net Reduced Integrated"),
)
SIGMA = 0.4  # at which BM3D is timed


# ---- Section 3


def inputs_of(run: Run, batch: int) -> tuple[Tensor, ...]:
    """Random inputs: squares for a classifier, images, or images with two boxes each for a joint
    model.
    """
    if run.task == "classify":
        return (torch.rand(batch, 1, BOX_SIZE, BOX_SIZE),)
    images = torch.rand(batch, 1, IMAGE_SIZE, IMAGE_SIZE)
    boxes = torch.tensor([[0, 0, 32, 32], [48, 48, 80, 80]]).expand(batch, 2, 4).contiguous()
    return (images,) if run.task == "denoise" else (images, boxes)


def measure_section3(device: str = "cpu", threads: int | None = None, rounds: int = 5) -> Path:
    """Measure every network that a table or Figure 3 shows, and the `PAIRS` in twenty times as many
    rounds.

    Writes two CSV files named by the device, in place of those of the same device and threads.
    """
    groups = ("tables_1_and_6", "figure_3", "figure_3_mbconv", "table_3")
    networks, rows = {run.label: run for group in groups for run in runs(group, "smoke")}, []
    on_gpu = check_device(device).type == "cuda"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for batch in BATCHES:
            models = {label: (network_of(run), inputs_of(run, batch)) for label, run in networks.items()}
            passes, warmup = (20, 5) if batch == 1 else (2, 1)
            how = dict(rounds=rounds, warmup=warmup, passes=passes, threads=threads, device=device)
            measured = measure_many(models, unsynchronised=on_gpu, progress=True, **how)
            rows += [{"label": label} | latency.as_row() for label, latency in measured.items()]
        frames = []
        for a, b in tqdm(PAIRS, desc="pairs"):
            models = {
                label: (network_of(networks[label]), inputs_of(networks[label], 32)) for label in (a, b)
            }
            times = measure_pair(models, 20 * rounds, threads, device)
            frames.append(
                pd.DataFrame(
                    {"a": a, "b": b, "round": range(20 * rounds), "a_ms": times[a], "b_ms": times[b]}
                )
            )
    if not on_gpu:  # a call returns when its work is done, so the mean is that reading
        rows = [row | {"unsynchronised_ms": row["mean_ms"]} for row in rows]
    words = "".join(ch if ch.isalnum() else " " for ch in device_name(device).lower()).split()
    name = f"{'-'.join(words)}-{threads or torch.get_num_threads()}threads.csv"
    text = pd.concat(frames).to_csv(index=False, lineterminator="\n", float_format="%.4f")
    write_atomic(latency_dir() / f"pairs-{name}", text)
    return write_atomic(
        latency_dir() / f"section3-{name}", pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
    )


def section_3(batch: int = 32) -> pd.DataFrame:
    """The published latencies at one batch size, a row per network (index `label`), of the first device
    in the folder.
    """
    frame = pd.read_csv(min(latency_dir().glob("section3-*.csv")))
    return frame[frame["batch"] == batch].set_index("label")


def pair_passes(a: str, b: str) -> pd.DataFrame:
    """The published passes of two networks side by side, a row per round: `a_ms` and `b_ms`."""
    frame = pd.read_csv(min(latency_dir().glob("pairs-*.csv")))
    return frame[(frame["a"] == a) & (frame["b"] == b)]


# ---- Section 4


def latency_path(section: str, scale: str) -> Path:
    """Where the latencies of a section's networks lie."""
    return (
        runs_dir() / f"latency-{section}.csv"
        if scale == "smoke"
        else latency_dir() / f"{section}-{scale}.csv"
    )


def network_key(kind: str, source: str | None, decoder: str, b, large: bool, upscaled: float) -> str:
    """What two trainings of one network have in common: the network, where its architecture comes from,
    and its variant.
    """
    parts = (kind, source, decoder, b and f"b={b}", large and "large", upscaled)
    return " ".join(str(part) for part in parts if part)


def _key(run: Run) -> str:
    source, net = run.source and run.source.name, run.net
    return network_key(
        net["kind"],
        source,
        net.get("decoder", "conv"),
        run.unet.get("b"),
        run.unet.get("d") == 5,
        net.get("upscaled", 1.0),
    )


def _known(run: Run) -> bool:
    return run.source is None or is_complete(run.source) or is_published(run.source)


def measure_section4(
    scale: str,
    listed: Sequence[Run] | None = None,
    *,
    rounds: int = 30,
    passes: int = 1,
    progress: bool = False,
) -> Path:
    """Measure networks (all that can be built, if none are given) together, interleaved, under the
    look-up table's conditions.

    Networks that the scale's file has already are left as they are. Leave the machine alone meanwhile.
    """
    path, table = latency_path("section4", scale), obtain_table(scale, progress=False)
    device = device_named(table.conditions.device)
    listed = [
        run
        for run in (runs("section4", scale) if listed is None else listed)
        if isinstance(run, Run) and _known(run)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        known = (
            pd.read_csv(path)
            if path.exists()
            else pd.DataFrame(columns=["label", "seed", "network", "device"])
        )
        known = known[
            known["device"] == table.conditions.device
        ]  # nothing of another one may stay beside what is measured now
        wanted = [run for run in listed if _key(run) not in set(known["network"])]
        if not wanted:
            return path
        with torch.random.fork_rng():
            models = {key: network_of(run) for key, run in {_key(run): run for run in wanted}.items()}
        measured, slowdown = latencies_by_table(
            models, table, rounds=rounds, passes=passes, progress=progress
        )
        head = [
            {"label": run.label, "seed": run.seed, "network": _key(run), "slowdown": slowdown}
            for run in wanted
        ]
        rows = pd.DataFrame([row | measured[row["network"]].as_row() for row in head])
        if device.type == "cpu":  # a call returns when its work is done, so the mean is that reading
            rows["unsynchronised_ms"] = rows["mean_ms"]
        replaced = set(zip(rows["label"], rows["seed"], strict=True))
        known = known[[key not in replaced for key in zip(known["label"], known["seed"], strict=True)]]
        frames = [frame for frame in (known, rows) if len(frame)]
        return write_atomic(
            path, pd.concat(frames, ignore_index=True).to_csv(index=False, lineterminator="\n")
        )


def section_4(scale: str) -> pd.DataFrame:
    """The measured latencies of all networks of a scale, a row per network and seed; at scale smoke
    measured where none are.
    """
    path = latency_path("section4", scale)
    if scale == "smoke" and not path.exists():
        measure_section4(
            scale,
            [run for run in runs("section4", scale) if isinstance(run, Run) and run.source is None],
            rounds=1,
        )
    return _read(path, 4, scale)


def _read(path: Path, section: int, scale: str) -> pd.DataFrame:
    if not path.exists():
        command = f"`dcnas latency --section {section} --scale {scale}`"
        raise InputError(f"{path.name} is missing; with nothing else running, run {command}.")
    return pd.read_csv(path)


def with_latency(rows: pd.DataFrame, scale: str, derived: pd.DataFrame) -> pd.DataFrame:
    """With the latency of each row's very network, in the table's milliseconds, and its standard error.

    The error is that of the median of the passes, or, where it is larger, what two measurements of one
    network differ by: the derivations `derived` measured theirs before.
    """
    known = section_4(scale).drop_duplicates("network")
    for name in ("median_ms", "q25_ms", "q75_ms"):
        known[name] /= known["slowdown"]
    known = known.rename(columns={"median_ms": "latency_ms", "batch": "latency_batch"})
    known = known.set_index("network")[["latency_ms", "q25_ms", "q75_ms", "passes", "latency_batch"]]
    error_ms = median_error(known["q75_ms"] - known["q25_ms"], known["passes"])
    known["error_ms"] = np.maximum(
        error_ms, repeat_error(known["latency_ms"], derived) * known["latency_ms"]
    )
    some = rows.astype(object).where(rows.notna(), None)
    keys = [
        network_key(r.network, r.derivation, r.decoder, r.b, r.large, r.upscaled)
        for r in some.itertuples()
    ]
    if missing := sorted(
        {label for label, key in zip(rows["label"], keys, strict=True) if key not in known.index}
    ):
        raise InputError(
            f"the latency of {', '.join(missing)} was not measured on this scale's device; "
            "with nothing else running, run "
            f"`dcnas latency --section 4 --scale {scale}`."
        )
    return rows.join(known.loc[keys].set_axis(rows.index))


def repeat_error(latency_ms: pd.Series, derived: pd.DataFrame) -> float:
    """Relative standard error of one measurement, from networks that were measured twice; 0 where there
    are fewer than three.

    What all networks of a session have in common is left out: it cancels where two of them are compared.
    """
    keys = [network_key(row.network, row.run, "conv", None, False, 1.0) for row in derived.itertuples()]
    pairs = [
        (latency_ms[key], ms)
        for key, ms in zip(keys, derived.get("measured_ms", ()))
        if key in latency_ms.index
    ]
    return float(np.std([np.log(a / b) for a, b in pairs], ddof=1) / 2**0.5) if len(pairs) > 2 else 0.0


# ---- Section 2


def measure_section2(scale: str, *, rounds: int = 30, progress: bool = False) -> Path:
    """Time BM3D and the networks in turns, one image of the scale's size, on the table's device and
    threads (BM3D on the CPU).
    """
    path, conditions = latency_path("section2", scale), load_table(table_path(scale)).conditions
    device, networks = (
        device_named(conditions.device),
        {run.label: run for run in runs("related_work", scale)},
    )
    views, _ = evaluation_images(images_of(filters(scale)[0]), "test", conditions.resolution, 1)
    image = bank_noisy(views)(range(1), SIGMA)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")), torch.random.fork_rng():
        models = {run.label: (BM3D(SIGMA, run.grey), (image,)) for run in filters(scale)}
        others = {label: (network_of(run), (image,)) for label, run in networks.items()}
        how = dict(rounds=rounds, warmup=1, passes=1, threads=conditions.threads, progress=progress)
        if device.type == "cpu":
            measured = measure_many(models | others, **how)
        else:
            measured = measure_many(models, **how) | measure_many(others, device=device, **how)
        rows = pd.DataFrame([{"label": label} | latency.as_row() for label, latency in measured.items()])
        return write_atomic(path, rows.to_csv(index=False, lineterminator="\n"))


def section_2(scale: str) -> pd.DataFrame:
    """Latency of each denoiser for a single image; measured where it was not at scale smoke."""
    path = latency_path("section2", scale)
    if scale == "smoke" and not path.exists():
        measure_section2(scale, rounds=1)
    return _read(path, 2, scale)
