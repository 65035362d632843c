"""Graphs as values: immutability, pickling, derived facts; what the random ones reach; what importing costs."""

import pickle
import subprocess
import sys
from collections import Counter

import pytest
from random_graphs import random_generator, random_network

from gensynth.ir import GenSynthError, Graph, OpenDim, TensorType, all_ops, nearest, parse, scope_of, to_text
from gensynth.ir.ops import Conv2d

GENERATOR = parse(
    "gensynth 1 network @g(%x: f32[N, 4, 8, 8]) -> f32[N, 4, 8, 8] {"
    " %s.a = conv2d(%x) {channels=choice<w>[4: 0.1, 8: 0.2], kernel=1}"
    " %s.b = choose<c>(%s.a) { one(%p) { %q = relu(%p) yield %q } two(%p) { yield %p } }"
    " %y = conv2d(%s.b) {channels=4, kernel=1} return %y }"
)


@pytest.mark.parametrize(
    ("thing", "field"),
    [
        (GENERATOR, "name"),
        (GENERATOR, "nodes"),
        (GENERATOR.nodes[0], "op"),
        (GENERATOR.nodes[0], "origin"),
        (GENERATOR.inputs[0], "name"),
        (GENERATOR.inputs[0].type, "shape"),
        (GENERATOR.nodes[0].op, "channels"),
        (GENERATOR.nodes[0].choices[0][1], "values"),
        (GENERATOR.nodes[1].alternatives[0], "label"),
        (OpenDim(1, (("w", (0, 1)),)), "base"),
    ],
)
def test_nothing_can_be_assigned(thing, field):
    with pytest.raises(AttributeError):
        setattr(thing, field, None)
    with pytest.raises(AttributeError):
        delattr(thing, field)


def test_logits_cannot_be_assigned():
    with pytest.raises(TypeError):
        GENERATOR.logits["w"] = (0.0, 0.0)


def test_replacing_makes_a_new_graph_and_leaves_the_old():
    moved = GENERATOR.replace(logits={"w": (1.0, 2.0)})
    assert moved.choices["w"].logits == (1.0, 2.0)
    assert GENERATOR.choices["w"].logits == (0.1, 0.2)
    assert moved != GENERATOR
    assert moved.nodes is GENERATOR.nodes


def test_graphs_pickle_to_equal_graphs():
    for graph in (GENERATOR, random_network(3), random_generator(4)):
        again = pickle.loads(pickle.dumps(graph))
        assert again == graph
        assert to_text(again) == to_text(graph)
        assert [node.origin for node in again.nodes] == [node.origin for node in graph.nodes]


def test_a_pickled_graph_hashes_right_in_a_process_whose_strings_hash_otherwise():
    program = (
        "import pickle, sys; from gensynth.ir import Value; from gensynth.ir.ops import Conv2d;"
        "graph = pickle.load(sys.stdin.buffer); node = graph.nodes[-1];"
        "assert Value(node.name, node.result.type) in set(node.results);"
        "assert Conv2d(channels=4, kernel=1) in {node.op}"
    )
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", program], input=pickle.dumps(GENERATOR), check=True, env=environment)


def test_equal_types_are_one_object():
    assert TensorType("f32", ("N", 4)) is TensorType("f32", ("N", 4))
    assert pickle.loads(pickle.dumps(TensorType("f32", ("N", 4)))) is TensorType("f32", ("N", 4))
    assert (TensorType("f16", ("N", 4, 2)).elements(batch=3), TensorType("f16", ("N", 4, 2)).bytes(batch=3)) == (24, 48)


def test_a_graph_knows_who_makes_and_who_reads_a_value():
    assert GENERATOR.producers["y"].op == Conv2d(channels=4, kernel=1)
    assert [node.name for node in GENERATOR.users["s.a"]] == ["s.b"]
    assert "y" not in GENERATOR.users
    assert set(GENERATOR.values) == {"x", "s.a", "s.b", "y"}
    assert [prefix + node.name for prefix, node in GENERATOR.walk()] == ["s.a", "s.b", "s.b[one]/q", "y"]
    assert GENERATOR.choices["w"].nodes == ("s.a",)
    assert GENERATOR.is_generator
    assert not random_network(1).is_generator
    assert (scope_of("a.b.c"), scope_of("a")) == ("a.b", "")


def test_random_graphs_reach_every_op_and_every_kind_of_choice():
    ops: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for seed in range(150):
        for graph in (random_network(seed), random_generator(seed)):
            seen["several inputs"] += len(graph.inputs) > 1
            seen["several outputs"] += len(graph.outputs) > 1
            seen["requirements"] += bool(graph.requirements)
            for prefix, node in graph.walk():
                ops[node.op.name] += 1
                seen["scopes"] += "." in node.name
                seen["nested choose"] += bool(prefix) and bool(node.alternatives)
                seen["shared choice"] += len(node.choices) > 1
                seen["open operand"] += any(type.is_open for type in node.operand_types)
                seen["depthwise"] += isinstance(node.op, Conv2d) and node.op.groups > 1
                seen["broadcast"] += node.op.name == "mul" and len(set(node.operand_types)) > 1
    assert set(ops) == {op.name for op in all_ops()}
    assert min(seen.values()) > 5, seen


def test_a_seed_gives_one_random_graph():
    assert random_network(5) == random_network(5) != random_network(6)
    assert isinstance(random_generator(5), Graph)


def test_importing_the_ir_imports_no_heavy_library():
    program = "import sys, gensynth.ir; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    imported = set(done.stdout.split())
    assert "gensynth" in imported
    assert not imported & {"torch", "onnx", "onnxruntime", "tvm", "networkx", "scipy", "sklearn", "matplotlib", "xdsl"}


def test_errors_say_what_and_how_to_mend():
    error = GenSynthError("the map is empty", hint="draw one")
    assert str(error) == "the map is empty\n  draw one"
    assert nearest("cnov2d", ["conv2d", "dense"]) == "did you mean 'conv2d'?"
    assert nearest("zzz", ["conv2d", "dense"], what="ops") == "ops: conv2d, dense"
