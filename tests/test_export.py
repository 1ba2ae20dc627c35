"""Networks as ONNX files: equal to PyTorch's, dynamic, folded, quantised at a known cost."""

import json

import numpy as np
import pytest
import torch
from made_up import dcnas
from torch import nn

from dcnas import __version__
from dcnas.deploy import export
from dcnas.deploy.weights import Network
from dcnas.errors import InputError
from dcnas.nas.networks import build_manual, build_network
from dcnas.nas.space import Space, random_architecture

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def made_up(kind: str, operators: int = 8) -> Network:
    """A small network whose batch norms have seen something."""
    torch.manual_seed(0)
    architecture = random_architecture(Space(operators, 32, 3, 0.25), np.random.default_rng(1))
    model = build_network(kind, architecture)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-0.5, 0.5)
            norm.momentum = None  # statistics of what follows, or the signal would die away
        model(torch.rand(16, 3, 64, 64))
    return network_of(kind, [*"abc"], model)


def network_of(kind: str, classes: list[str], model: nn.Module) -> Network:
    card = dict(label=kind, network={"kind": kind}, classes=classes, resolution=32, metrics=[])
    return Network(kind.lower(), card, model.eval().requires_grad_(False))


def small_denoiser() -> Network:
    torch.manual_seed(0)
    return network_of("UNet", [], build_manual("UNet", dict(b=4, d=2, m=1, c=1), 0))


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "joint.onnx"
    network = made_up("DC-NAS")
    return network, path, export.export_onnx(network, path)


def test_two_outputs_dynamic_and_without_batch_norm(joint):
    network, path, largest = joint
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [x.name for x in model.graph.input] == ["noisy"]
    assert [x.name for x in model.graph.output] == ["denoised", "logits"]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert 0 < largest <= export.TOLERANCE
    session = export.Session(path)
    for shape in ((1, 3, 32, 32), (5, 3, 96, 64)):
        inputs = (torch.rand(shape),)
        denoised, logits = session(*inputs)
        assert denoised.shape == shape and logits.shape == (shape[0], 3)
        assert export.difference(network, session, [inputs]) <= export.TOLERANCE
    assert {path.name} == {p.name for p in path.parent.iterdir()}  # one file, nothing beside it


def test_a_file_says_what_a_program_on_a_board_must_know(joint):
    """Read by ONNX Runtime alone, and the same after more was added."""
    network, path, _ = joint
    facts = export.Session(path).session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == ["a", "b", "c"] and json.loads(facts["input_range"]) == [0, 1]
    assert json.loads(facts["stride"]) == 32 and facts["network"] == "DC-NAS"
    assert facts["input"] == "noisy: (batch, 3, rows, columns), RGB"
    assert facts["licence"].startswith("software: MIT; weights: as the images permit")
    before = export.Session(path)(torch.ones(1, 3, 32, 32))
    export.mark(path, device="my board", stride=32)
    after = export.Session(path)
    assert after.session.get_modelmeta().custom_metadata_map == facts | {"device": "my board"}
    assert all(torch.equal(a, b) for a, b in zip(before, after(torch.ones(1, 3, 32, 32)), strict=True))


def test_a_network_that_differs_is_not_written(tmp_path, monkeypatch):
    folded = export.folded

    def broken(model):
        model = folded(model)
        [m for m in model.modules() if isinstance(m, nn.Conv2d)][-1].bias.add_(1e-3)
        return model

    monkeypatch.setattr(export, "folded", broken)
    (tmp_path / "found.onnx").write_bytes(b"of before")
    with pytest.raises(InputError, match="was not written: ONNX Runtime differs from PyTorch by"):
        export.export_onnx(small_denoiser(), tmp_path / "found.onnx")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"of before"]


def test_eight_bits_are_near_and_smaller(joint, tmp_path):
    network, path, _ = joint
    images = torch.rand(16, 3, 32, 32)
    export.quantise(path, tmp_path / "int8.onnx", images)
    inputs = (images[:4],)
    gap = export.difference(network, export.Session(tmp_path / "int8.onnx"), [inputs])
    scale = max(out.abs().max().item() for out in network.model(*inputs))
    assert 1e-4 < gap < 0.5 * scale
    assert (tmp_path / "int8.onnx").stat().st_size < path.stat().st_size
    names = {node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= names


def test_the_command_on_a_network_that_ships(tmp_path):
    """The joint network of Section 3: with boxes, at batch 1."""
    out = tmp_path / "digits.onnx"
    command = ["export", "dc-net-reduced-integrated", "--out", out]
    status, text, _ = dcnas(*command)
    result = json.loads(out.with_suffix(".onnx.json").read_text())
    assert status == 0 and "times as fast as PyTorch" in text
    assert result["largest_difference"] <= export.TOLERANCE
    facts = export.Session(out).session.get_modelmeta().custom_metadata_map
    assert (facts["device"], facts["network"]) == (result["device"], "integrated")
    assert facts["dcnas_version"] == __version__
    ms, threads = result["latency_ms"]["ONNX Runtime"]["median"], result["threads"]
    assert facts["latency"] == f"{ms:.3f} ms at batch 1, 96 x 96 px, {threads} threads"
    assert "is of Section 3: " in dcnas(*command, "--int8")[2]
