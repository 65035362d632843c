"""A rewrite rule; `offer{rewrite=relu-to-hard-tanh}` makes choices of it with nothing more to do."""

from __future__ import annotations

from typing import ClassVar

from gensynth.ir import Graph, Node, Value
from gensynth.ir.ops import Relu
from gensynth.passes import Carry, Match, Rewriter, RewriteRule, option

from .ops import HardTanh


class ReluToHardTanh(RewriteRule, name="relu-to-hard-tanh"):
    """Puts a hard tanh in the place of a relu.

    %y = relu(%x)
    -->
    %y = hard_tanh(%x)
    """

    carries: ClassVar[Carry] = Carry.APPROXIMATE
    limit: float = option(default=1.0, help="where the hard tanh stops growing")

    def match(self, graph: Graph, node: Node) -> Match | None:
        return Match.of(graph, (node,)) if isinstance(node.op, Relu) else None

    def rewrite(self, match: Match, build: Rewriter) -> Value:
        return build.emit(HardTanh(limit=self.limit), match.inputs[0], name="activation")
