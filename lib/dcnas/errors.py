"""The one error that users cause, and the one sentence that says what is wrong with an option or a file
of theirs.
"""

import difflib
import math
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from .paths import shown

LONGEST = 120  # characters of a value in a message
LONGEST_SENTENCE = 500


class InputError(ValueError):
    """Bad input. The message is one sentence that names the value and what was expected."""


@contextmanager
def in_file(path: Path, advice: str = "") -> Iterator[None]:
    """What goes wrong inside because of what a user's file holds, as an `InputError` that begins with
    the file's name.
    """
    try:
        yield
    # errors of JSON, pydantic, pandas and encodings are ValueErrors
    except (ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{shown(path)}: {sentence(error)}{advice}") from error


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
    return kind + textwrap.shorten(str(error), LONGEST_SENTENCE, placeholder=" ...")


def spelled(value) -> str:
    """`value` for a message: cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python spells no whole number of more than 4,300 digits
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def close_to(name: str, known: Iterable[str], count: int = 1, least: float = 0.6) -> list[str]:
    """Up to `count` of the `known` names that are most like `name`, at least `least` of 1, whatever the
    case of their letters.
    """
    spelt = {other.lower(): other for other in known}
    return [spelt[found] for found in difflib.get_close_matches(name.lower(), spelt, count, least)]


def is_finite(value) -> bool:
    """Whether `value` is a number that is finite as a float."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def require_whole(name: str, value, minimum: int = 1, maximum: int | None = None) -> int:
    """`value` as an int from `minimum` to `maximum`, or an `InputError` that names it."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < minimum
        or (maximum is not None and value > maximum)
    ):
        wanted = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise InputError(f"{name} is {spelled(value)}, but a whole number {wanted} was expected.")
    return value


def require_finite(name: str, value, minimum: float = 0.0, maximum: float = math.inf) -> float:
    """`value` as a finite float from `minimum` to `maximum`, or an `InputError` that names it."""
    if not is_finite(value) or not minimum <= value <= maximum:
        wanted = (
            f"of at least {minimum:g}" if maximum == math.inf else f"from {minimum:g} to {maximum:g}"
        )
        raise InputError(f"{name} is {spelled(value)}, but a finite number {wanted} was expected.")
    return float(value)


def require_choice(name: str, value, choices) -> str:
    """`value` if it is one of `choices`, else an `InputError` that lists them."""
    if value not in tuple(choices):  # a tuple, so that what cannot be hashed is answered too
        raise InputError(
            f"{name} is {spelled(value)}, but one of {', '.join(map(str, choices))} was expected."
        )
    return value
