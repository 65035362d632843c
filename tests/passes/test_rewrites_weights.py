"""What rules do with weights: exact where they can be, the nearest of their form where not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from gensynth.backends.reference import reference_values, run_reference
from gensynth.ir import Array, Builder, Graph, Network, Op, check_weights, initialize, verify
from gensynth.ir.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dense,
    GlobalAvgPool,
    MaxPool,
    Relu,
    Silu,
)
from gensynth.passes import Carry, Rule, parse_pipeline

CONVOLUTIONS = {
    "plain": Conv2d(channels=6, kernel=3, padding="same"),
    "strided with bias": Conv2d(channels=8, kernel=3, stride=2, padding="same", bias=True),
    "oblong": Conv2d(channels=6, kernel=(5, 3), stride=(1, 2), padding=(2, 2, 1, 0), bias=True),
    "dilated": Conv2d(channels=4, kernel=3, padding=2, dilation=2),
    "valid": Conv2d(channels=5, kernel=3, padding="valid"),
    "grouped": Conv2d(channels=8, kernel=3, stride=2, padding=1, groups=2, bias=True),
    "depthwise": Conv2d(channels=4, kernel=5, padding="same", groups=4),
}


def chain(shape: Sequence[int], *ops: Op) -> Graph:
    """Returns a network of ops in a row, named node0, node1, ..."""
    builder = Builder("chain")
    value = builder.input("image", shape)
    for index, op in enumerate(ops):
        value = builder.emit(op, value, name=f"node{index}")
    builder.output(value)
    return builder.build()


def started(graph: Graph, seed: int = 0) -> Network:
    """Returns the network with weights as after training: no zeros, statistics of batch norms away from 0 and 1."""
    random = np.random.default_rng(seed)
    weights = initialize(graph, seed)
    for name, array in weights.items():
        if name.endswith((".scale", ".variance")):
            weights[name] = random.uniform(0.5, 2.0, array.shape).astype(np.float32)
        elif name.endswith((".bias", ".mean")):
            weights[name] = random.standard_normal(array.shape).astype(np.float32)
    return Network(graph, weights)


def images(graph: Graph, count: int = 2) -> Array:
    shape = graph.inputs[0].type.sizes(count)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def rewritten(pipeline: str, network: Network) -> Network:
    (rule,) = parse_pipeline(pipeline)
    result = rule.run(network)
    assert result.changed, result.notes
    verify(result.network.graph)
    assert result.network.weights is not None
    check_weights(result.network.graph, result.network.weights)
    return result.network


def error(before: Network, after: Network) -> float:
    """Returns the largest difference between the outputs, over the largest output."""
    x = images(before.graph)
    (old,), (new,) = run_reference(before, x), run_reference(after, x)
    return float(np.abs(old - new).max() / np.abs(old).max())


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [
        (pipeline, name)
        for pipeline, most_groups in (
            ("low-rank-conv{ratio=1.0}", 2),
            ("factorize-conv{ratio=16.0}", 4),
            ("bottleneck-conv{ratio=1.0}", 1),
        )
        for name, op in CONVOLUTIONS.items()
        if op.groups <= most_groups
    ],
)
def test_a_factorization_of_full_rank_keeps_the_function(pipeline: str, name: str) -> None:
    network = started(chain((4, 9, 8), CONVOLUTIONS[name]))
    assert error(network, rewritten(pipeline, network)) < 1e-5


@pytest.mark.parametrize("op", [op for op in CONVOLUTIONS.values() if op.groups < 4], ids=str)
@pytest.mark.parametrize("pipeline", ["separate-conv", "separate-conv{normalize=true}"])
def test_separation_is_exact_where_each_input_channel_has_one_filter(pipeline: str, op: Conv2d) -> None:
    graph = chain((4, 9, 8), op)
    network = started(graph)
    assert network.weights is not None
    weight = network.weights["node0.weight"]
    random = np.random.default_rng(2)
    shapes = random.standard_normal((op.groups, 1, *weight.shape[1:]))
    gains = random.standard_normal((op.groups, op.channels // op.groups, weight.shape[1], 1, 1))
    separable = (shapes * gains).reshape(weight.shape).astype(np.float32)
    network = Network(graph, {**network.weights, "node0.weight": separable})
    assert error(network, rewritten(pipeline, network)) < 1e-5


@pytest.mark.parametrize("op", [op for op in CONVOLUTIONS.values() if op.padding != "valid"], ids=str)
def test_a_kernel_whose_rim_is_zero_shrinks_exactly(op: Conv2d) -> None:
    network = started(chain((4, 9, 9), op))
    assert network.weights is not None
    middle = np.zeros_like(network.weights["node0.weight"])
    top, left = middle.shape[2] // 2, middle.shape[3] // 2
    middle[:, :, top, left] = network.weights["node0.weight"][:, :, top, left]
    network = Network(network.graph, {**network.weights, "node0.weight": middle})
    size = 1 if max(op.kernel if isinstance(op.kernel, tuple) else (op.kernel,)) == 3 else 3
    assert error(network, rewritten(f"shrink-kernel{{size={size}}}", network)) < 1e-6


@pytest.mark.parametrize("shuffle", ["true", "false"])
def test_grouping_is_exact_where_other_groups_have_no_weight(shuffle: str) -> None:
    op = Conv2d(channels=6, kernel=3, padding="same", bias=True)
    network = started(chain((4, 6, 6), op))
    assert network.weights is not None
    weight = network.weights["node0.weight"].copy()
    for channel in range(6):
        group = channel % 2 if shuffle == "true" else channel // 3
        weight[channel, 2 - 2 * group : 4 - 2 * group] = 0
    network = Network(network.graph, {**network.weights, "node0.weight": weight})
    assert error(network, rewritten(f"group-conv{{shuffle={shuffle}}}", network)) < 1e-6


@pytest.mark.parametrize(
    "layer",
    [
        Conv2d(channels=6, kernel=3, padding="same"),
        Conv2d(channels=6, kernel=3, padding="same", groups=2, bias=True),
        ConvTranspose2d(channels=6, kernel=3, stride=2, padding="same"),
        ConvTranspose2d(channels=6, kernel=2, stride=2, groups=2, bias=True),
    ],
    ids=str,
)
def test_a_folded_batch_norm_leaves_the_function(layer: Op) -> None:
    network = started(chain((4, 6, 6), layer, BatchNorm(epsilon=1e-3), Relu()))
    folded = rewritten("fold-batch-norm", network)
    assert [node.op.name for node in folded.graph.nodes] == [layer.name, "relu"]
    assert error(network, folded) < 1e-5


@pytest.mark.parametrize("bias", [True, False])
def test_a_batch_norm_folds_into_a_dense_layer(bias: bool) -> None:
    network = started(chain((4, 6, 6), GlobalAvgPool(), Dense(features=5, bias=bias), BatchNorm()))
    assert error(network, rewritten("fold-batch-norm", network)) < 1e-5


def test_a_gate_starts_open() -> None:
    network = started(chain((3, 6, 6), Conv2d(channels=8, kernel=3), BatchNorm(), Silu()))
    after = rewritten("squeeze-excite", network)
    gate = reference_values(after, images(network.graph))["node2.gate"]
    assert np.all(gate < 1.0) and np.all(gate > 1.0 - 1e-5), "a gate of 1 exactly would stand where its slope is 0"
    assert error(network, after) < 1e-5


def test_an_early_stride_is_exact_before_a_window_of_one() -> None:
    network = started(
        chain((3, 9, 9), Conv2d(channels=4, kernel=3, padding=1), BatchNorm(), Relu(), MaxPool(kernel=1, stride=2))
    )
    after = rewritten("pool-early", network)
    assert error(network, after) < 1e-6
    strided = started(chain((3, 8, 8), Conv2d(channels=4, kernel=3, padding=1), Conv2d(channels=6, kernel=1, stride=2)))
    assert error(strided, rewritten("pool-early", strided)) < 1e-6


def test_an_early_stride_keeps_type_and_weights() -> None:
    network = started(
        chain((3, 9, 9), Conv2d(channels=4, kernel=3, padding="same", bias=True), BatchNorm(), AvgPool(kernel=2))
    )
    after = rewritten("pool-early", network)
    assert after.graph.outputs[0].type is network.graph.outputs[0].type
    assert network.weights is not None and after.weights is not None
    before = sorted((array.shape, float(array.sum())) for array in network.weights.values())
    assert sorted((array.shape, float(array.sum())) for array in after.weights.values()) == before


def test_narrowing_is_exact_where_the_channels_cut_are_zero() -> None:
    builder = Builder("residual")
    stem = builder.emit(Conv2d(channels=8, kernel=3, padding="same"), builder.input("image", (3, 6, 6)), name="stem")
    branch = builder.emit(Conv2d(channels=8, kernel=3, padding="same"), builder.emit(Relu(), stem), name="branch")
    total = builder.emit(Add(), stem, branch)
    builder.output(builder.emit(Dense(features=3), builder.emit(GlobalAvgPool(), total), name="logits"))
    network = started(builder.build())
    assert network.weights is not None
    weights = dict(network.weights)
    gone = [0, 3, 4, 7]
    for name in ("stem.weight", "branch.weight"):
        weights[name] = weights[name].copy()
        weights[name][gone] = 0
    network = Network(network.graph, weights)
    after = rewritten("scale-width", network)
    assert after.graph.node("branch").result.type.shape[1] == 4
    assert error(network, after) < 1e-6


def composed(network: Network, reduce: str, expand: str) -> Array:
    """Returns the one kernel that a convolution and a 1 x 1 behind it amount to."""
    assert network.weights is not None
    kernel: Array = np.einsum("or,rchw->ochw", network.weights[expand][:, :, 0, 0], network.weights[reduce])
    return kernel


def test_a_truncated_factorization_is_as_near_as_its_rank_allows() -> None:
    network = started(chain((4, 8, 8), Conv2d(channels=10, kernel=3)))
    assert network.weights is not None
    weight = network.weights["node0.weight"]
    after = rewritten("low-rank-conv{rank=3}", network)
    values = np.linalg.svd(weight.reshape(10, -1).astype(np.float64), compute_uv=False)
    distance = np.square(composed(after, "node0.reduce.weight", "node0.weight") - weight).sum()
    assert distance == pytest.approx(np.square(values[3:]).sum(), rel=1e-4)


def test_the_depthwise_filters_are_the_nearest_there_are() -> None:
    network = started(chain((4, 8, 8), Conv2d(channels=10, kernel=3)))
    assert network.weights is not None
    weight = network.weights["node0.weight"].astype(np.float64)
    after = rewritten("separate-conv", network).weights
    assert after is not None
    product = after["node0.weight"][:, :, 0, 0, None, None] * after["node0.depthwise.weight"][:, 0]
    values = np.linalg.svd(weight.swapaxes(0, 1).reshape(4, 10, 9), compute_uv=False)
    assert np.square(product - weight).sum() == pytest.approx(np.square(values[:, 1:]).sum(), rel=1e-4)


@pytest.mark.parametrize(
    "pipeline",
    ["separate-conv", "group-conv", "group-conv{shuffle=false}", "bottleneck-conv{ratio=0.5}", "factorize-conv",
     "low-rank-conv", "shrink-kernel{size=3}"],
)  # fmt: skip
def test_carried_weights_are_nearer_than_none(pipeline: str) -> None:
    network = started(chain((8, 9, 9), Conv2d(channels=12, kernel=5, padding="same", bias=True)))
    assert network.weights is not None
    x = images(network.graph, 4)
    (wanted,) = run_reference(network, x)
    (found,) = run_reference(rewritten(pipeline, network), x)
    nothing = network.weights["node0.bias"][None, :, None, None]
    assert np.square(found - wanted).mean() < 0.9 * np.square(nothing - wanted).mean()


def test_a_rule_gives_the_same_weights_each_time() -> None:
    network = started(chain((3, 6, 6), Conv2d(channels=8, kernel=3), Conv2d(channels=8, kernel=3)))
    first, second = (rewritten("squeeze-excite", network).weights for _ in range(2))
    assert first is not None and second is not None
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["node0.reduce.weight"], first["node1.reduce.weight"])


def test_a_rule_can_meet_what_it_made() -> None:
    network = started(chain((4, 6, 6), Conv2d(channels=8, kernel=3)))
    once = rewritten("low-rank-conv", network)
    twice = rewritten("low-rank-conv{where=node0}", once)
    assert [node.name for node in once.graph.nodes] == ["node0.reduce", "node0"]
    assert [node.name for node in twice.graph.nodes] == [
        "node0.reduce.reduce",
        "node0.reduce",
        "node0.reduce_2",
        "node0",
    ]


def test_rules_say_what_becomes_of_the_function() -> None:
    carries = {
        "fold-batch-norm": Carry.EXACT,
        "squeeze-excite": Carry.EXACT,
        "separate-conv": Carry.APPROXIMATE,
        "replace-activation{to=relu6}": Carry.APPROXIMATE,
        "bypass-block": Carry.APPROXIMATE,
        "collapse-block": Carry.FRESH,
    }
    for pipeline, carry in carries.items():
        (rule,) = parse_pipeline(pipeline)
        assert isinstance(rule, Rule) and rule.carries is carry
