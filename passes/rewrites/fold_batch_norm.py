"""`fold-batch-norm`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gensynth.ir import Graph, Node, Value
from gensynth.ir.ops import BatchNorm, Conv2d, ConvTranspose2d, Dense

from ..rules import Carry, Match, Rewriter, RewriteRule, matches_op
from .spots import read_outside_reason

__all__ = ["FoldBatchNorm"]


class FoldBatchNorm(RewriteRule, name="fold-batch-norm"):
    """Puts the batch norm after a convolution or dense layer into its weights.

        %conv = conv2d(%x) {channels=16, kernel=3}
        %norm = batch_norm(%conv)
        -->
        %norm = conv2d(%x) {channels=16, kernel=3, bias=true}

    Weights: with f = scale / sqrt(variance + epsilon), filters times f, and (bias - mean) f + the norm's bias. Exact,
    for the running statistics; meant for a network that is trained.
    """

    carries: ClassVar[Carry] = Carry.EXACT

    def match(self, graph: Graph, node: Node) -> Match | None:
        if not matches_op(node, BatchNorm):
            return None
        layer = graph.producers.get(node.operands[0].name)
        if layer is None or not matches_op(layer, Conv2d, ConvTranspose2d, Dense):
            return None
        return Match.of(graph, (layer, node))

    def check(self, graph: Graph, match: Match) -> str | None:
        return read_outside_reason(graph, match)

    def rewrite(self, match: Match, build: Rewriter) -> Value:
        layer, norm = match.nodes
        folded = build.emit(layer.op.with_attributes({"bias": True}), *layer.operands, name="folded")
        if not build.has_weights:
            return folded
        assert isinstance(norm.op, BatchNorm)
        spread = np.sqrt(build.weight(norm, "variance").astype(np.float64) + norm.op.epsilon)
        gain = build.weight(norm, "scale") / spread
        weight = build.weight(layer, "weight").astype(np.float64)
        if isinstance(layer.op, ConvTranspose2d):
            groups, outputs = layer.op.groups, weight.shape[1]
            by_group = weight.reshape(groups, len(weight) // groups, outputs, -1)
            scaled = (by_group * gain.reshape(groups, 1, outputs, 1)).reshape(weight.shape)
        else:
            scaled = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
        shift = -build.weight(norm, "mean").astype(np.float64)
        if isinstance(layer.op, (Conv2d, ConvTranspose2d, Dense)) and layer.op.bias:
            shift = shift + build.weight(layer, "bias")
        build.carry(folded, "weight", scaled.astype(np.float32))
        build.carry(folded, "bias", (shift * gain + build.weight(norm, "bias")).astype(np.float32))
        return folded
