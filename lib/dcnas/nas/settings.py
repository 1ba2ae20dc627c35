"""How to search (Section 4.1), and whether a target latency can be met."""

from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from ..errors import InputError, sentence
from ..latency.table import Table
from .lut import base_ms, operators_ms, require_operators
from .space import Space

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class SearchSettings:
    """How to search. Defaults are the paper's, and TF-NAS's where the paper says nothing."""

    target_ms: Positive
    steps_per_epoch: PositiveInt
    epochs: PositiveInt = 90
    weight_epochs: NonNegativeInt = 10  # the first, which train weights only
    seed: NonNegativeInt = 0
    learn_beta: bool = False  # the paper's proposal: removed
    elasticity: bool = True  # hidden widths follow the target after every epoch [16]
    loss: Literal["ce", "both"] = "ce"  # both: Eq. 1, with a decoder (Section 4.3 Exp 2)
    alpha_gradient: Literal["all", "two"] = (
        "all"  # two sampled operators per layer are cheaper, as in ProxylessNAS
    )
    rebuild_optimisers: bool = (
        False  # as TF-NAS does every epoch: it forgets momentum and Adam's moments
    )
    lr: NotNegative = 0.02
    momentum: float = 0.9
    weight_decay: NotNegative = 1e-5
    clip: NotNegative = 5.0  # norm of gradients
    alpha_lr: NotNegative = 0.01
    alpha_betas: tuple[float, float] = (0.5, 0.999)
    alpha_weight_decay: NotNegative = 5e-4
    start_temperature: Positive = 5.0  # of Gumbel softmax, in the first epoch that trains alphas
    temperature_decay: Positive = 0.96  # per epoch
    latency_weight: NotNegative = 0.1

    @property
    def network(self) -> str:
        """The network whose latency the target is: the classifier, or with both losses the joint
        model."""
        return "DC-NAS" if self.loss == "both" else "C-NAS"

    def temperature(self, epoch: int) -> float:
        """Of Gumbel softmax in an epoch (from 0): constant while weights train alone, then falling."""
        return self.start_temperature * self.temperature_decay ** max(0, epoch - self.weight_epochs)


def check_target(space: Space, table: Table, settings: SearchSettings) -> None:
    """An error unless the settings are in range, the table knows every operator, and a network can meet
    the target."""
    try:
        TypeAdapter(SearchSettings).validate_python(asdict(settings))
    except ValidationError as error:
        raise InputError(f"{sentence(error)}.") from None
    require_operators(table, space)
    low, high = latency_range_ms(space, table, settings.network, settings.learn_beta)
    if not low <= settings.target_ms <= high:
        reach = f"this space and table reach {low:.2f} to {high:.2f} ms"
        raise InputError(f"target_ms is {settings.target_ms:g}, but {reach}.")


def latency_range_ms(
    space: Space, table: Table, network: str = "C-NAS", learn_beta: bool = False
) -> tuple[float, float]:
    """Latencies of the fastest and the slowest network: of all layers, or with learned beta the fastest
    of one block per stage."""
    ranges = [[layer.hidden_range(o) for o in space.candidates] for layer in space.layers]
    least, most = ([[pair[end] for pair in layer] for layer in ranges] for end in (0, 1))
    slowest = [float(ms.max()) for ms in operators_ms(table, space, most)]
    fastest = [float(ms.min()) for ms in operators_ms(table, space, least)]
    if learn_beta:
        fastest = [fastest[stage[0]] for stage in space.stages]
    base = base_ms(table, network)
    return base + sum(fastest), base + sum(slowest)
