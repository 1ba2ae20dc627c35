"""Files of the study read back; what is wrong with one is a sentence with its name, and what to do about
it.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from .errors import InputError, in_file


def read_json(path: Path, advice: str = "") -> dict:
    """What a JSON file holds."""
    with in_file(path, advice):
        return json.loads(Path(path).read_bytes())


def read_record(path: Path, names: Sequence[str], advice: str = "") -> dict:
    """The JSON object of a file, which must have `names`."""
    record = read_json(path, advice)
    with in_file(path, advice):
        _require(record, names)
    return record


def read_rows(path: Path, columns: Sequence[str] = (), advice: str = "") -> list[dict[str, str]]:
    """The rows of a CSV file as texts."""
    with in_file(path, advice), Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
        _require(rows[0], columns)
    return rows


def numbers(path: Path, rows: Sequence[dict[str, str]], advice: str = "") -> list[dict[str, float]]:
    """The rows of a CSV file as numbers."""
    with in_file(path, advice):
        return [{name: float(value) for name, value in row.items()} for row in rows]


def read_frame(path: Path, columns: Sequence[str] = (), advice: str = ""):
    """A CSV file, or one packed by gzip, as a data frame."""
    import pandas as pd  # here, so that training needs torch alone

    with in_file(path, advice):
        frame = pd.read_csv(path)
        _require(frame, columns)
    return frame


def _require(record, names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in record]:
        raise InputError(f"it lacks {', '.join(missing)}, as files of another version do.")
