"""Building and validating the look-up table: every block is timed inside whole networks.

A few networks are laid out so that each layer has each of its variants (kernel, squeeze-and-excitation,
a few hidden widths) once among them; they run in turn, round after round, with a clock between the
parts. So a block meets the cache, the threads and the memory format of real use, the same passes measure
all layers at once, and drift of the machine hits all alike. TF-NAS lists every width of every block
alone, 36,480 entries; here a few widths are measured and the rest interpolated.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter_ns as clock

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..errors import InputError
from ..latency.measure import Latency, check_device, device_name, measure_many, threads_set
from ..latency.table import Conditions, Correction, Curve, Table
from ..lazy import Lazy
from ..paths import shown, write_atomic
from .networks import DECODERS, IMAGE_CHANNELS, Joint, build_network
from .space import ENCODER_STAGES, Architecture, Choice, Layer, Operator, Space, random_architecture

runtime = Lazy("latency.runtime")  # of an optional package
RATES = (2, 3, 4, 6, 8)  # expansion rates at which hidden widths are measured
TFNAS_ENTRIES = 36_480  # of the published table for the same space
VALIDATION_NETWORKS = 60


def space_of(c: Conditions, operators: int = 8, classes: int = 2) -> Space:
    """The space that a table was measured for; its latencies hardly depend on the classes."""
    return Space(operators, c.resolution, classes, c.width, c.strides, c.width_step)


def conditions_of(space: Space, **measured) -> Conditions:
    """The conditions of a table of a space."""
    sizes = {name: getattr(space, name) for name in ("resolution", "width", "strides", "width_step")}
    return Conditions(**sizes, precision="float32", **measured)


def measure_under(c: Conditions, models: Mapping[str, nn.Module], **how) -> dict[str, Latency]:
    """Networks measured in the runtime of a table, and as it was; `how`: more for `measure_many`."""
    warmup = 1
    if c.runtime == "onnxruntime":
        models = {name: runtime.session_of(m, c.resolution, c.threads) for name, m in models.items()}
        warmup = 3  # each is opened for its turn
    image = torch.rand(c.batch, IMAGE_CHANNELS, c.resolution, c.resolution)
    layout = dict(channels_last=c.memory_format == "channels_last")
    how |= dict(warmup=warmup, threads=c.threads) | layout
    return measure_many({name: (model, (image,)) for name, model in models.items()}, **how)


def key_of(layer: Layer, operator: Operator) -> str:
    """The curve of an operator in a layer. Layers of equal shape share it."""
    place = f"{layer.in_channels}-{layer.out_channels}-s{layer.stride}-{layer.activation}-{layer.size}px"
    gate = operator.se_hidden(layer.in_channels)
    return f"{place}/k{operator.kernel}" + (f"-se{gate}" if gate else "")


def parts(
    architecture: Architecture, network: str = "C-NAS", decoder: str = "conv"
) -> list[tuple[str, int]]:
    """The entries of the table that add up to a network, as (key, hidden width)."""
    stem, head, end = [("stem.first", 0), ("stem.second", 0)], ("head", 0), (f"decoder {decoder}", 0)
    encoder, tail = [], []
    for layer, choice in zip(architecture.space.layers, architecture.choices, strict=True):
        if choice is not None:
            blocks = encoder if layer.stage < ENCODER_STAGES else tail
            blocks.append((key_of(layer, choice.operator), choice.hidden))
    classifier, denoiser = [*stem, *encoder, *tail, head], [*stem, *encoder, end]
    return {
        "C-NAS": classifier,
        "D-NAS": denoiser,
        "DC-NAS": [*classifier, end],
        "DC-NAS_seq": [*denoiser, *classifier],
    }[network]


def names_of_parts(architecture: Architecture, decoder: str) -> list[str]:
    """The parts of the joint network as the samples name them: "key@hidden"."""
    return [f"{key}@{hidden}" for key, hidden in parts(architecture, "DC-NAS", decoder)]


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


def design(space: Space) -> list[tuple[Architecture, str]]:
    """Joint networks, each with a decoder, in which every layer has each of its variants."""
    by_layer = [variants(layer, space.candidates) for layer in space.layers]
    shift = 7  # prime to the number of variants (10, 16 or 22): other neighbours in each network
    networks = []
    for n in range(max(map(len, by_layer))):
        choices = [some[(n + shift * i) % len(some)] for i, some in enumerate(by_layer)]
        networks.append((Architecture(space, tuple(choices)), DECODERS[n % len(DECODERS)]))
    return networks


class _Stopwatch:
    """Times the parts of a joint network within its own forward pass, in ms."""

    def __init__(self, network: Joint, names: list[str], device: torch.device):
        self.on_gpu, self.marks = device.type == "cuda", []
        classifier = network.classifier
        blocks = [block for stage in classifier.stages for block in stage]
        modules = [*classifier.stem.values(), *blocks, classifier.head, network.decoder]
        for name, module in zip(names, modules, strict=True):
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
    """Measure a table and write it to `path`.

    What a killed call measured is kept beside it, and the same call goes on.
    """
    place, threads = check_device(device), threads or torch.get_num_threads()
    conditions = conditions_of(
        space,
        device=device_name(place),
        threads=threads,
        batch=batch,
        memory_format="channels_last",
        torch_version=str(torch.__version__),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )
    part, settings = Path(f"{path}.part"), repr((space, passes, replace(conditions, date="")))
    record = {"settings": settings, "rounds": 0, "samples": {}}
    if part.exists():
        record = json.loads(part.read_text())
        if record["settings"] != settings:
            text = "was begun with other settings; remove it, or use those."
            raise InputError(f"{shown(part)} {text}")
    stream = torch.Generator().manual_seed(0)
    image = torch.rand(batch, IMAGE_CHANNELS, space.resolution, space.resolution, generator=stream)
    image = image.to(place, memory_format=torch.channels_last)
    networks = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for architecture, decoder in design(space):
            network = Joint(architecture, decoder).eval().to(place, memory_format=torch.channels_last)
            names = names_of_parts(architecture, decoder)
            networks.append((network, _Stopwatch(network, names, place)))
    left = range(record["rounds"], rounds)
    with threads_set(threads):
        for n in tqdm(left, desc="look-up table", unit="round", disable=not progress):
            for network, watch in networks:
                _measure(network, watch, image, passes, record["samples"])
            record["rounds"] = n + 1
            write_atomic(part, json.dumps(record))
    table = Table(conditions, curves_of(record["samples"]))
    table.save(path)
    part.unlink(missing_ok=True)
    return table


def _measure(
    network: nn.Module, watch: _Stopwatch, image: Tensor, passes: int, samples: dict[str, list[float]]
) -> None:
    """One untimed pass and `passes` timed ones: the times of each part go to `samples`."""
    with torch.inference_mode():
        for n in range(passes + 1):
            network(image)
            for name, value in watch.read().items():
                if n:
                    samples.setdefault(name, []).append(round(value, 5))


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
    *,
    device: str = "cpu",
    networks: int = VALIDATION_NETWORKS,
    rounds: int = 10,
    passes: int = 3,
    seed: int = 0,
    offset: bool = True,
    progress: bool = True,
) -> tuple[pd.DataFrame, Table]:
    """Random whole networks, predicted and measured; and the table with a correction fitted on half.

    The correction is a scale and, with `offset`, an offset; tiny networks, which all take alike, allow
    no fit of both. The frame has a row per network: predicted_ms (uncorrected), corrected_ms,
    measured_ms, spread_ms, half ("fit" or "test").
    """
    c, rng = table.require(device=device_name(device)).conditions, np.random.default_rng(seed)
    space, plain = space_of(c, classes=100), table.with_correction(Correction())
    if c.runtime == "pytorch":  # as published tables are
        drawn = [("C-NAS", random_architecture(space, rng)) for _ in range(networks)]
    else:
        drawn = networks_over_the_range(space, networks, rng)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        models = {f"network {n}": build_network(kind, a) for n, (kind, a) in enumerate(drawn)}
    how = dict(rounds=rounds, passes=passes, device=device, progress=progress)
    measured = measure_under(c, models, **how)
    frame = pd.DataFrame({"network": list(measured)})
    frame["predicted_ms"] = [predicted_ms(plain, a, kind) for kind, a in drawn]
    frame["measured_ms"] = [latency.median_ms for latency in measured.values()]
    frame["spread_ms"] = [latency.spread_ms for latency in measured.values()]
    return fit_correction(table, frame, offset)


def fit_correction(table: Table, frame: pd.DataFrame, offset: bool = True) -> tuple[pd.DataFrame, Table]:
    """A frame of `validate_table` with `half` and `corrected_ms`, and the table with its correction."""
    frame["half"] = np.where(frame.index % 2, "test", "fit")
    fit = frame[frame["half"] == "fit"]
    scale, offset_ms = fit["measured_ms"].sum() / fit["predicted_ms"].sum(), 0.0
    if offset:
        scale, offset_ms = np.polyfit(fit["predicted_ms"], fit["measured_ms"], 1)
    if not scale > 0:
        slope = f"the table's slope over measured networks is {scale:.2f}"
        raise InputError(f"{slope}; measure on a quieter machine.")
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


def operators_ms(
    table: Table, space: Space, hidden: list[list[int]], network: str = "C-NAS"
) -> list[Tensor]:
    """Per layer, the corrected latency of each operator at its hidden width, 0 in the layers that a
    denoiser does without; `base_ms` has the rest.
    """
    scale = table.correction.scale
    layers = []
    for layer, widths in zip(space.layers, hidden, strict=True):
        pairs = zip(space.candidates, widths, strict=True)
        ms = torch.tensor([scale * table.part_ms(key_of(layer, o), n) for o, n in pairs])
        layers.append(ms if has_layer(network, layer) else 0 * ms)
    return layers


def has_layer(network: str, layer: Layer) -> bool:
    return network != "D-NAS" or layer.stage < ENCODER_STAGES


def base_ms(table: Table, network: str = "C-NAS") -> float:
    """What a network costs besides its searchable blocks, corrected, in ms."""
    head = ["head"] if network != "D-NAS" else []
    decoder = ["decoder conv"] if network in ("D-NAS", "DC-NAS") else []
    return table.total_ms([(key, 0) for key in ("stem.first", "stem.second", *head, *decoder)])
