"""Figures, tables and widgets of Section 4's search: they show what they are given, and answer every position of their sliders."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_up import linear_table, start_architecture

from dcnas.nas.networks import DECODERS
from dcnas.nas.recorder import alpha_rows
from dcnas.nas.space import Architecture, Space, random_architecture
from dcnas.study import explore_search, plots_search
from dcnas.study.figures import png_bytes

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
    found = texts(plots_search.architecture_figure(drawn, "title", network, TABLE))
    shown = [
        choice.hidden for layer, choice in zip(SPACE.layers, drawn.choices, strict=True) if network != "D-NAS" or layer.stage < 4
    ]
    assert all(str(hidden) in found for hidden in shown) and "title" in found and "ms by the table" in found


def test_a_drawing_is_of_the_decoder_that_is_named():
    drawn = start_architecture(SPACE)
    shown = {decoder: texts(plots_search.architecture_figure(drawn, network="DC-NAS", decoder=decoder)) for decoder in DECODERS}
    assert "connection, two blocks" in shown["conv"] and "one MBConv block;" in shown["mb 1-op"]
    assert "two MBConv blocks" in shown["mb"] and "two MBConv blocks" in shown["mb 3-lay"]
    boxes = {decoder: len([line for line in text.split("\n") if line.isdigit()]) for decoder, text in shown.items()}
    assert boxes["mb 3-lay"] == boxes["conv"] - 1  # it does without a level


def test_a_drawing_leaves_out_what_beta_left_out():
    drawn = start_architecture(SPACE)
    short = Architecture(SPACE, (*drawn.choices[:1], None, *drawn.choices[2:]))
    counts = [texts(plots_search.architecture_figure(a)).split("\n").count("72") for a in (drawn, short)]
    assert counts[1] == counts[0] - 1


def test_alphas_are_drawn_for_the_places_asked():
    figure = plots_search.figure_5({"a": (ALPHAS, "decided"), "b": (ALPHAS, "oscillating")}, ["stage1.block1", "stage4.block2"], "")
    assert len(figure.axes) == 4 and len(figure.axes[0].lines) == 8
    assert "(oscillating)" in texts(figure)
    assert len(png_bytes(plots_search.search_curves({"a": EPOCHS}, 12.0, ""))) > 1000


def supernet(label: str, seed: int, accuracy: float, **columns) -> SimpleNamespace:
    epochs = EPOCHS.assign(accuracy=accuracy, **columns)
    return SimpleNamespace(
        label=label, seed=seed, scale="laptop", epochs=epochs, alphas=ALPHAS, architecture=start_architecture(SPACE)
    )  # fmt: skip


def test_supernets_are_held_against_the_largest_class():
    held_out = dict(held_out_balanced_accuracy=30.0, largest_class=40.0)
    looked_at = [supernet("a", seed, 60.0, held_out_accuracy=44.0 + 2 * seed, **held_out) for seed in range(2)]
    assert plots_search.health_table(looked_at, 40.0)["healthy"].tolist() == ["no", "yes"]
    figure = plots_search.learning_figure(looked_at, 40.0)
    assert "1 of 2 supernets" in texts(figure) and "on held-out images" in texts(figure) and "+5.0 points" in texts(figure)
    drawn = SimpleNamespace(label="random search M", epochs=pd.DataFrame({"accuracy": [1.0]}))  # has no supernet
    before = [supernet("a", 0, 41.0), supernet("b", 0, 60.0), drawn]
    assert plots_search.health_table(before, 40.0)["healthy"].tolist() == ["not measured"] * 2
    assert "1 of 2 supernets" in texts(figure := plots_search.learning_figure(before, 40.0))
    assert "on training batches" in texts(figure)


def test_searches_are_held_against_noise():
    null = pd.DataFrame(dict(epoch=range(1, 4), flips=0.2, agreement=0.25, agreement_95=0.4))
    figure = plots_search.null_figure([supernet("a", seed, 60.0) for seed in range(2)], null)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "In the last third 11% change an epoch; by noise alone 20%"  # 2 of 18 layers
    assert titles[1] == "In the end seeds agree on 100%; by noise alone on up to 40%"
    assert "seeds agree by noise alone on up to 40%" in texts(plots_search.null_figure([supernet("a", 0, 60.0)], null))


def test_the_decoder_s_dropped_level_is_named():
    table = plots_search.decoder_table({"the paper's": Space(4, 224, 100)})
    assert [("dropped" in cell) for cell in table["the paper's"]] == [False, True, False, False]
    assert "23% in the paper's." in plots_search.decoder_text({"the paper's": Space(4, 224, 100)})


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
