"""Content hash, architecture hash, and the networkx view."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_graphs import random_network
from strategies import networks

from gensynth.ir import Graph, Node, Value, VerifyError, architecture_hash, content_hash, parse, to_networkx, to_text
from gensynth.ir.ops import Conv2d

TWO = """gensynth 1
network @two(%x: f32[N, 4, 8, 8], %z: f32[N, 4, 8, 8]) -> f32[N, 8, 8, 8] {
  %a = conv2d(%x) {channels=4, kernel=3, padding=same}
  %b = relu(%z)
  %c = JOIN
  return %c
}
"""


def two(join: str, text: str = TWO) -> Graph:
    return parse(
        text.replace("JOIN", join).replace(
            "f32[N, 8, 8, 8]", "f32[N, 4, 8, 8]" if "concat" not in join else "f32[N, 8, 8, 8]"
        )
    )


def renamed(graph: Graph, order: random.Random) -> Graph:
    """Returns the graph under other names, its nodes in another topological order."""
    values = {value: Value(f"v{index}", value.type) for index, value in enumerate(graph.values.values())}
    waiting = list(graph.nodes)
    order.shuffle(waiting)
    done = set(graph.inputs)
    nodes: list[Node] = []
    while waiting:
        node = next(node for node in waiting if done.issuperset(node.operands))
        waiting.remove(node)
        done.update(node.results)
        results = tuple(values[value] for value in node.results)
        nodes.append(Node(node.op, tuple(values[value] for value in node.operands), results))
    inputs, outputs = (tuple(values[value] for value in side) for side in (graph.inputs, graph.outputs))
    return Graph("other", inputs, tuple(nodes), outputs)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(networks(), st.integers(0, 1000))
def test_a_copy_with_other_names_and_order_is_the_same_architecture(graph, seed):
    copy = renamed(graph, random.Random(seed))
    assert architecture_hash(copy) == architecture_hash(graph)
    assert content_hash(copy) != content_hash(graph)


def test_the_order_of_operands_matters_only_where_the_op_says_so():
    assert architecture_hash(two("add(%a, %b)")) == architecture_hash(two("add(%b, %a)"))
    assert architecture_hash(two("concat(%a, %b)")) != architecture_hash(two("concat(%b, %a)"))


def test_attributes_wiring_outputs_and_input_order_are_seen():
    base = two("add(%a, %b)")
    changed = [
        two("mul(%a, %b)"),
        two("add(%a, %a)"),
        two("add(%a, %z)"),
        two("add(%a, %b)", TWO.replace("kernel=3", "kernel=5")),
        two("add(%a, %b)", TWO.replace("relu(%z)", "relu(%x)")),
        two("add(%a, %b)", TWO.replace("relu(%z)", "relu(%a)")),
        two("add(%a, %b)", TWO.replace("return %c", "return %a")),
        two("add(%a, %b)", TWO.replace("conv2d(%x)", "conv2d(%z)").replace("relu(%z)", "relu(%x)")),
    ]
    hashes = {architecture_hash(graph) for graph in [base, *changed]}
    assert len(hashes) == len(changed) + 1


def test_one_node_read_twice_is_not_two_equal_nodes():
    once = two("add(%b, %b)")
    twice = two("add(%b, %d)", TWO.replace("  %c", "  %d = relu(%z)\n  %c"))
    assert architecture_hash(once) != architecture_hash(twice)


def test_parts_of_a_split_are_told_apart():
    text = """gensynth 1
network @g(%x: f32[N, 4, 2, 2]) -> (f32[N, 2, 2, 2], f32[N, 2, 2, 2]) {
  %a, %b = split(%x)
  %r = relu(%a)
  return %r, %b
}
"""
    assert architecture_hash(parse(text)) != architecture_hash(parse(text.replace("relu(%a)", "relu(%b)")))
    assert architecture_hash(parse(text)) != architecture_hash(parse(text.replace("return %r, %b", "return %b, %r")))


def test_thousands_of_random_networks_collide_only_where_they_are_equal():
    by_hash: dict[str, str] = {}
    for seed in range(2000):
        graph = random_network(seed, 20)
        # one canonical writing: names by order of definition
        written = to_text(renamed_in_order(graph))
        assert by_hash.setdefault(architecture_hash(graph), written) == written


def renamed_in_order(graph: Graph) -> Graph:
    values = {value: Value(f"v{index}", value.type) for index, value in enumerate(graph.values.values())}
    nodes = tuple(
        Node(node.op, tuple(values[value] for value in node.operands), tuple(values[value] for value in node.results))
        for node in graph.nodes
    )
    inputs, outputs = (tuple(values[value] for value in side) for side in (graph.inputs, graph.outputs))
    return Graph("g", inputs, nodes, outputs)


def test_a_generator_is_no_single_architecture():
    open_one = two("add(%a, %b)", TWO.replace("kernel=3", "kernel=choice<k>[3, 5]"))
    with pytest.raises(VerifyError, match="open choices"):
        architecture_hash(open_one)
    assert len(content_hash(open_one)) == 32


def test_the_content_hash_sees_names_logits_and_requirements():
    text = TWO.replace("JOIN", "add(%a, %b)").replace("f32[N, 8, 8, 8]", "f32[N, 4, 8, 8]")
    text = text.replace("kernel=3", "kernel=choice<k>[3: 0.10, 5: 0.20]")
    variants = [text, text.replace("%b", "%bb"), text.replace("0.10", "0.11"), text.replace("@two", "@three")]
    variants.append(text.replace("  %a", '  require "macs <= 1M"\n  %a', 1))
    assert len({content_hash(parse(variant)) for variant in variants}) == len(variants)
    assert content_hash(parse(text)) == content_hash(parse(text.replace("  ", " ")))


def test_the_networkx_view_has_an_edge_for_every_operand():
    graph = two("add(%b, %b)")
    view = to_networkx(graph)
    assert set(view) == {"x", "z", "a", "b", "c", "return.0"}
    assert view.number_of_edges("b", "c") == 2
    assert sorted(data["operand"] for data in view["b"]["c"].values()) == [0, 1]
    assert view.nodes["a"]["op"] == "conv2d"
    assert view.nodes["a"]["attributes"] == {"channels": "4", "kernel": "3", "padding": "same"}
    assert view.nodes["c"]["types"] == ("f32[N, 4, 8, 8]",)
    assert view.nodes["return.0"]["op"] == "output"


def test_the_networkx_view_of_random_networks_has_no_cycle():
    import networkx

    for seed in range(50):
        graph = random_network(seed)
        view = to_networkx(graph)
        assert networkx.is_directed_acyclic_graph(view)
        assert view.number_of_edges() == sum(len(node.operands) for node in graph.nodes) + len(graph.outputs)


def test_equal_ops_are_equal_and_hash_alike():
    assert Conv2d(channels=4, kernel=(3, 3)) == Conv2d(channels=4, kernel=3)
    assert len({Conv2d(channels=4, kernel=3), Conv2d(channels=4, kernel=3), Conv2d(channels=5, kernel=3)}) == 2
