"""pyproject.toml, environment.yml and the package itself say the same thing."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import dcnas

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [
    *PROJECT["dependencies"],
    *(line for part in PROJECT["optional-dependencies"].values() for line in part),
]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def normal(requirement: str) -> str:
    """One spelling for one requirement: no spaces, lower-case name with dashes, bounds sorted."""
    name, bounds = re.fullmatch(
        r"([A-Za-z0-9._-]+?)((?:[<>=!~].*)?)", requirement.replace(" ", "")
    ).groups()
    return re.sub(r"[-_.]+", "-", name).lower() + ",".join(sorted(filter(None, bounds.split(","))))


def test_environment_yml_has_the_requirements_of_pyproject_and_the_package_itself():
    (pip,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert "-e ." in pip
    theirs = [normal(line) for line in pip if line != "-e ."]
    assert sorted(theirs) == sorted(map(normal, REQUIREMENTS))


def test_every_requirement_has_a_lower_and_an_upper_bound():
    for requirement in REQUIREMENTS:
        assert ">=" in requirement and "<" in requirement and "==" not in requirement, requirement


def test_one_python_floor():
    floor = PROJECT["requires-python"]
    (conda,) = [d for d in CONDA["dependencies"] if isinstance(d, str) and d.startswith("python")]
    assert floor in conda
    assert any(c.endswith(f":: {floor.removeprefix('>=')}") for c in PROJECT["classifiers"])


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert dcnas.__version__ == PROJECT["version"] == str(citation["version"])


@pytest.mark.parametrize("folder", ["lib", "tests", "benchmarks"])
def test_no_line_is_longer_than_105_columns(folder):
    files = {
        path: path.read_text(encoding="utf-8").splitlines() for path in (ROOT / folder).rglob("*.py")
    }
    assert files
    assert not [(path.name, line) for path, lines in files.items() for line in lines if len(line) > 105]


def test_every_requirement_is_listed_with_its_licence():
    packages, _ = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8").split("| data |")
    rows = re.findall(r"^\| ([\w-]+) \| [^|]+ \| [^|]+ \|$", packages, re.MULTILINE)
    # the first is the head
    assert rows[1:] == [re.match(r"[\w-]+", requirement)[0] for requirement in REQUIREMENTS]
