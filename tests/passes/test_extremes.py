"""The costliest and the cheapest network of a generator."""

from itertools import product

import pytest

from gensynth.ir import parse
from gensynth.passes import Materializer, run_pipeline
from gensynth.passes.choices.extremes import extremes
from gensynth.passes.cost import totals
from gensynth.synth.prototypes import prototype

SMALL = """gensynth 1

network @open(%image: f32[N, 1, 8, 8]) -> f32[N, 10] {
  %conv1  = conv2d(%image) {channels=choice<width>[6, 2, 4], kernel=choice<kernel>[3, 1, 5], padding=same}
  %act1   = relu(%conv1)
  %conv2  = conv2d(%act1) {channels=choice<wide>[4, 8], kernel=3, padding=same}
  %pool   = global_avg_pool(%conv2)
  %logits = dense(%pool) {features=10}
  return %logits
}
"""


def test_extremes_are_those_of_all_networks():
    materializer = Materializer(parse(SMALL))
    counted = {
        decisions: totals(materializer.build(dict(zip(("width", "kernel", "wide"), decisions, strict=True)))).macs
        for decisions in product(range(3), range(3), range(2))
    }
    largest, smallest = (tuple(found.values()) for found in extremes(materializer))
    assert counted[largest] == max(counted.values())
    assert counted[smallest] == min(counted.values())


@pytest.mark.parametrize("passes", ["open-width,offer{rewrite=bypass-block},offer{rewrite=separate-conv}"])
def test_no_draw_lies_outside_the_extremes_of_an_opened_prototype(passes):
    graph = run_pipeline(prototype("resnet", depth=8, image=(3, 16, 16), classes=5), passes).graph
    materializer = Materializer(graph)
    largest, smallest = (totals(materializer.build(decisions)).macs for decisions in extremes(materializer))
    drawn = [totals(materializer.build(materializer.draw(seed))).macs for seed in range(100)]
    assert smallest <= min(drawn) and max(drawn) <= largest
