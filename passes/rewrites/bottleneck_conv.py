"""`bottleneck-conv`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gensynth.ir import Graph, Node, Value, pair
from gensynth.ir.ops import Conv2d

from ..base import option
from ..rules import Carry, Match, Rewriter, RewriteRule, matches_op
from .factoring import leading_vectors
from .spots import one_node, require_ratio, share

__all__ = ["BottleneckConv"]


class BottleneckConv(RewriteRule, name="bottleneck-conv"):
    """Runs a convolution on fewer channels: 1 x 1 reduces, k x k works, 1 x 1 expands.

        %y = conv2d(%x) {channels=64, kernel=3, padding=same}                        : x has 32 channels
        -->
        %y.reduce  = conv2d(%x) {channels=8, kernel=1}
        %y.spatial = conv2d(%y.reduce) {channels=16, kernel=3, padding=same}
        %y         = conv2d(%y.spatial) {channels=64, kernel=1}

    Weights: the Tucker-2 decomposition of the filters over input and output channels (arXiv 1511.06530, section 3.1),
    from the leading singular vectors of both unfoldings; exact at ratio 1. Stride, padding and dilation go to the
    middle, the bias to the last.
    """

    carries: ClassVar[Carry] = Carry.APPROXIMATE
    ratio: float = option(default=0.25, help="channels in the middle as a share of those outside, on either side")

    def __post_init__(self) -> None:
        require_ratio(self.name, self.ratio)

    def match(self, graph: Graph, node: Node) -> Match | None:
        return one_node(graph, node) if matches_op(node, Conv2d) else None

    def check(self, graph: Graph, match: Match) -> str | None:
        op = match.root.op
        assert isinstance(op, Conv2d)
        if pair(op.kernel) == (1, 1):
            return "its kernel is 1 x 1: low-rank-conv is the rule for it"
        if op.groups > 1:
            return f"it has {op.groups} groups"
        inputs = op.image(match.inputs[0].type)[0]
        if self.ratio < 1.0 and (share(self.ratio, inputs), share(self.ratio, op.channels)) == (inputs, op.channels):
            return f"{self.ratio:g} of its {inputs} input and {op.channels} output channels is no fewer"
        return None

    def rewrite(self, match: Match, build: Rewriter) -> Value:
        op = match.root.op
        assert isinstance(op, Conv2d)
        inputs = op.image(match.inputs[0].type)[0]
        entering, leaving = share(self.ratio, inputs), share(self.ratio, op.channels)
        reduce = build.emit(Conv2d(channels=entering, kernel=1), match.inputs[0], name="reduce")
        middle = op.with_attributes({"channels": leaving, "bias": False})
        spatial = build.emit(middle, reduce, name="spatial")
        expand = build.emit(Conv2d(channels=op.channels, kernel=1, bias=op.bias), spatial, name="expand")
        if build.has_weights:
            weight = build.weight(match.root, "weight").astype(np.float64)
            by_output = weight.reshape(op.channels, -1)
            by_input = weight.swapaxes(0, 1).reshape(inputs, -1)
            outer = leading_vectors(by_output @ by_output.T, leaving)
            inner = leading_vectors(by_input @ by_input.T, entering)
            core = np.einsum("ochw,op,cq->pqhw", weight, outer, inner, optimize=True)
            build.carry(reduce, "weight", inner.T[:, :, None, None].astype(np.float32))
            build.carry(spatial, "weight", core.astype(np.float32))
            build.carry(expand, "weight", outer[:, :, None, None].astype(np.float32))
            if op.bias:
                build.carry(expand, "bias", build.weight(match.root, "bias"))
        return expand
