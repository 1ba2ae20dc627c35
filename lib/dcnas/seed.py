"""Seeds: training draws from a derived stream per step, so that a killed run goes on with the same."""

import hashlib
import random

import numpy as np
import torch


def set_seed(seed: int) -> None:
    """Seed Python, numpy and torch (all devices), from which weights are initialised."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries that still draw from numpy's global stream)
    torch.manual_seed(seed)


def derive(*keys: int | str) -> int:
    """A 63-bit seed from any names and numbers, the same on every machine and in every process."""
    text = "\x1f".join(map(str, keys)).encode(errors="surrogateescape")  # a path may be no UTF-8
    digest = hashlib.sha256(text).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*keys: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator on `device`, seeded by `derive(*keys)`."""
    return torch.Generator(device=device).manual_seed(derive(*keys))
