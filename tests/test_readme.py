"""README, book and conclusion say the same of what was found: what the ledger holds."""

import json
import re

from dcnas.paths import notebooks_dir, root
from dcnas.study.claims import WORDS, counts
from dcnas.study.readme import answer_markdown, read_ledger, summary_markdown

README = (root() / "README.md").read_text()
COUNTS = counts(read_ledger()["verdict"])


def test_every_claim_has_one_of_the_five_words_and_its_reason():
    table = read_ledger()
    assert len(table) == 27 and set(table["verdict"]) <= set(WORDS) and table["why"].notna().all()
    cheap = table["images (% of the paper's)"].astype(float) < 10
    assert not (cheap & table["verdict"].str.startswith("contradicted")).any()


def test_readme_begins_with_the_answer_of_the_ledger():
    top = README.split("## Two commands")[0]
    assert answer_markdown() in top and COUNTS in top and "figures/section_5_glance.png" in top
    assert summary_markdown() in README


def test_no_number_stands_in_the_readme_s_answer_that_the_ledger_lacks():
    table = read_ledger()
    own = set(re.findall(r"\d+\.\d+", answer_markdown()))
    known = [
        abs(float(value))
        for name in ("paper", "ours", "images (% of the paper's)")
        for value in table[name]
    ]
    assert own and all(any(abs(float(number) - value) < 0.051 for value in known) for number in own)


def test_book_and_conclusion_have_the_same_counts():
    index = (notebooks_dir() / "index.md").read_text()
    assert "{include} ../README.md" in index and ':end-before: "## Two commands"' in index
    cells = json.loads((notebooks_dir() / "05_conclusion.ipynb").read_text())["cells"]
    shown = "".join(
        "".join(out["data"].get("text/markdown", ""))
        for c in cells
        for out in c.get("outputs", ())
        if "data" in out
    )
    assert COUNTS in shown


def test_words_of_former_verdicts_are_gone():
    for text in (README, (notebooks_dir() / "index.md").read_text()):
        assert not re.search(r"not reproduced|undecided", text)


def test_the_lengths_of_training_that_the_readme_names_are_those_of_the_ledger():
    budgets = read_ledger()["images (% of the paper's)"].astype(float)
    assert (
        "published here see 0.5% of the paper's 3,000,000 images, classifiers all of them"
        in README.replace("\n", " ")
    )
    assert (budgets["C06":"C13"].round(1) == 0.5).all() and (
        budgets[["C01", "C02", "C04", "C05"]] == 100
    ).all()


def test_links_lead_somewhere():
    links = re.findall(r"\]\(((?!https?:|#)[^)]+)\)", README)
    missing = [link for link in links if not (root() / link.split("#")[0]).exists()]
    assert len(links) > 20 and not missing
