"""What the command line prints: tables, and the progress of long work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from gensynth.synth.progress import Progress

__all__ = ["human", "print_table", "progress"]

_FEW = 20
"""Plain progress shows every step up to so many, of more about ten in all, and one every `_SILENCE` seconds."""
_SILENCE = 10.0


def human(number: float | None) -> str:
    """Returns a number as people read it: 1,234 as it is, more as 12.3k, 4.56M, 7.89G; a dash for None."""
    if number is None:
        return "-"
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= (10 * power if letter == "k" else power):
            return f"{number / power:.3g}{letter}" if abs(number) < 999.5 * power else f"{number / power:,.0f}{letter}"
    return f"{number:,}" if isinstance(number, int) else f"{number:,.2f}"


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, stream: TextIO | None = None, title: str = ""
) -> None:
    """Prints a table: drawn on a terminal, plain aligned text elsewhere. A column called `>name` is right-aligned."""
    stream = sys.stdout if stream is None else stream
    right = [name.startswith(">") for name in columns]
    names = [name.removeprefix(">") for name in columns]
    if stream.isatty():
        _print_rich(names, right, rows, stream, title)
        return
    if title:
        print(title, file=stream)
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    for row in (names, *rows):
        cells = [
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ]
        print("  ".join(cells).rstrip(), file=stream)


def _print_rich(
    names: Sequence[str], right: Sequence[bool], rows: Sequence[Sequence[str]], stream: TextIO, title: str
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left")
    for name, flush in zip(names, right, strict=True):
        table.add_column(name, justify="right" if flush else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(file=stream).print(table)


@contextmanager
def progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """Gives what listens to a long run: a live bar when stderr is a terminal, plain lines otherwise."""
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        yield _Lines(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[last]}", markup=False),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=Console(file=stream), transient=True) as bars:
        yield _Live(bars)


class _Lines:
    """Prints a line per event."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.last = time.monotonic()

    def stage(self, text: str) -> None:
        self.line(text)

    def advance(self, done: int, total: int, text: str) -> None:
        step = max(1, total // 10)
        silent = time.monotonic() - self.last > _SILENCE
        if total <= _FEW or done == total or done % step == 0 or silent:
            self.line(f"  {done}/{total}{'  ' if text else ''}{text}")

    def line(self, text: str) -> None:
        print(text, file=self.stream, flush=True)
        self.last = time.monotonic()


class _Live:
    """Moves a bar; lines stay above it."""

    def __init__(self, bars: RichProgress) -> None:
        self.bars = bars
        self.task: TaskID | None = None

    def stage(self, text: str) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
        self.bars.console.print(text, style="bold", markup=False, highlight=False)
        self.task = self.bars.add_task(text, total=None, last="")

    def advance(self, done: int, total: int, text: str) -> None:
        if self.task is None:
            self.task = self.bars.add_task("", total=total, last=text)
        self.bars.update(self.task, completed=done, total=total, last=text)

    def line(self, text: str) -> None:
        self.bars.console.print(f"  {text}", markup=False, highlight=False)
