"""The checks of notebook 03_0, clipping and precision: a variant differs in what is checked, and in nothing else."""

import pytest

from dcnas.study.results3 import GROUPS
from dcnas.study.scales import PUBLISHED_SCALES, scale_named


@pytest.mark.parametrize("scale", ["smoke", *PUBLISHED_SCALES])
@pytest.mark.parametrize("group", ["clipping_check", "precision_check"])
def test_a_variant_differs_in_what_is_checked_alone(group, scale):
    variant = GROUPS[group](scale)[0].label
    runs = {(e.label, e.seed): e for name in ("table_2", "figure_3", group) for e in GROUPS[name](scale)}
    for seed in range(scale_named(scale).seeds):
        one, other = (vars(runs[label, seed]) for label in (variant.rpartition(", ")[0], variant))
        changed = {name for name in one if one[name] != other[name]} - {"name", "label"}
        assert changed <= ({"clip"} if group == "clipping_check" else {"precision", "channels_last"})
        assert changed or (scale, group) == ("smoke", "precision_check")  # where all are trained in float32
