"""A pass: a frozen dataclass whose fields are its options."""

from __future__ import annotations

from gensynth.ir import Network
from gensynth.ir.ops import Dropout
from gensynth.passes import Pass, PassResult, option
from gensynth.passes.rewriting import rebuild


class DropDropout(Pass, name="drop-dropout"):
    """Removes every dropout of at least some rate, for networks that are trained."""

    least: float = option(default=0.0, help="keep dropouts below this rate")

    def run(self, network: Network) -> PassResult:
        """Returns the network without them; there are no weights to carry."""
        graph = network.graph
        gone = [node for node in graph.nodes if isinstance(node.op, Dropout) and node.op.rate >= self.least]
        if not gone:
            return PassResult(network, False, ("no dropout",))
        stand_ins = {node.name: node.operands[0] for node in gone}
        kept = [node for node in graph.nodes if node.name not in stand_ins]
        result = rebuild(graph, kept, graph.outputs, stand_ins)
        return PassResult(network.with_graph(result), True, (f"{len(gone)} removed",))
