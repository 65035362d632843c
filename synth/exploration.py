"""Where the inquisitor looks: pools of candidates, what is worth a probe, and where to open new choices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gensynth.ir import PassError, Weights, architecture_hash
from gensynth.passes import Commit, Decided, Offer, parse_pipeline
from gensynth.passes.cost import Costs, cost

from .generator import Generator
from .inquisitor import UNREACHED, Candidate, Inquisitor, Reason

if TYPE_CHECKING:
    from .config import SearchSettings

__all__ = ["Explorer", "Idea", "Origin"]

_NEIGHBOURS_OF = 5
"""One-choice neighbours are taken of this many of the best candidates known."""


@dataclass(frozen=True)
class Origin:
    """Which generator emitted a network (programs change from cycle to cycle), and by which decisions."""

    generator: Generator
    decided: Decided

    def weights(self) -> Weights | None:
        """Returns the weights that the network inherits."""
        return self.generator.weights_for(self.decided)


@dataclass(frozen=True)
class Idea:
    """A network thought of, by its decisions or by the seed that draws them, as a candidate that is not built yet."""

    decisions: Mapping[str, int]
    seed: int | None
    candidate: Candidate


class Explorer:
    """Keeps the candidates of a synthesis and how each came about."""

    def __init__(self, inquisitor: Inquisitor, settings: SearchSettings) -> None:
        """Starts with nothing known."""
        self.inquisitor = inquisitor
        self.settings = settings
        self.settled: dict[str, str] = {}
        self._known: dict[str, None] = {}
        self._made: dict[str, tuple[Candidate, Origin]] = {}
        self._offered: set[tuple[str, str]] = set()

    def candidate(self, generator: Generator, decided: Decided) -> Candidate:
        """Returns a decided network as a candidate, with whatever is known of its architecture already."""
        name = architecture_hash(decided.graph)
        if name in self._made:
            return self.inquisitor.candidates.get(name, self._made[name][0])
        labels = self._labels(generator, decided.reached)
        candidate = Candidate(decided.seed, name, decided.graph, labels, self.inquisitor.meter(decided.graph))
        self._made[name] = candidate, Origin(generator, decided)
        return candidate

    def _labels(self, generator: Generator, decisions: Mapping[str, int]) -> dict[str, str]:
        """Returns what every choice that there ever was came to."""
        choices = generator.graph.choices
        for identifier in choices:
            self._known.setdefault(identifier)
        return {
            identifier: choices[identifier].labels[decisions[identifier]]
            if identifier in decisions
            else self.settled.get(identifier, UNREACHED)
            for identifier in self._known
        }

    def origin(self, candidate: Candidate) -> Origin:
        """Returns how a candidate came about."""
        return self._made[candidate.hash][1]

    def pool(self, generator: Generator, cycle: int) -> list[Idea]:
        """Returns the ideas of a cycle: fresh seeds, and one-choice neighbours of the best networks known."""
        self.inquisitor.look_at(generator.graph)
        first = cycle * 1_000_000
        found: dict[tuple[int, ...], Idea] = {}
        for seed in range(first, first + self.settings.draws):
            idea = self._idea(generator, generator.materializer.draw(seed), seed)
            found.setdefault(tuple(idea.decisions.values()), idea)
        best = self.inquisitor.rank(self.probed())[:_NEIGHBOURS_OF] if self.probed() else []
        for item in best:
            for decisions in self._neighbours(generator, item):
                found.setdefault(tuple(decisions.values()), self._idea(generator, decisions, None))
        return list(found.values())

    def _idea(self, generator: Generator, decisions: Mapping[str, int], seed: int | None) -> Idea:
        labels = self.inquisitor.encoding.reached(self._labels(generator, decisions))
        return Idea(decisions, seed, Candidate(seed or 0, "", None, labels, None))

    def build(self, generator: Generator, idea: Idea) -> Candidate | None:
        """Returns the network that an idea comes to, repaired where it misses a requirement; None if none is near."""
        try:
            if idea.seed is not None:
                return self.candidate(generator, generator.decide(idea.seed))
            return self.candidate(generator, generator.materializer.from_decisions(idea.decisions))
        except PassError:
            if idea.seed is not None:
                raise
            return None

    def _neighbours(self, generator: Generator, candidate: Candidate) -> Iterable[Mapping[str, int]]:
        """Yields decisions one choice away from a candidate, by the generator as it is now."""
        choices = generator.graph.choices
        likely = generator.materializer.most_likely()
        start = {}
        for identifier, info in choices.items():
            label = candidate.labels.get(identifier, "original")
            start[identifier] = info.labels.index(label) if label in info.labels else likely[identifier]
        for identifier, info in choices.items():
            if candidate.labels.get(identifier, "original") == UNREACHED:
                continue
            for index in range(len(info.labels)):
                if index != start[identifier]:
                    yield {**start, identifier: index}

    def ranked(self, generator: Generator, seeds: Sequence[int]) -> list[Candidate]:
        """Returns the candidates of some seeds, each architecture once at its first seed, the most promising first."""
        self.inquisitor.look_at(generator.graph)
        return self.inquisitor.rank([self.candidate(generator, decided) for decided in generator.distinct(seeds)])

    def probed(self) -> list[Candidate]:
        """Returns every candidate that has been probed."""
        return [item for item in self.inquisitor.candidates.values() if item.scores is not None]

    def known(self, pool: Sequence[Idea]) -> list[Candidate]:
        """Returns everything there is an opinion on: the candidates probed so far, and the ideas of a pool."""
        return [*[item.candidate for item in pool], *self.probed()]

    def worth_probing(self, generator: Generator, pool: Sequence[Idea]) -> list[Candidate]:
        """Builds those ideas of a pool that are worth a probe, each architecture once."""
        made: dict[int, Candidate | None] = {}

        def built(index: int) -> Candidate | None:
            if index not in made:
                made[index] = self.build(generator, pool[index])
            return made[index]

        def counted(index: int) -> Costs | None:
            candidate = built(index)
            return None if candidate is None else candidate.costs

        found: dict[str, Candidate] = {}
        for index in self.inquisitor.worth_probing([item.candidate for item in pool], len(pool), counted):
            if len(found) == self.settings.probes:
                break
            candidate = built(index)
            if candidate is not None and candidate.scores is None:
                found.setdefault(candidate.hash, candidate)
        return list(found.values())

    def take_probes(self, probed: Sequence[Candidate], results: Sequence[Mapping[str, object]]) -> None:
        """Shows the inquisitor what probes gave."""
        for item, result in zip(probed, results, strict=True):
            scores = result["scores"]
            assert isinstance(scores, dict)
            self.inquisitor.observe([item.probed(scores)])

    def take_trainings(self, chosen: Sequence[Candidate], results: Sequence[Mapping[str, object]]) -> None:
        """Shows the inquisitor what trainings gave."""
        for item, result in zip(chosen, results, strict=True):
            accuracy = result["accuracy"]
            assert isinstance(accuracy, (int, float))
            self.inquisitor.observe([item.trained(float(accuracy))])

    def settle(self, passes: Iterable[str]) -> None:
        """Remembers what choices were committed to, for networks that no longer show them."""
        for text in passes:
            for item in parse_pipeline(text):
                if isinstance(item, Commit):
                    self.settled[item.choice] = item.to

    def offer(self, generator: Generator) -> tuple[Generator, str, Reason] | None:
        """Offers one of the settings' rules at the costliest node of the likeliest network that takes one."""
        rules = self.inquisitor.settings.offers
        if not rules:
            return None
        report = cost(generator.materializer.build(generator.materializer.most_likely()))
        for row in sorted(report.rows, key=lambda row: -row.cost.macs)[:3]:
            for rule in rules:
                if (row.name, rule) in self._offered:
                    continue
                self._offered.add((row.name, rule))
                text = Offer(rewrite=rule, where=(row.name,)).text()
                offered = generator.apply(text)
                if offered.graph == generator.graph:
                    continue
                share = row.cost.macs / max(1, report.macs)
                return offered, text, Reason.of_offer(row.name, rule, share, float(report.macs))
        return None
