"""What a probe would find, told from the decisions: so that few networks need one.

Training-free scores and costs are smooth in the decisions and (nearly) free of noise, so a Gaussian process over some
hundred probed networks forecasts those of any other. Scores count by their ranks among networks drawn uniformly from
the program, most of which nobody has probed: their forecasts stand for them. So where the probes went does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gensynth.passes.cost import Totals

from .candidate import Candidate

__all__ = ["SCORES", "Forecast"]

Vector = npt.NDArray[np.float64]

SCORES = ("naswot", "log_synflow", "rank")
"""The training-free scores that count, all alike. On NAS-Bench-201 others added nothing or cost (docs/design.md)."""

_AMPLITUDE = 8.0
_SLOPE = 4.0
_NOISE = 0.02
_LENGTH = 1.7
"""In mean squared distances of two networks of the program."""


class Forecast:
    """Scores and costs of networks, those of most told from those of the few that were built and probed.

    `merit`, shape [n], is the standardized sum of the ranks of the training-free scores. `log_costs` and
    `log_deviations`, shape [n, costs], are the logarithms of costs as `costs_of` lists them and how sure they are: 0
    for networks that were built.
    """

    def __init__(self, everyone: Sequence[Candidate], rows: Vector, population: Vector, spread: float) -> None:
        """Takes networks with their encoded decisions, shape [n, columns], and networks that ranks are taken among.

        `spread` is the mean squared distance of two networks of the program.
        """
        length = max(_LENGTH * spread, 1e-9)
        probed = [index for index, item in enumerate(everyone) if item.scores is not None]
        built = [index for index, item in enumerate(everyone) if item.costs is not None]
        self.merit = self._merit([everyone[index].scores or {} for index in probed], probed, rows, population, length)
        if not built:
            self.log_costs = np.zeros((len(rows), len(Totals._fields)))
            self.log_deviations = np.full_like(self.log_costs, np.inf)
            return
        logs = np.log(np.array([costs_of(everyone[index]) for index in built]))
        if len(built) == len(everyone):
            self.log_costs, self.log_deviations = logs, np.zeros_like(logs)
        else:
            field = _Field(rows[built], logs, length)
            self.log_costs, self.log_deviations = field.tell(rows), field.deviations(rows)
            self.log_costs[built], self.log_deviations[built] = logs, 0.0

    @staticmethod
    def _merit(
        scores: Sequence[Mapping[str, float]], probed: list[int], rows: Vector, population: Vector, length: float
    ) -> Vector:
        names = [name for name in SCORES if scores and name in scores[0]] or sorted(scores[0] if scores else ())
        if len(scores) < 2 or not names:
            return np.zeros(len(rows))
        values = _normal(np.array([[item.get(name, np.nan) for name in names] for item in scores]))
        field = _Field(rows[probed], values, length)
        told = field.tell(rows)
        told[probed] = values
        drawn = field.tell(population) if len(population) else values
        ordered = np.sort(drawn, axis=0)
        places = (np.arange(len(ordered)) + 0.5) / len(ordered)

        def ranks(table: Vector) -> Vector:
            found = [np.interp(table[:, column], ordered[:, column], places) for column in range(len(names))]
            total: Vector = np.sum(found, axis=0, dtype=np.float64)
            return total

        reference = ranks(drawn)
        merit: Vector = (ranks(told) - reference.mean()) / max(float(reference.std()), 1e-9)
        return merit


def costs_of(item: Candidate) -> list[float]:
    """Returns the costs of a network that was built: its totals, then latency and energy on each device, by name."""
    costs = item.known_costs
    found = [*costs.totals, *[figure for device in sorted(costs.on) for figure in costs.on[device]]]
    return [max(float(value), 1e-12) for value in found]


def _normal(table: Vector) -> Vector:
    """Returns normal scores of each column: the normal quantiles of the ranks."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    if not len(table):
        return table
    ranks = (rankdata(np.nan_to_num(table, nan=-np.inf), axis=0) - 0.5) / len(table)
    result: Vector = ndtri(ranks)
    return result


class _Field:
    """A Gaussian process that interpolates columns over encoded decisions."""

    def __init__(self, rows: Vector, values: Vector, length: float) -> None:
        from scipy.linalg import cho_factor, cho_solve

        self.rows, self.values, self.length = rows, values, length
        self.middle = rows.mean(axis=0)
        self.centre = values.mean(axis=0)
        self.scale = np.maximum(values.std(axis=0), 1e-9)
        kernel = self._kernel(rows, rows)
        kernel[np.diag_indices(len(rows))] += _NOISE
        self._factor = cho_factor(kernel, lower=True)
        self._weights = cho_solve(self._factor, (values - self.centre) / self.scale)

    def _kernel(self, left: Vector, right: Vector) -> Vector:
        near = _AMPLITUDE * np.exp(-squared_distances(left, right) / self.length)
        kernel: Vector = near + _SLOPE * (left - self.middle) @ (right - self.middle).T / self.length
        return kernel

    def tell(self, rows: Vector) -> Vector:
        """Returns means at rows, shape [n, columns]."""
        means: Vector = self.centre + (self._kernel(rows, self.rows) @ self._weights) * self.scale
        return means

    def deviations(self, rows: Vector) -> Vector:
        """Returns standard deviations at rows, shape [n, columns]."""
        from scipy.linalg import cho_solve

        across = self._kernel(rows, self.rows)
        slope = _SLOPE * ((rows - self.middle) ** 2).sum(axis=1) / self.length
        variance = _AMPLITUDE + slope + _NOISE - np.einsum("ij,ji->i", across, cho_solve(self._factor, across.T))
        found: Vector = np.sqrt(np.maximum(variance, 0.0))[:, None] * self.scale
        return found


def squared_distances(left: Vector, right: Vector) -> Vector:
    """Returns the squared distances between rows, shape [left, right]."""
    found = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2.0 * left @ right.T
    result: Vector = np.maximum(found, 0.0)
    return result
