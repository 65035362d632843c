"""Generators as their users hold them."""

from __future__ import annotations

import itertools
import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from gensynth.ir import Network, UsageError, architecture_hash, check_weights, initialize, parse, to_text
from gensynth.passes import run_pipeline
from gensynth.synth import Generator
from gensynth.synth.prototypes import prototype

TEXT = """
gensynth 1

network @net(%x: f32[N, 4, 8, 8]) -> f32[N, 10] {
  %a = conv2d(%x) {channels=choice<a.width>[4: -0.50, 8: 0.25], kernel=3, padding=same}
  %b = choose<b>(%a) {
    conv[0.30](%i) { %o = conv2d(%i) {channels=8, kernel=choice<k>[1: 0.00, 3: 0.40], padding=same} yield %o }
    pool[-0.20](%i) {
      %o = max_pool(%i) {kernel=3, stride=1, padding=same}
      %p = conv2d(%o) {channels=8, kernel=1}
      yield %p
    }
  }
  %g = global_avg_pool(%b)
  %d = dense(%g) {features=10}
  return %d
}
"""


def small(weights: bool = True) -> Generator:
    graph = parse(TEXT)
    return Generator(Network(graph, initialize(graph) if weights else None))


def every(generator: Generator) -> list[dict[str, int]]:
    counts = [range(len(info.labels)) for info in generator.graph.choices.values()]
    return [dict(zip(generator.graph.choices, indices, strict=True)) for indices in itertools.product(*counts)]


def test_a_network_is_no_generator() -> None:
    with pytest.raises(UsageError, match="is a network, not a generator"):
        Generator(prototype("lenet"))


def test_a_generator_is_saved_and_loaded_with_its_weights(tmp_path: Path) -> None:
    generator = small()
    generator.save(tmp_path / "g.gsir")
    again = Generator.load(tmp_path / "g.gsir")
    assert to_text(again.graph) == to_text(generator.graph)
    for seed in range(5):
        one, other = generator.generate(seed), again.generate(seed)
        assert to_text(one.graph) == to_text(other.graph)
        assert one.weights is not None and other.weights is not None
        check_weights(one.graph, one.weights)
        assert all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_iterating_yields_the_networks_of_seeds_from_nought() -> None:
    generator = small()
    assert [to_text(item.graph) for item in islice(generator, 4)] == [
        to_text(generator.generate(seed).graph) for seed in range(4)
    ]


def test_the_probabilities_of_all_networks_sum_to_one() -> None:
    generator = small(weights=False)
    reached: dict[str, float] = {}
    for decisions in every(generator):
        graph = generator.materializer.build(decisions)
        reached[architecture_hash(graph)] = generator.log_probability(graph)
    assert len(reached) == 6
    assert sum(map(math.exp, reached.values())) == pytest.approx(1.0)


def test_probabilities_agree_with_how_often_networks_are_drawn() -> None:
    generator = small(weights=False)
    graphs = [generator.decide(seed).graph for seed in range(3000)]
    hashes = [architecture_hash(graph) for graph in graphs]
    for name in set(hashes):
        share = hashes.count(name) / len(hashes)
        wanted = math.exp(generator.log_probability(graphs[hashes.index(name)]))
        assert share == pytest.approx(wanted, abs=4 * math.sqrt(wanted / len(hashes)))


def test_a_network_of_another_generator_has_no_probability() -> None:
    with pytest.raises(UsageError, match="is no network of the generator"):
        small().log_probability(prototype("lenet"))


@pytest.mark.parametrize(
    "rule",
    [
        "separate-conv",
        "low-rank-conv",
        "factorize-conv",
        "bottleneck-conv",
        "group-conv",
        "fold-batch-norm",
        "replace-activation{to=silu}",
        "squeeze-excite",
        "bypass-block",
        "collapse-block",
        "scale-width",
        "pool-early",
    ],
)
def test_decisions_are_read_off_the_network_that_they_give(rule: str) -> None:
    network = prototype("resnet", depth=8, width=4, image=(1, 8, 8))
    generator = Generator(run_pipeline(network, f"offer{{rewrite={rule}}},open-width"))
    for seed in range(10):
        decided = generator.decide(seed)
        found = generator.decisions_of(decided.graph)
        rebuilt = generator.materializer.build({**dict.fromkeys(generator.graph.choices, 0), **found})
        assert to_text(rebuilt) == to_text(decided.graph)


def test_entropy_is_greatest_for_equal_logits_and_nought_when_settled() -> None:
    generator = small()
    equal = generator.apply("update{choice=a.width,to=[0,0]},update{choice=b,to=[0,0]},update{choice=k,to=[1,1]}")
    assert equal.entropy() == pytest.approx(3 * math.log(2))
    settled = generator.apply(
        "update{choice=a.width,to=[900,0]},update{choice=b,to=[900,0]},update{choice=k,to=[900,0]}"
    )
    assert settled.entropy() == 0.0
    assert settled.entropy() < generator.entropy() < equal.entropy()


def test_diversity_counts_different_architectures() -> None:
    found = small().diversity(range(200))
    assert (found.drawn, found.different) == (200, 6)
    assert found.share == pytest.approx(0.03)
    assert len(small().distinct(range(200))) == 6
    assert small().diversity([]).share == 0.0


def test_a_pipeline_makes_another_generator_and_leaves_the_first() -> None:
    generator = small()
    before = to_text(generator.graph)
    assert set(generator.apply("commit{choice=b,to=pool}").graph.choices) == {"a.width"}
    assert to_text(generator.graph) == before
