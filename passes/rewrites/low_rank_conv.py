"""`low-rank-conv`."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from gensynth.ir import Graph, Node, Op, UsageError, Value, pair
from gensynth.ir.ops import Conv2d, Dense

from ..base import option
from ..rules import Carry, Match, Rewriter, RewriteRule, matches_op
from .factoring import factor, grouped
from .spots import one_node, require_ratio, share

__all__ = ["LowRankConv"]


class LowRankConv(RewriteRule, name="low-rank-conv"):
    """Parts a convolution or dense layer into one with few outputs and a 1 x 1 that expands them.

        %y = conv2d(%x) {channels=64, kernel=3, padding=same}
        -->
        %y.reduce = conv2d(%x) {channels=32, kernel=3, padding=same}
        %y        = conv2d(%y.reduce) {channels=64, kernel=1}

    Weights: the truncated singular value decomposition of the weights as a matrix [out, C h w] (arXiv 1504.08083,
    section 3.1), group by group where the convolution is grouped; exact at full rank. The bias goes to the last.
    """

    carries: ClassVar[Carry] = Carry.APPROXIMATE
    ratio: float = option(default=0.5, help="the rank as a share of the full rank min(out, C h w)")
    rank: int = option(default=0, help="the rank itself, of each group; 0 to go by the ratio")

    def __post_init__(self) -> None:
        require_ratio(self.name, self.ratio)
        if self.rank < 0:
            raise UsageError(
                f"low-rank-conv: rank must be positive, got {self.rank}", hint="write rank=8, or ratio=0.5"
            )

    def match(self, graph: Graph, node: Node) -> Match | None:
        return one_node(graph, node) if matches_op(node, Conv2d, Dense) else None

    def check(self, graph: Graph, match: Match) -> str | None:
        full = _full_rank(match)
        if full == 1:
            return "its full rank is 1 already"
        if self.rank > full:
            return f"its full rank is {full}, less than {self.rank}"
        return None

    def rewrite(self, match: Match, build: Rewriter) -> Value:
        op = match.root.op
        rank = self.rank or share(self.ratio, _full_rank(match))
        first: Op
        last: Op
        if isinstance(op, Dense):
            groups, bias = 1, op.bias
            first, last = Dense(features=rank, bias=False), Dense(features=op.features, bias=bias)
        else:
            assert isinstance(op, Conv2d)
            groups, bias = op.groups, op.bias
            first = op.with_attributes({"channels": rank * groups, "bias": False})
            last = Conv2d(channels=op.channels, kernel=1, groups=groups, bias=bias)
        reduce = build.emit(first, match.inputs[0], name="reduce")
        expand = build.emit(last, reduce, name="expand")
        if build.has_weights:
            weight = build.weight(match.root, "weight")
            by_group = grouped(weight, groups)
            left, right = factor(by_group.reshape(groups, len(weight) // groups, -1), rank)
            ones = (1,) * (weight.ndim - 2)
            build.carry(reduce, "weight", right.reshape(rank * groups, *weight.shape[1:]).astype(np.float32))
            build.carry(expand, "weight", left.reshape(len(weight), rank, *ones).astype(np.float32))
            if bias:
                build.carry(expand, "bias", build.weight(match.root, "bias"))
        return expand


def _full_rank(match: Match) -> int:
    op = match.root.op
    if isinstance(op, Dense):
        inputs = match.inputs[0].type.shape[1]
        assert isinstance(inputs, int)
        return min(op.features, inputs)
    assert isinstance(op, Conv2d)
    inputs = op.image(match.inputs[0].type)[0]
    return min(op.channels // op.groups, inputs // op.groups * math.prod(pair(op.kernel)))
