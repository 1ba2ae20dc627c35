"""Checkpoints that survive a kill at any moment: written beside the old one, verified by checksum, the one before kept."""

import hashlib
import io
import os
import warnings
from pathlib import Path

import torch

from ..paths import write_atomic

NAME, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
_DIGEST = hashlib.sha256().digest_size


def save(folder: Path, state: dict) -> None:
    """Write `state` as the newest checkpoint of `folder`; the newest so far, if it is sound, becomes the one before."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    if (folder / NAME).exists() and _payload(folder / NAME) is not None:
        os.replace(folder / NAME, folder / PREVIOUS)
    write_atomic(folder / NAME, hashlib.sha256(payload).digest() + payload)


def load(folder: Path, device: torch.device | str = "cpu") -> dict | None:
    """The newest sound checkpoint, or None if there is none; a broken one is named in a warning and passed over."""
    for name in (NAME, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        why = "its checksum differs"
        if (payload := _payload(path)) is not None:
            try:
                return torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
            except Exception as error:  # sound bytes, but none of ours: nothing of it is run
                why = f"it holds no tensors and numbers, {type(error).__name__}"
        warnings.warn(f"{path} is broken ({why}); going on from the one before it, or the start.", stacklevel=2)
    return None


def _payload(path: Path) -> bytes | None:
    """What `save` wrote to `path`, or None if its checksum differs."""
    data = path.read_bytes()
    return data[_DIGEST:] if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST] else None


def remove(folder: Path) -> None:
    """Delete the checkpoints of a finished run."""
    for name in (NAME, PREVIOUS):
        (folder / name).unlink(missing_ok=True)
