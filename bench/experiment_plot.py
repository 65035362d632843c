"""The plot of what bench/experiment.py measured: accuracy over MACs and over parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiment_words import Found, main_metric, networks_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

__all__ = ["experiment_plot"]


class _Dot(NamedTuple):
    """A network in the plot: its kind, MACs and parameters in millions, accuracy [%], and its label."""

    kind: str
    macs: float
    params: float
    accuracy: float
    label: str


LABELS = {"ferminet": "{point}", "control": "{point}, fresh"}
"""What dots are called that do not go by their names."""

_LOOKS = {
    "family": (".", "#56b4e9", 7.5),
    "baseline": ("o", "#0072b2", 6.5),
    "prototype": ("s", "#d55e00", 6.5),
    "control": ("D", "#999999", 6.0),
    "ferminet": ("D", "#000000", 6.0),
}
"""Marker, colour and size in points of each kind, the lowest first; colours are Okabe and Ito's."""


def experiment_plot(found: Found, path: Path) -> bool:
    """Draws accuracy over MACs and over parameters, and says whether there was anything to draw.

    Raises:
        UsageError: the path ends otherwise than in .svg or .png or cannot be written, or matplotlib is not installed.
    """
    from gensynth.backends.drawing.figures import Spot, align_title, label_spots, new_figure

    dots = list(_dots(found))
    if not dots:
        return False
    with new_figure(path, 10.0, 5.2) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        panels: tuple[tuple[Axes, str], ...] = ((left, "macs"), (right, "params"))
        for axes, quantity in panels:
            _draw(axes, dots, quantity)
        left.set_xlabel("million MACs")
        right.set_xlabel("million parameters")
        left.set_ylabel(f"test {main_metric(found)} [%]")
        head = figure.suptitle(found.get("title") or found["task"], ha="left", fontsize=13, fontweight="bold")
        figure.legend(handles=_legend(dots), loc="outside lower center", ncols=4, columnspacing=2.2)
        align_title(figure, head)
        for axes, quantity in panels:
            spots = [
                Spot(getattr(dot, quantity), dot.accuracy, _LOOKS[dot.kind][2] ** 2, dot.label)
                for dot in sorted(dots, key=lambda dot: -len(dot.label))
            ]
            label_spots(axes, spots, [])
    return True


def _dots(found: Found) -> Iterator[_Dot]:
    """Returns what has a place in both panels, the family first."""
    family = found.get("family") or {}
    items = [("family", "", item) for item in family.get("networks") or ()]
    items += [(row["kind"], LABELS.get(row["kind"], "{name}").format(**row), row) for row in networks_of(found)]
    for kind, label, item in items:
        macs, params, accuracy = (item.get(key) for key in ("macs", "params", "accuracy"))
        if macs and params and accuracy is not None and math.isfinite(accuracy):
            yield _Dot(kind, macs / 1e6, params / 1e6, accuracy, label)


def _draw(axes: Axes, dots: Sequence[_Dot], quantity: str) -> None:
    from matplotlib.ticker import LogLocator

    from gensynth.backends.drawing.figures import plain_ticks

    across, up = [getattr(dot, quantity) for dot in dots], [dot.accuracy for dot in dots]
    space = max(1.0, 0.08 * (max(up) - min(up)))
    margin = max(1.5, (max(across) / min(across)) ** 0.08)
    axes.set_xscale("log")
    axes.set_xlim(min(across) / margin, max(across) * margin)
    axes.set_ylim(min(up) - space, max(up) + space)
    plain_ticks(axes.xaxis)
    if 300.0 < max(across) / min(across) * margin**2 < 5_000.0:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=30))
    for order, (kind, (marker, colour, size)) in enumerate(_LOOKS.items()):
        chosen = [dot for dot in dots if dot.kind == kind]
        axes.plot(
            [getattr(dot, quantity) for dot in chosen],
            [dot.accuracy for dot in chosen],
            linestyle="",
            marker=marker,
            markersize=size,
            color=colour,
            markeredgecolor="white",
            markeredgewidth=0.5,
            zorder=2.0 + 0.1 * order,
        )


def _legend(dots: Sequence[_Dot]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    count = sum(dot.kind == "family" for dot in dots)
    words = {
        "baseline": "hand-made",
        "prototype": "prototype",
        "ferminet": "FermiNets",
        "control": "one of them from fresh weights",
        "family": f"{count} fresh seeds, trained shortly: validation",
    }
    return [
        Line2D(
            [], [], linestyle="", marker=_LOOKS[kind][0], markersize=_LOOKS[kind][2], color=_LOOKS[kind][1], label=text
        )
        for kind, text in words.items()
        if any(dot.kind == kind for dot in dots)
    ]
