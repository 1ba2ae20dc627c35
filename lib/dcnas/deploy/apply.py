"""Denoise and classify: what the demo and the commands `dcnas denoise` and `dcnas classify` share: their
numbers are equal.

A scene is a picture to look at; an outcome is what a network makes of it at a noise level. Test images
of the study meet the very noise of its evaluation.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ..data.images import evaluation_images, load_images
from ..data.noise import NoiseBank
from ..data.photographs import SUFFIXES
from ..data.pictures import as_float, in_tiles, read_picture
from ..data.two_digits import cached
from ..errors import InputError
from ..paths import write_atomic
from ..training.metrics import LARGEST_SIDE, psnr, psnr_in_parts, ssim, ssim_in_parts
from .weights import DIGITS, Network

SETS = ("digits", "solar")  # of test images that can be named instead of a file
COUNT = 16  # of test images that the demo offers
SOLAR_SIDE = 64  # of the solar cells that the shipped network knows
LEAST_SIDE = 11  # pixels that SSIM needs


@dataclass(frozen=True)
class Scene:
    """A picture, uint8 (1 or 3, H, W), with what is known of it."""

    name: str
    pixels: Tensor
    notes: tuple[str, ...] = ()
    boxes: Tensor | None = None  # (1, K, 4): where digits are
    labels: tuple[str, ...] = ()  # of each digit, or of the picture
    noise_id: int = 0  # its number in the bank of noise

    @property
    def image(self) -> Tensor:
        """float32 in [0, 1], made anew at each call: of a photograph the memory holds few copies."""
        return as_float(self.pixels)


@dataclass(frozen=True)
class Outcome:
    """What a network made of a scene. Quality is against the scene's image; probabilities are (K,
    classes).
    """

    scene: Scene
    sigma: float
    denoised: Tensor | None
    noisy_psnr: float  # dB; infinite where nothing was added
    noisy_ssim: float
    psnr: float | None  # None, as SSIM, where nothing was added: no clean picture is known
    ssim: float | None
    before: Tensor | None  # by the noisy image
    after: Tensor | None  # by the denoised one; the same where nothing is denoised
    own: Tensor | None  # the network's own answer: of the noisy image in one pass
    ms: float  # of the pass that denoises and classifies

    @property
    def noisy(self) -> Tensor:
        """What the network was given, made anew at each call."""
        return with_noise(self.scene, self.sigma)


def study_scene(name: str, index: int) -> Scene:
    """A test image of the study: "digits", 96 x 96 with two of them, or "solar", a photograph of 64 x
    64.
    """
    if name == "digits":
        data = cached("test", COUNT)
        labels = tuple(str(label) for label in data.labels[index].tolist())
        return Scene(
            f"digits-{index}", data.images[index], (), data.boxes[index : index + 1], labels, index
        )
    data = load_images("solar", SOLAR_SIDE)
    views, labels = evaluation_images(data, "test", SOLAR_SIDE, COUNT)
    return Scene(f"solar-{index}", views[index], (), None, (data.classes[int(labels[index])],), index)


def file_scene(name: str, source: Path | bytes, most_side: int | None = None) -> Scene:
    """A picture of a user's file, or of its bytes; `InputError` if it cannot be read."""
    try:
        picture = read_picture(
            source if isinstance(source, bytes) else source.read_bytes(), most_side=most_side
        )
    except InputError as error:
        raise InputError(f"{name} {error}") from None
    return Scene(name, picture.pixels, picture.notes)


def scenes_of(source: str) -> dict[str, Callable[[], Scene]]:
    """Name to a maker of the scene: of a picture, of all pictures in a folder, or of the test images of
    `SETS`.
    """
    if source in SETS:
        return {f"{source}-{n}": partial(study_scene, source, n) for n in range(COUNT)}
    place = Path(source)
    if place.is_dir():
        paths = sorted(
            path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        if not paths:
            raise InputError(f"{source} holds no pictures ({', '.join(SUFFIXES)} were expected).")
        files = {str(path.relative_to(place)): path for path in paths}
    elif place.is_file():
        files = {place.name: place}
    else:
        raise InputError(
            f"IN is {source!r}, but a picture, a folder or one of {', '.join(SETS)} was expected."
        )
    return {name: partial(file_scene, name, path) for name, path in files.items()}


def with_noise(scene: Scene, sigma: float) -> Tensor:
    """The scene's image with Gaussian noise, the same at every call, for every network."""
    if sigma == 0:
        return scene.image
    noise = NoiseBank().noise([scene.noise_id], sigma, tuple(scene.pixels.shape))[0]
    # as `degrade` does, but without copies of the whole
    for channel, pixels in zip(noise, scene.pixels, strict=True):
        channel.mul_(sigma).add_(as_float(pixels))
    return noise


@torch.inference_mode()
def apply(network: Network, scene: Scene, sigma: float = 0.0, *, progress: bool = False) -> Outcome:
    """Add noise, denoise, classify before and after, and judge; with a progress bar for a picture that
    takes long.
    """
    noisy = with_noise(scene, sigma)
    before = _probabilities(network, noisy, scene.boxes)
    noisy_quality = _quality(noisy, scene, sigma, progress)
    begun = time.perf_counter()
    # from here on `noisy` may be overwritten
    denoised, own = _pass(network, noisy, scene.boxes, progress)
    ms = 1000 * (time.perf_counter() - begun)
    after, quality = (own if network.kind == "sequential" else None), (None, None)
    if denoised is not None and after is None:
        after = _probabilities(network, denoised, scene.boxes)
    if denoised is not None and sigma > 0:
        quality = _quality(denoised, scene, sigma, progress)
    return Outcome(scene, sigma, denoised, *noisy_quality, *quality, before, after, own, ms)


def _pass(
    network: Network, noisy: Tensor, boxes: Tensor | None, progress: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Denoised image and probabilities in one pass where image and network allow it, otherwise each for
    itself.

    A picture of several tiles is denoised in place.
    """
    if _fits(network, noisy, boxes):
        denoised, logits = network.answer(noisy[None], boxes)
        return None if denoised is None else denoised[0], None if logits is None else logits[0].softmax(
            -1
        )
    own = network.answer(network.views(noisy))[1][0].softmax(-1) if network.classes else None
    if not network.denoises:
        return None, own
    return in_tiles(network.denoise, noisy[None], overwrite=True, progress=progress)[0], own


def _fits(network: Network, image: Tensor, boxes: Tensor | None) -> bool:
    """Whether the image is as those that the network was trained on: then it goes through as in the
    study's evaluation.
    """
    if len(image) != network.channels:
        return False
    return (
        boxes is not None if network.of_digits else image.shape[-2:] == (network.card["resolution"],) * 2
    )


def _probabilities(network: Network, image: Tensor, boxes: Tensor | None) -> Tensor | None:
    if not network.classes:
        return None
    if network.of_digits and boxes is not None:
        return network.classify(image[None], boxes)[0]
    return network.classify(network.views(image))[0]


def _quality(image: Tensor, scene: Scene, sigma: float, progress: bool) -> tuple[float, float]:
    """PSNR (dB) and SSIM of an image limited to [0, 1], as in all results of the study."""
    size, pixels = scene.pixels.shape[-2:], scene.pixels
    large_enough = min(size) >= LEAST_SIDE
    if sigma == 0:
        return math.inf, 1.0 if large_enough else math.nan

    def cut(rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        return image[None, :, rows, columns].clamp(0, 1), as_float(pixels[None, :, rows, columns])

    if max(size) > LARGEST_SIDE:
        similarity = ssim_in_parts(cut, *size, progress=progress).item() if large_enough else math.nan
        return psnr_in_parts(cut, *size), similarity
    pair = cut(slice(None), slice(None))
    return psnr(*pair).item(), ssim(*pair).item() if large_enough else math.nan


def best_classes(probabilities: Tensor, classes: tuple[str, ...]) -> list[tuple[str, float]]:
    """The most probable class and its probability, for each object."""
    best = probabilities.max(-1)
    return [(classes[i], float(p)) for p, i in zip(best.values, best.indices, strict=True)]


def row_of(scene: Scene, network: Network, sigma: float, outcome: Outcome) -> dict:
    """An outcome as a row of the CSV that the commands write, rounded as the demo prints it."""
    row = {"name": scene.name, "width": scene.pixels.shape[-1], "height": scene.pixels.shape[-2]}
    row |= {"weights": network.name, "sigma": sigma}
    if sigma > 0:
        row |= {
            "noisy_psnr": _rounded(outcome.noisy_psnr, 2),
            "noisy_ssim": _rounded(outcome.noisy_ssim, 3),
        }
        if outcome.denoised is not None:
            row |= {"psnr": _rounded(outcome.psnr, 2), "ssim": _rounded(outcome.ssim, 3)}
    if outcome.own is not None:
        names, probabilities = zip(*best_classes(outcome.own, network.classes), strict=True)
        row |= {"class": " ".join(names), "probability": " ".join(f"{p:.3f}" for p in probabilities)}
    if scene.labels and (not network.of_digits or network.classes == DIGITS):
        row |= {"true": " ".join(scene.labels)}
    return row | {"ms": round(outcome.ms, 1)}


def _rounded(value: float, digits: int) -> float | str:
    return round(value, digits) if math.isfinite(value) else ("inf" if value > 0 else "")


def write_rows(rows: list[dict], path: Path | None) -> None:
    """Print rows as a table, and write them as CSV where a path is given."""
    frame = pd.DataFrame(rows)
    print(frame.drop(columns=["width", "height", "weights"]).to_string(index=False))
    if path is not None:
        write_atomic(path, frame.to_csv(index=False, lineterminator="\n"))
