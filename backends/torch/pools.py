"""Lowerings of windowed pools: which of PyTorch's paddings give exactly the windows that the IR means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensynth.ir import TensorType, pair
from gensynth.ir.ops import AvgPool, MaxPool

__all__ = ["AvgPool", "MaxPool", "lower_avg_pool", "lower_max_pool"]


@dataclass(frozen=True)
class _Windows:
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]
    reach: tuple[int, int]
    """How many elements, bottom and right, the last windows reach past the input (negative: they stop short)."""

    @property
    def is_native(self) -> bool:
        """Whether PyTorch's own padding will do: even on both sides and at most half the kernel."""
        top, bottom, left, right = self.pads
        return top == bottom and left == right and 2 * top <= self.kernel[0] and 2 * left <= self.kernel[1]

    @property
    def around(self) -> tuple[int, int, int, int]:
        """What to pad, in `F.pad`'s order, so that exactly the wanted windows fit."""
        top, _, left, _ = self.pads
        return left, max(0, self.reach[1]), top, max(0, self.reach[0])


def _windows(op: MaxPool | AvgPool, operand: TensorType) -> _Windows:
    _, height, width = op.image(operand)
    _, _, rows, columns = op.infer([operand])[0].sizes()
    kernel, stride, pads = pair(op.kernel), pair(op.steps), op.pads(operand)
    reach = (
        (rows - 1) * stride[0] + kernel[0] - pads[0] - height,
        (columns - 1) * stride[1] + kernel[1] - pads[2] - width,
    )
    return _Windows(kernel, stride, pads, reach)


def lower_max_pool(op: MaxPool, operands: Sequence[TensorType]) -> Callable[[nn.Module, Tensor], Tensor]:
    """Returns how a max pool is computed."""
    windows = _windows(op, operands[0])
    kernel, stride, ceil = windows.kernel, windows.stride, op.ceil
    if windows.is_native:
        padding = (windows.pads[0], windows.pads[2])
        return lambda scope, x: F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil)
    around = windows.around
    return lambda scope, x: F.max_pool2d(F.pad(x, around, value=-torch.inf), kernel, stride)


def lower_avg_pool(op: AvgPool, operands: Sequence[TensorType]) -> Callable[[nn.Module, Tensor], Tensor]:
    """Returns how an average pool is computed."""
    windows = _windows(op, operands[0])
    kernel, stride, ceil, count_padding = windows.kernel, windows.stride, op.ceil, op.count_padding
    if windows.is_native:
        padding = (windows.pads[0], windows.pads[2])
        return lambda scope, x: F.avg_pool2d(x, kernel, stride, padding, ceil, count_padding)
    around = windows.around
    _, height, width = op.image(operands[0])
    divisors = _divisors(windows, height, width, count_padding)
    if (divisors == divisors[0, 0]).all():
        divisor = int(divisors[0, 0])
        return lambda scope, x: F.avg_pool2d(F.pad(x, around), kernel, stride, divisor_override=divisor)
    inverse = divisors.reciprocal()

    def run(scope: nn.Module, x: Tensor) -> Tensor:
        sums = F.avg_pool2d(F.pad(x, around), kernel, stride, divisor_override=1)
        return sums * inverse.to(device=x.device, dtype=x.dtype)

    return run


def _divisors(windows: _Windows, height: int, width: int, count_padding: bool) -> Tensor:
    """Returns how many elements count in each window, [rows, columns]."""
    top, bottom, left, right = windows.pads
    around_left, around_right, around_top, around_bottom = windows.around
    counted = torch.zeros(around_top + height + around_bottom, around_left + width + around_right)
    if count_padding:
        counted[: top + height + bottom, : left + width + right] = 1.0
    else:
        counted[top : top + height, left : left + width] = 1.0
    return F.avg_pool2d(counted[None, None], windows.kernel, windows.stride, divisor_override=1)[0, 0]
