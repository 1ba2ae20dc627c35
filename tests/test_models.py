"""The networks of Section 3: FLOPs to the digit, shapes, gradients, and what each can see."""

import csv

import pytest
import torch
from torch import nn

from dcnas.models import (
    CLASSIFIERS,
    UNETS,
    VARIANTS,
    DnCNN,
    UNet,
    build_classifier,
    build_dcnet,
    count_flops,
    count_parameters,
    unet_widths,
)
from dcnas.models.crops import BOX_SIZE, crop_boxes, crop_features
from dcnas.paths import paper_dir
from dcnas.study.presets import runs
from dcnas.study.runs import network_of

UNET_FLOPS = {"baseline": 1_301_815_296, "reduced": 51_244_416}
CLASSIFIER_FLOPS = {"Conv-L": 448_752, "Conv-M": 340_690, "Conv-S": 166_038, "MB1-S": 175_344}
CLASSIFIER_FLOPS |= {"MB2.5-S": 177_824, "MB4-S": 189_108, "MB2.5-M": 305_136, "MB4-L": 418_032}
VARIANT_FLOPS = dict(zip(VARIANTS, (188.5e3, 189.3e3, 162.4e3, 344.2e3, 177.0e3), strict=True))
DCNET_FLOPS = {
    ("integrated", "baseline"): 1_301_817_856,
    ("sequential", "baseline"): 1_302_120_432,
    ("integrated", "reduced"): 51_244_696,
    ("sequential", "reduced"): 51_549_552,
}
IMAGE, CROP = torch.zeros(1, 1, 96, 96), torch.zeros(1, 1, 32, 32)
BOX, BOXES = torch.tensor([[[0, 0, 32, 32]]]), torch.tensor([[[0, 0, 32, 32], [16, 16, 48, 48]]])
NETWORKS = {run.label: run for run in runs("section3", "smoke")}  # every network that the study trains


def paper(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((paper_dir() / f"{name}.csv").read_text().splitlines()))


def assert_printed(flops: int, millions: str) -> None:
    """The paper's number, with as many digits as it has."""
    assert round(flops / 1e6, len(millions.partition(".")[2])) == float(millions)


EXPECTED = UNET_FLOPS | CLASSIFIER_FLOPS | DCNET_FLOPS


@pytest.mark.parametrize("network", EXPECTED, ids=str)
def test_flops(network):
    if network in DCNET_FLOPS:
        found = count_flops(build_dcnet(*network), IMAGE, BOX)
    elif network in UNETS:
        found = count_flops(UNet(**UNETS[network]), IMAGE)
    else:
        found = count_flops(build_classifier(network), CROP)
    assert found == EXPECTED[network]


def test_variants_are_as_near_to_table_6():
    rows = {row["model"]: float(row["flops_k"]) for row in paper("table1_6_classifiers")}
    for name, expected in VARIANT_FLOPS.items():
        flops, network = count_flops(build_classifier(name), CROP), name.partition(" ")[0]
        assert round(flops, -2) == expected
        assert VARIANTS[name].expansion == CLASSIFIERS[network].expansion
        assert flops / 1e3 == pytest.approx(rows[network], abs=1.3)  # the others are 1.1 to 4.3 off


def test_flops_are_those_of_the_paper_s_tables():
    for row in paper("table2_unet"):
        size = "baseline" if "Baseline" in row["model"] else "reduced"
        assert UNETS[size] == {k: float(row[k]) for k in "bdmc"}
        assert_printed(UNET_FLOPS[size], row["flops_m"])
    for row in paper("table3_dcnet"):
        size = row["model"].removeprefix("DC-Net ").lower()
        assert_printed(DCNET_FLOPS[row["type"].lower(), size], row["flops_m"])
    rows = {row["model"]: float(row["flops_k"]) for row in paper("table1_6_classifiers")}
    assert rows["MB2.5-M"] == 350  # two digits swapped: 305 is what Table 3 needs
    for size, flops in UNET_FLOPS.items():
        assert DCNET_FLOPS["sequential", size] == flops + CLASSIFIER_FLOPS["MB2.5-M"]
    thousands = {name: flops / 1e3 for name, flops in CLASSIFIER_FLOPS.items()}
    assert thousands == pytest.approx(rows | {"MB2.5-M": 305}, rel=0.02)


def test_dncnn_is_that_of_its_paper():
    """About 0.56 million parameters; it keeps shape at any size."""
    grey, x = DnCNN(channels=1).eval(), torch.rand(2, 1, 17, 9)
    assert count_parameters(grey) == 556_097 and grey(x).shape == x.shape


def test_widths():
    for b, d, m, widths in (
        (32, 4, 2, [32, 64, 128, 256]),
        (8, 4, 1.5, [8, 12, 20, 28]),  # 18 and 27 go to the nearest multiple of 4, halves upwards
        (8, 4, 0.5, [8, 4, 4, 4]),  # down to a width of exactly 1, and never below 4 after rounding
    ):
        assert unet_widths(b, d, m) == widths
        net = UNet(b, d, m, 1)
        assert net.widths == widths and [level[-1][0].out_channels for level in net.down] == widths


@pytest.mark.parametrize("height, width, block", [(8, 8, "conv"), (97, 61, "conv"), (8, 31, "mbconv")])
def test_any_size(height, width, block):
    torch.manual_seed(0)
    net = UNet(8, 4, 1.5, 1, block=block).eval()
    x = torch.rand(2, 1, height, width)
    y = net(x)
    assert y.shape == x.shape and y.isfinite().all()
    rows, columns = (torch.arange(-(-n // 8) * 8).clamp(max=n - 1) for n in (height, width))
    padded = x[..., rows[:, None], columns]  # edges repeated to the right and below
    torch.testing.assert_close(net(padded)[..., :height, :width], y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("label", NETWORKS)
def test_output_and_gradients(label):
    task = NETWORKS[label].task
    torch.manual_seed(1)
    net, x = network_of(NETWORKS[label]), torch.rand(2, 1, *((48, 48) if task == "joint" else (32, 32)))
    outputs = net(x, BOXES.expand(2, 2, 4)) if task == "joint" else net(x)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    shapes = {"classify": [(2, 10)], "denoise": [x.shape], "joint": [x.shape, (2, 2, 10)]}[task]
    assert [o.shape for o in outputs] == shapes
    sum((o * torch.randn(o.shape)).sum() for o in outputs).backward()
    for name, p in net.named_parameters():
        assert p.grad.isfinite().all(), name
        assert p.dim() == 1 or p.grad.abs().sum() > 0, name


def test_heads_see_the_largest_value_of_each_channel():
    x, boxes = torch.rand(2, 1, 64, 64), torch.tensor([[[0, 0, 32, 32], [32, 16, 64, 48]]] * 2)
    classifier = build_classifier("Conv-S")
    torch.testing.assert_close(classifier(x), classifier.head(classifier.features(x).amax((2, 3))))
    joint = build_dcnet("integrated", "reduced")
    deepest = joint.unet.encode(x)[-1]
    assert deepest.shape == (2, 28, 8, 8)
    regions = torch.stack([deepest[:, :, :4, :4], deepest[:, :, 2:6, 4:]], 1)
    torch.testing.assert_close(joint(x, boxes)[1], joint.head(regions.amax((3, 4))))


def test_a_unet_sees_how_bright_an_image_is():
    """GroupNorm takes any common factor out of its input; the convolution's bias keeps it visible."""

    def change() -> float:  # when the image is dimmed, in standard deviations of the output
        x = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(3))
        before, after = net(x), net(0.3 * x)
        return ((before - after).std() / before.std()).item()

    torch.manual_seed(0)
    net = UNet(**UNETS["reduced"]).requires_grad_(False)
    assert change() > 0.1
    for module in net.modules():  # the measure is sharp: without biases the same network sees nothing
        if isinstance(module, nn.Conv2d) and module is not net.out:
            nn.init.zeros_(module.bias)
    assert change() < 0.02


DECODER = {"unet.up", "unet.merge", "unet.out"}


@pytest.mark.parametrize(
    ("joining", "by_entropy"),
    [("integrated", {"unet.down", "head"}), ("sequential", {"unet.down", "classifier"} | DECODER)],
)
def test_which_loss_trains_what(joining, by_entropy):
    """The cross-entropy reaches the decoder where the classifier looks at the denoised image alone."""
    for part, expected in ((0, {"unet.down"} | DECODER), (1, by_entropy)):
        net = build_dcnet(joining, "reduced")
        net(torch.rand(1, 1, 48, 48), BOXES)[part].square().sum().backward()
        names = [name for name, p in net.named_parameters() if p.grad is not None and p.grad.any()]
        found = {".".join(name.split(".")[: 2 if "unet" in name else 1]) for name in names}
        assert found == expected


def boxes_at(*corners: tuple[int, int]) -> torch.Tensor:
    """(1, K, 4) from pairs of left, top."""
    return torch.tensor([[[left, top, left + BOX_SIZE, top + BOX_SIZE] for left, top in corners]])


def coordinates(height: int, width: int) -> torch.Tensor:
    """(1, 2, H, W): each place holds its own row and column."""
    return torch.cartesian_prod(torch.arange(height), torch.arange(width)).T.view(1, 2, height, width)


def test_crop_boxes_is_slicing():
    """Also at the edges; image by image; and the gradient goes where the pixels came from."""
    images = torch.rand(5, 3, 40, 61, requires_grad=True)
    left, top = torch.randint(30, (5, 3)), torch.randint(9, (5, 3))
    left[0, 0] = top[0, 0] = 0
    left[1, 1], top[1, 1] = 61 - BOX_SIZE, 40 - BOX_SIZE
    boxes = torch.stack([left, top, left + BOX_SIZE, top + BOX_SIZE], -1)
    by_hand = [image[:, y0:y1, x0:x1] for image, four in zip(images, boxes) for x0, y0, x1, y1 in four]
    found = crop_boxes(images, boxes)
    assert torch.equal(found, torch.stack(by_hand))
    gradients = [torch.autograd.grad(x.square().sum(), images)[0] for x in (found, torch.stack(by_hand))]
    torch.testing.assert_close(*gradients)
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


def test_crop_features_stays_inside_the_map():
    for height, width, stride, corner, first in (
        (12, 12, 8, (90, 3), [0, 8]),
        (12, 12, 8, (-20, -20), [0, 0]),
        (13, 8, 8, (61 - 32, 97 - 32), [8, 4]),  # a 97 x 61 image, padded to 104 x 64
        (2, 2, 64, (40, 0), [0, 1]),  # a map coarser than the box
    ):
        (crop,) = crop_features(coordinates(height, width), boxes_at(corner), stride)
        size = max(1, BOX_SIZE // stride)
        assert crop.shape == (2, size, size) and crop[:, 0, 0].tolist() == first
