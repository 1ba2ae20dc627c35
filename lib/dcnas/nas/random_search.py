"""Random search, the baseline of an architecture search (after Li and Talwalkar, 2019): a few networks
at chance, trained briefly.

Operators are drawn uniformly, hidden widths are fitted to the target by the look-up table, as a search's
are; what does best on the images that a search trains its alphas on is taken. The paper compares with no
such baseline.
"""

import json
from collections.abc import Callable, Sequence
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
    """Train `networks` random ones for `steps` each and take the best on the batches `validate`; None if
    the deadline came first.

    `epochs` has a row per network, `alphas` its choices as probabilities of 0 and 1. What a killed call
    has finished is kept.
    """
    check_target(space, table, settings)
    rng = np.random.default_rng(settings.seed)
    drawn = [random_architecture(space, rng) for _ in range(networks)]
    rows, alphas, architectures = [], [], []
    for n, start in enumerate(tqdm(drawn, desc=label, unit="network", disable=not progress)):
        part = folder / f"network-{n}"
        architecture = fit_widths(
            start, settings.target_ms, lambda a: predicted_ms(table, a, settings.network)
        )
        if not (part / "row.json").exists():
            set_seed(settings.seed)
            training = Settings(steps, steps, lr, "one-cycle", clip_norm=settings.clip)
            trainer = Trainer(build_network("C-NAS", architecture), _loss, training, device)
            history = fit(
                trainer,
                draw_weights,
                lambda model: _validated(model, validate)["loss"],
                part,
                progress=False,
                deadline=deadline,
            )
            if history is None:
                return None
            write_atomic(
                part / "row.json", json.dumps({"epoch": n, **_validated(trainer.model, validate)})
            )
            checkpoint.remove(part)
        row = json.loads((part / "row.json").read_text())
        rows.append(row | {"argmax_ms": predicted_ms(table, architecture, settings.network)})
        chosen = [
            np.eye(space.operators)[space.candidates.index(c.operator)] for c in architecture.choices
        ]
        alphas += alpha_rows(space, n, chosen, ())
        architectures.append(architecture)
    best = int(np.argmax([row["accuracy"] for row in rows]))
    reason = f"{rows[best]['accuracy']:.1f}% is the best of {networks} networks after {steps} steps each"
    logs = tuple(np.log(np.full(space.operators, 1 / space.operators)) for _ in space.layers)
    return SearchResult(
        architectures[best], logs, pd.DataFrame(rows), pd.DataFrame(alphas), Verdict("drawn", reason)
    )


def _loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    return F.cross_entropy(model(batch.noisy)[1], batch.labels)


def _validated(model: torch.nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    """Accuracy in % and cross entropy on some batches, with the statistics that batch norm has
    gathered."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(batch.noisy)[1] for batch in batches])
    model.train(was_training)
    labels = torch.cat([batch.labels for batch in batches])
    accuracy = 100 * (logits.argmax(1) == labels).float().mean().item()
    return {"accuracy": accuracy, "loss": F.cross_entropy(logits, labels).item()}
