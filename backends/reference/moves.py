"""What the ops mean that move elements: concat, split, shuffle, pad, resize, flatten, reshape."""

from __future__ import annotations

import numpy as np

from gensynth.ir import pair
from gensynth.ir.ops import ChannelShuffle, Concat, Flatten, Pad, Reshape, Resize, Split

from .meanings import Operands, Tensor, Weights64, meaning

__all__: list[str] = []


@meaning(Concat)
def concat(op: Concat, operands: Operands, weights: Weights64) -> Tensor:
    return np.concatenate(operands, axis=op.axis)


@meaning(Split)
def split(op: Split, operands: Operands, weights: Weights64) -> tuple[Tensor, ...]:
    if not op.sizes:
        return tuple(np.split(operands[0], op.sections, axis=op.axis))
    return tuple(np.split(operands[0], np.cumsum(op.sizes)[:-1], axis=op.axis))


@meaning(ChannelShuffle)
def channel_shuffle(op: ChannelShuffle, operands: Operands, weights: Weights64) -> Tensor:
    (x,) = operands
    channels, per_group = x.shape[1], x.shape[1] // op.groups
    y = np.empty_like(x)
    for channel in range(channels):
        group, position = divmod(channel, per_group)
        y[:, position * op.groups + group] = x[:, channel]
    return y


@meaning(Pad)
def pad(op: Pad, operands: Operands, weights: Weights64) -> Tensor:
    top, bottom, left, right = op.pads()
    return np.pad(operands[0], ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=op.value)


@meaning(Resize)
def resize(op: Resize, operands: Operands, weights: Weights64) -> Tensor:
    (x,) = operands
    scale = pair(op.scale)
    sizes = pair(op.size) if op.size != 0 else (x.shape[2] * scale[0], x.shape[3] * scale[1])
    for axis, size in zip((2, 3), sizes, strict=True):
        x = _nearest(x, axis, size) if op.mode == "nearest" else _linear(x, axis, size, op.align_corners)
    return x


def _nearest(x: Tensor, axis: int, size: int) -> Tensor:
    result: Tensor = np.take(x, np.arange(size) * x.shape[axis] // size, axis=axis)
    return result


def _linear(x: Tensor, axis: int, size: int, align_corners: bool) -> Tensor:
    length = x.shape[axis]
    if align_corners:
        at = np.arange(size) * ((length - 1) / max(1, size - 1))
    else:
        at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0.0, length - 1)
    low = np.minimum(at.astype(np.int64), length - 1)
    share = (at - low).reshape(-1, *(1,) * (x.ndim - 1 - axis))
    high = np.minimum(low + 1, length - 1)
    result: Tensor = np.take(x, low, axis=axis) * (1.0 - share) + np.take(x, high, axis=axis) * share
    return result


@meaning(Flatten)
def flatten(op: Flatten, operands: Operands, weights: Weights64) -> Tensor:
    return operands[0].reshape(len(operands[0]), int(np.prod(operands[0].shape[1:])))


@meaning(Reshape)
def reshape(op: Reshape, operands: Operands, weights: Weights64) -> Tensor:
    (x,) = operands
    known = int(np.prod([dim for dim in op.shape if dim != -1]))
    rest = int(np.prod(x.shape[1:])) // known
    return x.reshape(len(x), *(rest if dim == -1 else dim for dim in op.shape))
