"""The checks of notebook 03_0, clipping and precision: each is of the UNet that its scale makes it on."""

import numpy as np
import pandas as pd
import pytest

from dcnas.errors import InputError
from dcnas.study import plots_data
from dcnas.study import results3 as results
from dcnas.study.plots_data import check_figure, check_labels, check_rows, check_table, clipping_verdict, precision_verdict
from dcnas.study.results3 import GROUPS
from dcnas.study.scales import PUBLISHED_SCALES, scale_named

WIDE, NARROW = "UNet b=16 d=4 m=2 c=2", "UNet b=8 d=4 m=1.5 c=2"


def made_up(scale: str, *labels: str, seeds: int = 2) -> pd.DataFrame:
    rows = [
        dict(label=label, seed=seed, scale=scale, run=f"{scale} {label} {seed}", sigma=sigma, images=32, source="published",
             precision="bf16" if label == WIDE else "fp32", crop=None, train_images=9, eval_images=20)
        for label in labels for seed in range(seeds) for sigma in plots_data.SIGMAS
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def shown(monkeypatch):
    """`shown(*frames)`: they are what is published; variants have a decibel more."""
    rng = np.random.default_rng(0)
    images = 25 + rng.normal(0, 1, (11, 20))

    def per_image(rows, metric):
        found = rows[["label", "seed"]].drop_duplicates().itertuples(index=False)
        return {(label, seed): images + (", " in label) + 0.01 * rng.normal(size=(11, 20)) for label, seed in found}

    monkeypatch.setattr(results, "per_image", per_image)

    def show(*frames):
        monkeypatch.setattr(results, "published", lambda: pd.concat(frames, ignore_index=True))

    return show


@pytest.mark.parametrize("scale", ["smoke", *PUBLISHED_SCALES])
@pytest.mark.parametrize("group", ["clipping_check", "precision_check"])
def test_a_variant_differs_in_what_is_checked_alone(group, scale):
    plain, variant = check_labels(group, scale)
    runs = {(e.label, e.seed): e for name in ("table_2", "figure_3", group) for e in GROUPS[name](scale)}
    for seed in range(scale_named(scale).seeds):
        one, other = (vars(runs[label, seed]) for label in (plain, variant))
        changed = {name for name in one if one[name] != other[name]} - {"name", "label"}
        assert changed <= ({"clip"} if group == "clipping_check" else {"precision", "channels_last"})
        assert changed or (scale, group) == ("smoke", "precision_check")  # where all are trained in float32
    if scale == "laptop":
        assert check_labels("precision_check", scale) == (WIDE, f"{WIDE}, float32") and runs[WIDE, 0].precision == "bf16"


def test_checks_are_of_the_scale_s_own_networks(shown):
    laptop = made_up("laptop", "UNet Reduced", "UNet Reduced, clipped", NARROW, f"{NARROW}, float32", WIDE, f"{WIDE}, float32")
    short = made_up("short", NARROW, f"{NARROW}, clipped", f"{NARROW}, float32", WIDE, "UNet Reduced", seeds=1)
    shown(laptop, short)
    clipping, precision = (check_rows(name, "published") for name in ("clipping_check", "precision_check"))
    assert set(clipping["label"]) == {"UNet Reduced", "UNet Reduced, clipped"} and set(clipping["scale"]) == {"laptop"}
    assert set(precision["label"]) == {WIDE, f"{WIDE}, float32"}
    table = check_table(clipping)
    assert list(table)[:2] == ["reduced UNet (dB)", "clipped (dB)"] and table.loc["0.2", "paper (dB)"] > 30
    table = check_table(precision)
    assert list(table)[:2] == [f"{WIDE} (dB)", "float32 (dB)"] and set(table["paper (dB)"]) == {"-"}
    assert table["difference (dB)"].round(1).eq(1).all()
    assert "clipped minus unclipped" in clipping_verdict(clipping)
    assert precision_verdict(precision).startswith(f"{WIDE}, float32 minus bf16, mean PSNR") and "float32 is better" in (
        precision_verdict(precision)
    )
    legend = [text.get_text() for text in check_figure(clipping, precision).axes[0].get_legend().get_texts()]
    assert legend == ["default (unclipped)", "clipped", f"{WIDE}: default", f"{WIDE}: float32", "paper, Table 2"]
    shown(short)
    clipping, precision = (check_rows(name, "published") for name in ("clipping_check", "precision_check"))
    assert set(clipping["label"]) | set(precision["label"]) == {NARROW, f"{NARROW}, clipped", f"{NARROW}, float32"}
    assert "At this scale all networks are trained in float32" in precision_verdict(precision)
    assert len(check_figure(clipping, precision).axes[0].get_legend().get_texts()) == 4


def test_a_check_without_its_variant(shown):
    shown(made_up("short", NARROW))
    clipping, precision = (check_rows(name, "published") for name in ("clipping_check", "precision_check"))
    assert "nothing can be said about clipping" in clipping_verdict(clipping)
    assert "nothing can be said about the precision" in precision_verdict(precision)
    assert check_table(clipping)["variant (dB)"].isna().all()
    shown(made_up("short", WIDE))
    with pytest.raises(InputError, match=f"no results of {NARROW} are published yet"):
        check_rows("clipping_check", "published")
