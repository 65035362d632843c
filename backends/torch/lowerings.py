"""How each op is computed by PyTorch: op class -> a function of the node's parameters and operands.

A lowering is called once a node, when the module is made, and settles there everything that can be settled; what it
returns runs at each forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensynth.ir import Op, TensorType, UsageError, pair
from gensynth.ir.ops import (
    Add,
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

from . import pools

__all__ = ["Run", "Scope", "has_lowering", "lower", "lowering"]


class Scope(nn.Module):
    """A node's parameters and statistics, and the scopes inside its name; the whole network is the outermost."""

    @property
    def weights(self) -> dict[str, Tensor]:
        """The node's trainable weights by local name."""
        return self._parameters  # type: ignore[return-value]

    @property
    def statistics(self) -> dict[str, Tensor]:
        """The node's running statistics by local name."""
        return self._buffers  # type: ignore[return-value]

    def train(self, mode: bool = True) -> Self:
        """Sets the scope and all inside it to training, or to inference."""
        for module in self.modules():
            module.__dict__["training"] = mode  # a plain assignment fails where a scope is named "training"
        return self


Run = Callable[..., Any]
"""A function of (scope, *operands) that returns a tensor, or a tuple of them where the op has several results."""

OpT = TypeVar("OpT", bound=Op)
Lowering = Callable[[OpT, Sequence[TensorType]], Run]

ENTRY_POINTS = "gensynth.lowerings"
"""Entry-point group for other packages' lowerings, apart from their ops so that those load without PyTorch; each entry
point names a function under `@lowering`."""

_lowerings: dict[type[Op], Lowering[Any]] = {}


def lowering(op: type[OpT]) -> Callable[[Lowering[OpT]], Lowering[OpT]]:
    """Registers the function below it as the lowering of `op`: (op, operand types) -> `Run`."""

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
    """Returns whether PyTorch modules can hold an op."""
    return _find(op) is not None


def lower(name: str, op: Op, operands: Sequence[TensorType]) -> Run:
    """Returns how the node `name` is computed.

    Raises:
        UsageError: nobody registered a lowering for its op.
    """
    function = _find(type(op))
    if function is None:
        raise UsageError(
            f"%{name}: {op.name} has no lowering to PyTorch",
            hint=f"register one: @gensynth.backends.torch.lowering({type(op).__name__})",
        )
    return function(op, operands)


@lowering(Conv2d)
def _conv2d(op: Conv2d, operands: Sequence[TensorType]) -> Run:
    top, bottom, left, right = op.pads(operands[0])
    stride, dilation, groups = pair(op.stride), pair(op.dilation), op.groups
    convolve = torch.conv2d
    if top == bottom and left == right:
        padding = (top, left)

        def run(scope: Scope, x: Tensor) -> Tensor:
            weights = scope.weights
            return convolve(x, weights["weight"], weights.get("bias"), stride, padding, dilation, groups)

        return run

    around = (left, right, top, bottom)

    def run_padded(scope: Scope, x: Tensor) -> Tensor:
        weights = scope.weights
        return convolve(F.pad(x, around), weights["weight"], weights.get("bias"), stride, 0, dilation, groups)

    return run_padded


@lowering(ConvTranspose2d)
def _conv_transpose2d(op: ConvTranspose2d, operands: Sequence[TensorType]) -> Run:
    top, bottom, left, right = op.pads(operands[0])
    _, _, rows, columns = op.infer(operands)[0].sizes()
    stride, dilation, extra = pair(op.stride), pair(op.dilation), pair(op.output_padding)
    even = top == bottom and left == right
    padding = (top, left) if even else (0, 0)

    def run(scope: Scope, x: Tensor) -> Tensor:
        weights = scope.weights
        y = F.conv_transpose2d(x, weights["weight"], weights.get("bias"), stride, padding, extra, op.groups, dilation)
        return y if even else y[:, :, top : top + rows, left : left + columns]

    return run


@lowering(Dense)
def _dense(op: Dense, operands: Sequence[TensorType]) -> Run:
    multiply = F.linear

    def run(scope: Scope, x: Tensor) -> Tensor:
        weights = scope.weights
        return multiply(x, weights["weight"], weights.get("bias"))

    return run


@lowering(BatchNorm)
def _batch_norm(op: BatchNorm, operands: Sequence[TensorType]) -> Run:
    epsilon, momentum = op.epsilon, op.momentum
    normalize = F.batch_norm

    def run(scope: Scope, x: Tensor) -> Tensor:
        weights, statistics = scope.weights, scope.statistics
        return normalize(
            x,
            statistics["mean"],
            statistics["variance"],
            weights["scale"],
            weights["bias"],
            scope.training,
            momentum,
            epsilon,
        )

    return run


@lowering(LocalResponseNorm)
def _local_response_norm(op: LocalResponseNorm, operands: Sequence[TensorType]) -> Run:
    return lambda scope, x: F.local_response_norm(x, op.size, op.alpha, op.beta, op.k)


@lowering(Dropout)
def _dropout(op: Dropout, operands: Sequence[TensorType]) -> Run:
    return lambda scope, x: F.dropout(x, op.rate, scope.training)


@lowering(Relu)
def _relu(op: Relu, operands: Sequence[TensorType]) -> Run:
    return lambda scope, x: torch.relu(x)


@lowering(Relu6)
def _relu6(op: Relu6, operands: Sequence[TensorType]) -> Run:
    return lambda scope, x: F.relu6(x)


@lowering(LeakyRelu)
def _leaky_relu(op: LeakyRelu, operands: Sequence[TensorType]) -> Run:
    return lambda scope, x: F.leaky_relu(x, op.slope)


@lowering(Silu)
def _silu(op: Silu, operands: Sequence[TensorType]) -> Run:
    return lambda scope, x: F.silu(x)


@lowering(Sigmoid)
def _sigmoid(op: Sigmoid, operands: Sequence[TensorType]) -> Run:
    return lambda scope, x: torch.sigmoid(x)


@lowering(HardSigmoid)
def _hard_sigmoid(op: HardSigmoid, operands: Sequence[TensorType]) -> Run:
    return lambda scope, x: F.hardsigmoid(x)


@lowering(HardSwish)
def _hard_swish(op: HardSwish, operands: Sequence[TensorType]) -> Run:
    return lambda scope, x: F.hardswish(x)


@lowering(Softmax)
def _softmax(op: Softmax, operands: Sequence[TensorType]) -> Run:
    return lambda scope, x: torch.softmax(x, op.axis)


@lowering(Add)
def _add(op: Add, operands: Sequence[TensorType]) -> Run:
    return lambda scope, a, b: a + b


@lowering(Mul)
def _mul(op: Mul, operands: Sequence[TensorType]) -> Run:
    return lambda scope, a, b: a * b


@lowering(Concat)
def _concat(op: Concat, operands: Sequence[TensorType]) -> Run:
    return lambda scope, *parts: torch.cat(parts, op.axis)


@lowering(Split)
def _split(op: Split, operands: Sequence[TensorType]) -> Run:
    sizes = [int(type.shape[op.axis]) for type in op.infer(operands)]  # type: ignore[arg-type]
    return lambda scope, x: torch.split(x, sizes, op.axis)


@lowering(ChannelShuffle)
def _channel_shuffle(op: ChannelShuffle, operands: Sequence[TensorType]) -> Run:
    channels, height, width = op.image(operands[0])
    apart = (op.groups, channels // op.groups, height, width)

    def run(scope: Scope, x: Tensor) -> Tensor:
        batch = x.shape[0]
        return x.reshape(batch, *apart).transpose(1, 2).reshape(batch, channels, height, width)

    return run


@lowering(Pad)
def _pad(op: Pad, operands: Sequence[TensorType]) -> Run:
    top, bottom, left, right = op.pads()
    return lambda scope, x: F.pad(x, (left, right, top, bottom), value=op.value)


@lowering(Identity)
def _identity(op: Identity, operands: Sequence[TensorType]) -> Run:
    return lambda scope, x: x


@lowering(Flatten)
def _flatten(op: Flatten, operands: Sequence[TensorType]) -> Run:
    return lambda scope, x: torch.flatten(x, 1)


@lowering(Reshape)
def _reshape(op: Reshape, operands: Sequence[TensorType]) -> Run:
    sizes = op.infer(operands)[0].sizes()[1:]
    return lambda scope, x: x.reshape(x.shape[0], *sizes)


@lowering(Resize)
def _resize(op: Resize, operands: Sequence[TensorType]) -> Run:
    _, height, width = op.image(operands[0])
    _, _, rows, columns = op.infer(operands)[0].sizes()
    if op.mode == "bilinear":
        return lambda scope, x: F.interpolate(x, size=(rows, columns), mode="bilinear", align_corners=op.align_corners)
    if _rounds_like_torch(height, rows) and _rounds_like_torch(width, columns):
        return lambda scope, x: F.interpolate(x, size=(rows, columns), mode="nearest")
    row_indices = [row * height // rows for row in range(rows)]
    column_indices = [column * width // columns for column in range(columns)]
    return lambda scope, x: x[:, :, row_indices][:, :, :, column_indices]


def _rounds_like_torch(length: int, size: int) -> bool:
    """Returns whether `nearest` in float32, as PyTorch computes it, hits floor(i * length / size) for all i."""
    steps = np.arange(size)
    single = np.floor(steps.astype(np.float32) * np.float32(length / size)).astype(np.int64)
    return bool((np.minimum(single, length - 1) == steps * length // size).all())


lowering(pools.MaxPool)(pools.lower_max_pool)
lowering(pools.AvgPool)(pools.lower_avg_pool)


@lowering(GlobalAvgPool)
def _global_avg_pool(op: GlobalAvgPool, operands: Sequence[TensorType]) -> Run:
    keep = op.keep
    return lambda scope, x: x.mean((2, 3), keep)
