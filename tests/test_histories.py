"""Training curves: published and merged like results, and the rule by which a seed failed."""

import math
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from dcnas.data.mnist import load_mnist
from dcnas.errors import InputError
from dcnas.paths import downloads_dir, published_dir
from dcnas.study import histories
from dcnas.study import results3 as results
from dcnas.study.experiments import Experiment
from dcnas.study.figures import png_bytes
from dcnas.study.histories import failed_seeds, loss_curves
from dcnas.study.runs import folder_of, obtain, published_runs

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = Experiment(
    label="tiny", task="denoise", network="unet", scale="laptop", seed=0, steps=3, batch=4, epoch_steps=2, lr=4e-3,
    schedule="one-cycle", precision="fp32", channels_last=True, train_images=64, eval_images=4, b=4, d=2, m=1.0, c=1,
)  # fmt: skip
FILE = "section3_history.csv"


def made_up(finals: dict[tuple[str, int], float], scale: str = "laptop") -> pd.DataFrame:
    """Two epochs of each training, the last with this validation loss."""
    return pd.DataFrame([
        {"run": f"{label} {seed} {scale}", "label": label, "scale": scale, "seed": seed, "batch": 8, "step": step,
         "images": 8 * step, "loss": loss, "lr": 1e-3, "validation_loss": loss}
        for (label, seed), final in finals.items() for step, loss in ((10, 1.0), (20, final))
    ])  # fmt: skip


# the rule


def test_a_seed_failed_that_ends_more_than_a_tenth_above_the_median_seed():
    history = made_up({("a", 0): 0.100, ("a", 1): 0.109, ("a", 2): 0.050, ("b", 0): 0.120, ("b", 1): 0.100, ("b", 2): 0.105})
    assert failed_seeds(history) == [("b", 0)]
    assert failed_seeds(made_up({("a", 0): 0.100, ("a", 1): 0.111, ("a", 2): 0.1})) == [("a", 1)]  # and not the best, or the last
    assert failed_seeds(made_up({("a", 0): 3.0})) == []  # alone, nothing says that it failed
    assert failed_seeds(made_up({("a", 0): 3.0, ("a", 1): 1.0})) == [("a", 0)]


def test_a_seed_that_ended_in_no_number_failed():
    assert failed_seeds(made_up({("a", 0): 0.1, ("a", 1): math.nan, ("a", 2): math.inf})) == [("a", 1), ("a", 2)]


def test_the_median_is_that_of_its_own_network_and_scale():
    short, long = made_up({("a", s): 0.2 for s in range(3)}), made_up({("a", s): 0.1 for s in range(3)}, "gpu")
    assert failed_seeds(pd.concat([short, long])) == []


# the figure


def as_rows(history: pd.DataFrame) -> pd.DataFrame:
    runs = history[["run", "label", "scale", "seed", "batch"]].drop_duplicates()
    return runs.assign(images=160, psnr=20.0, accuracy=math.nan, source="published")


def test_the_figure_names_the_seeds_that_failed_and_drops_none():
    history = made_up({("a", 0): 0.1, ("a", 1): 0.2, ("a", 2): 0.1} | {(name, 0): 0.1 for name in "bcdefg"})
    figure = loss_curves(history, as_rows(history))
    panels = {axes.get_title(): axes for axes in figure.axes if axes.axison}
    assert list(panels) == [*"abcdefg"]
    assert [len(panels[name].lines) for name in "ab"] == [6, 2]  # training and validation of each seed
    text = figure.get_supxlabel()
    assert "3 seeds" in text and text.endswith("of their network): a, seed 1.") and "have a published curve" not in text
    assert png_bytes(figure)
    some = loss_curves(history[history["label"] == "b"], as_rows(history))
    assert some.get_supxlabel().endswith("none. Of 9 trainings, 1 have a published curve.")


# publication


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project of its own, whose scale laptop has two runs in Section 3, both complete."""
    try:
        load_mnist()
    except (InputError, OSError) as error:
        pytest.skip(f"needs MNIST: {error}")
    monkeypatch.setenv("DCNAS_DOWNLOADS", str(downloads_dir()))
    monkeypatch.setenv("DCNAS_ROOT", str(tmp_path))
    monkeypatch.setenv("DCNAS_RUNS", str(tmp_path / "runs"))
    the_runs_are(monkeypatch, [TINY, replace(TINY, seed=1)])
    for experiment in (TINY, replace(TINY, seed=1)):
        obtain(experiment, progress=False)
    results.archive.cache_clear()
    yield tmp_path
    results.archive.cache_clear()


def the_runs_are(monkeypatch, experiments: list[Experiment]) -> None:
    monkeypatch.setattr(results.lists, "section3", lambda scale: experiments if scale == "laptop" else [])


def test_published_curves_are_those_of_the_runs(project):
    results.collect()
    here = histories.histories(results.read_runs([TINY, replace(TINY, seed=1)]).assign(source="runs"))
    there = histories.histories(results.published())
    assert list(there) == ["run", "label", "scale", "seed", "batch", "step", "loss", "lr", "validation_loss", "images"]
    pd.testing.assert_frame_equal(there, here, check_dtype=False, rtol=1e-4)
    assert there["images"].tolist() == [8, 12] * 2
    text = (published_dir() / FILE).read_text()
    assert text.startswith("run,label,scale,seed,step,loss,lr,validation_loss\n")
    cells = [cell for row in text.splitlines()[1:] for cell in row.split(",")[5:]]
    assert all(float(cell) == float(f"{float(cell):.5g}") for cell in cells)
    results.collect()
    assert (published_dir() / FILE).read_text() == text
    assert published_runs() == {TINY.name, replace(TINY, seed=1).name}


def test_what_is_published_stays_without_its_folder_and_goes_with_its_settings(project, monkeypatch):
    results.collect()
    both = pd.read_csv(published_dir() / FILE)
    for path in folder_of(TINY).iterdir():
        path.unlink()
    results.collect()
    pd.testing.assert_frame_equal(pd.read_csv(published_dir() / FILE), both)
    the_runs_are(monkeypatch, [replace(TINY, lr=1e-3), replace(TINY, seed=1)])
    results.collect()
    assert set(pd.read_csv(published_dir() / FILE)["run"]) == {replace(TINY, seed=1).name}


def test_results_without_curves_are_no_error(project):
    results.collect()
    (published_dir() / FILE).unlink()
    rows = results.published()
    assert histories.histories(rows).empty and list(histories.histories(rows))[0] == "run"


def collecting(folder: Path) -> None:
    """What a child process runs."""
    os.environ |= {"DCNAS_ROOT": str(folder), "DCNAS_RUNS": str(folder / "runs")}
    results.lists.section3 = lambda scale: [TINY, replace(TINY, seed=1)] if scale == "laptop" else []
    for _ in range(10):
        results.collect()


def test_two_processes_may_publish_at_once(project):
    results.collect()
    before = (published_dir() / FILE).read_bytes()
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=collecting, args=(project,), daemon=True) for _ in range(2)]
    for process in both:
        process.start()
    while any(process.is_alive() for process in both):
        assert (published_dir() / FILE).read_bytes() == before  # whole at every moment
    assert [process.exitcode for process in both] == [0, 0]
    assert not list(published_dir().glob(".*"))
