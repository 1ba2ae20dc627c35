"""Panels without a kernel: every control redraws, errors end in the status line, two threads do no harm, nothing is trained."""

import threading
import time

import ipywidgets as W
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from dcnas import paths
from dcnas.data.mnist import has_mnist
from dcnas.data.noise import NoiseBank
from dcnas.errors import InputError
from dcnas.models import CLASSIFIERS, UNETS, Classifier, UNet, build_dcnet
from dcnas.study import drawing, explore
from dcnas.study.results3 import COLUMNS, slug

FACTORIES = {"noise": explore.noise, "classifier": explore.classifier, "unet": explore.unet, "joint": explore.joint}
with_mnist = pytest.mark.skipif(not has_mnist(), reason="MNIST is not stored here")


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """A project without any results, runs or latencies; only the downloads are the real ones."""
    monkeypatch.setenv("DCNAS_DOWNLOADS", str(paths.downloads_dir()))
    monkeypatch.setenv("DCNAS_ROOT", str(tmp_path))
    monkeypatch.setenv("DCNAS_RUNS", str(tmp_path / "runs"))
    explore._timed.cache_clear()
    explore.measured.cache_clear()


@pytest.fixture
def quick(monkeypatch):
    """No timing, and little drawn ahead: the panels are what is tested."""
    monkeypatch.setattr(explore.Panel, "AHEAD", 2)
    monkeypatch.setattr(explore, "measured", lambda *_: (1.0, "measured here: not at all"))


def publish_weights() -> None:
    torch.manual_seed(0)
    networks = {explore.REDUCED: UNet(**UNETS["reduced"])}
    networks |= {label: build_dcnet(label.split()[-1].lower(), "reduced") for label in explore.JOINT}
    paths.weights_dir().mkdir(parents=True)
    for label, network in networks.items():
        save_file(network.state_dict(), paths.weights_dir() / f"{slug(label)}.safetensors")


def publish_results() -> None:
    rows = []
    for seed in (0, 1):
        for name, spec in CLASSIFIERS.items():
            flops = drawing.classifier_size(*vars(spec).values()).flops
            rows += [dict(label=name, flops=flops, sigma=s, accuracy=50 + flops / 1e5 + 2 * seed - s) for s in (0.0, 0.8)]
        for b in (8, 16, 64):
            flops = drawing.unet_size(b, 4, 2, 2).flops
            rows += [dict(label=f"UNet b={b} d=4 m=2 c=2", flops=flops, sigma=s, psnr=20 + b / 8 - s) for s in (0.0, 0.8)]
        for row in rows:
            row.setdefault("seed", seed)
    paths.published_dir().mkdir(parents=True)
    frame = pd.DataFrame(rows).assign(format=1, scale="laptop")
    frame.reindex(columns=[*frame, *(name for name in COLUMNS if name not in frame)]).to_csv(
        paths.published_dir() / "section3.csv", index=False
    )


def other_value(control):
    if isinstance(control, W.Checkbox):
        return not control.value
    if isinstance(control, (W.Dropdown, W.SelectionSlider)):
        return next(value for _, value in control._options_full if value != control.value)
    return control.value + control.step


def move_every_control(panel: explore.Panel) -> None:
    assert panel.error is None, panel.error
    for control in panel.controls.values():
        before = panel.image.value
        control.value = other_value(control)
        assert panel.error is None, panel.error
        assert panel.image.value != before and bytes(panel.image.value[1:4]) == b"PNG", control.description


@with_mnist
@pytest.mark.parametrize("scale", ["published", "smoke"])
@pytest.mark.parametrize("name", FACTORIES)
def test_without_any_results_a_panel_works_and_says_so(name, scale, quick):
    panel = FACTORIES[name](scale)
    move_every_control(panel)
    assert f"at scale {scale} yet" in panel.status.value
    assert not (paths.root() / "runs").exists()  # nothing was trained


@with_mnist
@pytest.mark.parametrize("name", ["noise", "joint"])
def test_with_weights_every_control_redraws(name):
    publish_weights()
    panel = FACTORIES[name]("published")
    move_every_control(panel)
    assert "weights: published, seed 0" in panel.status.value.lower()
    assert any("denoised\nPSNR" in text.get_text() and "SSIM" in text.get_text() for text in panel.figure.texts)
    if name == "joint":
        assert "of 2 digits right" in panel.status.value and " ms (batch 1" in panel.status.value
        assert not torch.is_inference_mode_enabled()


@with_mnist
def test_the_noise_is_that_of_the_evaluation_and_can_be_clipped():
    clean, noisy, boxes, labels = explore.scene(3, 0.5)
    assert torch.equal(noisy, clean + 0.5 * NoiseBank().noise([3], 0.5, clean.shape[1:]))
    assert torch.equal(explore.scene(3, 0.5, clipped=True)[1], noisy.clamp(0, 1)) and noisy.min() < 0
    assert clean.shape == noisy.shape == (1, 1, 96, 96) and boxes.shape == (1, 2, 4) and labels.shape == (2,)


def test_the_nearest_trained_network_of_the_family_is_shown(quick):
    publish_results()
    panel = explore.classifier("published")
    publish_weights()
    assert explore.trained("table_2", explore.REDUCED, "published")[1] == "published, seed 0"
    other = "UNet b=8 d=4 m=2 c=2"
    assert explore.trained("figure_3", other, "published") == (None, f"no trained {other} at scale published yet")
    assert "This network, trained: 53.7 ± 1.4% accuracy" in panel.status.value and "seeds: 2, scale laptop" in panel.status.value
    move_every_control(panel)
    panel.controls["expansion"].value = None
    panel.controls["first"].value, panel.controls["second"].value = 5, 22
    assert "Nearest, Conv-M with 340.7 K" in panel.status.value

    panel = explore.unet("published")
    move_every_control(panel)
    panel.controls["block"].value = "mbconv"
    assert "no network of this kind is trained yet" in panel.status.value  # never an MBConv network beside a convolution
    for name, value in dict(block="conv", b=16, d=4, m=2, c=2).items():
        panel.controls[name].value = value
    assert "This network, trained: 21.2 ± 0.0 dB PSNR at σ = 0.8" in panel.status.value  # 20 + 16 / 8 - 0.8
    panel.controls["c"].value = 3
    assert "Nearest, UNet b=16 d=4 m=2 c=2 with 328.9 M" in panel.status.value


def test_latency_is_measured_where_cheap_and_else_predicted(monkeypatch):
    monkeypatch.setattr(explore, "measured", lambda kind, settings, side, about_ms: (3.0, f"measured, about {about_ms:.2f} ms"))
    small, reduced, large = (drawing.unet_size(*unet).flops for unet in ((4, 2, 1, 1), (8, 4, 1.5, 2), (64, 6, 2, 3)))
    assert explore.unet_latency(4, 2, 1, 1) == (3.0, f"measured, about {3 * small / reduced:.2f} ms")
    ms, how = explore.unet_latency(64, 6, 2, 3)
    assert (ms, how) == (pytest.approx(3 * large / reduced), "predicted by FLOPs from the reduced UNet, measured here")

    explore._timed.cache_clear()
    paths.latency_dir().mkdir(parents=True)
    labels = ["UNet b=64 d=4 m=2 c=2", "UNet b=8 d=4 m=2 c=2"]
    table = pd.DataFrame(dict(label=labels, batch=1, median_ms=[100.0, 1.0], device="a small board"))
    table.to_csv(paths.latency_dir() / "section3-board.csv", index=False)
    ms, how = explore.unet_latency(64, 6, 2, 3)
    assert how == "predicted by FLOPs from the published latencies on a small board"
    assert ms == pytest.approx(100 * large / drawing.unet_size(64, 4, 2, 2).flops)


def test_a_pass_is_measured_on_one_thread_without_drawing_random_numbers():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    ms, how = explore.measured(Classifier, (6, 24, 2.5), 32, 1)
    assert ms > 0 and how == "measured here: batch 1, median of 15 passes, threads: 1"
    assert explore.measured(UNet, (4, 2, 1, 1, 1, "mbconv"), 96, 30)[1].endswith("median of 3 passes, threads: 1")
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)


def test_an_error_ends_in_the_status_line_and_goes_away(quick):
    def draw(sigma):
        if sigma > 0.5:
            raise ValueError("too <much> noise")
        return drawing.classifier(6, 24), f"σ = {sigma}"

    panel = explore.Panel("test", {"sigma": W.FloatSlider(value=0.2, max=1.0)}, draw)
    before = panel.image.value
    panel.controls["sigma"].value = 0.8
    assert panel.status.value == "<b>ValueError</b>: too &lt;much&gt; noise"
    assert isinstance(panel.error, ValueError) and panel.image.value == before and panel.figure is not None
    panel.controls["sigma"].value = 0.3
    assert panel.error is None and panel.status.value == "σ = 0.3"
    assert torch.is_grad_enabled() and not panel.lock.locked()


def test_a_panel_that_cannot_draw_its_defaults_shows_why_and_has_no_figure():
    panel = explore.unet("enormous")
    assert "scale is" in panel.status.value
    with pytest.raises(InputError, match="enormous"):
        panel.figure  # noqa: B018
    (paths.weights_dir()).mkdir(parents=True)
    (paths.weights_dir() / f"{slug(explore.REDUCED)}.safetensors").write_bytes(b"not weights")
    if has_mnist():
        assert "not a sound safetensors file" in explore.noise("published").status.value


@with_mnist
def test_values_out_of_range(quick):
    for index in (-1, 16, 1.5, "0"):
        with pytest.raises(InputError, match="test image"):
            explore.noise("smoke", index=index)
        with pytest.raises(InputError, match="test image"):
            explore.scene(index, 0.4)
    for sigma in (-0.1, float("nan")):
        with pytest.raises(InputError, match="sigma"):
            explore.scene(0, sigma)
    panel = explore.noise("smoke")
    panel.controls["sigma"].value = 7  # the slider stops at its end
    assert panel.controls["sigma"].value == 1 and panel.error is None and "σ = 1.00" in panel.status.value
    with pytest.raises(Exception, match="[Ii]nvalid"):
        explore.unet("smoke").controls["b"].value = 5


@pytest.fixture(autouse=True)
def ahead():
    """Waits for what is drawn ahead, and for what a test leaves."""
    yield explore.Panel._plans.join
    explore.Panel._plans.join()


def test_rapid_changes_from_two_threads_end_in_the_last_state(quick, ahead):
    panel = explore.classifier("smoke")
    threads, drawing_now, draw = torch.get_num_threads(), [], panel.draw

    def alone(**values):
        drawing_now.append(values)
        time.sleep(0.02)
        assert len(drawing_now) == 1, "two threads draw at once"
        drawing_now.clear()
        return draw(**values)

    panel.draw, errors = alone, []

    def move(name, values):
        for value in values:
            panel.controls[name].value = value
            errors.append(panel.error)

    workers = [
        threading.Thread(target=move, args=("first", [3, 8, 4, 9, 5])),
        threading.Thread(target=move, args=("second", [40, 10, 30, 20, 12])),
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    ahead()
    assert not any(worker.is_alive() for worker in workers) and not panel.lock.locked()
    assert errors == [None] * 10
    shown = panel.image.value
    panel.refresh()
    assert panel.error is None and panel.image.value == shown
    assert f"{drawing.classifier_size(5, 12, 2.5).parameters:,} parameters" in panel.status.value
    assert torch.get_num_threads() == threads


def counted(drawn: list, seconds: float = 0.0):
    """A panel of one slider that writes down what it draws."""

    def draw(sigma):
        drawn.append(sigma)
        time.sleep(seconds)
        return drawing.classifier(6, 24), f"σ = {sigma:g}"

    return explore.Panel("test", {"sigma": W.FloatSlider(value=0.4, max=1.0, step=0.1)}, draw)


def reader(panel, shown: bool) -> None:
    """As the browser tells that a panel came before the reader, or went away."""
    panel.view.children[-1]._handle_custom_msg({"shown": shown}, [])


def test_pictures_are_kept_and_those_around_are_drawn_ahead(ahead):
    panel = counted(drawn := [])
    slider = panel.controls["sigma"]
    ahead()
    assert drawn == [0.4]  # nothing before there is a reader
    reader(panel, True)
    ahead()
    assert drawn == [0.4, 0.5, 0.3, 0.6, 0.2, 0.7, 0.1, 0.8, 0.0, 0.9, 1.0]  # the near ones first, and none beyond the ends
    for value in (0.6000000000000001, 0.5, 1.0, 0.0, 0.3):  # the first as a browser adds
        slider.value = value
        assert panel.status.value == f"σ = {value:g}"
    ahead()
    assert len(drawn) == 11


def test_a_picture_drawn_ahead_is_that_of_its_values(quick, ahead):
    panel = explore.classifier("smoke")
    panel.controls["first"].value = 7
    ahead()
    panel.controls["second"].value = 25
    for panel.controls["first"].value in (5, 12, 8):
        shown = panel.image.value, panel.status.value
        panel._known.clear()
        panel.refresh()
        assert (panel.image.value, panel.status.value) == shown
        ahead()


def test_what_is_drawn_ahead_goes_on_from_where_the_reader_is_and_ends_when_they_leave(ahead):
    panel = counted(drawn := [], seconds=0.2)
    reader(panel, True)
    panel.controls["sigma"].value = 0.9
    ahead()
    assert drawn.index(1.0) < drawn.index(0.6) and len(drawn) == len(set(drawn)) == 11
    panel, other = counted(drawn := [], seconds=0.2), counted(others := [])
    reader(panel, True)
    reader(panel, False)
    reader(other, True)
    ahead()
    assert len(drawn) <= 2 and len(others) == 11


def test_no_more_pictures_are_kept_and_drawn_ahead_than_said(monkeypatch, ahead):
    monkeypatch.setattr(explore.Panel, "KEPT", 4)
    monkeypatch.setattr(explore.Panel, "AHEAD", 2)
    panel = counted(drawn := [])
    for value in (1.0, 0.0, 1.0, 0.4):
        panel.controls["sigma"].value = value
        ahead()
        assert len(panel._known) <= 4
    assert drawn == [0.4, 1.0, 0.9, 0.8, 0.0, 0.1, 0.2, 1.0, 0.9, 0.8, 0.4, 0.5, 0.3]


def test_an_error_ahead_is_told_where_it_is_met(ahead):
    def draw(sigma):
        if sigma > 0.55:
            raise InputError("too much noise.")
        return drawing.classifier(6, 24), f"σ = {sigma:g}"

    panel = explore.Panel("test", {"sigma": W.FloatSlider(value=0.4, max=1.0, step=0.1)}, draw)
    panel.controls["sigma"].value = 0.5
    ahead()
    assert panel.error is None and panel.status.value == "σ = 0.5" and not panel.lock.locked()
    assert len(panel._known) == 6  # all that can be drawn, beyond the one that cannot as well
    panel.controls["sigma"].value = 0.6
    assert panel.status.value == "<b>too much noise.</b>"


def test_a_late_picture_does_not_replace_a_newer_one():
    panel = counted([], seconds=0.3)
    slow = threading.Thread(target=setattr, args=(panel.controls["sigma"], "value", 0.9))
    slow.start()
    time.sleep(0.1)
    panel.controls["sigma"].value = 0.4  # known, so shown at once
    assert panel.status.value == "σ = 0.4"
    slow.join(60)
    assert panel.status.value == "σ = 0.4"


@pytest.mark.parametrize("control, value, steps, there", [
    (W.IntSlider(3, 1, 6), 3, 2, 5), (W.IntSlider(1, 1, 6), 1, -1, None), (W.IntSlider(1, 1, 6), 5, 2, None),
    (W.FloatSlider(0.1, min=0, max=1, step=0.1), 0.1, -1, 0.0), (W.FloatSlider(0.1, min=0, max=1, step=0.1), 0.1, 2, 0.3),
    (W.SelectionSlider(options=(1, 1.25, 2), value=1.25), 1, 2, 2),
    (W.SelectionSlider(options=(1, 1.25, 2), value=1), 1, -1, None),
    (W.Checkbox(True), True, 1, None), (W.Dropdown(options=[1, 2, 3]), 2, 1, None),
])  # fmt: skip
def test_where_steps_on_a_slider_lead(control, value, steps, there):
    found = explore._stepped(control, value, steps)
    assert found == there and type(found) is type(there)


@with_mnist
@pytest.mark.parametrize("name, slider", [("noise", "index"), ("joint", "index"), ("classifier", "first"), ("unet", "d")])
def test_pictures_of_every_panel_are_drawn_ahead(name, slider, quick, ahead):
    panel = FACTORIES[name]("smoke")
    panel.controls[slider].value += 1
    ahead()
    assert panel.error is None and len(panel._known) == 3  # one of the two is where it came from


def test_a_panel_is_ready_for_keyboard_browser_tests_and_static_readers(quick):
    panel = explore.unet("smoke")
    assert panel.figure.axes and "dcnas-unet-image" in panel.image._dom_classes and "dcnas-unet-status" in panel.status._dom_classes
    assert all(control.continuous_update is False for control in panel.controls.values() if hasattr(control, "continuous_update"))
    assert panel.view.children[1] is panel.status and panel.view.children[2] is panel.image
    assert explore.unet("smoke").image.value == panel.image.value  # equal settings, equal bytes: no times in the picture
