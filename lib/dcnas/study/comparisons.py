"""Every comparison behind a verdict (data/paper/comparisons.csv), and what our results say of it.

A row asks something ("> 0", "about paper within 1") of an effect: a weighted sum of networks on the same
images and the same noise ("MB2.5-M - Conv-L"), a latency, a rank correlation, a spread. `b=equal` and
`b=large` name the manual networks that stand beside the searched ones at a scale; `equal(X)` is X minus
a UNet of the b line with as many FLOPs.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, partial
from math import hypot

import numpy as np
import pandas as pd

from ..data.noise import SIGMAS
from ..latency.measure import median_error
from ..nas.recorder import TAIL
from ..paths import paper_dir
from . import stats
from .latencies import measured, pair_passes, repeat_error
from .results import Results, derivations, results, scale_of, searches
from .scales import SCALE
from .stats import NOISY, Interval, Scores

B_LINE = [f"UNet b={b} d=4 m=2 c=2" for b in (8, 16, 32, 64)]  # b=4 is broken by its norm: 03_2
LEVELS = {"all": SIGMAS, "noisy": NOISY, "above 0.2": SIGMAS[3:]}
GROUPS = {"figure_3": ("figure_3", "figure_3_mbconv")}  # read together
TERM = re.compile(r"(?:^|\s)([+-]?) ?(?:([\d.]+) \* )?(equal\()?([^;|/]+?)\)?(?=$| [+-] )")
# the effect; seeds, None if counted or timed; what the row's text has in braces
Effect = tuple[Interval, int | None, dict]


def asked(claims: Iterable[str] = ()) -> pd.DataFrame:
    """The rows of data/paper/comparisons.csv, of some claims or of all."""
    rows = pd.read_csv(paper_dir() / "comparisons.csv", keep_default_na=False)
    return rows[rows["claim"].isin(list(claims))] if claims else rows


class Evidence:
    """What comparisons are made of: the results of one scale, each group read once.

    `sigma` is the noise level of Figure 3's claims, `select(rows)` may put other networks in their
    place. What the paper leaves open: means over the ten noise levels above 0 (`without_zero`); PSNR of
    the error `pooled` over all images; intervals of a bootstrap over `images` and seeds instead of
    Student's t over seeds.
    """

    def __init__(
        self,
        scale: str = "published",
        sigma: float = 0.8,
        device: str = "cpu",
        select: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows,
        without_zero: bool = False,
        pooled: bool = False,
        images: bool = False,
    ):
        self.scale, self.sigma, self.device, self.select = scale, sigma, device, select
        self.without_zero, self.pooled = without_zero, pooled
        self.contrast = partial(stats.contrast, over_seeds=not images)
        for name in ("results_of", "flops_of", "scores_of", "searches_of", "repeat_error"):
            setattr(self, name, cache(getattr(self, name)))

    def results_of(self, group: str) -> Results:
        rows = results(GROUPS.get(group, group), self.scale, device=self.device).rows
        return Results(self.select(rows))

    def flops_of(self, group: str) -> pd.Series:
        return self.results_of(group).rows.groupby("label", sort=False)["flops"].first()

    def scores_of(self, group: str, metric: str, clean: bool) -> Scores:
        """Scores under what is assumed, which says nothing of images without noise."""
        scores = self.results_of(group).scores(metric)
        if clean:
            return scores
        if self.pooled and metric == "psnr":
            scores = {key: pooled_psnr(values) for key, values in scores.items()}
        return above_zero(scores) if self.without_zero else scores

    def searches_of(self, group: str):
        return searches(group, self.scale, device=self.device)

    def images_of(self, row) -> int:
        """Training images that a network of the row has seen; of a search the images of its steps."""
        if row.metric.split()[0] in ("flips", "spread"):
            s = SCALE[self.searches_of("beta_searches").rows["scale"].iloc[0]]
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
        total = Counter()
        for sign, factor, equal, label in TERM.findall(formula):
            term = self.at_equal_flops(label, group) if equal else {label: 1.0}
            if term is None or not set(term) <= set(self.flops_of(group).index):
                return None
            for name, weight in term.items():
                total[name] += weight * float(f"{sign}{factor or 1}")
        return dict(total)

    def named(self, row):
        """The row with the widths of this scale for `b=equal` and `b=large`."""
        if not re.search("b=(equal|large)", row.networks):
            return row
        s = SCALE[results(row.group, self.scale, device=self.device).rows["scale"].iloc[0]]
        names = ("networks", "text", "precondition")
        for word, b in (("b=equal", s.equal_b), ("b=large", s.large_b)):
            row = row._replace(**{name: getattr(row, name).replace(word, f"b={b}") for name in names})
        return row

    def effect(self, row) -> Effect | None:
        """The effect that a row of `asked` is about; None where a network has no results."""
        kind, _, how = row.metric.partition(" ")
        if row.sigmas == "sigma":
            levels = [self.sigma]
        else:
            levels = LEVELS.get(row.sigmas) or [float(sigma) for sigma in row.sigmas.split()]
        if kind in ("psnr", "ssim", "accuracy"):
            return self.score(row, kind, how, levels)
        labels = re.split(r" [-/|] ", row.networks)
        there = set(labels) <= set(self.flops_of(row.group).index)
        if not there and kind not in ("pair", "flips"):
            return None
        return getattr(self, kind)(row, how, levels, labels)  # the methods below are the kinds

    def score(self, row, metric: str, how: str, levels) -> Effect | None:
        scores, words = self.scores_of(row.group, metric, row.sigmas == "0"), {}
        weights = self.weights(row.networks, row.group) if how != "mean" else {}
        if how == "mean":  # over those b whose networks share most seeds
            seeds, parts = {}, {}
            for formula in row.networks.split(" ; "):
                part = self.weights(formula, row.group)
                if part and (pair := self.contrast(scores, part, levels)):
                    b = re.search(r"b=(\d+)", formula)[1]
                    parts[b], seeds[b] = part, pair[1]
            used = [b for b, count in seeds.items() if count == max(seeds.values())]
            words["kept"] = ", ".join(used)
            for b in used:
                for label, weight in parts[b].items():
                    weights[label] = weights.get(label, 0.0) + weight * (1 / len(used))
        if not weights or not self.contrast(scores, weights, levels):
            return None
        if how == "worst":
            levels = [max(levels, key=lambda sigma: self.contrast(scores, weights, [sigma])[0].mean)]
            words["worst"] = levels[0]
        return *self.contrast(scores, weights, levels), words

    def trend(self, row, metric: str, levels, labels, twins=()) -> Effect | None:
        """The rank correlation of a score with the number in a network's name, or with that of twins."""
        scores = self.scores_of(row.group, metric, row.sigmas == "0")
        sides = [[stats.per_image(scores, label, levels) for label in side] for side in (labels, twins)]
        seeds = sorted(set.intersection(*(set(network) for side in sides for network in side)))
        if not seeds:
            return None
        values = [[[network[seed] for network in side] for side in sides if side] for seed in seeds]
        numbers = np.array([[float(re.search(r"\d+", label)[0])] for label in labels])

        def correlation(means: np.ndarray) -> np.ndarray:
            return stats.spearman(means[0], means[1] if twins else numbers)

        rho = stats.bootstrap_of_means(np.array(values), correlation)
        return rho, len(seeds), {"count": len(labels)}

    def twins(self, row, metric: str, levels, labels) -> Effect | None:
        """The rank correlation of UNets' scores with those of their MBConv twins."""
        there = [label for label in labels if f"MB-{label}" in self.flops_of(row.group).index]
        others = [f"MB-{label}" for label in there]
        return self.trend(row, metric, levels, there, others) if len(there) > 2 else None

    def flops(self, row, how: str, levels, labels) -> Effect:
        flops = self.flops_of(row.group)[labels].to_numpy() / 1000
        value = flops[0] - flops[1] if not how else (flops[1:] / flops[:-1]).min()
        value = float(flops[0] / flops[1] if how == "ratio" else value)
        return Interval(value, value, value), None, {}

    def pair(self, row, how: str, levels, labels) -> Effect:
        """Latency of the first minus that of the second in ms, timed side by side in batches of 32."""
        passes, swapped = pair_passes(*labels), pair_passes(*labels[::-1])
        gaps = passes["a_ms"] - passes["b_ms"] if len(passes) else swapped["b_ms"] - swapped["a_ms"]
        return stats.of_median(gaps.to_numpy()) if len(gaps) else Interval(np.nan), None, {}

    def ms(self, row, how: str, levels, labels) -> Effect:
        """Latency of the first minus that of the second; trainings of one network share one measurement
        and its error: that of the median, or, where it is larger, what two measurements differ by.
        """
        mean, error, rows = [], [], self.results_of(row.group).rows
        for label in labels:
            part = rows[rows["label"] == label].drop_duplicates("seed")
            error_ms = median_error(part["q75_ms"] - part["q25_ms"], part["passes"])
            error_ms = np.maximum(error_ms, self.repeat_error() * part["latency_ms"])
            each = error_ms.groupby(part["derivation"].fillna("made by hand")).sum()
            mean.append(part["latency_ms"].mean())
            error.append(float((each**2).sum() ** 0.5 / len(part)))
        gap, half = mean[0] - mean[1], 1.96 * hypot(*error)
        unit = 100 / mean[1] if row.metric == "pct" else 1
        return Interval(gap * unit, (gap - half) * unit, (gap + half) * unit), None, {}

    pct = ms

    def repeat_error(self) -> float:
        """Relative standard error of one measurement of latency, by networks measured twice."""
        scale = scale_of(self.scale)
        known = measured(4, scale).drop_duplicates("network").set_index("network")
        return repeat_error(known["median_ms"] / known["slowdown"], derivations(self.scale))

    def flips(self, row, how: str, levels, labels) -> Effect:
        """Best operators that change from one epoch to the next in the last third of the alphas'
        training, in % of layers.
        """
        read = self.searches_of("beta_searches")
        epochs = read.epochs[read.epochs["alphas_trained"]].groupby(["label", "seed"])["flips"]
        pct = epochs.agg(lambda flips: flips.tail(max(2, int(len(flips) * TAIL))).mean())
        layers = [len(read.architectures[key].space.layers) for key in pct.index]
        shared = (100 * pct / layers).unstack("label").dropna()
        values = shared[labels[0]] - (shared[labels[1]] if len(labels) > 1 else 0)
        return stats.of_few(values.to_numpy()), len(shared), {}

    def spread(self, row, what: str, levels, labels) -> Effect:
        """The standard deviation over searches of the first, over that of the second: of latency as
        searched, or of accuracy.
        """
        if what == "latency":
            epochs = self.searches_of("beta_searches").epochs
            values = epochs.groupby(["label", "seed"])["argmax_ms"].last().round(2)
        else:
            scores = self.scores_of(row.group, "accuracy", True)
            means = {key: each[0].astype(float).mean() for key, each in scores.items()}
            values = pd.Series(means).round(1)
        sides = [values[label].to_numpy() for label in labels]
        return stats.ratio_of_spreads(*sides), min(map(len, sides)), {}

    def derived(self, row, column: str, levels, labels) -> Effect | None:
        """How far measured latencies of derived networks are from their targets, in %."""
        rows = derivations(self.scale)
        ours = rows[(rows["label"] == row.networks) & (rows["network"] == "C-NAS")]
        ours = ours[ours["random_seed"].isna()]
        return (stats.of_few(ours[column].to_numpy()), len(ours), {}) if len(ours) else None


def compared(claims: Iterable[str] = (), evidence: Evidence | None = None) -> list[dict]:
    """The comparisons of some claims, or of all, that can be made: what is asked, and the effect."""
    evidence, table = evidence or Evidence(), []
    for row in map(evidence.named, asked(claims).itertuples(index=False)):
        if (found := evidence.effect(row)) is None:
            continue
        effect, seeds, words = found
        names = ("claim", "group", "ask", "precondition", "instrument")
        line = {name: getattr(row, name) for name in names}
        line |= {"primary": row.primary == "yes", "effect": effect, "seeds": seeds}
        line |= {"comparison": row.text.format(sigma=evidence.sigma, **words)}
        line |= {"paper": float(row.paper) if row.paper else None, "decimals": int(row.decimals or 2)}
        if row.metric.startswith("flops"):
            line["scale"] = "counted"
        elif row.metric.startswith(("pair", "ms", "pct", "derived")):
            line["scale"] = "timed"
        else:
            line["scale"] = evidence.results_of(row.group).rows["scale"].iloc[0]
        share_pct = 100 * evidence.images_of(row) / float(row.images) if row.images else None
        table.append(line | {"budget_pct": share_pct})
    return table


def pooled_psnr(psnr: np.ndarray) -> np.ndarray:
    """A number for each image whose mean over images is the PSNR of the pooled error, (11, N) for both.

    To first order the spread of that mean is the spread of the pooled PSNR, which is not a mean itself.
    """
    error = 10 ** (-psnr.astype(np.float64) / 10)
    mean = error.mean(1, keepdims=True)
    return -10 / np.log(10) * (np.log(mean) + error / mean - 1)


def above_zero(scores: Scores) -> Scores:
    """At σ = 0 the mean of all other levels, so that means over eleven levels are means over ten."""
    rest = {key: values[1:] for key, values in scores.items()}
    return {key: np.concatenate([values.mean(0, keepdims=True), values]) for key, values in rest.items()}
