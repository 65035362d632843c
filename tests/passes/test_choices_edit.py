"""`update`, `commit` and `drop`, and replaying them."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import generators

from gensynth.backends.reference import run_reference
from gensynth.ir import Graph, Network, PassError, check_weights, initialize, parse, to_text, verify
from gensynth.passes import Commit, Drop, Materializer, Pass, Update, parse_pipeline, pipeline_text, run_pipeline
from gensynth.passes.choices.inheritance import inherit_weights
from gensynth.synth.prototypes import prototype

OPEN = "sort-channels,open-depth,offer{rewrite=separate-conv},offer{rewrite=low-rank-conv},open-width,open-kernel"


def prototype_with_weights() -> Network:
    graph = prototype("resnet", depth=8, width=4, image=(1, 8, 8)).graph
    return Network(graph, initialize(graph))


def emit(generator: Network, decisions: dict[str, int]) -> Network:
    materializer = Materializer(generator.graph)
    graph = materializer.build(decisions)
    verify(graph)
    return Network(graph, inherit_weights(generator, materializer.inliner, decisions, graph))


def test_update_moves_logits_by_differences_or_to_values() -> None:
    generator = run_pipeline(prototype_with_weights(), "open-width")
    moved = run_pipeline(
        generator,
        "update{choice=stem.conv.width,to=[0.5,0,0,1]},update{choice=stem.conv.width,by=[0.25,-1,0,0.00004]}",
    )
    assert moved.graph.logits["stem.conv.width"] == (0.75, -1.0, 0.0, 1.0)
    assert moved.weights is generator.weights
    assert moved.graph.nodes == generator.graph.nodes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("update{choice=stem.width,by=[1,2,3,4]}", "did you mean 'stem.conv.width'"),
        ("update{choice=stem.conv.width,by=[1,2]}", "has 4 alternatives, 2 logits given"),
        ("commit{choice=stem.width,to=1}", "did you mean 'stem.conv.width'"),
        ("commit{choice=stem.conv.width,to=5}", "it has: 1, 2, 3, 4"),
        ("drop{choice=stem.conv.width,alternative=5}", "no alternative '5'"),
    ],
)
def test_what_is_not_there_is_named(text: str, message: str) -> None:
    generator = run_pipeline(prototype_with_weights(), "open-width")
    with pytest.raises(PassError, match=message):
        run_pipeline(generator, text)


def removals(generator: Network, identifier: str) -> list[tuple[Pass, list[int]]]:
    """Every commit and drop on a choice, with the indices that stay."""
    labels = generator.graph.choices[identifier].labels
    indices = range(len(labels))
    commits: list[tuple[Pass, list[int]]] = [(Commit(choice=identifier, to=labels[i]), [i]) for i in indices]
    drops: list[tuple[Pass, list[int]]] = [
        (Drop(choice=identifier, alternative=labels[i]), [j for j in indices if j != i]) for i in indices
    ]
    return commits + (drops if len(labels) > 1 else [])


def test_what_is_left_emits_the_same_networks_with_the_same_weights() -> None:
    generator = run_pipeline(prototype_with_weights(), OPEN)
    chance = random.Random(0)
    for identifier in chance.sample(sorted(generator.graph.choices), 8):
        for item, kept in removals(generator, identifier):
            left = run_pipeline(generator, (item,))
            assert left.weights is not None
            check_weights(left.graph, left.weights)
            after = {name: chance.randrange(len(info.labels)) for name, info in left.graph.choices.items()}
            before = {**dict.fromkeys(generator.graph.choices, 0), **after}
            before[identifier] = kept[after.get(identifier, 0)]
            one, other = emit(generator, before), emit(left, after)
            assert one.hash == other.hash
            assert one.weights is not None and other.weights is not None
            x = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
            np.testing.assert_array_equal(run_reference(one, x)[0], run_reference(other, x)[0])


def test_dropping_the_widest_cuts_the_weights() -> None:
    generator = run_pipeline(prototype_with_weights(), "sort-channels,open-width")
    left = run_pipeline(generator, "drop{choice=stem.conv.width,alternative=4}")
    assert left.weights is not None and left.weights["stem.conv.weight"].shape[0] == 3
    assert left.graph.choices["stem.conv.width"].labels == ("1", "2", "3")
    last = run_pipeline(left, "drop{choice=stem.conv.width,alternative=1},drop{choice=stem.conv.width,alternative=3}")
    assert "stem.conv.width" not in last.graph.choices and "channels=2," in to_text(last.graph)


def test_a_choice_inside_an_alternative_goes_with_it() -> None:
    graph = parse("""
    gensynth 1
    network @net(%x: f32[N, 4, 8, 8]) -> f32[N, 4, 8, 8] {
      %y = choose<outer>(%x) {
        one[0.00](%i) {
          %o = choose<inner>(%i) { a[1.00](%j) { %k = relu(%j) yield %k } b[2.00](%j) { yield %j } }
          yield %o
        }
        two[0.00](%i) { yield %i }
      }
      return %y
    }
    """)
    assert set(run_pipeline(Network(graph), "commit{choice=outer,to=one}").graph.choices) == {"inner"}
    gone = run_pipeline(Network(graph), "commit{choice=outer,to=two}").graph
    assert not gone.choices and not gone.logits and gone.outputs == gone.inputs
    dropped = run_pipeline(Network(graph), "drop{choice=outer,alternative=two}").graph
    assert dict(dropped.logits) == {"inner": (1.0, 2.0)}


def test_committing_a_choose_whose_inner_names_stand_elsewhere_renames_them() -> None:
    graph = parse("""
    gensynth 1
    network @net(%x: f32[N, 4, 8, 8]) -> f32[N, 4, 8, 8] {
      %t = silu(%x)
      %y = choose<y>(%t) {
        one[0.00](%i) { %t = conv2d(%i) {channels=4, kernel=1} %a.u = silu(%t) %b.u = silu(%a.u) yield %b.u }
        two[0.00](%i) { yield %i }
      }
      %a.u = conv2d(%y) {channels=4, kernel=1}
      return %a.u
    }
    """)
    network = Network(graph, initialize(graph))
    committed = run_pipeline(network, "commit{choice=y,to=one}")
    assert [node.name for node in committed.graph.nodes] == ["t", "y.t", "y.u", "y", "a.u"]
    assert committed.weights is not None and network.weights is not None
    np.testing.assert_array_equal(committed.weights["y.t.weight"], network.weights["y[one]/t.weight"])
    assert [node.name for node in emit(network, {"y": 0}).graph.nodes] == ["t", "y.t", "y.u", "y", "a.u"]


@settings(deadline=None, max_examples=40)
@given(generators(), st.randoms(use_true_random=False))
def test_any_removal_from_any_generator_leaves_its_other_networks_alone(graph: Graph, chance: random.Random) -> None:
    network = Network(graph.replace(requirements=()))
    if not graph.choices:
        return
    identifier = chance.choice(sorted(graph.choices))
    labels = graph.choices[identifier].labels
    index = chance.randrange(len(labels))
    index = labels.index(labels[index])
    left = run_pipeline(network, (Commit(choice=identifier, to=labels[index]),))
    for _ in range(3):
        after = {name: chance.randrange(len(info.labels)) for name, info in left.graph.choices.items()}
        before = {**dict.fromkeys(graph.choices, 0), **after, identifier: index}
        assert emit(network, before).hash == emit(left, after).hash


def test_a_recorded_pipeline_replays_to_the_same_bytes() -> None:
    chance = random.Random(7)
    start = prototype_with_weights()
    record = list(parse_pipeline(OPEN))
    current = run_pipeline(start, record)
    for step, _ in product(range(4), range(2)):
        identifier = chance.choice(sorted(current.graph.choices))
        info = current.graph.choices[identifier]
        label = chance.choice(info.labels)
        kinds: list[Pass] = [
            Update(choice=identifier, by=tuple(round(chance.gauss(0, 1), 3) for _ in info.labels)),
            Commit(choice=identifier, to=label),
            Drop(choice=identifier, alternative=label),
        ]
        items = [kinds[step % 3], *parse_pipeline("offer{rewrite=group-conv{groups=2},where=stage2}")]
        record += items
        current = run_pipeline(current, items)
    again = run_pipeline(start, parse_pipeline(pipeline_text(record)))
    assert to_text(again.graph) == to_text(current.graph)
    assert again.weights is not None and current.weights is not None
    assert all(np.array_equal(again.weights[name], array) for name, array in current.weights.items())
