"""Textual pipelines: `"offer{rewrite=separate-conv},open-width{ratios=[0.25,0.5,1.0]}"`, read and written."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NoReturn

from gensynth.ir import ParseError, Source, UsageError, nearest

from .base import OptionValue, Pass, pass_class

__all__ = ["needs_quotes", "parse_pipeline", "pipeline_text"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_WORD = re.compile(r"[^\s,{}\[\]\"=#]+")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z")
_SPACE = re.compile(r"(\s|#[^\n]*)*")
_NESTED = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\{[^{}\"#]*\}")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_FORM = "a pipeline reads pass,pass{option=value,option=[a,b]}; `gensynth passes NAME` tells the options of a pass"


def needs_quotes(word: str) -> bool:
    """Whether a word must be quoted to be read back as one (a nested `pass{option=value}` need not)."""
    return not _WORD.fullmatch(word) and not _NESTED.fullmatch(word)


def pipeline_text(passes: Sequence[Pass]) -> str:
    """Returns the text from which `parse_pipeline` makes the same passes."""
    return ",".join(item.text() for item in passes)


def parse_pipeline(text: str, name: str = "<passes>") -> tuple[Pass, ...]:
    """Returns the passes that a pipeline names.

    White space between tokens is free, and `#` comments run to the line's end. Quoted words are strings as in JSON.

    Raises:
        ParseError: with position, caret and remedy.
    """
    return _PipelineParser(Source(text, name)).pipeline()


class _PipelineParser:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text
        self.at = 0

    def fail(self, message: str, at: int | None = None, length: int = 1, hint: str | None = None) -> NoReturn:
        raise ParseError(
            message, source=self.source, offset=self.at if at is None else at, length=length, hint=hint or _FORM
        ) from None

    def skip(self) -> str:
        """Moves over white space and comments; returns the next character, empty at the end."""
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return self.text[self.at : self.at + 1]

    def pipeline(self) -> tuple[Pass, ...]:
        passes: list[Pass] = []
        if not self.skip():
            return ()
        while True:
            passes.append(self.one())
            character = self.skip()
            if not character:
                return tuple(passes)
            if character != ",":
                self.fail(f"expected ',' and another pass, found '{character}'")
            self.at += 1
            if not self.skip():
                self.fail("expected a pass after ','", hint="remove the last comma")

    def one(self) -> Pass:
        self.skip()
        start = self.at
        match = _NAME.match(self.text, self.at)
        if match is None:
            found = self.text[self.at : self.at + 1]
            shown = f"'{found}'" if found else "the end"
            self.fail(f"expected a pass, found {shown}", hint="`gensynth passes` lists them")
        self.at = match.end()
        try:
            cls = pass_class(match[0])
        except UsageError as error:
            self.fail(error.message, start, len(match[0]), error.hint)
        values: dict[str, OptionValue] = {}
        places: dict[str, tuple[int, int]] = {}
        if self.skip() == "{":
            values = self.options(cls, places)
        missing = [item.name for item in cls.options().values() if item.required and item.field not in values]
        if missing:
            self.fail(
                f"{cls.name} needs the option {' and '.join(missing)}",
                start,
                len(match[0]),
                f"write {cls.name}{{{','.join(f'{name}=...' for name in missing)}}}",
            )
        try:
            return cls(**values)
        except ParseError as error:  # of a pipeline inside an option: point into that option
            inside = next((key for key, value in values.items() if value == error.source.text), None)
            if inside is None:
                self.fail(f"{cls.name}: {error.reason}", start, len(match[0]), error.hint)
            at, length = places[inside]
            quoted = self.text[at] == '"'
            self.fail(f"{cls.name}: {error.reason}", at + quoted + error.offset, length - error.offset, error.hint)
        except UsageError as error:
            self.fail(error.message, start, len(match[0]), error.hint)

    def options(self, cls: type[Pass], places: dict[str, tuple[int, int]]) -> dict[str, OptionValue]:
        """Reads `{name=value, ...}`; notes in `places` where each value stands: (offset, length)."""
        known = cls.options()
        values: dict[str, OptionValue] = {}
        self.at += 1
        while self.skip() != "}":
            if values:
                if self.text[self.at : self.at + 1] != ",":
                    self.fail(f"expected ',' or '}}' in the options of {cls.name}", hint="options are name=value pairs")
                self.at += 1
                self.skip()
            start = self.at
            match = _NAME.match(self.text, self.at)
            if match is None:
                self.fail(f"expected an option of {cls.name}", hint=f"its options: {', '.join(known) or 'none'}")
            key = match[0].replace("_", "-")
            if key not in known:
                self.fail(
                    f"{cls.name} has no option '{match[0]}'",
                    start,
                    len(match[0]),
                    nearest(key, known, what=f"options of {cls.name}"),
                )
            if known[key].field in values:
                self.fail(f"option '{key}' is given twice", start, len(match[0]))
            self.at = match.end()
            if self.skip() != "=":
                self.fail(f"expected '=' and a value for '{key}'")
            self.at += 1
            self.skip()
            value_at = self.at
            value = self.value(words=known[key].takes_words)
            places[known[key].field] = value_at, self.at - value_at
            try:
                values[known[key].field] = known[key].convert(value)
            except ValueError as error:
                about = f"`gensynth passes {cls.name}` tells what its options take"
                self.fail(f"{cls.name}: {key}: {error}", value_at, max(1, self.at - value_at), about)
        self.at += 1
        return values

    def value(self, *, words: bool) -> OptionValue:
        """Reads a value; with `words`, what looks like a number, true or false stays the word that it is."""
        character = self.skip()
        if character == "[":
            self.at += 1
            items: list[bool | int | float | str] = []
            while self.skip() != "]":
                if items:
                    if self.text[self.at : self.at + 1] != ",":
                        self.fail("expected ',' or ']' in a list")
                    self.at += 1
                item = self.value(words=words)
                if isinstance(item, tuple) or item is None:
                    self.fail("a list holds no lists")
                items.append(item)
            self.at += 1
            return tuple(items)
        if character == '"':
            return self.quoted()
        match = _WORD.match(self.text, self.at)
        if match is None:
            self.fail("expected a value: a word, a number, true, false, or a list [a, b]")
        self.at = match.end()
        word = match[0]
        if self.text[self.at : self.at + 1] == "{":
            return word + self.braces()
        if words:
            return word
        if word in ("true", "false"):
            return word == "true"
        if _NUMBER.match(word):
            return int(word) if word.lstrip("+-").isdigit() else float(word)
        return word

    def quoted(self) -> str:
        match = _QUOTED.match(self.text, self.at)
        if match is None:
            self.fail("this quote is never closed")
        try:
            word: str = json.loads(match[0], strict=False)
        except ValueError as error:
            self.fail(f"cannot read this quoted word: {error}", length=len(match[0]), hint="write \\\\ for a backslash")
        self.at = match.end()
        return word

    def braces(self) -> str:
        """Reads `{...}` with nested braces and returns it as text: the options of a pass given as a value."""
        start, depth = self.at, 0
        while self.at < len(self.text):
            skipped = _QUOTED.match(self.text, self.at)
            if skipped is not None:
                self.at = skipped.end()
                continue
            depth += {"{": 1, "}": -1}.get(self.text[self.at], 0)
            self.at += 1
            if depth == 0:
                return self.text[start : self.at]
        self.fail("this brace is never closed", start)
