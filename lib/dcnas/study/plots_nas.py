"""What the notebooks of Section 4 say of trainings and of the paper's searches, in a sentence each."""


import pandas as pd

from . import compare, paper
from .stats import Interval, ratio_of_spreads


def training_text(rows: pd.DataFrame) -> str:
    """What the networks were trained on and for how long, and how many seeds each has."""
    first = rows.iloc[0]
    seeds = rows.groupby("label", sort=False)["seed"].nunique()
    few = seeds[seeds < seeds.max()]
    text = (
        f"Scale `{first['scale']}`: {first['set_images']:,.0f} training images of {first['classes']:.0f} classes "
        f"({first['data']}), {first['resolution']} x {first['resolution']} pixels. A network sees {first['images']:,.0f} of them, "
        f"{first['images'] / first['set_images']:.0f} epochs (the paper: 250 epochs of ImageNet-100 at 224 x 224), so absolute "
        f"values cannot be compared with the paper's; orders and differences can. Every network has "
        f"{compare.plural(seeds.max(), 'seed')}"
    )
    return text + (f", except these with {few.min()}: {'; '.join(few.index)}." if len(few) else ".")



def paper_spreads() -> dict[str, Interval]:
    """What C17 asks of the searches of the paper's Table 8: the spread of "latency" and "accuracy", learned over removed beta."""
    theirs = paper.table("table8_beta").set_index("beta")
    columns = {"latency": "latency_ms", "accuracy": "accuracy_pct"}
    return {what: ratio_of_spreads(*(theirs.loc[beta, name] for beta in ("learned", "removed"))) for what, name in columns.items()}


def spreads_text() -> str:
    """What the paper's own searches say of C17 by the same rule, in a sentence."""
    parts = " and ".join(f"{found} for {what}" for what, found in paper_spreads().items())
    return f"By the same rule the paper's own searches give, learned over removed, {parts}."



# ---- derivations
