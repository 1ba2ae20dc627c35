"""Files read back: whole, or answered in one sentence that names the file and says what is wrong with it.

This study writes every file wholly or not at all, and ends every CSV file with a newline; one that a copy, a disk or an editor
has cut since then is known by that. A missing file is an OSError, as everywhere.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .errors import InputError, is_finite, spelled
from .paths import shown

MOST_BYTES = 50_000_000  # of a file, unpacked: a data frame takes up to ten times as much; the largest published one has 3 million
MOST_COLUMNS = 1_000  # pandas takes minutes to tell hundreds of thousands of equal names apart


class Kind(NamedTuple):
    """What an entry of a file may be: how a message calls it, and which values are it."""

    text: str
    accepts: Callable[[object], bool]

    @property
    def or_empty(self) -> "Kind":
        """This kind, or the empty cell of a CSV file, which pandas reads as not a number."""
        return Kind(f"{self.text} or nothing", lambda value: value != value or self.accepts(value))

    @property
    def or_none(self) -> "Kind":
        """This kind, or JSON's null."""
        return Kind(f"{self.text} or null", lambda value: value is None or self.accepts(value))


Kinds = Mapping[str, "Kind | Kinds"]  # by name; of the entries of an object inside by their names in turn

TEXT = Kind("a text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a finite number", is_finite)
WHOLE = Kind("a whole number", lambda value: isinstance(value, int) and is_finite(value))
COUNT = Kind("a whole number of at least 0", lambda value: isinstance(value, int) and is_finite(value) and value >= 0)
SCORE = Kind("a number", lambda value: isinstance(value, float) or is_finite(value))  # a PSNR may be infinite


def one_of(choices: Sequence[str]) -> Kind:
    """The kind that is one of some texts."""
    return Kind(f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices)


def read_json(path: Path, advice: str = ""):
    """What a JSON file holds; `InputError`, which ends in `advice`, if it is damaged or nested too deeply to be read."""
    data = _read(path, advice)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"{shown(path)} is not JSON: {reason}{advice}.") from None


def read_record(path: Path, names: Sequence[str] | Kinds, advice: str = "") -> dict:
    """The JSON object of a file, which must have `names`, of the kinds that they have there; `InputError` for any other file."""
    record = read_json(path, advice)
    if not isinstance(record, dict):
        raise InputError(f"{shown(path)} holds a {type(record).__name__} instead of a JSON object{advice}.")
    if missing := [name for name in names if name not in record]:
        raise InputError(f"{shown(path)} lacks {', '.join(missing)}, as records of another version do{advice}.")
    if isinstance(names, Mapping):
        require_kinds(path, record, names, advice=advice)
    return record


def require_kinds(path: Path, record: dict, kinds: Kinds, within: str = "", advice: str = "") -> None:
    """`InputError` that names the first entry of a file's `record` that is missing or of another kind.

    `within`: what leads to an object inside the file, as "conditions.".
    """
    for name, kind in kinds.items():
        if name not in record:
            raise InputError(f"{shown(path)} lacks {within}{name}, as records of another version do{advice}.")
        value, inside = record[name], not isinstance(kind, Kind)
        if not (isinstance(value, dict) if inside else kind.accepts(value)):
            wanted = "a JSON object" if inside else kind.text
            raise InputError(f"{within}{name} in {shown(path)} is {spelled(value)}, but {wanted} was expected{advice}.")
        if inside:
            require_kinds(path, value, kind, f"{within}{name}.", advice)


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


def require_columns(path: Path, frame, kinds: Mapping[str, Kind], advice: str = "") -> None:
    """`InputError` that names a cell of a file's `frame` that is of another kind than its column; columns may be missing."""
    for name, kind in kinds.items():
        values = map(_plain, frame[name].unique().tolist() if name in frame else ())
        if wrong := [value for value in values if not kind.accepts(value)]:
            value = next((value for value in wrong if not kind.accepts(_number(value))), wrong[0])
            found = "empty" if value != value else spelled(value)
            raise InputError(f"{name} in {shown(path)} is {found} somewhere, but {kind.text} was expected{advice}.")


def _plain(value):
    """A cell's value; whole numbers beside an empty cell, which pandas makes floats, as whole numbers again."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(value):
    """What a cell would be if not another one of its column had made texts of all."""
    try:
        return _plain(float(value)) if isinstance(value, str) else value
    except ValueError:
        return value


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
