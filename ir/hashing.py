"""Hashes of graphs: by content (names and logits included) and by architecture (blind to names and order)."""

from __future__ import annotations

import hashlib

from .errors import VerifyError
from .graph import Graph, Node
from .printer import to_text

__all__ = ["architecture_hash", "content_hash"]


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).hexdigest()


def content_hash(graph: Graph) -> str:
    """Returns 32 hex digits that two graphs share exactly when their text forms are equal."""
    return hashlib.blake2b(to_text(graph).encode(), digest_size=16).hexdigest()


def _describe(node: Node) -> str:
    return f"{node.op.text()}->{','.join([value.type.text for value in node.results])}"


def architecture_hash(graph: Graph) -> str:
    """Returns 16 hex digits that tell whether two networks are the same architecture.

    Blind to names and to the order of independent nodes; sees ops, attributes, types, and which operand is which
    (except where an op is commutative). As in Weisfeiler and Lehman's refinement, a node's label is made from its
    neighbours' labels; a graph in SSA form has no cycles, so one sweep from the inputs and one from the outputs
    reach every neighbourhood, and no number of rounds has to be chosen.

    Raises:
        VerifyError: the graph is a generator; its choices have to be decided first.
    """
    if graph.is_generator:
        raise VerifyError(
            f"@{graph.name} has open choices, so it is no single architecture",
            hint="materialize it with a seed first",
        )
    down: dict[str, str] = {}
    for position, value in enumerate(graph.inputs):
        down[value.name] = _digest("input", str(position), value.type.text)
    for node in graph.nodes:
        operands = [down[value.name] for value in node.operands]
        if node.op.commutative:
            operands.sort()
        label = _digest(_describe(node), *operands)
        for position, value in enumerate(node.results):
            down[value.name] = label if len(node.results) == 1 else _digest(label, str(position))
    reads: dict[str, list[str]] = {}
    for position, value in enumerate(graph.outputs):
        reads.setdefault(value.name, []).append(_digest("output", str(position)))
    labels = []
    for node in reversed(graph.nodes):
        uses = [_digest(str(index), *sorted(reads.get(value.name, ()))) for index, value in enumerate(node.results)]
        up = _digest(_describe(node), *uses)
        labels.append(_digest(down[node.results[0].name], up))
        for index, value in enumerate(node.operands):
            reads.setdefault(value.name, []).append(_digest(up, "" if node.op.commutative else str(index)))
    for value in graph.inputs:
        labels.append(_digest(down[value.name], *sorted(reads.get(value.name, ()))))
    return _digest(*sorted(labels))[:16]
