"""Modules that are imported when they are first used, so that `dcnas --help` need not wait for torch."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Lazy:
    """Stands for the module `dcnas.NAME`."""

    name: str

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(f"dcnas.{self.name}"), attribute)
