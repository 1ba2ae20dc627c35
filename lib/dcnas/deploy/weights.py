"""Trained networks as files that anyone can use: weights in safetensors, and beside them a card in JSON
that says what they are.

A card rebuilds the network (kind, hyper-parameters or architecture, classes) and tells what it was
trained on, by which command, and how well it does at each noise level. Those in `data/weights` ship with
the study; `dcnas train` writes others.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..build import build
from ..data.pictures import STRIDE, square_of, with_channels
from ..errors import InputError, close_to, in_file
from ..models.crops import BOX_SIZE, crop_boxes
from ..models.dcnet import JOINING
from ..nas.networks import DECODERS, MANUAL, NETWORKS, SequentialJoint
from ..nas.space import MOST_RESOLUTION
from ..paths import weights_dir, write_atomic

FORMAT = 1
DIGITS = tuple("0123456789")
# the first three with the digits of Section 3, grey; the others in colour
KINDS = ("unet", *JOINING, *NETWORKS, *MANUAL)


class _Net(BaseModel):
    model_config = ConfigDict(extra="allow")  # hyper-parameters, which the builders check
    kind: Literal[KINDS]
    decoder: Literal[DECODERS] = "conv"


class _Card(BaseModel):
    """What a card must have; `metrics` has a row per noise level."""

    model_config = ConfigDict(extra="allow")
    format: Literal[FORMAT]
    label: str
    network: _Net
    classes: list[str]
    resolution: int = Field(ge=STRIDE, le=MOST_RESOLUTION, multiple_of=STRIDE)
    training: str
    command: str
    metrics: list[dict[str, FiniteFloat]]
    seed: int = 0
    steps: NonNegativeInt = 0
    batch: NonNegativeInt = 0
    parameters: NonNegativeInt = 0


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
    def channels(self) -> int:
        return 1 if self.of_digits else 3

    @property
    def of_digits(self) -> bool:
        """Whether it is of Section 3: one channel, and digits at given places are what it classifies."""
        return self.kind in ("unet", *JOINING)

    @property
    def denoises(self) -> bool:
        return self.kind != "C-NAS"

    def answer(self, images: Tensor, boxes: Tensor | None = None) -> tuple[Tensor | None, Tensor | None]:
        """Denoised images and logits (B, K, classes); `images` have its channels and multiples of 32
        pixels.
        """
        if self.kind == "unet":
            return self.model(images), None
        if self.of_digits:
            return self.model(images, _whole(images) if boxes is None else boxes)
        denoised, logits = self.model(images.contiguous(memory_format=torch.channels_last))
        return denoised, None if logits is None else logits[:, None]

    def denoise(self, images: Tensor) -> Tensor:
        """Denoised images of the shape of `images`: colours one by one where the network knows only
        grey.
        """
        if self.channels == 1:
            grey = images.flatten(0, 1)[:, None]
            return self.answer(grey, _corner(grey))[0].reshape(images.shape)
        denoised = self.answer(with_channels(images, 3))[0]
        return denoised.mean(1, keepdim=True) if images.shape[1] == 1 else denoised

    def classify(self, images: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Probabilities (B, K, classes) from images as they are: a Sequential network's classifier
        without its denoiser.

        `boxes` (B, K, 4): where the digits are; without them the image, of 32 x 32, is one digit.
        """
        images = with_channels(images, self.channels)
        if self.kind == "sequential":
            boxes = _whole(images) if boxes is None else boxes
            logits = self.model.classifier(crop_boxes(images, boxes)).unflatten(0, boxes.shape[:2])
        elif isinstance(self.model, SequentialJoint):
            logits = self.model.classifier(images)[1][:, None]
        else:
            logits = self.answer(images, boxes)[1]
        return logits.softmax(-1)

    def views(self, image: Tensor) -> Tensor:
        """What is classified of a picture (C, H, W): its middle square at the size of the training
        images (1, C', s, s).
        """
        side = BOX_SIZE if self.of_digits else self.card["resolution"]
        return with_channels(square_of(image, side)[None], self.channels)


def _whole(images: Tensor) -> Tensor:
    return torch.tensor([[[0, 0, images.shape[-1], images.shape[-2]]]]).expand(len(images), 1, 4)


def _corner(images: Tensor) -> Tensor:
    """Any box: what is denoised does not depend on it."""
    return torch.tensor([[[0, 0, BOX_SIZE, BOX_SIZE]]]).expand(len(images), 1, 4)


# ---- files


def compact(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights at half precision for shipping; statistics of batch norms, which may be large, and counts
    as they are.
    """
    return {
        name: t.half() if t.is_floating_point() and "running_" not in name else t
        for name, t in weights.items()
    }


def full(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights at the precision at which they compute."""
    return {name: t.float() if t.is_floating_point() else t for name, t in weights.items()}


def ship(weights: dict[str, Tensor], card: dict, path: Path) -> Path:
    """Write the weights to `path` and their card beside it."""
    write_atomic(path, save({name: t.contiguous() for name, t in weights.items()}))
    write_atomic(card_path(path), json.dumps({"format": FORMAT} | card, indent=1) + "\n")
    return path


def card_path(path: Path) -> Path:
    """Where the card of a weights file lies."""
    return Path(path).with_suffix(".card.json")  # an architecture may lie beside it under the same name


def names() -> list[str]:
    """Names of the networks that ship with the study."""
    return sorted(path.stem for path in weights_dir().glob("*.safetensors") if card_path(path).exists())


def load_network(name: str) -> Network:
    """A network by the name under which it ships, or by the path of its safetensors file; ready for
    inference on the CPU.

    `InputError` for an unknown name, an unsound card, and weights that do not fit it.
    """
    path = Path(name).expanduser()
    if path.suffix != ".safetensors":
        if name not in (known := names()):
            close = close_to(name, known)
            hint = f"; did you mean {close[0]!r}" if close else ""
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
    """A card's metrics, one entry per noise level, rounded as they are printed; without what is not a
    number.
    """
    digits = {"sigma": 1, "psnr": 2, "ssim": 4, "accuracy": 2}
    return [
        {
            name: round(float(row[name]), n)
            for name, n in digits.items()
            if name in row and row[name] == row[name]
        }
        for row in rows
    ]
