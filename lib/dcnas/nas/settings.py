"""How to search (Section 4.1), and whether a target latency can be met."""

from dataclasses import dataclass
from typing import Literal

from ..errors import InputError
from ..latency.table import Table
from .lut import base_ms, operators_ms
from .space import Space


@dataclass(frozen=True)
class SearchSettings:
    """How to search. Defaults are the paper's, and TF-NAS's where the paper says nothing."""

    target_ms: float
    steps_per_epoch: int
    epochs: int = 90
    weight_epochs: int = 10  # the first, which train weights only
    seed: int = 0
    learn_beta: bool = False  # the paper's proposal: removed
    elasticity: bool = True  # hidden widths follow the target after every epoch [16]
    # both: Eq. 1, with a decoder (Section 4.3 Exp 2)
    loss: Literal["ce", "both", "denoise"] = "ce"
    # "two" sampled operators per layer are cheaper, as in ProxylessNAS
    alpha_gradient: Literal["all", "two"] = "all"
    rebuild_optimisers: bool = False  # every epoch, as TF-NAS does, which forgets their momenta
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-5
    clip: float = 5.0  # norm of gradients
    alpha_lr: float = 0.01
    alpha_betas: tuple[float, float] = (0.5, 0.999)
    alpha_weight_decay: float = 5e-4
    start_temperature: float = 5.0  # of Gumbel softmax, in the first epoch that trains alphas
    temperature_decay: float = 0.96  # per epoch
    latency_weight: float = 0.1

    @property
    def network(self) -> str:
        """The network whose latency the target is."""
        return {"ce": "C-NAS", "both": "DC-NAS", "denoise": "D-NAS"}[self.loss]

    def temperature(self, epoch: int) -> float:
        """Of Gumbel softmax in an epoch (from 0): constant while weights train alone, then falling."""
        return self.start_temperature * self.temperature_decay ** max(0, epoch - self.weight_epochs)


def check_target(space: Space, table: Table, settings: SearchSettings) -> None:
    """`InputError` unless the table knows every operator and a network can meet the target."""
    low, high = latency_range_ms(space, table, settings.network, settings.learn_beta)
    if not low <= settings.target_ms <= high:
        reach = f"this space and table reach {low:.2f} to {high:.2f} ms"
        raise InputError(f"target_ms is {settings.target_ms:g}, but {reach}.")


def latency_range_ms(
    space: Space, table: Table, network: str = "C-NAS", learn_beta: bool = False
) -> tuple[float, float]:
    """Latencies of the fastest and the slowest network.

    Both have all layers; with learned beta the fastest has one block per stage.
    """
    ranges = [[layer.hidden_range(o) for o in space.candidates] for layer in space.layers]
    least, most = ([[pair[end] for pair in layer] for layer in ranges] for end in (0, 1))
    slowest = [float(ms.max()) for ms in operators_ms(table, space, most, network)]
    fastest = [float(ms.min()) for ms in operators_ms(table, space, least, network)]
    if learn_beta:
        fastest = [fastest[stage[0]] for stage in space.stages]
    base = base_ms(table, network)
    return base + sum(fastest), base + sum(slowest)
