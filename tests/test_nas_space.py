"""The search space and its networks: what the paper's tables say, shapes, files."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import start_architecture

from dcnas.errors import InputError
from dcnas.models import count_flops
from dcnas.nas import networks
from dcnas.nas import space as spaces
from dcnas.nas.networks import DECODERS, Classifier, Decoder
from dcnas.nas.space import OPERATORS, STRIDES, Space, random_architecture
from dcnas.paths import paper_dir

SMALL = Space(operators=8, resolution=64, classes=4, width=0.25)
FINE = replace(SMALL, strides=spaces.strides_for(64))  # the first stem keeps the size


def test_operators_are_those_of_table_7():
    table = pd.read_csv(paper_dir() / "table7_operators.csv")
    assert [o.name for o in OPERATORS] == list(table["name"])
    rows = table[["kernel", "expansion", "se"]].itertuples(index=False, name=None)
    assert [(o.kernel, o.expansion, o.se) for o in OPERATORS] == list(rows)
    for count in (4, 6, 8):
        assert [o.name for o in Space(count).candidates] == list(table.loc[table[f"in_{count}"], "name"])


def test_layers_are_tf_nas_s():
    layers = Space().layers
    assert len(layers) == 18
    assert [len(stage) for stage in Space().stages] == [2, 3, 4, 4, 4, 1]
    assert [layer.size // layer.stride for layer in layers] == [56] * 2 + [28] * 3 + [14] * 8 + [7] * 5
    channels = [16, 24, 24, 40, 80, 112, 192]
    assert [layers[i].in_channels for i in (0, 1, 2, 5, 9, 13, 17)] == channels
    assert [layers[i].out_channels for i in (0, 1, 2, 5, 9, 13, 17)] == [24, 24, 40, 80, 112, 192, 320]
    assert [o.start_hidden(16) for o in OPERATORS[:2]] == [48, 96]
    assert [(o.least_hidden(16), o.most_hidden(16)) for o in OPERATORS[:2]] == [(32, 64), (64, 128)]
    assert [o.se_hidden(16) for o in OPERATORS] == [0] * 4 + [16, 32] * 2


def test_the_classifier_s_flops_follow_its_operators_and_widths():
    """Expansion 6 instead of 3 adds the multiply-accumulates of the wider maps, and two per element for
    their batch norms."""
    space, more = Space(4, 64, 4), 0
    for layer in space.layers:
        hidden, before, after = 3 * layer.in_channels, layer.size**2, (layer.size // layer.stride) ** 2
        more += hidden * (before * layer.in_channels + after * 9 + after * layer.out_channels)
        more += 2 * hidden * (before + after)
    narrow, wide = (flops_of(start_architecture(space, operator)) for operator in (0, 1))
    assert wide - narrow == more


def flops_of(architecture) -> int:
    return count_flops(Classifier(architecture).eval(), torch.rand(1, 3, 64, 64))


def sides_of(space: Space) -> list[int]:
    """Of the maps that the encoder gives to a decoder."""
    maps = Classifier(start_architecture(space)).eval().encode(torch.rand(1, 3, 64, 64))
    return [m.shape[-1] for m in maps]


def test_the_encoder_has_four_levels_and_the_decoder_four():
    assert [level.channels for level in networks.encoder_levels(Space())] == [16, 24, 40, 112]
    assert sides_of(Space(4, 64, 4)) == [32, 16, 8, 4]
    levels = networks.encoder_levels(Space())
    counts = {kind: len(Decoder(levels, kind).up) for kind in DECODERS}
    assert counts == {"conv": 4, "mb": 4, "mb 1-op": 4, "mb 3-lay": 3}
    parameters = {kind: sum(p.numel() for p in Decoder(levels, kind).parameters()) for kind in DECODERS}
    assert parameters["mb 1-op"] < parameters["mb"] and parameters["mb 3-lay"] < parameters["mb"]


def test_small_images_keep_their_size_in_the_first_stem():
    assert spaces.strides_for(224) == spaces.strides_for(65) == spaces.strides_for(64, 2) == STRIDES
    assert (
        spaces.strides_for(64)
        == spaces.strides_for(32)
        == spaces.strides_for(224, 1)
        == (1, *STRIDES[1:])
    )
    ends = [FINE.layers[stage[-1]].size // FINE.layers[stage[-1]].stride for stage in FINE.stages]
    assert [FINE.layers[0].size, *ends] == [64, 32, 16, 8, 8, 4, 4]
    assert sides_of(FINE) == [64, 32, 16, 8]
    coarse, fine = (flops_of(start_architecture(space, 5)) for space in (SMALL, FINE))
    assert 3.5 < fine / coarse <= 4


@pytest.mark.parametrize("space", [SMALL, FINE, Space(), replace(FINE, width=0.5)], ids=str)
def test_three_levels_leave_out_the_one_whose_share_is_nearest_the_paper_s(space):
    """Shares as counted are those of the network's own multiply-accumulates, batch norm and the last
    convolution aside."""
    levels = networks.encoder_levels(space)
    found, dropped = networks.shares(levels), networks.dropped_level(levels)
    assert sum(found) == pytest.approx(1)
    assert sorted(found, key=lambda share: abs(share - 0.28))[0] == found[dropped]
    decoder, maps = Decoder(levels, "mb").eval(), [torch.rand(1, 3, 64, 64)]
    for level in levels:
        side = maps[-1].shape[-1] // level.ratio
        maps.append(torch.rand(1, level.channels, side, side))
    costs, x = [], maps[-1]
    for up, merge, skip in zip(decoder.up, decoder.merge, decoder.skips, strict=True):
        costs.append(count_flops(up, x))
        joined = torch.cat([maps[skip + 1], up(x)], 1)
        costs[-1] += count_flops(merge, joined)
        x = merge(joined)
    assert found == pytest.approx([cost / sum(costs) for cost in reversed(costs)], abs=0.02)
    fewer = Decoder(levels, "mb 3-lay")
    assert fewer.skips == [skip for skip in decoder.skips if skip != dropped - 1]


def test_an_architecture_survives_its_file(tmp_path):
    drawn = random_architecture(SMALL, np.random.default_rng(2))
    short = replace(drawn, choices=(drawn.choices[0], None, *drawn.choices[2:]))  # as learned beta does
    for architecture in (drawn, short):
        assert (
            spaces.load_architecture(spaces.save_architecture(architecture, tmp_path / "a.json"))
            == architecture
        )
    assert len(networks.build_network("C-NAS", short).stages[0]) == 1


def test_hidden_widths_are_multiples_of_the_step(tmp_path):
    plain, stepped = Space(8, 32, 3, 0.25), Space(8, 32, 3, 0.25, width_step=8)
    for layer, wide in zip(plain.layers, stepped.layers, strict=True):
        for o in OPERATORS:
            (least, most), (low, high) = layer.hidden_range(o), wide.hidden_range(o)
            assert (least, most) == (o.least_hidden(layer.in_channels), o.most_hidden(layer.in_channels))
            assert low % 8 == high % 8 == 0 and 0 <= low - least < 8 and 0 <= most - high < 8
            assert [wide.stepped(o, n) for n in (1, low + 7, 1e9)] == [low, low + 8, high]
    drawn = random_architecture(stepped, np.random.default_rng(0))
    assert spaces.load_architecture(spaces.save_architecture(drawn, tmp_path / "a.json")) == drawn
    assert {choice.hidden % 8 for a in (drawn, spaces.widened(drawn, 0.3)) for choice in a.choices} == {
        0
    }
    off = replace(drawn.choices[4], hidden=drawn.choices[4].hidden + 1)
    choices = (*drawn.choices[:4], off, *drawn.choices[5:])
    with pytest.raises(InputError, match="but [0-9]+ to [0-9]+ in steps of 8 were expected"):
        spaces.load_architecture(
            spaces.save_architecture(replace(drawn, choices=choices), tmp_path / "b.json")
        )
    assert spaces.log_size(plain) - spaces.log_size(stepped) == pytest.approx(18 * np.log10(8), rel=0.2)
