"""Section 4 through the run store: searches, derivations, trainings and their publication, all small."""

import json
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from dcnas.study.section4 import derivation, search, target_ms, training
from dcnas.study.section4_runs import MANUAL, TORCHVISION, architecture_of, build_of
from made_up import linear_table, two_classes

from dcnas.errors import InputError
from dcnas.latency.measure import Latency, device_name
from dcnas.nas.lut import predicted_ms
from dcnas.nas.networks import NETWORKS
from dcnas.nas.space import Space, load_architecture
from dcnas.seed import set_seed
from dcnas.study import queue, results4, section4, section4_runs
from dcnas.study.histories import histories
from dcnas.study.results import paper
from dcnas.study.runs import folder_of, is_complete, needs, obtain, published_runs, read_tensors
from dcnas.training import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = (*NETWORKS, *MANUAL, *TORCHVISION)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Scale smoke on twelve made-up pictures of each of two classes, with a made-up table and a device that agrees with it."""
    monkeypatch.setenv("DCNAS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("DCNAS_DOWNLOADS", str(tmp_path / "downloads"))
    sizes = replace(
        section4.SCALES4["smoke"],
        data=f"folder:{two_classes(tmp_path / 'set')}",
        limit=None,
        search_batch=4,
        train_steps=3,
        eval_images=2,
    )
    monkeypatch.setitem(section4.SCALES4, "smoke", sizes)
    linear_table(Space(8, 32, 2, 0.25), batch=4).save(section4.table_path("smoke"))
    device = Device()
    monkeypatch.setattr(section4_runs, "measure_many", device.measure_many)
    monkeypatch.setattr(section4_runs, "build_network", device.build_network)
    return device


class Device:
    """A device on which every network but the references takes `slower` times what the table says, all of it `slowdown` times."""

    def __init__(self):
        self.slower, self.slowdown, self.measured, self.real = 1.0, 1.0, [], section4_runs.build_network

    def build_network(self, network, architecture, *args, **options):
        model = self.real(network, architecture, *args, **options)
        model.says_ms = lambda: predicted_ms(section4.obtain_table("smoke"), architecture, network)
        return model

    def measure_many(self, models, **_):
        self.measured.append(list(models))
        found = {}
        for name, (model, _) in models.items():
            ms = getattr(model, "says_ms", lambda: 7.0)()
            found[name] = latency(self.slowdown * (ms if name.startswith("reference") else self.slower * ms))
        return found


def latency(ms: float) -> Latency:
    return Latency(ms, ms, ms, ms, ms, None, 4, 3, 1, 1, device_name(), "", "channels_last", "float32")


def run(experiment) -> None:
    assert obtain(experiment, progress=False)


def a_training(name: str, **changes):
    """A network of that name, from a small search where it needs one."""
    found = derivation(search("smoke", 0, "test", "M")) if name in (*NETWORKS, "DC-Net_tail") else None
    return training("smoke", 0, name, name, derivation=found, b=8 if name in MANUAL else None, **changes)


def test_a_search_leaves_all_that_the_notebooks_show(small):
    found = search("smoke", 0, "test", "M")
    assert obtain(found, progress=False, checkpoint_s=0.0)
    result = results4.read_search(found)
    assert result.verdict in ("decided", "oscillating", "collapsed", "undecided") and len(result.epochs) == 3
    assert not list(folder_of(found).glob("checkpoint*"))  # a hundred megabytes that nobody needs any more
    assert result.predicted_ms <= found.target_ms == target_ms("smoke", "M")
    assert result.architecture == load_architecture(folder_of(found) / "architecture.json")
    assert json.loads((folder_of(found) / "config.json").read_text())["experiment"]["label"] == "test"


@pytest.mark.parametrize("name", ALL)
def test_every_network_trains_and_is_evaluated(small, name):
    found = a_training(name)
    assert needs(found) == found.derivation
    run(found)
    if found.derivation is not None:
        assert is_complete(found.derivation) and is_complete(found.derivation.search)  # they came first
    per_image = read_tensors(folder_of(found) / "per_image.safetensors")
    set_seed(0)
    fresh, trained = build_of(found).state_dict(), read_tensors(folder_of(found) / "weights.safetensors")
    still = [key for key in fresh if torch.equal(fresh[key], trained[key]) and fresh[key].is_floating_point()]
    assert not [key for key in still if "weight" in key]
    denoises, classifies = name not in ("C-NAS", *TORCHVISION), name not in ("UNet", "DnCNN", "DnCNN, residual", "D-NAS")
    assert ("psnr" in per_image) == denoises and ("correct" in per_image) == classifies
    assert {tuple(t.shape[:2]) for t in per_image.values()} == {(11, 2)}
    assert (folder_of(found) / "samples.safetensors").exists() == denoises


@pytest.mark.parametrize("name", ["DC-NAS", "DC-Net"])
def test_a_killed_training_goes_on_to_the_same_bits(small, name):
    found = a_training(name)
    run(found)
    weights = read_tensors(folder_of(found) / "weights.safetensors")
    for path in folder_of(found).iterdir():
        path.unlink()
    real, calls = Trainer.step, []

    def dies(self, batch):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, batch)

    with patch.object(Trainer, "step", dies), pytest.raises(KeyboardInterrupt):
        obtain(found, progress=False, checkpoint_s=0.0)
    run(found)
    again = read_tensors(folder_of(found) / "weights.safetensors")
    assert all(torch.equal(weights[key], again[key]) for key in weights)


def test_an_upscaled_network_has_the_same_operators_and_wider_channels(small):
    plain = a_training("D-NAS")
    run(plain.derivation)
    wide = architecture_of(replace(plain, upscaled=2.0))
    assert wide.space.width == 0.5
    assert [c.operator for c in wide.choices] == [c.operator for c in architecture_of(plain).choices]


def test_a_large_unet_has_the_paper_s_d_and_m(small):
    unet = build_of(replace(a_training("UNet"), large=True)).unet
    assert unet.widths == [8, 16, 32, 64, 128]


def test_random_architectures_meet_the_target_and_differ_by_seed(small):
    source = search("smoke", 0, "test", "M")
    found = []
    for seed in (0, 1):
        run(chance := derivation(source, random_seed=seed))
        found.append(load_architecture(folder_of(chance) / "architecture.json"))
        assert predicted_ms(section4.obtain_table("smoke"), found[-1]) == pytest.approx(source.target_ms, rel=0.02)
    assert found[0] != found[1]


def test_a_search_on_both_losses_has_time_for_the_decoder(small):
    table = section4.obtain_table("smoke")
    both, one = search("smoke", 0, "a", "M", loss="both"), search("smoke", 0, "a", "M")
    assert both.target_ms - one.target_ms == pytest.approx(table.part_ms("decoder conv"), abs=0.011)
    assert derivation(both).target_ms == one.target_ms  # as a classifier, like those that it is compared with


@pytest.mark.parametrize("slowdown", [1.0, 3.0])  # a machine that is slower today than on the day of the table
@pytest.mark.parametrize("network", ["C-NAS", "DC-NAS_seq"])
def test_a_derivation_measures_and_repairs(small, network, slowdown):
    source = search("smoke", 0, "test", "S")
    run(source)
    before = load_architecture(folder_of(source) / "architecture.json")
    target = 1.1 * predicted_ms(section4.obtain_table("smoke"), before, network)
    found = derivation(source, network, target)
    small.slower, small.slowdown = 1.1, slowdown
    with pytest.warns(UserWarning, match="3.0 times as long") if slowdown > 1 else nullcontext():
        run(found)
    rows = pd.read_csv(folder_of(found) / "derivation.csv")
    assert abs(rows["error_pct"].iloc[0]) > 2 and abs(rows["error_pct"].iloc[-1]) <= 2
    assert load_architecture(folder_of(source) / "architecture.json") == before  # the search's own record stays
    kept = results4.derivation_row(found).iloc[0]
    assert len(small.measured) == len(rows) + 1  # what was kept is measured anew
    assert kept["repairs"] == len(rows) - 1 and kept["first_error_pct"] == rows["error_pct"].iloc[0]
    assert kept["measured_ms"] == pytest.approx(rows["measured_ms"].iloc[-1])


def test_derivations_are_measured_side_by_side(small):
    source = search("smoke", 0, "test", "S")
    found = [derivation(source), derivation(source, random_seed=0), derivation(source)]
    section4_runs.derive(found, progress=False)
    assert all(map(is_complete, found))
    assert all(len(names) == 2 + section4_runs.REFERENCES for names in small.measured)
    before = [(folder_of(e) / "metrics.csv").read_bytes() for e in found]
    section4_runs.derive(found, progress=False)  # complete: nothing is measured again
    assert before == [(folder_of(e) / "metrics.csv").read_bytes() for e in found]


def test_a_table_of_another_machine_is_refused(small):
    source = search("smoke", 0, "test", "S")
    run(source)
    table = section4.obtain_table("smoke")
    replace(table, conditions=replace(table.conditions, device="a board")).save(section4.table_path("smoke"))
    with pytest.raises(InputError, match="the look-up table is for a board, but this machine has .*; build one for it"):
        run(derivation(source))


def test_nothing_trains_at_scale_short(small, monkeypatch):
    for name in ("run_search", "fit", "_derive"):
        monkeypatch.setattr(section4_runs, name, None)
    found = search("short", 0, "C-NAS S, beta removed", "S")
    for experiment in (found, derivation(found), training("short", 0, "UNet Reduced", "UNet", b=8)):
        with pytest.raises(InputError, match="short: nothing trains at scale short any more"):
            run(experiment)
    with pytest.raises(InputError, match="nothing trains at scale short any more"):
        section4_runs.derive([derivation(found)], progress=False)


def test_names_differ_with_every_setting(small):
    plain = search("smoke", 0, "test", "M")
    changes = (dict(seed=1), dict(learn_beta=True), dict(target_ms=1.0), dict(noisy=True), dict(alpha_lr=1.0))
    others = [replace(plain, **change) for change in changes]
    assert len({e.name for e in (plain, *others)}) == 6
    trained = training("smoke", 0, "a", "DC-NAS", derivation=derivation(plain))
    assert trained.name != replace(trained, derivation=derivation(others[0])).name


def test_lists_name_each_run_once(small):
    lists = [section4.beta_searches("smoke"), section4.operator_searches("smoke"), section4.gradient_searches("smoke")]
    for found in (*lists, section4.everything("smoke")):
        assert len({e.name for e in found}) == len(found)
    shared = {e.name for e in lists[0]} & {e.name for e in lists[1]}
    assert len(shared) == 1  # the search at the small target with four operators stands in Table 8 and in Figure 6


def test_longer_trainings_take_the_searches_of_another_scale(small, monkeypatch):
    """What was searched, derived and timed for a device stays: only the trainings of the longer scale are its own."""
    longer = replace(section4.SCALES4["smoke"], name="gpu", train_steps=9, searches="smoke")
    monkeypatch.setitem(section4.SCALES4, "gpu", longer)
    assert section4.searches("gpu") == section4.searches("smoke")
    assert section4.derivations("gpu") == section4.derivations("smoke")
    for long, short in zip(section4.trainings("gpu"), section4.trainings("smoke"), strict=True):
        assert (long.scale, long.steps, long.derivation) == ("gpu", 9, short.derivation) and long.name != short.name
    assert section4.SCALES4["laptop"].searches is None
    assert results4.latency_path("gpu") == results4.latency_path("smoke")


def test_every_training_has_all_seeds():
    """A comparison of one seed cannot be judged; scales that are published have three, of beta five: its searches are compared."""
    seeds = {}
    for e in section4.trainings("laptop"):
        seeds.setdefault(e.label, set()).add(e.seed)
    beta = dict.fromkeys(("C-NAS S, beta removed", "C-NAS S, beta learned"), {0, 1, 2, 3, 4})
    assert {label: found for label, found in seeds.items() if found != {0, 1, 2}} == {"DnCNN": {0}, "DnCNN, residual": {0}} | beta


def test_equal_labels_and_seeds_are_the_same_network(small):
    keys = {}
    for e in section4.trainings("smoke"):
        assert keys.setdefault((e.label, e.seed), e) == e  # tables and latencies know networks by these two


def test_every_row_of_the_paper_s_tables_has_a_training(small):
    assert set(paper("table5_dcnas", "ours").index) <= {e.label for e in section4.table_5("smoke")}
    assert {"UNet Reduced", "D-NAS S", "D-NAS S upscaled"} <= {e.label for e in section4.table_4("smoke")}


# the queue: what measures latency runs alone, after what it needs


def test_the_queue_runs_derivations_alone(small):
    trained = a_training("C-NAS")
    waves = queue.waves([trained, a_training("ResNet-18")], jobs=2)
    assert [([e.name for e in wave], jobs) for wave, jobs in waves] == [
        ([trained.derivation.search.name], 2), ([trained.derivation.name], 1), ([trained.name, a_training("ResNet-18").name], 2),
    ]  # fmt: skip
    assert queue.waves([search("smoke", 0, "test")], jobs=3) == [([search("smoke", 0, "test")], 3)]


# publication


@pytest.fixture
def laptop(small, tmp_path, monkeypatch):
    """A scale laptop of one search, its derivation and two trainings, in a project of its own."""
    monkeypatch.setenv("DCNAS_ROOT", str(tmp_path / "project"))
    monkeypatch.setitem(section4.SCALES4, "laptop", replace(section4.SCALES4["smoke"], name="laptop"))
    table = linear_table(Space(8, 32, 2, 0.25), batch=4)
    table.with_correction(replace(table.correction, error_pct=1.0)).save(section4.table_path("laptop"))
    found = search("laptop", 0, "test", "M")
    joint = training("laptop", 0, "DC-NAS S", "DC-NAS", derivation=derivation(found))
    runs = [joint, training("laptop", 0, "UNet Reduced", "UNet", b=8)]
    only = {"searches": lambda scale: [found], "derivations": lambda scale: [derivation(found)], "trainings": lambda scale: runs}
    for name, make in only.items():
        monkeypatch.setattr(section4, name, make)
    monkeypatch.setitem(results4.GROUPS, "trainings", only["trainings"])
    monkeypatch.setitem(results4.SEARCHES, "searches", only["searches"])
    results4.archive.cache_clear()
    yield runs
    results4.archive.cache_clear()


def test_what_is_published_is_what_was_run(laptop, tmp_path):
    with pytest.raises(InputError, match="no searches are published yet"):
        results4.results("trainings", "published")
    for experiment in laptop:
        run(experiment)
    with pytest.raises(InputError, match="was not measured on this scale's device"):
        results4.results("trainings", "laptop", progress=False)
    results4.measure_section4("laptop")
    here = results4.results("trainings", "laptop", progress=False)
    searched = results4.searches("searches", "laptop")[0]
    assert results4.collect() == {"searches": 1, "derivations": 1, "trainings": 2}
    there = results4.results("trainings", "published")
    skipped = ["source", "b", "derivation"]
    pd.testing.assert_frame_equal(here.drop(columns=skipped), there.drop(columns=skipped), check_dtype=False)
    for metric in ("psnr", "accuracy"):
        one, two = results4.per_image(here, metric), results4.per_image(there, metric)
        assert one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one)
    assert results4.samples(there)["DC-NAS S"].shape == (5, 4, 3, 32, 32)
    published = results4.searches("searches", "published")[0]
    assert published.architecture == searched.architecture and published.reason == searched.reason
    pd.testing.assert_frame_equal(published.alphas, searched.alphas, atol=1e-4, check_exact=False)
    pd.testing.assert_frame_equal(histories(there), histories(here), check_dtype=False, rtol=1e-4)
    assert histories(there)["images"].tolist() == [8, 16, 24] * 2
    assert results4.derived("published")["measured_ms"].iloc[0] > 0
    assert {e.name for e in (laptop[0], laptop[0].derivation, laptop[0].derivation.search)} <= published_runs()
    before = {path.name: path.read_bytes() for path in (tmp_path / "project" / "data" / "published").iterdir()}
    results4.collect()
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "project" / "data" / "published").iterdir()}


def test_a_training_takes_a_published_architecture_where_no_run_is(laptop):
    run(laptop[0].derivation)
    results4.collect()
    for path in (folder_of(laptop[0].derivation), folder_of(laptop[0].derivation.search)):
        for file in path.iterdir():
            file.unlink()
    assert needs(laptop[0]) is None
    run(laptop[0])


def test_latencies_are_measured_once_per_network(laptop, small):
    run(laptop[0].derivation)
    small.measured.clear()
    small.slowdown = 2.0
    path = results4.measure_section4("laptop")
    assert results4.measure_section4("laptop") == path
    assert [len(names) for names in small.measured] == [2 + section4_runs.REFERENCES]
    found = results4.latencies("laptop").set_index("label")
    assert set(found.index) == {"DC-NAS S", "UNet Reduced"} and found.loc["UNet Reduced", "median_ms"] == 14
    assert found["slowdown"].tolist() == pytest.approx([2, 2])


def test_the_error_of_a_latency_is_what_two_measurements_differ_by():
    now = pd.Series({"C-NAS a conv 1.0": 10.0, "C-NAS b conv 1.0": 10.0, "C-NAS c conv 1.0": 10.0, "UNet b=8": 5.0})
    before = pd.DataFrame({"network": "C-NAS", "run": [*"abcd"], "measured_ms": [22.0, 20.0, 18.0, 1.0]})  # on a day half as fast
    assert results4.repeat_error(now, before) == pytest.approx(0.1 / 2**0.5, rel=0.01)
    assert results4.repeat_error(now, before.head(2)) == results4.repeat_error(now, pd.DataFrame()) == 0


def test_latencies_of_another_device_are_measured_anew(laptop, small):
    path = results4.measure_section4("laptop")
    other = pd.read_csv(path).assign(device="another one")
    path.write_text(other.to_csv(index=False))
    small.measured.clear()
    results4.measure_section4("laptop")
    assert len(small.measured) == 1 and set(results4.latencies("laptop")["device"]) != {"another one"}


def test_a_row_has_the_latency_of_its_very_network_or_none(laptop, small):
    run(laptop[0].derivation)
    results4.measure_section4("laptop")
    keys = {e.label: results4._network_key(e) for e in laptop}
    rows = pd.DataFrame([
        {"label": e.label, "seed": e.seed, "scale": "laptop", "network": e.network, "decoder": e.decoder, "large": e.large,
         "derivation": e.derivation and e.derivation.name, "b": e.b, "upscaled": e.upscaled} for e in laptop
    ]).astype({"b": "Int64"})  # fmt: skip
    known = pd.read_csv(results4.latency_path("laptop")).set_index("network")
    found = results4._with_latency(rows, pd.DataFrame()).set_index("label")["latency_ms"]
    for label, key in keys.items():
        assert found[label] == pytest.approx(known.loc[key, "median_ms"] / known.loc[key, "slowdown"])
    changed = rows.assign(derivation=rows["derivation"].where(rows["derivation"].isna(), "another"))
    with pytest.raises(InputError, match="the latency of DC-NAS S was not measured .* `dcnas latency --section 4 --scale laptop`"):
        results4._with_latency(changed, pd.DataFrame())
