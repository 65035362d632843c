"""theta_I: what the inquisitor has learned. A Gaussian process from choices, costs and responses to accuracy.

Accuracy alone is modelled; costs are known exactly and are added afterwards. Covariance of two candidates:

    k = choices * exp(-d^2 / (length * m)) + linear * f.f' / F + constant + noise * [same]

with d^2 the distance of their decisions, m its mean over the candidates, f the F standardized linear features (log
costs and ranks of training-free scores). Hyperparameters are fixed: a few dozen observations are too few to fit them.
Formulas: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .candidate import Candidate, distances, linear_features

__all__ = ["Posterior", "Surrogate"]

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Posterior:
    """What is believed of some candidates' accuracy, as a normal distribution of its logit.

    `mean` and `deviation` have shape [n]; `count` is the number of validation images, which sets how a share is
    smoothed before the logit.
    """

    mean: Vector
    deviation: Vector

    def accuracy(self) -> Vector:
        """Returns the median accuracy, in percent."""
        return 100.0 / (1.0 + np.exp(-self.mean))

    def nodes(self, count: int = 16) -> tuple[Vector, Vector]:
        """Returns accuracies [percent], shape [n, count], and their weights, by Gauss-Hermite quadrature."""
        points, weights = np.polynomial.hermite_e.hermegauss(count)
        logits = self.mean[:, None] + self.deviation[:, None] * points[None, :]
        return 100.0 / (1.0 + np.exp(-logits)), weights / weights.sum()


@dataclass(frozen=True)
class Surrogate:
    """A Gaussian process over candidates, in units of the observed spread of logit accuracy."""

    choices: float = 1.0
    linear: float = 1.0
    constant: float = 1.0
    length: float = 1.0
    noise: float = 0.25

    def fit(self, candidates: Sequence[Candidate], *, validation_size: int) -> Belief:
        """Returns what the trained ones among the candidates tell of all of them.

        `validation_size` is the number of images that accuracies were measured on: it keeps the logit finite at 100%.
        """
        squared = distances(candidates)
        off_diagonal = squared[~np.eye(len(candidates), dtype=bool)]
        mean_distance = float(off_diagonal.mean()) if off_diagonal.size else 1.0
        features, _ = linear_features(candidates)
        kernel = (
            self.choices * np.exp(-squared / max(1e-9, self.length * mean_distance))
            + self.linear * features @ features.T / features.shape[1]
            + self.constant
        )
        known = [position for position, candidate in enumerate(candidates) if candidate.accuracy is not None]
        values = np.array([_logit(candidates[position].accuracy or 0.0, validation_size) for position in known])
        return Belief(kernel, list(known), values, self.noise)


class Belief:
    """A fitted surrogate; `suppose` conditions it on a training that is only planned."""

    def __init__(self, kernel: Vector, known: list[int], values: Vector, noise: float) -> None:
        self._kernel = kernel
        self._known = known
        self._noise = noise
        self._centre = float(np.median(values)) if len(values) else math.log(9.0)
        spread = float(values.std()) if len(values) > 2 else 1.0
        self._scale = max(spread, 0.3)
        self._values = (values - self._centre) / self._scale

    def posterior(self) -> Posterior:
        """Returns the belief about every candidate, without the noise of a single training."""
        from scipy.linalg import cho_factor, cho_solve

        prior = np.diag(self._kernel)
        if not self._known:
            return Posterior(np.full(len(prior), self._centre), self._scale * np.sqrt(prior))
        among = self._kernel[np.ix_(self._known, self._known)]
        factor = cho_factor(among + (self._noise + 1e-9) * np.eye(len(self._known)), lower=True)
        across = self._kernel[:, self._known]
        mean = across @ cho_solve(factor, self._values)
        variance = prior - np.einsum("ij,ji->i", across, cho_solve(factor, across.T))
        return Posterior(self._centre + self._scale * mean, self._scale * np.sqrt(np.maximum(variance, 1e-9)))

    def suppose(self, position: int) -> None:
        """Takes it that a candidate came out as expected: means stay, uncertainty near it shrinks."""
        expected = (self.posterior().mean[position] - self._centre) / self._scale
        self._known.append(position)
        self._values = np.append(self._values, expected)


def _logit(accuracy: float, count: int) -> float:
    """Returns the logit of an accuracy [percent] measured on `count` images, half an image off both ends."""
    share = (accuracy / 100.0 * count + 0.5) / (count + 1.0)
    return math.log(share / (1.0 - share))
