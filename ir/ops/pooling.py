"""Pools."""

from __future__ import annotations

from collections.abc import Sequence

from ..attributes import BoolKind, Padding, PaddingKind, Pair, PairKind, attribute, pair
from ..op import Op
from ..types import TensorType
from .windows import resolve_padding, window_sizes


class _Pool(Op):
    kernel: Pair
    stride: Pair
    padding: Padding
    ceil: bool

    @property
    def steps(self) -> Pair:
        """The stride in effect: `stride`, or the kernel where it is 0."""
        return self.stride if self.stride != 0 else self.kernel

    def pads(self, operand: TensorType) -> tuple[int, int, int, int]:
        """Returns the padding on this operand: (top, bottom, left, right)."""
        _, height, width = self.image(operand)
        return resolve_padding(self.padding, (height, width), self.kernel, self.steps)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        channels, height, width = self.image(operands[0])
        if self.padding not in ("same", "valid"):
            top, bottom, left, right = self.pads(operands[0])
            kernel = pair(self.kernel)
            if max(top, bottom) >= kernel[0] or max(left, right) >= kernel[1]:
                raise self.fail("padding must be smaller than the kernel", attribute="padding")
        rows, columns = window_sizes((height, width), self.kernel, self.steps, self.padding, ceil=self.ceil)
        if rows < 1 or columns < 1:
            raise self.fail(f"a window of {self.kernel} does not fit into {operands[0]}", attribute="kernel")
        return self.with_channels(operands[0], channels, rows, columns)


class MaxPool(_Pool, name="max_pool"):
    """y = the largest x in each window; padding never wins. `stride` defaults to the kernel."""

    kernel: Pair = attribute(PairKind())
    stride: Pair = attribute(PairKind(0), default=0)
    padding: Padding = attribute(PaddingKind(), default="valid")
    ceil: bool = attribute(BoolKind(), default=False)


class AvgPool(_Pool, name="avg_pool"):
    """y = the mean of x in each window. `stride` defaults to the kernel.

    The divisor is the number of input elements in the window; with `count_padding` padding elements count too.
    """

    kernel: Pair = attribute(PairKind())
    stride: Pair = attribute(PairKind(0), default=0)
    padding: Padding = attribute(PaddingKind(), default="valid")
    ceil: bool = attribute(BoolKind(), default=False)
    count_padding: bool = attribute(BoolKind(), default=False)


class GlobalAvgPool(Op, name="global_avg_pool"):
    """y[n, c] = the mean of x[n, c] over height and width; [N, C], or [N, C, 1, 1] with `keep`."""

    keep: bool = attribute(BoolKind(), default=False)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        channels, _, _ = self.image(operands[0])
        if self.keep:
            return self.with_channels(operands[0], channels, 1, 1)
        return (TensorType(operands[0].dtype, (operands[0].shape[0], channels)),)
