"""What the rules share in finding and judging spots."""

from __future__ import annotations

from gensynth.ir import Graph, Node, Pair, UsageError, pair
from gensynth.ir.ops import BatchNorm, HardSwish, LeakyRelu, Relu, Relu6, Silu

from ..rules import Match

__all__ = [
    "ACTIVATIONS",
    "after_unit",
    "one_node",
    "read_outside_reason",
    "require_ratio",
    "share",
    "sole_user",
    "times",
]

ACTIVATIONS = (Relu, Relu6, LeakyRelu, Silu, HardSwish)
"""Activations that stand between layers (those that gate are not among them)."""


def one_node(graph: Graph, node: Node) -> Match | None:
    """Returns the match of one node alone, or None where nothing reads it."""
    match = Match(
        (node,),
        tuple(dict.fromkeys(node.operands)),
        tuple(value for value in node.results if value.name in graph.users or value.name in graph.output_names),
    )
    return match if match.outputs else None


def sole_user(graph: Graph, node: Node) -> Node | None:
    """Returns the one node that reads a node's one result, or None where there are others, or an output is read."""
    users = graph.users.get(node.name, ())
    return users[0] if len(node.results) == len(users) == 1 and node.name not in graph.output_names else None


def after_unit(graph: Graph, node: Node) -> Node:
    """Returns the last node of a convolution's unit: the batch norm and the activation that alone read it, if any."""
    for kinds in ((BatchNorm,), ACTIVATIONS):
        user = sole_user(graph, node)
        if user is not None and isinstance(user.op, kinds):
            node = user
    return node


def read_outside_reason(graph: Graph, match: Match) -> str | None:
    """Returns why a spot with one output cannot be taken: something before its last node is read outside too."""
    for value in match.outputs:
        if value in match.root.results:
            continue
        if value.name in graph.output_names:
            return f"%{value.name} is an output of the network"
        inside = {node.name for node in match.nodes}
        user = next(user.name for user in graph.users[value.name] if user.name not in inside)
        return f"%{value.name} is read by %{user} too"
    return None


def times(size: Pair) -> str:
    """Returns a pair in words: `3 x 1`."""
    rows, columns = pair(size)
    return f"{rows} x {columns}"


def share(ratio: float, width: int) -> int:
    """Returns the ratio of a width, at least 1."""
    return max(1, round(ratio * width))


def require_ratio(rule: str, ratio: float, most: float = 1.0) -> None:
    """Checks a ratio option.

    Raises:
        UsageError: it is not above 0 and at most `most`.
    """
    if not 0.0 < ratio <= most:
        raise UsageError(f"{rule}: ratio must lie above 0 and at most {most:g}, got {ratio:g}", hint="write ratio=0.5")
