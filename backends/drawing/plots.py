"""Plots: the roofline of a network on a device, and predictions beside measurements. Loads matplotlib on first use."""

from __future__ import annotations

import math
import os
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gensynth.ir import UsageError
from gensynth.passes.cost.model import FILLING, effective
from gensynth.passes.cost.workload import KINDS

from .figures import Spot, align_title, label_spots, new_figure, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    from gensynth.passes.cost import CostModel, Estimate, KernelEstimate

__all__ = ["Point", "calibration_plot", "roofline_plot"]

UNITS = {"latency": "ms", "energy": "mJ"}

_BOUNDS = {"compute": ("o", "#0072b2"), "memory": ("s", "#d55e00"), "launch": ("^", "#7f4fc9")}
"""Marker and colour by what a kernel's time is mostly made of."""
_SHADE = "#f3f3ee"
_LABELLED = 6
_AREA = 2200.0
"""Area, in square points, of a dot that stands for the whole latency."""
_LEAST_AREA = 9.0


# The roofline.


class _Dot(NamedTuple):
    """Kernels that are alike: the first and how many, operations a byte, GOP/s, and their share of the latency."""

    first: KernelEstimate
    times: int
    intensity: float
    rate: float
    share: float

    @property
    def area(self) -> float:
        return max(_LEAST_AREA, _AREA * self.share)

    @property
    def label(self) -> str:
        times = f" ×{self.times}" if self.times > 1 else ""
        return f"{self.first.name}{times}  {100 * self.share:.1f}%"


class _Roof(NamedTuple):
    """The most GOP/s and GB/s, and what they are called; a fitted roof's corner is as round as the model's."""

    rate: float
    bandwidth: float
    label: str
    fitted: bool

    def at(self, intensity: float) -> float:
        """Returns the most GOP/s at so many operations a byte."""
        if not self.fitted:
            return min(self.rate, self.bandwidth * intensity)
        return float(((1.0 / self.rate) ** 3 + (1.0 / (self.bandwidth * intensity)) ** 3) ** (-1 / 3))

    @property
    def ridge(self) -> float:
        return self.rate / self.bandwidth


def roofline_plot(
    estimate: Estimate, model: CostModel, path: str | os.PathLike[str], *, title: str, labelled: int = _LABELLED
) -> None:
    """Draws what a network reaches on a device: GOP/s over operations a byte moved, a dot for each kernel.

    The area of a dot is its share of the latency; kernels that are alike share one. Lines are what the hardware and the
    fitted model allow, 2 operations a MAC. The dearest few are labelled. `title` names the network; the path ends in
    .svg or .png.

    Raises:
        UsageError: the path ends otherwise or cannot be written, or matplotlib (the extra `plot`) is not installed.
    """
    dots, silent = _dots(estimate)
    roofs = _roofs(estimate, model)
    named = _dearest(dots, labelled)
    with new_figure(path, 9.0, 6.6) as figure:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.set_yscale("log")
        _set_limits(axes, dots, roofs)
        shade = _draw_roofs(axes, roofs)
        for dot in sorted(dots, key=lambda dot: -dot.share):
            marker, colour = _BOUNDS[dot.first.bound]
            axes.scatter(
                dot.intensity, dot.rate, s=dot.area, marker=marker, c=colour, alpha=0.75, linewidths=0.6, edgecolors="w"
            )
        axes.set_xlabel("operations a byte moved")
        axes.set_ylabel("GOP/s")
        for axis in (axes.xaxis, axes.yaxis):
            plain_ticks(axis)
        head = figure.suptitle(f"@{title} on {estimate.device}", ha="left", fontsize=13, fontweight="bold")
        axes.set_title(_caption(estimate, silent), loc="left", fontsize=9, color="#333333", linespacing=1.5)
        figure.legend(handles=_legend(axes, dots, shade), loc="outside lower left", ncols=2, columnspacing=3.0)
        align_title(figure, head)
        spots = [Spot(dot.intensity, dot.rate, dot.area, dot.label) for dot in named]
        spots += [Spot(dot.intensity, dot.rate, dot.area) for dot in dots if dot not in named]
        label_spots(axes, spots, [_points(axes, roof, 150) for roof in roofs])


def _dots(estimate: Estimate) -> tuple[list[_Dot], tuple[int, float]]:
    """Returns the dots, and how many kernels have no arithmetic and so none, with their share of the latency."""
    alike: dict[tuple[str, int, float, float], list[KernelEstimate]] = {}
    silent, silent_ms = 0, 0.0
    for kernel in estimate.kernels:
        if kernel.operations and kernel.moved:
            key = (kernel.kind, kernel.operations, kernel.moved, kernel.latency_ms)
            alike.setdefault(key, []).append(kernel)
        else:
            silent += 1
            silent_ms += kernel.latency_ms
    dots = [
        _Dot(
            kernels[0],
            len(kernels),
            kernels[0].operations / kernels[0].moved,
            kernels[0].operations / kernels[0].latency_ms * 1e-6,
            len(kernels) * kernels[0].latency_ms / estimate.latency_ms,
        )
        for kernels in alike.values()
    ]
    return dots, (silent, silent_ms / estimate.latency_ms)


def _dearest(dots: Sequence[_Dot], count: int) -> list[_Dot]:
    """Returns the dots with the most of the latency, that of the dearest single kernel first."""
    if not dots:
        return []
    first = max(dots, key=lambda dot: dot.first.latency_ms)
    rest = sorted((dot for dot in dots if dot is not first), key=lambda dot: -dot.share)
    return [first, *rest][:count]


def _roofs(estimate: Estimate, model: CostModel) -> list[_Roof]:
    """Returns the roofs of the hardware and of the model, the latter's for the fastest kinds that the network has."""
    device, condition = model.device, estimate.condition
    mode, modes = device.power_modes[condition.power_mode], device.power_modes.values()
    clock = mode.clock / max(item.clock for item in modes)
    memory = mode.memory_clock / max(item.memory_clock for item in modes)
    peak, bandwidth = 2.0 * clock * device.precisions[condition.precision].peak, memory * device.peak_bandwidth
    given = effective(device, condition)
    kinds = {kernel.kind for kernel in estimate.kernels}
    computing = [kind for kind in KINDS if kind in kinds & (FILLING | {"dense"})] or ["conv"]
    moving = [kind for kind in KINDS if kind in kinds] or ["conv"]
    fastest = max(computing, key=lambda kind: given.rate[KINDS.index(kind)])
    fitted = 2.0 * float(given.rate[KINDS.index(fastest)])
    reached = max(float(given.bandwidth[KINDS.index(kind)]) for kind in moving)
    return [
        _Roof(peak, bandwidth, f"hardware: {peak:,.4g} GOP/s, {bandwidth:.3g} GB/s", False),
        _Roof(fitted, reached, f"fitted: {fitted:,.4g} GOP/s ({fastest}), {reached:.3g} GB/s", True),
    ]


def _set_limits(axes: Axes, dots: Sequence[_Dot], roofs: Sequence[_Roof]) -> None:
    across = [*(dot.intensity for dot in dots), *(roof.ridge for roof in roofs)]
    left, right = min(across) / 2.5, max(across) * 4.0
    heights = [*(dot.rate for dot in dots), *(roof.at(left) for roof in roofs)]
    least, most = min(heights), max(roof.rate for roof in roofs)
    axes.set_xlim(left, right)
    axes.set_ylim(least / max(2.5, (most / least) ** 0.08), most * 2.0)


def _points(axes: Axes, roof: _Roof, count: int) -> list[tuple[float, float]]:
    """Returns points of a roof from the left edge of the axes to the right."""
    left, right = axes.get_xlim()
    across = [left * (right / left) ** (step / (count - 1)) for step in range(count)]
    return [(value, roof.at(value)) for value in across]


def _draw_roofs(axes: Axes, roofs: Sequence[_Roof]) -> Patch:
    """Draws the roofs, and shades where kernels bound by launch lie."""
    from matplotlib.patches import Patch

    for roof in roofs:
        style, width = ("-", 1.6) if roof.fitted else ((0, (5, 3)), 1.2)
        across, heights = zip(*_points(axes, roof, 400), strict=True)
        axes.plot(across, heights, color="#222222", linestyle=style, linewidth=width, label=roof.label, zorder=1.5)
        if roof.fitted:
            floor = axes.get_ylim()[0]
            half = [max(floor, 0.5 * value) for value in heights]
            axes.fill_between(across, floor, half, color=_SHADE, linewidth=0, zorder=0.5)
    return Patch(color=_SHADE, label="below half of the fitted roof: launch, or partly idle units")


def _caption(estimate: Estimate, silent: tuple[int, float]) -> str:
    condition = estimate.condition
    words = [condition.precision, condition.power_mode, condition.runtime, f"batch {condition.batch}"]
    latency, energy = estimate.latency, estimate.energy
    lines = [
        ", ".join(words),
        ", ".join(
            [
                f"latency {latency.value:,.3g} ms ({latency.low:,.3g} to {latency.high:,.3g})",
                f"energy {energy.value:,.3g} mJ ({energy.low:,.3g} to {energy.high:,.3g})",
                "90% intervals",
            ]
        ),
    ]
    notes = []
    if estimate.overhead_ms:
        notes.append(f"{100 * estimate.overhead_ms / estimate.latency_ms:.1f}% of the latency is overhead")
    if silent[0]:
        notes.append(f"{100 * silent[1]:.1f}% goes to {silent[0]} kernel{'s' * (silent[0] > 1)} without arithmetic")
    notes = [", ".join(notes)] if notes else []
    if estimate.outside:
        notes.append(f"warning: {'; '.join(estimate.outside)}")
    for note in notes:
        lines += textwrap.wrap(note, 120)
    return "\n".join(lines)


def _legend(axes: Axes, dots: Sequence[_Dot], shade: Patch) -> list[Line2D | Patch]:
    from matplotlib.lines import Line2D

    handles: list[Line2D | Patch] = []
    for bound, (marker, colour) in _BOUNDS.items():
        share = sum(dot.share for dot in dots if dot.first.bound == bound)
        handles.append(
            Line2D(
                [],
                [],
                marker=marker,
                color=colour,
                linestyle="",
                label=f"bound by {bound}: {100 * share:.1f}% of the latency",
            )
        )
    area = Line2D([], [], linestyle="", label="area: share of the latency; ×2: two kernels alike")
    return [*handles, area, *axes.get_lines(), shade]


# Predictions and measurements.


@dataclass(frozen=True)
class Point:
    """A measurement beside its prediction by a model that was fitted without it.

    `quantity` is `latency` [ms] or `energy` [mJ], each a panel; `group` is what the colour stands for.
    """

    quantity: str
    group: str
    measured: float
    predicted: float


def calibration_plot(points: Sequence[Point], path: str | os.PathLike[str], title: str) -> None:
    """Draws predicted over measured, a panel for each quantity, with the lines of no error and of 10% either way.

    Raises:
        UsageError: there are no points, or some are not above zero; the path ends otherwise than in .svg or .png, or
            cannot be written; or matplotlib (the extra `plot`) is not installed.
    """
    if not points:
        raise UsageError("there is nothing to plot", hint="give at least one measurement")
    for point in points:
        if not (0.0 < point.measured < math.inf and 0.0 < point.predicted < math.inf):
            raise UsageError(f"cannot plot {point}", hint="what is measured and predicted is above zero")
    panels = {quantity: [point for point in points if point.quantity == quantity] for quantity in _ordered(points)}
    groups = sorted({point.group for point in points})
    height = 5.6 + 0.19 * math.ceil(len(groups) / 3)
    with new_figure(path, 0.6 + 4.6 * max(len(panels), 1.1), height) as figure:
        looks = _looks(groups)
        for column, (quantity, found) in enumerate(panels.items(), 1):
            _draw_panel(figure.add_subplot(1, len(panels), column), quantity, found, looks)
        words = "\n".join(textwrap.wrap(title, 48 * len(panels)))
        head = figure.suptitle(words, ha="left", fontsize=13, fontweight="bold")
        figure.legend(handles=_handles(groups, looks), loc="outside lower left", ncols=3 if len(panels) > 1 else 2)
        align_title(figure, head)


def _ordered(points: Sequence[Point]) -> list[str]:
    """Returns the quantities, latency first."""
    return sorted(
        {point.quantity for point in points}, key=lambda name: (name not in UNITS, [*UNITS, name].index(name))
    )


Looks = Mapping[str, tuple[str, str]]
"""Colour and marker by group."""


def _looks(groups: Sequence[str]) -> Looks:
    colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f4fc9", "#5a5a5a")
    markers = ("o", "s", "^", "D", "v", "P")
    return {
        group: (colours[index % len(colours)], markers[(index // len(colours)) % len(markers)])
        for index, group in enumerate(groups)
    }


def _draw_panel(axes: Axes, quantity: str, points: Sequence[Point], looks: Looks) -> None:
    values = [value for point in points for value in (point.measured, point.predicted)]
    least, most = min(values) / 1.3, max(values) * 1.3
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(least, most)
    axes.set_ylim(least, most)
    axes.set_aspect("equal")
    axes.plot([least, most], [least, most], color="#222222", linewidth=1.0, zorder=1.5)
    for factor in (0.9, 1.1):
        axes.plot(
            [least, most],
            [factor * least, factor * most],
            color="#777777",
            linewidth=0.8,
            linestyle=(0, (4, 3)),
            zorder=1.5,
        )
    for group, (colour, marker) in looks.items():
        chosen = [point for point in points if point.group == group]
        axes.scatter(
            [point.measured for point in chosen],
            [point.predicted for point in chosen],
            s=16,
            c=colour,
            marker=marker,
            alpha=0.7,
            linewidths=0,
        )
    for axis in (axes.xaxis, axes.yaxis):
        plain_ticks(axis)
    unit = f" [{UNITS[quantity]}]" if quantity in UNITS else ""
    axes.set_xlabel(f"measured {quantity}{unit}")
    axes.set_ylabel(f"predicted {quantity}{unit}")
    errors = sorted(abs(point.predicted / point.measured - 1.0) for point in points)
    close = sum(error <= 0.1 for error in errors) / len(errors)
    axes.set_title(
        f"{len(points):,} measurement{'s' * (len(points) > 1)}\n"
        f"median error {100 * statistics.median(errors):.1f}%, {100 * close:.0f}% within 10%",
        loc="left",
        fontsize=9,
        color="#333333",
        linespacing=1.5,
    )


def _handles(groups: Sequence[str], looks: Looks) -> list[Line2D]:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", color=looks[group][0], marker=looks[group][1], markersize=5, label=group)
        for group in groups
    ]
    return [
        *handles,
        Line2D([], [], color="#222222", linewidth=1.0, label="no error"),
        Line2D([], [], color="#777777", linewidth=0.8, linestyle=(0, (4, 3)), label="10% more or less"),
    ]
