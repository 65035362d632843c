"""theta_I: what the inquisitor has learned. A Gaussian process from choices, responses and costs to accuracy.

Accuracy alone is modelled; costs are known exactly and are added afterwards. With z the merit of a network (see
`Forecast`), s its share of blocks with a shortcut, c its standardized logarithms of parameters and MACs, and d^2 the
squared distance of two networks' decisions (see `Encoding`), the standardized logit of accuracy has

    mean        score * z + shortcut * s
    covariance  choices * exp(-d^2 / (length * spread)) + constant
                + score_variance * z z' + shortcut_variance * s s' + cost_variance * c.c' + noise * [same]

That higher scores and shortcuts (He et al., arXiv 1512.03385) come with higher accuracy is believed beforehand, and
unlearned where it does not hold. Hyperparameters are fixed: a few dozen observations are too few to fit them. What
earlier searches found counts as further observations, of a task whose covariance with this one is `relation` times as
large. Formulas: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1; Bonilla, Chai,
Williams, "Multi-task Gaussian process prediction", 2007.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .forecast import squared_distances

__all__ = ["Belief", "Features", "Posterior", "Surrogate"]

Vector = npt.NDArray[np.float64]

_LEAST_SCALE = 0.15
"""The spread of logit accuracies that counts like one observation."""


@dataclass(frozen=True)
class Posterior:
    """What is believed of some candidates' accuracy, as a normal distribution of its logit; arrays of shape [n]."""

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
class Features:
    """What the surrogate sees of n networks: encoded decisions [n, columns], and figures, each of shape [n]."""

    rows: Vector
    merit: Vector
    shortcuts: Vector
    log_params: Vector
    log_macs: Vector

    def take(self, rows: Sequence[int]) -> Features:
        """Returns the features of some of the networks."""
        kept = list(rows)
        return Features(
            self.rows[kept], self.merit[kept], self.shortcuts[kept], self.log_params[kept], self.log_macs[kept]
        )


@dataclass(frozen=True)
class Surrogate:
    """A Gaussian process over candidates, in units of the observed spread of logit accuracy."""

    choices: float = 2.0
    constant: float = 4.0
    length: float = 1.7
    score: float = 0.5
    score_variance: float = 0.3
    shortcut: float = 0.7
    shortcut_variance: float = 0.5
    cost_variance: float = 0.3
    noise: float = 0.3
    relation: float = 0.9

    def mean(self, of: Features) -> Vector:
        """Returns what is believed before any training, in units of the spread."""
        return self.score * of.merit + self.shortcut * of.shortcuts

    def covariance(self, one: Features, other: Features, spread: float) -> Vector:
        """Returns the prior covariance, shape [one, other]."""
        found = self.choices * np.exp(-squared_distances(one.rows, other.rows) / max(self.length * spread, 1e-9))
        return found + self.constant + self._linear(one) @ self._linear(other).T

    def variance(self, of: Features) -> Vector:
        """Returns the prior variance, shape [n]."""
        variance: Vector = self.choices + self.constant + (self._linear(of) ** 2).sum(axis=1)
        return variance

    def _linear(self, of: Features) -> Vector:
        return np.stack(
            [
                math.sqrt(self.score_variance) * of.merit,
                math.sqrt(self.shortcut_variance) * of.shortcuts,
                math.sqrt(self.cost_variance) * of.log_params,
                math.sqrt(self.cost_variance) * of.log_macs,
            ],
            axis=1,
        )


class Belief:
    """A fitted surrogate; `suppose` conditions it on a training that is only planned."""

    def __init__(
        self,
        surrogate: Surrogate,
        everyone: Features,
        known: Sequence[int],
        accuracies: Sequence[float],
        *,
        validation_size: int,
        spread: float,
        before: tuple[Features, Vector] | None = None,
    ) -> None:
        """Fits what the networks at `known` tell of everyone, by their accuracies [percent].

        `validation_size` is the number of images that accuracies were measured on: it bounds how sure one training
        makes, and keeps the logit finite at 100%. `before` is what an earlier search knows: features, and logits in
        units of its own spread.
        """
        self.surrogate = surrogate
        logits = np.array([_logit(accuracy, validation_size) for accuracy in accuracies])
        self._centre = float(np.median(logits)) if len(logits) else math.log(9.0)
        squares = float(((logits - self._centre) ** 2).sum())
        self._scale = math.sqrt((squares + _LEAST_SCALE**2) / (len(logits) + 1)) if len(logits) else 1.0
        shares = 1.0 / (1.0 + np.exp(-logits))
        counting = 1.0 / (validation_size * shares * (1.0 - shares))
        self._everyone = everyone
        self._known = list(known)
        self._values = (logits - self._centre) / self._scale - surrogate.mean(everyone.take(self._known))
        self._noise = surrogate.noise + counting / self._scale**2
        self._across = surrogate.covariance(everyone, everyone.take(self._known), spread)
        self._prior = surrogate.variance(everyone)
        self._spread = spread
        self.relation = 0.0
        self.gain: float | None = None
        self._before: tuple[Vector, Vector, Vector] | None = None
        if before is not None and len(before[1]):
            self._relate(before)

    def _relate(self, before: tuple[Features, Vector]) -> None:
        """Takes an earlier search in, as closely related as makes what was seen here most probable."""
        features, values = before
        among = self.surrogate.covariance(features, features, self._spread)
        among[np.diag_indices(len(values))] += self.surrogate.noise
        across = self.surrogate.covariance(self._everyone, features, self._spread)
        residual = values - self.surrogate.mean(features)
        evidence = {}
        for relation in dict.fromkeys((self.surrogate.relation, self.surrogate.relation / 2, 0.0)):
            self._before = relation * across, among, residual
            evidence[relation] = self._evidence()
        self.relation = max(evidence, key=evidence.__getitem__)
        self.gain = evidence[self.relation] - evidence[0.0]
        self._before = (self.relation * across, among, residual) if self.relation else None

    def _joint(self) -> tuple[Vector, Vector, Vector]:
        """Returns the covariance among observations, theirs with everyone, and their values."""
        own = self._across[self._known] + np.diag(self._noise)
        if self._before is None:
            return own, self._across, self._values
        across, among, residual = self._before
        corner = across[self._known]
        return (
            np.block([[own, corner], [corner.T, among]]),
            np.hstack([self._across, across]),
            np.concatenate([self._values, residual]),
        )

    def _evidence(self) -> float:
        """Returns the logarithm of the density of what was seen here, given what was seen before, in nats."""
        from scipy.linalg import cho_factor, cho_solve

        assert self._before is not None
        across, among, residual = self._before
        corner = across[self._known]
        factor = cho_factor(among, lower=True)
        mean = corner @ cho_solve(factor, residual)
        left = self._across[self._known] + np.diag(self._noise) - corner @ cho_solve(factor, corner.T)
        own, lower = cho_factor(left, lower=True)
        off = self._values - mean
        return float(-0.5 * off @ cho_solve((own, lower), off) - np.log(np.diag(own)).sum())

    def posterior(self) -> Posterior:
        """Returns the belief about every candidate, without the noise of a single training."""
        from scipy.linalg import cho_factor, cho_solve

        prior = self.surrogate.mean(self._everyone)
        joint, across, values = self._joint()
        if not len(values):
            return Posterior(self._centre + self._scale * prior, self._scale * np.sqrt(self._prior))
        factor = cho_factor(joint, lower=True)
        mean = prior + across @ cho_solve(factor, values)
        variance = self._prior - np.einsum("ij,ji->i", across, cho_solve(factor, across.T))
        return Posterior(self._centre + self._scale * mean, self._scale * np.sqrt(np.maximum(variance, 1e-9)))

    def suppose(self, position: int) -> None:
        """Takes it that a candidate came out as expected: means stay, uncertainty near it shrinks."""
        expected = (self.posterior().mean[position] - self._centre) / self._scale
        own = self._everyone.take([position])
        self._known.append(position)
        self._values = np.append(self._values, expected - self.surrogate.mean(own))
        self._noise = np.append(self._noise, self._noise.mean() if len(self._noise) else self.surrogate.noise)
        self._across = np.hstack([self._across, self.surrogate.covariance(self._everyone, own, self._spread)])

    def standardized(self) -> Vector:
        """Returns the observed logits in units of their spread, as a later search takes them."""
        result: Vector = self._values[: len(self._known)] + self.surrogate.mean(self._everyone.take(self._known))
        return result


def _logit(accuracy: float, count: int) -> float:
    """Returns the logit of an accuracy [percent] measured on `count` images, half an image off both ends."""
    share = (accuracy / 100.0 * count + 0.5) / (count + 1.0)
    return math.log(share / (1.0 - share))
