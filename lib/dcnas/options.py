"""The options that commands share, and all those of the larger commands."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, BadParameter, Option


def sigma_of(text: str | float) -> float:
    """A noise level from 0 to 1; "25/255" is one too."""
    value, _, unit = str(text).partition("/")
    try:
        sigma = float(value) / float(unit or 1)
    except (ValueError, ZeroDivisionError):
        sigma = -1.0
    if not 0 <= sigma <= 1:  # nor NaN
        eight_bits = f"; of 8-bit pixels {value} is {value}/255" if 1 < sigma <= 255 else ""
        expected = "0 to 1 was expected: the pixels' range is 1, not 255"
        raise BadParameter(f"sigma is {text}, but {expected}{eight_bits}.")
    return sigma


Scale = Annotated[
    Literal["smoke", "laptop", "gpu", "paper"],
    Option(help="smoke (tiny), laptop (hours on a CPU), gpu (longer, one GPU) or paper (its settings)."),
]
Group = Annotated[
    str, Option(help="section2, section3, section4, or a part, such as table_3; see `dcnas runs`.")
]
Device = Annotated[str, Option(help="cpu, cuda or cuda:N.")]
Threads = Annotated[int | None, Option(min=1, max=1024, help="CPU threads; PyTorch's if not given.")]
Rounds = Annotated[int, Option(min=1, help="Visits to each network, interleaved.")]
Jobs = Annotated[int, Option(min=1, help="Notebooks at once.")]
Data = Annotated[
    str,
    Option(
        help="A folder with a folder of pictures per class (in train/ and val/, if you like), with "
        "pictures alone, or with clean/ and noisy/ pairs; or solar, tiny-imagenet, imagenet100."
    ),
]
OwnData = Annotated[str | None, Option(help="Images; those of the search or training if not given.")]
Folder = Annotated[Path, Argument(metavar="DIR", help="The folder that `dcnas search --out` wrote.")]
Batch = Annotated[int, Option(min=1, help="Images in a training step; fewer for a small set.")]
Seed = Annotated[int, Option(min=0, max=2**64 - 1, help="Of weights, order and noise.")]
Weights = Annotated[str, Option(help="A name that `dcnas weights` lists, or a .safetensors file.")]
Sigma = Annotated[
    float,
    Option(
        parser=sigma_of,
        metavar="0 to 1",
        help="Noise to add first, where pixels range from 0 to 1, as 0.1 or 25/255; 0: none.",
    ),
]
Source = Annotated[
    str, Argument(metavar="IN", help="A picture, a folder of them, or `digits` or `solar`: test images.")
]
TableBatch = Annotated[int, Option(min=1, help="Images at once; the paper's 32, an edge device's 1.")]
Table = Annotated[Path, Argument(help="The table's JSON file.")]
Parameters = Annotated[
    list[str] | None,
    Option("-p", "--parameter", metavar="NAME=VALUE", help="Of the notebooks; may be repeated."),
]


@dataclass(frozen=True)
class RunOptions:
    """Which runs of the study to carry out, and where."""

    scale: Scale = "laptop"
    group: Group = "section3"
    device: Device = "cpu"
    engine: Annotated[Literal["local", "ray"], Option(help="This machine, or a Ray cluster.")] = "local"
    address: Annotated[
        str | None, Option(help="Of the cluster: HOST:PORT, or auto; if not given, Ray starts one here.")
    ] = None
    changed_tree: Annotated[
        bool, Option("--changed-tree", help="Go on where the library differs from its commit.")
    ] = False


@dataclass(frozen=True)
class LabelOptions(RunOptions):
    """One network of the study."""

    label: Annotated[
        str | None, Argument(help="A network's name, of `dcnas runs`; all of the group if not given.")
    ] = None
    seed: Seed = 0


@dataclass(frozen=True)
class QueueOptions(RunOptions):
    """All runs of a group."""

    minutes: Annotated[
        float | None, Option(min=0.01, help="Stop after this time; the same command goes on later.")
    ] = None
    jobs: Annotated[
        int | None, Option(min=1, help="Runs at once. Not given: 1; on Ray one per core or GPU.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class SpaceOptions:
    """The space of a look-up table, and how to measure it."""

    resolution: Annotated[int, Option(min=32, max=4096, help="Pixels, a multiple of 32.")] = 64
    batch: TableBatch = 32
    threads: Threads = None
    width: Annotated[float, Option(min=0.01, max=8, help="Multiplier of all channels.")] = 1.0
    width_step: Annotated[
        int | None,
        Option(min=1, max=16, help="Between hidden widths. Not given: 8 in ONNX Runtime, else 1."),
    ] = None
    stem_stride: Annotated[
        int | None,
        Option(min=1, max=2, help="Of the first stem. Not given: 1 for up to 64 pixels, else 2."),
    ] = None
    rounds: Rounds = 12


@dataclass(frozen=True, kw_only=True)
class TableOptions(SpaceOptions):
    """A look-up table to measure here."""

    out: Annotated[Path, Option(help="The JSON file to write.")]
    device: Device = "cpu"
    runtime: Annotated[
        Literal["onnxruntime", "pytorch"] | None,
        Option(help="That the network will run in. Not given: onnxruntime on a CPU that has it."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class PackOptions(SpaceOptions):
    """A look-up table to measure on a board."""

    out: Annotated[Path, Argument(metavar="OUT", help="The folder to write.")]
    batch: TableBatch = 1


@dataclass(frozen=True, kw_only=True)
class NoiseOptions:
    """What noise to learn; pairs of pictures have their own."""

    noise: Annotated[
        Literal["gaussian", "poisson-gaussian"] | None,
        Option(help="poisson-gaussian: of photons too. Not given: gaussian, or the search's."),
    ] = None
    noise_sigma: Annotated[float, Option(min=1e-4, max=10, help="The largest, of a range of 1.")] = 1.0
    noise_gain: Annotated[
        float, Option(min=0, max=10, help="Variance of photons per brightness, at most.")
    ] = 0.0


@dataclass(frozen=True, kw_only=True)
class OwnOptions(NoiseOptions):
    """A search on a reader's own table and images."""

    lut: Annotated[Path, Option(help="The look-up table of your board, as `dcnas lut` makes it.")]
    out: Annotated[Path, Option(help="The folder for the results, new or of the same call.")]
    data: Data = "solar"
    operators: Annotated[Literal["4", "6", "8"], Option(help="Table 7.")] = "4"
    loss: Annotated[
        Literal["both", "ce", "denoise"] | None,
        Option(
            help="both: a joint model (DC-NAS); ce: a classifier (C-NAS); denoise: a denoiser (D-NAS). "
            "Not given: both, or of pictures without classes a denoiser."
        ),
    ] = None
    noisy: Annotated[bool, Option(help="Search on noisy images.")] = True
    epochs: Annotated[int, Option(min=2)] = 25
    steps_per_epoch: Annotated[int, Option(min=1, help="Of the weights; the alphas have half.")] = 16
    batch: Batch = 32
    seed: Seed = 0
    device: Device = "cpu"
    threads: Threads = None
    table_limit_pct: Annotated[float, Option(help="Refuse a table with a larger validated error.")] = 5.0
    learn_beta: Annotated[bool, Option(help="Search the depth of the stages too, as TF-NAS does.")] = (
        False
    )
    elasticity: Annotated[bool, Option(help="Hidden widths follow the target after each epoch.")] = True
    rebuild_optimisers: Annotated[bool, Option(help="New ones each epoch, as TF-NAS has.")] = False
    alpha_gradient: Annotated[
        Literal["two", "all"], Option(help="Of two sampled operators, in 04_1 as good and cheaper.")
    ] = "two"
    alpha_lr: Annotated[float, Option(min=0, help="The paper's is 0.01.")] = 0.07
    temperature_decay: Annotated[
        float | None, Option(min=0, help="Of Gumbel softmax, per epoch; if not given from 5 to 0.2.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class SearchOptions(OwnOptions):
    """A search for a target latency, and the training after it."""

    target_ms: Annotated[float, Option(min=0, help="Latency of a batch on the table's device, in ms.")]
    measure: Annotated[bool, Option(help="Measure the network here, and repair where it misses.")] = True
    train_steps: Annotated[int, Option(min=0, help="Then train so many steps, or not at all.")] = 1_000
    quick: Annotated[
        bool, Option("--quick", help="A first look in minutes: a short search and training.")
    ] = False

    def shortened(self) -> "SearchOptions":
        """With `quick` as few epochs and steps as show that all is well."""
        few = dict(epochs=5, steps_per_epoch=6, batch=min(self.batch, 16), train_steps=60)
        return replace(self, **few) if self.quick else self


QUICK_JUDGED = 64  # test images of a first look


@dataclass(frozen=True, kw_only=True)
class FrontOptions(OwnOptions):
    """What latency buys: networks over the whole range of targets, trained briefly."""

    points: Annotated[int, Option(min=2, max=12, help="Targets over the range, of each kind.")] = 3
    steps: Annotated[int, Option(min=1, help="Of each training.")] = 200
    epochs: Annotated[int, Option(min=2)] = 15


@dataclass(frozen=True)
class TrainOptions(NoiseOptions):
    """A training of the network in a folder, searched or put there as `architecture.json`."""

    folder: Folder
    network: Annotated[
        Literal["C-NAS", "D-NAS", "DC-NAS", "DC-NAS_seq"] | None,
        Option(help="The search's if not given."),
    ] = None
    data: OwnData = None
    decoder: Annotated[Literal["conv", "mb", "mb 1-op", "mb 3-lay"], Option(help="Table 5.")] = "conv"
    noisy: Annotated[bool, Option(help="Train on noisy images.")] = True
    judged: Annotated[int | None, Option(min=1, help="Test images to judge on, at most.")] = None
    steps: Annotated[int, Option(min=1)] = 1_000
    batch: Batch = 32
    seed: Seed = 0
    device: Device = "cpu"
    threads: Threads = None


@dataclass(frozen=True)
class CompareOptions:
    """The found network beside others of its latency, trained equally."""

    folder: Folder
    random: Annotated[int, Option(min=2, help="Random networks of the space.")] = 3
    seeds: Annotated[int, Option(min=1, help="Trainings of each network.")] = 1
    device: Device = "cpu"


def options_of(kind: type) -> Callable:
    """Makes a function of one `kind` a command with an option for each of its fields."""

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def command(**options) -> None:
            function(kind(**options))

        del command.__wrapped__
        command.__signature__ = inspect.signature(kind)
        command.__annotations__ = dict(kind.__init__.__annotations__)
        return command

    return decorate
