"""Networks in ONNX Runtime: how they are written for it, and how it runs them in place of PyTorch."""

import copy
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import InputError

OPSET = 18
LARGE = 16  # numbers in a tensor that a graph for timing has no room for
try:  # of the extra `export`
    import onnx
    from onnx import helper, numpy_helper

    from . import board
except ImportError as error:
    raise InputError(
        f"{error.name} is not installed; `pip install 'dcnas[export]'` brings what ONNX Runtime needs."
    ) from error


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
    """An ONNX file in ONNX Runtime: tensors in, (denoised, logits) out, None for what it lacks.

    Only the one that ran last is open: threads of others, which wait for work, would take the processor
    from it (two threads, 60 networks: 3 times as slow).
    """

    last: "tuple[Session, board.onnxruntime.InferenceSession] | None" = None

    def __init__(self, path: Path, threads: int | None = None):
        super().__init__()
        self.file, self.threads = Path(path).read_bytes(), threads or torch.get_num_threads()

    @property
    def session(self) -> "board.onnxruntime.InferenceSession":
        """Opened, if it was not the last that ran."""
        if Session.last is None or Session.last[0] is not self:
            Session.last = None  # closed before the next is open
            Session.last = self, board.open_session(self.file, self.threads)
        return Session.last[1]

    def __deepcopy__(self, memo: dict) -> "Session":
        return self  # a session has no copies, and keeps nothing between calls

    def forward(self, *inputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        session = self.session
        nodes, names = session.get_inputs(), [output.name for output in session.get_outputs()]
        feed = {node.name: x.contiguous().numpy() for node, x in zip(nodes, inputs, strict=True)}
        outputs = dict(zip(names, map(torch.from_numpy, session.run(None, feed)), strict=True))
        return outputs.get("denoised"), outputs.get("logits")


class Outputs(nn.Module):
    """A network without the outputs that it does not give, which the exporter would not take."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(*inputs)
        return (outputs,) if isinstance(outputs, Tensor) else tuple(x for x in outputs if x is not None)


def write_graph(model: nn.Module, path: Path, resolution: int) -> Path:
    """A small ONNX file that takes as long as the network of Section 4 that `dcnas export` writes.

    ONNX Runtime makes the same graph of both (a test counts its nodes), but this one is written in half
    a second, its nodes are named after the network's modules, and each large tensor is one number that
    ONNX Runtime expands when it loads the file: 0.1 MB instead of 20. The numbers differ, so that no two
    layers share a tensor, and keep the means of maps near those of the image.
    """
    image = torch.rand(1, 3, resolution, resolution)
    with torch.inference_mode():
        outputs = model.eval()(image)
    names = [name for name, x in zip(("denoised", "logits"), outputs, strict=True) if x is not None]
    with warnings.catch_warnings():  # of the exporter about itself
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Outputs(folded(model)),
            (image,),
            str(path),
            input_names=["noisy"],
            output_names=names,
            opset_version=OPSET,
            dynamo=False,
            dynamic_axes={"noisy": {0: "batch", 2: "rows", 3: "columns"}},
        )
    file = onnx.load(path)
    small, expansions = [], []
    for n, tensor in enumerate(file.graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.size <= LARGE or values.dtype != "float32":
            small.append(tensor)
            continue
        name, value = tensor.name, (1 + n / 1e4) * len(values) / values.size
        small.append(helper.make_tensor(f"{name}.value", onnx.TensorProto.FLOAT, [1], [value]))
        shape = helper.make_tensor(f"{name}.shape", onnx.TensorProto.INT64, [values.ndim], values.shape)
        small.append(shape)
        parts = [f"{name}.value", f"{name}.shape"]
        expansions.append(helper.make_node("Expand", parts, [name], name=name))
    nodes = [*expansions, *file.graph.node]
    for field, items in ((file.graph.node, nodes), (file.graph.initializer, small)):
        del field[:]
        field.extend(items)
    onnx.save(file, path)
    return path


def session_of(model: nn.Module, resolution: int, threads: int) -> Session:
    """A network of Section 4 in ONNX Runtime, to be timed: its weights are not the network's."""
    with tempfile.TemporaryDirectory() as folder:
        return Session(write_graph(model, Path(folder) / "network.onnx", resolution), threads)
