"""Files read back: whole, or answered in one sentence that names the file and says what is wrong with it.

This study writes every file wholly or not at all, and ends every CSV file with a newline; one that a copy, a disk or an editor
has cut since then is known by that. A missing file is an OSError, as everywhere.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

from .errors import InputError
from .paths import shown

MOST_BYTES = 50_000_000  # of a file, unpacked: a data frame takes up to ten times as much; the largest published one has 3 million
MOST_COLUMNS = 1_000  # pandas takes minutes to tell hundreds of thousands of equal names apart


def read_json(path: Path, advice: str = ""):
    """What a JSON file holds; `InputError`, which ends in `advice`, if it is damaged or nested too deeply to be read."""
    data = _read(path, advice)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"{shown(path)} is not JSON: {reason}{advice}.") from None


def read_record(path: Path, names: Sequence[str], advice: str = "") -> dict:
    """The JSON object of a file, which must have `names`; `InputError` for any other file."""
    record = read_json(path, advice)
    if not isinstance(record, dict):
        raise InputError(f"{shown(path)} holds a {type(record).__name__} instead of a JSON object{advice}.")
    if missing := [name for name in names if name not in record]:
        raise InputError(f"{shown(path)} lacks {', '.join(missing)}, as records of another version do{advice}.")
    return record


def read_rows(path: Path, columns: Sequence[str] = (), advice: str = "") -> list[dict[str, str]]:
    """The rows of a CSV file, at least one, as text (read without pandas); `InputError` if it is damaged or lacks `columns`."""
    data = _read(path, advice)
    try:
        with io.StringIO(_whole(data).decode(), newline="") as text:
            reader = csv.DictReader(text, strict=True)
            rows = list(reader)
        if not rows or any(None in row or None in row.values() for row in rows):
            raise ValueError("no rows, or rows of different lengths")
    except (ValueError, csv.Error) as error:
        raise InputError(f"{shown(path)} is not a sound CSV file ({error}){advice}.") from None
    if missing := [name for name in columns if name not in rows[0]]:
        raise InputError(f"{shown(path)} lacks the columns {', '.join(missing)}, as files of another version do{advice}.")
    return rows


def read_frame(path: Path, columns: Sequence[str] = (), advice: str = ""):
    """A CSV file, or one packed by gzip, as a data frame with rows; `InputError` if it is damaged or lacks `columns`."""
    import pandas as pd  # here, so that training needs torch alone

    try:
        data = _whole(_read(path, advice))
        if (count := 1 + data[: data.index(b"\n")].count(b",")) > MOST_COLUMNS:
            raise ValueError(f"{count:,} columns, where at most {MOST_COLUMNS:,} were expected")
        frame = pd.read_csv(io.BytesIO(data))
        if frame.empty:
            raise ValueError("no rows")
    except InputError:  # which is a ValueError, too
        raise
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:  # pandas' own errors are ValueErrors
        raise InputError(f"{shown(path)} is not a sound CSV file ({' '.join(str(error).split())}){advice}.") from None
    if missing := [name for name in columns if name not in frame]:
        raise InputError(f"{shown(path)} lacks the columns {', '.join(missing)}, as files of another version do{advice}.")
    return frame


def numbers(path: Path, rows: Sequence[dict[str, str]], advice: str = "") -> list[dict[str, float]]:
    """The rows of a CSV file as numbers; `InputError` if one is none."""
    try:
        return [{name: float(value) for name, value in row.items()} for row in rows]
    except ValueError as error:
        raise InputError(f"{shown(path)} is not a sound CSV file ({error}){advice}.") from None


def _read(path: Path, advice: str) -> bytes:
    """The bytes of a file, unpacked where gzip packed it; `InputError` if they are more than `MOST_BYTES`."""
    with (gzip.open if Path(path).suffix == ".gz" else open)(path, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise InputError(
            f"{shown(path)} holds more than the {MOST_BYTES / 1e6:.0f} million bytes that were expected at most{advice}."
        )
    return data


def _whole(data: bytes) -> bytes:
    """`data` if it ends as a CSV file of this study does."""
    if not data.endswith(b"\n"):
        raise ValueError("it is empty" if not data else "it does not end in a newline: cut short")
    return data
