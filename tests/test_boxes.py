"""Squares cut from images and feature maps, against slicing by hand."""

import pytest
import torch

from dcnas.models.crops import BOX_SIZE, crop_boxes, crop_features


def boxes_at(*corners: tuple[int, int]) -> torch.Tensor:
    """(1, K, 4) from pairs of left, top."""
    return torch.tensor([[[left, top, left + BOX_SIZE, top + BOX_SIZE] for left, top in corners]])


def coordinates(height: int, width: int) -> torch.Tensor:
    """(1, 2, H, W): each place holds its own row and column."""
    return torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))[None]


@pytest.mark.parametrize("channels, height, width", [(1, 96, 96), (3, 40, 61)])
def test_crop_boxes_is_slicing(channels, height, width):
    """Also at the edges; image by image."""
    stream = torch.Generator().manual_seed(0)
    images = torch.rand(5, channels, height, width, generator=stream)
    left = torch.randint(width - BOX_SIZE + 1, (5, 3), generator=stream)
    top = torch.randint(height - BOX_SIZE + 1, (5, 3), generator=stream)
    left[0, 0] = top[0, 0] = 0
    left[1, 1], top[1, 1] = width - BOX_SIZE, height - BOX_SIZE
    boxes = torch.stack([left, top, left + BOX_SIZE, top + BOX_SIZE], -1)
    by_hand = [image[:, y0:y1, x0:x1] for image, four in zip(images, boxes) for x0, y0, x1, y1 in four]
    assert torch.equal(crop_boxes(images, boxes), torch.stack(by_hand))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_crop_boxes_keeps_type_and_gradient(layout):
    images = torch.zeros(2, 4, 40, 40).contiguous(memory_format=layout).requires_grad_()
    boxes = boxes_at((0, 0), (8, 8)).expand(2, 2, 4)
    crop_boxes(images, boxes).sum().backward()
    covered = torch.zeros(40, 40)
    covered[:32, :32] += 1
    covered[8:, 8:] += 1
    assert torch.equal(images.grad, covered.expand(2, 4, 40, 40))
    assert crop_boxes(images.detach().to(torch.uint8), boxes).dtype == torch.uint8


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16])
def test_crop_features_takes_the_nearest_place(stride):
    """At 1/8 resolution the digit of a box at 8 * n is the 4 x 4 region at n."""
    maps, size = coordinates(96 // stride, 96 // stride), BOX_SIZE // stride
    corners = [(left, top) for left in range(0, 65, 3) for top in (0, 5, 31, 64)]
    for crop, (left, top) in zip(crop_features(maps, boxes_at(*corners), stride), corners, strict=True):
        row, column = crop[:, 0, 0].tolist()
        assert torch.equal(crop, maps[0, :, row : row + size, column : column + size])
        assert abs(row * stride - top) <= stride / 2 and abs(column * stride - left) <= stride / 2


@pytest.mark.parametrize(
    ("height", "width", "stride", "corner", "first"),
    [
        (12, 12, 8, (90, 3), (0, 8)),
        (12, 12, 8, (0, 80), (8, 0)),
        (12, 12, 8, (-20, -20), (0, 0)),
        (13, 8, 8, (61 - 32, 97 - 32), (8, 4)),  # a 97 x 61 image, padded to 104 x 64
        (2, 2, 64, (40, 0), (0, 1)),  # a map coarser than the box
    ],
)
def test_crop_features_stays_inside_the_map(height, width, stride, corner, first):
    (crop,) = crop_features(coordinates(height, width), boxes_at(corner), stride)
    size = max(1, BOX_SIZE // stride)
    assert crop.shape == (2, size, size) and tuple(crop[:, 0, 0].tolist()) == first
