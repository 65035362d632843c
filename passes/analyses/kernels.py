"""Kernels: how a runtime with fused kernels executes a network, whatever the machine.

A kernel is one op that needs a loop of its own, its *anchor*, and the pointwise ops that follow it and can be done
while the result is at hand: a convolution, its norm, its activation and the addition of a shortcut are one kernel.
Ops that only give values other names or places (`identity`, `concat`, ...) are no kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

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

__all__ = ["Kernel", "group_kernels", "is_pointwise", "only_renames"]

_UNARY: tuple[type[Op], ...] = (BatchNorm, HardSigmoid, HardSwish, LeakyRelu, Relu, Relu6, Sigmoid, Silu)
_BINARY: tuple[type[Op], ...] = (Add, Mul)
_RENAMING: tuple[type[Op], ...] = (Concat, Dropout, Flatten, Identity, Reshape, Split)


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


class _Open:
    """A kernel that may still grow."""

    def __init__(self, node: Node, anchor: Node | None, operands: tuple[Value, ...]) -> None:
        self.nodes = [node]
        self.anchor = anchor
        self.operands = list(operands)

    def close(self) -> Kernel:
        return Kernel(tuple(self.nodes), self.anchor, tuple(self.operands))


def group_kernels(graph: Graph) -> tuple[Kernel, ...]:
    """Returns the kernels of a network in the order in which they can run, renaming nodes among them.

    A pointwise node joins the kernel that makes one of its operands if nothing else reads that operand and the shape
    stays; of two such kernels the later, so that what the other makes is there.

    Raises:
        PassError: the graph is a generator.
    """
    if graph.is_generator:
        raise PassError(
            f"@{graph.name} has open choices, so it has no kernels yet", hint="materialize it with a seed first"
        )
    order: dict[int, int] = {}
    finished: list[_Open | Kernel] = []
    growing: dict[str, _Open] = {}
    for index, node in enumerate(graph.nodes):
        if only_renames(node.op):
            finished.append(Kernel((node,), node, node.operands, renames=True))
            order[id(finished[-1])] = index
            continue
        host = _host(graph, node, growing, order)
        if host is not None:
            taken = _growing_value(host)
            host.nodes.append(node)
            host.operands += [value for value in node.operands if value.name != taken.name]
        elif is_pointwise(node.op):
            host = _Open(node, None, _starting_first(node))
            finished.append(host)
        else:
            host = _Open(node, node, node.operands)
            finished.append(host)
        growing[node.result.name] = host
        order[id(host)] = index
    finished.sort(key=lambda item: order[id(item)])
    return tuple(item.close() if isinstance(item, _Open) else item for item in finished)


def _growing_value(kernel: _Open) -> Value:
    """Returns the value that a kernel makes so far."""
    return kernel.nodes[-1].result


def _host(graph: Graph, node: Node, growing: dict[str, _Open], order: dict[int, int]) -> _Open | None:
    """Returns the kernel that a pointwise node can join."""
    if not is_pointwise(node.op):
        return None
    fitting = [
        growing[value.name]
        for value in dict.fromkeys(node.operands)
        if value.name in growing
        and graph.users[value.name] == (node,)
        and node.operands.count(value) == 1
        and value.name not in graph.output_names
        and value.type is node.result.type
    ]
    return max(fitting, key=lambda kernel: order[id(kernel)], default=None)


def _starting_first(node: Node) -> tuple[Value, ...]:
    """Returns the operands, one of the result's full shape first."""
    full = [value for value in node.operands if value.type is node.result.type]
    if not full or len(node.operands) == 1:
        return node.operands
    rest = list(node.operands)
    rest.remove(full[0])
    return (full[0], *rest)
