"""Pairs of a clean and a noisy picture of the same scene: squares of both, cut but never scaled."""

import numpy as np

from ..errors import InputError
from .photographs import Photograph
from .pictures import starts, upright

PATCHES = 16  # at most of each picture


def pair_patches(file: Photograph, side: int, grey: bool) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, 1 or 3, side, side) of a clean picture and its noisy twin, cut at the same places."""
    clean, noisy = (_pixels(path.read_bytes(), grey) for path in (file.path, file.noisy))
    if clean.shape != noisy.shape or min(clean.shape[1:]) < side:
        sizes = " and ".join(f"{x.shape[2]} x {x.shape[1]}" for x in (clean, noisy))
        raise InputError(f"{file.path.name}: {sizes} pixels, but equal ones of {side} or more were due.")
    rows, columns = (starts(length, side, 0) for length in clean.shape[1:])
    places = [(top, left) for top in rows for left in columns]
    places = places[:: -(-len(places) // PATCHES)]
    cut = ([x[:, top : top + side, left : left + side] for top, left in places] for x in (clean, noisy))
    return tuple(map(np.stack, cut))


def _pixels(data: bytes, grey: bool) -> np.ndarray:
    """The bytes of a picture as uint8 (1 or 3, H, W), upright."""
    pixels = np.asarray(upright(data, grey)[0], np.uint8)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)
