"""`materialize`: G(s), from a generator and a seed to a network that meets every computable requirement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gensynth.ir import Graph, Network, PassError, verify
from gensynth.passes.cost import Totals, totals

from ..base import Pass, PassResult, option
from ..canonicalize import canonicalize
from ..requirements import Requirement, parse_requirements
from .inlining import Inliner
from .inheritance import inherit_weights
from .randomness import gumbel, identifier_words

__all__ = ["Decided", "Materialize", "Materializer", "metric_value"]


def metric_value(metric: str, found: Totals) -> float:
    """Returns a computable metric from a network's totals (counts, bytes)."""
    return float(getattr(found, {"weight_memory": "weight_bytes"}.get(metric, metric)))


@dataclass(frozen=True)
class Decided:
    """A network of a generator and how it came about.

    `decisions` holds an index for every choice; `reached` those the network depends on; `repairs` the choices that
    were moved to meet a requirement, as (choice id, drawn index, index).
    """

    seed: int
    graph: Graph
    decisions: Mapping[str, int]
    reached: Mapping[str, int]
    repairs: tuple[tuple[str, int, int], ...]
    totals: Totals = field(repr=False)


class Materializer:
    """A generator made ready to emit many networks."""

    def __init__(self, graph: Graph, requirements: tuple[Requirement, ...] | None = None) -> None:
        """Prepares `graph`; its own requirements are used unless others are given."""
        self.graph = graph
        self.inliner = Inliner(graph)
        self.identifiers = tuple(graph.choices)
        stated = parse_requirements(graph.requirements) if requirements is None else requirements
        self.requirements = tuple(item for item in stated if item.computable)
        counts = [len(info.labels) for info in graph.choices.values()]
        self._words = identifier_words(self.identifiers)
        self._logits = np.full((len(counts), max(counts, default=1)), -np.inf)
        for row, info in enumerate(graph.choices.values()):
            self._logits[row, : counts[row]] = info.logits
        self._effects: dict[tuple[str, int], Totals] | None = None

    def scores(self, seed: int) -> npt.NDArray[np.float64]:
        """Returns logits plus Gumbel noise, shape [choices, alternatives]; the largest of a row is drawn."""
        if not self.identifiers:
            return self._logits
        return self._logits + gumbel(self._words, self._logits.shape[1], seed)

    def draw(self, seed: int) -> dict[str, int]:
        """Returns the decisions of a seed before any repair: exact samples of softmax(logits)."""
        if not self.identifiers:
            return {}
        return dict(zip(self.identifiers, self.scores(seed).argmax(axis=1).tolist(), strict=True))

    def most_likely(self) -> dict[str, int]:
        """Returns the decisions with the largest logits."""
        return dict(zip(self.identifiers, self._logits.argmax(axis=1).tolist(), strict=True)) if self.identifiers else {}

    def build(self, decisions: Mapping[str, int], reached: dict[str, int] | None = None) -> Graph:
        """Returns the canonical network of some decisions, not verified."""
        return canonicalize(self.inliner.run(decisions, reached=reached))

    def violation(self, found: Totals) -> float:
        """Returns by how much requirements are missed: the sum of negative margins; 0 where all hold."""
        missed = 0.0
        for requirement in self.requirements:
            value = metric_value(requirement.metric, found)
            if not requirement.holds(value):
                missed += max(-requirement.margin(value), 1e-12)
        return missed

    def materialize(self, seed: int, *, repair: bool = True) -> Decided:
        """Returns the network of a seed.

        Raises:
            PassError: no network near this draw meets the requirements.
        """
        decisions = self.draw(seed)
        reached: dict[str, int] = {}
        graph = self.build(decisions, reached)
        found = totals(graph)
        if not repair or self.violation(found) == 0.0:
            return Decided(seed, graph, decisions, reached, (), found)
        scores = self.scores(seed)
        return self.repair(decisions, scores, seed)

    def repair(self, decisions: dict[str, int], scores: npt.NDArray[np.float64], seed: int = 0) -> Decided:
        """Walks from `decisions` to a feasible network, giving up as little score as it can for each step.

        A step moves one reached choice to another alternative. Candidates are ranked by the violation they take away,
        estimated from each alternative's effect measured once for the generator, over the score they give up; a step
        is kept when the violation, counted exactly, falls. When no estimate helps, every step is counted exactly.

        Raises:
            PassError: the walk ends at a network that still violates a requirement.
        """
        rows = {identifier: row for row, identifier in enumerate(self.identifiers)}
        current = dict(decisions)
        reached: dict[str, int] = {}
        graph = self.build(current, reached)
        found = totals(graph)
        violation = self.violation(found)
        refused: set[tuple[str, int]] = set()
        while violation > 0.0:
            moves = [
                (identifier, index)
                for identifier in reached
                for index in range(len(self.graph.choices[identifier].labels))
                if index != current[identifier] and (identifier, index) not in refused
            ]
            ranked = []
            for identifier, index in moves:
                gain = violation - self.violation(self._estimate(found, identifier, current[identifier], index))
                regret = float(scores[rows[identifier], current[identifier]] - scores[rows[identifier], index])
                if gain > 1e-9:
                    ranked.append((gain / max(regret, 0.05), identifier, index))
            ranked.sort(reverse=True)
            step = self._first_better(ranked, current, violation, refused)
            if step is None:
                step = self._best_exact(moves, current, violation)
            if step is None:
                raise self._infeasible(found, seed)
            current, reached, graph, found, violation = step
            refused.clear()
        repairs = tuple(
            (identifier, decisions[identifier], index)
            for identifier, index in current.items()
            if index != decisions[identifier]
        )
        return Decided(seed, graph, current, reached, repairs, found)

    def from_decisions(self, decisions: Mapping[str, int]) -> Decided:
        """Returns the network of given decisions, repaired by the logits alone where it misses a requirement.

        Raises:
            PassError: no network near these decisions meets the requirements.
        """
        return self.repair(dict(decisions), self._logits)

    _Step = tuple[dict[str, int], dict[str, int], Graph, Totals, float]

    def _try(self, current: Mapping[str, int], identifier: str, index: int) -> _Step:
        decisions = {**current, identifier: index}
        reached: dict[str, int] = {}
        graph = self.build(decisions, reached)
        found = totals(graph)
        return decisions, reached, graph, found, self.violation(found)

    def _first_better(
        self,
        ranked: list[tuple[float, str, int]],
        current: Mapping[str, int],
        violation: float,
        refused: set[tuple[str, int]],
    ) -> _Step | None:
        for _, identifier, index in ranked[:8]:
            step = self._try(current, identifier, index)
            if step[-1] < violation:
                return step
            refused.add((identifier, index))
        return None

    def _best_exact(self, moves: list[tuple[str, int]], current: Mapping[str, int], violation: float) -> _Step | None:
        best: Materializer._Step | None = None
        for identifier, index in moves:
            step = self._try(current, identifier, index)
            if step[-1] < (violation if best is None else best[-1]):
                best = step
        return best

    def _estimate(self, found: Totals, identifier: str, old: int, new: int) -> Totals:
        """Returns the totals expected when one choice moves: today's, scaled by the ratio of its measured effects."""
        effects = self.effects()
        before, after = effects[identifier, old], effects[identifier, new]
        return Totals(
            *[
                int(value * (new_value / old_value)) if old_value else value
                for value, old_value, new_value in zip(found, before, after, strict=True)
            ]
        )

    def effects(self) -> Mapping[tuple[str, int], Totals]:
        """Returns the totals with each choice at each alternative, all others at their most likely."""
        if self._effects is None:
            base = self.most_likely()
            reached: dict[str, int] = {}
            reference = totals(self.build(base, reached))
            self._effects = {}
            for identifier, info in self.graph.choices.items():
                for index in range(len(info.labels)):
                    moved = identifier in reached and index != base[identifier]
                    self._effects[identifier, index] = (
                        totals(self.build({**base, identifier: index})) if moved else reference
                    )
        return self._effects

    def _infeasible(self, found: Totals, seed: int) -> PassError:
        missed = [
            f"{requirement} (got {metric_value(requirement.metric, found):,.0f})"
            for requirement in self.requirements
            if not requirement.holds(metric_value(requirement.metric, found))
        ]
        return PassError(
            f"@{self.graph.name}: no network near seed {seed} meets {'; '.join(missed)}",
            hint="open smaller widths or cheaper alternatives, or relax the requirement",
        )


class Materialize(Pass, name="materialize"):
    """Decides every choice by a seed and inlines it: the network G(s).

    Each choice is drawn by the Gumbel-max trick from its own counter-based stream, so that editing one choice never
    reshuffles the others. Where the draw misses a computable requirement of the generator, choices walk to cheaper
    alternatives until it holds. Weights are taken from the generator's: widths keep their first channels, kernels
    their centre.
    """

    seed: int = option(help="an integer from 0 to 2^64 - 1")
    repair: bool = option(True, help="walk to a network that meets the computable requirements")

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
