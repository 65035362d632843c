"""`update`: moves the logits of one choice; a pipeline of them is a delta theta_G."""

from __future__ import annotations

from gensynth.ir import Network, PassError, UsageError, nearest

from ..base import Pass, PassResult, option

__all__ = ["Update"]


class Update(Pass, name="update"):
    """Moves the logits of a choice, by differences or to given values, in the order of its alternatives."""

    choice: str = option(help="the choice's id")
    by: tuple[float, ...] = option(default=(), help="what to add to each logit")
    to: tuple[float, ...] = option(default=(), help="what to set each logit to")

    def __post_init__(self) -> None:
        if bool(self.by) == bool(self.to):
            raise UsageError("update: give either `by` or `to`", hint=f"update{{choice={self.choice},by=[0.1,-0.1]}}")

    def run(self, network: Network) -> PassResult:
        """Returns the generator with moved logits; weights and structure stay.

        Raises:
            PassError: no such choice, or another number of alternatives.
        """
        graph = network.graph
        info = graph.choices.get(self.choice)
        if info is None:
            raise PassError(
                f"update: @{graph.name} has no choice '{self.choice}'", hint=nearest(self.choice, graph.choices)
            )
        given = self.by or self.to
        if len(given) != len(info.labels):
            raise PassError(
                f"update: choice '{self.choice}' has {len(info.labels)} alternatives, {len(given)} logits given",
                hint=f"in order: {', '.join(info.labels)}",
            )
        moved = tuple(old + step for old, step in zip(info.logits, given, strict=True)) if self.by else given
        logits = {identifier: found.logits for identifier, found in graph.choices.items()}
        logits[self.choice] = moved
        result = graph.replace(logits=logits)
        return PassResult(network.with_graph(result), result.logits != graph.logits)
