"""Random search: the best of a few networks by validation, within the target, and the same after an
interruption."""

import time
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from test_nas_search import MIDDLE, TABLE, TINY, draw, settings

from dcnas.errors import InputError
from dcnas.nas.lut import predicted_ms
from dcnas.nas.random_search import run_random_search
from dcnas.training import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")
VALIDATE = [draw("alphas", 6)(step) for step in range(2)]


def run(folder, networks: int = 3, deadline: float | None = None, **changes):
    options = dict(networks=networks, steps=3, progress=False, deadline=deadline)
    return run_random_search(
        TINY, TABLE, settings(**changes), draw("weights"), VALIDATE, folder, **options
    )


def equal(a, b) -> None:
    pd.testing.assert_frame_equal(a.epochs, b.epochs, check_exact=True)
    pd.testing.assert_frame_equal(a.alphas, b.alphas, check_exact=True)
    assert a.architecture == b.architecture and a.verdict == b.verdict


def test_networks_fit_the_target_and_differ(tmp_path):
    found = run(tmp_path)
    assert (found.epochs["argmax_ms"] <= MIDDLE).all()
    assert (found.epochs["argmax_ms"] > 0.9 * MIDDLE).all()
    assert (
        predicted_ms(TABLE, found.architecture)
        == found.epochs["argmax_ms"][found.epochs["accuracy"].idxmax()]
    )
    kinds = found.alphas.groupby("epoch")["probability"].agg(tuple)
    assert kinds.nunique() == 3
    assert (
        run(tmp_path / "other", networks=1, seed=1).architecture
        != run(tmp_path / "same", networks=1).architecture
    )
    assert all(np.allclose(np.exp(logs), 0.25) for logs in found.log_alphas)
    with pytest.raises(InputError, match="reach .* ms"):
        run(tmp_path / "far", target_ms=1e6)


def test_after_a_deadline_and_a_kill_it_ends_with_the_same(tmp_path):
    undisturbed = run(tmp_path / "a")
    assert run(tmp_path / "b", deadline=time.monotonic()) is None
    real, calls = Trainer.step, []

    def dies(self, batch):
        calls.append(1)
        if len(calls) == 5:  # in the second network
            raise KeyboardInterrupt
        return real(self, batch)

    with patch.object(Trainer, "step", dies), pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b")
    assert (tmp_path / "b" / "network-0" / "row.json").exists()
    assert not (tmp_path / "b" / "network-1" / "row.json").exists()
    with patch.object(Trainer, "step", lambda self, batch: calls.append(2) or real(self, batch)):
        equal(run(tmp_path / "b"), undisturbed)
    assert calls.count(2) <= 6  # what was finished is not trained again
    assert not list((tmp_path / "b").rglob("checkpoint*"))
    with patch.object(Trainer, "step", None):
        equal(run(tmp_path / "b"), undisturbed)
