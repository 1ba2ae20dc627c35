"""Panels without a kernel: every control redraws, they say what the results say, errors end in words."""

import io
import threading

import ipywidgets as W
import numpy as np
import pandas as pd
import pytest
import torch
from made_up import linear_table
from PIL import Image

from dcnas.errors import InputError
from dcnas.models import CLASSIFIERS
from dcnas.nas.recorder import alpha_rows
from dcnas.nas.space import Space
from dcnas.study import drawing, widgets
from dcnas.study.figures import new_figure

SPACE = Space(operators=8, resolution=64, classes=4)
TABLE = linear_table(SPACE)
CHANCES = np.random.default_rng(0).dirichlet(np.ones(8), (4, 18))
EPOCHS = pd.DataFrame(
    [dict(epoch=e, argmax_ms=10.0 + e, expected_ms=11.0, entropy=0.5, flips=2) for e in range(4)]
)
ALPHAS = pd.DataFrame([row for e in range(4) for row in alpha_rows(SPACE, e, [*CHANCES[e]], [])])
SEARCHES = {f"search {n}": (SPACE, [*np.log(CHANCES[n])]) for n in range(2)}


def quality(metric: str, flops: dict[str, int]) -> pd.DataFrame:
    """Each network is worth 50 and 1 more per 100,000 FLOPs, more at seed 1, less under noise."""
    rows = [(label, n, s, seed) for label, n in flops.items() for s in (0.0, 0.8) for seed in (0, 1)]
    return pd.DataFrame(
        [
            {"label": label, "flops": n, "sigma": s, "seed": seed, metric: 50 + n / 1e5 + 2 * seed - s}
            for label, n, s, seed in rows
        ]
    )


def classifier_rows() -> pd.DataFrame:
    sizes = {name: drawing.classifier_size(*vars(spec).values()) for name, spec in CLASSIFIERS.items()}
    return quality("accuracy", {name: size.flops for name, size in sizes.items()})


PANELS = {
    "classifier": lambda: widgets.classifier(classifier_rows()),
    "table": lambda: widgets.table(TABLE, SPACE),
    "target": lambda: widgets.target(TABLE, SEARCHES, "DC-NAS"),
    "replay": lambda: widgets.replay(ALPHAS, EPOCHS, 12.0),
}


def positions(control) -> list:
    if isinstance(control, W.Dropdown | W.SelectionSlider):
        return [value for _, value in control._options_full]
    return [control.min, (control.min + control.max) // 2, control.max]


@pytest.mark.parametrize("name", PANELS)
def test_every_control_redraws(name):
    panel = PANELS[name]()
    with Image.open(io.BytesIO(panel.screen.png)) as image:
        assert image.width > 900 and image.height <= 480
    for control in panel.controls.values():
        pictures = {panel.screen.png}
        for value in positions(control):
            control.value = value
            assert panel.error is None and panel.screen.alt == panel.status.value
            pictures.add(panel.screen.png)
        assert len(pictures) >= 2, control.description
    again = PANELS[name]()  # equal settings, equal bytes: the figure keeps nothing of earlier moves
    for key, control in again.controls.items():
        panel.controls[key].value = control.value
    panel.drawn.cache_clear()
    panel.refresh()
    assert panel.status.value == again.status.value
    first, second = (np.asarray(Image.open(io.BytesIO(p.screen.png)), int) for p in (panel, again))
    assert abs(first - second).mean() < 1


def test_a_network_is_placed_among_the_trained_ones():
    panel = widgets.classifier(classifier_rows())
    assert (
        "1,069 parameters" in panel.status.value and "53.7% (mean" in panel.status.value
    )  # 50 + 3.05 + 1 - 0.4
    panel.controls["expansion"].value = None
    panel.controls["first"].value = 5
    assert "Not trained; trained ones that cost half to twice as much" in panel.status.value
    panel.controls["first"].value, panel.controls["second"].value = 16, 48
    assert "Neither it nor one that costs about as much is trained" in panel.status.value


def test_a_layer_s_latencies_are_the_table_s():
    panel = widgets.table(TABLE, SPACE)
    panel.controls["layer"].value = 9
    layer, ends = SPACE.layers[8], []
    for operator in SPACE.candidates:
        for hidden in (
            operator.least_hidden(layer.in_channels),
            operator.most_hidden(layer.in_channels),
        ):
            ends.append(TABLE.part_ms(widgets.key_of(layer, operator), hidden))
    assert f"from {min(ends):.2f} to {max(ends):.2f} ms" in panel.status.value


@pytest.mark.parametrize("network", ["C-NAS", "D-NAS", "DC-NAS"])
def test_networks_stay_within_the_target_and_no_part_of_the_slider_is_dead(network):
    panel = widgets.target(TABLE, SEARCHES, network)
    slider = panel.controls["target_ms"]
    reached = []
    for value in np.linspace(slider.min, slider.max, 5):
        slider.value = value
        assert panel.error is None
        reached.append(float(panel.status.value.split(": ")[1].split(" ms")[0]))
        assert reached[-1] <= slider.value + 0.005
    assert len(set(reached)) == 5


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
    with pytest.raises(
        ValueError, match="much"
    ):  # a panel that cannot show its first picture fails its cell
        widgets.Panel(draw, sigma=W.FloatSlider(value=0.8, max=1.0))


def test_moves_from_another_thread_end_in_the_last_state():
    """JupyterLab calls back in a thread of its own, and torch's inference mode is of a thread."""
    panel = widgets.replay(ALPHAS, EPOCHS, 12.0)
    threads = [
        threading.Thread(target=setattr, args=(panel.controls["epoch"], "value", e)) for e in (1, 2, 0)
    ]
    for thread in threads:
        thread.start()
        thread.join()
    assert panel.error is None and panel.status.value.startswith("Epoch 0:")
