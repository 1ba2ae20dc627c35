"""The one error that users cause, and the one sentence that says what is wrong."""

import difflib
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from .paths import shown


class InputError(ValueError):
    """Bad input. The message is one sentence that names the value and what was expected."""


@contextmanager
def in_file(path: Path) -> Iterator[None]:
    """What goes wrong inside, because of what a file holds, as an `InputError` with its name."""
    try:
        yield
    # errors of JSON, pydantic, pandas and encodings are ValueErrors
    except (ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{shown(path)}: {sentence(error)}") from error


def sentence(error: Exception) -> str:
    """An error as one sentence: of an OSError its file, of pydantic's the first wrong entry."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if hasattr(error, "errors"):
        first, *others = error.errors(include_url=False)
        place, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        more = f" (and {len(others)} more)" if others else ""
        return f"{place}{': ' if place else ''}{reason}{more}"
    kind = "" if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: "
    return kind + textwrap.shorten(str(error), 500, placeholder=" ...")


def close_to(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """Up to `count` of the `known` names that are most like `name`, upper or lower case."""
    lower = {other.lower(): other for other in known}
    return [lower[match] for match in difflib.get_close_matches(name.lower(), lower, count, 0.3)]
