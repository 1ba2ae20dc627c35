"""Panels as a reader meets them: in JupyterLab and by voila, in a real browser.

Needs a Chromium of the system's packages, skips without one. Screenshots and times go to out/browser.
"""

import io
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SHOTS = ROOT / "out" / "browser"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, PROGRAMS)), None)
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "doNotDisturbMode": True},
    "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
}
READY = (
    "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
)
RUN = """async () => { const app = window.jupyterapp; await app.commands.execute('notebook:run-all-cells');
  return app.shell.currentWidget.context.model.toJSON().cells }"""
# Every slider of every panel, there and back by the keyboard, an answer after each move: a row per slider.
WALK = """async moves => {
  const rows = [], panels = [...document.querySelectorAll('.dcnas-panel')];
  const changed = (image, status, what) => new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error('no answer within 20 s: ' + what)), 20000);
    const done = () => {
      observer.disconnect();
      image.removeEventListener('load', done);
      clearTimeout(late);
      requestAnimationFrame(resolve);
    };
    const observer = new MutationObserver(done);
    image.addEventListener('load', done);
    observer.observe(status, {childList: true, characterData: true, subtree: true});
  });
  for (const [n, panel] of panels.entries())
    for (const slider of panel.querySelectorAll('.widget-slider')) {
      const image = panel.querySelector('img'), status = panel.querySelector('.dcnas-status');
      const knob = slider.querySelector('.noUi-handle'), label = slider.querySelector('label'), times = [];
      const [low, high] = ['aria-valuemin', 'aria-valuemax'].map(name => +knob.getAttribute(name));
      let key = 'ArrowRight';
      knob.focus();
      for (let move = 0; move < moves; move++) {
        const now = +knob.getAttribute('aria-valuenow');
        key = now >= high ? 'ArrowLeft' : now <= low ? 'ArrowRight' : key;
        const start = performance.now(), answered = changed(image, status, `${label.textContent} at ${now}`);
        knob.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
        await answered;
        times.push(performance.now() - start);
        await new Promise(resolve => setTimeout(resolve, 50));
      }
      rows.push({panel: n, slider: label.textContent, times, status: status.textContent, alt: image.alt,
                 aria: knob.ariaLabel, height: image.clientHeight, whole: label.scrollWidth <= label.clientWidth + 1});
    }
  return rows }"""
DROP = """bytes => {
  const files = new DataTransfer(), panel = document.querySelector('.dcnas-panel');
  files.items.add(new File([new Uint8Array(bytes)], 'dropped.png', {type: 'image/png'}));
  for (const name of ['dragenter', 'dragover', 'drop'])
    panel.dispatchEvent(new DragEvent(name, {dataTransfer: files, bubbles: true, cancelable: true})) }"""
PANELS = {  # sliders of each notebook's panels
    "01_introduction": 2, "02_related_work": 2, "03_0_dataset_and_settings": 2, "03_1_efficient_classification": 2,
    "03_2_efficient_denoising": 5, "03_3_joint_dcnet": 2, "04_0_search_space_and_latency_table": 1, "04_1_c_nas": 2,
    "04_2_d_nas": 3, "04_3_dc_nas": 3, "A_classification_scaling": 2, "B_search_space": 1, "C_learned_beta": 1,
}  # fmt: skip
RUNS_A_NETWORK = ("01_introduction", "03_0_dataset_and_settings", "03_3_joint_dcnet")

pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium here: install the system's package chromium"
    ),
    pytest.mark.slow,
]


@contextmanager
def served(command: list[str], place: Path, answers: str, **env: str) -> Iterator[str]:
    """The address of a server that was started and answers; stopped afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    env |= {name: str(place / name) for name in names}
    env |= {"DCNAS_ROOT": str(ROOT), "PYTHONPATH": str(ROOT / "lib"), "PYTHONWARNINGS": "ignore"}
    with (place / "log").open("w") as log:
        command = [sys.executable, "-m", *command, "--no-browser", f"--port={port}"]
        server = subprocess.Popen(command, cwd=place, stdout=log, stderr=log, env=os.environ | env)
        try:
            for _ in range(240):
                assert server.poll() is None, (place / "log").read_text()[-2000:]
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{answers}", timeout=120).close()
                    break
                except urllib.error.HTTPError:  # it answers, if only that there is nothing
                    break
                except (urllib.error.URLError, ConnectionError, TimeoutError):
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    SHOTS.mkdir(parents=True, exist_ok=True)
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab with copies of all notebooks, because they save by themselves."""
    place = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", place / "notebooks", ignore=shutil.ignore_patterns(".*"))
    for name, values in SETTINGS.items():
        path = place / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    options = [
        "--ip=127.0.0.1",
        "--allow-root",
        "--IdentityProvider.token=",
        "--LabApp.expose_app_in_browser=True",
    ]
    options += [f"--ServerApp.root_dir={place}", "--ServerApp.disable_check_xsrf=True"]
    folders = {
        f"JUPYTERLAB_{name.upper()}_DIR": str(place / name) for name in ("settings", "workspaces")
    }
    with served(["jupyterlab", *options], place, "/api/status", **folders) as url:
        yield url


@contextmanager
def opened(browser, url: str, stem: str):
    """A notebook in JupyterLab with all its cells run; its kernel ends with it."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(120_000)
    page.goto(f"{url}/lab/tree/notebooks/{stem}.ipynb?reset")
    page.wait_for_function(READY, timeout=120_000)
    cells = [cell for cell in page.evaluate(RUN) if cell["cell_type"] == "code"]
    errors = [
        out["evalue"] for cell in cells for out in cell["outputs"] if out["output_type"] == "error"
    ]
    assert not errors and all(cell["execution_count"] for cell in cells)
    try:
        yield page
    finally:
        page.close()
        with urllib.request.urlopen(f"{url}/api/sessions") as answer:
            for session in json.load(answer):
                address = f"{url}/api/sessions/{session['id']}"
                urllib.request.urlopen(urllib.request.Request(address, method="DELETE")).close()


def walk(page, name: str, aim_ms: float) -> list[dict]:
    """Move every slider; each answers with a picture and words, in at most twice the aimed time at the median."""
    rows = page.evaluate(WALK, 12)
    for n, panel in enumerate(page.locator(".dcnas-panel").all()):
        panel.screenshot(path=SHOTS / f"{name}_{n}.png")
    known = json.loads((SHOTS / "times.json").read_text()) if (SHOTS / "times.json").exists() else {}
    known |= {f"{name}, {row['slider']} (ms)": statistics.median(row["times"]) for row in rows}
    (SHOTS / "times.json").write_text(json.dumps(known, indent=1))
    for row in rows:
        assert row["status"] and "Error" not in row["status"] and row["alt"] == row["status"], row
        assert row["aria"] == row["slider"] and row["whole"] and 150 < row["height"] <= 480, row
    assert statistics.median(ms for row in rows for ms in row["times"]) <= 2 * aim_ms, known
    return rows


@pytest.mark.parametrize("stem", PANELS)
def test_every_slider_answers(browser, lab, stem):
    with opened(browser, lab, stem) as page:
        rows = walk(page, stem, 250 if stem in RUNS_A_NETWORK else 150)
    assert len(rows) == PANELS[stem]


def test_an_assumption_of_the_conclusion_answers(browser, lab):
    with opened(browser, lab, "05_conclusion") as page:
        status, box = (
            page.locator(".dcnas-status"),
            page.locator(".dcnas-panel input[type=checkbox]").first,
        )
        before = status.inner_text()
        for tick in (True, False):
            box.set_checked(tick)
            page.wait_for_function("before => (document.querySelector('.dcnas-status').innerText !== before)"
                                   f" === {str(tick).lower()}", arg=before)  # fmt: skip
            assert "Error" not in status.inner_text()
        page.locator(".dcnas-panel").screenshot(path=SHOTS / "05_conclusion_0.png")


# ---- the demo as a page


@pytest.fixture(scope="module")
def voila(tmp_path_factory):
    place = tmp_path_factory.mktemp("voila")
    options = re.findall(r"--Mapping\S+", (ROOT / "Makefile").read_text())
    with served(["voila", str(ROOT / "demo" / "demo.ipynb"), *options], place, "/static/") as url:
        yield url


@pytest.fixture(scope="module")
def page(browser, voila):
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(voila)
    page.locator(".dcnas-panel img").wait_for()
    yield page
    page.close()


def choose(page, path: Path) -> None:
    """Choose a file by the browser's dialog."""
    with page.expect_file_chooser() as chooser:
        page.locator(".dcnas-drop").click()
    chooser.value.set_files(path)


def file(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_sliders_of_the_page_answer(page):
    assert [row["slider"] for row in walk(page, "demo", 250)] == ["number", "noise σ"]


def test_own_pictures_are_shown_or_answered_in_words(page, tmp_path):
    """Broken, from a dialog, dropped, and of a camera: more bytes than a message of Jupyter may have."""
    from playwright.sync_api import expect

    status, shade = (
        page.locator(".dcnas-status"),
        np.tile(np.linspace(40, 220, 120).astype(np.uint8), (90, 1)),
    )
    grain = np.tile(np.random.default_rng(0).integers(0, 255, (1000, 1000, 3), np.uint8), (5, 6, 1))
    files = {"broken.png": (b"no picture", "broken.png is not a picture that can be read"),
             "own.png": (file(shade), "another picture"),
             "camera.jpg": (file(grain, "JPEG"), "scaled from 6000 x 5000 to 256 x 213")}  # fmt: skip
    assert len(files["camera.jpg"][0]) > 10 * 2**20
    for name, (content, says) in files.items():
        (tmp_path / name).write_bytes(content)
        choose(page, tmp_path / name)
        expect(status).to_contain_text(says)
    page.locator(".dcnas-panel").screenshot(path=SHOTS / "demo_own.png")
    page.evaluate(DROP, list(file(shade.T.copy())))
    expect(page.locator(".dcnas-drop")).to_contain_text("dropped.png")
    expect(status).not_to_contain_text("scaled")


def test_the_kernel_of_a_closed_tab_ends_within_a_minute(browser, voila, page, tmp_path_factory):
    def kernels() -> int:
        return len(list(tmp_path_factory.getbasetemp().glob("voila*/JUPYTER_RUNTIME_DIR/kernel-*.json")))

    before, second = kernels(), browser.new_page()
    second.goto(voila, timeout=120_000)
    second.locator(".dcnas-panel img").wait_for(timeout=120_000)
    assert kernels() == before + 1
    second.close()
    end = time.monotonic() + 60
    while kernels() > before and time.monotonic() < end:
        time.sleep(1)
    assert kernels() == before == 1  # that of the open tab lives
