"""One's own network: a folder from search to evaluation, on made-up pictures and a made-up device."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_up import dcnas, linear_table, noisy_picture, two_classes
from safetensors.torch import load_file

from dcnas.errors import InputError
from dcnas.latency.table import load_table
from dcnas.nas.lut import predicted_ms
from dcnas.nas.networks import build_network
from dcnas.nas.settings import latency_range_ms
from dcnas.nas.space import Space, load_architecture, random_architecture, save_architecture
from dcnas.paths import runs_dir
from dcnas.study import derivation, own, runs
from dcnas.study.presets import searches

TABLE, TINY = linear_table(Space(8, 32, 2, 0.25), batch=4), Space(4, 32, 2, 0.25)
TARGET_MS = round(sum(latency_range_ms(TINY, TABLE)) / 2, 2)
REPORT = own.write_report


def own_table(path, **changes):
    """A table of the made-up device, validated."""
    table = linear_table(Space(8, 32, 2, 0.25, width_step=changes.get("width_step", 1)), batch=4)
    correction = replace(table.correction, error_pct=1.0)
    conditions = replace(table.conditions, **changes)
    return replace(table, conditions=conditions).with_correction(correction).save(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what every search needs: a table and images; the device takes what the target is."""
    place = tmp_path_factory.mktemp("own")
    two_classes(place / "set")
    own_table(place / "own.json")
    measured = SimpleNamespace(median_ms=TARGET_MS, median_error_ms=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCNAS_RUNS", str(place / "runs"))
        patch.setenv("DCNAS_DOWNLOADS", str(place / "downloads"))
        times = lambda models, *_, **__: (dict.fromkeys(models, measured), 1.0)  # noqa: E731
        patch.setattr(derivation, "latencies_by_table", times)
        patch.setattr(own, "write_report", lambda folder: folder / own.REPORT)  # which takes long
        yield place


@pytest.fixture(scope="module")
def call(place):
    """`call(command, ...)` with few steps: its exit status, output and errors."""
    search = f"--lut {place / 'own.json'} --target-ms {TARGET_MS} --data {place / 'set'} --loss ce"
    search += " --epochs 2 --steps-per-epoch 1 --batch 4 --train-steps 2 --threads 1"
    few = {"search": search.split(), "train": "--steps 2 --batch 4 --threads 1".split()}
    return lambda command, *more: dcnas(command, *few.get(command, ()), *more)


@pytest.fixture(scope="module")
def searched(place, call):
    assert call("search", "--out", place / "searched")[0] == 0
    return place / "searched"


@pytest.fixture
def out(searched, tmp_path):
    """The folder of a search and its training."""
    return shutil.copytree(searched, tmp_path / "mine")


@pytest.mark.slow
def test_the_whole_way(call, tmp_path, monkeypatch):
    monkeypatch.setattr(own, "write_report", REPORT)
    out = tmp_path / "mine"
    status, text, _ = call("search", "--out", out, "--train-steps", 0)
    record, page = own.read_record(out), (out / "report.html").read_text()
    assert status == 0 and "Measured:" in text and "report.html" in text and abs(record.error_pct) < 3
    assert f"C-NAS for {record.target_ms:g} ms" in page and f"Measured {record.measured_ms:.2f}" in page
    assert "Not trained yet" in page and page.count("data:image/png;base64,") == 2

    status, text, _ = call("train", out, "--network", "DC-NAS", "--decoder", "mb")
    page, card = (out / "report.html").read_text(), json.loads((out / "weights.card.json").read_text())
    assert status == 0 and "accuracy" in text and "noisy_psnr" in text
    row = pd.read_csv(out / "metrics.csv").iloc[3]
    says = ["DC-NAS, decoder mb", f"{card['parameters']:,}", "neither predicted nor measured"]
    says.append(f"Searched: C-NAS for {record.target_ms:g} ms")
    says.append(f"{row['accuracy']:.1f} ({row['accuracy_low']:.1f} to {row['accuracy_high']:.1f})")
    assert not [text for text in says if text not in page]
    silent = ("Not trained yet", "<script", 'src="http', "import pandas")  # no code
    assert not [text for text in silent if text in page]
    assert page.count("data:image/png;base64,") == 4


def test_weights_card_and_metrics_belong_together(call, place, out):
    record, metrics = own.read_record(out), pd.read_csv(out / "metrics.csv")
    card = json.loads((out / "weights.card.json").read_text())
    assert (record.flops, record.parameters) == (card["flops"], card["parameters"])
    # the run's own
    assert [row["accuracy"] for row in card["metrics"]] == pytest.approx(metrics["accuracy"], abs=0.01)
    assert (metrics["accuracy_low"] <= metrics["accuracy"]).all()
    assert (metrics["accuracy"] <= metrics["accuracy_high"]).all()
    assert np.isinf(metrics["noisy_psnr"][0]) and metrics["noisy_psnr"][1:].is_monotonic_decreasing
    model = build_network("C-NAS", load_architecture(out / "architecture.json"))
    model.load_state_dict(load_file(out / "weights.safetensors"))
    before = (out / "metrics.csv").read_bytes()
    assert call("evaluate", out)[0] == 0 and (out / "metrics.csv").read_bytes() == before
    picture, found = next((place / "set" / "dark").iterdir()), out / "c.csv"
    options = ("--weights", out / "weights.safetensors", "--out", found)
    assert call("classify", picture, *options)[0] == 0
    assert pd.read_csv(found)["class"].iloc[0] in ("bright", "dark")


def test_the_same_search_goes_on_and_another_is_refused(call, out, monkeypatch):
    monkeypatch.setattr(runs, "run_search", None)  # it would be called again
    before = (out / "weights.safetensors").stat().st_mtime_ns
    assert "trained already" in call("search", "--out", out)[1]
    assert (out / "weights.safetensors").stat().st_mtime_ns == before
    status, _, err = call("search", "--out", out, "--seed", "1")
    assert status == 2 and "holds another search" in err
    drawn = random_architecture(TINY, np.random.default_rng(9))
    save_architecture(drawn, out / "architecture.json")
    call("search", "--out", out, "--train-steps", "0")
    assert not (out / "weights.safetensors").exists()  # they were of another architecture


def test_another_set_is_judged_whole_and_written_beside(call, out, tmp_path):
    for place, level in (("x", 40), ("y", 200)):  # two folders of one name
        for n in range(6):
            noisy_picture(tmp_path / place / "test" / ("bright", "dark")[n % 2] / f"{n}.png", level, n)
        assert call("evaluate", out, "--data", tmp_path / place / "test")[0] == 0
    files = sorted(out.glob("metrics-test-*.csv"))
    assert len(files) == 2 and files[0].read_bytes() != files[1].read_bytes()
    assert pd.read_csv(files[0])["images"].tolist() == [6] * 11
    (tmp_path / "x" / "test" / "dark").rename(tmp_path / "x" / "test" / "dim")
    status, _, err = call("evaluate", out, "--data", tmp_path / "x" / "test")
    assert status == 2 and "has the classes bright, dim, but the network knows bright, dark" in err


def test_bad_input_is_one_sentence_and_writes_nothing(call, tmp_path):
    unvalidated = TABLE.save(tmp_path / "unvalidated.json")
    other = own_table(tmp_path / "other.json", device="another one")
    for arguments, says in (
        ("--data nowhere", "data is 'nowhere', but a folder of class folders or one of solar"),
        ("--loss both --no-noisy", "without noise (--no-noisy) there is none"),
        ("--target-ms 1000", "target_ms is 1000, but this space and table reach "),
        ("--table-limit-pct 0.5", "median error is 1.0%, but at most 0.5% was expected"),
        ("--lut no.json", "No such file or directory: "),
        (f"--lut {other}", "the look-up table is for another one, but this"),
        (f"--lut {unvalidated}", "the look-up table was never validated"),
    ):
        status, text, err = call("search", "--out", tmp_path / "mine", *arguments.split())
        assert (status, text) == (2, "") and err.startswith("dcnas: ") and err.count("\n") == 1
        assert says in err and not (tmp_path / "mine").exists()


@pytest.mark.parametrize("share", [0.03, 0.97])
def test_a_target_beyond_the_widths_of_the_best_operators(call, tmp_path, share):
    """Others, of which the network is no slower than the target, and nearer to it."""
    low, high = latency_range_ms(TINY, TABLE)
    target_ms, out = round(low + share * (high - low), 3), tmp_path / "mine"
    more = ("--target-ms", target_ms, "--no-measure", "--train-steps", 0)
    assert call("search", "--out", out, *more)[0] == 0
    record = own.read_record(out)
    ended = load_architecture(runs_dir() / record.run / "architecture.json")
    off = abs(predicted_ms(TABLE, ended) - target_ms)
    assert off > derivation.CLOSE * target_ms
    assert record.predicted_ms == predicted_ms(TABLE, load_architecture(out / "architecture.json"))
    assert record.predicted_ms <= (1 + derivation.CLOSE) * target_ms
    assert abs(record.predicted_ms - target_ms) < off


def test_widths_of_a_search_follow_its_table(call, tmp_path, monkeypatch):
    """A table in steps of 8 gives a network in steps of 8, and one of another runtime is none of the
    study's."""
    changes = dict(width_step=8, runtime="onnxruntime", memory_format="contiguous")
    path, out = own_table(tmp_path / "stepped.json", **changes), tmp_path / "stepped"
    assert call("search", "--out", out, "--lut", path, "--train-steps", 0)[0] == 0
    found = load_architecture(out / "architecture.json")
    assert found.space.width_step == 8
    assert {choice.hidden % 8 for choice in found.choices if choice} == {0}
    assert own.read_record(out).conditions.runtime == "onnxruntime"
    status, _, error = call("search", "--out", out, "--train-steps", 0)
    assert status == 2 and "stepped holds another search" in error
    monkeypatch.setattr(runs, "table_of", lambda run: load_table(path))
    options = dict(progress=False, deadline=None, checkpoint_s=1)
    with pytest.raises(InputError, match="runtime = onnxruntime, but pytorch was expected"):
        runs._search(searches("beta_searches", "smoke")[0], tmp_path, "cpu", **options)
