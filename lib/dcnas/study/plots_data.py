"""Tables and figures of notebook 03_0: the two-digit set, its noise, and the choices that the paper leaves open.

Section 3 of the paper, "Dataset & settings", and Figures 4a and 4b. Clipping is tested on the reduced UNet, against the PSNR of
Table 2; precision on a UNet that the scale trains in bfloat16, the reduced one where it does. Each function takes data and returns
a data frame, a sentence or a Figure; notebooks show and save them.
"""

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from ..data.mnist import load_mnist
from ..data.noise import SIGMAS
from ..data.two_digits import IMAGE_SIZE, SPLITS, TwoDigits, generate
from ..errors import InputError
from ..models import UNETS, UNet, count_flops
from ..models.crops import BOX_SIZE
from ..training.metrics import psnr, ssim
from . import figures, paper
from . import results3 as results
from .claims import NOT_REPRODUCED, REPRODUCED, judge
from .compare import NOISY, REDUCED, TABLE_2, Scores, contrast, difference, mean_score
from .experiments import denoiser
from .figures import COLOURS, new_figure, note, picture
from .runs import bank_noisy
from .scales import PUBLISHED_SCALES, SCALES, Scale, scale_named
from .stats import Interval

PAPER_SIGMAS = (0.2, 0.4, 0.8, 1.0)  # those of Table 2
REDUCED_LABELS = (REDUCED, "UNet Reduced")  # the latter where Table 2's networks get more images than Figure 3's
PICTURES = dict(layout="compressed", subplot_kw=dict(frame_on=False))  # images close together, without frames


def settings_table() -> pd.DataFrame:
    """What the paper says about its settings, and what each scale of this study does."""
    rows = {
        "two-digit training images": ("30k", lambda s: f"{s.train_images:,}"),
        "image": ("not stated", lambda s: f"{IMAGE_SIZE} x {IMAGE_SIZE}, grey"),
        "digit's square": ("not stated", lambda s: f"{BOX_SIZE} x {BOX_SIZE}"),
        "noise levels": ("eleven, 0 to 1", lambda s: f"{len(SIGMAS)}, {SIGMAS[0]:g} to {SIGMAS[-1]:g}"),
        "noisy image clipped": ("not stated", lambda s: "yes" if denoiser(s, 0, **UNETS["reduced"]).clip else "no"),
        "optimiser": ("Adam", lambda s: "Adam"),
        "learning rate": ("1e-3", lambda s: _budgets(s, lambda b: f"{b.lr:g}")),
        "schedule": ("plateau", lambda s: _budgets(s, lambda b: b.schedule)),
        "images seen: classifier": ("100 epochs", lambda s: f"{s.classify.images:,}"),
        "images seen: denoiser": ("100 epochs", lambda s: f"{s.denoise.images:,}" + _long(s, "Table 2")),
        "images seen: joint": ("100 epochs", lambda s: f"{s.joint.images:,}" + _long(s, "reduced")),
        "batch": ("not stated", lambda s: _budgets(s, lambda b: str(b.batch))),
        "training precision": ("not stated", _precision),
        "test images: denoiser": ("not stated", lambda s: f"{s.eval_images:,}"),
        "test images: classifier, joint": ("not stated", lambda s: f"{s.joint_eval_images:,}"),
        "seeds": ("not stated", lambda s: str(s.seeds)),
    }  # fmt: skip
    scales = {name: scale_named(name) for name in SCALES if name != "published"}
    columns = {"the paper says": [said for said, _ in rows.values()]}
    columns |= {f"scale {name}": [show(scale) for _, show in rows.values()] for name, scale in scales.items()}
    return pd.DataFrame(columns, index=pd.Index(rows, name="setting"))


def _long(scale: Scale, which: str) -> str:
    return "" if scale.long is None else f"; {which}: {scale.long:,}"


def _precision(scale: Scale) -> str:
    if scale.precision == "mixed":
        return "UNets of b=16 and wider bf16, others fp32"
    return scale.precision + (", classifiers fp32" if scale.precision != "fp32" else "")


def _budgets(scale: Scale, show) -> str:
    """One value if classifier, denoiser and joint share it, else the three."""
    values = [show(budget) for budget in (scale.classify, scale.denoise, scale.joint)]
    return values[0] if len(set(values)) == 1 else " / ".join(values)


def image_size_table(sizes: Sequence[int] = (80, 88, 96, 104, 112)) -> pd.DataFrame:
    """FLOPs (M) of the two UNets of Table 2 for square images of several sizes: which size fits the paper?"""
    theirs = paper.networks()["flops_m"][list(TABLE_2)]
    rows = {
        f"{n} x {n}": [round(count_flops(UNet(**unet), torch.zeros(1, 1, n, n)) / 1e6, 1) for unet in UNETS.values()] for n in sizes
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(theirs.index)).rename_axis("image")
    table["verdict"] = ["match" if (row == theirs.to_numpy()).all() else "no match" for row in table.to_numpy()]
    return pd.concat([table, theirs.to_frame("the paper").T.assign(verdict="")])


def generation_time(count: int) -> str:
    """How long this machine takes to make `count` images, in one sentence."""
    mnist = load_mnist()
    start = time.perf_counter()
    generate("train", count, mnist=mnist)
    seconds = time.perf_counter() - start
    return f"{count:,} images take {seconds:.2f} s here ({count / seconds:,.0f} images per second)."


def split_check(size: int = 5_000, seed: int = 0) -> pd.DataFrame:
    """Digits drawn for each split, and how many of their pictures (compared pixel by pixel) stand in another split too."""
    mnist = load_mnist()
    pictures = {}
    for split in SPLITS:
        source = mnist.test_images if split == "test" else mnist.train_images
        rows = generate(split, size, seed).digits.unique().numpy()
        pictures[split] = {source[row].tobytes() for row in rows}
    table = [
        {"split": split, "images": size, "different digits": len(own)}
        | {f"also in {other}": len(own & pictures[other]) if other != split else "-" for other in SPLITS}
        for split, own in pictures.items()
    ]
    return pd.DataFrame(table).set_index("split")


def figure_4a(data: TwoDigits, index: int = 0) -> Figure:
    """A ground-truth sample, without and with the squares and labels that the classifier is given."""
    figure, axes = new_figure(7.0, 4.1, 1, 2, **PICTURES)
    image = data.images[index, 0].numpy() / 255
    picture(axes[0], image, "target of the denoiser")
    picture(axes[1], image, "squares and labels of the digits")
    for colour, (left, top, *_), label in zip(("orange", "sky"), data.boxes[index].tolist(), data.labels[index].tolist()):
        figures.square(axes[1], left, top, BOX_SIZE, COLOURS[colour], f"{label}")
    return note(figure, f"Image {index} of the test set.")


def figure_4b(data: TwoDigits, index: int = 0) -> Figure:
    """The sample of Figure 4a with noise, at the noise levels of Table 2."""
    figure, axes = new_figure(9.0, 2.8, 1, len(PAPER_SIGMAS), **PICTURES)
    for axis, sigma in zip(axes, PAPER_SIGMAS):
        picture(axis, bank_noisy(data.images)(range(index, index + 1), sigma)[0, 0].numpy(), f"σ = {sigma:g}")
    return note(figure, f"Image {index} of the test set, unclipped noise, shown from 0 (black) to 1 (white).")


def sample_grid(data: TwoDigits, rows: int = 3, columns: int = 6) -> Figure:
    """The first images of the set, labels above."""
    figure, axes = new_figure(1.4 * columns, 1.75 * rows, rows, columns, **PICTURES)
    for axis, image, labels in zip(axes.flat, data.images, data.labels):
        picture(axis, image[0].numpy() / 255, " and ".join(map(str, labels.tolist())))
    return note(figure, f"The first {rows * columns} images of the test set and their labels.")


def noise_strip(data: TwoDigits, index: int = 0) -> Figure:
    """One image at all eleven noise levels, with the PSNR and SSIM of the noisy image."""
    figure, axes = new_figure(8.4, 8.0, 3, 4, **PICTURES)
    clean = data.images[index : index + 1] / 255
    for axis, sigma in zip(axes.flat, SIGMAS):
        noisy = bank_noisy(data.images)(range(index, index + 1), sigma)
        level = "∞ dB" if sigma == 0 else f"{psnr(noisy, clean).item():.1f} dB"
        picture(axis, noisy[0, 0].numpy(), f"σ = {sigma:g}\n{level}, SSIM {ssim(noisy, clean).item():.2f}")
    for axis in axes.flat[len(SIGMAS) :]:
        axis.set_axis_off()
    return note(figure, f"Image {index} of the test set, unclipped noise; PSNR and SSIM of the noisy image as it is.")


def noise_levels(data: TwoDigits) -> pd.DataFrame:
    """What noise does to all of `data`, a row per clip and sigma: PSNR and SSIM of the noisy images, range, brightness."""
    rows, clean = [], data.images / 255
    for sigma in SIGMAS:
        for clip in (False, True):
            noisy = bank_noisy(data.images, clip)(range(len(data)), sigma)
            rows.append({
                "clipped": clip, "sigma": sigma, "psnr": psnr(noisy, clean).mean().item(), "ssim": ssim(noisy, clean).mean().item(),
                "smallest": noisy.min().item(), "largest": noisy.max().item(),
                "outside_pct": 100 * ((noisy < 0) | (noisy > 1)).float().mean().item(),
                "brightness_shift": (noisy - clean).mean().item(),
            })  # fmt: skip
    return pd.DataFrame(rows)


def noise_curves(levels: pd.DataFrame) -> Figure:
    """PSNR and SSIM of the noisy images against sigma, clipped and not."""
    figure, axes = new_figure(8.4, 3.7, 1, 2)
    for clip, colour, marker, line in ((False, "blue", "o", "-"), (True, "red", "s", "--")):
        rows = levels[levels["clipped"] == clip]
        style = dict(color=COLOURS[colour], marker=marker, linestyle=line, label="clipped to [0, 1]" if clip else "unclipped")
        noisy = rows[rows["sigma"] > 0]
        axes[0].plot(noisy["sigma"], noisy["psnr"], **style)
        axes[1].plot(rows["sigma"], rows["ssim"], **style)
    axes[0].set(xlabel="noise level σ", ylabel="PSNR of the noisy image (dB)")
    axes[1].set(xlabel="noise level σ", ylabel="SSIM of the noisy image", ylim=(0, 1.02))
    axes[0].legend()
    return note(figure, "Noisy images before any denoising; PSNR at σ = 0 is infinite.")


def pixel_values(data: TwoDigits, sigmas: Sequence[float] = (0.1, 0.4, 1.0)) -> Figure:
    """Histograms of the noisy pixels; what clipping moves to 0 and 1 has another colour."""
    figure, axes = new_figure(9.0, 3.3, 1, len(sigmas), sharey=True)
    bins = np.linspace(-2, 3, 101)
    for axis, sigma in zip(axes, sigmas):
        values = bank_noisy(data.images)(range(len(data)), sigma).numpy().ravel()
        share, _ = np.histogram(values, bins)
        heights, inside = 100 * share / values.size, (bins[:-1] > -1e-6) & (bins[1:] < 1 + 1e-6)
        outside = 100 * np.mean((values < 0) | (values > 1))
        axis.bar(bins[:-1], heights, np.diff(bins), align="edge", color=np.where(inside, COLOURS["blue"], COLOURS["red"]))
        axis.set(xlabel="pixel value", yscale="log", ylim=(0.01, 60), xlim=(-2, 3))
        axis.set_title(f"σ = {sigma:g}: {outside:.0f}% outside")
    axes[0].set_ylabel("pixels (%, per 0.05)")
    return note(figure, f"All pixels of {len(data)} test images, unclipped. Clipping moves all but the blue ones to 0 and 1.")


def clipping_text(levels: pd.DataFrame) -> str:
    """What clipping changes, in two sentences, from `noise_levels`."""
    free, clipped = (levels[levels["clipped"] == clip].set_index("sigma") for clip in (False, True))
    low, high = SIGMAS[1], SIGMAS[-1]
    return (
        f"Unclipped, the pixels run from {free['smallest'][high]:.1f} to {free['largest'][high]:.1f} at σ = {high:g}, and "
        f"{free['outside_pct'][low]:.1f}% (σ = {low:g}) to {free['outside_pct'][high]:.0f}% (σ = {high:g}) of them lie outside "
        f"[0, 1]. Clipping raises the noisy image's PSNR at σ = {high:g} from {free['psnr'][high]:.1f} to "
        f"{clipped['psnr'][high]:.1f} dB, and it makes the image brighter by {clipped['brightness_shift'][high]:.2f} on average, "
        f"so the noise no longer has the zero mean that the paper states (unclipped: {free['brightness_shift'][high]:+.3f})."
    )


# ---- clipping and precision: a UNet and its variant


def check_labels(group: str, scale: str) -> tuple[str, str]:
    """The labels of the UNet that "clipping_check" or "precision_check" is made on at a scale that trains, and of its variant."""
    variant = results.GROUPS[group](scale)[0].label
    return variant.rpartition(", ")[0], variant


def _pair(rows: pd.DataFrame) -> tuple[str, str]:
    """Both labels in the rows of a check; "" for a variant without results."""
    variant = next((label for label in rows["label"].unique() if ", " in label), "")
    return next(label for label in rows["label"].unique() if label != variant), variant


def check_rows(group: str, scale: str, device: str = "cpu") -> pd.DataFrame:
    """The UNet of a check ("clipping_check" or "precision_check") and its variant at a scale; alone if no variant is published."""
    scales = PUBLISHED_SCALES if scale == "published" else (scale,)
    pairs = {name: check_labels(group, name) for name in scales}
    if scale == "published":
        rows = results.published()
    else:
        plain = next(name for name in ("table_2", "figure_3") if pairs[scale][0] in {e.label for e in results.GROUPS[name](scale)})
        rows = pd.concat([results.results(name, scale, device=device) for name in (plain, group)])
    rows = rows[[label in pairs.get(name, ()) for name, label in zip(rows["scale"], rows["label"], strict=True)]]
    if not {plain for plain, _ in pairs.values()} & set(rows["label"]):
        raise InputError(f"no results of {REDUCED} are published yet; use the scale smoke, laptop, gpu or paper.")
    return results.of_best_scale(rows)


def check_table(rows: pd.DataFrame) -> pd.DataFrame:
    """PSNR of a check's UNet and of its variant per sigma, their paired difference, and the paper's Table 2 of the reduced one."""
    scores, (plain, variant) = results.per_image(rows, "psnr"), _pair(rows)
    target = paper.unet_quality("UNet Reduced", "PSNR") if plain in REDUCED_LABELS else {}
    nothing = Interval(np.nan, np.nan, np.nan)
    table = {}
    for name, sigmas in ({f"{sigma:g}": (sigma,) for sigma in SIGMAS} | {"mean above 0": NOISY}).items():
        default, changed = (mean_score(scores, label, sigmas) or nothing for label in (plain, variant))
        change, _ = contrast(scores, difference(variant, plain), sigmas) or (nothing, 0)
        theirs = target.get(sigmas[0], "-") if len(sigmas) == 1 else "-"
        table[name] = [round(default.mean, 2), round(changed.mean, 2), round(change.mean, 2), change.bounds(), theirs]
    short = variant.rpartition(", ")[2] or "variant"
    columns = [f"{_spoken(plain)} (dB)", f"{short} (dB)", "difference (dB)", "95% interval", "paper (dB)"]
    return pd.DataFrame.from_dict(table, orient="index", columns=columns).rename_axis("sigma")


def _spoken(plain: str) -> str:
    return "reduced UNet" if plain in REDUCED_LABELS else plain


def distance_to_paper(scores: Scores) -> Scores:
    """PSNR as scores whose mean is how far each network's mean PSNR is from the paper's; NaN at noise levels not in Table 2."""
    table_2 = paper.unet_quality("UNet Reduced", "PSNR")
    target = np.array([[table_2.get(sigma, np.nan)] for sigma in SIGMAS])
    mean = {label: np.array([[mean_score(scores, label, [sigma]).mean] for sigma in SIGMAS]) for label, _ in scores}
    return {(label, seed): np.sign(mean[label] - target) * (array - target) for (label, seed), array in scores.items()}


def clipping_verdict(rows: pd.DataFrame) -> str:
    """Which of clipped and unclipped is closer to the paper's Table 2: at all its noise levels, and at its two highest."""
    distance, lines, (plain, clipped) = distance_to_paper(results.per_image(rows, "psnr")), [], _pair(rows)
    for sigmas in (PAPER_SIGMAS, PAPER_SIGMAS[-2:]):
        if not (found := contrast(distance, difference(clipped, plain), sigmas)):
            return "No results with clipped noise are published yet, so nothing can be said about clipping."
        farther, seeds = found
        verdict = judge(farther, seeds=seeds)
        answer = {REPRODUCED: "unclipped is closer", NOT_REPRODUCED: "clipped is closer"}.get(verdict, verdict)
        far = [mean_score(distance, label, sigmas).mean for label in (plain, clipped)]
        lines.append(
            f"- Mean distance to the paper's PSNR at σ = {', '.join(map(str, sigmas))}: unclipped {far[0]:.2f} dB, clipped "
            f"{far[1]:.2f} dB; clipped minus unclipped {farther} dB. **Verdict: {answer}.**"
        )
    return "\n".join(lines)


def precision_verdict(rows: pd.DataFrame) -> str:
    """Whether training in bfloat16 changes the result, in one sentence."""
    plain, variant = _pair(rows)
    found = contrast(results.per_image(rows, "psnr"), difference(variant, plain), NOISY)
    if not found:
        return "No results in float32 are published yet, so nothing can be said about the precision."
    used = rows.loc[rows["label"] == plain, "precision"].iloc[0]
    if used == "fp32":
        return "At this scale all networks are trained in float32, so the two rows are the same training and differ by nothing."
    change, seeds = found
    better = {REPRODUCED: "float32 is better", NOT_REPRODUCED: f"{used} is better"}
    answer = better.get(judge(change, seeds=seeds), "no difference is shown" + (" (one seed)" if seeds == 1 else ""))
    what = "" if plain in REDUCED_LABELS else f"{plain}, "
    return f"{what}float32 minus {used}, mean PSNR over the noise levels above 0: {change} dB. **Verdict: {answer}.**"


def check_figure(*checks: pd.DataFrame) -> Figure:
    """What clipping and precision change in the PSNR of a UNet (the reduced one unless named), per sigma, with 95% intervals."""
    figure, axes = new_figure(9.0, 3.9, 1, 2)
    everything = pd.concat(checks).drop_duplicates(["run", "sigma"])
    scores, target = results.per_image(everything, "psnr"), paper.unet_quality("UNet Reduced", "PSNR")
    pairs = [_pair(rows) for rows in checks]
    plain_of = {label: plain for plain, variant in pairs for label in (plain, variant)}
    for i, label in enumerate(everything["label"].unique()):
        plain, variant = plain_of[label], label.partition(", ")[2]
        name = variant or ("default (unclipped)" if plain in REDUCED_LABELS else "default")
        name = name if plain in REDUCED_LABELS else f"{plain}: {name}"
        axes[0].plot(NOISY, [mean_score(scores, label, [sigma]).mean for sigma in NOISY], label=name, **figures.style(i))
        if variant:
            changes = [contrast(scores, difference(label, plain), [sigma])[0] for sigma in SIGMAS]
            means, bars = [change.mean for change in changes], figures.bars(changes)
            axes[1].errorbar(SIGMAS, means, bars, capsize=3, label=f"{name} minus default", **figures.style(i))
    axes[0].plot(list(target), list(target.values()), "o", color="black", mfc="none", markersize=9, label="paper, Table 2")
    axes[0].set(xlabel="noise level σ", ylabel="PSNR (dB)")
    axes[1].axhline(0, color="0.4", linewidth=1)
    axes[1].set(xlabel="noise level σ", ylabel="difference in PSNR (dB)")
    for axis in axes:
        if axis.get_legend_handles_labels()[0]:  # no variant may be published yet
            axis.legend()
    return figures.caption(figure, everything, "Bars: 95% intervals.")
