"""`separate-conv`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gensynth.ir import Graph, Node, Value, pair
from gensynth.ir.ops import BatchNorm, Conv2d

from ..base import option
from ..rules import Carry, Match, Rewriter, RewriteRule, matches_op
from .factoring import factor, grouped
from .spots import one_node

__all__ = ["SeparateConv"]


class SeparateConv(RewriteRule, name="separate-conv"):
    """Parts a convolution into a depthwise one and a pointwise one (arXiv 1704.04861, section 3.1).

        %y = conv2d(%x) {channels=32, kernel=3, padding=same}                       : x has 16 channels
        -->
        %y.depthwise = conv2d(%x) {channels=16, kernel=3, padding=same, groups=16}
        %y           = conv2d(%y.depthwise) {channels=32, kernel=1}

    Weights: for each input channel, the best rank-1 fit of its filters [out, h w] gives the depthwise filter and the
    pointwise column; exact where every input channel has one filter shape. Stride, padding and dilation go to the
    depthwise, groups and bias to the pointwise. With `normalize`, a batch norm stands between and starts as identity.
    """

    carries: ClassVar[Carry] = Carry.APPROXIMATE
    normalize: bool = option(default=False, help="put a batch norm after the depthwise convolution")

    def match(self, graph: Graph, node: Node) -> Match | None:
        return one_node(graph, node) if matches_op(node, Conv2d) else None

    def check(self, graph: Graph, match: Match) -> str | None:
        op = match.root.op
        assert isinstance(op, Conv2d)
        if pair(op.kernel) == (1, 1):
            return "its kernel is 1 x 1: it is pointwise already"
        if op.groups > 1 and op.groups == match.inputs[0].type.shape[1]:
            return "it is depthwise already"
        return None

    def rewrite(self, match: Match, build: Rewriter) -> Value:
        op = match.root.op
        assert isinstance(op, Conv2d)
        channels = op.image(match.inputs[0].type)[0]
        spatial = op.with_attributes({"channels": channels, "groups": channels, "bias": False})
        depthwise = value = build.emit(spatial, match.inputs[0], name="depthwise")
        if self.normalize:
            norm = BatchNorm()
            value = build.emit(norm, value, name="norm")
            build.carry(value, "variance", np.full(channels, 1.0 - norm.epsilon, np.float32))
        mix = Conv2d(channels=op.channels, kernel=1, groups=op.groups, bias=op.bias)
        pointwise = build.emit(mix, value, name="pointwise")
        if build.has_weights:
            weight = build.weight(match.root, "weight")
            filters = grouped(weight, op.groups).swapaxes(1, 2)  # [g, C / g, O / g, h, w]
            mixing, shapes = factor(filters.reshape(*filters.shape[:3], -1), 1)
            columns = mixing[..., 0].swapaxes(1, 2).reshape(op.channels, -1, 1, 1)
            build.carry(depthwise, "weight", shapes.reshape(channels, 1, *pair(op.kernel)).astype(np.float32))
            build.carry(pointwise, "weight", columns.astype(np.float32))
            if op.bias:
                build.carry(pointwise, "bias", build.weight(match.root, "bias"))
        return pointwise
