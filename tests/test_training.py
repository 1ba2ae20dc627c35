"""Losses, metrics, tasks, the loop with its schedules and precisions, and checkpoints that break."""

import contextlib
import math
import time
from pathlib import Path
from pickle import UnpicklingError

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from dcnas.models import Classifier, DnCNN, Integrated, UNet
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
    psnr,
    ssim,
    ssim_loss,
    summarise,
    task_loss,
)
from dcnas.training.loop import BatchLoss
from dcnas.training.losses import denoising_loss
from dcnas.training.tasks import TASKS

pytestmark = pytest.mark.usefixtures("one_thread")


def images(*shape: int, key: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=generator("images", key))


# losses


def test_charbonnier():
    a, b = torch.tensor([[0.0, 1.0], [0.5, 0.5]]), torch.tensor([[0.0, 0.0], [0.5, 0.2]])
    expected = sum(math.sqrt(e * e + 1e-6) for e in (0, 1, 0, 0.3)) / 4
    assert charbonnier(a, b).item() == pytest.approx(expected, rel=1e-6)
    assert charbonnier(a, b, eps=0.5).item() == pytest.approx(
        sum(math.sqrt(e * e + 0.25) for e in (0, 1, 0, 0.3)) / 4
    )
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
    return structural_similarity_index_measure(noisy, clean, data_range=1.0, reduction="none").reshape(
        -1
    )


def degraded(clean: torch.Tensor) -> torch.Tensor:
    """The first image as it is, the others with more and more noise."""
    levels = torch.linspace(0, 0.5, len(clean)).view(-1, 1, 1, 1)
    return (clean + levels * torch.randn(clean.shape, generator=generator("n"))).clamp(0, 1)


@pytest.mark.parametrize(
    "height, width",
    [(11, 11), (96, 96), (12, 300), (97, 61), (512, 20), (600, 16), (16, 513), (1030, 700)],
)
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
    clean, noisy = (
        images(2, 1, 37, 41),
        images(2, 1, 37, 41, key=1).requires_grad_(),
    )  # a size that no other test has
    with torch.inference_mode():
        ssim(noisy.detach(), clean)
    ssim_loss(noisy, clean).backward()
    assert noisy.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(5, 1, 96, 96), (3, 3, 7, 11), (1, 1, 1, 1)])
def test_psnr_has_the_bits_of_torchmetrics(shape):
    clean = images(*shape)
    noisy = clean + torch.logspace(-4, 0, len(clean)).view(-1, 1, 1, 1) * torch.randn(
        shape, generator=generator("n")
    )
    theirs = peak_signal_noise_ratio(noisy, clean, data_range=1.0, dim=(1, 2, 3), reduction="none")
    assert torch.equal(psnr(noisy, clean), theirs)
    assert torch.equal(
        psnr(clean, clean),
        peak_signal_noise_ratio(clean, clean, data_range=1.0, dim=(1, 2, 3), reduction="none"),
    )


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

    return (
        clean,
        torch.cat([corners, corners + 32], -1),
        torch.randint(0, 10, (7, 2), generator=stream),
        noisy,
    )


def joint(noisy, boxes):
    """A made-up network: stretches the contrast, and classifies by the first pixel of each box."""
    first = crop_boxes(noisy, boxes)[:, 0, 0, 0].view(-1, 2, 1)
    return 1.8 * noisy - 0.4, -(first - torch.arange(10) / 9).square()


def test_evaluate_is_a_loop_over_images(test_set):
    clean, boxes, labels, noisy = test_set
    found = evaluate(joint, clean, boxes, labels, noisy, SIGMAS, batch=3)
    for s, sigma in enumerate(SIGMAS):
        for i in range(7):
            denoised, logits = joint(noisy(range(i, i + 1), sigma), boxes[i : i + 1])
            target, image = clean[i : i + 1] / 255, denoised.clamp(0, 1)
            assert found["psnr"][s, i].item() == pytest.approx(
                -10 * math.log10((image - target).square().mean().item()), rel=1e-4
            )
            assert found["ssim"][s, i].item() == pytest.approx(ssim(image, target).item(), abs=1e-6)
            assert found["correct"][s, i].tolist() == (logits[0].argmax(-1) == labels[i]).tolist()
    assert 0 < found["correct"].float().mean() < 1


def test_summarise(test_set):
    found = evaluate(joint, *test_set, SIGMAS)
    rows = summarise(found, SIGMAS)
    assert [row["sigma"] for row in rows] == list(SIGMAS)
    for s, row in enumerate(rows):
        values = found["psnr"][s].tolist()
        assert row["psnr"] == pytest.approx(sum(values) / 7)
        assert row["psnr_pooled"] == pytest.approx(
            -10 * math.log10(sum(10 ** (-v / 10) for v in values) / 7)
        )
        assert row["psnr_pooled"] < row["psnr"]
        assert row["ssim"] == pytest.approx(found["ssim"][s].mean().item(), rel=1e-5)
        assert row["accuracy"] == pytest.approx(100 * sum(found["correct"][s].flatten().tolist()) / 14)
    only = summarise({"correct": found["correct"]}, SIGMAS)
    assert [list(row) for row in only] == [["sigma", "accuracy"]] * 3


@pytest.mark.parametrize(
    ("right", "balanced", "least"),
    [
        ([1, 1, 1, 1, 0, 0, 0, 0], 100 / 3, 0.0),  # always the largest class
        ([1, 1, 0, 0, 1, 0, 1, 1], 200 / 3, 50.0),
        ([1] * 8, 100.0, 100.0),
    ],
)
def test_recalls_are_of_classes_however_large(right, balanced, least):
    """A class that is never named has a recall of 0; one that the test images lack has none."""
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 3, 3])[:, None]
    correct = torch.tensor([[right], [[1] * 8]], dtype=torch.uint8).view(2, 8, 1)
    row, whole = summarise({"correct": correct}, SIGMAS[:2], labels)
    assert list(row.values())[1:] == pytest.approx([100 * sum(right) / 8, balanced, least])
    assert whole["balanced_accuracy"] == whole["least_recall"] == 100


# tasks


def make_batch(step: int = 0, size: int = 4) -> Batch:
    stream = generator("batch", step)
    clean = torch.rand(size, 1, 40, 40, generator=stream)
    corners = torch.randint(0, 9, (size, 2, 2), generator=stream)
    noisy = clean + 0.3 * torch.randn(clean.shape, generator=stream)
    boxes, labels = (
        torch.cat([corners, corners + 32], -1),
        torch.randint(0, 10, (size, 2), generator=stream),
    )
    return Batch(clean, noisy, boxes, labels)


def make_model(task: str) -> nn.Module:
    set_seed(0)
    unet = UNet(8, 2, 1, 1)
    return {
        "classify": lambda: Classifier(3, 5),
        "denoise": lambda: unet,
        "joint": lambda: Integrated(unet),
    }[task]()


# the loop


class Fit:
    """A small training and what became of it."""

    def __init__(
        self, folder: Path, task="denoise", device="cpu", stop_after=None, validation=None, **settings
    ):
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
        self.history = fit(
            self.trainer, self.draw, self.validate, self.folder, **(dict(progress=False) | options)
        )
        return self

    @property
    def weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.trainer.model.parameters()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


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
    dtypes, inside, forward = set(), set(), done.trainer.batch_loss.loss

    def loss(model, batch):
        inside.add((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        value = forward(model, batch)
        dtypes.add(value.dtype)
        return value

    hooked = {}
    conv = next(m for m in done.trainer.model.modules() if isinstance(m, nn.Conv2d))
    conv.register_forward_hook(lambda module, args, output: hooked.update(dtype=output.dtype))
    done.trainer.batch_loss.loss = loss
    done.run()
    assert all(math.isfinite(row["loss"]) for row in done.history)
    assert dtypes == {torch.float32} and {p.dtype for p in done.weights} == {torch.float32}
    assert inside == {("high", True) if precision == "tf32" else ("highest", False)}
    assert hooked["dtype"] == (torch.bfloat16 if precision == "bf16" else torch.float32)
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    state = done.trainer.optimiser.state_dict()["state"]
    assert {t.dtype for entry in state.values() for t in entry.values()} == {torch.float32}


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
    assert [[row[c] for c in columns] for row in resumed.history] == [
        [row[c] for c in columns] for row in whole.history
    ]


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


# checkpoints


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, {"step": 1, "tensor": torch.ones(3)})
    checkpoint.save(tmp_path, {"step": 2, "tensor": torch.ones(3)})

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, {"step": 3})
    assert checkpoint.load(tmp_path)["step"] == 2
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.NAME]
    checkpoint.remove(tmp_path)
    assert checkpoint.load(tmp_path) is None


def test_nothing_in_a_checkpoint_is_run(tmp_path):
    torch.save({"step": Path("x")}, tmp_path / checkpoint.NAME)
    with pytest.raises(UnpicklingError, match="weights_only"):
        checkpoint.load(tmp_path)


def test_the_loss_of_tensors_is_that_of_the_batch():
    """What CUDA graphs replay is the loss that every other training has."""
    batch = make_batch()
    loss = BatchLoss(make_model("joint"), lambda m, b: task_loss("joint", m, b, 0.1), "fp32")
    expected = task_loss("joint", make_model("joint"), batch, 0.1)
    assert torch.equal(loss(batch.clean, batch.noisy, batch.labels, batch.boxes), expected)


def test_a_recording_leaves_the_statistics_of_batch_norm_as_they_were(tmp_path, monkeypatch):
    """A stand-in for CUDA graphs, which run the model a few times before they record it."""
    model = DnCNN(channels=1, depth=3, width=4)
    trainer = Trainer(
        model, lambda m, b: charbonnier(m(b.noisy), b.clean), Settings(steps=2, epoch_steps=2)
    )
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(
        torch.cuda, "make_graphed_callables", lambda module, inputs, **_: module(*inputs)
    )
    before = [buffer.clone() for buffer in model.buffers()]
    trainer.unrecorded = True
    batch = make_batch()
    trainer._record((batch.clean, batch.noisy, batch.labels))
    assert equal(before, list(model.buffers())) and not trainer.unrecorded


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: only there a step is recorded")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_recorded_step_trains_as_an_eager_one(precision):
    def losses(recorded: bool) -> list[float]:
        set_seed(0)
        settings = Settings(12, 12, 1e-3, "one-cycle", precision, clip_norm=1.0, recorded=recorded)
        trainer = Trainer(
            Integrated(UNet(8, 3, 1.5, 1)), lambda m, b: task_loss("joint", m, b, 0.1), settings, "cuda"
        )
        return [float(trainer.step(Batch(*(t.cuda() for t in make_batch(step))))) for step in range(12)]

    assert losses(True) == pytest.approx(losses(False), rel=1e-3 if precision == "fp32" else 1e-2)
