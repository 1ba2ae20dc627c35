"""Figures, tables and sentences of Section 4's notebooks about the search itself: the look-up table, Figures 5 and 8, Table 7.

Drawings are made from the architecture, never by hand.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from ..latency.table import Table
from ..nas.lut import key_of, predicted_ms
from ..nas.networks import DROPPED_SHARE, dropped_level, encoder_levels, shares
from ..nas.recorder import LEAD, TAIL, Verdict, healthy
from ..nas.space import ENCODER_STAGES, Architecture, Space
from . import figures
from .figures import COLOURS, PALETTE
from .results4 import Searched

KERNEL_COLOURS = {3: COLOURS["sky"], 5: COLOURS["blue"]}  # light and dark: told apart in grey as well
FIXED = "0.85"


# ---- Table 7 and the look-up table


def curves_figure(table: Table, space: Space, layers: Sequence[int], text: str) -> Figure:
    """Latency over hidden width of every operator in a few layers, with the interquartile range of the samples."""
    figure, grid = figures.new_figure(4.2 * len(layers), 4.2, 1, len(layers), squeeze=False)
    for axes, i in zip(grid[0], layers, strict=True):
        draw_curves(axes, table, space, i)
    grid[0, 0].set_ylabel("latency of the block (ms)")
    columns = 4 if len(layers) > 1 else 2
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=columns, frameon=False)
    return figures.note(figure, text)


def draw_curves(axes: Axes, table: Table, space: Space, i: int) -> None:
    """A layer of `curves_figure`, without its legend."""
    layer = space.layers[i]
    for n, operator in enumerate(space.candidates):
        curve = table.curves[key_of(layer, operator)]
        low, high = operator.least_hidden(layer.in_channels), operator.most_hidden(layer.in_channels)
        inside = [k for k, hidden in enumerate(curve.hidden) if low <= hidden <= high]
        axes.errorbar(
            [curve.hidden[k] for k in inside], [curve.median_ms[k] for k in inside], [curve.spread_ms[k] / 2 for k in inside],
            capsize=2, label=operator.name, **figures.style(n),
        )  # fmt: skip
    axes.set_title(f"{layer.name}: {layer.in_channels} to {layer.out_channels}, {layer.size} px", y=1)  # not searched for
    axes.set_xlabel("hidden width (channels)")
    axes.set_ylim(bottom=0)


def extremes_ms(table: Table, space: Space, index: int) -> tuple[float, float]:
    """The fastest and the slowest choice of a layer."""
    layer = space.layers[index]
    ends = [(o.least_hidden(layer.in_channels), o.most_hidden(layer.in_channels)) for o in space.candidates]
    times = [table.part_ms(key_of(layer, o), n) for o, pair in zip(space.candidates, ends, strict=True) for n in pair]
    return min(times), max(times)


# ---- Figure 5: alphas


def figure_5(searches: dict[str, tuple[pd.DataFrame, Verdict | str]], places: Sequence[str], text: str) -> Figure:
    """Probabilities of the operators of a few layers over the epochs, a row per search, which is titled with its verdict."""
    figure, grid = figures.new_figure(3.1 * len(places), 2.5 * len(searches) + 0.6, len(searches), len(places), squeeze=False,
                                      sharex=True, sharey=True)  # fmt: skip
    for row, (name, (alphas, verdict)) in zip(grid, searches.items(), strict=True):
        word = verdict if isinstance(verdict, str) else verdict.word
        for axes, place in zip(row, places, strict=True):
            part = alphas[(alphas["parameter"] == "alpha") & (alphas["place"] == place)]
            for n, (choice, line) in enumerate(part.groupby("choice", sort=False)):
                look = dict(color=PALETTE[n], linestyle=figures.LINES[n], linewidth=1.6)
                axes.plot(line["epoch"], line["probability"], label=choice, **look)
            axes.set_title(place, fontsize=10)
        row[0].set_ylabel(f"{name}\n({word})\nprobability", fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return figures.note(figure, text)


def with_alphas(searches: Sequence[Searched]) -> list[Searched]:
    """Without random searches, which have neither alphas nor a supernet."""
    return [s for s in searches if "alphas_trained" in s.epochs]


def searches_text(searches: Sequence[Searched]) -> str:
    """How long the searches are and how they ended."""
    searches = with_alphas(searches)
    epochs = searches[0].epochs
    words = pd.Series([s.verdict for s in searches]).value_counts()
    return (
        f"{len(searches)} searches of {len(epochs)} epochs each, of which {(~epochs['alphas_trained']).sum()} train weights alone: "
        f"{', '.join(f'{count} {word}' for word, count in words.items())}."
    )


def searches_table(searches: Sequence[Searched]) -> pd.DataFrame:
    """A row per search: space, target, verdict, entropy at the end, latency of the argmax before and after widths are fitted."""
    rows = []
    for s in searches:
        last = s.epochs.iloc[-1]
        rows.append({
            "search": s.label, "seed": s.seed, "operators": s.architecture.space.operators, "verdict": s.verdict,
            "entropy": round(last.get("entropy", np.nan), 2), "target (ms)": s.target_ms,
            "argmax (ms)": round(last["argmax_ms"], 2), "fitted (ms)": round(s.predicted_ms, 2),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index(["search", "seed"])


def reasons_text(searches: Sequence[Searched]) -> str:
    """Verdict and reason of each search, as Markdown."""
    return "\n".join(f"- {s.label}, seed {s.seed}: **{s.verdict}**; {s.reason}." for s in searches)


def search_curves(epochs: dict[str, pd.DataFrame], target_ms: float, text: str) -> Figure:
    """Expected and argmax latency, entropy of the alphas and flips of the best operator over the epochs of several searches."""
    figure, grid = figures.new_figure(13, 4.6, 1, 3)
    for i, (name, frame) in enumerate(epochs.items()):
        look = dict(color=PALETTE[i])
        grid[0].plot(frame["epoch"], frame["argmax_ms"], linestyle=figures.LINES[i], **look)
        grid[0].plot(frame["epoch"], frame["expected_ms"], linestyle=":", linewidth=1, **look)
        grid[1].plot(frame["epoch"], frame["entropy"], label=name, linestyle=figures.LINES[i], **look)
        grid[2].plot(frame["epoch"], frame["flips"], label=name, linestyle=figures.LINES[i], **look)
    grid[0].axhline(target_ms, color="0.4", linewidth=1)
    grid[0].set(xlabel="epoch", ylabel="latency by the table (ms)")
    grid[1].set(xlabel="epoch", ylabel="entropy of the alphas (1: undecided)")
    grid[2].set(xlabel="epoch", ylabel="layers whose best operator changed")
    figure.legend(*grid[1].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figures.note(figure, text)


# ---- does a supernet learn?


def health_table(searches: Sequence[Searched], largest: float) -> pd.DataFrame:
    """A row per search: its supernet's accuracy at the end, in training and on held-out images, beside the largest class."""
    rows = []
    for s in with_alphas(searches):
        last, (well, _) = s.epochs.iloc[-1], healthy(s.epochs)
        rows.append({
            "search": s.label, "seed": s.seed, "training batches (%)": round(last["accuracy"], 1),
            "held-out images (%)": round(last.get("held_out_accuracy", np.nan), 1),
            "held out, balanced (%)": round(last.get("held_out_balanced_accuracy", np.nan), 1),
            "largest class (%)": round(last.get("largest_class", largest), 1),
            "healthy": "not measured" if well is None else "yes" if well else "no",
        })  # fmt: skip
    return pd.DataFrame(rows).set_index(["search", "seed"]).dropna(axis=1, how="all")


def learning_figure(searches: Sequence[Searched], largest: float) -> Figure:
    """Accuracy of supernets over the epochs, a panel per kind of search, a line per seed; and the largest class, which a network
    that has learned nothing reaches by naming it always.

    On held-out images; on the batches in training where nobody looked at those. `largest` in %.
    """
    searches = with_alphas(searches)
    labels = list(dict.fromkeys(s.label for s in searches))
    wide = min(5, len(labels))
    tall = -(-len(labels) // wide)
    held_out = all("held_out_accuracy" in s.epochs for s in searches)
    column, what = ("held_out_accuracy", "on held-out images") if held_out else ("accuracy", "on training batches")
    figure, grid = figures.new_figure(2.5 * wide + 1.6, 2.0 * tall + 1.5, tall, wide, squeeze=False, sharex=True, sharey=True)
    above = 0
    for axes, label in zip(grid.flat, labels):
        for s in (s for s in searches if s.label == label):
            axes.plot(s.epochs["epoch"], s.epochs[column], color=COLOURS["blue"], linewidth=1, label="a seed")
            if held_out:
                look = dict(color=COLOURS["sky"], linewidth=1, linestyle=":")
                axes.plot(s.epochs["epoch"], s.epochs["held_out_balanced_accuracy"], label="balanced", **look)
        ends = [s.epochs[column].iloc[-1] - largest for s in searches if s.label == label]
        above += sum(end >= LEAD for end in ends)
        axes.axhline(largest, color=COLOURS["black"], linewidth=1.2, label="largest class")
        axes.axhline(largest + LEAD, color=COLOURS["red"], linewidth=1.2, linestyle="--", label=f"{LEAD:g} points above it")
        axes.set_title(f"{label}\nin the end {np.mean(ends).round(1) + 0.0:+.1f} points", fontsize=9.5)
    for axes in grid.flat[len(labels) :]:
        axes.set_axis_off()
    for axes in grid.flat[len(labels) - wide : len(labels)]:
        axes.set_xlabel("epoch")
        axes.tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy (%)")
    handles = dict(zip(*grid[0, 0].get_legend_handles_labels()[::-1]))
    figure.legend(handles.values(), handles, loc="outside right center", frameon=False)
    figure.suptitle(f"{above} of {len(searches)} supernets end {LEAD:g} points above the largest class, {what}", fontsize=12)
    text = f"The largest class has {largest:.1f}%; above each panel how far its searches end from that, {what}."
    return figures.note(figure, f"Scale {searches[0].scale}. {text}")


def _best(searched: Searched) -> pd.DataFrame:
    """The most probable operator of each layer (columns) after each epoch."""
    alphas = searched.alphas[searched.alphas["parameter"] == "alpha"]
    best = alphas.loc[alphas.groupby(["epoch", "place"])["probability"].idxmax()]
    return best.pivot(index="epoch", columns="place", values="choice")


def null_figure(searches: Sequence[Searched], null: pd.DataFrame) -> Figure:
    """Flips of the best operators, and how far seeds agree on them, beside what random gradients show (`alphas.noise_null`)."""
    figure, (left, right) = figures.new_figure(12, 4.6, 1, 2)
    tail = null.tail(max(2, int(len(null) * TAIL)))
    flips, agree = {}, {}
    for i, label in enumerate(dict.fromkeys(s.label for s in searches)):
        found, look = [s for s in searches if s.label == label], dict(color=PALETTE[i], linestyle=figures.LINES[i])
        part = pd.concat([s.epochs[s.epochs["alphas_trained"]].assign(layers=len(s.architecture.space.layers)) for s in found])
        line = (part["flips"] / part["layers"]).groupby(part["epoch"]).mean()
        left.plot(line.index, 100 * line, label=label, **look)
        flips[label] = line[line.index.isin(tail["epoch"])].mean()
        if len(found) > 1:
            alike = pd.concat([(a == b).mean(axis=1) for a, b in combinations(map(_best, found), 2)], axis=1).mean(axis=1)
            alike = alike[alike.index.isin(null["epoch"])]
            right.plot(alike.index, 100 * alike, label=label, **look)
            agree[label] = alike.iloc[-1]
    black = dict(color=COLOURS["black"], linewidth=1.4)
    left.plot(null["epoch"], 100 * null["flips"], label="noise alone, mean", **black)
    right.plot(null["epoch"], 100 * null["agreement"], label="noise alone, mean", **black)
    right.plot(null["epoch"], 100 * null["agreement_95"], label="noise alone, 95th percentile", linestyle=":", **black)
    of = lambda found: " and ".join(f"{100 * share:.0f}%" for share in found.values())  # noqa: E731
    left.set(xlabel="epoch", ylabel="best operators that change (% of layers)", ylim=(0, None))
    left.set_title(f"In the last third {of(flips)} change an epoch; by noise alone {100 * tail['flips'].mean():.0f}%")
    right.set(xlabel="epoch", ylabel="layers where two seeds agree (%)", ylim=(0, 100))
    limit = 100 * null["agreement_95"].iloc[-1]
    ours = f"In the end seeds agree on {of(agree)}; by noise alone" if agree else "In the end seeds agree by noise alone"
    right.set_title(f"{ours} on up to {limit:.0f}%")
    for axes in (left, right):
        axes.title.set_fontsize(10.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    text = "Means over seeds and their pairs. Noise alone: random gradients through the same optimiser, as many steps, 20 seeds."
    return figures.note(figure, f"Scale {searches[0].scale}. {text}")


# ---- Figure 8: drawings


def architecture_figure(
    architecture: Architecture, title: str = "", network: str = "C-NAS", table: Table | None = None, decoder: str = "conv"
) -> Figure:
    """A network from its architecture: a box per block, as high as its expansion rate, dark for kernel 5, hatched with SE.

    For D-NAS and DC-NAS the decoder is drawn below the levels of the encoder that it starts from and joins; DC-NAS_seq is drawn as
    the two networks that it is, the second on the output of the first.
    """
    latency = "" if table is None else f", {predicted_ms(table, architecture, network):.2f} ms by the table"
    figure, frames = network_frame(architecture.space, f"{title or network}{latency}", network, decoder)
    for axes, places in frames:
        draw_blocks(axes, axes, places, architecture)
    return figure


def network_frame(
    space: Space, title: str, network: str, decoder: str = "conv"
) -> tuple[Figure, list[tuple[Axes, dict[int, float]]]]:
    """All of the drawing but the blocks; for each of its parts the axes, and the left ends of the blocks of the layers."""
    parts = {"D-NAS": "first", "C-NAS": "then, on its output"} if network == "DC-NAS_seq" else {network: ""}
    heights = [4.2 if part == "C-NAS" else 5.4 for part in parts]
    figure, grid = figures.new_figure(13, sum(heights), len(parts), 1, squeeze=False, height_ratios=heights)
    frames = [(axes, _draw_frame(axes, space, part, decoder)) for axes, part in zip(grid[:, 0], parts, strict=True)]
    for (axes, _), order in zip(frames, parts.values(), strict=True):
        axes.set_title(order)
    figure.suptitle(title, fontsize=12)
    return figures.note(figure, "Height: expansion rate; the number above a block: its hidden width in channels."), frames


def draw_blocks(canvas: Axes | Figure, axes: Axes, places: dict[int, float], architecture: Architecture) -> None:
    """The blocks of an architecture in the coordinates of `axes`, which need not be part of what is drawn on."""
    at = dict(transform=axes.transData)
    for i, x in places.items():
        choice = architecture.choices[i]
        if choice is None:
            canvas.add_artist(Rectangle((x, 0), 0.8, 1, facecolor="none", edgecolor="0.6", linestyle=":", **at))
        else:
            rate, operator = choice.hidden / architecture.space.layers[i].in_channels, choice.operator
            look = dict(facecolor=KERNEL_COLOURS[operator.kernel], hatch="//" if operator.se else "")
            canvas.add_artist(Rectangle((x, 0), 0.8, rate, edgecolor="black", **look, **at))
            canvas.text(x + 0.4, rate + 0.1, str(choice.hidden), ha="center", va="bottom", fontsize=9, **at)


def _draw_frame(axes: Axes, space: Space, network: str, decoder: str) -> dict[int, float]:
    """C-NAS, D-NAS or DC-NAS in its axes, without its blocks; where those of the layers begin."""
    x, ticks, ends, places, sizes = 0.0, [], {}, {}, map_sizes(space)
    for name in ("3x3", "MB"):
        axes.add_patch(Rectangle((x, 0), 0.8, 2, facecolor=FIXED, edgecolor="black"))
        axes.text(x + 0.4, 1, name, ha="center", va="center", rotation=90, fontsize=10)
        ticks.append((x + 0.4, "stem"))
        x += 1
    ends[0] = x
    for s, stage in enumerate(space.stages[:ENCODER_STAGES] if network == "D-NAS" else space.stages):
        x += 0.35
        first = x
        for i in stage:
            places[i] = x
            x += 1
        size = space.layers[stage[-1]].size // space.layers[stage[-1]].stride
        ticks.append(((first + x) / 2 - 0.1, f"stage {s + 1}\n{space.layers[stage[-1]].out_channels} ch., {size} px"))
        if s < ENCODER_STAGES:
            ends[sizes.index(size)] = x
    x += 0.35
    if network != "D-NAS":
        axes.add_patch(Rectangle((x, 0), 0.8, 2, facecolor=FIXED, edgecolor="black"))
        axes.text(x + 0.4, 1, "1x1\npool\nlinear", ha="center", va="center", fontsize=8)
        ticks.append((x + 0.4, "head"))
    bottom = 0.0
    if network != "C-NAS":
        bottom = _draw_decoder(axes, space, ends, decoder)
    axes.set(xlim=(-0.3, x + 1.2), ylim=(bottom - 0.2, 9.2), ylabel="expansion rate", yticks=range(0, 9, 2))
    axes.set_xticks([t for t, _ in ticks], [name for _, name in ticks], fontsize=9)
    axes.grid(False, axis="x")
    handles = [Patch(facecolor=KERNEL_COLOURS[k], edgecolor="black", label=f"MBConv, kernel {k}") for k in (3, 5)]
    handles += [
        Patch(facecolor="white", edgecolor="black", hatch="//", label="with SE"),
        Patch(facecolor=FIXED, edgecolor="black", label="fixed"),
    ]
    axes.legend(handles=handles, ncols=4, loc="upper left", fontsize=9)
    return places


def map_sizes(space: Space) -> list[int]:
    """Sides of the encoder's maps in pixels, finest first."""
    sides = [space.resolution]
    for level in encoder_levels(space):
        sides.append(sides[-1] // level.ratio)
    return sides[1:]


def _draw_decoder(axes, space: Space, ends: dict[int, float], decoder: str) -> float:
    """The decoder below the encoder's levels, from the deepest to full size; the lowest y that it takes.

    `ends`: where each of the encoder's maps, finest first, ends.
    """
    sides, levels = [space.resolution, *map_sizes(space)], encoder_levels(space)
    dropped = dropped_level(levels) if decoder == "mb 3-lay" else None
    places = {i: (ends[i - 1] if i else 1.0) - 1.0 for i in range(len(levels)) if i != dropped}  # below the map that it joins
    for i, x in places.items():
        axes.add_patch(Rectangle((x, -2.2), 0.9, 1.2, facecolor=COLOURS["green"], edgecolor="black"))
        axes.text(x + 0.45, -1.6, f"{sides[i]}", ha="center", va="center", fontsize=9, color="white")
        if i:
            axes.annotate("", (x + 0.45, -1.0), (x + 0.45, 0), arrowprops=dict(arrowstyle="->", color="0.35"))
    for finer, x in zip(places.values(), list(places.values())[1:], strict=False):
        axes.annotate("", (finer + 0.9, -1.6), (x, -1.6), arrowprops=dict(arrowstyle="->", color="black"))
    deepest, start = ends[len(levels) - 1], list(places.values())[-1] + 0.9
    axes.annotate("", (start, -1.4), (deepest - 0.6, 0), arrowprops=dict(arrowstyle="->", color="black", connectionstyle="angle3"))
    blocks = {"conv": "two blocks", "mb 1-op": "one MBConv block"}.get(decoder, "two MBConv blocks")
    text = f"decoder: transposed convolution,\nskip connection, {blocks}; size in pixels"
    axes.text(deepest, -1.6, text, va="center", fontsize=9)
    return -2.4


def decoder_table(spaces: dict[str, Space]) -> pd.DataFrame:
    """What each level of a decoder of MBConv blocks costs, in % of its multiplications, and which level "mb 3-lay" drops."""
    table = {}
    for name, space in spaces.items():
        maps, sides = encoder_levels(space), [space.resolution, *map_sizes(space)]
        words = {dropped_level(maps): ", dropped"}
        table[name] = [f"{100 * share:.0f}% (to {sides[i]} px{words.get(i, '')})" for i, share in enumerate(shares(maps))]
    return pd.DataFrame(table, index=pd.Index(["finest", "second", "third", "coarsest"], name="level"))


def decoder_text(spaces: dict[str, Space]) -> str:
    """What "mb 3-lay" saves beside the paper's saving."""
    saved = {name: shares(encoder_levels(space))[dropped_level(encoder_levels(space))] for name, space in spaces.items()}
    parts = " and ".join(f"{100 * share:.0f}% in {name}" for name, share in saved.items())
    return (
        f'"mb 3-lay" does without one level. The paper does not say which; there it saves {100 * DROPPED_SHARE:.0f}% of the '
        f"decoder's time, so the level whose share comes nearest to that is dropped here: {parts}."
    )


def step_table(steps: pd.DataFrame) -> pd.DataFrame:
    """Seconds of a step that trains weights and of one that trains alphas, and the cost of both in ratio to TF-NAS's."""
    first = steps.iloc[0]
    ratios = [f"{row.ratio:.2f} ({row.ratio_q25:.2f} to {row.ratio_q75:.2f})" for row in steps.itertuples()]
    columns = {"weights (s)": steps["weights_s"].round(3), "alphas (s)": steps["alphas_s"].round(3)}
    table = pd.DataFrame(columns | {"step / TF-NAS (quartiles)": ratios})
    name = f"batch {first['batch']}, {first['resolution']} px, {first['threads']} threads"
    return table.set_index(pd.Index(steps["search"], name=name))
