"""What the README says at its top stands in the table that is written from the published results."""

import re

from dcnas.paths import root


def test_numbers_of_what_was_found_stand_in_the_table_below():
    text = (root() / "README.md").read_text()
    top = text.split("## What was found")[1].split("## ")[0]
    table = text.split("results: begin")[1].split("results: end")[0]
    numbers = set(re.findall(r"(?<![B\d])\d+\.\d", top)) - {"0.5"}
    assert len(numbers) == 8
    assert "Trained on as many images" in top and re.search(r"Classifiers: Scale gpu, .*3,000,064 training images", table)
    assert "0.5% of the paper's" in top.replace("\n  ", " ") and re.search(r"DC-Nets: Scale short, .*16,000 training images", table)
    missing = [number for number in numbers if not re.search(rf"\| {number}\b", table)]
    assert not missing, f"{missing} are not among the published numbers"
