"""An exported network in 8 bits, but for the layers that its quality needs in floating point.

Convolutions and linear layers compute in 8 bits: their weights have a scale per channel, their inputs
and outputs one per tensor, from the extremes that images at all noise levels show. All else stays as it
is; in 8 bits the norms alone cost a denoiser decibels. Layers are left in floating point, more and more
of them, until what the others cost is allowed: the first and the last ones, then the decoder's last
level, then one by one those that alone change the outputs most. (On x86 without VNNI sums of 8-bit
products may overflow: what is measured here is this machine's.)
"""

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QDQQuantizer,
    QuantType,
    create_calibrator,
    quant_pre_process,
)
from torch import Tensor

from ..latency.runtime import Session
from .export import slim, unfinished

LAYERS = ("Conv", "Gemm", "MatMul")
IN_8_BITS = [*LAYERS, "Relu"]  # which then comes with the layer before it, and costs nothing
SUFFIXES = {"_DequantizeLinear_Output": ".x", "_QuantizeLinear_Output": ".q", "_quantized": ".q"}
SUFFIXES |= {"_zero_point": ".z", "_scale": ".s"}
Inputs = Sequence[tuple[Tensor, ...]]  # of single passes


class _Feeds(CalibrationDataReader):
    def __init__(self, names: list[str], inputs: Inputs):
        self.feeds = iter([dict(zip(names, map(Tensor.numpy, x), strict=True)) for x in inputs])

    def get_next(self) -> dict | None:
        return next(self.feeds, None)


class _Quantiser:
    """Writes copies of an ONNX file with any of its layers in 8 bits; the ranges are found once."""

    def __init__(self, path: Path, folder: Path, inputs: Inputs):
        prepared = folder / "prepared.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        self.model = onnx.load(prepared)
        calibrator = create_calibrator(str(prepared), IN_8_BITS, str(folder / "augmented.onnx"))
        calibrator.collect_data(_Feeds([x.name for x in self.model.graph.input], inputs))
        self.ranges = calibrator.compute_data()
        weights = {tensor.name for tensor in self.model.graph.initializer}
        self.names = {  # of the nodes of layers: what the network calls them
            node.name: node.input[1].removeprefix("model.").removesuffix(".weight")
            for node in self.model.graph.node
            if node.op_type in LAYERS and node.input[1] in weights
        }

    def write(self, path: Path, floating: Sequence[str]) -> Path:
        """The network with all layers in 8 bits but those nodes."""
        others = [node.name for node in self.model.graph.node if node.op_type in LAYERS]
        left = {*floating} | ({*others} - {*self.names})
        types = QuantType.QInt8, QuantType.QUInt8
        how = (self.ranges, [], list(left), IN_8_BITS, {})
        quantizer = QDQQuantizer(copy.deepcopy(self.model), True, False, *types, *how)
        for node in self.model.graph.node:
            if node.op_type == "ConvTranspose":  # computes in floating point, but its weights are large
                quantizer.quantize_weight_tensor_per_channel(node.input[1], 1)
        quantizer.quantize_model()
        onnx.save(_with_short_names(slim(quantizer.model.model)), path)
        return path


def _with_short_names(file: onnx.ModelProto) -> onnx.ModelProto:
    """In a small network the quantiser's names take as much room as the weights."""

    def short(name: str) -> str:
        for long, suffix in SUFFIXES.items():
            name = name.replace(long, suffix)
        return name

    for node in file.graph.node:
        node.input[:], node.output[:] = map(short, node.input), map(short, node.output)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.name = ""
    for tensor in file.graph.initializer:
        tensor.name = short(tensor.name)
    return file


def _beside(graph: onnx.GraphProto, layers: dict[str, str], start: str, until: str = "") -> list[str]:
    """Nodes of the layers before an output, or after the input, of that name: the nearest ones alone, or
    of an output all of them back to the nearest node of the kind `until`; none where there is no such.
    """
    back = start in {x.name for x in graph.output}
    found, seen, tensors, met = [], set(), {start}, not until
    while tensors:
        reached = set()
        for node in graph.node:
            ends = (node.output, node.input) if back else (node.input, node.output)
            if node.op_type == "Shape" or node.name in seen or not tensors & {*ends[0]}:
                continue
            seen.add(node.name)
            if node.name in layers:
                found.append(node.name)
            met |= node.op_type == until
            if node.op_type != until and (until or node.name not in layers):
                reached |= {*ends[1]}
        tensors = reached
    return found if met else []


def _order(quantiser: _Quantiser, inputs: Inputs, folder: Path) -> list[str]:
    """All layers' nodes by how much each alone in 8 bits changes the outputs, most first."""
    changes, layers = {}, quantiser.names
    exact = _outputs(quantiser.write(folder / "float.onnx", [*layers]), inputs)
    for layer in layers:
        file = quantiser.write(folder / "one.onnx", [name for name in layers if name != layer])
        pairs = zip(_outputs(file, inputs), exact, strict=True)
        changes[layer] = sum(float(((ours - x) ** 2).mean() / x.var()) for ours, x in pairs)
    return sorted(layers, key=changes.get, reverse=True)


def _outputs(path: Path, inputs: Inputs) -> list[np.ndarray]:
    session = Session(path)
    passes = [[x.numpy() for x in session(*some) if x is not None] for some in inputs]
    return [np.concatenate([x.reshape(-1) for x in output]) for output in zip(*passes, strict=True)]


def quantise(
    path: Path, out: Path, inputs: Inputs, holds: Callable[[Session], bool]
) -> tuple[list[str], list[str]]:
    """Write an 8-bit copy of an ONNX file of which `holds` says that it is good enough.

    `inputs` calibrate: those of single passes, at all noise levels. Returns the layers that compute in
    8 bits and those that stay in floating point, by their names in the network.
    """
    with unfinished(out) as part, tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        quantiser = _Quantiser(path, folder, inputs)
        graph, names = quantiser.model.graph, quantiser.names

        def good(floating: Sequence[str]) -> bool:
            return holds(Session(quantiser.write(folder / "trial.onnx", floating)))

        ends = [graph.input[0].name, *(x.name for x in graph.output)]
        first = [name for end in ends for name in _beside(graph, names, end)]
        level = _beside(graph, names, graph.output[0].name, until="Concat")
        floating = list(dict.fromkeys(first))
        if not good(floating):
            floating = list(dict.fromkeys(first + level))
            if not good(floating):
                floating = _least(floating, _order(quantiser, inputs, folder), good)
        quantiser.write(part, floating)
    return [names[n] for n in names if n not in floating], [names[n] for n in names if n in floating]


def _least(floating: list[str], order: list[str], good: Callable[[list[str]], bool]) -> list[str]:
    """`floating` and so few of the others, in their order, that it is good: by bisection."""
    others = [name for name in order if name not in floating]
    low, high = 0, len(others)  # not good, good
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(floating + others[:middle]) else (middle, high)
    return floating + others[:high]
