"""Figures of matplotlib: made without pyplot, written to the same bytes each time, with labels that hide nothing."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from gensynth.ir import UsageError, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.text import Text

Boxes = npt.NDArray[np.float64]

__all__ = ["SUFFIXES", "Spot", "align_title", "check_plot", "label_spots", "new_figure", "plain_ticks"]

SUFFIXES = (".svg", ".png")
"""What a plot's path may end in."""

_STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e9e9e9",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "gensynth",
}


def check_plot(path: str | os.PathLike[str]) -> None:
    """Checks, without loading it, that matplotlib is there, and that a plot can be written under a name.

    Raises:
        UsageError: one of both is not so; the hint says what to do.
    """
    from importlib.util import find_spec

    if Path(path).suffix not in SUFFIXES:
        hint = f"give a path that ends in {' or '.join(SUFFIXES)}"
        raise UsageError(f"cannot plot to '{os.fspath(path)}'", hint=hint)
    if find_spec("matplotlib") is None:
        raise UsageError("plots need matplotlib, which is not installed", hint='pip install "gensynth[plot]"')


@contextmanager
def new_figure(path: str | os.PathLike[str], width: float, height: float) -> Iterator[Figure]:
    """Gives a figure of a size in inches, and writes it in the end, as the path's suffix says.

    Raises:
        UsageError: the path ends otherwise than in .svg or .png or cannot be written, or matplotlib is not installed.
    """
    check_plot(path)
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    format = Path(path).suffix.removeprefix(".")
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        stream = io.BytesIO()
        metadata = {"Date": None, "Creator": "GenSynth"} if format == "svg" else {"Software": None}
        figure.savefig(stream, format=format, dpi=150, metadata=metadata)
    write_atomically(path, stream.getvalue())


def plain_ticks(axis: Axis) -> None:
    """Writes ticks of a logarithmic axis as people do, with some between powers of ten where there are few of these."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    least, most = sorted(axis.get_view_interval())
    decades = math.log10(most / least)
    steps = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps, numticks=30))
    axis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:,.12g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def align_title(figure: Figure, title: Text) -> None:
    """Lays the figure out for good, and moves its title above the left edge of its axes."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    title.set_x(min(axes.get_position().x0 for axes in figure.axes))


# Labels.


class Spot(NamedTuple):
    """A dot: where it is, its area in square points, and its label, which may be empty."""

    x: float
    y: float
    area: float
    label: str = ""


class _Box(NamedTuple):
    """A rectangle, in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """Returns the point of the rectangle that is nearest to another."""
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)

    def shared(self, others: Boxes) -> Boxes:
        """Returns the area that it shares with each of others, shape [others]."""
        across = np.minimum(self.right, others[:, 2]) - np.maximum(self.left, others[:, 0])
        up = np.minimum(self.top, others[:, 3]) - np.maximum(self.bottom, others[:, 1])
        area: Boxes = np.maximum(across, 0.0) * np.maximum(up, 0.0)
        return area


_ANGLES = tuple(
    math.radians(degrees)
    for degrees in sorted(range(0, 360, 15), key=lambda degrees: (degrees % 90 > 0, degrees % 180))
)
_DISTANCES = (4.0, 12.0, 22.0, 34.0, 48.0, 66.0, 90.0, 120.0)
"""Directions, the best first, and distances, in points, at which a label may stand from the edge of its dot."""
_MARGIN = 2.5
_APART = 7.0
"""A label farther off than so many points has a line to its dot."""
_OVER_DOT, _OVER_LABEL, _OVER_LEAD = 3.0, 60.0, 30.0
"""How bad each step of such a line is that leads over another dot, a label, or another such line."""


def label_spots(axes: Axes, spots: Sequence[Spot], lines: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Writes labels beside dots, the first first, where they hide neither one another, nor dots, nor lines.

    Lines are points in the units of the axes. The figure must have its final layout.
    """
    point = axes.figure.dpi / 72.0
    frame = _Box(*axes.get_window_extent().extents)
    dots = []
    for spot in spots:
        x, y = axes.transData.transform((spot.x, spot.y))
        dots.append((float(x), float(y), point * math.sqrt(spot.area) / 2.0))
    taken = [_around(x, y, radius, radius) for x, y, radius in dots]
    for line in lines:
        taken += [_around(x, y, point, point) for x, y in axes.transData.transform(line)]
    crossed = [_OVER_DOT] * len(dots) + [0.0] * (len(taken) - len(dots))
    for index, (spot, dot) in enumerate(zip(spots, dots, strict=True)):
        if not spot.label:
            continue
        text = axes.text(spot.x, spot.y, spot.label, fontsize=8, ha="center", va="center", zorder=5)
        extent = text.get_window_extent()
        half = (extent.width / 2.0, extent.height / 2.0)
        crossed[index] = 0.0
        box = _place(dot, half, point, frame, np.array(taken), np.array(crossed))
        crossed[index] = _OVER_DOT
        taken.append(box)
        crossed.append(_OVER_LABEL)
        centre = ((box.left + box.right) / 2.0, (box.bottom + box.top) / 2.0)
        across, up = axes.transData.inverted().transform(centre)
        text.set_position((float(across), float(up)))
        lead = _lead(box, dot, point)
        if lead:
            taken += [_around(x, y, point, point) for x, y in lead]
            crossed += [_OVER_LEAD] * len(lead)
            across, up = axes.transData.inverted().transform([lead[0], lead[-1]]).T
            axes.plot(across, up, color="#999999", linewidth=0.7, zorder=1.8)


def _around(x: float, y: float, across: float, up: float) -> _Box:
    return _Box(x - across, y - up, x + across, y + up)


def _place(
    dot: tuple[float, float, float],
    half: tuple[float, float],
    point: float,
    frame: _Box,
    taken: Boxes,
    crossed: npt.NDArray[np.float64],
) -> _Box:
    """Returns where a label of half a width and half a height stands best, with a margin around it.

    It should share nothing with what is taken, nor should the line from it to its dot; `crossed` says how bad that is.
    """
    x, y, radius = dot
    across, up = half[0] + _MARGIN * point, half[1] + _MARGIN * point
    best, least = _around(x, y, across, up), math.inf
    for distance in _DISTANCES:
        reach = radius + distance * point
        for order, angle in enumerate(_ANGLES):
            box = _around(x + math.cos(angle) * (reach + half[0]), y + math.sin(angle) * (reach + half[1]), across, up)
            outside = 4.0 * across * up - float(box.shared(np.array([frame]))[0])
            fault = distance + 0.1 * order + float(box.shared(taken).sum()) + 4.0 * max(0.0, outside)
            for place in _lead(box, dot, point):
                fault += float(crossed @ (_around(*place, point, point).shared(taken) > 0.0))
            if fault < least:
                best, least = box, fault
    return best


def _lead(box: _Box, dot: tuple[float, float, float], point: float) -> list[tuple[float, float]]:
    """Returns steps on the way from a label to the edge of its dot, none where they are close."""
    x, y, radius = dot
    start = box.nearest(x, y)
    distance = math.dist(start, (x, y))
    if distance < radius + _APART * point:
        return []
    share = 1.0 - radius / distance
    steps = max(2, int(distance / (3.0 * point)))
    return [
        (start[0] + (x - start[0]) * share * step / steps, start[1] + (y - start[1]) * share * step / steps)
        for step in range(steps + 1)
    ]
