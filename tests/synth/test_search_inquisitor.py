import math

import numpy as np
import pytest

from gensynth.ir import parse
from gensynth.passes import parse_requirements
from gensynth.passes.cost import Costs, Totals
from gensynth.synth.inquisitor import Experience
from gensynth.synth.performance import parse_performance
from gensynth.synth.prototypes import prototype
from gensynth.synth.search import baselines  # noqa: F401  it registers
from gensynth.synth.search.inquisitive import InquisitiveSearch, inquisitor_strategy
from gensynth.synth.search.problem import Problem, Session
from gensynth.synth.search.strategy import search, strategy

FEW = """gensynth 1

network @open(%image: f32[N, 1, 8, 8]) -> f32[N, 10] {
  %conv   = conv2d(%image) {channels=choice<width>[2, 4, 6], kernel=choice<kernel>[1, 3], padding=same}
  %pool   = global_avg_pool(%conv)
  %logits = dense(%pool) {features=10}
  return %logits
}
"""


MANY = """gensynth 1

network @open(%image: f32[N, 1, 8, 8]) -> f32[N, 10] {
  %conv1  = conv2d(%image) {channels=choice<width>[2, 3, 4, 6, 8], kernel=choice<kernel>[1, 3, 5], padding=same}
  %act1   = relu(%conv1)
  %conv2  = conv2d(%act1) {channels=choice<wide>[4, 6, 8, 12, 16], kernel=choice<second>[1, 3, 5], padding=same}
  %pool   = global_avg_pool(%conv2)
  %logits = dense(%pool) {features=10}
  return %logits
}
"""


class Hidden(Problem):
    """Every choice adds its own share to the logit of accuracy; scores tell half of it, params grow with indices."""

    def __init__(self, graph, *requirements, performance="accuracy", seed=0, told=1.0):
        super().__init__(graph, parse_performance(performance), parse_requirements(requirements))
        random = np.random.default_rng(seed)
        self.shares = [random.normal(size=size) for size in self.space.sizes]
        self.noise = [random.normal(size=size) for size in self.space.sizes]
        self.told = told
        self.probed = []

    def quality(self, decisions, shares):
        return sum(float(share[index]) for share, index in zip(shares, decisions, strict=True))

    def exists(self, decisions):
        return True

    def costs(self, decisions):
        params = 100 * (1 + sum(decisions))
        return Costs(Totals(10 * params, params, 4 * params, 1, 1, 1))

    def known_costs(self, decisions):
        return self.costs(decisions)

    def scores(self, decisions):
        self.probed.append(decisions)
        score = self.told * self.quality(decisions, self.shares) + self.quality(decisions, self.noise)
        return {"naswot": score, "log_synflow": 2.0 * score, "rank": score - 1.0}

    def accuracy(self, decisions):
        return 100.0 / (1.0 + math.exp(-1.0 - 0.5 * self.quality(decisions, self.shares)))

    @property
    def best(self):
        return self.accuracy(tuple(int(share.argmax()) for share in self.shares))


@pytest.fixture(scope="module")
def cell():
    """The generator of NAS-Bench-201: 6 choices of 5."""
    return prototype("nas-bench-201", arch="open", channels=4, cells=1).graph


def run(problem, budget, factory=InquisitiveSearch, **arguments):
    return search(problem, factory, budget, **{"probes": 150, **arguments})


def trainings_to_the_best(factory, seed):
    """How many networks of the 225 are trained until the best one is."""
    problem = Hidden(parse(MANY), seed=seed)
    values = [one.value for one in run(problem, 60 if factory is InquisitiveSearch else 400, factory, seed=seed)[1]]
    return values.index(problem.best) if problem.best in values else len(values)


def best_of(problem, factory, seed):
    return max(one.value for one in run(problem, 20, factory, seed=seed, probes=300)[1])


def test_the_inquisitor_finds_the_optimum_in_fewer_trainings_than_random_search():
    ours = [trainings_to_the_best(InquisitiveSearch, seed) for seed in range(3)]
    random = [trainings_to_the_best(strategy("random"), seed) for seed in range(10)]
    assert max(ours) < 60 and 1.5 * np.mean(ours) < np.mean(random)


def test_the_inquisitor_ends_above_random_search_also_where_scores_tell_nothing(cell):
    ours, random = (
        np.mean([best_of(Hidden(cell, seed=seed, told=0.0), factory, seed) for seed in range(3)])
        for factory in (InquisitiveSearch, strategy("random"))
    )
    assert ours > random


def test_networks_that_were_not_probed_are_trained_as_well_when_no_probes_are_left(cell):
    problem = Hidden(cell, told=0.0)
    done = run(problem, 25, probes=40)[1]
    assert any(one.decisions not in problem.probed for one in done)


def test_a_search_repeats_itself_by_seed(cell):
    first, again, other = (run(Hidden(cell), 6, seed=seed)[1] for seed in (5, 5, 6))
    assert first == again != other


@pytest.mark.parametrize("batch", [1, 4])
def test_all_that_is_trained_holds_and_is_new_and_probes_are_no_more_than_may_be(cell, batch):
    problem = Hidden(cell, "params <= 1100")
    _, done = run(problem, 12, batch=batch, probes=60)
    assert len({one.decisions for one in done}) == 12
    assert all(problem.holds(one.decisions) for one in done)
    assert len(problem.probed) == len(set(problem.probed)) <= 60
    assert all(problem.holds(decisions) for decisions in problem.probed)


def test_probes_come_before_the_first_training_and_some_are_kept_for_later(cell):
    problem = Hidden(cell)
    chosen = InquisitiveSearch(Session(problem, seed=0, probes=80))
    asked = chosen.ask(1)
    before = len(problem.probed)
    assert 20 <= before <= 80 - 80 // 4 + 12
    assert asked[0] in problem.probed
    chosen.tell(chosen.session.train(asked))
    chosen.ask(1)
    assert before < len(problem.probed) <= 80


@pytest.mark.parametrize(("budget", "above"), [(1, 0.3), (6, 1.0)])
def test_a_family_is_of_different_networks_that_hold_best_first(cell, budget, above):
    problem = Hidden(cell, "params <= 1400")
    chosen, _ = run(problem, budget)
    family = chosen.family(16, draw=256)
    assert len(set(family)) == 16 and all(problem.holds(decisions) for decisions in family)
    drawn = [problem.accuracy(problem.draw(np.random.default_rng(seed))) for seed in range(100)]
    values = [problem.accuracy(decisions) for decisions in family]
    assert np.mean(values) > np.mean(drawn) + above * np.std(drawn)
    assert chosen.family(4, draw=256) != family


def test_a_family_is_of_networks_that_compute_different_things_and_leaves_the_generator_as_it_is(cell):
    class Alike(Hidden):
        def network(self, decisions):
            return decisions[1:]

    chosen, _ = run(Alike(cell), 10)
    before = chosen.generator.graph
    family = chosen.family(20, draw=64)
    assert len({decisions[1:] for decisions in family}) == 20
    assert chosen.generator.graph is before


def test_a_family_is_no_larger_than_there_are_networks():
    problem = Hidden(parse(FEW))
    chosen, _ = run(problem, 2)
    assert len(set(chosen.family(64, draw=32))) == 6


def test_the_generator_moves_towards_what_was_learned(cell):
    problem = Hidden(cell)
    chosen, _ = run(problem, 10)
    before, after = chosen.session.problem.graph.choices, chosen.generator.graph.choices
    assert before.keys() == after.keys()
    assert all(before[choice].labels == after[choice].labels for choice in before)
    assert any(before[choice].logits != after[choice].logits for choice in before)
    expected = [
        sum(
            float(share @ choices[choice].probabilities)
            for choice, share in zip(problem.space.choices, problem.shares, strict=True)
        )
        for choices in (before, after)
    ]
    assert expected[1] > expected[0]


@pytest.mark.parametrize(
    "switches",
    [
        {"probes": False},
        {"learn": False},
        {"shortcuts": False},
        {"repair": False},
        {"carry": False},
        {"trust": math.inf},
    ],
    ids=lambda switches: next(iter(switches)),
)
def test_parts_can_be_switched_off(cell, switches):
    problem = Hidden(cell, "params <= 1400")
    prior = Experience(())
    chosen, done = run(problem, 6, inquisitor_strategy(**switches), prior=prior)
    assert len({one.decisions for one in done}) == 6
    assert all(problem.holds(one.decisions) for one in done)
    assert bool(problem.probed) == (switches != {"probes": False})
    assert (chosen.inquisitor.experience is None) == (switches == {"carry": False})


def test_a_switch_that_is_none_is_told(cell):
    with pytest.raises(TypeError, match="prbes"):
        run(Hidden(cell), 1, inquisitor_strategy(prbes=False))


def test_what_was_learned_makes_the_first_trainings_of_the_next_search_better(cell):
    # The scores tell nothing here, so that trainings alone do.
    gains, firsts = [], []
    for seed in range(2):
        problem = Hidden(cell, seed=seed, told=0.0)
        experience = run(problem, 20, seed=seed)[0].inquisitor.learned()
        assert len(experience.observations) == 20
        plain, carried = (run(problem, 3, seed=seed + 50, prior=prior) for prior in (None, experience))
        firsts.append([np.mean([one.value for one in done]) for _, done in (plain, carried)])
        gains.append(carried[0].inquisitor.carried()["relation"])
        assert plain[0].inquisitor.carried() is None
    assert all(carried > plain for plain, carried in firsts)
    assert all(gain > 0.0 for gain in gains)


def test_a_search_without_probes_left_goes_on_by_trainings(cell):
    problem = Hidden(cell)
    assert len({one.decisions for one in run(problem, 7, probes=0)[1]}) == 7
    assert not problem.probed


def test_a_performance_that_weighs_costs_is_searched_for(cell):
    problem = Hidden(cell, performance="information_density", told=0.0)
    _, done = run(problem, 2)
    assert problem.value(done[0].decisions, done[0].accuracy) == max(
        problem.value(decisions, problem.accuracy(decisions)) for decisions in problem.probed
    )


def test_a_search_that_does_not_learn_has_nothing_to_tell_another(cell):
    chosen, _ = run(Hidden(cell), 3, inquisitor_strategy(learn=False))
    assert chosen.inquisitor.learned().observations == ()


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("probes", [0, 40])
def test_all_there_is_is_trained_before_anything_is_repeated(batch, probes):
    problem = Hidden(parse(FEW))
    _, done = run(problem, 8, probes=probes, batch=batch)
    assert len({one.decisions for one in done[:6]}) == 6
    assert len(done) == 8
