"""What the benchmarks share: interleaved timing, medians and ratios, tables, JSON."""

from __future__ import annotations

import gc
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Measurement", "machine", "measure", "print_table", "processor", "write_json"]


@dataclass(frozen=True)
class Measurement:
    """The time of one candidate in seconds, and how many times as long it takes as the first candidate."""

    name: str
    median: float
    fastest: float
    slowest: float
    ratio: float
    repetitions: int


def measure(
    candidates: Mapping[str, Callable[[], object]],
    repetitions: int = 15,
    prepare: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, Measurement]:
    """Returns the median time of every candidate, in seconds, and its ratio to the first one's.

    The candidates take turns, so that a slow spell of the machine meets all of them alike. Each is run once before
    the clock starts; the garbage collector rests while it runs, as in `timeit`. `prepare` is called before each run of
    its candidate, outside the clock (to empty caches, say).
    """
    prepare = prepare or {}
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for repetition in range(repetitions + 1):
        for name, run in candidates.items():
            if name in prepare:
                prepare[name]()
            gc.collect()
            gc.disable()
            try:
                start = time.perf_counter()
                run()
                elapsed = time.perf_counter() - start
            finally:
                gc.enable()
            if repetition:
                times[name].append(elapsed)
    base = statistics.median(next(iter(times.values())))
    return {
        name: Measurement(
            name, statistics.median(taken), min(taken), max(taken), statistics.median(taken) / base, repetitions
        )
        for name, taken in times.items()
    }


def machine() -> dict[str, str]:
    """Returns what the figures were taken on."""
    return {"python": platform.python_version(), "system": platform.platform(), "processor": processor()}


def processor() -> str:
    """Returns what the system calls the processor, and how many there are."""
    path = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", path.read_text(), re.MULTILINE) if path.exists() else []
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    """Prints a table, the first column to the left and the others to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, caption=caption or None, caption_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def write_json(path: str | Path | None, results: Mapping[str, object]) -> None:
    """Writes results, with the machine they were taken on, where a path is given; measurements become objects."""
    if path is None:
        return

    def plain(value: object) -> object:
        if isinstance(value, Measurement):
            return asdict(value)
        raise TypeError(f"{type(value).__name__} is not JSON")

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps({"machine": machine(), **results}, indent=2, default=plain) + "\n")
