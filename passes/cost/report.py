"""The cost of a whole network: totals for the inner loop of synthesis, and a report with a row per node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from gensynth.ir import Graph, PassError, TensorType

from ..analyses.liveness import peak_memory
from .counts import NodeCost, node_cost

__all__ = ["CostReport", "CostRow", "Totals", "cost", "totals"]


class Totals(NamedTuple):
    """What a network costs in all. Bytes are of activations at the batch asked for, weights in float32.

    `peak_memory` is the most bytes of activations live at once, inputs and outputs included, nothing computed in
    place and nothing fused; `activation_bytes` is the size of all node results together.
    """

    macs: int
    params: int
    weight_bytes: int
    operations: int
    activation_bytes: int
    peak_memory: int


@dataclass(frozen=True, slots=True)
class CostRow:
    """What one node costs: its name, its op and attributes in the text form, its result type, and its counts."""

    name: str
    op: str
    type: TensorType
    cost: NodeCost


@dataclass(frozen=True)
class CostReport:
    """What a network costs, in all and per node; see `Totals` for what is counted."""

    graph: Graph
    batch: int
    totals: Totals

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and dense layers."""
        return self.totals.macs

    @property
    def params(self) -> int:
        """Trainable weights."""
        return self.totals.params

    @property
    def weight_bytes(self) -> int:
        """Bytes of all stored weights, in float32."""
        return self.totals.weight_bytes

    @property
    def operations(self) -> int:
        """All arithmetic operations, 2 per MAC."""
        return self.totals.operations

    @property
    def activation_bytes(self) -> int:
        """Bytes of all node results together."""
        return self.totals.activation_bytes

    @property
    def peak_memory(self) -> int:
        """The most bytes of activations live at once."""
        return self.totals.peak_memory

    @property
    def nodes(self) -> int:
        """The number of nodes."""
        return len(self.graph.nodes)

    @cached_property
    def rows(self) -> tuple[CostRow, ...]:
        """A row per node, in order of the text."""
        return tuple(
            CostRow(
                node.name,
                node.op.text(),
                node.result.type,
                node_cost(node.op, node.operand_types, tuple(value.type for value in node.results), self.batch),
            )
            for node in self.graph.nodes
        )

    @cached_property
    def by_name(self) -> Mapping[str, CostRow]:
        """The rows by node name."""
        return {row.name: row for row in self.rows}


def totals(graph: Graph, batch: int = 1) -> Totals:
    """Returns what a network costs in all: a few microseconds a node, for the inner loop of synthesis.

    Raises:
        PassError: the graph is a generator, or an op has no rule.
    """
    macs = params = weight_bytes = operations = activation_bytes = 0
    for node in graph.nodes:
        if node.choices or node.alternatives:
            raise PassError(
                f"@{graph.name} has open choices (first at %{node.name}), so it has no single cost",
                hint="materialize it with a seed first",
            )
        known = node.facts.get("cost") if batch == 1 else None
        if isinstance(known, NodeCost):
            found = known
        else:
            found = node_cost(node.op, node.operand_types, tuple([value.type for value in node.results]), batch)
            if batch == 1:
                node.facts["cost"] = found
        macs += found.macs
        params += found.params
        weight_bytes += found.weight_bytes
        operations += found.operations
        activation_bytes += found.output_bytes
    return Totals(macs, params, weight_bytes, operations, activation_bytes, peak_memory(graph, batch))


def cost(graph: Graph, batch: int = 1) -> CostReport:
    """Returns what a network costs at a batch size, in all and per node.

    Raises:
        PassError: the graph is a generator, or an op has no rule.
    """
    return CostReport(graph, batch, totals(graph, batch))
