"""Ops that take each element from one or a few places of the input: resize, channel shuffle, pad."""

from __future__ import annotations

from typing import Any

import tvm.tirx.script.builder as T

from gensynth.ir.ops import ChannelShuffle, Pad, Resize

from ..specification import KernelSpec, template
from .elements import Elements
from .emitting import Frame, constant, finish, inside, load, quotient, remainder, when

__all__ = ["PadImage", "ResizeImage", "ShuffleChannels"]

Expression = Any


@template("cuda", ChannelShuffle)
class ShuffleChannels(Elements):
    """Channel shuffles."""

    name = "shuffle_channels"

    def write(self, frame: Frame, n: Expression, h: Expression, w: Expression, c: Expression) -> None:
        op, source = frame.spec.op, frame.spec.inputs[0]
        assert isinstance(op, ChannelShuffle)
        each = source.channels // op.groups
        channel = remainder(c, op.groups) * each + quotient(c, op.groups)
        finish(frame, load(frame.inputs[0], source, n, h, w, channel), n, h, w, c)


@template("cuda", Pad)
class PadImage(Elements):
    """Padding."""

    name = "pad_image"

    def write(self, frame: Frame, n: Expression, h: Expression, w: Expression, c: Expression) -> None:
        op, source, output = frame.spec.op, frame.spec.inputs[0], frame.spec.output
        assert isinstance(op, Pad)
        top, bottom, left, right = op.pads()
        row, column = h - top, w - left
        condition = when(
            inside(row, source.height) if top or bottom or output.height != source.height else None,
            inside(column, source.width) if left or right or output.width != source.width else None,
        )
        finish(frame, load(frame.inputs[0], source, n, row, column, c, condition, op.value), n, h, w, c)


@template("cuda", Resize)
class ResizeImage(Elements):
    """Resampling, `nearest` and `bilinear`. Places are computed in integers, so exactly."""

    name = "resize_image"

    def instructions(self, spec: KernelSpec) -> float:
        assert isinstance(spec.op, Resize)
        return 8.0 if spec.op.mode == "nearest" else 34.0

    def write(self, frame: Frame, n: Expression, h: Expression, w: Expression, c: Expression) -> None:
        op, source, output = frame.spec.op, frame.spec.inputs[0], frame.spec.output
        assert isinstance(op, Resize)
        if op.mode == "nearest":
            row, column = self._nearest(h, source.height, output.height), self._nearest(w, source.width, output.width)
            finish(frame, load(frame.inputs[0], source, n, row, column, c), n, h, w, c)
            return
        top, bottom, down = self._linear(h, source.height, output.height, op.align_corners)
        left, right, across = self._linear(w, source.width, output.width, op.align_corners)

        def at(row: Expression, column: Expression) -> Expression:
            return load(frame.inputs[0], source, n, row, column, c)

        upper = T.bind(at(top, left) * (constant(1.0) - across) + at(top, right) * across)
        lower = T.bind(at(bottom, left) * (constant(1.0) - across) + at(bottom, right) * across)
        finish(frame, upper * (constant(1.0) - down) + lower * down, n, h, w, c)

    @staticmethod
    def _nearest(index: Expression, length: int, size: int) -> Expression:
        return index if length == size else quotient(index * length, size)

    @staticmethod
    def _linear(
        index: Expression, length: int, size: int, align_corners: bool
    ) -> tuple[Expression, Expression, Expression]:
        """Returns the elements before and after where an output samples, and the share of the second."""
        if align_corners:
            whole, part = index * (length - 1), max(1, size - 1)
        else:
            whole, part = T.max((index * 2 + 1) * length - size, 0), 2 * size
        low = T.bind(T.min(quotient(T.bind(T.int32(0) + whole), part), length - 1))
        # beyond the last element its own value counts, whatever the share
        share = T.bind(T.Cast("float32", whole - low * part) * constant(1.0 / part))
        return low, T.bind(T.min(low + 1, length - 1)), share
