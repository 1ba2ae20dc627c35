"""Drawings of searched networks show what they are given."""

import numpy as np
import pandas as pd
import pytest
from made_up import linear_table, start_architecture

from dcnas.nas.networks import DECODERS
from dcnas.nas.space import Architecture, Space, random_architecture
from dcnas.study import nas_figures
from dcnas.study.figures import caption, new_figure

SPACE = Space(operators=8, resolution=64, classes=4)
TABLE = linear_table(SPACE)


def texts(figure) -> str:
    found = [
        t.get_text()
        for axes in figure.axes
        for t in [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
    ]
    found.append(figure.get_suptitle())
    return "\n".join(found)


@pytest.mark.parametrize("network", ["C-NAS", "D-NAS", "DC-NAS", "DC-NAS_seq"])
def test_a_drawing_shows_every_block_s_width(network):
    drawn = random_architecture(SPACE, np.random.default_rng(1))
    found = texts(nas_figures.architecture_figure(drawn, "title", network, TABLE))
    shown = [
        choice.hidden
        for layer, choice in zip(SPACE.layers, drawn.choices, strict=True)
        if network != "D-NAS" or layer.stage < 4
    ]
    assert all(str(hidden) in found for hidden in shown)
    assert "title" in found
    assert "ms by the table" in found


def test_a_drawing_is_of_the_decoder_that_is_named():
    drawn = start_architecture(SPACE)
    shown = {
        decoder: texts(nas_figures.architecture_figure(drawn, "", "DC-NAS", decoder=decoder))
        for decoder in DECODERS
    }
    assert "connection, two blocks" in shown["conv"] and "one MBConv block;" in shown["mb 1-op"]
    assert "two MBConv blocks" in shown["mb"] and "two MBConv blocks" in shown["mb 3-lay"]
    boxes = {
        decoder: len([line for line in text.split("\n") if line.isdigit()])
        for decoder, text in shown.items()
    }
    assert boxes["mb 3-lay"] == boxes["conv"] - 1  # it does without a level


def test_a_drawing_leaves_out_what_beta_left_out():
    drawn = start_architecture(SPACE)
    short = Architecture(SPACE, (*drawn.choices[:1], None, *drawn.choices[2:]))
    counts = [
        texts(nas_figures.architecture_figure(a, "")).split("\n").count("72") for a in (drawn, short)
    ]
    assert counts[1] == counts[0] - 1


@pytest.mark.parametrize(
    "seeds, text", [(1, "Bars: 95%. Of one seed: over images alone."), (3, "Bars: 95%.")]
)
def test_a_caption_says_what_the_interval_of_a_single_seed_is(seeds, text):
    rows = pd.DataFrame(dict(label="a", seed=range(seeds), scale="laptop", images=32_000))
    assert (
        caption(new_figure(3, 3)[0], rows, "Bars: 95%.").get_supxlabel().endswith(f"per network. {text}")
    )
