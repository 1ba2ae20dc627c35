"""Squares cut out of images or feature maps at ground-truth places (Section 3: "the two digits are extracted from the image
using ground truth locations").

A box is left, top, right, bottom in pixels of the image, right and bottom excluded.
"""

import torch
from torch import Tensor

from .errors import InputError

BOX_SIZE = 32  # a digit's square; recovered from the paper's FLOPs


def crop_squares(maps: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Squares of `size` from `maps` (B, C, H, W) at rows `top` and columns `left`, both (B, K): (B * K, C, size, size)."""
    count = top.shape[1]
    steps = torch.arange(size, device=maps.device)
    batch = torch.arange(len(maps), device=maps.device).view(-1, 1).expand(-1, count).reshape(-1, 1, 1)
    rows = top.reshape(-1, 1, 1) + steps.view(1, -1, 1)
    columns = left.reshape(-1, 1, 1) + steps.view(1, 1, -1)
    return maps[batch, :, rows, columns].permute(0, 3, 1, 2)


def crop_boxes(images: Tensor, boxes: Tensor) -> Tensor:
    """The squares that `boxes` (B, K, 4) cut from `images` (B, C, H, W): (B * K, C, 32, 32), digit by digit.

    `InputError` for boxes of another form or, on the CPU, beyond an image, where indexing would wrap around; no GPU is waited for.
    """
    if boxes.dim() != 3 or boxes.shape[-1] != 4 or len(boxes) != len(images) or boxes.dtype not in (torch.int64, torch.int32):
        raise InputError(f"boxes are {boxes.dtype} {tuple(boxes.shape)}, but whole numbers ({len(images)}, K, 4) were expected.")
    if boxes.device.type == "cpu" and not (torch.jit.is_tracing() or torch.compiler.is_compiling()):
        height, width = images.shape[-2:]
        corners = boxes[..., :2]
        if (corners < 0).any() or (corners > corners.new_tensor([width - BOX_SIZE, height - BOX_SIZE])).any():
            raise InputError(f"a box lies beyond its image of {width} x {height} pixels, or that is smaller than a digit's square.")
    return crop_squares(images, boxes[..., 1], boxes[..., 0], BOX_SIZE)


def crop_features(maps: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """The regions of `boxes` (B, K, 4) in feature maps that are `stride` times smaller than the image: (B * K, C, s, s)
    with s = 32 / stride (at least 1), at the nearest place of the coarser grid."""
    size = max(1, BOX_SIZE // stride)
    # round(x / stride) in integers; the last place is one at which the region still lies inside the map
    top = ((boxes[..., 1] + stride // 2) // stride).clamp(0, maps.shape[-2] - size)
    left = ((boxes[..., 0] + stride // 2) // stride).clamp(0, maps.shape[-1] - size)
    return crop_squares(maps, top, left, size)
