"""BM3D beside the networks: that it denoises, goes on where it was, and is compared on the same images and noise."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from dcnas.data.noise import SIGMAS
from dcnas.errors import InputError
from dcnas.latency.measure import Latency
from dcnas.study import queue, results4, section2, section4
from dcnas.study.runs import folder_of, is_complete, obtain, published_runs
from dcnas.training.metrics import psnr

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Scale smoke on three made-up pictures of each of two classes, 32 x 32; runs and published results in folders of their own."""
    for name in ("RUNS", "DOWNLOADS", "ROOT"):
        monkeypatch.setenv(f"DCNAS_{name}", str(tmp_path / name.lower()))
    shade = np.add.outer(np.arange(32), np.arange(32)) * 3.0
    for name, level in (("dark", 20), ("bright", 60)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for n in range(3):
            Image.fromarray(np.repeat((shade + level + n)[..., None], 3, 2).astype(np.uint8)).save(
                tmp_path / "set" / name / f"{n}.png"
            )
    sizes = replace(section4.SCALES4["smoke"], data=f"folder:{tmp_path / 'set'}", limit=None, resolution=32)
    monkeypatch.setitem(section4.SCALES4, "smoke", sizes)


class Halves(nn.Module):
    """In BM3D's place where its answer does not matter."""

    def __init__(self, sigma, grey=False):
        super().__init__()

    def forward(self, noisy):
        return noisy / 2


@pytest.mark.parametrize("grey", [False, True])
def test_bm3d_denoises_at_the_scale_of_the_image(grey):
    pytest.importorskip("bm3d")
    clean = torch.linspace(0.2, 0.8, 32).expand(1, 3, 32, 32).contiguous()
    noisy = clean + 0.2 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    cleaned = section2.BM3D(0.2, grey)(noisy)
    assert cleaned.shape == clean.shape and cleaned.dtype == torch.float32
    assert psnr(cleaned, clean).item() > psnr(noisy, clean).item() + 8  # with sigma on the scale of 0 to 255 hardly anything goes
    assert not grey or (cleaned[:, 0] == cleaned[:, 2]).all()


def test_the_mean_of_equal_channels_is_easier_to_clean():
    pytest.importorskip("bm3d")
    clean = torch.linspace(0.2, 0.8, 32).expand(1, 3, 32, 32).contiguous()
    noisy = clean + 0.4 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    colour, grey = (psnr(section2.BM3D(0.4, grey)(noisy), clean).item() for grey in (False, True))
    assert grey > colour


@pytest.mark.parametrize("grey, highest", [(False, 0.16), (True, 0.16 * 3**0.5)])
def test_strong_noise_has_a_profile_of_its_own(grey, highest, monkeypatch):
    """From the noise of what is cleaned, which is weaker in a mean of three channels."""
    told = []

    def cleaned(image, sigma, profile):
        told.append((sigma, profile))
        return image

    monkeypatch.setitem(sys.modules, "bm3d", SimpleNamespace(bm3d=cleaned, bm3d_rgb=cleaned))
    for sigma in (0.1, 0.999 * highest, 1.001 * highest, 1.0):
        section2.BM3D(sigma, grey)(torch.rand(1, 3, 16, 16))
    assert [profile for _, profile in told] == ["np", "np", "vn", "vn"]
    assert [sigma for sigma, _ in told][1:3] == pytest.approx([0.999 * 0.16, 1.001 * 0.16])


def test_without_noise_nothing_is_done():
    image = torch.rand(2, 3, 16, 16)
    assert torch.equal(section2.BM3D(0.0)(image), image)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(InputError, match="pip install bm3d"):
        section2.BM3D(0.1)(torch.rand(1, 3, 16, 16))


def test_a_run_goes_on_with_the_levels_that_are_left(tiny, monkeypatch):
    run, seen, clock = section2.filters("smoke")[0], [], iter(range(100))

    class Counted(Halves):
        def __init__(self, sigma, grey=False):
            super().__init__(sigma, grey)
            seen.append(sigma)

    monkeypatch.setattr(section2, "BM3D", Counted)
    monkeypatch.setattr(section2, "monotonic", lambda: next(clock))
    assert not obtain(run, progress=False, deadline=3.5)
    assert seen == list(SIGMAS[:4]) and not is_complete(run)
    assert obtain(run, progress=False)
    assert seen[: len(SIGMAS)] == list(SIGMAS) and is_complete(run)
    metrics = pd.read_csv(folder_of(run) / "metrics.csv")
    assert list(metrics["sigma"]) == list(SIGMAS) and metrics["psnr"].is_monotonic_decreasing
    assert not list(folder_of(run).glob("checkpoint*"))


def test_the_queue_works_on_filters_too(tiny, monkeypatch):
    monkeypatch.setattr(section2, "BM3D", Halves)
    queue.work(section2.filters("smoke"), "cpu", None)
    assert all(map(is_complete, section2.filters("smoke")))


NAMES = ("BM3D colour", "BM3D grey", "UNet Reduced", "DnCNN")


@pytest.fixture
def found(tiny, monkeypatch):
    """Published runs of BM3D, networks that are 1 dB better on twice as many images, made-up latencies."""
    monkeypatch.setattr(section2, "BM3D", Halves)
    monkeypatch.setattr(section2, "PUBLISHED_SCALES", ("smoke",))
    monkeypatch.setattr(results4, "published_scale", lambda: "smoke")
    section4.table_path("smoke").parent.mkdir(parents=True, exist_ok=True)
    section4.table_path("smoke").write_text("{}")
    for run in section2.filters("smoke"):
        obtain(run, progress=False)
    assert section2.collect() == 2 == section2.collect()
    level = np.linspace(40, 20, len(SIGMAS))[:, None] + np.array([0.0, 9.0])
    networks = pd.DataFrame(
        [{"label": label, "network": "x", "seed": 0, "scale": "smoke", "sigma": sigma, "psnr": 1.0, "parameters": 1e5,
          "images": 9, "latency_ms": 1.0, "q25_ms": 1.0, "q75_ms": 1.0, "passes": 3, "source": "runs"}
         for label in NAMES[2:] for sigma in SIGMAS]
    )  # fmt: skip
    monkeypatch.setattr(results4, "results", lambda *_, **__: networks)
    monkeypatch.setattr(results4, "per_image", lambda rows, metric: {(label, 0): level + n for n, label in enumerate(NAMES[2:])})
    how = dict(batch=1, passes=30, warmup=1, threads=1, device="", torch_version="", memory_format="", precision="")
    rows = []
    for label, ms in zip(NAMES, (900.0, 300.0, 3.0, 30.0), strict=True):
        rows.append({"label": label} | Latency(ms, ms, 0.9 * ms, 1.1 * ms, ms, None, **how).as_row())
    path = section2.latency_path("smoke")
    path.write_text(pd.DataFrame(rows).to_csv(index=False))
    return section2.results("published")


def test_all_are_compared_on_the_same_images(found, tiny):
    rows, scores = found
    assert published_runs() >= {run.name for run in section2.filters("smoke")}
    assert {values.shape[1] for values in scores["psnr"].values()} == {1}  # BM3D saw one image alone
    assert rows.groupby("label")["latency_ms"].first()[[*NAMES]].tolist() == [900, 300, 3, 30]


def test_missing_latencies_are_asked_for(tiny, monkeypatch):
    with pytest.raises(InputError, match="dcnas latency --section 2 --scale laptop"):
        section2.latencies("laptop")
