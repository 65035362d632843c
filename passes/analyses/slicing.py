"""Slicing: networks with some channels removed, or all of them reordered, weights included.

Both work on channel groups, so that everything that must agree agrees: the filters that make a channel, the batch
norms and depthwise filters that carry it, and the columns of the weights that read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gensynth.ir import (
    Array,
    AttributeValue,
    Graph,
    Network,
    Node,
    Op,
    PassError,
    Value,
    Weights,
    make_node,
)
from gensynth.ir.ops import BatchNorm, Conv2d, ConvTranspose2d, Dense, Split

from .channel_flow import Indices, is_depthwise, largest_op
from .channel_groups import ChannelGroup, ChannelGroups, channel_groups

__all__ = ["channel_importance", "permute_channels", "slice_channels", "slice_weights"]


def slice_channels(network: Network, keep: Mapping[str, Sequence[int]]) -> Network:
    """Returns the network with only some positions of some channel groups kept (group id -> ascending positions).

    Widths, types and weights are cut to match. Exact where whole blocks of a group are kept (see `ChannelGroup`):
    where the channels dropped are zero, or nothing reads them, the outputs stay what they were.

    Raises:
        PassError: no such group, a fixed one, bad positions, or a generator.
    """
    graph = network.graph
    if graph.is_generator:
        raise PassError(
            f"@{graph.name} has open choices, so its channels cannot be sliced",
            hint="materialize it with a seed first",
        )
    groups = channel_groups(graph)
    kept = groups.selections(keep)
    if not kept:
        return network
    values: dict[str, Value] = {value.name: value for value in graph.inputs}
    nodes: list[Node] = []
    for node in graph.nodes:
        operands = tuple([values[value.name] for value in node.operands])
        changes = _changed_widths(node, groups, kept)
        if changes or operands != node.operands:
            op = node.op.with_attributes(changes) if changes else node.op
            node = make_node(op, operands, tuple(value.name for value in node.results), origin=node.origin)
        nodes.append(node)
        values.update((value.name, value) for value in node.results)
    sliced = graph.replace(nodes=tuple(nodes), outputs=tuple(values[value.name] for value in graph.outputs))
    weights = None if network.weights is None else _take(graph, groups, network.weights, kept)
    return Network(sliced, weights)


def slice_weights(graph: Graph, weights: Weights, keep: Mapping[str, Sequence[int]]) -> dict[str, Array]:
    """Returns the weights of a network or generator cut to the kept positions of its channel groups.

    Raises:
        PassError: no such group, a fixed one, or bad positions.
    """
    groups = channel_groups(graph)
    return _take(graph, groups, weights, groups.selections(keep))


def permute_channels(network: Network, orders: Mapping[str, Sequence[int]]) -> Network:
    """Returns the network with reordered channels: position i of a group becomes its old position `orders[id][i]`.

    The function stays exactly what it was; without weights there is nothing to reorder.

    Raises:
        PassError: no such group, a fixed one, one that is not exact, or an order that is no permutation.
    """
    groups = channel_groups(network.graph)
    moved = groups.permutations(orders)
    if network.weights is None:
        return network
    return Network(network.graph, _take(network.graph, groups, network.weights, moved))


def channel_importance(network: Network, group: ChannelGroup) -> npt.NDArray[np.float64]:
    """Returns how much each position of a group weighs, float64 [width].

    The L2 norm of the filter that makes a channel, times |scale| of a batch norm that alone reads it, summed over
    every filter that the position stands for, so that all that must go together is ranked together.

    Raises:
        PassError: the network has no weights.
    """
    weights = network.weights
    if weights is None:
        raise PassError(f"@{network.name} has no weights to rank channels by", hint="train the network first")
    groups = channel_groups(network.graph)
    makers = {path for path, attribute, _ in group.sources if attribute in ("channels", "features")}
    importance = np.zeros(group.width)
    for prefix, body in _bodies(network.graph, ""):
        for node in body.nodes:
            path = prefix + node.name
            if path not in makers:
                continue
            norms = _filter_norms(largest_op(node), weights[f"{path}.weight"])
            users = body.users.get(node.name, ())
            if len(users) == 1 and isinstance(users[0].op, BatchNorm) and node.name not in body.output_names:
                norms = norms * np.abs(weights[f"{prefix}{users[0].name}.scale"])
            importance += np.bincount(groups.positions(path, group), weights=norms, minlength=group.width)
    return importance


def _bodies(graph: Graph, prefix: str) -> Iterator[tuple[str, Graph]]:
    yield prefix, graph
    for node in graph.nodes:
        for alternative in node.alternatives:
            yield from _bodies(alternative.body, f"{prefix}{node.name}[{alternative.label}]/")


def _filter_norms(op: Op, weight: Array) -> npt.NDArray[np.float64]:
    """Returns the L2 norm of the weights behind each output channel."""
    squares = np.square(weight.astype(np.float64))
    if isinstance(op, ConvTranspose2d):
        grouped = squares.reshape(op.groups, weight.shape[0] // op.groups, weight.shape[1], -1)
        norms: npt.NDArray[np.float64] = np.sqrt(grouped.sum(axis=(1, 3)).reshape(-1))
    else:
        norms = np.sqrt(squares.reshape(len(weight), -1).sum(axis=1))
    return norms


def _changed_widths(node: Node, groups: ChannelGroups, kept: Mapping[str, Indices]) -> dict[str, AttributeValue]:
    op = node.op
    reads, makes = kept.get(node.operands[0].name), kept.get(node.name)
    changes: dict[str, AttributeValue] = {}
    if isinstance(op, (Conv2d, ConvTranspose2d)):
        if makes is not None:
            changes["channels"] = len(makes)
        if reads is not None and is_depthwise(op, groups.width(node.operands[0].name)):
            changes["groups"] = len(reads)
    elif isinstance(op, Dense) and makes is not None:
        changes["features"] = len(makes)
    elif isinstance(op, Split) and op.axis == 1 and op.sizes and reads is not None:
        changes["sizes"] = tuple(len(kept.get(value.name, range(groups.width(value.name)))) for value in node.results)
    return changes


def _take(graph: Graph, groups: ChannelGroups, weights: Weights, chosen: Mapping[str, Indices]) -> dict[str, Array]:
    """Returns the weights with the chosen channels of each value, in the chosen order."""
    result = dict(weights)
    for prefix, node in graph.walk():
        reads, makes = chosen.get(prefix + node.operands[0].name), chosen.get(prefix + node.name)
        if node.alternatives or (reads is None and makes is None):
            continue
        op = largest_op(node)
        path = prefix + node.name
        width = groups.width(prefix + node.operands[0].name)
        for name, axis, indices in _axes(op, width, reads, makes):
            full = f"{path}.{name}"
            if indices is not None and full in result:
                result[full] = np.ascontiguousarray(np.take(result[full], indices, axis=axis))
    return result


def _axes(
    op: Op, width: int, reads: Indices | None, makes: Indices | None
) -> Iterator[tuple[str, int, Indices | None]]:
    """Yields (parameter, axis, indices): how a node's weights follow the channels it reads and makes."""
    if isinstance(op, BatchNorm):
        for name in ("scale", "bias", "mean", "variance"):
            yield name, 0, reads
        return
    if not isinstance(op, (Conv2d, ConvTranspose2d, Dense)):
        return
    yield "bias", 0, makes
    if isinstance(op, Dense):
        yield "weight", 0, makes
        yield "weight", 1, reads
    elif isinstance(op, Conv2d):
        yield "weight", 0, makes
        if not is_depthwise(op, width):
            yield "weight", 1, _first_part(reads, op.groups)
    else:
        yield "weight", 0, reads
        if not is_depthwise(op, width):
            yield "weight", 1, _first_part(makes, op.groups)


def _first_part(indices: Indices | None, groups: int) -> Indices | None:
    """Returns the choice within the first of a convolution's groups; it is the same in all of them."""
    return None if indices is None else indices[: len(indices) // groups]
