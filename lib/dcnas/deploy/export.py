"""A trained network as one ONNX file for a board: batch norm folded, and checked against PyTorch in ONNX
Runtime.

The input `noisy` is (batch, channels, rows, columns) in [0, 1], rows and columns multiples of 32; for
the joint networks of Section 3 there are `boxes` as well. Outputs are `denoised` and `logits`, or the
one that the network gives. What a program on the board must know is in the file's metadata (`facts`).
"""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..data.pictures import STRIDE
from ..data.two_digits import IMAGE_SIZE
from ..errors import InputError
from ..latency.runtime import OPSET, Outputs, Session, folded, write_graph
from ..latency.table import Table
from ..models.crops import BOX_SIZE
from ..models.dcnet import JOINING
from ..nas.packs import begin_pack, networks_beside
from ..paths import shown
from .weights import Network

TOLERANCE = 1e-4  # largest difference of an output from PyTorch's
# numpy.pad's mode, and where: how `data.pictures` brings any size to multiples of the stride
PADDING = {"mode": "reflect", "where": ["below", "right"]}
try:  # of the extra `export`
    import onnx
    import onnxscript  # noqa: F401, PyTorch's exporter is written in it
except ImportError as error:
    raise InputError(
        f"{error.name} is not installed; `pip install 'dcnas[export]'` brings what export needs."
    ) from error


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A place beside `path` for a file that takes its name once it is sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / path.name
        yield part
        os.replace(part, path)


def example(network: Network, batch: int = 2, rows: int = 64, columns: int = 96) -> tuple[Tensor, ...]:
    """Random inputs of a network; those that take boxes have a batch of 1, and `batch` boxes."""
    images = torch.rand(
        batch, network.channels, rows, columns, generator=torch.Generator().manual_seed(0)
    )
    if network.kind not in JOINING:
        return (images,)
    return images[:1], torch.tensor([[[0, 0, BOX_SIZE, BOX_SIZE]] * batch])  # 1 would become a constant


def outputs(network: Network, *inputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """(denoised, logits) of the network in PyTorch, as `Session` gives them."""
    with torch.inference_mode():
        result = network.model(*inputs)
    return (result, None) if isinstance(result, Tensor) else result


def difference(network: Network, session: Session, inputs: Iterable[tuple[Tensor, ...]]) -> float:
    """The largest absolute difference of an output from PyTorch's, over several inputs."""
    pairs = [
        pair
        for x in inputs
        for pair in zip(outputs(network, *x), session(*x), strict=True)
        if pair[0] is not None
    ]
    return max((ours - theirs).abs().max().item() for ours, theirs in pairs)


def has_branches(network: Network) -> bool:
    """Whether its decoder and its classification branch could run at the same time."""
    joint = network.denoises and bool(network.classes)
    return joint and network.kind not in (*JOINING, "DC-NAS_seq")


def facts(network: Network) -> dict:
    """What an exported file says about itself: texts, numbers and lists by name."""
    inputs = (
        f"noisy: (batch, {network.channels}, rows, columns), "
        f"{'grey' if network.channels == 1 else 'RGB'}"
    )
    data = network.card.get("data", "two MNIST digits")
    return {
        "dcnas_version": __version__,
        "network": network.kind,
        "label": network.label,
        "classes": network.classes,
        "input": inputs,
        "input_range": [0, 1],
        "stride": STRIDE,  # rows and columns are multiples of it
        "padding": PADDING,
        "training_pixels": network.card.get("resolution", IMAGE_SIZE),
        "label_pixels": BOX_SIZE if network.of_digits else network.card.get("resolution", IMAGE_SIZE),
        "licence": f"software: MIT; weights: as the images permit that they were trained on ({data})",
    }


def mark(path: Path, **entries) -> None:
    """Add entries to the metadata of an ONNX file: texts as they are, all else as JSON."""
    file = slim(onnx.load(path))
    before = {entry.key: entry.value for entry in file.metadata_props}
    texts = {key: x if isinstance(x, str) else json.dumps(x) for key, x in entries.items()}
    onnx.helper.set_model_props(file, before | texts)
    with unfinished(path) as part:
        onnx.save(file, part)


def slim(file: onnx.ModelProto) -> onnx.ModelProto:
    """Without what only a debugger reads: where in PyTorch a node comes from, shapes between nodes."""
    for entry in (*file.graph.node, *file.graph.input, *file.graph.output, *file.graph.initializer):
        del entry.metadata_props[:]
    for entries in (file.graph.value_info, file.graph.metadata_props):
        del entries[:]
    return file


def export_onnx(network: Network, path: Path, more: Sequence[tuple[Tensor, ...]] = ()) -> float:
    """Write the network to one ONNX file; the largest difference from PyTorch on random images, and on
    `more` inputs.

    Batch and size are dynamic; for the joint networks of Section 3 the batch is 1. `InputError` and no
    file if an output differs by more than 1e-4. The exporter's own `verify` compares the folded network
    at one size, and only logs.
    """
    inputs = example(network)
    names = [
        name
        for name, x in zip(("denoised", "logits"), outputs(network, *inputs), strict=True)
        if x is not None
    ]
    rows, columns = (STRIDE * torch.export.Dim(name, min=1, max=256) for name in ("rows", "columns"))
    shapes: list[dict] = [{2: rows, 3: columns}]
    if len(inputs) == 1:
        shapes[0][0] = torch.export.Dim("batch", min=1)
    else:
        shapes.append({1: torch.export.Dim("digits", min=1)})
    with unfinished(path) as part:
        with warnings.catch_warnings():  # of the exporter about itself
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Outputs(folded(network.model)),
                inputs,
                part,
                input_names=["noisy", "boxes"][: len(inputs)],
                output_names=names,
                opset_version=OPSET,
                dynamic_shapes=(tuple(shapes),),
                external_data=False,
                verbose=False,
            )
        mark(part, **facts(network))
        trials = [inputs, example(network, 1, 64, 64), example(network, 3, 32, 128), *more]
        largest = difference(network, Session(part), trials)
        if not largest <= TOLERANCE:
            reason = f"ONNX Runtime differs from PyTorch by {largest:.2g}, above {TOLERANCE:g}"
            raise InputError(f"{shown(path)} was not written: {reason}.")
    return largest


def pack_network(
    network: Network,
    folder: Path,
    *,
    threads: int = 1,
    rounds: int = 20,
    table: Table | None = None,
    **known: float | str,
) -> Path:
    """A pack (`nas.packs`) that times a network of Section 4 on a board and compares its outputs there
    with PyTorch's, which are stored in it; `known`: what the list says about it besides.

    Networks that `table` knows run beside it: they tell how fast the board is now.
    """
    if network.of_digits:
        raise InputError(f"{network.name} is of Section 3; a pack is of a network of Section 4.")
    size = network.card["resolution"]
    (noisy,) = example(network, 1, size, size)
    answers = dict(zip(("denoised", "logits"), outputs(network, noisy), strict=True))
    arrays = {name: x.numpy() for name, x in (answers | {"noisy": noisy}).items() if x is not None}
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()
    file = {"file": "network.onnx", "profile": False, "stored": "stored.npz", "digest": digest}
    file["branches"] = has_branches(network)
    beside = {} if table is None else networks_beside(table)
    files = [file, *({"file": f, "profile": False, "table_ms": ms} for f, (_, ms) in beside.items())]
    begin_pack(folder, "network", 1, size, threads, rounds=rounds, files=files, **known)
    np.savez(folder / file["stored"], **arrays)
    export_onnx(network, folder / file["file"])
    for name, (model, _) in beside.items():
        write_graph(model, folder / name, size)
    return folder
