"""The one error that users cause: told in a single clear sentence, never as a traceback by the command line."""

import math


class InputError(ValueError):
    """Bad input. The message is one sentence that names the value and what was expected."""


def require_whole(name: str, value, minimum: int = 1) -> int:
    """`value` as an int of at least `minimum`, or an `InputError` that names it."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise InputError(f"{name} is {value!r}, but a whole number of at least {minimum} was expected.")
    return value


def require_finite(name: str, value, minimum: float = 0.0) -> float:
    """`value` as a finite float of at least `minimum`, or an `InputError` that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < minimum:
        raise InputError(f"{name} is {value!r}, but a finite number of at least {minimum:g} was expected.")
    return float(value)


def require_choice(name: str, value, choices) -> str:
    """`value` if it is one of `choices`, else an `InputError` that lists them."""
    if value not in choices:
        raise InputError(f"{name} is {value!r}, but one of {', '.join(map(str, choices))} was expected.")
    return value
