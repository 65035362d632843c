"""The kernels of a network as a runtime executes them: what a device model sees of it.

A runtime's *lowering* says what becomes of the graph: which ops join the kernel before them, which take no kernel at
all, whether what is dead goes. A *workload* is the kernels that are left, each as the few numbers on which its time and
energy depend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gensynth.ir import Graph, Node, Op, TensorType, UsageError, Value, nearest, pair
from gensynth.ir.ops import (
    Add,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyRelu,
    LocalResponseNorm,
    MaxPool,
    Mul,
    Pad,
    Relu,
    Relu6,
    Reshape,
    Resize,
    Sigmoid,
    Silu,
    Softmax,
    Split,
)

from ..analyses.kernels import group_nodes
from ..fold_zeros import cut_zeros, fold_zeros
from ..rewriting import with_operands
from .counts import node_cost

__all__ = ["KINDS", "LOWERINGS", "Kernel", "KernelShape", "Lowering", "kernel_shape", "kernel_shapes", "kernels_of"]

KINDS = (
    "conv3x3",
    "conv1x1",
    "conv",
    "conv_transpose",
    "grouped",
    "depthwise",
    "dense",
    "pool",
    "global_pool",
    "sum",
    "fresh_sum",
    "activation",
    "norm",
    "local_norm",
    "softmax",
    "shuffle",
    "resize",
    "copy",
    "skip",
    "other",
)
"""What a kernel is by the op that begins it. `conv` is a convolution of another size than 3 x 3 and 1 x 1; `grouped`
has fewer than `FEW_CHANNELS` channels a group, `depthwise` one; `fresh_sum` is a sum whose last operand a convolution
has just made for it alone, which some runtimes do in part along with it; `copy` moves (concat, pad, split where they
take a kernel), `skip` is an identity that takes one; `other` is an op that is not GenSynth's own."""

FEW_CHANNELS = 8

ZEROS = ("kept", "cut", "removed")
_JOINING = ("norms", "activations", "sums")
_FREE = ("identities", "reshapes", "splits", "concats")
_ROLES: Mapping[str, tuple[type[Op], ...]] = {
    "norms": (BatchNorm,),
    "activations": (HardSigmoid, HardSwish, LeakyRelu, Relu, Relu6, Sigmoid, Silu),
    "sums": (Add, Mul),
    "identities": (Identity,),
    "reshapes": (Flatten, Reshape),
    "splits": (Split,),
    "concats": (Concat,),
}
"""The words of a lowering, and the ops that each stands for."""


@dataclass(frozen=True)
class Lowering:
    """How a runtime turns a graph into kernels.

    `joins` (of norms, activations, sums) are computed by the kernel that makes their operand; batch norms that join are
    folded into its weights. `free` (of identities, reshapes, splits, concats) take no kernel. `zeros` says what becomes
    of zeros that a graph makes by itself, as the `none` of NAS-Bench-201: they are `kept`; or sums to which they are
    added are `cut`, with all that only fed them, and a network whose output no longer depends on its input takes no
    kernel; or all is `removed` that `fold-zeros` removes. With `equal_pools_merged`, equal pools of one value are one.
    """

    joins: tuple[str, ...] = ("norms", "activations", "sums")
    free: tuple[str, ...] = ("identities", "reshapes", "splits", "concats")
    zeros: str = "removed"
    equal_pools_merged: bool = True

    def __post_init__(self) -> None:
        for field, words, known in (
            ("joins", self.joins, _JOINING),
            ("free", self.free, _FREE),
            ("zeros", (self.zeros,), ZEROS),
        ):
            for word in words:
                if word not in known:
                    raise UsageError(f"a lowering's {field}: '{word}'", hint=nearest(word, known, what="words"))

    @property
    def name(self) -> str | None:
        """The name of the lowering among `LOWERINGS`, or None."""
        return next((name for name, known in LOWERINGS.items() if known == self), None)

    def joining(self) -> frozenset[type[Op]]:
        """Returns the ops that join."""
        return frozenset(op for word in self.joins for op in _ROLES[word])

    def taking_none(self) -> frozenset[type[Op]]:
        """Returns the ops that take no kernel."""
        return frozenset({Dropout, *(op for word in self.free for op in _ROLES[word])})


_FOLDED = ("norms", "activations")
LOWERINGS: Mapping[str, Lowering] = {
    "fused": Lowering(),
    "fused-cut": Lowering(zeros="cut"),
    "folded": Lowering(joins=_FOLDED),
    "folded-cut": Lowering(joins=_FOLDED, zeros="cut"),
    "folded-kept": Lowering(joins=_FOLDED, zeros="kept"),
    "eager-cut": Lowering(joins=("norms",), zeros="cut", equal_pools_merged=False),
    "eager": Lowering(joins=("norms",), zeros="kept", equal_pools_merged=False),
}
"""Lowerings by name. `fused` is a compiler's, GenSynth's own among them; where `folded` ones differ from it, sums are
kernels of their own; `eager` ones run op by op. A fit to measurements chooses among them where nothing is known."""


class KernelShape(NamedTuple):
    """What a kernel's time and energy depend on, for one sample; counts of elements, not bytes.

    `reduction` is how many products are summed for an element of a convolution or dense layer, `channels` how many
    channels of the output a group has. `read` and `written` are activations, `weights` every stored weight.
    `operations` is all arithmetic, 2 a MAC, that of joined ops included.
    """

    kind: str
    macs: int
    outputs: int
    reduction: int
    channels: int
    read: int
    written: int
    weights: int
    operations: int


class Kernel(NamedTuple):
    """A kernel and the nodes that it computes."""

    shape: KernelShape
    nodes: tuple[Node, ...]

    @property
    def name(self) -> str:
        """The name of the first node."""
        return self.nodes[0].name


_KINDS: Mapping[type[Op], str] = {
    ConvTranspose2d: "conv_transpose",
    Dense: "dense",
    AvgPool: "pool",
    MaxPool: "pool",
    GlobalAvgPool: "global_pool",
    Add: "sum",
    Mul: "sum",
    BatchNorm: "norm",
    LocalResponseNorm: "local_norm",
    Softmax: "softmax",
    ChannelShuffle: "shuffle",
    Resize: "resize",
    Concat: "copy",
    Split: "copy",
    Pad: "copy",
    Flatten: "copy",
    Reshape: "copy",
    Identity: "skip",
    **dict.fromkeys(_ROLES["activations"], "activation"),
}

_shapes: dict[tuple[Op, tuple[TensorType, ...]], KernelShape] = {}
_joined: dict[tuple[KernelShape, KernelShape], KernelShape] = {}


def kernel_shape(op: Op, operand_types: tuple[TensorType, ...], result_types: tuple[TensorType, ...]) -> KernelShape:
    """Returns what the kernel of one op depends on. Memoized on (op, operand types).

    Raises:
        PassError: no rule counts this op.
    """
    found = _shapes.get((op, operand_types))
    if found is None:
        found = _shapes[op, operand_types] = _measure(op, operand_types, result_types)
    return found


def _measure(op: Op, operand_types: tuple[TensorType, ...], result_types: tuple[TensorType, ...]) -> KernelShape:
    counts = node_cost(op, operand_types, result_types)
    read = sum(item.elements() for item in operand_types)
    written = sum(item.elements() for item in result_types)
    weights = sum(parameter.size for parameter in op.parameters(operand_types))
    kind, reduction, channels = _KINDS.get(type(op), "other"), 0, 1
    if isinstance(op, Conv2d):
        height, width = pair(op.kernel)
        inside = operand_types[0].sizes()[1] // op.groups
        reduction, channels = inside * height * width, op.channels // op.groups
        if op.groups > 1 and inside < FEW_CHANNELS:
            kind = "depthwise" if inside == 1 else "grouped"
        else:
            kind = {(1, 1): "conv1x1", (3, 3): "conv3x3"}.get((height, width), "conv")
    elif isinstance(op, ConvTranspose2d):
        inside = operand_types[0].sizes()[1] // op.groups
        reduction, channels = max(1, counts.macs // max(1, written)), op.channels // op.groups
    elif isinstance(op, Dense):
        reduction, channels = operand_types[0].sizes()[-1], op.features
    elif kind == "other" and counts.macs:
        reduction = max(1, counts.macs // max(1, written))
    return KernelShape(kind, counts.macs, written, reduction, channels, read, written, weights, counts.operations)


def _join(first: KernelShape, step: KernelShape) -> KernelShape:
    """Returns a kernel with one more op joined, which reads what the kernel makes, and writes in its place."""
    return first._replace(
        read=first.read + step.read - step.written,
        weights=first.weights + step.weights,
        operations=first.operations + step.operations,
    )


def _shape_of(node: Node) -> KernelShape:
    found = node.facts.get("kernel")
    if found is None:
        found = kernel_shape(node.op, node.operand_types, tuple([value.type for value in node.results]))
        node.facts["kernel"] = found
    return found  # type: ignore[return-value]


def kernels_of(graph: Graph, lowering: Lowering = LOWERINGS["fused"]) -> list[Kernel]:
    """Returns the kernels of a network under a lowering, in the order in which they can run.

    A batch norm that joins is folded into the kernel before it and costs nothing.

    Raises:
        PassError: the graph is a generator, or an op has no rule.
    """
    groups, shapes = _lowered(graph, lowering)
    return [Kernel(shape, tuple(nodes)) for shape, nodes in zip(shapes, groups, strict=True)]


def kernel_shapes(graph: Graph, lowering: Lowering = LOWERINGS["fused"]) -> list[KernelShape]:
    """Returns the shapes of `kernels_of` alone, for the inner loop of synthesis."""
    return _lowered(graph, lowering)[1]


def _lowered(graph: Graph, lowering: Lowering) -> tuple[list[list[Node]], list[KernelShape]]:
    joins, free = _sets(lowering)
    kinds = {type(node.op) for node in graph.nodes}
    if Pad in kinds and lowering.zeros != "kept":
        graph = fold_zeros(graph) if lowering.zeros == "removed" else cut_zeros(graph)
    if lowering.equal_pools_merged and (AvgPool in kinds or MaxPool in kinds):
        graph = _with_equal_pools_merged(graph)
    groups = group_nodes(graph, joins, free)
    shapes = []
    for nodes in groups:
        shape = _shape_of(nodes[0])
        for node in nodes[1:]:
            if type(node.op) is not BatchNorm:
                step = _shape_of(node)
                joined = _joined.get((shape, step))
                if joined is None:
                    joined = _joined[shape, step] = _join(shape, step)
                shape = joined
        shapes.append(shape)
    if Add in kinds and Add not in joins:
        _mark_fresh_sums(graph, groups, shapes)
    return groups, shapes


def _mark_fresh_sums(graph: Graph, groups: Sequence[Sequence[Node]], shapes: list[KernelShape]) -> None:
    made = {nodes[-1].result.name for nodes in groups if type(nodes[0].op) is Conv2d}
    for index, nodes in enumerate(groups):
        first = nodes[0]
        operand = first.operands[-1].name if type(first.op) is Add else ""
        if operand in made and len(graph.users[operand]) == 1:
            shapes[index] = shapes[index]._replace(kind="fresh_sum")


_memo: dict[Lowering, tuple[frozenset[type[Op]], frozenset[type[Op]]]] = {}


def _sets(lowering: Lowering) -> tuple[frozenset[type[Op]], frozenset[type[Op]]]:
    found = _memo.get(lowering)
    if found is None:
        found = _memo[lowering] = lowering.joining(), lowering.taking_none()
    return found


def _with_equal_pools_merged(graph: Graph) -> Graph:
    pools = [node for node in graph.nodes if type(node.op) in (AvgPool, MaxPool)]
    if len(pools) < 2:
        return graph
    first: dict[tuple[Op, str], Value] = {}
    instead: dict[str, Value] = {}
    for node in pools:
        value = first.setdefault((node.op, node.operands[0].name), node.result)
        if value is not node.result:
            instead[node.result.name] = value
    if not instead:
        return graph
    nodes = [
        with_operands(node, tuple([instead.get(value.name, value) for value in node.operands]))
        for node in graph.nodes
        if node.result.name not in instead
    ]
    return graph.replace(nodes=tuple(nodes))
