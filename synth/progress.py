"""What a synthesis tells while it runs."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Listens to a long run."""

    def stage(self, text: str) -> None:
        """Is told what begins."""

    def advance(self, done: int, total: int, text: str) -> None:
        """Is told that `done` of `total` steps of the stage are done, and what the last one gave."""

    def line(self, text: str) -> None:
        """Is told something worth a line."""


class Silent:
    """Listens to nothing."""

    def stage(self, text: str) -> None:
        """Does nothing."""

    def advance(self, done: int, total: int, text: str) -> None:
        """Does nothing."""

    def line(self, text: str) -> None:
        """Does nothing."""
