"""What a probe would find, told from the decisions: so that few networks need one.

Training-free scores and costs are smooth in the decisions and (nearly) free of noise, so a Gaussian process over some
hundred probed networks forecasts those of any other. Scores count by their ranks among networks drawn uniformly from
the program, most of which nobody has probed: their forecasts stand for them. So where the probes went does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gensynth.passes.cost import OnDevice, Totals

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

    def __init__(
        self, everyone: Sequence[Candidate], rows: Vector, population: Vector, spread: float, devices: int = 0
    ) -> None:
        """Takes networks with their encoded decisions, shape [n, columns], and networks that ranks are taken among.

        `spread` is the mean squared distance of two networks of the program; costs are known on so many `devices`.
        """
        everything = np.vstack([rows, population]) if len(population) else rows
        length = max(_LENGTH * spread, 1e-9)
        probed = [index for index, item in enumerate(everyone) if item.scores is not None]
        built = [index for index, item in enumerate(everyone) if item.costs is not None]
        scores = _scores([everyone[index].scores or {} for index in probed])
        field = None
        if scores is None:
            self.merit = np.zeros(len(rows))
        else:
            field = _Field(everything, probed, length)
            told = field.tell(scores)
            told[probed] = scores
            self.merit = _merit(told[: len(rows)], told[len(rows) :] if len(population) else scores)
        if not built:
            self.log_costs = np.zeros((len(rows), len(Totals._fields) + devices * len(OnDevice._fields)))
            self.log_deviations = np.full_like(self.log_costs, np.inf)
            return
        logs = np.log(np.array([costs_of(everyone[index]) for index in built]))
        if len(built) == len(everyone):
            self.log_costs, self.log_deviations = logs, np.zeros_like(logs)
            return
        # Those probed are enough to tell the others from, and are known here already.
        chosen = [at for at, index in enumerate(built) if everyone[index].scores is not None] or list(range(len(built)))
        basis = [built[at] for at in chosen]
        if field is None or basis != probed:
            field = _Field(everything, basis, length)
        self.log_costs = field.tell(logs[chosen])[: len(rows)]
        self.log_deviations = field.deviations(logs[chosen], len(rows))
        self.log_costs[built], self.log_deviations[built] = logs, 0.0

    def take(self, position: int, item: Candidate) -> None:
        """Takes in what a network costs that was built after all."""
        self.log_costs[position], self.log_deviations[position] = np.log(costs_of(item)), 0.0


def _scores(probed: Sequence[Mapping[str, float]]) -> Vector | None:
    """Returns normal scores of training-free scores, shape [n, scores]; None where there are too few."""
    names = [name for name in SCORES if probed and name in probed[0]] or sorted(probed[0] if probed else ())
    if len(probed) < 2 or not names:
        return None
    return _normal(np.array([[item.get(name, np.nan) for name in names] for item in probed]))


def _merit(scores: Vector, drawn: Vector) -> Vector:
    """Returns the standardized sum of the ranks that scores, shape [n, scores], have among those of `drawn`."""
    ordered = np.sort(drawn, axis=0)
    places = (np.arange(len(ordered)) + 0.5) / len(ordered)

    def ranks(table: Vector) -> Vector:
        found = [np.interp(table[:, column], ordered[:, column], places) for column in range(table.shape[1])]
        total: Vector = np.sum(found, axis=0, dtype=np.float64)
        return total

    reference = ranks(drawn)
    merit: Vector = (ranks(scores) - reference.mean()) / max(float(reference.std()), 1e-9)
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
    """A Gaussian process that tells columns of figures everywhere from those of the networks where they are known."""

    def __init__(self, rows: Vector, known: list[int], length: float) -> None:
        """Takes encoded decisions, shape [n, columns], and the positions of those known."""
        from scipy.linalg import cho_factor

        centred = rows - rows[known].mean(axis=0)
        squares = (centred**2).sum(axis=1)
        # One product serves both the distances and the slope; the rest is done in place, since these are large.
        products = centred @ centred[known].T
        self._across = -2.0 * products
        self._across += squares[:, None]
        self._across += squares[known]
        np.maximum(self._across, 0.0, out=self._across)
        self._across /= -length
        np.exp(self._across, out=self._across)
        self._across *= _AMPLITUDE
        products *= _SLOPE / length
        self._across += products
        self._prior = _AMPLITUDE + _SLOPE * squares / length + _NOISE
        kernel = self._across[known]
        kernel[np.diag_indices(len(known))] += _NOISE
        self._factor = cho_factor(kernel, lower=True)

    def tell(self, values: Vector) -> Vector:
        """Returns means everywhere, shape [n, columns], from values where they are known."""
        from scipy.linalg import cho_solve

        centre, scale = values.mean(axis=0), _scale(values)
        means: Vector = centre + (self._across @ cho_solve(self._factor, (values - centre) / scale)) * scale
        return means

    def deviations(self, values: Vector, count: int) -> Vector:
        """Returns standard deviations at the first `count` networks, shape [count, columns]."""
        from scipy.linalg import cho_solve

        across = self._across[:count]
        variance = self._prior[:count] - np.einsum("ij,ji->i", across, cho_solve(self._factor, across.T))
        found: Vector = np.sqrt(np.maximum(variance, 0.0))[:, None] * _scale(values)
        return found


def _scale(values: Vector) -> Vector:
    scale: Vector = np.maximum(values.std(axis=0), 1e-9)
    return scale


def squared_distances(left: Vector, right: Vector) -> Vector:
    """Returns the squared distances between rows, shape [left, right]."""
    found = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2.0 * left @ right.T
    result: Vector = np.maximum(found, 0.0)
    return result
