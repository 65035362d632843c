"""Blocks: stretches of a graph from one value to where branches that began there meet again, and rules on them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Generic, TypeVar
from weakref import ReferenceType, WeakKeyDictionary, ref

from gensynth.ir import Graph, Node, Value
from gensynth.ir.ops import ChannelShuffle

from ..rules import Match, RewriteRule, matches_op, matches_where
from .spots import ACTIVATIONS, one_node, sole_user

__all__ = ["Block", "BlockRule", "BlockSpot", "GraphMemo", "joined_blocks"]

FoundT = TypeVar("FoundT")


class GraphMemo(Generic[FoundT]):
    """What was found in graphs, kept while they live.

    It is that of the very graph: an equal one may have nodes of other origins, and they are how open attributes are
    found again when a rule has been offered.
    """

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Graph, tuple[ReferenceType[Graph], dict[Hashable, FoundT]]] = WeakKeyDictionary()

    def get(self, graph: Graph, key: Hashable, find: Callable[[], FoundT]) -> FoundT:
        """Returns what `find` returned for this graph and key when it was first asked for."""
        known = self._known.get(graph)
        if known is None or known[0]() is not graph:
            self._known.pop(graph, None)  # an equal graph would stay the key
            known = self._known[graph] = ref(graph), {}
        found = known[1]
        if key not in found:
            found[key] = find()
        return found[key]


@dataclass(frozen=True)
class Block:
    """A stretch of the graph: the one value that it reads, its nodes by name, and the node that ends it.

    `join` is the node where its branches meet, `tail` it or the activation or shuffle behind it.
    """

    entry: Value
    nodes: Mapping[str, Node]
    join: Node
    tail: Node


@dataclass(frozen=True)
class BlockSpot:
    """A spot of a rule on blocks, the names of its nodes, and the reason against it, if there is one."""

    match: Match
    names: frozenset[str]
    reason: str | None

    @classmethod
    def by_name(cls, spots: Iterable[BlockSpot]) -> dict[str, BlockSpot]:
        """Returns spots by the names of their last nodes."""
        return {spot.match.root.name: spot for spot in spots}


class BlockRule(RewriteRule):
    """A rule on blocks. Of those inside one another it takes the outermost fit one that `where` lets through."""

    @abstractmethod
    def found(self, graph: Graph) -> Mapping[str, BlockSpot]:
        """Returns every spot of a graph by the name of its last node. Memoized."""

    def match(self, graph: Graph, node: Node) -> Match | None:
        spots = self.found(graph)
        spot = spots.get(node.name)
        if spot is None:
            return None
        around = (other for other in spots.values() if other.reason is None and node.name in other.names)
        if any(spot.names < other.names and matches_where(other.match.name, self.where) for other in around):
            return None
        return spot.match

    def check(self, graph: Graph, match: Match) -> str | None:
        return self.found(graph)[match.root.name].reason


_joined: GraphMemo[tuple[Block, ...]] = GraphMemo()


def joined_blocks(graph: Graph) -> tuple[Block, ...]:
    """Returns the block of every node that reads several values, in graph order. Memoized.

    A block begins at the nearest dominator of that node, the last value through which all paths to it lead, and ends
    with the activation or shuffle that alone reads it. A `choose` counts as one node.
    """
    return _joined.get(graph, None, lambda: tuple(_find(graph)))


def _find(graph: Graph) -> Iterator[Block]:
    above = _dominators(graph)
    for node in graph.nodes:
        if node.alternatives or len(node.results) != 1 or one_node(graph, node) is None:
            continue
        if len(set(node.operands)) < 2:
            continue
        entry = _entry(graph, above, node)
        if entry is None:
            continue
        nodes, tail = _between(graph, entry, node), node
        following = sole_user(graph, tail)
        while following is not None and matches_op(following, *ACTIVATIONS, ChannelShuffle):
            nodes[following.name] = tail = following
            following = sole_user(graph, tail)
        yield Block(entry, nodes, node, tail)


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
