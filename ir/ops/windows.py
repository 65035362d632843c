"""Arithmetic of sliding windows, shared by convolutions and pools."""

from __future__ import annotations

from ..attributes import Padding, Pair, pair

__all__ = ["resolve_padding", "window_sizes"]


def resolve_padding(
    padding: Padding, size: tuple[int, int], kernel: Pair, stride: Pair, dilation: Pair = 1
) -> tuple[int, int, int, int]:
    """Returns (top, bottom, left, right) in elements.

    `same` pads so that the output is ceil(size / stride), the odd element at the bottom and right (ONNX SAME_UPPER).
    """
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "same":
        pads: list[int] = []
        for length, k, s, d in zip(size, pair(kernel), pair(stride), pair(dilation), strict=True):
            total = max(0, (-(-length // s) - 1) * s + d * (k - 1) + 1 - length)
            pads += [total // 2, total - total // 2]
        return pads[0], pads[1], pads[2], pads[3]
    if isinstance(padding, int):
        return padding, padding, padding, padding
    assert isinstance(padding, tuple)
    if len(padding) == 2:
        return padding[0], padding[0], padding[1], padding[1]
    return padding[0], padding[1], padding[2], padding[3]


def window_sizes(
    size: tuple[int, int],
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair = 1,
    ceil: bool = False,
) -> tuple[int, int]:
    """Returns how many windows fit along height and width; not positive where the window is larger than the input.

    With `ceil` a last window that starts inside the input or its leading padding counts too (as in PyTorch).
    """
    top, bottom, left, right = resolve_padding(padding, size, kernel, stride, dilation)
    counts = []
    for length, k, s, d, before, after in zip(
        size, pair(kernel), pair(stride), pair(dilation), (top, left), (bottom, right), strict=True
    ):
        span = length + before + after - d * (k - 1) - 1
        count = (-(-span // s) if ceil else span // s) + 1
        if ceil and (count - 1) * s >= length + before:
            count -= 1
        counts.append(count)
    return counts[0], counts[1]
