"""Disks, clocks, cuts and old versions: whatever happens to a file, it reads as whole, is made again, or is answered in a sentence.

Nothing here may end in a traceback of another kind than `InputError` or OSError, and never in a value that was not written.
"""

import csv
import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import linear_table, start_architecture
from PIL import Image
from safetensors.torch import save

from dcnas import cli, paths, shipped
from dcnas.data import images
from dcnas.data.mnist import load_mnist
from dcnas.data.noise import SIGMAS
from dcnas.errors import InputError
from dcnas.latency.table import load_table
from dcnas.nas.space import Space, load_architecture
from dcnas.paths import published_dir, weights_dir
from dcnas.reading import read_json
from dcnas.study import results3 as results
from dcnas.study import results4, runs, section2, section4_runs
from dcnas.study.experiments import FORMAT, Experiment
from dcnas.study.runs import finish, folder_of, is_complete, load_model, obtain, published_runs, read_tensors
from dcnas.training import checkpoint, loop

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = Experiment(
    label="tiny", task="denoise", network="unet", scale="smoke", seed=0, steps=6, batch=4, epoch_steps=3, lr=4e-3,
    schedule="one-cycle", precision="fp32", channels_last=True, train_images=16, eval_images=2, b=4, d=2, m=1.0, c=1,
)  # fmt: skip
REAL = Path(__file__).resolve().parents[1]


@pytest.fixture
def mnist():
    try:
        return load_mnist(progress=False)
    except (InputError, OSError) as error:
        pytest.skip(f"needs MNIST: {error}")


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DCNAS_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def complete(store, mnist) -> Path:
    """The folder of a complete run."""
    assert obtain(TINY, progress=False)
    return folder_of(TINY)


def tenths(whole: bytes) -> list[bytes]:
    return [whole[: len(whole) * n // 10] for n in range(10)]


CUTS = 12  # how many `cut_everywhere` makes


def sentence(error: Exception, name: str) -> str:
    """The message of an error, which must be one clear sentence that names the file."""
    text = str(error)
    assert name in text and "\n" not in text.strip() and len(text) < 600, text
    return text


def cut_everywhere(path: Path, read, whole=None, name: str | None = None) -> int:
    """Read a file cut at every tenth byte and in its last value: refused in a sentence, or read as `whole`, what it gives uncut.

    How many were refused.
    """
    content, refused = path.read_bytes(), 0
    whole = read() if whole is None else whole
    for part in (*tenths(content), content[:-2], content[:-5]):
        path.write_bytes(part)
        try:
            found = read()
        except InputError as error:
            sentence(error, name or path.name)
            refused += 1
        else:
            assert same(found, whole), f"{path.name} of {len(part)} of {len(content)} bytes was read, as something else"
    path.write_bytes(content)
    assert same(read(), whole)
    return refused


def same(a, b) -> bool:
    if isinstance(a, pd.DataFrame):
        return a.equals(b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


# files of a run


def test_cut_records_are_refused(complete):
    rows = results.read_runs([TINY])
    assert len(rows) == len(SIGMAS)
    for name in ("metrics.csv", "provenance.json"):
        assert cut_everywhere(complete / name, lambda: results.read_runs([TINY])) == CUTS
    assert cut_everywhere(complete / "history.csv", lambda: runs.read_history(complete)) >= 8
    for name in ("weights", "per_image", "samples"):
        path = complete / f"{name}.safetensors"
        assert cut_everywhere(path, lambda path=path: read_tensors(path)) == CUTS
    assert cut_everywhere(complete / "weights.safetensors", lambda: load_model(TINY).state_dict()) == CUTS


@pytest.mark.parametrize("name", ["config.json", "checkpoint.pt", "checkpoint.previous.pt"])
def test_cut_files_of_unfinished_runs_are_made_again(store, mnist, monkeypatch, name):
    """The very weights of an undisturbed training; its evaluation, which takes none of these files, is left out here."""
    monkeypatch.setattr(runs, "_evaluate", lambda *_: None)
    assert obtain(TINY, progress=False)
    expected = (folder_of(TINY) / "weights.safetensors").read_bytes()
    shutil.rmtree(folder_of(TINY))
    for _ in range(2):
        assert not obtain(TINY, progress=False, deadline=time.monotonic())
    before = {path.name: path.read_bytes() for path in folder_of(TINY).iterdir()}
    for part in tenths(before[name]):
        for path in folder_of(TINY).iterdir():
            path.unlink()
        for other, content in before.items():
            (folder_of(TINY) / other).write_bytes(part if other == name else content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert obtain(TINY, progress=False)
        assert (folder_of(TINY) / "weights.safetensors").read_bytes() == expected


@pytest.mark.parametrize("name", ["history.csv", "weights.safetensors"])
def test_cut_files_of_a_training_are_told_and_made_again_once_deleted(complete, name):
    """Before the evaluation: what a training ends in is never taken for another result."""
    expected = results.read_runs([TINY]).drop(columns=["train_s", "evaluate_s", "date"])
    whole = (complete / name).read_bytes()
    for part in tenths(whole):
        (complete / "metrics.csv").unlink(missing_ok=True)
        (complete / name).write_bytes(part)
        try:
            assert obtain(TINY, progress=False) and name == "history.csv"  # cut at the end of a row: only seconds are lost
        except InputError as error:
            assert "delete it" in sentence(error, name) and not is_complete(TINY)
    (complete / "metrics.csv").unlink(missing_ok=True)
    (complete / name).unlink()
    assert obtain(TINY, progress=False)
    assert results.read_runs([TINY]).drop(columns=["train_s", "evaluate_s", "date"]).equals(expected)


def test_a_checkpoint_of_another_version(store, mnist):
    assert not obtain(TINY, progress=False, deadline=time.monotonic())
    state = checkpoint.load(folder_of(TINY))
    del state["images"]
    checkpoint.save(folder_of(TINY), state)
    with pytest.raises(InputError, match="lacks images, as those of another version do; delete it to train anew"):
        obtain(TINY, progress=False)
    for path in folder_of(TINY).glob("checkpoint*"):
        path.unlink()
    assert obtain(TINY, progress=False)


def test_records_of_older_versions(complete):
    """A column or an entry that came later is named; what another format wrote has another folder, and is not taken for ours."""
    record = json.loads((complete / "provenance.json").read_text())
    for name in ("evaluate_s", "commit"):
        (complete / "provenance.json").write_text(json.dumps({key: value for key, value in record.items() if key != name}))
        with pytest.raises(InputError, match=f"provenance.json lacks {name}, as records of another version do; delete metrics.csv"):
            results.read_runs([TINY])
    (complete / "provenance.json").write_text(json.dumps(record))
    with (complete / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    (complete / "metrics.csv").write_text(runs.to_csv([{k: v for k, v in row.items() if k != "sigma"} for row in rows]))
    with pytest.raises(InputError, match="metrics.csv lacks the columns sigma"):
        results.read_runs([TINY])
    (complete / "metrics.csv").write_text(runs.to_csv([{k: v for k, v in row.items() if k != "ssim"} for row in rows]))
    assert results.read_runs([TINY])["ssim"].isna().all()  # a metric that was not taken is none, and no number
    per_image = read_tensors(complete / "per_image.safetensors")
    (complete / "per_image.safetensors").write_bytes(save({"psnr": per_image["psnr"]}))
    with pytest.raises(InputError, match="ssim of each image of tiny, seed 0, is not among what is stored"):
        results.per_image(results.read_runs([TINY]).assign(source="runs"), "ssim")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dcnas.study.experiments.FORMAT", FORMAT - 1)
        older = replace(TINY)
        assert older.name != TINY.name and not is_complete(older)


# files of others


def test_cut_tables_architectures_and_cards(tmp_path):
    space = Space(4, 32, 3, 0.25)
    table = linear_table(space).save(tmp_path / "table.json")
    assert cut_everywhere(table, lambda: load_table(table)) == CUTS
    architecture = tmp_path / "found.json"
    architecture.write_text(start_architecture(space).to_json())
    assert cut_everywhere(architecture, lambda: load_architecture(architecture)) == CUTS


@pytest.mark.parametrize("change", [{"format": 0}, {"format": None}, {"format": "1"}, {}], ids=str)
@pytest.mark.parametrize("kind", ["table", "architecture", "card"])
def test_files_of_other_formats(tmp_path, kind, change):
    """An empty change takes the format away."""
    path = tmp_path / "x.json"
    if kind == "table":
        linear_table(Space(4, 32, 3, 0.25)).save(path)
    elif kind == "architecture":
        path.write_text(start_architecture(Space(4, 32, 3, 0.25)).to_json())
    else:
        path.write_text((REAL / "data" / "weights" / "unet-b8-d4-m1.5-c2.card.json").read_text())
    read = {"table": load_table, "architecture": load_architecture, "card": shipped.read_card}[kind]
    read(path)
    record = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in record.items() if key != "format"} | change))
    with pytest.raises(InputError) as told:
        read(path)
    assert "format" in sentence(told.value, "x.json")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A copy of what is published, to be damaged."""
    for name in ("published", "weights", "latency"):
        shutil.copytree(REAL / "data" / name, tmp_path / "data" / name)
    monkeypatch.setenv("DCNAS_ROOT", str(tmp_path))
    monkeypatch.setenv("DCNAS_RUNS", str(tmp_path / "runs"))
    results.archive.cache_clear()
    yield tmp_path
    results.archive.cache_clear()


READERS = {
    "section3.csv": results.published,
    "section4.csv": lambda: results4.read_results_file(published_dir() / "section4.csv", results4.COLUMNS, whole=("b",)),
    "section4_searches.csv": lambda: results4._read_published("section4_searches"),
    "section4_derivations.csv": lambda: results4._read_published("section4_derivations"),
    "section4_epochs.csv": lambda: results4._read_published("section4_epochs"),
    "section4_alphas.csv.gz": lambda: results4._published_searches()[2],
    "section4_architectures.json": section4_runs.published_architectures,
    "section3_per_image.safetensors": lambda: read_tensors(published_dir() / "section3_per_image.safetensors"),
}


@pytest.mark.parametrize("name", READERS)
def test_cut_published_files(project, name):
    assert cut_everywhere(published_dir() / name, READERS[name]) == CUTS


def test_cut_latencies(project):
    for path in (project / "data" / "latency").iterdir():
        read = {
            **dict.fromkeys(("lut-64px-cpu.json", "lut-64px-half-cpu.json"), lambda path=path: load_table(path)),
            "lut-64px-cpu.validation.csv": lambda: results4.validation_of("short"),
            "lut-64px-half-cpu.validation.csv": lambda: results4.validation_of("laptop"),
            "search-step.csv": results4.search_steps,
            "section4-short.csv": lambda: results4.latencies("short"),
        }.get(path.name)
        if read is None:
            reads = {"section2": lambda: section2.latencies("short"), "section3": section3_latencies, "pairs": section3_pairs}
            read = reads[path.name.split("-")[0]]
        assert cut_everywhere(path, read) == CUTS


def section3_latencies():
    from dcnas.study.timing import latencies

    return latencies()


def section3_pairs():
    from dcnas.study.timing import PAIRS, pair_passes

    return pair_passes(*PAIRS[0])


@pytest.mark.parametrize("name", ["section3.csv", "section4.csv"])
def test_published_files_cut_at_the_end_of_a_row(project, name):
    """Every line is sound; but a run has all noise levels or none."""
    path = published_dir() / name
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))
    with pytest.raises(InputError, match=f"{name} lacks noise levels of the run .*: it was cut short"):
        READERS[name]()


def test_metrics_cut_at_the_end_of_a_row(complete):
    path = complete / "metrics.csv"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="metrics.csv has 10 noise levels instead of 11: it was cut short; delete metrics.csv"):
        results.read_runs([TINY])


def test_what_is_published_of_another_version(project):
    """Of a lower format, of none, or without a column: named, and not mixed with this one's results."""
    for name in ("section3.csv", "section4_searches.csv"):
        path = published_dir() / name
        whole = pd.read_csv(path)
        for frame, why in (
            (whole.assign(format=0), "has results of format 0, but format 1"),
            (whole.drop(columns="format"), "has results of format none"),
            (whole.drop(columns="seed"), "lacks the columns seed"),
        ):
            frame.to_csv(path, index=False)
            with pytest.raises(InputError, match=f"{name} {why}"):
                READERS[name]()
        whole.to_csv(path, index=False)
    path = published_dir() / "section3.csv"
    whole = path.read_bytes()
    pd.read_csv(path).assign(format=0).to_csv(path, index=False)
    assert not published_runs() & set(pd.read_csv(path)["run"])  # a queue does not take them for done
    path.write_bytes(whole[:-3])
    with pytest.raises(InputError, match="section3.csv is not a sound CSV file"):
        published_runs()


@pytest.mark.parametrize("name", ["unet-b8-d4-m1.5-c2.card.json", "unet-b8-d4-m1.5-c2.safetensors"])
def test_cut_weights_that_ship(project, name):
    def read():
        shipped._load.cache_clear()
        network = shipped.load_network("unet-b8-d4-m1.5-c2")
        return network.card, network.model.state_dict()

    assert cut_everywhere(weights_dir() / name, read) == CUTS


def test_a_card_without_what_came_later(project):
    path = weights_dir() / "unet-b8-d4-m1.5-c2.card.json"
    card = json.loads(path.read_text())
    for name in ("classes", "metrics", "resolution"):
        path.write_text(json.dumps({key: value for key, value in card.items() if key != name}))
        with pytest.raises(InputError, match=f"is not a card of this study: {name} missing"):
            shipped.read_card(path)


def test_cut_caches_of_decoded_images_are_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("DCNAS_DOWNLOADS", str(tmp_path / "downloads"))
    for n in range(8):
        folder = tmp_path / "set" / "ab"[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((70, 70), 30 * n, np.uint8)).save(folder / f"{n}.png")
    name = f"folder:{tmp_path / 'set'}"
    whole = images.load_images(name, 32, progress=False)
    expected = whole.images[:].copy()
    for path in sorted((tmp_path / "downloads" / "decoded").glob("*.[nj]*")):
        for part in tenths(path.read_bytes()):
            path.write_bytes(part)
            assert np.array_equal(images.load_images(name, 32, progress=False).images, expected)


# disks


@pytest.fixture
def disk(tmp_path):
    """A file system of 200 KB of its own, and a function that gives it other options."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "dcnas", place], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield place, lambda options: subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def refused(monkeypatch, capsys):
    """Call the command; what it says on stderr, once it has ended with status 2."""

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["dcnas", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        return capsys.readouterr().err

    return call


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_full_disk_for_every_kind_of_output(disk, tmp_path, refused):
    """Nothing half written is left, and what stood there stands."""
    place, remount = disk
    kept = paths.write_atomic(place / "table.json", "kept")
    filler = place / "filler"
    with pytest.raises(OSError) as told:
        filler.write_bytes(bytes(10**6))
    assert told.value.errno == errno.ENOSPC
    for write in (
        lambda: linear_table(Space(4, 32, 3, 0.25)).save(kept),
        lambda: finish(place, torch.device("cpu"), [{"sigma": 0.0, "psnr": 1.0}], {}),
        lambda: checkpoint.save(place, {"tensor": torch.zeros(10_000)}),
        lambda: shipped.ship({"tensor": torch.zeros(10_000)}, {}, place / "some.safetensors"),
    ):
        with pytest.raises(OSError) as told:
            write()
        assert told.value.errno == errno.ENOSPC
    assert files_under(place) == {"table.json", "filler"} and kept.read_text() == "kept"
    picture = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(picture)
    said = refused("denoise", str(picture), str(place / "out"), "--weights", "unet-b8-d4-m1.5-c2")
    assert "dcnas: No space left on device" in said and "Traceback" not in said
    filler.unlink()
    checkpoint.save(place, {"tensor": torch.zeros(1_000)})
    assert checkpoint.load(place)["tensor"].shape == (1_000,)


def test_a_read_only_folder(disk, tmp_path, mnist, monkeypatch, refused):
    """Reading works; writing is answered in a sentence."""
    place, remount = disk
    table = linear_table(Space(4, 32, 3, 0.25)).save(place / "table.json")
    remount("ro")
    assert load_table(table).entries > 100
    with pytest.raises(OSError) as told:
        linear_table(Space(4, 32, 3, 0.25)).save(table)
    assert told.value.errno == errno.EROFS
    monkeypatch.setenv("DCNAS_RUNS", str(place / "runs"))
    assert refused("run", "Conv-S", "--scale", "smoke") == f"dcnas: Read-only file system: {place / 'runs'}\n"
    picture = tmp_path / "picture.png"
    Image.new("L", (32, 32)).save(picture)
    said = refused("denoise", str(picture), str(place / "out"), "--weights", "unet-b8-d4-m1.5-c2")
    assert "dcnas: Read-only file system" in said and "Traceback" not in said


def test_a_limit_on_the_size_of_files(tmp_path):
    """As a quota has it, and without the right to mount anything: the file that would be too large is not there at all."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = paths.write_atomic(tmp_path / "weights.safetensors", b"old")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError) as told:
            paths.write_atomic(path, bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert told.value.errno == errno.EFBIG and path.read_bytes() == b"old" and files_under(tmp_path) == {path.name}


# clocks


def test_a_clock_that_goes_backwards(store, mnist, monkeypatch):
    """The day falls back at every look, files are of tomorrow, and after a restart the seconds since boot begin anew."""
    assert obtain(TINY, progress=False)
    expected = results.read_runs([TINY]).drop(columns=["train_s", "evaluate_s", "date"])
    shutil.rmtree(folder_of(TINY))
    now, monotonic = [time.time()], time.monotonic

    def earlier() -> float:
        now[0] -= 3_600
        return now[0]

    monkeypatch.setattr(time, "time", earlier)
    monkeypatch.setattr(loop.time, "monotonic", lambda: monotonic() + 1e6)
    assert not obtain(TINY, progress=False, deadline=0.0)
    for path in folder_of(TINY).iterdir():
        os.utime(path, (monotonic() + 4e9, monotonic() + 4e9))
    monkeypatch.setattr(loop.time, "monotonic", monotonic)  # a million seconds earlier than the checkpoint's
    assert obtain(TINY, progress=False)
    seconds = [row["seconds"] for row in runs.read_history(folder_of(TINY))]
    assert seconds == sorted(seconds) and 0 <= seconds[0] and seconds[-1] < 1_000
    assert results.read_runs([TINY]).drop(columns=["train_s", "evaluate_s", "date"]).equals(expected)
    assert obtain(TINY, progress=False)  # the lock is free, the run complete


# what must not be run


def test_a_checkpoint_with_code_is_passed_over(store, mnist, tmp_path):
    """Its checksum is right, its pickle would write a file: nothing of it is carried out, and the run begins anew."""
    canary = tmp_path / "canary"
    folder = folder_of(TINY)
    folder.mkdir(parents=True)
    payload = b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
    (folder / checkpoint.NAME).write_bytes(hashlib.sha256(payload).digest() + payload)
    with pytest.warns(UserWarning, match="holds no tensors and numbers"):
        assert obtain(TINY, progress=False)
    assert not canary.exists()


# a notebook


def result_files(project: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted((project / "data" / "runs").glob("*/*")):
        if path.name in ("config.json", "metrics.csv", "per_image.safetensors", "weights.safetensors"):
            found[f"{path.parent.name}/{path.name}"] = path.read_bytes()
    return found


@pytest.mark.slow
def test_a_notebook_killed_in_the_middle_goes_on(tmp_path, mnist):
    """By papermill at scale smoke: complete runs stay as they are, the rest is made, and all is as if nothing had happened."""
    name, found = "03_1_efficient_classification", {}
    for place in ("killed", "undisturbed"):
        project = tmp_path / place
        (project / "data").mkdir(parents=True)
        for part in ("paper", "published", "latency", "weights"):
            (project / "data" / part).symlink_to(REAL / "data" / part)
        shutil.copytree(REAL / "notebooks", project / "notebooks", ignore=lambda _, names: [n for n in names if name not in n])
        environment = os.environ | {
            "DCNAS_ROOT": str(project), "DCNAS_DOWNLOADS": str(paths.downloads_dir()), "PYTHONPATH": str(REAL / "lib"),
            "DCNAS_RUNS": str(project / "data" / "runs"),
        }  # fmt: skip
        command = [sys.executable, "-m", "dcnas.cli", "study", name, "--scale", "smoke"]
        complete = lambda: {  # noqa: E731
            path: path.stat().st_mtime_ns
            for path in (project / "data" / "runs").glob("*/metrics.csv")  # noqa: B023
        }
        if place == "killed":
            first = subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )
            end = time.monotonic() + 300
            while len(complete()) < 3:
                assert first.poll() is None and time.monotonic() < end
                time.sleep(0.02)
            os.killpg(first.pid, signal.SIGKILL)
            kernels = [pid for pid in kernels_of(project) if pid != first.pid]
            for pid in kernels:
                os.kill(pid, signal.SIGKILL)
            first.wait()
            assert not (project / "out" / "smoke" / f"{name}.ipynb").exists()
            before = complete()
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        if place == "killed":
            assert 3 <= len(before) < len(complete()) and before.items() <= complete().items()
        assert (project / "out" / "smoke" / f"{name}.ipynb").exists()
        found[place] = result_files(project)
    assert len(found["killed"]) > 20 and found["killed"] == found["undisturbed"]


def kernels_of(project: Path) -> list[int]:
    """Processes that work in a project: a kernel has a session of its own, and outlives who started it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"DCNAS_ROOT={project}\0".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_json_that_is_none_is_told(tmp_path):
    for content in (b"", b"\xff\xfe", b"[" * 100_000, b"{", b"nan"):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(InputError) as told:
            read_json(tmp_path / "x.json")
        sentence(told.value, "x.json is not JSON")
