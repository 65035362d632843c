"""`factorize-conv`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gensynth.ir import Graph, Node, Padding, Value, pair
from gensynth.ir.ops import Conv2d

from ..base import option
from ..rules import Carry, Match, Rewriter, RewriteRule, matches_op
from .factoring import factor, grouped
from .spots import one_node, require_ratio, share, times

__all__ = ["FactorizeConv"]


class FactorizeConv(RewriteRule, name="factorize-conv"):
    """Parts a convolution into a column and a row (arXiv 1405.3866, section 2.1, scheme 2; arXiv 1512.00567).

        %y = conv2d(%x) {channels=32, kernel=3, stride=2, padding=1}
        -->
        %y.vertical = conv2d(%x) {channels=32, kernel=[3, 1], stride=[2, 1], padding=[1, 0]}
        %y          = conv2d(%y.vertical) {channels=32, kernel=[1, 3], stride=[1, 2], padding=[0, 1]}

    Weights: the best fit of rank m of the filters as a matrix [C h, out w], m being the channels between; exact at
    full rank (m = min(C h, out w)). Grouped convolutions are parted group by group, so a depthwise one stays
    depthwise. The bias goes to the row.
    """

    carries: ClassVar[Carry] = Carry.APPROXIMATE
    ratio: float = option(default=1.0, help="channels between as a share of the output channels")

    def __post_init__(self) -> None:
        require_ratio(self.name, self.ratio, most=16.0)

    def match(self, graph: Graph, node: Node) -> Match | None:
        return one_node(graph, node) if matches_op(node, Conv2d) else None

    def check(self, graph: Graph, match: Match) -> str | None:
        op = match.root.op
        assert isinstance(op, Conv2d)
        if 1 in pair(op.kernel):
            return f"its kernel is {times(op.kernel)}: it has no two sides to part"
        return None

    def rewrite(self, match: Match, build: Rewriter) -> Value:
        op = match.root.op
        assert isinstance(op, Conv2d)
        groups, (rows, columns) = op.groups, pair(op.kernel)
        inputs, outputs = op.image(match.inputs[0].type)[0] // groups, op.channels // groups
        middle = min(share(self.ratio, outputs), inputs * rows, outputs * columns)
        down: Padding = op.padding
        along: Padding = op.padding
        if not isinstance(op.padding, str):
            top, bottom, left, right = op.pads(match.inputs[0].type)
            down, along = (top, bottom, 0, 0), (0, 0, left, right)
        (stride_down, stride_along), (dilation_down, dilation_along) = pair(op.stride), pair(op.dilation)
        column = Conv2d(
            channels=middle * groups,
            kernel=(rows, 1),
            stride=(stride_down, 1),
            padding=down,
            dilation=(dilation_down, 1),
            groups=groups,
        )
        row = Conv2d(
            channels=op.channels,
            kernel=(1, columns),
            stride=(1, stride_along),
            padding=along,
            dilation=(1, dilation_along),
            groups=groups,
            bias=op.bias,
        )
        vertical = build.emit(column, match.inputs[0], name="vertical")
        horizontal = build.emit(row, vertical, name="horizontal")
        if build.has_weights:
            weight = grouped(build.weight(match.root, "weight"), groups)  # [g, O, C, h, w]
            matrix = weight.transpose(0, 2, 3, 1, 4).reshape(groups, inputs * rows, outputs * columns)
            left_factor, right_factor = factor(matrix, middle)
            columns_first = left_factor.swapaxes(1, 2).reshape(middle * groups, inputs, rows, 1)
            rows_last = right_factor.reshape(groups, middle, outputs, columns).swapaxes(1, 2)
            build.carry(vertical, "weight", columns_first.astype(np.float32))
            build.carry(horizontal, "weight", rows_last.reshape(op.channels, middle, 1, columns).astype(np.float32))
            if op.bias:
                build.carry(horizontal, "bias", build.weight(match.root, "bias"))
        return horizontal
