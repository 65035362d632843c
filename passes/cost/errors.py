"""What a calibration's held-out errors come to, by group of measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .calibration import Calibration, HeldOut, Measured

__all__ = ["GroupError", "errors_by_group", "group_of", "spearman"]


@dataclass(frozen=True)
class GroupError:
    """Errors of one group: median relative errors with networks, and with families, held out.

    Also Spearman's rank correlation with networks held out (None for fewer than three), and the share of measurements
    that the intervals hold.
    """

    group: str
    quantity: str
    rows: int
    by_network: float
    by_family: float | None
    spearman: float | None
    covered: float

    def as_dict(self) -> dict[str, object]:
        """Returns the errors for JSON."""
        return asdict(self)


def group_of(item: Measured) -> str:
    """Returns the condition of a measurement in words, batch aside: `tensorrt fp16 MAX-N`."""
    condition = item.condition
    return f"{condition.runtime} {condition.precision} {condition.power_mode}"


def errors_by_group(found: Calibration) -> tuple[GroupError, ...]:
    """Returns the errors by condition, then of all together where there are several conditions."""
    groups = list(dict.fromkeys(map(group_of, found.measured)))
    rows: list[GroupError] = []
    for quantity in ("latency", "energy"):
        mine = [item for item in found.held_out if item.quantity == quantity]
        for group in groups:
            rows += _error(found, group, [item for item in mine if group_of(found.measured[item.row]) == group])
        if len(groups) > 1:
            rows += _error(found, "all", mine)
    return tuple(rows)


def _error(found: Calibration, group: str, items: Sequence[HeldOut]) -> list[GroupError]:
    network = [item for item in items if item.by == "network"]
    family = [item for item in items if item.by == "family"]
    if not network:
        return []
    covered = 0
    for item in network:
        evidence = found.device.evidence[found.measured[item.row].condition.runtime, item.quantity]
        covered += abs(math.log(item.predicted / item.measured)) <= evidence.half_width(item.predicted)
    return [
        GroupError(
            group,
            network[0].quantity,
            len(network),
            _median(network),
            _median(family) if family else None,
            spearman([item.measured for item in network], [item.predicted for item in network]),
            covered / len(network),
        )
    ]


def _median(items: Sequence[HeldOut]) -> float:
    return float(np.median([abs(item.error) for item in items]))


def spearman(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Returns Spearman's rank correlation, ties by their mean rank; None for fewer than three values, or all alike."""
    if len(left) < 3 or len(set(left)) < 2 or len(set(right)) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(left, right)[0])
