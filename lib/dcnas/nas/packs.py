"""The look-up table in ONNX Runtime: networks packed for a device, and the table from what it measured.

A pack is a folder with ONNX files, a list of them and the script `measure.py` (`latency.board`), which
needs numpy and onnxruntime alone, so that a board without PyTorch can run it; a table for this machine
comes about in the same way. As in `nas.lut`, blocks are timed inside whole networks of `design`: there
they have the neighbours, the cache and the memory layout of real use, and the runtime's optimisations go
across their borders. Blocks alone, or differences of chains with and without one, would each pay for a
change of layout that whole networks have once, and a difference of two whole networks has the noise of
both. The runtime's own profiler says what each node took, and some microseconds too much, of its own:
as many per node as the same networks take less without it. The correction is fitted on other networks.
"""

import json
import shutil
from collections import defaultdict
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, Field, PositiveInt
from tqdm.auto import tqdm

from ..errors import InputError, in_file
from ..latency import board, runtime  # of the extra `export`
from ..latency.table import Milliseconds, Table
from ..paths import shown, write_atomic
from .lut import (
    VALIDATION_NETWORKS,
    conditions_of,
    curves_of,
    design,
    fit_correction,
    names_of_parts,
    networks_over_the_range,
    parts,
    predicted_ms,
    space_of,
)
from .networks import IMAGE_CHANNELS, Joint, build_network
from .space import Space

SCRIPT, PASSES = "measure.py", 10
# ONNX Runtime lays channels out in blocks of 8 or 16; where they do not fit, its kernels are slow
WIDTH_STEP = 8


class _File(BaseModel):
    """An ONNX file of a pack: how the names of its nodes begin, part by part, or the parts' entries."""

    file: str
    profile: bool
    parts: dict[str, str] | list[tuple[str, int]]


class _Pack(BaseModel):
    kind: Literal["table"]
    space: Space
    shape: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    torch_version: str
    rounds: PositiveInt
    passes: PositiveInt
    threads: PositiveInt
    files: list[_File]


class _Measured(BaseModel):
    """What `measure.py` writes."""

    format: Literal[1]
    pack: _Pack
    device: str
    threads: PositiveInt
    runtime: str
    date: str
    rounds: int
    samples: dict[str, Annotated[list[Milliseconds], Field(min_length=1)]]
    nodes: dict[str, dict[str, PositiveInt]]  # by file and part


def begin_pack(folder: Path, kind: str, batch: int, resolution: int, threads: int, **more) -> None:
    """Write the list and the script of a pack, before its files; `InputError` for another's folder."""
    shape = [batch, IMAGE_CHANNELS, resolution, resolution]
    record = {"kind": kind, "shape": shape, "threads": threads, "passes": PASSES, **more}
    text, path = json.dumps(record, indent=1) + "\n", folder / board.LIST
    if path.exists() and path.read_text() != text:
        raise InputError(f"{shown(folder)} holds another pack; remove it, or use the settings it had.")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(board.__file__, folder / SCRIPT)
    write_atomic(path, text)


def pack_table(
    space: Space,
    folder: Path,
    *,
    batch: int = 1,
    threads: int = 1,
    rounds: int = 12,
    networks: int = VALIDATION_NETWORKS,
    progress: bool = True,
) -> Path:
    """A pack that measures a table of a space, and holds it against so many random whole networks."""
    files, build, rng = [], {}, np.random.default_rng(0)
    modules = [f"stages.{layer.stage}.{layer.block}" for layer in space.layers]
    modules = ["first", "second", *modules, "head", "decoder"]  # as the names of nodes have them
    for n, (architecture, decoder) in enumerate(design(space)):
        names = names_of_parts(architecture, decoder)
        keys = {f"/model/{module}/": name for module, name in zip(modules, names, strict=True)}
        # the node of an output has the output's name
        keys |= {"denoised": keys["/model/decoder/"], "logits": keys["/model/head/"]}
        files.append(_File(file=f"blocks-{n:02}.onnx", profile=True, parts=keys))
        build[files[-1].file] = partial(Joint, architecture, decoder)
    for n, (kind, a) in enumerate(networks_over_the_range(space, networks, rng)):
        files.append(_File(file=f"network-{n:02}.onnx", profile=False, parts=parts(a, kind)))
        build[files[-1].file] = partial(build_network, kind, a)
    sizes = dict(space=asdict(space), rounds=rounds, torch_version=str(torch.__version__))
    listed = [file.model_dump() for file in files]
    begin_pack(folder, "table", batch, space.resolution, threads, files=listed, **sizes)
    with torch.random.fork_rng():
        for name, network in tqdm(build.items(), desc="pack", unit="network", disable=not progress):
            if not (folder / name).exists():
                torch.manual_seed(0)
                part = runtime.write_graph(network(), folder / f"{name}.part", space.resolution)
                part.replace(folder / name)
    return folder


def read_table(path: Path) -> tuple[Table, pd.DataFrame | None]:
    """The table of a file that `measure.py` wrote, and the frame of its validation."""
    with in_file(path):
        measured = _Measured.model_validate_json(Path(path).read_bytes())
    pack, samples = measured.pack, measured.samples
    if measured.rounds < pack.rounds:
        rounds = f"{measured.rounds} of {pack.rounds} rounds"
        raise InputError(f"{shown(path)} has {rounds}; run {SCRIPT} again, it goes on.")
    conditions = conditions_of(
        pack.space,
        device=measured.device,
        threads=measured.threads,
        batch=pack.shape[0],
        memory_format="contiguous",
        torch_version=pack.torch_version,
        date=measured.date,
        runtime="onnxruntime",
        runtime_version=measured.runtime,
    )
    table = Table(conditions, curves_of(_parts_ms(samples, measured.nodes)))
    whole = {file.file: file.parts for file in pack.files if not file.profile}
    if not whole:
        return table, None
    low, median, high = np.quantile([samples[file] for file in whole], [0.25, 0.5, 0.75], axis=1)
    frame = pd.DataFrame({"network": list(whole)})
    frame["predicted_ms"] = [table.total_ms(entries) for entries in whole.values()]
    frame["measured_ms"], frame["spread_ms"] = median, high - low
    frame, table = fit_correction(table, frame)
    return table, frame


def networks_beside(table: Table, count: int = 5) -> dict[str, tuple[torch.nn.Module, float]]:
    """Files for networks over the table's range, each with the latency in ms that the table says."""
    space = space_of(table.conditions, classes=100)
    drawn = networks_over_the_range(space, count, np.random.default_rng(0))
    with torch.random.fork_rng():
        return {
            f"beside-{n}.onnx": (build_network(kind, a), predicted_ms(table, a, kind))
            for n, (kind, a) in enumerate(drawn)
        }


def _parts_ms(samples: dict, nodes: dict) -> dict[str, list[float]]:
    """The times of all parts without what the profiler takes for their nodes."""
    shares, counts = [], defaultdict(list)
    for file, by_part in nodes.items():
        profiled_ms = sum(np.median(samples[part]) for part in by_part)
        shares.append((profiled_ms - np.median(samples[file])) / sum(by_part.values()))
        for part, count in by_part.items():
            counts[part].append(count)
    node_ms = max(0.0, float(np.median(shares)))
    return {
        # the share is an average: of the smallest parts, of whole microseconds, something is left
        part: [max(0.1 * ms, ms - node_ms * float(np.mean(count))) for ms in samples[part]]
        for part, count in counts.items()
    }


def build_table(
    space: Space,
    path: Path,
    *,
    batch: int = 32,
    device: str = "cpu",
    threads: int | None = None,
    rounds: int = 12,
    progress: bool = True,
) -> Table:
    """`nas.lut.build_table` in ONNX Runtime, of this machine's processor.

    What a killed call measured is in the folder `path`.part, and the same call goes on.
    """
    if device != "cpu":
        reason = "ONNX Runtime is timed on the processor alone; name the runtime pytorch for a GPU"
        raise InputError(f"device is {device!r}, but {reason}.")
    folder, threads = Path(f"{path}.part"), threads or torch.get_num_threads()
    how = dict(batch=batch, threads=threads, rounds=rounds, progress=progress)
    pack_table(space, folder, networks=0, **how)
    try:
        board.measure(folder, limit_pct=float("inf"), progress=progress)
    except board.Refusal as refusal:
        raise InputError(str(refusal)) from None
    table, _ = read_table(folder / board.RESULT)
    table.save(path)
    shutil.rmtree(folder)
    return table
