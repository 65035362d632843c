"""`fold-zeros`: sums with zeros, and what only fed them."""

from __future__ import annotations

from collections.abc import Mapping

from gensynth.ir import Graph, Network, Node, TensorType, Value, parameters_of
from gensynth.ir.ops import Add, AvgPool, Pad, Relu, Split

from .base import Pass, PassResult
from .canonicalize import canonicalize
from .rewriting import with_operands

__all__ = ["FoldZeros", "cut_zeros", "fold_zeros", "gives_zeros"]


class FoldZeros(Pass, name="fold-zeros"):
    """Removes sums with zeros, pools and rectifiers of zeros, and all that then nothing reads.

    Zeros are rows of padding cut off again, as the `none` of NAS-Bench-201 makes them. They stay where another op reads
    them, such as a convolution, whose batch norm shifts them; each shape's are made once. The function is the same,
    bit by bit.
    """

    def run(self, network: Network) -> PassResult:
        """Returns the network without them."""
        graph = fold_zeros(network.graph)
        if graph is network.graph:
            return PassResult(network, False)
        weights = network.weights
        if weights is not None:
            weights = {name: weights[name] for name, _ in parameters_of(graph)}
        gone = len(network.graph.nodes) - len(graph.nodes)
        return PassResult(Network(graph, weights), True, (f"{gone} nodes removed",))


def fold_zeros(graph: Graph) -> Graph:
    """Returns the graph without sums with zeros; the same object where it has no zeros."""
    if not any(type(node.op) is Pad for node in graph.nodes):
        return graph
    padded: dict[str, int] = {}
    zeros: dict[TensorType, Value] = {}
    forwarded: dict[str, Value] = {}
    kept: list[Node] = []
    found = False
    for node in graph.nodes:
        node = with_operands(node, tuple(forwarded.get(value.name, value) for value in node.operands))
        stands_for = _forwarded(node, zeros)
        if stands_for is None and _gives_zeros(node, padded):
            stands_for = zeros.setdefault(node.results[0].type, node.results[0])
        if stands_for is not None and stands_for is not node.results[0]:
            forwarded[node.name] = stands_for
            found = True
            continue
        if isinstance(node.op, Pad) and node.op.value == 0.0:
            padded[node.name] = node.op.pads()[0]
        kept.append(node)
    if not found:
        return graph
    outputs = tuple(forwarded.get(value.name, value) for value in graph.outputs)
    return canonicalize(graph.replace(nodes=tuple(kept), outputs=outputs))


def cut_zeros(graph: Graph) -> Graph:
    """Returns the graph as a runtime has it that leaves out sums to which zeros are added.

    `x + zeros` is x, and what only fed the zeros goes; `zeros + x`, and ops that read zeros, stay. Where no output then
    depends on an input, all is constant and no node is left. The function is the same.
    """
    if not any(type(node.op) is Pad for node in graph.nodes):
        return graph
    padded: dict[str, int] = {}
    zeros: set[str] = set()
    instead: dict[str, Value] = {}
    varying = {value.name for value in graph.inputs}
    kept: list[Node] = []
    for node in graph.nodes:
        node = with_operands(node, tuple([instead.get(value.name, value) for value in node.operands]))
        if isinstance(node.op, Pad) and node.op.value == 0.0:
            padded[node.name] = node.op.pads()[0]
        if _gives_zeros(node, padded):
            zeros.add(node.name)
        elif isinstance(node.op, Add) and node.operands[1].name in zeros:
            instead[node.name] = node.operands[0]
            continue
        elif any(value.name in varying for value in node.operands):
            varying.update(value.name for value in node.results)
        kept.append(node)
    outputs = tuple([instead.get(value.name, value) for value in graph.outputs])
    if not any(value.name in varying for value in outputs):
        return graph.replace(nodes=(), outputs=graph.inputs[:1])
    # Zeros are constants: they need nothing of what their rows of padding were put on.
    read = {value.name for value in outputs}
    padding: set[str] = set()
    live: list[Node] = []
    for node in reversed(kept):
        if any(value.name in read for value in node.results):
            live.append(node)
            (padding if node.name in zeros else read).update(value.name for value in node.operands)
        elif node.name in padding:
            live.append(node)
    return graph.replace(nodes=tuple(reversed(live)), outputs=outputs)


def gives_zeros(graph: Graph) -> bool:
    """Whether every output of a graph is zeros, made as rows of padding cut off again."""
    padded: dict[str, int] = {}
    zeros: set[str] = set()
    for node in graph.nodes:
        if isinstance(node.op, Pad) and node.op.value == 0.0:
            padded[node.name] = node.op.pads()[0]
        elif _gives_zeros(node, padded):
            zeros.add(node.name)
    return all(value.name in zeros for value in graph.outputs)


def _gives_zeros(node: Node, padded: Mapping[str, int]) -> bool:
    """Returns whether a node cuts off rows of padding."""
    if not isinstance(node.op, Split) or node.op.axis != 2:
        return False
    return node.results[0].type.sizes()[2] <= padded.get(node.operands[0].name, 0)


def _forwarded(node: Node, zeros: Mapping[TensorType, Value]) -> Value | None:
    """Returns the operand that a node's result equals because an operand is zero, or None."""
    operands = node.operands
    zero = [zeros.get(value.type) == value for value in operands]
    if isinstance(node.op, Add) and any(zero):
        other = operands[1 - zero.index(True)]
    elif isinstance(node.op, (AvgPool, Relu)) and zero[0]:
        other = operands[0]
    else:
        return None
    return other if other.type is node.results[0].type else None
