"""How choices moved: the probabilities of their alternatives before and after, and the words for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gensynth.ir import Graph

from .run import Cycle, Reason, Run

__all__ = ["Decision", "Movement", "Segment", "decisions", "learned", "movements"]


@dataclass(frozen=True)
class Segment:
    """An alternative and its probability; `share` in [0, 1] is its place among the alternatives, for its colour."""

    label: str
    probability: float
    share: float


@dataclass(frozen=True)
class Movement:
    """A choice before and after. A choice that is not open has no segments on that side, or the one it settled on."""

    choice: str
    before: tuple[Segment, ...]
    after: tuple[Segment, ...]
    state: str

    @property
    def distance(self) -> float:
        """Total variation distance of the two distributions: 0 unmoved, 1 nothing in common or newly opened."""
        if not self.before or not self.after:
            return 1.0
        old = {item.label: item.probability for item in self.before}
        new = {item.label: item.probability for item in self.after}
        return sum(abs(old.get(label, 0.0) - new.get(label, 0.0)) for label in {**old, **new}) / 2


@dataclass(frozen=True)
class Decision:
    """What a cycle decided of one choice: how it moved, where that is known, and the reasons given."""

    choice: str
    movement: Movement | None
    reasons: tuple[tuple[str, str, str], ...]

    @property
    def distance(self) -> float:
        """How far the choice moved; a decision on something newly offered counts as the largest."""
        return 1.0 if self.movement is None else self.movement.distance


def _distribution(graph: Graph | None, choice: str, labels: Sequence[str]) -> tuple[Segment, ...]:
    info = None if graph is None else graph.choices.get(choice)
    if info is None:
        return ()
    last = max(1, len(labels) - 1)
    return tuple(
        Segment(label, probability, labels.index(label) / last)
        for label, probability in zip(info.labels, info.probabilities, strict=True)
    )


def movements(before: Graph | None, after: Graph | None, settled: Mapping[str, str]) -> list[Movement]:
    """Returns every choice open before or after, those that moved most first."""
    if before is None or after is None:
        return []
    found = []
    for choice in dict.fromkeys([*before.choices, *after.choices]):
        labels = list(before.choices[choice].labels) if choice in before.choices else []
        if choice in after.choices:
            labels += [label for label in after.choices[choice].labels if label not in labels]
        old = _distribution(before, choice, labels)
        new = _distribution(after, choice, labels)
        state = ""
        if not new and settled.get(choice) in labels:
            label = settled[choice]
            new = (Segment(label, 1.0, labels.index(label) / max(1, len(labels) - 1)),)
            state = f"settled on {label}"
        elif not new:
            state = "no longer open"
        elif not old:
            state = "newly opened"
        elif len(new) < len(old):
            state = f"{len(old) - len(new)} of {len(old)} alternatives dropped"
        found.append(Movement(choice, old, new, state))
    return sorted(found, key=lambda item: (-item.distance, item.choice))


def decisions(cycle: Cycle, before: Graph | None) -> list[Decision]:
    """Returns what a cycle decided, choice by choice, the largest movement first."""
    moved = {item.choice: item for item in movements(before, cycle.generator, cycle.settled)}
    grouped: dict[str, list[Reason]] = {}
    for reason in cycle.reasons:
        grouped.setdefault(reason.choice, []).append(reason)
    found = [
        Decision(choice, moved.get(choice), tuple(_told(reason) for reason in reasons))
        for choice, reasons in grouped.items()
    ]
    return sorted(found, key=lambda item: (-item.distance, item.choice))


def _told(reason: Reason) -> tuple[str, str, str]:
    """Returns action, what was done, and why."""
    what, _, why = reason.text.partition(": ")
    return reason.action, what, why


def learned(run: Run) -> list[Movement]:
    """Returns how the choices moved from the first generator to the last."""
    settled: dict[str, str] = {}
    for cycle in run.cycles:
        settled |= cycle.settled
    return movements(run.first, run.last, settled)
