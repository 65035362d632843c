"""Candidates: networks as the inquisitor sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gensynth.ir import Graph
from gensynth.passes.cost import Costs, Totals

__all__ = ["UNREACHED", "Candidate"]

UNREACHED = ""
"""Stands for a choice that a network does not depend on."""


@dataclass(frozen=True)
class Candidate:
    """One network under consideration.

    `labels` says what every choice the generator ever had came to: the alternative's label, or `UNREACHED`; `scores`
    are training-free scores of its probe; `accuracy` is in percent, once it has been trained. `costs` are those on
    every device that requirements or the performance function name; a network that is only thought of, by its labels,
    has none as yet, and no graph.
    """

    seed: int
    hash: str
    graph: Graph | None = field(repr=False)
    labels: Mapping[str, str] = field(repr=False)
    costs: Costs | None = field(repr=False)
    scores: Mapping[str, float] | None = None
    accuracy: float | None = None

    @property
    def known_costs(self) -> Costs:
        """The costs of a network that has been built.

        Raises:
            ValueError: it has not been.
        """
        if self.costs is None:
            raise ValueError(f"candidate {self.hash} has not been built")
        return self.costs

    @property
    def totals(self) -> Totals:
        """The exact counts of a network that has been built."""
        return self.known_costs.totals

    def probed(self, scores: Mapping[str, float]) -> Candidate:
        """Returns the candidate with the scores of its probe."""
        return replace(self, scores=scores)

    def trained(self, accuracy: float) -> Candidate:
        """Returns the candidate with its accuracy [percent]."""
        return replace(self, accuracy=accuracy)
