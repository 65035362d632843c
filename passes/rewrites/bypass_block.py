"""`bypass-block`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from gensynth.ir import Graph, Node, Value
from gensynth.ir.ops import Conv2d

from ..base import option
from ..rules import Carry, Match, Rewriter, matches_op
from .blocks import BlockRule, BlockSpot, GraphMemo, joined_blocks
from .spots import after_unit, one_node, read_outside_reason

__all__ = ["BypassBlock"]

_found: GraphMemo[Mapping[str, BlockSpot]] = GraphMemo()


class BypassBlock(BlockRule, name="bypass-block"):
    """Leaves a block out: what it read takes the place of what it made.

        %a   = conv2d(%x) {channels=16, kernel=3, padding=same}
        %b   = relu(%a)
        %c   = conv2d(%b) {channels=16, kernel=3, padding=same}
        %sum = add(%c, %x)
        %y   = relu(%sum)
        %z   = conv2d(%y) {channels=32, kernel=3}
        -->
        %z   = conv2d(%x) {channels=32, kernel=3}

    A block is where branches meet again: from the one value through which all paths to an add, mul or concat lead (its
    nearest dominator) to that node and the activation or shuffle that alone reads it. Where the types of both ends
    differ, the start moves up the chain of nodes before it until they agree. Of blocks inside one another the
    outermost is taken. A `choose` counts as one node. The weights of the block are dropped, so the function changes by
    what the block added.
    """

    carries: ClassVar[Carry] = Carry.APPROXIMATE
    plain: bool = option(default=False, help="count a convolution with its norm and activation as a block too")

    def found(self, graph: Graph) -> Mapping[str, BlockSpot]:
        return _found.get(graph, self.plain, lambda: BlockSpot.by_name(_find(graph, self.plain)))

    def rewrite(self, match: Match, build: Rewriter) -> Value:
        return match.inputs[0]


def _find(graph: Graph, plain: bool) -> Iterator[BlockSpot]:
    joined = {block.join.name: block for block in joined_blocks(graph)}
    for node in graph.nodes:
        if node.name in joined:
            block = joined[node.name]
            entry, nodes = _widen(graph, block.entry, block.nodes, node.result)
            node = block.tail
        elif plain and matches_op(node, Conv2d) and one_node(graph, node) is not None:
            last = after_unit(graph, node)
            entry, unit = node.operands[0], {node.name: node}
            while node is not last:
                node = graph.users[node.name][0]
                unit[node.name] = node
            nodes = unit
        else:
            continue
        match = Match.of(graph, tuple(nodes.values()))
        if not match.outputs:  # it ends in a tail that nothing reads
            continue
        reason = read_outside_reason(graph, match)
        if entry.type is not node.result.type:
            reason = f"it takes {entry.type} and gives {node.result.type}; only equal types can be passed through"
        yield BlockSpot(match, frozenset(nodes), reason)


def _widen(graph: Graph, entry: Value, nodes: Mapping[str, Node], end: Value) -> tuple[Value, Mapping[str, Node]]:
    """Returns a stretch begun earlier, up a chain that nothing else reads, if so the types of its ends agree."""
    start, wider = entry, dict(nodes)
    while start.type is not end.type:
        node = graph.producers.get(start.name)
        if node is None or len(node.operands) != 1 or start.name in graph.output_names:
            return entry, nodes
        if any(user.name not in wider for value in node.results for user in graph.users.get(value.name, ())):
            return entry, nodes
        wider[node.name] = node
        start = node.operands[0]
    return start, wider
