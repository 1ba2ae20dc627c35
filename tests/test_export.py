"""Networks as ONNX files: equal to PyTorch's, dynamic, folded, quantised at a known cost."""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import bare, dcnas, noisy_picture
from PIL import Image
from torch import nn

from dcnas import __version__
from dcnas.data.pictures import as_uint8, in_tiles
from dcnas.deploy import apply, weights
from dcnas.deploy.weights import Network, load_network
from dcnas.errors import InputError
from dcnas.nas.networks import OnlyDenoises, build_network
from dcnas.nas.space import Space, random_architecture
from dcnas.paths import root

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from dcnas.deploy import export, quantise  # noqa: E402, needs the packages above
from dcnas.latency import board  # noqa: E402
from dcnas.study import own_export  # noqa: E402


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
    return network_of("UNet", [], OnlyDenoises(b=4, d=3, m=1, c=2))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network of a kind, its file, and the largest difference from PyTorch: exported once, it takes
    seconds."""
    folder = tmp_path_factory.mktemp("onnx")

    @cache
    def of(kind: str) -> tuple[Network, Path, float]:
        network = small_denoiser() if kind == "UNet" else made_up(kind, 8 if kind == "DC-NAS" else 4)
        path = folder / kind / "net.onnx"
        return network, path, export.export_onnx(network, path)

    return of


@pytest.fixture(scope="module")
def joint(exported):
    return exported("DC-NAS")


@pytest.fixture(scope="module")
def digits(mnist, tmp_path_factory):
    """`dcnas export --int8` of the joint network of Section 3, judged by few images: file, output."""
    out = tmp_path_factory.mktemp("digits") / "digits.onnx"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dict(TRIALS=11, TESTS=11, CALIBRATION=11, MARGIN=1e9).items():
            patch.setattr(own_export, name, value)
        status, text, _ = dcnas("export", "dc-net-reduced-integrated", "--int8", "--out", out)
    assert status == 0
    return out, text


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


@pytest.fixture
def as_it_is(monkeypatch):
    """A file gives what its network does; `dcnas denoise` gives a picture its brightness back too."""
    monkeypatch.setattr(weights, "_smooth", torch.zeros_like)


@pytest.mark.parametrize("rows, columns", [(480, 640), (1080, 1920), (65, 67)])
def test_any_size_by_the_rule_of_the_metadata(joint, rows, columns, as_it_is):
    network, path, _ = joint
    session = export.Session(path)
    facts = session.session.get_modelmeta().custom_metadata_map
    stride, padding = json.loads(facts["stride"]), json.loads(facts["padding"])
    assert padding["where"] == ["below", "right"]
    image = torch.rand(1, 3, rows, columns)
    pads = (0, 0), (0, 0), (0, -rows % stride), (0, -columns % stride)
    padded = torch.from_numpy(np.pad(image.numpy(), pads, padding["mode"]))
    scale = max(x.abs().max().item() for x in session(padded))
    assert export.difference(network, session, [(padded,)]) <= export.TOLERANCE * max(1, scale)
    if max(rows, columns) <= 256:  # above, `dcnas denoise` cuts pictures into tiles
        ours = session(padded)[0][..., :rows, :columns]
        assert torch.allclose(ours, in_tiles(network.denoise, image.clone()), atol=export.TOLERANCE)


def inputs_of(count: int) -> list[tuple[torch.Tensor, ...]]:
    stream = torch.Generator().manual_seed(1)
    return [(torch.rand(1, 3, 32, 32, generator=stream),) for _ in range(count)]


def test_eight_bits_are_near_and_smaller(joint, tmp_path):
    """With first and last layers in floating point, where more is not asked for."""
    network, path, _ = joint
    small, floating = quantise.quantise(path, tmp_path / "int8.onnx", inputs_of(8), lambda _: True)
    layers = {name for name, m in network.model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert {*small, *floating} == layers and len(small) + len(floating) == len(layers)
    assert {"classifier.stem.first.0", "classifier.head.linear", "decoder.out"} <= {*floating}
    assert len(floating) < 6
    gap = export.difference(network, export.Session(tmp_path / "int8.onnx"), inputs_of(4))
    scale = max(out.abs().max().item() for out in network.model(*inputs_of(1)[0]))
    assert 1e-4 < gap < 0.5 * scale
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * path.stat().st_size
    names = {node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= names


def test_layers_stay_in_floating_point_until_it_holds(exported, tmp_path):
    """The decoder's last level, then so many of those that cost most that it holds."""
    (network, path, _), ((x,), *_) = exported("UNet"), inputs_of(1)
    exact, gaps = network.model(x)[0], []

    def gap_of(session: export.Session) -> float:
        return (session(x)[0] - exact).abs().max().item()

    def left(limit: float) -> set[str]:
        def holds(session: export.Session) -> bool:
            gaps.append(gap_of(session))
            return gaps[-1] <= limit

        return {*quantise.quantise(path, tmp_path / "int8.onnx", inputs_of(8), holds)[1]}

    ends, level = left(1e9), {"unet.merge.0.0.0", "unet.merge.0.1.0"}
    assert ends == {"unet.down.0.0.0", "unet.out"}
    left(0)
    limit = gaps[2]  # of the second attempt, with the level in floating point
    assert limit < gaps[1] and left(limit) == ends | level
    some = left(limit := 0.5 * limit)
    assert ends | level < some and len(some) < 11
    assert gap_of(export.Session(tmp_path / "int8.onnx")) <= limit


def test_so_few_layers_stay_in_floating_point_as_do():
    """Beside those that do in any case, and in their order; where nothing else does, all of them."""
    for enough in range(1, 6):
        least = quantise._least(["a"], list("bacdef"), lambda names, n=enough: len(names) > n)
        assert least == list("abcdef")[: enough + 1]


def test_the_command_on_a_network_that_ships(digits):
    """The joint network of Section 3, with boxes, at batch 1: both files say what they are."""
    out, text = digits
    result = json.loads(out.with_suffix(".onnx.json").read_text())
    assert "times as fast as PyTorch" in text and result["largest_difference"] <= export.TOLERANCE
    assert result["latency_ms"].keys() == {"PyTorch", "ONNX Runtime", "ONNX Runtime, int8"}
    assert len(result["int8_layers"]) == 13 and "branches" not in result
    floating = ", ".join(result["float_layers"])
    assert f"int8: 13 of 16 layers; floating point: {floating}\n" in text and "unet.out" in floating
    assert "times as fast as floating point" in text and "% of the size" in text
    assert result["mib"]["digits-int8.onnx"] < 0.5 * result["mib"]["digits.onnx"]
    small = out.with_name("digits-int8.onnx")
    for name, file in (("ONNX Runtime", out), ("ONNX Runtime, int8", small)):
        facts = export.Session(file).session.get_modelmeta().custom_metadata_map
        assert facts["device"] == result["device"] and facts["dcnas_version"] == __version__
        assert facts["network"] == "integrated" and json.loads(facts["label_pixels"]) == 32
        ms, threads = result["latency_ms"][name]["median"], result["threads"]
        assert facts["latency"] == f"{ms:.3f} ms at batch 1, 96 x 96 px, {threads} threads"
    assert json.loads(facts["float_layers"]) == result["float_layers"]
    assert facts["int8_cost"] == own_export.cost_text(result)
    with pytest.raises(InputError, match="integrated is of Section 3: it is compared on its digits"):
        own_export.images_of(load_network("dc-net-reduced-integrated"), "solar", "test", 1)


def test_what_eight_bits_cost_decides_whether_they_hold():
    """Decibels at the worst level; accuracy at the worst, or as one mean where images are few."""
    before = {"psnr": torch.full((2, 4), 30.0), "accuracy": torch.full((2, 4), 100.0)}
    after = {"psnr": torch.tensor([[29.75] * 4, [30.0] * 4]), "accuracy": torch.full((2, 4), 100.0)}
    assert own_export.worst(before, after) == pytest.approx(0.5)
    ssim = {"ssim": torch.tensor([[0.9] * 4])}, {"ssim": torch.tensor([[0.87] * 4])}
    assert own_export.worst(*ssim) == pytest.approx(1.5)
    after["accuracy"][1, 0] = 0
    assert own_export.worst(before, after) == pytest.approx(25)
    means = own_export.over_levels(before), own_export.over_levels(after)
    assert own_export.worst(*means) == pytest.approx(12.5)


def test_a_small_set_calibrates_too():
    images = own_export.Images(torch.zeros(3, 3, 32, 32, dtype=torch.uint8), torch.zeros(3, 1, 4), None)
    inputs = images.inputs(small_denoiser(), 22)
    assert [tuple(x.shape) for (x,) in inputs] == [(1, 3, 32, 32)] * 22
    assert inputs[0][0].std() == 0 and inputs[21][0].std() == pytest.approx(1, abs=0.1)


def test_branches_side_by_side(joint):
    """The same outputs; a gain in words, of as many threads."""
    network, path, _ = joint
    image = torch.rand(1, 3, 64, 64)
    session = board.open_session(path, 2, side_by_side=True)
    ours = session.run(None, {"noisy": image.numpy()})
    for a, b in zip(ours, export.Session(path)(image), strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-5)
    gain = board.branches_gain(path, 1, image.numpy(), passes=1, rounds=2)
    assert gain["threads"] == 2 and 0 < gain["q25"] <= gain["median"] <= gain["q75"]
    said = board.branches_text({"threads": 2, "median": 0.9, "q25": 0.8, "q75": 0.95})
    assert said.endswith("0.90 (0.80 to 0.95) times as fast as one after the other: not worth it here")
    assert export.has_branches(network) and not export.has_branches(small_denoiser())


EXAMPLE = root() / "examples/board.py"


@pytest.mark.parametrize("kind", ["DC-NAS", "C-NAS", "UNet", "integrated"])
def test_the_example_for_a_board(kind, exported, tmp_path, request, as_it_is):
    """What the command line makes of a picture: denoised at its size, and its middle square's label."""
    if kind == "integrated":
        network, path = load_network("dc-net-reduced-integrated"), request.getfixturevalue("digits")[0]
    else:
        network, path, _ = exported(kind)
    (tmp_path / "net.onnx").symlink_to(path)
    pixels = noisy_picture(tmp_path / "p.png", 120, size=(65, 107))
    ended = bare(tmp_path, EXAMPLE, "net.onnx", "p.png", "out.png")
    assert ended.returncode == 0, ended.stderr
    scene = apply.file_scene("p.png", pixels)
    if network.channels == 1:
        scene = replace(scene, pixels=torch.from_numpy(np.array(Image.open(pixels).convert("L")))[None])
    outcome, ours = apply.apply(network, scene), np.asarray(Image.open(tmp_path / "out.png"))
    theirs = scene.image if outcome.denoised is None else outcome.denoised
    assert np.abs(as_uint8(theirs).astype(int) - ours).max() <= 1
    if network.classes:
        label, probability = apply.best_classes(outcome.own, network.classes)[0]
        said, share = re.fullmatch(r"Wrote out.png: (.+) \((\d+)%\)\n", ended.stdout).groups()
        assert said == label and abs(float(share) - 100 * probability) < 3
    else:
        assert ended.stdout == "Wrote out.png\n"


CAMERA = """
import numpy
FONT_HERSHEY_SIMPLEX, frames = 0, [numpy.full((48, 70, 3), 99, numpy.uint8)] * 2
class VideoCapture:
    def __init__(self, number): pass
    def read(self): return bool(frames), frames.pop() if frames else None
def waitKey(ms): return -1
def putText(image, label, *how): print("label", label[0])
def imshow(title, image): print(title, image.shape)
"""


def test_the_example_with_a_camera_and_without_arguments(joint, tmp_path):
    (tmp_path / "net.onnx").symlink_to(joint[1])
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "cv2.py").write_text(CAMERA)
    ended = bare(tmp_path, EXAMPLE, "net.onnx", "camera")
    assert ended.returncode == 0, ended.stderr
    assert re.fullmatch(r"(label [abc]\ndenoised \(48, 70, 3\)\n){2}", ended.stdout)
    assert "python board.py NETWORK.onnx PICTURE" in bare(tmp_path, EXAMPLE, "net.onnx").stderr
