"""DnCNN, with which denoising by networks began (Section 2, [41]): a plain chain of convolutions."""

from torch import Tensor, nn


class DnCNN(nn.Module):
    """A noisy image (B, channels, H, W) to the denoised one, of the same shape.

    `residual`, as in [41]: the last convolution gives the noise, which is taken off. Noise of the full
    range, sigma up to 1, is hard to carry through all layers so exactly.
    """

    def __init__(self, channels: int = 3, depth: int = 17, width: int = 64, residual: bool = False):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
            layers += [nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        return x - self.layers(x) if self.residual else self.layers(x)
