"""What the commands for one's own network ask for, as runs of the run store: searches and trainings."""

import hashlib
from dataclasses import asdict, replace

import torch

from ..data.images import look_grey
from ..data.noise import GAUSSIAN, Noise
from ..data.photographs import Photographs, identity_of, photographs, set_named
from ..errors import InputError
from ..latency.table import load_table
from ..nas.lut import space_of
from ..nas.settings import SearchSettings, check_target, latency_range_ms
from ..options import NoiseOptions, OwnOptions, TrainOptions
from .kinds import Run, Search
from .scales import SCALE

TEMPERATURE_FALL = 0.04  # of the Gumbel softmax over a whole search: 0.96 to the power of 80 epochs [16]
SETTINGS = (
    "epochs",
    "steps_per_epoch",
    "alpha_lr",
    "learn_beta",
    "elasticity",
    "loss",
    "alpha_gradient",
    "rebuild_optimisers",
)


def search_run(options: OwnOptions, target_ms: float | None = None) -> Search:
    """The search of the options, named after its table and images, for the middle of the space's range
    if no target is given; `InputError` for a target out of reach.
    """
    table = load_table(options.lut).require_accuracy(options.table_limit_pct)
    data, epochs = set_named(options.data), options.epochs
    source = photographs(data)
    loss = options.loss or ("both" if source.classes else "denoise")
    if loss != "ce" and not options.noisy:
        raise InputError(f"loss is {loss!r}, which denoises; without noise (--no-noisy) there is none.")
    if loss != "denoise" and not source.classes:
        raise InputError(f"loss is {loss!r}, but {data} has no classes to tell apart.")
    c, weight_epochs = table.conditions, max(1, epochs // 5)
    decay = options.temperature_decay or TEMPERATURE_FALL ** (1 / (epochs - weight_epochs))
    digest = hashlib.sha256(options.lut.read_bytes() + identity_of(data).encode()).hexdigest()[:8]
    settings = {name: getattr(options, name) for name in SETTINGS} | {"loss": loss}
    settings |= {"weight_epochs": weight_epochs, "temperature_decay": decay}
    space = space_of(c, int(options.operators))
    if target_ms is None:
        network = SearchSettings(1.0, 1, loss=loss).network
        target_ms = round(sum(latency_range_ms(space, table, network)) / 2, 3)
    run = Search(
        f"own search, {digest}",
        "own",
        options.seed,
        photos=dict(data=data, resolution=c.resolution, limit=None) | noise_of(options, source, data),
        width=c.width,
        strides=c.strides,
        operators=space.operators,
        target=target_ms,
        table=str(options.lut.resolve()),
        batch=options.batch,
        settings=settings,
        noisy=options.noisy,
        threads=_threads(options),
    )
    check_target(space, table, run.with_target(target_ms))
    return run


def noise_of(options: NoiseOptions, source: Photographs, data: str) -> dict:
    """{"noise": what `Noise` takes}, or nothing for the paper's; grey pictures of a folder have grey
    noise.
    """
    photons = options.noise == "poisson-gaussian"
    if source.files[0].noisy is not None and options.noise:
        raise InputError(f"{data} has pairs, with noise of their own, but --noise asks for another.")
    if photons != (options.noise_gain > 0):
        raise InputError("--noise poisson-gaussian and --noise-gain go together: give both or neither.")
    grey = data.startswith("folder:") and look_grey(source.files)
    noise = Noise(options.noise_sigma, options.noise_gain, grey)
    return {} if noise == GAUSSIAN else {"noise": asdict(noise)}


def _threads(options: OwnOptions | TrainOptions) -> int:
    return options.threads or torch.get_num_threads()


def training_of(
    net: dict, label: str, data: str, resolution: int, how: OwnOptions | TrainOptions, steps: int
) -> Run:
    """A training of any network, what `build` takes, with the batch, seed and noise of the options."""
    photos = dict(data=data, resolution=resolution, limit=None, noisy=how.noisy)
    photos |= noise_of(how, photographs(data), data)
    net = net | {"grey": True} if photos.get("noise", {}).get("grey") else net
    train = replace(SCALE["short"].train, steps=steps, epoch_steps=max(1, steps // 8))
    sizes = dict(batch=how.batch, eval_images=SCALE["short"].photos_eval, threads=_threads(how))
    return Run(label, "own", how.seed, "photographs", net, photos, train, **sizes)
