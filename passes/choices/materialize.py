"""`materialize`: G(s), from a generator and a seed to a network that meets every computable requirement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gensynth.ir import Graph, Network, PassError, UsageError, verify
from gensynth.passes.cost import Costs, Meter, Totals

from ..base import Pass, PassResult, option
from ..canonicalize import canonicalize
from ..requirements import Requirement, parse_requirements
from .inheritance import inherit_weights
from .inlining import Inliner
from .randomness import choice_counters, gumbel
from .repair import Repairer, violation

__all__ = ["Decided", "Materialize", "Materializer"]


_AT_ONCE = 64
"""So many seeds are drawn together."""


@dataclass(frozen=True)
class Decided:
    """A network of a generator and how it came about.

    `decisions` holds an index for every choice; `reached` those the network depends on; `repairs` the choices that
    were moved to meet a requirement, as (choice id, drawn index, index). `costs` are counts, and latency and energy on
    the devices that requirements name.
    """

    seed: int
    graph: Graph
    decisions: Mapping[str, int]
    reached: Mapping[str, int]
    repairs: tuple[tuple[str, int, int], ...]
    costs: Costs = field(repr=False)

    @property
    def totals(self) -> Totals:
        """The exact counts."""
        return self.costs.totals


class Materializer:
    """A generator made ready to emit many networks."""

    def __init__(self, graph: Graph, requirements: tuple[Requirement, ...] | None = None) -> None:
        """Prepares `graph`; its own requirements are used unless others are given."""
        self.graph = graph
        self.inliner = Inliner(graph)
        self.identifiers = tuple(graph.choices)
        if requirements is None:
            requirements = parse_requirements(graph.requirements, f"@{graph.name}: require")
        self.requirements = tuple(item for item in requirements if item.computable)
        self.meter = Meter(item.device for item in self.requirements if item.device is not None)
        counts = [len(info.labels) for info in graph.choices.values()]
        self._logits = np.full((len(counts), max(counts, default=1)), -np.inf)
        self._counters = choice_counters(self.identifiers, self._logits.shape[1])
        for row, info in enumerate(graph.choices.values()):
            self._logits[row, : counts[row]] = info.logits
        self._repairer: Repairer | None = None
        self._drawn: dict[int, list[int]] = {}

    def scores(self, seed: int) -> npt.NDArray[np.float64]:
        """Returns logits plus Gumbel noise, shape [choices, alternatives]; the largest of a row is drawn."""
        return self._logits + gumbel(self._counters, (seed,)).reshape(self._logits.shape)

    def draw(self, seed: int) -> dict[str, int]:
        """Returns the decisions of a seed before any repair: exact samples of softmax(logits).

        The seeds that follow are drawn along with it: seeds are mostly asked for in order, and one at a time costs
        many times more.
        """
        if not self.identifiers:
            return {}
        found = self._drawn.get(seed)
        if found is None:
            seeds = range(seed, seed + _AT_ONCE) if 0 <= seed < (1 << 64) - _AT_ONCE else (seed,)
            noise = gumbel(self._counters, seeds).reshape(len(seeds), *self._logits.shape)
            indices = (self._logits + noise).argmax(axis=2).tolist()
            self._drawn = dict(zip(seeds, indices, strict=True))
            found = self._drawn[seed]
        return dict(zip(self.identifiers, found, strict=True))

    def most_likely(self) -> dict[str, int]:
        """Returns the decisions with the largest logits."""
        if not self.identifiers:
            return {}
        return dict(zip(self.identifiers, self._logits.argmax(axis=1).tolist(), strict=True))

    def build(self, decisions: Mapping[str, int], reached: dict[str, int] | None = None) -> Graph:
        """Returns the canonical network of some decisions, not verified."""
        return canonicalize(self.inliner.run(decisions, reached=reached))

    def violation(self, found: Costs | Totals) -> float:
        """Returns by how much requirements are missed: the sum of negative margins; 0 where all hold."""
        return violation(self.requirements, found)

    def materialize(self, seed: int, *, repair: bool = True) -> Decided:
        """Returns the network of a seed.

        Raises:
            PassError: no network near this draw meets the requirements.
        """
        decisions = self.draw(seed)
        reached: dict[str, int] = {}
        graph = self.build(decisions, reached)
        found = self.meter(graph)
        if not repair or self.violation(found) == 0.0:
            return Decided(seed, graph, decisions, reached, (), found)
        return self.repair(decisions, self.scores(seed), seed)

    def repair(self, decisions: Mapping[str, int], scores: npt.NDArray[np.float64], seed: int = 0) -> Decided:
        """Walks from `decisions` to a network that meets the requirements, giving up as little score as it can.

        Raises:
            PassError: no network is found that meets them.
        """
        if self._repairer is None:
            self._repairer = Repairer(self.build, self.graph.choices, self.most_likely(), self.requirements, self.meter)
        rows = {identifier: tuple(row) for identifier, row in zip(self.identifiers, scores.tolist(), strict=True)}
        state = self._repairer.repair(decisions, rows)
        if state.violation > 0.0:
            values = [(item, item.value(state.costs)) for item in self.requirements]
            missed = "; ".join(f"{item} (got {item.show(value)})" for item, value in values if not item.holds(value))
            raise PassError(
                f"@{self.graph.name}: no network found near seed {seed} that meets {missed}",
                hint="open smaller widths or cheaper alternatives, or relax the requirement",
            )
        repairs = tuple(
            (identifier, decisions[identifier], index)
            for identifier, index in state.decisions.items()
            if index != decisions[identifier]
        )
        return Decided(seed, state.graph, state.decisions, state.reached, repairs, state.costs)

    def from_decisions(self, decisions: Mapping[str, int]) -> Decided:
        """Returns the network of given decisions, repaired by the logits alone where it misses a requirement.

        Raises:
            VerifyError: a choice is not decided.
            PassError: no network is found that meets the requirements.
        """
        return self.repair(decisions, self._logits)


class Materialize(Pass, name="materialize"):
    """Decides every choice by a seed and inlines it: the network G(s).

    Each choice is drawn by the Gumbel-max trick from its own counter-based stream, so that editing one choice never
    reshuffles the others. Where the draw misses a computable requirement of the generator, choices walk to cheaper
    alternatives until it holds. Weights are taken from the generator's: widths keep their first channels, kernels
    their centre.
    """

    seed: int = option(help="an integer from 0 to 2^64 - 1")
    repair: bool = option(default=True, help="walk to a network that meets the computable requirements")

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 64:
            raise UsageError(f"seed {self.seed} is out of range", hint="a seed is an integer from 0 to 2^64 - 1")

    def run(self, network: Network) -> PassResult:
        """Returns the network of the seed, canonical and verified."""
        materializer = Materializer(network.graph)
        decided = materializer.materialize(self.seed, repair=self.repair)
        verify(decided.graph)
        weights = inherit_weights(network, materializer.inliner, decided.decisions, decided.graph)
        notes = [f"{len(decided.reached)} choices decided"]
        if decided.repairs:
            notes.append(f"repaired: {', '.join(identifier for identifier, _, _ in decided.repairs)}")
        return PassResult(Network(decided.graph, weights), True, tuple(notes))
