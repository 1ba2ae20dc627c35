"""Which pictures get no label, because they are unlike all that a network was trained on.

A shipped network gives a label where its largest softmax probability reaches a threshold. That is
chosen so that a tenth of unknown pictures would get one, each kind of them counting alike, and judged on
others: how many pictures of the network's own test set are refused, how many unknown ones labelled, at
each noise level. For a network of photographs the unknown are those of other classes than its own (half
of these classes for the choice, half for judging), digits and solar cells, and to judge by photographs
of scikit-image too. Writes both into the cards in data/weights.

    DCNAS_TINY_IMAGENET=FOLDER python benchmarks/unknown.py
"""

import json
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from photographs import LARGE, large_scene

from dcnas.data.images import evaluation_images, load_images
from dcnas.data.photographs import photographs, tiny_classes
from dcnas.data.two_digits import cached
from dcnas.deploy.apply import Scene, with_noise
from dcnas.deploy.weights import Network, card_path, load_network, names
from dcnas.paths import weights_dir, write_atomic

SIGMAS = (0.0, 0.2, 0.4, 0.8)
COUNT = 200  # pictures of each kind
LABELLED = 10.0  # % of unknown pictures, for which the threshold is chosen


@cache
def scenes(kind: str) -> list[Scene]:
    """Test images of a set by its name in `photographs`, of "digits", or all of "scikit-image"."""
    if kind == "scikit-image":
        return [large_scene(name) for name in LARGE if name != "coffee"]  # that is an espresso
    if kind == "digits":
        data = cached("test", 2 * COUNT)
        pairs = enumerate(zip(data.images, data.boxes))
        return [Scene("", image, boxes=boxes[None], noise_id=n) for n, (image, boxes) in pairs]
    views, _ = evaluation_images(load_images(kind, 64, progress=False), "test", 64, 2 * COUNT)
    return [Scene("", view, noise_id=n) for n, view in enumerate(views)]


def for_choice(kind: str) -> list[Scene]:
    return scenes(kind)[:COUNT]


def for_judging(kind: str, count: int = COUNT) -> list[Scene]:
    return scenes(kind)[COUNT : COUNT + count] or scenes(kind)


def other_classes(half: int) -> str:
    """Every other class of Tiny ImageNet's folder among those that the networks do not know."""
    known = set(tiny_classes()[:18])
    there = [name for name in photographs("tiny-imagenet:200").classes if name not in known]
    return f"tiny-imagenet:{','.join(there[half::2])}"


def kinds(network: Network) -> tuple[str, dict[str, str], dict[str, str]]:
    """Its own set; by name the unknown ones for the choice of the threshold, and those for judging."""
    of_photographs = network.card.get("data") == "tiny-imagenet"
    own = "digits" if network.of_digits else network.card["data"]
    fit, judge = (
        {"photographs": other_classes(half) if of_photographs else "tiny-imagenet"} for half in (0, 1)
    )
    far = {name: name for name in ("digits", "solar") if name != own}
    return own, fit | far, judge | far | ({"scikit-image": "scikit-image"} if of_photographs else {})


@torch.inference_mode()
def surest(network: Network, some: list[Scene], sigma: float, boxes: bool = False) -> np.ndarray:
    """The largest probability for each picture; for each digit where its place is given."""
    best = []
    for scene in some:
        noisy, places = with_noise(scene, sigma), scene.boxes if boxes else None
        views = (
            noisy[None] if network.takes(noisy, places) else network.views(noisy)
        )  # as `apply` has it
        best.append(network.answer(views, places)[1][0].softmax(-1).max(-1).values)
    return torch.cat(best).numpy()


def threshold(network: Network) -> float:
    """Below which there is no label, over all noise levels; on the first half of each kind."""
    scores = []
    for kind in kinds(network)[1].values():
        some = [surest(network, for_choice(kind), sigma) for sigma in SIGMAS]
        scores.append(np.concatenate(some))
    levels = np.linspace(0, 1, 1001)
    labelled = np.mean([(score[:, None] >= levels).mean(0) for score in scores], 0)
    return float(levels[np.argmax(100 * labelled <= LABELLED)])


def rates(network: Network, below: float, count: int = COUNT, sigmas=SIGMAS) -> Iterator[dict]:
    """In % at each noise level: "refused" of its own set, "labelled" of unknown ones, of each kind."""
    own, _, unknown = kinds(network)
    for sigma in sigmas:
        known = surest(network, for_judging(own, count), sigma, boxes=network.of_digits)
        row = {"sigma": sigma, "refused": 100 * (known < below).mean()}
        each = {}
        for name, kind in unknown.items():
            scores = surest(network, for_judging(kind, count), sigma)
            each[f"labelled {name}"] = 100 * (scores >= below).mean()
        row |= {"labelled": np.mean(list(each.values()))} | each
        yield {key: round(float(value), 1) for key, value in row.items()}


def main() -> None:
    torch.set_num_threads(1)
    for name in names():
        network = load_network(name)
        if not network.classes:
            continue
        below = threshold(network)
        rule = {"below": below, "command": "python benchmarks/unknown.py"}
        rule["rates"] = list(rates(network, below))
        path = card_path(weights_dir() / f"{name}.safetensors")
        card = json.loads(path.read_text())
        write_atomic(path, json.dumps(card | {"refusal": rule}, indent=1) + "\n")
        print(name, f"{below:g}", *rule["rates"], sep="\n", flush=True)


if __name__ == "__main__":
    main()
