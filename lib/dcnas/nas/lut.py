"""Building and validating the look-up table: every block is timed inside whole networks.

A few networks are laid out so that each layer has each of its variants (kernel, squeeze-and-excitation,
a few hidden widths) once among them; they run in turn, round after round, with a clock between the
parts. So a block meets the cache, the threads and the memory format of real use, the same passes measure
all layers at once, and drift of the machine hits all alike. TF-NAS lists every width of every block
alone, 36,480 entries; here a few widths are measured and the rest interpolated.
"""

import json
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter_ns as clock

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..errors import InputError
from ..latency.measure import check_device, device_name, measure_many
from ..latency.table import Conditions, Correction, Curve, Table
from ..lazy import Lazy
from ..paths import shown, write_atomic
from .networks import DECODERS, IMAGE_CHANNELS, Joint, build_network, parts_of
from .space import ENCODER_STAGES, Architecture, Choice, Layer, Operator, Space, random_architecture

runtime = Lazy("latency.runtime")  # of an optional package
RATES = (2, 3, 4, 6, 8)  # expansion rates at which hidden widths are measured
TFNAS_ENTRIES = 36_480  # of the published table for the same space
VALIDATION_NETWORKS = 60


def space_of(conditions: Conditions, operators: int = 8, classes: int = 2) -> Space:
    """The space that a table was measured for; its latencies hardly depend on the classes."""
    c = conditions
    return Space(operators, c.resolution, classes, c.width, c.strides, c.width_step)


def in_runtime(model: nn.Module, conditions: Conditions) -> nn.Module:
    """A network as the runtime of a table runs it."""
    if conditions.runtime == "pytorch":
        return model
    return runtime.session_of(model, conditions.resolution, conditions.threads)


def key_of(layer: Layer, operator: Operator) -> str:
    """The curve of an operator in a layer. Layers of equal shape share it."""
    place = f"{layer.in_channels}-{layer.out_channels}-s{layer.stride}-{layer.activation}-{layer.size}px"
    gate = operator.se_hidden(layer.in_channels)
    return f"{place}/k{operator.kernel}" + (f"-se{gate}" if gate else "")


def parts(
    architecture: Architecture, network: str = "C-NAS", decoder: str = "conv"
) -> list[tuple[str, int]]:
    """The entries of the table that add up to a network, as (key, hidden width)."""
    blocks = [
        (key_of(layer, choice.operator), choice.hidden, layer.stage)
        for layer, choice in zip(architecture.space.layers, architecture.choices, strict=True)
        if choice is not None
    ]
    stem, plain = [("stem.first", 0), ("stem.second", 0)], [(key, hidden) for key, hidden, _ in blocks]
    classifier, end = [*stem, *plain, ("head", 0)], (f"decoder {decoder}", 0)
    if network == "C-NAS":
        return classifier
    if network == "DC-NAS":
        return [*classifier, end]
    denoiser = [*stem, *((key, hidden) for key, hidden, stage in blocks if stage < ENCODER_STAGES), end]
    return denoiser if network == "D-NAS" else [*denoiser, *classifier]


def predicted_ms(
    table: Table, architecture: Architecture, network: str = "C-NAS", decoder: str = "conv"
) -> float:
    """The table's latency of a network."""
    return table.total_ms(parts(architecture, network, decoder))


def variants(layer: Layer, operators: tuple[Operator, ...]) -> list[Choice]:
    """What to measure in a layer: for each curve, an operator at each expansion rate in its range."""
    choices = {}
    for operator in operators:
        least, most = operator.least_hidden(layer.in_channels), operator.most_hidden(layer.in_channels)
        for rate in RATES:
            if least <= rate * layer.in_channels <= most:
                hidden = layer.stepped(operator, rate * layer.in_channels)
                choices.setdefault((key_of(layer, operator), hidden), Choice(operator, hidden))
    return list(choices.values())


def design(space: Space) -> list[Architecture]:
    """Networks in which every layer has each of its variants at least once."""
    by_layer = [variants(layer, space.candidates) for layer in space.layers]
    shift = 7  # prime to the number of variants (10, 16 or 22): other neighbours in each network
    rows = (
        [some[(n + shift * i) % len(some)] for i, some in enumerate(by_layer)]
        for n in range(max(map(len, by_layer)))
    )
    return [Architecture(space, tuple(choices)) for choices in rows]


class _Stopwatch:
    """Times the parts of a network within its own forward pass, in ms."""

    def __init__(self, network: nn.Module, device: torch.device):
        self.on_gpu, self.marks = device.type == "cuda", []
        for name, module in parts_of(network):
            module.register_forward_pre_hook(lambda *_, name=name: self._mark(name))
            module.register_forward_hook(lambda *_, name=name: self._mark(name))

    def _mark(self, name: str) -> None:
        mark = clock()
        if self.on_gpu:
            mark = torch.cuda.Event(enable_timing=True)
            mark.record()
        self.marks.append((name, mark))

    def read(self) -> dict[str, float]:
        """Milliseconds of each part in the pass that just ended."""
        if self.on_gpu:
            torch.cuda.synchronize()
        marks, self.marks = self.marks, []
        pairs = zip(marks[::2], marks[1::2], strict=True)
        return {name: a.elapsed_time(b) if self.on_gpu else (b - a) / 1e6 for (name, a), (_, b) in pairs}


def build_table(
    space: Space,
    path: Path,
    *,
    batch: int = 32,
    device: str = "cpu",
    threads: int | None = None,
    rounds: int = 12,
    passes: int = 3,
    progress: bool = True,
) -> Table:
    """Measure a table and write it to `path`. What a killed call measured is kept beside it, and the
    same call goes on."""
    place, before = check_device(device), torch.get_num_threads()
    conditions = Conditions(
        device=device_name(place),
        threads=threads or before,
        batch=batch,
        resolution=space.resolution,
        width=space.width,
        memory_format="channels_last",
        precision="float32",
        torch_version=str(torch.__version__),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        strides=space.strides,
        width_step=space.width_step,
    )
    part = Path(f"{path}.part")
    head = json.loads(json.dumps({"space": repr(space), "passes": passes, **asdict(conditions)}))
    samples, done = _resume(part, head)
    stream = torch.Generator().manual_seed(0)
    image = torch.rand(batch, IMAGE_CHANNELS, space.resolution, space.resolution, generator=stream)
    image = image.to(place, memory_format=torch.channels_last)
    networks = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for n, architecture in enumerate(design(space)):
            decoder = DECODERS[n % len(DECODERS)]
            network = Joint(architecture, decoder).eval().to(place, memory_format=torch.channels_last)
            networks.append((network, _Stopwatch(network, place), keys_of_parts(architecture, decoder)))
    torch.set_num_threads(conditions.threads)
    try:
        bar = dict(initial=done, total=rounds, desc="look-up table", unit="round", disable=not progress)
        for n in tqdm(range(done, rounds), **bar):
            for network, watch, keys in networks:
                _measure(network, watch, keys, image, passes, samples)
            write_atomic(part, json.dumps({"conditions": head, "rounds": n + 1, "samples": samples}))
    finally:
        torch.set_num_threads(before)
    table = Table(conditions, curves_of(samples))
    table.save(path)
    part.unlink(missing_ok=True)
    return table


def _measure(
    network: nn.Module,
    watch: _Stopwatch,
    keys: dict[str, str],
    image: Tensor,
    passes: int,
    samples: dict,
) -> None:
    """One untimed pass and `passes` timed ones: the times of each part go to `samples`."""
    with torch.inference_mode():
        for n in range(passes + 1):
            network(image)
            for name, value in watch.read().items():
                if n:
                    samples.setdefault(keys[name], []).append(round(value, 5))


def keys_of_parts(architecture: Architecture, decoder: str) -> dict[str, str]:
    """Name of a part of the network to "key@hidden" in the samples."""
    keys = {name: f"{name}@0" for name in ("stem.first", "stem.second", "head")}
    keys["decoder"] = f"decoder {decoder}@0"
    for layer, choice in zip(architecture.space.layers, architecture.choices, strict=True):
        keys[layer.name] = f"{key_of(layer, choice.operator)}@{choice.hidden}"
    return keys


def _resume(part: Path, head: dict) -> tuple[dict, int]:
    """The samples of a call that was killed, and its rounds; `InputError` if its conditions (but for the
    date) were others."""
    if not part.exists():
        return {}, 0
    record = json.loads(part.read_text())
    before = record["conditions"]
    names = [name for name, now in head.items() if name != "date" and before.get(name) != now]
    if names:
        changes = ", ".join(f"{name} {before.get(name)} instead of {head[name]}" for name in names)
        raise InputError(
            f"{shown(part)} was begun with {changes}; remove it, or use the settings it had."
        )
    return record["samples"], record["rounds"]


def curves_of(samples: dict[str, list[float]]) -> dict[str, Curve]:
    points = defaultdict(dict)
    for name, times in samples.items():
        key, hidden = name.rsplit("@", 1)
        q25, median, q75 = np.quantile(times, [0.25, 0.5, 0.75]).round(5).tolist()
        points[key][int(hidden)] = (median, round(q75 - q25, 5), len(times))
    return {
        key: Curve(tuple(sorted(by)), *zip(*(by[h] for h in sorted(by)), strict=True))
        for key, by in points.items()
    }


def networks_over_the_range(
    space: Space, count: int, rng: np.random.Generator
) -> list[tuple[str, Architecture]]:
    """Random whole networks from the narrowest to the widest, ("C-NAS" or "DC-NAS", architecture).

    A correction that knew classifiers of middling widths alone would be carried far beyond them.
    Networks come in pairs, one to fit the correction and one held out.
    """
    golden = (5**0.5 - 1) / 2  # its multiples cover the range evenly, however many there are
    kinds = ("C-NAS", "C-NAS", "DC-NAS", "DC-NAS")
    return [(kinds[n % 4], random_architecture(space, rng, around=golden * n % 1)) for n in range(count)]


def validate_table(
    table: Table,
    space: Space,
    *,
    device: str = "cpu",
    networks: int = VALIDATION_NETWORKS,
    rounds: int = 10,
    passes: int = 3,
    seed: int = 0,
    offset: bool = True,
    progress: bool = True,
) -> tuple[pd.DataFrame, Table]:
    """Random whole networks, predicted and measured; and the table with a correction fitted on one half
    of them.

    The correction is a scale and, with `offset`, an offset; tiny networks, which all take alike, allow
    no fit of both. The frame has a row per network: predicted_ms (uncorrected), corrected_ms,
    measured_ms, spread_ms, half ("fit" or "test").
    """
    sizes = {name: getattr(space, name) for name in ("resolution", "width", "strides", "width_step")}
    table.require(device=device_name(device), **sizes)
    rng, c = np.random.default_rng(seed), table.conditions
    if c.runtime == "pytorch":  # as published tables are
        drawn = [("C-NAS", random_architecture(space, rng)) for _ in range(networks)]
    else:
        drawn = networks_over_the_range(space, networks, rng)
    image = torch.rand(c.batch, IMAGE_CHANNELS, space.resolution, space.resolution)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        models = {
            n: (in_runtime(build_network(kind, architecture), c), (image,))
            for n, (kind, architecture) in enumerate(drawn)
        }
    options = dict(rounds=rounds, passes=passes, threads=c.threads, device=device, progress=progress)
    options["channels_last"] = c.memory_format == "channels_last"
    measured, plain = measure_many(models, warmup=1, **options), table.with_correction(Correction())
    frame = pd.DataFrame({"network": [f"network {n}" for n in measured]})
    frame["predicted_ms"] = [predicted_ms(plain, a, kind) for kind, a in drawn]
    frame["measured_ms"] = [latency.median_ms for latency in measured.values()]
    frame["spread_ms"] = [latency.spread_ms for latency in measured.values()]
    return fit_correction(table, frame, offset)


def fit_correction(table: Table, frame: pd.DataFrame, offset: bool = True) -> tuple[pd.DataFrame, Table]:
    """The columns `half` and `corrected_ms` for a frame of `validate_table`, and the table with its
    correction."""
    frame["half"] = np.where(frame.index % 2, "test", "fit")
    fit = frame[frame["half"] == "fit"]
    scale, offset_ms = fit["measured_ms"].sum() / fit["predicted_ms"].sum(), 0.0
    if offset:
        scale, offset_ms = np.polyfit(fit["predicted_ms"], fit["measured_ms"], 1)
    if not scale > 0:
        raise InputError(
            f"the table's slope over measured networks is {scale:.2f}; measure on a quieter machine."
        )
    frame["corrected_ms"] = scale * frame["predicted_ms"] + offset_ms
    error = table_errors(frame[frame["half"] == "test"], "corrected_ms")["median_pct"]
    return frame, table.with_correction(Correction(float(scale), float(offset_ms), round(error, 3)))


def table_errors(frame: pd.DataFrame, column: str = "corrected_ms") -> dict[str, float]:
    """Bias, mean, median and largest absolute error in % of the measured latency; Spearman's rho."""
    error = 100 * (frame[column] / frame["measured_ms"] - 1)
    return {
        "bias_pct": float(error.mean()),
        "mape_pct": float(error.abs().mean()),
        "median_pct": float(error.abs().median()),
        "max_pct": float(error.abs().max()),
        "spearman": float(frame[column].rank().corr(frame["measured_ms"].rank())),
    }


def operators_ms(table: Table, space: Space, hidden: list[list[int]]) -> list[Tensor]:
    """Per layer, the corrected latency of each operator at its hidden width; `base_ms` has the rest."""
    scale = table.correction.scale
    layers = []
    for layer, widths in zip(space.layers, hidden, strict=True):
        pairs = zip(space.candidates, widths, strict=True)
        layers.append(torch.tensor([scale * table.part_ms(key_of(layer, o), n) for o, n in pairs]))
    return layers


def base_ms(table: Table, network: str = "C-NAS", decoder: str = "conv") -> float:
    """What a network costs besides its searchable blocks, corrected, in ms."""
    fixed = ["stem.first", "stem.second", "head"]
    if network == "DC-NAS":
        fixed.append(f"decoder {decoder}")
    return table.corrected(sum(table.part_ms(key) for key in fixed))


def require_operators(table: Table, space: Space) -> None:
    """Raise `InputError` unless the table has every operator of the space."""
    for layer in space.layers:
        for operator in space.candidates:
            for hidden in layer.hidden_range(operator):
                table.part_ms(key_of(layer, operator), hidden)
