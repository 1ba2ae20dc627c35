"""Checkpoints that survive a kill at any moment: a temporary file, renamed when it is whole."""

import io
from pathlib import Path

import torch

from ..paths import write_atomic

NAME = "checkpoint.pt"


def save(folder: Path, state: dict) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(folder / NAME, buffer.getvalue())


def load(folder: Path, device: torch.device | str = "cpu") -> dict | None:
    """The checkpoint of `folder`, or None if there is none; only tensors and plain data are read."""
    path = folder / NAME
    return torch.load(path, map_location=device, weights_only=True) if path.exists() else None


def remove(folder: Path) -> None:
    (folder / NAME).unlink(missing_ok=True)
