"""Latency of a network's forward pass.

The paper (Section 3): "The latency is measured with a batch size of 32, 100 warm-up inference passes and
averaged over 1000 inference passes." That is `measure(model, x, warmup=100, passes=1000)` with 32 images
in `x`. Two things differ:
- We synchronise. A CUDA call returns once its kernels are queued, so a clock around the bare call can
  read the time to launch a network instead of the time to run it, most of all for small networks. The
  device is therefore idle when the clock starts and again before it stops. `unsynchronised=True` adds
  the other reading, for comparison.
- We report the median and quartiles. One pass that met other load shifts a mean, hardly a median.

Network and inputs are copied: the caller's keep their weights, device, memory format and train/eval
flags. TF32, autocast and `torch.backends.cudnn.benchmark` are as the caller set them.
"""

import copy
import platform
import re
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter_ns as clock  # ns; a name of this module, so that tests can replace it

import numpy as np
import torch
from tqdm.auto import tqdm

from ..errors import InputError


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass of a whole batch, in ms, and how it was measured."""

    median_ms: float
    mean_ms: float
    q25_ms: float
    q75_ms: float
    min_ms: float
    unsynchronised_ms: float | None  # mean without synchronisation: the published protocol
    batch: int
    passes: int  # timed passes, all rounds together
    warmup: int  # untimed passes before the timed ones, in each round
    threads: int  # CPU threads inside an operator
    device: str
    torch_version: str
    memory_format: str
    precision: str

    @property
    def spread_ms(self) -> float:
        return self.q75_ms - self.q25_ms

    @property
    def median_error_ms(self) -> float:
        return median_error(self.spread_ms, self.passes)

    def as_row(self) -> dict:
        return asdict(self) | {"spread_ms": self.spread_ms}


def median_error(spread, passes):
    """Standard error of a median of so many passes: 1.2533 s / sqrt(n), the standard deviation s from
    the quartiles' distance."""
    return 1.2533 * spread / 1.349 / passes**0.5


def measure(model, *inputs, passes=50, **options) -> Latency:
    """The `Latency` of `model(*inputs)` for the batch of the first input. Options of `measure_many`."""
    options = {"rounds": 1, "passes": passes} | options
    return measure_many({"model": (model, inputs)}, **options)["model"]


def measure_many(
    models,
    rounds=5,
    warmup=10,
    passes=10,
    threads=None,
    device="cpu",
    unsynchronised=False,
    channels_last=True,
    progress=False,
) -> dict[str, Latency]:
    """The `Latency` of several networks, `{name: (model, inputs)}`, interleaved so that drift hits all.

    Each of the `rounds` visits every model in turn, with `warmup` untimed and `passes` timed passes; the
    samples of all rounds are pooled. `threads=None` leaves PyTorch's number of CPU threads.
    `channels_last=False` times PyTorch's default memory format. `progress=True` shows a tqdm bar.
    `unsynchronised=True` also takes the published reading, in as many passes again: the mean of
    wall-clock times around forward passes without synchronising. On a CPU, where a call returns when its
    work is done, that is the same thing as `mean_ms`.
    """
    threads, device = threads or torch.get_num_threads(), check_device(device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    placed = {name: _place(*pair, device, layout) for name, pair in models.items()}
    samples, bare = {name: [] for name in placed}, {name: [] for name in placed}
    with threads_set(threads), torch.inference_mode():
        for name in tqdm([*placed] * rounds, desc="latency", disable=not progress):
            samples[name] += _times_ms(*placed[name], device, warmup, passes)
            if unsynchronised:
                bare[name] += _times_ms(*placed[name], device, warmup, passes, synchronise=False)
    results = {}
    for name, (model, inputs) in placed.items():
        q25_ms, median_ms, q75_ms = np.quantile(samples[name], [0.25, 0.5, 0.75]).tolist()
        results[name] = Latency(
            median_ms=median_ms,
            mean_ms=float(np.mean(samples[name])),
            q25_ms=q25_ms,
            q75_ms=q75_ms,
            min_ms=min(samples[name]),
            unsynchronised_ms=float(np.mean(bare[name])) if unsynchronised else None,
            batch=len(inputs[0]),
            passes=rounds * passes,
            warmup=warmup,
            threads=threads,
            device=device_name(device),
            torch_version=str(torch.__version__),
            memory_format=str(layout).removeprefix("torch."),
            precision=_precision(model, inputs, device),
        )
    return results


def measure_pair(models, rounds=60, threads=None, device="cpu") -> dict[str, list[float]]:
    """Times of two networks, `{name: (model, inputs)}`, in ms: a timed pass of each in every round.

    The two passes of a round are as close together as can be, and the networks take turns in going
    first, so whatever else the machine does meets both: their difference is known far better than either
    time.
    """
    device = check_device(device)
    placed = {name: _place(*pair, device, torch.channels_last) for name, pair in models.items()}
    samples, order = {name: [] for name in placed}, list(placed)
    with threads_set(threads or torch.get_num_threads()), torch.inference_mode():
        for _ in range(rounds):
            for name in order:
                samples[name] += _times_ms(*placed[name], device, warmup=1, passes=1)
            order.reverse()
    return samples


@contextmanager
def threads_set(count: int):
    """PyTorch with so many threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_device(device) -> torch.device:
    """`device` as a `torch.device` that exists on this machine."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = ["cpu", *["cuda"][:cards], *(f"cuda:{n}" for n in range(cards))]
    if str(device) not in here:
        names = ", ".join(here)
        raise InputError(f"device is {str(device)!r}, but PyTorch finds only {names} on this machine.")
    return torch.device(device)


def device_named(name: str) -> torch.device:
    """The device of this machine with that `device_name`; `InputError` where there is none."""
    kinds = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    here = {device_name(kind): torch.device(kind) for kind in kinds}
    if name not in here:
        names = " and ".join(here)
        reason = f"this machine has {names}; build one for it, or do not measure (--no-measure)"
        raise InputError(f"the look-up table is for {name}, but {reason}.")
    return here[name]


def device_name(device="cpu") -> str:
    """The model of a GPU or CPU, as people call it."""
    if check_device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo, tree = (
        Path(name).read_text(errors="replace") if Path(name).exists() else ""
        for name in ("/proc/cpuinfo", "/proc/device-tree/model")
    )
    known = dict(re.findall(r"^([\w ]+?)\s*: (.+)", cpuinfo, re.MULTILINE))
    if name := known.get("model name") or tree.strip("\0\n ") or known.get("Model"):
        return name.strip()
    maker = (known.get(f"CPU {key}", "") for key in ("implementer", "part"))  # boards are all "aarch64"
    return " ".join(filter(None, (platform.processor() or platform.machine(), *maker)))


def _place(model, inputs, device, layout):
    """A copy of the model in eval mode, and its inputs, on the device and in the memory format."""
    inputs = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
    formats = (layout if x.dim() == 4 else torch.preserve_format for x in inputs)
    inputs = [x.to(device, copy=True, memory_format=form) for x, form in zip(inputs, formats)]
    return copy.deepcopy(model).eval().to(device, memory_format=layout), inputs


def _times_ms(model, inputs, device, warmup, passes, synchronise=True):
    wait = (
        partial(torch.cuda.synchronize, device)
        if synchronise and device.type == "cuda"
        else lambda: None
    )
    for _ in range(warmup):
        model(*inputs)
    times = []
    for _ in range(passes):
        wait()
        start = clock()
        model(*inputs)
        wait()
        times.append((clock() - start) / 1e6)
    return times


def _precision(model, inputs, device):
    """Number format of the arithmetic: autocast's if that is on, else the weights', and TF32 where a GPU
    may use it."""
    if torch.is_autocast_enabled(device.type):
        return f"autocast {torch.get_autocast_dtype(device.type)}".replace("torch.", "")
    dtype = next((p.dtype for p in model.parameters()), inputs[0].dtype)
    tf32 = (
        device.type == "cuda"
        and dtype == torch.float32
        and torch.backends.cudnn.conv.fp32_precision == "tf32"
    )
    return str(dtype).removeprefix("torch.") + (" (TF32 convolutions)" if tf32 else "")
