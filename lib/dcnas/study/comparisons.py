"""Every comparison behind a verdict, as data (data/paper/comparisons.csv), and what our results say of
it.

A row asks something ("> 0", "about paper within 1") of an effect: a weighted sum of networks on the same
images and the same noise ("MB2.5-M - Conv-L"), a latency, a rank correlation, a spread. `b=equal` and
`b=large` name the manual networks that stand beside the searched ones at a scale; `equal(X)` is X minus
a UNet of the b line with as many FLOPs.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache, partial
from math import hypot

import numpy as np
import pandas as pd

from ..data.noise import SIGMAS
from ..nas.recorder import TAIL
from ..paths import paper_dir
from . import stats
from .latencies import pair_passes
from .results import Results, derivations, results, searches
from .scales import scale_named
from .stats import NOISY, Interval, Scores
from .tables import paper_number

COUNTED, TIMED = "counted", "timed"  # instead of a scale: what needs no training
B_LINE = [f"UNet b={b} d=4 m=2 c=2" for b in (8, 16, 32, 64)]  # b=4 is broken by its norm: 03_2
LEVELS = {"all": SIGMAS, "noisy": NOISY, "above 0.2": SIGMAS[3:], "0": SIGMAS[:1]}
GROUPS = {"figure_3": ("figure_3", "figure_3_mbconv")}  # read together
TERM = re.compile(r"(?:^|\s)([+-]?) ?(?:([\d.]+) \* )?(equal\()?([^;|/]+?)\)?(?=$| [+-] )")
Effect = tuple[
    Interval, int | None, dict
]  # the effect; seeds, None if counted or timed; what the row's text has in braces


def asked(claims: Iterable[str] = ()) -> pd.DataFrame:
    """The rows of data/paper/comparisons.csv, of some claims or of all."""
    rows = pd.read_csv(paper_dir() / "comparisons.csv", keep_default_na=False)
    return rows[rows["claim"].isin(list(claims))] if claims else rows


class Evidence:
    """What comparisons are made of: the results of one scale, each group read once.

    `sigma` is the noise level of Figure 3's claims. `change(scores, metric, clean)` may put other scores
    in their place (`clean`: they are used without noise), `select(rows)` other networks, such as clipped
    twins under the names of their networks. Intervals are Student's t `over_seeds`, or a bootstrap over
    images and seeds.
    """

    def __init__(
        self,
        scale: str = "published",
        sigma: float = 0.8,
        *,
        device: str = "cpu",
        change: Callable[[Scores, str, bool], Scores] | None = None,
        select: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
        over_seeds: bool = True,
    ):
        self.contrast = partial(stats.contrast, over_seeds=over_seeds)
        self.scale, self.sigma, self.device = scale, sigma, device
        self.change = change or (lambda scores, metric, clean: scores)
        self.select = select or (lambda rows: rows)
        for name in ("results_of", "flops_of", "scores_of", "searches_of"):
            setattr(self, name, cache(getattr(self, name)))

    def results_of(self, group: str) -> Results:
        read = results(GROUPS.get(group, group), self.scale, device=self.device)
        return Results(self.select(read.rows))

    def flops_of(self, group: str) -> pd.Series:
        return self.results_of(group).rows.groupby("label", sort=False)["flops"].first()

    def scores_of(self, group: str, metric: str, clean: bool) -> Scores:
        return self.change(self.results_of(group).scores(metric), metric, clean)

    def searches_of(self, group: str):
        return searches(group, self.scale, device=self.device)

    def images_of(self, row) -> int:
        """Training images that a network of the row has seen; of a search the images of its steps."""
        if row.metric.split()[0] in ("flips", "spread"):
            s = scale_named(self.searches_of("beta_searches").rows["scale"].iloc[0])
            return s.search["epochs"] * s.search["steps_per_epoch"] * s.search_batch
        rows = self.results_of(row.group).rows
        return int(rows.loc[[label in row.networks for label in rows["label"]], "images"].min())

    def at_equal_flops(self, label: str, group: str) -> dict[str, float] | None:
        """`label` minus the b line, interpolated over log FLOPs."""
        flops = self.flops_of(group)
        for left, right in zip(B_LINE, B_LINE[1:]):
            if {label, left, right} <= set(flops.index) and flops[left] <= flops[label] <= flops[right]:
                t = np.log(flops[label] / flops[left]) / np.log(flops[right] / flops[left])
                return {left: t - 1, right: -t, label: 1.0}
        return None

    def weights(self, formula: str, group: str) -> dict[str, float] | None:
        """The weighted sum that a formula names: "A - B", "2 * A - B - C", "- 1 * equal(A)"; None if a
        part has no results.
        """
        total: dict[str, float] = {}
        for sign, factor, equal, label in TERM.findall(formula):
            term = self.at_equal_flops(label, group) if equal else {label: 1.0}
            if term is None or not set(term) <= set(self.flops_of(group).index):
                return None
            for name, weight in term.items():
                total[name] = total.get(name, 0.0) + weight * float(factor or 1) * (
                    -1 if sign == "-" else 1
                )
        return total

    def named(self, row):
        """The row with the labels of this scale for `b=equal` and `b=large`."""
        for word, pattern in (("b=equal", r"{} b=(\d+)$"), ("b=large", r"{} b=(\d+) d=5")):
            if word in row.networks:
                prefix = re.search(rf"(\S+) {word}", row.networks)[1]
                widths = [
                    m[1]
                    for label in self.flops_of(row.group).index
                    if (m := re.match(pattern.format(prefix), label))
                ]
                new = f"b={widths[0] if widths else 'none'}"
                row = row._replace(
                    networks=row.networks.replace(word, new), text=row.text.replace(word, new)
                )
        return row

    def effect(self, row) -> Effect | None:
        """The effect that a row of `asked` is about; None where a network has no results."""
        kind, _, how = row.metric.partition(" ")
        levels = LEVELS.get(row.sigmas) or (
            [self.sigma] if row.sigmas == "sigma" else [float(s) for s in row.sigmas.split()]
        )
        if kind in ("psnr", "ssim", "accuracy"):
            return self.score(row, kind, how, levels)
        labels = re.split(r" [-/|] ", row.networks)
        if kind not in ("pair", "flips", "derived") and not set(labels) <= set(
            self.flops_of(row.group).index
        ):
            return None
        return getattr(self, kind)(row, how, levels, labels)  # the methods below are the kinds

    def score(self, row, metric: str, how: str, levels) -> Effect | None:
        scores, words = self.scores_of(row.group, metric, row.sigmas == "0"), {}
        if how == "mean":  # over those b whose networks share most seeds
            parts = {
                int(re.search(r"b=(\d+)", f)[1]): self.weights(f, row.group)
                for f in row.networks.split(" ; ")
            }
            seeds = {
                b: pair[1] for b, w in parts.items() if w and (pair := self.contrast(scores, w, levels))
            }
            used = [b for b, count in seeds.items() if count == max(seeds.values())]
            weights: dict[str, float] = {}
            for b in used:
                for label, weight in parts[b].items():
                    weights[label] = weights.get(label, 0.0) + weight * (1 / len(used))
            words["kept"] = ", ".join(map(str, used))
        else:
            weights = self.weights(row.networks, row.group)
        if not weights or not self.contrast(scores, weights, levels):
            return None
        if how == "worst":
            levels = [max(levels, key=lambda sigma: self.contrast(scores, weights, [sigma])[0].mean)]
            words["worst"] = levels[0]
        return *self.contrast(scores, weights, levels), words

    def _stacked(
        self, row, metric: str, sides: list[list[str]], levels
    ) -> tuple[np.ndarray, int] | None:
        """(seeds, sides, networks, images) of the seeds that all networks share."""
        scores = self.scores_of(row.group, metric, row.sigmas == "0")
        by_seed = [[stats.per_image(scores, label, levels) for label in side] for side in sides]
        shared = sorted(set.intersection(*(set(network) for side in by_seed for network in side)))
        arrays = [[[network[seed] for network in side] for side in by_seed] for seed in shared]
        return (np.array(arrays), len(shared)) if shared else None

    def trend(self, row, metric: str, levels, labels) -> Effect | None:
        """The rank correlation of a score with the number in each network's name."""
        if (stacked := self._stacked(row, metric, [labels], levels)) is None:
            return None
        numbers = np.array(
            [float(re.search(r"[\d.]+", label.split("C-NAS")[-1])[0]) for label in labels]
        )[:, None]
        rho = stats.bootstrap_of_means(stacked[0][:, 0], lambda means: stats.spearman(means, numbers))
        return rho, stacked[1], {}

    def twins(self, row, metric: str, levels, labels) -> Effect | None:
        """The rank correlation of UNets' scores with those of their MBConv twins."""
        there = [label for label in labels if f"MB-{label}" in self.flops_of(row.group).index]
        if (
            len(there) < 3
            or (
                stacked := self._stacked(
                    row, metric, [there, [f"MB-{label}" for label in there]], levels
                )
            )
            is None
        ):
            return None
        rho = stats.bootstrap_of_means(stacked[0], lambda means: stats.spearman(*means))
        return rho, stacked[1], {"count": len(there)}

    def flops(self, row, how: str, levels, labels) -> Effect:
        flops = self.flops_of(row.group)[labels].to_numpy()
        value = {
            "": (flops[0] - flops[1]) / 1000,
            "ratio": flops[0] / flops[1],
            "least": (flops[1:] / flops[:-1]).min(),
        }[how]
        value = float(value)
        return Interval(value, value, value), None, {}

    def pair(self, row, how: str, levels, labels) -> Effect:
        """Latency of the first minus that of the second in ms, timed side by side in batches of 32: the
        median over rounds.
        """
        passes, swapped = pair_passes(*labels), pair_passes(*labels[::-1])
        gaps = passes["a_ms"] - passes["b_ms"] if len(passes) else swapped["b_ms"] - swapped["a_ms"]
        return stats.of_median(gaps.to_numpy()), None, {}

    def ms(self, row, how: str, levels, labels) -> Effect:
        """Latency of the first minus that of the second; trainings of one network share one measurement
        and its error.
        """
        mean, error, rows = [], [], self.results_of(row.group).rows
        for label in labels:
            part = rows[rows["label"] == label].drop_duplicates("seed")
            each = part["error_ms"].groupby(part["derivation"].fillna("made by hand")).sum()
            mean.append(part["latency_ms"].mean())
            error.append(float((each**2).sum() ** 0.5 / len(part)))
        gap, half, scale = (
            mean[0] - mean[1],
            1.96 * hypot(*error),
            100 / mean[1] if row.metric == "pct" else 1,
        )
        return Interval(gap * scale, (gap - half) * scale, (gap + half) * scale), None, {}

    pct = ms

    def flips(self, row, how: str, levels, labels) -> Effect:
        """Best operators that change from one epoch to the next in the last third of the alphas'
        training, in % of layers.
        """
        read, pct = self.searches_of("beta_searches"), {}
        for (label, seed), epochs in read.epochs[read.epochs["alphas_trained"]].groupby(
            ["label", "seed"]
        ):
            tail = epochs["flips"].tail(max(2, int(len(epochs) * TAIL)))
            pct.setdefault(label, {})[seed] = (
                100 * float(tail.mean()) / len(read.architectures[label, seed].space.layers)
            )
        sides = [pct[label] for label in labels]
        shared = sorted(set.intersection(*map(set, sides)) if len(sides) > 1 else sides[0])
        values = [sides[0][seed] - (sides[1][seed] if len(sides) > 1 else 0.0) for seed in shared]
        seeds = len(set.intersection(*map(set, pct.values())))
        return stats.of_few(values), seeds, {}

    def spread(self, row, what: str, levels, labels) -> Effect:
        """The standard deviation over searches of the first, over that of the second: of latency as
        searched, or of accuracy.
        """
        sides, last = (
            [],
            self.searches_of("beta_searches")
            .epochs.groupby(["label", "seed"])["argmax_ms"]
            .last()
            .round(2),
        )
        scores = self.scores_of(row.group, "accuracy", True)
        for label in labels:
            one = [
                stats.contrast({key: a}, {label: 1.0}, [0.0])[0].mean
                for key, a in scores.items()
                if key[0] == label
            ]
            sides.append(last[label].to_numpy() if what == "latency" else np.round(one, 1))
        return stats.ratio_of_spreads(*sides), min(map(len, sides)), {}

    def derived(self, row, column: str, levels, labels) -> Effect | None:
        """How far measured latencies of derived networks are from their targets, in %."""
        rows = derivations(self.scale, device=self.device)
        ours = rows[
            (rows["label"] == row.networks) & rows["random_seed"].isna() & (rows["network"] == "C-NAS")
        ]
        return (stats.of_few(ours[column].to_numpy()), len(ours), {}) if len(ours) else None


def compared(claims: Iterable[str] = (), evidence: Evidence | None = None) -> list[dict]:
    """The comparisons of some claims, or of all, that can be made: what is asked, of what, and the
    effect.
    """
    evidence, table = evidence or Evidence(), []
    for row in asked(claims).itertuples(index=False):
        row = evidence.named(row)
        if (effect := evidence.effect(row)) is None:
            continue
        interval, seeds, words = effect
        number = paper_number(row)
        entry = {"claim": row.claim, "primary": row.primary == "yes", "group": row.group}
        entry |= {
            "comparison": row.text.format(sigma=evidence.sigma, **words),
            "effect": interval,
            "ask": row.ask,
        }
        entry |= {
            "paper": number,
            "decimals": int(row.decimals or 2),
            "seeds": seeds,
            "clean": row.sigmas == "0",
        }
        entry |= {"precondition": row.precondition, "instrument": row.instrument}
        entry["budget_pct"] = 100 * evidence.images_of(row) / float(row.images) if row.images else None
        timed = row.metric in ("pair", "ms", "pct") or row.metric.startswith("derived")
        counted = row.metric.startswith("flops")
        entry["scale"] = (
            COUNTED
            if counted
            else TIMED
            if timed
            else evidence.results_of(row.group).rows["scale"].iloc[0]
        )
        table.append(entry)
    return table
