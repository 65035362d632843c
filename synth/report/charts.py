"""The geometry of the charts; the templates draw it. Coordinates are SVG user units."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gensynth.passes import Requirement

from .figures import count, percent

__all__ = ["Bound", "Mark", "Scatter", "Spot", "Tick", "Trend", "scatter", "trend"]

WIDTH, HEIGHT = 540.0, 400.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 16.0, 44.0
_ERRORS = (100, 70, 50, 40, 30, 20, 15, 10, 7, 5, 4, 3, 2, 1.5, 1, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
_TICK_GAP = 24.0


@dataclass(frozen=True)
class Spot:
    """Something trained, to be drawn: its accuracy and cost, how it is drawn, and what is said of it.

    `kind` is `search`, `rejected`, `fermi` or `prototype`; `share` in [0, 1] is how late in the search it came.
    """

    accuracy: float
    cost: float
    kind: str
    tooltip: str
    share: float = 0.0
    link: str = ""


@dataclass(frozen=True)
class Mark:
    """A spot at its place."""

    x: float
    y: float
    spot: Spot


@dataclass(frozen=True)
class Tick:
    """A place on an axis and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Bound:
    """A requirement: its line, and the rectangle in which networks violate it."""

    label: str
    vertical: bool
    at: float
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Scatter:
    """Accuracy against a cost: the cost on a logarithmic axis, the accuracy logarithmic in the error."""

    name: str
    marks: tuple[Mark, ...]
    front: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    bounds: tuple[Bound, ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def scatter(name: str, metric: str, spots: Sequence[Spot], requirements: Sequence[Requirement]) -> Scatter | None:
    """Returns the chart of some spots, or None where there is nothing to draw."""
    spots = [spot for spot in spots if spot.cost > 0]
    if not spots:
        return None
    limits = [item for item in requirements if item.metric == metric and item.bound > 0]
    floors = [item for item in requirements if item.metric == "accuracy" and item.bound < 100]
    errors = [100 - spot.accuracy for spot in spots] + [100 - item.bound for item in floors]
    least = min((error for error in errors if error > 0), default=1.0) / 2
    heights = [-math.log10(max(error, least)) for error in errors]
    places = [math.log10(spot.cost) for spot in spots] + [math.log10(item.bound) for item in limits]
    x_at = _axis(places, LEFT, WIDTH - RIGHT)
    y_at = _axis(heights, HEIGHT - BOTTOM, TOP)

    def across(cost: float) -> float:
        return x_at(math.log10(cost))

    def up(accuracy: float) -> float:
        return y_at(-math.log10(max(100 - accuracy, least)))

    order = {"search": 0, "rejected": 1, "prototype": 2, "fermi": 3}
    drawn = sorted(spots, key=lambda spot: (order[spot.kind], spot.share, spot.cost, spot.accuracy, spot.tooltip))
    return Scatter(
        name,
        tuple(Mark(across(spot.cost), up(spot.accuracy), spot) for spot in drawn),
        _front(spots, across, up),
        _cost_ticks(across),
        _accuracy_ticks(up),
        tuple([_bound(item, True, across(item.bound)) for item in limits])
        + tuple([_bound(item, False, up(item.bound)) for item in floors]),
    )


def _axis(numbers: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    """Returns the map from numbers to an axis from `start` to `end`, with some air on both sides."""
    low, high = min(numbers), max(numbers)
    air = max(0.06 * (high - low), 0.05)
    low, high = low - air, high + air
    return lambda number: start + (number - low) / (high - low) * (end - start)


def _cost_ticks(across: Callable[[float], float]) -> tuple[Tick, ...]:
    inside = [power for power in range(-3, 14) if LEFT <= across(10.0**power) <= WIDTH - RIGHT]
    steps = (1, 2, 5) if len(inside) <= 2 else (1, 3) if len(inside) <= 4 else (1,)
    ticks = _ticks_at(steps, across)
    return ticks if len(ticks) > 1 else _ticks_at(range(1, 10), across)


def _ticks_at(steps: Sequence[int], across: Callable[[float], float]) -> tuple[Tick, ...]:
    ticks: list[Tick] = []
    for power in range(-3, 14):
        for step in steps:
            at = across(step * 10.0**power)
            if LEFT <= at <= WIDTH - RIGHT and (not ticks or at - ticks[-1].at >= 2 * _TICK_GAP):
                ticks.append(Tick(at, _short(step * 10.0**power)))
    return tuple(ticks)


def _short(number: float) -> str:
    if number < 1:
        return f"{number:g}"
    text = count(number)
    return text.replace(".00", "").replace(".0", "")


def _accuracy_ticks(up: Callable[[float], float]) -> tuple[Tick, ...]:
    ticks: list[Tick] = []
    for error in _ERRORS:
        at = up(100 - error)
        if TOP <= at <= HEIGHT - BOTTOM and (not ticks or ticks[-1].at - at >= _TICK_GAP):
            ticks.append(Tick(at, f"{100 - error:g}%"))
    return tuple(ticks)


def _bound(requirement: Requirement, vertical: bool, at: float) -> Bound:
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    more = requirement.sense == "<="
    if vertical:
        start, end = (at, right) if more else (left, at)
        return Bound(requirement.text, True, at, start, top, end - start, bottom - top)
    start, end = (top, at) if more else (at, bottom)
    return Bound(requirement.text, False, at, left, start, right - left, end - start)


def _front(spots: Sequence[Spot], across: Callable[[float], float], up: Callable[[float], float]) -> str:
    """Returns the path of the Pareto front: at every cost the best accuracy that it buys."""
    path, best = "", -1.0
    for spot in sorted(spots, key=lambda spot: (spot.cost, -spot.accuracy)):
        if spot.accuracy > best:
            best = spot.accuracy
            at = f"{across(spot.cost):.1f}"
            path += f"H{at}V{up(best):.1f}" if path else f"M{at} {up(best):.1f}"
    return f"{path}H{WIDTH - RIGHT:.1f}"


@dataclass(frozen=True)
class Trend:
    """One figure over the cycles, with its first and latest values in words."""

    name: str
    first: str
    latest: str
    explanation: str
    line: str
    marks: tuple[tuple[float, float, str], ...]
    x_ticks: tuple[Tick, ...]
    width: float = 260.0
    height: float = 120.0


def trend(name: str, explanation: str, values: Sequence[tuple[int, float]], show: Callable[[float], str]) -> Trend:
    """Returns the chart of (cycle, value) pairs."""
    left, right, top, bottom = 12.0, 248.0, 14.0, 96.0
    if not values:
        return Trend(name, "–", "–", explanation, "", (), ())
    cycles = [cycle for cycle, _ in values]
    numbers = [value for _, value in values]
    width, height = max(1, cycles[-1] - cycles[0]), max(numbers) - min(numbers)

    def place(cycle: int, value: float) -> tuple[float, float]:
        share = (value - min(numbers)) / height if height else 0.5
        return left + (cycle - cycles[0]) / width * (right - left), bottom - share * (bottom - top)

    marks = tuple((*place(cycle, value), f"cycle {cycle}: {show(value)}") for cycle, value in values)
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in marks)
    step = max(1, math.ceil(len(values) / 12))
    ticks = tuple(Tick(place(cycle, numbers[0])[0], str(cycle)) for cycle in cycles[::step])
    return Trend(name, show(numbers[0]), show(numbers[-1]), explanation, line, marks, ticks)


def accuracy_tooltip(name: str, accuracy: float, cost: str, more: str = "") -> str:
    """Returns what is said of a spot."""
    return f"{name}: {percent(accuracy)} on validation data, {cost}{more}"
