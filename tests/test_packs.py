"""The look-up table in ONNX Runtime: graphs as they are exported, parts found in them, builds that go on, and boards."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import linear_table

from dcnas.errors import InputError
from dcnas.latency import board
from dcnas.latency.table import load_table
from dcnas.nas import lut, packs
from dcnas.nas.networks import build_network
from dcnas.nas.space import Space, random_architecture

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from dcnas.deploy import export  # noqa: E402, needs the packages above
from dcnas.deploy.weights import Network  # noqa: E402
from dcnas.latency import runtime  # noqa: E402

TINY = Space(4, 32, 2, 0.25)
QUIET = float("inf")  # the tests' machine need not be


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    packs.pack_table(TINY, folder, rounds=2, networks=6)
    return folder


def nodes(path, tmp_path) -> Counter:
    """How many nodes of each kind ONNX Runtime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)


@pytest.mark.parametrize("kind", ["C-NAS", "DC-NAS"])
def test_what_is_timed_is_the_graph_that_ships(tmp_path, kind):
    space = Space(8, 32, 2)
    model = build_network(kind, random_architecture(space, np.random.default_rng(0))).eval()
    export.export_onnx(Network("x", {"network": {"kind": kind}}, model), tmp_path / "ships.onnx")
    runtime.write_graph(model, tmp_path / "timed.onnx", 32)
    assert nodes(tmp_path / "ships.onnx", tmp_path) == nodes(tmp_path / "timed.onnx", tmp_path)
    sizes = [(tmp_path / name).stat().st_size for name in ("timed.onnx", "ships.onnx")]
    assert 20 * sizes[0] < sizes[1]
    outputs = runtime.Session(tmp_path / "timed.onnx")(torch.rand(2, 3, 64, 32))
    assert all(x.isfinite().all() and x.abs().max() > 1e-30 for x in outputs if x is not None)  # no slow denormals
    file = onnx.load(tmp_path / "timed.onnx").graph
    values = [t.float_data[0] for t in file.initializer if t.name.endswith(".value")]
    assert len(set(values)) == len(values) > 50  # equal ones would become one tensor, and layers share the cache


def test_every_node_belongs_to_its_part(pack, monkeypatch):
    """A part's time is that of the nodes between those of its neighbours; nodes without a name only reorder or reshape."""
    entry = json.loads((pack / board.LIST).read_text())["files"][0]
    read, events = board.json.loads, []
    monkeypatch.setattr(board.json, "loads", lambda text: events.extend(read(text)) or events)
    image = np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
    (total,) = board.parts_ms(pack / entry["file"], 1, image, 1, entry["parts"])
    assert set(total) == set(entry["parts"].values()) and min(total.values()) > 0
    names = [(e["name"], e["dur"]) for e in events if e["cat"] == "Node" and e["name"].endswith("_kernel_time")]
    last = names[-len(names) // (board.WARMUP + 1) :]
    assert sum(total.values()) == pytest.approx(sum(us + 0.5 for _, us in last) / 1e3)
    unnamed = [name for name, _ in last if not name.startswith(tuple(entry["parts"]))]
    assert all(name.startswith(("Reorder", "Reshape")) for name in unnamed)
    block = sum(us + 0.5 for name, us in last if name.startswith("/model/stages.4.1/")) / 1e3
    assert block <= total[entry["parts"]["/model/stages.4.1/"]] + 1e-9


def test_a_build_is_killed_goes_on_and_is_refused_for_another_runtime(tmp_path, monkeypatch):
    path, real, calls = tmp_path / "t.json", board.parts_ms, []

    def dies(*args):
        calls.append(1)
        if len(calls) > 15:  # in the second round of ten networks
            raise KeyboardInterrupt
        return real(*args)

    how = dict(batch=1, threads=1, progress=False)
    monkeypatch.setattr(board, "parts_ms", dies)
    with pytest.raises(KeyboardInterrupt):
        packs.build_table(TINY, path, rounds=2, **how)
    assert not path.exists() and json.loads((tmp_path / "t.json.part" / board.RESULT).read_text())["rounds"] == 1
    with pytest.raises(InputError, match="t.json.part/board.json was begun with another list; remove it"):
        packs.build_table(TINY, path, rounds=3, **how)
    calls.clear()
    monkeypatch.setattr(board, "parts_ms", lambda *args: calls.append(1) or real(*args))
    table = packs.build_table(TINY, path, rounds=2, **how)
    assert len(calls) == len(lut.design(TINY)) and [p.name for p in tmp_path.iterdir()] == ["t.json"]
    assert load_table(path) == table and set(table.curves) == set(linear_table(TINY).curves)
    assert all(min(c.samples) >= 2 * packs.PASSES and min(c.median_ms) > 0 for c in table.curves.values())
    assert table.conditions.runtime_version == f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider"
    with pytest.raises(InputError, match="measured with runtime = onnxruntime, but pytorch was expected"):
        table.require(runtime="pytorch")
    (tmp_path / "p.json.part").write_text("{}")
    with pytest.raises(InputError, match="p.json.part was begun in PyTorch"):
        packs.build_table(TINY, tmp_path / "p.json", **how)
    with pytest.raises(InputError, match="device is 'cuda', but ONNX Runtime is timed on the processor"):
        packs.build_table(TINY, path, device="cuda")


def test_whole_networks_run_in_the_runtime_of_the_table(monkeypatch):
    plain, seen = linear_table(TINY), {}

    def measured(models, **options):
        seen.update(models=models, **options)
        raise StopIteration

    monkeypatch.setattr(lut, "measure_many", measured)
    for name, kind, layout in (("onnxruntime", runtime.Session, "contiguous"), ("pytorch", torch.nn.Module, "channels_last")):
        conditions = replace(plain.conditions, runtime=name, memory_format=layout)
        with pytest.raises(StopIteration):
            lut.validate_table(replace(plain, conditions=conditions), TINY, networks=1)
        model, (image,) = seen["models"]["network 0"]
        assert isinstance(model, kind) and isinstance(model, runtime.Session) == (name == "onnxruntime")
        assert seen["channels_last"] == (name == "pytorch") and model(image)[1].shape == (32, 2)
