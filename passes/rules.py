"""Rewrite rules: match a spot, check it, rewrite it. Every rule is a pass and can be offered as a choice."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from functools import cached_property
from typing import ClassVar

from gensynth.ir import Array, Builder, Graph, Network, Node, Op, Value, Weights
from gensynth.ir.network import fresh_parameter

from .base import Pass, PassResult, option
from .rewriting import free_name, rebuild, rename_results, weights_below, without_unused_logits

__all__ = [
    "Carry",
    "Match",
    "Replacement",
    "RewriteRule",
    "Rewriter",
    "Rule",
    "Verdict",
    "matches_op",
    "matches_where",
]


class Carry(Enum):
    """What becomes of the weights, and so of the function."""

    EXACT = "exactly"
    """The rewritten network computes the same function."""
    APPROXIMATE = "approximately"
    """Weights are carried over, by slicing, averaging or factoring; the function changes a little."""
    FRESH = "fresh"
    """New weights start untrained."""


@dataclass(frozen=True)
class Match:
    """One spot: its nodes in graph order, the values they read from outside, and those that are read outside."""

    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    @property
    def root(self) -> Node:
        """The last node."""
        return self.nodes[-1]

    @property
    def name(self) -> str:
        """The name of the spot: that of its last output."""
        return self.outputs[-1].name

    @classmethod
    def of(cls, graph: Graph, nodes: tuple[Node, ...]) -> Match:
        """Returns the match of these nodes, with inputs and outputs read off the graph."""
        order = {node.name: position for position, node in enumerate(graph.nodes)}
        nodes = tuple(sorted(nodes, key=lambda node: order[node.name]))
        inside = {node.name for node in nodes}
        made = {value.name for node in nodes for value in node.results}
        inputs = dict.fromkeys(value for node in nodes for value in node.operands if value.name not in made)
        outputs = [
            value
            for node in nodes
            for value in node.results
            if value.name in graph.output_names
            or any(user.name not in inside for user in graph.users.get(value.name, ()))
        ]
        return cls(nodes, tuple(inputs), tuple(outputs))


@dataclass(frozen=True)
class Verdict:
    """What a rule says of one spot: it would apply (`reason` is None), or what stopped it."""

    name: str
    op: str
    reason: str | None


class Rewriter(Builder):
    """Builds the replacement of one match. Names are local: `depthwise` becomes `SPOT.depthwise`.

    `weight` reads an old weight, `carry` sets a new one; what is not carried starts fresh.
    """

    def __init__(
        self, match: Match, weights: Weights | None, prefix: str, origin: str, taken: Collection[str] = ()
    ) -> None:
        super().__init__("replacement", origin=origin, values=match.inputs)
        self._names.update(taken)
        self._weights = weights
        self._prefix = prefix
        self._scopes.append(match.name)
        self.carried: dict[tuple[str, str], Array] = {}

    def _qualify(self, name: str | None, default: str) -> str:
        scope = "".join(f"{scope}." for scope in self._scopes)
        free = free_name(f"{scope}{name or default}", self._names)  # a rule may meet a spot that it made itself
        return super()._qualify(free.removeprefix(scope), default)

    @property
    def has_weights(self) -> bool:
        """Whether there are weights to carry."""
        return self._weights is not None

    def weight(self, node: Node, name: str) -> Array:
        """Returns an old weight, e.g. `weight(match.root, "weight")`."""
        assert self._weights is not None
        return self._weights[f"{self._prefix}{node.name}.{name}"]

    def carry(self, value: Value, name: str, array: Array) -> None:
        """Sets a weight of the new node that makes `value`."""
        self.carried[value.name, name] = array

    def carry_all(self, node: Node, value: Value) -> None:
        """Gives the new node that makes `value` all the weights of an old one."""
        if self._weights is None:
            return
        for name, array in weights_below(self._weights, node, self._prefix).items():
            self.carry(value, name.rpartition(".")[2], array)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes built so far."""
        return tuple(self._nodes)


@dataclass(frozen=True)
class Replacement:
    """New nodes for a match, what stands for each output that is gone, and the new nodes' weights (by local name)."""

    nodes: tuple[Node, ...]
    replaced: Mapping[str, Value]
    weights: Mapping[str, Array] | None


def matches_where(name: str, where: tuple[str, ...]) -> bool:
    """Whether a name fits one of the patterns: a glob over full names, or a scope that holds it."""
    return any(fnmatchcase(name, pattern) or name.startswith(pattern + ".") for pattern in where)


class Rule(Pass):
    """A pass that changes a network spot by spot, and whose change can be offered as a choice instead."""

    carries: ClassVar[Carry]
    where: tuple[str, ...] = option(default=("*",), help="names, globs or scopes of the spots")

    @cached_property
    def label(self) -> str:
        """The label of the alternative when the rule is offered: its name and what options differ from the defaults."""
        parts = [self.name]
        for name, declared in self.options().items():
            value = getattr(self, declared.field)
            if declared.field != "where" and (declared.required or value != declared.default):
                parts.append(f"{name}_{value}")
        return re.sub(r"[^A-Za-z0-9_]+", "_", "_".join(parts)).strip("_")

    @abstractmethod
    def why(self, network: Network) -> tuple[Verdict, ...]:
        """Returns the verdict on every spot that looks like one: a dry run."""

    @abstractmethod
    def offer(self, network: Network, *, logit: float = 0.0) -> PassResult:
        """Opens a choice between the original and the rewritten at every spot; `logit` is that of the rewritten."""


class RewriteRule(Rule):
    """A rule that replaces a subgraph by another of the same inputs and output types.

    `match` says whether a node looks like the root of a spot; `check` says why the spot is not fit, if it is not;
    `rewrite` builds the replacement. The types of the outputs must stay what they are.
    """

    @abstractmethod
    def match(self, graph: Graph, node: Node) -> Match | None:
        """Returns the spot whose last node is `node`, or None where the node is nothing the rule looks for."""

    def check(self, graph: Graph, match: Match) -> str | None:
        """Returns the reason why the spot cannot be rewritten, in words, or None."""
        return None

    @abstractmethod
    def rewrite(self, match: Match, build: Rewriter) -> Value | tuple[Value, ...]:
        """Builds the replacement and returns what stands for each of the match's outputs."""

    def spots(self, graph: Graph) -> Iterator[tuple[Match, str | None]]:
        """Yields every spot of a body (alternatives not entered) with the reason against it, if any."""
        taken: set[str] = set()
        for node in graph.nodes:
            match = self.match(graph, node)
            if match is None or not match.outputs or not matches_where(match.name, self.where):
                continue
            reason = self._generic_reason(match, taken) or self.check(graph, match)
            if reason is None:
                taken.update(item.name for item in match.nodes)
            yield match, reason

    def _generic_reason(self, match: Match, taken: set[str]) -> str | None:
        for node in match.nodes:
            if node.choices:
                names = ", ".join(name for name, _ in node.choices)
                return f"%{node.name} has open attributes ({names}); offer the rule instead"
            waiting = next((value for value in node.operands if value.type.is_open), None)
            if waiting is not None:
                return f"%{node.name} reads %{waiting.name}, whose size is open; offer the rule instead"
            if node.name in taken:
                return f"%{node.name} belongs to another spot"
        return None

    def replacement(
        self, match: Match, weights: Weights | None, prefix: str = "", taken: Collection[str] = ()
    ) -> Replacement:
        """Returns the replacement of a match, its results named as the outputs they stand for.

        Other new nodes get names that are not among `taken`.
        """
        build = Rewriter(match, weights, prefix, f"{self.text()} at %{match.name}", taken)
        returned = self.rewrite(match, build)
        values = returned if isinstance(returned, tuple) else (returned,)
        made = {value.name for node in build.nodes for value in node.results}
        names: dict[str, str] = {}
        replaced: dict[str, Value] = {}
        for old, new in zip(match.outputs, values, strict=True):
            if new.name in made and new.name not in names:
                names[new.name] = old.name
            else:
                replaced[old.name] = Value(names.get(new.name, new.name), new.type)
        nodes = tuple(
            rename_results(
                Node(
                    node.op,
                    tuple(Value(names.get(value.name, value.name), value.type) for value in node.operands),
                    node.results,
                    origin=node.origin,
                ),
                names,
            )
            for node in build.nodes
        )
        if weights is None:
            return Replacement(nodes, replaced, None)
        carried = {(names.get(value, value), name): array for (value, name), array in build.carried.items()}
        fitted: dict[str, Array] = {}
        for node in nodes:
            for parameter in node.op.parameters([type.at({}) for type in node.operand_types]):
                full = f"{node.name}.{parameter.name}"
                found = carried.get((node.name, parameter.name))
                fitted[full] = fresh_parameter(full, parameter, 0) if found is None else found.astype("float32")
        return Replacement(nodes, replaced, fitted)

    def run(self, network: Network) -> PassResult:
        """Rewrites every spot that is fit, each node at most once."""
        graph = network.graph
        matches = [match for match, reason in self.spots(graph) if reason is None]
        if not matches:
            return PassResult(network, False, ("no spot",))
        last = {match.root.name: match for match in matches}
        gone = {node.name for match in matches for node in match.nodes}
        weights = None if network.weights is None else dict(network.weights)
        nodes: list[Node] = []
        replaced: dict[str, Value] = {}
        for node in graph.nodes:
            match = last.get(node.name)
            if match is not None:
                replacement = self.replacement(match, network.weights, taken=graph.values)
                nodes.extend(replacement.nodes)
                replaced.update(replacement.replaced)
                if weights is not None:
                    for item in match.nodes:
                        for name in weights_below(weights, item):
                            del weights[name]
                    weights.update(replacement.weights or {})
            elif node.name not in gone:
                nodes.append(node)
        result = without_unused_logits(rebuild(graph, nodes, graph.outputs, replaced))
        spots = f"{len(matches)} spot{'s' if len(matches) != 1 else ''}"
        return PassResult(Network(result, weights), True, (f"{spots}: {', '.join(match.name for match in matches)}",))

    def why(self, network: Network) -> tuple[Verdict, ...]:
        """Returns the verdict on every spot of the graph, those inside `original` alternatives included."""
        return tuple(self._why(network.graph))

    def _why(self, graph: Graph) -> Iterator[Verdict]:
        for match, reason in self.spots(graph):
            yield Verdict(match.name, match.root.op.text(), reason)
        for node in graph.nodes:
            for alternative in node.alternatives:
                if alternative.label == "original":
                    yield from self._why(alternative.body)

    def offer(self, network: Network, *, logit: float = 0.0) -> PassResult:
        """Puts `choose { original | rewritten }` around every spot, or adds an alternative where one is there."""
        from .choices.offer import offer_rule

        return offer_rule(self, network, logit)


def matches_op(node: Node, *ops: type[Op]) -> bool:
    """Whether the node is one of these ops."""
    return isinstance(node.op, ops)
