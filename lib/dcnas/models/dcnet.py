"""DC-Net, the joint denoiser and classifier designed by hand (Section 3.3, Figure 2 i and ii, Table 3).

Sequential: UNet, then the classifier MB2.5-M on the digits of the denoised image. Integrated shares the
UNet's encoder and adds less than 10 K FLOPs (Table 3): that can only be the digit's region of the
deepest encoder map, a global max pooling and a linear layer.
"""

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from .classifier import build_classifier
from .crops import crop_boxes, crop_features
from .unet import UNet

JOINING = ("integrated", "sequential")
UNETS: dict[str, dict] = {"baseline": dict(b=32, d=4, m=2, c=2), "reduced": dict(b=8, d=4, m=1.5, c=2)}


class Sequential(nn.Module):
    """Noisy (B, 1, H, W) and boxes (B, K, 4) to denoised (B, 1, H, W) and logits (B, K, classes)."""

    def __init__(self, unet: UNet, classifier: nn.Module):
        super().__init__()
        self.unet, self.classifier = unet, classifier

    def forward(self, noisy: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        denoised = self.unet(noisy)
        logits = self.classifier(crop_boxes(denoised, boxes))
        return denoised, logits.unflatten(0, boxes.shape[:2])


class Integrated(nn.Module):
    """Noisy (B, 1, H, W) and boxes (B, K, 4) to denoised (B, 1, H, W) and logits (B, K, classes)."""

    def __init__(self, unet: UNet, classes: int = 10):
        super().__init__()
        self.unet, self.head = unet, nn.Linear(unet.widths[-1], classes)

    def forward(self, noisy: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        height, width = noisy.shape[-2:]
        maps = self.unet.encode(self.unet.pad(noisy))
        logits = self.head(crop_features(maps[-1], boxes, self.unet.stride).amax((-2, -1)))
        return self.unet.decode(maps)[..., :height, :width], logits.unflatten(0, boxes.shape[:2])


def build_dcnet(joining: str, size: str) -> Integrated | Sequential:
    """DC-Net "integrated" or "sequential", of size "baseline" or "reduced" (Table 3)."""
    unet = UNet(**UNETS[size])
    return Integrated(unet) if joining == "integrated" else Sequential(unet, build_classifier("MB2.5-M"))


class EncoderClassifier(nn.Module):
    """A control of Section 3.3: Integrated's encoder and head on the noisy square alone, to logits."""

    def __init__(self, unet: UNet):
        super().__init__()
        joint = Integrated(unet)
        self.encoder, self.head = joint.unet.down, joint.head

    def forward(self, crops: Tensor) -> Tensor:
        for i, level in enumerate(self.encoder):
            crops = level(max_pool2d(crops, 2) if i else crops)
        return self.head(crops.amax((-2, -1)))
