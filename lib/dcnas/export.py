"""A trained network as one ONNX file for a board: batch norm folded, checked against PyTorch in ONNX Runtime, and timed beside it.

The input `noisy` is (batch, channels, rows, columns) in [0, 1], rows and columns multiples of 32; for the joint networks of
Section 3 there are `boxes` as well. Outputs are `denoised` and `logits`, or the one that the network gives. With `quantised`, an
8-bit copy is calibrated on images; what it costs in quality is measured by the caller, who knows the images.
"""

import copy
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .boxes import BOX_SIZE
from .errors import InputError
from .latency.measure import Latency, measure_many
from .models.dcnet import JOINING
from .paths import shown
from .shipped import Network

TOLERANCE = 1e-4
OPSET = 18
STRIDE = 32  # of the deepest maps: what rows and columns must be multiples of


def folded(model: nn.Module) -> nn.Module:
    """A copy for inference in which each batch norm is part of the convolution before it."""
    model = copy.deepcopy(model).eval()
    for chain in model.modules():
        parts = list(chain.named_children()) if isinstance(chain, nn.Sequential) else []
        for (name, conv), (after, norm) in zip(parts, parts[1:], strict=False):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(chain, name, fuse_conv_bn_eval(conv, norm))
                setattr(chain, after, nn.Identity())
    return model


class Session(nn.Module):
    """An ONNX file in ONNX Runtime, as a module: tensors in, (denoised, logits) out, either None if the network lacks it."""

    def __init__(self, path: Path, threads: int | None = None):
        super().__init__()
        options = _onnxruntime().SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        self.session = _onnxruntime().InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def __deepcopy__(self, memo: dict) -> "Session":
        return self  # a session has no copies, and keeps nothing between calls

    def forward(self, *inputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        feed = {given.name: x.contiguous().numpy() for given, x in zip(self.session.get_inputs(), inputs, strict=True)}
        found = dict(zip(self.names, map(torch.from_numpy, self.session.run(None, feed)), strict=True))
        return found.get("denoised"), found.get("logits")


def _onnxruntime():
    try:
        import onnxruntime
        import onnxscript  # noqa: F401, PyTorch's exporter needs it
    except ImportError as error:
        raise InputError(
            f"{error.name} is not installed; `pip install onnx onnxscript onnxruntime` brings what export needs."
        ) from None
    return onnxruntime


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """A place beside `path` for a file that takes its name once it has been found sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / path.name
        yield part
        os.replace(part, path)


def example(network: Network, batch: int = 2, rows: int = 64, columns: int = 96) -> tuple[Tensor, ...]:
    """Random inputs of a network."""
    images = torch.rand(batch, network.channels, rows, columns, generator=torch.Generator().manual_seed(0))
    if network.kind not in JOINING:
        return (images,)
    return images[:1], torch.tensor([[[0, 0, BOX_SIZE, BOX_SIZE]]])


def outputs(network: Network, *inputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """(denoised, logits) of the network in PyTorch, as `Session` gives them."""
    with torch.inference_mode():
        found = network.model(*inputs)
    return (found, None) if isinstance(found, Tensor) else found


def export_onnx(network: Network, path: Path, real: Tensor | None = None) -> float:
    """Write the network to one ONNX file; the largest difference from PyTorch on random images and on `real` ones (B, C, H, W).

    Batch and size are dynamic; for the joint networks of Section 3 the batch is 1. `InputError` and no file if an output differs by
    more than 1e-4.
    """
    _onnxruntime()
    inputs = example(network)
    names = [name for name, found in zip(("denoised", "logits"), outputs(network, *inputs), strict=True) if found is not None]
    rows, columns = (STRIDE * torch.export.Dim(name, min=1, max=256) for name in ("rows", "columns"))
    shapes: list[dict] = [{2: rows, 3: columns}]
    if len(inputs) == 1:
        shapes[0][0] = torch.export.Dim("batch", min=1)
    else:
        shapes.append({1: torch.export.Dim("digits", min=1)})
    model = _Outputs(folded(network.model))
    with _unfinished(path) as part:
        with warnings.catch_warnings():  # of the exporter about itself
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, inputs, part, input_names=["noisy", "boxes"][: len(inputs)], output_names=names, opset_version=OPSET,
                dynamic_shapes=(tuple(shapes),), external_data=False, dynamo=True, verbose=False,
            )  # fmt: skip
        tried = [inputs, example(network, 1, 64, 64), example(network, 3, 32, 128)]
        tried += [] if real is None else [(real, *inputs[1:])] if len(inputs) == 1 else [(real[:1], *inputs[1:])]
        largest = difference(network, Session(part), tried)
        if not largest <= TOLERANCE:
            raise InputError(
                f"{shown(path)} was not written: ONNX Runtime differs from PyTorch by {largest:.2g}, above {TOLERANCE:g}."
            )
    return largest


class _Outputs(nn.Module):
    """A network without the outputs that it does not give, which the exporter would not take."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor):
        found = self.model(*inputs)
        return found if isinstance(found, Tensor) else tuple(x for x in found if x is not None)


def difference(network: Network, session: Session, tried: Iterable[tuple[Tensor, ...]]) -> float:
    """The largest absolute difference of an output from PyTorch's."""
    gaps = []
    for inputs in tried:
        for ours, theirs in zip(outputs(network, *inputs), session(*inputs), strict=True):
            gaps += [] if ours is None else [(ours - theirs).abs().max().item()]
    return max(gaps)


def quantise(path: Path, out: Path, images: Tensor) -> None:
    """An 8-bit copy (weights per channel, activations per tensor) of an ONNX file, calibrated on images (N, C, H, W).

    The last convolution, which paints the image, stays in float: 256 levels of its sum would be seen.
    """
    _onnxruntime()
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter(images.split(8))

        def get_next(self) -> dict | None:
            batch = next(self.batches, None)
            return None if batch is None else {"noisy": batch.numpy()}

    graph = onnx.load(path).graph
    if len(graph.input) > 1:
        raise InputError("int8 is for networks of images alone; the joint networks of Section 3 take boxes as well.")
    painter = [node.name for node in graph.node if "denoised" in node.output]
    with _unfinished(out) as part, tempfile.TemporaryDirectory(dir=out.parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared), str(part), Reader(), quant_format=QuantFormat.QDQ, per_channel=True, nodes_to_exclude=painter,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip


def timed(
    network: Network, files: dict[str, Path], *, size: int, rounds: int = 20, threads: int | None = None
) -> dict[str, Latency]:
    """Latency at batch 1 of the network in eager PyTorch and of ONNX files, in turns."""
    inputs = example(network, 1, size, size)
    models = {"PyTorch": (network.model, inputs)}
    models |= {name: (Session(path, threads), inputs) for name, path in files.items()}
    return measure_many(models, rounds=rounds, warmup=3, passes=5, threads=threads)
