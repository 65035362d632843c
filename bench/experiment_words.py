"""What the JSON of an experiment says, and how its tables write it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from compile_figures import Figure, claim

__all__ = [
    "UNKNOWN",
    "Found",
    "Row",
    "cell",
    "claim_of",
    "digits",
    "figure",
    "main_metric",
    "metric_words",
    "networks_of",
    "number",
    "other_metrics",
    "points_with_goals",
    "recipe_words",
    "row_at",
    "row_named",
    "setting",
    "settings",
    "values",
]

Found = Mapping[str, Any]
Row = Mapping[str, Any]

KINDS = ("baseline", "prototype", "ferminet", "control")
UNKNOWN = "–"
METRICS = {"map_50": "mAP", "mean_iou": "mean IoU"}
"""Metrics whose names are not words with underscores between them."""


def networks_of(found: Found) -> list[Row]:
    """Returns the networks: baselines, prototype, FermiNets by point."""
    rows = found.get("rows") or ()
    return sorted(rows, key=lambda row: (KINDS.index(row["kind"]), str(row.get("point") or "")))


def row_named(rows: Sequence[Row], name: str | None) -> Row | None:
    """Returns the network of a name, or the only one whose name begins so: `NASNet-A` finds `NASNet-A (2 @ 384)`."""
    exact = [row for row in rows if row["name"] == name]
    close = exact or [row for row in rows if row["name"].startswith(f"{name} ")]
    return close[0] if exact or len(close) == 1 else None


def row_at(rows: Sequence[Row], point: str) -> Row | None:
    """Returns the FermiNet of an operating point."""
    return next((row for row in rows if row["kind"] == "ferminet" and row.get("point") == point), None)


def points_with_goals(found: Found) -> list[str]:
    """Returns the operating points that have goals."""
    goals = found.get("goals") or {}
    return list(dict.fromkeys([*(goals.get("points") or ()), *(goals.get("inferences_per_joule") or ())]))


def main_metric(found: Found) -> str:
    """Returns what is called accuracy."""
    if found.get("metric"):
        return metric_words(found["metric"])
    names = next((list(row["metrics"]) for row in found.get("rows") or () if row.get("metrics")), ["accuracy"])
    return metric_words(names[0])


def other_metrics(found: Found) -> list[str]:
    """Returns the names of the metrics beside the main one, which may go by another name but then comes first."""
    rows = [row for row in found.get("rows") or () if row.get("metrics")]
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    if names and all(row["metrics"].get(names[0]) == row.get("accuracy") for row in rows):
        names = names[1:]
    return [name for name in names if metric_words(name) != main_metric(found)]


def metric_words(metric: str) -> str:
    """Returns what tables call a metric."""
    return METRICS.get(metric, metric.replace("_", " "))


def settings(recipe: Row) -> str:
    """Returns all settings of a recipe in words."""
    return ", ".join(f"{key.replace('_', ' ')} {setting(key, value)}" for key, value in recipe.items())


def setting(key: str, value: object) -> str:
    """Returns the value of a setting in words."""
    if key == "examples" and not value:
        return "all"
    if isinstance(value, Mapping):
        return f"({', '.join(f'{name} {setting(name, item)}' for name, item in value.items())})"
    if isinstance(value, list | tuple):
        return " + ".join(setting("", item) for item in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else cell(value)


def figure(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> Figure:
    """Returns a table, with a note where something in it is not known."""
    unknown = any(UNKNOWN in row for row in cells)
    return Figure(title, columns, cells, [*notes, *[f"{UNKNOWN}: not measured yet."] * unknown])


def values(item: Row | None, *asked: str) -> list[str]:
    """Returns values asked for as `key:format`; one without a format has four digits."""
    pairs = [text.partition(":") for text in asked]
    given = item or {}
    return [number(given.get(key), how) if how else digits(given.get(key)) for key, _, how in pairs]


def number(value: float | None, how: str) -> str:
    """Returns a number in a format."""
    return UNKNOWN if value is None else format(value, how)


def digits(value: float | None) -> str:
    """Returns a number with at least four digits that tell something."""
    if value is None:
        return UNKNOWN
    if not value or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def recipe_words(part: Row, before: str) -> str:
    """Returns a recipe in words and what goes before it, or nothing."""
    return f"{before}{part['recipe'].strip().rstrip('.')}" if part.get("recipe") else ""


def cell(value: object) -> str:
    """Returns a text that does not end its cell of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def claim_of(holds: bool | None, text: str) -> str:
    """Returns a claim, and whether it holds where that is known."""
    return f"not measured yet: {text}" if holds is None else claim(holds, text)
