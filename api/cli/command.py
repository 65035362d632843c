"""What a command is, and how its arguments are read: argparse whose faults are GenSynth's errors."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NoReturn

from gensynth.ir import UsageError, nearest

__all__ = ["Command", "Interrupted", "count", "positive", "require_onnx", "require_torch"]


class Interrupted(KeyboardInterrupt):
    """An interrupt of a run that can go on later; its text says how."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", hint=f"`{self.prog} --help` shows the arguments and an example")


@dataclass(frozen=True)
class Command:
    """One command: its name, a line about it, examples as typed in a shell, its arguments, and what it does.

    `run` returns the exit code; it may raise GenSynthError.
    """

    name: str
    summary: str
    examples: tuple[str, ...]
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    details: str = ""

    def parser(self) -> argparse.ArgumentParser:
        """Returns the parser of the command's arguments."""
        title = "example" if len(self.examples) == 1 else "examples"
        shown = "\n".join(f"  {example}" for example in self.examples)
        about = f"{self.summary[:1].upper()}{self.summary[1:]}."
        parser = _Parser(
            prog=f"gensynth {self.name}",
            description=f"{about}\n\n{self.details}" if self.details else about,
            epilog=f"{title}:\n{shown}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.arguments(parser)
        return parser

    def parse(self, argv: list[str]) -> argparse.Namespace | None:
        """Returns the arguments, or None where help was asked for and shown.

        Raises:
            UsageError: they are not such as the command takes.
        """
        parser = self.parser()
        if "-h" in argv or "--help" in argv:
            parser.print_help()
            return None
        arguments, unknown = parser.parse_known_intermixed_args(argv)
        if unknown:
            options = [option for action in parser._actions for option in action.option_strings]
            first = unknown[0].partition("=")[0]
            if first.startswith("-"):
                parser_hint = nearest(first, options, what="options")
                raise UsageError(f"{parser.prog}: unknown option '{first}'", hint=parser_hint)
            parser.error(f"unexpected argument '{first}'")
        return arguments


def count(text: str) -> int:
    """Reads a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got '{text}'")
    return int(text)


def positive(text: str) -> int:
    """Reads a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got '{text}'")
    return int(text)


def require_torch(what: str) -> None:
    """Checks, without importing it, that PyTorch is there.

    Raises:
        UsageError: it is not; the hint says how to install it.
    """
    if find_spec("torch") is None:
        raise UsageError(f"{what} needs PyTorch, which is not installed", hint='pip install "gensynth[torch]"')


def require_onnx(what: str) -> None:
    """Checks, without importing it, that onnx is there.

    Raises:
        UsageError: it is not; the hint says how to install it.
    """
    if find_spec("onnx") is None:
        raise UsageError(f"{what} needs onnx, which is not installed", hint='pip install "gensynth[onnx]"')
