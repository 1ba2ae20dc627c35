"""Seeds. One function seeds everything; `derive` gives independent streams that depend on names and
numbers only.

Training draws its order, noise levels and noise from derived streams, one per step, so that a run that
was killed goes on with exactly the numbers it would have drawn (a run is a pure function of its
experiment on a CPU).
"""

import hashlib
import random

import numpy as np
import torch


def set_seed(seed: int) -> None:
    """Seed Python, numpy and torch (all devices). Weights are initialised from this; see `derive` for
    data.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries that still draw from numpy's global stream)
    torch.manual_seed(seed)


def derive(*keys: int | str) -> int:
    """A 63-bit seed from any names and numbers, the same on every machine and in every process."""
    digest = hashlib.sha256("\x1f".join(map(str, keys)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*keys: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator on `device`, seeded by `derive(*keys)`."""
    return torch.Generator(device=device).manual_seed(derive(*keys))
