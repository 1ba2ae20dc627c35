"""From alphas to networks (Section 4.1): the argmax fitted to a target latency, or the best architecture for any target at all.

The table is additive, so the second is a multiple-choice knapsack and is solved exactly on a fine grid of milliseconds: each
layer takes one (operator, hidden width), the sum of latencies stays within the target, and the sum of values is largest. The
value of an operator is its log alpha, so that of an architecture is its log-probability; width counts a little, so that time
left over is spent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError, require_finite
from ..latency.table import Table
from .lut import key_of, parts, predicted_ms
from .space import ENCODER_STAGES, Architecture, Choice, Space

WIDTH_STEPS = 9  # hidden widths per operator in the knapsack, from the smallest to the largest
WIDTH_VALUE = 0.1  # value of a doubled hidden width, in units of log alpha
BINS = 4000  # milliseconds are rounded up to the range of latencies divided by this
TOLERANCE_PCT = 2.0  # a measured latency may differ by so much from its target
FIT_PCT = 0.5  # and a prediction from what is asked for, before operators are changed


def argmax_architecture(space: Space, alphas: Sequence[np.ndarray], hidden: Sequence[Sequence[int]], depths=None) -> Architecture:
    """Each layer's most probable operator at its present hidden width; of each stage, the first `depths[stage]` blocks."""
    choices = [
        Choice(space.candidates[int(np.argmax(a))], int(widths[int(np.argmax(a))]))
        for a, widths in zip(alphas, hidden, strict=True)
    ]
    if depths is not None:
        for stage, depth in zip(space.stages, depths, strict=True):
            for i in stage[depth:]:
                choices[i] = None
    return Architecture(space, tuple(choices))


def _moved(architecture: Architecture, layers: Sequence[int], steps: int) -> Architecture:
    """The hidden widths of `layers` moved by `steps`, wider layers in proportion more, within their operators' ranges."""
    space, choices = architecture.space, list(architecture.choices)
    present = [i for i in layers if choices[i] is not None]
    if not present:
        return architecture
    least = min(choices[i].hidden for i in present)
    for i in present:
        operator, inside = choices[i].operator, space.layers[i].in_channels
        hidden = choices[i].hidden + steps * round(choices[i].hidden / least)
        hidden = min(max(hidden, operator.least_hidden(inside)), operator.most_hidden(inside))
        choices[i] = Choice(operator, hidden)
    return Architecture(space, tuple(choices))


def fit_widths(architecture: Architecture, target_ms: float, latency_ms: Callable[[Architecture], float]) -> Architecture:
    """Elasticity scaling of [16]: hidden widths shrunk until `latency_ms` is within the target, then widened while it stays so.

    Widening begins with all stages and goes on with the later ones alone. The operators stay.
    """
    space = architecture.space
    if latency_ms(architecture) > target_ms:
        layers = range(len(space.layers))
        steps = _steps_until(architecture, layers, -1, lambda a: latency_ms(a) <= target_ms)
        architecture = _moved(architecture, layers, -steps)
    for first in range(len(space.stages)):
        layers = [i for stage in space.stages[first:] for i in stage]
        steps = _steps_until(architecture, layers, 1, lambda a: latency_ms(a) > target_ms)
        architecture = _moved(architecture, layers, steps - 1)
    return architecture


def _steps_until(architecture: Architecture, layers: Sequence[int], sign: int, reached: Callable[[Architecture], bool]) -> int:
    """The least number of steps of `_moved` that leads to an architecture that is `reached`; beyond all ranges if none is."""
    low, high, limit = 0, 1, 8 * max(layer.in_channels for layer in architecture.space.layers)
    while high < limit and not reached(_moved(architecture, layers, sign * high)):
        low, high = high, 2 * high
    while high - low > 1:  # latency grows with width, so it is reached once and for all
        middle = (low + high) // 2
        low, high = (low, middle) if reached(_moved(architecture, layers, sign * middle)) else (middle, high)
    return high


@dataclass(frozen=True)
class Frontier:
    """The best architecture for every target, computed once: a slider asks `best(target_ms)` and has an answer at once."""

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
        """The architecture of the largest value within the target; `InputError` that names the range for one out of reach."""
        require_finite("target_ms", target_ms)
        correction = self.table.correction
        budget = int(((target_ms - correction.offset_ms) / correction.scale - self.base_ms) / self.bin_ms + 1e-9)
        budget = min(budget, self.values.shape[1] - 1)
        low, high = self.range_ms
        if budget < 0 or not np.isfinite(self.values[-1, budget]) or target_ms > high:
            raise InputError(f"target_ms is {target_ms:g}, but this space and table reach {low:.2f} to {high:.2f} ms.")
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
    """One option of each group, the sum of whole-number costs within a budget, the sum of values largest; for all budgets at once.

    Best values (groups + 1, budgets) of the first groups, -inf where nothing fits, and picks (groups, budgets) that lead to them.
    """
    size = sum(int(c.max()) for c in costs) + 1
    best, picks = np.full((len(costs) + 1, size), -np.inf), np.zeros((len(costs), size), dtype=np.int16)
    best[0] = 0.0
    for i, (cost, worth) in enumerate(zip(costs, values, strict=True)):
        for n, (c, w) in enumerate(zip(cost, worth, strict=True)):
            candidate = best[i, : size - c] + w
            better = candidate > best[i + 1, c:]
            best[i + 1, c:][better] = candidate[better]
            picks[i, c:][better] = n
    return best, picks


def frontier(
    space: Space, table: Table, alphas: Sequence[np.ndarray], network: str = "C-NAS", decoder: str = "conv", bins: int = BINS
) -> Frontier:
    """Solve the knapsack for all targets at once by dynamic programming over layers and milliseconds.

    `alphas`: per layer the log-probabilities of its operators. In DC-NAS_seq a layer of the encoder runs twice and costs so; D-NAS
    has the layers of the encoder alone.
    """
    options, costs_ms, values = [], [], []
    for layer, alpha in zip(space.layers, alphas, strict=True):
        if network == "D-NAS" and layer.stage >= ENCODER_STAGES:  # which it does not have: the most probable operator, for nothing
            operator = space.candidates[int(np.argmax(alpha))]
            options.append((Choice(operator, operator.start_hidden(layer.in_channels)),))
            costs_ms.append(np.zeros(1))
            values.append(np.zeros(1))
            continue
        choices, worth = [], []
        for operator, log_alpha in zip(space.candidates, alpha, strict=True):
            low, high = operator.least_hidden(layer.in_channels), operator.most_hidden(layer.in_channels)
            for hidden in np.unique(np.linspace(low, high, WIDTH_STEPS).round().astype(int)):
                choices.append(Choice(operator, int(hidden)))
                worth.append(float(log_alpha) + WIDTH_VALUE * np.log2(hidden / layer.in_channels))
        times = 2 if network == "DC-NAS_seq" and layer.stage < ENCODER_STAGES else 1
        costs_ms.append(times * np.array([table.part_ms(key_of(layer, c.operator), c.hidden) for c in choices]))
        options.append(tuple(choices))
        values.append(np.array(worth))
    example = Architecture(space, tuple(o[0] for o in options))
    fixed = sum(table.part_ms(*part) for part in parts(example, network, decoder)) - sum(c[0] for c in costs_ms)
    bin_ms = sum(c.max() for c in costs_ms) / bins
    costs = tuple(np.ceil(c / bin_ms - 1e-9).astype(int) for c in costs_ms)  # rounded up: what fits the grid fits the target
    best, picks = knapsack(costs, values)
    return Frontier(space, table, network, decoder, tuple(options), best, picks, costs, float(bin_ms), float(fixed))


def repair(
    starts: Mapping[str, Architecture], targets_ms: Mapping[str, float],
    predict_ms: Mapping[str, Callable[[Architecture], float]],
    measure_ms: Callable[[Mapping[str, Architecture]], Mapping[str, tuple[float, float]]],
    *, attempts: int = 8, tolerance_pct: float = TOLERANCE_PCT,
) -> tuple[dict[str, Architecture], dict[str, list[dict]]]:  # fmt: skip
    """Change widths until each network's *measured* latency is within the tolerance of its target, or within the noise.

    `measure_ms(architectures)` measures all of them side by side: medians and their uncertainties in ms. What counts is the mean of
    all measurements of an architecture. A network that misses is fitted to the latency that `predict_ms` must be given for the
    measurement to come out right, and then all are measured anew. Of a network that never meets its target the closest attempt is
    returned. With a row per network and measurement.
    """
    now, rows = dict(starts), {name: [] for name in starts}
    tried: dict[str, dict[Architecture, list[float]]] = {name: {} for name in starts}
    for attempt in range(attempts + 1):
        missed = False
        for name, (measured, noise) in measure_ms(now).items():
            target, predict, known = targets_ms[name], predict_ms[name], tried[name]
            row = {"attempt": attempt, "predicted_ms": predict(now[name]), "measured_ms": measured, "noise_ms": noise}
            rows[name].append(row | {"error_pct": 100 * (measured / target - 1)})
            known.setdefault(now[name], []).append(measured)
            mean = {architecture: float(np.mean(found)) for architecture, found in known.items()}
            if abs(mean[now[name]] - target) > max(tolerance_pct / 100 * target, noise):
                changed = _towards(now[name], _ask_ms([(predict(a), ms) for a, ms in mean.items()], target), predict)
                missed |= changed not in known
                now[name] = changed if changed not in known else min(mean, key=lambda a: abs(mean[a] - target))  # noqa: B023
        if not missed:
            break
    for name, known in tried.items():
        now[name] = min(known, key=lambda a: abs(float(np.mean(known[a])) - targets_ms[name]))  # noqa: B023
    return now, rows


def _ask_ms(known: Sequence[tuple[float, float]], target_ms: float) -> float:
    """The prediction to ask for, given pairs of predicted and measured latency: between the two that enclose the target.

    Where none do, the closest pair's ratio is taken to hold. A ratio alone would go to and fro where a little width costs a lot, as
    it does on CPUs whose kernels like some multiples of channels.
    """
    below = max((pair for pair in known if pair[1] < target_ms), default=None)
    above = min((pair for pair in known if pair[1] > target_ms), default=None)
    if below is None or above is None or below[0] >= above[0]:
        predicted, measured = min(known, key=lambda pair: abs(pair[1] - target_ms))
        return predicted * target_ms / measured
    return below[0] + (target_ms - below[1]) / (above[1] - below[1]) * (above[0] - below[0])


def _towards(architecture: Architecture, ask_ms: float, latency_ms: Callable[[Architecture], float]) -> Architecture:
    """The widths fitted to what is asked; where they cannot reach it, one operator after the other is changed as well."""
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
    """Of all changes of one operator, the one whose latency comes closest to what is asked, if it comes closer at all."""
    best, gap = architecture, abs(latency_ms(architecture) - ask_ms)
    for i, (layer, choice) in enumerate(zip(architecture.space.layers, architecture.choices, strict=True)):
        if choice is None:
            continue
        for operator in architecture.space.candidates:
            for hidden in (operator.least_hidden(layer.in_channels), operator.most_hidden(layer.in_channels)):
                choices = list(architecture.choices)
                choices[i] = Choice(operator, hidden)
                other = replace(architecture, choices=tuple(choices))
                if (found := abs(latency_ms(other) - ask_ms)) < gap - 1e-9:
                    best, gap = other, found
    return best
