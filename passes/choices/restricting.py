"""Taking alternatives away from a choice; the last one left is settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gensynth.ir import (
    Alternative,
    Array,
    AttributeValue,
    Choice,
    Graph,
    Network,
    Node,
    PassError,
    Value,
    choose_node,
    nearest,
    parameters_of,
)
from gensynth.ir.graph import ChoiceInfo
from gensynth.ir.ops import Choose
from gensynth.passes.analyses import channel_groups, slice_weights

from ..rewriting import free_name, rebuild, with_operands, without_unused_logits
from .inheritance import centre_of_kernel, widths_of
from .opening import open_attributes

__all__ = ["find_alternative", "restrict", "tag_paths", "untag_paths"]


def find_alternative(graph: Graph, choice: str, label: str, *, command: str) -> tuple[ChoiceInfo, int]:
    """Returns a choice and the index of one of its alternatives, by label.

    Raises:
        PassError: there is no such choice or alternative.
    """
    info = graph.choices.get(choice)
    if info is None:
        raise PassError(
            f"{command}: @{graph.name} has no choice '{choice}'", hint=nearest(choice, graph.choices, what="choices")
        )
    if label not in info.labels:
        raise PassError(
            f"{command}: choice '{choice}' has no alternative '{label}'", hint=f"it has: {', '.join(info.labels)}"
        )
    return info, info.labels.index(label)


def restrict(network: Network, choice: str, keep: Sequence[int]) -> Network:
    """Returns the generator with only some alternatives of a choice, by index; one alone is inlined.

    Weights of what is gone are dropped, widths cut to the largest that is left.
    """
    graph = network.graph
    logits = {identifier: info.logits for identifier, info in graph.choices.items()}
    old_logits = logits.pop(choice)
    if len(keep) > 1:
        logits[choice] = tuple(old_logits[index] for index in keep)
    assignments: dict[str, dict[str, Choice | AttributeValue]] = {}
    for prefix, node in graph.walk():
        for attribute, found in node.choices:
            if found.id == choice:
                values = tuple(found.values[index] for index in keep)
                assignments.setdefault(prefix + node.name, {})[attribute] = (
                    Choice(choice, values) if len(values) > 1 else values[0]
                )
    result = open_attributes(graph, assignments) if assignments else graph
    weights = None if network.weights is None else dict(network.weights)
    if weights is not None and assignments:
        weights = _narrow(graph, result, weights)
    origins: dict[str, str] = {}
    body = _restrict_body(tag_paths(result, "", origins), choice, tuple(keep))
    body = without_unused_logits(body.replace(logits=logits))
    if weights is not None:
        paths = {prefix + node.name: node.origin for prefix, node in body.walk()}
        moved = {}
        for name, _ in parameters_of(body):
            path, _, local = name.rpartition(".")
            moved[name] = weights[f"{paths[path]}.{local}"]
        weights = moved
    return Network(untag_paths(body, origins), weights)


def tag_paths(body: Graph, prefix: str, origins: dict[str, str]) -> Graph:
    """Returns the graph with every node's path in place of its origin, so that nodes can be followed as they move."""
    nodes = []
    for node in body.nodes:
        path = prefix + node.name
        origins[path] = node.origin
        alternatives = tuple(
            Alternative(item.label, tag_paths(item.body, f"{path}[{item.label}]/", origins))
            for item in node.alternatives
        )
        nodes.append(Node(node.op, node.operands, node.results, node.choices, alternatives, path))
    return body.replace(nodes=tuple(nodes))


def untag_paths(body: Graph, origins: Mapping[str, str]) -> Graph:
    """Returns a tagged graph with the origins put back; nodes made since keep theirs."""
    nodes = []
    for node in body.nodes:
        alternatives = tuple(Alternative(item.label, untag_paths(item.body, origins)) for item in node.alternatives)
        origin = origins.get(node.origin, node.origin)
        nodes.append(Node(node.op, node.operands, node.results, node.choices, alternatives, origin))
    return body.replace(nodes=tuple(nodes))


def _narrow(old: Graph, new: Graph, weights: dict[str, Array]) -> dict[str, Array]:
    """Cuts weights to the largest widths and kernels of the new graph."""
    nodes = {prefix + node.name: node for prefix, node in new.walk()}
    keep: dict[str, list[int]] = {}
    for group in channel_groups(old).groups:
        target = group.width
        for path, attribute, scale in group.sources:
            node = nodes[path]
            found = dict(node.choices).get(attribute)
            value: int = getattr(node.op, attribute) if found is None else max(widths_of(found))
            target = value // scale
        if target != group.width:
            keep[group.id] = list(range(target))
    cut = slice_weights(old, weights, keep) if keep else weights
    return {name: centre_of_kernel(cut[name], parameter.shape) for name, parameter in parameters_of(new)}


def _restrict_body(body: Graph, choice: str, keep: tuple[int, ...]) -> Graph:
    """Restricts the choose nodes of a body."""
    nodes: list[Node] = []
    replaced: dict[str, Value] = {}
    taken = {value.name for value in body.inputs} | set(body.producers)
    for node in body.nodes:
        if not node.alternatives:
            nodes.append(node)
            continue
        assert isinstance(node.op, Choose)
        chosen = node.op.choice == choice
        kept = [node.alternatives[index] for index in keep] if chosen else node.alternatives
        done = tuple(Alternative(item.label, _restrict_body(item.body, choice, keep)) for item in kept)
        if chosen and len(keep) == 1:
            _settle(node, done[0].body, nodes, replaced, taken)
        else:
            names = tuple(value.name for value in node.results)
            nodes.append(choose_node(node.op.choice, node.operands, names, done, origin=node.origin))
    return rebuild(body, nodes, body.outputs, replaced)


def _settle(node: Node, body: Graph, nodes: list[Node], replaced: dict[str, Value], taken: set[str]) -> None:
    """Puts the nodes of the one alternative left in place of their choose, named as `Inliner` would name them."""
    values: dict[str, Value] = {
        argument.name: operand for argument, operand in zip(body.inputs, node.operands, strict=True)
    }
    names: dict[str, str] = {}
    for old, result in zip(body.outputs, node.results, strict=True):
        if old.name not in values and old.name not in names:
            names[old.name] = result.name
    for inner in body.nodes:
        for value in inner.results:
            if value.name not in names:
                local = value.name.rpartition(".")[2]
                names[value.name] = free_name(f"{node.name}.{local}" if value.name in taken else value.name, taken)
                taken.add(names[value.name])
        results = tuple(Value(names.get(value.name, value.name), value.type) for value in inner.results)
        renamed = Node(inner.op, inner.operands, results, inner.choices, inner.alternatives, inner.origin)
        nodes.append(with_operands(renamed, tuple(values[value.name] for value in inner.operands)))
        for old, new in zip(inner.results, nodes[-1].results, strict=True):
            values[old.name] = new
    for old, result in zip(body.outputs, node.results, strict=True):
        if values[old.name].name != result.name:
            replaced[result.name] = values[old.name]
