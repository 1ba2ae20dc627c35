"""Searches and derivations as tidy data, published or carried out here and now."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..nas.space import Architecture, Space
from ..paths import published_dir
from . import presets
from .derivation import derive
from .kinds import Derivation, Named, Run
from .records import architecture_in, derivation_row, published_scale, read_published, search_row
from .runs import needs, obtain
from .store import folder_of


@dataclass(frozen=True)
class Searches:
    """Searches of a group: `rows` a row per search, `epochs` and `alphas` with the columns run, label,
    seed of each.
    """

    rows: pd.DataFrame
    epochs: pd.DataFrame
    alphas: pd.DataFrame
    architectures: dict[tuple[str, int], Architecture]

    def only(self, label: str, seed: int = 0) -> "Searches":
        """One of them."""
        frames = self.rows, self.epochs, self.alphas
        parts = [frame[(frame["label"] == label) & (frame["seed"] == seed)] for frame in frames]
        return Searches(*parts, {(label, seed): self.architectures[label, seed]})

    def last_alphas(self, label: str, seed: int = 0) -> tuple[Space, list[np.ndarray]]:
        """The space of a search, and of each layer the log-probabilities of its operators at the end."""
        alphas = self.only(label, seed).alphas.query("parameter == 'alpha'")
        last = alphas[alphas["epoch"] == alphas["epoch"].max()].groupby("place", sort=False)[
            "probability"
        ]
        logs = [np.log(np.clip(probabilities.to_numpy(), 1e-6, 1)) for _, probabilities in last]
        return self.architectures[label, seed].space, logs


def searches(group: str, scale: str, *, device: str = "cpu", progress: bool = True) -> Searches:
    """The searches of a group such as "beta_searches", in its order, with the name "label, seed N" for
    each.
    """
    if scale == "published":
        listed = {(run.label, run.seed): None for run in presets.searches(group, published_scale())}
        rows = (
            read_published("section4_searches")
            .query("scale == @published_scale()")
            .set_index(["label", "seed"], drop=False)
        )
        rows = rows.loc[[key for key in listed if key in rows.index]].reset_index(drop=True)
        frames = [
            pd.read_csv(published_dir() / f"section4_{name}").groupby("run")
            for name in ("epochs.csv", "alphas.csv.gz")
        ]
        frames = [[of.get_group(run) for run in rows["run"]] for of in frames]
    else:
        listed = presets.searches(group, scale)
        carry_out(listed, device=device, progress=progress)
        rows = pd.DataFrame(map(search_row, listed))
        frames = [
            [pd.read_csv(folder_of(run) / f"{name}.csv") for run in listed]
            for name in ("epochs", "alphas")
        ]
    source = "published" if scale == "published" else "runs"
    heads = [
        dict(run=f"{row.label}, seed {row.seed}", label=row.label, seed=row.seed)
        for row in rows.itertuples()
    ]
    architectures = {
        (row.label, row.seed): architecture_in(row.run, source) for row in rows.itertuples()
    }
    named = [
        pd.concat([f.assign(**h) for f, h in zip(of, heads, strict=True)], ignore_index=True)
        for of in frames
    ]
    more = ["scale", "target_ms", "predicted_ms", "verdict", "reason"]
    named = [
        frame.dropna(axis=1, how="all").infer_objects() for frame in named
    ]  # what other kinds of search have
    return Searches(pd.DataFrame(heads).join(rows[more]), *named, architectures)


def derivations(scale: str, *, device: str = "cpu", progress: bool = True) -> pd.DataFrame:
    """A row per derived network: target, prediction and measurement in ms."""
    if scale == "published":
        return (
            read_published("section4_derivations")
            .query("scale == @published_scale()")
            .reset_index(drop=True)
        )
    listed = {
        run.name: run for run in presets.runs("section4", scale) if isinstance(run, Derivation)
    }.values()
    for run in listed:
        if (search := needs(run)) is not None:
            obtain(search, device=device, progress=progress)
    derive(list(listed), progress)
    return pd.DataFrame(map(derivation_row, listed))


def carry_out(listed: Iterable[Named], *, device: str, progress: bool) -> None:
    """Complete runs; what they derive together, measured side by side."""
    listed = list(listed)
    derived = {
        run.source.name: run.source
        for run in listed
        if isinstance(run, Run) and isinstance(needs(run), Derivation)
    }
    for run in derived.values():
        if (search := needs(run)) is not None:
            obtain(search, device=device, progress=progress)
    derive(list(derived.values()), progress)
    for run in listed:
        obtain(run, device=device, progress=progress)
