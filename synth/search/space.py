"""The decisions of a generator program as rows of small integers: what searches draw, change and compare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gensynth.ir import Graph, UsageError

__all__ = ["Decisions", "Space"]

Decisions = tuple[int, ...]
"""The index of the alternative that each choice takes, in the order of the generator's choices."""


@dataclass(frozen=True)
class Space:
    """The choices of a generator and their alternatives' labels, in the program's order."""

    choices: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]

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
        return cls(tuple(graph.choices), tuple(info.labels for info in graph.choices.values()))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of alternatives of each choice."""
        return tuple(map(len, self.labels))

    @cached_property
    def size(self) -> float:
        """The number of decisions there are."""
        return float(np.prod([float(size) for size in self.sizes]))

    def draw(self, random: np.random.Generator) -> Decisions:
        """Returns decisions drawn uniformly."""
        return tuple(random.integers(self.sizes).tolist())

    def neighbours(self, decisions: Decisions) -> Iterator[Decisions]:
        """Yields all decisions that differ in one choice."""
        for position, (now, size) in enumerate(zip(decisions, self.sizes, strict=True)):
            for index in range(size):
                if index != now:
                    yield (*decisions[:position], index, *decisions[position + 1 :])

    def names(self, decisions: Decisions) -> dict[str, str]:
        """Returns the label that each choice takes."""
        return {
            choice: labels[index] for choice, labels, index in zip(self.choices, self.labels, decisions, strict=True)
        }

    def mapping(self, decisions: Decisions) -> dict[str, int]:
        """Returns decisions by choice id, as a `Materializer` takes them."""
        return dict(zip(self.choices, decisions, strict=True))
