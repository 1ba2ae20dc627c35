"""The commands for a network of one's own, and for networks that are trained: `cli.py` adds them to
`dcnas`.
"""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from . import options
from .errors import InputError
from .lazy import Lazy
from .options import (
    CompareOptions,
    FrontOptions,
    PackOptions,
    SearchOptions,
    SpaceOptions,
    TableOptions,
    TrainOptions,
    options_of,
)
from .paths import shown, write_atomic

apply, trained, pictures = Lazy("deploy.apply"), Lazy("deploy.weights"), Lazy("data.pictures")
lookup, packs, space = Lazy("nas.lut"), Lazy("nas.packs"), Lazy("nas.space")
tables = Lazy("latency.table")
own, own_export = Lazy("study.own"), Lazy("study.own_export")
own_compare, own_front = Lazy("study.own_compare"), Lazy("study.own_front")
own_estimate = Lazy("study.own_estimate")
exports, board = Lazy("deploy.export"), Lazy("latency.board")
lut = typer.Typer(help="The look-up table of latencies that a search needs.", no_args_is_help=True)


@lut.command("build")
@options_of(TableOptions)
def lut_build(settings: TableOptions) -> None:
    """Time every operator of the search space on this device, inside whole networks; killed, it goes on.

    Leave the machine alone meanwhile.
    """
    names, out = ("batch", "device", "threads", "rounds"), settings.out
    installed = all(map(find_spec, ("onnx", "onnxruntime")))
    default = "onnxruntime" if installed and settings.device == "cpu" else "pytorch"
    in_pytorch = (settings.runtime or default) == "pytorch"
    whole = _space_of(settings, 1 if in_pytorch else packs.WIDTH_STEP)
    table = (lookup if in_pytorch else packs).build_table(
        whole, out, **{name: getattr(settings, name) for name in names}
    )
    share = f"{100 * table.entries / lookup.TFNAS_ENTRIES:.1f}% of those of TF-NAS"
    print(f"Wrote {shown(out)}: {table.entries} latencies ({share}), {_where(table.conditions)}.")
    print(f"Next: dcnas lut validate {shown(out)}")


def _where(c) -> str:
    return f"{c.device}, {c.threads} threads, {c.runtime_version or c.runtime}"


def _space_of(settings: SpaceOptions, width_step: int):
    strides = space.strides_for(settings.resolution, settings.stem_stride)
    sizes = settings.resolution, 100, settings.width, strides, settings.width_step or width_step
    return space.Space(8, *sizes)


@lut.command("pack")
@options_of(PackOptions)
def lut_pack(settings: PackOptions) -> None:
    """Write a folder that measures a table on a board with Python, numpy and onnxruntime alone.

    Its table is held against random whole networks in the same run.
    """
    whole, threads = _space_of(settings, packs.WIDTH_STEP), settings.threads or 1
    packs.pack_table(whole, settings.out, batch=settings.batch, threads=threads, rounds=settings.rounds)
    _print_pack(settings.out)
    print("Next, here: dcnas lut read board.json --out TABLE.json")


def _print_pack(folder: Path) -> None:
    mib = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    print(
        f"Wrote {shown(folder)}, {mib:.0f} MiB. Copy it to the board and run `python measure.py` in it."
    )


@lut.command("read")
def lut_read(
    file: Annotated[Path, Argument(help="The board.json that measure.py wrote.")],
    out: Annotated[Path, Option(help="The table's JSON file to write.")],
) -> None:
    """Make the look-up table of a board, validated, of what it has measured."""
    table, frame = packs.read_table(file)
    table.save(out)
    print(f"Wrote {shown(out)}: {table.entries} latencies, {_where(table.conditions)}.")
    _print_validation(table, frame, out)


@lut.command("validate")
def lut_validate(
    file: options.Table,
    networks: Annotated[int, Option(min=30, help="Random whole networks to measure.")] = 60,
    rounds: options.Rounds = 10,
    device: options.Device = "cpu",
) -> None:
    """Hold the table against whole networks on this device and write its correction into it."""
    table = tables.load_table(file)
    frame, table = lookup.validate_table(table, device=device, networks=networks, rounds=rounds)
    table.save(file)
    _print_validation(table, frame, file)


def _print_validation(table, frame, file: Path) -> None:
    path = file.with_suffix(".validation.csv")
    write_atomic(path, frame.to_csv(index=False, lineterminator="\n"))
    _print_errors("all, uncorrected", lookup.table_errors(frame, "predicted_ms"))
    _print_errors("held out, corrected", lookup.table_errors(frame[frame["half"] == "test"]))
    c, limit = table.correction, SearchOptions.table_limit_pct
    formula = f"{c.scale:.3f} x sum + {c.offset_ms:.2f} ms"
    print(f"measured = {formula}; wrote {shown(file)} and {shown(path)}")
    if c.error_pct > limit:
        print(f"A search refuses an error above {limit:g}%: build it again on a quiet machine.")


def _print_errors(name: str, errors: dict[str, float]) -> None:
    words = [f"{key.replace('_pct', ' (%)')} {value:.2f}" for key, value in errors.items()]
    print(f"{name:20s}{', '.join(words)}")


@options_of(SearchOptions)
def search(settings: SearchOptions) -> None:
    """Search a network for a target latency on your table and images, train it and report on it.

    Killed, the same command goes on. A target out of reach is answered with the range of the space.
    """
    settings = settings.shortened()
    if parts := own_estimate.estimate(settings):
        print(own_estimate.sentence(parts))
    record = own.search(settings)
    print(f"Search: {record.verdict}; {record.reason}.")
    below = record.predicted_ms < 0.97 * record.target_ms
    reason = " What the search prefers takes no longer." if below else ""
    print(f"By the table: {record.predicted_ms:.2f} of {record.target_ms:.2f} ms.{reason}")
    if record.measured_ms is not None:
        after = f"{record.error_pct:+.1f}% of the target after {record.repairs} repairs"
        before = f"{record.first_error_pct:+.1f}% before"
        print(f"Measured: {record.measured_ms:.2f} ± {record.noise_ms:.2f} ms, {after} ({before}).")
        if abs(record.error_pct) > 3 and not below:
            print("It misses the target by more than 3%: does anything else run here?")
    if (settings.out / own.WEIGHTS).exists():
        print("The network is trained already; `dcnas train` trains it anew.")
    elif settings.train_steps:
        names = ("noisy", "batch", "seed", "device", "threads")
        same = {name: getattr(settings, name) for name in names}
        same |= {"judged": options.QUICK_JUDGED} if settings.quick else {}
        _print_metrics(own.train(TrainOptions(settings.out, steps=settings.train_steps, **same)))
    print(f"Wrote {shown(own.write_report(settings.out))}")
    if (settings.out / own.WEIGHTS).exists():
        print(f"Next: dcnas compare {shown(settings.out)} trains others of the same latency beside it.")


@options_of(FrontOptions)
def front(settings: FrontOptions) -> None:
    """Show what latency buys before you choose a target: networks over the whole range, trained briefly.

    By hand, from the shelf, searched and random; front.csv and front.png grow with each training.
    """
    _, low, high = own_front.range_of(settings)
    print(f"Targets of {low:.2f} to {high:.2f} ms are in reach.")
    frame = own_front.front(settings)
    names = ["network", "latency_ms", *(name for name in own_compare.METRICS if name in frame)]
    print(frame[names].round(2).to_string(index=False))
    print(f"Wrote {shown(settings.out / own_front.FRONT)} and {shown(settings.out / own_front.PICTURE)}")


@options_of(CompareOptions)
def compare(settings: CompareOptions) -> None:
    """Set the network of DIR beside others of its latency, trained equally: was the search worth it?

    A UNet with a linear head, MobileNetV3 with the same decoder, and random networks of the space.
    """
    frame = own_compare.compare(settings)
    names = ["network", "latency_ms", *(name for name in own_compare.METRICS if name in frame)]
    print(frame[names].round(2).to_string(index=False))
    print(own_compare.sentence(frame))
    print(f"Wrote {shown(own.write_report(settings.folder))}")


@options_of(TrainOptions)
def train(settings: TrainOptions) -> None:
    """Train the network of a folder, judge it at eleven noise levels and report on it.

    DIR needs no search: with --network and --data, an `architecture.json` in it is enough.
    """
    _print_metrics(own.train(settings))
    report = shown(own.write_report(settings.folder))
    print(f"Wrote {shown(settings.folder / own.WEIGHTS)}, its card and {report}")


def evaluate(folder: options.Folder, data: options.OwnData = None) -> None:
    """Judge the network at eleven noise levels: on its own test images, or on all of another set."""
    metrics, path = own.evaluate(folder, data)
    _print_metrics(metrics)
    print(f"{metrics['images'].iloc[0]:,} images; wrote {shown(path)}")


def _print_metrics(metrics) -> None:
    print(metrics[[name for name in own.PRINTED if name in metrics]].round(3).to_string(index=False))


def export(
    source: Annotated[str, Argument(help="DIR, a .safetensors file, or a name of `dcnas weights`.")],
    format: Annotated[
        Literal["onnx"], Option(help="Batch norm folded, batch and size dynamic.")
    ] = "onnx",
    int8: Annotated[bool, Option("--int8", help="An 8-bit copy too, and what it costs.")] = False,
    data: options.OwnData = None,
    out: Annotated[Path | None, Option(help="The .onnx file; in DIR, or here, if not given.")] = None,
    threads: options.Threads = None,
) -> None:
    """Export a trained network for a board, check it against PyTorch, and time both at batch 1."""
    folder = Path(source) if Path(source).is_dir() else None
    network = trained.load_network(source if folder is None else str(folder / own.WEIGHTS))
    out = out or (folder or Path()) / f"{network.kind.lower() if folder else network.name}.onnx"
    result = own_export.write_export(network, out, data, int8=int8, threads=threads)
    for name, mib in result["mib"].items():
        print(f"Wrote {shown(out.with_name(name))}, {mib:.1f} MiB")
    print(f"Largest difference from PyTorch: {result['largest_difference']:.1g}")
    eager_ms = result["latency_ms"]["PyTorch"]["median"]
    for name, t in result["latency_ms"].items():
        speed = f"{eager_ms / t['median']:.2f} times as fast as PyTorch"
        print(f"{name}: {t['median']:.2f} ms ({t['q25']:.2f} to {t['q75']:.2f}) at batch 1, {speed}")
    if "branches" in result:
        print(board.branches_text(result["branches"]))
    if int8:
        print(own_export.int8_text(result))


def pack(
    folder: options.Folder,
    out: Annotated[Path, Argument(metavar="OUT", help="The folder to write.")],
    threads: options.Threads = None,
    rounds: options.Rounds = 20,
) -> None:
    """Write a folder that times the network of DIR on a board, and compares its outputs there."""
    network, known = trained.load_network(str(folder / own.WEIGHTS)), {}
    if (folder / own.RECORD).exists() and (record := own.read_record(folder)).network == network.kind:
        c = record.conditions
        threads = threads or c.threads
        if (c.runtime, c.threads, c.batch) == (
            "onnxruntime",
            threads,
            1,
        ):  # else it says nothing of this
            known = {"predicted_ms": record.predicted_ms, "table_of": c.device}
            known |= {"table": own.table_of(record)}
    exports.pack_network(network, out, threads=threads or 1, rounds=rounds, **known)
    _print_pack(out)


# ---- trained networks


def weights() -> None:
    """List the trained networks that ship with the study: what they were trained on, and how well they
    do.
    """
    for name in trained.names():
        card = trained.load_network(name).card
        rows = [row for row in card["metrics"] if row["sigma"] in (0.2, 0.5)]
        quality = "; ".join(", ".join(f"{key} {value:g}" for key, value in row.items()) for row in rows)
        print(f"{name}: {card['label']}, trained on {card['training']}. {quality}")


def denoise(
    source: options.Source,
    out: Annotated[Path, Argument(help="A folder for the denoised pictures and results.csv.")],
    weights: options.Weights = "dc-net-reduced-integrated",
    sigma: options.Sigma = 0.0,
) -> None:
    """Denoise pictures of any size with a trained network. Unreadable files are named and left out."""
    network = trained.load_network(weights)
    if not network.denoises:
        raise InputError(f"weights is {weights!r}, which only classifies; `dcnas weights` lists others.")
    rows = []
    for scene, outcome in _outcomes(source, network, sigma, out):
        write_atomic(out / f"{scene.name}.png", pictures.png_of(outcome.denoised))
        rows.append(apply.row_of(scene, network, sigma, outcome))
    apply.write_rows(rows, out / "results.csv")
    print(f"Wrote {len(rows)} picture{'s' * (len(rows) != 1)} and {shown(out / 'results.csv')}")
    if worse := sum(apply.WORSE in row["notes"] for row in rows):
        knows = f"{network.name} knows {network.card['training']} alone"
        print(f"{worse} of {len(rows)} are worse than with the noise: {knows}.")


def classify(
    source: options.Source,
    weights: options.Weights = "dc-net-reduced-integrated",
    sigma: options.Sigma = 0.0,
    out: Annotated[Path | None, Option(help="A CSV file for the results.")] = None,
) -> None:
    """Say what pictures show, with a trained network. Unreadable files are named and left out."""
    network = trained.load_network(weights)
    if not network.classes:
        raise InputError(f"weights is {weights!r}, which only denoises; `dcnas weights` lists others.")
    outcomes = _outcomes(source, network, sigma)
    apply.write_rows([apply.row_of(scene, network, sigma, outcome) for scene, outcome in outcomes], out)
    if out is not None:
        print(f"Wrote {shown(out)}")


def _outcomes(source: str, network, sigma: float, out: Path | None = None) -> Iterator[tuple]:
    """Scene and outcome of every picture of a source; unreadable ones are named on stderr."""
    scenes, skipped = apply.scenes_of(source, out), 0
    for make in scenes.values():
        try:
            scene = make()
        except InputError as error:
            if len(scenes) == 1:
                raise
            skipped += 1
            print(f"Left out: {error}", file=sys.stderr)
            continue
        yield scene, apply.apply(network, scene, sigma, progress=True)
    if skipped == len(scenes):
        raise InputError(f"{source}: none of {skipped} pictures could be read.")
