"""What convolutions, dense layers and normalizations mean."""

from __future__ import annotations

import numpy as np

from gensynth.ir import TensorType, pair
from gensynth.ir.ops import BatchNorm, Conv2d, ConvTranspose2d, Dense, LocalResponseNorm

from .meanings import Operands, Tensor, Weights64, meaning

__all__ = ["image_type"]


def image_type(x: Tensor) -> TensorType:
    """Returns the type of an image, for the ops' padding arithmetic."""
    return TensorType("f32", ("N", *x.shape[1:]))


def _with_bias(y: Tensor, weights: Weights64) -> Tensor:
    return y + weights["bias"][:, None, None] if "bias" in weights else y


@meaning(Conv2d)
def conv2d(op: Conv2d, operands: Operands, weights: Weights64) -> Tensor:
    (x,) = operands
    top, bottom, left, right = op.pads(image_type(x))
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (stride_h, stride_w), (dilation_h, dilation_w) = pair(op.stride), pair(op.dilation)
    kernel_h, kernel_w = pair(op.kernel)
    reach = (dilation_h * (kernel_h - 1) + 1, dilation_w * (kernel_w - 1) + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, ::stride_h, ::stride_w, ::dilation_h, ::dilation_w]
    results = [
        np.einsum("ncijuv,ocuv->noij", part, weight, optimize=True)
        for part, weight in zip(
            np.split(windows, op.groups, axis=1), np.split(weights["weight"], op.groups), strict=True
        )
    ]
    return _with_bias(np.concatenate(results, axis=1), weights)


@meaning(ConvTranspose2d)
def conv_transpose2d(op: ConvTranspose2d, operands: Operands, weights: Weights64) -> Tensor:
    (x,) = operands
    (stride_h, stride_w), (dilation_h, dilation_w) = pair(op.stride), pair(op.dilation)
    (kernel_h, kernel_w), (extra_h, extra_w) = pair(op.kernel), pair(op.output_padding)
    batch, _, height, width = x.shape
    span_h, span_w = (height - 1) * stride_h + 1, (width - 1) * stride_w + 1
    full_h = span_h + dilation_h * (kernel_h - 1) + extra_h
    full_w = span_w + dilation_w * (kernel_w - 1) + extra_w
    full = np.zeros((batch, op.channels, full_h, full_w))
    for u in range(kernel_h):
        for v in range(kernel_w):
            spread = [
                np.einsum("nchw,co->nohw", part, weight[:, :, u, v])
                for part, weight in zip(
                    np.split(x, op.groups, axis=1), np.split(weights["weight"], op.groups), strict=True
                )
            ]
            rows, columns = u * dilation_h, v * dilation_w
            full[:, :, rows : rows + span_h : stride_h, columns : columns + span_w : stride_w] += np.concatenate(
                spread, axis=1
            )
    top, bottom, left, right = op.pads(image_type(x))
    return _with_bias(full[:, :, top : full.shape[2] - bottom, left : full.shape[3] - right], weights)


@meaning(Dense)
def dense(op: Dense, operands: Operands, weights: Weights64) -> Tensor:
    y: Tensor = operands[0] @ weights["weight"].T
    return y + weights["bias"] if op.bias else y


@meaning(BatchNorm)
def batch_norm(op: BatchNorm, operands: Operands, weights: Weights64) -> Tensor:
    (x,) = operands
    along = (slice(None), *(None,) * (x.ndim - 2))
    deviation = np.sqrt(weights["variance"] + op.epsilon)
    centred = (x - weights["mean"][along]) / deviation[along]
    return weights["scale"][along] * centred + weights["bias"][along]


@meaning(LocalResponseNorm)
def local_response_norm(op: LocalResponseNorm, operands: Operands, weights: Weights64) -> Tensor:
    (x,) = operands
    reach = op.size // 2
    squares = np.pad(np.square(x), ((0, 0), (reach, reach), (0, 0), (0, 0)))
    sums = np.lib.stride_tricks.sliding_window_view(squares, op.size, axis=1).sum(axis=-1)
    result: Tensor = x / (op.k + op.alpha / op.size * sums) ** op.beta
    return result
