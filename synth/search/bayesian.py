"""Model-based search as a baseline: an ensemble of trees as in BANANAS, and a Gaussian process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .baselines import draw_untrained, most_promising, probe_random, ranks, score_ranks, shuffled_neighbours
from .problem import Session, Trained
from .space import Decisions, Space
from .strategy import register_strategy

__all__ = ["Bananas", "DirectExpectedImprovement"]

Vector = npt.NDArray[np.float64]

_ONE_ACCURACY = 90.0
"""If U differs between networks at one accuracy [percent], it depends on costs."""

_NODES = 5
"""The accuracies of a network that its expected improvement is averaged over."""


def one_hot(space: Space, decisions: Sequence[Decisions]) -> Vector:
    """Returns one column for each alternative of each choice, 1 where it is taken, shape [networks, alternatives]."""
    first = np.cumsum([0, *space.sizes[:-1]])
    found = np.zeros((len(decisions), sum(space.sizes)))
    found[np.arange(len(decisions))[:, None], np.asarray(decisions, int).reshape(-1, len(space.sizes)) + first] = 1.0
    return found


def _kernel_features(space: Space, decisions: Sequence[Decisions]) -> Vector:
    """Returns what networks are told apart by, shape [networks, features]: d^2 is the number of choices that differ."""
    found: Vector = one_hot(space, decisions) / np.sqrt(2.0)
    return found


def standard(values: Vector) -> Vector:
    """Returns values with their mean taken off, in units of their deviation."""
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 0.0 else np.zeros_like(values)


def normal_scores(values: npt.ArrayLike) -> Vector:
    """Returns what the ranks of values would be worth if they were normal."""
    from scipy.special import ndtri

    found: Vector = ndtri((ranks(values) - 0.5) / np.size(values))
    return found


def expected_improvement(mean: Vector, deviation: Vector, best: float) -> Vector:
    """Returns by how much normal beliefs are expected to exceed `best`."""
    from scipy.special import ndtr

    scaled = (mean - best) / deviation
    density = np.exp(-(scaled**2) / 2.0) / np.sqrt(2.0 * np.pi)
    found: Vector = deviation * (scaled * ndtr(scaled) + density)
    return found


class ModelBased(ABC):
    """Chooses what a model of accuracy expects the largest improvement of U from, among networks that are probed.

    `share` of the probes is spent on networks drawn at random, of which the `starts` most promising are trained first.
    Before every training after these, up to `width` neighbours of the `best` trained networks are probed. Once no
    probes are left, `beyond` neighbours are considered along with what is probed, with the scores of the network that
    they are neighbours of. Accuracies are modelled by their normal scores, so that outliers weigh little. In a batch,
    what was picked is taken to come out as expected.
    """

    share = 0.5
    width = 8
    beyond = 32
    best = 5
    starts = 1

    def __init__(self, session: Session) -> None:
        self.session = session
        self.first = most_promising(session, probe_random(session, round(self.share * session.limit)))
        self.leaders: list[Trained] = []
        self.stand_in: dict[Decisions, Decisions] = {}
        value = session.problem.value
        self.costs_matter = len({value(decisions, _ONE_ACCURACY) for decisions in self.first}) > 1

    @abstractmethod
    def believe(self, networks: Sequence[Decisions], known: Sequence[int], targets: Vector) -> tuple[Vector, Vector]:
        """Returns what networks' targets are believed to be, means and deviations, where some targets are known."""

    def ask(self, count: int) -> Sequence[Decisions]:
        asked: list[Decisions] = []
        while len(asked) < count and len(self.session.trained) + len(asked) < self.starts and self.first:
            decisions = self.first.pop(0)
            if decisions not in self.session.trained:
                asked.append(decisions)
        if self.leaders and len(asked) < count:
            asked += self._chosen(count - len(asked), asked)
        while len(asked) < count:
            asked.append(draw_untrained(self.session, asked))
        return asked

    def tell(self, trained: Sequence[Trained]) -> None:
        self.leaders = sorted([*self.leaders, *trained], key=lambda one: -one.value)[: self.best]

    def _chosen(self, count: int, asked: Sequence[Decisions]) -> list[Decisions]:
        fresh = self._neighbours(count)
        networks = list(dict.fromkeys([*self.session.probed, *self.session.trained, *fresh]))
        place = {decisions: position for position, decisions in enumerate(networks)}
        known = [place[decisions] for decisions in self.session.trained]
        scale = _Scale([one.accuracy for one in self.session.trained.values()])
        targets = scale.targets
        taken = {*known, *(position for position, decisions in enumerate(networks) if decisions in asked)}
        free = [position for position in range(len(networks)) if position not in taken]
        chosen: list[Decisions] = []
        while free and len(chosen) < count:
            mean, deviation = self.believe(networks, known, targets)
            among = [networks[position] for position in free]
            gains = self._gains(among, mean[free], deviation[free], float(mean[known].max()), scale)
            position = free.pop(int(np.argmax(gains)))
            chosen.append(networks[position])
            known = [*known, position]
            targets = np.append(targets, mean[position])
        return chosen

    def _neighbours(self, count: int) -> list[Decisions]:
        """Returns neighbours of the best trained networks, one of each in turn, probed as long as probes are left."""
        session = self.session
        left = min(count * self.width, session.probes_left)
        known = {*session.probed, *session.trained}
        fresh: dict[Decisions, None] = {}
        around = [(one.decisions, shuffled_neighbours(session, one.decisions)) for one in self.leaders]
        while around and len(fresh) < (left or self.beyond):
            centre, neighbours = around.pop(0)
            found = next((one for one in neighbours if one not in known and one not in fresh), None)
            if found is not None:
                fresh[found] = None
                self.stand_in[found] = self.stand_in.get(centre, centre)
                around.append((centre, neighbours))
        if left:
            session.probe(fresh)
        return list(fresh)

    def columns(self, networks: Sequence[Decisions]) -> Vector:
        """Returns the rank of each score of networks, from 0 to 1, shape [networks, scores]."""
        probed = self.session.probed
        ranked = (score_ranks(list(probed.values())) - 0.5) / max(1, len(probed))
        place = {decisions: position for position, decisions in enumerate(probed)}
        middle = len(probed)
        rows = [place.get(one, place.get(self.stand_in.get(one, one), middle)) for one in networks]
        found: Vector = np.vstack([ranked, np.full((1, ranked.shape[1]), 0.5)])[rows]
        return found

    def _gains(
        self, networks: Sequence[Decisions], mean: Vector, deviation: Vector, best: float, scale: _Scale
    ) -> Vector:
        """Returns the improvement of U that is expected of networks; of accuracy over the `best` mean if U is that."""
        if not self.costs_matter:
            return expected_improvement(mean, deviation, best)
        value = self.session.problem.value
        points, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        accuracies = scale.accuracy(mean[:, None] + deviation[:, None] * points).tolist()
        values = np.array(
            [[value(decisions, one) for one in row] for decisions, row in zip(networks, accuracies, strict=True)]
        )
        gains: Vector = np.maximum(values - self.leaders[0].value, 0.0) @ weights
        return gains if gains.any() else values @ weights


class _Scale:
    """The normal scores of accuracies, and back."""

    def __init__(self, accuracies: Sequence[float]) -> None:
        self.targets = normal_scores(accuracies)
        share = np.clip(np.asarray(accuracies) / 100.0, 0.0005, 0.9995)
        logits = np.log(share / (1.0 - share))
        order = np.argsort(logits)
        self._targets, self._logits = self.targets[order], logits[order]
        self._slope = max(float(logits.std()), 0.3) if len(logits) > 2 else 1.0

    def accuracy(self, targets: Vector) -> Vector:
        """Returns accuracies [percent]: between those known by interpolation, beyond them by their mean slope."""
        known = self._targets
        beyond = np.minimum(targets - known[0], 0.0) + np.maximum(targets - known[-1], 0.0)
        logits = np.interp(targets, known, self._logits) + self._slope * beyond
        found: Vector = 100.0 / (1.0 + np.exp(-logits))
        return found


@register_strategy("direct-ei")
class DirectExpectedImprovement(ModelBased):
    """A Gaussian process with training-free scores in its prior mean, and expected improvement over its best mean.

    With z the standardized sum of ranks of scores and d^2 what `_kernel_features` tell of two networks' difference:

        mean = 0.7 z        covariance = exp(-d^2 / (1.5 m)) + 4 + z z' + 0.3 [same]

    where m is the mean of d^2 between two networks of the pool. Algorithm 2.1 of Rasmussen and Williams, "Gaussian
    Processes for Machine Learning", 2006.
    """

    length = 1.5
    constant = 4.0
    scores = 1.0
    noise = 0.3
    slope = 0.7

    def believe(self, networks: Sequence[Decisions], known: Sequence[int], targets: Vector) -> tuple[Vector, Vector]:
        from scipy.linalg import solve_triangular

        at = list(known)
        features = _kernel_features(self.session.space, networks)
        z = standard(self.columns(networks).sum(axis=1))
        squares = (features**2).sum(axis=1)
        distances = squares[:, None] + squares[None, at] - 2.0 * features @ features[at].T
        count = len(networks)
        mean_distance = 2.0 * (squares.mean() - (features.mean(axis=0) ** 2).sum()) * count / max(1, count - 1)
        kernel = np.exp(-np.maximum(distances, 0.0) / max(1e-9, self.length * mean_distance))
        kernel += self.constant + self.scores * np.outer(z, z[at])
        root = np.linalg.cholesky(kernel[at] + self.noise * np.eye(len(at)))
        half = solve_triangular(root, kernel.T, lower=True)
        rest = solve_triangular(root, targets - self.slope * z[at], lower=True)
        variance = 1.0 + self.constant + self.scores * z**2 - (half**2).sum(axis=0)
        return self.slope * z + half.T @ rest, np.sqrt(np.maximum(variance, 1e-9))


@register_strategy("bananas")
class Bananas(ModelBased):
    """Expected improvement of an ensemble of trees over one-hot choices and ranks of training-free scores.

    In the manner of White et al., "BANANAS", arXiv 1910.11858: an ensemble as the model, and neighbours of the best as
    candidates. A random forest stands in the place of its neural networks, which want more observations, and expected
    improvement in the place of Thompson sampling, which did worse. A split looks at `features` columns at most.
    """

    starts = 3
    trees = 30
    features = 100

    def believe(self, networks: Sequence[Decisions], known: Sequence[int], targets: Vector) -> tuple[Vector, Vector]:
        from sklearn.ensemble import RandomForestRegressor

        columns = [one_hot(self.session.space, networks), self.columns(networks)]
        features = np.concatenate(columns, axis=1).astype(np.float32)
        seed = int(self.session.random.integers(2**31))
        split = min(1.0, self.features / features.shape[1])
        forest = RandomForestRegressor(self.trees, max_features=split, random_state=seed)
        forest.fit(features[list(known)], targets)
        found = np.stack([tree.tree_.predict(features)[:, 0] for tree in forest.estimators_])
        return found.mean(axis=0), found.std(axis=0) + 1e-3
