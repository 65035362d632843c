import math

import numpy as np
import pytest

from gensynth.ir import DataError, UsageError, architecture_hash
from gensynth.passes import Materializer, parse_requirements, run_pipeline
from gensynth.passes.cost import Meter, cost_model
from gensynth.synth.inquisitor import UNREACHED, Candidate, Experience, Inquisitor, InquisitorSettings
from gensynth.synth.performance import netscore, parse_performance
from gensynth.synth.prototypes import prototype


@pytest.fixture(scope="module")
def generator():
    network = prototype("resnet", depth=8, image=(1, 8, 8), classes=10)
    return run_pipeline(network, "offer{rewrite=separate-conv},open-width{ratios=[0.25,0.5,1.0]}").graph


def draw(graph, seeds, devices=()):
    """Candidates of a generator, with labels as a synthesis would give them."""
    materializer = Materializer(graph)
    measure = Meter(devices)
    found = {}
    for seed in seeds:
        decided = materializer.materialize(seed)
        labels = {
            identifier: info.labels[decided.reached[identifier]] if identifier in decided.reached else UNREACHED
            for identifier, info in graph.choices.items()
        }
        name = architecture_hash(decided.graph)
        found.setdefault(name, Candidate(seed, name, decided.graph, labels, measure(decided.graph)))
    return list(found.values())


def truth(candidate):
    """An accuracy that grows with the logarithm of the parameters, in percent."""
    return 100.0 / (1.0 + math.exp(-(math.log(candidate.totals.params) - 6.0)))


def inquisitor(requirements=(), **settings):
    return Inquisitor(
        netscore, parse_requirements(requirements), validation_size=500, settings=InquisitorSettings(**settings)
    )


def test_the_surrogate_predicts_held_out_accuracy_and_is_surer_near_what_it_saw(generator):
    candidates = draw(generator, range(60))
    asked = inquisitor()
    asked.look_at(generator)
    asked.observe([item.trained(truth(item)) for item in candidates[:40]])
    posterior = asked.judge(candidates).posterior
    predicted = posterior.accuracy()[40:]
    actual = np.array([truth(item) for item in candidates[40:]])
    assert np.corrcoef(predicted, actual)[0, 1] > 0.8
    assert posterior.deviation[:40].mean() < posterior.deviation[40:].mean()


def test_supposing_a_training_keeps_means_and_shrinks_uncertainty(generator):
    candidates = draw(generator, range(20))
    asked = inquisitor()
    asked.observe([candidates[0].trained(90.0), candidates[1].trained(95.0)])
    before = asked.judge(candidates).posterior
    after = asked.judge(candidates, suppose=[candidates[5].hash]).posterior
    assert np.allclose(before.mean, after.mean, atol=1e-6)
    assert after.deviation[5] < before.deviation[5]


def test_networks_with_higher_scores_are_believed_better_before_any_training(generator):
    candidates = draw(generator, range(30))
    asked = inquisitor()
    asked.look_at(generator)
    probed = [item.probed({"naswot": float(index), "rank": float(index)}) for index, item in enumerate(candidates)]
    asked.observe(probed)
    mean = asked.judge(probed).posterior.mean
    assert np.corrcoef(mean, np.arange(len(mean)))[0, 1] > 0.9
    unprobed = inquisitor(probes=False)
    unprobed.look_at(generator)
    unprobed.observe(probed)
    assert np.ptp(unprobed.judge(probed).posterior.mean) < 1e-9


def test_scores_and_costs_of_networks_that_were_not_built_are_forecast_from_those_that_were(generator):
    candidates = draw(generator, range(90))
    scored = [item.probed({"naswot": math.log(item.totals.params)}) for item in candidates]
    asked = inquisitor()
    asked.look_at(generator)
    asked.observe(scored[:60])
    ideas = [Candidate(0, "", None, item.labels, None) for item in scored[60:]]
    assessment = asked.assess(ideas)
    actual = np.array([math.log(item.totals.params) for item in scored[60:]])
    told = assessment.forecast.log_costs[: len(ideas), 1]
    assert np.corrcoef(told, actual)[0, 1] > 0.9
    assert np.corrcoef(assessment.forecast.merit[: len(ideas)], actual)[0, 1] > 0.9
    # a network that was built is known exactly
    assert asked.assess(scored[:1]).forecast.log_costs[0, 1] == pytest.approx(math.log(scored[0].totals.params))


def test_costs_that_can_be_counted_count_instead_of_their_forecast(generator):
    candidates = draw(generator, range(200))
    asked = inquisitor(["params <= 1"], explore=0)
    asked.look_at(generator)
    asked.observe(candidates[:20])
    ideas = [Candidate(0, "", None, item.labels, None) for item in candidates[20:]]
    least = 150
    free = candidates[0].known_costs._replace(totals=candidates[0].totals._replace(params=1))
    counted = []

    def costs(index):
        counted.append(index)
        return free if index == least else candidates[20 + index].costs

    assert asked.worth_probing(ideas[:100], 5, costs)
    assert sorted(counted) == list(range(100)), "all of few are counted"
    # Where every network misses the requirement but one, that one is found once its costs are known.
    first = asked.order([ideas[least], *ideas[:100]], lambda index: costs(least if index == 0 else index - 1))
    assert first[0] == 0
    counted.clear()
    asked.worth_probing(ideas, 5, costs)
    assert len(counted) == len(set(counted)) < len(ideas)
    # What cannot be built keeps its forecast, and accuracy alone needs no costs.
    assert len(asked.worth_probing(ideas, 5, lambda index: None)) == 5
    plain = Inquisitor(parse_performance("accuracy"), (), validation_size=500, settings=InquisitorSettings(explore=0))
    plain.observe(candidates[:20])
    counted.clear()
    plain.worth_probing(ideas, 5, costs)
    assert not counted


def test_a_ceiling_makes_networks_that_were_not_built_improbable_when_they_will_miss_it(generator):
    candidates = draw(generator, range(90))
    bound = int(np.median([item.totals.params for item in candidates]))
    asked = inquisitor([f"params <= {bound}"])
    asked.look_at(generator)
    asked.observe(candidates[:60])
    ideas = [Candidate(0, "", None, item.labels, None) for item in candidates[60:]]
    feasible = asked.judge(ideas).feasible
    holds = np.array([item.totals.params <= bound for item in candidates[60:]])
    assert feasible[holds].mean() > 0.75
    assert feasible[~holds].mean() < 0.25


def test_experience_of_a_like_task_helps_and_that_of_an_unlike_one_is_let_go(generator, tmp_path):
    candidates = draw(generator, range(80))
    first = inquisitor()
    first.look_at(generator)
    first.observe([item.trained(truth(item)) for item in candidates[:40]])
    path = tmp_path / "experience.json"
    first.learned().save(path)
    actual = np.array([truth(item) for item in candidates[50:]])

    def told(experience, change, **settings):
        asked = Inquisitor(
            netscore, (), validation_size=500, settings=InquisitorSettings(**settings), experience=experience
        )
        asked.look_at(generator)
        asked.observe([item.trained(change(truth(item))) for item in candidates[40:50]])
        return asked, np.corrcoef(asked.judge(candidates[50:]).posterior.accuracy(), actual)[0, 1]

    carried, with_it = told(Experience.load(path), lambda accuracy: accuracy / 2)
    _, without = told(Experience.load(path), lambda accuracy: accuracy / 2, carry=False)
    assert with_it > without
    found = carried.carried()
    assert found["relation"] > 0.0
    assert found["nats"] > 0.0
    opposite, _ = told(Experience.load(path), lambda accuracy: 100.0 - accuracy)
    assert opposite.carried()["nats"] < found["nats"]
    assert opposite.carried()["relation"] < found["relation"]


def test_a_file_that_holds_no_experience_is_refused(tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"networks": []}')
    with pytest.raises(DataError, match="holds no experience"):
        Experience.load(path)
    with pytest.raises(DataError, match="cannot read"):
        Experience.load(tmp_path / "none.json")


def test_selection_finds_better_networks_than_chance(generator):
    candidates = draw(generator, range(80))
    asked = inquisitor(["accuracy >= 80%"])
    for _ in range(6):
        for item in asked.select(candidates, 4):
            asked.observe([item.trained(truth(item))])
    assert len(asked.trained) == 24
    feasible = [item for item in candidates if truth(item) >= 80.0]
    scores = sorted((asked.value(item.trained(truth(item))) for item in feasible), reverse=True)
    best = max(asked.value(item) for item in asked.trained if asked.meets_requirements(item))
    assert best >= scores[max(1, len(scores) // 20)], "not among the best 5% of the pool"


def test_selection_never_names_a_network_twice(generator):
    candidates = draw(generator, range(10))
    asked = inquisitor()
    first = asked.select(candidates, 6)
    for item in first:
        asked.observe([item.trained(90.0)])
    second = asked.select(candidates, 10)
    names = [item.hash for item in first + second]
    assert len(names) == len(set(names)) == len(candidates)


def test_an_update_raises_the_expected_performance_of_the_family(generator):
    candidates = draw(generator, range(120))
    asked = inquisitor(["accuracy >= 70%"])
    asked.observe([item.trained(truth(item)) for item in candidates[:60]])
    moved = generator
    for cycle in (1, 2, 3):
        proposal = asked.propose(moved, candidates, cycle=cycle)
        updates = [text for text in proposal.passes if text.startswith("update")]
        moved = run_pipeline(wrap(moved), ",".join(updates)).graph

    def mean(graph):
        found = draw(graph, range(1000, 1040))
        return np.mean([asked.value(item.trained(truth(item))) for item in found if truth(item) >= 70.0])

    assert mean(moved) > mean(generator) + 1.0


def wrap(graph):
    from gensynth.ir import Network

    return Network(graph)


def test_no_choice_moves_further_than_the_trust_region(generator):
    candidates = draw(generator, range(60))
    asked = inquisitor(trust=0.05, step=1.0)
    asked.observe([item.trained(truth(item)) for item in candidates])
    proposal = asked.propose(generator, candidates, cycle=1)
    moved = run_pipeline(wrap(generator), ",".join(proposal.passes)).graph
    for identifier, info in generator.choices.items():
        old, new = np.array(info.probabilities), np.array(moved.choices[identifier].probabilities)
        assert float(np.sum(new * np.log(new / old))) <= 0.051


def test_every_pass_of_a_proposal_has_a_reason_with_figures(generator):
    candidates = draw(generator, range(60))
    asked = inquisitor(commit=0.5, drop=0.3, trust=5.0, step=1.0, family=1)
    asked.observe([item.trained(truth(item)) for item in candidates])
    proposal = asked.propose(generator, candidates, cycle=2)
    assert len(proposal.passes) == len(proposal.reasons)
    assert {reason.action for reason in proposal.reasons} >= {"update", "commit"}
    for text, reason in zip(proposal.passes, proposal.reasons, strict=True):
        assert text.startswith(reason.action)
        assert f"choice={reason.choice}" in text
        assert "%" in reason.text and "MACs" in reason.text


def test_requirements_on_accuracy_weigh_in_judgement(generator):
    candidates = draw(generator, range(40))
    ordered = sorted(map(truth, candidates))
    asked = inquisitor([f"accuracy >= {ordered[20]:.1f}%"])
    asked.observe([item.trained(truth(item)) for item in candidates])
    judged = asked.judge(candidates)
    sure = [row for row, item in enumerate(candidates) if truth(item) >= ordered[35]]
    hopeless = [row for row, item in enumerate(candidates) if truth(item) <= ordered[4]]
    assert judged.feasible[sure].min() > 0.5 > judged.feasible[hopeless].max()


def test_performance_on_a_device_moves_the_family_to_less_energy_and_says_so(generator):
    performance = parse_performance("inferences_per_joule @ tegra-x2-gpu")
    model = cost_model("tegra-x2-gpu")
    candidates = draw(generator, range(100), [performance.device])
    asked = Inquisitor(performance, (), validation_size=500)
    asked.observe([item.trained(truth(item)) for item in candidates[:50]])
    assert asked.value(candidates[0].trained(50.0)) == pytest.approx(1e3 / model.totals(candidates[0].graph)[1])
    proposal = asked.propose(generator, candidates, cycle=1)
    assert all(" mJ" in reason.text for reason in proposal.reasons)
    moved = run_pipeline(wrap(generator), ",".join(proposal.passes)).graph

    def energy(graph):
        return np.mean([model.totals(item.graph)[1] for item in draw(graph, range(1000, 1040))])

    assert energy(moved) < energy(generator)


def test_requirements_on_a_device_are_judged_from_known_costs(generator):
    candidates = draw(generator, range(40), ["tegra-x2-gpu"])
    energies = [next(iter(item.costs.on.values())).energy_mj for item in candidates]
    asked = inquisitor([f"energy <= {sorted(energies)[20]!r}mJ @ tegra-x2-gpu"])
    for item, energy in zip(candidates, energies, strict=True):
        assert asked.meets_requirements(item.trained(90.0)) == (energy <= sorted(energies)[20])


def test_the_unit_of_a_performance_function_does_not_matter(generator):
    candidates = draw(generator, range(60))

    def moved(scale):
        asked = Inquisitor(lambda outcome: scale * netscore(outcome), (), validation_size=500)
        asked.observe([item.trained(truth(item)) for item in candidates])
        return run_pipeline(wrap(generator), ",".join(asked.propose(generator, candidates, cycle=1).passes)).graph

    small, large = moved(1.0), moved(1e4)
    for identifier, info in small.choices.items():
        assert large.choices[identifier].probabilities == pytest.approx(info.probabilities, abs=2e-3)


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"step": 1.5}, "step"), ({"floor": -0.1}, "floor"), ({"family": 0}, "family"), ({"commit": 0.2}, "commit")],
)
def test_settings_out_of_range_are_refused(settings, word):
    with pytest.raises(UsageError, match=word):
        InquisitorSettings(**settings)
