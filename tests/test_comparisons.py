"""Comparisons of made-up results with known answers: every kind of claim can have every verdict."""

from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from dcnas.nas.space import Space
from dcnas.study import comparisons, ledger
from dcnas.study.comparisons import B_LINE, Evidence, asked, compared
from dcnas.study.results import Results
from dcnas.study.tables import paper

NOISE = np.random.default_rng(0).normal(0, 0.05, (11, 60))  # alike for all networks
TRUE, FALSE, TORN, ALONE = WORLDS = ("reproduced", "not reproduced", "undecided", "undecided (one seed)")
REMOVED, LEARNED = "C-NAS S, beta removed", "C-NAS S, beta learned"
TABLE_5 = paper("table5_dcnas", "ours")


class World(Evidence):
    """Results with a level of each metric for each network; if torn, seeds disagree about the first."""

    def __init__(self, levels: dict, latency_ms: dict | None = None, seeds: int = 3, torn: bool = False):
        super().__init__()
        self.levels, self.latency_ms, self.seeds, self.torn = levels, latency_ms or {}, seeds, torn

    def results_of(self, group: str) -> Results:
        named = [*self.latency_ms, *(label for of_metric in self.levels.values() for label in of_metric)]
        rows = pd.DataFrame(product(dict.fromkeys(named), range(self.seeds)), columns=["label", "seed"])
        rows["latency_ms"] = rows["label"].map(self.latency_ms).fillna(10.0)
        rows = rows.assign(flops=1e8, error_ms=0.05, derivation=rows["label"])
        return Results(
            rows, compared={metric: self.scores(metric) for metric in ("psnr", "ssim", "accuracy")}
        )

    def scores(self, metric: str) -> dict:
        levels, unit = self.levels.get(metric, {}), 0.01 if metric == "ssim" else 1.0
        wobble = {label: 4.0 if self.torn and i == 0 else 0.0 for i, label in enumerate(levels)}
        keys = product(levels, range(self.seeds))
        return {
            (name, seed): levels[name] + unit * NOISE + wobble[name] * (seed - 1) for name, seed in keys
        }


def verdicts(claims: list[str], world: World) -> dict[str, str]:
    """The verdict on each comparison that can be made, by its text."""
    return {row["comparison"]: ledger.verdict_of(row) for row in compared(claims, world)}


def searches(removed_ms: list[float], learned_ms: list[float]) -> SimpleNamespace:
    """Searches that end at these latencies; with learned beta best operators change."""
    pairs = [(REMOVED, removed_ms), (LEARNED, learned_ms)]
    rows = [(label, seed, ms) for label, of_seeds in pairs for seed, ms in enumerate(of_seeds)]
    epochs = pd.DataFrame(rows * 9, columns=["label", "seed", "argmax_ms"]).assign(alphas_trained=True)
    epochs["flips"] = np.where(epochs["label"] == LEARNED, 6 + epochs["seed"], 0.1 * epochs["seed"])
    architectures = {row[:2]: SimpleNamespace(space=Space(4, 64, 4)) for row in rows}
    return SimpleNamespace(epochs=epochs, architectures=architectures)


# a claim of each kind: how a comparison begins, its metric, levels of networks, a wrong one of the first
KINDS = {
    "order": (
        "C04",
        "accuracy of MB2.5-S minus MB1",
        "accuracy",
        {"MB2.5-S": 58.4, "MB1-S": 56.2},
        55.0,
    ),
    "effect": ("C02", "accuracy of MB1-S", "accuracy", {"MB1-S": 56.2, "Conv-L": 63.2}, 60.0),
    "equivalence": ("C22", "PSNR", "psnr", {"D-NAS S upscaled": 26.6, "UNet b=64 d=5 m=2": 26.5}, 28.0),
    "trend": (
        "C06",
        "rank correlation",
        "psnr",
        {label: 20.0 + i for i, label in enumerate(B_LINE)},
        40.0,
    ),
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_claim_can_have_each_verdict(kind, world):
    claim, start, metric, levels, wrong = KINDS[kind]
    assert paper("claims", "id")["kind"][claim] == kind
    levels = levels | ({next(iter(levels)): wrong} if world == FALSE else {})
    results = World({metric: levels}, seeds=1 if world == ALONE else 3, torn=world == TORN)
    found = verdicts([claim], results)
    assert [verdict for text, verdict in found.items() if text.startswith(start)] == [world]


@pytest.mark.parametrize("world", WORLDS)
def test_a_claim_of_stability_can_have_each_verdict(world):
    near, far, middle = [30.0, 30.1, 29.9], [30.0, 33.0, 27.0], [30.0, 30.3, 29.7]
    removed, learned = {FALSE: (far, near), TORN: (near, middle)}.get(world, (near, far))
    count = 1 if world == ALONE else 3
    results = World({"accuracy": dict.fromkeys((REMOVED, LEARNED), 80.0)}, seeds=count)
    results.searches_of = lambda group: searches(removed[:count], learned[:count])
    found = verdicts(["C17"], results)
    assert found["standard deviation of latency over searches, learned over removed"] == world


def test_every_claim_has_comparisons():
    assert set(asked()["claim"]) == set(paper("claims", "id").index)
    assert set(paper("claims", "id")["kind"]) == {*KINDS, "stability"}


def joint(sign: float = 1.0) -> World:
    """Table 5 as the paper prints it, or with `sign=-1` with every difference of quality reversed."""
    levels = {}
    for metric, column in {"psnr": "psnr", "ssim": "ssim", "accuracy": "accuracy_pct"}.items():
        printed = TABLE_5[column].dropna()
        levels[metric] = (printed.mean() + sign * (printed - printed.mean())).to_dict()
    return World(levels, TABLE_5["latency_ms"].to_dict())


def test_the_paper_s_own_table_5_reproduces_its_claims():
    found = verdicts(["C23", "C24", "C25", "C26", "C27"], joint())
    assert len(found) > 20 and set(found.values()) == {TRUE}


def test_a_reversed_table_5_reproduces_none_of_them():
    found = verdicts(["C23", "C25", "C26", "C27"], joint(-1.0))
    assert found["PSNR, DC-NAS L minus DC-NAS_seq L, in dB"] == FALSE
    assert found["accuracy, DC-NAS noisy M minus C-NAS noisy M, in points"] == FALSE
    assert found["accuracy, DC-NAS S minus DC-Net Reduced, in points"] == FALSE
    assert found["PSNR, mb decoder minus convolutional, in dB"] == FALSE


def test_networks_without_results_are_left_out_and_the_equal_one_is_named():
    levels = {"D-NAS S": 26.0, "UNet Reduced": 25.0, "UNet b=16": 25.5}
    latency_ms = {"D-NAS S": 40.0, "UNet Reduced": 20.0, "UNet b=16": 39.0}
    found = verdicts(["C21", "C22"], World({"psnr": levels}, latency_ms))
    assert found["latency, D-NAS S minus UNet Reduced, in %"] == FALSE
    assert found["latency, D-NAS S minus UNet b=16, in %"] == TRUE
    assert found["PSNR, D-NAS S minus UNet b=16, in dB, against the paper's"] == TRUE
    assert not any("SSIM" in text or "upscaled" in text for text in found)


def test_trainings_of_one_network_share_the_error_of_its_latency():
    def half_width(seeds: int, source: str = "shared") -> float:
        world = World({}, {"D-NAS S": 10.0, "UNet Reduced": 10.0}, seeds)
        results = world.results_of("table_4")
        label, seed = results.rows["label"], results.rows["seed"].astype(str)
        derivation = {"shared": label, "own": label + seed, "by hand": None}[source]
        world.results_of = lambda group: replace(
            results, rows=results.rows.assign(derivation=derivation)
        )
        effect = compared(["C21"], world)[0]["effect"]
        return effect.high - effect.mean

    assert half_width(3) == pytest.approx(half_width(1)) == pytest.approx(half_width(3, "by hand"))
    assert half_width(3, "own") == pytest.approx(half_width(1) / 3**0.5)


def test_beta_claims_have_the_paper_s_direction():
    world = World({"accuracy": {REMOVED: 86.3, LEARNED: 84.2}})
    world.searches_of = lambda group: searches([5.8, 5.81, 5.82], [4.5, 4.8, 5.1])
    found = verdicts(["C15", "C16"], world)
    change = "best operators that change per epoch at the end"
    assert found[f"{change}, learned minus removed, in % of layers"] == TRUE
    assert found["accuracy, removed minus learned, in points"] == TRUE
    assert found["accuracy, removed minus learned, in points, against the paper's"] == TRUE
    found = verdicts(["C16"], World({"accuracy": {REMOVED: 86.3, LEARNED: 90.0}}))
    assert found["accuracy, removed minus learned, in points"] == FALSE


def test_c20_is_judged_before_and_after_repair(monkeypatch):
    derived = pd.DataFrame(dict(
        label="C-NAS M, 4 operators", seed=[0, 1, 2], network="C-NAS", random_seed=np.nan,
        error_pct=[1.0, 1.2, 1.5], first_error_pct=[6.0, 7.0, 8.0],
    ))  # fmt: skip
    monkeypatch.setattr(comparisons, "derivations", lambda scale, device: derived)
    found = verdicts(["C20"], World({"accuracy": {"C-NAS M, 4 operators": 80.0}}))
    assert found["measured latency against the target, before any repair, in %"] == FALSE
    assert found["measured latency against the target, as derived, in %"] == TRUE


def test_the_paper_s_number_stands_beside_the_comparison():
    [effect] = compared(["C02", "C04"], World({"accuracy": KINDS["effect"][3]}))
    assert (
        effect["comparison"] == "accuracy of MB1-S minus Conv-L, in points" and effect["paper"] == -7.0
    )
    world = World({"psnr": {"UNet b=8 d=4 m=1.5 c=2": 23.3, "UNet b=32 d=4 m=2 c=2": 23.8}})
    losses = [row for row in compared(["C10"], world) if "largest loss" in row["comparison"]]
    assert [row.get("paper") for row in losses] == [0.8, None, None]
    assert {row["threshold"] for row in losses} == {0.8}
