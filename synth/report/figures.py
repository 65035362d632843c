"""How figures are written on the page, and the headline made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gensynth.passes.cost import Interval

from .run import Row

__all__ = ["byte_count", "count", "headline", "interval", "measure", "percent", "points", "ratio", "span"]


def count(number: float) -> str:
    """Returns a count with three figures: `763.5k`, `41.2M`."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.99995 * size:
            return f"{number / size:.{_decimals(number / size)}f}{unit}"
    return f"{number:.0f}" if float(number).is_integer() else f"{number:.2f}"


def byte_count(number: float) -> str:
    """Returns bytes in decimal units, as requirements count them: `2.3 kB`."""
    return f"{number:.0f} B" if number < 1000 else f"{count(number)[:-1]} {count(number)[-1]}B"


def _decimals(number: float) -> int:
    return max(0, 2 - int(math.log10(abs(number)))) if number else 0


def measure(number: float) -> str:
    """Returns milliseconds, millijoules and the like with three figures: `0.853`, `12.4`."""
    return count(number) if abs(number) >= 1000 else f"{number:.{_decimals(number) + (0 < abs(number) < 1)}f}"


def interval(found: Interval) -> str:
    """Returns the ends of an interval: `0.71–1.02`."""
    return f"{measure(found.low)}–{measure(found.high)}"


def percent(number: float | None) -> str:
    """Returns percent with two decimals, a dash where there is none."""
    return "–" if number is None else f"{number:.2f}%"


def points(number: float) -> str:
    """Returns a difference of percents: `−1.4`."""
    return f"{number:+.1f}".replace("-", "−")


def ratio(number: float | None) -> str:
    """Returns a ratio: `20.1×`."""
    return "–" if number is None else f"{number:.1f}×" if number >= 1 else f"{number:.2f}×"


def span(numbers: Sequence[float]) -> str:
    """Returns the range of some ratios: `19.3–30.9`."""
    low, high = min(numbers), max(numbers)
    ends = [f"{end:.0f}" if low >= 100 else f"{end:.1f}" if low >= 1 else f"{end:.2f}" for end in (low, high)]
    return ends[0] if ends[0] == ends[1] else "–".join(ends)


def headline(prototype: Row | None, networks: Sequence[Row]) -> str:
    """Returns what came of the run in one sentence; of what is there, where the run is unfinished."""
    if not networks:
        return "No network has been emitted yet."
    different = len({row.architecture_hash for row in networks})
    noun = "FermiNet" if len(networks) == 1 else "FermiNets"
    start = f"{different} different {noun}" if different == len(networks) > 1 else f"{len(networks)} {noun}"
    if different < len(networks):
        start += f" of {different} different architectures"
    tested = [row for row in networks if row.accuracy is not None]
    if prototype is None or prototype.accuracy is None or len(tested) < len(networks):
        return f"{start}, not tested yet."
    densities = [row.density_ratio for row in networks if row.density_ratio is not None]
    macs = [row.macs_ratio for row in networks if row.macs_ratio is not None]
    parts = []
    if densities:
        parts.append(f"{span(densities)}× the information density")
    if macs:
        fewer = min(macs) >= 1
        parts.append(f"{span(macs)}× fewer MACs" if fewer else f"{span([1 / item for item in macs])}× the MACs")
    loss = max(prototype.accuracy - row.accuracy for row in networks if row.accuracy is not None)
    if loss <= 0:
        parts.append("test accuracy no lower than the prototype’s")
    else:
        parts.append(f"test accuracy within {math.ceil(loss * 10 - 1e-9) / 10:.1f} points of the prototype’s")
    return f"{start}: {', '.join(parts)}."
