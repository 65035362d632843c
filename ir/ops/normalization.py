"""Batch normalization, local response normalization and dropout."""

from __future__ import annotations

from collections.abc import Sequence

from ..attributes import FloatKind, IntKind, attribute
from ..op import Op, Parameter
from ..types import TensorType


class BatchNorm(Op, name="batch_norm"):
    """y = scale * (x - mean) / sqrt(variance + epsilon) + bias, per channel (arXiv 1502.03167).

    `mean` and `variance` are running statistics, moved by `momentum` in training and not by gradients.
    """

    epsilon: float = attribute(FloatKind(0.0, 1.0), default=1e-5)
    momentum: float = attribute(FloatKind(0.0, 1.0), default=0.1)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        if operands[0].rank not in (2, 4) or not isinstance(operands[0].shape[1], int):
            raise self.fail(f"wants [N, C] or [N, C, H, W], got {operands[0]}")
        return (operands[0],)

    def parameters(self, operands: Sequence[TensorType]) -> tuple[Parameter, ...]:
        channels = operands[0].shape[1]
        assert isinstance(channels, int)
        return (
            Parameter("scale", (channels,), "ones"),
            Parameter("bias", (channels,), "zeros"),
            Parameter("mean", (channels,), "zeros", trainable=False),
            Parameter("variance", (channels,), "ones", trainable=False),
        )


class LocalResponseNorm(Op, name="local_response_norm"):
    """y[n, c] = x[n, c] / (k + alpha / size * sum_{|d| <= (size - 1) / 2} x[n, c + d]^2)^beta, at every place alone.

    Each channel is divided by a power of the mean square of its neighbours, itself among them; channels beyond the
    first and the last count as zero. `size` is odd. (AlexNet, NIPS 2012, section 3.3; its alpha is alpha / size here.)
    """

    size: int = attribute(IntKind())
    alpha: float = attribute(FloatKind(0.0), default=1e-4)
    beta: float = attribute(FloatKind(0.0), default=0.75)
    k: float = attribute(FloatKind(0.0), default=1.0)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.image(operands[0])
        if self.size % 2 == 0:
            raise self.fail(
                f"size={self.size} has no middle",
                hint=f"use an odd number of channels, such as {self.size + 1}",
                attribute="size",
            )
        return (operands[0],)


class Dropout(Op, name="dropout"):
    """In training zeroes each element with probability `rate` and scales the rest by 1 / (1 - rate); else y = x."""

    rate: float = attribute(FloatKind(0.0, 0.99), default=0.5)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        return (operands[0],)
