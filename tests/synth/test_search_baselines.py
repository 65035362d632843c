import builtins
import itertools
import math

import numpy as np
import pytest

from gensynth.ir import UsageError
from gensynth.passes import parse_requirements, run_pipeline
from gensynth.passes.cost import Costs, Totals
from gensynth.synth.performance import parse_performance
from gensynth.synth.prototypes import prototype
from gensynth.synth.search import baselines, bayesian, tpe  # noqa: F401  they register
from gensynth.synth.search.problem import Problem, Session
from gensynth.synth.search.strategy import search, strategies

SCORED = [
    *("bananas", "direct-ei", "evolution-scored"),
    *("local-search-guided", "local-search-scored", "local-search-whole", "tpe-scored"),
]
BASELINES = [*SCORED, "evolution", "local-search", "random", "tpe"]
PROBES = 60


class Additive(Problem):
    """Every choice adds its own share to the accuracy; the scores tell much of it; params grow with the indices."""

    def __init__(self, graph, performance="accuracy", requirements=()):
        super().__init__(graph, parse_performance(performance), parse_requirements(requirements))
        random = np.random.default_rng(3)
        self.parts = [random.normal(size=size) for size in self.space.sizes]
        self.read = set()

    def quality(self, decisions):
        found = sum(part[index] for part, index in zip(self.parts, decisions, strict=True))
        return found / math.sqrt(len(self.parts))

    def exists(self, decisions):
        return True

    def costs(self, decisions):
        params = 100 * (1 + sum(decisions))
        return Costs(Totals(10 * params, params, 4 * params, 1, 1, 1))

    def scores(self, decisions):
        self.read.add(decisions)
        wobble = sum(index * (7 + place) for place, index in enumerate(decisions)) % 5 / 10.0
        return {
            "naswot": self.quality(decisions) + wobble,
            "log_synflow": 3.0 * self.quality(decisions),
            "jacobian": 0.0,
        }

    def accuracy(self, decisions):
        return 100.0 / (1.0 + math.exp(-self.quality(decisions)))

    def everything(self):
        return [decisions for decisions in itertools.product(*map(range, self.space.sizes)) if self.holds(decisions)]


@pytest.fixture(scope="module")
def cell():
    """The generator of NAS-Bench-201: 6 choices of 5."""
    return prototype("nas-bench-201", arch="open").graph


@pytest.fixture(scope="module")
def widths():
    """A generator of few networks."""
    network = prototype("resnet", depth=8, image=(1, 8, 8), classes=10)
    return run_pipeline(network, "open-width{ratios=[0.5,1.0]}").graph


def trained_by(problem, name, budget, **arguments):
    return search(problem, strategies()[name], budget, **{"probes": PROBES, **arguments})[1]


def test_all_baselines_are_registered():
    assert set(BASELINES) <= set(strategies())


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_trains_what_holds_once_each_and_probes_no_more_than_it_may(cell, name, batch):
    problem = Additive(cell, requirements=["params <= 1300"])
    done = trained_by(problem, name, 30, batch=batch, seed=1)
    assert len({one.decisions for one in done}) == 30
    assert all(problem.holds(one.decisions) for one in done)
    if name != "local-search-whole":
        assert len(problem.read) <= PROBES


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_trains_all_there_is_before_it_repeats(widths, name):
    problem = Additive(widths, requirements=["params <= 300"])
    everything = problem.everything()
    assert 5 < len(everything) < 60
    done = trained_by(problem, name, len(everything) + 3, batch=2)
    assert {one.decisions for one in done[: len(everything)]} == set(everything)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_repeats_itself_by_seed(cell, name):
    first, again, other = (trained_by(Additive(cell), name, 15, seed=seed) for seed in (5, 5, 6))
    assert first == again
    if name != "local-search-whole":
        assert first != other


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_works_without_probes(cell, name):
    assert len({one.decisions for one in trained_by(Additive(cell), name, 12, probes=0)}) == 12


@pytest.mark.parametrize("name", SCORED)
def test_a_scored_baseline_starts_from_the_best_score_it_has_seen(cell, name):
    problem = Additive(cell)
    session = Session(problem, seed=2, probes=PROBES)
    first = strategies()[name](session).ask(1)[0]
    seen = problem.everything() if name == "local-search-whole" else list(session.probed)
    ranks = baselines.score_ranks([problem.scores(decisions) for decisions in seen]).sum(axis=1)
    assert ranks[seen.index(first)] == ranks.max()


@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"random"}))
def test_a_baseline_ends_above_random_search(cell, name):
    best = {
        each: np.mean([max(one.value for one in trained_by(Additive(cell), each, 30, seed=seed)) for seed in range(4)])
        for each in (name, "random")
    }
    assert best[name] > best["random"]


@pytest.mark.parametrize("name", SCORED)
def test_a_scored_baseline_weighs_costs_where_the_performance_does(cell, name):
    problem = Additive(cell, "information_density")
    first = trained_by(problem, name, 1)[0]
    accurate = trained_by(Additive(cell), name, 1)[0]
    assert problem.costs(first.decisions).totals.params < problem.costs(accurate.decisions).totals.params


@pytest.mark.parametrize("name", ["direct-ei", "bananas"])
def test_a_model_goes_on_among_neighbours_when_no_probes_are_left(cell, name):
    problem = Additive(cell)
    done = trained_by(problem, name, 40, probes=20)
    beyond = [one.decisions for one in done if one.decisions not in problem.read]
    assert len(problem.read) == 20 and len(beyond) >= 15


def test_local_search_over_the_whole_space_reads_every_score_and_shares_them_by_problem(cell):
    problem = Additive(cell)
    assert trained_by(problem, "local-search-whole", 3, seed=0)
    assert len(problem.read) == problem.space.size
    problem.read.clear()
    assert trained_by(problem, "local-search-whole", 3, seed=1)
    assert not problem.read


def test_scores_that_are_relied_on_are_ranked_and_others_only_where_there_are_none():
    scores = [{"naswot": 3.0, "jacobian": 1.0}, {"naswot": math.nan, "jacobian": 2.0}, {"naswot": 5.0, "jacobian": 3.0}]
    assert baselines.score_ranks(scores).tolist() == [[2.0], [1.0], [3.0]]
    assert baselines.score_ranks([{"other": 1.0}, {"other": 1.0}, {"other": 0.0}]).tolist() == [[2.5], [2.5], [1.0]]
    assert baselines.score_ranks([{}, {}]).tolist() == [[0.0], [0.0]]


def test_squared_distances_of_kernel_features_count_the_choices_that_differ(cell):
    space = Additive(cell).space
    one, other = bayesian._kernel_features(space, [(0, 1, 2, 3, 4, 0), (0, 1, 2, 4, 3, 1)])
    assert ((one - other) ** 2).sum() == pytest.approx(3.0)


def test_without_optuna_the_extra_that_brings_it_is_named(cell, monkeypatch):
    original = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.partition(".")[0] == "optuna":
            raise ImportError(name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="optuna") as caught:
        strategies()["tpe"](Session(Additive(cell), seed=0, probes=0))
    assert "pip install 'gensynth[search]'" in caught.value.hint
