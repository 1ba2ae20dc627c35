"""Section 4's tables, figures and claims on made-up results: they say what they are given, in the paper's direction."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_up import linear_table, start_architecture

from dcnas.data.noise import SIGMAS
from dcnas.nas.lut import predicted_ms
from dcnas.nas.space import Space, random_architecture
from dcnas.study import paper
from dcnas.study import plots_nas as plots
from dcnas.study.claims import verdict_table
from dcnas.study.figures import caption, new_figure, png_bytes
from dcnas.study.section4 import TARGETS, operators_label

RNG = np.random.default_rng(0)
JOINT = {label: paper.table("table5_dcnas").set_index("model").loc[name] for label, name in plots.PAPER_5.items()}
NOISE = {n: RNG.normal(0, 0.05, (11, 40)) for n in range(3)}  # alike for all networks: only differences count


def made_up(levels: dict[str, float], seeds: int = 3, unit: float = 1.0) -> dict:
    """Scores of 40 images at eleven noise levels about a level for each network."""
    return {(label, seed): level + unit * NOISE[seed] for label, level in levels.items() for seed in range(seeds)}


def right(levels: dict[str, float], seeds: int = 3) -> dict:
    """Accuracies in %, with one label per image."""
    return {key: array[..., None] for key, array in made_up(levels, seeds).items()}


def rows(latencies: dict[str, float], seeds: int = 3, **columns) -> pd.DataFrame:
    """Rows as `results4.results` gives them."""
    return pd.DataFrame([
        {"label": label, "seed": seed, "sigma": sigma, "scale": "laptop", "images": 32_000, "set_images": 2_000, "classes": 4,
         "data": "solar", "resolution": 64, "flops": 1e8, "parameters": 2e6, "network": "DC-NAS", "upscaled": 1.0,
         "decoder": "conv", "derivation": label, "latency_ms": ms, "error_ms": 0.05, "latency_batch": 32} | columns
        for label, ms in latencies.items() for seed in range(seeds) for sigma in SIGMAS
    ])  # fmt: skip


def verdicts(claims: list[dict]) -> dict[str, str]:
    table = verdict_table(claims)
    return dict(zip(table["comparison"].str.split(": ").str[0], table["verdict"], strict=True))


def joint(sign: float = 1.0):
    """Results of Table 5 that are the paper's, or with `sign=-1` those of a world in which every difference is reversed."""
    found = {}
    for column in ("psnr", "ssim", "accuracy_pct"):
        levels = {label: row[column] for label, row in JOINT.items() if row[column] == row[column]}
        middle = np.mean([*levels.values()])
        found[column] = {label: middle + sign * (level - middle) for label, level in levels.items()}
    latency = {label: row["latency_ms"] for label, row in JOINT.items()}
    return rows(latency), made_up(found["psnr"]), made_up(found["ssim"], unit=0.01), right(found["accuracy_pct"])


def test_the_paper_s_own_numbers_reproduce_its_claims():
    assert set(verdicts(plots.joint_claims(*joint())).values()) == {"reproduced"}


def test_a_reversed_world_reproduces_none_of_them():
    found = verdicts(plots.joint_claims(*joint(-1.0)))
    assert found["PSNR, DC-NAS L minus DC-NAS_seq L, in dB"] == "not reproduced"
    assert found["accuracy, DC-NAS noisy M minus C-NAS noisy M, in points"] == "not reproduced"
    assert found["accuracy, DC-NAS S minus DC-Net Reduced, in points"] == "not reproduced"
    assert found["PSNR, mb decoder minus convolutional, in dB"] == "not reproduced"


def test_one_seed_decides_nothing_and_missing_networks_are_left_out():
    frame, psnr, ssim, accuracy = joint()
    one = {key: array for key, array in psnr.items() if key[1] == 0 and key[0] in ("DC-NAS L", "DC-NAS_seq L")}
    few = frame[frame["label"].isin(["DC-NAS L", "DC-NAS_seq L"]) & (frame["seed"] == 0)]
    found = verdicts(plots.joint_claims(few, one, {}, {}))
    assert found.pop("latency, DC-NAS L minus DC-NAS_seq L, in %") == "reproduced"
    assert set(found.values()) == {"undecided (one seed)"}


def test_unequal_latency_is_told():
    frame = rows({"D-NAS S": 40.0, "UNet Reduced": 20.0, "UNet b=16": 39.0})
    levels = {"D-NAS S": 26.0, "UNet Reduced": 25.0, "UNet b=16": 25.5}
    found = verdicts(plots.denoiser_claims(frame, made_up(levels), made_up({k: v / 40 for k, v in levels.items()}, unit=0.001)))
    assert found["latency, D-NAS S minus UNet Reduced, in %"] == "not reproduced"
    assert found["latency, D-NAS S minus UNet b=16, in %"] == "reproduced"
    assert found["PSNR, D-NAS S minus UNet Reduced, in dB"] == "reproduced"
    assert found["PSNR, D-NAS S minus UNet Reduced, in dB, against the paper's"] == "reproduced"
    assert "PSNR, D-NAS S upscaled minus UNet b=64 d=5 m=2, in dB" not in found


def search(label: str, seed: int, flips: int, last_ms: float):
    row = dict(flips=flips, argmax_ms=last_ms, expected_ms=last_ms, entropy=0.5, margin=0.5)
    epochs = pd.DataFrame([dict(epoch=e, alphas_trained=e > 1) | row for e in range(9)])
    space = Space(4, 64, 4)
    found = start_architecture(space, [seed % 4] * len(space.layers))
    return SimpleNamespace(
        label=label, scale="laptop", seed=seed, target_ms=6.0, predicted_ms=6.0, verdict="decided" if flips < 1 else "oscillating",
        reason="", architecture=found, epochs=epochs,
    )  # fmt: skip


def beta(learned_flips: int, learned: float):
    searched = [search(plots.REMOVED, seed, 0, 5.8 + 0.01 * seed) for seed in range(3)]
    searched += [search(plots.LEARNED, seed, learned_flips + seed, 4.5 + 0.3 * seed) for seed in range(3)]
    accuracy = right({plots.REMOVED: 86.3, plots.LEARNED: learned})
    table = plots.table_8(searched, rows({plots.REMOVED: 6.0, plots.LEARNED: 6.0}), accuracy)
    return table, accuracy, searched


def test_beta_claims_have_the_paper_s_direction():
    found = verdicts(plots.beta_claims(*beta(6, 84.2)))
    assert found["best operators that change per epoch at the end, learned minus removed, in % of layers"] == "reproduced"
    assert found["best operators that change per epoch at the end, removed, in % of layers"] == "reproduced"
    assert found["accuracy, removed minus learned, in points"] == "reproduced"
    assert found["accuracy, removed minus learned, in points, against the paper's"] == "reproduced"
    assert found["standard deviation of latency over searches, learned over removed"] == "reproduced"
    found = verdicts(plots.beta_claims(*beta(0, 90.0)))
    assert found["accuracy, removed minus learned, in points"] == "not reproduced"


def test_table_8_shows_each_search_and_the_ranges():
    table, _, _ = beta(6, 84.2)
    assert table.index.tolist() == [(word, n) for word in ("removed", "learned") for n in (1, 2, 3)]
    summary = plots.table_8_summary(table)
    assert summary.loc[("learned", "ours"), "latency as searched, range (ms)"] == 0.6
    assert summary.loc[("removed", "the paper's"), "accuracy, mean (%)"] == 86.3
    assert summary.loc[("removed", "ours"), "decided"] == "3 of 3"


def test_agreement_counts_layers_with_the_same_operator():
    alike = [search("a", 0, 0, 5.0), search("a", 4, 0, 5.0), search("b", 0, 0, 5.0), search("b", 1, 0, 5.0), search("c", 0, 0, 5.0)]
    table = plots.agreement_table(alike)
    assert table["same operator (% of layers)"].to_dict() == {"a": 100.0, "b": 0.0} and table["by chance (%)"].tolist() == [
        25.0,
        25.0,
    ]


def test_a_caption_says_what_the_interval_of_a_single_seed_is():
    for seeds, text in ((1, "Bars: 95%. Of one seed: over images alone."), (3, "Bars: 95%.")):
        figure = caption(new_figure(3, 3)[0], rows({"a": 1.0}, seeds), "Bars: 95%.")
        assert figure.get_supxlabel().endswith(f"per network. {text}")


def test_figures_show_every_network():
    labels = {operators_label(size, n): 6.0 + n for size in TARGETS for n in (4, 6, 8)}
    frame, accuracy = rows(labels), right(dict.fromkeys(labels, 80.0))
    assert len(plots.figure_6(frame, accuracy).axes[0].get_legend_handles_labels()[1]) == 3
    figure = plots.latency_quality(frame, accuracy, "accuracy (%)")
    assert figure.axes[0].get_legend_handles_labels()[1] == list(labels)
    drawn = [(c.lines[0].get_color(), c.lines[0].get_marker(), c.lines[0].get_markerfacecolor()) for c in figure.axes[0].containers]
    assert len(set(drawn)) == len(labels)  # nine networks can be told apart
    assert len(png_bytes(plots.figure_7(frame, accuracy))) > 1000
    assert "C18" in {row["claim"] for row in plots.operator_claims(accuracy)}


def test_tables_4_and_5_stand_beside_the_paper_s():
    frame, psnr, ssim, accuracy = joint()
    table = plots.table_5(frame, psnr, ssim, accuracy)
    for column in ("PSNR (dB)", "accuracy (%)", "latency (ms)"):
        ours, theirs = table[column], table[f"paper: {column}"]
        assert ((ours - theirs).abs().dropna() < 0.06).all()
    assert table.index.get_level_values("group").tolist() == [1, 1, 2, 2, 2, 3, 4, 4, 4, 5, 5, 5]
    labels = {"UNet Reduced": 9.2, "D-NAS S": 9.4, "UNet b=32 d=5 m=2": 100.0, "D-NAS S upscaled": 99.0}
    levels = dict.fromkeys(labels, 25.0)
    four = plots.table_4(rows(labels), made_up(levels), made_up(levels))
    assert four.loc["UNet Reduced", "paper: PSNR (dB)"] == 25.0 and np.isnan(four.loc["UNet b=32 d=5 m=2", "paper: PSNR (dB)"])


def test_recalls_stand_beside_accuracy_where_they_are_known():
    frame, _, _, accuracy = joint()
    assert "least recall of a class (%)" not in plots.network_table(frame, {"accuracy (%)": accuracy})
    frame = frame.assign(balanced_accuracy=50.0, least_recall=np.where(frame["label"] == "DC-NAS S", 0.0, 20.0))
    table = plots.network_table(frame, {"accuracy (%)": accuracy})
    assert table.loc["DC-NAS L", "least recall of a class (%)"] == 20.0
    text = plots.recalls_text(table, 41.84)
    assert "right for 41.8% of the images" in text and "(recall below 1%): DC-NAS S." in text


def test_predictions_stand_beside_measurements():
    table, space = linear_table(Space(8, 64, 4)), Space(4, 64, 4)
    found = random_architecture(space, np.random.default_rng(0))
    truth = predicted_ms(table, found, "DC-NAS")
    line = plots.prediction_table(rows({"DC-NAS S": 2 * truth}, seeds=1), {("DC-NAS S", 0): found}, table).iloc[0]
    assert line["error of the table (%)"] == -50.0 and line["table (ms)"] == round(truth, 2)


def test_derivations_are_counted():
    frame = pd.DataFrame(dict(
        label=["a", "b"], seed=0, network="C-NAS", random_seed=[np.nan, 1.0], target_ms=10.0, predicted_ms=10.0,
        measured_ms=[10.1, 10.5], noise_ms=0.1, error_pct=[1.0, 5.0], first_error_pct=[4.0, 5.0], repairs=[1, 4],
    ))  # fmt: skip
    text = plots.derivation_text(frame)
    assert "0 of 2 networks" in text and "repairs of 2 of them" in text and "1 are" in text
    assert plots.derivation_table(frame).index.tolist() == ["a, seed 0, as C-NAS", "b 1, seed 0, as C-NAS"]


def test_c20_is_judged_before_and_after_repair():
    frame = pd.DataFrame(dict(
        label=plots.C_NAS, seed=[0, 1, 2], network="C-NAS", random_seed=np.nan, target_ms=10.0, noise_ms=0.1,
        error_pct=[1.0, 1.2, 1.5], first_error_pct=[6.0, 7.0, 8.0],
    ))  # fmt: skip
    found = verdicts(plots.classifier_claims(rows({plots.C_NAS: 10.0, plots.TF_NAS: 11.0}), right({plots.C_NAS: 80.0}), frame))
    assert found["measured latency against the target, before any repair, in %"] == "not reproduced"
    assert found["measured latency against the target, as derived, in %"] == "reproduced"
    assert found[f"latency, C-NAS M minus {plots.TF_NAS}, in ms"] == "reproduced"


def test_trainings_of_one_network_share_the_error_of_its_latency():
    def half_width(**columns) -> float:
        found = plots.same_latency_rows(rows({"a": 10.0, "b": 10.0}, **columns), "C23", "a", "b", (1, 1))[0]["effect"]
        return found.high - found.mean

    assert half_width(seeds=3) == pytest.approx(half_width(seeds=1))
    assert half_width(seeds=3, derivation=None) == pytest.approx(half_width(seeds=1))  # made by hand
    table = rows({"a": 10.0, "b": 10.0})
    table["derivation"] = table["label"] + table["seed"].astype(str)  # a network of its own for each seed
    found = plots.same_latency_rows(table, "C23", "a", "b", (1, 1))[0]["effect"]
    assert found.high - found.mean == pytest.approx(half_width(seeds=1) / 3**0.5)


def test_the_search_is_compared_with_chance():
    table = plots.random_table(right({plots.C_NAS: 81.0, plots.TF_NAS: 80.0, "random M": 80.0}))
    assert table["interval is"].tolist() == ["above 0", "includes 0"] and table["effect"].tolist() == [1.0, 0.0]
