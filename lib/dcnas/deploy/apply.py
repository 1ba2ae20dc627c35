"""Denoise and classify: shared by the demo, `dcnas denoise` and `dcnas classify`, so that numbers agree.

Test images of the study meet the very noise of its evaluation.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import skimage.data
import torch
from torch import Tensor

from ..data.images import evaluation_images, load_images
from ..data.noise import NoiseBank
from ..data.photographs import SUFFIXES, pictures_in
from ..data.pictures import as_float, in_tiles, read_picture, square_of
from ..data.two_digits import cached
from ..errors import InputError
from ..models.crops import crop_boxes
from ..paths import write_atomic
from ..seed import derive
from ..training.metrics import quality
from .weights import DIGITS, Network

SETS = ("digits", "solar", "photographs")  # of images that can be named instead of a file
COUNT = 16  # of test images that the demo offers
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")  # of scikit-image: free of rights, or nearly
PHOTOGRAPH_SIDE = 256
SOLAR_SIDE = 64  # of the solar cells that the shipped network knows
FOR_PHOTOGRAPHS = "dc-net-b16-tiny-imagenet"  # the one that classifies best; a test holds that it helps
WORSE = "The denoised picture is worse than the noisy one."


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
    """What a network made of a scene; quality against the scene's image, probabilities (K, classes)."""

    scene: Scene
    sigma: float
    denoised: Tensor | None
    noisy_psnr: float  # dB; infinite where nothing was added
    noisy_ssim: float
    psnr: float | None  # None, as SSIM, where nothing was added: no clean picture is known
    ssim: float | None
    before: Tensor | None  # of the noisy image, by a Sequential network's classifier alone
    own: Tensor | None  # the network's answer
    familiar: bool  # whether that is a label: not of a picture unlike all that it was trained on
    ms: float  # of the pass that denoises and classifies

    @property
    def noisy(self) -> Tensor:
        """What the network was given, made anew at each call."""
        return with_noise(self.scene, self.sigma)

    @property
    def is_worse(self) -> bool:
        """Whether the network made the picture worse than the noise did."""
        return self.psnr is not None and self.psnr < self.noisy_psnr


def study_scene(name: str, index: int) -> Scene:
    """A test image of the study: "digits", 96 x 96 with two of them, or "solar", a cell of 64 x 64; or
    one of four "photographs" of 256 x 256, which no network was trained on.
    """
    if name == "photographs":
        index %= len(PHOTOGRAPHS)
        photograph = torch.from_numpy(getattr(skimage.data, PHOTOGRAPHS[index])()).permute(2, 0, 1)
        labels = ("espresso",) if PHOTOGRAPHS[index] == "coffee" else ()  # of no class the others
        square = square_of(photograph, PHOTOGRAPH_SIDE)
        return Scene(PHOTOGRAPHS[index], square, labels=labels, noise_id=index)
    if name == "digits":
        data = cached("test", COUNT)
        labels = tuple(map(str, data.labels[index].tolist()))
        return Scene(f"digits-{index}", data.images[index], (), data.boxes[index, None], labels, index)
    data = load_images("solar", SOLAR_SIDE)
    views, labels = evaluation_images(data, "test", SOLAR_SIDE, COUNT)
    return Scene(f"solar-{index}", views[index], (), None, (data.classes[int(labels[index])],), index)


def file_scene(name: str, source: Path | bytes, most_side: int | None = None) -> Scene:
    """A picture of a user's file, or of its bytes, with noise of its own; `InputError` if it cannot be
    read.
    """
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        pixels, notes = read_picture(data, most_side=most_side)
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}).") from None
    except InputError as error:
        raise InputError(f"{name} {error}") from None
    return Scene(name, pixels, notes, noise_id=derive("own picture", hashlib.sha256(data).hexdigest()))


def scenes_of(source: str, besides: Path | None = None) -> dict[str, Callable[[], Scene]]:
    """Name to a maker of the scene: of a picture, of a folder's, or of the test images of `SETS`.

    Results go to `besides`: what lies there is no input, and it may not be the folder itself.
    """
    if source in SETS:
        count = len(PHOTOGRAPHS) if source == "photographs" else COUNT
        return {f"{source}-{n}": partial(study_scene, source, n) for n in range(count)}
    place = Path(source)
    if not place.exists():
        expected = f"a picture, a folder or one of {', '.join(SETS)} was expected"
        raise InputError(f"IN is {source!r}, but {expected}.")
    if not place.is_dir():
        return {place.name: partial(file_scene, place.name, place)}
    if besides is not None and besides.resolve() == place.resolve():
        expected = "the folder of the pictures, but another was expected"
        raise InputError(f"OUT is {str(besides)!r}, {expected}.")
    names = {str(path.relative_to(place)): path for path in pictures_in(place, besides)}
    if not names:
        raise InputError(f"{source} holds no pictures ({', '.join(SUFFIXES)} were expected).")
    return {name: partial(file_scene, name, path) for name, path in names.items()}


def with_noise(scene: Scene, sigma: float) -> Tensor:
    """The scene's image with Gaussian noise, the same at every call, for every network."""
    if sigma == 0:
        return scene.image
    noise = NoiseBank().noise([scene.noise_id], sigma, tuple(scene.pixels.shape))[0]
    for channel, pixels in zip(noise, scene.pixels):  # as `degrade` does, without copies of the whole
        channel.mul_(sigma).add_(as_float(pixels))
    return noise


@torch.inference_mode()
def apply(network: Network, scene: Scene, sigma: float = 0.0, *, progress: bool = False) -> Outcome:
    """Add noise, denoise, classify, and judge; with a progress bar for a picture that takes long."""
    noisy, boxes = with_noise(scene, sigma), scene.boxes
    noisy_quality = _quality(noisy, scene, sigma, progress)
    before, (psnr, ssim) = None, (None, None)
    if network.kind == "sequential" and boxes is not None:
        before = network.model.classifier(crop_boxes(noisy[None], boxes)).softmax(-1)
    begun = time.perf_counter()
    # from here on `noisy` may be overwritten
    if network.takes(noisy, boxes):  # in one pass, as in the study's evaluation
        denoised, logits = network.answer(noisy[None], boxes)
    else:
        logits = network.answer(network.views(noisy))[1] if network.classes else None
        denoised = (
            in_tiles(network.denoise, noisy[None], progress=progress) if network.denoises else None
        )
    ms = 1000 * (time.perf_counter() - begun)
    denoised = None if denoised is None else denoised[0]
    own = None if logits is None else logits[0].softmax(-1)
    if denoised is not None and sigma > 0:
        psnr, ssim = _quality(denoised, scene, sigma, progress)
    familiar = own is not None and is_familiar(network, scene, own)
    return Outcome(scene, sigma, denoised, *noisy_quality, psnr, ssim, before, own, familiar, ms)


def is_familiar(network: Network, scene: Scene, probabilities: Tensor) -> bool:
    """By what is known of the scene; of an own picture by the network's rule."""
    if scene.labels:
        return set(scene.labels) <= set(network.classes)
    return not network.refuses(probabilities)


def no_label(network: Network, scene: Scene, sigma: float) -> str:
    """That, and how far it is to be believed."""
    text = f"No label: this is unlike anything it was trained on ({network.knows})."
    if scene.labels or "refusal" not in network.card:  # it is known to be
        return text
    rates = network.refusal_rates(sigma)
    refused, labelled = (f"{rates[name]:.0f}%" for name in ("refused", "labelled"))
    rule = f"At σ = {rates['sigma']:g} the rule refuses {refused} of those too"
    return f"{text} {rule}, and labels {labelled} of others."


def _quality(image: Tensor, scene: Scene, sigma: float, progress: bool) -> tuple[float, float]:
    """PSNR (dB) and SSIM of an image limited to [0, 1], as in all results of the study."""

    def cut(rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        place = ..., rows, columns
        return image[place][None].clamp(0, 1), as_float(scene.pixels[place][None])

    return (math.inf, 1.0) if sigma == 0 else quality(cut, *image.shape[-2:], progress=progress)


def best_classes(probabilities: Tensor, classes: tuple[str, ...]) -> list[tuple[str, float]]:
    """The most probable class and its probability, for each object."""
    best = probabilities.max(-1)
    return [(classes[i], float(p)) for p, i in zip(best.values, best.indices)]


def row_of(scene: Scene, network: Network, sigma: float, outcome: Outcome) -> dict:
    """An outcome as a row of the CSV that the commands write, rounded as the demo prints it."""
    row = {"name": scene.name, "width": scene.pixels.shape[-1], "height": scene.pixels.shape[-2]}
    row |= {"weights": network.name, "sigma": sigma}
    if sigma > 0:
        names = ("noisy_psnr", "noisy_ssim", *(("psnr", "ssim") if network.denoises else ()))
        row |= {name: round(getattr(outcome, name), 2 if "psnr" in name else 3) for name in names}
    notes = [*scene.notes, *([WORSE] if outcome.is_worse else [])]
    if outcome.own is not None and not outcome.familiar:
        row |= {"class": "", "probability": ""}
        notes.append(no_label(network, scene, sigma))
    elif outcome.own is not None:
        names, probabilities = zip(*best_classes(outcome.own, network.classes))
        row |= {"class": " ".join(names), "probability": " ".join(f"{p:.3f}" for p in probabilities)}
    if scene.labels and (not network.of_digits or network.classes == DIGITS):
        row |= {"true": " ".join(scene.labels)}
    return row | {"ms": round(outcome.ms, 1), "notes": " ".join(notes)}


def write_rows(rows: list[dict], path: Path | None) -> None:
    """Print rows as a table, and below it the notes; write them as CSV where a path is given."""
    frame = pd.DataFrame(rows)
    print(frame.drop(columns=["width", "height", "weights", "notes"]).to_string(index=False))
    print("".join(f"{row['name']}: {row['notes']}\n" for row in rows if row["notes"]), end="")
    if path is not None:
        write_atomic(path, frame.to_csv(index=False, lineterminator="\n"))
