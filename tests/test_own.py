"""One's own network: a folder from search to evaluation, by the command line, on made-up pictures and a made-up device."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_section4 import own as own_table
from test_section4 import small  # noqa: F401, a fixture

from dcnas import cli
from dcnas.errors import InputError
from dcnas.nas.space import Space, load_architecture, random_architecture
from dcnas.study import own, section4, section4_runs
from dcnas.study.section4 import target_ms


@pytest.fixture
def way(small, tmp_path, monkeypatch):  # noqa: F811
    """`call(command, ...)` with what every search needs: a table, images, a target, few steps."""
    sizes = replace(section4.SCALES4["smoke"], name=section4.OWN, train_steps=2, eval_images=100)
    monkeypatch.setitem(section4.SCALES4, section4.OWN, sizes)
    table, target = own_table(tmp_path), f"{target_ms('smoke', 'M'):.2f}"
    tiny = ["--epochs", "2", "--steps-per-epoch", "1", "--batch", "4", "--loss", "ce"]

    def call(command: str, *arguments: str) -> None:
        search = ["--lut", str(table), "--target-ms", target, "--data", str(tmp_path / "set"), *tiny]
        cli.app([command, *(search if command == "search" else []), *map(str, arguments)], standalone_mode=False)

    return call


def images_in(page: Path) -> int:
    return page.read_text().count("data:image/png;base64,")


def test_the_whole_way(way, tmp_path, capsys):
    out = tmp_path / "mine"
    way("search", "--out", out, "--noisy", "--train-steps", "0")
    told, record = capsys.readouterr().out, own.read_record(out)
    assert "Measured:" in told and "report.html" in told and abs(record["error_pct"]) < 3
    assert record["conditions"]["device"] and record["parameters"] > 0 and record["flops"] > 0
    assert images_in(out / "report.html") == 2 and "Not trained yet" in (out / "report.html").read_text()

    way("train", out, "--network", "DC-NAS", "--batch", "4")
    told = capsys.readouterr().out
    assert "accuracy" in told and "noisy_psnr" in told
    page = (out / "report.html").read_text()
    assert images_in(out / "report.html") == 4 and "Not trained yet" not in page and "95% bootstrap" in page
    model = section4_runs.build_network("DC-NAS", load_architecture(out / "architecture.json"))
    model.load_state_dict(load_file(out / "weights.safetensors"))

    before = (out / "metrics.csv").read_text()
    way("evaluate", out)
    assert (out / "metrics.csv").read_text() == before and "wrote" in capsys.readouterr().out
    picture = next((tmp_path / "set" / "dark").iterdir())
    way("denoise", picture, tmp_path / "clean", "--weights", out / "weights.safetensors", "--sigma", "0.2")
    assert pd.read_csv(tmp_path / "clean" / "results.csv")["class"].iloc[0] in ("bright", "dark")


def test_the_report_says_what_the_files_say(way, tmp_path):
    out = tmp_path / "mine"
    way("search", "--out", out)  # trains as well
    record, metrics, page = own.read_record(out), pd.read_csv(out / "metrics.csv"), (out / "report.html").read_text()
    card = json.loads((out / "weights.card.json").read_text())
    assert f"{record['measured_ms']:.2f}" in page and f"{record['parameters']:,}" in page
    assert [row["accuracy"] for row in card["metrics"]] == pytest.approx(metrics["accuracy"], abs=0.01)  # the run's own evaluation
    row = metrics.iloc[3]
    assert f"{row['accuracy']:.1f} ({row['accuracy_low']:.1f} to {row['accuracy_high']:.1f})" in page
    assert (metrics["accuracy_low"] <= metrics["accuracy"]).all() and (metrics["accuracy"] <= metrics["accuracy_high"]).all()
    assert np.isinf(metrics["noisy_psnr"][0]) and metrics["noisy_psnr"][1:].is_monotonic_decreasing
    assert "<script" not in page and "http" not in page  # one file, nothing fetched


def embeds(page: str, picture: Path) -> bool:
    return base64.b64encode(picture.read_bytes()).decode() in page


def test_the_report_is_of_the_network_that_was_trained(way, tmp_path):
    out = tmp_path / "mine"
    way("search", "--out", out, "--train-steps", "0")
    searched = own.read_record(out)
    head, measured = f"<h1>C-NAS for {searched['target_ms']:g} ms</h1>", f"Measured {searched['measured_ms']:.2f}"
    size_before = f"C-NAS, {searched['parameters']:,} parameters"
    for text in (head, measured, size_before):
        assert text in (out / "report.html").read_text()
    for decoder in ("mb", "conv"):
        way("train", out, "--network", "DC-NAS", "--decoder", decoder, "--batch", "4")
        card, page = json.loads((out / "weights.card.json").read_text()), (out / "report.html").read_text()
        above, below = page.split("<h2>Search</h2>")
        title = "DC-NAS" if decoder == "conv" else "DC-NAS, decoder mb"
        assert f"<title>{title}</title>" in page and f"<h1>{title}</h1>" in page
        size = f"DC-NAS, decoder {decoder}, {card['parameters']:,} parameters, {card['flops'] / 1e6:.1f} M FLOPs"
        assert size in above and card["parameters"] > searched["parameters"] and card["flops"] > searched["flops"]
        assert "4 images, with noise, seed 0" in above
        assert head not in page and "Measured" not in above and "predicted by" not in above and size_before not in above
        assert "of the network that was searched" in below and measured in below and size_before in below
        assert embeds(above, out / "network.png") and not embeds(page, out / "architecture.png")
        assert card["command"].replace("'", "&#39;") in page  # what trains this one longer

    way("train", out, "--batch", "4", "--no-noisy")
    page = (out / "report.html").read_text()
    assert head in page and size_before in page and measured in page
    assert "4 images, without noise, seed 0" in page and "decoder" not in page
    assert embeds(page, out / "architecture.png") and not (out / "network.png").exists()


def test_a_training_without_a_search_is_drawn_and_told(way, tmp_path):
    out = tmp_path / "mine"
    own.save_architecture(random_architecture(Space(4, 32, 2, 0.25), np.random.default_rng(0)), out / "architecture.json")
    way("train", out, "--network", "DC-NAS", "--data", tmp_path / "set", "--batch", "4")
    page = (out / "report.html").read_text()
    assert "<h1>DC-NAS</h1>" in page and "DC-NAS, decoder conv, " in page and "searched" not in page
    assert embeds(page, out / "network.png") and images_in(out / "report.html") == 3


def test_a_card_of_before_without_flops_and_noise_is_told_as_far_as_it_goes(way, tmp_path):
    out = tmp_path / "mine"
    way("search", "--out", out)
    card = json.loads((out / "weights.card.json").read_text())
    for kind in ("C-NAS", "D-NAS"):
        changed = {name: value for name, value in card.items() if name not in ("flops", "noisy")}
        (out / "weights.card.json").write_text(json.dumps(changed | {"network": card["network"] | {"kind": kind}}))
        page = own.report.write(out).read_text()
        assert "noise, seed" not in page and ("M FLOPs" in page.split("<h2>Search</h2>")[0]) == (kind == "C-NAS")


def test_the_same_search_goes_on_and_another_is_refused(way, tmp_path, monkeypatch):
    out = tmp_path / "mine"
    way("search", "--out", out, "--train-steps", "0")
    monkeypatch.setattr(section4_runs, "run_search", None)  # it would be called again
    way("search", "--out", out, "--train-steps", "0")
    with pytest.raises(InputError, match="holds another search .*name another folder"):
        way("search", "--out", out, "--seed", "1")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file, which is a file"):
        way("search", "--out", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_another_set_is_judged_whole_and_written_beside(way, tmp_path):
    out = tmp_path / "mine"
    way("search", "--out", out)
    page = (out / "report.html").read_text()
    for name in ("bright", "dark"):
        (tmp_path / "other" / name).mkdir(parents=True)
        for n in range(3):
            Image.new("RGB", (40, 40), (50 * n, 9, 9)).save(tmp_path / "other" / name / f"{n}.png")
    way("evaluate", out, "--data", tmp_path / "other")
    assert pd.read_csv(out / "metrics-other.csv")["images"].tolist() == [6] * 11
    assert (out / "report.html").read_text() == page and pd.read_csv(out / "metrics.csv")["images"][0] < 6
    (tmp_path / "other" / "dark").rename(tmp_path / "other" / "dim")
    with pytest.raises(InputError, match="has the classes bright, dim, but the network knows bright, dark"):
        way("evaluate", out, "--data", tmp_path / "other")


def test_sets_of_one_name_have_files_of_their_own(way, tmp_path, capsys):
    out, shades = tmp_path / "mine", {"x": 40, "y": 250}
    way("search", "--out", out)
    for place, shade in shades.items():
        for name in ("bright", "dark"):
            (tmp_path / place / "test" / name).mkdir(parents=True)
            for n in range(3):
                Image.new("RGB", (40, 40), (shade, 60 * n, 9)).save(tmp_path / place / "test" / name / f"{n}.png")
    written = {}
    for place in (*shades, *shades):  # again: each set's file is found again
        capsys.readouterr()
        way("evaluate", out, "--data", tmp_path / place / "test")
        path = Path(capsys.readouterr().out.split("wrote ")[1].strip())
        assert pd.read_csv(path)["data"].unique().tolist() == [f"folder:{tmp_path / place / 'test'}"]
        assert written.setdefault(place, (path, path.read_bytes())) == (path, path.read_bytes())
    assert written["x"][0].name == "metrics-test.csv" and {path for path, _ in written.values()} == set(out.glob("metrics-*.csv"))
    assert written["x"][0].read_bytes() == written["x"][1] != written["y"][1]

    (out / "metrics-test.csv").write_text("sigma,images\n0.0,6\n")  # as it was before files named their set
    way("evaluate", out, "--data", tmp_path / "x" / "test")
    assert (out / "metrics-test.csv").read_text() == "sigma,images\n0.0,6\n" and len(list(out.glob("metrics-*.csv"))) == 3


def test_bad_input_is_one_sentence(way, tmp_path):
    with pytest.raises(InputError, match="data is 'nowhere', but a folder of class folders or one of solar"):
        way("search", "--out", tmp_path / "mine", "--data", "nowhere")
    with pytest.raises(InputError, match="search.json does not exist; `dcnas search --out"):
        way("train", tmp_path / "mine")
    with pytest.raises(InputError, match="weights.safetensors does not exist; `dcnas train"):
        way("evaluate", tmp_path / "mine")
    with pytest.raises(InputError, match="there is none to take away"):
        way("search", "--out", tmp_path / "mine", "--loss", "both", "--no-noisy")
    assert not (tmp_path / "mine").exists()
    (tmp_path / "mine").mkdir()
    for text, says in (("{", "is not JSON"), ("[]", "a list instead"), ('{"format": 1}', "lacks network")):
        (tmp_path / "mine" / "search.json").write_text(text)
        with pytest.raises(InputError, match=says):
            own.read_record(tmp_path / "mine")


@pytest.mark.parametrize("name", ["search.json", "weights.card.json", "metrics.csv", "architecture.json", "weights.safetensors"])
def test_a_cut_file_of_the_folder_is_one_sentence(way, tmp_path, name):
    """Cut at every tenth of its length."""
    out = tmp_path / "mine"
    way("search", "--out", out)
    whole = (out / name).read_bytes()
    for tenth in range(10):
        (out / name).write_bytes(whole[: len(whole) * tenth // 10])
        try:
            own.report.write(out)  # reads records, cards and metrics
            way("evaluate", out)  # reads weights
            own.read_record(out)
            load_architecture(out / "architecture.json")
        except InputError as error:
            assert name.split(".")[0] in str(error), error
            continue
        (out / name).write_bytes(whole) if (out / name).read_bytes() != whole else None
        assert name == "metrics.csv"  # judged anew
    (out / name).write_bytes(whole)
    way("evaluate", out)


def test_a_longer_training_stays_and_another_network_takes_the_old_one_s_weights_away(way, tmp_path, capsys):
    out = tmp_path / "mine"
    way("search", "--out", out)
    way("train", out, "--steps", "5", "--batch", "4")
    way("search", "--out", out)
    assert "A longer training is there already" in capsys.readouterr().out
    assert json.loads((out / "weights.card.json").read_text())["steps"] == 5
    other = section4_runs.random_architecture(load_architecture(out / "architecture.json").space, np.random.default_rng(9))
    own.save_architecture(other, out / "architecture.json")
    way("search", "--out", out, "--train-steps", "0")
    assert not (out / "weights.safetensors").exists() and "Not trained yet" in (out / "report.html").read_text()
