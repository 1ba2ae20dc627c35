"""The look-up table of latencies (Section 4: "a latency look-up table constructed for our device").

A table is a JSON file: how it was measured, a correction, and curves. A curve is the latency of one kind
of block over its hidden width, measured at a few widths and interpolated; a part without a hidden width
(stem, head, decoder) has a single point at 0. The unit is the millisecond everywhere.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, Field, FiniteFloat, NonNegativeInt, PositiveInt

from ..errors import InputError, in_file
from ..paths import write_atomic

FORMAT = 1
Milliseconds = Annotated[FiniteFloat, Field(ge=0)]


@dataclass(frozen=True)
class Curve:
    """Latency over ascending hidden widths: median and quartiles' distance of so many samples, in ms."""

    hidden: tuple[NonNegativeInt, ...]
    median_ms: tuple[Milliseconds, ...]
    spread_ms: tuple[Milliseconds, ...]
    samples: tuple[NonNegativeInt, ...]


@dataclass(frozen=True)
class Conditions:
    """How the latencies of a table were measured; two tables with other conditions do not compare."""

    device: str
    threads: PositiveInt
    batch: PositiveInt
    resolution: PositiveInt
    width: FiniteFloat  # multiplier of all channels
    memory_format: str
    precision: str
    torch_version: str
    date: str
    # of the space; files without them are of the paper's
    strides: tuple[Literal[1, 2], ...] = (2, 2, 2, 2, 1, 2, 1)
    runtime: Literal["pytorch", "onnxruntime"] = "pytorch"
    runtime_version: str = ""  # of ONNX Runtime, and its execution provider
    width_step: PositiveInt = 1  # between hidden widths, of which only the multiples are measured


@dataclass(frozen=True)
class Correction:
    """measured = scale * sum + offset_ms, fitted on whole networks, with the median error on others."""

    scale: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    offset_ms: FiniteFloat = 0.0
    error_pct: FiniteFloat | None = None  # None: not validated


@dataclass(frozen=True)
class Table:
    """A look-up table."""

    conditions: Conditions
    curves: dict[str, Curve]
    correction: Correction = field(default_factory=Correction)

    def part_ms(self, key: str, hidden: int = 0) -> float:
        """Latency of one part, interpolated over its hidden width, before the correction."""
        curve, step = self.curves.get(key), self.conditions.width_step
        if curve is None:
            others = "it is for another space, resolution or decoder"
            raise InputError(f"the look-up table has no entry {key}; {others}.")
        if not curve.hidden[0] <= hidden <= curve.hidden[-1] or hidden % step:
            widths = f"{curve.hidden[0]} to {curve.hidden[-1]}" + f" in steps of {step}" * (step > 1)
            known = f"the look-up table has {key} for widths of {widths}"
            raise InputError(f"{known}, but {hidden} was asked for.")
        return float(np.interp(hidden, curve.hidden, curve.median_ms))

    def total_ms(self, parts: list[tuple[str, int]]) -> float:
        """Latency of a network, given its parts as (key, hidden width): their sum, corrected."""
        return self.corrected(sum(self.part_ms(*part) for part in parts))

    def corrected(self, sum_ms: float) -> float:
        """The latency of a network whose parts sum to `sum_ms`."""
        return self.correction.scale * sum_ms + self.correction.offset_ms

    @property
    def entries(self) -> int:
        """How many latencies the table holds."""
        return sum(len(curve.hidden) for curve in self.curves.values())

    def require(self, **conditions) -> "Table":
        """The table itself, or an `InputError` that names the first condition that is another one."""
        for name, needed in conditions.items():
            if (value := getattr(self.conditions, name)) != needed:
                known = f"the look-up table was measured with {name} = {value}"
                raise InputError(f"{known}, but {needed} was expected; build one for it.")
        return self

    def require_accuracy(self, limit_pct: float) -> "Table":
        """The table itself, or an `InputError` unless its validated error is within the limit."""
        error = self.correction.error_pct
        if error is None:
            raise InputError("the look-up table was never validated; `dcnas lut validate` does that.")
        if error > limit_pct:
            known = f"the look-up table's median error is {error:.1f}%"
            again = "build and validate it again while nothing else runs on the device"
            raise InputError(f"{known}, but at most {limit_pct:g}% was expected; {again}.")
        return self

    def with_correction(self, correction: Correction) -> "Table":
        return replace(self, correction=correction)

    def save(self, path: Path) -> Path:
        """Write the JSON file, whole or not at all; a line per curve."""
        head = {"format": FORMAT, "unit": "ms", "conditions": asdict(self.conditions)}
        head["correction"] = asdict(self.correction)
        curves = sorted(self.curves.items())
        lines = ",\n  ".join(f"{json.dumps(key)}: {json.dumps(asdict(curve))}" for key, curve in curves)
        return write_atomic(path, json.dumps(head)[:-1] + ',\n "curves": {\n  ' + lines + "\n}}\n")


def _over_ascending_widths(curve: Curve) -> Curve:
    sizes = {len(values) for values in asdict(curve).values()}
    if len(sizes) != 1 or not curve.hidden or list(curve.hidden) != sorted(set(curve.hidden)):
        raise ValueError("not a curve over ascending hidden widths")
    return curve


class _File(BaseModel, extra="forbid"):
    """What a table's JSON file must hold."""

    format: Literal[FORMAT]
    unit: Literal["ms"]
    conditions: Conditions
    correction: Correction
    curves: dict[str, Annotated[Curve, AfterValidator(_over_ascending_widths)]]


def load_table(path: Path) -> Table:
    """The table in a JSON file; `InputError` that says what is wrong with any other file."""
    with in_file(path):
        file = _File.model_validate_json(Path(path).read_bytes())
    return Table(file.conditions, file.curves, file.correction)
