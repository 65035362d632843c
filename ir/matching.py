"""Which node of one graph is which node of another: by name, then by op and place."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from .graph import Graph, Node

__all__ = ["Matching", "match"]


@dataclass(frozen=True)
class Matching:
    """Pairs of nodes in the new graph's order, what is left on either side, and old value name -> new value name."""

    pairs: tuple[tuple[Node, Node], ...]
    removed: tuple[Node, ...]
    added: tuple[Node, ...]
    values: dict[str, str]


class _Matcher:
    def __init__(self, old: Graph, new: Graph) -> None:
        self.old, self.new = old, new
        self.partner: dict[str, Node] = {}
        """Old node by the new node's name."""
        self.values: dict[str, str] = {}
        self.left_old = {node.name: node for node in old.nodes}
        self.left_new = {node.name: node for node in new.nodes}
        self._pair_inputs()
        for name in [name for name in self.left_new if name in self.left_old]:
            self.pair(self.left_old[name], self.left_new[name])

    def _pair_inputs(self) -> None:
        """Pairs inputs of one name, then those left over by position."""
        old = [value.name for value in self.old.inputs]
        new = [value.name for value in self.new.inputs]
        self.values.update({name: name for name in old if name in new})
        rest = [name for name in new if name not in old]
        self.values.update(zip((name for name in old if name not in new), rest, strict=False))

    def pair(self, old: Node, new: Node) -> None:
        self.partner[new.name] = old
        del self.left_old[old.name], self.left_new[new.name]
        for before, after in zip(old.results, new.results, strict=False):
            self.values[before.name] = after.name

    def pair_equal(
        self, key_of_old: Callable[[Node], Hashable | None], key_of_new: Callable[[Node], Hashable | None]
    ) -> bool:
        """Pairs left-over nodes of equal keys (None: no key), in order; the keys may change with every pair."""
        found = False
        candidates: dict[Hashable, list[Node]] = {}
        for node in self.left_new.values():
            key = key_of_new(node)
            if key is not None:
                candidates.setdefault(key, []).append(node)
        for node in list(self.left_old.values()):
            key = key_of_old(node)
            if key is not None and candidates.get(key):
                self.pair(node, candidates[key].pop(0))
                found = True
        return found

    def run(self) -> None:
        """Pairs nodes that read, or are read by, the same places; every pair may make the next one certain."""

        def reads(node: Node) -> tuple[str | None, ...]:
            return tuple(self.values.get(value.name) for value in node.operands)

        def reads_new(node: Node) -> tuple[str | None, ...]:
            return tuple(value.name for value in node.operands)

        def used(graph: Graph, node: Node, named: Callable[[str], str | None]) -> Hashable | None:
            places = sorted(
                (known, position)
                for user in graph.users.get(node.name, ())
                for position, operand in enumerate(user.operands)
                if operand.name == node.name and (known := named(user.name)) is not None
            )
            returned = tuple(index for index, value in enumerate(graph.outputs) if value.name == node.name)
            return (tuple(places), returned) if places or returned else None

        def old_use(node: Node) -> Hashable | None:
            return used(self.old, node, self.values.get)

        def new_use(node: Node) -> Hashable | None:
            return used(self.new, node, lambda name: name if name in self.partner else None)

        def both(first: Hashable, second: Hashable | None) -> Hashable | None:
            return None if second is None else (first, second)

        while self.left_old and self.left_new:
            if not (
                self.pair_equal(lambda node: (node.op, reads(node)), lambda node: (node.op, reads_new(node)))
                or self.pair_equal(lambda node: both(node.op, old_use(node)), lambda node: both(node.op, new_use(node)))
                or self.pair_equal(
                    lambda node: both((type(node.op), reads(node)), old_use(node)),
                    lambda node: both((type(node.op), reads_new(node)), new_use(node)),
                )
            ):
                break


def match(old: Graph, new: Graph) -> Matching:
    """Returns which node of `old` became which of `new`.

    Nodes of one name belong together. Of those left over, nodes belong together that agree on op (attributes included)
    and operands, or on op and readers, or on the kind of op, operands and readers.
    """
    matcher = _Matcher(old, new)
    matcher.run()
    pairs = tuple((matcher.partner[node.name], node) for node in new.nodes if node.name in matcher.partner)
    return Matching(pairs, _in_order(matcher.left_old), _in_order(matcher.left_new), matcher.values)


def _in_order(left: dict[str, Node]) -> tuple[Node, ...]:
    nodes: Iterable[Node] = left.values()
    return tuple(nodes)
