"""Where the inquisitor looks: pools of candidates, what is worth a probe, and where to open new choices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gensynth.ir import PassError, Weights, architecture_hash
from gensynth.passes import Commit, Decided, Offer, parse_pipeline
from gensynth.passes.cost import cost

from .generator import Generator
from .inquisitor import UNREACHED, Candidate, Inquisitor, Reason

if TYPE_CHECKING:
    from .config import SearchSettings

__all__ = ["Explorer", "Origin"]

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
        choices = generator.graph.choices
        for identifier in choices:
            self._known.setdefault(identifier)
        labels = {}
        for identifier in self._known:
            if identifier in decided.reached:
                labels[identifier] = choices[identifier].labels[decided.reached[identifier]]
            else:
                labels[identifier] = self.settled.get(identifier, UNREACHED)
        candidate = Candidate(decided.seed, name, decided.graph, labels, self.inquisitor.meter(decided.graph))
        self._made[name] = candidate, Origin(generator, decided)
        return candidate

    def origin(self, candidate: Candidate) -> Origin:
        """Returns how a candidate came about."""
        return self._made[candidate.hash][1]

    def pool(self, generator: Generator, cycle: int) -> list[Candidate]:
        """Returns the candidates of a cycle: fresh seeds, and one-choice neighbours of the best known."""
        found: dict[str, Candidate] = {}
        first = cycle * 1_000_000
        for seed in range(first, first + self.settings.draws):
            candidate = self.candidate(generator, generator.decide(seed))
            found.setdefault(candidate.hash, candidate)
        best = self.inquisitor.rank(self.probed())[:_NEIGHBOURS_OF] if self.probed() else []
        for item in best:
            for decided in self._neighbours(generator, item):
                candidate = self.candidate(generator, decided)
                found.setdefault(candidate.hash, candidate)
        return list(found.values())

    def _neighbours(self, generator: Generator, candidate: Candidate) -> Iterable[Decided]:
        """Yields feasible networks one choice away from a candidate, by the generator as it is now."""
        choices = generator.graph.choices
        likely = generator.materializer.most_likely()
        start = {}
        for identifier, info in choices.items():
            label = candidate.labels.get(identifier, "original")
            start[identifier] = info.labels.index(label) if label in info.labels else likely[identifier]
        reached: dict[str, int] = {}
        generator.materializer.build(start, reached)
        for identifier in reached:
            for index in range(len(choices[identifier].labels)):
                if index != start[identifier]:
                    try:
                        yield generator.materializer.from_decisions({**start, identifier: index})
                    except PassError:  # no feasible network near this neighbour: it is none
                        continue

    def probed(self) -> list[Candidate]:
        """Returns every candidate that has been probed."""
        return [item for item in self.inquisitor.candidates.values() if item.scores is not None]

    def known(self, pool: Sequence[Candidate]) -> list[Candidate]:
        """Returns everything there is an opinion on: the candidates probed so far, and those of a pool."""
        found = {item.hash: item for item in pool}
        found.update({item.hash: item for item in self.probed()})
        return list(found.values())

    def worth_probing(self, pool: Sequence[Candidate]) -> list[Candidate]:
        """Returns those of a pool to probe: half of them the most promising by what is known, the rest in order."""
        fresh = [item for item in pool if item.scores is None]
        if not fresh:
            return []
        count = min(self.settings.probes, len(fresh))
        judged = self.inquisitor.judge(fresh)
        picked = np.argsort(-judged.improvement, kind="stable").tolist()[: (count + 1) // 2]
        others = [index for index in range(len(fresh)) if index not in set(picked)]
        return [fresh[index] for index in picked + others[: count - len(picked)]]

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
