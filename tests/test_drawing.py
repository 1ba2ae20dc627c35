"""Drawings of networks: what they say is what the networks are, nothing covers anything, and their FLOPs
are fvcore's.
"""

import os
import subprocess
import sys

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle

from dcnas.models import (
    CLASSIFIERS,
    UNETS,
    UNet,
    build_classifier,
    build_dcnet,
    count_flops,
    count_parameters,
    unet_widths,
)
from dcnas.study import drawing

BOXES = torch.tensor([[[0, 0, 32, 32]]])


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


UNETS_DRAWN = [(8, 4, 1.5, 2, "conv"), (4, 1, 2, 1, "conv"), (4, 3, 1.25, 3, "mbconv")]
SIZES = {unet: drawing.unet_size(*unet) for unet in UNETS_DRAWN}
SIZES |= {j: drawing.unet_size(**UNETS["reduced"], joining=j) for j in ("integrated", "sequential")}
SIZES |= {name: drawing.classifier_size(*vars(spec).values()) for name, spec in CLASSIFIERS.items()}


@pytest.mark.parametrize("network", SIZES, ids=str)
def test_flops_and_parameters_are_those_of_fvcore(network):
    image, boxes = torch.zeros(1, 1, 96, 96), []
    if network in CLASSIFIERS:
        model, image = build_classifier(network), torch.zeros(1, 1, 32, 32)
    elif network in UNETS_DRAWN:
        model = UNet(*network[:4], block=network[4])
    else:
        model, boxes = build_dcnet(network, "reduced"), [BOXES]
    size = count_flops(model, image, *boxes), count_parameters(model)
    assert (SIZES[network].flops, SIZES[network].parameters) == size


@pytest.mark.parametrize(
    "b, d, m, c, block",
    [(8, 4, 1.5, 2, "conv"), (64, 5, 2, 3, "conv"), (4, 2, 1, 1, "mbconv"), (16, 1, 2, 2, "conv")],
)
def test_a_unet_shows_the_widths_of_the_model_and_its_blocks(b, d, m, c, block):
    axes = drawing.unet(b, d, m, c, block).axes[0]
    expected = [
        f"{width} ch, {96 // 2**i} × {96 // 2**i}" for i, width in enumerate(unet_widths(b, d, m))
    ]
    assert [text for text in texts(axes) if " ch, " in text] == expected
    # levels, and both images
    assert sum(isinstance(patch, Rectangle) for patch in axes.patches) == c * (2 * d - 1) + 2
    assert f"b={b}, d={d}, m={m:g}, c={c}" in axes.get_title()
    assert f"{count_parameters(UNet(b, d, m, c, block=block)):,} parameters" in axes.get_title()


def test_joined_classifiers_are_drawn():
    sequential = texts(drawing.unet(8, 4, 1.5, 2, joining="sequential").axes[0])
    assert {"digit 32 × 32", "MB2.5-M", "10 classes"} <= set(sequential)
    for d, side in ((2, 16), (6, 1)):
        drawn = texts(drawing.unet(8, d, 1.5, 2, joining="integrated").axes[0])
        assert {f"digit {side} × {side}", "global max pool", "linear → 10"} <= set(drawn)


@pytest.mark.parametrize("expansion, hidden", [(None, []), (1, [6]), (2.5, [15, 15]), (4, [24, 24])])
def test_a_classifier_shows_its_maps(expansion, hidden):
    drawn = texts(drawing.classifier(6, 24, expansion).axes[0])
    maps = [text.split(" ch")[0] for text in drawn if " ch\n" in text]
    assert maps == ["1", "6", "6", *map(str, hidden), "24", "24"]
    assert [text for text in drawn if text in ("24", "10")] == ["24", "10"]


CASES = [(b, d, j) for b, d in ((4, 2), (64, 5), (16, 1)) for j in (None, "sequential", "integrated")]


@pytest.mark.parametrize("b, d, joining", [case for case in CASES if case[1] > 1 or case[2] is None])
def test_no_text_is_cut_off_or_covers_a_text_or_a_box(b, d, joining):
    figure = drawing.unet(b, d, m=2, c=2, joining=joining)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes = figure.axes[0]
    written = [
        text for text in (*axes.texts, *axes.get_legend().get_texts(), axes.title) if text.get_text()
    ]
    boxes = {text.get_text(): text.get_window_extent() for text in written}
    width, height = canvas.get_width_height()
    levels = {str(p): p.get_window_extent() for p in axes.patches}
    for name, box in boxes.items():
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, name
        others = {other: place for other, place in (boxes | levels).items() if other != name}
        assert not [other for other, place in others.items() if box.overlaps(place)], name


FIGURE = """
import hashlib
import numpy as np
from dcnas.study.figures import new_figure, picture, png_bytes
figure, (left, right) = new_figure(6, 3, 1, 2)
picture(left, np.repeat([[1.0], [0.0]], 2, 1), "white above black")
right.plot([0, 1], label="line")
right.legend()
print(hashlib.sha256(png_bytes(figure)).hexdigest())
"""


def test_a_reader_s_matplotlibrc_changes_no_figure(tmp_path):
    own = tmp_path / "matplotlibrc"
    own.write_text("image.origin: lower\nlegend.loc: center\nxtick.direction: in\nfont.family: serif\n")
    hashes = []
    for more in ({}, {"MATPLOTLIBRC": str(own)}):
        options = dict(env=os.environ | more, capture_output=True, text=True, check=True)
        hashes.append(subprocess.run([sys.executable, "-c", FIGURE], **options).stdout)
    assert hashes[0] == hashes[1]
