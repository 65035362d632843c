"""Graphs in SSA form: values, nodes, the alternatives of a choice, and the graph that holds them.

Everything here is immutable. A change makes a new graph that shares what stayed the same, so copies cost nothing and
derived facts (`producers`, `users`, `choices`) are memoized on the graph and never go stale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from .attributes import AttributeValue
from .errors import VerifyError, nearest
from .op import Op
from .types import TensorType

__all__ = ["Alternative", "Choice", "ChoiceInfo", "Graph", "Node", "Value", "quantize_logit", "scope_of"]

LOGIT_DECIMALS = 4
"""Logits live on a grid of 1e-4, so that printing a generator loses nothing and diffs stay short."""


def quantize_logit(logit: float) -> float:
    """Returns the logit on the grid that the text form keeps.

    Raises:
        VerifyError: the logit is not finite.
    """
    if not math.isfinite(logit):
        raise VerifyError(f"a logit must be finite, got {logit}")
    return round(logit, LOGIT_DECIMALS) + 0.0


def scope_of(name: str) -> str:
    """Returns the scope of a value's name: `stage2.block1` for `stage2.block1.conv2`, the empty string at the top."""
    return name.rpartition(".")[0]


class _Immutable:
    """Refuses assignment after construction; `__init__` sets its fields through `object.__setattr__`."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable; make a new one instead of setting '{name}'")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable; make a new one instead of deleting '{name}'")


_set = object.__setattr__


class Value(_Immutable):
    """A named value and its type. Two values are equal when both agree."""

    __slots__ = ("_hash", "name", "type")

    name: str
    type: TensorType
    _hash: int

    def __init__(self, name: str, type: TensorType) -> None:
        _set(self, "name", name)
        _set(self, "type", type)
        _set(self, "_hash", hash(name))

    def __reduce__(self) -> tuple[object, ...]:
        return Value, (self.name, self.type)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Value) and self.name == other.name and self.type is other.type)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


@dataclass(frozen=True, slots=True)
class Choice:
    """An attribute left open: the id of the choice that decides it, and the value for each of its alternatives.

    Attributes that share an id are decided together, by index; each has values of its own.
    """

    id: str
    values: tuple[AttributeValue, ...]


class Node(_Immutable):
    """An op on operands. `choices` are its open attributes (the op itself holds the values at index 0).

    `alternatives` is empty but for `choose`. `origin` says where the node came from (file and line, or pass and rule);
    it takes no part in equality.
    """

    __slots__ = ("_facts", "alternatives", "choices", "op", "operands", "origin", "results")

    op: Op
    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    choices: tuple[tuple[str, Choice], ...]
    alternatives: tuple[Alternative, ...]
    origin: str
    _facts: dict[str, object]

    def __init__(
        self,
        op: Op,
        operands: tuple[Value, ...],
        results: tuple[Value, ...],
        choices: tuple[tuple[str, Choice], ...] = (),
        alternatives: tuple[Alternative, ...] = (),
        origin: str = "",
    ) -> None:
        _set(self, "op", op)
        _set(self, "operands", operands)
        _set(self, "results", results)
        _set(self, "choices", choices)
        _set(self, "alternatives", alternatives)
        _set(self, "origin", origin)
        _set(self, "_facts", {})

    @property
    def facts(self) -> dict[str, object]:
        """What analyses have found out about this node alone, by their names. Nodes never change, so it stays true."""
        return self._facts

    def __reduce__(self) -> tuple[object, ...]:
        return Node, (self.op, self.operands, self.results, self.choices, self.alternatives, self.origin)

    @property
    def name(self) -> str:
        """The name of the first result; it names the node and its weights."""
        return self.results[0].name

    @property
    def result(self) -> Value:
        """The first result."""
        return self.results[0]

    @property
    def operand_types(self) -> tuple[TensorType, ...]:
        """The types of the operands."""
        return tuple([value.type for value in self.operands])

    @property
    def is_open(self) -> bool:
        """Whether the node waits for a decision."""
        return bool(self.choices or self.alternatives)

    def op_at(self, decisions: Mapping[str, int]) -> Op:
        """Returns the op with its open attributes decided (an id not given counts as index 0)."""
        if not self.choices:
            return self.op
        return self.op.with_attributes(
            {name: choice.values[decisions.get(choice.id, 0)] for name, choice in self.choices}
        )

    def _key(self) -> tuple[object, ...]:
        return self.op, self.operands, self.results, self.choices, self.alternatives

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Node) and self._key() == other._key())

    def __hash__(self) -> int:
        return hash((self.op, self.operands, self.results))

    def __repr__(self) -> str:
        results = ", ".join(f"%{value.name}" for value in self.results)
        return f"{results} = {self.op.text()} on ({', '.join(f'%{value.name}' for value in self.operands)})"


@dataclass(frozen=True, slots=True)
class Alternative:
    """One branch of a `choose`: a label and a body that takes the node's operands and yields its results."""

    label: str
    body: Graph


@dataclass(frozen=True, slots=True)
class ChoiceInfo:
    """What a graph knows of one choice: its alternatives' labels, their logits, and the nodes that wait for it.

    Where all these nodes lie in alternatives of other choices, `inside` has those choices and labels: a network depends
    on the choice if it takes one of them. It is empty for a choice that every network depends on.
    """

    id: str
    labels: tuple[str, ...]
    logits: tuple[float, ...]
    nodes: tuple[str, ...]
    inside: tuple[tuple[str, str], ...] = ()

    @property
    def probabilities(self) -> tuple[float, ...]:
        """softmax(logits): how likely a seed takes each alternative."""
        top = max(self.logits)
        weights = [math.exp(logit - top) for logit in self.logits]
        total = sum(weights)
        return tuple(weight / total for weight in weights)


def _moved(logits: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """Returns the logits without those that are all zero, which is what a choice without logits has."""
    return {identifier: values for identifier, values in logits.items() if any(values)}


class Graph(_Immutable):
    """Nodes in topological order between inputs and outputs.

    `logits` maps every choice id to one number an alternative: all of them together are theta_G. `requirements` are
    operational requirements that every network of a generator must meet, kept with it as text.
    """

    name: str
    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    logits: Mapping[str, tuple[float, ...]]
    requirements: tuple[str, ...]

    def __init__(
        self,
        name: str,
        inputs: tuple[Value, ...],
        nodes: tuple[Node, ...],
        outputs: tuple[Value, ...],
        logits: Mapping[str, tuple[float, ...]] | None = None,
        requirements: tuple[str, ...] = (),
    ) -> None:
        theta = {key: tuple(map(quantize_logit, values)) for key, values in sorted(logits.items())} if logits else {}
        _set(self, "name", name)
        _set(self, "inputs", inputs)
        _set(self, "nodes", nodes)
        _set(self, "outputs", outputs)
        _set(self, "logits", MappingProxyType(theta))
        _set(self, "requirements", requirements)

    def __reduce__(self) -> tuple[object, ...]:
        parts = (self.name, self.inputs, self.nodes, self.outputs, dict(self.logits), self.requirements)
        return Graph, parts

    def replace(
        self,
        *,
        name: str | None = None,
        nodes: tuple[Node, ...] | None = None,
        outputs: tuple[Value, ...] | None = None,
        logits: Mapping[str, tuple[float, ...]] | None = None,
        requirements: tuple[str, ...] | None = None,
    ) -> Graph:
        """Returns the graph with some parts replaced."""
        return Graph(
            self.name if name is None else name,
            self.inputs,
            self.nodes if nodes is None else nodes,
            self.outputs if outputs is None else outputs,
            self.logits if logits is None else logits,
            self.requirements if requirements is None else requirements,
        )

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Graph)
            and self.name == other.name
            and self.inputs == other.inputs
            and self.outputs == other.outputs
            and self.nodes == other.nodes
            and (self.logits == other.logits or _moved(self.logits) == _moved(other.logits))
            and self.requirements == other.requirements
        )

    def __hash__(self) -> int:
        return hash((self.name, self.inputs, self.outputs, len(self.nodes)))

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        return f"Graph(@{self.name}, {len(self.nodes)} nodes)"

    def __str__(self) -> str:
        from .printer import to_text

        return to_text(self)

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that makes each value, by value name (inputs have none; bodies of alternatives are not entered)."""
        return {value.name: node for node in self.nodes for value in node.results}

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value, by value name, each once, in order."""
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for operand in dict.fromkeys(node.operands):
                users.setdefault(operand.name, []).append(node)
        return {name: tuple(nodes) for name, nodes in users.items()}

    @cached_property
    def values(self) -> Mapping[str, Value]:
        """Every value of the graph by name, inputs included."""
        values = {value.name: value for value in self.inputs}
        for node in self.nodes:
            for value in node.results:
                values[value.name] = value
        return values

    @cached_property
    def output_names(self) -> frozenset[str]:
        """The names of the outputs."""
        return frozenset(value.name for value in self.outputs)

    def node(self, name: str) -> Node:
        """Returns the node that makes the value `name`.

        Raises:
            VerifyError: there is none.
        """
        found = self.producers.get(name)
        if found is None:
            raise VerifyError(f"@{self.name} has no node '{name}'", hint=nearest(name, self.producers, what="nodes"))
        return found

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Node]]:
        """Yields (weight prefix, node) for all nodes, bodies of alternatives included, in order of the text.

        The prefix is empty at the top and `CHOOSE[LABEL]/` for each alternative entered; it keeps apart the weights
        of alternatives that share names.
        """
        for node in self.nodes:
            yield prefix, node
            for alternative in node.alternatives:
                yield from alternative.body.walk(f"{prefix}{node.name}[{alternative.label}]/")

    @cached_property
    def choices(self) -> Mapping[str, ChoiceInfo]:
        """Every choice of the graph by id, in order of appearance."""
        labels: dict[str, tuple[str, ...]] = {}
        nodes: dict[str, dict[str, None]] = {}
        inside: dict[str, dict[tuple[str, str] | None, None]] = {}
        from .attributes import format_value

        def visit(graph: Graph, prefix: str, around: tuple[str, str] | None) -> None:
            for node in graph.nodes:
                own = [(choice.id, tuple(map(format_value, choice.values))) for _, choice in node.choices]
                if node.alternatives:
                    identifier: str = getattr(node.op, "choice")  # noqa: B009
                    own.insert(0, (identifier, tuple(alternative.label for alternative in node.alternatives)))
                for identifier, named in own:
                    labels.setdefault(identifier, named)
                    nodes.setdefault(identifier, {})[prefix + node.name] = None
                    inside.setdefault(identifier, {})[around] = None
                for alternative in node.alternatives:
                    visit(
                        alternative.body, f"{prefix}{node.name}[{alternative.label}]/", (own[0][0], alternative.label)
                    )

        visit(self, "", None)
        return {
            identifier: ChoiceInfo(
                identifier,
                labels[identifier],
                self.logits.get(identifier, (0.0,) * len(labels[identifier])),
                tuple(nodes[identifier]),
                () if None in inside[identifier] else tuple(filter(None, inside[identifier])),
            )
            for identifier in labels
        }

    @cached_property
    def is_generator(self) -> bool:
        """Whether any choice is left open."""
        return any(node.choices or node.alternatives for node in self.nodes)
