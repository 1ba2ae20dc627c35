"""The one-page report on a network of one's own: what `own` has written into its folder, as a single HTML file."""

import base64
from pathlib import Path

import jinja2
import pandas as pd

from ..deploy.weights import read_card
from ..paths import write_atomic
from ..reading import COUNT, NUMBER, SCORE, TEXT, read_frame, read_record, require_columns, require_kinds

NAME = "report.html"
PICTURES = ("architecture", "network", "quality", "samples", "search")
RECORDED = {  # of a search: what the page says
    "network": TEXT, "target_ms": NUMBER, "predicted_ms": NUMBER, "parameters": COUNT, "flops": COUNT, "verdict": TEXT,
    "reason": TEXT, "table_error_pct": NUMBER.or_none, "data": TEXT,
    "conditions": {
        "device": TEXT, "threads": COUNT, "batch": COUNT, "resolution": COUNT, "torch_version": TEXT, "date": TEXT,
    },
}  # fmt: skip
MEASURED = {"measured_ms": NUMBER, "noise_ms": NUMBER, "error_pct": NUMBER, "first_error_pct": NUMBER, "repairs": COUNT}
_PAGE = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
).get_template("report.html.jinja")  # fmt: skip
_COLUMNS = {
    "sigma": ("σ", 1), "noisy_psnr": ("noisy PSNR (dB)", 1), "psnr": ("PSNR (dB)", 2), "ssim": ("SSIM", 3),
    "accuracy": ("accuracy (%)", 1),
}  # fmt: skip
_KINDS = {"sigma": NUMBER, "images": COUNT} | {
    f"{name}{end}": SCORE for name in ("noisy_psnr", "psnr", "ssim", "accuracy") for end in ("", "_low", "_high")
}  # fmt: skip


def write(folder: Path) -> Path:
    """Write `report.html` from what the folder holds: at least the record of a search or the card of a network.

    `InputError` where a record, a card or a table of metrics is not sound.
    """
    record = read_search(folder / "search.json") if (folder / "search.json").exists() else None
    card = _card(folder / "weights.card.json") if (folder / "weights.card.json").exists() else None
    pictures = {name: _embedded(folder / f"{name}.png") for name in PICTURES if (folder / f"{name}.png").exists()}
    metrics = _metrics(folder / "metrics.csv") if (folder / "metrics.csv").exists() else None
    searched = record is not None and (card is None or is_of(record, card))
    page = _PAGE.render(
        record=record, card=card, searched=searched, pictures=pictures, table=None if metrics is None else _rows(metrics),
        images=None if metrics is None else int(metrics["images"].iloc[0]),
        title=f"{record['network']} for {record['target_ms']:g} ms" if searched else network_text(card["network"]),
        network=network_text(card["network"] if card else {"kind": record["network"], "decoder": "conv"}, plain=True),
        drawing=pictures.get("architecture" if searched else "network"),
    )  # fmt: skip
    return write_atomic(folder / NAME, page)


def read_search(path: Path) -> dict:
    """The record of a search, with its measurement whole or not at all; `InputError` for any other file."""
    record = read_record(path, RECORDED)
    if MEASURED.keys() & record.keys():
        require_kinds(path, record, MEASURED)
    return record


def is_of(record: dict, card: dict) -> bool:
    """Whether a card is of the very network that was searched, which has the decoder that latencies are predicted for."""
    return network_text(card["network"]) == record["network"] and card["parameters"] == record["parameters"]


def network_text(network: dict, plain: bool = False) -> str:
    """What a card's network is: "C-NAS", "DC-NAS, decoder mb"; the usual decoder "conv" only if `plain`."""
    kind, decoder = network["kind"], network.get("decoder")
    return kind if kind == "C-NAS" or decoder is None or (decoder == "conv" and not plain) else f"{kind}, decoder {decoder}"


def _card(path: Path) -> dict:
    card = read_card(path)
    return card


def _metrics(path: Path) -> pd.DataFrame:
    metrics = read_frame(path, ("sigma", "images"))
    require_columns(path, metrics, _KINDS)
    return metrics


def _embedded(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _rows(metrics: pd.DataFrame) -> list[list[str]]:
    """Header and rows of the table of metrics, values with their intervals."""
    names = [name for name in _COLUMNS if name in metrics]
    rows = [[_COLUMNS[name][0] for name in names]]
    for row in metrics.to_dict("records"):
        rows.append([_cell(row, name, _COLUMNS[name][1]) for name in names])
    return rows


def _cell(row: dict, name: str, digits: int) -> str:
    if row[name] == float("inf"):
        return "∞"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    interval = "" if low is None or high is None else f" ({low:.{digits}f} to {high:.{digits}f})"
    return f"{row[name]:.{digits}f}{interval}"
