"""What several test modules share."""

import pytest
import torch

from dcnas.data.mnist import load_mnist
from dcnas.errors import InputError


@pytest.fixture
def one_thread():
    """Small networks are not faster with more, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def mnist():
    """MNIST, or the test is left out."""
    try:
        return load_mnist()
    except (InputError, OSError) as error:
        pytest.skip(f"needs MNIST: {error}")


@pytest.fixture
def run_store(tmp_path, monkeypatch):
    """An empty run store."""
    monkeypatch.setenv("DCNAS_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """An empty folder of downloads."""
    monkeypatch.setenv("DCNAS_DOWNLOADS", str(tmp_path / "downloads"))
    for name in ("DCNAS_MNIST", "DCNAS_TINY_IMAGENET", "DCNAS_IMAGENET"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "downloads"
