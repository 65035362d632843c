"""Why the inquisitor moved what it moved, in words and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["LabelFigures", "Reason", "ReasonFigures"]


class LabelFigures(NamedTuple):
    """Means over the networks that take an alternative; energy in millijoules where a device is named."""

    networks: int
    value: float
    accuracy: float
    macs: float
    params: float
    energy: float | None = None

    def costs(self) -> str:
        """Returns the costs in words."""
        text = f"{self.macs / 1e3:.1f}k MACs, {self.params / 1e3:.2f}k params"
        return text if self.energy is None else f"{text}, {self.energy:.3g} mJ"


@dataclass(frozen=True)
class ReasonFigures:
    """Figures per alternative of a choice, over the networks that take it."""

    by_label: Mapping[str, LabelFigures]

    def sentence(self, label: str) -> str:
        """Returns how networks with `label` compare with those of the other alternatives."""
        found = self.by_label.get(label)
        if found is None:
            return f"no network considered takes '{label}'"
        others = [figures for other, figures in self.by_label.items() if other != label]
        text = (
            f"{found.networks} networks take '{label}': expected U {found.value:.2f}, accuracy {found.accuracy:.2f}%,"
            f" {found.costs()}"
        )
        if others:
            total = sum(figures.networks for figures in others)
            means = LabelFigures(total, *[_mean(others, index) for index in range(1, 5)])
            if found.energy is not None:
                means = means._replace(energy=_mean(others, 5))
            text += (
                f"; the {total} others: U {means.value:.2f} ({found.value - means.value:+.2f}), accuracy"
                f" {means.accuracy:.2f}% ({found.accuracy - means.accuracy:+.2f}), {means.costs()}"
            )
        return text


def _mean(figures: Sequence[LabelFigures], index: int) -> float:
    """Returns the mean of a figure over all networks of some alternatives."""
    total = sum(item.networks for item in figures)
    return sum(item.networks * (item[index] or 0.0) for item in figures) / total


@dataclass(frozen=True)
class Reason:
    """One decision: what was done (`update`, `commit`, `drop`, `offer`), to which choice, and why."""

    action: str
    choice: str
    text: str

    @classmethod
    def of_update(
        cls,
        choice: str,
        labels: Sequence[str],
        old: npt.NDArray[np.float64],
        new: npt.NDArray[np.float64],
        figures: ReasonFigures,
    ) -> Reason:
        """Explains moved logits by the alternative that gained most."""
        top = int((new - old).argmax())
        moved = f"'{labels[top]}' goes from {old[top]:.0%} to {new[top]:.0%}"
        return cls("update", choice, f"{moved}: {figures.sentence(labels[top])}")

    @classmethod
    def of_commit(cls, choice: str, label: str, probability: float, figures: ReasonFigures) -> Reason:
        """Explains a commitment."""
        text = f"settled on '{label}' at {probability:.0%}: {figures.sentence(label)}"
        return cls("commit", choice, text)

    @classmethod
    def of_drop(cls, choice: str, label: str, probability: float, figures: ReasonFigures) -> Reason:
        """Explains a dropped alternative."""
        return cls("drop", choice, f"'{label}' is down to {probability:.1%}: {figures.sentence(label)}")

    @classmethod
    def of_offer(cls, node: str, rule: str, share: float, most: float) -> Reason:
        """Explains a choice newly opened."""
        text = f"{rule} is offered: this node has {share:.0%} of the MACs of the likeliest network ({most / 1e3:.1f}k)"
        return cls("offer", node, text)
