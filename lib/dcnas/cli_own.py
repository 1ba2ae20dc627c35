"""The commands for a network of one's own: search, train, evaluate, export. All about one is in one folder (`study.own`)."""

from pathlib import Path
from typing import Annotated

import typer

from .errors import InputError, require_choice, require_whole

Data = Annotated[
    str,
    typer.Option(help="A folder with a folder of images per class; or solar, tiny-imagenet, imagenette, cifar10, imagenet100."),
]
OwnData = Annotated[str | None, typer.Option(help="Images; those of the search if not given.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder that `dcnas search --out` wrote.")]
Threads = Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads; as PyTorch chooses if not given.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Images in a training step; fewer for a small set.")]
Steps = Annotated[int | None, typer.Option(help="Of the training; 1,000 if not given.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N, to search and train on; latency is measured on the table's.")]


def search(
    lut: Annotated[Path, typer.Option(help="The look-up table of your board: `dcnas lut build` and `dcnas lut validate`.")],
    target_ms: Annotated[float, typer.Option(help="Latency of a batch on the table's device, in ms.")],
    out: Annotated[Path, typer.Option(help="The folder for the network and the report, new or of the same search.")],
    data: Data = "solar",
    operators: Annotated[int, typer.Option(help="4, 6 or 8 (Table 7).")] = 4,
    loss: Annotated[str, typer.Option(help="both: a joint model (DC-NAS), decoder included; ce: a classifier (C-NAS).")] = "both",
    noisy: Annotated[bool, typer.Option(help="Search on noisy images.")] = True,
    learn_beta: Annotated[bool, typer.Option(help="Search the depth of the stages too, as TF-NAS does.")] = False,
    elasticity: Annotated[bool, typer.Option(help="Hidden widths follow the target after every epoch.")] = True,
    rebuild_optimisers: Annotated[bool, typer.Option(help="New optimisers every epoch, as TF-NAS has them.")] = False,
    alpha_gradient: Annotated[str, typer.Option(help="two sampled operators, in 04_1 as good and cheaper; or all.")] = "two",
    alpha_lr: Annotated[float | None, typer.Option(help="0.07 if not given; the paper's is 0.01.")] = None,
    temperature_decay: Annotated[
        float | None, typer.Option(help="Of Gumbel softmax per epoch, from 5; 0.2 at the end if not given.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="25 if not given.")] = None,
    steps_per_epoch: Annotated[int, typer.Option(help="Of the weights; the alphas have half as many.")] = 16,
    batch: Batch = None,
    seed: int = 0,
    device: Device = "cpu",
    threads: Threads = None,
    table_limit_pct: Annotated[float, typer.Option(help="Refuse a table whose validated median error is larger.")] = 5.0,
    measure: Annotated[bool, typer.Option(help="Measure what was found on this device and repair it where it misses.")] = True,
    train_steps: Annotated[int | None, typer.Option(help="Then train so many steps; 0: leave it to `dcnas train`.")] = None,
) -> None:
    """Search a network for a target latency on your table and images, train it and report on it: all in one folder.

    Killed, the same command goes on where it was. A target out of reach is answered with the range of the space on your board.
    """
    import torch

    from .data.photographs import set_named
    from .latency.table import load_table
    from .paths import shown
    from .study import own
    from .study.results4 import table_at
    from .study.runs import obtain
    from .study.section4 import derivation, own_search, own_training

    if loss == "both" and not noisy:
        raise InputError("loss is 'both', which denoises as well; without noise (--no-noisy) there is none to take away.")
    if train_steps is not None:
        require_whole("train-steps", train_steps, 0)
    threads = threads or torch.get_num_threads()
    load_table(lut).require_accuracy(table_limit_pct)  # first: the range of a bad table would mislead
    begun = own_search(
        lut, set_named(data), target_ms, operators=operators, seed=seed, epochs=epochs, steps_per_epoch=steps_per_epoch,
        batch=batch, alpha_lr=alpha_lr, temperature_decay=temperature_decay, loss=loss, noisy=noisy, learn_beta=learn_beta,
        elasticity=elasticity, rebuild_optimisers=rebuild_optimisers, alpha_gradient=alpha_gradient, threads=threads,
    )  # fmt: skip
    own.claim(out, begun)
    table, network = table_at(begun, measured=measure, limit_pct=table_limit_pct), begun.settings.network
    obtain(begun, device=device)
    derived = derivation(begun, network, target_ms) if measure else None
    if derived is not None:
        obtain(derived, device=device)
    record = own.write_search(out, begun, derived, table)
    print(_found(record))
    if train_steps != 0:
        architecture = own.load_architecture(out / own.ARCHITECTURE)
        begun = own_training(
            architecture, network, begun.data, seed=seed, steps=train_steps, batch=batch, noisy=noisy, threads=threads
        )
        if own.is_longer(out, begun):
            print("A longer training is there already and stays.")
        else:
            obtain(begun, device=device)
            _print_metrics(own.write_training(out, begun))
    print(f"Wrote {shown(out / own.report.NAME)}")


def _found(record: dict) -> str:
    text = f"Search: {record['verdict']}; {record['reason']}.\n"
    text += f"By the table: {record['predicted_ms']:.2f} of {record['target_ms']:.2f} ms."
    if "measured_ms" not in record:
        return text
    text += (
        f"\nMeasured: {record['measured_ms']:.2f} ± {record['noise_ms']:.2f} ms after {record['repairs']} repairs, "
        f"{record['error_pct']:+.1f}% of the target ({record['first_error_pct']:+.1f}% before)."
    )
    noise_pct = 100 * record["noise_ms"] / record["target_ms"]
    if noise_pct > 3 > abs(record["error_pct"]) - noise_pct:
        text += f"\nThe measurement is uncertain by {noise_pct:.0f}%, too much to tell a miss of 3%: does anything else run?"
    elif abs(record["error_pct"]) > 3:
        text += "\nIt misses the target by more than 3%: was the machine left alone? `dcnas lut validate` measures the table again."
    return text


def _print_metrics(metrics) -> None:
    names = ["sigma", "noisy_psnr", "psnr", "ssim", "accuracy"]
    print(metrics[[name for name in names if name in metrics]].round(3).to_string(index=False))


def train(
    folder: Folder,
    network: Annotated[str | None, typer.Option(help="C-NAS, D-NAS, DC-NAS or DC-NAS_seq; the search's if not given.")] = None,
    data: OwnData = None,
    decoder: Annotated[str, typer.Option(help="conv, mb, mb 1-op or mb 3-lay (Table 5).")] = "conv",
    noisy: Annotated[bool, typer.Option(help="Train on noisy images.")] = True,
    steps: Steps = None,
    batch: Batch = None,
    seed: int = 0,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Train the network that was found, judge it at eleven noise levels and write the report; killed, it goes on where it was.

    DIR needs no search: with --network and --data, an `architecture.json` in it is enough.
    """
    import torch

    from .data.photographs import set_named
    from .nas.networks import DECODERS, NETWORKS
    from .paths import shown
    from .study import own
    from .study.runs import obtain
    from .study.section4 import own_training

    record = own.read_record(folder) if network is None or data is None or (folder / own.RECORD).exists() else {}
    network, data = network or record["network"], set_named(data or record["data"])
    require_choice("network", network, NETWORKS)
    require_choice("decoder", decoder, DECODERS)
    begun = own_training(
        own.load_architecture(folder / own.ARCHITECTURE), network, data, seed=seed, steps=steps, batch=batch, decoder=decoder,
        noisy=noisy, threads=threads or torch.get_num_threads(),
    )  # fmt: skip
    obtain(begun, device=device)
    _print_metrics(own.write_training(folder, begun))
    print(f"Wrote {shown(folder / own.WEIGHTS)}, its card and {shown(folder / own.report.NAME)}")


def evaluate(folder: Folder, data: OwnData = None) -> None:
    """Judge the trained network at eleven noise levels: on the test part of its own images, or on all images of another set.

    The report shows the former; metrics on another set go to a file of their own, metrics-NAME.csv, and nothing else changes.
    """
    from .data.photographs import set_named
    from .paths import shown
    from .study import own

    other = None if data is None else set_named(data)
    metrics = own.write_evaluation(folder, other)
    _print_metrics(metrics)
    known = other is None or other == own.trained(folder).card.get("data")
    path = folder / own.METRICS if known else own.other_metrics(folder, other)
    print(f"{metrics['images'].iloc[0]:,} images; wrote {shown(path)}")


def export(
    source: Annotated[str, typer.Argument(help="DIR of `dcnas train`, a .safetensors file, or a name of `dcnas weights`.")],
    format: Annotated[str, typer.Option(help="onnx: one file, batch norm folded, batch and size dynamic.")] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="An 8-bit copy too, and what it costs in dB and points.")] = False,
    data: Annotated[str | None, typer.Option(help="Images to compare and calibrate on; the training's if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="The .onnx file; in DIR, or here, if not given.")] = None,
    threads: Threads = None,
) -> None:
    """Export a trained network for a board, check it in ONNX Runtime against PyTorch, and time both at batch 1."""
    from .data.photographs import set_named
    from .paths import shown
    from .study import own

    require_choice("format", format, ("onnx",))
    network, data, folder = own.source(source, None if data is None else set_named(data))
    out = out or folder / f"{network.name if network.name != 'weights' else network.kind.lower()}.onnx"
    require_choice("suffix of --out", out.suffix, (".onnx",))
    found = own.write_export(network, data, out, int8=int8, threads=threads)
    for name, mib in found["mib"].items():
        print(f"Wrote {shown(out.with_name(name))}, {mib:.1f} MiB")
    print(f"Largest difference from PyTorch: {found['largest_difference']:.1g}")
    times = found["latency_ms"]
    for name, t in times.items():
        ratio = f", {times['PyTorch']['median'] / t['median']:.2f} times as fast as PyTorch" if name != "PyTorch" else ""
        print(
            f"{name}: {t['median']:.2f} ms ({t['q25']:.2f} to {t['q75']:.2f}) at batch 1, {found['size_px']} px, "
            f"{found['threads']} threads{ratio}"
        )
    if int8:
        import pandas as pd

        print("int8 minus float, mean over the test images:")
        print(pd.DataFrame(found["int8_cost"]).round(2).to_string(index=False))
