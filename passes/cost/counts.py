"""Exact counts per op: MACs, other arithmetic, weights, and the bytes that a node reads and writes.

Rules are keyed by op class and say what one sample (batch 1) costs. 1 MAC is one multiply-accumulate and 2 operations.
MACs follow the convention of published figures and of torch's FlopCounterMode: convolutions, transposed convolutions
and dense layers have MACs, padded taps included, and nothing else has any. `operations` counts all arithmetic (1 per
addition, product, quotient, comparison or exponential; 2 per MAC). An op without a rule is an error, never zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gensynth.ir import Op, PassError, TensorType, pair
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

__all__ = ["WEIGHT_BYTES", "NodeCost", "has_rules", "macs_of", "no_macs", "node_cost", "operations_of"]

WEIGHT_BYTES = 4
"""Bytes of one stored weight (float32)."""

OpT = TypeVar("OpT", bound=Op)
Rule = Callable[[OpT, Sequence[TensorType], Sequence[TensorType]], int]
"""Counts from an op, its operand types and its result types, for one sample."""

_macs: dict[type[Op], Callable[..., int]] = {}
_operations: dict[type[Op], Callable[..., int]] = {}


@dataclass(frozen=True, slots=True)
class NodeCost:
    """What one node costs.

    `params` are trainable weights (running statistics of batch norms are none); `weight_bytes` counts every stored
    weight. `input_bytes` and `output_bytes` are the activations read and written, an operand read twice counted twice.
    """

    macs: int
    params: int
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    operations: int


def macs_of(op: type[OpT]) -> Callable[[Rule[OpT]], Rule[OpT]]:
    """Registers a rule for the MACs of an op class: `@macs_of(MyOp) def _(op, operands, results): return ...`."""

    def register(rule: Rule[OpT]) -> Rule[OpT]:
        _macs[op] = rule
        return rule

    return register


def no_macs(*ops: type[Op]) -> None:
    """Registers op classes that have no multiply-accumulates."""
    for op in ops:
        _macs[op] = _nothing


def operations_of(op: type[OpT]) -> Callable[[Rule[OpT]], Rule[OpT]]:
    """Registers a rule for the arithmetic operations of an op class beside its MACs."""

    def register(rule: Rule[OpT]) -> Rule[OpT]:
        _operations[op] = rule
        return rule

    return register


def has_rules(op: type[Op]) -> bool:
    """Returns whether both the MACs and the operations of an op class are known."""
    return op in _macs and op in _operations


_memo: dict[tuple[Op, tuple[TensorType, ...]], NodeCost] = {}


def node_cost(
    op: Op, operand_types: tuple[TensorType, ...], result_types: tuple[TensorType, ...], batch: int = 1
) -> NodeCost:
    """Returns what an op costs on concrete operand types. Memoized on (op, operand types).

    Raises:
        PassError: no rule counts this op.
    """
    found = _memo.get((op, operand_types))
    if found is None:
        found = _memo[op, operand_types] = _count(op, operand_types, result_types)
    if batch == 1:
        return found
    return NodeCost(
        found.macs * batch,
        found.params,
        found.weight_bytes,
        sum(type.bytes(batch) for type in operand_types),
        sum(type.bytes(batch) for type in result_types),
        found.operations * batch,
    )


def _count(op: Op, operand_types: tuple[TensorType, ...], result_types: tuple[TensorType, ...]) -> NodeCost:
    macs_rule, operations_rule = _macs.get(type(op)), _operations.get(type(op))
    if macs_rule is None or operations_rule is None:
        missing, decorator = ("MACs", "macs_of") if macs_rule is None else ("operations", "operations_of")
        name = type(op).__name__
        raise PassError(
            f"the {missing} of op '{op.name}' are not known",
            hint=f"register a rule beside the op: @{decorator}({name}) def rule(op, operands, results): return ..."
            " (from gensynth.passes.cost)",
        )
    macs = macs_rule(op, operand_types, result_types)
    parameters = op.parameters(operand_types)
    return NodeCost(
        macs=macs,
        params=sum(parameter.size for parameter in parameters if parameter.trainable),
        weight_bytes=WEIGHT_BYTES * sum(parameter.size for parameter in parameters),
        input_bytes=sum(type.bytes() for type in operand_types),
        output_bytes=sum(type.bytes() for type in result_types),
        operations=2 * macs + operations_rule(op, operand_types, result_types),
    )


def _nothing(op: Op, operands: Sequence[TensorType], results: Sequence[TensorType]) -> int:
    return 0


def _per_element(*ops: type[Op], count: int) -> None:
    for op in ops:
        _operations[op] = lambda op, operands, results: count * results[0].elements()


# MACs.


@macs_of(Conv2d)
def _conv2d(op: Conv2d, operands: Sequence[TensorType], results: Sequence[TensorType]) -> int:
    channels = operands[0].sizes()[1]
    height, width = pair(op.kernel)
    return results[0].elements() * (channels // op.groups) * height * width


@macs_of(ConvTranspose2d)
def _conv_transpose2d(op: ConvTranspose2d, operands: Sequence[TensorType], results: Sequence[TensorType]) -> int:
    height, width = pair(op.kernel)
    return operands[0].elements() * (op.channels // op.groups) * height * width


@macs_of(Dense)
def _dense(op: Dense, operands: Sequence[TensorType], results: Sequence[TensorType]) -> int:
    return operands[0].elements() * op.features


no_macs(Add, Mul, BatchNorm, LocalResponseNorm, Dropout, AvgPool, GlobalAvgPool, MaxPool)
no_macs(HardSigmoid, HardSwish, LeakyRelu, Relu, Relu6, Sigmoid, Silu, Softmax)
no_macs(ChannelShuffle, Concat, Flatten, Identity, Pad, Reshape, Resize, Split)


# Operations beside MACs.


def _bias(op: Conv2d | ConvTranspose2d | Dense, operands: Sequence[TensorType], results: Sequence[TensorType]) -> int:
    return results[0].elements() if op.bias else 0


operations_of(Conv2d)(_bias)
operations_of(ConvTranspose2d)(_bias)
operations_of(Dense)(_bias)
_per_element(ChannelShuffle, Concat, Dropout, Flatten, Identity, Pad, Reshape, Split, count=0)
_per_element(Add, Mul, Relu, count=1)
_per_element(BatchNorm, LeakyRelu, Relu6, count=2)
_per_element(HardSigmoid, Sigmoid, Silu, count=4)
_per_element(HardSwish, Softmax, count=5)


@operations_of(LocalResponseNorm)
def _local_response_norm(op: LocalResponseNorm, operands: Sequence[TensorType], results: Sequence[TensorType]) -> int:
    # A square, the additions of the window, then a scale, a shift, a power and a division.
    return (op.size + 4) * results[0].elements()


@operations_of(MaxPool)
def _max_pool(op: MaxPool, operands: Sequence[TensorType], results: Sequence[TensorType]) -> int:
    height, width = pair(op.kernel)
    return results[0].elements() * (height * width - 1)


@operations_of(AvgPool)
def _avg_pool(op: AvgPool, operands: Sequence[TensorType], results: Sequence[TensorType]) -> int:
    height, width = pair(op.kernel)
    return results[0].elements() * height * width


@operations_of(GlobalAvgPool)
def _global_avg_pool(op: GlobalAvgPool, operands: Sequence[TensorType], results: Sequence[TensorType]) -> int:
    return operands[0].elements()


@operations_of(Resize)
def _resize(op: Resize, operands: Sequence[TensorType], results: Sequence[TensorType]) -> int:
    # Three linear interpolations a + t (b - a) an element; `nearest` only moves.
    return 9 * results[0].elements() if op.mode == "bilinear" else 0
