"""Golden files: what a test produces against what stands in a file, renewed by `pytest --update-golden`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["GoldenCheck", "add_golden_option", "golden_check"]

GoldenCheck = Callable[[Path, str], None]


def add_golden_option(parser: pytest.Parser) -> None:
    """Adds `--update-golden`."""
    parser.addoption("--update-golden", action="store_true", help="write golden files anew instead of comparing")


def golden_check(config: pytest.Config) -> GoldenCheck:
    """Returns a function that compares a text with a golden file, or writes it under `--update-golden`."""

    def check(path: Path, text: str) -> None:
        if config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        assert path.exists(), f"{path} does not exist; write it with pytest --update-golden, and read it"
        assert text == path.read_text(encoding="utf-8"), f"{path.name} differs; if rightly so, pytest --update-golden"

    return check
