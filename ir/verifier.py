"""The verifier: every invariant of the IR, checked in one walk."""

from __future__ import annotations

import re

from .errors import VerifyError, nearest
from .graph import Graph, Node, Value
from .infer import infer_open
from .op import infer_types
from .ops.choose import Choose
from .types import TensorType

__all__ = ["NAME", "verify"]

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*\Z")
"""What the names of values, networks and choices look like."""

_known_names: set[str] = set()


def _check_name(name: str, what: str) -> None:
    if name in _known_names:
        return
    if not NAME.match(name):
        raise VerifyError(
            f"{what} '{name}' is not a name", hint="names are letters, digits and underscores, with dots between scopes"
        )
    _known_names.add(name)


def verify(graph: Graph) -> None:
    """Checks a graph: names, definition before use, arity, types, outputs, choices and logits.

    Raises:
        VerifyError: the first broken invariant, with the node's name.
    """
    _check_name(graph.name, "network name")
    for requirement in graph.requirements:
        if '"' in requirement or not requirement.isprintable():
            raise VerifyError(
                f"@{graph.name}: the requirement {requirement!r} cannot be written",
                hint="requirements hold no quotes, line breaks or control characters",
            )
    alternatives: dict[str, int] = {}
    _verify_body(graph, alternatives, where=f"@{graph.name}")
    for identifier, logits in graph.logits.items():
        count = alternatives.get(identifier)
        if count is None:
            raise VerifyError(
                f"@{graph.name}: logits for '{identifier}', which no node waits for",
                hint=nearest(identifier, alternatives, what="choices"),
            )
        if len(logits) != count:
            raise VerifyError(f"@{graph.name}: choice '{identifier}' has {count} alternatives and {len(logits)} logits")
    for identifier in alternatives:
        _check_name(identifier, "choice id")


def _verify_body(graph: Graph, alternatives: dict[str, int], where: str) -> None:
    defined: dict[str, TensorType] = {}
    for value in graph.inputs:
        _define(value, defined, where)
    for node in graph.nodes:
        for operand in node.operands:
            if defined.get(operand.name) is not operand.type:
                raise _bad_operand(node, operand, defined.get(operand.name), defined, where)
        if "verified" in node.facts:
            pass
        elif node.choices or node.alternatives:
            _verify_open(node, alternatives, where)
        elif isinstance(node.op, Choose):
            raise VerifyError(f"{where}: choose '{node.name}' has no alternatives")
        else:
            operands = node.operand_types
            if any([type.is_open for type in operands]):
                results = infer_open(node.op, (), operands)
            else:
                results = infer_types(node.op, operands)
            _check_results(node, results, where)
            node.facts["verified"] = True
        for value in node.results:
            _define(value, defined, where)
    if not graph.outputs:
        raise VerifyError(f"{where} returns nothing")
    for value in graph.outputs:
        if defined.get(value.name) is not value.type:
            raise VerifyError(
                f"{where}: returns %{value.name}, which is not defined as {value.type}",
                hint=nearest(value.name, defined, what="values"),
            )


def _define(value: Value, defined: dict[str, TensorType], where: str) -> None:
    if value.name not in _known_names:
        _check_name(value.name, f"{where}: value name")
    if value.name in defined:
        raise VerifyError(f"{where}: %{value.name} is defined twice", hint="every value has one definition")
    defined[value.name] = value.type


def _bad_operand(
    node: Node, operand: Value, found: TensorType | None, defined: dict[str, TensorType], where: str
) -> VerifyError:
    if found is None:
        return VerifyError(
            f"{where}: %{node.name} reads %{operand.name}, which is not defined before it",
            hint=nearest(operand.name, defined, what="values"),
        )
    return VerifyError(f"{where}: %{node.name} reads %{operand.name} as {operand.type}, it is {found}")


def _check_results(node: Node, results: tuple[TensorType, ...], where: str) -> None:
    if len(results) != len(node.results):
        raise VerifyError(f"{where}: %{node.name}: {node.op.name} has {len(results)} results, not {len(node.results)}")
    for value, type in zip(node.results, results, strict=True):
        if value.type is not type:
            raise VerifyError(f"{where}: %{value.name} is typed {value.type}; {node.op.name} gives {type}")


def _verify_open(node: Node, alternatives: dict[str, int], where: str) -> None:
    counts = [(choice.id, len(choice.values)) for _, choice in node.choices]
    if node.alternatives:
        if not isinstance(node.op, Choose):
            raise VerifyError(f"{where}: %{node.name}: {node.op.name} has alternatives; only choose may")
        counts.append((node.op.choice, len(node.alternatives)))
    for identifier, count in counts:
        if count == 0 or alternatives.setdefault(identifier, count) != count:
            raise VerifyError(
                f"{where}: choice '{identifier}' has {alternatives.get(identifier, 0)} alternatives in one place and"
                f" {count} at %{node.name}"
            )
    for name, choice in node.choices:
        if getattr(node.op, name, None) != choice.values[0]:
            raise VerifyError(
                f"{where}: %{node.name} is open in {name} and its op does not hold the first of its values",
                hint="make nodes with `make_node`",
            )
    if not node.alternatives:
        _check_results(node, infer_open(node.op, node.choices, node.operand_types), where)
        return
    labels = [alternative.label for alternative in node.alternatives]
    if len(set(labels)) != len(labels):
        raise VerifyError(f"{where}: %{node.name} has two alternatives of one label: {', '.join(labels)}")
    for alternative in node.alternatives:
        inside = f"{where}, %{node.name}, alternative '{alternative.label}'"
        _check_name(alternative.label, f"{inside}: label")
        takes = tuple(value.type for value in alternative.body.inputs)
        if takes != node.operand_types:
            raise VerifyError(f"{inside} takes {takes}, the operands are {node.operand_types}")
        if alternative.body.name != alternative.label or alternative.body.logits or alternative.body.requirements:
            raise VerifyError(
                f"{inside}: its body is called @{alternative.body.name}, or has logits or requirements of its own",
                hint="a body bears its alternative's label; logits and requirements belong to the whole graph",
            )
        _verify_body(alternative.body, alternatives, inside)
        _check_results(node, tuple(value.type for value in alternative.body.outputs), inside)
