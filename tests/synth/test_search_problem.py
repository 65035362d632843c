import math

import numpy as np
import pytest

import gensynth
from gensynth.backends.torch.recipe import Recipe
from gensynth.ir import DataError, UsageError, parse
from gensynth.passes import parse_requirements
from gensynth.passes.cost import Costs, Totals
from gensynth.synth.evaluation import TaskReference
from gensynth.synth.executor import LocalExecutor
from gensynth.synth.performance import parse_performance
from gensynth.synth.prototypes import prototype
from gensynth.synth.search import baselines, inquisitive  # noqa: F401  they register
from gensynth.synth.search.probing import Prober
from gensynth.synth.search.problem import Problem, Session
from gensynth.synth.search.space import Space
from gensynth.synth.search.strategy import register_strategy, search, strategies, strategy
from gensynth.synth.search.training import TrainingProblem
from gensynth.synth.store import Store
from gensynth.synth.tasks import task

PROGRAM = """gensynth 1

network @open(%image: f32[N, 1, 8, 8]) -> f32[N, 10] {
  %conv1  = conv2d(%image) {channels=choice<width>[2, 4, 6, 8], kernel=choice<kernel>[1, 3, 5], padding=same}
  %act1   = relu(%conv1)
  %conv2  = conv2d(%act1) {channels=choice<wide>[4, 6, 8, 10], kernel=3, padding=same}
  %pool   = global_avg_pool(%conv2)
  %logits = dense(%pool) {features=10}
  return %logits
}
"""


class Sums(Problem):
    """Accuracy and params are weighted sums of the indices; decisions in `absent` do not exist."""

    def __init__(self, *requirements, performance="accuracy", absent=()):
        super().__init__(parse(PROGRAM), parse_performance(performance), parse_requirements(requirements))
        self.absent = set(absent)
        self.probed, self.batches = [], []

    def exists(self, decisions):
        return decisions not in self.absent

    def costs(self, decisions):
        params = 100 * sum(decisions)
        return Costs(Totals(params, params, 4 * params, 1, 1, 1))

    def scores(self, decisions):
        self.probed.append(decisions)
        return {"naswot": float(sum(decisions))}

    def accuracy(self, decisions):
        return 50.0 + 3.0 * decisions[0] + 2.0 * decisions[1] + decisions[2]

    def train(self, asked):
        self.batches.append(list(asked))
        return super().train(asked)


# Spaces.


def test_a_space_tells_sizes_neighbours_and_names():
    space = Space.of(parse(PROGRAM))
    assert space.choices == ("width", "kernel", "wide") and space.sizes == (4, 3, 4) and space.size == 48
    near = list(space.neighbours((0, 1, 2)))
    assert len(set(near)) == 8
    assert all(sum(a != b for a, b in zip(found, (0, 1, 2), strict=True)) == 1 for found in near)
    assert space.names((3, 1, 0)) == {"width": "8", "kernel": "3", "wide": "4"}
    assert space.mapping((3, 1, 0)) == {"width": 3, "kernel": 1, "wide": 0}


def test_draws_from_a_space_are_uniform_and_follow_the_seed():
    space = Space.of(parse(PROGRAM))
    drawn = [[space.draw(random) for _ in range(480)] for random in map(np.random.default_rng, (0, 0, 1))]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(90 < sum(one[0] == index for one in drawn[0]) < 150 for index in range(4))


NESTED = """gensynth 1

network @nested(%image: f32[N, 1, 8, 8]) -> f32[N, 10] {
  %body = choose<way>(%image) {
    plain[0.00](%x) {
      %y = conv2d(%x) {channels=4, kernel=choice<kernel>[1, 3], padding=same}
      yield %y
    }
    either[0.00](%x) {
      %z = choose<which>(%x) {
        narrow[0.00](%u) {
          %v = conv2d(%u) {channels=4, kernel=choice<deep>[1, 3, 5], padding=same}
          yield %v
        }
        same[0.00](%u) {
          %v = conv2d(%u) {channels=4, kernel=choice<kernel>[1, 3], padding=same}
          yield %v
        }
      }
      yield %z
    }
  }
  %pool   = global_avg_pool(%body)
  %logits = dense(%pool) {features=10}
  return %logits
}
"""


def test_choices_inside_alternatives_that_are_not_taken_do_not_matter():
    graph = parse(NESTED)
    assert {name: info.inside for name, info in graph.choices.items()} == {
        "way": (),
        "kernel": (("way", "plain"), ("which", "same")),
        "which": (("way", "either"),),
        "deep": (("which", "narrow"),),
    }
    space = Space.of(graph)
    assert space.choices == ("way", "kernel", "which", "deep")
    assert space.normal((0, 1, 1, 2)) == (0, 1, 0, 0)
    assert space.normal((1, 1, 0, 2)) == (1, 0, 0, 2)
    assert space.normal((1, 1, 1, 2)) == (1, 1, 1, 0)
    assert space.reached((0, 1, 0, 0)) == {"way": "plain", "kernel": "3", "which": "", "deep": ""}
    assert set(space.neighbours((0, 1, 0, 0))) == {(1, 0, 0, 0), (0, 0, 0, 0)}


def test_draws_are_normal_and_networks_are_told_apart_by_what_computes():
    graph = parse(NESTED)
    space, prober = Space.of(graph), Prober(graph, None)
    random = np.random.default_rng(0)
    drawn = {space.draw(random) for _ in range(300)}
    assert len(drawn) == 2 + 3 + 2
    # `plain` and `same` have two kernels, which are among the three of `narrow`.
    assert len({prober.network(decisions) for decisions in drawn}) == 3


def test_a_network_without_choices_is_no_space():
    with pytest.raises(UsageError, match="there is nothing to search") as caught:
        Space.of(prototype("resnet", depth=8, image=(1, 8, 8), classes=10).graph)
    assert "open" in caught.value.hint


# Problems.


def test_neighbours_and_draws_are_networks_that_hold():
    problem = Sums("params <= 300", absent=[(0, 0, 0)])
    random = np.random.default_rng(0)
    drawn = {problem.draw(random) for _ in range(200)}
    assert drawn == {found for found in np.ndindex(4, 3, 4) if 0 < sum(found) <= 3}
    assert set(problem.neighbours((1, 0, 0))) == {
        found for found in problem.space.neighbours((1, 0, 0)) if found in drawn
    }


def test_requirements_that_no_network_meets_are_told():
    with pytest.raises(UsageError, match="none of 10,000 networks drawn meets params >= 5000"):
        Sums("params >= 5000").draw(np.random.default_rng(0))


def test_a_repair_ends_where_requirements_hold_and_gives_up_little():
    problem = Sums("params <= 400")
    flat = [[0.0] * size for size in problem.space.sizes]
    assert problem.repair((1, 1, 1), flat) == (1, 1, 1)
    for start in np.ndindex(4, 3, 4):
        found = problem.repair(start, flat)
        assert problem.holds(found)
        assert found == start or sum(start) > 4
    # The last choice alone costs nothing to move.
    scores = [[index * 9.0 for index in range(size)] for size in problem.space.sizes[:2]] + [[0.0] * 4]
    assert problem.repair((2, 2, 3), scores) == (2, 2, 0)


def test_a_repair_walks_out_of_what_does_not_exist():
    problem = Sums("params <= 400", absent=[(2, 2, 2)])
    found = problem.repair((2, 2, 2), [[0.0] * size for size in problem.space.sizes])
    assert found is not None and problem.holds(found)


def test_a_repair_out_of_what_does_not_exist_gives_up_little():
    problem = Sums(absent=[(2, 2, 2)])
    scores = [[0.0, 1.0, 20.0, 0.0], [0.0, 0.0, 20.0], [0.0, 19.0, 20.0, 0.0]]
    assert problem.repair((2, 2, 2), scores) == (2, 2, 1)


def test_a_repair_that_no_step_helps_is_none():
    problem = Sums("params >= 5000")
    assert problem.repair((0, 0, 0), [[0.0] * size for size in problem.space.sizes]) is None


# Sessions.


def test_a_network_probed_twice_counts_once():
    problem = Sums()
    session = Session(problem, seed=0, probes=3)
    found = session.probe([(0, 0, 0), (1, 0, 0), (0, 0, 0)])
    assert [scores["naswot"] for scores in found] == [0.0, 1.0, 0.0]
    session.probe([(1, 0, 0)])
    assert session.probes_left == 1 and problem.probed == [(0, 0, 0), (1, 0, 0)]


def test_more_probes_than_may_be_are_refused_and_none_is_done():
    problem = Sums()
    session = Session(problem, seed=0, probes=3)
    session.probe([(0, 0, 0), (1, 0, 0)])
    with pytest.raises(UsageError, match="2 more networks to probe, and 1 of 3 probes are left") as caught:
        session.probe([(2, 0, 0), (3, 0, 0), (0, 0, 0)])
    assert "probes_left" in caught.value.hint and len(problem.probed) == 2
    session.probe([(2, 0, 0), (0, 0, 0)])
    assert session.probes_left == 0


def test_a_training_that_misses_a_requirement_is_refused_before_any_is_done():
    problem = Sums("params <= 300")
    with pytest.raises(UsageError, match="misses a requirement: .*'width': '8'"):
        Session(problem, seed=0, probes=0).train([(0, 0, 0), (3, 2, 3)])
    assert not problem.batches


def test_a_network_is_trained_once_a_session_and_valued_by_the_performance():
    problem = Sums(performance="information_density")
    session = Session(problem, seed=0, probes=0)
    found = session.train([(1, 0, 0), (0, 1, 0), (1, 0, 0)])
    assert [one.accuracy for one in found] == [53.0, 52.0, 53.0]
    assert found[0].value == pytest.approx(53.0 / 1e-4)
    session.train([(0, 1, 0), (0, 0, 1)])
    assert problem.batches == [[(1, 0, 0), (0, 1, 0)], [(0, 0, 1)]]


def test_new_draws_are_neither_trained_nor_avoided_as_long_as_there_are_others():
    problem = Sums("params <= 100")
    session = Session(problem, seed=0, probes=0)
    session.train([(0, 0, 0), (1, 0, 0)])
    assert {session.draw_new() for _ in range(30)} == {(0, 1, 0), (0, 0, 1)}
    assert {session.draw_new(lambda decisions: decisions[1] == 1) for _ in range(30)} == {(0, 0, 1)}
    session.train([(0, 1, 0), (0, 0, 1)])
    assert problem.holds(session.draw_new())


# Strategies.


class First:
    """Asks for the same networks in their order, as many as are wanted."""

    def __init__(self, session):
        self.session, self.next, self.told = session, 0, []

    def ask(self, count):
        found = list(np.ndindex(*self.session.space.sizes))[self.next : self.next + count]
        self.next += count
        return found

    def tell(self, trained):
        self.told.append([one.decisions for one in trained])


class Mute(First):
    def ask(self, count):
        return []


class Greedy(First):
    def ask(self, count):
        return list(np.ndindex(*self.session.space.sizes))


def test_a_strategy_is_found_by_its_name():
    assert strategy("inquisitor") is inquisitive.InquisitiveSearch
    assert strategy("random") is strategies()["random"]


def test_a_strategy_of_ones_own_is_found_by_module_and_name(tmp_path, monkeypatch):
    (tmp_path / "own_search_strategy.py").write_text("class Mine:\n    pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert strategy("own_search_strategy:Mine").__name__ == "Mine"
    with pytest.raises(UsageError, match="cannot import the strategy own_search_strategy:Yours"):
        strategy("own_search_strategy:Yours")
    with pytest.raises(UsageError, match="cannot import the strategy no_such_module:Mine") as caught:
        strategy("no_such_module:Mine")
    assert "package.module:name" in caught.value.hint


def test_a_module_that_is_no_name_is_told():
    with pytest.raises(UsageError, match="cannot import the strategy :Mine"):
        strategy(":Mine")


def test_an_unknown_strategy_is_told_with_the_nearest():
    with pytest.raises(UsageError, match="unknown strategy 'inquisitr'") as caught:
        strategy("inquisitr")
    assert caught.value.hint == "did you mean 'inquisitor'?"


def test_a_registered_strategy_is_listed(monkeypatch):
    monkeypatch.setattr("gensynth.synth.search.strategy._registry", {})
    assert register_strategy("first")(First) is First
    assert strategy("first") is First


@pytest.mark.parametrize(("batch", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (10, [7])])
def test_a_search_trains_the_budget_in_batches_and_tells_what_it_gave(batch, sizes):
    problem = Sums()
    chosen, done = search(problem, First, 7, batch=batch)
    assert [len(part) for part in chosen.told] == [len(part) for part in problem.batches] == sizes
    assert [one.decisions for one in done] == list(np.ndindex(4, 3, 4))[:7]


def test_a_strategy_that_asks_for_more_is_cut_to_the_budget():
    assert len(search(Sums(), Greedy, 5)[1]) == 5


def test_a_strategy_that_asks_for_nothing_is_refused():
    with pytest.raises(UsageError, match="Mute asked for no network"):
        search(Sums(), Mute, 3)


# Probes.


@pytest.fixture(scope="module")
def cell():
    return gensynth.prototype("nas-bench-201", arch="open", channels=4, cells=1).graph


def test_networks_that_compute_the_same_are_probed_once(cell):
    prober = Prober(cell, task("photographs"), stimuli=4)
    skip, conv = map(cell.choices["edge0_3"].labels.index, ("skip_connect", "nor_conv_3x3"))
    found = prober.scores((0, 0, 0, conv, 0, 0))
    assert found["naswot"] > 0.0
    # An edge into a node that nothing goes on from, and one out of a node that nothing reaches.
    assert prober.scores((conv, 0, 0, conv, 0, 0)) == found == prober.scores((0, 0, 0, conv, 0, skip))
    assert prober.computed == 1
    assert prober.scores((conv, 0, 0, conv, conv, 0)) != found
    assert prober.computed == 2


def test_a_prober_without_a_task_counts_costs_and_tells_no_scores(cell):
    prober = Prober(cell, None)
    assert prober.scores((3,) * 6) == {} and prober.computed == 0
    most, least = (prober.costs((index,) * 6, (), None).totals.macs for index in (3, 1))
    assert most > least > 0


def test_a_cache_gives_another_prober_the_same_scores_under_the_same_stimuli_and_seed(tmp_path):
    on, path, decisions = task("digits"), tmp_path / "new" / "probes.sqlite", (1, 1, 1)
    first = Prober(parse(PROGRAM), on, stimuli=8, cache=path)
    found = first.scores(decisions)
    again = Prober(parse(PROGRAM), on, stimuli=8, cache=path)
    assert again.scores(decisions) == found and (first.computed, again.computed) == (1, 0)
    for changed in ({"stimuli": 9}, {"stimuli": 8, "seed": 1}):
        other = Prober(parse(PROGRAM), on, cache=path, **changed)
        assert other.scores(decisions) != found and other.computed == 1


def test_a_file_that_is_no_store_of_probes_is_refused(tmp_path):
    path = tmp_path / "probes.sqlite"
    path.write_text("These are no probes. " * 100, encoding="utf-8")
    with pytest.raises(DataError, match="is no store of probes") as caught:
        Prober(parse(PROGRAM), task("digits"), cache=path)
    assert "name another" in caught.value.hint


# Trainings.


def test_networks_are_trained_by_a_recipe_and_remembered_by_the_store(tmp_path):
    network = prototype("resnet", depth=8, image=(1, 8, 8), classes=10)
    graph = gensynth.run_pipeline(network, "open-width{ratios=[0.25,0.5]}").graph
    store = Store(tmp_path / "store.sqlite")

    def problem():
        return TrainingProblem(
            graph,
            TaskReference("digits"),
            Recipe(epochs=1),
            parse_performance("netscore"),
            requirements=parse_requirements(["macs <= 100M", "accuracy >= 90%"]),
            executor=LocalExecutor(0),
            store=store,
            stimuli=8,
            probes=tmp_path / "probes.sqlite",
        )

    first = problem()
    assert first.validation_size == len(task("digits").split("validation"))
    assert [requirement.metric for requirement in first.requirements] == ["macs"]
    small, large = (0,) * len(first.space.sizes), (1,) * len(first.space.sizes)
    found = first.train([small, large, small])
    assert found[0] == found[2] and all(10.0 < accuracy <= 100.0 for accuracy in found[:2])
    assert store.count("search") == 2
    again = problem()
    assert again.accuracy(small) == found[0] and again.train([large]) == [found[1]]
    assert store.count("search") == 2
    assert again.holds(small) and again.costs(small).totals.macs < again.costs(large).totals.macs
    assert again.scores(small)["naswot"] > 0.0
    assert math.isfinite(again.value(small, found[0]))
    store.close()
