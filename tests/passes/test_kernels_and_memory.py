"""Kernels of a network, memory plans, and `strip-dropout`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import networks

from gensynth.ir import Network, PassError, parse, to_text
from gensynth.passes import run_pipeline
from gensynth.passes.analyses import Buffer, group_kernels, plan_memory

BLOCK = """gensynth 1

network @block(%x: f32[N, 8, 6, 6]) -> f32[N, 8, 6, 6] {
  %a = conv2d(%x) {channels=8, kernel=3, padding=same}
  %b = batch_norm(%a)
  %c = relu(%b)
  %d = conv2d(%c) {channels=8, kernel=3, padding=same}
  %e = conv2d(%x) {channels=8, kernel=1}
  %f = add(%d, %e)
  %g = relu(%f)
  return %g
}
"""


def kernels(text):
    return [[node.name for node in kernel.nodes] for kernel in group_kernels(parse(text))]


def test_a_shortcut_joins_the_later_of_the_two_kernels_that_feed_it():
    assert kernels(BLOCK) == [["a", "b", "c"], ["d"], ["e", "f", "g"]]
    last = group_kernels(parse(BLOCK))[-1]
    assert [value.name for value in last.operands] == ["x", "d"]
    assert last.anchor is not None and [node.name for node in last.steps] == ["f", "g"]


def test_a_value_that_others_read_ends_its_kernel():
    assert kernels(BLOCK.replace("add(%d, %e)", "add(%d, %a)")) == [["a"], ["b", "c"], ["e"], ["d", "f", "g"]]


def test_an_operand_that_is_broadcast_does_not_take_the_other_in():
    text = """gensynth 1

network @gate(%x: f32[N, 8, 6, 6]) -> f32[N, 8, 6, 6] {
  %p = global_avg_pool(%x) {keep=true}
  %s = sigmoid(%p)
  %y = mul(%x, %s)
  return %y
}
"""
    assert kernels(text) == [["p", "s"], ["y"]]


@given(networks())
def test_kernels_hold_every_node_once_and_run_in_order(graph):
    found = group_kernels(graph)
    assert sorted(node.name for kernel in found for node in kernel.nodes) == sorted(node.name for node in graph.nodes)
    known = {value.name for value in graph.inputs}
    for kernel in found:
        assert {value.name for value in kernel.operands} <= known
        known |= {value.name for node in kernel.nodes for value in node.results}


def test_a_generator_has_no_kernels_yet():
    generator = run_pipeline(Network(parse(BLOCK)), "open-width").graph
    with pytest.raises(PassError, match="open choices"):
        group_kernels(generator)


BUFFERS = st.lists(
    st.builds(
        lambda size, start, length: Buffer("b", size, start, start + length),
        st.integers(0, 5000),
        st.integers(0, 20),
        st.integers(0, 8),
    ),
    max_size=25,
)


@given(BUFFERS)
def test_buffers_that_live_at_the_same_time_never_overlap(buffers):
    plan = plan_memory(buffers)
    assert plan.size >= plan.least
    for i, one in enumerate(buffers):
        assert plan.offsets[i] % 64 == 0 and plan.offsets[i] + one.size <= plan.size
        for j, other in enumerate(buffers[:i]):
            if one.meets(other) and one.size and other.size:
                a, b = plan.offsets[i], plan.offsets[j]
                assert a + one.size <= b or b + other.size <= a


def test_a_chain_needs_room_for_two_neighbours_alone():
    chain = [Buffer(str(number), 1000 + 64 * number, number, number + 1) for number in range(10)]
    plan = plan_memory(chain, alignment=1)
    assert plan.size == plan.least == chain[-1].size + chain[-2].size


def test_strip_dropout_leaves_what_inference_computes():
    text = """gensynth 1

network @head(%x: f32[N, 8]) -> f32[N, 4] {
  %a = dropout(%x) {rate=0.5}
  %b = dense(%a) {features=4}
  %c = dropout(%b) {rate=0.1}
  return %c
}
"""
    stripped = run_pipeline(Network(parse(text)), "strip-dropout").graph
    assert to_text(stripped).splitlines()[2:] == [
        "network @head(%x: f32[N, 8]) -> f32[N, 4] {",
        "  %b = dense(%x) {features=4} : f32[N, 4]",
        "  return %b",
        "}",
    ]
