"""How long a search and its training will take: single steps of each kind timed before they begin."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from ..latency.table import load_table
from ..nas.networks import IMAGE_CHANNELS, build_network
from ..nas.searcher import Searcher
from ..options import QUICK_JUDGED, SearchOptions
from ..training import Batch, Trainer
from .kinds import images_of
from .own import checked
from .own_runs import training_of
from .scales import SCALE
from .store import is_complete
from .tasks import SIGMAS

REPORT_S, MEASURE_S = 15.0, 60.0  # the notebook of the report; repairs, most often


def seconds_of(step: Callable[[], object]) -> float:
    """Of a step: the second one, for the first one also fetches memory."""
    step()
    begun = time.monotonic()
    step()
    return time.monotonic() - begun


def estimate(options: SearchOptions) -> dict[str, float]:
    """Seconds by part, of what a `dcnas search` has to do; nothing for a search that is done.

    It takes as long as a few steps. `InputError` as the search itself gives it.
    """
    run = checked(options)
    if is_complete(run):
        return {}
    threads, device = torch.get_num_threads(), torch.device(options.device)
    torch.set_num_threads(run.threads)
    with torch.random.fork_rng():
        settings = run.with_target(options.target_ms)
        searcher = Searcher(run.space, load_table(Path(run.table)), settings, device)
        size, images = run.photos["resolution"], images_of(run)
        clean = torch.rand(run.batch, IMAGE_CHANNELS, size, size, device=device)
        clean = clean.contiguous(memory_format=torch.channels_last)
        batch = Batch(clean, clean, None, torch.zeros(run.batch, dtype=torch.int64, device=device))
        one, two = (
            seconds_of(lambda b=b: searcher.weight_step(0, batch, both=b)) for b in (False, True)
        )
        alphas = seconds_of(lambda: searcher.alpha_step(0, batch, 1.0))
        model = build_network(settings.network, searcher.argmax())
        training = training_of({}, "", run.photos["data"], size, options, 1_000)
        trainer = Trainer(model, lambda m, b: _sum(m(b.noisy)), training.train, device)
        step = seconds_of(lambda: trainer.step(batch))
        most = QUICK_JUDGED if options.quick else SCALE["short"].photos_eval
        judged = min(most, len(images.rows["test"])) * len(SIGMAS)
        forward = seconds_of(lambda: _sum(trainer.model(clean))) / run.batch
    torch.set_num_threads(threads)
    later = settings.epochs - settings.weight_epochs
    parts = {
        "search": settings.steps_per_epoch * (settings.weight_epochs * one + later * (two + alphas / 2))
    }
    parts |= {"measuring": MEASURE_S} if options.measure else {}
    if options.train_steps:
        parts |= {"training": options.train_steps * step, "judging": 2 * judged * forward}
    return parts | {"report": REPORT_S}


def _sum(outputs: tuple) -> torch.Tensor:
    return sum(x.mean() for x in outputs if x is not None)


def sentence(parts: dict[str, float]) -> str:
    """About how many minutes it takes, and for what; by the longest parts."""
    longest = sorted(parts, key=parts.get, reverse=True)[:2]
    words = " and ".join(f"{parts[name] / 60:.1f} for the {name}" for name in longest)
    return f"About {max(0.1, sum(parts.values()) / 60):.1f} minutes: {words}."
