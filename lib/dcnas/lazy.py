"""Modules that are imported when they are first used, so that `dcnas --help` need not wait for torch."""

from importlib import import_module
from typing import Any


class Lazy:
    """Stands for the module `dcnas.NAME`."""

    def __init__(self, name: str):
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(f"dcnas.{self.name}"), attribute)
