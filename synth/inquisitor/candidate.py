"""Candidates: networks as the inquisitor sees them, and how far apart two of them are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from gensynth.ir import Graph
from gensynth.passes.cost import Costs, Totals

__all__ = ["Candidate", "distances", "linear_features"]

UNREACHED = ""
"""Stands for a choice that a network does not depend on."""


@dataclass(frozen=True)
class Candidate:
    """One network under consideration.

    `labels` says what every choice the generator ever had came to: the alternative's label, or `UNREACHED`; `scores`
    are training-free scores of its probe; `accuracy` is in percent, once it has been trained. `costs` are those on
    every device that requirements or the performance function name.
    """

    seed: int
    hash: str
    graph: Graph = field(repr=False)
    labels: Mapping[str, str] = field(repr=False)
    costs: Costs = field(repr=False)
    scores: Mapping[str, float] | None = None
    accuracy: float | None = None

    @property
    def totals(self) -> Totals:
        """The exact counts."""
        return self.costs.totals

    def probed(self, scores: Mapping[str, float]) -> Candidate:
        """Returns the candidate with the scores of its probe."""
        return replace(self, scores=scores)

    def trained(self, accuracy: float) -> Candidate:
        """Returns the candidate with its accuracy [percent]."""
        return replace(self, accuracy=accuracy)


def _number(label: str) -> float | None:
    try:
        value = float(label)
    except ValueError:
        return None
    return value if value > 0 else None


def _encode(candidates: Sequence[Candidate]) -> npt.NDArray[np.float64]:
    """Returns one row per candidate; squared distances between rows are distances between decisions.

    A choice among numbers (widths, kernels) takes one column, the logarithm of the number scaled to [0, 1] over the
    numbers seen; any other a column per label. Not being reached is a label of its own.
    """
    identifiers = sorted({identifier for candidate in candidates for identifier in candidate.labels})
    columns: list[npt.NDArray[np.float64]] = []
    for identifier in identifiers:
        labels = [candidate.labels.get(identifier, "original") for candidate in candidates]
        seen = sorted(set(labels))
        if len(seen) < 2:
            continue
        numbers = {label: _number(label) for label in seen if label != UNREACHED}
        if all(number is not None for number in numbers.values()) and len(numbers) > 1:
            logs = {label: math.log(number) for label, number in numbers.items() if number is not None}
            low, high = min(logs.values()), max(logs.values())
            middle = 0.5
            columns.append(
                np.array([(logs[label] - low) / (high - low) if label in logs else middle for label in labels])
            )
            if UNREACHED in seen:
                columns.append(np.array([1.0 if label == UNREACHED else 0.0 for label in labels]))
        else:
            for label in seen:
                columns.append(np.array([math.sqrt(0.5) if other == label else 0.0 for other in labels]))
    if not columns:
        return np.zeros((len(candidates), 1))
    return np.stack(columns, axis=1)


def distances(candidates: Sequence[Candidate]) -> npt.NDArray[np.float64]:
    """Returns squared distances between candidates' decisions, shape [n, n]: about one for each choice that differs."""
    rows = _encode(candidates)
    squares = (rows**2).sum(axis=1)
    found: npt.NDArray[np.float64] = np.maximum(squares[:, None] + squares[None, :] - 2.0 * rows @ rows.T, 0.0)
    return found


def linear_features(candidates: Sequence[Candidate]) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """Returns standardized features, shape [n, features], and their names.

    They are the logarithms of parameters, MACs and depth, and the ranks of every training-free score among those
    candidates that were probed (the middle rank for those that were not).
    """
    columns = [
        np.log([max(1, candidate.totals.params) for candidate in candidates]),
        np.log([max(1, candidate.totals.macs) for candidate in candidates]),
        np.log([max(1, len(candidate.graph.nodes)) for candidate in candidates]),
    ]
    names = ["log params", "log macs", "log nodes"]
    known = sorted({name for candidate in candidates for name in candidate.scores or {}})
    for name in known:
        values = [(candidate.scores or {}).get(name) for candidate in candidates]
        present = sorted(value for value in values if value is not None)
        count = len(present)
        ranks = [
            0.5
            if value is None
            else (np.searchsorted(present, value) + np.searchsorted(present, value, "right")) / 2 / count
            for value in values
        ]
        columns.append(np.array(ranks))
        names.append(name)
    table = np.stack(columns, axis=1)
    spread = table.std(axis=0)
    spread[spread < 1e-9] = 1.0
    result: npt.NDArray[np.float64] = (table - table.mean(axis=0)) / spread
    return result, tuple(names)
