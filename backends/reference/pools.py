"""What pools mean."""

from __future__ import annotations

import numpy as np

from gensynth.ir import pair
from gensynth.ir.ops import AvgPool, GlobalAvgPool, MaxPool

from .convolutions import image_type
from .meanings import Operands, Tensor, Weights64, meaning

__all__: list[str] = []


def _windows(op: MaxPool | AvgPool, x: Tensor, padding: float, beyond: float) -> Tensor:
    """Returns the windows [n, C, rows, columns, kernel height, kernel width].

    `padding` stands around x; `beyond` stands where a last window of `ceil` reaches past the padding.
    """
    type = image_type(x)
    (result,) = op.infer([type])
    _, _, rows, columns = result.sizes()
    (kernel_h, kernel_w), (stride_h, stride_w) = pair(op.kernel), pair(op.steps)
    top, bottom, left, right = op.pads(type)
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=padding)
    missing = [
        max(0, (count - 1) * stride + kernel - length)
        for count, stride, kernel, length in (
            (rows, stride_h, kernel_h, x.shape[2]),
            (columns, stride_w, kernel_w, x.shape[3]),
        )
    ]
    x = np.pad(x, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])), constant_values=beyond)
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel_h, kernel_w), axis=(2, 3))
    return windows[:, :, ::stride_h, ::stride_w][:, :, :rows, :columns]


@meaning(MaxPool)
def max_pool(op: MaxPool, operands: Operands, weights: Weights64) -> Tensor:
    result: Tensor = _windows(op, operands[0], -np.inf, -np.inf).max(axis=(4, 5))
    return result


@meaning(AvgPool)
def avg_pool(op: AvgPool, operands: Operands, weights: Weights64) -> Tensor:
    counted = _windows(op, np.ones_like(operands[0][:1, :1]), 1.0 if op.count_padding else 0.0, 0.0)
    result: Tensor = _windows(op, operands[0], 0.0, 0.0).sum(axis=(4, 5)) / counted.sum(axis=(4, 5))
    return result


@meaning(GlobalAvgPool)
def global_avg_pool(op: GlobalAvgPool, operands: Operands, weights: Weights64) -> Tensor:
    result: Tensor = operands[0].mean(axis=(2, 3), keepdims=op.keep)
    return result
