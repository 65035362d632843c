"""Kinds of attributes: what each accepts, its normal form, and how it is written in the text form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

__all__ = [
    "AttributeValue",
    "BoolKind",
    "FloatKind",
    "IntKind",
    "IntsKind",
    "Kind",
    "Padding",
    "PaddingKind",
    "Pair",
    "PairKind",
    "WordKind",
    "attribute",
    "format_value",
    "pair",
]

Pair = int | tuple[int, int]
"""Height and width; one integer where they agree (the normal form)."""

Padding = str | int | tuple[int, ...]
"""`"same"`, `"valid"`, one integer, (height, width) or (top, bottom, left, right); the shortest is the normal form."""

AttributeValue = bool | int | float | str | tuple[int, ...]
"""The normal form of any attribute."""

T = TypeVar("T", bound="AttributeValue | None")


def pair(value: Pair) -> tuple[int, int]:
    """Returns (height, width) of a pair in normal form."""
    return value if isinstance(value, tuple) else (value, value)


def format_value(value: AttributeValue) -> str:
    """Returns the text form of an attribute value."""
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value)


class Kind(Generic[T]):
    """What an attribute accepts. `normalize` returns the normal form or raises ValueError saying what is expected."""

    expected: str

    def normalize(self, value: object) -> T:
        raise NotImplementedError

    def refuse(self, value: object) -> ValueError:
        shown = format_value(value) if isinstance(value, (bool, int, float, str, tuple)) else repr(value)
        return ValueError(f"expected {self.expected}, got {shown}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class IntKind(Kind[int]):
    """An integer of at least `least`."""

    least: int = 1

    @property
    def expected(self) -> str:  # type: ignore[override]
        return "a positive integer" if self.least == 1 else f"an integer of at least {self.least}"

    def normalize(self, value: object) -> int:
        if not _is_int(value) or cast(int, value) < self.least:
            raise self.refuse(value)
        return cast(int, value)


@dataclass(frozen=True)
class FloatKind(Kind[float]):
    """A finite number within [least, most]."""

    least: float = -math.inf
    most: float = math.inf

    @property
    def expected(self) -> str:  # type: ignore[override]
        if self.least == -math.inf and self.most == math.inf:
            return "a finite number"
        return f"a number from {self.least:g} to {self.most:g}"

    def normalize(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(value)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number) or not self.least <= number <= self.most:
            raise self.refuse(value)
        return number + 0.0  # -0.0 equals 0.0 and must not print otherwise


@dataclass(frozen=True)
class BoolKind(Kind[bool]):
    """`true` or `false`."""

    expected: str = "true or false"

    def normalize(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise self.refuse(value)
        return value


@dataclass(frozen=True)
class WordKind(Kind[str]):
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:  # type: ignore[override]
        return "one of " + ", ".join(self.words)

    def normalize(self, value: object) -> str:
        if value not in self.words:
            raise self.refuse(value)
        return value


@dataclass(frozen=True)
class IntsKind(Kind["tuple[int, ...]"]):
    """A list of integers of at least `least`."""

    least: int = 1

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"a list of integers of at least {self.least}, such as [16, 32]"

    def normalize(self, value: object) -> tuple[int, ...]:
        if not isinstance(value, (tuple, list)) or not all(_is_int(item) and item >= self.least for item in value):
            raise self.refuse(tuple(value) if isinstance(value, list) else value)
        return tuple(value)


@dataclass(frozen=True)
class PairKind(Kind[Pair]):
    """Height and width: `3`, or `[3, 1]` where they differ. `least` bounds both; 0 stands for "as the kernel"."""

    least: int = 1

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"an integer of at least {self.least} or a [height, width] pair"

    def normalize(self, value: object) -> Pair:
        items: Sequence[object] = value if isinstance(value, (tuple, list)) else (value, value)
        if len(items) != 2 or not all(_is_int(item) and cast(int, item) >= self.least for item in items):
            raise self.refuse(tuple(value) if isinstance(value, list) else value)
        height, width = cast("tuple[int, int]", tuple(items))
        return height if height == width else (height, width)


@dataclass(frozen=True)
class PaddingKind(Kind[Padding]):
    """`same`, `valid`, `1`, `[height, width]` or `[top, bottom, left, right]`."""

    expected: str = "same, valid, an integer, [height, width] or [top, bottom, left, right]"
    words: tuple[str, ...] = field(default=("same", "valid"))

    def normalize(self, value: object) -> Padding:
        if value in self.words:
            return value
        if _is_int(value) and cast(int, value) >= 0:
            return "valid" if value == 0 and "valid" in self.words else cast(int, value)
        if isinstance(value, (tuple, list)) and all(_is_int(item) and item >= 0 for item in value):
            if len(value) == 2:
                value = (value[0], value[0], value[1], value[1])
            if len(value) == 4:
                top, bottom, left, right = value
                if top == bottom and left == right:
                    return self.normalize(top) if top == left else (top, left)
                return (top, bottom, left, right)
        raise self.refuse(tuple(value) if isinstance(value, list) else value)


class _Missing:
    """Stands for "no default" in attribute declarations."""


_MISSING = _Missing()


def attribute(kind: Kind[T], default: T | _Missing = _MISSING) -> Any:
    """Declares a typed attribute of an op; without a default it is required."""
    if isinstance(default, _Missing):
        return field(metadata={"kind": kind})
    return field(default=default, metadata={"kind": kind})
