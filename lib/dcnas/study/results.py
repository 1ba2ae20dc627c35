"""Results as tidy data: what the notebooks' cells ask for, at any scale.

`results("table_3", "published")` reads what is published; any other scale trains what is missing and reads it from the
runs' folder. Rows say how well each network does at each noise level, `scores` how well on each test image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pandas as pd

from ..data.noise import SIGMAS
from ..data.two_digits import cached
from ..nas.space import Architecture, Space
from ..paths import paper_dir
from ..training import evaluate
from . import histories, results3, results4, section2
from .runs import bank_noisy
from .stats import Interval, Scores, contrast, means


@dataclass(frozen=True)
class Results:
    """Networks of a group: a row per run and noise level in `rows`, a number per test image in `scores`."""

    rows: pd.DataFrame
    archive: str = "section3_per_image"  # where per-image results of published runs lie
    compared: dict[str, Scores] = field(default_factory=dict)  # scores cut to the images that all networks have

    @property
    def labels(self) -> list[str]:
        """The networks' names, in the group's order."""
        return list(dict.fromkeys(self.rows["label"]))

    @property
    def seeds(self) -> pd.Series:
        """How many seeds each network was trained with."""
        return self.rows.groupby("label", sort=False)["seed"].nunique()

    @property
    def networks(self) -> pd.DataFrame:
        """A row per network: seeds, FLOPs (M), parameters (M), latency (ms); means where seeds differ in architecture."""
        networks = self.rows.drop_duplicates("run").groupby("label", sort=False)
        columns = {
            "seeds": networks["seed"].nunique(),
            "FLOPs (M)": networks["flops"].mean().div(1e6).round(1),
            "parameters (M)": networks["parameters"].mean().div(1e6).round(2),
            "latency (ms)": networks["latency_ms"].mean().round(2),
        }
        return pd.DataFrame(columns).rename_axis("network")

    @property
    def training(self) -> pd.DataFrame:
        """What networks of Section 4 were trained on, and for how long: a row for each kind of training."""
        seen = self.rows[["scale", "data", "classes", "resolution", "set_images", "images"]].drop_duplicates()
        names = {"resolution": "pixels", "set_images": "training images", "images": "images seen by a network"}
        return seen.assign(epochs=(seen["images"] / seen["set_images"]).round(1)).rename(columns=names).set_index("scale")

    def scores(self, metric: str) -> Scores:
        """(label, seed) to "psnr" (dB), "ssim" or "accuracy" (%) of each test image: (sigmas, images[, digits])."""
        if metric in self.compared:
            return self.compared[metric]
        return results3.per_image(self.rows[self.rows[metric].notna()], metric, self.archive)

    @property
    def samples(self) -> dict[str, np.ndarray]:
        """label to the outputs of seed 0 for the first test images: uint8 (sigmas, images, C, H, W)."""
        read = {"section2_per_image": section2.samples, "section3_per_image": results3.samples}
        return read.get(self.archive, results4.samples)(self.rows)

    def pictures(self, index: int, sigma: float) -> dict[str, np.ndarray]:
        """A test image, (H, W[, 3]) of 0 to 1: "clean", "noisy", and by label the outputs of seed 0."""
        if self.archive == "section3_per_image":
            return results3.pictures(self.rows, index, sigma)
        return results4.pictures(self.rows, self.samples, index, sigma)

    @property
    def history(self) -> pd.DataFrame:
        """Loss curves: a row per run and validation, with the images seen till then; empty where none are published."""
        return histories.histories(self.rows)

    @property
    def architectures(self) -> dict[tuple[str, int], Architecture]:
        """(label, seed) to the architecture, before it was upscaled, of the networks that have one."""
        return results4.architectures(self.rows)


@dataclass(frozen=True)
class Searches:
    """Searches of a group: `rows` a row per search, `epochs` and `alphas` with the columns run, label, seed of each."""

    rows: pd.DataFrame
    epochs: pd.DataFrame
    alphas: pd.DataFrame
    architectures: dict[tuple[str, int], Architecture]

    def last_alphas(self, label: str, seed: int = 0) -> tuple[Space, list[np.ndarray]]:
        """The space of a search, and of each of its layers the log-probabilities of the operators at the end."""
        alphas = self.alphas.query("parameter == 'alpha' and label == @label and seed == @seed")
        last = alphas[alphas["epoch"] == alphas["epoch"].max()].groupby("place", sort=False)["probability"]
        logs = [np.log(np.clip(probabilities.to_numpy(), 1e-6, 1)) for _, probabilities in last]
        return self.architectures[label, seed].space, logs


def results(group: str | Sequence[str], scale: str, *, device: str = "cpu") -> Results:
    """The results of a group such as "table_3", or of several: each run once, all of the first group's scale."""
    groups = [group] if isinstance(group, str) else list(group)
    if groups[0] == "section2":
        rows, scores = section2.results(scale, device=device)
        return Results(rows, "section2_per_image", scores)
    if groups[0] in results4.GROUPS:
        rows = pd.concat([results4.results(name, scale, device=device) for name in groups])
        return Results(rows.drop_duplicates(["run", "sigma"], ignore_index=True), "section4_per_image")
    return Results(results3.gather(groups, scale, device))


def lengths(group: str) -> dict[str, Results]:
    """The published results of a group of Section 3, the shortest training first: "192,000 images, 3 seeds" to them."""
    parts = map(Results, results3.published_lengths(group))
    return {f"{part.rows['images'].iloc[0]:,} images, {part.seeds.max()} seeds": part for part in parts}


def searches(group: str, scale: str, *, device: str = "cpu") -> Searches:
    """The searches of a group such as "beta_searches", in its order."""
    listed = results4.searches(group, scale, device=device)
    heads = [dict(run=f"{s.label}, seed {s.seed}", label=s.label, seed=s.seed) for s in listed]
    more = ("scale", "target_ms", "predicted_ms", "verdict", "reason")
    rows = [head | {name: getattr(s, name) for name in more} for head, s in zip(heads, listed, strict=True)]
    frames = [
        pd.concat([getattr(s, name).assign(**head) for head, s in zip(heads, listed, strict=True)], ignore_index=True)
        for name in ("epochs", "alphas")
    ]
    return Searches(pd.DataFrame(rows), *frames, {(s.label, s.seed): s.architecture for s in listed})


def paper(name: str, index: str = "model") -> pd.DataFrame:
    """One of the paper's tables in data/paper, such as "table3_dcnet"."""
    return pd.read_csv(paper_dir() / f"{name}.csv").set_index(index)


def quality(scores: Scores, name: str, decimals: int, sigmas: Sequence[float] = SIGMAS) -> pd.DataFrame:
    """A row per network with its mean score, such as "PSNR (dB)", and the bounds of its 95% interval."""
    levels = means(scores, dict.fromkeys(label for label, _ in scores), sigmas)
    rows = [(round(level.mean, decimals), level.bounds(decimals)) for level in levels.values()]
    return pd.DataFrame(rows, pd.Index(list(levels)), [name, f"{name}, 95%"])


def beside(ours: dict[str, Interval | float], theirs, decimals: int, exact: bool = False) -> pd.DataFrame:
    """Our numbers beside the paper's (a dict or Series by name): a row per network with the difference and a verdict.

    `decimals` is how the paper prints the number. With `exact` (FLOPs), it is a match if ours rounds to the paper's
    number; else if the paper's number lies inside our interval, or would before it was rounded.
    """
    rows = []
    for name, value in ours.items():
        interval = value if isinstance(value, Interval) else Interval(value, value, value)
        row = {"network": name, "ours": round(interval.mean, decimals)}
        if not exact:
            row["95% interval"] = interval.bounds(decimals) if isinstance(value, Interval) else "exact"
        number = theirs.get(name)
        row["paper"] = number
        row["difference"] = None if number is None else round(interval.mean - number, decimals)
        match = number is not None and interval.contains(number, 0.5 * 10**-decimals)
        row["verdict"] = "not in the paper" if number is None else "match" if match else "no match"
        rows.append(row)
    return pd.DataFrame(rows).set_index("network")


def contrasts(scores: Scores, parts: dict, name: str | Sequence[str] = "comparison") -> pd.DataFrame:
    """A row for each comparison (weights by network, sigmas) that can be made: the effect, and on which side of 0 it lies."""
    rows = {}
    for part, (weights, sigmas) in parts.items():
        if weights and (pair := contrast(scores, weights, sigmas)):
            effect, seeds = pair
            side = "above 0" if effect.low > 0 else "below 0" if effect.high < 0 else "includes 0"
            rows[part] = [round(effect.mean, 2), effect.bounds(), seeds, side + " (one seed)" * (seeds == 1)]
    columns = ["effect", "95% interval", "seeds", "interval is"]
    return pd.DataFrame(list(rows.values()), pd.Index(list(rows)), columns).rename_axis(name)


@lru_cache(maxsize=4)
def _noisy_input(images: int) -> dict[str, np.ndarray]:
    data = cached("test", images)
    noisy = bank_noisy(data.images)
    scores = evaluate(lambda noisy, _: (noisy, None), data.images, data.boxes, data.labels, noisy, SIGMAS)
    return {metric: values.numpy() for metric, values in scores.items()}


def with_noisy_input(scores: Scores, metric: str) -> Scores:
    """`scores` of Section 3 and, as one more network, the "noisy input" itself, with the noise that every network meets."""
    noisy = _noisy_input(next(iter(scores.values())).shape[1])[metric]
    return scores | {("noisy input", seed): noisy for _, seed in scores}
