"""Networks that ship: they do what their cards and the published results say; files that users bring."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import skimage.data
import torch
from made_up import grains, linear_table, start_architecture
from PIL import Image

from dcnas.build import build
from dcnas.data.pictures import as_uint8
from dcnas.deploy import apply, weights
from dcnas.deploy.weights import DIGITS, KINDS, compact, load_network, metrics_of, names, ship
from dcnas.errors import InputError
from dcnas.latency.table import load_table
from dcnas.models import UNETS
from dcnas.nas.networks import NETWORKS
from dcnas.nas.space import Space, load_architecture
from dcnas.paths import published_dir, weights_dir
from dcnas.study.results import archive, read_published
from dcnas.study.runs import SAMPLE_SIGMAS

SPACE = Space(4, 32, 3, 0.25)


def record(kind: str) -> dict:
    """The `network` of a card of any kind, small."""
    found = {"kind": kind}
    if kind in ("unet", "integrated", "sequential", "UNet", "DC-Net", "DC-Net_tail"):
        found["unet"] = UNETS["reduced"]
    if kind == "sequential":
        found["classifier"] = "MB2.5-M"
    if kind in (*NETWORKS, "DC-Net_tail"):
        found["architecture"] = json.loads(start_architecture(SPACE).to_json())
    return found


def shipped(kind: str, path) -> str:
    """The path of a network of that kind with fresh weights."""
    denoises = kind in ("unet", "UNet", "DnCNN", "DnCNN, residual", "D-NAS")
    classes = [] if denoises else list(DIGITS) if kind in weights.JOINING else ["a", "b", "c"]
    card = dict(label=kind, network=record(kind), classes=classes, resolution=32, metrics=[])
    torch.manual_seed(0)
    state = compact(build(record(kind), len(classes)).state_dict())
    return str(ship(state, card | dict(training="nothing", command="none"), path))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_looks_at_any_picture(kind, tmp_path):
    network = load_network(shipped(kind, tmp_path / "some.safetensors"))
    for shape in ((1, 70, 50), (3, 32, 32)):
        scene = apply.Scene("x", grains(*shape))
        outcome = apply.apply(network, scene, 0.2)
        assert outcome.noisy.shape == shape
        assert (outcome.denoised is not None) == network.denoises
        assert not network.denoises or outcome.denoised.shape == shape and outcome.psnr > 0
        assert (outcome.own is not None) == bool(network.classes)
        if network.classes:
            assert outcome.own.shape == (1, len(network.classes))
            assert outcome.own.sum().item() == pytest.approx(1, abs=1e-5)
        row = apply.row_of(scene, network, 0.2, outcome)
        assert row["width"] == shape[-1] and ("class" in row) == bool(network.classes)


def test_the_sequential_answer_is_that_of_the_denoised_image(tmp_path):
    network = load_network(shipped("sequential", tmp_path / "s.safetensors"))
    box = torch.tensor([[[5, 9, 37, 41]]])
    outcome = apply.apply(network, apply.Scene("x", grains(1, 96, 96), boxes=box), 0.3)
    crop = outcome.denoised[None, :, 9:41, 5:37]
    assert torch.allclose(outcome.own, network.model.classifier(crop).softmax(-1), atol=1e-6)
    assert not torch.allclose(outcome.before, outcome.own)


@pytest.mark.parametrize("name", names())
def test_cards_say_what_is_published(name):
    found = load_network(name).card
    rows = pd.concat([read_published(section) for section in ("section3", "section4")])
    rows = rows[rows["run"] == found["run"]]
    assert metrics_of(rows.to_dict("records")) == found["metrics"] and len(found["metrics"]) == 11
    assert rows["label"].iloc[0] == found["label"]
    assert found["command"].startswith(f'dcnas run "{found["label"]}" --scale ')


@pytest.mark.parametrize("name", [name for name in names() if load_network(name).of_digits])
def test_shipped_networks_do_what_was_published(name):
    """Outputs for the first test images are those of the run, within a grey level or two: weights have
    half precision.
    """
    network = load_network(name)
    published = archive(published_dir() / "section3_samples.safetensors")[network.card["run"]].numpy()
    for i, sigma in enumerate(SAMPLE_SIGMAS):
        for n in range(2):
            found = as_uint8(apply.apply(network, apply.study_scene("digits", n), sigma).denoised)
            difference = np.abs(found.astype(int) - published[i, n, 0])
            assert difference.max() <= 3 and difference.mean() < 0.3


@pytest.mark.parametrize("name", [name for name in names() if "tiny-imagenet" in name])
def test_grey_photographs_lose_their_noise_too(name):
    """By ten decibels, as coloured ones do; to the last row and column."""
    photograph = torch.from_numpy(skimage.data.camera()[None, 50:178, 150:278].copy())
    outcome = apply.apply(load_network(name), apply.Scene("camera", photograph), 0.2)
    assert outcome.psnr > outcome.noisy_psnr + 8
    error = (outcome.denoised - outcome.scene.image).abs()
    assert max(error[:, -1].mean(), error[..., -1].mean()) < 2 * error.mean()


def test_a_picture_keeps_its_brightness():
    """The retina, bright on black, comes out within a few levels; GroupNorm alone loses ten."""
    pixels = torch.from_numpy(skimage.data.retina()[500:884, 500:884].copy()).permute(2, 0, 1)
    scene = apply.Scene("retina", pixels.contiguous())
    outcome = apply.apply(load_network("dc-net-b16-tiny-imagenet"), scene, 0.2)
    assert (outcome.denoised - scene.image).mean((1, 2)).abs().max() < 3 / 255


def test_sources_are_named(tmp_path):
    with pytest.raises(InputError, match="did you mean 'dc-net-reduced-sequential'"):
        load_network("dc-net-reduced-sequentiel")
    with pytest.raises(InputError, match="holds no pictures"):
        apply.scenes_of(str(tmp_path))
    (tmp_path / "deep").mkdir()
    for place in ("a.png", "deep/b.jpg"):
        Image.new("L", (8, 8)).save(tmp_path / place)
    assert list(apply.scenes_of(str(tmp_path))) == ["a.png", "deep/b.jpg"]


CARD = weights_dir() / "unet-b8-d4-m1.5-c2.card.json"
READERS = {"table": load_table, "architecture": load_architecture, "card": weights.read_card}


@pytest.mark.parametrize("kind", READERS)
def test_a_broken_file_is_one_sentence(kind, tmp_path):
    path, read = tmp_path / f"{kind}.json", READERS[kind]
    linear_table(SPACE).save(tmp_path / "table.json")
    (tmp_path / "architecture.json").write_text(start_architecture(SPACE).to_json())
    (tmp_path / "card.json").write_text(CARD.read_text())
    read(path)
    whole = path.read_text()
    for broken in (
        whole[: len(whole) // 2],
        "[1, 2]",
        json.dumps(json.loads(whole) | {"format": 99}),
        re.sub(": (32|96)", ': "thirty"', whole),
    ):
        assert broken != whole
        path.write_text(broken)
        with pytest.raises(InputError, match=path.name) as refusal:
            read(path)
        text = str(refusal.value)
        assert "\n" not in text.strip() and len(text) < 600


THROUGH_A_NETWORK = """
import re, sys
import torch
from dcnas import cli
from dcnas.deploy import weights
from dcnas.training import metrics

def denoise(path):
    words = ["denoise", path, sys.argv[1], "--weights", "dc-nas-s-solar", "--sigma", "0.2"]
    cli.app(words, standalone_mode=False)

denoise(sys.argv[2])
# takes time, but no memory for each pixel
weights.Network.denoise = lambda self, images: torch.full_like(images, 0.5)
metrics.ssim_map = lambda images, clean: images
denoise(sys.argv[3])
print("kB", re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def test_a_large_picture_goes_through_a_network_in_little_memory(tmp_path):
    """One of four tiles as it is; one of 49 million pixels in all but the network itself and SSIM."""
    paths = [tmp_path / f"{side}.png" for side in (300, 7_000)]
    for path in paths:
        Image.new("RGB", (int(path.stem),) * 2, "grey").save(path, compress_level=1)
    command = [sys.executable, "-c", THROUGH_A_NETWORK, tmp_path / "out", *paths]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout.split()[-1]) < 2e6, ended.stdout
    assert (tmp_path / "out" / "7000.png.png").exists()
