"""Random search: the best of a few networks by validation, within the target, and the same after an
interruption."""

import time
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from made_up import interrupted
from test_nas_search import MIDDLE, TABLE, TINY, draw, predict, settings

from dcnas.errors import InputError
from dcnas.nas.random_search import run_random_search
from dcnas.training import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")
VALIDATE = [draw("alphas", 6)(step) for step in range(2)]


def run(folder, networks: int = 3, deadline: float | None = None, **changes):
    options = dict(networks=networks, steps=3, progress=False, deadline=deadline)
    asked = settings(**changes)
    return run_random_search(TINY, TABLE, asked, draw("weights"), VALIDATE, folder, **options)


def equal(a, b) -> None:
    pd.testing.assert_frame_equal(a.epochs, b.epochs, check_exact=True)
    pd.testing.assert_frame_equal(a.alphas, b.alphas, check_exact=True)
    assert a.architecture == b.architecture and a.verdict == b.verdict


def test_networks_fit_the_target_and_differ(tmp_path):
    found = run(tmp_path)
    latencies = found.epochs["argmax_ms"]
    assert latencies.between(0.9 * MIDDLE, MIDDLE).all()
    assert predict(found.architecture) == latencies[found.epochs["accuracy"].idxmax()]
    assert found.alphas.groupby("epoch")["probability"].agg(tuple).nunique() == 3
    other, same = (run(tmp_path / str(seed), networks=1, seed=seed).architecture for seed in (1, 0))
    assert other != same
    assert np.allclose(np.exp(found.log_alphas), 0.25)
    with pytest.raises(InputError, match="reach .* ms"):
        run(tmp_path / "far", target_ms=1e6)


def test_after_a_deadline_and_a_kill_it_ends_with_the_same(tmp_path):
    undisturbed, real, steps = run(tmp_path / "a"), Trainer.step, []
    assert run(tmp_path / "b", deadline=time.monotonic()) is None
    with interrupted(Trainer, "step", 5):  # in the second network
        run(tmp_path / "b")
    assert [path.parent.name for path in (tmp_path / "b").rglob("row.json")] == ["network-0"]
    with patch.object(Trainer, "step", lambda self, batch: steps.append(1) or real(self, batch)):
        equal(run(tmp_path / "b"), undisturbed)
    assert len(steps) <= 6  # what was finished is not trained again
    assert not list((tmp_path / "b").rglob("checkpoint*"))
