"""Synthesis: generators, the inquisitor, tasks, prototypes, and the loop that learns. Loads torch on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import Config, load_config
    from .executor import Executor, LocalExecutor
    from .generator import Diversity, Generator
    from .inquisitor import Inquisitor, InquisitorSettings
    from .performance import PERFORMANCE, information_density, netscore, performance_function
    from .progress import Progress, Silent
    from .synthesis import Result, Synthesis, synthesize

__all__ = [
    "PERFORMANCE",
    "Config",
    "Diversity",
    "Executor",
    "Generator",
    "Inquisitor",
    "InquisitorSettings",
    "LocalExecutor",
    "Progress",
    "Result",
    "Silent",
    "Synthesis",
    "information_density",
    "load_config",
    "netscore",
    "performance_function",
    "synthesize",
]

_MODULES = {
    "config": ("Config", "load_config"),
    "executor": ("Executor", "LocalExecutor"),
    "generator": ("Diversity", "Generator"),
    "inquisitor": ("Inquisitor", "InquisitorSettings"),
    "performance": ("PERFORMANCE", "information_density", "netscore", "performance_function"),
    "progress": ("Progress", "Silent"),
    "synthesis": ("Result", "Synthesis", "synthesize"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
