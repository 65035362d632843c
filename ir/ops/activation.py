"""Activations: elementwise, except softmax."""

from __future__ import annotations

from collections.abc import Sequence

from ..attributes import FloatKind, IntKind, attribute
from ..op import Op
from ..types import TensorType


class _Elementwise(Op):
    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        return (operands[0],)


class Relu(_Elementwise, name="relu"):
    """y = max(x, 0)."""


class Relu6(_Elementwise, name="relu6"):
    """y = min(max(x, 0), 6)."""


class LeakyRelu(_Elementwise, name="leaky_relu"):
    """y = x for x >= 0, slope * x otherwise."""

    slope: float = attribute(FloatKind(), default=0.01)


class Silu(_Elementwise, name="silu"):
    """y = x / (1 + exp(-x))."""


class Sigmoid(_Elementwise, name="sigmoid"):
    """y = 1 / (1 + exp(-x))."""


class HardSigmoid(_Elementwise, name="hard_sigmoid"):
    """y = min(max(x + 3, 0), 6) / 6 (MobileNetV3, arXiv 1905.02244, section 5.2)."""


class HardSwish(_Elementwise, name="hard_swish"):
    """y = x * min(max(x + 3, 0), 6) / 6 (MobileNetV3, arXiv 1905.02244, section 5.2)."""


class Softmax(Op, name="softmax"):
    """y_i = exp(x_i) / sum_j exp(x_j) along `axis` (1 is the channel axis)."""

    axis: int = attribute(IntKind(1), default=1)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        if self.axis >= operands[0].rank:
            raise self.fail(f"axis {self.axis} is not one of {operands[0]}", attribute="axis")
        return (operands[0],)
