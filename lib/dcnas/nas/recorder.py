"""What happens to the alphas during a search, epoch by epoch, and whether the search decided (Section
4.1 Exp 1, Figure 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .space import Space

TAIL = 1 / 3  # of the epochs that train alphas: the end, where a search should have settled
FLIP_RATE = 0.05  # best operators that change from epoch to epoch there, as a share of layers
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
    """Of one epoch: mean entropy (as a share of the largest), mean margin of the best operator, flips of
    the best operator."""
    entropy = np.mean(
        [-(p * np.log(np.clip(p, 1e-12, 1))).sum() / np.log(len(p)) for p in probabilities]
    )
    ordered = [np.sort(p) for p in probabilities]
    margin = np.mean([p[-1] - p[-2] for p in ordered])
    flips = (
        0
        if before is None
        else sum(int(np.argmax(p) != np.argmax(q)) for p, q in zip(probabilities, before, strict=True))
    )
    return {"entropy": float(entropy), "margin": float(margin), "flips": int(flips)}


def healthy(epochs: pd.DataFrame) -> tuple[bool | None, str]:
    """Whether a supernet has learned: whether it ends well above the largest class on held-out images,
    and why.

    None where nobody looked at held-out images.
    """
    if "held_out_accuracy" not in epochs:
        return None, "never looked at on held-out images"
    last = epochs.iloc[-1]
    accuracy, largest = last["held_out_accuracy"], last["largest_class"]
    return bool(
        accuracy >= largest + LEAD
    ), f"{accuracy:.1f}% on held-out images, where the largest class has {largest:.1f}%"


def alpha_rows(
    space: Space, epoch: int, probabilities: Sequence[np.ndarray], betas: Sequence[np.ndarray]
) -> list[dict]:
    """Long format: epoch, parameter ("alpha", "beta"), place (layer or stage), choice (operator or
    depth), probability."""
    values = [
        ("alpha", layer.name, operator.name, p)
        for layer, layer_probabilities in zip(space.layers, probabilities, strict=True)
        for operator, p in zip(space.candidates, layer_probabilities, strict=True)
    ]
    values += [
        ("beta", f"stage{s + 1}", f"depth {d + 1}", p)
        for s, depths in enumerate(betas)
        for d, p in enumerate(depths)
    ]
    names = ("epoch", "parameter", "place", "choice", "probability")
    return [dict(zip(names, (epoch, *value, float(p)))) for *value, p in values]


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
    rate = float(tail["flips"].mean()) / layers
    spread_pct = 100 * float(tail["argmax_ms"].std()) / target_ms
    when = f"in the last {len(tail)} epochs"
    if rate > FLIP_RATE:
        reason = f"{when} {100 * rate:.1f}% of the best operators change from one epoch to the next"
        return Verdict("oscillating", reason)
    if spread_pct > LATENCY_STD_PCT:
        return Verdict(
            "oscillating", f"{when} the latency of the argmax varies by {spread_pct:.1f}% of the target"
        )
    margin = float(tail["margin"].iloc[-1])
    if margin < LEAST_MARGIN:
        return Verdict(
            "undecided",
            f"the best operators lead by {100 * margin:.1f} points only: the alphas have hardly moved",
        )
    return Verdict(
        "decided",
        f"{when} {100 * rate:.1f}% of the best operators change and the latency by {spread_pct:.1f}%",
    )
