"""The decisions of a generator program as rows of small integers: what searches draw, change and compare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter

import numpy as np

from gensynth.ir import Graph, UsageError
from gensynth.synth.inquisitor import UNREACHED

__all__ = ["Decisions", "Space"]

Decisions = tuple[int, ...]
"""The index of the alternative that each choice takes, in the order of the generator's choices.

A choice inside an alternative that is not taken has index 0 in all decisions that a `Space` gives, so that a network is
not met as several: see `Space.normal`.
"""


@dataclass(frozen=True)
class Space:
    """The choices of a generator and their alternatives' labels, in the program's order.

    `inside` has a row for each choice: the choices and labels one of which has to be taken for it to matter, as
    `ChoiceInfo.inside` has them; without it every choice matters.
    """

    choices: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    inside: tuple[tuple[tuple[str, str], ...], ...] = ()

    @classmethod
    def of(cls, graph: Graph) -> Space:
        """Returns the space of a generator program.

        Raises:
            UsageError: no choice is open in it.
        """
        if not graph.choices:
            raise UsageError(
                f"@{graph.name} is a network: there is nothing to search", hint="open choices, as with `open-width`"
            )
        known = graph.choices.values()
        inside = tuple(info.inside for info in known)
        return cls(tuple(graph.choices), tuple(info.labels for info in known), inside)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of alternatives of each choice."""
        return tuple(map(len, self.labels))

    @cached_property
    def size(self) -> float:
        """The number of decisions there are, those of choices that do not matter among them."""
        return float(np.prod([float(size) for size in self.sizes]))

    @cached_property
    def _inner(self) -> list[tuple[int, list[tuple[int, int]]]]:
        """The choices that may not matter: position, and where one of which index has to be taken; outer ones first."""
        position = {choice: at for at, choice in enumerate(self.choices)}
        outer = {
            position[choice]: [(position[other], self.labels[position[other]].index(label)) for other, label in around]
            for choice, around in zip(self.choices, self.inside, strict=bool(self.inside))
            if around
        }
        order = TopologicalSorter({at: [other for other, _ in around] for at, around in outer.items()}).static_order()
        return [(at, outer[at]) for at in order if at in outer]

    def idle(self, decisions: Decisions) -> set[int]:
        """Returns the positions of the choices that do not matter: those inside alternatives that are not taken."""
        found: set[int] = set()
        for at, around in self._inner:
            for other, index in around:
                if decisions[other] == index and other not in found:
                    break
            else:
                found.add(at)
        return found

    def normal(self, decisions: Decisions) -> Decisions:
        """Returns decisions with index 0 for every choice that does not matter."""
        idle = self.idle(decisions)
        return tuple(0 if at in idle else index for at, index in enumerate(decisions)) if idle else decisions

    def draw(self, random: np.random.Generator) -> Decisions:
        """Returns decisions drawn uniformly, one choice apart from the others."""
        return self.normal(tuple(random.integers(self.sizes).tolist()))

    def neighbours(self, decisions: Decisions) -> Iterator[Decisions]:
        """Yields all decisions that differ in one choice that matters."""
        idle = self.idle(decisions)
        for position, (now, size) in enumerate(zip(decisions, self.sizes, strict=True)):
            if position in idle:
                continue
            for index in range(size):
                if index != now:
                    yield self.normal((*decisions[:position], index, *decisions[position + 1 :]))

    def names(self, decisions: Decisions) -> dict[str, str]:
        """Returns the label that each choice takes."""
        return {
            choice: labels[index] for choice, labels, index in zip(self.choices, self.labels, decisions, strict=True)
        }

    def reached(self, decisions: Decisions) -> dict[str, str]:
        """Returns the label that each choice takes, `UNREACHED` for those that do not matter."""
        named = self.names(decisions)
        for at in self.idle(decisions):
            named[self.choices[at]] = UNREACHED
        return named

    def mapping(self, decisions: Decisions) -> dict[str, int]:
        """Returns decisions by choice id, as a `Materializer` takes them."""
        return dict(zip(self.choices, decisions, strict=True))
