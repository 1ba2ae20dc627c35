"""Section 4 through the run store: a search, what is derived from it, and the trainings that use it, all small."""

import json
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from made_up import linear_table
from PIL import Image

from dcnas.errors import InputError
from dcnas.nas.networks import NETWORKS
from dcnas.nas.space import Space, load_architecture
from dcnas.seed import set_seed
from dcnas.study import section4
from dcnas.study.runs import folder_of, is_complete, needs, obtain, read_tensors
from dcnas.study.section4 import OTHERS, read_search, search, target_ms, training
from dcnas.training import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Scale smoke on eight made-up pictures of each of two classes, with a made-up table."""
    monkeypatch.setenv("DCNAS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("DCNAS_DOWNLOADS", str(tmp_path / "downloads"))
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("bright", 200)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for n in range(12):
            pixels = np.clip(level + rng.integers(-30, 30, (64, 64, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{n}.png")
    sizes = replace(
        section4.SCALES4["smoke"], data=f"folder:{tmp_path / 'set'}", limit=None, search_batch=4, train_steps=3, eval_images=2
    )
    monkeypatch.setitem(section4.SCALES4, "smoke", sizes)
    linear_table(Space(8, 32, 2, 0.25)).save(section4.table_path("smoke"))


def run(experiment) -> None:
    assert obtain(experiment, progress=False)


def test_a_search_leaves_all_that_the_notebooks_show(small):
    found = search("smoke", 0, "test", "M")
    assert obtain(found, progress=False, checkpoint_s=0.0)
    result = read_search(found)
    assert result["verdict"] in ("decided", "oscillating", "collapsed") and len(result["epochs"]) == 3
    assert not list(folder_of(found).glob("checkpoint*"))  # a hundred megabytes that nobody needs any more
    assert result["predicted_ms"] <= found.target_ms == target_ms("smoke", "M")
    assert result["architecture"] == load_architecture(folder_of(found) / "architecture.json")
    assert json.loads((folder_of(found) / "config.json").read_text())["experiment"]["label"] == "test"


@pytest.mark.parametrize("name", [*NETWORKS, *OTHERS])
def test_every_network_trains_and_is_evaluated(small, name):
    found = training("smoke", 0, name, name, search=search("smoke", 0, "test", "M"))
    assert needs(found) == found.search
    run(found)
    assert is_complete(found.search)  # the search came first
    per_image = read_tensors(folder_of(found) / "per_image.safetensors")
    set_seed(0)
    fresh, trained = section4.build_of(found).state_dict(), read_tensors(folder_of(found) / "weights.safetensors")
    still = [key for key in fresh if torch.equal(fresh[key], trained[key]) and fresh[key].is_floating_point()]
    assert not [key for key in still if "weight" in key]
    denoises, classifies = name not in ("C-NAS", "ResNet-18", "MobileNetV2"), "UNet" not in name and name != "D-NAS"
    assert ("psnr" in per_image) == denoises and ("correct" in per_image) == classifies
    assert {tuple(t.shape[:2]) for t in per_image.values()} == {(11, 2)}


@pytest.mark.parametrize("name", ["DC-NAS", "DC-Net"])
def test_a_killed_training_goes_on_to_the_same_bits(small, name):
    one, two = (training("smoke", seed, name, name, search=search("smoke", 0, "test", "M")) for seed in (0, 0))
    run(one)
    weights = read_tensors(folder_of(one) / "weights.safetensors")
    for path in folder_of(one).iterdir():
        path.unlink()
    real, calls = Trainer.step, []

    def dies(self, batch):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, batch)

    with patch.object(Trainer, "step", dies), pytest.raises(KeyboardInterrupt):
        obtain(two, progress=False, checkpoint_s=0.0)
    run(two)
    again = read_tensors(folder_of(two) / "weights.safetensors")
    assert all(torch.equal(weights[key], again[key]) for key in weights)


def test_variants_of_an_architecture(small):
    source = search("smoke", 0, "test", "M")
    run(source)
    plain = training("smoke", 0, "a", "D-NAS", search=source)
    wide = section4.architecture_of(replace(plain, upscaled=2.0))
    assert wide.space.width == 0.5 and [c.operator for c in wide.choices] == [
        c.operator for c in section4.architecture_of(plain).choices
    ]
    first, again, other = (section4.architecture_of(replace(plain, random_seed=seed)) for seed in (0, 0, 1))
    assert first == again != other
    table = section4.obtain_table("smoke")
    assert section4.predicted_ms(table, first) <= source.target_ms


def test_a_search_on_both_losses_has_time_for_the_decoder(small):
    table = section4.obtain_table("smoke")
    both, one = search("smoke", 0, "a", "M", loss="both"), search("smoke", 0, "a", "M")
    assert both.target_ms - one.target_ms == pytest.approx(table.part_ms("decoder conv"), abs=0.011)


def test_derivation_measures_and_replaces_the_architecture(small):
    source = search("smoke", 0, "test", "S")
    with pytest.raises(InputError, match="nothing to derive"):
        section4.derive(source)
    run(source)
    before = load_architecture(folder_of(source) / "architecture.json")
    table = section4.obtain_table("smoke")

    class Slow:
        spread_ms, passes = 0.0, 9

        def __init__(self, median_ms):
            self.median_ms = median_ms

    def measure_many(models, **_):  # a device on which all takes a tenth longer than the table says
        return {"it": Slow(1.1 * section4.predicted_ms(table, current[-1]))}

    current = [before]
    real = section4.build_network
    with (
        patch.object(section4, "measure_many", measure_many),
        patch.object(section4, "build_network", lambda network, a: current.append(a) or real(network, a)),
    ):
        rows = section4.derive(source)
    assert abs(rows[0]["error_pct"]) > 2 and abs(rows[-1]["error_pct"]) <= 2
    assert load_architecture(folder_of(source) / "architecture.json") != before
    assert (folder_of(source) / "derivation.csv").exists()


def test_names_differ_with_every_setting(small):
    plain = search("smoke", 0, "test", "M")
    others = [replace(plain, **change) for change in (dict(seed=1), dict(learn_beta=True), dict(target_ms=1.0), dict(noisy=True))]
    assert len({e.name for e in (plain, *others)}) == 5
    trained = training("smoke", 0, "a", "DC-NAS", search=plain)
    assert trained.name != replace(trained, search=others[0]).name


def test_lists_name_each_run_once(small):
    lists = [section4.beta_searches("smoke"), section4.operator_searches("smoke"), section4.gradient_searches("smoke")]
    for found in lists:
        assert len({e.name for e in found}) == len(found)
    shared = {e.name for e in lists[0]} & {e.name for e in lists[1]}
    assert len(shared) == 1  # the search at the small target with four operators stands in Table 8 and in Figure 6
