"""Panels and the demo without a kernel: they say what results and commands say, errors in words."""

import threading

import ipywidgets as W
import numpy as np
import pandas as pd
import pytest
import torch
from made_up import file_of, linear_table
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle
from PIL import Image

from dcnas.deploy import apply
from dcnas.deploy.weights import Network, load_network, names
from dcnas.errors import InputError
from dcnas.models import UNet, unet_widths
from dcnas.models.flops import count_flops, count_parameters
from dcnas.nas.lut import predicted_ms
from dcnas.nas.space import Space, random_architecture
from dcnas.study import demo, drawing, nas_figures, widgets
from dcnas.study.figures import caption, new_figure

SPACE = Space(operators=8, resolution=64, classes=4)
TABLE = linear_table(SPACE)
CHANCES = np.random.default_rng(0).dirichlet(np.ones(8), (2, 18))
SEARCHES = {f"search {n}": (SPACE, [*np.log(CHANCES[n])]) for n in range(2)}


def move(panel, **values) -> str:
    """The status line after these moves."""
    for name, value in values.items():
        panel.controls[name].value = value
    assert panel.error is None, panel.error
    return panel.status.value


def test_a_network_is_placed_among_the_trained_ones():
    """Each network is worth 50 and 1 more per 100,000 FLOPs, at seed 1 two more."""
    costs = {"MB1-S": 180_000, "Conv-L": 450_000, "MB4-L": 460_000}
    rows = [(label, n, 50 + n / 1e5 + 2 * seed) for label, n in costs.items() for seed in (0, 1)]
    rows, axes = pd.DataFrame(rows, columns=["label", "flops", "accuracy"]), new_figure(5, 4)[1]
    for flops, mb, says in (
        (450_000, False, "55.5% in "),
        (460_001, False, "Not trained; trained ones that cost half to twice as much (1): 55.5%"),
        (9_000_000, True, "Neither it nor one that costs about as much is trained."),
    ):
        assert drawing.among_trained(axes, rows, "accuracy", flops, mb, "%").startswith(says)


def test_networks_stay_within_the_target_and_no_part_of_the_slider_is_dead():
    panel, reached = widgets.target(TABLE, SEARCHES, "DC-NAS"), set()
    slider = panel.controls["target_ms"]
    for value in np.linspace(slider.min, slider.max, 5):
        reached.add(float(move(panel, target_ms=value).split(": ")[1].split(" ms")[0]))
        assert max(reached) <= slider.value + 0.005
    assert len(reached) == 5


def test_an_error_ends_in_the_status_line_and_goes_away():
    figure, axes = new_figure(4, 3)

    def draw(sigma):
        if sigma > 0.5:
            raise (InputError if sigma > 0.9 else ValueError)("too <much> noise")
        axes.set_title(f"{sigma}")
        return figure, f"σ = {sigma}"

    panel = widgets.Panel(draw, sigma=W.FloatSlider(value=0.2, max=1.0))
    before = panel.screen.png
    panel.controls["sigma"].value = 0.8
    assert panel.status.value == "<b>ValueError: too &lt;much&gt; noise</b>"
    assert isinstance(panel.error, ValueError) and panel.screen.png == before
    panel.controls["sigma"].value = 1.0
    assert panel.status.value == "<b>too &lt;much&gt; noise</b>"  # the reader's doing, in a sentence
    panel.controls["sigma"].value = 0.3
    assert panel.error is None and panel.status.value == "σ = 0.3" and torch.is_grad_enabled()
    with pytest.raises(ValueError, match="much"):  # at once: its cell fails
        widgets.Panel(draw, sigma=W.FloatSlider(value=0.8, max=1.0))


def test_moves_from_another_thread_end_in_the_last_state():
    """JupyterLab calls back in a thread of its own, and torch's inference mode is of a thread."""
    panel = widgets.target(TABLE, SEARCHES)
    slider = panel.controls["target_ms"]
    for ms in (slider.max, slider.value, slider.min):
        thread = threading.Thread(target=setattr, args=(slider, "value", ms))
        thread.start()
        thread.join()
    assert panel.error is None and f"at most {slider.min:.1f} ms" in panel.status.value


@pytest.fixture
def shown():
    return demo.demo()


def upload(panel, data: bytes, name: str = "own.png") -> str:
    """As the browser sends it: in pieces."""
    half = len(data) // 2
    for n, piece in enumerate((data[:half], data[half:])):
        message = {"name": name, "first": n == 0, "last": n == 1}
        panel.controls["upload"].receive(None, message, [memoryview(piece)])
    return panel.status.value


def test_a_move_of_sigma_changes_the_picture(shown):
    for name in names():
        move(shown, kind="solar cells" if "solar" in name else "two digits", network=name)
        pictures = [move(shown, sigma=sigma) and shown.screen.png for sigma in (0.0, 0.3, 0.9)]
        assert len(set(pictures)) == 3


def test_what_is_said_is_what_the_command_line_says(shown):
    network = load_network("dc-net-reduced-integrated")
    for index, make in enumerate(list(apply.scenes_of("digits").values())[:3]):
        row = apply.row_of(make(), network, 0.4, apply.apply(network, make(), 0.4))
        text = move(shown, index=index, sigma=0.4)
        says = zip(row["class"].split(), row["probability"].split())
        words = ", ".join(f"{label} ({100 * float(chance):.0f}%)" for label, chance in says)
        assert f"It says {words}; the truth is {', '.join(row['true'].split())}." in text
    assert "Without its denoiser its classifier says" in move(shown, network="dc-net-reduced-sequential")


PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8))


def test_uploads_are_shown_or_answered_in_words(shown):
    for data, says in (
        (b"", "own.png is not a picture that can be read"),
        (file_of(PHOTO, "JPEG")[:700], "own.png is damaged or cut short"),
        (file_of(Image.new("L", (4000, 3000), 9)), "It is scaled from 4000 x 3000 to 256 x 192 pixels."),
        (file_of(PHOTO, "JPEG"), " ms. "),
    ):
        text = upload(shown, data)
        assert shown.controls["kind"].value == demo.OWN and shown.controls["index"].disabled
        assert says in text and (shown.error is None) == ("own.png" not in says)
        assert load_network(shown.controls["network"].value).channels == 3
    move(shown, kind=demo.DIGITS, network="dc-net-reduced-integrated")
    assert "It says" in shown.status.value  # and it goes on


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


@pytest.mark.parametrize("unet", [(8, 4, 1.5, 2, "conv"), (4, 1, 2, 1, "conv"), (4, 6, 1, 1, "mbconv")])
def test_a_unet_costs_what_it_costs_on_whole_images(unet):
    model = UNet(*unet[:4], block=unet[4])
    flops = count_flops(model, torch.zeros(1, 1, 96, 96))
    assert drawing.unet_cost(*unet) == (flops, count_parameters(model))


@pytest.mark.parametrize(
    "b, d, m, c, block", [(8, 4, 1.5, 2, "conv"), (64, 5, 2, 3, "conv"), (4, 2, 1, 1, "mbconv")]
)
def test_a_unet_shows_the_widths_of_the_model_and_its_blocks(b, d, m, c, block):
    axes = drawing.unet(b, d, m, c, block).axes[0]
    sizes = [(width, 96 // 2**i) for i, width in enumerate(unet_widths(b, d, m))]
    expected = [f"{width} ch, {side} × {side}" for width, side in sizes]
    assert [text for text in texts(axes) if " ch, " in text] == expected
    # levels, and both images
    assert sum(isinstance(patch, Rectangle) for patch in axes.patches) == c * (2 * d - 1) + 2
    assert f"b={b}, d={d}, m={m:g}, c={c}" in axes.get_title()
    assert f"{count_parameters(UNet(b, d, m, c, block=block)):,} parameters" in axes.get_title()


@pytest.mark.parametrize(
    "b, d, joining", [(4, 2, "sequential"), (64, 5, "integrated"), (64, 5, None), (16, 1, None)]
)
def test_no_text_is_cut_off_or_covers_a_text_or_a_box(b, d, joining):
    figure = drawing.unet(b, d, m=2, c=2, joining=joining)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes = figure.axes[0]
    written = (*axes.texts, *axes.get_legend().get_texts(), axes.title)
    boxes = {text.get_text(): text.get_window_extent() for text in written if text.get_text()}
    width, height = canvas.get_width_height()
    levels = {str(p): p.get_window_extent() for p in axes.patches}
    for name, box in boxes.items():
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, name
        others = {other: place for other, place in (boxes | levels).items() if other != name}
        assert not [other for other, place in others.items() if box.overlaps(place)], name


def words(figure) -> str:
    found = [t for a in figure.axes for t in (a.title, a.xaxis.label, a.yaxis.label, *a.texts)]
    return "\n".join([*(text.get_text() for text in found), figure.get_suptitle()])


@pytest.mark.parametrize("network", ["D-NAS", "DC-NAS_seq"])
def test_a_drawing_shows_every_block_s_width(network):
    drawn = random_architecture(SPACE, np.random.default_rng(1))
    figure = nas_figures.architecture_figure(drawn, "title", network, TABLE)
    found = words(figure)
    for layer, choice in zip(SPACE.layers, drawn.choices, strict=True):
        assert str(choice.hidden) in found or network == "D-NAS" and layer.stage >= 4
    total_ms = predicted_ms(TABLE, drawn, network)
    assert "title" in found and f"{total_ms:.2f} ms by the table" in found
    widths = [box.get_width() for axes in figure.axes for box in axes.patches]
    assert TABLE.corrected(sum(widths)) == pytest.approx(total_ms)  # a box is as wide as its time


@pytest.mark.parametrize(
    "seeds, text", [(1, "Bars: 95%. Of one seed: over images alone."), (3, "Bars: 95%.")]
)
def test_a_caption_says_what_the_interval_of_a_single_seed_is(seeds, text):
    rows = pd.DataFrame(dict(label="a", seed=range(seeds), scale="laptop", images=32_000))
    figure = caption(new_figure(3, 3)[0], rows, "Bars: 95%.")
    assert figure.get_supxlabel().endswith(f"per network. {text}")


@pytest.mark.parametrize("name", [name for name in names() if load_network(name).classes])
def test_an_own_picture_gets_a_label_or_the_error_rates_of_the_rule(shown, monkeypatch, name):
    move(shown, sigma=0.4)
    upload(shown, file_of(PHOTO))
    (rates,) = (row for row in load_network(name).card["refusal"]["rates"] if row["sigma"] == 0.4)
    for refuses in (True, False):
        monkeypatch.setattr(Network, "refuses", lambda *_, refuses=refuses: refuses)
        shown.drawn.cache_clear()
        move(shown, network="unet-b16-tiny-imagenet")
        text = move(shown, network=name)
        assert ("No label: this is unlike anything" in text) == refuses != ("It says " in text)
        rule = f"At σ = 0.4 the rule refuses {rates['refused']:.0f}% of those too, and labels "
        assert (f"{rule}{rates['labelled']:.0f}% of others." in text) == refuses


def test_a_picture_that_is_made_worse_is_said_to_be(shown):
    upload(shown, file_of(Image.fromarray(np.full((90, 120, 3), (200, 40, 90), np.uint8))))
    text = move(shown, network="unet-b8-d4-m1.5-c2", sigma=0.05)
    assert "The denoised picture is worse than the noisy one." in text
    assert "worse" not in move(shown, network="unet-b16-tiny-imagenet", sigma=0.4)
