"""The look-up table of latencies (Section 4: "a latency look-up table constructed for our device").

A table is a JSON file: how it was measured, a correction, and curves. A curve is the latency of one kind of block over its hidden
width, measured at a few widths and interpolated; a part without a hidden width (stem, head, decoder) has a single point at 0.
The unit is the millisecond everywhere. A missing, negative or non-finite entry is an error, when a file is read and at look-up.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import InputError, is_finite, require_finite, require_whole, spelled
from ..paths import shown, write_atomic
from ..reading import read_json

FORMAT = 1
AGAIN = "Build and validate it again while nothing else runs on the device."
MOST_MS = 1e9  # eleven days: larger numbers are no latencies, and their sums no finite floats


@dataclass(frozen=True)
class Curve:
    """Latency over hidden width: widths ascending, median and interquartile range of the samples in ms, and their number."""

    hidden: tuple[int, ...]
    median_ms: tuple[float, ...]
    spread_ms: tuple[float, ...]
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Conditions:
    """How the latencies of a table were measured; two tables with other conditions do not compare."""

    device: str
    threads: int
    batch: int
    resolution: int
    width: float  # multiplier of all channels
    memory_format: str
    precision: str
    torch_version: str
    date: str
    strides: tuple[int, ...] = (2, 2, 2, 2, 1, 2, 1)  # of the space; files without them are of the paper's

    def __post_init__(self):
        object.__setattr__(self, "strides", tuple(self.strides))
        if not self.strides or not all(isinstance(s, int) and s in (1, 2) for s in self.strides):
            raise InputError(f"the look-up table's strides are {spelled(self.strides)}, but numbers of 1 or 2 were expected.")
        for name, minimum in (("threads", 1), ("batch", 1), ("resolution", 1)):
            require_whole(f"the look-up table's {name}", getattr(self, name), minimum)
        require_finite("the look-up table's width", self.width)
        for name in ("device", "memory_format", "precision", "torch_version", "date"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"the look-up table's {name} is {spelled(getattr(self, name))}, but a text was expected.")


@dataclass(frozen=True)
class Correction:
    """measured = scale * sum + offset_ms, fitted on whole networks; `error_pct` is its median absolute error on others."""

    scale: float = 1.0
    offset_ms: float = 0.0
    error_pct: float | None = None  # None: not validated


@dataclass(frozen=True)
class Table:
    """A look-up table."""

    conditions: Conditions
    curves: dict[str, Curve]
    correction: Correction = field(default_factory=Correction)

    def __post_init__(self):
        for key, curve in self.curves.items():
            _check(key, curve)
        c = self.correction
        if not (is_finite(c.scale) and 0 < c.scale < MOST_MS and is_finite(c.offset_ms) and abs(c.offset_ms) < MOST_MS):
            raise InputError(
                f"the look-up table's correction is {spelled(c.scale)} times the sum + {spelled(c.offset_ms)} ms, which is none."
            )
        if c.error_pct is not None and not (is_finite(c.error_pct) and c.error_pct >= 0):
            raise InputError(f"the look-up table's validated error is {spelled(c.error_pct)} %, which is none.")

    def part_ms(self, key: str, hidden: int = 0) -> float:
        """Latency of one part, interpolated over its hidden width, before the correction."""
        curve = self._curve(key)
        if not curve.hidden[0] <= hidden <= curve.hidden[-1]:
            raise InputError(
                f"the look-up table has {key} for widths of {curve.hidden[0]} to {curve.hidden[-1]}, but {hidden} was asked for."
            )
        return float(np.interp(hidden, curve.hidden, curve.median_ms))

    def total_ms(self, parts: list[tuple[str, int]]) -> float:
        """Latency of a network, given its parts as (key, hidden width): their sum, corrected."""
        return self.corrected(sum(self.part_ms(*part) for part in parts))

    def corrected(self, sum_ms: float) -> float:
        """The latency of a network whose parts sum to `sum_ms`."""
        return self.correction.scale * sum_ms + self.correction.offset_ms

    def _curve(self, key: str) -> Curve:
        if key not in self.curves:
            raise InputError(f"the look-up table has no entry {key}; it was measured for another space, resolution or decoder.")
        return self.curves[key]

    @property
    def entries(self) -> int:
        """How many latencies the table holds."""
        return sum(len(curve.hidden) for curve in self.curves.values())

    def require(self, **conditions) -> "Table":
        """The table itself, or an `InputError` that names the first condition in which it differs from what is needed."""
        for name, wanted in conditions.items():
            found = getattr(self.conditions, name)
            if found != wanted:
                raise InputError(
                    f"the look-up table was measured with {name} = {found}, but {wanted} was expected; build one for it."
                )
        return self

    def require_accuracy(self, limit_pct: float) -> "Table":
        """The table itself, or an `InputError` if its validated error exceeds the limit or it was never validated."""
        error = self.correction.error_pct
        if error is None:
            raise InputError("the look-up table was never validated; `dcnas lut validate` does that.")
        if error > limit_pct:
            raise InputError(f"the look-up table's median error is {error:.1f}%, but at most {limit_pct:g}% was expected. {AGAIN}")
        return self

    def with_correction(self, correction: Correction) -> "Table":
        return replace(self, correction=correction)

    def save(self, path: Path) -> Path:
        """Write the JSON file, whole or not at all; a line per curve."""
        head = {"format": FORMAT, "unit": "ms", "conditions": asdict(self.conditions), "correction": asdict(self.correction)}
        lines = ",\n  ".join(f"{json.dumps(key)}: {json.dumps(asdict(curve))}" for key, curve in sorted(self.curves.items()))
        return write_atomic(path, json.dumps(head)[:-1] + ',\n "curves": {\n  ' + lines + "\n}}\n")


def _check(key: str, curve: Curve) -> None:
    sizes = {len(values) for values in asdict(curve).values()}
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**31 for n in (*curve.hidden, *curve.samples))
    if len(sizes) != 1 or not curve.hidden or not whole or list(curve.hidden) != sorted(set(curve.hidden)):
        raise InputError(f"the look-up table's entry {spelled(key)} is not a curve over ascending hidden widths.")
    for values in (curve.median_ms, curve.spread_ms):
        for hidden, value in zip(curve.hidden, values, strict=True):
            if not is_finite(value) or not 0 <= value < MOST_MS:
                raise InputError(
                    f"the look-up table says {spelled(value)} ms for {spelled(key)} at hidden width {hidden}, which is no latency."
                )


def load_table(path: Path) -> Table:
    """The table in a JSON file; `InputError` that says what is wrong with any other file, or what makes one where none is."""
    try:
        record = read_json(path)
        if record["format"] != FORMAT or record["unit"] != "ms":
            found = f"{spelled(record['format'])} in {spelled(record['unit'])}"
            raise InputError(f"its format is {found}, but {FORMAT} in 'ms' was expected.")
        curves = {key: Curve(**{name: tuple(values) for name, values in curve.items()}) for key, curve in record["curves"].items()}
        return Table(Conditions(**record["conditions"]), curves, Correction(**record["correction"]))
    except FileNotFoundError:
        raise InputError(f"{shown(path)} does not exist; `dcnas lut build --out {shown(path)}` makes such a table.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error if isinstance(error, InputError) else f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(f"{shown(path)} is not a look-up table of this study: {reason}") from None
