"""Putting changed nodes back into a graph: types flow on, order is mended, weights follow."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from gensynth.ir import Alternative, Array, Graph, Node, TensorType, Value, VerifyError, choose_node, make_node
from gensynth.ir.ops import Choose

__all__ = [
    "free_name",
    "rebuild",
    "rename_results",
    "retype_body",
    "sort_nodes",
    "weights_below",
    "with_operands",
    "without_unused_logits",
]


def free_name(wanted: str, taken: Container[str]) -> str:
    """Returns `wanted`, or the first of `wanted_2`, `wanted_3`, ... that is not taken."""
    name, count = wanted, 1
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    return name


def without_unused_logits(graph: Graph) -> Graph:
    """Returns the graph without the logits of choices that no node waits for any more."""
    if all(identifier in graph.choices for identifier in graph.logits):
        return graph
    used = {identifier: logits for identifier, logits in graph.logits.items() if identifier in graph.choices}
    return graph.replace(logits=used)


def rename_results(node: Node, names: Mapping[str, str]) -> Node:
    """Returns the node with some of its results renamed."""
    if not any(value.name in names for value in node.results):
        return node
    results = tuple(Value(names.get(value.name, value.name), value.type) for value in node.results)
    return Node(node.op, node.operands, results, node.choices, node.alternatives, node.origin)


def with_operands(node: Node, operands: tuple[Value, ...]) -> Node:
    """Returns the node on other operands, its types inferred anew where an operand's type differs."""
    if operands == node.operands:
        return node
    names = tuple([value.name for value in node.results])
    if all([new.type is old.type for new, old in zip(operands, node.operands, strict=True)]):
        return Node(node.op, operands, node.results, node.choices, node.alternatives, node.origin)
    if node.alternatives:
        assert isinstance(node.op, Choose)
        alternatives = tuple(
            Alternative(item.label, retype_body(item.body, tuple(value.type for value in operands)))
            for item in node.alternatives
        )
        return choose_node(node.op.choice, operands, names, alternatives, origin=node.origin)
    return make_node(node.op, operands, names, choices=node.choices, origin=node.origin)


def retype_body(body: Graph, types: Sequence[TensorType]) -> Graph:
    """Returns the body of an alternative with its arguments retyped and everything after them inferred anew."""
    inputs = tuple(Value(value.name, type) for value, type in zip(body.inputs, types, strict=True))
    return rebuild(Graph(body.name, inputs, (), ()), body.nodes, body.outputs)


def rebuild(
    graph: Graph, nodes: Iterable[Node], outputs: Sequence[Value], replaced: Mapping[str, Value] | None = None
) -> Graph:
    """Returns `graph` with other nodes (in any order that can be sorted) and outputs.

    `replaced` maps the names of values that are gone to what stands for them. Types are inferred anew wherever an
    operand's type has changed; nodes that did not change are shared.

    Raises:
        VerifyError: a node reads what nothing defines.
        InferenceError: a node cannot take what it now reads.
    """
    values: dict[str, Value] = {value.name: value for value in graph.inputs}
    stand_ins = dict(replaced or {})

    def now(value: Value) -> Value:
        while value.name in stand_ins and stand_ins[value.name].name != value.name:
            value = stand_ins[value.name]
        found = values.get(value.name)
        if found is None:
            raise VerifyError(f"@{graph.name}: %{value.name} is read but not defined")
        return found

    made: list[Node] = []
    for node in sort_nodes(graph.inputs, tuple(nodes), stand_ins):
        node = with_operands(node, tuple([now(value) for value in node.operands]))
        made.append(node)
        for value in node.results:
            values[value.name] = value
    return graph.replace(nodes=tuple(made), outputs=tuple(now(value) for value in outputs))


def sort_nodes(inputs: Sequence[Value], nodes: tuple[Node, ...], replaced: Mapping[str, Value]) -> tuple[Node, ...]:
    """Returns nodes in topological order; nodes that can stay where they are do."""

    def final(name: str) -> str:
        while name in replaced and replaced[name].name != name:
            name = replaced[name].name
        return name

    defined = {value.name for value in inputs}
    ordered = True
    for node in nodes:
        if ordered and any(final(value.name) not in defined for value in node.operands):
            ordered = False
        defined.update(value.name for value in node.results)
    if ordered:
        return nodes
    producer = {value.name: node for node in nodes for value in node.results}
    done: set[str] = set()
    result: list[Node] = []
    for root in nodes:
        stack = [(root, False)]
        while stack:
            node, entered = stack.pop()
            if node.name in done:
                continue
            if entered:
                done.add(node.name)
                result.append(node)
                continue
            stack.append((node, True))
            for value in reversed(node.operands):
                source = producer.get(final(value.name))
                if source is not None and source.name not in done:
                    if any(waiting is source and flag for waiting, flag in stack):
                        raise VerifyError(f"%{node.name} and %{source.name} need each other: the rewrite made a cycle")
                    stack.append((source, False))
    return tuple(result)


def weights_below(weights: Mapping[str, Array], node: Node, prefix: str = "") -> dict[str, Array]:
    """Returns the weights of one node, those inside its alternatives included, by full name."""
    if node.alternatives:
        start = f"{prefix}{node.name}["
        return {name: array for name, array in weights.items() if name.startswith(start)}
    found = {}
    for parameter in node.op.parameters([type.at({}) for type in node.operand_types]):
        name = f"{prefix}{node.name}.{parameter.name}"
        if name in weights:
            found[name] = weights[name]
    return found
