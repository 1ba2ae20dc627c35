"""The look-up table: keys, interpolation, errors, the measured build, its resumption, and the
correction."""

import json
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from made_up import linear_table, start_architecture

from dcnas.errors import InputError
from dcnas.latency.table import Correction, Curve, Table, load_table
from dcnas.nas import lut
from dcnas.nas.networks import DECODERS, NETWORKS
from dcnas.nas.space import OPERATORS, Space, random_architecture, strides_for

TINY = Space(operators=4, resolution=32, classes=2, width=0.25)


def test_the_design_measures_every_variant_of_every_layer():
    for space in (Space(4), Space(6), Space(8)):
        networks = lut.design(space)
        for i, layer in enumerate(space.layers):
            seen = {(lut.key_of(layer, n.choices[i].operator), n.choices[i].hidden) for n in networks}
            assert seen == {
                (lut.key_of(layer, c.operator), c.hidden) for c in lut.variants(layer, space.candidates)
            }
        assert len(networks) >= len(DECODERS)


def test_parts_add_up_and_the_sequential_network_runs_its_encoder_twice():
    table, a = linear_table(Space(4)), start_architecture(Space(4))
    c, d, joint, sequential = (lut.predicted_ms(table, a, name) for name in NETWORKS)
    assert sequential == pytest.approx(c + d) and joint == pytest.approx(
        c + table.part_ms("decoder conv")
    )
    hidden = [[o.start_hidden(layer.in_channels) for o in OPERATORS[:4]] for layer in Space(4).layers]
    first = sum(float(ms[0]) for ms in lut.operators_ms(table, Space(4), hidden))
    assert lut.base_ms(table) + first == pytest.approx(c, rel=1e-6)
    corrected = table.with_correction(Correction(1.25, 3.0))
    assert lut.predicted_ms(corrected, a) == pytest.approx(1.25 * c + 3)
    assert lut.base_ms(corrected) + sum(
        float(ms[0]) for ms in lut.operators_ms(corrected, Space(4), hidden)
    ) == pytest.approx(1.25 * c + 3)


def test_widths_between_two_points_are_interpolated():
    curve = Curve((10, 20), (1.0, 3.0), (0.1, 0.1), (5, 5))
    table = Table(linear_table(TINY).conditions, {"x": curve})
    assert table.part_ms("x", 15) == pytest.approx(2.0)
    with pytest.raises(InputError, match="widths of 10 to 20, but 21"):
        table.part_ms("x", 21)
    with pytest.raises(InputError, match="no entry y"):
        table.part_ms("y")


def test_strides_are_of_the_space_and_the_table(tmp_path):
    fine = replace(TINY, strides=strides_for(32))
    keys = [
        {lut.key_of(layer, o) for layer in space.layers for o in space.candidates}
        for space in (TINY, fine)
    ]
    assert not keys[0] & keys[1]  # every map has another size
    path = linear_table(fine).save(tmp_path / "fine.json")
    assert load_table(path) == linear_table(fine) and load_table(path).conditions.strides == fine.strides
    with pytest.raises(
        InputError,
        match=r"measured with strides = \(1, 2, 2, 2, 1, 2, 1\), but \(2, 2, 2, 2, 1, 2, 1\) was",
    ):
        lut.validate_table(load_table(path), TINY)
    with pytest.raises(InputError, match="no entry"):
        lut.require_operators(load_table(path), TINY)
    record = json.loads(linear_table(TINY).save(path).read_text())
    del record["conditions"]["strides"]  # as in files from before there were any
    path.write_text(json.dumps(record))
    assert load_table(path) == linear_table(TINY)
    path.write_text(json.dumps(record | {"conditions": record["conditions"] | {"strides": [3, 2]}}))
    with pytest.raises(InputError, match="fine.json: conditions.strides.0: Input should be 1 or 2"):
        load_table(path)


def test_conditions_and_accuracy_are_required_by_name():
    table = linear_table(TINY)
    with pytest.raises(InputError, match="resolution = 32, but 64"):
        table.require(batch=table.conditions.batch, resolution=64)
    with pytest.raises(InputError, match="never validated"):
        table.require_accuracy(5)
    bad = table.with_correction(Correction(1.0, 0.0, 7.5))
    with pytest.raises(InputError, match="7.5%, but at most 5%"):
        bad.require_accuracy(5)
    assert bad.require_accuracy(8) is bad


# measured


def test_a_table_is_measured_and_a_killed_build_goes_on(tmp_path):
    """The second call keeps the rounds of the first: after it each layer has as many samples as an
    undisturbed build."""
    path, calls = tmp_path / "t.json", []
    real = lut._measure

    def dies(*args):
        calls.append(1)
        if len(calls) > 15:  # in the second round of ten networks
            raise KeyboardInterrupt
        real(*args)

    with patch.object(lut, "_measure", dies), pytest.raises(KeyboardInterrupt):
        lut.build_table(TINY, path, batch=1, threads=1, rounds=2, passes=1, progress=False)
    assert not path.exists() and json.loads((tmp_path / "t.json.part").read_text())["rounds"] == 1
    with pytest.raises(
        InputError, match="was begun with batch 1 instead of 2; remove it, or use the settings it had"
    ):
        lut.build_table(TINY, path, batch=2, threads=1, rounds=2, passes=1, progress=False)
    calls.clear()
    with patch.object(lut, "_measure", lambda *args: (calls.append(1), real(*args))):
        table = lut.build_table(TINY, path, batch=1, threads=1, rounds=2, passes=1, progress=False)
    assert (
        len(calls) == len(lut.design(TINY))
        and load_table(path) == table
        and not (tmp_path / "t.json.part").exists()
    )
    assert set(table.curves) == set(linear_table(TINY).curves)
    assert all(min(curve.samples) >= 2 and min(curve.median_ms) > 0 for curve in table.curves.values())


def test_the_correction_is_fitted_on_one_half_and_tested_on_the_other():
    """Networks that take 1.3 times the table's sum plus 2 ms: the correction finds both, the error
    vanishes."""
    table = linear_table(TINY)
    measured = lambda models, **_: {  # noqa: E731
        name: _Latency(1.3 * lut.predicted_ms(table, drawn[name]) + 2) for name in models
    }
    rng = np.random.default_rng(0)
    drawn = {f"network {n}": random_architecture(TINY, rng) for n in range(8)}
    with (
        patch.object(lut, "measure_many", measured),
        patch.object(lut, "device_name", lambda *_: table.conditions.device),
    ):
        frame, corrected = lut.validate_table(table, TINY, networks=8, progress=False)
    assert corrected.correction.scale == pytest.approx(
        1.3
    ) and corrected.correction.offset_ms == pytest.approx(2.0)
    assert corrected.correction.error_pct == pytest.approx(0, abs=1e-6)
    errors = lut.table_errors(frame, "predicted_ms")
    assert errors["spearman"] == pytest.approx(1) and errors["bias_pct"] < -20
    assert list(frame["half"]) == ["fit", "test"] * 4


class _Latency:
    spread_ms = 0.1

    def __init__(self, median_ms):
        self.median_ms = median_ms
