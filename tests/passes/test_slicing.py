"""Slicing and reordering channels: widths, weights, and the function that must stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from channel_networks import NETWORKS, flat, inverted_residual, local_norm, residual, shuffle_v1, shuffle_v2

from gensynth.backends.reference import run_reference
from gensynth.ir import Array, Graph, Network, PassError, check_weights, initialize, parameters_of, parse, verify
from gensynth.ir.ops import Conv2d
from gensynth.passes.analyses import (
    ChannelGroup,
    channel_groups,
    channel_importance,
    permute_channels,
    slice_channels,
    slice_weights,
)


def with_random_weights(graph: Graph) -> Network:
    """Returns the network with every weight away from its start, so that a misplaced one shows."""
    random = np.random.default_rng(0)
    weights = {}
    for name, parameter in parameters_of(graph):
        values = random.uniform(0.5, 1.5, parameter.shape) * random.choice((-1.0, 1.0), parameter.shape)
        if name.endswith((".variance", ".scale")):
            values = np.abs(values)
        weights[name] = values.astype(np.float32)
        if name.endswith(".weight"):
            weights[name] /= np.sqrt(parameter.size / parameter.shape[0])
    return Network(graph, weights)


def outputs(network: Network) -> Array:
    shape = network.graph.inputs[0].type.sizes(2)
    image = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    return run_reference(network, image)[0]


def without_channels(network: Network, group: ChannelGroup, dropped: Sequence[int]) -> Network:
    """Returns the network with the filters of some channels set to zero, and nothing that turns zero into more."""
    assert network.weights is not None
    groups = channel_groups(network.graph)
    weights = {name: array.copy() for name, array in network.weights.items()}
    for name in weights:
        if name.endswith((".mean", ".bias")) and not name.startswith("logits"):
            weights[name][:] = 0
    depthwise = {path for path, attribute, _ in group.sources if attribute == "groups"}
    for path in {path for path, _, _ in group.sources} - depthwise:
        op = network.graph.node(path).op
        zero = np.isin(groups.positions(path, group), dropped)
        weight = weights[f"{path}.weight"]
        if op.name == "conv_transpose2d":
            parts = getattr(op, "groups")  # noqa: B009
            weight.reshape(parts, weight.shape[0] // parts, weight.shape[1], *weight.shape[2:]).swapaxes(1, 2)[
                zero.reshape(parts, -1)
            ] = 0
        else:
            weight[zero] = 0
    return Network(network.graph, weights)


def cases(*, exact: bool = False) -> list[tuple[str, str]]:
    return [
        (name, group.id)
        for name, build in NETWORKS.items()
        for group in channel_groups(build())
        if group.fixed is None and group.width > 1 and (group.exact or not exact)
    ]


@pytest.mark.parametrize(("name", "identifier"), cases())
def test_every_group_can_be_cut_to_half(name: str, identifier: str) -> None:
    network = with_random_weights(NETWORKS[name]())
    group = channel_groups(network.graph).by_id[identifier]
    for keep in (range(group.width // 2), range(0, group.width, 2), [group.width - 1]):
        sliced = slice_channels(network, {identifier: keep})
        verify(sliced.graph)
        assert sliced.weights is not None
        check_weights(sliced.graph, sliced.weights)
        assert np.isfinite(outputs(sliced)).all()
        for path, attribute, scale in group.sources:
            assert getattr(sliced.graph.node(path).op, attribute) == scale * len(keep)


@pytest.mark.parametrize(("name", "identifier"), cases())
def test_slicing_whole_blocks_removes_exactly_the_channels_dropped(name: str, identifier: str) -> None:
    network = with_random_weights(NETWORKS[name]())
    group = channel_groups(network.graph).by_id[identifier]
    if len(group.blocks) == 1:
        pytest.skip("all positions go together")
    keep = sorted(position for block in group.blocks[1::2] for position in block)
    silent = without_channels(network, group, [position for position in range(group.width) if position not in keep])
    assert not np.allclose(outputs(silent), outputs(network), atol=1e-3)
    np.testing.assert_allclose(outputs(slice_channels(silent, {identifier: keep})), outputs(silent), atol=1e-5)


@pytest.mark.parametrize(("name", "identifier"), cases(exact=True))
def test_reordering_channels_leaves_the_function_as_it_was(name: str, identifier: str) -> None:
    network = with_random_weights(NETWORKS[name]())
    width = channel_groups(network.graph).by_id[identifier].width
    order = np.random.default_rng(2).permutation(width).tolist()
    if order == sorted(order):
        order.reverse()
    permuted = permute_channels(network, {identifier: order})
    assert network.weights is not None and permuted.weights is not None
    assert any(not np.array_equal(network.weights[name], permuted.weights[name]) for name in network.weights)
    np.testing.assert_allclose(outputs(permuted), outputs(network), atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_groups_can_be_cut_and_reordered_at_once(name: str) -> None:
    network = with_random_weights(NETWORKS[name]())
    free = [group for group in channel_groups(network.graph) if group.fixed is None]
    random = np.random.default_rng(3)
    orders = {group.id: random.permutation(group.width).tolist() for group in free if group.exact}
    np.testing.assert_allclose(outputs(permute_channels(network, orders)), outputs(network), atol=1e-5)
    sliced = slice_channels(network, {group.id: range((group.width + 1) // 2) for group in free})
    verify(sliced.graph)
    assert sliced.weights is not None
    check_weights(sliced.graph, sliced.weights)
    assert np.isfinite(outputs(sliced)).all()


def test_what_a_slice_does_not_touch_is_shared_with_the_original() -> None:
    network = with_random_weights(residual())
    sliced = slice_channels(network, {"block.conv1": [0, 2, 3]})
    assert sliced.graph.node("stem") is network.graph.node("stem")
    assert network.weights is not None and sliced.weights is not None
    assert sliced.weights["stem.weight"] is network.weights["stem.weight"]
    assert sliced.weights["block.conv1.weight"].shape == (3, 8, 3, 3)
    np.testing.assert_array_equal(
        sliced.weights["block.conv2.weight"], network.weights["block.conv2.weight"][:, [0, 2, 3]]
    )


def test_a_dense_layer_behind_flatten_loses_all_columns_of_a_channel() -> None:
    network = with_random_weights(flat())
    sliced = slice_channels(network, {"stem": [1, 4]})
    assert network.weights is not None and sliced.weights is not None
    columns = [*range(9, 18), *range(36, 45)]
    np.testing.assert_array_equal(sliced.weights["hidden.weight"], network.weights["hidden.weight"][:, columns])


def test_a_network_without_weights_can_be_sliced_too() -> None:
    sliced = slice_channels(Network(residual()), {"stem": range(4)})
    assert sliced.weights is None
    assert sliced.graph.node("block.conv2").op == Conv2d(channels=4, kernel=3, padding="same")
    verify(sliced.graph)


def test_keeping_everything_gives_the_network_itself() -> None:
    network = with_random_weights(residual())
    assert slice_channels(network, {"stem": range(8)}) is network


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"stemm": [0]}, "did you mean 'stem'"),
        ({"image": [0]}, "%image is an input"),
        ({"stem": []}, "keep at least one channel"),
        ({"stem": [8]}, "0 to 7"),
        ({"stem": [2, 1]}, "ascending"),
        ({"stem": [1, 1]}, "ascending"),
    ],
)
def test_bad_kept_sets_are_errors_that_say_what_to_do(keep: dict[str, list[int]], message: str) -> None:
    with pytest.raises(PassError, match=message):
        slice_channels(Network(residual()), keep)


def test_orders_must_be_permutations_of_exact_groups() -> None:
    with pytest.raises(PassError, match="no permutation of its 8"):
        permute_channels(with_random_weights(residual()), {"stem": [0, 1]})
    with pytest.raises(PassError, match="shuffles"):
        permute_channels(with_random_weights(shuffle_v2(3)), {"stem": [7, 6, 5, 4, 3, 2, 1, 0]})
    with pytest.raises(PassError, match="shuffles"):
        permute_channels(with_random_weights(shuffle_v1(16)), {"squeeze": [7, 6, 5, 4, 3, 2, 1, 0]})
    with pytest.raises(PassError, match="local response norms"):
        permute_channels(with_random_weights(local_norm()), {"stem": [7, 6, 5, 4, 3, 2, 1, 0]})


def test_importance_is_the_norm_of_all_filters_of_a_position() -> None:
    network = with_random_weights(residual())
    assert network.weights is not None
    group = channel_groups(network.graph).by_id["stem"]
    weights = network.weights
    stem = np.linalg.norm(weights["stem.weight"].reshape(8, -1), axis=1)
    second = np.linalg.norm(weights["block.conv2.weight"].reshape(8, -1), axis=1)
    expected = stem * weights["batch_norm.scale"] + second * weights["block.batch_norm_1.scale"]
    np.testing.assert_allclose(channel_importance(network, group), expected, rtol=1e-5)


def test_importance_adds_up_the_channels_that_one_position_stands_for() -> None:
    network = with_random_weights(inverted_residual())
    assert network.weights is not None
    weights = dict(network.weights)
    weights["expand.weight"] = np.zeros_like(weights["expand.weight"])
    weights["excite.weight"] = np.zeros_like(weights["excite.weight"])
    weights["depthwise.weight"] = np.zeros_like(weights["depthwise.weight"])
    weights["depthwise.weight"][[4, 5]] = 1.0
    network = Network(network.graph, weights)
    group = channel_groups(network.graph).by_id["expand"]
    assert np.flatnonzero(channel_importance(network, group)).tolist() == [2]


def test_importance_wants_weights() -> None:
    with pytest.raises(PassError, match="no weights"):
        channel_importance(Network(residual()), channel_groups(residual()).by_id["stem"])


GENERATOR = """gensynth 1

network @generator(%image: f32[N, 3, 8, 8]) -> f32[N, 4] {
  %stem = conv2d(%image) {channels=choice<stem.width>[8: 0.0, 16: 0.0], kernel=3, padding=same}
  %y = choose<block>(%stem) {
    original[0.0](%a) { %b = conv2d(%a) {channels=12, kernel=3, padding=same}  yield %b }
    separate[0.0](%a) {
      %c = conv2d(%a) {channels=16, kernel=3, groups=16, padding=same}
      %d = conv2d(%c) {channels=12, kernel=3, padding=same}
      yield %d
    }
  }
  %pool = global_avg_pool(%y)
  %logits = dense(%pool) {features=4}
  return %logits
}
"""


def test_the_weights_of_a_generator_are_cut_in_all_alternatives() -> None:
    graph = parse(GENERATOR.replace("choice<stem.width>[8: 0.0, 16: 0.0]", "16"))
    cut = slice_weights(graph, initialize(graph), {"stem": range(5), "y[original]/b": range(6)})
    shapes = {name: array.shape for name, array in cut.items()}
    assert shapes == {
        "stem.weight": (5, 3, 3, 3),
        "y[original]/b.weight": (6, 5, 3, 3),
        "y[separate]/c.weight": (5, 1, 3, 3),
        "y[separate]/d.weight": (6, 5, 3, 3),
        "logits.weight": (4, 6),
        "logits.bias": (4,),
    }


def test_a_generator_has_to_be_materialized_before_its_graph_is_sliced() -> None:
    graph = parse(GENERATOR.replace("choice<stem.width>[8: 0.0, 16: 0.0]", "16"))
    with pytest.raises(PassError, match="materialize it"):
        slice_channels(Network(graph), {"stem": range(5)})
