"""Networks that ship: they do what their cards and the published results say; unsound files are answered
in words.
"""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import grains, start_architecture
from PIL import Image

from dcnas.build import build
from dcnas.data.pictures import as_uint8
from dcnas.deploy import apply, weights
from dcnas.deploy.weights import DIGITS, KINDS, compact, full, load_network, metrics_of, names, ship
from dcnas.errors import InputError
from dcnas.models import UNETS
from dcnas.nas.space import Space
from dcnas.study.results import archive, read_published
from dcnas.study.runs import SAMPLE_SIGMAS

pytestmark = pytest.mark.usefixtures("one_thread")
SPACE = Space(4, 32, 3, 0.25)


def record(kind: str) -> dict:
    """The `network` of a card of any kind, small."""
    if kind in ("unet", "integrated", "sequential"):
        return {"kind": kind, "unet": UNETS["reduced"]} | (
            {"classifier": "MB2.5-M"} if kind == "sequential" else {}
        )
    found = {"kind": kind} | (
        {"unet": UNETS["reduced"]} if kind in ("UNet", "DC-Net", "DC-Net_tail") else {}
    )
    if kind not in ("UNet", "DC-Net", "DnCNN", "DnCNN, residual"):
        found["architecture"] = json.loads(start_architecture(SPACE).to_json())
    return found


def card(kind: str) -> dict:
    denoises = kind in ("unet", "UNet", "DnCNN", "DnCNN, residual", "D-NAS")
    classes = [] if denoises else list(DIGITS) if kind in weights.JOINING else ["a", "b", "c"]
    return {
        "label": kind,
        "network": record(kind),
        "classes": classes,
        "resolution": 32,
        "training": "nothing",
        "command": "none",
        "metrics": [],
    }


@pytest.fixture(params=KINDS)
def network(request, tmp_path):
    """A network of each kind with fresh weights, through its files."""
    torch.manual_seed(0)
    model = build(record(request.param), len(card(request.param)["classes"]))
    path = ship(compact(model.state_dict()), card(request.param), tmp_path / "some.safetensors")
    return load_network(str(path))


@pytest.mark.parametrize("shape", [(1, 70, 50), (3, 32, 32)])
def test_every_kind_looks_at_any_picture(network, shape):
    outcome = apply.apply(network, apply.Scene("x", grains(*shape)), 0.2)
    assert outcome.noisy.shape == shape
    if network.denoises:
        assert outcome.denoised.shape == shape and outcome.psnr > 0
    else:
        assert outcome.denoised is None
    if network.classes:
        assert outcome.own.shape == (1, len(network.classes))
        assert outcome.own.sum().item() == pytest.approx(1, abs=1e-5)
    else:
        assert outcome.own is None
    row = apply.row_of(apply.Scene("x", grains(*shape)), network, 0.2, outcome)
    assert row["width"] == shape[-1] and ("class" in row) == bool(network.classes)


def test_half_precision_keeps_what_may_be_large():
    some = {
        "a.weight": torch.rand(3),
        "b.running_var": torch.tensor([1e6]),
        "b.num_batches_tracked": torch.tensor(7),
    }
    found = full(compact(some))
    assert found["b.running_var"].item() == 1e6 and found["b.num_batches_tracked"].item() == 7
    assert torch.allclose(found["a.weight"], some["a.weight"], atol=1e-3)
    assert found["a.weight"].dtype == torch.float32


def test_the_sequential_answer_is_that_of_the_denoised_image(tmp_path):
    torch.manual_seed(0)
    path = ship(
        compact(build(record("sequential"), 10).state_dict()),
        card("sequential"),
        tmp_path / "s.safetensors",
    )
    network, box = load_network(str(path)), torch.tensor([[[5, 9, 37, 41]]])
    outcome = apply.apply(network, apply.Scene("x", grains(1, 96, 96), boxes=box), 0.3)
    crop = outcome.denoised[None, :, 9:41, 5:37]
    assert torch.allclose(outcome.own, network.model.classifier(crop).softmax(-1), atol=1e-6)
    assert not torch.allclose(outcome.before, outcome.own)


# what ships


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
    published = archive("section3_samples")[network.card["run"]].numpy()
    for i, sigma in enumerate(SAMPLE_SIGMAS):
        for n in range(2):
            found = as_uint8(apply.apply(network, apply.study_scene("digits", n), sigma).denoised)
            difference = np.abs(found.astype(int) - published[i, n, 0])
            assert difference.max() <= 3 and difference.mean() < 0.3


# bad input


def test_unknown_names_are_answered_with_the_known():
    with pytest.raises(
        InputError,
        match="but one of .*dc-net-reduced-integrated.*; did you mean 'dc-net-reduced-sequential'",
    ):
        load_network("dc-net-reduced-sequentiel")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "u.safetensors: "),
        (lambda path: change(path, classes="abc"), "card.json: classes: Input should be a valid array"),
        (lambda path: change(path, network=record("integrated")), "u.safetensors: .*"),
        (
            lambda path: change(path, network={"kind": "VGG"}),
            "card.json: network.kind: Input should be 'unet', ",
        ),
        (
            lambda path: change(path, network={"kind": "unet"}),
            "u.safetensors: TypeError: .*missing 4 required",
        ),
        (lambda path: change(path, network={"kind": "DC-NAS", "architecture": {}}), "u.safetensors: .*"),
    ],
    ids=["cut", "type", "other", "kind", "no settings", "no architecture"],
)
def test_unsound_files_get_a_sentence(tmp_path, spoil, says):
    path = ship(compact(build(record("unet"), 0).state_dict()), card("unet"), tmp_path / "u.safetensors")
    load_network(str(path))
    spoil(path)
    with pytest.raises(InputError, match=says) as refusal:
        load_network(str(path))
    assert "\n" not in str(refusal.value)


def change(path, **values) -> None:
    place = weights.card_path(path)
    place.write_text(json.dumps(json.loads(place.read_text()) | values))


# scenes


def test_own_pictures_meet_the_same_noise_every_time():
    scene = apply.Scene("x", grains(3, 20, 30))
    assert torch.equal(apply.with_noise(scene, 0.3), apply.with_noise(scene, 0.3))
    assert (apply.with_noise(scene, 0.3) - scene.image).std().item() == pytest.approx(0.3, rel=0.1)


def test_no_two_own_pictures_share_a_pattern_of_noise(tmp_path):
    for name, level in (("a", 100), ("b", 120), ("again", 100)):
        Image.new("L", (48, 48), level).save(tmp_path / f"{name}.png")
    scenes = {name: make() for name, make in apply.scenes_of(str(tmp_path)).items()}
    patterns = [(apply.with_noise(scene, 0.2) - scene.image).flatten() for scene in scenes.values()]
    assert torch.corrcoef(torch.stack(patterns[::2]))[0, 1].abs() < 0.1
    assert torch.equal(patterns[0], patterns[1])  # one content, one pattern, wherever it lies


def test_sources_are_named(tmp_path):
    with pytest.raises(
        InputError, match="IN is 'nowhere', but a picture, a folder or one of digits, solar"
    ):
        apply.scenes_of("nowhere")
    with pytest.raises(InputError, match="holds no pictures"):
        apply.scenes_of(str(tmp_path))
    (tmp_path / "deep").mkdir()
    for place in ("a.png", "deep/b.jpg"):
        Image.new("L", (8, 8)).save(tmp_path / place)
    assert list(apply.scenes_of(str(tmp_path))) == ["a.png", "deep/b.jpg"]
