"""Kernels: how a runtime with fused kernels executes a network, whatever the machine.

A kernel is one op that needs a loop of its own, its *anchor*, and the pointwise ops that follow it and can be done
while the result is at hand: a convolution, its norm, its activation and the addition of a shortcut are one kernel.
Ops that only give values other names or places (`identity`, `concat`, ...) are no kernels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import itemgetter

from gensynth.ir import Graph, Node, Op, PassError, Value
from gensynth.ir.ops import (
    Add,
    BatchNorm,
    Concat,
    Dropout,
    Flatten,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyRelu,
    Mul,
    Relu,
    Relu6,
    Reshape,
    Sigmoid,
    Silu,
    Split,
)

__all__ = ["JOINING", "RENAMING", "Kernel", "group_kernels", "group_nodes", "is_pointwise", "only_renames"]

_UNARY: tuple[type[Op], ...] = (BatchNorm, HardSigmoid, HardSwish, LeakyRelu, Relu, Relu6, Sigmoid, Silu)
_BINARY: tuple[type[Op], ...] = (Add, Mul)
_RENAMING: tuple[type[Op], ...] = (Concat, Dropout, Flatten, Identity, Reshape, Split)

JOINING: frozenset[type[Op]] = frozenset(_UNARY + _BINARY)
"""Pointwise ops: each element of the result depends on one element of every operand."""
RENAMING: frozenset[type[Op]] = frozenset(_RENAMING)
"""Ops that compute nothing: their results are their operands under other names, cut or joined."""


@dataclass(frozen=True)
class Kernel:
    """One kernel, or one node that only renames (`anchor` with `renames`).

    `nodes` are the nodes it computes, in order. `anchor` is the first of them unless all are pointwise; then it is None
    and the kernel starts from `operands[0]`. `operands` are the values it reads: the anchor's, then one for each `add`
    or `mul` among the steps, in order.
    """

    nodes: tuple[Node, ...]
    anchor: Node | None
    operands: tuple[Value, ...]
    renames: bool = False

    @property
    def steps(self) -> tuple[Node, ...]:
        """The pointwise nodes after the anchor."""
        return self.nodes if self.anchor is None else self.nodes[1:]

    @property
    def result(self) -> Value:
        """What the kernel makes."""
        return self.nodes[-1].result

    @property
    def name(self) -> str:
        """The name of the first node."""
        return self.nodes[0].name


def is_pointwise(op: Op) -> bool:
    """Returns whether each element of the result depends on one element of every operand, so that it can be fused."""
    return isinstance(op, _UNARY + _BINARY)


def only_renames(op: Op) -> bool:
    """Returns whether an op computes nothing: its results are its operands under other names, cut or joined."""
    return isinstance(op, _RENAMING)


def group_nodes(
    graph: Graph, joins: Collection[type[Op]] = JOINING, free: Collection[type[Op]] = RENAMING
) -> list[list[Node]]:
    """Returns the nodes of each kernel of a network, in the order in which the kernels can run.

    A node whose op is in `joins` joins the kernel that makes one of its operands if nothing else reads that operand and
    the shape stays; of two such kernels the later, so that what the other makes is there. Nodes whose op is in `free`
    take no kernel, and are left out.

    Raises:
        PassError: the graph is a generator.
    """
    if graph.is_generator:
        raise PassError(
            f"@{graph.name} has open choices, so it has no kernels yet", hint="materialize it with a seed first"
        )
    reads = Counter([value.name for node in graph.nodes for value in node.operands])
    reads.update([value.name for value in graph.outputs])
    kernels: list[list[Node]] = []
    last: list[int] = []
    growing: dict[str, int] = {}
    in_order = True
    for index, node in enumerate(graph.nodes):
        kind = type(node.op)
        if kind in free:
            continue
        result = node.results[0]
        host = -1
        if kind in joins:
            for value in node.operands:
                maker = growing.get(value.name, -1)
                if (
                    maker >= 0
                    and value.type is result.type
                    and reads[value.name] == 1
                    and (host < 0 or last[maker] > last[host])
                ):
                    host = maker
        if host < 0:
            host = len(kernels)
            kernels.append([node])
            last.append(index)
        else:
            kernels[host].append(node)
            last[host] = index
            in_order = in_order and host == len(kernels) - 1
        growing[result.name] = host
    return kernels if in_order else [kernels[host] for host in sorted(range(len(kernels)), key=last.__getitem__)]


def group_kernels(graph: Graph) -> tuple[Kernel, ...]:
    """Returns the kernels of a network in the order in which they can run, renaming nodes among them.

    See `group_nodes` for what goes into one kernel.

    Raises:
        PassError: the graph is a generator.
    """
    position = {node.name: index for index, node in enumerate(graph.nodes)}
    found = [(position[nodes[-1].name], _kernel(nodes)) for nodes in group_nodes(graph)]
    for index, node in enumerate(graph.nodes):
        if only_renames(node.op):
            found.append((index, Kernel((node,), node, node.operands, renames=True)))
    found.sort(key=itemgetter(0))
    return tuple(kernel for _, kernel in found)


def _kernel(nodes: Sequence[Node]) -> Kernel:
    first = nodes[0]
    pointwise = is_pointwise(first.op)
    operands = list(_starting_first(first) if pointwise else first.operands)
    grown = first.result.name
    for node in nodes[1:]:
        operands += [value for value in node.operands if value.name != grown]
        grown = node.result.name
    return Kernel(tuple(nodes), None if pointwise else first, tuple(operands))


def _starting_first(node: Node) -> tuple[Value, ...]:
    """Returns the operands, one of the result's full shape first."""
    full = [value for value in node.operands if value.type is node.result.type]
    if not full or len(node.operands) == 1:
        return node.operands
    rest = list(node.operands)
    rest.remove(full[0])
    return (full[0], *rest)
