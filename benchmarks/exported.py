"""Exported networks, in turns: against eager PyTorch, in 8 bits against floating point, and decoder and
classification branch side by side against one after the other.

Every round opens each of the variants anew, so that no thread pool of another waits beside it, and takes
the median of some passes; what is printed is how many times as fast the second one is, over rounds. The
networks are those that ship and random ones of the search space. Nothing else may run.

    python benchmarks/exported.py pytorch
    python benchmarks/exported.py int8        # of the networks that ship; needs their images, once
    python benchmarks/exported.py branches --threads 2
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import torch

from dcnas.deploy.export import example, export_onnx, has_branches
from dcnas.deploy.weights import Network, load_network
from dcnas.latency import board
from dcnas.latency.measure import device_name
from dcnas.nas.networks import build_network
from dcnas.nas.packs import WIDTH_STEP
from dcnas.nas.space import Space, random_architecture, strides_for
from dcnas.study.own_export import write_export

SHIPPED = ("unet-b16-tiny-imagenet", "dc-net-b16-tiny-imagenet", "dc-nas-s-solar")
WARMUP, PASSES = 3, 10


def drawn(resolution: int) -> Network:
    """A DC-NAS of the search space with operators and widths by chance."""
    space = Space(8, resolution, 100, strides=strides_for(resolution), width_step=WIDTH_STEP)
    torch.manual_seed(0)
    model = build_network("DC-NAS", random_architecture(space, np.random.default_rng(0)))
    card = {"network": {"kind": "DC-NAS"}, "label": "random", "classes": list(map(str, range(100)))}
    return Network(f"random-{resolution}", card | {"resolution": resolution}, model.eval())


def passes_ms(run: Callable, inputs: tuple) -> float:
    """The median of some passes after others."""
    times = []
    for _ in range(WARMUP + PASSES):
        start = perf_counter_ns()
        run(*inputs)
        times.append((perf_counter_ns() - start) / 1e6)
    return float(np.median(times[WARMUP:]))


def gains(first: Callable[[], float], second: Callable[[], float], rounds: int) -> dict:
    """How many times as fast the second is, quartiles; both in ms, medians of rounds."""
    times = np.empty((rounds, 2))
    for n in range(rounds):
        for k in (0, 1) if n % 2 else (1, 0):
            times[n, k] = (first, second)[k]()
    low, median, high = np.quantile(times[:, 0] / times[:, 1], [0.25, 0.5, 0.75])
    return {"ms": np.median(times, 0).tolist(), "median": median, "q25": low, "q75": high}


def compared(network: Network, against: str, folder: Path, threads: int, rounds: int) -> str:
    """One line on a network; its files are written where they are not yet."""
    size, file = network.card["resolution"], folder / f"{network.name}.onnx"
    small, (image,) = file.with_name(f"{file.stem}-int8.onnx"), example(network, 1, size, size)
    if against == "int8" and not small.exists():
        write_export(network, file, int8=True, threads=threads)
    elif not file.exists():
        export_onnx(network, file)
    if against == "branches":
        return board.branches_text(board.branches_gain(file, threads, image.numpy(), PASSES, rounds))

    def in_runtime(path: Path) -> float:
        return np.median(board.network_ms(path, threads, image.numpy(), PASSES))

    if against == "pytorch":
        model = network.model.to(memory_format=torch.channels_last)
        inputs, names = (image.contiguous(memory_format=torch.channels_last),), ("eager", "exported")
        with torch.inference_mode():
            gain = gains(lambda: passes_ms(model, inputs), lambda: in_runtime(file), rounds)
    else:
        names = ("float", "int8")
        gain = gains(lambda: in_runtime(file), lambda: in_runtime(small), rounds)
    times = ", ".join(f"{name} {ms:.3f} ms" for name, ms in zip(names, gain["ms"]))
    ratio = f"{gain['median']:.2f} ({gain['q25']:.2f} to {gain['q75']:.2f})"
    return f"{times}; {ratio} times as fast"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("against", choices=["pytorch", "int8", "branches"])
    parser.add_argument("--folder", type=Path, default=Path("out/exported"), help="of the ONNX files")
    parser.add_argument("--networks", nargs="*", default=SHIPPED, help="of Section 4, that ship")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    networks = [load_network(name) for name in args.networks]
    if args.against != "int8":  # which needs images
        networks += [drawn(64), drawn(224)]
    print(f"{device_name()}, {args.threads} threads, batch 1, {args.rounds} rounds in turns")
    for network in networks:
        if args.against != "branches" or has_branches(network):
            line = compared(network, args.against, args.folder, args.threads, args.rounds)
            print(f"{network.name}, {network.card['resolution']} px: {line}")


if __name__ == "__main__":
    main()
