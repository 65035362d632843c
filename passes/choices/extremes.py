"""The two ends of a generator: its costliest and its cheapest network."""

from __future__ import annotations

from gensynth.passes.cost import totals

from .materialize import Materializer

__all__ = ["extremes"]

_ROUNDS = 2


def extremes(materializer: Materializer) -> tuple[dict[str, int], dict[str, int]]:
    """Returns the decisions of the costliest and of the cheapest network, by MACs and then parameters.

    They are found choice by choice, outer ones first, from the middle of every choice: exact where the order of a
    choice's alternatives by cost does not depend on the other choices, and near that otherwise.
    """
    return _end(materializer, 1), _end(materializer, -1)


def _end(materializer: Materializer, sign: int) -> dict[str, int]:
    choices = materializer.graph.choices
    decisions = {identifier: len(info.labels) // 2 for identifier, info in choices.items()}
    for _ in range(_ROUNDS):
        for identifier, info in choices.items():
            costs = []
            for index in range(len(info.labels)):
                counted = totals(materializer.build({**decisions, identifier: index}))
                costs.append((sign * counted.macs, sign * counted.params))
            decisions[identifier] = costs.index(max(costs))
    return decisions
