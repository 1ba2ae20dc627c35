"""From alphas to networks (Section 4.1): the argmax fitted to a target latency, or the best architecture
for any target at all.

The table is additive, so the second is a multiple-choice knapsack and is solved exactly on a fine grid
of milliseconds: each layer takes one (operator, hidden width), the sum of latencies stays within the
target, and the sum of values is largest. The value of an operator is its log alpha, so that of an
architecture is its log-probability; width counts a little, so that time left over is spent.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

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
    depths: Sequence[int] = (),
) -> Architecture:
    """Each layer's most probable operator at its hidden width.

    With `depths`, the first so many blocks of each stage.
    """
    best = [int(np.argmax(alpha)) for alpha in alphas]
    choices = [Choice(space.candidates[n], int(widths[n])) for n, widths in zip(best, hidden)]
    for stage, depth in zip(space.stages, depths):
        for i in stage[depth:]:
            choices[i] = None
    return Architecture(space, tuple(choices))


def _moved(architecture: Architecture, layers: Sequence[int], steps: int) -> Architecture:
    """Hidden widths of `layers` moved by `steps`, wider ones in proportion more, within their ranges."""
    space, choices = architecture.space, list(architecture.choices)
    present = [i for i in layers if choices[i] is not None]
    least = min((choices[i].hidden for i in present), default=0)
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


class Frontier:
    """The best architecture for every target, computed once, so that a slider has it at once.

    `alphas`: per layer the log-probabilities of its operators. In DC-NAS_seq a layer of the encoder runs
    twice and costs so; D-NAS has the layers of the encoder alone: of the others the most probable
    operator, for nothing.
    """

    def __init__(
        self,
        space: Space,
        table: Table,
        alphas: Sequence[np.ndarray],
        network: str = "C-NAS",
        decoder: str = "conv",
        bins: int = BINS,
    ):
        self.space, self.table, self.options = space, table, []
        self.latency_ms = partial(predicted_ms, table, network=network, decoder=decoder)
        costs_ms, values = [], []
        for layer, alpha in zip(space.layers, alphas, strict=True):
            candidates, times = list(zip(space.candidates, alpha, strict=True)), 1
            if layer.stage < ENCODER_STAGES:
                times = 2 if network == "DC-NAS_seq" else 1
            elif network == "D-NAS":
                candidates, times = [candidates[int(np.argmax(alpha))]], 0
            choices, worth = _valued(layer, candidates)
            parts_ms = [table.part_ms(key_of(layer, c.operator), c.hidden) for c in choices]
            self.options.append(choices)
            costs_ms.append(times * np.array(parts_ms))
            values.append(np.array(worth))
        example = Architecture(space, tuple(choices[0] for choices in self.options))
        example_ms = sum(table.part_ms(*part) for part in parts(example, network, decoder))
        # of everything but the searchable layers, before the correction
        self.base_ms = float(example_ms - sum(c[0] for c in costs_ms))
        self.bin_ms = float(sum(c.max() for c in costs_ms) / bins)
        # rounded up: what fits the grid fits the target
        self.costs = [np.ceil(c / self.bin_ms - 1e-9).astype(int) for c in costs_ms]
        self.values, self.picks = knapsack(self.costs, values)

    @property
    def range_ms(self) -> tuple[float, float]:
        """Smallest and largest latency of the space."""
        low, high = (sum(float(end(c)) for c in self.costs) for end in (np.min, np.max))
        return tuple(self.table.corrected(self.base_ms + self.bin_ms * bins) for bins in (low, high))

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
        for options, costs, picks in reversed(list(zip(self.options, self.costs, self.picks))):
            pick = picks[budget]
            choices.append(options[pick])
            budget -= int(costs[pick])
        return Architecture(self.space, tuple(reversed(choices)))


def knapsack(costs: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One option of each group for every budget: costs, whole numbers, within it, the largest value.

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


def _valued(
    layer: Layer, candidates: Iterable[tuple[Operator, float]]
) -> tuple[list[Choice], list[float]]:
    """The choices of a layer and their values, of operators and their log-probabilities."""
    choices, values = [], []
    for operator, log_alpha in candidates:
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
    """Change widths until each network's *measured* latency meets its target, within tolerance or noise.

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
            row |= {"noise_ms": noise_ms, "error_pct": 100 * (measured_ms / target_ms - 1)}
            rows[name].append(row)
            known.setdefault(now[name], []).append(measured_ms)
            mean_ms = {architecture: float(np.mean(times)) for architecture, times in known.items()}
            if abs(mean_ms[now[name]] - target_ms) > max(tolerance_pct / 100 * target_ms, noise_ms):
                pairs = [(predict(architecture), ms) for architecture, ms in mean_ms.items()]
                changed = _towards(now[name], _ask_ms(pairs, target_ms), predict)
                missed |= changed not in known
                now[name] = _closest(known, target_ms) if changed in known else changed
        if not missed:
            break
    return {name: _closest(known, targets_ms[name]) for name, known in tried.items()}, rows


def _closest(times_ms: Mapping[Architecture, list[float]], target_ms: float) -> Architecture:
    """The architecture whose mean time comes closest to the target."""
    return min(times_ms, key=lambda architecture: abs(np.mean(times_ms[architecture]) - target_ms))


def _ask_ms(known: Sequence[tuple[float, float]], target_ms: float) -> float:
    """The prediction to ask for, given pairs of predicted and measured latency.

    It lies between the two that enclose the target; where none do, the closest pair's ratio is taken to
    hold. A ratio alone would go to and fro where a little width costs a lot, as it does on CPUs whose
    kernels like some multiples of channels.
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
    """The widths fitted to what is asked; where they cannot reach it, operators too, one by one."""
    before, architecture = None, fit_widths(architecture, ask_ms, latency_ms)
    while architecture != before and abs(latency_ms(architecture) / ask_ms - 1) > FIT_PCT / 100:
        before, architecture = architecture, _with_other_operator(architecture, ask_ms, latency_ms)
    return architecture


def _with_other_operator(
    architecture: Architecture, ask_ms: float, latency_ms: Callable[[Architecture], float]
) -> Architecture:
    """Of all changes of one operator, that whose latency comes closest to what is asked, if any."""
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
