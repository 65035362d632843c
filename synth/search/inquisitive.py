"""Generative synthesis as a search strategy: a generator whose logits an inquisitor moves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Sequence

from gensynth.ir import Network
from gensynth.passes.choices.randomness import choice_counters, gumbel
from gensynth.passes.cost import Costs
from gensynth.synth.generator import Generator
from gensynth.synth.inquisitor import Candidate, Experience, Inquisitor, InquisitorSettings

from .problem import Session, Trained
from .space import Decisions
from .strategy import register_strategy

__all__ = ["InquisitiveSearch", "inquisitor_strategy"]

_SETTINGS = InquisitorSettings(family=64, explore=100)
_AIMED = (3, 20)
"""Rounds of aimed probes after the random ones and before the first training, and probes in each."""
_PROBES = 12
"""Probes before each training, as long as there are any left."""
_DRAWN = 256
_UNIFORM = 128
_NEIGHBOURS_OF = 5
_NEIGHBOURS = 512
"""A cycle considers so many networks of the generator, so many drawn uniformly, and neighbours of so many of the best,
at most so many of these."""
_REPAIRS = 8
"""One in so many draws of a cycle is repaired at most; others that do not hold are dropped."""
_FAMILY_ROUNDS = 4
"""So often are networks drawn to make up a family."""
_SHARPENINGS = 2
"""Moves of the generator by its own seeds before a family is drawn: what was learned, without another training."""
_CYCLE = 5
"""Trainings between two updates of the generator."""


@register_strategy("inquisitor")
class InquisitiveSearch:
    """Probes, trains and moves a generator.

    A cycle thinks of networks (seeds of the generator, uniform draws, one-choice neighbours of the best known), has
    those probed of which the forecast promises most, and trains that of the probed with the largest expected
    improvement. Every few trainings the generator's logits follow (`Inquisitor.propose`).
    """

    def __init__(self, session: Session, settings: InquisitorSettings | None = None) -> None:
        """Starts from the problem's generator, and from `session.prior` where that is an `Experience`."""
        self.session = session
        self.problem, self.space = session.problem, session.space
        settings = settings or _SETTINGS
        self.settings = dataclasses.replace(settings, explore=min(settings.explore, session.limit // 4))
        self.generator = Generator(Network(self.problem.graph))
        self.inquisitor = Inquisitor(
            self.problem.performance,
            self.problem.requirements,
            validation_size=self.problem.validation_size,
            settings=self.settings,
            experience=session.prior if isinstance(session.prior, Experience) else None,
        )
        self.inquisitor.look_at(self.problem.graph)
        self._known: dict[Decisions, Candidate] = {}
        self._shown: dict[Decisions, Candidate] = {}
        self._counters = choice_counters(self.space.choices, max(self.space.sizes))
        self._next_seed = 1_000_000 * (1 + session.seed)
        self._since = 0

    # The protocol.

    def ask(self, count: int) -> Sequence[Decisions]:
        """Returns what promises most."""
        probing = self.settings.probes and self.session.limit > 0
        if probing and not self.session.probed:
            self._survey()
        if probing and self.session.probes_left > 0:
            self._probe(self._pool(), min(_PROBES * count, self.session.probes_left))
            pool = {key: item for key, item in self._shown.items() if item.scores is not None}
        else:
            pool = {**self._pool(), **self._shown}
        if sum(key not in self.session.trained for key in pool) < count:
            pool = {**pool, **self._pool()}
        fresh = [key for key in pool if key not in self.session.trained]
        while len(fresh) < count:
            fresh.append(self.session.draw_new(lambda decisions: decisions in fresh))
        chosen = self.inquisitor.select([self._candidate(key) for key in fresh], count, self._counter(fresh))
        # Where all that holds is trained, something is trained again.
        return [tuple(map(int, item.hash.split(","))) for item in chosen] or fresh[:1]

    def tell(self, trained: Sequence[Trained]) -> None:
        """Learns from trainings, and moves the generator every few of them."""
        for item in trained:
            self._observe(item.decisions, self._candidate(item.decisions).trained(item.accuracy))
        self._since += len(trained)
        if self._since >= _CYCLE:
            self._since = 0
            self._move()

    # The family.

    def family(self, count: int, *, draw: int = 1024) -> list[Decisions]:
        """Returns those of many fresh seeds of the learned generator that the inquisitor ranks first.

        All are different networks. Where the generator's seeds give too few of them, more are drawn, at last uniformly.
        """
        before = self.generator
        for _ in range(_SHARPENINGS):
            self._move(self._drawn(_DRAWN))
        found: dict[Hashable, Decisions] = {}
        for place in range(_FAMILY_ROUNDS):
            last = place == _FAMILY_ROUNDS - 1
            keys = [self.problem.draw(self.session.random) for _ in range(draw)] if last else self._drawn(draw)
            for index in self.inquisitor.order([self._candidate(key) for key in keys], self._counter(keys)):
                if len(found) < count:
                    found.setdefault(self.problem.network(keys[index]), keys[index])
            if len(found) == count:
                break
        self.generator = before
        return list(found.values())

    # Parts.

    def _candidate(self, decisions: Decisions) -> Candidate:
        found = self._known.get(decisions)
        if found is None:
            labels = self.space.reached(decisions)
            name = ",".join(map(str, decisions))
            found = Candidate(0, name, None, labels, self.problem.known_costs(decisions))
            self._known[decisions] = found
        return found

    def _counter(self, keys: Sequence[Decisions]) -> Callable[[int], Costs]:
        """Returns what tells the costs of some networks by position, and keeps them."""

        def counted(position: int) -> Costs:
            key = keys[position]
            costs = self.problem.costs(key)
            self._known[key] = dataclasses.replace(self._candidate(key), costs=costs)
            return costs

        return counted

    def _observe(self, decisions: Decisions, candidate: Candidate) -> None:
        if candidate.costs is None:
            candidate = dataclasses.replace(candidate, costs=self.problem.costs(decisions))
        self._known[decisions] = self._shown[decisions] = candidate
        self.inquisitor.observe([candidate])

    def _survey(self) -> None:
        """Probes at random, then where the forecast of the scores is highest."""
        random: dict[Decisions, None] = {}
        while len(random) < self.settings.explore:
            key = self.session.draw_new(lambda decisions: decisions in random)
            if key in random:
                break
            random[key] = None
        self._take(random)
        rounds, count = _AIMED
        for _ in range(rounds):
            self._probe(self._pool(), min(count, self.session.probes_left - self.session.limit // 4))

    def _take(self, keys: Iterable[Decisions]) -> None:
        keys = list(keys)
        for key, scores in zip(keys, self.session.probe(keys), strict=True):
            self._observe(key, self._candidate(key).probed(scores))

    def _probe(self, pool: dict[Decisions, Candidate], count: int) -> None:
        """Probes those of a pool that promise most and hold."""
        if count <= 0:
            return
        keys = list(pool)
        chosen: list[Decisions] = []
        for index in self.inquisitor.worth_probing(list(pool.values()), len(keys), self._counter(keys)):
            if len(chosen) == count:
                break
            if self.problem.holds(keys[index]):
                chosen.append(keys[index])
        self._take(chosen)

    def _pool(self) -> dict[Decisions, Candidate]:
        """Returns networks to think of."""
        found = dict.fromkeys(self._drawn(_DRAWN))
        for _ in range(_UNIFORM):
            found[self.problem.draw(self.session.random)] = None
        known = list(self._shown)
        order = self.inquisitor.order(list(self._shown.values()))
        near = dict.fromkeys(
            key for index in order[:_NEIGHBOURS_OF] for key in self.space.neighbours(known[index]) if key not in found
        )
        keys = list(near)
        if len(keys) > _NEIGHBOURS:
            keys = [keys[index] for index in self.session.random.permutation(len(keys))[:_NEIGHBOURS]]
        found.update(dict.fromkeys(key for key in keys if self.problem.holds(key)))
        return {key: self._candidate(key) for key in found}

    def _drawn(self, count: int) -> list[Decisions]:
        """Returns the networks of fresh seeds of the generator, each once; those that do not hold are repaired."""
        materializer = self.generator.materializer
        found: dict[Decisions, None] = {}
        repairs = count // _REPAIRS if self.settings.repair else 0
        for seed in range(self._next_seed, self._next_seed + count):
            drawn = materializer.draw(seed)
            key = self.space.normal(tuple(drawn[choice] for choice in self.space.choices))
            if self.problem.holds(key):
                found[key] = None
            elif repairs > 0:
                repairs -= 1
                repaired = self.problem.repair(key, self._scores(seed))
                if repaired is not None:
                    found[repaired] = None
        self._next_seed += count
        return list(found)

    def _scores(self, seed: int) -> list[list[float]]:
        """Returns logits plus the seed's noise, a row for each choice."""
        noise = gumbel(self._counters, (seed,)).reshape(len(self.space.choices), -1)
        choices = self.generator.graph.choices
        return [
            [logit + float(noise[row, index]) for index, logit in enumerate(choices[choice].logits)]
            for row, choice in enumerate(self.space.choices)
        ]

    def _move(self, ideas: Sequence[Decisions] = ()) -> None:
        """Moves the generator's logits by what is known and by what is believed of some ideas.

        Choices stay open, since the space is searched to the end.
        """
        pool = {key: self._candidate(key) for key in ideas} | self._shown
        # At the first cycle nothing is settled yet.
        proposal = self.inquisitor.propose(self.generator.graph, list(pool.values()), cycle=1)
        if proposal.passes:
            self.generator = self.generator.apply(",".join(proposal.passes), verify=False)


def inquisitor_strategy(**switches: object) -> type[InquisitiveSearch]:
    """Returns the strategy with settings changed, for ablations: `inquisitor_strategy(probes=False)`."""

    class Changed(InquisitiveSearch):
        def __init__(self, session: Session) -> None:
            super().__init__(session, dataclasses.replace(_SETTINGS, **switches))  # type: ignore[arg-type]

    return Changed
