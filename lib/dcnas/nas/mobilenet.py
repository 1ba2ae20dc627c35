"""MobileNetV3 in the place of a searched network: what an engineer would take from the shelf.

The encoder is torchvision's, with random weights, up to where it would halve the maps for the last time;
decoder and what a network returns are those of Section 4.
"""

from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large

from .networks import Decoder, Level

ENCODER_HALVINGS = 3  # after the stem's, as in the space of Section 4


def _stride(block: nn.Module) -> int:
    return max(conv.stride[0] for conv in block.modules() if isinstance(conv, nn.Conv2d))


def _channels(block: nn.Module) -> int:
    return [conv.out_channels for conv in block.modules() if isinstance(conv, nn.Conv2d)][-1]


class MobileNet(nn.Module):
    """(B, 3, H, W), multiples of 32, to (denoised, logits), of which one is None in the place of a
    `network` that does not give it (C-NAS, D-NAS; DC-NAS gives both).

    `width` multiplies all channels; `stem_stride` is that of the space, 1 for small images.
    """

    def __init__(
        self, classes: int, network: str, width: float, stem_stride: int = 2, decoder: str = "conv"
    ):
        super().__init__()
        # batch norm as in the other networks: torchvision's statistics lag behind in short trainings
        how = dict(width_mult=width, num_classes=max(1, classes), dropout=0.0, norm_layer=nn.BatchNorm2d)
        model = mobilenet_v3_large(**how)
        model.features[0][0].stride = (stem_stride, stem_stride)
        parts, halvings = [[model.features[0]]], 0
        for block in model.features[1:]:
            halves = _stride(block) == 2
            halvings += halves
            if halves and halvings <= ENCODER_HALVINGS + 1:
                parts.append([])
            parts[-1].append(block)
        *encoder, tail = (nn.Sequential(*blocks) for blocks in parts)
        self.encoder, self.tail, self.decoder = nn.ModuleList(encoder), None, None
        if network != "D-NAS":
            self.tail = nn.Sequential(tail, model.avgpool, nn.Flatten(), model.classifier)
        if network != "C-NAS":
            ratios = [stem_stride] + [2] * ENCODER_HALVINGS
            levels = [Level(_channels(part), ratio) for part, ratio in zip(encoder, ratios, strict=True)]
            self.decoder = Decoder(levels, decoder)

    def forward(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        maps = []
        for part in self.encoder:
            maps.append(part(maps[-1] if maps else x))
        denoised = None if self.decoder is None else self.decoder(x, maps)
        return denoised, None if self.tail is None else self.tail(maps[-1])
