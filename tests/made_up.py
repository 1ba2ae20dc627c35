"""What tests make up: a look-up table, architectures, pictures, commands, interruptions."""

import io
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import count
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

from dcnas import cli
from dcnas.latency.measure import device_name
from dcnas.latency.table import Conditions, Curve, Table
from dcnas.nas.lut import key_of, variants
from dcnas.nas.networks import DECODERS
from dcnas.nas.space import OPERATORS, Architecture, Choice, Space

SHOTS = Path(__file__).resolve().parents[1] / "out" / "browser"  # screenshots
BLOCK_MS, MAC_MS = 0.02, 2e-7  # of a block, and of each multiply-accumulate in it


def linear_table(space: Space, batch: int = 32) -> Table:
    """A table in which a block's latency is a constant plus a share of its multiply-accumulates."""
    curves: dict[str, dict[int, float]] = {}
    for layer in space.layers:
        for choice in variants(layer, space.candidates):
            before, after = layer.size**2, (layer.size // layer.stride) ** 2
            macs = choice.hidden * (
                before * layer.in_channels + after * (choice.operator.kernel**2 + layer.out_channels)
            )
            gate = BLOCK_MS if choice.operator.se else 0.0
            curves.setdefault(key_of(layer, choice.operator), {})[choice.hidden] = (
                BLOCK_MS + gate + MAC_MS * macs * batch
            )
    fixed = {"stem.first": 0.3, "stem.second": 0.4, "head": 0.5} | {
        f"decoder {kind}": 2.0 for kind in DECODERS
    }
    curves |= {key: {0: ms} for key, ms in fixed.items()}
    how = ("channels_last", "float32", "", "", space.strides, "pytorch", "", space.width_step)
    conditions = Conditions(device_name(), 1, batch, space.resolution, space.width, *how)
    return Table(conditions, {key: _curve(points) for key, points in curves.items()})


def _curve(points: dict[int, float]) -> Curve:
    hidden, median_ms = zip(*sorted(points.items()), strict=True)
    return Curve(hidden, median_ms, (0.0,) * len(points), (1,) * len(points))


def start_architecture(space: Space, operators: int | list[int] = 0) -> Architecture:
    """Every layer with the operator of that number (or of the list's numbers), at its starting width."""
    indices = [operators] * len(space.layers) if isinstance(operators, int) else operators
    pairs = zip(space.layers, indices, strict=True)
    return Architecture(
        space,
        tuple(Choice(OPERATORS[i], OPERATORS[i].start_hidden(layer.in_channels)) for layer, i in pairs),
    )


def file_of(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    """The bytes of a picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grains(*shape: int) -> torch.Tensor:
    """Pixels of a picture, uint8 of that shape."""
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def noisy_picture(path: Path, level: int, seed: int = 0, size: tuple[int, int] = (64, 64)) -> Path:
    """A grainy colour picture of that brightness (0 to 255) and (height, width)."""
    rng = np.random.default_rng([level, seed])
    pixels = np.clip(level + rng.integers(-30, 30, (*size, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def two_classes(folder: Path) -> Path:
    """Twelve grainy pictures of each of two classes, dark and bright."""
    for name, level in (("dark", 40), ("bright", 200)):
        for n in range(12):
            noisy_picture(folder / name / f"{n}.png", level, n)
    return folder


def dcnas(*words) -> tuple[int, str, str]:
    """`dcnas WORDS` in this process: exit status, output, errors."""
    out, err = io.StringIO(), io.StringIO()
    argv = patch.object(sys, "argv", ["dcnas", *map(str, words)])
    with redirect_stdout(out), redirect_stderr(err), argv:
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
    return status, out.getvalue(), err.getvalue()


def bare(folder: Path, script: Path, *words: str) -> subprocess.CompletedProcess:
    """A script in a folder, as on a board: numpy, Pillow, onnxruntime, and what lies in `site` there."""
    site, packages = folder / "site", Path(np.__file__).parent.parent
    site.mkdir(exist_ok=True)
    for name in ("numpy", "numpy.libs", "onnxruntime", "PIL", "pillow.libs"):
        if (packages / name).exists() and not (site / name).exists():
            (site / name).symlink_to(packages / name)
    code = f"import runpy, sys; sys.path.append({str(site)!r}); sys.argv = {['', *words]!r}; "
    code += f"runpy.run_path({str(script)!r}, run_name='__main__')"
    command = [sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@contextmanager
def interrupted(owner, method: str, call: int):
    """Ctrl-C at the `call`-th call of a method, from 1."""
    real, calls = getattr(owner, method), count(1)

    def dies(*arguments, **options):
        if next(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with patch.object(owner, method, dies), pytest.raises(KeyboardInterrupt):
        yield
