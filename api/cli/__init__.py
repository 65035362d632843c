"""The command line `gensynth`: one file per group of commands, errors told in one place."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from gensynth.ir import GenSynthError, UsageError, nearest

from . import calibrating, compiling, costing, devices, exporting, generators, listings, networks, optimizing, training
from .command import Command, Interrupted

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        *generators.COMMANDS,
        *networks.COMMANDS,
        *costing.COMMANDS,
        *exporting.COMMANDS,
        *compiling.COMMANDS,
        *optimizing.COMMANDS,
        *calibrating.COMMANDS,
        *training.COMMANDS,
        *listings.COMMANDS,
        *devices.COMMANDS,
    )
}
"""Every command by name, in the order of the help text."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code.

    0 is success (for `diff`: no difference, else 1), 2 bad input with one message on stderr, 130 an interrupt, 141 a
    reader of the output that has gone.
    """
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except GenSynthError as error:
        _say(error.message, error.hint)
        return 2
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as error:
        told = str(error) if isinstance(error, Interrupted) else ""
        print(f"gensynth: interrupted{'; ' if told else ''}{told}", file=sys.stderr)
        return 130


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if argv[0] == "--version":
        from gensynth import __version__

        print(f"gensynth {__version__}")
        return 0
    command = COMMANDS.get(argv[0])
    if command is None:
        what = "option" if argv[0].startswith("-") else "command"
        raise UsageError(f"unknown {what} '{argv[0]}'", hint=nearest(argv[0], COMMANDS, what="commands"))
    arguments = command.parse(argv[1:])
    return 0 if arguments is None else command.run(arguments)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        "usage: gensynth COMMAND ...",
        "",
        "Generative synthesis: learn a generator of small neural networks from a prototype, a task and requirements.",
        "",
        *(f"  {command.name:<{width}}  {command.summary}" for command in COMMANDS.values()),
        "",
        "`gensynth COMMAND --help` tells more, with an example. `-` is stdin or stdout where a .gsir file may stand.",
        "",
        "example:",
        '  gensynth prototype resnet depth=8 image=1x8x8 | gensynth opt - --passes "fold-batch-norm" | gensynth cost -',
    ]
    return "\n".join(lines)


def _say(message: str, hint: str | None) -> None:
    lines = [f"gensynth: error: {message}"]
    if hint is not None:
        lines.append("  hint: " + hint.replace("\n", "\n  "))
    print("\n".join(lines), file=sys.stderr)
