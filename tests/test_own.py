"""One's own network: a folder from search to evaluation, by the command line, on made-up pictures and a
made-up device.
"""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up import linear_table, noisy_picture, two_classes
from safetensors.torch import load_file

from dcnas import cli
from dcnas.errors import InputError
from dcnas.latency.table import load_table
from dcnas.nas.networks import build_network
from dcnas.nas.settings import latency_range_ms
from dcnas.nas.space import Space, load_architecture, random_architecture, save_architecture
from dcnas.study import derivation, own, runs
from dcnas.study.presets import searches


def own_table(tmp_path, name="own.json", **changes):
    """A table of the made-up device, validated."""
    table = linear_table(Space(8, 32, 2, 0.25, width_step=changes.get("width_step", 1)), batch=4)
    correction = replace(table.correction, error_pct=1.0)
    conditions = replace(table.conditions, **changes)
    return replace(table, conditions=conditions).with_correction(correction).save(tmp_path / name)


class Measured:
    """What a device says that takes what the target is."""

    median_error_ms = 0.01

    def __init__(self, median_ms: float):
        self.median_ms = median_ms


@pytest.fixture
def way(tmp_path, monkeypatch, capsys, request, run_store, downloads):
    """`call(command, ...)`: its exit status, output and errors; with what every search needs: a table,
    images, few steps."""
    two_classes(tmp_path / "set")
    table = linear_table(Space(8, 32, 2, 0.25), batch=4)
    target_ms = round(sum(latency_range_ms(Space(4, 32, 2, 0.25), table)) / 2, 2)
    device = lambda models, *_, **__: ({name: Measured(target_ms) for name in models}, 1.0)  # noqa: E731
    monkeypatch.setattr(derivation, "latencies_by_table", device)
    if "real_report" not in request.keywords:  # which takes ten seconds
        monkeypatch.setattr(own, "write_report", lambda folder: folder / own.REPORT)
    search = f"--lut {own_table(tmp_path)} --target-ms {target_ms} --data {tmp_path / 'set'} --loss ce"
    search += " --epochs 2 --steps-per-epoch 1 --batch 4 --train-steps 2 --threads 1"
    few = {"search": search.split(), "train": "--steps 2 --batch 4 --threads 1".split()}

    def call(command: str, *arguments) -> tuple[int, str, str]:
        words = [command, *few.get(command, ()), *arguments]
        monkeypatch.setattr(sys, "argv", ["dcnas", *map(str, words)])
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        return status, *capsys.readouterr()

    return call


@pytest.mark.slow
@pytest.mark.real_report
def test_the_whole_way(way, tmp_path):
    out = tmp_path / "mine"
    status, text, _ = way("search", "--out", out, "--train-steps", 0)
    record, page = own.read_record(out), (out / "report.html").read_text()
    assert status == 0 and "Measured:" in text and "report.html" in text and abs(record.error_pct) < 3
    assert f"C-NAS for {record.target_ms:g} ms" in page and f"Measured {record.measured_ms:.2f}" in page
    assert "Not trained yet" in page and page.count("data:image/png;base64,") == 2

    status, text, _ = way("train", out, "--network", "DC-NAS", "--decoder", "mb")
    page, card = (out / "report.html").read_text(), json.loads((out / "weights.card.json").read_text())
    assert status == 0 and "accuracy" in text and "noisy_psnr" in text
    assert "DC-NAS, decoder mb" in page
    assert f"{card['parameters']:,}" in page
    assert "Not trained yet" not in page
    assert "neither predicted nor measured" in page
    assert f"Searched: C-NAS for {record.target_ms:g} ms" in page
    assert page.count("data:image/png;base64,") == 4
    assert "<script" not in page
    assert 'src="http' not in page
    row = pd.read_csv(out / "metrics.csv").iloc[3]
    assert f"{row['accuracy']:.1f} ({row['accuracy_low']:.1f} to {row['accuracy_high']:.1f})" in page
    assert "import pandas" not in page  # no code


def test_weights_card_and_metrics_belong_together(way, tmp_path):
    out = tmp_path / "mine"
    assert way("search", "--out", out)[0] == 0
    record, metrics = own.read_record(out), pd.read_csv(out / "metrics.csv")
    card = json.loads((out / "weights.card.json").read_text())
    assert record.conditions.device
    assert record.flops == card["flops"]
    assert record.parameters == card["parameters"]
    # the run's own
    assert [row["accuracy"] for row in card["metrics"]] == pytest.approx(metrics["accuracy"], abs=0.01)
    assert (metrics["accuracy_low"] <= metrics["accuracy"]).all()
    assert (metrics["accuracy"] <= metrics["accuracy_high"]).all()
    assert np.isinf(metrics["noisy_psnr"][0]) and metrics["noisy_psnr"][1:].is_monotonic_decreasing
    model = build_network("C-NAS", load_architecture(out / "architecture.json"))
    model.load_state_dict(load_file(out / "weights.safetensors"))
    before = (out / "metrics.csv").read_bytes()
    assert way("evaluate", out)[0] == 0 and (out / "metrics.csv").read_bytes() == before
    picture = next((tmp_path / "set" / "dark").iterdir())
    assert (
        way("classify", picture, "--weights", out / "weights.safetensors", "--out", tmp_path / "c.csv")[
            0
        ]
        == 0
    )
    assert pd.read_csv(tmp_path / "c.csv")["class"].iloc[0] in ("bright", "dark")


def test_a_training_needs_no_search(way, tmp_path):
    out = tmp_path / "mine"
    save_architecture(
        random_architecture(Space(4, 32, 2, 0.25), np.random.default_rng(0)), out / "architecture.json"
    )
    assert way("train", out, "--network", "DC-NAS", "--data", tmp_path / "set")[0] == 0
    assert json.loads((out / "weights.card.json").read_text())["network"]["kind"] == "DC-NAS"


def test_the_same_search_goes_on_and_another_is_refused(way, tmp_path, monkeypatch):
    out = tmp_path / "mine"
    way("search", "--out", out)
    monkeypatch.setattr(runs, "run_search", None)  # it would be called again
    before = (out / "weights.safetensors").stat().st_mtime_ns
    assert "trained already" in way("search", "--out", out)[1]
    assert (out / "weights.safetensors").stat().st_mtime_ns == before
    status, _, err = way("search", "--out", out, "--seed", "1")
    assert status == 2 and "holds another search" in err
    save_architecture(
        random_architecture(Space(4, 32, 2, 0.25), np.random.default_rng(9)), out / "architecture.json"
    )
    way("search", "--out", out, "--train-steps", "0")
    assert not (out / "weights.safetensors").exists()  # they were of another architecture


def test_another_set_is_judged_whole_and_written_beside(way, tmp_path):
    out = tmp_path / "mine"
    way("search", "--out", out)
    for place, level in (("x", 40), ("y", 200)):  # two folders of one name
        for name in ("bright", "dark"):
            for n in range(3):
                noisy_picture(tmp_path / place / "test" / name / f"{n}.png", level, n)
        assert way("evaluate", out, "--data", tmp_path / place / "test")[0] == 0
    files = sorted(out.glob("metrics-test-*.csv"))
    assert len(files) == 2 and files[0].read_bytes() != files[1].read_bytes()
    assert pd.read_csv(files[0])["images"].tolist() == [6] * 11
    (tmp_path / "x" / "test" / "dark").rename(tmp_path / "x" / "test" / "dim")
    status, _, err = way("evaluate", out, "--data", tmp_path / "x" / "test")
    assert status == 2 and "has the classes bright, dim, but the network knows bright, dark" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("search --data nowhere", "data is 'nowhere', but a folder of class folders or one of solar"),
        ("search --loss both --no-noisy", "without noise (--no-noisy) there is none"),
        ("search --target-ms 1000", "target_ms is 1000, but this space and table reach "),
        ("search --table-limit-pct 0.5", "median error is 1.0%, but at most 0.5% was expected"),
        ("search --lut no.json", "No such file or directory: "),
        ("search --lut other.json", "the look-up table is for another one, but this"),
        ("search --lut unvalidated.json", "the look-up table was never validated"),
        ("train", "No such file or directory: "),
        ("evaluate", "No such file or directory: "),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(way, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    own_table(tmp_path, "other.json", device="another one")
    linear_table(Space(8, 32, 2, 0.25)).save(tmp_path / "unvalidated.json")
    command, *options = arguments.split()
    status, text, err = way(command, *(["--out", "mine"] if command == "search" else ["mine"]), *options)
    assert (status, text) == (2, "") and err.startswith("dcnas: ") and err.count("\n") == 1
    assert says in err and not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    "name", ["search.json", "weights.card.json", "architecture.json", "weights.safetensors"]
)
def test_a_cut_file_of_the_folder_is_one_sentence_with_its_name(way, tmp_path, name):
    out = tmp_path / "mine"
    way("search", "--out", out)
    whole = (out / name).read_bytes()
    for tenth in (0, 5, 9):
        (out / name).write_bytes(whole[: len(whole) * tenth // 10])
        command = "train" if name in ("search.json", "architecture.json") else "evaluate"
        status, _, err = way(command, out)
        assert status == 2 and name in err and err.count("\n") == 1


def test_widths_of_a_search_follow_its_table(way, tmp_path, monkeypatch):
    """A table in steps of 8 gives a network in steps of 8; another step is another search, by the
    table's digest.
    """
    changes = dict(width_step=8, runtime="onnxruntime", memory_format="contiguous")
    path = own_table(tmp_path, "stepped.json", **changes)
    out = tmp_path / "stepped"
    assert way("search", "--out", out, "--lut", path, "--train-steps", 0)[0] == 0
    found = load_architecture(out / "architecture.json")
    assert found.space.width_step == 8
    assert {choice.hidden % 8 for choice in found.choices if choice} == {0}
    assert own.read_record(out).conditions.runtime == "onnxruntime"
    status, _, error = way("search", "--out", out, "--train-steps", 0)
    assert status == 2 and "stepped holds another search" in error
    monkeypatch.setattr(runs, "table_of", lambda run: load_table(path))
    # of the study
    options = dict(progress=False, deadline=None, checkpoint_s=1)
    with pytest.raises(InputError, match="runtime = onnxruntime, but pytorch was expected"):
        runs._search(searches("beta_searches", "smoke")[0], tmp_path, "cpu", **options)
