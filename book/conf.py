"""`make book`: the stored notebooks as a static site, by Sphinx.

Nothing is executed, and pages fetch nothing from elsewhere.
"""

import sys
from pathlib import Path

from docutils import nodes

from dcnas.study.claims import WORDS

sys.path.insert(0, str(Path(__file__).parent))
from grid import grid  # noqa: E402
from stock import stock  # noqa: E402

project = "dcnas"
author = "the dcnas authors"
extensions = ["myst_nb"]
exclude_patterns = ["**.ipynb_checkpoints", "own_network.ipynb"]  # the report of a reader's own network

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # a page has no kernel for widgets: the first picture of a panel stands there
nb_mime_priority_overrides = [("*", "application/vnd.jupyter.widget-view+json", None)]

html_theme = "furo"
html_title = "dcnas"
html_show_copyright = False
html_copy_source = False
html_favicon = "static/icon.svg"
html_static_path = ["static"]
html_css_files = ["book.css"]


def numbers_of_sliders(app, docname: str, source: list[str]) -> None:
    """Put published trainings into the page with sliders, networks and pictures into the demo."""
    if docname == "explore":
        source[0] = source[0].replace("GRID", grid())
    if docname == "demo":
        source[0] = source[0].replace("STOCK", stock(Path(app.outdir) / "_static" / "demo"))


def colour_verdicts(app, doctree: nodes.document) -> None:
    """Mark the ledger's cells with a verdict, for the style sheet."""
    for entry in doctree.findall(nodes.entry):
        if entry.astext() in WORDS:
            entry["classes"] += ["verdict", f"verdict-{WORDS[entry.astext()][0]}"]


def describe_pictures(app, doctree: nodes.document) -> None:
    """Give a figure of a notebook words: the heading it stands under, and the paragraph before it."""
    title = paragraph = ""
    for node in doctree.findall():
        if isinstance(node, nodes.title):
            title, paragraph = node.astext(), ""
        elif isinstance(node, nodes.paragraph):
            paragraph = node.astext().replace("\n", " ")
        elif isinstance(node, nodes.image) and "alt" not in node:
            node["alt"] = f"{title}: {paragraph}" if paragraph else title


def setup(app) -> None:
    app.connect("source-read", numbers_of_sliders)
    app.connect("doctree-read", colour_verdicts)
    app.connect("doctree-read", describe_pictures, priority=100)  # before image files are renamed
