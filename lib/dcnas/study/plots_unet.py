"""Figures, tables and claims of notebook 03_2: which hyper-parameter of the UNet to scale down.

Section 3.2 of the paper: Figure 3, Table 2 and the MBConv repeat of its last paragraph (C06 to C11). `scores` are of PSNR; all
comparisons are paired (`compare`).
"""

from collections.abc import Collection

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from ..data.noise import SIGMAS
from ..errors import require_choice
from ..models import UNETS, unet_widths
from . import compare, figures, paper
from . import experiments as lists
from .claims import COUNTED
from .compare import BASELINE, NOISY, REDUCED, TABLE_2, Scores, Weights, claim_rows, combine, contrast, difference, unet_label
from .results3 import pictures
from .runs import SAMPLE_SIGMAS
from .stats import Interval

LETTERS = {"b": "a", "d": "b", "c": "c", "m": "d"}  # of the panels in the paper's Figure 3
MEANING = {"b": "base width b", "d": "depth d", "c": "blocks per level c", "m": "multiplier m"}
SMALL_DB = 0.2  # our reading of "retains the performance" and "the difference is small"; the paper gives no number
SMALL = dict(threshold=SMALL_DB, direction="<")
LEAST_GAIN_DB = 8.0  # over the noisy input at sigma 0.4: less means that a network has not learned to denoise
BARS = "Small points: seeds; line: their mean; bars: a standard deviation over seeds."

B_LINE = [unet_label(**unet) for unet in lists.FIGURE_3["b"]]
TWINS = {  # of each MBConv UNet, the Conv UNet with the same hyper-parameters
    unet_label("mbconv", **unet): unet_label(**unet) for unets in lists.MBCONV.values() for unet in unets
}  # fmt: skip


def _lines(panel: str) -> dict[str, list[dict]]:
    """The lines of a panel: one for b and m, one for each b where d or c changes."""
    unets = lists.FIGURE_3[panel]
    if panel in "bm":
        return {"": unets}
    return {f"b={b}": [unet for unet in unets if unet["b"] == b] for b in dict.fromkeys(unet["b"] for unet in unets)}


def _summary(rows: pd.DataFrame, sigma: float) -> pd.DataFrame:
    """FLOPs, mean PSNR over seeds and its standard deviation by label, at one sigma."""
    at = rows[np.isclose(rows["sigma"], sigma)]
    return at.groupby("label", sort=False).agg(flops=("flops", "first"), psnr=("psnr", "mean"), spread=("psnr", "std"))


def _draw_line(axes, rows: pd.DataFrame, sigma: float, panel: str, unets: list[dict], block: str = "conv", **look) -> None:
    """Seeds as small points, their means as a line with error bars of a standard deviation, and the values of the parameter."""
    values, table = {unet_label(block, **unet): unet[panel] for unet in unets}, _summary(rows, sigma)
    table = table.loc[[label for label in values if label in table.index]]
    if table.empty:
        return
    seeds = rows[np.isclose(rows["sigma"], sigma) & rows["label"].isin(table.index)]
    axes.plot(seeds["flops"] / 1e6, seeds["psnr"], ".", color=look["color"], alpha=0.45, markersize=6)
    spread = table["spread"] if table["spread"].notna().any() else None
    axes.errorbar(table["flops"] / 1e6, table["psnr"], yerr=spread, capsize=3, markersize=7, **look)
    place = (-9, 6) if block == "conv" else (9, -14)  # beside the point, where a twin's number cannot be
    for label, row in table.iterrows():
        axes.annotate(
            f"{values[label]:g}", (row["flops"] / 1e6, row["psnr"]), xytext=place, textcoords="offset points",
            ha="center", fontsize=10, color=look["color"],
        )  # fmt: skip


def _log_flops(axes) -> None:
    """A logarithmic axis with plain numbers, more of them where it spans less than a decade."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    steps = (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)
    axes.set_xticks([t for power in (10, 100, 1000) for t in (power * step for step in steps) if low <= t <= high])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(y=0.16)


def _finish(grid: np.ndarray, panels: Collection[str], sigma: float) -> None:
    """Axes, titles and legends of the panels of Figure 3."""
    for axes, panel in zip(grid.flat, panels):
        _log_flops(axes)
        axes.set_title(f"{LETTERS[panel]}: {MEANING[panel]}")
        axes.legend(fontsize=10, frameon=False)
    for axes in grid[-1]:
        axes.set_xlabel("FLOPs (M)")
    for axes in grid[:, 0]:
        axes.set_ylabel(f"PSNR at σ = {sigma:g} (dB)")


def figure_3(rows: pd.DataFrame, sigma: float, panels: Collection[str] = LETTERS) -> Figure:
    """PSNR against FLOPs while "b", "d", "c" or "m" changes, with the paper's Table 2 networks as stars; all panels or one."""
    for panel in panels:
        require_choice("panel", panel, LETTERS)
    size = (6.4, 4.4, 1, 1) if len(panels) == 1 else (11, 8, 2, 2)
    figure, grid = figures.new_figure(*size, sharey=True, squeeze=False)
    for axes, panel in zip(grid.flat, panels):
        for i, (name, unets) in enumerate(_lines(panel).items()):
            _draw_line(axes, rows, sigma, panel, unets, **figures.style(i), label=name or "ours")
        model = {"b": "UNet Baseline", "m": "UNet Reduced"}.get(panel)
        if model and sigma in (theirs := paper.unet_quality(model, "PSNR")):
            look = dict(markersize=14, color="black", markerfacecolor="none", label="paper, Table 2")
            axes.plot(paper.networks()["flops_m"][model], theirs[sigma], "*", **look)
    _finish(grid, panels, sigma)
    return figures.caption(figure, _of_panels(rows, panels), BARS)


def _of_panels(rows: pd.DataFrame, panels: Collection[str] = LETTERS) -> pd.DataFrame:
    labels = {unet_label(**unet) for panel in panels for unet in lists.FIGURE_3[panel]}
    return rows[rows["label"].isin(labels)]


def figure_3_text(rows: pd.DataFrame, scores: Scores, panel: str, sigma: float) -> str:
    """What a panel shows: the PSNR of each network on it, line by line."""
    table = _summary(rows, sigma)
    sentences = []
    for name, unets in _lines(panel).items():
        known = {unet_label(**unet): unet[panel] for unet in unets if unet_label(**unet) in table.index}
        values = ", ".join(f"{table['psnr'][label]:.2f} dB at {panel}={value:g}" for label, value in known.items())
        steps = [contrast(scores, difference(b, a), [sigma]) for a, b in zip(known, list(known)[1:])]
        growing = sum(step.low > 0 and seeds > 1 for step, seeds in steps)
        values, steps = f"{name + ': ' if name else ''}{values}", compare.plural(len(steps), "step")
        sentences.append(f"- {values}; a sure gain in {growing} of {steps}.")
    head = f"PSNR at σ = {sigma:g} as {MEANING[panel]} grows (a step is a sure gain if it has several seeds and its "
    head += "whole paired 95% interval is above 0):"
    return head + "\n\n" + "\n".join(sentences)


def at_equal_flops(flops: dict[str, float], label: str) -> Weights | None:
    """`label` minus the b line, interpolated over log FLOPs to the FLOPs of `label`; None if it lies beyond the line."""
    if label not in flops:
        return None
    for left, right in zip(B_LINE, B_LINE[1:]):
        if left in flops and right in flops and flops[left] <= flops[label] <= flops[right]:
            t = np.log(flops[label] / flops[left]) / np.log(flops[right] / flops[left])
            return {left: t - 1, right: -t, label: 1.0}
    return None


def scaling_table(rows: pd.DataFrame, scores: Scores, sigma: float) -> pd.DataFrame:
    """Which parameter scales down best: each network of Figure 3 minus the b line (d=4, m=2, c=2) at equal FLOPs, in dB."""
    flops, others = compare.flops_by_label(rows), [unet_label(**unet) for panel in "dcm" for unet in lists.FIGURE_3[panel]]
    parts = {name: (at_equal_flops(flops, name), [sigma]) for name in others if name not in B_LINE}
    return compare.comparison_table(scores, parts)


def trend_table(rows: pd.DataFrame, scores: Scores, sigma: float) -> pd.DataFrame:
    """Rank correlation across the networks of Figure 3 between their PSNR at `sigma` and at each other: is it above the border?"""
    labels = list(dict.fromkeys(_of_panels(rows)["label"]))
    table = {}
    for other in SIGMAS:
        if other != sigma:
            rho, _ = compare.rank_correlation(scores, [(label, sigma) for label in labels], [(label, other) for label in labels])
            same = "yes" if rho.low > compare.TREND_RHO else "no" if rho.high < compare.TREND_RHO else "undecided"
            table[other] = [round(rho.mean, 2), rho.bounds(), same]
    columns = ["rank correlation", "95% interval", "same trend"]
    return pd.DataFrame.from_dict(table, orient="index", columns=columns).rename_axis("sigma")


def trend_text(table: pd.DataFrame, sigma: float) -> str:
    """The sentence "the other results show the same trend", tested."""
    lowest = table["rank correlation"].idxmin()
    counts = table["same trend"].value_counts()
    return (
        f"Against σ = {sigma:g} the order of the networks is the same (whole interval of the rank correlation above "
        f"{compare.TREND_RHO:g}) at {counts.get('yes', 0)} of {len(table)} other noise levels, undecided at "
        f"{counts.get('undecided', 0)} and another at {counts.get('no', 0)}. The correlation is lowest at σ = {lowest:g}: "
        f"{table['rank correlation'][lowest]:.2f} ({table['95% interval'][lowest]})."
    )


def other_sigmas(rows: pd.DataFrame, trend: pd.DataFrame, sigma: float) -> Figure:
    """Figure 3 at every other noise level: all networks, by which parameter differs from the b line; `trend` from `trend_table`."""
    figure, grid = figures.new_figure(13, 6.6, 2, 5, sharex=True)
    for axes, (other, rho) in zip(grid.flat, trend["rank correlation"].items()):
        table = _summary(rows, other)
        for i, panel in enumerate("dcmb"):
            labels = [unet_label(**unet) for unet in lists.FIGURE_3[panel]]
            part = table.loc[[x for x in labels if x in table.index and (panel == "b" or x not in B_LINE)]]
            axes.plot(
                part["flops"] / 1e6, part["psnr"], marker=figures.MARKERS[i], color=figures.PALETTE[(i + 1) % 4],
                linestyle="-" if panel == "b" else "", label=MEANING[panel],
            )  # fmt: skip
        _log_flops(axes)
        axes.set_xticks([20, 200, 2000])
        axes.set_title(f"σ = {other:g}   ρ = {rho:.2f}")
    for axes in grid[-1]:
        axes.set_xlabel("FLOPs (M)")
    for axes in grid[:, 0]:
        axes.set_ylabel("PSNR (dB)")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=11)
    return figures.caption(figure, _of_panels(rows), f"ρ: rank correlation of the networks with σ = {sigma:g}.")


def groups_table(scores: Scores, sigma: float) -> pd.DataFrame:
    """Is b=4 below the trend because GroupNorm's four groups of one channel hide the brightness? Two groups against four, in dB."""
    four = {b: unet_label(b=b, d=4, m=2, c=2) for b in (4, 8, 16)}
    two = {b: f"{four[b]}, two norm groups" for b in (4, 8)}
    parts = {f"two groups minus four, b={b}": (difference(two[b], four[b]), [sigma]) for b in two}
    parts["b=8 minus b=4, four groups"] = (difference(four[8], four[4]), [sigma])
    parts["b=8 minus b=4, two groups at b=4"] = (difference(four[8], two[4]), [sigma])
    parts["b=16 minus b=8, four groups"] = (difference(four[16], four[8]), [sigma])
    return compare.comparison_table(scores, parts, f"at σ = {sigma:g} (dB)")


def groups_text(table: pd.DataFrame) -> str:
    """The answer in one sentence."""
    with_four, with_two = "b=8 minus b=4, four groups", "b=8 minus b=4, two groups at b=4"
    if not {with_four, with_two} <= set(table.index):
        return "The networks with two groups have no results yet."
    before, after = table["effect"][with_four], table["effect"][with_two]
    four, two = (f"{table['effect'][row]:.2f} dB ({table['95% interval'][row]})" for row in (with_four, with_two))
    text = f"From b=4 to b=8 PSNR grows by {four}; with two groups at b=4 it is {two}."
    if 0 <= after < before:
        text += f" The groups of one channel account for {100 * (1 - after / before):.0f}% of the fall."
    return text


# ---- Table 2


def table_2_flops(rows: pd.DataFrame) -> pd.DataFrame:
    """FLOPs of the two UNets beside the paper's, to its last printed digit; counted, not measured."""
    flops = compare.flops_by_label(rows)
    ours = {name: flops[label] / 1e6 for name, label in TABLE_2.items()}
    table = paper.beside(ours, paper.networks()["flops_m"].to_dict(), 1, exact=True)
    table.insert(0, "widths", [", ".join(map(str, unet_widths(u["b"], u["d"], u["m"]))) for u in UNETS.values()])
    return table.rename_axis("FLOPs (M)")


def table_2_quality(psnr: Scores, ssim: Scores) -> pd.DataFrame:
    """PSNR and SSIM of the two UNets at the paper's four noise levels, beside the paper's."""
    parts = {}
    for metric, scores, decimals in (("PSNR", psnr, 1), ("SSIM", ssim, 2)):
        for model, label in TABLE_2.items():
            theirs = {f"{sigma:.1f}": value for sigma, value in paper.unet_quality(model, metric).items()}
            ours = {sigma: found for sigma in theirs if (found := compare.mean_score(scores, label, [float(sigma)]))}
            parts[metric, model] = paper.beside(ours, theirs, decimals)
    return pd.concat(parts, names=["metric", "model", "sigma"])


def loss_table(scores: Scores) -> pd.DataFrame:
    """What reducing the UNet costs: baseline minus reduced, in dB, at each noise level."""
    return compare.comparison_table(scores, {f"{s:g}": (difference(BASELINE, REDUCED), [s]) for s in SIGMAS}, "sigma")


def _gains(scores: Scores, sigma: float) -> dict[str, Interval]:
    """What the "baseline" and the "reduced" UNet add to the PSNR of "noisy input", in dB."""
    found = {size: contrast(scores, difference(label, "noisy input"), [sigma]) for size, label in zip(UNETS, TABLE_2.values())}
    return {size: change[0] for size, change in found.items() if change}


def gain_table(scores: Scores) -> pd.DataFrame:
    """PSNR of the noisy input and what each UNet adds to it, in dB, at each noise level above 0 (there it has no error)."""
    scores, table = compare.with_noisy_input(scores, "psnr"), {}
    for sigma in NOISY:
        row = {"noisy input (dB)": round(compare.mean_score(scores, "noisy input", [sigma]).mean, 2)}
        table[sigma] = row | {f"{size} gains (dB)": str(gain) for size, gain in _gains(scores, sigma).items()}
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("sigma")


def gain_text(scores: Scores) -> str:
    """The check that both UNets denoise: their gain at sigma 0.4."""
    gains = _gains(compare.with_noisy_input(scores, "psnr"), 0.4)
    word = "passed" if all(gain.mean >= LEAST_GAIN_DB for gain in gains.values()) else "**not passed**"
    sizes = " and ".join(f"the {size} UNet {gain} dB" for size, gain in gains.items())
    return f"Over the noisy input at σ = 0.4 {sizes}; the check of at least {LEAST_GAIN_DB:g} dB is {word}."


def sample_images(rows: pd.DataFrame, index: int) -> Figure:
    """Clean, noisy, denoised and residual (denoised minus clean) of both UNets, a row per noise level."""
    figure, grid = figures.new_figure(12, 8, 4, 6)
    for row, sigma in zip(grid, SAMPLE_SIGMAS[1:]):
        shown = pictures(rows, index, sigma)
        figures.picture(row[0], shown["clean"])
        figures.picture(row[1], shown["noisy"])
        for (left, right), label in ((row[2:4], REDUCED), (row[4:6], BASELINE)):
            figures.picture(left, shown[label])
            residual = figures.picture(right, shown[label] - shown["clean"], limits=(-0.5, 0.5), cmap="RdBu_r")
        row[0].set_ylabel(f"σ = {sigma:g}", fontsize=12)
    for axes, title in zip(grid[0], ("clean", "noisy", "reduced", "residual", "baseline", "residual")):
        axes.set_title(title)
    bar = figure.colorbar(residual, ax=grid[:, -1], shrink=0.6)
    bar.set_label("denoised minus clean (grey value, 0 to 1)")
    of_seed_0 = rows[rows["label"].isin(TABLE_2.values()) & (rows["seed"] == 0)]
    return figures.caption(figure, of_seed_0, f"Test image {index}.")


# ---- the MBConv repeat


def mbconv_figure(rows: pd.DataFrame, sigma: float) -> Figure:
    """The four panels again: Conv UNets (solid) and MBConv UNets (dashed, hollow) that have an MBConv twin."""
    figure, grid = figures.new_figure(11, 8, 2, 2, sharey=True)
    hollow = figures.style(1) | dict(linestyle="--", markerfacecolor="white")
    for axes, panel in zip(grid.flat, LETTERS):
        _draw_line(axes, rows, sigma, panel, lists.MBCONV[panel], **figures.style(0), label="Conv")
        _draw_line(axes, rows, sigma, panel, lists.MBCONV[panel], "mbconv", **hollow, label="MBConv")
    _finish(grid, LETTERS, sigma)
    return figures.caption(figure, rows[rows["label"].isin([*TWINS, *TWINS.values()])], BARS)


def mbconv_table(rows: pd.DataFrame, scores: Scores, sigma: float) -> pd.DataFrame:
    """Conv minus MBConv in dB: with the same hyper-parameters, and at equal FLOPs (the Conv b line, interpolated)."""
    flops = compare.flops_by_label(rows)
    names = {mb: conv.removeprefix("UNet ") for mb, conv in TWINS.items()}
    same = {f"same hyper-parameters: {names[mb]}": (difference(conv, mb), [sigma]) for mb, conv in TWINS.items()}
    equal = {f"equal FLOPs: {names[mb]}": (combine((-1, at_equal_flops(flops, mb))), [sigma]) for mb in TWINS}
    return compare.comparison_table(scores, same | equal, "Conv minus MBConv (dB)")


# ---- claims


def unet_claims(rows: pd.DataFrame, scores: Scores, sigma: float) -> list[dict]:
    """C06 to C11 as comparisons for `claims.verdict_table`."""
    flops = compare.flops_by_label(rows)
    found = _claims_b(flops, scores, sigma) + _claims_d(flops, scores, sigma) + _claims_c(flops, scores, sigma)
    return found + _claims_m(scores, sigma) + _claims_reduced(flops, scores) + _claims_mbconv(flops, scores, sigma)


def _claims_b(flops: dict[str, float], scores: Scores, sigma: float) -> list[dict]:
    widths = {label: unet["b"] for unet, label in zip(lists.FIGURE_3["b"], B_LINE)}
    found = compare.trend_rows(scores, "C06", f"b with PSNR at σ = {sigma:g}", widths, [sigma])
    if found:
        least = min(flops[large] / flops[small] for small, large in zip(B_LINE, B_LINE[1:]))
        found.append({
            "claim": "C06", "comparison": "least ratio of FLOPs, b to half of it", "threshold": 1, "scale": COUNTED,
            "effect": Interval(least, least, least),
        })  # fmt: skip
    steps = list(zip(lists.FIGURE_3["b"], B_LINE, B_LINE[1:]))
    gains = {f"gain in dB from b={unet['b']} to b={2 * unet['b']}": difference(large, small) for unet, small, large in steps}
    text, last = gains.popitem()
    gains["gain in dB from b=4 to b=8 minus that from b=8 to b=16"] = {B_LINE[1]: 2.0, B_LINE[0]: -1.0, B_LINE[2]: -1.0}
    return found + claim_rows(scores, "C06", gains, [sigma]) + claim_rows(scores, "C06", {text: last}, [sigma], **SMALL)


def _mean_over_b(scores: Scores, text: str, parts: dict[int, Weights | None], sigma: float) -> dict[str, Weights | None]:
    """Of comparisons by b, the mean over those b whose networks share most seeds."""
    seeds = {b: found[1] for b, weights in parts.items() if (found := contrast(scores, weights, [sigma]))}
    kept = [b for b, count in seeds.items() if count == max(seeds.values())]
    return {f"{text}, mean over b={', '.join(map(str, kept))}": combine(*((1 / len(kept), parts[b]) for b in kept))}


def _claims_d(flops: dict[str, float], scores: Scores, sigma: float) -> list[dict]:
    tests = {  # weights of d=2, 3 and 5, each relative to the b line, where d=4 is 0
        "b scaled down instead of d (to 3 and 2)": {2: -0.5, 3: -0.5},
        "d=4 minus d=5": {5: -1.0}, "d=3 minus d=2": {3: 1.0, 2: -1.0},
    }  # fmt: skip
    found = {}
    for text, signs in tests.items():
        parts = {}
        for b in (8, 16, 32):
            parts[b] = combine(*((sign, at_equal_flops(flops, unet_label(b=b, d=d, m=2, c=2))) for d, sign in signs.items()))
        found |= _mean_over_b(scores, f"{text}, dB at equal FLOPs", parts, sigma)
    return claim_rows(scores, "C07", found, [sigma])


def _claims_c(flops: dict[str, float], scores: Scores, sigma: float) -> list[dict]:
    one, two = ({b: unet_label(b=b, d=4, m=2, c=c) for b in (8, 16, 32, 64)} for c in (1, 2))
    plain = {b: difference(two[b], one[b]) for b in one}
    equal = {b: combine((-1, at_equal_flops(flops, one[b]))) for b in one}
    found = _mean_over_b(scores, "c=2 minus c=1 in dB", plain, sigma)
    return claim_rows(scores, "C08", found | _mean_over_b(scores, "c=2 minus c=1 in dB at equal FLOPs", equal, sigma), [sigma])


def _claims_m(scores: Scores, sigma: float) -> list[dict]:
    one, middle, two = [unet_label(**unet) for unet in lists.FIGURE_3["m"]]
    found = claim_rows(scores, "C09", {"m=2 minus m=1.5 in dB at b=8": difference(two, middle)}, [sigma], **SMALL)
    return found + claim_rows(scores, "C09", {"m=2 minus m=1 in dB at b=8": difference(two, one)}, [sigma], threshold=SMALL_DB)


def _claims_reduced(flops: dict[str, float], scores: Scores) -> list[dict]:
    loss = difference(BASELINE, REDUCED)
    if not contrast(scores, loss):
        return []
    ratio, theirs = flops[BASELINE] / flops[REDUCED], paper.networks()["flops_m"]
    found = [{
        "claim": "C10", "comparison": "baseline's FLOPs over reduced's", "effect": Interval(ratio, ratio, ratio), "threshold": 25,
        "paper": theirs["UNet Baseline"] / theirs["UNet Reduced"], "scale": COUNTED,
    }]  # fmt: skip
    large, small = (paper.unet_quality(name, "PSNR") for name in TABLE_2)
    most = dict(threshold=round(max(large[sigma] - small[sigma] for sigma in small), 1), direction="<")
    for where, sigmas in (("Table 2's levels", small), ("all levels above 0", NOISY), ("all eleven levels", SIGMAS)):
        worst = max(sigmas, key=lambda sigma: contrast(scores, loss, [sigma])[0].mean)
        theirs = dict(paper=most["threshold"]) if sigmas is small else {}  # the paper prints no other levels
        found += claim_rows(scores, "C10", {f"largest loss in dB of {where}": loss}, [worst], at=f"σ = {worst:g}", **most, **theirs)
    return found


def _claims_mbconv(flops: dict[str, float], scores: Scores, sigma: float) -> list[dict]:
    have = {label for label, _ in scores}
    twins = {mb: conv for mb, conv in TWINS.items() if {mb, conv} <= have}
    found = []
    if len(twins) > 2:
        rho, seeds = compare.rank_correlation(scores, *([(label, sigma) for label in side] for side in (twins.values(), twins)))
        text = f"rank correlation of {len(twins)} MBConv UNets with their Conv twins"
        found.append({"claim": "C11", "comparison": text, "effect": rho, "threshold": compare.TREND_RHO, "seeds": seeds})
    _, middle, two = [unet_label("mbconv", **unet) for unet in lists.FIGURE_3["m"]]
    equal = {f"Conv minus MBConv b=8 {m} in dB at equal FLOPs": label for m, label in (("m=2", two), ("m=1.5", middle))}
    equal = {text: combine((-1, at_equal_flops(flops, label))) for text, label in equal.items()}
    found += claim_rows(scores, "C11", {"MBConv: m=2 minus m=1.5 in dB at b=8": difference(two, middle)}, [sigma], **SMALL)
    return found + claim_rows(scores, "C11", equal, [sigma])
