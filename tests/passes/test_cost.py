"""Exact counts: hand-worked cases, conventions, and every op of the registry."""

from __future__ import annotations

import pytest

from gensynth.ir import Builder, Graph, Network, Op, PassError, TensorType, all_ops, infer_types, parameters_of, parse
from gensynth.ir.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Choose,
    Conv2d,
    ConvTranspose2d,
    Dense,
    GlobalAvgPool,
    LocalResponseNorm,
    MaxPool,
    Relu,
    Resize,
    Split,
)
from gensynth.passes.cost import NodeCost, cost, has_rules, macs_of, no_macs, node_cost, operations_of, totals


def image(channels: int, height: int, width: int) -> TensorType:
    return TensorType("f32", ("N", channels, height, width))


def count(op: Op, *operands: TensorType, batch: int = 1) -> NodeCost:
    return node_cost(op, operands, infer_types(op, operands), batch)


def tiny() -> Graph:
    b = Builder("tiny")
    x = b.input("image", (1, 8, 8))
    x = b.emit(Conv2d(channels=16, kernel=3, padding="same"), x, name="stem")
    x = b.emit(BatchNorm(), x, name="norm")
    x = b.emit(Relu(), x, name="act")
    x = b.emit(GlobalAvgPool(), x, name="pool")
    b.output(b.emit(Dense(features=10), x, name="logits"))
    return b.build()


def test_every_op_of_the_registry_but_choose_has_rules() -> None:
    assert [op.name for op in all_ops() if op is not Choose and not has_rules(op)] == []


def test_an_op_without_a_rule_is_an_error_that_shows_how_to_register_one() -> None:
    class Cube(Op, name="cube_for_cost_tests"):
        def infer(self, operands):  # type: ignore[no-untyped-def]
            return (operands[0],)

    try:
        with pytest.raises(PassError, match=r"@macs_of\(Cube\)"):
            count(Cube(), image(1, 2, 2))
        no_macs(Cube)
        with pytest.raises(PassError, match=r"@operations_of\(Cube\)"):
            count(Cube(), image(1, 2, 2))

        @operations_of(Cube)
        def operations(op, operands, results):  # type: ignore[no-untyped-def]
            return 2 * results[0].elements()

        assert count(Cube(), image(1, 2, 2)).operations == 8

        @macs_of(Cube)
        def macs(op, operands, results):  # type: ignore[no-untyped-def]
            return 7

        assert count(Cube(), image(1, 3, 2)).macs == 7
    finally:
        del Op._registry["cube_for_cost_tests"]


def test_a_convolution_has_a_mac_for_every_weight_at_every_output_place() -> None:
    found = count(Conv2d(channels=16, kernel=(3, 1), stride=2, padding="same", bias=True), image(8, 9, 9))
    assert found.macs == 16 * 8 * 3 * 1 * 5 * 5
    assert found.params == 16 * 8 * 3 + 16
    assert found.weight_bytes == 4 * found.params
    assert found.input_bytes == 4 * 8 * 81
    assert found.output_bytes == 4 * 16 * 25
    assert found.operations == 2 * found.macs + 16 * 25


def test_groups_divide_the_macs_of_a_convolution() -> None:
    assert count(Conv2d(channels=8, kernel=3, padding="same", groups=4), image(8, 4, 4)).macs == 8 * 2 * 9 * 16
    assert count(Conv2d(channels=8, kernel=3, padding="same", groups=8), image(8, 4, 4)).macs == 8 * 1 * 9 * 16


def test_a_transposed_convolution_has_a_mac_for_every_weight_at_every_input_place() -> None:
    found = count(ConvTranspose2d(channels=6, kernel=2, stride=2, groups=2), image(4, 5, 5))
    assert found.macs == 4 * (6 // 2) * 2 * 2 * 25


def test_a_dense_layer_has_a_mac_for_every_weight() -> None:
    found = count(Dense(features=10), TensorType("f32", ("N", 16)))
    assert (found.macs, found.params, found.operations) == (160, 170, 330)


def test_running_statistics_are_stored_but_are_no_trainable_weights() -> None:
    found = count(BatchNorm(), image(16, 2, 2))
    assert (found.macs, found.params, found.weight_bytes) == (0, 32, 4 * 64)


@pytest.mark.parametrize(
    ("op", "operands", "operations"),
    [
        (Add(), (image(2, 3, 3), image(2, 3, 3)), 18),
        (LocalResponseNorm(size=5), (image(8, 3, 3),), 72 * 9),
        (MaxPool(kernel=2), (image(2, 4, 4),), 2 * 4 * 3),
        (AvgPool(kernel=2), (image(2, 4, 4),), 2 * 4 * 4),
        (GlobalAvgPool(), (image(2, 4, 4),), 32),
        (Resize(scale=2), (image(2, 4, 4),), 0),
        (Resize(scale=2, mode="bilinear"), (image(2, 4, 4),), 9 * 2 * 64),
    ],
)
def test_elementwise_ops_and_pools_have_operations_but_no_macs(
    op: Op, operands: tuple[TensorType, ...], operations: int
) -> None:
    found = count(op, *operands)
    assert (found.macs, found.params, found.operations) == (0, 0, operations)


def test_the_batch_multiplies_macs_and_activations_but_not_weights() -> None:
    one, eight = cost(tiny()), cost(tiny(), batch=8)
    assert (eight.macs, eight.operations) == (8 * one.macs, 8 * one.operations)
    assert (eight.activation_bytes, eight.peak_memory) == (8 * one.activation_bytes, 8 * one.peak_memory)
    assert (eight.params, eight.weight_bytes) == (one.params, one.weight_bytes)


def test_the_report_of_a_small_network_agrees_with_working_by_hand() -> None:
    report = cost(tiny())
    assert report.macs == 16 * 9 * 64 + 160
    assert report.params == 144 + 32 + 170
    assert report.weight_bytes == 4 * (144 + 64 + 170)
    assert report.activation_bytes == 4 * (3 * 16 * 64 + 16 + 10)
    assert report.peak_memory == 4 * 2 * 16 * 64
    assert report.nodes == 5
    assert [row.name for row in report.rows] == ["stem", "norm", "act", "pool", "logits"]
    assert report.by_name["stem"].cost.macs == 16 * 9 * 64
    assert sum(row.cost.macs for row in report.rows) == report.macs


def test_params_are_the_trainable_parameters_of_the_graph() -> None:
    graph = tiny()
    assert totals(graph).params == sum(p.size for _, p in parameters_of(graph) if p.trainable)


def test_a_generator_has_no_cost_until_it_is_materialized() -> None:
    graph = parse(
        "gensynth 1\n\nnetwork @g(%image: f32[N, 1, 8, 8]) -> f32[N, 8|16, 8, 8] {\n"
        "  %stem = conv2d(%image) {channels=choice<stem.width>[8: 0.0, 16: 0.0], kernel=3, padding=same}\n"
        "  return %stem\n}\n"
    )
    with pytest.raises(PassError, match="materialize it"):
        cost(graph)


def test_the_cost_of_a_split_counts_every_result() -> None:
    assert count(Split(sections=2), image(4, 2, 2)).output_bytes == 4 * 16


def test_macs_agree_with_torch() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from gensynth.backends.torch import to_torch

    b = Builder("mixed")
    x = b.input("image", (3, 16, 16))
    x = b.emit(Conv2d(channels=8, kernel=3, stride=2, padding=1, bias=True), x, name="stem")
    x = b.emit(Relu(), b.emit(BatchNorm(), x))
    x = b.emit(Conv2d(channels=8, kernel=3, padding=2, dilation=2, groups=8), x, name="depthwise")
    x = b.emit(Conv2d(channels=12, kernel=1, groups=4), x, name="grouped")
    x = b.emit(ConvTranspose2d(channels=6, kernel=2, stride=2), x, name="up")
    x = b.emit(MaxPool(kernel=2), x)
    b.output(b.emit(Dense(features=5), b.emit(GlobalAvgPool(), x), name="logits"))
    graph = b.build()
    module = to_torch(Network(graph)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(2, 3, 16, 16))
    assert counter.get_total_flops() == 2 * cost(graph, batch=2).macs
