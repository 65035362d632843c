"""Why the inquisitor moved what it moved, in words and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Reason", "ReasonFigures"]


@dataclass(frozen=True)
class ReasonFigures:
    """Per alternative of a choice, over the networks probed that take it: count, expected U, accuracy, MACs, params."""

    by_label: Mapping[str, tuple[int, float, float, float, float]]

    def sentence(self, label: str) -> str:
        """Returns how networks with `label` compare with those of the other alternatives."""
        found = self.by_label.get(label)
        if found is None:
            return f"no network considered takes '{label}'"
        count, value, accuracy, macs, params = found
        others = [figures for other, figures in self.by_label.items() if other != label]
        text = (
            f"{count} networks take '{label}': expected U {value:.2f}, accuracy {accuracy:.2f}%,"
            f" {macs / 1e3:.1f}k MACs, {params / 1e3:.2f}k params"
        )
        if others:
            total = sum(figures[0] for figures in others)
            means = [sum(figures[0] * figures[index] for figures in others) / total for index in range(1, 5)]
            text += (
                f"; the {total} others: U {means[0]:.2f} ({value - means[0]:+.2f}), accuracy {means[1]:.2f}%"
                f" ({accuracy - means[1]:+.2f}), {means[2] / 1e3:.1f}k MACs, {means[3] / 1e3:.2f}k params"
            )
        return text


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
