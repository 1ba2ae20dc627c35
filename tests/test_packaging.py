"""pyproject.toml, environment.yml and the package itself say the same thing."""

import re
import tomllib
from pathlib import Path

import yaml

import dcnas
from dcnas.data import pictures

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])
BANNED = r"pickle\.loads?\(|allow_pickle=True|weights_only=False|(?<![.\w])(exec|eval)\("
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def normal(requirement: str) -> str:
    """One spelling for one requirement: no spaces, lower-case name with dashes, bounds sorted."""
    pattern = r"([A-Za-z0-9._-]+?)((?:[<>=!~].*)?)"
    name, bounds = re.fullmatch(pattern, requirement.replace(" ", "")).groups()
    return re.sub(r"[-_.]+", "-", name).lower() + ",".join(sorted(filter(None, bounds.split(","))))


def test_environment_yml_has_the_requirements_of_pyproject_and_the_package_itself():
    (pip,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert "-e ." in pip
    theirs = [normal(line) for line in pip if line != "-e ."]
    assert sorted(theirs) == sorted(map(normal, REQUIREMENTS))


def test_every_requirement_has_a_lower_and_an_upper_bound():
    assert not [r for r in REQUIREMENTS if not (">=" in r and "<" in r) or "==" in r]


def test_one_version_of_the_package_and_of_python():
    floor, citation = PROJECT["requires-python"], yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (conda,) = [d for d in CONDA["dependencies"] if isinstance(d, str) and d.startswith("python")]
    assert floor in conda
    assert any(c.endswith(f":: {floor.removeprefix('>=')}") for c in PROJECT["classifiers"])
    assert dcnas.__version__ == PROJECT["version"] == str(citation["version"])


def test_no_line_is_longer_than_105_columns_and_no_module_of_the_library_than_350_lines():
    folders = "lib", "tests", "benchmarks", "examples"
    for path in sum([[*(ROOT / folder).rglob("*.py")] for folder in folders], []):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert max(map(len, lines), default=0) <= 105, path
        assert len(lines) <= 350 or not path.is_relative_to(ROOT / "lib"), path


def test_every_requirement_is_listed_with_its_licence():
    packages, _ = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8").split("| data |")
    rows = re.findall(r"^\| ([\w-]+) \| [^|]+ \| [^|]+ \|$", packages, re.MULTILINE)
    # the first is the head
    assert rows[1:] == [re.match(r"[\w-]+", requirement)[0] for requirement in REQUIREMENTS]


def test_nothing_that_users_bring_is_run():
    """No pickle; and Pillow would hand PostScript to Ghostscript."""
    for path in (ROOT / "lib").rglob("*.py"):
        text = path.read_text()
        assert not re.search(BANNED, text), path
        assert text.count("torch.load(") <= text.count("weights_only=True"), path
    assert "EPS" not in pictures.FORMATS
