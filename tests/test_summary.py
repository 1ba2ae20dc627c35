"""The README's table is generated, and up to date."""

from dcnas.paths import root
from dcnas.study import summary


def test_the_readme_says_what_is_published():
    assert summary.write_readme(check=True), "README.md is behind the published results: run `dcnas readme`"


def test_a_line_holds_the_paper_s_number_and_ours():
    line = summary._row("PSNR", 25.04, summary.Interval(24.96, 24.0, 25.9), 1, "x")
    assert line == {"quantity": "PSNR", "paper": "25.0", "ours": "25.0 (24.0 to 25.9)", "shown in": "x"}
    assert summary._row("FLOPs", 1.0, summary.Interval(1.0, 1.0, 1.0), 1, "x")["ours"] == "1.0"  # exact


def test_section_4_stands_there_as_differences():
    lines = summary.section4_rows()
    assert len(lines) == 6 and all(" minus " in line["quantity"] for line in lines)
    for line in lines:
        link = line["shown in"].split("(")[1].rstrip(")")
        assert (root() / link).exists()
