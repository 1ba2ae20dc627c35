"""`make book`: the stored notebooks as a static site, by Sphinx. Nothing is executed, and pages fetch nothing from elsewhere."""

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
