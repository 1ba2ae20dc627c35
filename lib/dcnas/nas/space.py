"""The search space of Section 4.1 and Appendix B, as data; TF-NAS's [16] stages, strides, activations.

Supernet, derived networks, keys of the look-up table, FLOPs and drawings all follow from a `Space` and
an `Architecture`. A "layer" is a searchable MBConv block, an "operator" one of its candidates, its
"hidden width" the channels after the expansion.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt

from ..errors import InputError, in_file
from ..paths import write_atomic

FORMAT = 1  # of architecture files
STEM_CHANNELS, SECOND_CHANNELS, SECOND_SE, HEAD_CHANNELS = 32, 16, 8, 1280
STRIDES = (2, 2, 2, 2, 1, 2, 1)  # of the first stem and the six stages [16]
# pixels up to which an image is small: the first stem keeps its size, so that maps have 64, 32, 16, 8,
# 8, 4 and 4
SMALL = 64
MOST_STEP = 16  # so that each operator has a width: the smallest range is 16 to 32
NEAR = 0.15  # of a range of hidden widths, to either side
LEAST_WIDTH = 8  # channels that no multiplier goes below


@dataclass(frozen=True)
class Operator:
    """A candidate MBConv block (Table 7)."""

    kernel: int
    expansion: int
    se: bool = False

    @property
    def name(self) -> str:
        return f"MB-k{self.kernel}-e{self.expansion}" + ("-se" if self.se else "")

    def start_hidden(self, in_channels: int) -> int:
        """The hidden width at the beginning of a search."""
        return self.expansion * in_channels

    def most_hidden(self, in_channels: int) -> int:
        """The largest hidden width, at expansion 4 or 8."""
        return self.expansion * 4 // 3 * in_channels

    def least_hidden(self, in_channels: int) -> int:
        """The smallest hidden width: half of the largest."""
        return self.most_hidden(in_channels) // 2

    def se_hidden(self, in_channels: int) -> int:
        """Channels inside squeeze-and-excitation; 0 without one."""
        return self.expansion // 3 * in_channels if self.se else 0


# in the order of Table 7: the first four, six and eight are its three spaces
OPERATORS = tuple(
    Operator(kernel, expansion, se) for se in (False, True) for kernel in (3, 5) for expansion in (3, 6)
)


@dataclass(frozen=True)
class Stage:
    """Blocks of one width; the first has the stride, which belongs to the space."""

    channels: int
    blocks: int
    activation: str


STAGES = (
    Stage(24, 2, "relu"),
    Stage(40, 3, "swish"),
    Stage(80, 4, "swish"),
    Stage(112, 4, "swish"),
    Stage(192, 4, "swish"),
    Stage(320, 1, "swish"),
)
ENCODER_STAGES = 4  # "the first six stages": both stems and these (Section 4.2)


@dataclass(frozen=True)
class Layer:
    """Where a searchable block stands: what every operator in that place has in common."""

    stage: int  # 0 to 5
    block: int
    in_channels: int
    out_channels: int
    stride: int
    activation: str
    size: int  # of its input map, in pixels
    width_step: int = 1  # of hidden widths

    @property
    def name(self) -> str:
        return f"stage{self.stage + 1}.block{self.block + 1}"

    @property
    def residual(self) -> bool:
        return self.stride == 1 and self.in_channels == self.out_channels

    def hidden_range(self, operator: Operator) -> tuple[int, int]:
        """The smallest and the largest hidden width of an operator here, multiples of the step."""
        least, most = operator.least_hidden(self.in_channels), operator.most_hidden(self.in_channels)
        return -(-least // self.width_step) * self.width_step, most // self.width_step * self.width_step

    def stepped(self, operator: Operator, hidden: float) -> int:
        """The hidden width that an operator may have here nearest to `hidden`."""
        low, high = self.hidden_range(operator)
        return min(max(self.width_step * round(hidden / self.width_step), low), high)


def strides_for(resolution: int, stem: int | None = None) -> tuple[int, ...]:
    """The paper's strides; the first stem has `stem`, or none for small images."""
    return (stem or (1 if resolution <= SMALL else STRIDES[0]), *STRIDES[1:])


@dataclass(frozen=True)
class Space:
    """What can be searched: how many operators, for which input and how many classes.

    `width` multiplies all channels (Table 4's "upscaled", and small studies); results are multiples of
    4, at least 8. `strides` are those of the first stem and of the six stages. Hidden widths are
    multiples of `width_step`, as devices run some of them faster than those between.
    """

    operators: Literal[4, 6, 8] = 4
    resolution: PositiveInt = 224  # pixels, height and width
    classes: PositiveInt = 100
    width: PositiveFloat = 1.0
    strides: tuple[Literal[1, 2], ...] = STRIDES
    width_step: Annotated[int, Field(ge=1, le=MOST_STEP)] = 1

    def __post_init__(self):
        if self.resolution % (multiple := math.prod(self.strides)):
            expected = f"a multiple of {multiple} pixels was expected"
            raise InputError(f"resolution is {self.resolution}, but {expected}.")

    @property
    def candidates(self) -> tuple[Operator, ...]:
        return OPERATORS[: self.operators]

    def channels(self, plain: int) -> int:
        """`plain` channels times the width multiplier."""
        return plain if self.width == 1 else max(LEAST_WIDTH, 4 * round(plain * self.width / 4))

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The searchable layers, first to last."""
        layers, before, size = [], self.channels(SECOND_CHANNELS), self.resolution // self.strides[0]
        for s, stage in enumerate(STAGES):
            for b in range(stage.blocks):
                stride, after = (self.strides[1 + s] if b == 0 else 1), self.channels(stage.channels)
                shape = (before, after, stride, stage.activation, size, self.width_step)
                layers.append(Layer(s, b, *shape))
                before, size = after, size // stride
        return tuple(layers)

    @cached_property
    def stages(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the layers of each stage."""
        numbers = range(len(self.layers))
        return tuple(tuple(i for i in numbers if self.layers[i].stage == s) for s in range(len(STAGES)))


@dataclass(frozen=True)
class Choice:
    """What a derived network has in one layer."""

    operator: Operator
    hidden: int


@dataclass(frozen=True)
class Architecture:
    """A choice for each layer of a space; with learned beta, None leaves out the last of a stage."""

    space: Space
    choices: tuple[Choice | None, ...]

    def to_json(self) -> str:
        """The file that rebuilds the network."""
        space = asdict(self.space)
        for name in ("strides", "width_step"):
            if space[name] == getattr(Space, name):
                del space[name]  # files without them are of the paper's
        lines = []
        for layer, choice in zip(self.space.layers, self.choices, strict=True):
            block = choice and {"operator": choice.operator.name, "hidden": choice.hidden}
            lines.append(json.dumps(block and {"layer": layer.name, **block}))
        layers = ",\n  ".join(lines)
        return f'{{"format": {FORMAT}, "space": {json.dumps(space)}, "layers": [\n  {layers}\n]}}\n'


def random_architecture(space: Space, rng, around: float | None = None) -> Architecture:
    """Operators and hidden widths drawn uniformly, from a `numpy` generator.

    With `around`, 0 for the narrowest to 1 for the widest, hidden widths lie near that place of their
    ranges: uniform ones average out over the layers, so that all such networks take about as long.
    """
    choices = []
    for layer in space.layers:
        operator = space.candidates[rng.integers(space.operators)]
        low, high = (hidden // space.width_step for hidden in layer.hidden_range(operator))
        if around is None:
            hidden = int(rng.integers(low, high + 1))
        else:
            place = min(max(around + rng.uniform(-NEAR, NEAR), 0), 1)
            hidden = low + round(place * (high - low))
        choices.append(Choice(operator, space.width_step * hidden))
    return Architecture(space, tuple(choices))


def widened(architecture: Architecture, width: float) -> Architecture:
    """The same operators and expansion rates in a space whose channels are `width` times as wide."""
    space, choices = replace(architecture.space, width=width), []
    places = zip(architecture.space.layers, space.layers, architecture.choices, strict=True)
    for before, layer, choice in places:
        if choice is not None:
            hidden = choice.hidden / before.in_channels * layer.in_channels
            choice = Choice(choice.operator, layer.stepped(choice.operator, hidden))
        choices.append(choice)
    return Architecture(space, tuple(choices))


def save_architecture(architecture: Architecture, path: Path) -> Path:
    """Write the architecture's JSON file, whole or not at all."""
    return write_atomic(path, architecture.to_json())


class _Block(BaseModel):
    operator: Literal[tuple(operator.name for operator in OPERATORS)]
    hidden: int


class _File(BaseModel):
    """What an architecture's JSON file must hold."""

    format: Literal[FORMAT]
    space: Space
    layers: list[_Block | None]


def load_architecture(path: Path) -> Architecture:
    """The architecture of a JSON file; `InputError` that says what is wrong with any other file."""
    with in_file(path):
        return _architecture(_File.model_validate_json(Path(path).read_bytes()))


def from_record(record: dict) -> Architecture:
    """An architecture from what `to_json` wrote, as a dict; a ValueError for any other dict."""
    return _architecture(_File.model_validate(record))


def _architecture(file: _File) -> Architecture:
    by_name, layers = {operator.name: operator for operator in OPERATORS}, file.space.layers
    if len(file.layers) != len(layers):
        raise InputError(f"it has {len(file.layers)} layers, but its space has {len(layers)}.")
    choices = [block and Choice(by_name[block.operator], block.hidden) for block in file.layers]
    for layer, before, choice in zip(layers, [None, *choices], choices):
        if choice is None and layer.block == 0:
            reason = "but the first block of a stage is always there"
            raise InputError(f"{layer.name} is left out, {reason}.")
        if choice and layer.block and before is None:
            raise InputError(f"{layer.name} is there, but the block before it is left out.")
        if choice and layer.stepped(choice.operator, choice.hidden) != choice.hidden:
            low, high = layer.hidden_range(choice.operator)
            steps = f" in steps of {layer.width_step}" if layer.width_step > 1 else ""
            expected = f"{low} to {high}{steps} were expected"
            raise InputError(f"the hidden width of {layer.name} is {choice.hidden}, but {expected}.")
    return Architecture(file.space, tuple(choices))


def log_size(space: Space) -> float:
    """Decimal logarithm of the number of architectures, widths included: how large the space is."""
    total = 0.0
    for layer in space.layers:
        ranges = (layer.hidden_range(operator) for operator in space.candidates)
        total += math.log10(sum((high - low) // space.width_step + 1 for low, high in ranges))
    return total
