"""The tree-structured Parzen estimator of Optuna, as a baseline."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gensynth.ir import UsageError

from .baselines import draw_untrained, most_promising, probe_random
from .problem import Session, Trained
from .space import Decisions
from .strategy import register_strategy

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

__all__ = ["Tpe", "TpeScored"]


@register_strategy("tpe")
class Tpe:
    """Optuna's multivariate TPE sampler over one categorical parameter a choice.

    Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011; Falkner et al., "BOHB", arXiv
    1807.01774, for the multivariate form. The sampler's own settings, but for 5 random trials at the start instead of
    10. A suggestion that misses a requirement is pruned, which counts as bad; one that was trained before fails, which
    does not count. After `tries` of these in a row a network is drawn at random.
    """

    startup = 5
    tries = 10

    def __init__(self, session: Session) -> None:
        try:
            import optuna
        except ImportError:
            raise UsageError(
                "the strategy needs the package optuna, which is not installed", hint="pip install 'gensynth[search]'"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.session = session
        self._pruned = optuna.trial.TrialState.PRUNED
        self._failed = optuna.trial.TrialState.FAIL
        self._create_trial = optuna.trial.create_trial
        self.distributions: dict[str, optuna.distributions.BaseDistribution] = {
            choice: optuna.distributions.CategoricalDistribution(tuple(range(size)))
            for choice, size in zip(session.space.choices, session.space.sizes, strict=True)
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=self.startup,
                multivariate=True,
                constant_liar=False,
                seed=session.seed,
            )
        self.study: Study = optuna.create_study(sampler=sampler, direction="maximize")
        self.trials: dict[Decisions, Trial] = {}

    def ask(self, count: int) -> Sequence[Decisions]:
        asked: list[Decisions] = []
        for _ in range(count):
            asked.append(self._suggest(asked))
        return asked

    def tell(self, trained: Sequence[Trained]) -> None:
        for one in trained:
            trial = self.trials.pop(one.decisions, None)
            if trial is not None:
                self.study.tell(trial, one.value)
            else:
                params = self.session.space.mapping(one.decisions)
                self.study.add_trial(
                    self._create_trial(params=params, distributions=self.distributions, value=one.value)
                )

    def _suggest(self, asked: Sequence[Decisions]) -> Decisions:
        for _ in range(self.tries):
            trial = self.study.ask(self.distributions)
            space = self.session.space
            decisions = space.normal(tuple(trial.params[choice] for choice in space.choices))
            if decisions in asked or decisions in self.session.trained:
                self.study.tell(trial, state=self._failed)
            elif not self.session.problem.holds(decisions):
                self.study.tell(trial, state=self._pruned)
            else:
                self.trials[decisions] = trial
                return decisions
        return draw_untrained(self.session, asked)


@register_strategy("tpe-scored")
class TpeScored(Tpe):
    """TPE whose first trials are the most promising of randomly drawn networks by their scores."""

    first = 5

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        for decisions in most_promising(session, probe_random(session, session.limit))[: self.first]:
            self.study.enqueue_trial(session.space.mapping(decisions))
