"""`squeeze-excite`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gensynth.ir import Graph, Node, Value
from gensynth.ir.ops import BatchNorm, Conv2d, GlobalAvgPool, HardSigmoid, Mul, Relu

from ..base import option
from ..rules import Carry, Match, Rewriter, RewriteRule, matches_op
from .spots import ACTIVATIONS, after_unit, one_node, require_ratio, share

__all__ = ["SqueezeExcite"]

_NEARLY_OPEN = 3.0 - 6e-6
"""Where a hard sigmoid gives 1 - 1e-6: at 3 itself it is flat, and the gate would never learn."""


class SqueezeExcite(RewriteRule, name="squeeze-excite"):
    """Scales the channels behind a convolution by what the whole map holds (arXiv 1709.01507; gate of 1905.02244).

        %y = relu(%norm)                                                    : f32[N, 16, 8, 8]
        -->
        %y.features = relu(%norm)                                           : f32[N, 16, 8, 8]
        %y.squeeze  = global_avg_pool(%y.features) {keep=true}              : f32[N, 16, 1, 1]
        %y.reduce   = conv2d(%y.squeeze) {channels=4, kernel=1, bias=true}  : f32[N, 4, 1, 1]
        %y.act      = relu(%y.reduce)                                       : f32[N, 4, 1, 1]
        %y.expand   = conv2d(%y.act) {channels=16, kernel=1, bias=true}     : f32[N, 16, 1, 1]
        %y.gate     = hard_sigmoid(%y.expand)                               : f32[N, 16, 1, 1]
        %y          = mul(%y.features, %y.gate)                             : f32[N, 16, 8, 8]

    The spot is the end of a unit: a convolution with the batch norm and the activation that follow it. Weights: those
    of the unit stay; `reduce` starts fresh, `expand` with weights 0 and bias just under 3, which opens the gate to 1:
    exact at the start (to 1e-6), and free to learn.
    """

    carries: ClassVar[Carry] = Carry.EXACT
    ratio: float = option(default=0.25, help="channels of the squeezed as a share of the map's")

    def __post_init__(self) -> None:
        require_ratio(self.name, self.ratio)

    def match(self, graph: Graph, node: Node) -> Match | None:
        layer: Node | None = node
        for kinds in (ACTIVATIONS, (BatchNorm,)):
            if layer is not None and matches_op(layer, *kinds):
                layer = graph.producers.get(layer.operands[0].name)
        if layer is None or not matches_op(layer, Conv2d) or after_unit(graph, layer) is not node:
            return None
        return one_node(graph, node)

    def check(self, graph: Graph, match: Match) -> str | None:
        if match.root.result.type.shape[2:] == (1, 1):
            return "its map is 1 x 1: there is nothing to squeeze"
        if any(matches_op(user, Mul) for user in graph.users.get(match.root.name, ())):
            return "it is scaled already"
        return None

    def rewrite(self, match: Match, build: Rewriter) -> Value:
        features = build.emit(match.root.op, *match.root.operands, name="features")
        build.carry_all(match.root, features)
        channels = features.type.shape[1]
        assert isinstance(channels, int)
        squeeze = build.emit(GlobalAvgPool(keep=True), features, name="squeeze")
        narrow = Conv2d(channels=share(self.ratio, channels), kernel=1, bias=True)
        reduce = build.emit(Relu(), build.emit(narrow, squeeze, name="reduce"), name="act")
        expand = build.emit(Conv2d(channels=channels, kernel=1, bias=True), reduce, name="expand")
        gate = build.emit(HardSigmoid(), expand, name="gate")
        build.carry(expand, "weight", np.zeros((channels, narrow.channels, 1, 1), np.float32))
        build.carry(expand, "bias", np.full(channels, _NEARLY_OPEN, np.float32))
        return build.emit(Mul(), features, gate, name="scaled")
