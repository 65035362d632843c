"""Rewriting under open attributes: they are closed at their widest, and opened again when the rewrite is done."""

from __future__ import annotations

from collections.abc import Callable

from gensynth.ir import AttributeValue, Choice, Network
from gensynth.passes.analyses import channel_groups

from .inheritance import WIDTHS, widest
from .opening import open_attributes
from .restricting import tag_paths, untag_paths

__all__ = ["with_attributes_closed"]


def with_attributes_closed(network: Network, change: Callable[[Network], Network]) -> Network:
    """Returns `change(network)` where `change` sees no open attribute, only `choose` nodes.

    Every open attribute is closed at its widest value before, and opened afterwards on the same nodes wherever they
    have moved, with the same choice id and logits; a width is opened on its whole channel group, nodes that the change
    has added to the group included.
    """
    graph = network.graph
    wide = widest(graph)
    opened: list[tuple[str, str, Choice]] = []
    closed: dict[str, dict[str, Choice | AttributeValue]] = {}
    for prefix, node in graph.walk():
        for attribute, choice in node.choices:
            path = prefix + node.name
            opened.append((path, attribute, choice))
            index = wide.get(choice.id)
            if index is None:
                index = len(choice.values) - 1
            closed.setdefault(path, {})[attribute] = choice.values[index]
    if not opened:
        return change(network)
    logits = {identifier: info.logits for identifier, info in graph.choices.items()}
    origins: dict[str, str] = {}
    changed = change(Network(tag_paths(open_attributes(graph, closed), "", origins), network.weights))
    moved = {node.origin: prefix + node.name for prefix, node in changed.graph.walk() if node.origin in origins}
    result = untag_paths(changed.graph, origins)
    assignments: dict[str, dict[str, Choice | AttributeValue]] = {}
    groups = [(group, {(path, name) for path, name, _ in group.sources}) for group in channel_groups(result).groups]
    for path, attribute, choice in opened:
        now = moved.get(path)
        if now is None:
            continue
        assignments.setdefault(now, {})[attribute] = choice
        if attribute not in WIDTHS:
            continue
        for group, sources in groups:
            if (now, attribute) not in sources:
                continue
            own = next(scale for where, name, scale in group.sources if (where, name) == (now, attribute))
            for where, name, scale in group.sources:
                values = tuple(int(value) // own * scale for value in choice.values)
                assignments.setdefault(where, {})[name] = Choice(choice.id, values)
    kept = {choice.id for _, _, choice in opened}
    starts = {identifier: values for identifier, values in logits.items() if identifier in kept}
    return Network(open_attributes(result, assignments, starts), changed.weights)

