"""The cost of a whole network: totals for the inner loop of synthesis, and a report by node, on a device by kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from gensynth.ir import Graph, PassError, TensorType, UsageError

from ..analyses.liveness import peak_memory
from .counts import NodeCost, node_cost
from .estimating import CostModel, Estimate, Interval, KernelEstimate

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
    """What a network costs, in all and per node; see `Totals` for what is counted.

    `estimate` is what a run takes on a device, where the report was asked for one; latency, energy and the kernels are
    of a whole batch.
    """

    graph: Graph
    batch: int
    totals: Totals
    estimate: Estimate | None = None

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

    @property
    def latency(self) -> Interval:
        """Milliseconds of a run, and the interval that holds what would be measured with a probability of 90%."""
        return self._estimated("latency").latency

    @property
    def latency_ms(self) -> float:
        """Milliseconds of a run."""
        return self._estimated("latency_ms").latency_ms

    @property
    def energy(self) -> Interval:
        """Millijoules of a run, and the interval that holds what would be measured with a probability of 90%."""
        return self._estimated("energy").energy

    @property
    def energy_mj(self) -> float:
        """Millijoules of a run."""
        return self._estimated("energy_mj").energy_mj

    @property
    def power_w(self) -> float:
        """Watts drawn meanwhile."""
        return self._estimated("power_w").power_w

    @property
    def inferences_per_second(self) -> float:
        """Samples a second, one run after another."""
        return self._estimated("inferences_per_second").inferences_per_second

    @property
    def inferences_per_joule(self) -> float:
        """Samples a joule."""
        return self._estimated("inferences_per_joule").inferences_per_joule

    @property
    def kernels(self) -> tuple[KernelEstimate, ...]:
        """What each kernel takes, in the order in which they run."""
        return self._estimated("kernels").kernels

    @property
    def outside(self) -> tuple[str, ...]:
        """In what the network lies outside what the device's model was fitted to, in words."""
        return self._estimated("outside").outside

    def _estimated(self, name: str) -> Estimate:
        if self.estimate is None:
            raise UsageError(
                f"@{self.graph.name}: '{name}' is known on a device only, and none was given",
                hint='name one, such as gs.cost(net, device="tegra-x2-gpu"); `gensynth devices` lists them',
            )
        return self.estimate

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


def cost(graph: Graph, batch: int = 1, *, model: CostModel | None = None) -> CostReport:
    """Returns what a network costs at a batch size, in all and per node; with a model also per kernel on its device.

    Raises:
        PassError: the graph is a generator, or an op has no rule.
        UsageError: the model is of another batch.
    """
    if model is not None and model.condition.batch != batch:
        raise UsageError(
            f"the costs are for a batch of {batch}, the model of {model.device.name} for {model.condition.batch}",
            hint=f"make the model with cost_model(..., batch={batch})",
        )
    return CostReport(graph, batch, totals(graph, batch), None if model is None else model.estimate(graph))
