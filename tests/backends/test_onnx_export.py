"""Exported ONNX models: equal to the reference under ONNX Runtime, named as the network is, whole on disk."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import CASES, one_node, residual
from strategies import networks
from test_torch_module import random_inputs, random_network

from gensynth.backends.onnx import (
    DEFAULT_OPSET,
    HASH_KEY,
    NEWEST_OPSET,
    OLDEST_OPSET,
    OnnxSession,
    difference_from_reference,
    export_onnx,
    lowering,
    run_onnx,
    to_onnx,
)
from gensynth.backends.onnx import export as exporting
from gensynth.backends.onnx import lowerings as registry
from gensynth.backends.onnx.lowerings import has_lowering
from gensynth.backends.reference import run_reference
from gensynth.ir import (
    Builder,
    GenSynthError,
    Graph,
    InferenceError,
    Network,
    Op,
    TensorType,
    UsageError,
    Value,
    WeightsError,
    all_ops,
    initialize,
    parse,
)
from gensynth.ir.ops import (
    AvgPool,
    Choose,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    HardSwish,
    LocalResponseNorm,
    MaxPool,
    Relu,
    Reshape,
    Resize,
    Silu,
)
from gensynth.synth.prototypes import prototype

OPSETS = (OLDEST_OPSET, 13, 17, 18, NEWEST_OPSET)


def assert_computes_the_same(network: Network, opset: int, batch: int | None = None, tolerance: float = 1e-5) -> None:
    """Checks all outputs by ONNX Runtime: the error is at most `tolerance` of the largest element of the output."""
    inputs = random_inputs(network.graph, batch or 3)
    wanted = run_reference(network, inputs)
    found = run_onnx(to_onnx(network, opset=opset, batch=batch), inputs, threads=1)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert one.dtype == np.float32
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


def shapes_inferred(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Returns what onnx infers from the nodes alone, with a batch of 5."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for info in (*copy.graph.input, *copy.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = 5
    inferred = onnx.shape_inference.infer_shapes(copy, check_type=True, strict_mode=True, data_prop=True).graph
    return {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (*inferred.input, *inferred.value_info, *inferred.output)
    }


# What is computed.


def test_every_op_has_a_lowering_and_a_case() -> None:
    covered = {type(op) for op, _ in CASES}
    for op in all_ops():
        if op is not Choose:
            assert has_lowering(op), f"{op.name} has no lowering in backends/onnx"
            assert op in covered, f"{op.name} has no case in tests/backends/op_cases.py"


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize(("op", "shapes"), CASES, ids=[f"{i}-{op.text()}" for i, (op, _) in enumerate(CASES)])
def test_onnx_runtime_computes_what_the_reference_means(
    op: Op, shapes: tuple[tuple[int, ...], ...], opset: int
) -> None:
    network = random_network(one_node(op, shapes))
    assert_computes_the_same(network, opset)
    assert_computes_the_same(network, opset, batch=2)


@settings(max_examples=60)
@given(networks(), st.integers(OLDEST_OPSET, NEWEST_OPSET), st.sampled_from([None, 1, 3]))
def test_random_networks_compute_the_same_in_every_opset(graph: Graph, opset: int, batch: int | None) -> None:
    # ONNX Runtime's local response norm keeps a running sum of squares along the channels, which cancels.
    has_norm = any(isinstance(node.op, LocalResponseNorm) for node in graph.nodes)
    assert_computes_the_same(random_network(graph), opset, batch, tolerance=1e-3 if has_norm else 1e-5)


PROTOTYPES = [
    ("lenet", {"pool": "max", "classes": 3}),
    ("resnet", {"depth": 14, "shortcut": "pad", "width": 4}),
    ("resnet", {"depth": 50, "dataset": "imagenet", "image": (3, 64, 64)}),
    ("mobilenet", {"version": 1, "width": 0.25}),
    ("mobilenet", {"version": 2, "width": 0.5, "image": (1, 28, 28)}),
    ("shufflenet", {"version": 1, "groups": 8}),
    ("shufflenet", {"width": 0.5, "image": (3, 31, 33)}),
    ("squeezenet", {"version": 1.0}),
    ("nasnet-a", {"cells": 1, "filters": 96, "image": (3, 16, 16)}),
]


@pytest.mark.parametrize("opset", [OLDEST_OPSET, DEFAULT_OPSET, NEWEST_OPSET])
@pytest.mark.parametrize(("name", "arguments"), PROTOTYPES, ids=[name for name, _ in PROTOTYPES])
def test_prototypes_compute_the_same(name: str, arguments: dict[str, object], opset: int) -> None:
    graph = prototype(name, **arguments).graph
    network = Network(graph, initialize(graph, 0))
    assert difference_from_reference(network, to_onnx(network, opset=opset)) < 1e-5


def many(shape: tuple[int, ...], ops: list[Op]) -> Network:
    """Returns a network of one input and an output for every op that fits it."""
    builder = Builder("many")
    x = builder.input("x", shape)
    outputs: list[Value] = []
    for op in ops:
        try:
            outputs.append(builder.emit(op, x))
        except InferenceError:
            continue
    builder.output(*outputs)
    return Network(builder.build(), {})


@pytest.mark.parametrize("opset", [OLDEST_OPSET, 20, DEFAULT_OPSET, NEWEST_OPSET])
@pytest.mark.parametrize("height", [4, 5, 6, 7])
def test_windows_of_pools_end_where_they_do_in_the_ir(height: int, opset: int) -> None:
    paddings = ("same", "valid", 1, (0, 1), (2, 1, 0, 1), (0, 2, 1, 2))
    ops: list[Op] = []
    for kernel, stride, padding, ceil in itertools.product((1, 2, 3), (1, 2, 3), paddings, (False, True)):
        window = {"kernel": kernel, "stride": stride, "padding": padding, "ceil": ceil}
        ops += [MaxPool(**window), AvgPool(**window), AvgPool(count_padding=True, **window)]
    network = many((2, height, 5), ops)
    assert len(network.graph.nodes) > 200
    assert_computes_the_same(network, opset)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("height", [1, 3, 7, 10])
def test_resizing_takes_the_same_pixels(height: int, batch: int | None, opset: int) -> None:
    ops: list[Op] = []
    for how in ({}, {"mode": "bilinear"}, {"mode": "bilinear", "align_corners": True}):
        ops += [Resize(size=(size, size + 3), **how) for size in range(1, 34)]
        ops += [Resize(scale=(scale, 6 - scale), **how) for scale in range(1, 6)]
    assert_computes_the_same(many((2, height, height + 1), ops), opset, batch)


def test_a_symbolic_batch_takes_any_number_of_images_and_a_fixed_one_its_own() -> None:
    network = random_network(residual())
    session = OnnxSession(to_onnx(network), threads=1)
    assert session.inputs == {"image": ("N", 1, 8, 8)}
    assert session.outputs == ("logits",)
    for batch in (1, 7):
        x = random_inputs(network.graph, batch)["image"]
        np.testing.assert_allclose(session.run(x)[0], run_reference(network, x)[0], rtol=1e-4, atol=1e-4)
    fixed = OnnxSession(to_onnx(network, batch=2))
    assert fixed.inputs == {"image": (2, 1, 8, 8)}
    with pytest.raises(UsageError, match=r"shape \[7, 1, 8, 8\], the model wants \[2, 1, 8, 8\]"):
        fixed.run(x)


# What is written.


@pytest.mark.parametrize("opset", OPSETS)
def test_names_shapes_and_weights_of_the_network_are_those_of_the_model(opset: int) -> None:
    network = random_network(residual())
    model = to_onnx(network, opset=opset)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import] == [opset]
    assert (model.graph.name, model.producer_name) == ("residual", "gensynth")
    assert {entry.key: entry.value for entry in model.metadata_props} == {HASH_KEY: network.hash}
    names = {node.name for node in model.graph.node}
    assert {node.name for node in network.graph.nodes} <= names
    assert all("/" in name for name in names - {node.name for node in network.graph.nodes})
    weights = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer if "/" not in item.name}
    assert set(weights) == set(network.weights)
    assert all(np.array_equal(weights[name], array) for name, array in network.weights.items())
    shapes = shapes_inferred(model)
    declared = {info.name: info.type.tensor_type.shape.dim[0].dim_param for info in model.graph.value_info}
    for name, value in network.graph.values.items():
        assert shapes[name] == list(value.type.sizes(5))
        assert name in shapes and declared.get(name, "N") == "N"


def test_a_node_of_the_ir_is_one_node_of_onnx_where_the_opset_has_it() -> None:
    def operators(op: Op, opset: int, shape: tuple[int, ...] = (4, 6, 6)) -> list[str]:
        model = to_onnx(random_network(one_node(op, (shape,))), opset=opset)
        return [node.op_type for node in model.graph.node]

    assert operators(HardSwish(), 13) == ["HardSigmoid", "Mul"]
    assert operators(HardSwish(), 14) == ["HardSwish"]
    assert operators(Silu(), 21) == ["Sigmoid", "Mul"]
    assert operators(LocalResponseNorm(size=3), 11) == ["LRN"]
    assert operators(GlobalAvgPool(), 21) == ["GlobalAveragePool", "Flatten"]
    assert operators(GlobalAvgPool(keep=True), 21) == ["GlobalAveragePool"]
    assert operators(AvgPool(kernel=3, stride=2, ceil=True), 11) == ["AveragePool"]
    past_the_padding = AvgPool(kernel=3, stride=2, padding=1, ceil=True, count_padding=True)
    assert operators(past_the_padding, 20) == ["AveragePool", "Mul"]
    assert operators(past_the_padding, 21) == ["Pad", "AveragePool"]
    assert operators(Resize(size=9), 11) == operators(Resize(scale=2), 21) == ["Resize"]
    assert operators(Dropout(rate=0.25), 11) == operators(Dropout(rate=0.25), 21) == ["Dropout"]


def test_what_the_ir_says_in_words_is_kept_in_words() -> None:
    def attributes(op: Op) -> dict[str, object]:
        (node,) = to_onnx(random_network(one_node(op, ((4, 6, 6),)))).graph.node
        return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}

    assert attributes(Conv2d(channels=2, kernel=3, padding="same"))["auto_pad"] == b"SAME_UPPER"
    assert attributes(MaxPool(kernel=3, stride=2, padding="same"))["auto_pad"] == b"SAME_UPPER"
    assert attributes(Conv2d(channels=2, kernel=3, padding=1))["pads"] == [1, 1, 1, 1]
    assert attributes(Conv2d(channels=2, kernel=3, padding="same", dilation=2))["pads"] == [2, 2, 2, 2]
    assert attributes(ConvTranspose2d(channels=2, kernel=3, stride=2, padding="same"))["pads"] == [0, 0, 1, 1]
    assert attributes(MaxPool(kernel=3, stride=2, ceil=True))["ceil_mode"] == 1


def test_a_weight_called_like_a_value_gets_a_slash() -> None:
    builder = Builder("names")
    x = builder.input("x", (2, 4, 4))
    for name in ("a", "a.weight", "a.weight.c"):
        x = builder.emit(Conv2d(channels=2, kernel=1, bias=True), x, name=name)
    builder.output(x)
    network = random_network(builder.build())
    assert_computes_the_same(network, DEFAULT_OPSET)
    names = [item.name for item in to_onnx(network).graph.initializer]
    assert names == ["a/weight", "a.bias", "a.weight.weight", "a.weight.bias", "a.weight.c.weight", "a.weight.c.bias"]


def test_outputs_may_be_inputs_or_come_twice() -> None:
    builder = Builder("outputs")
    x = builder.input("x", (3,))
    y = builder.emit(Relu(), x, name="y")
    builder.output(x, y, y)
    network = Network(builder.build(), {})
    assert_computes_the_same(network, DEFAULT_OPSET)
    assert [info.name for info in to_onnx(network).graph.output] == ["x/output0", "y", "y/output2"]


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    network = random_network(residual())
    export_onnx(network, tmp_path / "one.onnx")
    export_onnx(Network(network.graph, dict(reversed(network.weights.items()))), tmp_path / "two.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
    assert onnx.load(tmp_path / "one.onnx") == to_onnx(network)


# External data.


def test_weights_go_into_a_file_beside_the_model_where_runtimes_can_map_them(tmp_path: Path) -> None:
    network = random_network(residual())
    path, data = export_onnx(network, tmp_path / "folder" / "net.onnx", external_data=True)
    assert (path.name, data.name) == ("net.onnx", "net.onnx.data")
    assert sorted(item.name for item in path.parent.iterdir()) == ["net.onnx", "net.onnx.data"]
    onnx.checker.check_model(str(path), full_check=True)
    assert difference_from_reference(network, path) < 1e-5
    stored = {item.name: item for item in onnx.load(path, load_external_data=False).graph.initializer}
    outside = {name for name, item in stored.items() if item.data_location == onnx.TensorProto.EXTERNAL}
    assert outside == {name for name, array in network.weights.items() if array.nbytes >= 1024}
    for name in outside:
        where = {entry.key: entry.value for entry in stored[name].external_data}
        assert where["location"] == "net.onnx.data"
        assert int(where["offset"]) % 4096 == 0
    whole = {item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}
    assert all(np.array_equal(whole[name], array) for name, array in network.weights.items())


def test_weights_too_large_for_one_file_go_outside_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = random_network(residual())
    assert export_onnx(network, tmp_path / "net.onnx") == (tmp_path / "net.onnx",)
    monkeypatch.setattr(exporting, "_MOST_INLINE", 4000)
    assert len(export_onnx(network, tmp_path / "net.onnx")) == 2
    assert difference_from_reference(network, tmp_path / "net.onnx") < 1e-5


@pytest.mark.parametrize("external_data", [False, True])
def test_an_export_that_fails_leaves_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, external_data: bool
) -> None:
    files = export_onnx(random_network(residual()), tmp_path / "net.onnx", external_data=external_data)
    before = [file.read_bytes() for file in files]

    def refuse(model: object, full_check: bool) -> None:
        raise onnx.checker.ValidationError("no")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(GenSynthError, match="refuses the model of @residual: no"):
        export_onnx(random_network(residual(), 1), tmp_path / "net.onnx", external_data=external_data)
    assert [file.read_bytes() for file in files] == before
    assert len(list(tmp_path.iterdir())) == len(files)


# Refusals.


def test_what_cannot_be_exported_is_told_with_a_way_out(tmp_path: Path) -> None:
    network = random_network(residual())
    open_graph = parse(
        "gensynth 1\nnetwork @open(%x: f32[N, 1, 4, 4]) -> f32[N, 2|4, 4, 4] {\n"
        "  %y = conv2d(%x) {channels=choice<w>[2, 4], kernel=1}\n  return %y\n}\n"
    )
    half = parse("gensynth 1\nnetwork @half(%x: f16[N, 3]) -> f16[N, 3] {\n  %y = relu(%x)\n  return %y\n}\n")
    for build, message in (
        (lambda: to_onnx(Network(open_graph, {})), "@open has open choices"),
        (lambda: to_onnx(Network(residual())), "@residual has no weights to export"),
        (lambda: to_onnx(Network(residual(), {})), "is missing"),
        (lambda: to_onnx(network, opset=OLDEST_OPSET - 1), f"opset 10 .*{OLDEST_OPSET} to {NEWEST_OPSET} in common"),
        (lambda: to_onnx(network, opset=NEWEST_OPSET + 1), f"opset {NEWEST_OPSET + 1} cannot be written"),
        (lambda: to_onnx(network, batch=0), "a batch of 0"),
        (lambda: to_onnx(Network(half, {})), "%x is f16"),
        (lambda: export_onnx(network, tmp_path / "net.pb"), "does not end in .onnx"),
        (lambda: export_onnx(network, "/dev/null/net.onnx"), "cannot write"),
        (lambda: export_onnx(network, "/dev/null/net.onnx", external_data=True), "cannot write"),
    ):
        with pytest.raises((UsageError, WeightsError), match=message) as caught:
            build()
        assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def third() -> type[Op]:
    """An op of another package, gone from the registry afterwards."""

    class Third(Op, name="third_for_onnx_tests"):
        def infer(self, operands: tuple[TensorType, ...]) -> tuple[TensorType, ...]:
            return (operands[0],)

    yield Third
    del Op._registry["third_for_onnx_tests"]
    registry._lowerings.pop(Third, None)


def test_an_op_without_a_lowering_is_named_with_its_node(third: type[Op]) -> None:
    with pytest.raises(UsageError, match=r"%stage1.y0: third_for_onnx_tests has no lowering") as caught:
        to_onnx(Network(one_node(third(), ((3,),)), {}))
    assert "@gensynth.backends.onnx.lowering(Third)" in caught.value.hint


def test_a_lowering_from_elsewhere_works_and_a_wrong_one_is_found_out(third: type[Op]) -> None:
    @lowering(third)
    def right(op, node):
        node.emit("Div", [*node.operands, node.number("three", 3.0)])

    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    network = Network(one_node(third(), ((3,),)), {})
    np.testing.assert_allclose(run_onnx(to_onnx(network), x)[0], x / 3)

    @lowering(third)
    def wrong(op, node):
        node.emit("Concat", [*node.operands, *node.operands], axis=1)

    with pytest.raises(GenSynthError, match=r"%stage1.y0 is \[97, 3\] in the IR, but onnx .* infers \[97, 6\]"):
        to_onnx(network)


# Running.


def test_inputs_that_do_not_fit_are_told(tmp_path: Path) -> None:
    network = random_network(one_node(Flatten(), ((2, 3),)))
    model = to_onnx(network)
    x = np.zeros((1, 2, 3), np.float32)
    for inputs, message in (
        ({"y": x}, "has no input 'y'"),
        ({}, "input 'x0' of the model is missing"),
        (x[0], r"shape \[2, 3\], the model wants \[N, 2, 3\]"),
        ({"x0": x.astype(np.float64)}, "cannot run the model"),
    ):
        with pytest.raises(UsageError, match=message):
            run_onnx(model, inputs)
    two = to_onnx(Network(one_node(Reshape(shape=(3,)), ((3,),)), {})).SerializeToString()
    assert run_onnx(two, np.ones((1, 3), np.float32))[0].tolist() == [[1, 1, 1]]
    with pytest.raises(UsageError, match="cannot read"):
        run_onnx(tmp_path / "none.onnx", x)
    (tmp_path / "cut.onnx").write_bytes(model.SerializeToString()[:40])
    with pytest.raises(UsageError, match=r"cannot load .*cut.onnx"):
        run_onnx(tmp_path / "cut.onnx", x)


def test_without_onnx_runtime_the_command_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = to_onnx(Network(one_node(Relu(), ((3,),)), {}))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match="needs ONNX Runtime") as caught:
        run_onnx(model, np.ones((1, 3), np.float32))
    assert 'pip install "gensynth[onnx]"' in caught.value.hint
