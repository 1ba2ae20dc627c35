"""Our numbers beside the paper's: tables that several notebooks make."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from ..data.noise import SIGMAS
from ..data.two_digits import cached
from ..training import evaluate
from .latencies import section_3
from .stats import Interval, Scores, contrast, means
from .tasks import bank_noisy


def quality(scores: Scores, name: str, decimals: int, sigmas: Sequence[float] = SIGMAS) -> pd.DataFrame:
    """A row per network with its mean score, such as "PSNR (dB)", and the bounds of its 95% interval."""
    levels = means(scores, dict.fromkeys(label for label, _ in scores), sigmas)
    rows = [(round(level.mean, decimals), level.bounds(decimals)) for level in levels.values()]
    return pd.DataFrame(rows, pd.Index(list(levels)), [name, f"{name}, 95%"])


def beside(ours: dict[str, Interval | float], theirs, decimals: int, exact=False) -> pd.DataFrame:
    """Our numbers beside the paper's (a dict or Series by name): a row per network with the difference
    and a verdict.

    `decimals` is how the paper prints the number. It is a match if the paper's number lies inside our
    interval, or would before it was rounded; `exact` (FLOPs) has no interval.
    """
    rows = []
    for name, value in ours.items():
        interval = value if isinstance(value, Interval) else Interval(value, value, value)
        row = {"network": name, "ours": round(interval.mean, decimals)}
        if not exact:
            row["95% interval"] = interval.bounds(decimals) if isinstance(value, Interval) else "exact"
        number, half = theirs.get(name), 0.5 * 10**-decimals
        row["paper"], row["difference"], row["verdict"] = number, None, "not in the paper"
        if number is not None:
            match = interval.low - half <= number <= interval.high + half
            row["difference"] = round(interval.mean - number, decimals)
            row["verdict"] = "match" if match else "no match"
        rows.append(row)
    return pd.DataFrame(rows).set_index("network")


def contrasts(scores: Scores, parts: dict, name: str | Sequence[str] = "comparison") -> pd.DataFrame:
    """A row for each comparison (weights by network, sigmas) that can be made: the effect, and on which
    side of 0 it lies.
    """
    rows = {}
    for part, (weights, sigmas) in parts.items():
        if weights and (pair := contrast(scores, weights, sigmas)):
            effect, seeds = pair
            side = "above 0" if effect.low > 0 else "below 0" if effect.high < 0 else "includes 0"
            side += " (one seed)" * (seeds == 1)
            rows[part] = [round(effect.mean, 2), effect.bounds(), seeds, side]
    columns = ["effect", "95% interval", "seeds", "interval is"]
    return pd.DataFrame(list(rows.values()), pd.Index(list(rows)), columns).rename_axis(name)


@lru_cache(maxsize=4)
def _noisy_input(images: int) -> dict[str, np.ndarray]:
    data, sees = cached("test", images), lambda noisy, _: (noisy, None)
    noisy = bank_noisy(data.images)
    scores = evaluate(sees, data.images, data.boxes, data.labels, noisy, SIGMAS)
    return {metric: values.numpy() for metric, values in scores.items()}


def with_noisy_input(scores: Scores, metric: str) -> Scores:
    """`scores` of Section 3 and, as one more network, the "noisy input" itself, with the noise that
    every network meets.
    """
    noisy = _noisy_input(next(iter(scores.values())).shape[1])[metric]
    return scores | {("noisy input", seed): noisy for _, seed in scores}


def beside_the_paper(theirs: pd.Series, reference: str) -> pd.DataFrame:
    """Latencies in ms per batch, our medians and the paper's (by label, batch 32), then relative to that
    of `reference`.
    """
    ours, single = (section_3(batch).reindex(theirs.index) for batch in (32, 1))
    columns = {"batch 32 (ms)": ours["median_ms"], "batch 1 (ms)": single["median_ms"]}
    table = pd.DataFrame(columns | {"paper, batch 32 (ms)": theirs})
    relative = (table / table.loc[reference]).round(2)
    relative.columns = table.columns.str.replace("(ms)", "(relative)")
    spread = {"q25_ms": "25% of passes (ms)", "q75_ms": "75% of passes (ms)"}
    spread |= {"unsynchronised_ms": "unsynchronised mean (ms)"}
    table = table.join(relative).join(ours[[*spread]].rename(columns=spread)).round(3)
    return table.join(ours[["device", "threads"]]).rename_axis("network")
