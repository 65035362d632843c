"""`shrink-kernel`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gensynth.ir import Graph, Node, UsageError, Value, pair
from gensynth.ir.ops import Conv2d

from ..base import option
from ..rules import Carry, Match, Rewriter, RewriteRule, matches_op
from .spots import one_node, times

__all__ = ["ShrinkKernel"]


class ShrinkKernel(RewriteRule, name="shrink-kernel"):
    """Takes the centre of a larger kernel, and as much less padding.

        %y = conv2d(%x) {channels=16, kernel=7, stride=2, padding=3}
        -->
        %y = conv2d(%x) {channels=16, kernel=3, stride=2, padding=1}

    Weights: the centre of every filter, which still sees the same pixels; exact where the rest is 0. No scaling: for
    pixels that do not correlate, the centre is the nearest small filter. Sides that are small enough stay.
    """

    carries: ClassVar[Carry] = Carry.APPROXIMATE
    size: int = option(default=3, help="the largest side of the new kernel")

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"shrink-kernel: size must be at least 1, got {self.size}", hint="write size=3")

    def match(self, graph: Graph, node: Node) -> Match | None:
        return one_node(graph, node) if matches_op(node, Conv2d) else None

    def check(self, graph: Graph, match: Match) -> str | None:
        op = match.root.op
        assert isinstance(op, Conv2d)
        if max(pair(op.kernel)) <= self.size:
            return f"its kernel is {times(op.kernel)}: no larger than {self.size}"
        if min(self._pads(op, match)) < 0:
            return f"its padding {op.padding} is too small: the map would grow"
        return None

    def rewrite(self, match: Match, build: Rewriter) -> Value:
        op = match.root.op
        assert isinstance(op, Conv2d)
        rows, columns = self._kernel(op)
        pads = self._pads(op, match)
        small = op.with_attributes({"kernel": (rows, columns), "padding": pads})
        same = small.with_attributes({"padding": "same"})
        if op.padding == "same" and same.pads(match.inputs[0].type) == pads:
            small = same
        value = build.emit(small, match.inputs[0], name="small")
        if build.has_weights:
            top, left = self._cut(op)
            weight = build.weight(match.root, "weight")[:, :, top : top + rows, left : left + columns]
            build.carry(value, "weight", np.ascontiguousarray(weight))
            if op.bias:
                build.carry(value, "bias", build.weight(match.root, "bias"))
        return value

    def _kernel(self, op: Conv2d) -> tuple[int, int]:
        rows, columns = pair(op.kernel)
        return min(rows, self.size), min(columns, self.size)

    def _cut(self, op: Conv2d) -> tuple[int, int]:
        """Returns how many rows are cut at the top, and columns at the left."""
        (rows, columns), (new_rows, new_columns) = pair(op.kernel), self._kernel(op)
        return (rows - new_rows) // 2, (columns - new_columns) // 2

    def _pads(self, op: Conv2d, match: Match) -> tuple[int, int, int, int]:
        """Returns the padding with which the centre sees what it saw; negative where there is none."""
        top, bottom, left, right = op.pads(match.inputs[0].type)
        (rows, columns), (new_rows, new_columns) = pair(op.kernel), self._kernel(op)
        (cut_top, cut_left), (down, along) = self._cut(op), pair(op.dilation)
        return (
            top - down * cut_top,
            bottom - down * (rows - new_rows - cut_top),
            left - along * cut_left,
            right - along * (columns - new_columns - cut_left),
        )
