"""A look-up table measured in ONNX Runtime, held against random whole networks in the same run.

Half of the networks fit the table's correction; the others, held out, show how well it predicts. Asked
of a quiet machine: a median error of at most 3%, a largest one of at most 10%, and a rank correlation
of at least 0.97. The same command goes on where it was killed.

    python benchmarks/runtime_table.py --threads 1
"""

import argparse
from pathlib import Path

from dcnas.latency import board
from dcnas.nas.lut import table_errors
from dcnas.nas.packs import WIDTH_STEP, pack_table, read_table
from dcnas.nas.space import Space, strides_for


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/runtime-table"), help="of the pack")
    parser.add_argument("--operators", type=int, default=8)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--width-step", type=int, default=WIDTH_STEP)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument(
        "--busy-pct", type=float, default=board.BUSY_PCT, help="refuse a machine that is busier"
    )
    args = parser.parse_args()
    sizes = args.resolution, 100, args.width, strides_for(args.resolution), args.width_step
    how = dict(batch=args.batch, threads=args.threads, rounds=args.rounds, networks=args.networks)
    pack_table(Space(args.operators, *sizes), args.folder, **how)
    try:
        board.measure(args.folder, limit_pct=args.busy_pct)
    except board.Refusal as refusal:
        parser.exit(2, f"{refusal}\n")
    table, frame = read_table(args.folder / board.RESULT)
    c, held_out = table.conditions, frame[frame["half"] == "test"]
    print(
        f"{c.device}, {c.threads} threads, batch {c.batch}, {c.resolution} px, "
        f"steps of {c.width_step}, {c.runtime_version}"
    )
    low, high = frame["measured_ms"].min(), frame["measured_ms"].max()
    print(
        f"{len(frame)} networks of {low:.2f} to {high:.2f} ms; "
        f"spread of one {frame['spread_ms'].median():.3f} ms"
    )
    for name, rows, column in (
        ("all, uncorrected", frame, "predicted_ms"),
        ("held out, corrected", held_out, "corrected_ms"),
    ):
        e = table_errors(rows, column)
        errors = f"median error {e['median_pct']:.2f}%, largest {e['max_pct']:.2f}%"
        print(f"{name}: {errors}, Spearman's rho {e['spearman']:.3f}")


if __name__ == "__main__":
    main()
