"""Section 4 through the run store: searches, derivations, trainings, publication, all small."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import interrupted, linear_table, two_classes

from dcnas.errors import InputError
from dcnas.latency.measure import Latency, device_name
from dcnas.nas import lut
from dcnas.nas.lut import predicted_ms
from dcnas.nas.networks import MANUAL, NETWORKS
from dcnas.nas.space import Space, load_architecture
from dcnas.seed import set_seed
from dcnas.study import derivation, filters, latencies, presets, publish, queue, records, scales, store
from dcnas.study import results as reading
from dcnas.study.derivation import derive, obtain_table, table_path, target_ms
from dcnas.study.kinds import Derivation, Run, Search
from dcnas.study.results import results, searches
from dcnas.study.runs import needs, network_of, obtain
from dcnas.study.store import folder_of, is_complete, is_published, read_tensors
from dcnas.training import Trainer

ALL = (*NETWORKS, *MANUAL, "ResNet-18", "MobileNetV2")


class Device:
    """A device on which every network but the references takes `slower` times what the table says, all
    `slowdown` times.
    """

    def __init__(self):
        self.slower, self.slowdown, self.measured, self.real = 1.0, 1.0, [], derivation.build_network

    def build_network(self, network, architecture, *args, **options):
        model = self.real(network, architecture, *args, **options)
        model.says_ms = lambda: predicted_ms(obtain_table("smoke"), architecture, network)
        return model

    def measure_many(self, models, **_):
        self.measured.append(list(models))
        times, how = {}, (None, 4, 3, 1, 1, device_name(), "", "channels_last", "float32")
        for name, (model, _) in models.items():
            ms = getattr(model, "says_ms", lambda: 7.0)()
            ms *= self.slowdown * (1 if name.startswith("reference") else self.slower)
            times[name] = Latency(*[ms] * 5, *how)
        return times


@pytest.fixture
def small(tmp_path, monkeypatch, run_store, downloads):
    """Scale smoke on twelve made-up pictures of each of two classes, with a made-up table and a device
    that agrees with it."""
    photos = dict(data=f"folder:{two_classes(tmp_path / 'set')}", resolution=32, limit=None)
    train = replace(scales.SCALE["smoke"].train, steps=3)
    sizes = replace(scales.SCALE["smoke"], photos=photos, search_batch=4, train=train, photos_eval=2)
    monkeypatch.setitem(scales.SCALE, "smoke", sizes)
    linear_table(Space(8, 32, 2, 0.25), batch=4).save(table_path("smoke"))
    device = Device()
    monkeypatch.setattr(lut, "measure_many", device.measure_many)
    monkeypatch.setattr(derivation, "build_network", device.build_network)
    return device


def a_search(**changes) -> Search:
    return replace(presets.searches("searches", "smoke")[0], label="test", **{"target": "M"} | changes)


def a_run(kind: str) -> Run:
    """A network of that kind, from a small search where it needs one."""
    source = Derivation(a_search(), rounds=1) if kind in (*NETWORKS, "DC-Net_tail") else None
    net = dict(unet=dict(b=8, d=4, m=1.5, c=2)) if kind in ("UNet", "DC-Net", "DC-Net_tail") else {}
    plain = presets.runs("table_4", "smoke")[0]
    return replace(plain, label=kind, net=dict(kind=kind) | net, source=source)


@pytest.mark.parametrize("kind", ALL)
def test_every_network_trains_and_is_evaluated(small, kind):
    run = a_run(kind)
    assert needs(run) == run.source and obtain(run, progress=False)
    if run.source is not None:  # it came first, and its search
        row = records.search_row(run.source.search)
        assert is_complete(run.source) and row["predicted_ms"] <= row["target_ms"]
        assert len(pd.read_csv(folder_of(run.source.search) / "epochs.csv")) == 3
        assert not list(folder_of(run.source.search).glob("checkpoint*"))  # a hundred megabytes
    per_image = read_tensors(folder_of(run) / "per_image.safetensors")
    set_seed(0)
    fresh, trained = network_of(run).state_dict(), read_tensors(folder_of(run) / "weights.safetensors")
    assert not [key for key in fresh if "weight" in key and torch.equal(fresh[key], trained[key])]
    denoises = kind not in ("C-NAS", "ResNet-18", "MobileNetV2")
    classifies = kind not in ("UNet", "DnCNN", "DnCNN, residual", "D-NAS")
    assert ("psnr" in per_image, "correct" in per_image) == (denoises, classifies)
    assert {tuple(t.shape[:2]) for t in per_image.values()} == {(11, 2)}
    assert (folder_of(run) / "samples.safetensors").exists() == denoises


def test_a_killed_training_goes_on_to_the_same_bits(small):
    run = a_run("DC-Net")
    assert obtain(run, progress=False)
    weights = read_tensors(folder_of(run) / "weights.safetensors")
    shutil.rmtree(folder_of(run))
    with interrupted(Trainer, "step", 2):
        obtain(run, progress=False, checkpoint_s=0.0)
    assert obtain(run, progress=False)
    again = read_tensors(folder_of(run) / "weights.safetensors")
    assert all(torch.equal(weights[key], again[key]) for key in weights)


def test_targets(small):
    one, decoder_ms = a_search(), obtain_table("smoke").part_ms("decoder conv")
    both = a_search(target="M + decoder", settings=one.settings | dict(loss="both"))
    assert target_ms(both) - target_ms(one) == pytest.approx(decoder_ms, abs=0.011)
    assert target_ms(Derivation(both, target="M")) == target_ms(one)
    assert target_ms(a_search(target=5.25)) == 5.25


# the machine may be slower than on the table's day
@pytest.mark.parametrize(("network", "slowdown"), [("C-NAS", 1.0), ("DC-NAS_seq", 3.0)])
@pytest.mark.filterwarnings("ignore:.*times as long as on the day")
def test_a_derivation_measures_and_repairs(small, network, slowdown):
    source = a_search(target="S")
    obtain(source, progress=False)
    before = load_architecture(folder_of(source) / "architecture.json")
    target = 1.1 * predicted_ms(obtain_table("smoke"), before, network)
    found = Derivation(source, network, target, rounds=1)
    small.slower, small.slowdown = 1.1, slowdown
    obtain(found, progress=False)
    rows = pd.read_csv(folder_of(found) / "derivation.csv")
    assert abs(rows["error_pct"].iloc[0]) > 2 and abs(rows["error_pct"].iloc[-1]) <= 2
    # the search's own record stays
    assert load_architecture(folder_of(source) / "architecture.json") == before
    end = records.derivation_row(found)
    assert len(small.measured) == len(rows) + 1  # the network is measured anew
    assert end["repairs"] == len(rows) - 1
    assert end["measured_ms"] == pytest.approx(rows["measured_ms"].iloc[-1])


def test_derivations_are_measured_side_by_side(small):
    source = a_search(target="S")
    obtain(source, progress=False)
    both = [Derivation(source, rounds=1), Derivation(source, random_seed=0, rounds=1)]
    derive([*both, both[0]], progress=False)
    assert all(map(is_complete, both))
    chance = load_architecture(folder_of(both[1]) / "architecture.json")
    assert predicted_ms(obtain_table("smoke"), chance) == pytest.approx(target_ms(source), rel=0.02)
    assert all(len(names) == 2 + derivation.REFERENCES for names in small.measured)
    count = len(small.measured)
    derive(both, progress=False)  # complete: nothing is measured again
    assert len(small.measured) == count


def test_the_queue_measures_alone_after_what_it_needs(small):
    run, other = a_run("C-NAS"), a_run("ResNet-18")
    assert queue.waves([run, other]) == [[run.source.search], [run.source], [run, other]]
    assert queue.waves([other, a_search()]) == [[other, a_search()]]
    assert queue.run_queue([other], minutes=1e-6, progress=False) == 1  # the time is up
    assert queue.run_queue([run, other], jobs=1, progress=False) == 0 and is_complete(run.source)


@pytest.fixture
def laptop(small, tmp_path, monkeypatch):
    """A scale laptop of one search, its derivation and two trainings, in a project of its own."""
    monkeypatch.setenv("DCNAS_ROOT", str(tmp_path / "project"))
    monkeypatch.setitem(scales.SCALE, "laptop", scales.SCALE["smoke"])
    table = linear_table(Space(8, 32, 2, 0.25), batch=4)
    table.with_correction(replace(table.correction, error_pct=1.0)).save(table_path("laptop"))
    search = replace(a_search(), scale="laptop")
    names = dict(label="DC-NAS S", scale="laptop", source=Derivation(search, rounds=1))
    joint = replace(a_run("DC-NAS"), **names)
    unet = replace(a_run("UNet"), label="UNet Reduced", scale="laptop")
    listed = {"table_4": [joint, unet], "section4": [search, joint.source, joint, unet], "section3": []}
    listed["searches"] = [search]
    real = presets.runs

    def runs(group, scale):
        if scale == "laptop":
            return listed.get(group, [])
        return [] if group in ("section3", "section4") else real(group, scale)

    for module in (presets, publish, latencies):
        monkeypatch.setattr(module, "runs", runs)
    monkeypatch.setattr(presets, "searches", lambda group, scale: [search])
    monkeypatch.setattr(publish, "filters", lambda scale: [])
    for cached in (reading.archive, store.published_architectures):
        cached.cache_clear()
    yield joint, unet
    for cached in (reading.archive, store.published_architectures):
        cached.cache_clear()


def test_what_is_published_is_what_was_run(laptop, tmp_path):
    for run in laptop:
        obtain(run, progress=False)
    with pytest.raises(InputError, match="`dcnas latency --section 4 --scale laptop`"):
        results("table_4", "laptop")
    latencies.measure_section4("laptop")
    here = results("table_4", "laptop")
    searched = searches("searches", "laptop")
    collected = publish.collect()
    assert [collected[f"section4{part}"] for part in ("_searches", "_derivations", "")] == [1, 1, 2]
    there = results("table_4", "published")
    skipped = ["source", "b", "derivation", "evaluate_s"]
    frames = (some.rows.drop(columns=skipped) for some in (here, there))
    # recalls are in a file of their own
    pd.testing.assert_frame_equal(*frames, check_dtype=False, check_like=True)
    for metric in ("psnr", "accuracy"):
        one, two = here.scores(metric), there.scores(metric)
        assert one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one)
    assert there.samples["DC-NAS S"].shape[0] == 5
    published = searches("searches", "published")
    assert published.architectures == searched.architectures
    pd.testing.assert_frame_equal(published.alphas, searched.alphas, atol=1e-4, check_exact=False)
    pd.testing.assert_frame_equal(there.history, here.history, check_dtype=False, rtol=1e-4)
    assert all(map(is_published, (laptop[0], laptop[0].source, laptop[0].source.search)))
    files = sorted((tmp_path / "project/data/published").iterdir())
    before = [path.read_bytes() for path in files]
    publish.collect()
    assert before == [path.read_bytes() for path in files]  # nothing new: nothing changes
    for run in (laptop[0], laptop[0].source, laptop[0].source.search):
        shutil.rmtree(folder_of(run))
    assert needs(laptop[0]) is None and obtain(laptop[0], progress=False)  # the published architecture


def test_latencies_are_measured_once_per_network(laptop, small):
    obtain(laptop[0].source, progress=False)
    small.measured.clear()
    small.slowdown = 2.0
    path = latencies.measure_section4("laptop")
    assert latencies.measure_section4("laptop") == path and len(small.measured) == 1
    rows = latencies.measured(4, "laptop").set_index("label")
    assert set(rows.index) == {"DC-NAS S", "UNet Reduced"}
    assert rows.loc["UNet Reduced", "median_ms"] == 14
    path.write_text(pd.read_csv(path).assign(device="another one").to_csv(index=False))
    latencies.measure_section4("laptop")  # nothing of another device may stay beside it
    assert len(small.measured) == 2 and set(latencies.measured(4, "laptop")["device"]) != {"another one"}


def test_the_error_of_a_latency_is_what_two_measurements_differ_by():
    now = pd.Series({f"C-NAS {run} conv 1.0": 10.0 for run in "abc"} | {"UNet b=8 1.0": 5.0})
    before = pd.DataFrame({"network": "C-NAS", "run": [*"abcd"], "measured_ms": [22.0, 20.0, 18.0, 1.0]})
    assert latencies.repeat_error(now, before) == pytest.approx(0.1 / 2**0.5, rel=0.01)
    assert latencies.repeat_error(now, before.head(2)) == 0


@pytest.mark.parametrize("grey", [False, True])
def test_bm3d_denoises_and_takes_its_profile_for_strong_noise(grey, monkeypatch):
    bm3d = pytest.importorskip("bm3d")
    clean = torch.linspace(0.2, 0.8, 32).expand(1, 3, 32, 32)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    errors = [(x - clean).square().mean().item() for x in (noisy, filters.BM3D(0.1, grey)(noisy))]
    assert errors[1] < 0.1 * errors[0] and filters.BM3D(0.0)(noisy).equal(noisy)
    seen, name = [], "bm3d" if grey else "bm3d_rgb"
    monkeypatch.setattr(bm3d, name, lambda image, sigma, profile: seen.append(profile) or image)
    edge = filters.STRONG * (3**0.5 if grey else 1)  # the mean of three channels has weaker noise
    for sigma in (0.99 * edge, 1.01 * edge):
        filters.BM3D(sigma, grey)(noisy)
    assert seen == ["np", "vn"]
