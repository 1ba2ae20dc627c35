"""What happens to the alphas during a search, and whether it decided (Section 4.1 Exp 1, Figure 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .space import Space

TAIL = 1 / 3  # of the epochs that train alphas: the end, where a search should have settled
FLIPS_PCT = 5.0  # of layers: how many best operators may change from epoch to epoch there
LATENCY_STD_PCT = 5.0  # of the target: how much the argmax latency may vary there
LEAST_MARGIN = 0.1  # by which the best operator must lead the next in the mean of the layers
LEAD = 5.0  # points by which a supernet that has learned is above always naming the largest class
COLLAPSE_SHARE = 0.9  # of layers with the cheapest operator while there is latency to spare


@dataclass(frozen=True)
class Verdict:
    """ "decided", "oscillating", "collapsed" or "undecided", and why."""

    word: str
    reason: str


def describe(probabilities: Sequence[np.ndarray], before: Sequence[np.ndarray] | None) -> dict:
    """Of one epoch's probabilities (layers, operators), and those of the epoch before.

    Means over the layers of the entropy, as a share of the largest, and of the margin of the best
    operator; and the number of layers whose best operator has changed.
    """
    now = np.asarray(probabilities)
    entropy = -(now * np.log(np.clip(now, 1e-12, 1))).sum(1) / np.log(now.shape[1])
    ordered = np.sort(now, 1)
    margin = ordered[:, -1] - ordered[:, -2]
    flips = 0 if before is None else (now.argmax(1) != np.asarray(before).argmax(1)).sum()
    return {"entropy": float(entropy.mean()), "margin": float(margin.mean()), "flips": int(flips)}


def healthy(epochs: pd.DataFrame) -> tuple[bool | None, str]:
    """Whether a supernet ends well above the largest class on held-out images, and why.

    None where nobody looked at held-out images.
    """
    if "held_out_accuracy" not in epochs:
        return None, "never looked at on held-out images"
    accuracy, largest = epochs.iloc[-1][["held_out_accuracy", "largest_class"]]
    reason = f"{accuracy:.1f}% on held-out images, where the largest class has {largest:.1f}%"
    return bool(accuracy >= largest + LEAD), reason


def alpha_rows(
    space: Space, epoch: int, probabilities: Sequence[np.ndarray], betas: Sequence[np.ndarray]
) -> list[dict]:
    """An epoch in long format: "alpha" or "beta", place (layer, stage), choice, probability."""
    operators = [operator.name for operator in space.candidates]
    parts = [("alpha", layer.name, operators, p) for layer, p in zip(space.layers, probabilities)]
    for n, p in enumerate(betas, 1):
        parts.append(("beta", f"stage{n}", [f"depth {depth + 1}" for depth in range(len(p))], p))
    return [
        dict(epoch=epoch, parameter=parameter, place=place, choice=choice, probability=float(value))
        for parameter, place, choices, values in parts
        for choice, value in zip(choices, values, strict=True)
    ]


def judge_search(epochs: pd.DataFrame, layers: int, target_ms: float, cheapest: float) -> Verdict:
    """The verdict on a search from its epochs (columns flips, argmax_ms, margin, alphas_trained) and the
    share of layers whose best operator is the cheapest one at the end."""
    trained = epochs[epochs["alphas_trained"]]
    if len(trained) < 3:
        return Verdict("undecided", f"only {len(trained)} epochs trained alphas, too few to settle")
    tail = trained.tail(max(2, int(len(trained) * TAIL)))
    last_ms = float(tail["argmax_ms"].iloc[-1])
    if cheapest >= COLLAPSE_SHARE and last_ms < 0.9 * target_ms:
        share = f"{100 * cheapest:.0f}% of layers end with the cheapest operator"
        return Verdict("collapsed", f"{share}, at {last_ms:.2f} of {target_ms:.2f} ms")
    when, rate_pct = f"in the last {len(tail)} epochs", 100 * float(tail["flips"].mean()) / layers
    changes = f"{rate_pct:.1f}% of the best operators change"
    if rate_pct > FLIPS_PCT:
        return Verdict("oscillating", f"{when} {changes} from one epoch to the next")
    spread_pct = 100 * float(tail["argmax_ms"].std()) / target_ms
    if spread_pct > LATENCY_STD_PCT:
        varies = f"the latency of the argmax varies by {spread_pct:.1f}% of the target"
        return Verdict("oscillating", f"{when} {varies}")
    margin = float(tail["margin"].iloc[-1])
    if margin < LEAST_MARGIN:
        lead = f"the best operators lead by {100 * margin:.1f} points only"
        return Verdict("undecided", f"{lead}: the alphas have hardly moved")
    return Verdict("decided", f"{when} {changes} and the latency by {spread_pct:.1f}%")
