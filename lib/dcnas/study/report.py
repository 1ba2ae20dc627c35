"""The one-page report on a network of one's own: what `own` has written into its folder, as a single HTML file."""

import base64
from pathlib import Path

import jinja2
import pandas as pd

from ..paths import write_atomic
from ..reading import read_frame, read_record
from ..shipped import read_card

NAME = "report.html"
PICTURES = ("architecture", "quality", "samples", "search")
RECORDED = (  # of a search: what the page says
    "network", "target_ms", "predicted_ms", "parameters", "flops", "verdict", "reason", "conditions", "table_error_pct", "data",
)  # fmt: skip
_PAGE = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
).get_template("report.html.jinja")  # fmt: skip
_COLUMNS = {
    "sigma": ("σ", 1), "noisy_psnr": ("noisy PSNR (dB)", 1), "psnr": ("PSNR (dB)", 2), "ssim": ("SSIM", 3),
    "accuracy": ("accuracy (%)", 1),
}  # fmt: skip


def write(folder: Path) -> Path:
    """Write `report.html` from what the folder holds: at least the record of a search or the card of a network."""
    record = read_record(folder / "search.json", RECORDED) if (folder / "search.json").exists() else None
    card = read_card(folder / "weights.card.json") if (folder / "weights.card.json").exists() else None
    pictures = {name: _embedded(folder / f"{name}.png") for name in PICTURES if (folder / f"{name}.png").exists()}
    metrics = read_frame(folder / "metrics.csv", ("sigma", "images")) if (folder / "metrics.csv").exists() else None
    page = _PAGE.render(
        record=record, card=card, pictures=pictures, table=None if metrics is None else _rows(metrics),
        images=None if metrics is None else int(metrics["images"].iloc[0]), title=_title(record, card),
    )  # fmt: skip
    return write_atomic(folder / NAME, page)


def _embedded(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _title(record: dict | None, card: dict | None) -> str:
    if record is None:
        return f"{card['network']['kind']}"
    return f"{record['network']} for {record['target_ms']:g} ms"


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
    interval = f" ({row[f'{name}_low']:.{digits}f} to {row[f'{name}_high']:.{digits}f})" if f"{name}_low" in row else ""
    return f"{row[name]:.{digits}f}{interval}"
