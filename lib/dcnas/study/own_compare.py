"""`dcnas compare`: was the search worth it? The found network beside others of the same latency, trained
equally.

The others are a UNet with a linear head (DC-Net) and MobileNetV3 with the same decoder, of the widths
that come nearest to its latency, and random networks of its space, which are measured and repaired as it
was. All are trained on the same images, steps and noise as it, and judged by the same noisy images.
`rivals.json` keeps the choice, `comparison.csv` has the results.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from tqdm.auto import tqdm

from ..deploy.weights import load_network
from ..errors import InputError
from ..latency.measure import device_named
from ..latency.table import load_table
from ..nas.settings import latency_range_ms
from ..options import CompareOptions
from ..paths import shown, write_atomic
from .derivation import derive
from .kinds import Derivation, Run, Search, images_of
from .own import RECORD, WEIGHTS, Record, read_record
from .records import flops_of
from .rivals import families, nearest, random_of, times_ms
from .runs import obtain
from .stats import Interval, bootstrap, of_few
from .store import architecture_of, folder_of, read_tensors, run_named, to_csv

RIVALS, COMPARISON = "rivals.json", "comparison.csv"
FOUND, CHANCE = "this network", "random"
METRICS = {"psnr": "dB PSNR", "accuracy": "points of accuracy"}


def compare(options: CompareOptions) -> pd.DataFrame:
    """Choose, measure and train the others, and write `comparison.csv`: a row per network.

    `InputError` unless the folder's trained network is the one that was searched in it.
    """
    folder = options.folder
    record, card = read_record(folder), load_network(str(folder / WEIGHTS)).card
    net = card["network"]
    same = net["kind"] == record.network and card["parameters"] == record.parameters
    if not same or net.get("decoder", "conv") != "conv":
        raise InputError(f"{shown(folder / WEIGHTS)} is not of the network of {shown(folder / RECORD)}.")
    found, search = run_named(card["run"]), run_named(record.run)
    with FileLock(folder / f".{RIVALS}.lock"):  # a second call would choose others
        chosen = _chosen(record, search, found, options.random, folder / RIVALS)
    seeds = range(found.seed, found.seed + options.seeds)
    runs = {
        name: [replace(found, label=f"own {name}", net=net, seed=seed) for seed in seeds]
        for name, net in chosen["nets"].items()
    }
    runs[FOUND] = [replace(found, seed=seed) for seed in seeds]
    todo = [run for some in runs.values() for run in some]
    for run in tqdm(todo, "networks to compare", unit="network"):
        obtain(run, device=options.device)
    frame = table_of_runs(runs, chosen["latency_ms"])
    write_atomic(folder / COMPARISON, to_csv(frame.to_dict("records")))
    return frame


def _chosen(record: Record, search: Search, found: Run, count: int, path: Path) -> dict:
    """{"nets": by label, "latency_ms": by label}, as chosen before for the same network."""
    head = {"search": record.run, "found": found.net, "random": count}
    if path.exists() and (known := json.loads(path.read_text()))["of"] == json.loads(json.dumps(head)):
        return known
    table, network = load_table(Path(search.table)), record.network
    classes = len(images_of(found).classes)
    target_ms = record.predicted_ms if record.measured_ms is None else record.measured_ms
    low, high = latency_range_ms(search.space, table, network)
    target_ms = round(min(max(target_ms, low), high), 3)
    if record.measured_ms is None:
        drawn = [random_of(search.space, table, network, target_ms, seed) for seed in range(count)]
    else:
        device_named(table.conditions.device)
        derivations = [Derivation(search, network, target_ms, seed) for seed in range(count)]
        derive(derivations)
        drawn = [architecture_of(derivation) for derivation in derivations]
    grey = {"grey": True} if found.net.get("grey") else {}
    nets = {
        f"{CHANCE} {n + 1}": {"kind": network, "architecture": json.loads(architecture.to_json())} | grey
        for n, architecture in enumerate(drawn)
    }
    for family in families(network, search.strides[0]).values():
        (name,) = nearest(family, [target_ms], table, classes)
        nets[name] = family[name] | grey
    latency_ms = times_ms(nets | {FOUND: found.net}, table, classes, rounds=30)
    chosen = {"of": head, "nets": nets, "latency_ms": latency_ms}
    write_atomic(path, json.dumps(chosen, indent=1) + "\n")
    return chosen


def scores_of(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """psnr in dB, the mean over noise, and accuracy in %, the mean over all levels: (seeds, images)."""
    scores: dict[str, list[np.ndarray]] = {}
    for run in runs:
        metrics = read_tensors(folder_of(run) / "per_image.safetensors")
        if "psnr" in metrics:
            noisy = metrics["psnr"][1:] if len(metrics["psnr"]) > 1 else metrics["psnr"]  # of pairs
            scores.setdefault("psnr", []).append(noisy.double().mean(0).numpy())
        if "correct" in metrics:
            right = 100 * metrics["correct"].double().flatten(2)[..., 0]
            scores.setdefault("accuracy", []).append(right.mean(0).numpy())
    return {name: np.stack(values) for name, values in scores.items()}


def table_of_runs(runs: dict[str, list[Run]], latency_ms: dict[str, float]) -> pd.DataFrame:
    """A row per network: latency, size, metrics with intervals over images and seeds, and its gains: how
    much better this network is, on the same images.

    The last row is the mean of the random networks, with Student's intervals over these.
    """
    scores = {name: scores_of(some) for name, some in runs.items()}
    rows, by_chance = [], {}
    for name in sorted(runs, key=lambda name: (name != FOUND, name.startswith(CHANCE))):
        row = {"network": name, "latency_ms": latency_ms[name], "flops": flops_of(runs[name][0])}
        row |= {"seeds": len(runs[name]), "images": next(iter(scores[name].values())).shape[1]}
        for metric, values in scores[name].items():
            row |= columns_of(metric, bootstrap(values))
            gain = scores[FOUND][metric] - values
            row |= columns_of(f"{metric}_gain", bootstrap(gain))
            if name.startswith(CHANCE):
                by_chance.setdefault(metric, []).append((values.mean(), gain.mean()))
        rows.append(row)
    if by_chance:
        some = [row for row in rows if row["network"].startswith(CHANCE)]
        mean = {key: float(np.mean([row[key] for row in some])) for key in ("latency_ms", "flops")}
        row = {"network": f"mean of {len(some)} {CHANCE}"} | mean
        row |= {key: some[0][key] for key in ("seeds", "images")}
        for metric, pairs in by_chance.items():
            values, gains = zip(*pairs, strict=True)
            row |= columns_of(metric, of_few(values)) | columns_of(f"{metric}_gain", of_few(gains))
        rows.append(row)
    return pd.DataFrame(rows)


def columns_of(name: str, interval: Interval) -> dict[str, float]:
    """An interval as three columns of a table."""
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def sentence(frame: pd.DataFrame) -> str:
    """What the comparison says about the search, against chance and against the best network by hand."""
    last, metrics = frame.iloc[-1], [name for name in METRICS if name in frame]
    gains = {
        name: Interval(*last[[f"{name}_gain{end}" for end in ("", "_low", "_high")]]) for name in metrics
    }
    how = "one training" if last["seeds"] == 1 else f"{last['seeds']} trainings"
    numbers = " and ".join(
        f"{gain.mean:+.2f} {METRICS[name]} ({gain.bounds()})" for name, gain in gains.items()
    )
    better, worse = any(g.low > 0 for g in gains.values()), any(g.high < 0 for g in gains.values())
    verdict = {
        (True, False): "The search was worth it",
        (False, True): "The search was worse than chance",
        (True, True): "The search gained in one thing and lost in the other",
        (False, False): "The search is not told apart from chance",
    }[better, worse]
    text = f"{verdict}: {numbers} over the {last['network']} networks of the same latency"
    text += f" (Student's 95% interval over these, {how} of each)."
    others = frame[1:-1][~frame["network"][1:-1].str.startswith(CHANCE)]
    for name in metrics:
        if others[name].notna().any():
            best = others.loc[others[name].idxmax()]
            low, high = best[f"{name}_gain_low"], best[f"{name}_gain_high"]
            word = "better than" if low > 0 else "worse than" if high < 0 else "not told apart from"
            amount = f"{best[f'{name}_gain']:+.2f} {METRICS[name]} ({low:.2f} to {high:.2f})"
            text += f" It is {word} {best['network']}: {amount}."
    return text
