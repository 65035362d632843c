"""What a search is compared with, and what these baselines share: random, evolutionary and local search."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from gensynth.synth.inquisitor.forecast import SCORES

from .problem import Problem, Session, Trained
from .space import Decisions
from .strategy import register_strategy

__all__ = [
    "Evolution",
    "EvolutionScored",
    "LocalSearch",
    "LocalSearchGuided",
    "LocalSearchScored",
    "LocalSearchWhole",
    "RandomSearch",
    "draw_untrained",
    "most_promising",
    "probe_random",
    "promise",
    "ranks",
    "score_ranks",
    "shuffled_neighbours",
]

Vector = npt.NDArray[np.float64]

ENUMERABLE = 20_000
"""A space of at most so many decisions may be looked at as a whole."""

_REPEATS = 200
"""So many draws in a row may give nothing new before it is taken that little is left."""

_GUESSED = (50.0, 95.0)
"""The accuracies [percent] that the networks of the worst and the best scores are taken to have before any is known."""


def ranks(values: npt.ArrayLike) -> Vector:
    """Returns ranks from 1 on, the mean of their ranks for equal values; what is not a number ranks lowest."""
    filled = np.nan_to_num(np.asarray(values, np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    _, index, count = np.unique(filled, return_inverse=True, return_counts=True)
    found: Vector = (np.cumsum(count) - (count - 1) / 2.0)[index]
    return found


def score_ranks(scores: Sequence[Mapping[str, float]]) -> Vector:
    """Returns one column of ranks for each training-free score relied on, shape [networks, scores].

    These are the `SCORES` that all networks have, or else whatever all of them have.
    """
    common = set.intersection(*(set(found) for found in scores)) if scores else set()
    names = [name for name in SCORES if name in common] or sorted(common)
    if not names:
        return np.zeros((len(scores), 1))
    return np.stack([ranks([found[name] for found in scores]) for name in names], axis=1)


def promise(problem: Problem, networks: Sequence[Decisions], scores: Sequence[Mapping[str, float]]) -> Vector:
    """Returns how promising networks are before any is trained, the larger the better.

    That is U at the accuracy that the sum of ranks of their scores suggests, so that costs have their share. Where U is
    accuracy, the order is that of the sums.
    """
    sums = score_ranks(scores).sum(axis=1)
    worst, best = _GUESSED
    guessed = worst + (best - worst) * (ranks(sums) - 0.5) / max(1, len(networks))
    return np.array([problem.value(*guess) for guess in zip(networks, guessed.tolist(), strict=True)])


def every(problem: Problem) -> Iterator[Decisions]:
    """Yields all decisions that hold."""
    for decisions in itertools.product(*map(range, problem.space.sizes)):
        if problem.space.normal(decisions) == decisions and problem.holds(decisions):
            yield decisions


def draw_untrained(session: Session, avoid: Collection[Decisions] = ()) -> Decisions:
    """Returns decisions that hold, neither trained nor to be avoided: drawn, or if draws give none, looked for.

    Where none is found, decisions that were trained before.
    """
    found = session.draw_new(avoid.__contains__)
    if found not in session.trained and found not in avoid:
        return found
    problem = session.problem
    if session.space.size <= ENUMERABLE:
        left = [one for one in every(problem) if one not in session.trained and one not in avoid]
        return left[session.random.integers(len(left))] if left else found
    known = list(session.trained)
    for position in session.random.permutation(len(known)).tolist():
        for one in session.space.neighbours(known[position]):
            if one not in session.trained and one not in avoid and problem.holds(one):
                return one
    return found


def probe_random(session: Session, count: int) -> list[Decisions]:
    """Probes up to `count` different networks drawn uniformly, as far as probes are left, and returns them."""
    count = min(count, session.probes_left)
    found: dict[Decisions, None] = {}
    repeats = 0
    while len(found) < count and repeats < _REPEATS:
        decisions = session.problem.draw(session.random)
        repeats = repeats + 1 if decisions in found else 0
        found[decisions] = None
    session.probe(found)
    return list(found)


def most_promising(session: Session, networks: Sequence[Decisions]) -> list[Decisions]:
    """Returns probed networks, the most promising among all that is probed first."""
    probed = list(session.probed)
    promises = dict(zip(probed, promise(session.problem, probed, list(session.probed.values())).tolist(), strict=True))
    return sorted(networks, key=promises.__getitem__, reverse=True)


@register_strategy("random")
class RandomSearch:
    """Trains networks drawn uniformly, none twice."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def ask(self, count: int) -> Sequence[Decisions]:
        asked: list[Decisions] = []
        for _ in range(count):
            asked.append(draw_untrained(self.session, asked))
        return asked

    def tell(self, trained: Sequence[Trained]) -> None:
        pass


@register_strategy("evolution")
class Evolution:
    """Regularized evolution: the best of a sample has a child that differs in one choice; the oldest leaves.

    Real et al., "Regularized Evolution for Image Classifier Architecture Search", arXiv 1802.01548, algorithm 1, with
    what small budgets need instead of the paper's population of 100 and sample of 25: 5 founders, 10 members, and the
    best of them all as parent. No network is trained twice.
    """

    population = 10
    sample = 10
    founders = 5

    def __init__(self, session: Session) -> None:
        self.session = session
        self.members: deque[Trained] = deque(maxlen=self.population)
        self.first: list[Decisions] = []

    def ask(self, count: int) -> Sequence[Decisions]:
        asked: list[Decisions] = []
        while len(asked) < count:
            founded = self.members and len(self.session.trained) + len(asked) >= self.founders
            asked.append(self._child(asked) if founded else self._founder(asked))
        return asked

    def tell(self, trained: Sequence[Trained]) -> None:
        self.members.extend(trained)

    def _founder(self, asked: Collection[Decisions]) -> Decisions:
        while self.first:
            decisions = self.first.pop(0)
            if decisions not in self.session.trained and decisions not in asked:
                return decisions
        return draw_untrained(self.session, asked)

    def _child(self, asked: Collection[Decisions]) -> Decisions:
        random = self.session.random
        size = min(self.sample, len(self.members))
        sample = [self.members[position] for position in random.choice(len(self.members), size, replace=False)]
        for parent in sorted(sample, key=lambda member: -member.value):
            for decisions in shuffled_neighbours(self.session, parent.decisions):
                if decisions not in asked and decisions not in self.session.trained:
                    return decisions
        return draw_untrained(self.session, asked)


def shuffled_neighbours(session: Session, decisions: Decisions) -> Iterator[Decisions]:
    """Yields the decisions that differ in one choice and hold, in random order."""
    near = list(session.space.neighbours(decisions))
    for place in session.random.permutation(len(near)).tolist():
        if session.problem.holds(near[place]):
            yield near[place]


@register_strategy("evolution-scored")
class EvolutionScored(Evolution):
    """Regularized evolution whose first population is the most promising of randomly drawn networks by their scores."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.first = most_promising(session, probe_random(session, session.limit))[: self.founders]


@register_strategy("local-search")
class LocalSearch:
    """Climbs: tries one-choice neighbours in random order, moves to the first that is better, restarts at optima.

    White et al., "Exploring the Loss Landscape in Neural Architecture Search", arXiv 2005.02960, in its variant that
    moves at once. A neighbour trained before costs nothing. In a batch, the best of those that are better is moved to.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.current: Trained | None = None
        self.around: Iterator[Decisions] = iter(())

    def ask(self, count: int) -> Sequence[Decisions]:
        untrained = (decisions for decisions in self.around if decisions not in self.session.trained)
        asked = list(itertools.islice(untrained, count))
        if not asked:
            self.current = None
            asked = [self.start()]
        return asked

    def tell(self, trained: Sequence[Trained]) -> None:
        best = max(trained, key=lambda one: one.value)
        if self.current is not None and best.value <= self.current.value:
            return
        while self.current is None or best.value > self.current.value:
            self.current = best
            known = [
                self.session.trained[decisions]
                for decisions in self.session.space.neighbours(best.decisions)
                if decisions in self.session.trained
            ]
            best = max([best, *known], key=lambda one: one.value)
        self.around = self.neighbours(self.current.decisions)

    def start(self) -> Decisions:
        """Returns where to climb from next."""
        return draw_untrained(self.session)

    def neighbours(self, decisions: Decisions) -> Iterator[Decisions]:
        """Yields a network's neighbours in the order in which they are tried."""
        return shuffled_neighbours(self.session, decisions)


@register_strategy("local-search-scored")
class LocalSearchScored(LocalSearch):
    """Local search that starts from the most promising of randomly drawn networks by their scores, one by one.

    All probes are spent at the start.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.starts = self.ranked()

    def ranked(self) -> Iterator[Decisions]:
        """Yields the starts."""
        return iter(most_promising(self.session, probe_random(self.session, self.session.limit)))

    def start(self) -> Decisions:
        untrained = (decisions for decisions in self.starts if decisions not in self.session.trained)
        return next(untrained, None) or super().start()


@register_strategy("local-search-guided")
class LocalSearchGuided(LocalSearchScored):
    """Local search that tries the most promising neighbours first.

    Three quarters of the probes are for networks drawn at random, the most promising of which are starts; the rest for
    neighbours of what is moved to, at most 50 each, until none is left.
    """

    share = 0.75
    probes = 50

    def ranked(self) -> Iterator[Decisions]:
        return iter(most_promising(self.session, probe_random(self.session, round(self.share * self.session.limit))))

    def neighbours(self, decisions: Decisions) -> Iterator[Decisions]:
        rest = shuffled_neighbours(self.session, decisions)
        tried: list[Decisions] = []
        fresh = 0
        left = min(self.probes, self.session.probes_left)
        for neighbour in rest:
            fresh += neighbour not in self.session.probed
            if fresh > left:
                rest = itertools.chain([neighbour], rest)
                break
            tried.append(neighbour)
        self.session.probe(tried)
        return itertools.chain(most_promising(self.session, tried), rest)


_whole: WeakKeyDictionary[Problem, dict[Decisions, int]] = WeakKeyDictionary()


def whole_order(problem: Problem) -> dict[Decisions, int]:
    """Returns all decisions that hold in an enumerable space, each with its place by promise; kept by problem."""
    found = _whole.get(problem)
    if found is None:
        networks = list(every(problem))
        promises = promise(problem, networks, [problem.scores(decisions) for decisions in networks])
        order = np.argsort(-promises, kind="stable").tolist()
        found = _whole[problem] = {networks[position]: place for place, position in enumerate(order)}
    return found


@register_strategy("local-search-whole-start")
class LocalSearchWholeStart(LocalSearchScored):
    """Local search that starts from the most promising networks of the whole space.

    A reference that exceeds the limit on probes on purpose: it reads `scores_read` scores, those of every network
    there is. A space of more than 20,000 is searched as by `local-search-scored`.
    """

    def __init__(self, session: Session) -> None:
        self.order = whole_order(session.problem) if session.space.size <= ENUMERABLE else {}
        self.scores_read = len(self.order)
        super().__init__(session)

    def ranked(self) -> Iterator[Decisions]:
        return iter(self.order) if self.order else super().ranked()


@register_strategy("local-search-whole")
class LocalSearchWhole(LocalSearchWholeStart):
    """Local search that starts from the most promising networks of the whole space, and tries neighbours in that order.

    It takes the same path each time, and exceeds the limit on probes as `local-search-whole-start` does.
    """

    def neighbours(self, decisions: Decisions) -> Iterator[Decisions]:
        if not self.order:
            return super().neighbours(decisions)
        return iter(sorted(self.session.problem.neighbours(decisions), key=self.order.__getitem__))
