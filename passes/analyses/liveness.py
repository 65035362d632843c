"""Liveness: from where to where each value must be kept, and how much memory that takes at most.

A value lives from the node that makes it to the last node that reads it; inputs from the start, outputs to the end.
While a node runs, its operands and its results are all live: nothing is computed in place and nothing is fused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gensynth.ir import Graph, PassError, TensorType

__all__ = ["Liveness", "liveness", "peak_memory"]

_bytes: dict[tuple[TensorType, int], int] = {}


def _size(type: TensorType, batch: int) -> int:
    found = _bytes.get((type, batch))
    if found is None:
        found = _bytes[type, batch] = type.bytes(batch)
    return found


@dataclass(frozen=True)
class Liveness:
    """Live ranges and memory of one network.

    `ranges` maps each value to the indices of the first and the last node during which it is live; an input starts at
    -1 and an output ends at the number of nodes. `live_bytes` is the memory while each node runs. `peak` is the most
    of it, and `peak_node` the first node where it happens (None where the inputs or outputs alone take the most).
    """

    ranges: Mapping[str, tuple[int, int]]
    live_bytes: tuple[int, ...]
    peak: int
    peak_node: str | None


def liveness(graph: Graph, batch: int = 1) -> Liveness:
    """Returns the live ranges and the memory of a network's activations at a batch size.

    Raises:
        PassError: the graph is a generator.
    """
    if graph.is_generator:
        raise PassError(
            f"@{graph.name} has open choices, so its values have no single live ranges",
            hint="materialize it with a seed first",
        )
    count = len(graph.nodes)
    start = {value.name: -1 for value in graph.inputs}
    end = dict(start)
    for index, node in enumerate(graph.nodes):
        for value in node.operands:
            end[value.name] = index
        for value in node.results:
            start[value.name] = end[value.name] = index
    for value in graph.outputs:
        end[value.name] = count
    change = [0] * (count + 3)
    for name, value in graph.values.items():
        change[start[name] + 1] += _size(value.type, batch)
        change[end[name] + 2] -= _size(value.type, batch)
    live, running = [], 0
    for step in change[: count + 2]:
        running += step
        live.append(running)
    peak = max(live)
    at = next((index for index in range(count) if live[index + 1] == peak), None)
    return Liveness(
        {name: (start[name], end[name]) for name in start},
        tuple(live[1 : count + 1]),
        peak,
        None if at is None else graph.nodes[at].name,
    )


def peak_memory(graph: Graph, batch: int = 1) -> int:
    """Returns the most bytes of activations live at once, as `liveness(graph, batch).peak`, in one backward sweep."""
    sizes = _bytes
    live: set[str] = set()
    running = 0
    for value in graph.outputs:
        if value.name not in live:
            live.add(value.name)
            running += _size(value.type, batch)
    peak = running
    for node in reversed(graph.nodes):
        made = 0
        for value in node.results:
            size = sizes.get((value.type, batch))
            if size is None:
                size = _size(value.type, batch)
            made += size
            if value.name in live:
                live.remove(value.name)
                running -= size
        for value in node.operands:
            if value.name not in live:
                live.add(value.name)
                size = sizes.get((value.type, batch))
                running += _size(value.type, batch) if size is None else size
        if running + made > peak:
            peak = running + made
    return max(peak, sum(_size(value.type, batch) for value in graph.inputs))
