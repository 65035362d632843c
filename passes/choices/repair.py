"""Repair: from decisions that miss a requirement to near ones that meet all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from gensynth.ir import ChoiceInfo, Graph
from gensynth.passes.cost import Costs, Meter, OnDevice, Totals

from ..requirements import Requirement

__all__ = ["Repairer", "State", "violation"]

Scores = Mapping[str, Sequence[float]]
"""The score of each alternative, by choice id."""

CANDIDATES = 8
"""How many of the moves that look best are tried before every move is."""
LEAST_REGRET = 0.05
"""Moves that give up less score than this count alike, so that a free move of no use does not come first."""


def violation(requirements: Sequence[Requirement], found: Costs | Totals) -> float:
    """Returns by how much requirements are missed: the sum of negative margins; 0 where all hold."""
    missed = 0.0
    for requirement in requirements:
        value = requirement.value(found)
        if not requirement.holds(value):
            missed += max(-requirement.margin(value), 1e-12)
    return missed


@dataclass(frozen=True)
class State:
    """A network of the generator: its decisions, those it depends on, its costs, and by how much it misses."""

    decisions: dict[str, int]
    reached: dict[str, int]
    graph: Graph
    costs: Costs
    violation: float


class Repairer:
    """Repairs decisions of one generator; what it learns of the generator's costs it keeps."""

    def __init__(
        self,
        build: Callable[[Mapping[str, int], dict[str, int]], Graph],
        choices: Mapping[str, ChoiceInfo],
        usual: Mapping[str, int],
        requirements: Sequence[Requirement],
        meter: Meter,
    ) -> None:
        """`build` makes the network of decisions and notes those it depends on; `usual` are the most likely ones.

        `meter` tells what networks cost, on every device of the requirements.
        """
        self.build = build
        self.choices = choices
        self.usual = usual
        self.requirements = requirements
        self.meter = meter

    def repair(self, decisions: Mapping[str, int], scores: Scores) -> State:
        """Returns a network near `decisions` that meets the requirements; the nearest miss where none is found.

        First greedily: a step moves one choice that the network depends on to another alternative. Moves are ranked by
        the violation they take away, estimated from each alternative's effect measured once for the generator, over
        the score they give up; a step is taken when the violation, counted exactly, falls. Where no one move helps (the
        peak of memory may stand in two places), choices move one by one to those of a network that meets all
        requirements, and back again where that was not needed.
        """
        state = self.state(decisions)
        while state.violation > 0.0:
            better = self._step(state, scores)
            if better is None:
                return self._towards(self.feasible, state, scores)
            state = better
        return state

    def state(self, decisions: Mapping[str, int]) -> State:
        """Returns the network of some decisions and what it costs."""
        reached: dict[str, int] = {}
        graph = self.build(decisions, reached)
        found = self.meter(graph)
        return State(dict(decisions), reached, graph, found, violation(self.requirements, found))

    def _moves(self, state: State) -> list[tuple[str, int]]:
        return [
            (identifier, index)
            for identifier, now in state.reached.items()
            for index in range(len(self.choices[identifier].labels))
            if index != now
        ]

    def _step(self, state: State, scores: Scores) -> State | None:
        ranked = []
        for identifier, index in self._moves(state):
            gain = state.violation - violation(self.requirements, self._estimate(state, identifier, index))
            regret = scores[identifier][state.decisions[identifier]] - scores[identifier][index]
            if gain > 1e-9:
                ranked.append((gain / max(regret, LEAST_REGRET), identifier, index))
        ranked.sort(reverse=True)
        for _, identifier, index in ranked[:CANDIDATES]:
            tried = self.state({**state.decisions, identifier: index})
            if tried.violation < state.violation:
                return tried
        tries = [self.state({**state.decisions, identifier: index}) for identifier, index in self._moves(state)]
        best = min(tries, key=lambda tried: tried.violation, default=state)
        return best if best.violation < state.violation else None

    def _estimate(self, state: State, identifier: str, index: int) -> Costs:
        """Returns the costs expected when one choice moves: today's, scaled by the ratio of its measured effects."""
        before, after = self.effects[identifier, state.decisions[identifier]], self.effects[identifier, index]
        counts = zip(state.costs.totals, before.totals, after.totals, strict=True)
        return Costs(
            Totals(*[int(value * (new / old)) if old else value for value, old, new in counts]),
            {
                device: OnDevice(
                    value.latency_ms * (after.on[device].latency_ms / before.on[device].latency_ms),
                    value.energy_mj * (after.on[device].energy_mj / before.on[device].energy_mj),
                )
                for device, value in state.costs.on.items()
            },
        )

    @cached_property
    def effects(self) -> Mapping[tuple[str, int], Costs]:
        """The costs with each choice at each alternative, all others at their most likely."""
        usual = self.state(self.usual)
        effects: dict[tuple[str, int], Costs] = {}
        for identifier, info in self.choices.items():
            for index in range(len(info.labels)):
                moved = identifier in usual.reached and index != self.usual[identifier]
                effects[identifier, index] = (
                    self.state({**self.usual, identifier: index}).costs if moved else usual.costs
                )
        return effects

    @cached_property
    def feasible(self) -> State:
        """A network that meets the requirements, or misses them least: found by descent, one choice at a time.

        Moves that leave the violation as it is but lower the costs it is made of are taken as well.
        """
        state = self.state(self.usual)
        improved = True
        while improved and state.violation > 0.0:
            improved = False
            for identifier in tuple(state.reached):
                tries = [
                    self.state({**state.decisions, identifier: index})
                    for index in range(len(self.choices[identifier].labels))
                ]
                best = min(tries, key=self._rank)
                if self._rank(best) < self._rank(state):
                    state, improved = best, True
        return state

    def _rank(self, state: State) -> tuple[float, float]:
        """Orders networks by violation, then by the costs of which requirements want less (or more)."""
        costs = 0.0
        for requirement in self.requirements:
            value = requirement.value(state.costs)
            if not requirement.holds(value):
                # A peak hides all that stands below it; what is below counts by the sum of all activations.
                if requirement.metric == "peak_memory":
                    value = float(state.costs.totals.activation_bytes)
                costs += value / (requirement.bound or 1.0) * (1 if requirement.sense == "<=" else -1)
        return state.violation, costs

    def _towards(self, goal: State, state: State, scores: Scores) -> State:
        """Moves choices one by one to those of `goal` until the requirements hold; then back those that need not."""
        if goal.violation > 0.0:
            return min(goal, state, key=lambda item: item.violation)

        def regret(identifier: str) -> float:
            return scores[identifier][state.decisions[identifier]] - scores[identifier][goal.decisions[identifier]]

        start = state.decisions
        moving = [identifier for identifier, index in start.items() if goal.decisions[identifier] != index]
        moving.sort(key=lambda identifier: (regret(identifier), identifier))
        moved: list[str] = []
        for identifier in moving:
            state = self.state({**state.decisions, identifier: goal.decisions[identifier]})
            moved.append(identifier)
            if state.violation == 0.0:
                break
        for identifier in reversed(moved):
            tried = self.state({**state.decisions, identifier: start[identifier]})
            if tried.violation == 0.0:
                state = tried
        return state
