"""How each op is written in ONNX: op class -> a function that emits the ONNX nodes of one node of the IR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from gensynth.ir import Node, Op, UsageError, pair
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

from .emission import Attribute, Emission, NodeEmission
from .lowerings_sampling import lower_avg_pool, lower_max_pool, lower_resize

__all__ = ["has_lowering", "lower", "lowering"]

OpT = TypeVar("OpT", bound=Op)
Lowering = Callable[[OpT, NodeEmission], None]

ENTRY_POINTS = "gensynth.onnx_lowerings"
"""Entry-point group for other packages' lowerings, apart from their ops so that those load without onnx; each entry
point names a function under `@lowering`, or its module."""

_lowerings: dict[type[Op], Lowering[Any]] = {}


def lowering(op: type[OpT]) -> Callable[[Lowering[OpT]], Lowering[OpT]]:
    """Registers the function below it as the lowering of `op`: (op, node) -> None, by calls of `node.emit`.

    The last call must be of `node.emit`, which makes the results; steps before it are added by `node.step`.
    """

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
    """Returns whether ONNX models can hold an op."""
    return _find(op) is not None


def lower(emission: Emission, node: Node) -> None:
    """Writes one node.

    Raises:
        UsageError: nobody registered a lowering for its op.
    """
    function = _find(type(node.op))
    if function is None:
        raise UsageError(
            f"%{node.name}: {node.op.name} has no lowering to ONNX",
            hint=f"register one: @gensynth.backends.onnx.lowering({type(node.op).__name__})",
        )
    function(node.op, NodeEmission(emission, node))


@lowering(Conv2d)
def _conv2d(op: Conv2d, node: NodeEmission) -> None:
    window: dict[str, Attribute] = {
        "kernel_shape": pair(op.kernel),
        "strides": pair(op.stride),
        "dilations": pair(op.dilation),
        "group": op.groups,
    }
    if op.padding == "same" and op.dilation == 1:
        # As a word, so that an import tells it from numbers that happen to be the same. ONNX Runtime refuses the word
        # where the kernel is dilated.
        window["auto_pad"] = "SAME_UPPER"
    else:
        top, bottom, left, right = op.pads(node.operand_types[0])
        window["pads"] = (top, left, bottom, right)
    node.emit("Conv", _with_bias(node, op.bias), **window)


def _with_bias(node: NodeEmission, bias: bool) -> list[str]:
    weights = [node.weight("weight"), node.weight("bias")] if bias else [node.weight("weight")]
    return [node.operands[0], *weights]


@lowering(ConvTranspose2d)
def _conv_transpose2d(op: ConvTranspose2d, node: NodeEmission) -> None:
    top, bottom, left, right = op.pads(node.operand_types[0])
    node.emit(
        "ConvTranspose",
        _with_bias(node, op.bias),
        kernel_shape=pair(op.kernel),
        strides=pair(op.stride),
        dilations=pair(op.dilation),
        group=op.groups,
        # Explicit: runtimes disagree on which side auto_pad puts the odd element of a transposed convolution.
        pads=(top, left, bottom, right),
        output_padding=pair(op.output_padding),
    )


@lowering(Dense)
def _dense(op: Dense, node: NodeEmission) -> None:
    node.emit("Gemm", _with_bias(node, op.bias), transB=1)


@lowering(BatchNorm)
def _batch_norm(op: BatchNorm, node: NodeEmission) -> None:
    weights = [node.weight(local) for local in ("scale", "bias", "mean", "variance")]
    # ONNX's momentum is the share of the old statistics.
    node.emit("BatchNormalization", [*node.operands, *weights], epsilon=op.epsilon, momentum=1.0 - op.momentum)


@lowering(LocalResponseNorm)
def _local_response_norm(op: LocalResponseNorm, node: NodeEmission) -> None:
    node.emit("LRN", node.operands, size=op.size, alpha=op.alpha, beta=op.beta, bias=op.k)


@lowering(Dropout)
def _dropout(op: Dropout, node: NodeEmission) -> None:
    if node.opset >= 12:
        node.emit("Dropout", [*node.operands, node.number("ratio", op.rate)])
    else:
        node.emit("Dropout", node.operands, ratio=op.rate)


@lowering(Relu)
def _relu(op: Relu, node: NodeEmission) -> None:
    node.emit("Relu", node.operands)


@lowering(Relu6)
def _relu6(op: Relu6, node: NodeEmission) -> None:
    node.emit("Clip", [*node.operands, node.number("min", 0.0), node.number("max", 6.0)])


@lowering(LeakyRelu)
def _leaky_relu(op: LeakyRelu, node: NodeEmission) -> None:
    node.emit("LeakyRelu", node.operands, alpha=op.slope)


@lowering(Silu)
def _silu(op: Silu, node: NodeEmission) -> None:
    # Opset 24 has Swish, but ONNX Runtime (1.32) no kernel for it; these two every runtime knows, and many fuse.
    node.emit("Mul", [*node.operands, node.step("sigmoid", "Sigmoid", node.operands)])


@lowering(Sigmoid)
def _sigmoid(op: Sigmoid, node: NodeEmission) -> None:
    node.emit("Sigmoid", node.operands)


@lowering(HardSigmoid)
def _hard_sigmoid(op: HardSigmoid, node: NodeEmission) -> None:
    node.emit("HardSigmoid", node.operands, alpha=1.0 / 6.0, beta=0.5)


@lowering(HardSwish)
def _hard_swish(op: HardSwish, node: NodeEmission) -> None:
    if node.opset >= 14:
        node.emit("HardSwish", node.operands)
    else:
        gate = node.step("hard_sigmoid", "HardSigmoid", node.operands, alpha=1.0 / 6.0, beta=0.5)
        node.emit("Mul", [*node.operands, gate])


@lowering(Softmax)
def _softmax(op: Softmax, node: NodeEmission) -> None:
    last = node.operand_types[0].rank - 1
    if node.opset >= 13 or op.axis == last:
        node.emit("Softmax", node.operands, axis=op.axis)
        return
    # Before opset 13 it runs over all axes from `axis` on.
    order = list(range(last + 1))
    order[op.axis], order[last] = last, op.axis
    moved = node.step("moved", "Transpose", node.operands, perm=order)
    shares = node.step("shares", "Softmax", [moved], axis=last)
    node.emit("Transpose", [shares], perm=order)


@lowering(Add)
def _add(op: Add, node: NodeEmission) -> None:
    node.emit("Add", node.operands)


@lowering(Mul)
def _mul(op: Mul, node: NodeEmission) -> None:
    node.emit("Mul", node.operands)


@lowering(Concat)
def _concat(op: Concat, node: NodeEmission) -> None:
    node.emit("Concat", node.operands, axis=op.axis)


@lowering(Split)
def _split(op: Split, node: NodeEmission) -> None:
    if not op.sizes:
        # Without sizes the parts are equal, as many as there are results; opset 18 wants their number all the same.
        count: dict[str, Attribute] = {"num_outputs": op.sections} if node.opset >= 18 else {}
        node.emit("Split", node.operands, axis=op.axis, **count)
    elif node.opset >= 13:
        node.emit("Split", [*node.operands, node.integers("sizes", op.sizes)], axis=op.axis)
    else:
        node.emit("Split", node.operands, axis=op.axis, split=op.sizes)


@lowering(ChannelShuffle)
def _channel_shuffle(op: ChannelShuffle, node: NodeEmission) -> None:
    channels, height, width = op.image(node.operand_types[0])
    # 0 keeps the batch as it is.
    shape = node.integers("groups", (0, op.groups, channels // op.groups, height, width))
    parted = node.step("parted", "Reshape", [*node.operands, shape])
    swapped = node.step("swapped", "Transpose", [parted], perm=(0, 2, 1, 3, 4))
    node.emit("Reshape", [swapped, node.integers("shape", (0, channels, height, width))])


@lowering(Pad)
def _pad(op: Pad, node: NodeEmission) -> None:
    top, bottom, left, right = op.pads()
    pads = node.integers("pads", (0, 0, top, left, 0, 0, bottom, right))
    node.emit("Pad", [*node.operands, pads, node.number("value", op.value)], mode="constant")


@lowering(Identity)
def _identity(op: Identity, node: NodeEmission) -> None:
    node.emit("Identity", node.operands)


@lowering(Flatten)
def _flatten(op: Flatten, node: NodeEmission) -> None:
    node.emit("Flatten", node.operands, axis=1)


@lowering(Reshape)
def _reshape(op: Reshape, node: NodeEmission) -> None:
    sizes = node.result_types[0].sizes()[1:]
    node.emit("Reshape", [*node.operands, node.integers("shape", (0, *sizes))])


@lowering(GlobalAvgPool)
def _global_avg_pool(op: GlobalAvgPool, node: NodeEmission) -> None:
    if op.keep:
        node.emit("GlobalAveragePool", node.operands)
    else:
        node.emit("Flatten", [node.step("mean", "GlobalAveragePool", node.operands)], axis=1)


lowering(MaxPool)(lower_max_pool)
lowering(AvgPool)(lower_avg_pool)
lowering(Resize)(lower_resize)
