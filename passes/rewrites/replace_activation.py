"""`replace-activation`."""

from __future__ import annotations

from typing import ClassVar

from gensynth.ir import Graph, Node, UsageError, Value, nearest, op_class
from gensynth.ir.ops import HardSigmoid, Sigmoid

from ..base import option
from ..rules import Carry, Match, Rewriter, RewriteRule
from .spots import ACTIVATIONS, one_node

__all__ = ["ReplaceActivation"]

_FAMILIES = (tuple(cls.name for cls in ACTIVATIONS), tuple(cls.name for cls in (Sigmoid, HardSigmoid)))


class ReplaceActivation(RewriteRule, name="replace-activation"):
    """Puts another activation in the place of one, or another gate in the place of a gate.

        %y = silu(%x)
        -->                       with to=hard_swish
        %y = hard_swish(%x)

    Activations are relu, relu6, leaky_relu, silu and hard_swish, gates sigmoid and hard_sigmoid; each is replaced by
    one of its kind only. There are no weights to carry, and the others stay; the function changes as much as the
    activations differ.
    """

    carries: ClassVar[Carry] = Carry.APPROXIMATE
    to: str = option(help="the new activation: relu, relu6, leaky_relu, silu, hard_swish, sigmoid or hard_sigmoid")
    of: tuple[str, ...] = option(default=(), help="replace only these; all of its kind where the list is empty")

    def __post_init__(self) -> None:
        known = [name for family in _FAMILIES for name in family]
        for name in (self.to, *self.of):
            if name not in known:
                raise UsageError(
                    f"replace-activation: '{name}' is no activation", hint=nearest(name, known, what="activations")
                )
        family = next(family for family in _FAMILIES if self.to in family)
        for name in self.of:
            if name not in family:
                raise UsageError(
                    f"replace-activation: {self.to} cannot stand for {name}", hint=f"it can for {', '.join(family)}"
                )

    def match(self, graph: Graph, node: Node) -> Match | None:
        family = next(family for family in _FAMILIES if self.to in family)
        return one_node(graph, node) if node.op.name in (self.of or family) else None

    def check(self, graph: Graph, match: Match) -> str | None:
        return f"it is {self.to} already" if match.root.op.name == self.to else None

    def rewrite(self, match: Match, build: Rewriter) -> Value:
        return build.emit(op_class(self.to)(), match.inputs[0], name="activation")
