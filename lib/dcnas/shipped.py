"""Trained networks as files that anyone can use: weights in safetensors, and beside them a card in JSON that says what they are.

A card rebuilds the network (kind, hyper-parameters or architecture, classes) and tells what it was trained on, by which command,
and how well it does at each noise level. Those in `data/weights` ship with the study; `dcnas train` writes others.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from .boxes import BOX_SIZE, crop_boxes
from .errors import InputError, close_to, is_finite, require_choice, require_whole, spelled
from .models import UNet, build_classifier
from .models.dcnet import JOINING, Integrated, Sequential
from .nas.networks import DECODERS, MANUAL, NETWORKS, SequentialJoint, build_manual, build_network
from .nas.space import MOST_RESOLUTION, from_record
from .paths import shown, weights_dir, write_atomic
from .pictures import STRIDE, square_of, with_channels
from .reading import COUNT, FLAG, TEXT, WHOLE, one_of, read_json, require_kinds

FORMAT = 1
DIGITS = tuple("0123456789")
KINDS = ("unet", *JOINING, *NETWORKS, *MANUAL)  # the first three with the digits of Section 3, grey; the others in colour
_FIELDS = {
    "format": int, "label": str, "network": dict, "classes": list, "resolution": int, "training": str, "command": str,
    "metrics": list,
}  # fmt: skip
TRAINED = {"seed": WHOLE, "steps": COUNT, "batch": COUNT, "parameters": COUNT}  # what a card says of a run's training
_OPTIONAL = TRAINED | {"data": TEXT, "scale": TEXT, "flops": COUNT, "noisy": FLAG}


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
        """Denoised images and logits (B, K, classes), as the network gives them; `images` have its channels and multiples of 32."""
        if self.kind == "unet":
            return self.model(images), None
        if self.of_digits:
            return self.model(images, _whole(images) if boxes is None else boxes)
        denoised, logits = self.model(images.contiguous(memory_format=torch.channels_last))
        return denoised, None if logits is None else logits[:, None]

    def denoise(self, images: Tensor) -> Tensor:
        """Denoised images of the shape of `images`: colours one by one where the network knows only grey."""
        if self.channels == 1:
            grey = images.flatten(0, 1)[:, None]
            return self.answer(grey, _corner(grey))[0].reshape(images.shape)
        denoised = self.answer(with_channels(images, 3))[0]
        return denoised.mean(1, keepdim=True) if images.shape[1] == 1 else denoised

    def classify(self, images: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Probabilities (B, K, classes) from images as they are: a Sequential network's classifier without its denoiser.

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
        """What is classified of a picture (C, H, W): its middle square at the size of the training images, (1, channels, s, s)."""
        return with_channels(square_of(image, BOX_SIZE if self.of_digits else self.card["resolution"])[None], self.channels)


def _whole(images: Tensor) -> Tensor:
    return torch.tensor([[[0, 0, images.shape[-1], images.shape[-2]]]]).expand(len(images), 1, 4)


def _corner(images: Tensor) -> Tensor:
    """Any box: what is denoised does not depend on it."""
    return torch.tensor([[[0, 0, BOX_SIZE, BOX_SIZE]]]).expand(len(images), 1, 4)


# ---- files


def build(record: dict, classes: int) -> nn.Module:
    """The network that a card's `network` describes, without weights."""
    kind = require_choice("kind", record.get("kind"), KINDS)
    if kind in ("unet", *JOINING):
        unet = UNet(**record["unet"])
        if kind == "unet":
            return unet
        return Integrated(unet, classes) if kind == "integrated" else Sequential(unet, build_classifier(record["classifier"]))
    architecture = from_record(record["architecture"]) if "architecture" in record else None
    if kind in NETWORKS:
        return build_network(kind, architecture, record.get("decoder", "conv"))
    return build_manual(kind, record.get("unet", {}), classes, architecture)


def compact(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights at half precision for shipping; statistics of batch norms, which may be large, and counts as they are."""
    return {
        name: t.half() if t.is_floating_point() and "running_" not in name else t for name, t in weights.items()
    }  # fmt: skip


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
    """A network by the name under which it ships, or by the path of its safetensors file; ready for inference on the CPU.

    `InputError` for an unknown name, a missing or unsound card, and weights that do not fit it.
    """
    if not name.endswith(".safetensors"):
        known = names()
        if name not in known:
            close = close_to(name, known)
            hint = f"; did you mean {close[0]!r}" if close else ""
            raise InputError(f"weights is {name!r}, but one of {', '.join(known)} or a .safetensors file was expected{hint}.")
    path = Path(name).expanduser() if name.endswith(".safetensors") else weights_dir() / f"{name}.safetensors"
    return _load(path.resolve(), path.stem, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=8)
def _load(path: Path, name: str, _changed: int) -> Network:
    card = read_card(card_path(path))
    try:
        weights = full(load_file(path))
        with torch.device("meta"):  # no weights are drawn: torch's global stream may be in use in another thread
            model = build(card["network"], len(card["classes"]))
        model.load_state_dict(weights, assign=True)
        network = Network(name, card, model.eval().requires_grad_(False))
        _check_outputs(network)
    except FileNotFoundError:
        raise InputError(f"{shown(path)} does not exist, but a safetensors file was expected.") from None
    except SafetensorError as error:
        raise InputError(f"{shown(path)} is not a sound safetensors file ({error}).") from None
    except (RuntimeError, KeyError, TypeError, AttributeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(":.")
        raise InputError(f"{shown(path)} does not fit its card ({type(error).__name__}: {reason}).") from None
    return network


def _check_outputs(network: Network) -> None:
    """Raise unless the network gives what its card says, tried on the smallest image."""
    images = torch.zeros(1, network.channels, STRIDE, STRIDE)
    with torch.inference_mode():
        denoised, logits = network.answer(images, _corner(images))
    if denoised is not None and denoised.shape != images.shape:
        raise InputError(f"its images of {list(images.shape)} come out as {list(denoised.shape)}")
    outputs = 0 if logits is None else logits.shape[-1]
    if outputs != len(network.classes):
        raise InputError(f"it has {outputs} outputs for {len(network.classes)} classes")


def read_card(path: Path) -> dict:
    """The card in a JSON file; `InputError` that says what is wrong with any other file."""
    try:
        card = read_json(path)
    except FileNotFoundError:
        raise InputError(f"{shown(path)} does not exist, but a card was expected beside the weights.") from None
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(card, dict) or not isinstance(card.get(name), kind)]
    if wrong:
        raise InputError(f"{shown(path)} is not a card of this study: {', '.join(wrong)} missing or of another type.")
    if card["format"] != FORMAT:
        raise InputError(f"{shown(path)} has the format {spelled(card['format'])}, but {FORMAT} was expected.")
    if require_whole(f"the resolution in {shown(path)}", card["resolution"], STRIDE, MOST_RESOLUTION) % STRIDE:
        raise InputError(f"the resolution in {shown(path)} is {card['resolution']}, but a multiple of {STRIDE} was expected.")
    parts = {"kind": one_of(KINDS)} | ({"decoder": one_of(DECODERS)} if "decoder" in card["network"] else {})
    require_kinds(path, card["network"], parts, "network.")
    require_kinds(path, card, {name: kind for name, kind in _OPTIONAL.items() if name in card})
    if not all(isinstance(name, str) for name in card["classes"]):
        raise InputError(f"{shown(path)} has classes that are no names.")
    for row in card["metrics"]:
        if not isinstance(row, dict) or "sigma" not in row or not all(map(is_finite, row.values())):
            raise InputError(f"{shown(path)} has metrics that are no numbers by name, sigma among them: {spelled(row)}.")
    return card


def metrics_of(rows: Sequence[dict]) -> list[dict]:
    """A card's metrics, one entry per noise level, rounded as they are printed."""
    digits = {"sigma": 1, "psnr": 2, "ssim": 4, "accuracy": 2}
    return [
        {name: round(float(row[name]), places) for name, places in digits.items() if row.get(name) == row.get(name) and name in row}
        for row in rows
    ]  # fmt: skip
