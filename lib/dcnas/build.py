"""One builder for every network: a run, a card and the command line name it by the same dictionary.

{"kind": "MB2.5-M"}, {"kind": "unet", "unet": {"b": 8, "d": 4, "m": 1.5, "c": 2}}, {"kind": "DC-NAS",
"architecture": {...}}, ...
"""

from torch import nn
from torchvision.models import mobilenet_v2, resnet18

from .errors import InputError
from .models import (
    CLASSIFIERS,
    JOINING,
    VARIANTS,
    EncoderClassifier,
    Integrated,
    Sequential,
    UNet,
    build_classifier,
)
from .nas.mobilenet import MobileNet
from .nas.networks import (
    MANUAL,
    NETWORKS,
    Grey,
    ManualJoint,
    OnlyClassifies,
    OnlyDenoises,
    PlainDenoiser,
    build_network,
)
from .nas.space import Architecture, from_record, widened

TORCHVISION = {"ResNet-18": resnet18, "MobileNetV2": mobilenet_v2}
# grey; the others take three channels
ON_DIGITS = ("unet", *JOINING, "encoder", *CLASSIFIERS, *VARIANTS)
KINDS = (*ON_DIGITS, *NETWORKS, *MANUAL, *TORCHVISION, "MobileNetV3")


def build(net: dict, classes: int = 10, architecture: Architecture | None = None) -> nn.Module:
    """The network that `net` describes, with fresh weights from torch's global seed.

    `architecture` stands in for one that `net` does not hold; `upscaled` widens it (Table 4); `grey` is
    for grey images.
    """
    if net.get("grey"):
        plain = {name: value for name, value in net.items() if name != "grey"}
        return Grey(build(plain, classes, architecture))
    kind, unet = net["kind"], net.get("unet", {})
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}, but one of {', '.join(KINDS)} was expected.")
    if kind == "unet":
        return UNet(**unet)
    if kind == "integrated":
        return Integrated(UNet(**unet), classes)
    if kind == "sequential":
        return Sequential(UNet(**unet), build_classifier(net["classifier"]))
    if kind == "encoder":
        return EncoderClassifier(UNet(**unet))
    if kind in ON_DIGITS:
        return build_classifier(kind)
    if kind == "MobileNetV3":
        return MobileNet(classes, **{name: value for name, value in net.items() if name != "kind"})
    if kind in TORCHVISION:
        return OnlyClassifies(TORCHVISION[kind](num_classes=classes))
    if architecture is None and "architecture" in net:
        architecture = from_record(net["architecture"])
    if architecture is not None and net.get("upscaled", 1.0) != 1:
        architecture = widened(architecture, architecture.space.width * net["upscaled"])
    regular = {name: net[name] for name in ("dropout", "drop_connect") if name in net}
    if kind in NETWORKS:
        return build_network(kind, architecture, net.get("decoder", "conv"), **regular)
    if kind == "UNet":
        return OnlyDenoises(**unet)
    if kind.startswith("DnCNN"):
        return PlainDenoiser(residual=kind == "DnCNN, residual")
    return ManualJoint(classes, architecture if kind == "DC-Net_tail" else None, unet, **regular)
