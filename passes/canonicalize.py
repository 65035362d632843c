"""`canonicalize`: the normal form of a graph. Exact: the function and the weights that matter stay."""

from __future__ import annotations

from gensynth.ir import BATCH, Graph, Network, Node, Value, pair, parameters_of
from gensynth.ir.ops import (
    AvgPool,
    ChannelShuffle,
    Concat,
    Dropout,
    Flatten,
    HardSigmoid,
    Identity,
    MaxPool,
    Pad,
    Relu,
    Relu6,
    Reshape,
    Resize,
    Sigmoid,
    Softmax,
    Split,
)

from .base import Pass, PassResult
from .rewriting import with_operands, without_unused_logits

__all__ = ["Canonicalize", "canonicalize"]

_NOT_NEGATIVE = (Relu, Relu6, Sigmoid, HardSigmoid, Softmax)
_WINDOWS = (AvgPool, MaxPool)
_MOVES = (ChannelShuffle, Concat, Flatten, Identity, Pad, Reshape, Resize, Split)
_SUSPECTS = frozenset({*_WINDOWS, *_MOVES, Dropout, Relu, Relu6})


def _forwards(node: Node, producers: dict[str, Node]) -> bool:
    """Whether a node of one operand and one result gives back its operand."""
    op = node.op
    operand = node.operands[0]
    if isinstance(op, Identity) or (isinstance(op, Dropout) and op.rate == 0.0):
        return True
    if isinstance(op, (Relu, Relu6)):
        producer = producers.get(operand.name)
        if producer is None:
            return False
        wanted = _NOT_NEGATIVE if isinstance(op, Relu) else (Relu6, Sigmoid, HardSigmoid, Softmax)
        return isinstance(producer.op, wanted)
    if operand.type is not node.result.type:
        return False
    if isinstance(op, (Flatten, Reshape)):
        return operand.type.shape[0] == BATCH
    if isinstance(op, (Concat, Split)):
        return len(node.operands) == 1 and len(node.results) == 1
    if isinstance(op, (Pad, Resize)):
        return True
    if isinstance(op, _WINDOWS):
        return pair(op.kernel) == (1, 1) and pair(op.steps) == (1, 1)
    if isinstance(op, ChannelShuffle):
        return op.groups in (1, operand.type.shape[1])
    return False


def canonicalize(graph: Graph) -> Graph:
    """Returns the graph without nodes that do nothing: forwarding ones and those that nothing reads.

    Shares every node that stays as it is, and returns `graph` itself where nothing changes.
    """
    forwarded: dict[str, Value] = {}
    producers: dict[str, Node] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        if forwarded and any([value.name in forwarded for value in node.operands]):
            node = with_operands(node, tuple([forwarded.get(value.name, value) for value in node.operands]))
        if type(node.op) in _SUSPECTS and not node.choices and _forwards(node, producers):
            forwarded[node.results[0].name] = node.operands[0]
            continue
        for value in node.results:
            producers[value.name] = node
        kept.append(node)
    outputs = tuple([forwarded.get(value.name, value) for value in graph.outputs])
    live = {value.name for value in outputs}
    alive: list[Node] = []
    for node in reversed(kept):
        if len(node.results) == 1:
            if node.results[0].name not in live:
                continue
        elif not any([value.name in live for value in node.results]):
            continue
        alive.append(node)
        for value in node.operands:
            live.add(value.name)
    if len(alive) == len(graph.nodes) and not forwarded:
        return graph
    alive.reverse()
    result = graph.replace(nodes=tuple(alive), outputs=outputs)
    return without_unused_logits(result) if graph.logits else result


class Canonicalize(Pass, name="canonicalize"):
    """Removes nodes that do nothing: identities, no-op pads, reshapes and shuffles, repeated relus, dead nodes.

        %b = identity(%a)
        %c = relu(%b)           -->      %c = relu(%a)
        %d = relu(%c)
        return %d                        return %c

    Exact; the weights of dead nodes are dropped. Alternatives of a generator are not entered.
    """

    def run(self, network: Network) -> PassResult:
        """Returns the canonical network."""
        graph = canonicalize(network.graph)
        if graph is network.graph:
            return PassResult(network, False)
        weights = network.weights
        if weights is not None:
            wanted = {name for name, _ in parameters_of(graph)}
            weights = {name: array for name, array in weights.items() if name in wanted}
        removed = len(network.graph.nodes) - len(graph.nodes)
        return PassResult(Network(graph, weights), True, (f"{removed} nodes removed",))
