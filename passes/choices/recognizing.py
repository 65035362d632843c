"""From a network back to the decisions that gave it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

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
    _read(inliner.steps, made, decisions)
    return decisions


def _read(steps: Sequence[Step], made: Mapping[str, Node], decisions: dict[str, int]) -> int:
    """Adds the decisions of some steps; returns how many of their nodes the network has, less those it lacks."""
    score = 0
    for step in steps:
        if not step.branches:
            found = made.get(step.names[0])
            score += 1 if found is not None and _decide(step, found.op, decisions) else -1
            continue
        best: tuple[int, dict[str, int]] | None = None
        for index, body in enumerate(step.branches):
            if decisions.get(step.choice, index) != index:
                continue
            tried = {**decisions, step.choice: index}
            gained = _read(body.steps, made, tried)
            if best is None or gained > best[0]:
                best = gained, tried
        if best is not None:
            score += best[0]
            decisions.update(best[1])
    return score


def _decide(step: Step, op: Op, decisions: dict[str, int]) -> bool:
    """Whether the step gives this op for some indices, which are added to the decisions."""
    if type(step.node.op) is not type(op):
        return False
    counts = {choice.id: len(choice.values) for _, choice in step.node.choices}
    known = [
        (decisions[identifier],) if identifier in decisions else range(counts[identifier])
        for identifier in step.identifiers
    ]
    for indices in product(*known):
        if step.op_at(indices) == op:
            decisions.update(zip(step.identifiers, indices, strict=True))
            return True
    return False
