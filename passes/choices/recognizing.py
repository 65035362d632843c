"""From a network back to the decisions that gave it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gensynth.ir import Graph, Node, Op

from .inlining import Inliner, Step

__all__ = ["recognize"]


def recognize(inliner: Inliner, network: Graph) -> dict[str, int]:
    """Returns the decisions that explain a network best; choices it does not depend on are left out.

    Nodes are told by the names that inlining gives them: an alternative is taken when more of its nodes stand in the
    network, with the same op, than of any other (the first of equals). Whether the decisions do give the network is
    for the caller to check.
    """
    made = {node.name: node for node in network.nodes}
    decisions: dict[str, int] = {}
    _read(inliner.steps, made, None, decisions)
    return decisions


def _read(
    steps: Sequence[Step], made: Mapping[str, Node], names: Mapping[str, str] | None, decisions: dict[str, int]
) -> int:
    """Adds the decisions of some steps; returns how many of their nodes the network has, less those it lacks."""
    score = 0
    for step in steps:
        renamed = [(names or {}).get(name, name) for name in step.results]
        if not step.branches:
            found = made.get(renamed[0])
            if found is not None and _decide(step, found.op, decisions):
                score += 1
            else:
                score -= 1
            continue
        best: tuple[int, int, dict[str, int]] | None = None
        for index, body in enumerate(step.branches):
            if decisions.get(step.choice, index) != index:
                continue
            tried = {**decisions, step.choice: index}
            gained = _read(body.steps, made, body.local_names(renamed), tried)
            if best is None or gained > best[0]:
                best = (gained, index, tried)
        if best is not None:
            score += best[0]
            decisions.update(best[2])
    return score


def _decide(step: Step, op: Op, decisions: dict[str, int]) -> bool:
    """Whether the step gives this op for some indices, which are added to the decisions."""
    node = step.node
    if type(node.op) is not type(op):
        return False
    settings: list[dict[str, int]] = [{}]
    for identifier in step.identifiers:
        count = next(len(choice.values) for _, choice in node.choices if choice.id == identifier)
        indices = [decisions[identifier]] if identifier in decisions else list(range(count))
        settings = [{**setting, identifier: index} for setting in settings for index in indices]
    for setting in settings:
        if node.op_at(setting) == op:
            decisions.update(setting)
            return True
    return False
