"""The ledger (Section 5): every claim of the paper with its verdict and what it rests on, from the results of one scale.

The comparisons are those of the notebooks. Here they stand together, and assumptions that the paper leaves open can be turned
about: `Assumptions` changes the scores before any claim looks at them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..data.two_digits import IMAGE_SIZE
from ..models.crops import BOX_SIZE
from . import figures, latencies, paper
from .claims import NOT_REPRODUCED, REPRODUCED, UNDECIDED, judge, overall, verdict_table
from .comparisons import COUNTED, TIMED, Evidence, asked, compared
from .figures import COLOURS
from .presets import SECTION_3, SECTION_4, differs
from .records import read_published, scale_of
from .results import lengths, results
from .stats import Scores, widened

NOISY_GROUPS = ("tables_1_and_6", "figure_3", "table_3", "table_4", "table_5")  # judged on noisy images
DECIBEL = 10 / np.log(10)
VERDICT_LOOK = {REPRODUCED: ("green", "o"), NOT_REPRODUCED: ("red", "X"), UNDECIDED: ("orange", "s")}


@dataclass(frozen=True)
class Assumptions:
    """What the paper leaves open about its noise and its means, and how wide intervals are. The defaults are the notebooks'."""

    without_zero: bool = False  # means over the ten noise levels above 0 instead of all eleven
    pooled: bool = False  # PSNR of the error pooled over all images instead of the mean of each image's PSNR
    clipped: bool = False  # noisy images clipped to [0, 1], where every network of a comparison was trained and tested so too
    student: bool = False  # intervals over seeds as wide as those of Student's t, instead of the bootstrap's
    seeds: int | None = None  # of each network, the first so many trainings; None: all

    @property
    def words(self) -> dict[str, str]:
        """What each of them says of a comparison: "levels", "psnr", "noise"."""
        levels = "ten noise levels above 0" if self.without_zero else "eleven noise levels"
        psnr = "of the error pooled over images" if self.pooled else "averaged over images"
        return {"levels": f"means over {levels}", "psnr": f"PSNR {psnr}", "noise": f"noise {'' if self.clipped else 'not '}clipped"}

    @property
    def text(self) -> str:
        words = self.words
        student = "; intervals as wide as Student's t over seeds" if self.student else ""
        return f"{words['levels']}, {words['psnr']}, {words['noise']}{' where it can be' if self.clipped else ''}{student}"

    def apply(self, scores: Scores, metric: str) -> Scores:
        """The scores as these assumptions have them."""
        if self.pooled and metric == "psnr":
            scores = {key: pooled(values) for key, values in scores.items()}
        if self.without_zero:  # σ = 0 counts as much as the mean of the others, so a mean over eleven is that over ten
            scores = {key: np.concatenate([values[1:].mean(0, keepdims=True), values[1:]]) for key, values in scores.items()}
        return self.spread(scores)

    def change(self, scores: Scores, metric: str, clean: bool) -> Scores:
        """What `Evidence` takes: without noise, neither what noise is nor what means are over matters."""
        return self.spread(scores) if clean else self.apply(scores, metric)

    def spread(self, scores: Scores) -> Scores:
        """The scores of as many seeds, and those as far apart, as these assumptions have it."""
        if self.seeds is not None:
            scores = {(label, seed): values for (label, seed), values in scores.items() if seed < self.seeds}
        if not self.student:
            return scores
        by_label: dict[str, dict[int, np.ndarray]] = {}
        for (label, seed), values in scores.items():
            by_label.setdefault(label, {})[seed] = values
        return {(label, seed): values for label, seeds in by_label.items() for seed, values in widened(seeds).items()}


def pooled(psnr: np.ndarray) -> np.ndarray:
    """A number for each image whose mean over images is the PSNR of the pooled error, (11, N) to (11, N).

    To first order the spread of that mean is the spread of the pooled PSNR, which is not a mean itself.
    """
    error = 10 ** (-psnr.astype(np.float64) / 10)
    mean = error.mean(1, keepdims=True)
    return -DECIBEL * (np.log(mean) + error / mean - 1)


TWIN = ", clipped"  # ends the label of a network that was trained and tested on clipped images


def twins_of(rows: pd.DataFrame, among: pd.DataFrame) -> pd.DataFrame:
    """The rows in `among` of the clipped twins, of the same scale, of networks in `rows`; under the labels of these."""
    there = among[among["label"].isin(rows["label"] + TWIN) & among["scale"].isin(rows["scale"])]
    return there.assign(label=there["label"].str.removesuffix(TWIN))


def with_twins(found: list[dict], instead: list[dict]) -> list[dict]:
    """Comparisons `found`, where those marked `clipped` or not give way to like ones in `instead`, made of twins alone."""
    of_twins = {(row["claim"], row["comparison"]): row | {"clipped": True} for row in instead if "seeds" in row}
    return [of_twins.get((row["claim"], row["comparison"]), row) if "clipped" in row else row for row in found]


def clipped_text(rows: Sequence[dict]) -> str:
    """How many of the comparisons on noisy images are on clipped ones, in a sentence."""
    on_noise = [row["clipped"] for row in rows if "clipped" in row]
    return f"Clipped: {sum(on_noise)} of {len(on_noise)} comparisons on noisy images; of the others a network lacks a clipped twin."


def comparisons(scale: str, assumptions: Assumptions = Assumptions(), *, device: str = "cpu") -> list[dict]:
    """All comparisons of all claims in the paper's order, as `claims.verdict_table` takes them, with what they rest on.

    That is the `scale` of the results, what is `assumed` where the paper is silent, and on noisy images whether they are `clipped`.
    """
    evidence = Evidence(scale, device=device, change=assumptions.change)
    noisy = sorted({claim for claim, group in asked()[["claim", "group"]].to_numpy() if group in NOISY_GROUPS})
    rows = [row | {"clipped": False} if row["claim"] in noisy and "seeds" in row else row for row in compared(evidence=evidence)]
    if assumptions.clipped:
        there = results("clipping_check", scale, device=device).rows if scale != "published" else _all_published()
        twins = Evidence(scale, device=device, change=assumptions.change, select=lambda rows: twins_of(rows, there))
        rows = with_twins(rows, compared(noisy, twins))
    texts, facts = paper.assumed(), cache(partial(_facts, evidence))
    for row in rows:
        words = replace(assumptions, clipped=row.get("clipped", False)).words | facts(row["group"])
        row.setdefault("scale", facts(row["group"])["scale"])
        row["assumed"] = texts[row["claim"]].format(**words)
    return sorted(rows, key=lambda row: row["claim"])


def _all_published() -> pd.DataFrame:
    """All published trainings of Section 3: a row per run and noise level."""
    return read_published("section3").assign(source="published")


def _facts(evidence: Evidence, group: str) -> dict:
    """What the texts of assumptions name of a group's results."""
    rows = evidence.results_of(group).rows
    timed = latencies.section_3() if "task" in rows else latencies.section_4(scale_of(evidence.scale))
    facts = {name: _listed(rows[name]) for name in ("batch", "data", "resolution") if name in rows}
    facts |= {"box": BOX_SIZE, "image": IMAGE_SIZE, "timed_on": _listed(timed["device"]) or "no device"}
    return facts | {"scale": rows["scale"].iloc[0], "training": differs(rows["scale"].iloc[0])}


def by_evidence(rows: Sequence[dict], scale: str, *, device: str = "cpu") -> pd.DataFrame:
    """Claims that more evidence has moved: the verdicts on two seeds, or on classifiers trained for less, and on all, `rows`."""
    columns = {"two seeds of each network": verdicts(comparisons(scale, Assumptions(seeds=2), device=device))}
    for part in [r.rows for r in lengths("tables_1_and_6").values()][:-1] if scale == "published" else ():
        shorter = verdicts(compared(["C01", "C02", "C03", "C04", "C05"], Evidence(scale, select=lambda _, part=part: part)))
        columns[f"classifiers after {part['images'].iloc[0]:,} images"] = shorter.replace("no results", "")
    table = pd.DataFrame(columns | {"all": verdicts(rows)})
    return table[[len({*line} - {""}) > 1 for line in table.to_numpy()]]


def _listed(values: pd.Series) -> str:
    return " or ".join(map(str, values.unique()))


def asked_of(row: dict) -> dict:
    """What `claims.judge` is asked of a comparison."""
    return {name: row[name] for name in ("threshold", "direction", "margin", "seeds") if name in row}


def verdict_of(row: dict) -> str:
    """The verdict on one comparison, of several seeds or one."""
    return judge(row["effect"], **asked_of(row))


def verdicts(rows: Sequence[dict]) -> pd.Series:
    """The verdict on each claim; the claims without any comparison are "no results"."""
    judged: dict[str, list[str]] = {}
    for row in rows:
        judged.setdefault(row["claim"], []).append(verdict_of(row))
    found = {claim: overall(judged[claim]) if claim in judged else "no results" for claim in paper.claims().index}
    return pd.Series(found, name="verdict").rename_axis("claim")


def ledger(rows: Sequence[dict]) -> pd.DataFrame:
    """A row per comparison: claim, statement, comparison, the paper's number, ours with its interval, scale, seeds, verdict.

    Then what was assumed and the verdict on the whole claim.
    """
    table = verdict_table(list(rows))
    verdict = table.pop("verdict")
    for name in ("scale", "seeds"):
        table[name] = [str(row.get(name, "")) for row in rows]
    table["verdict"] = verdict
    table["assumed"] = [row.get("assumed", "") for row in rows]
    table["claim's verdict"] = table["claim"].map(verdicts(rows))
    return table.set_index("claim")


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The `ledger` for a page: without the statements, and with what was assumed once where it is the same for a claim's parts."""
    claim = table.index.to_series().reset_index(drop=True)
    assumed = table["assumed"].reset_index(drop=True)
    again = claim.eq(claim.shift()) & assumed.eq(assumed.shift())
    return table.drop(columns=["statement", "claim's verdict"]).assign(assumed=assumed.mask(again, "as above").to_numpy())


STRICTER = "with Student's t"  # the column of verdicts from intervals that are wider over seeds


def summary(rows: Sequence[dict], wide: Sequence[dict] = ()) -> pd.DataFrame:
    """A row per claim: where it stands in the paper, what it says, how many of its parts are reproduced, the verdict.

    With `wide`, the same comparisons with the intervals of Student's t over seeds, their verdict as well.
    """
    table = paper.claims()[["section", "source", "statement"]].copy()
    parts = {claim: [verdict_of(row) for row in rows if row["claim"] == claim] for claim in table.index}
    table["parts"] = [f"{found.count(REPRODUCED)} of {len(found)}" for found in parts.values()]
    table["scale"] = [_scales([row for row in rows if row["claim"] == claim]) for claim in table.index]
    table["seeds"] = [_seeds([row for row in rows if row["claim"] == claim]) for claim in table.index]
    table["verdict"] = verdicts(rows)
    return table.assign(**{STRICTER: verdicts(wide)}) if wide else table


def _seeds(rows: Sequence[dict]) -> str:
    counts = sorted({row["seeds"] for row in rows if "seeds" in row})
    return "" if not counts else f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _scales(rows: Sequence[dict]) -> str:
    """The scales of the results; "counted" or "timed" only where nothing was trained."""
    found = list(dict.fromkeys(row["scale"] for row in rows if "scale" in row))
    return ", ".join([name for name in found if name not in (COUNTED, TIMED)] or found)


def few_seeds(scale: str, *, device: str = "cpu") -> pd.DataFrame:
    """The networks with fewer seeds than others, and how long a training of theirs takes, in minutes."""
    sections = [results(list(groups), scale, device=device).rows for groups in (SECTION_3, SECTION_4)]
    rows = pd.concat([part[["label", "seed", "train_s"]] for part in sections]).drop_duplicates(["label", "seed"])
    found = rows.groupby("label", sort=False).agg(seeds=("seed", "size"), minutes=("train_s", lambda s: round(s.mean() / 60, 1)))
    return found[found["seeds"] < found["seeds"].max()].rename_axis("network").rename(columns={"minutes": "a training (minutes)"})


def clearance(row: dict) -> float:
    """How clearly an effect is where the claim says: its distance from the border in half widths of its interval towards it.

    Above 1 is "reproduced", below -1 "not reproduced"; NaN without an interval, infinite for an exact number.
    """
    effect, threshold, direction = row["effect"], row.get("threshold", 0.0), row.get("direction", ">")
    margin = row.get("margin", 0.0)
    above = threshold - margin if direction == "about" else threshold if direction == ">" else -np.inf  # the claim's region
    below = threshold + margin if direction == "about" else threshold if direction == "<" else np.inf
    if above <= effect.mean <= below:
        return min(_ratio(effect.mean - above, effect.mean - effect.low), _ratio(below - effect.mean, effect.high - effect.mean))
    if effect.mean < above:
        return -_ratio(above - effect.mean, effect.high - effect.mean)
    return -_ratio(effect.mean - below, effect.mean - effect.low)


def _ratio(distance: float, half: float) -> float:
    return np.inf if half == 0 else distance / half


def glance(rows: Sequence[dict], text: str = "", limit: float = 4.0) -> Figure:
    """All claims at a glance: a mark for each comparison, how clearly it is on the claim's side, coloured by its verdict.

    Those beyond `limit` lie at the edge, with their number where there are several.
    """
    names, edge = list(paper.claims().index), Counter()
    figure, axes = figures.new_figure(9, 0.27 * len(names) + 1.6)
    whole = verdicts(rows)
    axes.axvspan(-1, 1, color="0.93", zorder=0)
    for row in rows:
        place, value = names.index(row["claim"]), clearance(row)
        colour, marker = VERDICT_LOOK[verdict_of(row).removesuffix(" (one seed)")]
        hollow = dict(markerfacecolor="white") if row.get("seeds") == 1 else {}
        if not np.isnan(value):
            x = float(np.clip(value, -limit, limit))
            axes.plot(x, place, marker, color=COLOURS[colour], markersize=7, alpha=0.8, **hollow)
            edge[x, place] += abs(x) == limit
    for (x, place), count in edge.items():
        if count > 1:
            beside = dict(xytext=(np.copysign(9, x), 0), textcoords="offset points", ha="center", va="center", fontsize=8)
            axes.annotate(f"{count}", (x, place), **beside)
    axes.set_yticks(range(len(names)), [f"{name}  {whole[name]}" for name in names])
    axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(-limit - 0.35, limit + 0.35))
    axes.set_xlabel("how clearly the effect is where the claim says, in half widths of its 95% interval")
    handles = [Line2D([], [], color=COLOURS[c], marker=m, linestyle="", label=word) for word, (c, m) in VERDICT_LOOK.items()]
    handles.append(Line2D([], [], color=COLOURS["orange"], marker="s", linestyle="", markerfacecolor="white", label="one seed"))
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    scales = _scales(rows)
    return figures.note(figure, f"Scale {scales}; {text}" if scales else text)


def moved(before: pd.Series, after: pd.Series) -> pd.DataFrame:
    """Claims whose verdict differs."""
    both = pd.DataFrame({"verdict": before, "with these assumptions": after})
    return both[both["verdict"] != both["with these assumptions"]]


def moved_text(before: Sequence[dict], after: Sequence[dict]) -> str:
    """The claims whose verdict differs between two lists of comparisons, in one line."""
    found = moved(verdicts(before), verdicts(after))
    return "; ".join(f"{claim}: {old} → {new}" for claim, old, new in found.itertuples()) or "none"


def flips(rows: Sequence[dict], scale: str, *, device: str = "cpu") -> pd.DataFrame:
    """Each assumption turned about alone, then all: how many comparisons it changes, and which verdicts of `rows` it moves."""
    names, table = [field.name for field in fields(Assumptions) if field.default is False], []
    for turned in (*([name] for name in names), names):
        asked = Assumptions(**dict.fromkeys(turned, True))
        other = comparisons(scale, asked, device=device)
        changed = sum(repr(a["effect"]) != repr(b["effect"]) for a, b in zip(rows, other, strict=True) if "clipped" in b)
        on_noise = sum("clipped" in row for row in other)
        table.append([asked.text, f"{changed} of {on_noise}", moved_text(rows, other)])
    columns = ["assumptions", "comparisons on noisy images that change", "verdicts that move"]
    return pd.DataFrame(table, columns=columns).set_index("assumptions")
