"""The scales of the study: how long to train, how much to evaluate, how many seeds. One place for all sizes.

`published` trains nothing; `smoke` is tiny and live; `laptop` is an honest small study on a CPU, `gpu` a longer one on a single
GPU; `paper` has the paper's settings. `short` is what `laptop` was when results were first published; they stand until longer
trainings replace them, a group of networks at a time, and nothing trains at it any more.
"""

from dataclasses import dataclass

from ..errors import require_choice

SCALES = ("published", "smoke", "short", "laptop", "gpu", "paper")
PUBLISHED_SCALES = ("paper", "gpu", "laptop", "short")  # those whose results are published, the best first


@dataclass(frozen=True)
class Budget:
    """Training of one kind of network: images seen in all, images per optimiser step."""

    images: int
    batch: int
    epochs: int  # validations, and steps of the plateau schedule
    lr: float = 1e-3
    schedule: str = "plateau"
    crop: int | None = None  # train on random squares of this size instead of whole images

    @property
    def steps(self) -> int:
        return -(-self.images // self.batch)

    @property
    def epoch_steps(self) -> int:
        return -(-self.steps // self.epochs)


@dataclass(frozen=True)
class Scale:
    """The sizes of one scale. Images are those of the two-digit set."""

    name: str
    train_images: int  # size of the training set
    classify: Budget  # Tables 1 and 6
    denoise: Budget  # Figure 3 and Table 2
    joint: Budget  # Table 3
    long: int | None  # images for Table 2 and Table 3's reduced pair, where they are more than the others'
    eval_images: int  # test images per network and noise level
    joint_eval_images: int  # more, because accuracy needs them
    seeds: int  # where a claim is judged
    precision: str  # of training; evaluation is always float32. "mixed": bf16 where that is faster on a CPU


_PAPER = Budget(images=3_000_000, batch=32, epochs=100)

_SCALES = {
    "smoke": Scale(
        "smoke", train_images=256, classify=Budget(512, 32, 2), denoise=Budget(32, 4, 2, crop=64), joint=Budget(64, 8, 2),
        long=None, eval_images=4, joint_eval_images=8, seeds=1, precision="fp32",
    ),
    "short": Scale(
        "short", train_images=30_000,
        classify=Budget(192_000, 32, 10, lr=1e-2, schedule="one-cycle"),
        denoise=Budget(14_400, 8, 8, lr=6e-3, schedule="one-cycle", crop=64),  # 2.25 times the steps for the same work
        joint=Budget(16_000, 8, 8, lr=6e-3, schedule="one-cycle"), long=None,
        eval_images=200, joint_eval_images=500, seeds=3, precision="bf16",
    ),
    "laptop": Scale(
        "laptop", train_images=30_000,
        classify=Budget(192_000, 32, 10, lr=1e-2, schedule="one-cycle"),
        denoise=Budget(72_000, 16, 12, lr=4e-3, schedule="one-cycle"),
        joint=Budget(72_000, 16, 12, lr=4e-3, schedule="one-cycle"), long=300_000,
        eval_images=400, joint_eval_images=500, seeds=3, precision="mixed",
    ),
    "gpu": Scale(
        "gpu", train_images=30_000,
        classify=Budget(3_000_000, 128, 10, lr=1e-2, schedule="one-cycle"),
        denoise=Budget(300_000, 64, 12, lr=4e-3, schedule="one-cycle"),
        joint=Budget(300_000, 64, 12, lr=4e-3, schedule="one-cycle"), long=None,
        eval_images=400, joint_eval_images=800, seeds=3, precision="tf32",
    ),
    "paper": Scale(
        "paper", train_images=30_000, classify=_PAPER, denoise=_PAPER, joint=_PAPER, long=None,
        eval_images=1_000, joint_eval_images=1_000, seeds=3, precision="bf16",
    ),
}  # fmt: skip


def scale_named(name: str) -> Scale:
    """The sizes of a scale that trains; `InputError` for an unknown name, and for `published`, which trains nothing."""
    require_choice("scale", name, SCALES)
    if name not in _SCALES:
        require_choice("scale for training", name, [scale for scale in _SCALES if scale != "short"])
    return _SCALES[name]
