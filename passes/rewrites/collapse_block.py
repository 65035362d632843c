"""`collapse-block`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from gensynth.ir import Graph, Node, Op, Padding, TensorType, UsageError, Value, pair
from gensynth.ir.ops import (
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Concat,
    Conv2d,
    Dropout,
    Identity,
    MaxPool,
    Mul,
    Resize,
    Split,
)

from ..base import option
from ..rules import Carry, Match, Rewriter
from .blocks import Block, BlockRule, BlockSpot, GraphMemo, joined_blocks
from .spots import ACTIVATIONS, read_outside_reason, times

__all__ = ["CollapseBlock"]

_KEEP_SIGN = (AvgPool, ChannelShuffle, Concat, Dropout, Identity, MaxPool, Resize, Split)
"""Ops behind which values still look as an activation left them."""

_found: GraphMemo[Mapping[str, BlockSpot]] = GraphMemo()


class CollapseBlock(BlockRule, name="collapse-block"):
    """Puts one convolution, with batch norm and activation, in the place of a block of branches.

        %a = conv2d(%x) {channels=16, kernel=1}                       : x has 8 channels
        %b = relu(%a)
        %c = max_pool(%x) {kernel=3, stride=1, padding=same}
        %y = concat(%b, %c)
        -->
        %y.conv = conv2d(%x) {channels=24, kernel=3, padding=same}
        %y.norm = batch_norm(%y.conv)
        %y      = relu(%y.norm)

    A block is where branches meet again, as `bypass-block` has it; it starts at the one value through which all paths
    lead there, whatever its type. The convolution takes over the stride. The activation is the one that the block ends
    in, or that all the branches of a concatenation end in (the first, where they differ); a branch that hands on what
    the block reads, by pools at most, has no say. Behind a sum there is none. Of blocks inside one another the
    outermost is taken. A `choose` counts as one node. The new weights start fresh. It is for GPUs that spend their time
    on starting kernels: of an Inception module's eight one is left.
    """

    carries: ClassVar[Carry] = Carry.FRESH
    kernel: int = option(default=3, help="the kernel of the convolution, an odd number")

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise UsageError(f"{self.name}: kernel must be odd, got {self.kernel}", hint="write kernel=3")

    def found(self, graph: Graph) -> Mapping[str, BlockSpot]:
        return _found.get(graph, self.kernel, lambda: BlockSpot.by_name(_find(graph, self.kernel)))

    def rewrite(self, match: Match, build: Rewriter) -> Value:
        conv = _convolution(match.inputs[0].type, match.root.result.type, self.kernel)
        assert conv is not None
        value = build.emit(BatchNorm(), build.emit(conv, match.inputs[0], name="conv"), name="norm")
        activation = _activation(match)
        return value if activation is None else build.emit(activation, value, name="act")


def _find(graph: Graph, kernel: int) -> Iterator[BlockSpot]:
    for block in joined_blocks(graph):
        match = Match.of(graph, tuple(block.nodes.values()))
        if match.outputs:
            yield BlockSpot(match, frozenset(block.nodes), _reason(graph, block, match, kernel))


def _reason(graph: Graph, block: Block, match: Match, kernel: int) -> str | None:
    reason = read_outside_reason(graph, match)
    if reason is not None:
        return reason
    if isinstance(block.join.op, Mul) and block.entry in block.join.operands:
        return "it only scales what it reads"
    if not any(isinstance(node.op, Conv2d) for node in _inside(match.nodes)):
        return "there is no convolution in it"
    before, after = block.entry.type, block.tail.result.type
    conv = _convolution(before, after, kernel)
    if conv is None:
        return f"it takes {before} and gives {after}: no stride of a {times(kernel)} convolution leads there"
    if max(pair(conv.stride)) > max(2, kernel):
        return f"it wants a stride of {times(conv.stride)}: a {times(kernel)} kernel would skip what lies between"
    return None


def _inside(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yields nodes, and those inside their alternatives."""
    for node in nodes:
        yield node
        for alternative in node.alternatives:
            yield from _inside(alternative.body.nodes)


def _convolution(before: TensorType, after: TensorType, kernel: int) -> Conv2d | None:
    """Returns the convolution that leads from one type to another, if there is one; open sizes count at their largest.

    A stride of 1 or 2 is likelier than a larger one, and padding likelier than none.
    """
    if before.rank != 4 or after.rank != 4:
        return None
    _, channels, *made = after.sizes()
    found: list[Conv2d] = []
    for lost in (0, kernel - 1):
        strides = [_stride(size - lost, wanted) for size, wanted in zip(before.sizes()[2:], made, strict=True)]
        rows, columns = strides
        if rows is None or columns is None:
            continue
        # With a stride, `same` would pad below and on the right alone, which takes PyTorch a kernel of its own.
        even: Padding = "same" if rows == columns == 1 else kernel // 2
        padding: Padding = "valid" if lost else even
        found.append(Conv2d(channels=channels, kernel=kernel, stride=(rows, columns), padding=padding))
    return min(found, key=lambda conv: max(pair(conv.stride)) > 2, default=None)


def _stride(windows: int, wanted: int) -> int | None:
    """Returns the stride that keeps so many of the windows that there are at a stride of 1, if there is one."""
    stride = -(-windows // wanted)
    return stride if windows > 0 and -(-windows // stride) == wanted else None


def _activation(match: Match) -> Op | None:
    """Returns the activation that a block ends in."""
    ends = _ends(match.root.results, match.nodes)
    return ends[0] if ends and all(isinstance(op, ACTIVATIONS) for op in ends) else None


def _ends(values: Iterable[Value], nodes: Iterable[Node]) -> list[Op]:
    """Returns what made values, seen through ops that keep signs; what is read from outside the nodes is left out.

    A `choose` stands for its first alternative, which is the original where a rule was offered.
    """
    makers = {value.name: node for node in nodes for value in node.results}
    ends: list[Op] = []
    waiting = [value.name for value in values]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop(0)
        node = makers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.alternatives:
            body = node.alternatives[0].body
            ends += _ends([body.outputs[[value.name for value in node.results].index(name)]], body.nodes)
        elif isinstance(node.op, _KEEP_SIGN):
            waiting[:0] = [value.name for value in node.operands]
        else:
            ends.append(node.op)
    return ends
