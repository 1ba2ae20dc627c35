"""The digit classifiers of Section 3.1 and Appendix A (Tables 1 and 6).

Two convolutional layers, each with GroupNorm, max pooling and ReLU, then a global max pooling and a
linear layer; the MB models have an MBConv second. Widths are recovered from the FLOPs of Table 6 (the
350 K of MB2.5-M are 305 with two digits swapped: only 305 K fits Table 3); others fit four as well.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from .blocks import MBConv, conv_norm


@dataclass(frozen=True)
class ClassifierSpec:
    """Widths of the two layers, and the expansion rate of the second (None: a normal convolution)."""

    first: int
    second: int
    expansion: float | None = None


CLASSIFIERS: dict[str, ClassifierSpec] = {
    "Conv-L": ClassifierSpec(6, 24),
    "Conv-M": ClassifierSpec(5, 21),
    "Conv-S": ClassifierSpec(3, 15),
    "MB1-S": ClassifierSpec(6, 24, 1),
    "MB2.5-S": ClassifierSpec(4, 16, 2.5),
    "MB4-S": ClassifierSpec(3, 18, 4),
    "MB2.5-M": ClassifierSpec(6, 24, 2.5),
    "MB4-L": ClassifierSpec(6, 24, 4),
}
# the same networks of Table 6 with other widths, as near to its FLOPs
VARIANTS: dict[str, ClassifierSpec] = {
    "MB4-S (2, 35)": ClassifierSpec(2, 35, 4),
    "MB4-S (4, 7)": ClassifierSpec(4, 7, 4),
    "Conv-S (4, 10)": ClassifierSpec(4, 10),
    "Conv-M (7, 14)": ClassifierSpec(7, 14),
    "MB1-S (5, 34)": ClassifierSpec(5, 34, 1),
}


class Classifier(nn.Module):
    """Crops (B, in_channels, 32, 32), or any size from 4 pixels on, to logits (B, classes)."""

    def __init__(
        self,
        first: int,
        second: int,
        expansion: float | None = None,
        in_channels: int = 1,
        classes: int = 10,
    ):
        super().__init__()
        middle = conv_norm(first, second, 3)  # drawn in any case: published weights began after these
        if expansion is not None:
            middle = [MBConv(first, second, expansion)]
        first_layer = [*conv_norm(in_channels, first, 3), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*first_layer, *middle, nn.MaxPool2d(2), nn.ReLU(inplace=True))
        self.head = nn.Linear(second, classes)

    def forward(self, crops: Tensor) -> Tensor:
        return self.head(self.features(crops).amax((-2, -1)))


def build_classifier(name: str) -> Classifier:
    """A network of Table 6 by its name, such as "MB2.5-M", or a variant, such as "MB4-S (4, 7)"."""
    return Classifier(**vars((CLASSIFIERS | VARIANTS)[name]))
