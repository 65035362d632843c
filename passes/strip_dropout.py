"""`strip-dropout`: what only training needs goes. Exact in inference."""

from __future__ import annotations

from gensynth.ir import Network, Node, Value
from gensynth.ir.ops import Dropout

from .base import Pass, PassResult
from .rewriting import with_operands

__all__ = ["StripDropout"]


class StripDropout(Pass, name="strip-dropout"):
    """Removes dropout, which does nothing in inference.

        %b = dropout(%a) {rate=0.5}
        %c = relu(%b)                    -->      %c = relu(%a)

    Alternatives of a generator are not entered.
    """

    def run(self, network: Network) -> PassResult:
        """Returns the network without dropout."""
        graph = network.graph
        forwarded: dict[str, Value] = {}
        kept: list[Node] = []
        for node in graph.nodes:
            if any(value.name in forwarded for value in node.operands):
                node = with_operands(node, tuple(forwarded.get(value.name, value) for value in node.operands))
            if isinstance(node.op, Dropout) and not node.choices:
                forwarded[node.result.name] = node.operands[0]
            else:
                kept.append(node)
        if not forwarded:
            return PassResult(network, False)
        outputs = tuple(forwarded.get(value.name, value) for value in graph.outputs)
        changed = graph.replace(nodes=tuple(kept), outputs=outputs)
        return PassResult(Network(changed, network.weights), True, (f"{len(forwarded)} nodes removed",))
