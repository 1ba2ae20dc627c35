"""The scales of the study, read from data/scales.toml: how long to train, how much to evaluate."""

import tomllib
from dataclasses import dataclass

from ..nas.settings import SearchSettings
from ..nas.space import STRIDES
from ..paths import root
from ..training import Settings

SCALES = ("published", "smoke", "short", "laptop", "gpu", "paper")
PUBLISHED_SCALES = ("paper", "gpu", "laptop", "short")  # whose results are published, the best first
LABEL_SMOOTHING = 0.1  # "smooth cross-entropy" (Section 4), 0.1 in [16]


@dataclass(frozen=True)
class Budget:
    """Training of one kind of network: images in all, images per optimiser step, validations."""

    images: int
    batch: int
    epochs: int
    lr: float = 1e-3
    schedule: str = "plateau"
    crop: int | None = None  # random squares of this size instead of whole images


@dataclass(frozen=True)
class Scale:
    """The sizes of a scale, of data/scales.toml: Section 3 on two digits, then 4 on photographs."""

    train_images: int
    classify: Budget  # Tables 1 and 6
    denoise: Budget  # Figure 3 and Table 2
    joint: Budget  # Table 3
    eval_images: int  # test images per network and noise level
    joint_eval_images: int  # more, because accuracy needs them
    precision: str  # of training; evaluation is always float32
    photos: dict
    train: Settings
    train_batch: int
    photos_eval: int
    search: dict  # of `SearchSettings`
    search_batch: int = 32
    long: int | None = None  # images for Table 2 and Table 3's reduced pair, if more than the others'
    seeds: int = 3
    more_seeds: int = 0  # of the searches with beta removed and learned (Table 8, Figure 5)
    width: float = 1.0  # of the space
    strides: tuple[int, ...] = STRIDES
    table: str = "lut-64px-cpu.json"
    device: str = "cpu"  # that latencies are for
    dropout: float = 0.0  # and drop-connect
    equal_b: int = 8  # of a UNet and a DC-Net about as fast as D-NAS S and DC-NAS S
    large_b: int = 64  # of the large UNet of Table 4, d=5 m=2
    upscaling: float = 4.0  # of the channels of D-NAS S, to be about as fast as that
    random_networks: int = 2  # that a random search trains and compares, and the steps for each
    random_steps: int = 2
    noisy_lr: float = SearchSettings.lr  # of a supernet's weights on noisy images


def _scale(row: dict) -> Scale:
    budgets = {name: Budget(**row[name]) for name in ("classify", "denoise", "joint")}
    how = dict(lr=4e-3, schedule="one-cycle", clip_norm=5.0, weight_decay=1e-5) | row["train"]
    train = Settings(epoch_steps=max(1, how["steps"] // 8), **how)
    strides = (row.pop("stem_stride", STRIDES[0]), *STRIDES[1:])
    sizes = dict(photos=dict(limit=None) | row["photos"], train=train, strides=strides)
    return Scale(**row | budgets | sizes)


_TOML = tomllib.loads((root() / "data/scales.toml").read_text())
SCALE = {name: _scale(row) for name, row in _TOML.items()}
