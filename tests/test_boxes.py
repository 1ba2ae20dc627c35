"""Squares cut from images and feature maps, against slicing by hand."""

import pytest
import torch

from dcnas.models.crops import BOX_SIZE, crop_boxes, crop_features, crop_squares


def boxes_at(*corners: tuple[int, int]) -> torch.Tensor:
    """(1, K, 4) from pairs of left, top."""
    return torch.tensor([[[left, top, left + BOX_SIZE, top + BOX_SIZE] for left, top in corners]])


def coordinates(height: int, width: int) -> torch.Tensor:
    """(1, 2, H, W): each place holds its own row and column."""
    return torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))[None]


def region(maps: torch.Tensor, top: int, left: int, size: int) -> bool:
    """Whether maps (2, s, s), cut from `coordinates`, is the square of `size` at top, left."""
    rows, columns = torch.meshgrid(
        torch.arange(top, top + size), torch.arange(left, left + size), indexing="ij"
    )
    return torch.equal(maps, torch.stack([rows, columns]))


@pytest.mark.parametrize("channels, height, width", [(1, 96, 96), (3, 40, 61)])
def test_crop_boxes_is_slicing(channels, height, width):
    stream = torch.Generator().manual_seed(0)
    images = torch.rand(5, channels, height, width, generator=stream)
    left = torch.randint(width - BOX_SIZE + 1, (5, 3), generator=stream)
    top = torch.randint(height - BOX_SIZE + 1, (5, 3), generator=stream)
    left[0, 0] = top[0, 0] = 0
    left[1, 1], top[1, 1] = width - BOX_SIZE, height - BOX_SIZE
    boxes = torch.stack([left, top, left + BOX_SIZE, top + BOX_SIZE], -1)
    crops = crop_boxes(images, boxes)
    assert crops.shape == (15, channels, BOX_SIZE, BOX_SIZE)
    for i, image in enumerate(images):
        for k, (x0, y0, x1, y1) in enumerate(boxes[i].tolist()):
            assert torch.equal(crops[3 * i + k], image[:, y0:y1, x0:x1])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_crop_boxes_keeps_type_layout_and_gradient(layout):
    images = torch.zeros(2, 4, 40, 40).contiguous(memory_format=layout).requires_grad_()
    boxes = boxes_at((0, 0), (8, 8)).expand(2, 2, 4)
    crop_boxes(images, boxes).sum().backward()
    covered = torch.zeros(40, 40)
    covered[:32, :32] += 1
    covered[8:, 8:] += 1
    assert torch.equal(images.grad, covered.expand(2, 4, 40, 40))
    assert crop_boxes(images.detach().to(torch.uint8), boxes).dtype == torch.uint8


def test_crop_squares_of_any_size():
    maps = coordinates(9, 7)
    squares = crop_squares(maps, torch.tensor([[0, 6]]), torch.tensor([[4, 1]]), 3)
    assert region(squares[0], 0, 4, 3) and region(squares[1], 6, 1, 3)


def test_crop_features_takes_the_same_part_of_the_image():
    """At 1/8 resolution the digit of a box at 8 * n is the 4 x 4 region at n."""
    maps = coordinates(12, 12)
    for left, top in [(0, 0), (64, 64), (8, 40), (64, 0)]:
        (crop,) = crop_features(maps, boxes_at((left, top)), 8)
        assert region(crop, top // 8, left // 8, 4)


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16])
def test_crop_features_takes_the_nearest_place(stride):
    side = 96 // stride
    maps, size = coordinates(side, side), BOX_SIZE // stride
    corners = [(left, top) for left in range(0, 65, 3) for top in (0, 5, 31, 64)]
    for crop, (left, top) in zip(crop_features(maps, boxes_at(*corners), stride), corners, strict=True):
        row, column = crop[:, 0, 0].tolist()
        assert region(crop, row, column, size)
        assert abs(row * stride - top) <= stride / 2 and abs(column * stride - left) <= stride / 2


def test_crop_features_stays_inside_the_map():
    corners = [(64, 64), (90, 3), (0, 80), (-20, -20)]
    crops = crop_features(coordinates(12, 12), boxes_at(*corners), 8)
    for crop, (top, left) in zip(crops, [(8, 8), (0, 8), (8, 0), (0, 0)], strict=True):
        assert region(crop, top, left, 4)
    # a 97 x 61 image, padded to 104 x 64
    crops = crop_features(coordinates(13, 8), boxes_at((61 - 32, 97 - 32)), 8)
    assert region(crops[0], 8, 4, 4)


def test_crop_features_of_a_map_coarser_than_the_box():
    crops = crop_features(coordinates(2, 2), boxes_at((0, 0), (40, 0), (64, 64)), 64)
    assert [crop.flatten().tolist() for crop in crops] == [[0, 0], [0, 1], [1, 1]]


def test_digits_come_image_by_image():
    maps = torch.arange(2).view(2, 1, 1, 1).expand(2, 1, 12, 12)
    boxes = boxes_at((0, 0), (8, 8), (16, 16)).expand(2, 3, 4)
    assert crop_features(maps, boxes, 8)[:, 0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1]
