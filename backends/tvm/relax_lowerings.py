"""How each op is written in Relax: op class -> a function that returns the expressions of one node of the IR.

Inside a function images are held channels last, [N, H, W, C], which is how TVM computes convolutions best; values of
other ranks are held as the IR has them. `RelaxNode.axis` translates between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tvm import relax

from gensynth.ir import Array, Node, Op, TensorType, UsageError, pair
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
from gensynth.ir.plugins import load_plugins

__all__ = ["Expression", "RelaxNode", "has_lowering", "lower", "lowering", "to_nchw", "to_nhwc"]

Expression = Any
"""An expression of Relax; tvm has no types."""

OpT = TypeVar("OpT", bound=Op)
Lowering = Callable[[OpT, "RelaxNode"], "Expression | tuple[Expression, ...]"]

ENTRY_POINTS = "gensynth.relax_lowerings"
"""Entry-point group for other packages' lowerings, apart from their ops so that those load without TVM; each entry
point names a function under `@lowering`, or its module."""

_lowerings: dict[type[Op], Lowering[Any]] = {}

_op = relax.op


@dataclass(frozen=True)
class RelaxNode:
    """One node on its way into Relax: its operands as expressions, and its weights by local name.

    Operands and results are [N, H, W, C] where they have four dimensions, N being `batch`.
    """

    node: Node
    operands: tuple[Expression, ...]
    weights: Mapping[str, Array]
    batch: int
    builder: Any

    @property
    def operand_types(self) -> tuple[TensorType, ...]:
        """The operands' types in the IR."""
        return self.node.operand_types

    @property
    def result_types(self) -> tuple[TensorType, ...]:
        """The results' types in the IR."""
        return tuple(value.type for value in self.node.results)

    def axis(self, axis: int) -> int:
        """Returns where an axis of the first operand is found in its expression."""
        return (0, 3, 1, 2)[axis] if self.operand_types[0].rank == 4 else axis

    def emit(self, expression: Expression) -> Expression:
        """Returns the variable that an expression is bound to: for one that is read more than once."""
        return self.builder.emit(expression)

    def weight(self, name: str, axes: Sequence[int] | None = None) -> Expression:
        """Returns a weight by its local name as a constant, its axes permuted."""
        array = self.weights[name]
        return constant(array if axes is None else array.transpose(axes))


def constant(array: npt.NDArray[Any]) -> Expression:
    """Returns a constant; floats as float32."""
    kept = array.astype(np.float32) if array.dtype.kind == "f" else array
    return relax.const(np.ascontiguousarray(kept), str(kept.dtype))


def to_nhwc(x: Expression) -> Expression:
    """Returns an image [N, C, H, W] as [N, H, W, C]."""
    return _op.permute_dims(x, [0, 2, 3, 1])


def to_nchw(x: Expression) -> Expression:
    """Returns an image [N, H, W, C] as [N, C, H, W]."""
    return _op.permute_dims(x, [0, 3, 1, 2])


def lowering(op: type[OpT]) -> Callable[[Lowering[OpT]], Lowering[OpT]]:
    """Registers the function below it as the lowering of `op`: (op, node) -> the result, or a tuple of them."""

    def register(function: Lowering[OpT]) -> Lowering[OpT]:
        _lowerings[op] = function
        return function

    return register


def _find(op: type[Op]) -> Lowering[Any] | None:
    """Returns the lowering of an op class, looking in entry points when none is registered yet."""
    if op not in _lowerings:
        load_plugins(ENTRY_POINTS)
    return _lowerings.get(op)


def has_lowering(op: type[Op]) -> bool:
    """Returns whether Relax functions can hold an op."""
    return _find(op) is not None


def lower(node: RelaxNode) -> tuple[Expression, ...]:
    """Returns a node's results as expressions.

    Raises:
        UsageError: nobody registered a lowering for its op.
    """
    op = node.node.op
    function = _find(type(op))
    if function is None:
        raise UsageError(
            f"%{node.node.name}: {op.name} has no lowering to Relax",
            hint=f"register one: @gensynth.backends.tvm.relax_lowerings.lowering({type(op).__name__})",
        )
    found = function(op, node)
    return found if isinstance(found, tuple) else (found,)


# Convolutions and dense layers.


def _with_bias(y: Expression, node: RelaxNode) -> Expression:
    return _op.add(y, node.weight("bias")) if "bias" in node.weights else y


@lowering(Conv2d)
def _conv2d(op: Conv2d, node: RelaxNode) -> Expression:
    top, bottom, left, right = op.pads(node.operand_types[0])
    y = _op.nn.conv2d(
        node.operands[0],
        node.weight("weight", (2, 3, 1, 0)),
        strides=pair(op.stride),
        padding=(top, left, bottom, right),
        dilation=pair(op.dilation),
        groups=op.groups,
        data_layout="NHWC",
        kernel_layout="HWIO",
    )
    return _with_bias(y, node)


@lowering(ConvTranspose2d)
def _conv_transpose2d(op: ConvTranspose2d, node: RelaxNode) -> Expression:
    """TVM computes these in NCHW alone, and with no more padding than the kernel reaches: the rest is cut or added."""
    _, height, width = op.image(node.operand_types[0])
    top, bottom, left, right = op.pads(node.operand_types[0])
    _, _, *sizes = node.result_types[0].sizes(node.batch)
    padding, lengths, starts = [], [], []
    for length, k, s, d, extra, begin, end in zip(
        (height, width),
        pair(op.kernel),
        pair(op.stride),
        pair(op.dilation),
        pair(op.output_padding),
        (top, left),
        (bottom, right),
        strict=True,
    ):
        reach = d * (k - 1)
        before, after = min(begin, reach), min(max(end - extra, 0), reach)
        padding.append((before, after))
        lengths.append((length - 1) * s + reach + 1 - before - after)
        starts.append(begin - before)
    y = _op.nn.conv2d_transpose(
        to_nchw(node.operands[0]),
        node.weight("weight"),
        strides=pair(op.stride),
        padding=(padding[0][0], padding[1][0], padding[0][1], padding[1][1]),
        dilation=pair(op.dilation),
        groups=op.groups,
        data_layout="NCHW",
        kernel_layout="IOHW",
    )
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    missing = [max(0, end - length) for end, length in zip(ends, lengths, strict=True)]
    if any(missing):
        y = _op.nn.pad(y, (0, 0, 0, 0, 0, missing[0], 0, missing[1]))
    if any(starts) or any(end < length for end, length in zip(ends, lengths, strict=True)):
        y = _op.strided_slice(y, [2, 3], starts, ends)
    return _with_bias(to_nhwc(y), node)


@lowering(Dense)
def _dense(op: Dense, node: RelaxNode) -> Expression:
    return _with_bias(_op.matmul(node.operands[0], node.weight("weight", (1, 0))), node)


# Normalizations.


@lowering(BatchNorm)
def _batch_norm(op: BatchNorm, node: RelaxNode) -> Expression:
    weights = [node.weight(name) for name in ("scale", "bias", "mean", "variance")]
    whole = _op.nn.batch_norm(node.operands[0], *weights, axis=node.axis(1), epsilon=op.epsilon, training=False)
    return relax.TupleGetItem(whole, 0)


@lowering(LocalResponseNorm)
def _local_response_norm(op: LocalResponseNorm, node: RelaxNode) -> Expression:
    """The mean square over neighbouring channels is a pool over images of channels as their width."""
    (x,) = node.operands
    batch, channels, height, width = node.operand_types[0].sizes(node.batch)
    reach = op.size // 2
    squares = _op.reshape(_op.multiply(x, x), (batch, height * width, channels, 1))
    means = _op.nn.avg_pool2d(
        squares, (1, op.size), padding=(0, reach, 0, reach), count_include_pad=True, layout="NHWC"
    )
    spread = _op.add(_op.multiply(means, _number(op.alpha)), _number(op.k))
    return _op.multiply(x, _op.reshape(_op.power(spread, _number(-op.beta)), (batch, height, width, channels)))


# Activations and arithmetic.


def _number(value: float) -> Expression:
    return relax.const(value, "float32")


@lowering(Relu)
def _relu(op: Relu, node: RelaxNode) -> Expression:
    return _op.nn.relu(node.operands[0])


@lowering(Relu6)
def _relu6(op: Relu6, node: RelaxNode) -> Expression:
    return _op.clip(node.operands[0], 0, 6)


@lowering(LeakyRelu)
def _leaky_relu(op: LeakyRelu, node: RelaxNode) -> Expression:
    return _op.nn.leakyrelu(node.operands[0], op.slope)


@lowering(Silu)
def _silu(op: Silu, node: RelaxNode) -> Expression:
    return _op.nn.silu(node.operands[0])


@lowering(Sigmoid)
def _sigmoid(op: Sigmoid, node: RelaxNode) -> Expression:
    return _op.sigmoid(node.operands[0])


@lowering(HardSigmoid)
def _hard_sigmoid(op: HardSigmoid, node: RelaxNode) -> Expression:
    return _op.multiply(_op.clip(_op.add(node.operands[0], _number(3.0)), 0, 6), _number(1 / 6))


@lowering(HardSwish)
def _hard_swish(op: HardSwish, node: RelaxNode) -> Expression:
    (x,) = node.operands
    return _op.multiply(x, _op.multiply(_op.clip(_op.add(x, _number(3.0)), 0, 6), _number(1 / 6)))


@lowering(Softmax)
def _softmax(op: Softmax, node: RelaxNode) -> Expression:
    return _op.nn.softmax(node.operands[0], axis=node.axis(op.axis))


@lowering(Add)
def _add(op: Add, node: RelaxNode) -> Expression:
    return _op.add(*node.operands)


@lowering(Mul)
def _mul(op: Mul, node: RelaxNode) -> Expression:
    return _op.multiply(*node.operands)


def _identity(op: Dropout | Identity, node: RelaxNode) -> Expression:
    return node.operands[0]


lowering(Dropout)(_identity)
lowering(Identity)(_identity)


# Moves.


@lowering(Concat)
def _concat(op: Concat, node: RelaxNode) -> Expression:
    return _op.concat(list(node.operands), axis=node.axis(op.axis))


@lowering(Split)
def _split(op: Split, node: RelaxNode) -> tuple[Expression, ...]:
    sizes = [type.sizes(node.batch)[op.axis] for type in node.result_types]
    if len(sizes) == 1:
        return node.operands
    whole = node.emit(_op.split(node.operands[0], np.cumsum(sizes)[:-1].tolist(), axis=node.axis(op.axis)))
    return tuple(relax.TupleGetItem(whole, number) for number in range(len(sizes)))


@lowering(ChannelShuffle)
def _channel_shuffle(op: ChannelShuffle, node: RelaxNode) -> Expression:
    batch, channels, height, width = node.operand_types[0].sizes(node.batch)
    apart = _op.reshape(node.operands[0], (batch, height, width, op.groups, channels // op.groups))
    return _op.reshape(_op.permute_dims(apart, [0, 1, 2, 4, 3]), (batch, height, width, channels))


@lowering(Pad)
def _pad(op: Pad, node: RelaxNode) -> Expression:
    top, bottom, left, right = op.pads()
    return _op.nn.pad(node.operands[0], (0, 0, top, bottom, left, right, 0, 0), pad_value=op.value)


def _reshape(op: Flatten | Reshape, node: RelaxNode) -> Expression:
    (x,), (source,), (result,) = node.operands, node.operand_types, node.result_types
    y = _op.reshape(to_nchw(x) if source.rank == 4 else x, result.sizes(node.batch))
    return to_nhwc(y) if result.rank == 4 else y


lowering(Flatten)(_reshape)
lowering(Reshape)(_reshape)


# Pools.


def _pool_padding(op: MaxPool | AvgPool, node: RelaxNode) -> tuple[int, int, int, int]:
    """Returns (top, left, bottom, right) such that the windows fit exactly, `ceil` or not."""
    top, _, left, _ = op.pads(node.operand_types[0])
    _, height, width = op.image(node.operand_types[0])
    _, _, rows, columns = node.result_types[0].sizes(node.batch)
    kernel, stride = pair(op.kernel), pair(op.steps)
    bottom = max(0, (rows - 1) * stride[0] + kernel[0] - height - top)
    right = max(0, (columns - 1) * stride[1] + kernel[1] - width - left)
    return top, left, bottom, right


@lowering(MaxPool)
def _max_pool(op: MaxPool, node: RelaxNode) -> Expression:
    return _op.nn.max_pool2d(node.operands[0], pair(op.kernel), pair(op.steps), _pool_padding(op, node), layout="NHWC")


@lowering(AvgPool)
def _avg_pool(op: AvgPool, node: RelaxNode) -> Expression:
    """Relax counts all padding or none; what lies beyond the padding, by `ceil`, counts never."""
    needed = _pool_padding(op, node)
    y = _op.nn.avg_pool2d(
        node.operands[0],
        pair(op.kernel),
        pair(op.steps),
        needed,
        count_include_pad=op.count_padding,
        layout="NHWC",
    )
    top, bottom, left, right = op.pads(node.operand_types[0])
    if not op.count_padding or (needed[2] <= bottom and needed[3] <= right):
        return y
    _, height, width = op.image(node.operand_types[0])
    _, _, *sizes = node.result_types[0].sizes(node.batch)
    shares = [
        kernel / np.minimum(kernel, length - np.arange(size) * stride)
        for kernel, stride, length, size in zip(
            pair(op.kernel), pair(op.steps), (top + height + bottom, left + width + right), sizes, strict=True
        )
    ]
    return _op.multiply(y, constant(np.outer(*shares)[None, :, :, None]))


@lowering(GlobalAvgPool)
def _global_avg_pool(op: GlobalAvgPool, node: RelaxNode) -> Expression:
    return _op.mean(node.operands[0], axis=[1, 2], keepdims=op.keep)


# Resize.


@lowering(Resize)
def _resize(op: Resize, node: RelaxNode) -> Expression:
    (x,) = node.operands
    _, height, width = op.image(node.operand_types[0])
    batch, channels, rows, columns = node.result_types[0].sizes(node.batch)
    axes = ((height, rows), (width, columns))
    if op.mode == "nearest":
        if all(_floors_exactly(length, size) for length, size in axes):
            return _resized(x, (rows, columns), "nearest_neighbor", "asymmetric")
        for axis, (length, size) in enumerate(axes, 1):
            x = _op.take(x, constant(np.arange(size) * length // size), axis=axis)
        return x
    if not op.align_corners:
        return _resized(x, (rows, columns), "linear", "half_pixel")
    if rows > 1 and columns > 1:
        return _resized(x, (rows, columns), "linear", "align_corners")
    # one row or column of aligned corners is the first, where TVM divides by zero
    if rows == 1:
        x = _op.strided_slice(x, [1], [0], [1])
    if columns == 1:
        x = _op.strided_slice(x, [2], [0], [1])
    if rows == columns == 1:
        return x
    length, size = axes[0] if columns == 1 else axes[1]
    line = _op.matmul(constant(_interpolation(length, size)), _op.reshape(x, (batch, length, channels)))
    return _op.reshape(line, (batch, rows, columns, channels))


def _resized(x: Expression, size: tuple[int, int], method: str, coordinates: str) -> Expression:
    return _op.image.resize2d(
        x,
        relax.ShapeExpr(size),
        layout="NHWC",
        method=method,
        coordinate_transformation_mode=coordinates,
        rounding_method="floor" if method == "nearest_neighbor" else "",
    )


def _floors_exactly(length: int, size: int) -> bool:
    """Returns whether `nearest` in float32, as TVM computes it, hits floor(i * length / size) for all i."""
    steps = np.arange(size)
    single = np.floor(steps.astype(np.float32) * np.float32(length / size) + np.float32(1e-5)).astype(np.int64)
    return bool((np.minimum(single, length - 1) == steps * length // size).all())


def _interpolation(length: int, size: int) -> npt.NDArray[np.float32]:
    """Returns the matrix [size, length] that resizes a line bilinearly with aligned corners."""
    places = np.arange(size) * ((length - 1) / max(1, size - 1))
    low = np.minimum(places.astype(np.int64), length - 1)
    matrix = np.zeros((size, length))
    np.add.at(matrix, (np.arange(size), low), 1 - (places - low))
    np.add.at(matrix, (np.arange(size), np.minimum(low + 1, length - 1)), places - low)
    return matrix.astype(np.float32)
