"""The look-up table in ONNX Runtime: graphs as exported, their parts, builds that go on, and boards."""

import json
import re
import shutil
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import bare, dcnas, interrupted, linear_table

from dcnas.errors import InputError
from dcnas.latency import board
from dcnas.latency.measure import device_named
from dcnas.latency.table import load_table
from dcnas.nas import lut, packs
from dcnas.nas.networks import build_network
from dcnas.nas.space import Space, random_architecture
from dcnas.study import derivation

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from dcnas.deploy import export  # noqa: E402, needs the packages above
from dcnas.deploy.weights import Network  # noqa: E402
from dcnas.latency import runtime  # noqa: E402

TINY = Space(4, 32, 2, 0.25, width_step=8)


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


def test_what_is_timed_is_the_graph_that_ships(tmp_path):
    model = build_network("DC-NAS", random_architecture(Space(8, 32, 2), np.random.default_rng(0)))
    ships, timed = tmp_path / "ships.onnx", tmp_path / "timed.onnx"
    card = {"network": {"kind": "DC-NAS"}, "label": "x", "classes": []}
    export.export_onnx(Network("x", card, model.eval()), ships)
    runtime.write_graph(model, timed, 32)
    assert nodes(ships, tmp_path) == nodes(timed, tmp_path)
    assert 20 * timed.stat().st_size < ships.stat().st_size
    for output in runtime.Session(timed)(torch.rand(2, 3, 64, 32)):
        assert output.isfinite().all() and output.abs().max() > 1e-30  # no slow denormals
    tensors = onnx.load(timed).graph.initializer
    values = [t.float_data[0] for t in tensors if t.name.endswith(".value")]
    assert len(set(values)) == len(values) > 50  # equal ones would become one, which layers share


def test_one_session_is_open_at_a_time(pack):
    """Threads of a second one, waiting for work, take the processor from the first."""
    files = [pack / entry["file"] for entry in json.loads((pack / board.LIST).read_text())["files"][:2]]
    first, second = (runtime.Session(file, 2) for file in files)
    image = torch.rand(1, 3, 32, 32)
    expected = first(image)
    opened = weakref.ref(first.session)
    second(image)
    assert opened() is None and runtime.Session.last[0] is second
    assert torch.equal(first(image)[0], expected[0])  # opened again


def test_every_node_belongs_to_its_part(pack, monkeypatch):
    """A part has the time of its nodes; nodes without a name only reorder or reshape."""
    entry = json.loads((pack / board.LIST).read_text())["files"][0]
    read, events = board.json.loads, []
    monkeypatch.setattr(board.json, "loads", lambda text: events.extend(read(text)) or events)
    image = np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
    (total,), counts = board.parts_ms(pack / entry["file"], 1, image, 1, entry["parts"])
    assert set(total) == set(entry["parts"].values()) and min(total.values()) > 0
    events = [(e["name"], e["dur"]) for e in events if e["cat"] == "Node"]
    names = [(name, us) for name, us in events if name.endswith("_kernel_time")]
    last = names[-len(names) // (board.WARMUP + 1) :]
    assert sum(total.values()) == pytest.approx(sum(us for _, us in last) / 1e3)
    assert sum(counts.values()) == len(last) and counts.keys() == total.keys()
    unnamed = [name for name, _ in last if not name.startswith(tuple(entry["parts"]))]
    assert all(name.startswith(("Reorder", "Reshape")) for name in unnamed)
    block = sum(us for name, us in last if name.startswith("/model/stages.4.1/")) / 1e3
    assert block <= total[entry["parts"]["/model/stages.4.1/"]] + 1e-9


def test_what_the_profiler_takes_is_taken_off():
    """Nodes of 2 and 4 us, and 3 us of the profiler for each: found from the time without it."""
    parts = {"a": (10, 0.002), "b": (5, 0.004)}
    samples = {part: [count * (ms + 0.003)] * 3 for part, (count, ms) in parts.items()}
    counts = {"net.onnx": {part: count for part, (count, _) in parts.items()}}
    found = packs._parts_ms(samples | {"net.onnx": [0.04, 0.04, 0.7]}, counts)
    assert found == {"a": pytest.approx([0.02] * 3), "b": pytest.approx([0.02] * 3)}


def test_a_build_is_killed_goes_on_and_is_refused_for_another_runtime(tmp_path, monkeypatch):
    path, how = tmp_path / "t.json", dict(batch=1, threads=1, progress=False, rounds=2)
    with interrupted(board, "parts_ms", 16):  # in the second round of ten networks
        packs.build_table(TINY, path, **how)
    assert json.loads((tmp_path / "t.json.part" / board.RESULT).read_text())["rounds"] == 1
    with pytest.raises(InputError, match="t.json.part holds another pack; remove it"):
        packs.build_table(TINY, path, **how | dict(rounds=3))
    with patch.object(board, "parts_ms", wraps=board.parts_ms) as again:
        table = packs.build_table(TINY, path, **how)
    assert again.call_count == len(lut.design(TINY))
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]
    assert load_table(path) == table and set(table.curves) == set(linear_table(TINY).curves)
    curves = table.curves.values()
    assert all(min(c.samples) >= 2 * packs.PASSES and min(c.median_ms) > 0 for c in curves)
    version = f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider"
    assert table.conditions.runtime_version == version
    with pytest.raises(InputError, match="measured with runtime = onnxruntime, but pytorch was expe"):
        table.require(runtime="pytorch")


def on_a_board(folder: Path, place: Path, *words: str):
    return bare(place, folder / packs.SCRIPT, "--busy-pct", "1e9", *words)


def test_a_busy_machine_is_refused_with_the_reason(monkeypatch):
    times = iter([2.0, 2.1, 2.0, 2.5])
    monkeypatch.setattr(board, "network_ms", lambda *_: [next(times)] * 3)
    board.require_quiet("x", 1, None, 10)
    with pytest.raises(board.Refusal, match="2.00 and 2.50 ms, differ by 25%, above 10%; stop"):
        board.require_quiet("x", 1, None, 10)


@pytest.fixture(scope="module")
def measured(pack, tmp_path_factory) -> dict:
    """The pack as a board measured it, where Python has numpy and onnxruntime alone."""
    ended = on_a_board(pack, tmp_path_factory.mktemp("board"), "--name", "my board")
    assert ended.returncode == 0, ended.stderr
    assert "round 2 of 2" in ended.stderr and "my board, 1 threads" in ended.stdout
    return json.loads((pack / board.RESULT).read_text())


def test_a_board_needs_numpy_and_onnxruntime_alone(pack, measured, tmp_path):
    """The script writes all that was listed, and keeps to the device that it began with."""
    again = on_a_board(pack, tmp_path, "--name", "another")
    assert again.returncode == 2 and "was begun with device my board, not another" in again.stderr
    files = measured["pack"]["files"]
    keys = {key for entry in files if entry["profile"] for key in entry["parts"].values()}
    assert measured["samples"].keys() == keys | {entry["file"] for entry in files}
    assert min(min(times) for times in measured["samples"].values()) > 0 and measured["rounds"] == 2


def test_the_table_of_a_board_has_the_times_of_its_file(pack, tmp_path):
    """Whole networks that take 1.3 times what the parts of `linear_table` do, and 0.1 ms more."""
    plain, record = linear_table(TINY, 1), json.loads((pack / board.LIST).read_text())
    samples, nodes = {}, {}
    for entry in record["files"]:
        if entry["profile"]:
            entries = [key.rsplit("@", 1) for key in set(entry["parts"].values())]
            times = {f"{key}@{hidden}": plain.part_ms(key, int(hidden)) for key, hidden in entries}
            samples |= {key: [ms + 5 * 0.003] * 4 for key, ms in times.items()}
            samples[entry["file"]] = [sum(times.values())] * 4
            nodes[entry["file"]] = dict.fromkeys(times, 5)
        else:
            samples[entry["file"]] = [1.3 * plain.total_ms(entry["parts"]) + 0.1] * 4
    found = dict(format=1, pack=record, device="my board", threads=1, runtime="onnxruntime 1.20")
    found |= dict(date="2026-01-01", rounds=2, samples=samples, nodes=nodes)
    (tmp_path / "b.json").write_text(json.dumps(found))
    text = dcnas("lut", "read", tmp_path / "b.json", "--out", tmp_path / "t.json")[1]
    table = load_table(tmp_path / "t.json")
    frame, c = pd.read_csv(tmp_path / "t.validation.csv"), table.conditions
    assert "my board, 1 threads, onnxruntime 1.20" in text and "held out, corrected" in text
    assert (c.device, c.threads, c.batch, c.runtime) == ("my board", 1, 1, "onnxruntime")
    with pytest.raises(InputError, match="table is for my board, but this machine has .*--no-measure"):
        device_named(c.device)
    drawn = lut.networks_over_the_range(TINY, 6, np.random.default_rng(0))
    predicted = [lut.predicted_ms(plain, a, kind) for kind, a in drawn]
    assert [kind for kind, _ in drawn] == ["C-NAS"] * 2 + ["DC-NAS"] * 2 + ["C-NAS"] * 2
    assert frame["predicted_ms"].tolist() == pytest.approx(predicted, rel=1e-4)
    assert table.correction.scale == pytest.approx(1.3, rel=0.01)
    assert table.correction.offset_ms == pytest.approx(0.1, abs=0.02)
    assert lut.table_errors(frame)["max_pct"] < 0.01 and list(frame["half"]) == ["fit", "test"] * 3
    hidden = [{key: curve.hidden for key, curve in some.curves.items()} for some in (table, plain)]
    assert hidden[0] == hidden[1]


def test_a_board_goes_on_where_it_was(pack, measured, tmp_path):
    half = shutil.copytree(pack, tmp_path / "half")
    kept = {key: times[: len(times) // 2] for key, times in measured["samples"].items()}
    (half / board.RESULT).write_text(json.dumps(measured | {"rounds": 1, "samples": kept}))
    with pytest.raises(InputError, match="has 1 of 2 rounds; run measure.py again"):
        packs.read_table(half / board.RESULT)
    after = board.measure(half, name="my board", limit_pct=float("inf"), progress=False)["samples"]
    assert {key: len(times) for key, times in after.items()} == {k: 2 * len(t) for k, t in kept.items()}
    assert all(after[key][: len(times)] == times for key, times in kept.items())
    (half / "network-03.onnx").unlink()
    with pytest.raises(board.Refusal, match="network-03.onnx is missing, the pack is not whole"):
        board.measure(half, name="my board")


def test_a_found_network_on_a_board(tmp_path):
    """Its latency, and its outputs beside stored ones, from which others end with a status of 3."""
    architecture = random_architecture(Space(4, 32, 3, 0.25), np.random.default_rng(1))
    torch.manual_seed(0)
    model = build_network("DC-NAS", architecture).eval().requires_grad_(False)
    card = dict(label="x", network={"kind": "DC-NAS"}, classes=[*"abc"], resolution=32, metrics=[])
    known = dict(
        rounds=2,
        predicted_ms=1.0,
        table_of="my board",
        table=linear_table(replace(TINY, operators=8), 1),
    )
    folder = export.pack_network(Network("dc-nas", card, model), tmp_path / "pack", **known)
    ended = on_a_board(folder, tmp_path)
    result = json.loads((folder / board.RESULT).read_text())
    assert ended.returncode == 0, ended.stderr
    assert result["parity"] and result["largest_difference"] <= 1e-4
    assert result["latency_ms"]["median"] > 0
    assert "By the table of my board: 1.000 ms; measured " in ended.stdout
    assert board.branches_text(result["branches"]) in ended.stdout
    beside = result["pack"]["files"][1:]
    slowdown = np.median([np.median(result["samples"][e["file"]]) / e["table_ms"] for e in beside])
    assert len(beside) == 5 and result["slowdown"] == pytest.approx(slowdown, abs=1e-4)
    off = 100 * (result["latency_ms"]["median"] / result["slowdown"] - 1)
    told = float(re.search(r"without that drift it is ([+-][\d.]+)% off", ended.stdout)[1])
    assert told == pytest.approx(off, abs=0.1)
    stored = dict(np.load(folder / "stored.npz"))
    np.savez(folder / "stored.npz", **(stored | {"logits": stored["logits"] + 0.1}))
    ended = on_a_board(folder, tmp_path)
    assert ended.returncode == 3 and "Largest difference from the stored outputs: 0.1" in ended.stdout


def test_a_derivation_measures_in_the_runtime_of_its_table():
    """Networks and references are ONNX Runtime's; the slowdown is that of the references."""
    plain, how = linear_table(TINY, 1), dict(runtime="onnxruntime", memory_format="contiguous")
    table = replace(plain, conditions=replace(plain.conditions, **how))
    network = build_network("DC-NAS", random_architecture(TINY, np.random.default_rng(0)))
    with patch.object(lut, "measure_many", wraps=lut.measure_many) as measure:
        times, slowdown = derivation.latencies_by_table({"mine": network}, table, rounds=2)
    models = [model for model, _ in measure.call_args.args[0].values()]
    assert len(models) == 1 + derivation.REFERENCES
    assert all(isinstance(model, runtime.Session) for model in models)
    assert times["mine"].median_ms > 0 and slowdown > 0
    assert times["mine"].memory_format == "contiguous_format"
