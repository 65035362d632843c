"""The normal form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from strategies import generators, networks

from gensynth.backends.reference import run_reference
from gensynth.ir import Graph, Network, check_weights, initialize, parse, to_text, verify
from gensynth.passes import canonicalize, run_pipeline


def graph_of(body: str, input: str = "f32[N, 4, 6, 6]", output: str = "f32[N, 4, 6, 6]") -> Graph:
    return parse(f"gensynth 1\nnetwork @t(%x: {input}) -> {output} {{\n{body}\n}}\n")


@pytest.mark.parametrize(
    "call",
    [
        "identity(%a)",
        "dropout(%a) {rate=0.0}",
        "relu(%a)",
        "concat(%a)",
        "split(%a) {sections=1}",
        "pad(%a) {padding=0}",
        "resize(%a) {size=6}",
        "resize(%a) {scale=1, mode=bilinear}",
        "max_pool(%a) {kernel=1, stride=1}",
        "avg_pool(%a) {kernel=1, stride=1}",
        "channel_shuffle(%a) {groups=1}",
        "channel_shuffle(%a) {groups=4}",
        "reshape(%a) {shape=[4, 6, 6]}",
    ],
)
def test_a_node_that_gives_back_its_operand_goes(call: str) -> None:
    found = canonicalize(graph_of(f"%a = relu(%x)\n%b = {call}\n%c = sigmoid(%b)\nreturn %c"))
    assert to_text(found) == to_text(graph_of("%a = relu(%x)\n%c = sigmoid(%a)\nreturn %c"))


@pytest.mark.parametrize(
    "call",
    [
        "dropout(%a) {rate=0.5}",
        "relu6(%a)",
        "leaky_relu(%a)",
        "max_pool(%a) {kernel=3, stride=1, padding=1}",
        "channel_shuffle(%a) {groups=2}",
        "concat(%a, %a)",
    ],
)
def test_a_node_that_does_something_stays(call: str) -> None:
    graph = graph_of(
        f"%a = relu(%x)\n%b = {call}\n%c = global_avg_pool(%b)\nreturn %c",
        output="f32[N, 8]" if "concat" in call else "f32[N, 4]",
    )
    assert canonicalize(graph) is graph


def test_nodes_that_nothing_reads_go_and_one_read_result_keeps_a_split() -> None:
    graph = graph_of(
        "%a = relu(%x)\n%dead = sigmoid(%a)\n%deader = identity(%dead)\n%l, %r = split(%a)\nreturn %r",
        output="f32[N, 2, 6, 6]",
    )
    assert [node.name for node in canonicalize(graph).nodes] == ["a", "l"]


def test_an_output_may_become_an_input() -> None:
    found = canonicalize(graph_of("%a = identity(%x)\n%b = identity(%a)\nreturn %b"))
    verify(found)
    assert found.outputs == found.inputs and not found.nodes


def test_the_weights_of_dead_nodes_go_with_them() -> None:
    graph = graph_of("%a = conv2d(%x) {channels=4, kernel=1}\n%d = batch_norm(%a)\nreturn %a")
    result = run_pipeline(Network(graph, initialize(graph)), "canonicalize")
    assert result.weights is not None and set(result.weights) == {"a.weight"}


def test_the_logits_of_a_dead_choice_go_with_it() -> None:
    graph = graph_of("%a = relu(%x)\n%d = conv2d(%a) {channels=choice<d.width>[2: 0.50, 4: 0.00], kernel=1}\nreturn %a")
    assert dict(canonicalize(graph).logits) == {}


@given(networks())
def test_the_normal_form_is_valid_final_and_computes_the_same(graph: Graph) -> None:
    found = canonicalize(graph)
    verify(found)
    assert canonicalize(found) is found
    weights = initialize(graph)
    random = np.random.default_rng(0)
    inputs = {value.name: random.standard_normal(value.type.sizes(1)).astype(np.float32) for value in graph.inputs}
    after = run_pipeline(Network(graph, weights), "canonicalize")
    assert after.graph == found and after.weights is not None
    check_weights(found, after.weights)
    for one, other in zip(run_reference(Network(graph, weights), inputs), run_reference(after, inputs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


@given(generators())
def test_the_normal_form_of_a_generator_is_valid_and_final(graph: Graph) -> None:
    found = canonicalize(graph)
    verify(found)
    assert canonicalize(found) is found
