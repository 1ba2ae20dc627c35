"""What several test modules share."""

import shutil

import pytest
import torch
from made_up import SHOTS

from dcnas.data.mnist import load_mnist
from dcnas.errors import InputError

torch.set_num_threads(1)  # small networks are not faster with more, and much slower on a busy machine


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


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium, or the test is left out."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    programs = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    if not (program := next(filter(None, map(shutil.which, programs)), None)):
        pytest.skip("no Chromium here: install the system's package chromium")
    SHOTS.mkdir(parents=True, exist_ok=True)
    with playwright.sync_playwright() as running:
        options = ["--no-sandbox", "--disable-gpu"]
        chromium = running.chromium.launch(executable_path=program, args=options)
        yield chromium
        chromium.close()
