"""The paper's tables as data (`data/paper/*.csv`)."""

import pandas as pd

from ..errors import InputError
from ..paths import paper_dir

TABLES = ("table1_6_classifiers", "table2_unet", "table3_dcnet", "table4_dnas", "table5_dcnas", "table7_operators", "table8_beta")


def table(name: str) -> pd.DataFrame:
    """One of the paper's tables, such as "table3_dcnet"."""
    if name not in TABLES:
        raise InputError(f"table is {name!r}, but one of {', '.join(TABLES)} was expected.")
    return pd.read_csv(paper_dir() / f"{name}.csv")


def networks() -> pd.DataFrame:
    """The paper's FLOPs, latency and mean quality of every network of Section 3, by its name there."""
    unets = table("table2_unet").drop_duplicates("model").set_index("model")[["flops_m", "latency_ms"]]
    joint = table("table3_dcnet")
    joint.index = joint.pop("model") + " " + joint.pop("type")
    return pd.concat([table("table1_6_classifiers").set_index("model"), unets, joint])


def unet_quality(model: str, metric: str) -> dict[float, float]:
    """Table 2's "PSNR" or "SSIM" of "UNet Baseline" or "UNet Reduced", by sigma."""
    row = table("table2_unet").query("model == @model and metric == @metric").iloc[0]
    return {float(name.removeprefix("sigma_")): float(row[name]) for name in row.index if name.startswith("sigma_")}


def claims() -> pd.DataFrame:
    """The paper's claims: id, section, source, statement, kind; index is the id."""
    return pd.read_csv(paper_dir() / "claims.csv").set_index("id")


def assumed() -> pd.Series:
    """What each claim's verdict takes for granted where the paper is silent or out of reach: what its section does, and its own.

    Names in braces stand for what differs between results, such as the batch size; `ledger.comparisons` fills them in.
    """
    texts = pd.read_csv(paper_dir() / "assumptions.csv").set_index("of")["assumed"]
    of_claims = {id: "; ".join(texts[key] for key in (section, id) if key in texts) for id, section in claims()["section"].items()}
    return pd.Series(of_claims, name="assumed")


def inconsistencies() -> pd.DataFrame:
    """What does not fit together in the paper: where, what it says, why it cannot be, what stands here, in which notebook."""
    return pd.read_csv(paper_dir() / "inconsistencies.csv").set_index("where")
