"""Squares cut out of images or feature maps at ground-truth places (Section 3).

A box is left, top, right, bottom in pixels of the image, right and bottom excluded.
"""

import torch
from torch import Tensor

BOX_SIZE = 32  # a digit's square; recovered from the paper's FLOPs


def crop_squares(maps: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """From `maps` (B, C, H, W) at rows `top` and columns `left`, both (B, K): (B * K, C, size, size)."""
    count = top.shape[1]
    steps = torch.arange(size, device=maps.device)
    batch = torch.arange(len(maps), device=maps.device).view(-1, 1).expand(-1, count).reshape(-1, 1, 1)
    rows = top.reshape(-1, 1, 1) + steps.view(1, -1, 1)
    columns = left.reshape(-1, 1, 1) + steps.view(1, 1, -1)
    return maps[batch, :, rows, columns].permute(0, 3, 1, 2)


def crop_boxes(images: Tensor, boxes: Tensor) -> Tensor:
    """From `images` (B, C, H, W) by `boxes` (B, K, 4): (B * K, C, 32, 32), image by image."""
    return crop_squares(images, boxes[..., 1], boxes[..., 0], BOX_SIZE)


def crop_features(maps: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """The nearest regions of `boxes` (B, K, 4) in maps that are `stride` times smaller than the image:
    (B * K, C, s, s) with s = 32 / stride, at least 1.
    """
    size = max(1, BOX_SIZE // stride)
    # round(x / stride) in integers; the last place is one at which the region still lies inside the map
    top = ((boxes[..., 1] + stride // 2) // stride).clamp(0, maps.shape[-2] - size)
    left = ((boxes[..., 0] + stride // 2) // stride).clamp(0, maps.shape[-1] - size)
    return crop_squares(maps, top, left, size)
