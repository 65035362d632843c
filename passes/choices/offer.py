"""`offer`: any rewrite rule becomes a choice between the original and the rewritten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from gensynth.ir import (
    Alternative,
    Array,
    Graph,
    Network,
    Node,
    PassError,
    UsageError,
    VerifyError,
    choose_node,
    nearest,
)
from gensynth.ir.graph import scope_of
from gensynth.ir.ops import Choose

from ..base import Pass, PassResult, all_passes, option
from ..pipeline import parse_pipeline
from ..rewriting import free_name, rebuild, weights_below
from ..rules import Match, RewriteRule, Rule
from .closing import with_attributes_closed

__all__ = ["ORIGINAL", "Offer", "offer_rule"]

ORIGINAL = "original"
"""The label of the alternative that keeps what was there."""


class Offer(Pass, name="offer"):
    """Opens a choice between the original and the rewritten wherever a rewrite rule applies.

        %y = conv2d(%x) {channels=16, kernel=3}
    becomes, with rewrite=separate-conv,
        %y = choose<y>(%x) {
          original[0.00](%x)      { %y = conv2d(%x) {channels=16, kernel=3} yield %y }
          separate_conv[0.00](%x) { %y.depthwise = ... yield %y.pointwise }
        }

    Where a choice already stands around the same nodes, the rewritten becomes one more of its alternatives.
    """

    rewrite: str = option(help="the rule, with its options: separate-conv, low-rank-conv{ratio=0.5}")
    where: tuple[str, ...] = option(default=("*",), help="names, globs or scopes of the spots")
    logit: float = option(default=0.0, help="the logit of the new alternative (the original starts at 0)")

    def rule(self) -> Rule:
        """Returns the rule that `rewrite` names.

        Raises:
            UsageError: it names no rule, or more than one.
        """
        passes = parse_pipeline(self.rewrite, "offer: rewrite")
        if len(passes) != 1 or not isinstance(passes[0], Rule):
            rules = [cls.name for cls in all_passes() if issubclass(cls, Rule)]
            raise UsageError(
                f"offer: '{self.rewrite}' is no rewrite rule", hint=nearest(self.rewrite, rules, what="rewrite rules")
            )
        return passes[0]

    def __post_init__(self) -> None:
        self.rule()

    def run(self, network: Network) -> PassResult:
        """Offers the rule at every spot that `where` (here and in the rule) lets through."""
        rule = self.rule()
        if self.where != ("*",):
            if rule.where != ("*",):
                raise UsageError("offer: `where` is given twice", hint="give it to offer or to the rule, not to both")
            rule = replace(rule, where=self.where)
        return rule.offer(network, logit=self.logit)


def _names(nodes: Iterable[Node]) -> set[str]:
    """Returns the names of all values that nodes make, those inside their alternatives included."""
    names: set[str] = set()
    for node in nodes:
        names.update(value.name for value in node.results)
        for alternative in node.alternatives:
            names |= _names(alternative.body.nodes)
    return names


@dataclass
class _Offering:
    """A rule on its way through a generator. `shared` are the choices that decide more than one node."""

    rule: RewriteRule
    logit: float
    weights: dict[str, Array] | None
    logits: dict[str, tuple[float, ...]]
    shared: frozenset[str]
    names: set[str]
    spots: list[str] = field(default_factory=list)

    def body(self, graph: Graph, prefix: str) -> Graph:
        """Offers the rule inside the alternatives of a body, then on its own nodes."""
        nodes = [self.choose(node, prefix) if node.alternatives else node for node in graph.nodes]
        if any(new is not old for new, old in zip(nodes, graph.nodes, strict=True)):
            graph = graph.replace(nodes=tuple(nodes))
        matches = [match for match, reason in self.rule.spots(graph) if reason is None]
        if not matches:
            return graph
        last = {match.root.name: match for match in matches}
        gone = {node.name for match in matches for node in match.nodes}
        wrapped = []
        for node in graph.nodes:
            match = last.get(node.name)
            if match is not None:
                wrapped.append(self.wrap(match, prefix))
            elif node.name not in gone:
                wrapped.append(node)
        return rebuild(graph, wrapped, graph.outputs)

    def alternative(self, match: Match, prefix: str, beside: Sequence[Node]) -> tuple[Alternative, dict[str, Array]]:
        """Returns the rewritten as an alternative, and its weights by local name.

        New names are free in the whole generator, but for those of the nodes `beside`, which it excludes.
        """
        replacement = self.rule.replacement(match, self.weights, prefix, taken=self.names - _names(beside))
        self.names |= _names(replacement.nodes)
        outputs = []
        made = {value.name: value for node in replacement.nodes for value in node.results}
        for old in match.outputs:
            value = replacement.replaced.get(old.name) or made[old.name]
            if value.type is not old.type:
                raise PassError(
                    f"{self.rule.text()} at %{match.name} gives {value.type} for {old.type}",
                    hint="a rule must keep the types of its outputs",
                )
            outputs.append(value)
        body = Graph(self.rule.label, match.inputs, replacement.nodes, tuple(outputs))
        return Alternative(self.rule.label, body), dict(replacement.weights or {})

    def wrap(self, match: Match, prefix: str) -> Node:
        """Returns a choose between the matched nodes and the rewritten."""
        identifier = self.identifier(match)
        rewritten, weights = self.alternative(match, prefix, match.nodes)
        original = Alternative(ORIGINAL, Graph(ORIGINAL, match.inputs, match.nodes, match.outputs))
        names = tuple(value.name for value in match.outputs)
        if self.weights is not None:
            for node in match.nodes:
                for name, array in weights_below(self.weights, node, prefix).items():
                    del self.weights[name]
                    self.weights[f"{prefix}{names[0]}[{ORIGINAL}]/{name.removeprefix(prefix)}"] = array
            self.add_weights(f"{prefix}{names[0]}", weights)
        self.logits[identifier] = (0.0, self.logit)
        self.spots.append(match.name)
        origin = f"offer of {self.rule.text()}"
        return choose_node(identifier, match.inputs, names, (original, rewritten), origin=origin)

    def identifier(self, match: Match) -> str:
        """Returns a new choice id: the node's name, or the scope that the spot's nodes share."""
        scopes = {scope_of(node.name) for node in match.nodes}
        shared = scopes.pop() if len(match.nodes) > 1 and len(scopes) == 1 else ""
        base = shared or match.name
        return free_name(f"{base}.{self.rule.label}", self.logits) if base in self.logits else base

    def choose(self, node: Node, prefix: str) -> Node:
        """Adds the rewritten to a choose whose original is one whole spot; else offers inside the original."""
        original = next((item for item in node.alternatives if item.label == ORIGINAL), None)
        if original is None:
            return node
        assert isinstance(node.op, Choose)
        inside = f"{prefix}{node.name}[{ORIGINAL}]/"
        whole = None if node.op.choice in self.shared else self.whole(original.body)
        if whole is None:
            body = self.body(original.body, inside)
            if body is original.body:
                return node
            alternatives: Sequence[Alternative] = [
                Alternative(ORIGINAL, body) if item is original else item for item in node.alternatives
            ]
        else:
            if any(item.label == self.rule.label for item in node.alternatives):
                return node
            rewritten, weights = self.alternative(whole, inside, (node,))
            if self.weights is not None:
                self.add_weights(f"{prefix}{node.name}", weights)
            alternatives = [*node.alternatives, rewritten]
            self.logits[node.op.choice] = (*self.logits[node.op.choice], self.logit)
            self.spots.append(whole.name)
        names = tuple(value.name for value in node.results)
        return choose_node(node.op.choice, node.operands, names, tuple(alternatives), origin=node.origin)

    def whole(self, body: Graph) -> Match | None:
        """Returns the spot that is the whole body, if there is one."""
        for match, reason in self.rule.spots(body):
            same_ends = match.inputs == body.inputs and match.outputs == body.outputs
            if reason is None and same_ends and len(match.nodes) == len(body.nodes):
                return match
        return None

    def add_weights(self, choose: str, weights: dict[str, Array]) -> None:
        assert self.weights is not None
        self.weights.update({f"{choose}[{self.rule.label}]/{name}": array for name, array in weights.items()})


def offer_rule(rule: RewriteRule, network: Network, logit: float = 0.0) -> PassResult:
    """Puts `choose { original | rewritten }` around every spot of a rule.

    Raises:
        PassError: the rule changes a type.
    """
    spots: list[str] = []
    shared = frozenset(info.id for info in network.graph.choices.values() if len(info.nodes) > 1)
    result = with_attributes_closed(network, lambda closed: _offer_closed(rule, closed, logit, shared, spots))
    if not spots:
        return PassResult(network, False, ("no spot",))
    count = len(spots)
    return PassResult(result, True, (f"{count} choice{'s' if count != 1 else ''}: {', '.join(spots)}",))


def _offer_closed(
    rule: RewriteRule, network: Network, logit: float, shared: frozenset[str], spots: list[str]
) -> Network:
    graph = network.graph
    logits = {identifier: info.logits for identifier, info in graph.choices.items()}
    weights = None if network.weights is None else dict(network.weights)
    offering = _Offering(rule, logit, weights, logits, shared, _names(graph.nodes))
    try:
        body = offering.body(graph, "")
    except VerifyError as error:
        raise PassError(f"offer of {rule.text()}: {error.message}", hint=error.hint) from error
    spots.extend(offering.spots)
    return Network(body.replace(logits=offering.logits), offering.weights)
