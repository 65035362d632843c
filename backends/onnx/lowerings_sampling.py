"""Pools and resize in ONNX: where opsets, runtimes and the IR part at the edges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gensynth.ir import TensorType, pair
from gensynth.ir.ops import AvgPool, MaxPool, Resize

from .emission import Attribute, NodeEmission

__all__ = ["lower_avg_pool", "lower_max_pool", "lower_resize"]


def lower_max_pool(op: MaxPool, node: NodeEmission) -> None:
    """Writes a max pool."""
    node.emit("MaxPool", node.operands, **_window(op, node.operand_types[0], node.result_types[0]))


def lower_avg_pool(op: AvgPool, node: NodeEmission) -> None:
    """Writes an average pool."""
    operand, result = node.operand_types[0], node.result_types[0]
    window = _window(op, operand, result)
    top, bottom, left, right = op.pads(operand)
    below, beyond = _reach(op, operand, result)
    if not (op.count_padding and (below or beyond)):
        node.emit("AveragePool", node.operands, count_include_pad=int(op.count_padding), **window)
        return
    # Runtimes disagree on whether what `ceil` reaches past the padding counts too. It does not.
    floor: dict[str, Attribute] = {"kernel_shape": pair(op.kernel), "strides": pair(op.steps)}
    if not any((top, bottom, left, right)):
        node.emit("AveragePool", node.operands, count_include_pad=0, pads=(0, 0, below, beyond), **floor)
    elif node.opset >= 21:
        # The padding becomes a part of the image, and what lies past it the padding, which is not counted.
        pads = node.integers("pads", (0, 0, top, left, 0, 0, bottom, right))
        padded = node.step("padded", "Pad", [*node.operands, pads], mode="constant")
        node.emit("AveragePool", [padded], count_include_pad=0, pads=(0, 0, below, beyond), **floor)
    else:
        # ONNX Runtime 1.20 joins a Pad of these opsets with the pool after it, and then does not count the padding.
        around = (top, left, bottom + below, right + beyond)
        means = node.step("means", "AveragePool", node.operands, count_include_pad=1, pads=around, **floor)
        _, _, height, width = operand.sizes()
        rows = _shares(top + height + bottom, op, 0, result.sizes()[2])
        columns = _shares(left + width + right, op, 1, result.sizes()[3])
        factors = 1.0 / np.outer(rows, columns)
        node.emit("Mul", [means, node.array("factors", factors.astype(np.float32)[None, None])])


def _shares(length: int, op: AvgPool, axis: int, count: int) -> npt.NDArray[np.float64]:
    """Returns which share of each window lies within the padded length along an axis, float64 [count]."""
    kernel, stride = pair(op.kernel)[axis], pair(op.steps)[axis]
    starts = stride * np.arange(count)
    shares: npt.NDArray[np.float64] = (np.minimum(starts + kernel, length) - starts) / kernel
    return shares


def _window(op: MaxPool | AvgPool, operand: TensorType, result: TensorType) -> dict[str, Attribute]:
    """Returns the attributes that say where a pool's windows are."""
    window: dict[str, Attribute] = {"kernel_shape": pair(op.kernel), "strides": pair(op.steps)}
    if op.padding == "same" and all(k >= s for k, s in zip(pair(op.kernel), pair(op.steps), strict=True)):
        # As a word, so that an import tells it from numbers that happen to be the same; `ceil` adds no window here.
        # ONNX Runtime refuses the word where windows leave gaps.
        return {**window, "auto_pad": "SAME_UPPER"}
    top, bottom, left, right = op.pads(operand)
    if op.ceil and not _is_plain_ceil(op, operand, result):
        below, beyond = _reach(op, operand, result)
        return {**window, "pads": (top, left, bottom + below, right + beyond)}
    return {**window, "pads": (top, left, bottom, right), "ceil_mode": int(op.ceil)}


def _is_plain_ceil(op: MaxPool | AvgPool, operand: TensorType, result: TensorType) -> bool:
    """Returns whether a pool has as many windows as a bare ceil says, along both axes.

    The IR leaves out a last window that starts in the padding, as PyTorch does. ONNX says so too of late, but its
    runtimes have come to it at different times.
    """
    top, bottom, left, right = op.pads(operand)
    for before, after, kernel, stride, length, count in zip(
        (top, left),
        (bottom, right),
        pair(op.kernel),
        pair(op.steps),
        operand.sizes()[2:],
        result.sizes()[2:],
        strict=True,
    ):
        if -(-(length + before + after - kernel) // stride) + 1 != count:
            return False
    return True


def _reach(op: MaxPool | AvgPool, operand: TensorType, result: TensorType) -> tuple[int, int]:
    """Returns how many elements, bottom and right, the last windows reach past the input and its padding."""
    top, bottom, left, right = op.pads(operand)
    (height, width), (rows, columns) = operand.sizes()[2:], result.sizes()[2:]
    kernel, stride = pair(op.kernel), pair(op.steps)
    return (
        max(0, (rows - 1) * stride[0] + kernel[0] - (top + height + bottom)),
        max(0, (columns - 1) * stride[1] + kernel[1] - (left + width + right)),
    )


def lower_resize(op: Resize, node: NodeEmission) -> None:
    """Writes a resize."""
    (operand,) = node.operands
    _, channels, *before = node.operand_types[0].sizes()
    after = node.result_types[0].sizes()[2:]
    # Opset 18 lets the batch, which may be symbolic, be left out; opset 13 lets what is not used be left out.
    axes: dict[str, Attribute] = {"axes": (2, 3)} if node.opset >= 18 else {}
    by_sizes = op.size != 0 and (bool(axes) or node.batch is not None)
    factors = [np.float32(size / length) for length, size in zip(before, after, strict=True)]
    if not by_sizes:
        factors = [_reaching(factor, length, size) for factor, length, size in zip(factors, before, after, strict=True)]
    how: dict[str, Attribute] = {"mode": "linear"}
    if op.mode == "bilinear":
        how["coordinate_transformation_mode"] = "align_corners" if op.align_corners else "half_pixel"
    elif all(map(_falls_right, factors, before, after)):
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        rows, columns = ([i * length // size for i in range(size)] for length, size in zip(before, after, strict=True))
        picked = node.step("rows", "Gather", [operand, node.integers("row_indices", rows)], axis=2)
        node.emit("Gather", [picked, node.integers("column_indices", columns)], axis=3)
        return
    region = "" if node.opset >= 13 else node.numbers("region", ())
    if by_sizes:
        no_scales = "" if node.opset >= 13 else node.numbers("scales", ())
        sizes = after if node.batch is None or axes else (node.batch, channels, *after)
        inputs = [operand, region, no_scales, node.integers("sizes", sizes)]
    else:
        scales = [float(factor) for factor in factors]
        inputs = [operand, region, node.numbers("scales", scales if axes else [1.0, 1.0, *scales])]
    node.emit("Resize", inputs, **how, **axes)


def _reaching(factor: np.float32, length: int, size: int) -> np.float32:
    """Returns a factor, or the one next to it, so that floor(length * factor), which is ONNX's size, is `size`."""
    while np.float32(length) * factor < size or length * float(factor) < size:
        factor = np.nextafter(factor, np.float32(np.inf))
    return factor


def _falls_right(factor: np.float32, length: int, size: int) -> bool:
    """Returns whether i / factor in float32, as ONNX has it, falls to floor(i * length / size) for all i."""
    steps = np.arange(size)
    single = np.floor(steps.astype(np.float32) / factor).astype(np.int64)
    return bool((single == steps * length // size).all())
