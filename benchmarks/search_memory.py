"""Memory of a search on the CPU: the largest space with the decoder (both losses), batch 32, 64 pixels,
and its derivation.

    python benchmarks/search_memory.py

Limit: 8 GiB in all, PyTorch and the libraries included.
"""

import argparse
import resource
import sys

import torch
from search_step import flat_table

from dcnas.nas.derive import fit_widths
from dcnas.nas.lut import predicted_ms
from dcnas.nas.search import Searcher, SearchSettings
from dcnas.nas.space import Space
from dcnas.training.tasks import Batch

LIMIT_GIB = 8.0


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--resolution", type=int, default=64, help="pixels")
    parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args()
    torch.manual_seed(0)
    space, before = Space(8, args.resolution, 4), peak_gib()
    table = flat_table(space)
    target = 18.0 + 3.0 + 1.0  # ms: everything costs 1
    searcher = Searcher(
        space, table, SearchSettings(target_ms=target, steps_per_epoch=1, learn_beta=True, loss="both")
    )
    clean = torch.rand(args.batch, 3, args.resolution, args.resolution).contiguous(
        memory_format=torch.channels_last
    )
    batch = Batch(clean, clean + 0.5 * torch.randn_like(clean), None, torch.randint(4, (args.batch,)))
    for step in range(args.steps):
        searcher.weight_step(step, batch)
        searcher.alpha_step(step, batch, 5.0)
    searcher.scale_elastically()
    fit_widths(searcher.argmax(), target, lambda a: predicted_ms(table, a, "DC-NAS"))
    text = f"batch {args.batch}, {args.resolution} px: {peak_gib():.2f} GiB at most"
    text += f", of which {before:.2f} before the search"
    print(f"{text}; at most {LIMIT_GIB:g} asked")
    sys.exit(peak_gib() > LIMIT_GIB)


if __name__ == "__main__":
    main()
