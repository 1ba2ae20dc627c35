"""Tables and figures of notebooks 03_0 (the two-digit set and its noise), 03_1 and A (the digit classifiers).

Each function takes data and returns a data frame, a sentence or a Figure; notebooks show and save them. Numbers of the paper
come from `data/paper`, never from here.
"""

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..boxes import BOX_SIZE
from ..data.mnist import load_mnist
from ..data.noise import SIGMAS, NoiseBank, degrade
from ..data.two_digits import IMAGE_SIZE, SPLITS, TwoDigits, generate
from ..errors import InputError
from ..models import CLASSIFIERS, UNETS, UNet, build_classifier, count_flops
from ..training.metrics import psnr, ssim
from . import figures, paper, results
from .claims import NOT_REPRODUCED, REPRODUCED, judge, latency_difference, verdict_table
from .experiments import denoiser, tables_1_and_6
from .figures import COLOURS, LINES, MARKERS
from .scales import Scale, scale_named
from .stats import Interval, bootstrap, over_sigmas, paired_difference
from .timing import latencies

TABLE_1 = ("Conv-L", "MB1-S", "MB2.5-M", "MB4-L")
# Table 6: the paper's order of rows, and the experiments that use each section of it
TABLE_6 = dict.fromkeys(TABLE_1, "1-3") | {"MB2.5-S": "2-3", "MB4-S": "2-3", "Conv-S": "3", "Conv-M": "3"}
FAMILIES = {
    "Conv: width": ("Conv-S", "Conv-M", "Conv-L"),
    "MB: expansion rate": ("MB1-S", "MB2.5-M", "MB4-L"),
    "MB: width": ("MB4-S", "MB4-L"),
    "MB: both": ("MB2.5-S", "MB4-L"),
}
PAPER_SIGMAS = (0.2, 0.4, 0.8, 1.0)  # those of Table 2
REDUCED = denoiser(scale_named("paper"), 0, **UNETS["reduced"]).label
FLOPS_TOLERANCE = 0.02  # relative; widths are whole numbers, so the paper's last digit cannot always be met
ABOUT_POINTS = 1.0  # what counts as "about" the paper's difference in accuracy, in points

PALETTE = [*figures.PALETTE[:7], "#7F7F7F"]  # grey for yellow, which is too pale for hollow markers
PAPER_CLASSIFIERS = "table1_6_classifiers"


# ---- 03_0: the set ---------------------------------------------------------------------------------------------------


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
        "images seen: denoiser": ("100 epochs", lambda s: f"{s.denoise.images:,}"),
        "images seen: joint": ("100 epochs", lambda s: f"{s.joint.images:,}"),
        "batch": ("not stated", lambda s: _budgets(s, lambda b: str(b.batch))),
        "training precision": ("not stated", lambda s: s.precision + (", classifiers fp32" if s.precision != "fp32" else "")),
        "test images: denoiser": ("not stated", lambda s: f"{s.eval_images:,}"),
        "test images: classifier, joint": ("not stated", lambda s: f"{s.joint_eval_images:,}"),
        "seeds": ("not stated", lambda s: str(s.seeds)),
    }  # fmt: skip
    scales = {name: scale_named(name) for name in ("smoke", "laptop", "paper")}
    columns = {"the paper says": [said for said, _ in rows.values()]}
    columns |= {f"scale {name}": [show(scale) for _, show in rows.values()] for name, scale in scales.items()}
    return pd.DataFrame(columns, index=pd.Index(rows, name="setting"))


def _budgets(scale: Scale, show) -> str:
    """One value if classifier, denoiser and joint share it, else the three."""
    values = [show(budget) for budget in (scale.classify, scale.denoise, scale.joint)]
    return values[0] if len(set(values)) == 1 else " / ".join(values)


def image_size_table(sizes: Sequence[int] = (80, 88, 96, 104, 112)) -> pd.DataFrame:
    """FLOPs (M) of the two UNets of Table 2 for square images of several sizes: which size fits the paper?"""
    theirs = paper.table("table2_unet").drop_duplicates("model").set_index("model")["flops_m"]
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


def _pictures(width: float, height: float, rows: int, columns: int):
    """(figure, axes) for images: square axes close together."""
    figure, axes = figures.new_figure(width, height, rows, columns)
    figure.set_layout_engine("compressed")
    return figure, axes


def _show(axis, image, title: str = "") -> None:
    axis.imshow(image.clip(0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.set_title(title)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _note(figure: Figure, text: str) -> Figure:
    """A caption for figures that show no training."""
    figure.supxlabel(text, fontsize=8, color="0.35", wrap=True)
    return figure


def _draw_boxes(axis, data: TwoDigits, index: int) -> None:
    for colour, (left, top, right, bottom), label in zip(
        ("orange", "sky"), data.boxes[index].tolist(), data.labels[index].tolist(), strict=True
    ):
        axis.add_patch(
            Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=COLOURS[colour], linewidth=2)
        )
        axis.text(left + 1, top + 1, label, color=COLOURS[colour], fontsize=12, fontweight="bold", va="top")


def figure_4a(data: TwoDigits, index: int = 0) -> Figure:
    """A ground-truth sample, without and with the squares and labels that the classifier is given."""
    figure, axes = _pictures(7.0, 4.1, 1, 2)
    image = data.images[index, 0].numpy() / 255
    _show(axes[0], image, "target of the denoiser")
    _show(axes[1], image, "squares and labels of the digits")
    _draw_boxes(axes[1], data, index)
    return _note(figure, f"Image {index} of the test set.")


def noisy_versions(data: TwoDigits, index: int, sigmas: Sequence[float] = SIGMAS, clip: bool = False) -> dict[float, np.ndarray]:
    """One image with the noise that every network of the study meets on it: sigma to float32 (H, W)."""
    clean = data.images[index : index + 1] / 255
    bank = NoiseBank()
    return {
        sigma: degrade(clean, sigma, bank.noise([index], sigma, clean.shape[1:]), clip=clip)[0, 0].numpy() for sigma in sigmas
    }  # fmt: skip


def figure_4b(data: TwoDigits, index: int = 0) -> Figure:
    """The sample of Figure 4a with noise, at the noise levels of Table 2."""
    figure, axes = _pictures(9.0, 2.8, 1, len(PAPER_SIGMAS))
    for axis, (sigma, image) in zip(axes, noisy_versions(data, index, PAPER_SIGMAS).items(), strict=True):
        _show(axis, image, f"σ = {sigma:g}")
    return _note(figure, f"Image {index} of the test set, unclipped noise, shown from 0 (black) to 1 (white).")


def sample_grid(data: TwoDigits, rows: int = 3, columns: int = 6) -> Figure:
    """The first images of the set, labels above."""
    figure, axes = _pictures(1.4 * columns, 1.75 * rows, rows, columns)
    for index, axis in enumerate(axes.flat):
        _show(axis, data.images[index, 0].numpy() / 255, " and ".join(map(str, data.labels[index].tolist())))
    return _note(figure, f"The first {rows * columns} images of the test set and their labels.")


# ---- 03_0: the noise -------------------------------------------------------------------------------------------------


def noise_strip(data: TwoDigits, index: int = 0) -> Figure:
    """One image at all eleven noise levels, with the PSNR and SSIM of the noisy image."""
    figure, axes = _pictures(8.4, 8.0, 3, 4)
    clean = data.images[index : index + 1] / 255
    for axis, (sigma, image) in zip(axes.flat, noisy_versions(data, index).items(), strict=False):
        noisy = clean.new_tensor(image)[None, None]
        level = "∞ dB" if sigma == 0 else f"{psnr(noisy, clean).item():.1f} dB"
        _show(axis, image, f"σ = {sigma:g}\n{level}, SSIM {ssim(noisy, clean).item():.2f}")
    for axis in axes.flat[len(SIGMAS) :]:
        axis.set_axis_off()
    return _note(figure, f"Image {index} of the test set, unclipped noise; PSNR and SSIM of the noisy image as it is.")


def noise_levels(data: TwoDigits) -> pd.DataFrame:
    """What noise does to all of `data`, a row per clip and sigma: PSNR and SSIM of the noisy images, range, brightness."""
    rows = []
    clean, ids, bank = data.images / 255, range(len(data)), NoiseBank()
    for sigma in SIGMAS:
        noise = bank.noise(ids, sigma, clean.shape[1:])
        for clip in (False, True):
            noisy = degrade(clean, sigma, noise, clip=clip)
            rows.append({
                "clipped": clip, "sigma": sigma, "psnr": psnr(noisy, clean).mean().item(), "ssim": ssim(noisy, clean).mean().item(),
                "smallest": noisy.min().item(), "largest": noisy.max().item(),
                "outside_pct": 100 * ((noisy < 0) | (noisy > 1)).float().mean().item(),
                "brightness_shift": (noisy - clean).mean().item(),
            })  # fmt: skip
    return pd.DataFrame(rows)


def noise_curves(levels: pd.DataFrame) -> Figure:
    """PSNR and SSIM of the noisy images against sigma, clipped and not."""
    figure, axes = figures.new_figure(8.4, 3.7, 1, 2)
    for clip, colour, marker, line in ((False, "blue", "o", "-"), (True, "red", "s", "--")):
        rows = levels[levels["clipped"] == clip]
        style = dict(color=COLOURS[colour], marker=marker, linestyle=line, label="clipped to [0, 1]" if clip else "unclipped")
        noisy = rows[rows["sigma"] > 0]
        axes[0].plot(noisy["sigma"], noisy["psnr"], **style)
        axes[1].plot(rows["sigma"], rows["ssim"], **style)
    axes[0].set(xlabel="noise level σ", ylabel="PSNR of the noisy image (dB)")
    axes[1].set(xlabel="noise level σ", ylabel="SSIM of the noisy image", ylim=(0, 1.02))
    axes[0].legend()
    return _note(figure, "Noisy images before any denoising; PSNR at σ = 0 is infinite.")


def pixel_values(data: TwoDigits, sigmas: Sequence[float] = (0.1, 0.4, 1.0)) -> Figure:
    """Histograms of the noisy pixels; what clipping moves to 0 and 1 has another colour."""
    figure, axes = figures.new_figure(9.0, 3.3, 1, len(sigmas), sharey=True)
    clean, bank = data.images / 255, NoiseBank()
    bins = np.linspace(-2, 3, 101)
    for axis, sigma in zip(axes, sigmas, strict=True):
        values = degrade(clean, sigma, bank.noise(range(len(data)), sigma, clean.shape[1:])).numpy().ravel()
        share, _ = np.histogram(values, bins)
        heights, inside = 100 * share / values.size, (bins[:-1] > -1e-6) & (bins[1:] < 1 + 1e-6)
        outside = 100 * np.mean((values < 0) | (values > 1))
        axis.bar(bins[:-1], heights, np.diff(bins), align="edge", color=np.where(inside, COLOURS["blue"], COLOURS["red"]))
        axis.set(xlabel="pixel value", yscale="log", ylim=(0.01, 60), xlim=(-2, 3))
        axis.set_title(f"σ = {sigma:g}: {outside:.0f}% outside")
    axes[0].set_ylabel("pixels (%, per 0.05)")
    return _note(figure, f"All pixels of {len(data)} test images, unclipped. Clipping moves all but the blue ones to 0 and 1.")


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


# ---- 03_0: clipping and precision, on the reduced UNet ---------------------------------------------------------------


def check_rows(group: str, scale: str, device: str = "cpu") -> pd.DataFrame:
    """The reduced UNet and its variant ("clipping_check" or "precision_check") at one scale; alone if no variant is published."""
    if scale == "published":
        rows = results.published()
    else:
        rows = pd.concat([results.results(name, scale, device=device) for name in ("table_2", group)])
    rows = rows[rows["label"].isin([REDUCED, *(e.label for e in results.GROUPS[group]("paper"))])]
    if REDUCED not in set(rows["label"]):
        raise InputError(f"no results of {REDUCED} are published yet; use the scale smoke, laptop or paper.")
    counts = rows.groupby("scale")["label"].nunique()
    best = max(counts.index, key=lambda name: (counts[name], name == results.PUBLISHED_SCALES[0]))
    return rows[rows["scale"] == best].reset_index(drop=True)


def values_by_label(found: dict, sigmas: Sequence[float] = SIGMAS, factor: float = 1.0) -> dict[str, dict[int, np.ndarray]]:
    """`results.per_image` as label to seed to a number per image, the mean over `sigmas`, as `stats` takes it."""
    values: dict[str, dict[int, np.ndarray]] = {}
    for (label, seed), metric in found.items():
        values.setdefault(label, {})[seed] = factor * over_sigmas(metric, sigmas)
    return values


def accuracies(found: dict, sigmas: Sequence[float] = SIGMAS) -> dict[str, dict[int, np.ndarray]]:
    """`results.per_image(rows, "correct")` as label to seed to the accuracy of each image in %, the mean over `sigmas`."""
    return values_by_label(found, sigmas, 100.0)


def difference(values: dict[str, dict[int, np.ndarray]], a: str, b: str) -> Interval:
    """`stats.paired_difference` of two labels; NaN where one of them has no results."""
    if a not in values or b not in values:
        return Interval(np.nan, np.nan, np.nan)
    return paired_difference(values[a], values[b])


def shared_seeds(values: dict[str, dict[int, np.ndarray]], a: str, b: str) -> int:
    """How many seeds two labels have in common."""
    return len(set(values.get(a, ())) & set(values.get(b, ())))


def _variant(rows: pd.DataFrame) -> str:
    """The label beside the reduced UNet in `check_rows`; empty where it is not published."""
    return next((label for label in rows["label"].unique() if label != REDUCED), "")


def _paper_psnr() -> dict[float, float]:
    table = paper.table("table2_unet")
    row = table[(table["model"] == "UNet Reduced") & (table["metric"] == "PSNR")].iloc[0]
    return {sigma: float(row[f"sigma_{sigma}"]) for sigma in PAPER_SIGMAS}


def check_table(rows: pd.DataFrame) -> pd.DataFrame:
    """PSNR of the reduced UNet and of its variant per sigma, their paired difference, and the paper's Table 2."""
    found, variant, target = results.per_image(rows, "psnr"), _variant(rows), _paper_psnr()
    short = variant.rpartition(", ")[2] or "variant"
    table = []
    groups = {f"{sigma:g}": (sigma,) for sigma in SIGMAS} | {"mean above 0": SIGMAS[1:]}
    for name, sigmas in groups.items():
        values = values_by_label(found, sigmas)
        change = difference(values, variant, REDUCED)
        row = {"sigma": name, "reduced UNet (dB)": round(bootstrap(values[REDUCED]).mean, 2)}
        row[f"{short} (dB)"] = round(bootstrap(values[variant]).mean, 2) if variant else np.nan
        row |= {"difference (dB)": round(change.mean, 2), "95% interval": f"{change.low:.2f} to {change.high:.2f}"}
        table.append(row | {"paper (dB)": target.get(sigmas[0], "-") if len(sigmas) == 1 else "-"})
    return pd.DataFrame(table).set_index("sigma")


def distance_to_paper(found: dict, label: str, sigmas: Sequence[float]) -> dict[int, np.ndarray]:
    """How far a label's PSNR is from Table 2, seed to a number per image whose mean is the mean distance over `sigmas`."""
    values, target = {sigma: values_by_label(found, (sigma,))[label] for sigma in sigmas}, _paper_psnr()
    signs = {s: np.sign(np.mean(list(values[s].values())) - target[s]) for s in sigmas}
    return {seed: np.mean([signs[s] * (values[s][seed] - target[s]) for s in sigmas], axis=0) for seed in values[sigmas[0]]}


def clipping_verdict(rows: pd.DataFrame) -> str:
    """Which of clipped and unclipped is closer to the paper's Table 2: at all its noise levels, and at its two highest."""
    found, variant = results.per_image(rows, "psnr"), _variant(rows)
    if not variant:
        return "No results with clipped noise are published yet, so nothing can be said about clipping."
    lines = []
    for sigmas in (PAPER_SIGMAS, PAPER_SIGMAS[-2:]):
        distance = {label: distance_to_paper(found, label, sigmas) for label in (REDUCED, variant)}
        farther = paired_difference(distance[variant], distance[REDUCED])
        means = {label: bootstrap(values).mean for label, values in distance.items()}
        verdict = judge(farther, seeds=shared_seeds(distance, variant, REDUCED))
        answer = {REPRODUCED: "unclipped is closer", NOT_REPRODUCED: "clipped is closer"}.get(verdict, verdict)
        lines.append(
            f"- Mean distance to the paper's PSNR at σ = {', '.join(map(str, sigmas))}: unclipped {means[REDUCED]:.2f} dB, clipped "
            f"{means[variant]:.2f} dB; clipped minus unclipped {farther} dB. **Verdict: {answer}.**"
        )
    return "\n".join(lines)


def precision_verdict(rows: pd.DataFrame) -> str:
    """Whether training in bfloat16 changes the result, in one sentence."""
    variant = _variant(rows)
    if not variant:
        return "No results in float32 are published yet, so nothing can be said about the precision."
    used = rows.loc[rows["label"] == REDUCED, "precision"].iloc[0]
    if used == "fp32":
        return "At this scale all networks are trained in float32, so the two rows are the same training and differ by nothing."
    values = values_by_label(results.per_image(rows, "psnr"), SIGMAS[1:])
    change, seeds = difference(values, variant, REDUCED), shared_seeds(values, variant, REDUCED)
    better = {judge(change, seeds=seeds): "float32 is better", judge(change, direction="<", seeds=seeds): f"{used} is better"}
    answer = better.get(REPRODUCED, "no difference is shown" + (" (one seed)" if seeds == 1 else ""))
    return f"float32 minus {used}, mean PSNR over the noise levels above 0: {change} dB. **Verdict: {answer}.**"


def check_figure(*checks: pd.DataFrame) -> Figure:
    """What clipping and precision change in the PSNR of the reduced UNet, per sigma, with 95% intervals."""
    figure, axes = figures.new_figure(9.0, 3.9, 1, 2)
    everything = pd.concat(checks).drop_duplicates(["run", "sigma"])
    found, target = results.per_image(everything, "psnr"), _paper_psnr()
    for i, label in enumerate(everything["label"].unique()):
        style = dict(color=PALETTE[i], marker=MARKERS[i], linestyle=LINES[i])
        name = "default (unclipped)" if label == REDUCED else label.rpartition(", ")[2]
        levels = [values_by_label(found, (sigma,)) for sigma in SIGMAS]
        axes[0].plot(SIGMAS[1:], [bootstrap(values[label]).mean for values in levels[1:]], label=name, **style)
        if label != REDUCED:
            changes = [difference(values, label, REDUCED) for values in levels]
            axes[1].errorbar(SIGMAS, *_bars(changes), capsize=3, label=f"{name} minus default", **style)
    axes[0].plot(list(target), list(target.values()), "o", color="black", mfc="none", markersize=9, label="paper, Table 2")
    axes[0].set(xlabel="noise level σ", ylabel="PSNR (dB)")
    axes[1].axhline(0, color="0.4", linewidth=1)
    axes[1].set(xlabel="noise level σ", ylabel="difference in PSNR (dB)")
    for axis in axes:
        if axis.get_legend_handles_labels()[0]:  # no variant may be published yet
            axis.legend()
    return figures.caption(figure, everything, "Bars: 95% intervals.")


def _bars(intervals: Sequence[Interval]) -> tuple[list[float], np.ndarray]:
    """Means and error bars (2, N) for matplotlib."""
    means = [interval.mean for interval in intervals]
    return means, np.array([[i.mean - i.low for i in intervals], [i.high - i.mean for i in intervals]]).clip(0)


# ---- 03_1 and A: the classifiers -------------------------------------------------------------------------------------


def paper_classifiers(names: Sequence[str]) -> pd.DataFrame:
    """The paper's rows of the named classifiers, in that order."""
    return paper.table(PAPER_CLASSIFIERS).set_index("model").loc[list(names)]


def classifier_flops() -> dict[str, int]:
    """FLOPs of each classifier for one digit, counted."""
    return {e.label: results.flops_of(e) for e in tables_1_and_6("smoke")}


def flops_table(names: Sequence[str]) -> pd.DataFrame:
    """FLOPs counted from the networks beside the paper's, in thousands."""
    ours, theirs = classifier_flops(), paper_classifiers(names)["flops_k"]
    rows = []
    for name in names:
        spec, off = CLASSIFIERS[name], ours[name] / (1000 * theirs[name]) - 1
        rows.append({
            "network": name, "widths": f"{spec.first}, {spec.second}", "expansion": spec.expansion or "-",
            "ours (K)": round(ours[name] / 1000, 1), "paper (K)": theirs[name], "difference (%)": round(100 * off, 1),
            "verdict": "match" if abs(off) <= FLOPS_TOLERANCE else "no match",
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("network")


def flops_text(names: Sequence[str]) -> str:
    """How many counts match, in one sentence."""
    table = flops_table(names)
    wrong = [f"{n} ({row['difference (%)']:+.1f}%)" for n, row in table.iterrows() if row["verdict"] == "no match"]
    return (
        f"{len(table) - len(wrong)} of {len(table)} counts are within {FLOPS_TOLERANCE:.0%} of the paper's"
        f"{'; no match: ' + ', '.join(wrong) if wrong else ''}."
    )


def which_flops_fit_table_3(name: str = "MB2.5-M") -> pd.DataFrame:
    """Sequential is UNet plus `name`: which FLOPs of `name`, ours or those of Table 1, add up to Table 3?"""
    image, square = torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE), torch.zeros(1, 1, BOX_SIZE, BOX_SIZE)
    printed = 1000 * paper_classifiers([name])["flops_k"][name]
    options = {"counted": count_flops(build_classifier(name), square), "printed in Table 1": printed}
    table_3 = paper.table("table3_dcnet").set_index(["model", "type"])["flops_m"]
    rows = []
    for size, unet in UNETS.items():
        base, theirs = count_flops(UNet(**unet), image), table_3[f"DC-Net {size.capitalize()}", "Sequential"]
        for source, flops in options.items():
            total = round((base + flops) / 1e6, 1)
            rows.append({
                "UNet": size, f"FLOPs of {name}": f"{flops / 1000:.0f} K, {source}", "sum (M)": total, "Table 3 (M)": theirs,
                "verdict": "match" if total == theirs else "no match",
            })  # fmt: skip
    return pd.DataFrame(rows).set_index("UNet")


def accuracy_table(found: dict, names: Sequence[str]) -> pd.DataFrame:
    """Accuracy in %, mean over the eleven noise levels, with its interval, beside the paper's. Untrained networks are left out."""
    values = accuracies(found)
    ours = {name: bootstrap(values[name]) for name in names if name in values}
    return paper.beside(ours, paper_classifiers(names)["accuracy_pct"].to_dict(), decimals=1)


def accuracy_text(table: pd.DataFrame, rows: pd.DataFrame) -> str:
    """How our accuracies lie beside the paper's, in two sentences, from `accuracy_table`."""
    matches, off = int((table["verdict"] == "match").sum()), table["difference"]
    order = " > ".join(table["ours"].sort_values(ascending=False, kind="stable").index)
    theirs = " > ".join(table["paper"].sort_values(ascending=False, kind="stable").index)
    seen, full = rows["images"].max(), scale_named("paper").classify.images
    return (
        f"{matches} of {len(table)} of the paper's accuracies lie inside our intervals; ours differ from the paper's by "
        f"{off.min():+.1f} to {off.max():+.1f} points, after {seen:,} training images ({100 * seen / full:.2g}% of 100 epochs). "
        f"Order, ours: {order}; the paper's: {theirs}."
    )


def latency_table(names: Sequence[str]) -> pd.DataFrame:
    """Measured latencies beside the paper's, in ms per batch and relative to Conv-L; NaN where none were measured."""
    theirs = paper_classifiers(names)["latency_ms"]
    table = pd.DataFrame({"paper, batch 32 (ms)": theirs, "paper, relative": (theirs / theirs["Conv-L"]).round(2)})
    for batch in (32, 1):
        try:
            measured = latencies(batch).reindex(names)
        except InputError:
            measured = pd.DataFrame(np.nan, index=list(names), columns=["median_ms", "q25_ms", "q75_ms", "unsynchronised_ms"])
        table[f"ours, batch {batch} (ms)"] = measured["median_ms"].round(3)
        table[f"ours, relative at {batch}"] = (measured["median_ms"] / measured["median_ms"]["Conv-L"]).round(2)
        if batch == 32:
            quartiles = zip(measured["q25_ms"], measured["q75_ms"], strict=True)
            table["quartiles (ms)"] = [f"{low:.3f} to {high:.3f}" if low == low else "not measured" for low, high in quartiles]
            table["unsynchronised mean (ms)"] = measured["unsynchronised_ms"].round(3)
    return table.rename_axis("network")


def latency_text(names: Sequence[str]) -> str:
    """On what the latencies were measured and how the order compares, in two sentences, or that there are none."""
    try:
        measured = latencies(32).reindex(names)
    except InputError:
        return "No latencies of ours are there yet: `dcnas latency` measures them, and this page shows them when it runs again."
    first = measured.dropna(subset="device").iloc[0]
    order = " < ".join(measured["median_ms"].sort_values().index)
    theirs = " < ".join(paper_classifiers(names)["latency_ms"].sort_values().index)
    return (
        f"Ours: {first['device']}, {first['threads']} threads, {first['precision']}, PyTorch {first['torch_version']}, "
        f"the median of {first['passes']} passes. The paper does not name its device for this table, and milliseconds of different "
        f"devices cannot be compared; the order can. Ours: {order}; the paper's: {theirs}."
    )


def table_of(found: dict, names: Sequence[str]) -> pd.DataFrame:
    """Table 1 or 6: FLOPs, latency and accuracy, ours and the paper's."""
    flops, latency, accuracy = flops_table(names), latency_table(names), accuracy_table(found, names)
    theirs = paper_classifiers(names)
    table = pd.DataFrame({
        "exp.": [TABLE_6[name] for name in names], "size": theirs["size"], "exp. rate": flops["expansion"],
        "FLOPs (K)": flops["ours (K)"], "FLOPs, paper": theirs["flops_k"],
        "lat. (ms)": latency["ours, batch 32 (ms)"], "lat., paper": theirs["latency_ms"],
        "acc. (%)": accuracy["ours"], "95% interval": accuracy["95% interval"], "acc., paper": theirs["accuracy_pct"],
        "acc. verdict": accuracy["verdict"],
    }, index=list(names))  # fmt: skip
    table["acc. verdict"] = table["acc. verdict"].fillna("not trained yet")
    return (table.drop(columns="exp.") if tuple(names) == TABLE_1 else table).rename_axis("network")


def accuracy_curves(found: dict, rows: pd.DataFrame, names: Sequence[str], against: str = "Conv-L") -> Figure:
    """Accuracy against sigma, and the paired difference from one network, with 95% intervals."""
    figure, axes = figures.new_figure(10.0, 4.6, 1, 2)
    levels = [accuracies(found, (sigma,)) for sigma in SIGMAS]
    for i, name in enumerate(name for name in names if name in levels[0]):
        style = dict(color=PALETTE[i], marker=MARKERS[i], linestyle=LINES[i])
        panels = [(axes[0], [bootstrap(values[name]) for values in levels])]
        if name != against:
            panels.append((axes[1], [difference(values, name, against) for values in levels]))
        for axis, intervals in panels:
            means, bars = _bars(intervals)
            axis.plot(SIGMAS, means, label=name, **style)
            axis.fill_between(SIGMAS, means - bars[0], means + bars[1], color=PALETTE[i], alpha=0.12, linewidth=0)
    axes[0].axhline(10, color="0.4", linewidth=1, linestyle=":")
    axes[0].text(0, 8.5, "chance", color="0.4", fontsize=9, va="top")
    axes[1].axhline(0, color="0.4", linewidth=1)
    axes[0].set(xlabel="noise level σ", ylabel="accuracy (%)", ylim=(0, 102))
    axes[1].set(xlabel="noise level σ", ylabel=f"difference from {against} (points)")
    axes[0].legend()
    return figures.caption(figure, rows, "Bands: 95% intervals.")


def accuracy_against_flops(found: dict, rows: pd.DataFrame, names: Sequence[str], families: bool = False) -> Figure:
    """Accuracy against FLOPs with 95% intervals, the paper's points hollow; with `families`, a line per way of scaling."""
    figure, axis = figures.new_figure(8.0, 5.0)
    values, flops, theirs = accuracies(found), classifier_flops(), paper_classifiers(names)
    ours = {name: bootstrap(values[name]) for name in names if name in values}
    for i, (name, interval) in enumerate(ours.items()):
        style = dict(color=PALETTE[i], marker=MARKERS[i])
        axis.errorbar(flops[name] / 1000, *_bars([interval]), capsize=4, markersize=8, linestyle="", label=name, zorder=3, **style)
        row = theirs.loc[name]
        axis.plot(row["flops_k"], row["accuracy_pct"], mfc="none", markersize=9, linestyle="", **style)
    if families:
        _family_lines(axis, {n: (flops[n] / 1000, v.mean) for n, v in ours.items()}, theirs)
    axis.plot([], [], "o", color="0.3", mfc="none", markersize=9, linestyle="", label="hollow: the paper")
    axis.set(xlabel="FLOPs for one digit (K)", ylabel="accuracy, mean over eleven σ (%)")
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figures.caption(figure, rows, "Bars: 95% intervals. Hollow MB2.5-M stands where the paper prints it.")


def _family_lines(axis, ours: dict[str, tuple[float, float]], theirs: pd.DataFrame) -> None:
    """A line per family through our points, and a thin one through the paper's."""
    for line, (family, members) in zip(LINES, FAMILIES.items(), strict=False):
        points = np.array([ours.get(name, (np.nan, np.nan)) for name in members])
        axis.plot(*points.T, color="0.25", linestyle=line, linewidth=1.5, label=family, zorder=2)
        axis.plot(*theirs.loc[list(members), ["flops_k", "accuracy_pct"]].to_numpy().T, color="0.6", linestyle=line, linewidth=1)


# ---- claims ----------------------------------------------------------------------------------------------------------


def _better(claim: str, values: dict, a: str, b: str) -> dict:
    theirs = paper_classifiers((a, b))["accuracy_pct"]
    comparison = f"accuracy of {a} minus {b} (points; the paper {theirs[a] - theirs[b]:+.1f})"
    return {"claim": claim, "comparison": comparison, "effect": difference(values, a, b), "seeds": shared_seeds(values, a, b)}


def claims_of_table_1(found: dict) -> pd.DataFrame:
    """C01 to C03: verdicts with paired differences."""
    values, flops = accuracies(found), classifier_flops()
    theirs = paper_classifiers(TABLE_1)["accuracy_pct"]
    table = []
    for name in ("MB2.5-M", "MB4-L"):
        fewer = (flops[name] - flops["Conv-L"]) / 1000
        table += [
            _better("C01", values, name, "Conv-L"),
            {"claim": "C01", "comparison": f"FLOPs of {name} minus Conv-L (K)", "effect": Interval(fewer, fewer, fewer),
             "direction": "<", "decimals": 1},
        ]  # fmt: skip
    loss = dict(threshold=round(theirs["MB1-S"] - theirs["Conv-L"], 1), direction="about", margin=ABOUT_POINTS)
    table.append(_better("C02", values, "MB1-S", "Conv-L") | loss)
    comparison = "latency of MB2.5-M minus Conv-L (ms per batch of 32)"
    table.append({"claim": "C03", "comparison": comparison, "effect": latency_difference("MB2.5-M", "Conv-L"), "decimals": 3})
    return verdict_table(table)


def claims_of_table_6(found: dict) -> pd.DataFrame:
    """C04 and C05: verdicts with paired differences."""
    values = accuracies(found)
    pairs = [("C04", "MB2.5-S", "MB1-S"), ("C04", "MB2.5-S", "MB4-S")]
    pairs += [("C05", name, "Conv-S") for name in ("MB1-S", "MB2.5-S", "MB4-S")] + [("C05", "MB2.5-M", "Conv-M")]
    return verdict_table([_better(claim, values, a, b) for claim, a, b in pairs])
