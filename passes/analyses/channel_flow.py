"""How channels travel through a graph: the facts from which `channel_groups` finds what must change together.

Every channel that a convolution or dense layer makes is an *atom*. Other ops pass atoms on, copy them (a depthwise
multiplier, flatten), join and cut them, or demand that some be kept or dropped together (add, grouped convolutions,
equal splits, shuffles). `ChannelFlow` walks the graph once and writes all of this down.

A shuffle needs two readings. The *true* one permutes the atoms. It makes slicing exact, but through several shuffles
and splits in a row it demands more and more atoms to go together, in the end all of them. The *nominal* one takes the
shuffle's result to be laid out as its operand: sizes stay right, contents need not. Both are recorded. So it is with
local response normalization: truly no channel can go, since those beside it would get other neighbours; nominally each
can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gensynth.ir import Graph, Node, Op, OpenDim, TensorType, Value
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
    Resize,
    Sigmoid,
    Silu,
    Softmax,
    Split,
)

__all__ = ["ChannelFlow", "Indices", "Labels", "Width", "is_depthwise", "keeps_channels", "largest_op"]

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Labels:
    """The atom of each channel of a value, in both readings."""

    true: Indices
    nominal: Indices

    def __len__(self) -> int:
        return len(self.true)

    def map(self, function: Callable[[Indices], Indices]) -> Labels:
        """Returns the labels with both readings rearranged alike."""
        true = function(self.true)
        return Labels(true, true if self.nominal is self.true else function(self.nominal))

    def part(self, start: int, stop: int) -> Labels:
        """Returns the labels of the channels from `start` to before `stop`."""
        return self.map(lambda atoms: atoms[start:stop])


@dataclass(frozen=True)
class Width:
    """An attribute of a node that counts the channels of `labels`."""

    path: str
    attribute: str
    labels: Labels


def is_depthwise(op: Conv2d | ConvTranspose2d, channels: int) -> bool:
    """Returns whether a convolution on so many channels filters each of them alone."""
    return op.groups == channels and channels > 1


def largest_op(node: Node) -> Op:
    """Returns a node's op with its open attributes decided so that its results and operands are widest."""
    if not node.choices:
        return node.op
    decisions: dict[str, int] = {}
    for value in (*node.operands, *node.results):
        for dim in value.type.shape:
            if isinstance(dim, OpenDim):
                for identifier, offsets in dim.terms:
                    decisions.setdefault(identifier, max(range(len(offsets)), key=offsets.__getitem__))
    return node.op_at(decisions)


def _width(type: TensorType) -> int:
    return type.sizes()[1] if type.rank > 1 else 0


class ChannelFlow:
    """The atoms of a graph and everything that ties them.

    `values` maps the path of each value (its name, behind the prefix of the alternative that holds it) to its labels.
    `true_pairs` and `nominal_pairs` must be kept or dropped together, each in its reading; atoms of one entry of
    `linked` must be read alike; `producers` are (path, atoms made there) in order of the text; `fixed` are atoms that
    must stay, with the reason.
    """

    def __init__(self, graph: Graph) -> None:
        self.count = 0
        self.values: dict[str, Labels] = {}
        self.producers: list[tuple[str, Indices]] = []
        self.consumers: list[tuple[str, Labels]] = []
        self.widths: list[Width] = []
        self.true_pairs: list[tuple[Indices, Indices]] = []
        self.nominal_pairs: list[tuple[Indices, Indices]] = []
        self.linked: list[Indices] = []
        self.fixed: list[tuple[Indices, str]] = []
        for value in graph.inputs:
            self.values[value.name] = self.fix(self.fresh(value.name, _width(value.type)), f"%{value.name} is an input")
        for value, labels in zip(graph.outputs, self._walk(graph, ""), strict=True):
            self.fix(labels, f"%{value.name} is an output of the network")

    def fresh(self, path: str, count: int) -> Labels:
        """Returns new atoms, made by the node at `path`."""
        atoms = np.arange(self.count, self.count + count, dtype=np.int64)
        self.count += count
        if count:
            self.producers.append((path, atoms))
        return Labels(atoms, atoms)

    def fix(self, labels: Labels, reason: str) -> Labels:
        """Marks atoms as staying, and returns them."""
        if len(labels):
            self.fixed.append((np.concatenate([labels.true, labels.nominal]), reason))
        return labels

    def unify(self, left: Labels, right: Labels) -> None:
        """Demands that channels of two values be kept or dropped pairwise."""
        self.true_pairs.append((left.true, right.true))
        self.nominal_pairs.append((left.nominal, right.nominal))

    def unify_parts(self, labels: Labels, parts: int) -> None:
        """Demands that the same positions be kept in each of so many equal parts of a value."""
        size = len(labels) // parts
        for part in range(1, parts):
            self.unify(labels.part(0, size), labels.part(part * size, (part + 1) * size))

    def _walk(self, graph: Graph, prefix: str) -> list[Labels]:
        for node in graph.nodes:
            operands = [self.values[prefix + value.name] for value in node.operands]
            if node.alternatives:
                results = self._choose(node, prefix, operands)
            else:
                op = largest_op(node)
                rule = _rules.get(type(op), _opaque)
                results = rule(self, prefix + node.name, op, node, operands)
            for value, labels in zip(node.results, results, strict=True):
                self.values[prefix + value.name] = labels
        return [self.values[prefix + value.name] for value in graph.outputs]

    def _choose(self, node: Node, prefix: str, operands: Sequence[Labels]) -> list[Labels]:
        results: list[Labels] = []
        for alternative in node.alternatives:
            inside = f"{prefix}{node.name}[{alternative.label}]/"
            for value, labels in zip(alternative.body.inputs, operands, strict=True):
                self.values[inside + value.name] = labels
            yields = self._walk(alternative.body, inside)
            for known, other in zip(results, yields, strict=False):
                self.unify(known, other)
            results = results or yields
        return results


Rule = Callable[[ChannelFlow, str, Op, Node, Sequence[Labels]], list[Labels]]

_rules: dict[type[Op], Rule] = {}


def keeps_channels(*ops: type[Op]) -> None:
    """Registers op classes with one operand that treat every channel alone and have no weights."""
    for op in ops:
        _rules[op] = lambda flow, path, op, node, operands: [operands[0]]


keeps_channels(AvgPool, Dropout, GlobalAvgPool, Identity, MaxPool, Pad, Resize)
keeps_channels(HardSigmoid, HardSwish, LeakyRelu, Relu, Relu6, Sigmoid, Silu)
_rules[BatchNorm] = _rules[Relu]


def _rule(*ops: type[Op]) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for op in ops:
            _rules[op] = rule
        return rule

    return register


def _opaque(flow: ChannelFlow, path: str, op: Op, node: Node, operands: Sequence[Labels]) -> list[Labels]:
    reason = f"{op.name} at %{path} mixes channels in a way of its own"
    for labels in operands:
        flow.fix(labels, reason)
    return [flow.fix(flow.fresh(_path_of(path, node, value), _width(value.type)), reason) for value in node.results]


def _path_of(path: str, node: Node, value: Value) -> str:
    return path[: len(path) - len(node.name)] + value.name


@_rule(Conv2d, ConvTranspose2d)
def _convolution(flow: ChannelFlow, path: str, op: Op, node: Node, operands: Sequence[Labels]) -> list[Labels]:
    assert isinstance(op, (Conv2d, ConvTranspose2d))
    labels = operands[0]
    if is_depthwise(op, len(labels)):
        result = labels.map(lambda atoms: np.repeat(atoms, op.channels // op.groups))
        flow.widths += [Width(path, "channels", result), Width(path, "groups", labels)]
        return [result]
    result = flow.fresh(path, op.channels)
    flow.widths.append(Width(path, "channels", result))
    flow.consumers.append((path, labels))
    if op.groups > 1:
        flow.unify_parts(labels, op.groups)
        flow.unify_parts(result, op.groups)
    if any(name == "groups" for name, _ in node.choices):
        for fixed in (labels, result):
            flow.fix(fixed, f"the groups of %{path} are an open choice")
    return [result]


@_rule(Dense)
def _dense(flow: ChannelFlow, path: str, op: Op, node: Node, operands: Sequence[Labels]) -> list[Labels]:
    assert isinstance(op, Dense)
    result = flow.fresh(path, op.features)
    flow.widths.append(Width(path, "features", result))
    flow.consumers.append((path, operands[0]))
    return [result]


@_rule(Add, Mul)
def _broadcast(flow: ChannelFlow, path: str, op: Op, node: Node, operands: Sequence[Labels]) -> list[Labels]:
    left, right = operands
    if len(left) == len(right):
        flow.unify(left, right)
        return [left]
    return [left if len(left) > len(right) else right]


@_rule(Concat)
def _concat(flow: ChannelFlow, path: str, op: Op, node: Node, operands: Sequence[Labels]) -> list[Labels]:
    assert isinstance(op, Concat)
    if op.axis == 1:
        true = np.concatenate([labels.true for labels in operands])
        if all(labels.nominal is labels.true for labels in operands):
            return [Labels(true, true)]
        return [Labels(true, np.concatenate([labels.nominal for labels in operands]))]
    for labels in operands[1:]:
        flow.unify(operands[0], labels)
    return [operands[0]]


@_rule(Split)
def _split(flow: ChannelFlow, path: str, op: Op, node: Node, operands: Sequence[Labels]) -> list[Labels]:
    assert isinstance(op, Split)
    labels = operands[0]
    if op.axis != 1:
        return [labels] * len(node.results)
    if not op.sizes:
        flow.unify_parts(labels, op.sections)
    sizes = op.sizes or (len(labels) // op.sections,) * op.sections
    results = [labels.part(sum(sizes[:index]), sum(sizes[: index + 1])) for index in range(len(sizes))]
    if op.sizes:
        flow.widths += [Width(path, "sizes", result) for result in results]
    return results


@_rule(ChannelShuffle)
def _shuffle(flow: ChannelFlow, path: str, op: Op, node: Node, operands: Sequence[Labels]) -> list[Labels]:
    assert isinstance(op, ChannelShuffle)
    labels = operands[0]
    if op.groups in (1, len(labels)):
        return [labels]
    flow.unify_parts(labels, op.groups)
    flow.linked.append(np.concatenate([labels.true, labels.nominal]))
    return [Labels(labels.true.reshape(op.groups, -1).T.reshape(-1), labels.nominal)]


@_rule(Flatten)
def _flatten(flow: ChannelFlow, path: str, op: Op, node: Node, operands: Sequence[Labels]) -> list[Labels]:
    repeat = _width(node.result.type) // max(1, len(operands[0]))
    return [operands[0].map(lambda atoms: np.repeat(atoms, repeat))]


@_rule(Softmax)
def _softmax(flow: ChannelFlow, path: str, op: Op, node: Node, operands: Sequence[Labels]) -> list[Labels]:
    assert isinstance(op, Softmax)
    if op.axis == 1:
        flow.fix(operands[0], f"softmax at %{path} divides by the sum over all channels")
    return [operands[0]]


@_rule(LocalResponseNorm)
def _local_response_norm(flow: ChannelFlow, path: str, op: Op, node: Node, operands: Sequence[Labels]) -> list[Labels]:
    assert isinstance(op, LocalResponseNorm)
    labels = operands[0]
    if op.size > 1 and len(labels):
        flow.true_pairs.append((labels.true, np.full_like(labels.true, labels.true[0])))
        flow.linked.append(np.concatenate([labels.true, labels.nominal]))
    return [labels]
