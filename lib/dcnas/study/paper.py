"""The paper's claims, what their verdicts assume, and what does not fit together in it (`data/paper/*.csv`)."""

import pandas as pd

from ..paths import paper_dir


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
