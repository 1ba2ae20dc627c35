"""Complete runs as rows: what a run is, its metrics at a noise level, where and how it was made."""

import json
from collections.abc import Iterable
from functools import lru_cache

import pandas as pd
import torch

from ..build import build
from ..data.two_digits import IMAGE_SIZE
from ..models import count_flops
from ..models.crops import BOX_SIZE
from ..nas.networks import IMAGE_CHANNELS
from ..nas.space import Architecture
from .kinds import Derivation, Filter, Named, Run, Search, images_of
from .store import architecture_of, folder_of, is_complete

FORMAT = 1  # of published files
INTEGERS = dict.fromkeys(("b", "d", "c", "crop"), "Int64")  # also where not every run has one
NAMES = {"run": str, "commit": str}  # hexadecimal: one in some hundreds looks like a number
MADE = ("device", "torch", "python", "dcnas", "commit", "date")
SEARCHED = ("epochs", "weight_epochs", "steps_per_epoch", "alpha_lr", "learn_beta", "elasticity")


def read_runs(runs: Iterable[Named]) -> pd.DataFrame:
    """All complete runs, in their order, a row per noise level."""
    rows = []
    for run in filter(is_complete, runs):
        record = json.loads((folder_of(run) / "provenance.json").read_text())
        trained = isinstance(run, Run)
        head = {"format": FORMAT, "run": run.name, "label": run.label, "scale": run.scale}
        head |= {"seed": run.seed} | (_of_run if trained else _of_filter)(run)
        names = ("parameters", *MADE, "train_s", "evaluate_s") if trained else MADE
        made = {name: record.get(name) for name in names} | {"source": "runs"}
        levels = pd.read_csv(folder_of(run) / "metrics.csv", dtype=str).astype(float)  # to the very bits
        rows += [head | level | made for level in levels.to_dict("records")]
    frame = pd.DataFrame(rows)
    return frame.astype({name: kind for name, kind in INTEGERS.items() if name in frame})


def _of_filter(run: Filter) -> dict:
    return {**run.photos, "eval_images": run.eval_images, "grey": run.grey}


def _of_run(run: Run) -> dict:
    seen = {"batch": run.batch, "images": run.train.steps * run.batch, "flops": flops_of(run)}
    if run.task == "photographs":
        data, net = images_of(run), run.net
        seen |= {name: run.data[name] for name in ("data", "resolution", "noisy")}
        seen |= {"network": net["kind"], "derivation": run.source and run.source.name}
        seen |= {"upscaled": net.get("upscaled", 1.0), "decoder": net.get("decoder", "conv")}
        seen |= {"b": run.unet.get("b"), "large": run.unet.get("d", 4) == 5}
        images = sum(len(data.rows[part]) for part in ("weights", "alphas"))
        return seen | {"classes": len(data.classes), "set_images": images}
    kind = "unet, two norm groups" if "norm_groups" in run.unet else run.net["kind"]
    seen |= {"task": run.task, "network": f"denoised {kind}" if "behind" in run.net else kind}
    seen |= {name: run.unet.get(name) for name in ("b", "d", "m", "c")}
    seen |= {"block": run.unet.get("block", "conv"), "precision": run.train.precision}
    return seen | {"ce_weight": run.ce_weight, "crop": run.data["crop"], "clip": run.data["clip"]}


def flops_of(run: Run) -> int:
    """FLOPs for one image, as the paper counts them: of classifiers and joint models for a digit."""
    size, classes = IMAGE_SIZE, 10
    if run.task == "photographs":
        size, classes = run.data["resolution"], len(images_of(run).classes)
    architecture = None if run.source is None else architecture_of(run.source)
    return _counted(json.dumps(run.net), run.task, size, classes, architecture)


@lru_cache(maxsize=512)  # tracing a network takes as long as many an evaluation at scale smoke
def _counted(net: str, task: str, size: int, classes: int, architecture: Architecture | None) -> int:
    model = build(json.loads(net), classes, architecture)
    size = BOX_SIZE if task == "classify" else size
    boxes = (torch.tensor([[[0, 0, BOX_SIZE, BOX_SIZE]]]),) if task == "joint" else ()
    channels = IMAGE_CHANNELS if task == "photographs" else 1
    return count_flops(model, torch.zeros(1, channels, size, size), *boxes)


def search_row(run: Search) -> dict:
    """What a search is, how it ended, and where it was made."""
    record = json.loads((folder_of(run) / "provenance.json").read_text())
    (end,) = pd.read_csv(folder_of(run) / "metrics.csv").to_dict("records")  # whole numbers stay
    head = {"format": FORMAT, "run": run.name, "label": run.label, "scale": run.scale, "seed": run.seed}
    head |= {name: run.photos[name] for name in ("data", "resolution")}
    head |= {"batch": run.batch, "operators": run.operators, "target_ms": end["target_ms"]}
    settings = vars(run.with_target(end["target_ms"]))
    head |= {name: settings[name] for name in SEARCHED} | {"noisy": run.noisy}
    head |= {name: settings[name] for name in ("loss", "alpha_gradient")} | end
    return head | {name: record[name] for name in ("device", "torch", "commit", "date")}


def derivation_row(run: Derivation) -> dict:
    """How a derivation ended: prediction, measurement and error, measured anew after its repairs."""
    (end,) = pd.read_csv(folder_of(run) / "metrics.csv").to_dict("records")  # whole numbers stay
    head = {name: getattr(run, name) for name in ("label", "network", "scale", "seed", "random_seed")}
    return end | {"format": FORMAT, "run": run.name} | head
