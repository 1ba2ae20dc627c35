"""README, book and conclusion say the same of what was found: what the ledger holds."""

import re

from dcnas.paths import notebooks_dir, root
from dcnas.study.claims import WORDS, counts
from dcnas.study.readme import answer_markdown, read_ledger, verdicts_line

README = (root() / "README.md").read_text()
LEDGER = read_ledger()
BUDGET_PCT = LEDGER["images (% of the paper's)"].astype(float)


def test_every_claim_has_one_of_the_five_words_and_its_reason():
    assert len(LEDGER) == 27 and set(LEDGER["verdict"]) <= set(WORDS) and LEDGER["why"].notna().all()
    assert not ((BUDGET_PCT < 10) & LEDGER["verdict"].str.startswith("contradicted")).any()


def test_readme_book_and_conclusion_have_the_answer_of_the_ledger():
    top, said = README.split("## Two commands")[0], counts(LEDGER["verdict"])
    assert answer_markdown() in top and said in top and "figures/section_5_glance.png" in top
    assert verdicts_line() in README
    index = (notebooks_dir() / "index.md").read_text()
    assert "{include} ../README.md" in index and ':end-before: "## Two commands"' in index
    assert said in (notebooks_dir() / "05_conclusion.ipynb").read_text()


def test_no_number_stands_in_the_readme_s_answer_that_the_ledger_lacks():
    numbers = re.findall(r"\d+\.\d+", answer_markdown())
    known = [*LEDGER["paper"].astype(float).abs(), *LEDGER["ours"].astype(float).abs(), *BUDGET_PCT]
    assert numbers and all(any(abs(float(n) - value) < 0.051 for value in known) for n in numbers)


def test_the_lengths_of_training_that_the_readme_names_are_those_of_the_ledger():
    words = "published here see 0.5% of the paper's 3,000,000 images, classifiers all of them"
    assert words in " ".join(README.split())
    assert BUDGET_PCT["C06":"C13"].round(1).eq(0.5).all()
    assert BUDGET_PCT[["C01", "C02", "C04", "C05"]].eq(100).all()
