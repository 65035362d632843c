"""The exceptions of GenSynth: one root, few subclasses, every message with a place and a remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "DataError",
    "GenSynthError",
    "InferenceError",
    "ParseError",
    "PassError",
    "Source",
    "UsageError",
    "VerifyError",
    "WeightsError",
    "nearest",
]


class GenSynthError(Exception):
    """Anything that GenSynth tells its user is wrong; `hint` says how to mend it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


class VerifyError(GenSynthError):
    """A graph that breaks an invariant of the IR."""


class InferenceError(VerifyError):
    """An op that cannot take its operands; `attribute` or `operand` names the culprit where one is known."""

    def __init__(
        self, message: str, *, hint: str | None = None, attribute: str | None = None, operand: int | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.attribute = attribute
        self.operand = operand


class WeightsError(GenSynthError):
    """Weights that do not fit the graph, or a weights file that cannot be read."""


class PassError(GenSynthError):
    """A pass that cannot do what it was asked on this network."""


class DataError(GenSynthError):
    """A data folder or file that is missing, damaged or laid out otherwise than its task expects."""


class UsageError(GenSynthError):
    """An argument, option or configuration value that is not one GenSynth knows."""


@dataclass(frozen=True)
class Source:
    """A text under parsing and the name to call it by in messages."""

    text: str
    name: str = "<text>"

    def position(self, offset: int) -> tuple[int, int]:
        """Returns the 1-based line and column of a character offset."""
        offset = max(0, min(offset, len(self.text)))
        line = self.text.count("\n", 0, offset) + 1
        return line, offset - (self.text.rfind("\n", 0, offset) + 1) + 1

    def excerpt(self, offset: int, length: int = 1) -> str:
        """Returns the line at `offset` with carets under `length` characters."""
        line, column = self.position(offset)
        lines = self.text.split("\n")
        content = lines[line - 1].replace("\t", " ") if lines else ""
        carets = "^" * max(1, min(length, len(content) - column + 1))
        return f"    {content}\n    {' ' * (column - 1)}{carets}"


class ParseError(GenSynthError):
    """Text that cannot be read: gives file, line, column, the line itself with a caret, and a remedy."""

    def __init__(self, message: str, *, source: Source, offset: int, length: int = 1, hint: str | None = None) -> None:
        self.source = source
        self.offset = offset
        self.line, self.column = source.position(offset)
        where = f"{source.name}:{self.line}:{self.column}"
        super().__init__(f"{where}: {message}\n{source.excerpt(offset, length)}", hint=hint)
        self.reason = message


def nearest(word: str, candidates: Iterable[str], *, what: str = "known names") -> str:
    """Returns a "did you mean" line for `word`, or the list of candidates where nothing is near."""
    names = sorted(candidates)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"{what}: {', '.join(names)}" if names else f"there are no {what}"
