"""`bypass-block`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar
from weakref import WeakKeyDictionary

from gensynth.ir import Graph, Node, Value
from gensynth.ir.ops import ChannelShuffle, Conv2d

from ..base import option
from ..rules import Carry, Match, Rewriter, RewriteRule, matches_op, matches_where
from .spots import ACTIVATIONS, after_unit, one_node, read_outside_reason, sole_user

__all__ = ["BypassBlock"]


@dataclass(frozen=True)
class _Block:
    """A stretch of the graph, and the reason why it cannot be left out, if there is one."""

    match: Match
    names: frozenset[str]
    reason: str | None


class BypassBlock(RewriteRule, name="bypass-block"):
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

    def match(self, graph: Graph, node: Node) -> Match | None:
        blocks = self._blocks(graph)
        block = blocks.get(node.name)
        if block is None:
            return None
        around = (other for other in blocks.values() if other.reason is None and node.name in other.names)
        if any(block.names < other.names and matches_where(other.match.name, self.where) for other in around):
            return None
        return block.match

    def check(self, graph: Graph, match: Match) -> str | None:
        return self._blocks(graph)[match.root.name].reason

    def rewrite(self, match: Match, build: Rewriter) -> Value:
        return match.inputs[0]

    def _blocks(self, graph: Graph) -> dict[str, _Block]:
        memo = _memo.setdefault(graph, {})
        if self.plain not in memo:
            memo[self.plain] = {block.match.root.name: block for block in _find(graph, self.plain)}
        return memo[self.plain]


_memo: WeakKeyDictionary[Graph, dict[bool, dict[str, _Block]]] = WeakKeyDictionary()


def _find(graph: Graph, plain: bool) -> Iterator[_Block]:
    above = _dominators(graph)
    for node in graph.nodes:
        if node.alternatives or len(node.results) != 1 or one_node(graph, node) is None:
            continue
        if plain and matches_op(node, Conv2d):
            entry, nodes = node.operands[0], {node.name: node}
            last = after_unit(graph, node)
            while node is not last:
                node = graph.users[node.name][0]
                nodes[node.name] = node
        elif len(set(node.operands)) > 1:
            start = _entry(graph, above, node)
            if start is None:
                continue
            entry, nodes = _widen(graph, start, _between(graph, start, node), node.result)
            tail = sole_user(graph, node)
            while tail is not None and matches_op(tail, *ACTIVATIONS, ChannelShuffle):
                nodes[tail.name] = node = tail
                tail = sole_user(graph, node)
        else:
            continue
        match = Match.of(graph, tuple(nodes.values()))
        if not match.outputs:  # it ends in a tail that nothing reads
            continue
        reason = read_outside_reason(graph, match)
        if entry.type is not node.result.type:
            reason = f"it takes {entry.type} and gives {node.result.type}; only equal types can be passed through"
        yield _Block(match, frozenset(nodes), reason)


def _dominators(graph: Graph) -> dict[str, str]:
    """Returns the nearest dominator of every node and input, by name; the empty name stands above the inputs.

    One node dominates another when every path from the inputs to the other leads through it.
    """
    above = {value.name: "" for value in graph.inputs}
    depth = {"": 0, **dict.fromkeys(above, 1)}

    def meet(left: str, right: str) -> str:
        while left != right:
            if depth[left] < depth[right]:
                left, right = right, left
            left = above[left]
        return left

    for node in graph.nodes:
        above[node.name] = found = reduce(meet, [_maker(graph, value) for value in node.operands])
        depth[node.name] = depth[found] + 1
    return above


def _maker(graph: Graph, value: Value) -> str:
    node = graph.producers.get(value.name)
    return value.name if node is None else node.name


def _entry(graph: Graph, above: dict[str, str], node: Node) -> Value | None:
    """Returns the value that all paths to a node come from; of a split node, what it cuts."""
    name = above[node.name]
    while name:
        source = graph.producers.get(name)
        if source is None or len(source.results) == 1:
            return graph.values[name]
        if len(source.operands) == 1:
            return source.operands[0]
        name = above[name]
    return None


def _between(graph: Graph, entry: Value, last: Node) -> dict[str, Node]:
    """Returns the nodes on the paths from a value to a node that it dominates, the node included."""
    nodes: dict[str, Node] = {}
    waiting = [last]
    while waiting:
        node = waiting.pop()
        if node.name not in nodes:
            nodes[node.name] = node
            waiting += [graph.producers[value.name] for value in node.operands if value.name != entry.name]
    return nodes


def _widen(graph: Graph, entry: Value, nodes: dict[str, Node], end: Value) -> tuple[Value, dict[str, Node]]:
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
