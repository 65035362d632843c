"""The inquisitor I(.; theta_I): probes what a generator emits, learns from it, and proposes how the generator moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gensynth.ir import Graph, Network, UsageError
from gensynth.passes import Requirement, run_pipeline
from gensynth.passes.cost import Costs, Meter, Totals
from gensynth.synth.performance import PERFORMANCE, Outcome, Performance

from .assessment import Assessment, Judgement
from .candidate import UNREACHED, Candidate
from .encoding import Encoding
from .experience import Experience
from .reasons import LabelFigures, Reason, ReasonFigures
from .surrogate import Surrogate

if TYPE_CHECKING:
    from gensynth.synth.tasks import Task

__all__ = ["Inquisitor", "InquisitorSettings", "Judgement", "Proposal"]

Vector = npt.NDArray[np.float64]
Counted = Callable[[int], Costs | None]

_COUNTED = 128
"""So many candidates that nobody has built are built for their costs before a choice among them."""


@dataclass(frozen=True)
class InquisitorSettings:
    """How the inquisitor works.

    `family` is the number of different networks that the family should stay able to give (the entropy target);
    `step` how far a cycle may move towards the weighted frequencies; `trust` bounds the Kullback-Leibler divergence of
    any choice in a cycle, in nats; `floor` is the share of the uniform distribution that always stays. A choice is
    committed when one alternative's probability reaches `commit`, an alternative dropped when its own falls below
    `drop`; `confidence` is the probability of meeting requirements from which a network counts as meeting them.
    `explore` is the number of probes drawn at random before any is aimed; `experience` the file of what an earlier
    search found, if any.

    The last five switch parts off, to see what they are worth: `probes` the training-free scores, `learn` what
    trainings tell, `shortcuts` the belief in ways around what computes, `repair` the walk from a draw to the
    requirements, and `carry` what earlier searches found. A `trust` that is infinite is no trust region.
    """

    family: int = 24
    step: float = 0.6
    trust: float = 0.6
    floor: float = 0.02
    commit: float = 0.93
    drop: float = 0.03
    confidence: float = 0.5
    explore: int = 16
    probes: bool = True
    learn: bool = True
    shortcuts: bool = True
    repair: bool = True
    carry: bool = True
    experience: str = ""
    offers: tuple[str, ...] = ()
    surrogate: Surrogate = field(default_factory=Surrogate)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("step", 0.0, 1.0),
            ("floor", 0.0, 0.5),
            ("commit", 0.5, 1.0),
            ("drop", 0.0, 0.5),
            ("confidence", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"inquisitor: {name} must lie between {low:g} and {high:g}, got {value:g}")
        if self.family < 1 or self.trust <= 0.0:
            raise UsageError("inquisitor: family must be at least 1 and trust above 0")


@dataclass(frozen=True)
class Proposal:
    """A delta theta_G as pass texts, and the reason for each."""

    passes: tuple[str, ...]
    reasons: tuple[Reason, ...]


class Inquisitor:
    """Learns from the candidates it is shown; see `InquisitorSettings` for how it decides.

    `observe` takes candidates in; `select` names those whose training tells most; `propose` moves the generator.
    """

    def __init__(
        self,
        performance: Performance | Callable[[Outcome], float],
        requirements: Sequence[Requirement],
        *,
        validation_size: int,
        settings: InquisitorSettings | None = None,
        experience: Experience | None = None,
    ) -> None:
        """Starts with no observations, or with the experience of an earlier search.

        `validation_size` is the number of images accuracies are measured on.
        """
        self.performance = performance
        self.requirements = tuple(requirements)
        self.device = performance.device if isinstance(performance, Performance) else None
        devices = [item.device for item in self.requirements]
        self.meter = Meter(name for name in (*devices, self.device) if name is not None)
        self.validation_size = validation_size
        self.settings = settings or InquisitorSettings()
        self.candidates: dict[str, Candidate] = {}
        self.experience = experience if self.settings.carry else None
        self.encoding = Encoding()
        self._program: Graph | None = None

    def look_at(self, graph: Graph) -> None:
        """Learns the routes of the generator's program, by which networks are compared from here on."""
        if self._program is None or self._program.nodes != graph.nodes:
            self.encoding = Encoding(graph)
        self._program = graph

    def observe(self, candidates: Sequence[Candidate]) -> None:
        """Takes candidates in; one of a known architecture replaces what was known of it."""
        for candidate in candidates:
            self.candidates[candidate.hash] = candidate

    @staticmethod
    def probe(network: Network, on: Task, *, stimuli: int = 64, seed: int = 0) -> dict[str, object]:
        """Probes a network with real images of a task: one forward and one backward pass, observed at every value.

        Returns `scores` of the whole network, `vertices` (dead share, effective rank, gradient norm of each value) and
        `edges` (importance of each operand); see `gensynth.backends.torch.Responses` for what they mean.
        """
        from gensynth.synth.evaluation import probe_network

        return probe_network(network, on, stimuli=stimuli, seed=seed)

    @property
    def trained(self) -> list[Candidate]:
        """The candidates whose accuracy is known."""
        return [candidate for candidate in self.candidates.values() if candidate.accuracy is not None]

    def value(self, candidate: Candidate) -> float:
        """Returns U of a trained candidate."""
        assert candidate.accuracy is not None
        return self.performance(Outcome.of(candidate.accuracy, candidate.known_costs, self.device))

    def meets_requirements(self, candidate: Candidate) -> bool:
        """Whether a trained candidate meets every requirement."""
        assert candidate.accuracy is not None
        return self.holds(candidate.known_costs, candidate.accuracy)

    def holds(self, found: Costs | Totals, accuracy: float) -> bool:
        """Whether every requirement holds for a network of these costs and this accuracy [percent]."""
        for requirement in self.requirements:
            if requirement.computable and not requirement.holds(requirement.value(found)):
                return False
        return self.meets(Outcome.of(accuracy, found))

    def meets(self, outcome: Outcome) -> bool:
        """Whether those requirements hold that need an accuracy."""
        return all(
            requirement.holds(PERFORMANCE[requirement.metric](outcome))
            for requirement in self.requirements
            if not requirement.computable
        )

    # Judging.

    def assess(self, pool: Sequence[Candidate]) -> Assessment:
        """Returns what is known of the candidates of a pool and of those trained, to be judged by."""
        return Assessment(self, pool)

    def _look(self, pool: Sequence[Candidate], counted: Counted | None) -> Assessment:
        """Returns an assessment in which those that promise most have exact costs, if those can be counted."""
        assessment = self.assess(pool)
        if counted is not None and self.costs_matter:
            found = {index: counted(index) for index in assessment.hopeful(_COUNTED)}
            costs = {index: costs for index, costs in found.items() if costs is not None}
            if costs:
                assessment.count(costs)
        return assessment

    @property
    def costs_matter(self) -> bool:
        """Whether U or a requirement depends on costs."""
        function = self.performance.function if isinstance(self.performance, Performance) else self.performance
        return function is not PERFORMANCE["accuracy"] or any(item.computable for item in self.requirements)

    def judge(self, pool: Sequence[Candidate], suppose: Sequence[str] = ()) -> Judgement:
        """Returns what is expected of the candidates of `pool`, after supposing some (by hash) to be trained."""
        assessment = self.assess(pool)
        position = {candidate.hash: index for index, candidate in enumerate(pool)}
        for name in suppose:
            assessment.suppose(position[name])
        return assessment.judgement()

    # What to probe and to train.

    def worth_probing(self, pool: Sequence[Candidate], count: int, counted: Counted | None = None) -> list[int]:
        """Returns which of a pool's candidates (by position, those not probed) to probe, at most `count`.

        The first `explore` probes of a search are taken as the pool has them; after that, those that promise most.
        `counted` tells what a candidate of the pool costs, by position, or None if it cannot be built; it is asked of
        those few that may promise most, since costs told by forecast are not exact.
        """
        fresh = [index for index, item in enumerate(pool) if item.scores is None]
        probed = sum(item.scores is not None for item in self.candidates.values())
        random = fresh[: max(0, min(count, self.settings.explore - probed))]
        rest = count - len(random)
        if rest <= 0 or len(random) == len(fresh):
            return random
        judged = self._look(pool, counted).judgement()
        value = judged.improvement if self.trained else judged.worth
        taken = set(random)
        aimed = [index for index in np.array(fresh)[np.argsort(-value[fresh], kind="stable")] if index not in taken]
        return random + [int(index) for index in aimed[:rest]]

    def select(self, pool: Sequence[Candidate], count: int, counted: Counted | None = None) -> list[Candidate]:
        """Returns up to `count` candidates to train: each pick maximizes expected improvement given those before it.

        `counted` is as for `worth_probing`.
        """
        places = [place for place, candidate in enumerate(pool) if self._unknown(candidate)]
        waiting = [pool[place] for place in places]
        picked: list[int] = []
        if not waiting:
            return []
        assessment = self._look(waiting, None if counted is None else lambda index: counted(places[index]))
        while len(picked) < min(count, len(waiting)):
            judged = assessment.judgement()
            values = judged.improvement.copy()
            free = [index for index in range(len(waiting)) if index not in picked]
            if values[free].max() <= 1e-9:
                values = judged.feasible * judged.posterior.deviation
            best = free[int(values[free].argmax())]
            picked.append(best)
            if len(picked) < count:
                assessment.suppose(best)
        return [waiting[index] for index in picked]

    def _unknown(self, candidate: Candidate) -> bool:
        known = self.candidates.get(candidate.hash)
        return known is None or known.accuracy is None

    def rank(self, pool: Sequence[Candidate]) -> list[Candidate]:
        """Returns candidates from the best expected U down, those likely to meet the requirements first."""
        return [pool[index] for index in self.order(pool)]

    def order(self, pool: Sequence[Candidate], counted: Counted | None = None) -> list[int]:
        """Returns the positions of candidates from the best expected U down, those likely to be feasible first.

        `counted` is as for `worth_probing`.
        """
        if not pool:
            return []
        judged = self._look(pool, counted).judgement()
        likely = judged.feasible >= self.settings.confidence
        value = np.where(likely, judged.performance, judged.worth - 1e6)
        return [int(index) for index in np.argsort(-value, kind="stable")]

    def learned(self) -> Experience:
        """Returns what this search found, for the next one to start from."""
        return self.assess(self.trained).experience()

    def carried(self) -> dict[str, float] | None:
        """Returns how much earlier experience helped to tell what trainings gave, or None where there was none.

        `relation` is how closely related the tasks were found, `nats` the gain in log density of the `trainings` seen.
        """
        if self.experience is None or not self.trained:
            return None
        belief = self.assess(self.trained).belief
        return {"relation": belief.relation, "nats": belief.gain or 0.0, "trainings": float(len(self.trained))}

    # How the generator moves.

    def propose(self, graph: Graph, pool: Sequence[Candidate], *, cycle: int) -> Proposal:
        """Returns the update of a generator from what is now believed of the pool.

        Each candidate weighs exp(worth / temperature), the temperature set so that exp(entropy of the weights) is the
        family's size. Choices move towards their weighted frequencies,
        no further than the trust region; then settled ones are committed and dead alternatives dropped.
        """
        settings = self.settings
        judged = self.judge(pool)
        weights = _weigh(judged.worth, settings.family)
        passes: list[str] = []
        reasons: list[Reason] = []
        settling: list[tuple[str, Reason]] = []
        for identifier, info in graph.choices.items():
            old = np.array(info.probabilities)
            target, mass = self._frequencies(pool, weights, identifier, info.labels, old)
            wanted = (1.0 - settings.step) * old + settings.step * target
            wanted = (1.0 - settings.floor) * wanted + settings.floor / len(old)
            new = _within_trust(old, wanted, settings.trust)
            by = np.round(np.log(new) - np.log(old), 4)
            by -= by.mean().round(4)
            if np.abs(by).max() < 5e-4 or mass < 1e-6:
                continue
            passes.append(f"update{{choice={identifier},by=[{','.join(f'{step:.4f}' for step in by)}]}}")
            figures = self._figures(pool, judged, weights, identifier, info.labels)
            reasons.append(Reason.of_update(identifier, info.labels, old, new, figures))
            settling += self._settle(identifier, info.labels, new, figures) if cycle >= 2 else []
        # What is settled takes the choices inside dropped alternatives along, so it comes last, one at a time.
        moved = Network(graph)
        for text, reason in settling:
            open_choices = moved.graph.choices
            last = reason.action == "commit" and len(open_choices) == 1  # a generator keeps one choice
            if reason.choice in open_choices and not last:
                moved = run_pipeline(moved, text)
                passes.append(text)
                reasons.append(reason)
        return Proposal(tuple(passes), tuple(reasons))

    def _settle(
        self, identifier: str, labels: tuple[str, ...], probabilities: Vector, figures: ReasonFigures
    ) -> list[tuple[str, Reason]]:
        """Returns the passes that commit a settled choice, or drop its dead alternatives, each with its reason."""
        top = int(probabilities.argmax())
        if probabilities[top] >= self.settings.commit:
            reason = Reason.of_commit(identifier, labels[top], float(probabilities[top]), figures)
            return [(f"commit{{choice={identifier},to={labels[top]}}}", reason)]
        dead = [index for index in range(len(labels)) if probabilities[index] < self.settings.drop]
        return [
            (
                f"drop{{choice={identifier},alternative={labels[index]}}}",
                Reason.of_drop(identifier, labels[index], float(probabilities[index]), figures),
            )
            for index in dead[: len(labels) - 2]
        ]

    @staticmethod
    def _frequencies(
        pool: Sequence[Candidate], weights: Vector, identifier: str, labels: tuple[str, ...], old: Vector
    ) -> tuple[Vector, float]:
        """Returns the weighted frequency of each alternative among networks that depend on the choice, and their mass.

        Networks that do not depend on it count as if they followed the present probabilities.
        """
        position = {label: index for index, label in enumerate(labels)}
        counted = np.zeros(len(labels))
        for candidate, weight in zip(pool, weights, strict=True):
            index = position.get(candidate.labels.get(identifier, "original"))
            if index is not None:
                counted[index] += weight
        mass = float(counted.sum())
        return counted + (1.0 - mass) * old, mass

    def _figures(
        self, pool: Sequence[Candidate], judged: Judgement, weights: Vector, identifier: str, labels: tuple[str, ...]
    ) -> ReasonFigures:
        """Returns, per alternative, means over the pool's networks that take it."""
        named = self.device or next(iter(self.meter.models), None)
        accuracy = judged.posterior.accuracy()
        found: dict[str, LabelFigures] = {}
        for label in labels:
            rows = [
                row
                for row, item in enumerate(pool)
                if item.costs is not None and item.labels.get(identifier, UNREACHED) == label
            ]
            if rows:
                costs = [pool[row].known_costs for row in rows]
                found[label] = LabelFigures(
                    len(rows),
                    float(judged.performance[rows].mean()),
                    float(accuracy[rows].mean()),
                    float(np.mean([item.totals.macs for item in costs])),
                    float(np.mean([item.totals.params for item in costs])),
                    None if named is None else float(np.mean([item.on[named].energy_mj for item in costs])),
                )
        return ReasonFigures(found)


def _weigh(worth: Vector, family: int) -> Vector:
    """Returns weights of sum 1, proportional to exp(worth / temperature), whose perplexity is `family` or near it."""
    if not len(worth):
        return worth
    target = math.log(min(family, max(1.0, 0.8 * len(worth))))
    low, high = 1e-3, max(1e3, 10.0 * float(np.ptp(worth)))
    weights = np.full(len(worth), 1.0 / len(worth))
    for _ in range(60):
        temperature = math.sqrt(low * high)
        weights = np.exp((worth - worth.max()) / temperature)
        weights /= weights.sum()
        entropy = -float(np.sum(weights * np.log(np.maximum(weights, 1e-300))))
        if entropy < target:
            low = temperature
        else:
            high = temperature
    return weights


def _within_trust(old: Vector, wanted: Vector, trust: float) -> Vector:
    """Returns the point nearest `wanted` on the way from `old` whose divergence KL(new || old) is at most `trust`."""

    def divergence(new: Vector) -> float:
        return float(np.sum(new * (np.log(new) - np.log(old))))

    if divergence(wanted) <= trust:
        return wanted
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if divergence(old + middle * (wanted - old)) <= trust:
            low = middle
        else:
            high = middle
    return old + low * (wanted - old)
