"""What is said of photographs is what is measured: which get no label, and how well they are denoised.

Needs the test images of the sets; what is not here is left out.
"""

import sys
from pathlib import Path

import pandas as pd
import pytest

from dcnas.deploy.apply import FOR_PHOTOGRAPHS
from dcnas.deploy.weights import load_network, names
from dcnas.errors import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import photographs  # noqa: E402
import unknown  # noqa: E402

SIGMA, COUNT = 0.2, 60
CLASSIFY = [name for name in names() if load_network(name).classes]


@pytest.mark.parametrize("name", CLASSIFY)
def test_the_rule_errs_as_often_as_its_card_says(name):
    """On the first of the pictures that the card's rates are of."""
    network = load_network(name)
    rule = network.card["refusal"]
    try:
        (measured,) = unknown.rates(network, rule["below"], COUNT, [SIGMA])
    except (InputError, OSError) as error:
        pytest.skip(f"needs the sets: {error}")
    card = network.refusal_rates(SIGMA)
    assert measured.keys() == card.keys() and card["sigma"] == SIGMA
    for key in card.keys() - {"sigma"}:
        spread = 100 * ((card[key] / 100 * (1 - card[key] / 100) + 0.01) / COUNT) ** 0.5
        assert abs(measured[key] - card[key]) <= 3 * spread, (key, measured, card)


@pytest.mark.parametrize("name", CLASSIFY)
def test_about_a_tenth_of_unknown_pictures_get_a_label(name):
    rates = load_network(name).card["refusal"]["rates"]
    assert sum(row["labelled"] for row in rates) / len(rates) < 2 * unknown.LABELLED


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(photographs.CSV)


def test_readme_says_what_the_table_says(table):
    assert photographs.sentence(table) in (photographs.root() / "README.md").read_text()


def test_networks_of_photographs_help(table):
    """By five decibels from sigma = 0.2 on; the UNet's pictures are never worse than the noisy ones,
    those of the searched network more often than those of the one that own pictures meet.
    """
    small = table[table["pictures"] == "tiny-imagenet"]
    strong = small[small["sigma"] >= 0.2]
    assert (strong["psnr"] - strong["noisy_psnr"] >= 5).all() and (strong["worse"] == 0).all()
    weak = small[small["sigma"] == 0.1]
    assert (weak["psnr"] > weak["noisy_psnr"]).all() and (weak["worse"] <= 10).all()
    assert (weak.loc[weak["network"] == FOR_PHOTOGRAPHS, "worse"] < 5).all()
    assert (weak.loc[weak["network"].str.startswith("unet"), "worse"] == 0).all()
    assert (small.loc[small["sigma"] == 0.2, "accuracy"].dropna() >= 35).all()


def test_the_unet_is_within_a_decibel_and_a_half_of_bm3d_on_average_and_keeps_colours(table):
    large = table[table["pictures"] != "tiny-imagenet"].set_index(["network", "pictures"])
    unet, bm3d = large.loc["unet-b16-tiny-imagenet"], large.loc["BM3D"]
    assert len(bm3d) == 12 and (bm3d["psnr"] - unet["psnr"]).mean() <= 1.5
    assert unet["mean_colour_error"].max() < 1  # of 255 levels
    assert (unet["chroma_kept"] - bm3d["chroma_kept"]).min() > -6


@pytest.mark.parametrize("name", photographs.networks())
def test_numbers_of_small_photographs_are_those_of_the_table(table, name):
    try:
        (row,) = photographs.small(name, sigmas=[SIGMA])
    except (InputError, OSError) as error:
        pytest.skip(f"needs Tiny ImageNet: {error}")
    (kept,) = table.query("pictures == 'tiny-imagenet' and network == @name and sigma == @SIGMA").iloc
    for key, most in {"psnr": 0.02, "noisy_psnr": 0.02, "least_gain": 0.1, "accuracy": 1.1}.items():
        assert key not in row or row[key] == pytest.approx(kept[key], abs=most)


@pytest.mark.parametrize("name", photographs.networks())
@pytest.mark.parametrize("picture", ["astronaut", "camera"])  # in colour, and grey
def test_numbers_of_larger_photographs_are_those_of_the_table(table, name, picture):
    row = photographs.large(photographs.large_scene(picture), name)
    (kept,) = table.query("pictures == @picture and network == @name").iloc
    assert row["psnr"] == pytest.approx(kept["psnr"], abs=0.05)
    assert "chroma_kept" not in row or row["chroma_kept"] == pytest.approx(kept["chroma_kept"], abs=0.5)
