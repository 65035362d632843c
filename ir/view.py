"""A graph as networkx sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .attributes import format_value
from .graph import Graph

if TYPE_CHECKING:
    import networkx

__all__ = ["to_networkx"]


def to_networkx(graph: Graph) -> networkx.MultiDiGraph[str]:
    """Returns a MultiDiGraph: a vertex for every input, node and output, an edge for every operand.

    Vertices are called by value name (`return.0`, ... for outputs) and carry `op`, `attributes` (text by name) and
    `types`; edges carry `value`, `operand` (which operand of the reader) and `type`. An op may read one value twice,
    hence the multigraph. Bodies of alternatives are not entered.
    """
    import networkx

    view: networkx.MultiDiGraph[str] = networkx.MultiDiGraph(name=graph.name)
    producer: dict[str, str] = {}
    for value in graph.inputs:
        producer[value.name] = value.name
        view.add_node(value.name, op="input", attributes={}, types=(str(value.type),))
    for node in graph.nodes:
        view.add_node(
            node.name,
            op=node.op.name,
            attributes={name: format_value(attribute) for name, attribute in node.op.explicit().items()},
            types=tuple(str(value.type) for value in node.results),
        )
        for position, operand in enumerate(node.operands):
            view.add_edge(
                producer[operand.name], node.name, value=operand.name, operand=position, type=str(operand.type)
            )
        for value in node.results:
            producer[value.name] = node.name
    for position, value in enumerate(graph.outputs):
        view.add_node(f"return.{position}", op="output", attributes={}, types=(str(value.type),))
        view.add_edge(producer[value.name], f"return.{position}", value=value.name, operand=0, type=str(value.type))
    return view
