"""The site of `make book`: built, every page and link looked at, read in a browser."""

import functools
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
import skimage.data
import torch
from made_up import SHOTS
from PIL import Image

from dcnas.deploy.apply import apply, best_classes, file_scene, study_scene
from dcnas.deploy.weights import DIGITS, load_network
from dcnas.study.claims import counts
from dcnas.study.notebooks import notebook_paths
from dcnas.study.readme import read_ledger
from dcnas.study.results import results

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "out" / "book"
THERE = all(map(importlib.util.find_spec, ("sphinx", "myst_nb", "furo", "bs4"))) and shutil.which("make")
WRONG = re.compile(r"Traceback \(most recent|(?:Box|Slider|Dropdown)\((?:children|description|value)=")
STEMS = [path.stem for path in notebook_paths()]

NEEDED = pytest.mark.skipif(not THERE, reason="no make, or no `pip install 'dcnas[book]'`")
pytestmark = [NEEDED, pytest.mark.slow]


@pytest.fixture(scope="module")
def built() -> None:
    """What `make book` says, by the environment that runs the tests."""
    for name in ("digits", "solar"):  # with words of their own where a set is new
        study_scene(name, 0)
    command = ["make", "--no-print-directory", "-o", ".venv/.installed", "book"]
    command.append(f"BIN={Path(sys.executable).parent}")
    options = dict(capture_output=True, text=True, env=os.environ | {"MAKEFLAGS": ""})
    done = subprocess.run(command, cwd=ROOT, **options)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and said.count("\n") == 1 and "out/book/index.html" in said, said


@pytest.fixture(scope="module")
def pages(built) -> dict:
    """All pages, parsed, by their paths."""
    from bs4 import BeautifulSoup

    paths = sorted(BOOK.rglob("*.html"))
    return {path: BeautifulSoup(path.read_text(), "html.parser") for path in paths}


def test_every_page_has_its_notebook_no_error_and_words_for_pictures(pages):
    for stem in STEMS:
        assert len(pages[BOOK / f"{stem}.html"].select("div.cell")) > 4
    links = [link["href"] for link in pages[BOOK / "index.html"].select(".sidebar-tree a")]
    assert links == ["demo.html", "explore.html", *(f"{stem}.html" for stem in STEMS)]
    for path, page in pages.items():
        assert not page.select(".output.traceback, .output.stderr, .system-message, .problematic"), path
        assert not WRONG.search(page.get_text()), path
        alts = [image.get("alt", "") for image in page.select("article img")]
        assert not [alt for alt in alts if len(alt) <= 20 or "_images" in alt], path


def test_every_link_leads_somewhere_and_nothing_is_fetched_from_elsewhere(pages):
    marks = {path: {tag["id"] for tag in page.select("[id]")} for path, page in pages.items()}
    links = 0
    for path, page in pages.items():
        for tag in page.select("[href], [src]"):
            url = urlsplit(tag.get("href") or tag.get("src", ""))
            if url.scheme == "data" or (url.scheme in ("http", "https") and tag.name == "a"):
                continue
            link = f"{path.name}: {url.geturl()}"
            assert not url.scheme and not url.netloc, link
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            assert target.is_file() and target.is_relative_to(BOOK), link
            assert not url.fragment or unquote(url.fragment) in marks[target], link
            links += 1
    assert links > 20 * len(STEMS)


def test_the_first_page_has_the_answer_and_the_ledger(pages):
    page, ledger = pages[BOOK / "index.html"], read_ledger()
    assert counts(ledger["verdict"]) in page.select_one("article").get_text()
    (table,) = page.select("table.ledger")
    shown = [[cell.get_text() for cell in row.select("td")] for row in table.select("tbody tr")]
    assert [(row[0], row[-2]) for row in shown] == list(ledger["verdict"].items())
    assert len(table.select("td.verdict")) == len(ledger) and all(row[-1] for row in shown)


def test_sliders_have_every_published_network(pages):
    grid = json.loads(pages[BOOK / "explore.html"].select_one("#grid").string)
    rows = results(["figure_3", "figure_3_mbconv"], "published").rows
    assert [net["name"] for net in grid["unets"]] == list(dict.fromkeys(rows["label"]))
    for net in grid["unets"]:
        of_net = rows[rows["label"] == net["name"]].groupby("sigma")["psnr"]
        assert [level[0] for level in net["psnr"]] == pytest.approx(of_net.mean().tolist(), abs=0.006)
        assert {len(level) for level in net["psnr"]} == {3 + of_net.size().iloc[0]}
        assert all(low <= mean <= high for mean, low, high, *_ in net["psnr"])
    assert len(grid["dcnets"]) == 4


@pytest.fixture(scope="module")
def site(built):
    """The address of a server of the book on this machine."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = functools.partial(quiet, directory=BOOK)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def watched(browser, site: str, **options):
    """A new page without errors, and without requests that fail or leave this machine."""
    page, wrong = browser.new_page(**options), []
    page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: r.url.startswith((site, "data:", "blob:")) or wrong.append(r.url))
    page.on("response", lambda answer: answer.status >= 400 and wrong.append(answer.url))
    yield page
    page.close()
    assert not wrong


PIXELS = """selector => {
    const canvas = document.querySelector(selector);
    return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
}"""
FITS = "document.documentElement.scrollWidth <= window.innerWidth"
SCREENS = pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (360, "dark")])


@SCREENS
def test_sliders_move_without_a_kernel(browser, site, width, scheme):
    """By the keyboard: every slider reaches its ends, each time with a trained network's numbers."""
    from playwright.sync_api import expect

    size = dict(viewport={"width": width, "height": 900}, color_scheme=scheme)
    with watched(browser, site, **size) as page:
        page.goto(f"{site}/explore.html")
        grid = json.loads(page.locator("#grid").text_content())
        status, blocks = page.locator("#unets [role=status]"), {"conv": "3×3 conv", "mbconv": "MBConv"}

        def shown() -> list[str]:
            """Which networks the words say, each with its number at the chosen noise level."""
            level = float(page.locator("#unets input[name=sigma] + output").text_content())
            place = grid["sigmas"].index(level)
            text = status.text_content().split("nearest that was.")[-1]
            says = "b = {b}, d = {d}, m = {m:g}, c = {c}, {words}: {now:.1f} dB"
            nets = [n | dict(words=blocks[n["block"]], now=n["psnr"][place][0]) for n in grid["unets"]]
            return [net["name"] for net in nets if says.format(**net) in text]

        for name in ("b", "d", "m", "c", "block", "sigma"):
            knob, ends = page.locator(f"#unets input[name={name}]"), []
            assert knob.get_attribute("aria-label")
            for key in ("Home", "End"):
                knob.focus()
                page.keyboard.press(key)
                ends.append(knob.get_attribute("aria-valuetext"))
                assert len(shown()) == 1
            assert ends[0] != ends[1], f"{name} does not move"
        for name, key in (("b", "End"), ("d", "Home")):
            page.locator(f"#unets input[name={name}]").focus()
            page.keyboard.press(key)
        expect(status).to_contain_text("Not trained: b = 64, d = 2")
        page.screenshot(path=SHOTS / f"book_unets_{width}_{scheme}.png", full_page=True)
        page.locator("#dcnets input").focus()
        page.keyboard.press("Home")
        for net in grid["dcnets"]:
            row = page.locator("#dcnets tr", has_text=net["name"])
            expect(row).to_contain_text(f"{net['psnr'][0][0]:.1f} dB")
            expect(row).to_contain_text(f"{net['accuracy'][0][0]:.1f} %")
        assert page.evaluate(FITS)
        page.locator("#dcnets").screenshot(path=SHOTS / f"book_dcnets_{width}_{scheme}.png")


@SCREENS
def test_networks_run_in_the_page(browser, site, width, scheme, tmp_path):
    """Test pictures with their labels, an own one without; the state in the address; the game."""
    options = dict(viewport={"width": width, "height": 900}, color_scheme=scheme)
    with watched(browser, site, **options) as page:
        play(page, site, tmp_path)
        assert page.evaluate(FITS)
        page.screenshot(path=SHOTS / f"book_demo_{width}_{scheme}.png", full_page=True)


def play(page, site, tmp_path):
    from playwright.sync_api import expect

    status, views = page.locator("#demo [role=status]"), page.locator("#demo .views")
    page.goto(f"{site}/demo.html#picture=digits-3&sigma=0.40")
    if not json.loads(page.locator("#stock").text_content())["networks"]:
        expect(status).to_contain_text("make demo")
        pytest.skip("ONNX Runtime Web or the extra `export` is not here")
    expect(status).to_contain_text("ms)", timeout=60_000)
    says = apply(load_network("dc-net-reduced-integrated"), study_scene("digits", 3), 0.0).own
    page.locator("#demo input[name=sigma]").focus()
    page.keyboard.press("Home")  # without noise it says what PyTorch says
    words = (f"{label} . .*?{100 * p:.0f}%" for label, p in best_classes(says, DIGITS))
    expect(status).to_contain_text(re.compile(", ".join(words)))
    page.keyboard.press("End")
    state = [f"location.hash.includes('{part}')" for part in ("picture=digits-3", "sigma=1.00")]
    page.wait_for_function(" && ".join(state))
    levels = re.compile(r"left: denoised, ([\d.]+) dB; right: noisy, ([\d.]+) dB")
    expect(views).to_contain_text(levels)
    denoised, noisy = levels.search(views.text_content()).groups()
    assert float(denoised) > float(noisy) + 5
    file = page.locator("#demo input[type=file]")
    page.locator("#demo input[name=sigma]").focus()
    page.keyboard.press("Home")
    for name in ("coffee", "chelsea", "astronaut", "camera"):  # as PyTorch; the last one is grey
        path = tmp_path / f"{name}.png"
        Image.fromarray(getattr(skimage.data, name)()[60:220, 130:335]).save(path)
        file.set_input_files(path)
        expect(page.locator("#demo figcaption").first).to_have_text(path.name, timeout=30_000)
        network = load_network(page.locator("#demo select").input_value())
        outcome = apply(network, file_scene(path.name, path), 0.0)
        rates, ((label, p),) = network.refusal_rates(0), best_classes(outcome.own, network.classes)
        rule = f"the rule refuses {rates['refused']:.0f}% of such pictures too, and labels"
        expect(status).to_contain_text(f"says {label} {100 * p:.0f}%" if outcome.familiar else rule)
        shown = page.evaluate(PIXELS, "#demo canvas.over")
        shown = torch.tensor(shown).reshape(*outcome.denoised.shape[1:], 4)[..., :3].permute(2, 0, 1)
        difference = (shown - 255 * outcome.denoised.clamp(0, 1)).abs()
        assert difference.max() < 0.6, f"{name}: other pixels than PyTorch's"
    file.set_input_files(ROOT / "README.md")
    expect(status).to_contain_text("README.md is no picture")
    expect(views).to_be_hidden()
    game = page.locator("#game [role=status]")
    page.get_by_role("button", name="Begin").click()
    for turn in range(30):
        step = ("noisy", "denoised", "with the label")[turn % 3]
        expect(game).to_contain_text(f"Round {turn // 3 + 1} of 10, {step}")
        page.locator("#game .keys button").nth(1).click()
    score = r"You read (\d) of 10 in the noise, \1 denoised \(\+0\), \1 with"
    expect(game).to_contain_text(re.compile(score))
    with page.expect_download() as saved:
        page.get_by_text("Save as CSV").click()
    saved.value.save_as(tmp_path / "game.csv")
    rows = pd.read_csv(tmp_path / "game.csv")
    assert len(rows) == 10 and (rows[["noisy", "denoised", "with the label"]] == 1).all(axis=None)
