"""The look-up table in ONNX Runtime: graphs as exported, their parts, builds that go on, and boards."""

import ast
import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import linear_table

from dcnas import cli
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
    export.export_onnx(
        Network("x", {"network": {"kind": kind}, "label": kind, "classes": []}, model),
        tmp_path / "ships.onnx",
    )
    runtime.write_graph(model, tmp_path / "timed.onnx", 32)
    assert nodes(tmp_path / "ships.onnx", tmp_path) == nodes(tmp_path / "timed.onnx", tmp_path)
    sizes = [(tmp_path / name).stat().st_size for name in ("timed.onnx", "ships.onnx")]
    assert 20 * sizes[0] < sizes[1]
    outputs = runtime.Session(tmp_path / "timed.onnx")(torch.rand(2, 3, 64, 32))
    assert all(
        x.isfinite().all() and x.abs().max() > 1e-30 for x in outputs if x is not None
    )  # no slow denormals
    file = onnx.load(tmp_path / "timed.onnx").graph
    values = [t.float_data[0] for t in file.initializer if t.name.endswith(".value")]
    assert (
        len(set(values)) == len(values) > 50
    )  # equal ones would become one tensor, and layers share the cache


def test_every_node_belongs_to_its_part(pack, monkeypatch):
    """A part has the time of its nodes; nodes without a name only reorder or reshape."""
    entry = json.loads((pack / board.LIST).read_text())["files"][0]
    read, events = board.json.loads, []
    monkeypatch.setattr(board.json, "loads", lambda text: events.extend(read(text)) or events)
    image = np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
    (total,), counts = board.parts_ms(pack / entry["file"], 1, image, 1, entry["parts"])
    assert set(total) == set(entry["parts"].values()) and min(total.values()) > 0
    names = [
        (e["name"], e["dur"])
        for e in events
        if e["cat"] == "Node" and e["name"].endswith("_kernel_time")
    ]
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
    samples = {part: [count * (ms + 0.003)] * 3 for part, (count, ms) in parts.items()} | {
        "net.onnx": [0.04, 0.04, 0.7]
    }
    told = packs._parts_ms(samples, {"net.onnx": {part: count for part, (count, _) in parts.items()}})
    assert told == {"a": pytest.approx([0.02] * 3), "b": pytest.approx([0.02] * 3)}


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
    assert (
        not path.exists()
        and json.loads((tmp_path / "t.json.part" / board.RESULT).read_text())["rounds"] == 1
    )
    with pytest.raises(InputError, match="t.json.part holds another pack; remove it"):
        packs.build_table(TINY, path, rounds=3, **how)
    calls.clear()
    monkeypatch.setattr(board, "parts_ms", lambda *args: calls.append(1) or real(*args))
    table = packs.build_table(TINY, path, rounds=2, **how)
    assert len(calls) == len(lut.design(TINY)) and [p.name for p in tmp_path.iterdir()] == ["t.json"]
    assert load_table(path) == table and set(table.curves) == set(linear_table(TINY).curves)
    assert all(
        min(c.samples) >= 2 * packs.PASSES and min(c.median_ms) > 0 for c in table.curves.values()
    )
    assert (
        table.conditions.runtime_version
        == f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider"
    )
    with pytest.raises(
        InputError, match="measured with runtime = onnxruntime, but pytorch was expected"
    ):
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
    for name, kind, layout in (
        ("onnxruntime", runtime.Session, "contiguous"),
        ("pytorch", torch.nn.Module, "channels_last"),
    ):
        conditions = replace(plain.conditions, runtime=name, memory_format=layout)
        with pytest.raises(StopIteration):
            lut.validate_table(replace(plain, conditions=conditions), TINY, networks=1)
        model, (image,) = seen["models"][0]
        assert isinstance(model, kind) and isinstance(model, runtime.Session) == (name == "onnxruntime")
        assert seen["channels_last"] == (name == "pytorch") and model(image)[1].shape == (32, 2)


# boards


BARE = """
import runpy, sys
sys.path.append({site!r})
sys.argv = ["measure.py", *{arguments!r}]
runpy.run_path({script!r}, run_name="__main__")
"""


def on_a_board(folder: Path, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess:
    """`measure.py` where Python has numpy and onnxruntime and nothing else that is not its own."""
    site = tmp_path / "site"
    if not site.exists():
        site.mkdir()
        packages = Path(np.__file__).parent.parent
        for name in ("numpy", "numpy.libs", "onnxruntime"):
            if (packages / name).exists():
                (site / name).symlink_to(packages / name)
    code = BARE.format(site=str(site), arguments=list(arguments), script=str(folder / packs.SCRIPT))
    return subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)


ANY = ("--busy-pct", "1e9")


def test_a_board_needs_numpy_and_onnxruntime_alone(pack, tmp_path, capsys):
    """The script runs there, writes all that was listed, and keeps to the device that it began with."""
    ended = on_a_board(pack, tmp_path, "--name", "my board", *ANY)
    assert ended.returncode == 0, ended.stderr
    assert "round 2 of 2" in ended.stderr and "my board, 1 threads" in ended.stdout
    again = on_a_board(pack, tmp_path, "--name", "another", *ANY)
    assert again.returncode == 2 and "was begun with device my board, not another" in again.stderr
    result = json.loads((pack / board.RESULT).read_text())
    keys = {
        key for entry in result["pack"]["files"] if entry["profile"] for key in entry["parts"].values()
    }
    assert result["samples"].keys() == keys | {entry["file"] for entry in result["pack"]["files"]}
    assert min(min(times) for times in result["samples"].values()) > 0 and result["rounds"] == 2


def test_a_quiet_board_gives_the_times_that_it_has(pack, tmp_path, capsys):
    """Whole networks that take 1.3 times what the parts of `linear_table` do, and 0.1 ms more."""
    plain, record = linear_table(TINY, 1), json.loads((pack / board.LIST).read_text())
    samples, nodes = {}, {}
    for entry in record["files"]:
        if entry["profile"]:
            entries = [key.rsplit("@", 1) for key in set(entry["parts"].values())]
            times = {f"{key}@{hidden}": plain.part_ms(key, int(hidden)) for key, hidden in entries}
            samples |= {key: [ms + 5 * 0.003] * 4 for key, ms in times.items()} | {
                entry["file"]: [sum(times.values())] * 4
            }
            nodes[entry["file"]] = dict.fromkeys(times, 5)
        else:
            samples[entry["file"]] = [1.3 * plain.total_ms(entry["parts"]) + 0.1] * 4
    head = {
        "format": 1,
        "pack": record,
        "device": "my board",
        "threads": 1,
        "runtime": "onnxruntime 1.20",
        "date": "2026-01-01",
    }
    (tmp_path / "b.json").write_text(
        json.dumps(head | {"rounds": 2, "samples": samples, "nodes": nodes})
    )
    cli.app(
        ["lut", "read", str(tmp_path / "b.json"), "--out", str(tmp_path / "t.json")],
        standalone_mode=False,
    )
    text, table = capsys.readouterr().out, load_table(tmp_path / "t.json")
    frame, c = pd.read_csv(tmp_path / "t.validation.csv"), table.conditions
    assert "my board, 1 threads, onnxruntime 1.20" in text and "held out, corrected" in text
    assert (c.device, c.threads, c.batch, c.runtime, c.width_step) == (
        "my board",
        1,
        1,
        "onnxruntime",
        8,
    )
    with pytest.raises(
        InputError, match="the look-up table is for my board, but this machine has .*--no-measure"
    ):
        device_named(c.device)
    drawn = lut.networks_over_the_range(TINY, 6, np.random.default_rng(0))
    predicted = [lut.predicted_ms(plain, a, kind) for kind, a in drawn]
    assert [kind for kind, _ in drawn] == ["C-NAS"] * 2 + ["DC-NAS"] * 2 + ["C-NAS"] * 2
    assert frame["predicted_ms"].tolist() == pytest.approx(predicted, rel=1e-4)
    assert table.correction.scale == pytest.approx(
        1.3, rel=0.01
    ) and table.correction.offset_ms == pytest.approx(0.1, abs=0.02)
    assert lut.table_errors(frame)["max_pct"] < 0.01 and list(frame["half"]) == ["fit", "test"] * 3
    assert {key: curve.hidden for key, curve in table.curves.items()} == {
        k: c.hidden for k, c in plain.curves.items()
    }


def test_a_board_goes_on_where_it_was(pack, tmp_path, monkeypatch):
    result = board.measure(pack, name="my board", limit_pct=QUIET, progress=False)
    half = tmp_path / "half"
    shutil.copytree(pack, half)
    counts = {key: len(times) // 2 for key, times in result["samples"].items()}
    kept = {key: result["samples"][key][:count] for key, count in counts.items()}
    (half / board.RESULT).write_text(json.dumps(result | {"rounds": 1, "samples": kept}))
    with pytest.raises(InputError, match="has 1 of 2 rounds; run measure.py again"):
        packs.read_table(half / board.RESULT)
    ended = on_a_board(half, tmp_path, "--name", "my board", *ANY)
    assert (
        ended.returncode == 0 and "round 1 of 2" not in ended.stderr and "round 2 of 2" in ended.stderr
    )
    after = json.loads((half / board.RESULT).read_text())["samples"]
    assert {key: len(times) for key, times in after.items()} == {key: 2 * n for key, n in counts.items()}
    assert all(after[key][: counts[key]] == kept[key] for key in kept)
    (half / "network-03.onnx").unlink()
    ended = on_a_board(half, tmp_path)
    assert (
        ended.returncode == 2
        and "measure: network-03.onnx is missing, the pack is not whole" in ended.stderr
    )


def test_a_busy_board_is_refused_with_the_reason(pack, tmp_path, monkeypatch):
    (half := tmp_path / "busy").mkdir()
    shutil.copytree(pack, half, dirs_exist_ok=True)
    (half / board.RESULT).unlink(missing_ok=True)
    times = iter([2.0, 2.1, 2.0, 2.5])
    monkeypatch.setattr(board, "network_ms", lambda *_: [next(times)] * 3)
    monkeypatch.setattr(board, "parts_ms", lambda *_: ([{"stem.first@0": 1.0}], {"stem.first@0": 2}))
    board.require_quiet(half / "blocks-00.onnx", 1, None, 10)
    with pytest.raises(
        board.Refusal, match="timings of one network, 2.00 and 2.50 ms, differ by 25%, above 10%; stop"
    ):
        board.measure(half, progress=False)
    assert not (half / board.RESULT).exists()


def test_the_script_is_of_python_3_9():
    source = Path(board.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    calls = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "zip"
    ]
    assert calls and not any(call.keywords for call in calls)  # zip(strict=) is of 3.10
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert modules <= set(sys.stdlib_module_names) | {"numpy", "onnxruntime"}


def test_another_pack_is_refused_and_a_killed_one_goes_on(pack, tmp_path):
    with pytest.raises(InputError, match="holds another pack; remove it"):
        packs.pack_table(TINY, pack, rounds=3, networks=6)
    part = tmp_path / "part"
    shutil.copytree(pack, part)
    (part / "blocks-03.onnx").unlink()
    others = {p.name: p.stat().st_mtime_ns for p in part.glob("*.onnx")}
    packs.pack_table(TINY, part, rounds=2, networks=6, progress=False)
    assert (part / "blocks-03.onnx").read_bytes() == (pack / "blocks-03.onnx").read_bytes()
    assert all((part / name).stat().st_mtime_ns == time for name, time in others.items())


@pytest.mark.parametrize("fault", ["cut", "samples", "pack"])
def test_a_broken_file_of_a_board_is_one_sentence(pack, tmp_path, fault):
    text = json.dumps(board.measure(pack, name="my board", limit_pct=QUIET, progress=False))
    record, path = json.loads(text), tmp_path / "board.json"
    if fault == "samples":
        record["samples"]["head@0"] = [-1.0]
    elif fault == "pack":
        record["pack"] = {"kind": "network"}
    path.write_text(text[:99] if fault == "cut" else json.dumps(record))
    with pytest.raises(InputError, match="board.json: ") as refusal:
        packs.read_table(path)
    assert "\n" not in str(refusal.value)


def test_a_found_network_on_a_board(tmp_path):
    """Its latency, and its outputs beside stored ones, from which others end with a status of 3."""
    architecture = random_architecture(Space(4, 32, 3, 0.25), np.random.default_rng(1))
    torch.manual_seed(0)
    model = build_network("DC-NAS", architecture).eval().requires_grad_(False)
    card = {
        "label": "x",
        "network": {"kind": "DC-NAS"},
        "classes": ["a", "b", "c"],
        "resolution": 32,
        "metrics": [],
    }
    folder = export.pack_network(
        Network("dc-nas", card, model),
        tmp_path / "pack",
        rounds=2,
        predicted_ms=1.0,
        table_of="my board",
    )
    ended = on_a_board(folder, tmp_path, *ANY)
    result = json.loads((folder / board.RESULT).read_text())
    assert ended.returncode == 0, ended.stderr
    assert (
        result["parity"] and result["largest_difference"] <= 1e-4 and result["latency_ms"]["median"] > 0
    )
    assert "By the table of my board: 1.000 ms; measured " in ended.stdout
    stored = dict(np.load(folder / "stored.npz"))
    np.savez(folder / "stored.npz", **(stored | {"logits": stored["logits"] + 0.1}))
    ended = on_a_board(folder, tmp_path, *ANY)
    assert ended.returncode == 3 and "Largest difference from the stored outputs: 0.1" in ended.stdout


def test_a_table_is_built_in_onnx_runtime_unless_told_otherwise(tmp_path, monkeypatch, capsys):
    built = []

    def build(module, space, path, **_):
        built.append((module, space.width_step))
        return linear_table(space)

    for module in (packs, lut):
        monkeypatch.setattr(module, "build_table", partial(build, module))
    for more in ([], ["--runtime", "pytorch"], ["--device", "cuda"], ["--width-step", "16"]):
        cli.app(["lut", "build", "--out", str(tmp_path / "t.json"), *more], standalone_mode=False)
    assert built == [(packs, 8), (lut, 1), (lut, 1), (packs, 16)]


def test_a_derivation_measures_in_the_runtime_of_its_table():
    """Networks and references are ONNX Runtime's; the slowdown is that of the references."""
    plain = linear_table(TINY, 1)
    table = replace(
        plain, conditions=replace(plain.conditions, runtime="onnxruntime", memory_format="contiguous")
    )
    network = build_network("DC-NAS", random_architecture(TINY, np.random.default_rng(0)))
    with patch.object(derivation, "measure_many", wraps=derivation.measure_many) as measure:
        times, slowdown = derivation.latencies_by_table({"mine": network}, table, rounds=2)
    models = [model for model, _ in measure.call_args.args[0].values()]
    assert len(models) == 1 + derivation.REFERENCES and all(
        isinstance(m, runtime.Session) for m in models
    )
    assert (
        times["mine"].median_ms > 0
        and slowdown > 0
        and times["mine"].memory_format == "contiguous_format"
    )
