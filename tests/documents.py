"""Runs the code blocks of one document, in order: `python documents.py DOCUMENT.md`.

Python blocks share a module. Lines of `sh` and `console` blocks that start with `$ ` are typed into a shell; what
stands below one, up to the next, is what it must print (to stdout, or to stderr where it prints nothing to stdout),
`...` alone on a line standing for any lines. A `text output` block is what the Python block before it must print. The
info word `file=NAME` writes a block to a file, `norun` keeps one from being run.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```[ \t]*$", re.MULTILINE | re.DOTALL)
_ERROR = "gensynth: error:"


@dataclass(frozen=True)
class Block:
    """A fenced block: where its first line stands, its language and further info words, and its text."""

    path: Path
    line: int
    language: str
    words: frozenset[str]
    text: str

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Typed:
    """A command of a shell block and what is shown below it."""

    line: int
    command: str
    shown: str


def blocks(path: Path) -> Iterator[Block]:
    """Yields the fenced blocks of a document."""
    content = path.read_text(encoding="utf-8")
    for match in _FENCE.finditer(content):
        language, *words = match[2].split() or [""]
        line = content.count("\n", 0, match.start(3)) + 1
        text = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
        yield Block(path, line, language, frozenset(words), text)


def typed(block: Block) -> Iterator[Typed]:
    """Yields the commands of a shell block; a line that ends in a backslash goes on in the next."""
    line, command = 0, ""
    shown: list[str] = []
    for number, text in enumerate(block.text.splitlines(), block.line):
        if command.endswith("\\"):
            command = f"{command[:-1]}{text.strip()}"
        elif text.startswith("$ "):
            if command:
                yield Typed(line, command, "\n".join(shown).strip("\n"))
            line, command, shown = number, text[2:], []
        else:
            shown.append(text)
    if command:
        yield Typed(line, command, "\n".join(shown).strip("\n"))


def _agrees(shown: str, printed: str) -> bool:
    def lines(text: str) -> list[str]:
        return [line.rstrip() for line in text.strip("\n").splitlines()]

    pattern = "".join(r"(?:[^\n]*\n)*?" if line == "..." else f"{re.escape(line)}\n" for line in lines(shown))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines(printed))) is not None


def _type(command: Typed, path: Path) -> None:
    ran = subprocess.run(["bash", "-c", command.command], capture_output=True, text=True, timeout=300)
    wanted = 2 if command.shown.startswith(_ERROR) else 0
    told = f"{path}:{command.line}: $ {command.command}\n{ran.stdout}{ran.stderr}"
    if ran.returncode != wanted:
        sys.exit(f"{told}\nexit code {ran.returncode}, not {wanted}")
    printed = ran.stdout if ran.stdout.strip() else ran.stderr
    if command.shown and not _agrees(command.shown, printed):
        sys.exit(f"{told}\nis shown as\n{command.shown}")


def run(path: Path) -> None:
    """Runs a document in the present folder; exits with a message at the first fault."""
    module = types.ModuleType("document")
    sys.modules["document"] = module
    printed = ""
    for block in blocks(path):
        if "norun" in block.words:
            continue
        for word in block.words:
            if word.startswith("file="):
                Path(word.removeprefix("file=")).write_text(block.text, encoding="utf-8")
        if block.language == "python":
            code = compile("\n" * (block.line - 1) + block.text, str(path), "exec", dont_inherit=True)
            with contextlib.redirect_stdout(io.StringIO()) as stream:
                exec(code, module.__dict__)
            printed = stream.getvalue()
        elif block.language == "text" and "output" in block.words:
            if not _agrees(block.text, printed):
                sys.exit(f"{block.place}: the block above prints\n{printed}\nand is shown as\n{block.text}")
        elif block.language in ("sh", "console"):
            for command in typed(block):
                _type(command, path)


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "120")
    run(Path(sys.argv[1]))
