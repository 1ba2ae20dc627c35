"""Losses, metrics, the loop with its schedules and precisions, exact resume and checkpoints."""

import math
from pathlib import Path

import pytest
import torch
from made_up import interrupted
from torch import nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from dcnas.models import Integrated, UNet
from dcnas.models.crops import crop_boxes
from dcnas.seed import generator, set_seed
from dcnas.training import Batch, Settings, Trainer, evaluate, fit, summarise
from dcnas.training.losses import charbonnier, denoising_loss, joint_loss, ssim_loss
from dcnas.training.metrics import psnr, ssim
from dcnas.training.tasks import task_loss


def images(*shape: int, key: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=generator("images", key))


def test_charbonnier():
    a, b = torch.tensor([[0.0, 1.0], [0.5, 0.5]]), torch.tensor([[0.0, 0.0], [0.5, 0.2]])
    expected = sum(math.sqrt(e * e + 1e-6) for e in (0, 1, 0, 0.3)) / 4
    assert charbonnier(a, b).item() == pytest.approx(expected, rel=1e-6)
    equal = a.clone().requires_grad_()
    charbonnier(equal, a).backward()
    assert torch.equal(equal.grad, torch.zeros(2, 2))  # not NaN where the images agree


def test_joint_loss_weights():
    denoised, clean = images(2, 1, 32, 32), images(2, 1, 32, 32, key=1)
    logits, labels = torch.randn(2, 3, 10), torch.tensor([[1, 2, 3], [9, 0, 4]])
    entropy = -sum(logits[i, k].log_softmax(0)[labels[i, k]] for i in range(2) for k in range(3)) / 6
    pixels, structure = charbonnier(denoised, clean), 1 - ssim(denoised, clean).mean()
    torch.testing.assert_close(joint_loss(denoised, logits, clean, labels), 0.1 * entropy + 0.9 * pixels)
    torch.testing.assert_close(joint_loss(denoised, logits, clean, labels, ce_weight=1.0), entropy)
    equation_1 = 0.1 * entropy + 0.9 * (0.8 * pixels + 0.2 * structure)
    torch.testing.assert_close(joint_loss(denoised, logits, clean, labels, ssim_weight=0.2), equation_1)
    torch.testing.assert_close(ssim_loss(denoised, clean), structure)
    assert torch.equal(denoising_loss(denoised, clean), pixels)


def their_ssim(noisy: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    return structural_similarity_index_measure(noisy, clean, data_range=1.0, reduction="none").view(-1)


@pytest.mark.parametrize(
    "shape", [(3, 1, 11, 11), (3, 1, 96, 96), (3, 3, 97, 61), (3, 1, 16, 513), (3, 3, 1030, 700)]
)
def test_metrics_are_those_of_torchmetrics(shape):
    """PSNR to the bit, SSIM with its gradient, also after an evaluation."""
    clean, levels = images(*shape), torch.linspace(0, 0.5, 3).view(-1, 1, 1, 1)
    noisy = clean + levels * torch.randn(clean.shape, generator=generator("n"))
    options = dict(data_range=1.0, dim=(1, 2, 3), reduction="none")
    for image in (noisy, clean):
        assert torch.equal(psnr(image, clean), peak_signal_noise_ratio(image, clean, **options))
    with torch.inference_mode():
        found = ssim(noisy.clamp(0, 1), clean)
    torch.testing.assert_close(found, their_ssim(noisy.clamp(0, 1), clean), rtol=0, atol=1e-5)
    assert found[0] == pytest.approx(1, abs=1e-6)
    assert found[0] > found[1] > found[2]
    if clean.numel() > 1e6:  # of which theirs takes long
        return
    ours, theirs = (images(*shape, key=1).requires_grad_() for _ in range(2))
    ssim_loss(ours, clean).backward()
    (1 - their_ssim(theirs, clean).mean()).backward()
    gradients = (clean.numel() * image.grad for image in (ours, theirs))  # of the order of 1
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


SIGMAS = (0.0, 0.3, 1.0)


def joint(noisy, boxes):
    """A made-up network: stretches the contrast, and classifies by the first pixel of each box."""
    first = crop_boxes(noisy, boxes)[:, 0, 0, 0].view(-1, 2, 1)
    return 1.8 * noisy - 0.4, -(first - torch.arange(10) / 9).square()


def test_evaluate_is_a_loop_over_images_and_summarise_its_mean():
    """Seven images with two boxes each."""
    clean = torch.randint(0, 256, (7, 1, 40, 48), generator=generator("clean"), dtype=torch.uint8)
    corners = torch.randint(0, 9, (7, 2, 2), generator=generator("corners"))
    boxes, noise = torch.cat([corners, corners + 32], -1), images(*clean.shape) - 0.5
    labels = torch.randint(0, 10, (7, 2), generator=generator("labels"))
    noisy = lambda ids, sigma: (clean / 255 + sigma * noise)[ids.start : ids.stop]  # noqa: E731
    found = evaluate(joint, clean, boxes, labels, noisy, SIGMAS, batch=3)
    rows = summarise(found, SIGMAS)
    for s, sigma in enumerate(SIGMAS):
        errors, ssims, right = [], [], []
        for i in range(7):
            denoised, logits = joint(noisy(range(i, i + 1), sigma), boxes[i : i + 1])
            target, image = clean[i : i + 1] / 255, denoised.clamp(0, 1)
            errors.append((image - target).square().mean().item())
            ssims.append(ssim(image, target).item())
            right.append((logits[0].argmax(-1) == labels[i]).tolist())
        psnrs = [-10 * math.log10(error) for error in errors]
        assert found["psnr"][s].tolist() == pytest.approx(psnrs, rel=1e-4)
        assert found["ssim"][s].tolist() == pytest.approx(ssims, abs=1e-6)
        assert found["correct"][s].tolist() == right
        expected = dict(sigma=sigma, psnr=sum(psnrs) / 7, psnr_pooled=-10 * math.log10(sum(errors) / 7))
        expected |= dict(ssim=sum(ssims) / 7, accuracy=100 * sum(map(sum, right)) / 14)
        assert rows[s] == pytest.approx(expected, rel=1e-4)
    assert 0 < found["correct"].float().mean() < 1
    only = summarise({"correct": found["correct"]}, SIGMAS)
    assert [list(row) for row in only] == [["sigma", "accuracy"]] * 3


def test_recalls_are_of_classes_however_large():
    """A class that is never named has a recall of 0; one that the test images lack has none."""
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 3, 3])[:, None]
    correct = [[1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 1, 0, 1, 1], [1] * 8]
    rows = summarise({"correct": torch.tensor(correct, dtype=torch.uint8)[..., None]}, SIGMAS, labels)
    expected = [[50, 100 / 3, 0], [62.5, 200 / 3, 50], [100, 100, 100]]
    assert [list(row.values())[1:] for row in rows] == [pytest.approx(row) for row in expected]


def make_batch(step: int = 0, size: int = 4) -> Batch:
    stream = generator("batch", step)
    clean = torch.rand(size, 1, 40, 40, generator=stream)
    corners = torch.randint(0, 9, (size, 2, 2), generator=stream)
    noisy = clean + 0.3 * torch.randn(clean.shape, generator=stream)
    boxes = torch.cat([corners, corners + 32], -1)
    return Batch(clean, noisy, boxes, torch.randint(0, 10, (size, 2), generator=stream))


def make_model(task: str) -> nn.Module:
    set_seed(0)
    unet = UNet(8, 2, 1, 1)
    return unet if task == "denoise" else Integrated(unet)


class Fit:
    """A small training and what became of it."""

    def __init__(self, folder: Path, task="denoise", validation=lambda n: 1.0, dropout=0.0, **settings):
        settings = Settings(**dict(steps=12, epoch_steps=5, lr=1e-2) | settings)
        self.folder, self.validation, self.steps, self.lrs = folder, validation, [], []
        model = make_model(task)
        if dropout:  # which draws from torch's global stream
            model.out = nn.Sequential(nn.Dropout(dropout), model.out)
        self.trainer = Trainer(model, lambda m, b: task_loss(task, m, b, 0.1), settings)

    def draw(self, step: int) -> Batch:
        self.steps.append(step)
        self.lrs.append(self.trainer.optimiser.param_groups[0]["lr"])
        return make_batch(step)

    def run(self, **options) -> "Fit":
        validate, how = lambda _: self.validation(len(self.steps)), dict(progress=False) | options
        self.history = fit(self.trainer, self.draw, validate, self.folder, **how)
        self.weights = [p.detach().clone() for p in self.trainer.model.parameters()]
        return self


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("channels_last", [False, True])
def test_fit_is_adam_step_by_step(tmp_path, channels_last):
    """Against the loop that anyone would write, whose bits are the same."""
    done = Fit(tmp_path, channels_last=channels_last).run()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = make_model("denoise").to(memory_format=layout)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    losses = []
    for step in range(12):
        batch = make_batch(step)
        loss = charbonnier(model(batch.noisy), batch.clean)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert equal(done.weights, model.parameters())
    means = [sum(losses[a:b]) / (b - a) for a, b in ((0, 5), (5, 10), (10, 12))]
    assert [row["loss"] for row in done.history] == pytest.approx(means)


def test_plateau_schedule(tmp_path):
    """A tenth after more than ten epochs without progress, as PyTorch does by default."""
    flat = Fit(tmp_path / "flat", steps=14, epoch_steps=1).run()
    assert flat.lrs == pytest.approx([1e-2] * 12 + [1e-3] * 2)
    better = Fit(tmp_path / "better", steps=14, epoch_steps=1, validation=lambda n: 1 / n).run()
    assert better.lrs == [1e-2] * 14


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_precisions(tmp_path, precision):
    """bf16 in the convolutions alone, TF32 inside a training alone; the rest in float32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    training, inside, dtypes = Fit(tmp_path, "joint", precision=precision), set(), set()
    real = training.trainer.batch_loss.loss

    def loss(model, batch):
        inside.add((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        value = real(model, batch)
        dtypes.add(value.dtype)
        return value

    training.trainer.batch_loss.loss = loss
    conv, hooked = next(m for m in training.trainer.model.modules() if isinstance(m, nn.Conv2d)), set()
    conv.register_forward_hook(lambda module, inputs, output: hooked.add(output.dtype))
    training.run()
    assert all(math.isfinite(row["loss"]) for row in training.history)
    assert inside == {("high", True) if precision == "tf32" else ("highest", False)}
    assert hooked == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    states = training.trainer.optimiser.state_dict()["state"].values()
    dtypes |= {p.dtype for p in training.weights} | {t.dtype for s in states for t in s.values()}
    assert dtypes == {torch.float32}


@pytest.mark.parametrize("schedule", ["plateau", "one-cycle"])
@pytest.mark.parametrize(("stop_after", "dropout"), [(1, 0.0), (7, 0.5)])
def test_going_on_ends_with_the_same_bits(tmp_path, schedule, stop_after, dropout):
    options = dict(schedule=schedule, dropout=dropout)
    whole = Fit(tmp_path / "whole", **options).run(checkpoint_s=1e9)
    with interrupted(Trainer, "step", stop_after + 1):
        Fit(tmp_path, **options).run(checkpoint_s=0)
    torch.rand(17)  # the global stream has moved on; the checkpoint puts it back
    resumed = Fit(tmp_path, **options).run(checkpoint_s=0)
    assert resumed.steps == list(range(stop_after, 12))
    assert equal(resumed.weights, whole.weights)
    for row, other in zip(resumed.history, whole.history, strict=True):
        assert all(row[name] == other[name] for name in ("step", "loss", "validation_loss", "lr"))
