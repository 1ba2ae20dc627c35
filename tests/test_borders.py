"""What users bring is checked where it enters: a broken file is one sentence with its name, and nothing
in it is run.
"""

import io
import json
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from made_up import linear_table, start_architecture

from dcnas.data.pictures import read_picture
from dcnas.deploy import weights
from dcnas.errors import InputError
from dcnas.latency.table import load_table
from dcnas.nas.space import Space, load_architecture
from dcnas.paths import weights_dir

SPACE = Space(4, 32, 3, 0.25)
CARD = weights_dir() / "unet-b8-d4-m1.5-c2.card.json"
READERS = {"table": load_table, "architecture": load_architecture, "card": weights.read_card}


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """A sound file of each kind that a user may bring."""
    linear_table(SPACE).save(tmp_path / "table.json")
    (tmp_path / "architecture.json").write_text(start_architecture(SPACE).to_json())
    (tmp_path / "card.json").write_text(CARD.read_text())
    return {kind: tmp_path / f"{kind}.json" for kind in READERS}


def without(name: str):
    return lambda text: json.dumps(
        {key: value for key, value in json.loads(text).items() if key != name}
    )


BREAKS = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a list": lambda text: "[1, 2]",
    "of another format": lambda text: json.dumps(json.loads(text) | {"format": 99}),
    "without a format": without("format"),
    "of numbers that are text": lambda text: text.replace(": 32", ': "thirty"').replace(
        '"resolution": 96', '"resolution": "x"'
    ),
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_file_is_one_sentence(files, kind, how):
    path = files[kind]
    READERS[kind](path)  # sound as it is
    broken = BREAKS[how](path.read_text())
    assert broken != path.read_text()
    path.write_text(broken)
    with pytest.raises(InputError) as refusal:
        READERS[kind](path)
    text = str(refusal.value)
    assert path.name in text and "\n" not in text.strip() and len(text) < 600


# nothing is run


class Canary:
    """A pickle that writes a file when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_no_pickle_is_read(tmp_path):
    canary, packed = tmp_path / "canary", io.BytesIO()
    torch.save({"x": Canary(canary)}, packed)
    for data in (pickle.dumps(Canary(canary)), packed.getvalue()):
        path = tmp_path / "weights.safetensors"
        path.write_bytes(data)
        weights.card_path(path).write_text(CARD.read_text())
        for read in (lambda path: weights.load_network(str(path)), load_table, load_architecture):
            with pytest.raises(InputError):
                read(path)
        with pytest.raises(InputError):
            read_picture(data)
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists()  # it would have sung


def test_no_postscript_is_run():
    """Pillow would hand it to Ghostscript, a program that runs what a file says."""
    with pytest.raises(InputError, match="is not a picture that can be read"):
        read_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) show\n")


# large pictures


def png(side: int) -> bytes:
    """A grey RGB picture of side x side pixels, without holding its pixels."""
    pack, row = zlib.compressobj(), b"\0" + b"\x80" * (side * 3)
    data = b"".join(pack.compress(row) for _ in range(side)) + pack.flush()

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


THROUGH_A_NETWORK = """
import resource, sys
import torch
from dcnas import cli
from dcnas.deploy import weights
from dcnas.training import metrics

def denoise(path):
    words = ["denoise", path, sys.argv[1], "--weights", "dc-nas-s-solar", "--sigma", "0.2"]
    cli.app(words, standalone_mode=False)

denoise(sys.argv[2])
# takes time, but no memory for each pixel
weights.Network.denoise = lambda self, images: torch.full_like(images, 0.5)
metrics.ssim_map = lambda images, clean: images
denoise(sys.argv[3])
print("MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_a_large_picture_goes_through_a_network_in_little_memory(tmp_path):
    """One of 0.8 million pixels as it is; one of 49 million, with noise, in all but the network itself
    and SSIM.
    """
    for side in (900, 7_000):
        (tmp_path / f"{side}.png").write_bytes(png(side))
    paths = [str(tmp_path / name) for name in ("out", "900.png", "7000.png")]
    ended = subprocess.run(
        [sys.executable, "-c", THROUGH_A_NETWORK, *paths], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    megabytes = int(ended.stdout.split()[-1])
    assert megabytes < 2_000, f"{megabytes} MB"
    assert (tmp_path / "out" / "7000.png.png").exists()
