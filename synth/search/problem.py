"""What a search is for: a space of decisions, what is known of each for nothing, and what costs a probe or more."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gensynth.ir import Graph, UsageError
from gensynth.passes import Requirement
from gensynth.passes.choices.repair import LEAST_REGRET, violation
from gensynth.passes.cost import Costs
from gensynth.synth.performance import Outcome, Performance

from .space import Decisions, Space

__all__ = ["Problem", "Session", "Trained"]

_TRIES = 10_000
"""So many draws in a row may miss the requirements before it is said that none meets them."""


@dataclass(frozen=True)
class Trained:
    """What training the network of some decisions gave: accuracy [percent] and U, the larger the better."""

    decisions: Decisions
    accuracy: float
    value: float


class Problem(ABC):
    """A generator program to be searched. Costs are exact and free; probes and evaluations are not.

    A subclass says `exists`, `costs`, `scores` and `accuracy`; it may keep what it has computed, since all four depend
    on nothing but the decisions.
    """

    def __init__(self, graph: Graph, performance: Performance, requirements: Sequence[Requirement] = ()) -> None:
        """Takes the generator program, U, and requirements that can be computed from costs."""
        self.graph = graph
        self.space = Space.of(graph)
        self.performance = performance
        self.requirements = tuple(requirements)
        self._holds: dict[Decisions, bool] = {}

    validation_size: int = 10_000
    """The number of images that accuracies are measured on."""

    @abstractmethod
    def exists(self, decisions: Decisions) -> bool:
        """Whether anything is known of these decisions."""

    @abstractmethod
    def costs(self, decisions: Decisions) -> Costs:
        """Returns what the network costs."""

    def known_costs(self, decisions: Decisions) -> Costs | None:
        """Returns the costs where telling them takes no time; None otherwise."""
        return None

    @abstractmethod
    def scores(self, decisions: Decisions) -> Mapping[str, float]:
        """Returns the training-free scores of a probe of the network."""

    @abstractmethod
    def accuracy(self, decisions: Decisions) -> float:
        """Returns the accuracy [percent] of the trained network."""

    def network(self, decisions: Decisions) -> Hashable:
        """Returns what tells networks apart: equal for decisions that come to the same network, where that is known."""
        return decisions

    def train(self, asked: Sequence[Decisions]) -> list[float]:
        """Returns the accuracies [percent] of trained networks; a subclass may train them side by side."""
        return [self.accuracy(decisions) for decisions in asked]

    def holds(self, decisions: Decisions) -> bool:
        """Whether the network exists and meets every requirement."""
        found = self._holds.get(decisions)
        if found is None:
            found = self.exists(decisions)
            if found and self.requirements:
                costs = self.costs(decisions)
                found = all(requirement.holds(requirement.value(costs)) for requirement in self.requirements)
            self._holds[decisions] = found
        return found

    def value(self, decisions: Decisions, accuracy: float) -> float:
        """Returns U of the network at an accuracy [percent]."""
        return self.performance(Outcome.of(accuracy, self.costs(decisions), self.performance.device))

    def draw(self, random: np.random.Generator) -> Decisions:
        """Returns decisions drawn uniformly among those that hold.

        Raises:
            UsageError: none was found.
        """
        for _ in range(_TRIES):
            decisions = self.space.draw(random)
            if self.holds(decisions):
                return decisions
        raise UsageError(
            f"none of {_TRIES:,} networks drawn meets {'; '.join(map(str, self.requirements)) or 'the table'}",
            hint="raise the ceilings",
        )

    def repair(self, decisions: Decisions, scores: Sequence[Sequence[float]]) -> Decisions | None:
        """Walks from decisions to some that hold, giving up as little as it can of `scores`, one row a choice.

        A step moves the choice that takes most of what is missed for what it gives up; None where no step helps.
        """
        missed = self._missed(decisions)
        while missed > 0.0:
            moves = []
            for found in self.space.neighbours(decisions):
                left = self._missed(found)
                if left < missed:
                    at = next(place for place, index in enumerate(decisions) if index != found[place])
                    regret = max(scores[at][decisions[at]] - scores[at][found[at]], LEAST_REGRET)
                    gain = missed - left if math.isfinite(missed) else 1.0 / (1.0 + left)
                    moves.append((gain / regret, -left, found))
            if not moves:
                return None
            _, left, decisions = max(moves)
            missed = -left
        return decisions

    def _missed(self, decisions: Decisions) -> float:
        if not self.exists(decisions):
            return math.inf
        return violation(self.requirements, self.costs(decisions)) if self.requirements else 0.0

    def neighbours(self, decisions: Decisions) -> list[Decisions]:
        """Returns the decisions that differ in one choice and hold."""
        return [found for found in self.space.neighbours(decisions) if self.holds(found)]


class Session:
    """One search of a problem as a strategy sees it: what it is shown is counted.

    `random` is the strategy's source of chance; `probes_left` how many more networks may be probed. A network probed
    twice counts once.
    """

    def __init__(self, problem: Problem, *, seed: int, probes: int, prior: object | None = None) -> None:
        """Starts a search. `prior` is what an earlier search left for those strategies that can use it."""
        self.problem = problem
        self.space = problem.space
        self.seed = seed
        self.random = np.random.Generator(np.random.Philox(key=seed))
        self.limit = probes
        self.prior = prior
        self.probed: dict[Decisions, Mapping[str, float]] = {}
        self.trained: dict[Decisions, Trained] = {}

    @property
    def probes_left(self) -> int:
        """How many more networks may be probed."""
        return self.limit - len(self.probed)

    def probe(self, asked: Iterable[Decisions]) -> list[Mapping[str, float]]:
        """Returns the training-free scores of networks.

        Raises:
            UsageError: more were asked for than may be probed.
        """
        asked = list(asked)
        fresh = {decisions for decisions in asked if decisions not in self.probed}
        if len(fresh) > self.probes_left:
            raise UsageError(
                f"{len(fresh)} more networks to probe, and {self.probes_left} of {self.limit} probes are left",
                hint="look at `probes_left` first",
            )
        for decisions in asked:
            if decisions not in self.probed:
                self.probed[decisions] = self.problem.scores(decisions)
        return [self.probed[decisions] for decisions in asked]

    def train(self, asked: Sequence[Decisions]) -> list[Trained]:
        """Trains networks and returns what it gave.

        Raises:
            UsageError: one of them misses a requirement.
        """
        for decisions in asked:
            if not self.problem.holds(decisions):
                raise UsageError(
                    f"a strategy asked to train a network that misses a requirement: {self.space.names(decisions)}",
                    hint="ask for networks that `problem.holds` only",
                )
        fresh = [decisions for decisions in dict.fromkeys(asked) if decisions not in self.trained]
        for decisions, accuracy in zip(fresh, self.problem.train(fresh), strict=True):
            self.trained[decisions] = Trained(decisions, accuracy, self.problem.value(decisions, accuracy))
        return [self.trained[decisions] for decisions in asked]

    def draw_new(self, avoid: Callable[[Decisions], bool] | None = None) -> Decisions:
        """Returns decisions drawn uniformly among those that hold, not trained so far (nor to be avoided) if it can."""
        decisions = self.problem.draw(self.random)
        for _ in range(100):
            if decisions not in self.trained and not (avoid and avoid(decisions)):
                break
            decisions = self.problem.draw(self.random)
        return decisions
