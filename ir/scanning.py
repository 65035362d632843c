"""Tokens of the text form, cut by one regular expression, and what numbers and words among them mean."""

from __future__ import annotations

import re

from .types import DTYPE_BYTES

__all__ = ["END", "INTEGER", "MOST_DIGITS", "NUMBER", "TYPE", "WORD", "scan", "token_at"]

END = ""
"""Stands for the end of the text."""

MOST_DIGITS = 18
"""Integers of more digits are refused: no dimension or attribute comes near 64 bits."""

_DTYPES = "|".join(DTYPE_BYTES)
_TOKEN = re.compile(
    r"(?:[ \t\r\n]++|//[^\n]*+|\#[^\n]*+)*+"
    r"(%[A-Za-z_][\w.]*+|@[A-Za-z_][\w.]*+|"
    rf"(?:{_DTYPES})\[[^\].\n]*\]"  # no point: a logit after an alternative called f32 is no shape
    r'|[A-Za-z_][\w.]*+|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|"[^"\n]*"|->|[^ \t\r\n]|\Z)',
    re.ASCII,
)
INTEGER = re.compile(r"-?[0-9]+\Z")
NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
WORD = re.compile(r"[A-Za-z_][\w.]*\Z", re.ASCII)
TYPE = re.compile(rf"({_DTYPES})\[([^\].\n]*)\]\Z")


def scan(text: str) -> list[str]:
    """Returns the tokens of a text, blanks and comments left out, with a few `END`s after them for looking ahead."""
    return [*_TOKEN.findall(text), END, END, END]


def token_at(text: str, index: int) -> tuple[int, int]:
    """Returns (offset, length) of a token; found by scanning anew, for messages only."""
    for count, match in enumerate(_TOKEN.finditer(text)):
        if count == index and match[1]:
            return match.start(1), match.end(1) - match.start(1)
    return len(text.rstrip()), 1
