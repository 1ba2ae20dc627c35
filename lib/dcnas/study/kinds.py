"""The kinds of run, each said by all that makes it that run: search, derivation, training, filter.

A run is named by the hash of its fields: equal names mean equal runs.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from ..data.images import ImageSet, load_images
from ..latency.table import load_table
from ..nas.settings import SearchSettings
from ..nas.space import Space
from ..training import Settings


class Named:
    """A frozen dataclass with label, scale, seed and what else makes the run."""

    kind = ""

    @cached_property
    def name(self) -> str:
        """The name of the run's folder: 16 hex digits of the SHA-256 of its fields."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """For progress bars and messages."""
        return f"{self.kind}{self.label}, seed {self.seed}, {self.scale}"


@dataclass(frozen=True)
class Search(Named):
    """A search of Section 4; equal ones give equal alphas on the same machine (CPU)."""

    label: str
    scale: str
    seed: int
    photos: dict  # data, resolution, limit: of `load_images`
    width: float  # of the space
    strides: tuple[int, ...]
    operators: int
    target: str | float  # "S", "M", "L", with " + decoder"; or in ms
    table: str  # file in data/latency, or in the runs' folder at scale smoke; or an absolute path
    batch: int
    settings: dict  # of `SearchSettings`, but target and seed
    noisy: bool = False
    random_networks: int = 0  # of a random search, which trains so many and takes the best
    random_steps: int = 0  # of each
    threads: int = 1
    kind = "search: "

    @property
    def space(self) -> Space:
        step = load_table(Path(self.table)).conditions.width_step if self.scale == "own" else 1
        classes = max(2, len(images_of(self).classes))  # of a denoiser, whose head is not built
        sizes = self.photos["resolution"], classes, self.width, self.strides
        return Space(self.operators, *sizes, step)

    def with_target(self, target_ms: float) -> SearchSettings:
        """The settings of `nas.search` for a target in ms."""
        return SearchSettings(target_ms=target_ms, seed=self.seed, **self.settings)


@dataclass(frozen=True)
class Derivation(Named):
    """An architecture that meets a target as measured on the table's device, from a search or chance."""

    search: Search
    network: str = "C-NAS"  # that is to meet the target, with a convolutional decoder where it has one
    target: str | float = ""  # of the search, if empty
    random_seed: int | None = None  # operators and widths drawn from the space instead
    rounds: int = 30
    threads: int = 1  # of this process; the measurement takes the table's
    kind = "derivation: "

    @property
    def label(self) -> str:
        return self.search.label if self.random_seed is None else f"random, {self.search.label}"

    @property
    def scale(self) -> str:
        return self.search.scale

    @property
    def seed(self) -> int:
        return self.search.seed


@dataclass(frozen=True)
class Run(Named):
    """One training and its evaluation; equal runs give equal bits on the same machine (CPU)."""

    label: str  # the network's name in tables and figures
    scale: str
    seed: int
    task: str  # on two digits "classify", "denoise" or "joint"; "photographs" in Section 4
    net: dict  # what `build` takes, and what stands in a card
    data: dict  # of two digits: images, crop, clip; of photographs: data, resolution, limit, noisy
    train: Settings
    batch: int
    eval_images: int
    ce_weight: float = 0.1  # of the cross entropy in the joint loss (Eq. 1)
    source: Derivation | None = None  # of the network's architecture
    threads: int = 1  # bits depend on it

    @property
    def unet(self) -> dict:
        """Hyper-parameters of its UNet: b, d, m, c, block; empty where it has none."""
        return self.net.get("unet", {})


@dataclass(frozen=True)
class Filter(Named):
    """BM3D over the first test images of Section 4, with the noise that the networks meet there."""

    label: str
    scale: str
    photos: dict
    eval_images: int
    grey: bool  # the mean of the channels instead of each
    seed: int = 0
    threads: int = 1


@lru_cache(maxsize=4)
def _images(data: str, resolution: int, limit: int | None) -> ImageSet:
    return load_images(data, resolution, limit=limit)


def images_of(run: Search | Run | Filter) -> ImageSet:
    """The photographs of a run, decoded once."""
    photos = run.data if isinstance(run, Run) else run.photos
    return _images(photos["data"], photos["resolution"], photos["limit"])
