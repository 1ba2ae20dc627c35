"""Trained networks as files: weights in safetensors, and beside them a card in JSON.

A card rebuilds the network, and tells what it was trained on, by which command, and how well it does at
each noise level. Those in `data/weights` ship with the study; `dcnas train` writes others.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..build import build
from ..data.pictures import STRIDE, square_of, with_channels
from ..errors import InputError, close_to, in_file
from ..models.crops import BOX_SIZE
from ..models.dcnet import JOINING
from ..nas.networks import DECODERS, MANUAL, NETWORKS
from ..paths import weights_dir, write_atomic

FORMAT = 1
DIGITS = tuple("0123456789")
KINDS = ("unet", *JOINING, *NETWORKS, *MANUAL)  # the first three on Section 3's digits, grey


class _Net(BaseModel):
    model_config = ConfigDict(extra="allow")  # hyper-parameters, which the builders check
    kind: Literal[KINDS]
    decoder: Literal[DECODERS] = "conv"


class _Refusal(BaseModel):
    model_config = ConfigDict(extra="allow")
    below: FiniteFloat = Field(ge=0, le=1)
    rates: list[dict[str, FiniteFloat]] = Field(min_length=1)  # in %, a row per noise level


class _Card(BaseModel):
    model_config = ConfigDict(extra="allow")
    format: Literal[FORMAT]
    label: str
    network: _Net
    classes: list[str]
    resolution: int = Field(ge=STRIDE, multiple_of=STRIDE)
    training: str
    command: str
    metrics: list[dict[str, FiniteFloat]]  # a row per noise level
    seed: int = 0
    steps: NonNegativeInt = 0
    batch: NonNegativeInt = 0
    parameters: NonNegativeInt = 0
    refusal: _Refusal | None = None  # which pictures get no label, as benchmarks/unknown.py measures it


@dataclass(frozen=True)
class Network:
    """A trained network of any kind behind one face; images are (B, 1 or 3, H, W) in [0, 1]."""

    name: str
    card: dict
    model: nn.Module = field(repr=False)

    @property
    def kind(self) -> str:
        return self.card["network"]["kind"]

    @property
    def label(self) -> str:
        return self.card["label"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; none for a network that only denoises."""
        return tuple(self.card["classes"])

    @property
    def knows(self) -> str:
        """What it was trained on, in a few words."""
        if self.of_digits:
            return "two digits on grey"
        sets = {"solar": "solar cells", "tiny-imagenet": "small photographs of 18 things"}
        return sets.get(self.card.get("data"), "images of its own set")

    @property
    def channels(self) -> int:
        return 1 if self.of_digits or self.card["network"].get("grey") else 3

    @property
    def of_digits(self) -> bool:
        """Whether it is of Section 3: one channel, and digits at given places are what it classifies."""
        return self.kind in ("unet", *JOINING)

    @property
    def denoises(self) -> bool:
        return self.kind != "C-NAS"

    def refuses(self, probabilities: Tensor) -> bool:
        """Whether (K, classes) are as unsure as those of pictures unlike all that it was trained on.

        A card without the rule refuses nothing.
        """
        rule = self.card.get("refusal")
        return rule is not None and float(probabilities.max()) < rule["below"]

    def refusal_rates(self, sigma: float) -> dict[str, float]:
        """In %: how many pictures like those of its training are "refused", and how many unlike them
        "labelled", at the measured noise level that is nearest.
        """
        return min(self.card["refusal"]["rates"], key=lambda row: abs(row["sigma"] - sigma))

    def takes(self, image: Tensor, boxes: Tensor | None) -> bool:
        """Whether (C, H, W) is as the images that it was trained on."""
        size = (self.card["resolution"],) * 2
        known = boxes is not None if self.of_digits else image.shape[-2:] == size
        return len(image) == self.channels and known

    def answer(self, images: Tensor, boxes: Tensor | None = None) -> tuple[Tensor | None, Tensor | None]:
        """Denoised images and logits (B, K, classes), of multiples of 32 pixels and its channels.

        `boxes` (B, K, 4): where the digits are; without them the image is one digit.
        """
        if self.kind == "unet":
            return self.model(images), None
        if self.of_digits:
            whole = torch.tensor([[[0, 0, images.shape[-1], images.shape[-2]]]])
            return self.model(images, whole.expand(len(images), 1, 4) if boxes is None else boxes)
        denoised, logits = self.model(images.contiguous(memory_format=torch.channels_last))
        return denoised, None if logits is None else logits[:, None]

    def denoise(self, images: Tensor) -> Tensor:
        """Denoised images; colours one by one where the network knows only grey.

        A network of colours tells noise by its being another in each channel. A grey image in three
        channels would be all structure to it, so two of them are moved by a pixel, and moved back.
        Norms lose the brightness of pictures unlike its training's; in the mean over a square the noise
        is nothing, so there the denoised picture gets the noisy one's.
        """
        if self.channels == 1:
            grey = images.flatten(0, 1)[:, None]
            anywhere = torch.tensor([[[0, 0, BOX_SIZE, BOX_SIZE]]]).expand(len(grey), 1, 4)
            return self.answer(grey, anywhere)[0].reshape(images.shape)
        if images.shape[1] == 3:
            denoised = self.answer(images)[0]
            return denoised + _smooth(images - denoised)
        moved = [images, images.roll(1, 2), images.roll(1, 3)]
        whole, lower, right = self.answer(torch.cat(moved, 1))[0].split(1, 1)
        lower, right = lower.roll(-1, 2), right.roll(-1, 3)
        lower[:, :, -1], right[..., -1] = (
            whole[:, :, -1],
            whole[..., -1],
        )  # these came from the other side
        denoised = (whole + lower + right) / 3
        return denoised + _smooth(images - denoised)

    def views(self, image: Tensor) -> Tensor:
        """What is classified of a picture (C, H, W): its middle square (1, C', s, s)."""
        side = BOX_SIZE if self.of_digits else self.card["resolution"]
        return with_channels(square_of(image, side)[None], self.channels)


def _smooth(images: Tensor) -> Tensor:
    """The means of squares of `STRIDE` pixels, and between their centres what lies between."""
    return F.interpolate(F.avg_pool2d(images, STRIDE), images.shape[-2:], mode="bilinear")


def compact(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Half precision for shipping, but for statistics of batch norms, which may be large, and counts."""
    small = {name for name, t in weights.items() if t.is_floating_point() and "running_" not in name}
    return {name: t.half() if name in small else t for name, t in weights.items()}


def full(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights at the precision at which they compute."""
    return {name: t.float() if t.is_floating_point() else t for name, t in weights.items()}


def ship(weights: dict[str, Tensor], card: dict, path: Path) -> Path:
    """Write the weights to `path` and their card beside it."""
    write_atomic(path, save({name: t.contiguous() for name, t in weights.items()}))
    write_atomic(card_path(path), json.dumps({"format": FORMAT} | card, indent=1) + "\n")
    return path


def card_path(path: Path) -> Path:
    """Where the card of a weights file lies; an architecture may lie beside it under the same name."""
    return Path(path).with_suffix(".card.json")


def names() -> list[str]:
    """Names of the networks that ship with the study."""
    return sorted(path.stem for path in weights_dir().glob("*.safetensors") if card_path(path).exists())


def load_network(name: str) -> Network:
    """By the name under which it ships, or the path of its safetensors file; for inference on the CPU.

    `InputError` for an unknown name, an unsound card, and weights that do not fit it.
    """
    path = Path(name).expanduser()
    if path.suffix != ".safetensors":
        if name not in (known := names()):
            hint = "".join(f"; did you mean {close!r}" for close in close_to(name, known))
            choices = f"one of {', '.join(known)} or a .safetensors file"
            raise InputError(f"weights is {name!r}, but {choices} was expected{hint}.")
        path = weights_dir() / f"{name}.safetensors"
    return _load(path.resolve(), path.stat().st_mtime_ns, card_path(path).stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _load(path: Path, *_changed: int) -> Network:
    card = read_card(card_path(path))
    # no weights are drawn: torch's stream may be in use in another thread
    with in_file(path), torch.device("meta"):
        model = build(card["network"], len(card["classes"]))
        model.load_state_dict(full(load_file(path, device="cpu")), assign=True)
    return Network(path.stem, card, model.eval().requires_grad_(False))


def read_card(path: Path) -> dict:
    """The card in a JSON file; `InputError` that says what is wrong with any other file."""
    with in_file(path):
        return _Card.model_validate_json(path.read_bytes()).model_dump(exclude_unset=True)


def metrics_of(rows: Sequence[dict]) -> list[dict]:
    """A card's metrics, one entry per noise level, rounded as they are printed; without NaN."""
    digits = {"sigma": 1, "psnr": 2, "ssim": 4, "accuracy": 2}
    return [
        {
            name: round(float(row[name]), n)
            for name, n in digits.items()
            if math.isfinite(row.get(name, math.nan))
        }
        for row in rows
    ]
