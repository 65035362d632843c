"""What is said of searches repeated: intervals of means, paired tests, Pareto hypervolume, and figures by method."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["hypervolume", "interval", "paired", "summarize"]


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """Returns the mean and its 95% interval by Student's t, which a single value has none of."""
    middle = mean(values)
    if len(values) < 2:
        return {"mean": middle, "low": None, "high": None}
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return {"mean": middle, "low": middle - half, "high": middle + half}


def paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float | None]:
    """Returns how ours compare with theirs, repetition by repetition: one-sided p-values that ours are larger, shares.

    `ahead` is the share of repetitions in which ours are larger, `level` in which they are equal. Where all differences
    are equal the t-test's p is 0, 1, or 1 for none.
    """
    differences = np.asarray(ours, float) - np.asarray(theirs, float)
    count = len(differences)
    found: dict[str, float | None] = {
        "difference": float(differences.mean()),
        "ahead": float((differences > 0.0).mean()),
        "level": float((differences == 0.0).mean()),
        "p": None,
        "wilcoxon": None,
    }
    if count < 2:
        return found
    spread = float(differences.std(ddof=1)) / math.sqrt(count)
    if spread > 0.0:
        found["p"] = float(stats.t.sf(differences.mean() / spread, count - 1))
    else:
        found["p"] = 0.0 if differences[0] > 0.0 else 1.0
    if differences.any():
        with warnings.catch_warnings():
            # Few repetitions: the approximation is told to be one.
            warnings.simplefilter("ignore")
            found["wilcoxon"] = float(stats.wilcoxon(differences, alternative="greater").pvalue)
    else:
        found["wilcoxon"] = 1.0
    return found


def hypervolume(accuracies: Sequence[float], costs: Sequence[float], largest: float) -> float:
    """Returns the share of the area between (0%, `largest` cost) and (100%, no cost) that networks dominate."""
    area, best = 0.0, 0.0
    points = sorted(zip(costs, accuracies, strict=True))
    for place, (cost, accuracy) in enumerate(points):
        best = max(best, accuracy)
        until = min(points[place + 1][0] if place + 1 < len(points) else largest, largest)
        area += best * max(0.0, until - cost)
    return area / (100.0 * largest)


def summarize(
    repetitions: Sequence[Mapping[str, Any]], budgets: Sequence[int], optimum: float | None, against: str | None
) -> dict[str, Any]:
    """Returns the figures of each method from what `search_runs.repeat` gave; p-values are against a method."""
    methods: dict[str, Any] = {}
    for name in repetitions[0]["methods"]:
        mine = [repetition["methods"][name] for repetition in repetitions]
        columns = list(zip(*(run["best"] for run in mine), strict=True))
        figures: dict[str, Any] = {}
        for place, (budget, column) in enumerate(zip(budgets, columns, strict=True)):
            figures[str(budget)] = interval(column)
            if optimum is not None:
                figures[str(budget)]["regret"] = optimum - mean(column)
                figures[str(budget)]["found"] = mean([float(value >= optimum) for value in column])
            if against is not None and name != against:
                ours = [repetition["methods"][against]["best"][place] for repetition in repetitions]
                figures[str(budget)].update(paired(ours, column))
        methods[name] = {
            "budgets": figures,
            "probes": mean([run["probes"] for run in mine]),
            "beyond": max(run["beyond"] for run in mine),
            "overhead_ms": median([run["overhead_ms"] for run in mine]),
            "best": [list(run["best"]) for run in mine],
            "family": families([run["family"] for run in mine]),
        }
        carried = [run["carried"] for run in mine if run["carried"]]
        if carried:
            methods[name]["carried"] = {key: mean([run[key] for run in carried]) for key in carried[0]}
    return {"methods": methods, "drawn": families([repetition["drawn"] for repetition in repetitions])}


def families(found: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Returns the means over repetitions of what `search_runs.family` says, with the extremes of a few."""
    known = [item for item in found if item]
    if not known:
        return None
    result: dict[str, Any] = {}
    for key in ("mean", "best", "worst", "different", "architectures", "feasible", "networks"):
        result[key] = interval([item[key] for item in known])
    result["least_different"] = min(item["different"] for item in known)
    result["least_feasible"] = min(item["feasible"] for item in known)
    result["hypervolume"] = {
        column: interval(values)
        for column in known[0]["hypervolume"]
        if (values := [item["hypervolume"][column] for item in known if item["hypervolume"][column] is not None])
    }
    return result
