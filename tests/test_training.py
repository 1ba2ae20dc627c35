"""Losses, metrics, tasks, the loop with its schedules and precisions, and checkpoints that break."""

import copy
import math
import time
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from dcnas.errors import InputError
from dcnas.models import Classifier, Integrated, UNet
from dcnas.models.crops import crop_boxes
from dcnas.seed import generator, set_seed
from dcnas.training import (
    Batch,
    Settings,
    Trainer,
    charbonnier,
    checkpoint,
    evaluate,
    fit,
    joint_loss,
    loop,
    predict,
    psnr,
    ssim,
    ssim_loss,
    summarise,
    task_loss,
    validation,
)
from dcnas.training.losses import denoising_loss
from dcnas.training.metrics import psnr_in_parts
from dcnas.training.recorded import Recorded
from dcnas.training.tasks import TASKS

pytestmark = pytest.mark.usefixtures("one_thread")


def images(*shape: int, key: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=generator("images", key))


# losses


def test_charbonnier():
    a, b = torch.tensor([[0.0, 1.0], [0.5, 0.5]]), torch.tensor([[0.0, 0.0], [0.5, 0.2]])
    expected = sum(math.sqrt(e * e + 1e-6) for e in (0, 1, 0, 0.3)) / 4
    assert charbonnier(a, b).item() == pytest.approx(expected, rel=1e-6)
    assert charbonnier(a, b, eps=0.5).item() == pytest.approx(sum(math.sqrt(e * e + 0.25) for e in (0, 1, 0, 0.3)) / 4)
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


# metrics


def torchmetrics_ssim(noisy: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    return structural_similarity_index_measure(noisy, clean, data_range=1.0, reduction="none").reshape(-1)


def degraded(clean: torch.Tensor) -> torch.Tensor:
    """The first image as it is, the others with more and more noise."""
    levels = torch.linspace(0, 0.5, len(clean)).view(-1, 1, 1, 1)
    return (clean + levels * torch.randn(clean.shape, generator=generator("n"))).clamp(0, 1)


@pytest.mark.parametrize("height, width", [(11, 11), (96, 96), (12, 300), (97, 61), (512, 20), (600, 16), (16, 513), (1030, 700)])
@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_torchmetrics(height, width, channels):
    clean = images(3, channels, height, width)
    found = ssim(degraded(clean), clean)
    torch.testing.assert_close(found, torchmetrics_ssim(degraded(clean), clean), rtol=0, atol=1e-5)
    assert found[0] == pytest.approx(1, abs=1e-6) and found[0] > found[1] > found[2]


@pytest.mark.parametrize("height, width", [(24, 31), (11, 520)])
def test_ssim_is_differentiable(height, width):
    clean = images(2, 1, height, width)
    ours, theirs = (images(2, 1, height, width, key=1).requires_grad_() for _ in range(2))
    ssim_loss(ours, clean).backward()
    (1 - torchmetrics_ssim(theirs, clean).mean()).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-7)
    assert (ours.grad != 0).all()


def test_an_evaluation_does_not_spoil_the_loss_of_a_training():
    clean, noisy = images(2, 1, 37, 41), images(2, 1, 37, 41, key=1).requires_grad_()  # a size that no other test has
    with torch.inference_mode():
        ssim(noisy.detach(), clean)
    ssim_loss(noisy, clean).backward()
    assert noisy.grad.abs().sum() > 0


def test_ssim_is_float32_under_autocast():
    clean, noisy = images(2, 1, 32, 32), images(2, 1, 32, 32, key=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ssim(noisy, clean), ssim(noisy, clean))
        found = ssim(noisy.bfloat16(), clean)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, ssim(noisy.bfloat16().float(), clean))


def test_quality_of_parts_is_that_of_the_whole():
    clean, noisy = images(1, 2, 530, 1030), images(1, 2, 530, 1030, key=1)
    parts = lambda rows, columns: (noisy[..., rows, columns], clean[..., rows, columns])  # noqa: E731
    assert psnr_in_parts(parts, 530, 1030) == pytest.approx(psnr(noisy, clean).item(), abs=1e-4)
    assert psnr_in_parts(lambda rows, columns: (clean[..., rows, columns],) * 2, 530, 1030) == math.inf


def test_psnr():
    clean, noisy = images(3, 2, 8, 9), images(3, 2, 8, 9, key=1)
    expected = [-10 * math.log10(((n - c) ** 2).mean().item()) for n, c in zip(noisy, clean, strict=True)]
    assert psnr(noisy, clean).tolist() == pytest.approx(expected, rel=1e-5)
    assert psnr(clean + 0.1, clean).tolist() == pytest.approx([20] * 3, abs=1e-3)
    assert psnr(clean, clean).tolist() == [math.inf] * 3


@pytest.mark.parametrize("shape", [(5, 1, 96, 96), (3, 3, 7, 11), (1, 1, 1, 1)])
def test_psnr_has_the_bits_of_torchmetrics(shape):
    clean = images(*shape)
    noisy = clean + torch.logspace(-4, 0, len(clean)).view(-1, 1, 1, 1) * torch.randn(shape, generator=generator("n"))
    theirs = peak_signal_noise_ratio(noisy, clean, data_range=1.0, dim=(1, 2, 3), reduction="none")
    assert torch.equal(psnr(noisy, clean), theirs)
    assert torch.equal(psnr(clean, clean), peak_signal_noise_ratio(clean, clean, data_range=1.0, dim=(1, 2, 3), reduction="none"))


# evaluation, against loops over single images


SIGMAS = (0.0, 0.3, 1.0)


@pytest.fixture
def test_set():
    """(uint8 images, boxes, labels, noisy(ids, sigma)) of seven images with two boxes each."""
    stream = generator("test set")
    clean = torch.randint(0, 256, (7, 1, 40, 48), generator=stream, dtype=torch.uint8)
    corners = torch.randint(0, 9, (7, 2, 2), generator=stream)
    noise = torch.randn(clean.shape, generator=stream)

    def noisy(ids, sigma):
        assert ids.stop <= 7
        return clean[ids.start : ids.stop] / 255 + sigma * noise[ids.start : ids.stop]

    return clean, torch.cat([corners, corners + 32], -1), torch.randint(0, 10, (7, 2), generator=stream), noisy


def joint(noisy, boxes):
    """A made-up network: denoises by stretching the contrast, classifies by the first pixel of each box."""
    first = crop_boxes(noisy, boxes)[:, 0, 0, 0].view(-1, 2, 1)
    return 1.8 * noisy - 0.4, -(first - torch.arange(10) / 9).square()


def test_evaluate_is_a_loop_over_images(test_set):
    clean, boxes, labels, noisy = test_set
    found = evaluate(joint, clean, boxes, labels, noisy, SIGMAS, batch=3)
    assert {name: (tuple(t.shape), t.dtype) for name, t in found.items()} == {
        "psnr": ((3, 7), torch.float32), "ssim": ((3, 7), torch.float32), "correct": ((3, 7, 2), torch.bool),
    }  # fmt: skip
    for s, sigma in enumerate(SIGMAS):
        for i in range(7):
            denoised, logits = joint(noisy(range(i, i + 1), sigma), boxes[i : i + 1])
            target, image = clean[i : i + 1] / 255, denoised.clamp(0, 1)
            assert found["psnr"][s, i].item() == pytest.approx(-10 * math.log10((image - target).square().mean().item()), rel=1e-4)
            assert found["ssim"][s, i].item() == pytest.approx(ssim(image, target).item(), abs=1e-6)
            assert found["correct"][s, i].tolist() == (logits[0].argmax(-1) == labels[i]).tolist()
    assert 0 < found["correct"].float().mean() < 1


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_evaluate_does_not_depend_on_the_batch(test_set, batch):
    three, other = (evaluate(joint, *test_set, SIGMAS, batch=size) for size in (3, batch))
    assert torch.equal(three["correct"], other["correct"])
    for name in ("psnr", "ssim"):
        torch.testing.assert_close(three[name], other[name], rtol=1e-5, atol=1e-6)


def test_evaluate_gives_what_the_network_does(test_set):
    assert set(evaluate(lambda x, b: (joint(x, b)[0], None), *test_set, SIGMAS)) == {"psnr", "ssim"}
    assert set(evaluate(lambda x, b: (None, joint(x, b)[1]), *test_set, SIGMAS)) == {"correct"}
    seen = []
    evaluate(lambda x, b: (seen.append(torch.is_inference_mode_enabled()) or x, None), *test_set, iter(SIGMAS), progress=False)
    assert seen == [True] * 3


def test_evaluate_shows_progress(test_set, capsys):
    evaluate(joint, *test_set, SIGMAS, progress=True)
    assert "evaluate" in capsys.readouterr().err


def test_summarise(test_set):
    found = evaluate(joint, *test_set, SIGMAS)
    rows = summarise(found, SIGMAS)
    assert [row["sigma"] for row in rows] == list(SIGMAS)
    for s, row in enumerate(rows):
        values = found["psnr"][s].tolist()
        assert row["psnr"] == pytest.approx(sum(values) / 7)
        assert row["psnr_pooled"] == pytest.approx(-10 * math.log10(sum(10 ** (-v / 10) for v in values) / 7))
        assert row["psnr_pooled"] < row["psnr"]
        assert row["ssim"] == pytest.approx(found["ssim"][s].mean().item(), rel=1e-5)
        assert row["accuracy"] == pytest.approx(100 * sum(found["correct"][s].flatten().tolist()) / 14)
    only = summarise({"correct": found["correct"]}, SIGMAS)
    assert [list(row) for row in only] == [["sigma", "accuracy"]] * 3
    assert list(summarise({k: found[k] for k in ("psnr", "ssim")}, SIGMAS)[0]) == ["sigma", "psnr", "psnr_pooled", "ssim"]


@pytest.mark.parametrize(
    ("right", "balanced", "least"),
    [
        ([1, 1, 1, 1, 0, 0, 0, 0], 100 / 3, 0.0),  # always the largest class
        ([1, 1, 0, 0, 1, 0, 1, 1], 200 / 3, 50.0), ([1] * 8, 100.0, 100.0),
    ],
)  # fmt: skip
def test_recalls_are_of_classes_however_large(right, balanced, least):
    """A class that is never named, or always wrongly, has a recall of 0; a class that the test images lack has none."""
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 3, 3])[:, None]
    correct = torch.tensor([[right], [[1] * 8]], dtype=torch.uint8).view(2, 8, 1)
    row, whole = summarise({"correct": correct}, SIGMAS[:2], labels)
    assert row == pytest.approx(
        {"sigma": SIGMAS[0], "accuracy": 100 * sum(right) / 8, "balanced_accuracy": balanced, "least_recall": least}
    )
    assert whole["balanced_accuracy"] == whole["least_recall"] == 100


# tasks


def make_batch(step: int = 0, size: int = 4) -> Batch:
    stream = generator("batch", step)
    clean = torch.rand(size, 1, 40, 40, generator=stream)
    corners = torch.randint(0, 9, (size, 2, 2), generator=stream)
    noisy = clean + 0.3 * torch.randn(clean.shape, generator=stream)
    return Batch(clean, noisy, torch.cat([corners, corners + 32], -1), torch.randint(0, 10, (size, 2), generator=stream))


def make_model(task: str, seed: int = 0) -> nn.Module:
    set_seed(seed)
    return Classifier(3, 5) if task == "classify" else UNet(8, 2, 1, 1) if task == "denoise" else Integrated(UNet(8, 2, 1, 1))


def test_predict_and_task_losses():
    batch = make_batch()
    crops = crop_boxes(batch.noisy, batch.boxes)
    model = make_model("classify")
    denoised, logits = predict("classify", model, batch.noisy, batch.boxes)
    assert denoised is None and torch.equal(logits, model(crops).view(4, 2, 10))
    expected = F.cross_entropy(model(crops), batch.labels.view(-1))
    torch.testing.assert_close(task_loss("classify", model, batch, 0.3), expected)

    model = make_model("denoise")
    denoised, logits = predict("denoise", model, batch.noisy, batch.boxes)
    assert logits is None and torch.equal(denoised, model(batch.noisy))
    torch.testing.assert_close(task_loss("denoise", model, batch, 0.3), charbonnier(denoised, batch.clean))

    model = make_model("joint")
    denoised, logits = predict("joint", model, batch.noisy, batch.boxes)
    assert logits.shape == (4, 2, 10) and denoised.shape == batch.noisy.shape
    expected = joint_loss(denoised, logits, batch.clean, batch.labels, 0.3)
    torch.testing.assert_close(task_loss("joint", model, batch, 0.3), expected)


# the loop


@pytest.mark.parametrize("task", ["classify", "denoise", "joint"])
def test_a_validation_is_the_loss_of_all_its_images_a_few_at_once(task, monkeypatch):
    seen, batch, model = [], make_batch(size=10), make_model(task)

    def loss(model, batch):
        seen.append(len(batch.clean))
        assert not model.training
        return task_loss(task, model, batch, 0.1)

    expected = loss(model.eval(), batch).item()
    monkeypatch.setattr(loop, "AT_ONCE", 4)
    validate = validation(loss, batch)
    assert validate(model) == pytest.approx(expected, rel=1e-5) and seen == [10, 4, 4, 2] and model.training


class Fit:
    """A small training and what became of it."""

    def __init__(self, folder: Path, task="denoise", device="cpu", stop_after=None, validation=None, **settings):
        settings = Settings(**(dict(steps=12, epoch_steps=5, lr=1e-2) | settings))
        self.steps, self.validations, self.lrs = [], [], []

        def loss(model, batch):
            return task_loss(task, model, batch, 0.1)

        def draw(step):
            if step == stop_after:
                raise KeyboardInterrupt
            self.steps.append(step)
            self.lrs.append(self.trainer.optimiser.param_groups[0]["lr"])
            return make_batch(step)

        def validate(model):
            self.validations.append(len(self.steps))
            return 1.0 if validation is None else validation(len(self.validations))

        self.folder, self.draw, self.validate = folder, draw, validate
        self.trainer = Trainer(make_model(task), loss, settings, device)

    def run(self, **options):
        self.history = fit(self.trainer, self.draw, self.validate, self.folder, **(dict(progress=False) | options))
        return self

    @property
    def weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.trainer.model.parameters()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_training_learns(tmp_path, task):
    done = Fit(tmp_path, task, steps=60, epoch_steps=20, lr=3e-3)
    done.draw = lambda step: make_batch(0)
    losses = [row["loss"] for row in done.run().history]
    assert losses[-1] < 0.8 * losses[0] and losses == sorted(losses, reverse=True)


def test_fit_is_adam_step_by_step(tmp_path):
    """Against the loop that anyone would write, whose bits are the same."""
    for layout in (False, True):
        done = Fit(tmp_path / str(layout), channels_last=layout).run()
        model = make_model("denoise")
        if layout:
            model = model.to(memory_format=torch.channels_last)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
        losses = []
        for step in range(12):
            batch = make_batch(step)
            loss = charbonnier(model(batch.noisy), batch.clean)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert equal(done.weights, list(model.parameters()))
        assert [row["loss"] for row in done.history] == pytest.approx(
            [sum(losses[a:b]) / (b - a) for a, b in ((0, 5), (5, 10), (10, 12))]
        )


def test_history_and_the_order_of_things(tmp_path):
    done = Fit(tmp_path, validation=lambda n: 0.5 / n).run()
    assert done.steps == list(range(12)) and done.validations == [5, 10, 12]
    assert [row["step"] for row in done.history] == [5, 10, 12]
    assert [row["validation_loss"] for row in done.history] == [0.5, 0.25, 0.5 / 3]
    keys = {"step", "loss", "validation_loss", "lr", "images_per_s", "seconds"}
    assert all(set(row) == keys for row in done.history)
    assert 0 < done.history[0]["images_per_s"] and 0 <= done.history[0]["seconds"] <= done.history[-1]["seconds"]
    assert not list(tmp_path.iterdir())  # nothing is written in the first 30 seconds


def test_one_cycle_schedule(tmp_path):
    lrs = Fit(tmp_path, schedule="one-cycle", steps=40, lr=4e-3).run().lrs
    reference = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(reference, 4e-3, total_steps=40)
    expected = []
    for _ in range(40):
        expected.append(reference.param_groups[0]["lr"])
        reference.step()
        schedule.step()
    assert lrs == pytest.approx(expected)
    assert max(lrs) == pytest.approx(4e-3) and lrs[-1] < 1e-5 and lrs[0] == pytest.approx(4e-3 / 25)


def test_plateau_schedule(tmp_path):
    """A tenth after more than ten epochs without progress, as PyTorch does by default."""
    flat = Fit(tmp_path / "flat", steps=14, epoch_steps=1).run()
    assert flat.lrs == pytest.approx([1e-2] * 12 + [1e-3] * 2)
    better = Fit(tmp_path / "better", steps=14, epoch_steps=1, validation=lambda n: 1 / n).run()
    assert better.lrs == [1e-2] * 14
    assert [row["lr"] for row in flat.history][-1] == pytest.approx(1e-3)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("task", TASKS)
def test_precisions(tmp_path, precision, task):
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    done = Fit(tmp_path, task, precision=precision)
    dtypes, inside, forward = set(), set(), done.trainer.loss

    def loss(model, batch):
        inside.add((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        value = forward(model, batch)
        dtypes.add(value.dtype)
        return value

    hooked = {}
    conv = next(m for m in done.trainer.model.modules() if isinstance(m, nn.Conv2d))
    conv.register_forward_hook(lambda module, args, output: hooked.update(dtype=output.dtype))
    done.trainer.loss = loss
    done.run()
    assert all(math.isfinite(row["loss"]) for row in done.history)
    assert dtypes == {torch.float32} and {p.dtype for p in done.weights} == {torch.float32}
    assert inside == {("high", True) if precision == "tf32" else ("highest", False)}
    assert hooked["dtype"] == (torch.bfloat16 if precision == "bf16" else torch.float32)
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    state = done.trainer.optimiser.state_dict()["state"]
    assert {t.dtype for entry in state.values() for t in entry.values()} == {torch.float32}


def test_memory_format(tmp_path):
    for wanted in (True, False):
        model = Fit(tmp_path, channels_last=wanted).trainer.model
        weight = next(p for p in model.parameters() if p.dim() == 4 and p.shape[1] > 1)
        assert weight.is_contiguous(memory_format=torch.channels_last) == wanted and weight.is_contiguous() != wanted
        assert model.training


def test_progress_bar(tmp_path, capsys):
    Fit(tmp_path).run(progress=True, label="UNet, seed 3")
    shown = capsys.readouterr().err
    assert "UNet, seed 3" in shown and "12/12" in shown and "loss" in shown and "images/s" in shown
    Fit(tmp_path).run()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "change, why",
    [
        (dict(steps=0), "steps is 0, but a whole number of at least 1"),
        (dict(steps=1.5), "steps is 1.5"),
        (dict(epoch_steps=0), "epoch_steps is 0"),
        (dict(epoch_steps=None), "epoch_steps is None"),
        (dict(lr=-1e-3), "lr is -0.001"),
        (dict(lr=float("nan")), "lr is nan"),
        (dict(lr=float("inf")), "lr is inf"),
        (dict(lr="1e-3"), "lr is '1e-3'"),
        (dict(schedule="step"), "schedule is 'step', but one of plateau, one-cycle, cosine"),
        (dict(precision="fp16"), "precision is 'fp16', but one of fp32, tf32, bf16"),
    ],
)
def test_bad_settings(change, why):
    with pytest.raises(InputError, match=why):
        Settings(**(dict(steps=10, epoch_steps=5) | change))


# stopping and going on


@pytest.mark.parametrize("schedule", ["plateau", "one-cycle"])
@pytest.mark.parametrize("stop_after", [1, 5, 7, 11])
def test_going_on_ends_with_the_same_bits(tmp_path, schedule, stop_after):
    options = dict(schedule=schedule, validation=lambda n: 1.0)
    whole = Fit(tmp_path / "whole", **options).run(checkpoint_s=1e9)
    with pytest.raises(KeyboardInterrupt):
        Fit(tmp_path, stop_after=stop_after, **options).run(checkpoint_s=0)
    torch.rand(17)  # the global stream has moved on; the checkpoint puts it back
    resumed = Fit(tmp_path, **options).run(checkpoint_s=0)
    assert resumed.steps == list(range(stop_after, 12))
    assert equal(resumed.weights, whole.weights)
    columns = ("step", "loss", "validation_loss", "lr")
    assert [[row[c] for c in columns] for row in resumed.history] == [[row[c] for c in columns] for row in whole.history]


def test_the_random_stream_is_part_of_a_checkpoint(tmp_path):
    """Dropout draws from torch's global stream."""

    def make(folder, **options):
        done = Fit(folder, **options)
        done.trainer.model.out = nn.Sequential(nn.Dropout(0.5), done.trainer.model.out)
        return done

    whole = make(tmp_path / "whole").run()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, stop_after=6).run(checkpoint_s=0)
    torch.rand(17)
    assert equal(make(tmp_path).run().weights, whole.weights)


def test_a_deadline_stops_with_a_checkpoint(tmp_path):
    whole = Fit(tmp_path / "whole").run()
    first = Fit(tmp_path).run(deadline=time.monotonic())
    assert first.history is None and first.steps == [0] and (tmp_path / checkpoint.NAME).exists()
    second = Fit(tmp_path).run(deadline=time.monotonic() + 1e9)
    assert second.steps == list(range(1, 12)) and equal(second.weights, whole.weights)
    late = Fit(tmp_path / "last", steps=1).run(deadline=time.monotonic())
    assert late.history is not None  # the last step was the last


def test_seconds_and_images_go_on_counting(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Fit(tmp_path, stop_after=6).run(checkpoint_s=0)
    saved = checkpoint.load(tmp_path)
    checkpoint.save(tmp_path, saved | {"seconds": 1000.0})
    row = Fit(tmp_path).run().history[-1]
    assert 1000 <= row["seconds"] < 1100 and row["images_per_s"] == pytest.approx(12 * 4 / row["seconds"], abs=0.1)


# checkpoints


def state(step: int) -> dict:
    return {"step": step, "tensor": torch.full((3,), float(step))}


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.write_bytes({"a flipped bit": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "truncated": data[: len(data) // 2],
                      "empty": b"", "text": b"not a checkpoint"}[how])  # fmt: skip


DAMAGES = ("a flipped bit", "truncated", "empty", "text")


@pytest.fixture
def two(tmp_path) -> Path:
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, state(2))
    return tmp_path


def test_the_newest_checkpoint_is_loaded_and_one_more_is_kept(two):
    with warnings.catch_warnings(action="error"):
        assert checkpoint.load(two)["step"] == 2
    checkpoint.save(two, state(3))
    assert checkpoint.load(two)["tensor"].tolist() == [3, 3, 3]
    assert sorted(p.name for p in two.iterdir()) == sorted([checkpoint.NAME, checkpoint.PREVIOUS])
    checkpoint.remove(two)
    assert not list(two.iterdir()) and checkpoint.load(two) is None
    checkpoint.remove(two)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_broken_newest_checkpoint_is_named_and_passed_over(two, how):
    damage(two / checkpoint.NAME, how)
    with pytest.warns(UserWarning, match=rf"{checkpoint.NAME} is broken"):
        assert checkpoint.load(two)["step"] == 1


@pytest.mark.parametrize("how", DAMAGES)
def test_both_broken_means_the_start(two, how):
    damage(two / checkpoint.NAME, how)
    damage(two / checkpoint.PREVIOUS, how)
    with pytest.warns(UserWarning) as told:
        assert checkpoint.load(two) is None
    assert [name in str(w.message) for w, name in zip(told, (checkpoint.NAME, checkpoint.PREVIOUS), strict=True)] == [True, True]


def test_a_broken_checkpoint_is_never_kept_as_the_one_before(two):
    """After falling back, a save must not push the sound one out in favour of the broken one."""
    damage(two / checkpoint.NAME, "truncated")
    with pytest.warns(UserWarning):
        checkpoint.load(two)
    checkpoint.save(two, state(5))
    damage(two / checkpoint.NAME, "truncated")
    with pytest.warns(UserWarning):
        assert checkpoint.load(two)["step"] == 1


def test_killed_between_the_two_renames(two):
    (two / checkpoint.NAME).unlink()
    assert checkpoint.load(two)["step"] == 1


def test_fit_goes_on_from_the_one_before_a_broken_checkpoint(tmp_path):
    whole = Fit(tmp_path / "whole").run()
    with pytest.raises(KeyboardInterrupt):
        Fit(tmp_path, stop_after=7).run(checkpoint_s=0)
    damage(tmp_path / checkpoint.NAME, "a flipped bit")
    with pytest.warns(UserWarning, match="is broken"):
        resumed = Fit(tmp_path).run()
    assert resumed.steps == list(range(6, 12)) and equal(resumed.weights, whole.weights)


def test_checkpoints_are_plain_data(tmp_path, monkeypatch):
    """Read with weights_only, so that a checkpoint of somebody else cannot run anything."""
    with pytest.raises(KeyboardInterrupt):
        Fit(tmp_path, stop_after=6, schedule="one-cycle").run(checkpoint_s=0)
    asked = []
    real = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: asked.append(options["weights_only"]) or real(*args, **options))
    assert checkpoint.load(tmp_path)["step"] == 6 and asked == [True]


def test_a_failed_save_leaves_a_checkpoint(two, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(two, state(3))
    monkeypatch.undo()
    assert checkpoint.load(two)["step"] == 2 and not list(two.glob(".*"))


def test_restoring_copies(tmp_path):
    """The state that a trainer restores is not the one that it then changes."""
    done = Fit(tmp_path).run()
    kept = copy.deepcopy(done.trainer.state())
    again = Fit(tmp_path)
    again.trainer.restore(kept)
    assert equal(again.weights, done.weights)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: only there a step is recorded")
def test_a_recorded_step_trains_as_an_eager_one():
    def losses(recorded: bool) -> list[float]:
        set_seed(0)
        settings = Settings(steps=12, epoch_steps=12, lr=1e-3, schedule="one-cycle", clip_norm=1.0, recorded=recorded)
        trainer = Trainer(Integrated(UNet(8, 3, 1.5, 1)), lambda m, b: task_loss("joint", m, b, 0.1), settings, "cuda")
        found = []
        for step in range(12):
            stream = generator("recorded", step)
            clean = torch.rand(4, 1, 96, 96, generator=stream)
            noisy = clean + 0.2 * torch.randn(clean.shape, generator=stream)
            boxes = torch.tensor([[[0, 0, 32, 32], [40, 40, 72, 72]]]).expand(4, 2, 4)
            labels = torch.randint(10, (4, 2), generator=stream)
            found.append(float(trainer.step(Batch(*(t.cuda() for t in (clean, noisy, boxes, labels))))))
        return found

    assert losses(True) == pytest.approx(losses(False), rel=1e-3)


def test_a_recorded_step_refuses_a_batch_of_another_shape():
    """The check stands before the replay, so it is the same without a GPU."""
    step = Recorded.__new__(Recorded)
    step.eager_left, step.graph, step.batch = 0, object(), Batch(torch.zeros(4, 1), torch.zeros(4, 1), None, None)
    with pytest.raises(ValueError, match=r"\(4, 1\), not \(3, 1\)"):
        step(None, Batch(torch.zeros(3, 1), torch.zeros(3, 1), None, None))
