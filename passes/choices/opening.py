"""Attributes left open: putting a choice into the nodes that share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gensynth.ir import (
    Alternative,
    AttributeValue,
    Choice,
    Graph,
    Node,
    TensorType,
    Value,
    choose_node,
    infer_types,
    make_node,
)
from gensynth.ir.ops import Choose

__all__ = ["open_attributes"]


def open_attributes(
    graph: Graph,
    assignments: Mapping[str, Mapping[str, Choice | AttributeValue]],
    logits: Mapping[str, Sequence[float]] | None = None,
) -> Graph:
    """Returns the graph with attributes set, all at once, and types inferred anew from the inputs on.

    `assignments` maps node paths (weight prefix and name, as `Graph.walk` gives them) to attributes; a `Choice` opens
    the attribute, a plain value closes it. `logits` are those of new choices.

    Raises:
        InferenceError: some setting of the choices does not fit.
        VerifyError: alternatives no longer agree.
    """
    result = _apply(graph, assignments, "", tuple(value.type for value in graph.inputs))
    found = {identifier: info.logits for identifier, info in result.choices.items()}
    kept = {identifier: graph.logits.get(identifier, values) for identifier, values in found.items()}
    for identifier, values in (logits or {}).items():
        kept[identifier] = tuple(values)
    return result.replace(logits=kept)


def _apply(
    body: Graph,
    assignments: Mapping[str, Mapping[str, Choice | AttributeValue]],
    prefix: str,
    types: tuple[TensorType, ...],
) -> Graph:
    inputs = tuple(
        value if value.type is type else Value(value.name, type) for value, type in zip(body.inputs, types, strict=True)
    )
    values = {value.name: value for value in inputs}
    nodes = []
    for node in body.nodes:
        operands = tuple(values[value.name] for value in node.operands)
        names = tuple(value.name for value in node.results)
        if node.alternatives:
            assert isinstance(node.op, Choose)
            alternatives = tuple(
                Alternative(
                    item.label,
                    _apply(
                        item.body,
                        assignments,
                        f"{prefix}{node.name}[{item.label}]/",
                        tuple(value.type for value in operands),
                    ),
                )
                for item in node.alternatives
            )
            changed = operands != node.operands or any(
                new.body is not old.body for new, old in zip(alternatives, node.alternatives, strict=True)
            )
            if changed:
                node = choose_node(node.op.choice, operands, names, alternatives, origin=node.origin)
        else:
            node = _assign(node, operands, names, assignments.get(prefix + node.name, {}))
        nodes.append(node)
        for value in node.results:
            values[value.name] = value
    if inputs == body.inputs and all(new is old for new, old in zip(nodes, body.nodes, strict=True)):
        return body
    outputs = tuple(values[value.name] for value in body.outputs)
    return Graph(body.name, inputs, tuple(nodes), outputs, body.logits, body.requirements)


def _assign(
    node: Node,
    operands: tuple[Value, ...],
    names: tuple[str, ...],
    attributes: Mapping[str, Choice | AttributeValue],
) -> Node:
    if not attributes and operands == node.operands:
        return node
    opened = {name: choice for name, choice in node.choices if name not in attributes}
    opened.update({name: value for name, value in attributes.items() if isinstance(value, Choice)})
    closed = {name: value for name, value in attributes.items() if not isinstance(value, Choice)}
    op = node.op.with_attributes(closed) if closed else node.op
    if not opened and not any(value.type.is_open for value in operands):
        results = infer_types(op, tuple(value.type for value in operands))
        made = tuple(Value(name, type) for name, type in zip(names, results, strict=True))
        return Node(op, operands, made, (), (), node.origin)
    choices = tuple((name, opened[name]) for name in op.attributes if name in opened)
    return make_node(op, operands, names, choices=choices, origin=node.origin)
