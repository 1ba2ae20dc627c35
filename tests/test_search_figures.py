"""Drawings of searched networks show what they are given; the search's widgets answer every position."""


import numpy as np
import pandas as pd
import pytest
from made_up import linear_table, start_architecture

from dcnas.nas.networks import DECODERS
from dcnas.nas.recorder import alpha_rows
from dcnas.nas.space import Architecture, Space, random_architecture
from dcnas.study import explore_search, nas_figures
from dcnas.study.figures import caption, new_figure

SPACE = Space(operators=8, resolution=64, classes=4)
TABLE = linear_table(SPACE)
RNG = np.random.default_rng(0)
LOGS = [np.log(p / p.sum()) for p in RNG.random((18, 8)) + 0.1]
EPOCHS = pd.DataFrame(
    [dict(epoch=e, argmax_ms=10.0 + e, expected_ms=11.0, entropy=0.5, flips=2, alphas_trained=True) for e in range(4)]
)
ALPHAS = pd.DataFrame([
    row for e in range(4) for row in alpha_rows(SPACE, e, [q / q.sum() for q in RNG.random((18, 8)) + e], [])
])  # fmt: skip


def texts(figure) -> str:
    found = [t.get_text() for axes in figure.axes for t in [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]]
    found.append(figure.get_suptitle())
    return "\n".join(found)


@pytest.mark.parametrize("network", ["C-NAS", "D-NAS", "DC-NAS", "DC-NAS_seq"])
def test_a_drawing_shows_every_block_s_width(network):
    drawn = random_architecture(SPACE, np.random.default_rng(1))
    found = texts(nas_figures.architecture_figure(drawn, "title", network, TABLE))
    shown = [
        choice.hidden for layer, choice in zip(SPACE.layers, drawn.choices, strict=True) if network != "D-NAS" or layer.stage < 4
    ]
    assert all(str(hidden) in found for hidden in shown) and "title" in found and "ms by the table" in found


def test_a_drawing_is_of_the_decoder_that_is_named():
    drawn = start_architecture(SPACE)
    shown = {decoder: texts(nas_figures.architecture_figure(drawn, "", "DC-NAS", decoder=decoder)) for decoder in DECODERS}
    assert "connection, two blocks" in shown["conv"] and "one MBConv block;" in shown["mb 1-op"]
    assert "two MBConv blocks" in shown["mb"] and "two MBConv blocks" in shown["mb 3-lay"]
    boxes = {decoder: len([line for line in text.split("\n") if line.isdigit()]) for decoder, text in shown.items()}
    assert boxes["mb 3-lay"] == boxes["conv"] - 1  # it does without a level


def test_a_drawing_leaves_out_what_beta_left_out():
    drawn = start_architecture(SPACE)
    short = Architecture(SPACE, (*drawn.choices[:1], None, *drawn.choices[2:]))
    counts = [texts(nas_figures.architecture_figure(a, "")).split("\n").count("72") for a in (drawn, short)]
    assert counts[1] == counts[0] - 1


@pytest.mark.parametrize("seeds, text", [(1, "Bars: 95%. Of one seed: over images alone."), (3, "Bars: 95%.")])
def test_a_caption_says_what_the_interval_of_a_single_seed_is(seeds, text):
    rows = pd.DataFrame(dict(label="a", seed=range(seeds), scale="laptop", images=32_000))
    assert caption(new_figure(3, 3)[0], rows, "Bars: 95%.").get_supxlabel().endswith(f"per network. {text}")


# widgets


def test_the_target_slider_answers_everywhere_and_stays_within_the_target():
    panel = explore_search.target(TABLE, {"a search": (SPACE, LOGS)})
    slider = panel.controls["target_ms"]
    before = panel.image.value
    for value in np.linspace(slider.min, slider.max, 7):
        slider.value = value
        assert panel.error is None
        predicted = float(panel.status.value.split("table: ")[1].split(" ms")[0])
        assert predicted <= slider.value + 0.005
    assert panel.image.value != before and panel.figure is not None


def test_the_table_and_the_replay_answer_every_position():
    panel = explore_search.table(TABLE, SPACE)
    for layer in (1, 9, 18):
        panel.controls["layer"].value = layer
        assert panel.error is None and SPACE.layers[layer - 1].name in panel.status.value
    panel = explore_search.replay(ALPHAS, EPOCHS, 12.0)
    for epoch in range(4):
        panel.controls["epoch"].value = epoch
        assert panel.error is None and f"epoch {epoch}:" in panel.status.value and f"{10 + epoch:.2f} ms" in panel.status.value
