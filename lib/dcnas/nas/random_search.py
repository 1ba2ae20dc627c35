"""Random search, the baseline of an architecture search (after Li and Talwalkar, 2019).

A few networks at chance are trained briefly. Operators are drawn uniformly, hidden widths are fitted to
the target by the look-up table, as a search's are; what does best on the images that a search trains its
alphas on is taken. The paper compares with no such baseline.
"""

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from ..latency.table import Table
from ..paths import write_atomic
from ..seed import set_seed
from ..training import Settings, Trainer, checkpoint, fit
from ..training.tasks import Batch
from .derive import fit_widths
from .lut import predicted_ms
from .networks import build_network
from .recorder import Verdict, alpha_rows
from .search import SearchResult
from .settings import SearchSettings, check_target
from .space import Space, random_architecture


def run_random_search(
    space: Space,
    table: Table,
    settings: SearchSettings,
    draw_weights: Callable[[int], Batch],
    validate: Sequence[Batch],
    folder: Path,
    *,
    networks: int,
    steps: int,
    lr: float = 4e-3,
    device: str | torch.device = "cpu",
    progress: bool = True,
    deadline: float | None = None,
    label: str = "random search",
) -> SearchResult | None:
    """Train `networks` random ones for `steps` each, and take the best on the batches `validate`.

    None if the deadline came first; what a killed call has finished is kept. `epochs` has a row per
    network, `alphas` its choices as probabilities of 0 and 1.
    """
    check_target(space, table, settings)
    latency_ms = partial(predicted_ms, table, network=settings.network)
    rng = np.random.default_rng(settings.seed)
    drawn = [random_architecture(space, rng) for _ in range(networks)]
    fitted = [fit_widths(start, settings.target_ms, latency_ms) for start in drawn]
    training, rows, alphas = Settings(steps, steps, lr, "one-cycle", clip_norm=settings.clip), [], []
    for n, architecture in enumerate(tqdm(fitted, desc=label, unit="network", disable=not progress)):
        part = folder / f"network-{n}"
        if not (part / "row.json").exists():
            set_seed(settings.seed)
            trainer = Trainer(build_network("C-NAS", architecture), _loss, training, device)
            how = dict(progress=False, deadline=deadline)
            if fit(trainer, draw_weights, lambda _: math.nan, part, **how) is None:
                return None
            row = {"epoch": n, **_judged(trainer.model, validate)}
            write_atomic(part / "row.json", json.dumps(row))
            checkpoint.remove(part)
        row = json.loads((part / "row.json").read_text())
        rows.append(row | {"argmax_ms": latency_ms(architecture)})
        chosen = [space.candidates.index(choice.operator) for choice in architecture.choices]
        alphas += alpha_rows(space, n, np.eye(space.operators)[chosen], ())
    best = int(np.argmax([row["accuracy"] for row in rows]))
    reason = f"{rows[best]['accuracy']:.1f}% is the best of {networks} networks after {steps} steps each"
    logs = np.full((len(space.layers), space.operators), -math.log(space.operators))
    verdict = Verdict("drawn", reason)
    return SearchResult(fitted[best], tuple(logs), pd.DataFrame(rows), pd.DataFrame(alphas), verdict)


def _loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    return F.cross_entropy(model(batch.noisy)[1], batch.labels)


def _judged(model: torch.nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    """Accuracy in % and cross entropy, with the statistics that batch norm has gathered."""
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(batch.noisy)[1] for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    accuracy = 100 * (logits.argmax(1) == labels).float().mean().item()
    return {"accuracy": accuracy, "loss": F.cross_entropy(logits, labels).item()}
