"""From alphas to networks (Section 4.1): the argmax fitted to a target latency, or the best architecture
for any target at all.

The table is additive, so the second is a multiple-choice knapsack and is solved exactly on a fine grid
of milliseconds: each layer takes one (operator, hidden width), the sum of latencies stays within the
target, and the sum of values is largest. The value of an operator is its log alpha, so that of an
architecture is its log-probability; width counts a little, so that time left over is spent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from ..latency.table import Table
from .lut import key_of, parts, predicted_ms
from .space import ENCODER_STAGES, Architecture, Choice, Layer, Operator, Space

WIDTH_STEPS = 9  # hidden widths per operator in the knapsack, from the smallest to the largest
WIDTH_VALUE = 0.1  # value of a doubled hidden width, in units of log alpha
BINS = 4000  # milliseconds are rounded up to the range of latencies divided by this
TOLERANCE_PCT = 2.0  # a measured latency may differ by so much from its target
FIT_PCT = 0.5  # and a prediction from what is asked for, before operators are changed


def argmax_architecture(
    space: Space,
    alphas: Sequence[np.ndarray],
    hidden: Sequence[Sequence[int]],
    depths: Sequence[int] | None = None,
) -> Architecture:
    """Each layer's most probable operator at its hidden width; of a stage the first `depths[stage]`
    blocks."""
    best = [int(np.argmax(alpha)) for alpha in alphas]
    choices = [Choice(space.candidates[n], int(widths[n])) for n, widths in zip(best, hidden)]
    for stage, depth in zip(space.stages, depths or ()):
        for i in stage[depth:]:
            choices[i] = None
    return Architecture(space, tuple(choices))


def _moved(architecture: Architecture, layers: Sequence[int], steps: int) -> Architecture:
    """The hidden widths of `layers` moved by `steps`, wider ones in proportion more, within their
    ranges."""
    space, choices = architecture.space, list(architecture.choices)
    present = [i for i in layers if choices[i] is not None]
    if not present:
        return architecture
    least = min(choices[i].hidden for i in present)
    for i in present:
        hidden = choices[i].hidden + space.width_step * steps * round(choices[i].hidden / least)
        choices[i] = replace(choices[i], hidden=space.layers[i].stepped(choices[i].operator, hidden))
    return Architecture(space, tuple(choices))


def fit_widths(
    architecture: Architecture, target_ms: float, latency_ms: Callable[[Architecture], float]
) -> Architecture:
    """Elasticity scaling of [16]: hidden widths shrunk to the target, then widened while it is kept.

    Widening begins with all stages and goes on with the later ones alone. The operators stay. In steps
    of more than one channel, which leave more time, each layer is widened by itself as well, the last
    ones first.
    """
    space = architecture.space
    if latency_ms(architecture) > target_ms:
        layers = range(len(space.layers))
        steps = _steps_until(architecture, layers, -1, lambda a: latency_ms(a) <= target_ms)
        architecture = _moved(architecture, layers, -steps)
    groups = [[i for stage in space.stages[n:] for i in stage] for n in range(len(space.stages))]
    if space.width_step > 1:
        groups += [[i] for i in reversed(range(len(space.layers))) if architecture.choices[i]]
    for layers in groups:
        steps = _steps_until(architecture, layers, 1, lambda a: latency_ms(a) > target_ms)
        architecture = _moved(architecture, layers, steps - 1)
    return architecture


def _steps_until(
    architecture: Architecture, layers: Sequence[int], sign: int, reached: Callable[[Architecture], bool]
) -> int:
    """The least number of steps of `_moved` until it is `reached`; beyond all ranges if it never is."""
    low, high, limit = 0, 1, 8 * max(layer.in_channels for layer in architecture.space.layers)
    while high < limit and not reached(_moved(architecture, layers, sign * high)):
        low, high = high, 2 * high
    while high - low > 1:  # latency grows with width, so it is reached once and for all
        middle = (low + high) // 2
        there = reached(_moved(architecture, layers, sign * middle))
        low, high = (low, middle) if there else (middle, high)
    return high


@dataclass(frozen=True)
class Frontier:
    """The best architecture for every target, computed once, so that a slider has it at once."""

    space: Space
    table: Table
    network: str
    decoder: str
    options: tuple[tuple[Choice, ...], ...]  # per layer
    values: np.ndarray  # (layers + 1, bins): best value of the first layers within so many bins
    picks: np.ndarray  # (layers, bins): the option of each layer that gives it
    costs: tuple[np.ndarray, ...]  # per layer, in bins
    bin_ms: float
    base_ms: float  # latency of everything but the searchable layers, in ms before the correction

    @property
    def range_ms(self) -> tuple[float, float]:
        """Smallest and largest latency of the space."""
        low = self.base_ms + self.bin_ms * sum(float(c.min()) for c in self.costs)
        high = self.base_ms + self.bin_ms * sum(float(c.max()) for c in self.costs)
        return self.table.corrected(low), self.table.corrected(high)

    def best(self, target_ms: float) -> Architecture:
        """The architecture of the largest value within the target; `InputError` for one out of reach."""
        correction = self.table.correction
        blocks_ms = (target_ms - correction.offset_ms) / correction.scale - self.base_ms
        budget = min(int(blocks_ms / self.bin_ms + 1e-9), self.values.shape[1] - 1)
        low, high = self.range_ms
        if budget < 0 or not np.isfinite(self.values[-1, budget]) or target_ms > high:
            reach = f"this space and table reach {low:.2f} to {high:.2f} ms"
            raise InputError(f"target_ms is {target_ms:g}, but {reach}.")
        choices = []
        for i in reversed(range(len(self.options))):
            pick = self.picks[i, budget]
            choices.append(self.options[i][pick])
            budget -= int(self.costs[i][pick])
        return Architecture(self.space, tuple(reversed(choices)))

    def latency_ms(self, architecture: Architecture) -> float:
        """The table's latency of an architecture as the network this frontier is for."""
        return predicted_ms(self.table, architecture, self.network, self.decoder)


def knapsack(costs: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One option of each group, for all budgets: whole-number costs within it, the largest sum of
    values.

    Best values (groups + 1, budgets) of the first groups, -inf where nothing fits, and picks (groups,
    budgets) that lead to them.
    """
    size = sum(int(c.max()) for c in costs) + 1
    best, picks = np.full((len(costs) + 1, size), -np.inf), np.zeros((len(costs), size), dtype=np.int16)
    best[0] = 0.0
    for i, options in enumerate(zip(costs, values, strict=True)):
        for n, (cost, value) in enumerate(zip(*options, strict=True)):
            candidate = best[i, : size - cost] + value
            better = candidate > best[i + 1, cost:]
            best[i + 1, cost:][better] = candidate[better]
            picks[i, cost:][better] = n
    return best, picks


def frontier(
    space: Space,
    table: Table,
    alphas: Sequence[np.ndarray],
    network: str = "C-NAS",
    decoder: str = "conv",
    bins: int = BINS,
) -> Frontier:
    """Solve the knapsack for all targets at once by dynamic programming over layers and milliseconds.

    `alphas`: per layer the log-probabilities of its operators. In DC-NAS_seq a layer of the encoder runs
    twice and costs so; D-NAS has the layers of the encoder alone: of the others the most probable
    operator, for nothing.
    """
    options, costs_ms, values = [], [], []
    for layer, alpha in zip(space.layers, alphas, strict=True):
        in_encoder = layer.stage < ENCODER_STAGES
        if network == "D-NAS" and not in_encoder:
            operator = space.candidates[int(np.argmax(alpha))]
            choices, worth = (
                [Choice(operator, layer.stepped(operator, operator.start_hidden(layer.in_channels)))],
                [0.0],
            )
            times = 0
        else:
            choices, worth = _valued(layer, space.candidates, alpha)
            times = 2 if network == "DC-NAS_seq" and in_encoder else 1
        parts_ms = [table.part_ms(key_of(layer, c.operator), c.hidden) for c in choices]
        costs_ms.append(times * np.array(parts_ms))
        options.append(tuple(choices))
        values.append(np.array(worth))
    example = Architecture(space, tuple(o[0] for o in options))
    example_ms = sum(table.part_ms(*part) for part in parts(example, network, decoder))
    fixed = example_ms - sum(c[0] for c in costs_ms)
    bin_ms = sum(c.max() for c in costs_ms) / bins
    # rounded up: what fits the grid fits the target
    costs = tuple(np.ceil(c / bin_ms - 1e-9).astype(int) for c in costs_ms)
    best, picks = knapsack(costs, values)
    return Frontier(
        space, table, network, decoder, tuple(options), best, picks, costs, float(bin_ms), float(fixed)
    )


def _valued(
    layer: Layer, operators: Sequence[Operator], alpha: np.ndarray
) -> tuple[list[Choice], list[float]]:
    """The choices of a layer and their values."""
    choices, values = [], []
    for operator, log_alpha in zip(operators, alpha, strict=True):
        widths = np.linspace(*layer.hidden_range(operator), WIDTH_STEPS)
        for hidden in np.unique([layer.stepped(operator, width) for width in widths]):
            choices.append(Choice(operator, int(hidden)))
            values.append(float(log_alpha) + WIDTH_VALUE * np.log2(hidden / layer.in_channels))
    return choices, values


def repair(
    starts: Mapping[str, Architecture],
    targets_ms: Mapping[str, float],
    predict_ms: Mapping[str, Callable[[Architecture], float]],
    measure_ms: Callable[[Mapping[str, Architecture]], Mapping[str, tuple[float, float]]],
    *,
    attempts: int = 8,
    tolerance_pct: float = TOLERANCE_PCT,
) -> tuple[dict[str, Architecture], dict[str, list[dict]]]:
    """Change widths until each network's *measured* latency is within the tolerance of its target, or
    within the noise.

    `measure_ms(architectures)` measures all of them side by side: medians and their uncertainties in ms.
    What counts is the mean of all measurements of an architecture. A network that misses is fitted to
    the latency that `predict_ms` must be given for the measurement to come out right, and then all are
    measured anew. Of a network that never meets its target the closest attempt is returned. With a row
    per network and measurement.
    """
    now, rows = dict(starts), {name: [] for name in starts}
    tried: dict[str, dict[Architecture, list[float]]] = {name: {} for name in starts}
    for attempt in range(attempts + 1):
        missed = False
        for name, (measured_ms, noise_ms) in measure_ms(now).items():
            target_ms, predict, known = targets_ms[name], predict_ms[name], tried[name]
            row = {"attempt": attempt, "predicted_ms": predict(now[name]), "measured_ms": measured_ms}
            rows[name].append(
                row | {"noise_ms": noise_ms, "error_pct": 100 * (measured_ms / target_ms - 1)}
            )
            known.setdefault(now[name], []).append(measured_ms)
            mean_ms = {architecture: float(np.mean(times)) for architecture, times in known.items()}
            if abs(mean_ms[now[name]] - target_ms) > max(tolerance_pct / 100 * target_ms, noise_ms):
                pairs = [(predict(architecture), ms) for architecture, ms in mean_ms.items()]
                changed = _towards(now[name], _ask_ms(pairs, target_ms), predict)
                missed |= changed not in known
                now[name] = _closest(mean_ms, target_ms) if changed in known else changed
        if not missed:
            break
    means = {
        name: {a: float(np.mean(times)) for a, times in known.items()} for name, known in tried.items()
    }
    return {name: _closest(mean_ms, targets_ms[name]) for name, mean_ms in means.items()}, rows


def _closest(latency_ms: Mapping[Architecture, float], target_ms: float) -> Architecture:
    return min(latency_ms, key=lambda architecture: abs(latency_ms[architecture] - target_ms))


def _ask_ms(known: Sequence[tuple[float, float]], target_ms: float) -> float:
    """The prediction to ask for, given pairs of predicted and measured latency: between the two that
    enclose the target.

    Where none do, the closest pair's ratio is taken to hold. A ratio alone would go to and fro where a
    little width costs a lot, as it does on CPUs whose kernels like some multiples of channels.
    """
    below = max((pair for pair in known if pair[1] < target_ms), default=None)
    above = min((pair for pair in known if pair[1] > target_ms), default=None)
    if below is None or above is None or below[0] >= above[0]:
        predicted, measured = min(known, key=lambda pair: abs(pair[1] - target_ms))
        return predicted * target_ms / measured
    return below[0] + (target_ms - below[1]) / (above[1] - below[1]) * (above[0] - below[0])


def _towards(
    architecture: Architecture, ask_ms: float, latency_ms: Callable[[Architecture], float]
) -> Architecture:
    """The widths fitted to what is asked; where they cannot reach it, one operator after the other is
    changed as well."""
    architecture = fit_widths(architecture, ask_ms, latency_ms)
    while abs(latency_ms(architecture) / ask_ms - 1) > FIT_PCT / 100:
        changed = _closest_operator_change(architecture, ask_ms, latency_ms)
        if changed == architecture:
            break
        architecture = changed
    return architecture


def _closest_operator_change(
    architecture: Architecture, ask_ms: float, latency_ms: Callable[[Architecture], float]
) -> Architecture:
    """Of all changes of one operator, the one whose latency comes closest to what is asked, if it comes
    closer at all."""
    best, gap_ms = architecture, abs(latency_ms(architecture) - ask_ms)
    for i, layer in enumerate(architecture.space.layers):
        for operator in architecture.space.candidates if architecture.choices[i] else ():
            for hidden in layer.hidden_range(operator):
                choices = list(architecture.choices)
                choices[i] = Choice(operator, hidden)
                other = replace(architecture, choices=tuple(choices))
                if (other_ms := abs(latency_ms(other) - ask_ms)) < gap_ms - 1e-9:
                    best, gap_ms = other, other_ms
    return best
