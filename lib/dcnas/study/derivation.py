"""From a search to a network that meets its target on the device: tables, targets, derivations.

A derivation measures an architecture on the table's device and repairs it where it misses its target,
which must not happen while anything trains. Latencies are in the table's milliseconds: each measurement
has networks in it whose latency the table knows.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from torch import nn

from ..errors import InputError
from ..latency.measure import Latency, device_named
from ..latency.table import Table, load_table
from ..nas.derive import Frontier, fit_widths, repair
from ..nas.lut import build_table, measure_under, predicted_ms, space_of, validate_table
from ..nas.networks import build_network
from ..nas.settings import latency_range_ms
from ..nas.space import Architecture, Space, random_architecture, save_architecture
from ..paths import latency_dir, runs_dir, shown, write_atomic
from .kinds import Derivation, Search
from .presets import TARGETS
from .scales import SCALE
from .store import architecture_of, finish, folder_of, hold, is_complete, to_csv

TABLE_LIMIT_PCT = 5.0  # a search refuses a table that is worse, unless told otherwise
REFERENCES = 8
CLOSE = 0.01  # of the target: how near widths must come to it by the table
BUSY = 1.5  # times as slow as on the day of the table: something else runs


def table_path(scale: str) -> Path:
    """Where the look-up table of a scale lies: committed in data/latency, for smoke beside the runs."""
    return (runs_dir() if scale == "smoke" else latency_dir()) / SCALE[scale].table


def obtain_table(scale: str, *, progress: bool = True) -> Table:
    """The validated look-up table of a scale; at scale smoke it is measured where it is missing."""
    path, s = table_path(scale), SCALE[scale]
    if not path.exists() and scale != "smoke":
        sizes = f"--resolution {s.photos['resolution']} --width {s.width:g}"
        where = f"--stem-stride {s.strides[0]} --runtime pytorch --device {s.device}"
        raise InputError(
            f"{shown(path)} is missing; with nothing else running, run `dcnas lut build {sizes} {where} "
            f"--out {shown(path)}` and `dcnas lut validate {shown(path)} --device {s.device}`."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # several notebooks may run side by side
        if not path.exists():
            space = Space(8, s.photos["resolution"], 2, s.width, s.strides)
            unfinished, how = path.with_suffix(".unvalidated.json"), dict(rounds=2, progress=progress)
            table = build_table(space, unfinished, batch=4, threads=1, **how)
            frame, table = validate_table(table, networks=30, offset=False, **how)
            text = frame.to_csv(index=False, lineterminator="\n")
            write_atomic(path.with_suffix(".validation.csv"), text)
            table.save(path)
            unfinished.unlink()
    return load_table(path)


def table_of(search: Search) -> Table:
    """The table of a search: that of its scale, or a reader's own by its absolute path."""
    return load_table(Path(search.table)) if search.scale == "own" else obtain_table(search.scale)


def target_ms(run: Search | Derivation) -> float:
    """The target on the table's device: "S", "M", "L", with the decoder's latency added, or given in
    ms.
    """
    search = run.search if isinstance(run, Derivation) else run
    target = run.target or search.target
    if not isinstance(target, str):
        return target
    size, _, decoder = target.partition(" + ")
    table, sizes = table_of(search), (search.width, search.strides)
    low, high = latency_range_ms(Space(4, search.photos["resolution"], 2, *sizes), table)
    ms = round(low + TARGETS[size] * (high - low), 2)
    return round(ms + table.correction.scale * table.part_ms("decoder conv"), 2) if decoder else ms


def latencies_by_table(
    models: Mapping[str, nn.Module],
    table: Table,
    *,
    rounds: int,
    device: torch.device | None = None,
    progress=False,
) -> tuple[dict[str, Latency], float]:
    """Networks measured under the table's conditions, and how slow the device is: 2 is half as fast.

    On the table's device, which must be here, or on another `device`.

    All take turns, so that other load and clock rates, which come and go in seconds, hit all alike;
    random networks whose latency the table knows run among them, and the slowdown is theirs.
    """
    c = table.conditions
    device, space = device or device_named(c.device), space_of(c, 4)
    draws = (np.random.default_rng([REFERENCES, n]) for n in range(REFERENCES))
    known = {f"reference {n}": random_architecture(space, rng) for n, rng in enumerate(draws)}
    with torch.random.fork_rng():
        references = {name: build_network("C-NAS", a) for name, a in known.items()}
    how = dict(rounds=rounds, passes=1, device=device, unsynchronised=device.type != "cpu")
    measured = measure_under(c, models | references, progress=progress, **how)
    slower = [measured[name].median_ms / predicted_ms(table, a) for name, a in known.items()]
    return {name: measured[name] for name in models}, float(np.median(slower))


def derive(derivations: Sequence[Derivation], progress: bool = True) -> None:
    """Complete derivations of one table, whose searches are complete, measured side by side."""
    # in the order of their names, so that two processes do not wait for each other
    todo = sorted({d.name: d for d in derivations if not is_complete(d)}.values(), key=lambda d: d.name)
    with ExitStack() as locks:
        for derivation in todo:
            locks.enter_context(hold(derivation, progress=progress))
        if todo := [d for d in todo if not is_complete(d)]:
            _derive(todo, progress)


def _derive(derivations: Sequence[Derivation], progress: bool) -> None:
    """Fit, measure, repair and measure again what searches, or chance, have given."""
    table, by_name = table_of(derivations[0].search), {d.name: d for d in derivations}
    targets = {name: target_ms(d) for name, d in by_name.items()}
    predict = {name: partial(predicted_ms, table, network=d.network) for name, d in by_name.items()}
    starts = {name: _start(d, targets[name], predict[name]) for name, d in by_name.items()}

    def measure(architectures: Mapping[str, Architecture]) -> dict[str, tuple[float, float]]:
        models = {name: build_network(by_name[name].network, a) for name, a in architectures.items()}
        how = dict(rounds=derivations[0].rounds, progress=progress)
        measured, slowdown = latencies_by_table(models, table, **how)
        if slowdown > BUSY:
            warnings.warn(
                f"{table.conditions.device} takes {slowdown:.1f} times as long as on the day of the "
                "look-up table: does anything else run?",
                stacklevel=2,
            )
        times = {name: (m.median_ms, 1.96 * m.median_error_ms) for name, m in measured.items()}
        return {name: (ms / slowdown, noise / slowdown) for name, (ms, noise) in times.items()}

    repaired, rows = repair(starts, targets, predict, measure)
    # measured anew: what was chosen for its measurement would be flattered by it
    for name, (ms, noise) in measure(repaired).items():
        folder, target = folder_of(by_name[name]), targets[name]
        save_architecture(repaired[name], folder / "architecture.json")
        write_atomic(folder / "derivation.csv", to_csv(rows[name]))
        row = {"target_ms": target, "predicted_ms": predict[name](repaired[name])}
        row |= {"measured_ms": ms, "noise_ms": noise, "error_pct": 100 * (ms / target - 1)}
        row |= {"first_error_pct": rows[name][0]["error_pct"]}
        row |= {"repairs": len({r["predicted_ms"] for r in rows[name]}) - 1}
        finish(folder, device_named(table.conditions.device), [row], {})


def _start(
    derivation: Derivation, target_ms: float, predict: Callable[[Architecture], float]
) -> Architecture:
    if derivation.random_seed is None:
        return fitted(derivation.search, derivation.network, target_ms)
    drawn = random_architecture(derivation.search.space, np.random.default_rng(derivation.random_seed))
    return fit_widths(drawn, target_ms, predict)


def fitted(search: Search, network: str, target_ms: float) -> Architecture:
    """The most probable operators, with widths for the target by the table.

    A reader's own target may lie beyond all widths of these, as after a short search: then the most
    probable network within it. The study's searches are left as they ended, as the paper's.
    """
    table, ended = table_of(search), architecture_of(search)
    predict = partial(predicted_ms, table, network=network)
    architecture = fit_widths(ended, target_ms, predict)
    miss = abs(predict(architecture) / target_ms - 1)
    if search.scale != "own" or miss <= CLOSE or None in ended.choices:
        return architecture
    best = Frontier(search.space, table, log_alphas(search), network)
    low, high = best.range_ms
    return fit_widths(best.best(min(max(target_ms, low), high)), target_ms, predict)


def log_alphas(search: Search) -> list[np.ndarray]:
    """Per layer the log-probabilities of its operators at the end of a search."""
    rows = pd.read_csv(folder_of(search) / "alphas.csv")
    rows = rows[(rows["parameter"] == "alpha") & (rows["epoch"] == rows["epoch"].max())]
    shape = len(search.space.layers), search.operators
    return [*np.log(rows["probability"].to_numpy().reshape(shape).clip(1e-12))]
