"""Figures, tables and widgets of Section 4's search: they show what they are given, and answer every position of their sliders."""

import numpy as np
import pandas as pd
import pytest
from made_up import linear_table, start_architecture

from dcnas.latency.table import Correction
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


def test_table_7_is_the_paper_s():
    assert (plots_search.table_7()["verdict"] == "match").all() and len(plots_search.table_7()) == 8


def test_space_sizes_grow_with_operators():
    sizes = plots_search.space_table(224, 100)["architectures with hidden widths"].map(float)
    assert sizes.is_monotonic_increasing and sizes.iloc[0] > 1e50


def test_the_table_is_described_with_its_validation():
    assert "Validated: no" in plots_search.table_text(TABLE)
    assert "median error 2.5%" in plots_search.table_text(TABLE.with_correction(Correction(1, 0, 2.5)))


def validation() -> pd.DataFrame:
    measured = np.linspace(10, 20, 8)
    half = ["fit", "test"] * 4
    return pd.DataFrame(dict(predicted_ms=0.8 * measured, corrected_ms=measured, measured_ms=measured, half=half))


def test_validation_shows_both_readings():
    table = plots_search.validation_table(validation())
    assert table["bias (%)"].tolist() == [-20.0, 0.0] and table["Spearman"].tolist() == [1.0, 1.0]
    assert "measured latency (ms)" in texts(plots_search.validation_figure(validation(), ""))


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
    assert boxes["mb 3-lay"] == boxes["conv"] - 1  # it starts a level higher


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


def test_operators_are_counted():
    table = plots_search.share_of_operators({"one": start_architecture(SPACE, 3)})
    assert table.loc["one", "MB-k5-e6"] == 100 and table.loc["one"].sum() == 100


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
