"""Section 2's denoisers on the images of Section 4: BM3D [5], which learns nothing, beside DnCNN [41], UNet, D-NAS and DC-NAS.

BM3D comes from the package `bm3d` (free for research and other noncommercial use). It is told the noise level, which a network
has to find out by itself. Of grey photographs in three channels it can also clean the mean of the channels, where the noise is
weaker by the root of three: networks learn that from such images by themselves. Both readings are runs of the store. Above a
noise of 40 of 255 it takes its profile for strong noise (`vn`), as BM3D's authors do; their package leaves that to the caller.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from safetensors.torch import save
from torch import Tensor, nn

from ..data.images import evaluation_images
from ..data.noise import SIGMAS
from ..errors import InputError, require_choice
from ..latency.measure import device_named, measure_many
from ..latency.table import load_table
from ..nas.networks import IMAGE_CHANNELS
from ..paths import latency_dir, published_dir, runs_dir, write_atomic
from ..reading import read_frame
from ..training import checkpoint as checkpoints
from ..training import evaluate, summarise
from . import results4
from . import section4 as lists
from .experiments import FORMAT, Named
from .results3 import PUBLISHED_SCALES, merge_tensors, read_results_file
from .results3 import per_image as stored_per_image
from .runs import (
    SAMPLE_SIGMAS,
    SAMPLES,
    bank_noisy,
    finish,
    folder_of,
    is_complete,
    needs,
    obtain,
    perform,
    read_metrics,
    write_per_image,
)
from .scales import SCALES
from .section4_runs import build_of
from .stats import Scores

IMAGES = 50  # of the test set: BM3D takes a second for an image of 64 x 64 pixels
SIGMA = 0.4  # at which BM3D is timed
STRONG = 0.16  # 40 of 255
_PUBLISHED = ("run", "label", "scale", "seed", "sigma", "psnr", "ssim")  # what a published row must have
_PROVENANCE = ("device", "torch", "python", "dcnas", "commit", "date")


@dataclass(frozen=True)
class Filter(Named):
    """BM3D over the first test images of a scale of Section 4, with the noise that the networks meet there."""

    label: str
    scale: str
    data: str
    resolution: int
    limit: int | None
    eval_images: int
    grey: bool  # the mean of the channels instead of each
    strong: float = STRONG  # noise of what is cleaned, above which the profile is that for strong noise
    seed: int = 0
    threads: int = 1

    @property
    def title(self) -> str:
        return f"{self.label}, {self.scale}"


def filters(scale: str) -> list[Filter]:
    """Both readings of BM3D."""
    scale = lists.searched_at(scale)  # no training: the same at any scale with the same images
    s, count = lists.scale4(scale), 1 if scale == "smoke" else IMAGES
    readings = (("BM3D colour", False), ("BM3D grey", True))
    return [Filter(label, scale, s.data, s.resolution, s.limit, count, grey) for label, grey in readings]


def section2(scale: str) -> list:
    """All runs of Section 2: BM3D, and the networks that stand beside it."""
    return [*filters(scale), *lists.related_work(scale)]


class BM3D(nn.Module):
    """BM3D for noise of a known level, as a network: noisy images (B, 3, H, W) to denoised ones of the same shape."""

    def __init__(self, sigma: float, grey: bool = False):
        super().__init__()
        self.sigma, self.grey = sigma, grey

    def forward(self, noisy: Tensor) -> Tensor:
        return noisy.clone() if self.sigma == 0 else torch.stack([self._one(image) for image in noisy])

    def _one(self, image: Tensor) -> Tensor:
        bm3d = _package()
        sigma = self.sigma / len(image) ** 0.5 if self.grey else self.sigma
        profile = "vn" if sigma > STRONG else "np"
        if self.grey:
            cleaned = bm3d.bm3d(image.mean(0).numpy(), sigma, profile)
            return torch.from_numpy(np.asarray(cleaned, np.float32).reshape(image.shape[1:])).expand_as(image)
        cleaned = bm3d.bm3d_rgb(image.permute(1, 2, 0).numpy(), sigma, profile)
        return torch.from_numpy(np.asarray(cleaned, np.float32)).permute(2, 0, 1)


def _package():
    try:
        import bm3d  # here: it is not free for all uses, so not everyone has it
    except ImportError:
        raise InputError("BM3D needs the package bm3d: `.venv/bin/python -m pip install bm3d`.") from None
    return bm3d


@needs.register
def _(experiment: Filter) -> None:
    return None


@perform.register
def _(experiment: Filter, folder: Path, device: torch.device, progress: bool, deadline: float | None, checkpoint_s: float) -> bool:
    views, labels = evaluation_images(lists.images_of(experiment), "test", experiment.resolution, experiment.eval_images)
    boxes, noisy = torch.zeros(len(views), 1, 4), bank_noisy(views)
    saved = checkpoints.load(folder)
    done: list[dict[str, Tensor]] = saved["done"] if saved else []
    for sigma in SIGMAS[len(done) :]:
        if deadline is not None and monotonic() > deadline:
            return False
        model = BM3D(sigma, experiment.grey)
        found = evaluate(lambda x, _: (model(x.cpu()), None), views, boxes, labels, noisy, [sigma], batch=1, progress=progress)  # noqa: B023
        done.append(found)
        checkpoints.save(folder, {"done": done})
    found = {name: torch.cat([level[name] for level in done]) for name in done[0]}
    write_per_image(found, folder)
    first = [
        torch.stack([BM3D(sigma, experiment.grey)(noisy(range(n, n + 1), sigma))[0] for n in range(min(SAMPLES, len(views)))])
        for sigma in SAMPLE_SIGMAS
    ]
    pictures = (torch.stack(first).clamp(0, 1) * 255).round().to(torch.uint8)
    write_atomic(folder / "samples.safetensors", save({"denoised": pictures.contiguous()}))
    finish(folder, torch.device("cpu"), summarise(found, SIGMAS), {})
    checkpoints.remove(folder)
    return True


def read_filters(experiments: Sequence[Filter]) -> pd.DataFrame:
    """The rows of complete runs, one per sigma."""
    frames = []
    for e in filter(is_complete, experiments):
        metrics, record = read_metrics(folder_of(e), _PROVENANCE)
        head = {"format": FORMAT, "run": e.name} | {k: v for k, v in asdict(e).items() if k not in ("threads", "limit")}
        frames.append(pd.DataFrame(metrics).assign(**head, **{name: record[name] for name in _PROVENANCE}))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def results(scale: str, *, device: str = "cpu", progress: bool = True) -> tuple[pd.DataFrame, dict[str, Scores]]:
    """A row per denoiser and sigma, and "psnr" and "ssim" of each image: of those images that every denoiser was given.

    `published` reads; any other scale carries out what is missing. `latency_ms` is of a single image, on the table's device.
    """
    networks = results4.results("related_work", scale, device=device, progress=progress)
    if require_choice("scale", scale, SCALES) == "published":
        path = published_dir() / "section2.csv"
        rows = read_results_file(path, _PUBLISHED, ()) if path.exists() else pd.DataFrame()
        if len(rows):
            rows = rows[rows["scale"] == lists.searched_at(results4.published_scale())]
        found = rows.assign(source="published")
    else:
        for experiment in filters(scale):
            obtain(experiment, device=device, progress=progress)
        found = read_filters(filters(scale)).assign(source="runs")
    if found.empty:
        raise InputError("no results of BM3D are published yet; use the scale smoke, laptop, gpu or paper.")
    scores = {}
    for metric in ("psnr", "ssim"):
        of_filters = stored_per_image(found, metric, "section2_per_image")
        count = min(values.shape[1] for values in of_filters.values())
        both = of_filters | results4.per_image(networks, metric)
        scores[metric] = {key: values[:, :count] for key, values in both.items()}
    rows = pd.concat([found, networks[networks["psnr"].notna()]], ignore_index=True)
    known = latencies(scale).set_index("label")[["median_ms", "q25_ms", "q75_ms", "passes"]]
    rows = rows.drop(columns=["latency_ms", "q25_ms", "q75_ms", "passes"]).join(known, on="label")
    return rows.rename(columns={"median_ms": "latency_ms"}), scores


def samples(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """label to the outputs for the first test images, BM3D's first: uint8 (sigmas, images, 3, H, W)."""
    of_filters = rows["network"].isna()
    labels = [*dict.fromkeys(rows["label"])]
    return results4.samples(rows[of_filters], labels, "section2_samples") | results4.samples(rows[~of_filters])


# ---- latencies


def latencies(scale: str) -> pd.DataFrame:
    """Latency of each denoiser for a single image; measured where it was not at scale smoke."""
    scale = results4.published_scale() if scale == "published" else scale
    path = latency_path(scale)
    if scale == "smoke" and not path.exists():
        measure(scale, rounds=1)
    if not path.exists():
        raise InputError(f"{path.name} is missing; with nothing else running, run `dcnas latency --section 2 --scale {scale}`.")
    return read_frame(path, ("label", "median_ms", "q25_ms", "q75_ms", "passes"))


def latency_path(scale: str) -> Path:
    """Where the latencies lie."""
    scale = lists.searched_at(scale)
    return runs_dir() / "latency-section2.csv" if scale == "smoke" else latency_dir() / f"section2-{scale}.csv"


def measure(scale: str, *, rounds: int = 30, progress: bool = False) -> Path:
    """Time BM3D and the networks in turns, one image of the scale's size, on the table's device and threads (BM3D on the CPU)."""
    path, conditions = latency_path(scale), load_table(lists.table_path(scale)).conditions
    device, experiments = device_named(conditions.device), {e.label: e for e in lists.related_work(scale)}
    views, _ = evaluation_images(lists.images_of(next(iter(experiments.values()))), "test", conditions.resolution, 1)
    image = bank_noisy(views)(range(1), SIGMA)
    assert image.shape[1] == IMAGE_CHANNELS
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")), torch.random.fork_rng():
        found = {}
        models = {e.label: (BM3D(SIGMA, e.grey), (image,)) for e in filters(scale)}
        networks = {label: (build_of(e), (image,)) for label, e in experiments.items()}
        options = dict(rounds=rounds, warmup=1, passes=1, threads=conditions.threads, progress=progress)
        if device.type == "cpu":
            found = measure_many(models | networks, **options)
        else:
            found = measure_many(models, **options) | measure_many(networks, device=device, **options)
        rows = pd.DataFrame([{"label": label} | latency.as_row() for label, latency in found.items()])
        return write_atomic(path, rows.to_csv(index=False, lineterminator="\n"))


# ---- publication


def collect() -> int:
    """Merge complete runs of BM3D into `data/published`; how many it has now."""
    scales = dict.fromkeys(map(lists.searched_at, PUBLISHED_SCALES))
    runs = [e for scale in scales if lists.table_path(scale).exists() for e in filters(scale)]
    here = [e for e in runs if is_complete(e)]
    kept = results4.merge_rows("section2.csv", read_filters(here), {e.name: i for i, e in enumerate(runs)})
    if kept:
        merge_tensors("section2_per_image", here, kept, results4.run_tensors("per_image"))
        merge_tensors("section2_samples", here, kept, results4.output_of)
    return len(kept)
