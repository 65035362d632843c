"""Rewriting under open attributes: they are closed at their widest, and opened again when the rewrite is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

from gensynth.ir import AttributeValue, Choice, Graph, Network, Pair, pair
from gensynth.passes.analyses import channel_groups

from .inheritance import widest, widths_of
from .opening import open_attributes
from .restricting import tag_paths, untag_paths

__all__ = ["with_attributes_closed"]


def with_attributes_closed(network: Network, change: Callable[[Network], Network]) -> Network:
    """Returns `change(network)` where `change` sees no open attribute, only `choose` nodes.

    Every open attribute is closed at its widest value before, and opened afterwards on the same nodes wherever they
    have moved, with the same choice id and logits; a width is opened on its whole channel group, nodes that the change
    has added to the group included. Where the change ties two groups together, the first choice decides for both; where
    it ties a group to a fixed width, the choice goes.
    """
    graph = network.graph
    wide = {**_largest_kernels(graph), **widest(graph)}
    opened: list[tuple[str, str, Choice]] = []
    closed: dict[str, dict[str, Choice | AttributeValue]] = {}
    for prefix, node in graph.walk():
        for attribute, choice in node.choices:
            path = prefix + node.name
            opened.append((path, attribute, choice))
            closed.setdefault(path, {})[attribute] = choice.values[wide.get(choice.id, len(choice.values) - 1)]
    if not opened:
        return change(network)
    logits = {identifier: info.logits for identifier, info in graph.choices.items()}
    origins: dict[str, str] = {}
    changed = change(Network(tag_paths(open_attributes(graph, closed), "", origins), network.weights))
    moved = {node.origin: prefix + node.name for prefix, node in changed.graph.walk() if node.origin in origins}
    result = untag_paths(changed.graph, origins)
    found = channel_groups(result)
    groups = {(path, name): group for group in found.groups for path, name, _ in group.sources}
    settled: dict[str, str] = {}
    assignments: dict[str, dict[str, Choice | AttributeValue]] = {}
    for path, attribute, choice in opened:
        now = moved.get(path)
        group = None if now is None else groups.get((now, attribute))
        if now is not None and (now, attribute) not in found.counted:
            assignments.setdefault(now, {})[attribute] = choice
        if group is None or group.fixed is not None or settled.setdefault(group.id, choice.id) != choice.id:
            continue
        own = next(scale for where, name, scale in group.sources if (where, name) == (now, attribute))
        for where, name, scale in group.sources:
            values = tuple(max(1, value // own) * scale for value in widths_of(choice))
            assignments.setdefault(where, {})[name] = Choice(choice.id, values)
    opened_again = open_attributes(result, assignments)
    kept = {identifier: logits.get(identifier, info.logits) for identifier, info in opened_again.choices.items()}
    return Network(opened_again.replace(logits={**kept, **changed.graph.logits}), changed.weights)


def _largest_kernels(graph: Graph) -> dict[str, int]:
    """Returns, for every choice of a kernel, the index of its largest: the size at which weights are kept."""
    found: dict[str, int] = {}
    for _, node in graph.walk():
        for name, choice in node.choices:
            if name == "kernel":
                areas = [math.prod(pair(cast(Pair, value))) for value in choice.values]
                found.setdefault(choice.id, areas.index(max(areas)))
    return found
