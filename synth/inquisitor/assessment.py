"""One look at a pool of candidates: what is forecast of them, what is believed, and what that makes them worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from gensynth.passes import Requirement
from gensynth.passes.cost import Costs, OnDevice, Totals
from gensynth.synth.performance import PERFORMANCE, Outcome, Performance

from .candidate import Candidate
from .experience import Experience, Observation
from .forecast import Forecast
from .surrogate import Belief, Features, Posterior

if TYPE_CHECKING:
    from .inquisitor import Inquisitor

__all__ = ["Assessment", "Judgement"]

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judgement:
    """What is expected of some candidates, each an array of shape [n].

    `performance` is the expected U; `feasible` the probability of meeting every requirement; `improvement` the
    expected improvement of U over the best, under the requirements.
    """

    posterior: Posterior
    performance: Vector
    feasible: Vector
    improvement: Vector

    @property
    def worth(self) -> Vector:
        """The expected U when a network that misses a requirement is worth as little as the worst of the pool."""
        low = float(self.performance.min()) if len(self.performance) else 0.0
        return low + self.feasible * (self.performance - low)


class Assessment:
    """What an inquisitor knows of a pool at one time; `suppose` adds trainings that are only planned."""

    def __init__(self, inquisitor: Inquisitor, pool: Sequence[Candidate]) -> None:
        """Looks at the candidates of `pool`, and at those that were probed or trained before."""
        self.inquisitor = inquisitor
        settings, encoding = inquisitor.settings, inquisitor.encoding
        everyone = list(pool)
        place = {item.hash: index for index, item in enumerate(pool) if item.hash}
        trained: dict[int, float] = {}
        for item in inquisitor.candidates.values():
            at = place.get(item.hash)
            if at is None:
                at = len(everyone)
                everyone.append(item)
            else:
                everyone[at] = item
            if item.accuracy is not None:
                trained[at] = item.accuracy
        for at, item in enumerate(pool):
            if item.accuracy is not None:
                trained[at] = item.accuracy
        if not settings.probes:
            everyone = [replace(item, scores=None) for item in everyone]
        self.everyone, self.size, self.trained = everyone, len(pool), trained
        past = inquisitor.experience.observations if inquisitor.experience is not None else ()
        population = encoding.population
        labels = [*[item.labels for item in everyone], *[item.labels for item in past]]
        encoded = encoding([*labels, *population])
        mine, theirs = slice(0, len(everyone)), slice(len(everyone), len(labels))
        self._spread = encoding.spread or _spread(encoded.rows[mine])
        shortcuts = encoded.shortcuts if settings.shortcuts else np.zeros_like(encoded.shortcuts)
        self._encoded = encoded.rows[mine], shortcuts[mine]
        devices = len(inquisitor.meter.models)
        self.forecast = Forecast(everyone, encoded.rows[mine], encoded.rows[len(labels) :], self._spread, devices)
        self._before = None
        if past:
            figures = np.array(
                [[item.merit, item.shortcuts, item.log_params, item.log_macs, item.value] for item in past]
            )
            self._before = Features(encoded.rows[theirs], *figures[:, :4].T), figures[:, 4]
        self.known = sorted(trained) if settings.learn else []
        self._believe()

    def _believe(self) -> None:
        logs = self.forecast.log_costs
        rows, shortcuts = self._encoded
        self.features = Features(
            rows,
            self.forecast.merit,
            shortcuts,
            _standardized(logs[:, Totals._fields.index("params")]),
            _standardized(logs[:, Totals._fields.index("macs")]),
        )
        self.belief = Belief(
            self.inquisitor.settings.surrogate,
            self.features,
            self.known,
            [self.trained[index] for index in self.known],
            validation_size=self.inquisitor.validation_size,
            spread=self._spread,
            before=self._before,
        )

    def count(self, costs: Mapping[int, Costs]) -> None:
        """Takes in what candidates of the pool, by position, cost after all."""
        for position, found in costs.items():
            self.everyone[position] = replace(self.everyone[position], costs=found)
            self.forecast.take(position, self.everyone[position])
        self.__dict__.pop("_possible", None)
        self._believe()

    def hopeful(self, count: int) -> list[int]:
        """Returns the candidates whose costs are forecast (by position, up to `count`) that promise most.

        That is, if they cost a standard deviation less than forecast.
        """
        waiting = np.array([index for index in range(self.size) if self.everyone[index].costs is None], int)
        if len(waiting) <= count:
            return [int(index) for index in waiting]
        judged = self.judgement(hope=1.0)
        value = judged.improvement if self.trained else judged.worth
        return [int(index) for index in waiting[np.argsort(-value[waiting], kind="stable")][:count]]

    def suppose(self, position: int) -> None:
        """Takes it that a candidate of the pool, by position, is trained and comes out as expected."""
        self.belief.suppose(position)

    def judgement(self, hope: float = 0.0) -> Judgement:
        """Returns what is expected of the pool's candidates, if costs lie `hope` deviations below what is forecast."""
        whole = self.belief.posterior()
        posterior = Posterior(whole.mean[: self.size], whole.deviation[: self.size])
        accuracies, weights = posterior.nodes()
        rows = np.arange(self.size)
        values, holds = self._values(rows, accuracies, hope)
        possible = np.where(self._possible > 0.0, 1.0, 0.0) if hope else self._possible
        performance = values @ weights
        feasible = possible * (holds @ weights)
        best = self._best(whole)
        if best is None:
            improvement = feasible * (1.0 if self._needs_accuracy and self.trained else _above(performance))
        else:
            improvement = possible * ((holds * np.maximum(values - best, 0.0)) @ weights)
        return Judgement(posterior, performance, feasible, improvement)

    def experience(self) -> Experience:
        """Returns what the trained candidates would tell another search; nothing where learning is switched off."""
        figures = self.features
        return Experience(
            tuple(
                Observation(
                    dict(self.everyone[index].labels),
                    float(figures.merit[index]),
                    float(figures.shortcuts[index]),
                    float(figures.log_params[index]),
                    float(figures.log_macs[index]),
                    float(value),
                )
                for index, value in zip(self.known, self.belief.standardized(), strict=True)
            )
        )

    # Values.

    @property
    def _needs_accuracy(self) -> bool:
        return any(not requirement.computable for requirement in self.inquisitor.requirements)

    def _best(self, whole: Posterior) -> float | None:
        """Returns the best U among trained candidates believed feasible, at their posterior median; None if none is."""
        rows = np.array(sorted(self.trained), dtype=int)
        if not len(rows):
            return None
        values, holds = self._values(rows, whole.accuracy()[rows][:, None])
        kept = values[:, 0][holds[:, 0] > 0]
        return float(kept.max()) if len(kept) else None

    def _values(self, rows: npt.NDArray[np.int_], accuracies: Vector, hope: float = 0.0) -> tuple[Vector, Vector]:
        """Returns U of candidates at accuracies [percent], shape [n, nodes], and whether (1 or 0) those suffice."""
        function = self.inquisitor.performance
        plain = function.function if isinstance(function, Performance) else function
        if plain in PERFORMANCE.values():
            outcome = self._outcome(rows[:, None], accuracies, hope)
            values = np.broadcast_to(np.asarray(plain(outcome), dtype=np.float64), accuracies.shape)
        else:
            values = np.array(
                [
                    [function(self._outcome(row, accuracy, hope)) for accuracy in line]
                    for row, line in zip(rows, accuracies, strict=True)
                ]
            ).reshape(accuracies.shape)
        holds = np.ones(accuracies.shape)
        for requirement in self.inquisitor.requirements:
            if not requirement.computable:
                figures = PERFORMANCE[requirement.metric](self._outcome(rows[:, None], accuracies, hope))
                holds = holds * np.asarray(requirement.margin(figures) >= 0.0, dtype=np.float64)
        return values, holds

    def _outcome(self, rows: npt.NDArray[np.int_], accuracies: object, hope: float) -> Outcome:
        """Returns outcomes of candidates by row; arrays of rows and accuracies make one outcome of arrays."""
        logs = self.forecast.log_costs[rows]
        costs = np.exp(logs - hope * self.forecast.log_deviations[rows] if hope else logs)
        on = None
        if self.inquisitor.device is not None:
            at = len(Totals._fields) + 2 * sorted(self.inquisitor.meter.models).index(self.inquisitor.device)
            on = costs[..., at], costs[..., at + 1]
        return Outcome(
            cast(float, accuracies),
            cast(int, costs[..., Totals._fields.index("params")]),
            cast(int, costs[..., Totals._fields.index("macs")]),
            *(cast(tuple[float, float], on) if on is not None else ()),
        )

    @cached_property
    def _possible(self) -> Vector:
        """The probability that each candidate of the pool meets the requirements that its costs decide."""
        found = np.ones(self.size)
        for requirement in self.inquisitor.requirements:
            if not requirement.computable:
                continue
            for index in range(self.size):
                costs = self.everyone[index].costs
                if costs is not None:
                    found[index] *= requirement.holds(requirement.value(costs))
                elif found[index] > 0.0:
                    found[index] *= self._probability(requirement, index)
        return found

    def _probability(self, requirement: Requirement, index: int) -> float:
        """Returns how probable it is that a network that was not built meets a requirement."""
        from scipy.special import ndtr

        logs, deviations = self.forecast.log_costs[index], self.forecast.log_deviations[index]
        middle = self._costs(np.exp(logs))
        value = requirement.value(middle)
        deviation = float(deviations.max())
        margin = math.log(max(requirement.bound, 1e-12) / max(value, 1e-12))
        if requirement.sense == ">=":
            margin = -margin
        return float(ndtr(margin / max(deviation, 1e-6)))

    def _costs(self, figures: Vector) -> Costs:
        count = len(Totals._fields)
        devices = sorted(self.inquisitor.meter.models)
        on = {
            device: OnDevice(float(figures[count + 2 * at]), float(figures[count + 2 * at + 1]))
            for at, device in enumerate(devices)
        }
        return Costs(Totals(*[round(float(value)) for value in figures[:count]]), on)


def _standardized(values: Vector) -> Vector:
    spread = float(values.std())
    result: Vector = (values - values.mean()) / (spread if spread > 1e-9 else 1.0)
    return result


def _above(values: Vector) -> Vector:
    """Returns by how much values lie above the least of them, and a little more."""
    return values - (float(values.min()) if len(values) else 0.0) + 1e-6


def _spread(rows: Vector) -> float:
    """Returns the mean squared distance of two of the rows."""
    if len(rows) < 2:
        return 1.0
    return float(2.0 * ((rows - rows.mean(axis=0)) ** 2).sum() / (len(rows) - 1))
