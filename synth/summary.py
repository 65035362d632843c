"""Rows of `summary.json`."""

from __future__ import annotations

from gensynth.ir import Graph, architecture_hash
from gensynth.passes.cost import CostModel, totals

from .devices import device_figures
from .performance import Outcome, information_density, netscore

__all__ = ["summary_row"]


def summary_row(
    graph: Graph,
    accuracy: float,
    *,
    seed: int | None,
    feasible: bool,
    path: str,
    validation_accuracy: float | None = None,
    model: CostModel | None = None,
) -> dict[str, object]:
    """Returns what is reported of one network; accuracies in percent, `accuracy` on the test part.

    With a model also latency and energy on its device.
    """
    found = totals(graph)
    outcome = Outcome.of(accuracy, found)
    return {
        "seed": seed,
        "architecture_hash": architecture_hash(graph),
        "accuracy": accuracy,
        "validation_accuracy": validation_accuracy,
        "params": found.params,
        "macs": found.macs,
        "peak_memory_bytes": found.peak_memory,
        "information_density": information_density(outcome),
        "netscore": netscore(outcome),
        **device_figures(graph, model),
        "feasible": feasible,
        "path": path,
    }
