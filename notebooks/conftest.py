"""The tables in `figures/` are made anew whenever the notebooks are checked, and must come out equal to
the byte.
"""

import time
from pathlib import Path

TABLES = Path(__file__).parents[1] / "figures"


def pytest_sessionstart(session):
    session.config.begun = time.time()
    session.config.tables = {path.name: path.read_bytes() for path in TABLES.glob("*.csv")}


def pytest_sessionfinish(session, exitstatus):
    before = session.config.tables
    now = {path.name: path.read_bytes() for path in TABLES.glob("*.csv")}
    changed = sorted(name for name in before | now if before.get(name) != now.get(name))
    problems = (
        [f"The notebooks, run anew, change these tables in figures/: {', '.join(changed)}"]
        if changed
        else []
    )
    checked = {item.path.name for item in session.items}
    if checked >= {path.name for path in Path(__file__).parent.glob("*.ipynb")} - {"own_network.ipynb"}:
        made = {
            path.name
            for path in TABLES.glob("*.csv")
            if path.stat().st_mtime >= session.config.begun - 1
        }
        if left := sorted(set(before) - made):
            problems.append(f"No notebook makes these tables in figures/: {', '.join(left)}")
    if problems:
        print("", *problems, sep="\n")
        session.exitstatus = 1
