"""Networks to set beside a found one: by hand, from the shelf and random, all of a given latency.

DC-Net is a UNet with a linear head (Section 3.3), MobileNetV3 torchvision's with the same decoder. Of
each the member of its family is taken that is nearest to the latency, as measured beside networks whose
latency the table knows.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import torch

from ..build import build
from ..data.pictures import STRIDE
from ..errors import InputError
from ..latency.measure import device_named
from ..latency.table import Table
from ..models import count_flops
from ..nas.derive import fit_widths
from ..nas.lut import predicted_ms
from ..nas.networks import IMAGE_CHANNELS
from ..nas.space import Architecture, Space, random_architecture
from .derivation import latencies_by_table

SPREAD, NEAREST = 6, 3  # networks of a family that are measured first; near each target, then
UNET_WIDTHS, UNET_FACTORS = (4, 8, 12, 16, 24, 32, 48, 64), (1.25, 1.5, 1.75, 2.0)
MOBILE_WIDTHS = (0.25, 0.35, 0.5, 0.6, 0.75, 0.9, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)


def families(network: str, stem_stride: int) -> dict[str, dict[str, dict]]:
    """Family to label to what `build` takes, for what does the same as C-NAS, D-NAS or DC-NAS."""
    how = dict(kind="MobileNetV3", network=network, stem_stride=stem_stride)
    mobile = {f"MobileNetV3 x {width:g}": how | dict(width=width) for width in MOBILE_WIDTHS}
    if network == "C-NAS":
        return {"MobileNetV3": mobile}
    kind = "UNet" if network == "D-NAS" else "DC-Net"
    unets = {
        f"{kind} b={b} m={m:g}": dict(kind=kind, unet=dict(b=b, d=4, m=m, c=2))
        for b, m in product(UNET_WIDTHS, UNET_FACTORS)
    }
    return {kind: unets, "MobileNetV3": mobile}


def device_of(table: Table) -> torch.device | None:
    """The device that a table is of; None where that is not of this machine."""
    try:
        return device_named(table.conditions.device)
    except InputError:
        return None


def times_ms(nets: Mapping[str, dict], table: Table, classes: int, rounds: int) -> dict[str, float]:
    """Latencies in the table's milliseconds, measured here, side by side.

    On another device than the table's they are what that would take if all networks were slower there
    by one factor.
    """
    device, models = device_of(table) or torch.device("cpu"), _models(nets, classes)
    measured, slowdown = latencies_by_table(models, table, rounds=rounds, device=device, progress=True)
    return {name: latency.median_ms / slowdown for name, latency in measured.items()}


def _models(nets: Mapping[str, dict], classes: int) -> dict[str, torch.nn.Module]:
    with torch.random.fork_rng():
        return {name: build(net, classes) for name, net in nets.items()}


def nearest(
    family: Mapping[str, dict], targets_ms: Sequence[float], table: Table, classes: int, rounds: int = 5
) -> list[str]:
    """Of each target the label whose measured latency is nearest to it, in proportion.

    A few of the family give latency over FLOPs; those that it says are near the targets are measured.
    """
    image = torch.zeros(1, IMAGE_CHANNELS, STRIDE, STRIDE)  # FLOPs grow with the pixels in all alike
    flops = {name: count_flops(model, image) for name, model in _models(family, classes).items()}
    ordered = sorted(flops, key=flops.get)
    some = [ordered[round(i)] for i in np.linspace(0, len(ordered) - 1, SPREAD)]
    known = times_ms({name: family[name] for name in some}, table, classes, rounds)
    by_flops = np.log([flops[name] for name in some]), np.log([known[name] for name in some])
    guess = dict(zip(ordered, np.interp(np.log([flops[name] for name in ordered]), *by_flops)))
    near: set[str] = set()
    for target in np.log(targets_ms):
        near |= {*sorted(ordered, key=lambda name: abs(guess[name] - target))[:NEAREST]}
    known |= times_ms({name: family[name] for name in sorted(near)}, table, classes, rounds)
    return [min(known, key=lambda name: abs(np.log(known[name] / ms))) for ms in targets_ms]


def random_of(space: Space, table: Table, network: str, target_ms: float, seed: int) -> Architecture:
    """A random network whose widths are fitted to the target by the table."""
    drawn = random_architecture(space, np.random.default_rng(seed))
    return fit_widths(drawn, target_ms, lambda a: predicted_ms(table, a, network))
