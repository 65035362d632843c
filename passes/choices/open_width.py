"""`open-width`: widths left open, one choice for each group of channels that must agree."""

from __future__ import annotations

from gensynth.ir import AttributeValue, Choice, Graph, Network, UsageError
from gensynth.passes.analyses import ChannelGroup, channel_groups, slice_weights

from ..base import Pass, PassResult, option
from ..rewriting import free_name
from ..rules import matches_where
from .opening import open_attributes

__all__ = ["OpenWidth", "open_groups"]


class OpenWidth(Pass, name="open-width"):
    """Opens the width of channel groups: residual adds, depthwise convolutions and the like change together.

        %a = conv2d(%x) {channels=16, kernel=3}
        --> %a = conv2d(%x) {channels=choice<a.width>[4: 0.00, 8: 0.00, 12: 0.00, 16: 0.00], kernel=3}

    Groups that an input, an output or a reshape holds fast are left alone. A narrower network takes the first
    channels of the weights, so run `sort-channels` before to have the important ones first.
    """

    ratios: tuple[float, ...] = option(default=(0.25, 0.5, 0.75, 1.0), help="widths as shares of what stands there")
    multiple: int = option(default=1, help="round the number of positions of a group to a multiple of this")
    where: tuple[str, ...] = option(default=("*",), help="names, globs or scopes of the groups' convolutions")

    def __post_init__(self) -> None:
        if not self.ratios or any(not 0.0 < ratio <= 8.0 for ratio in self.ratios):
            raise UsageError("open-width: ratios must lie above 0 and at most 8", hint="write ratios=[0.25,0.5,1.0]")
        if self.multiple < 1:
            raise UsageError("open-width: multiple must be at least 1", hint="leave it out, or write multiple=4")

    def run(self, network: Network) -> PassResult:
        """Opens every group that `where` lets through."""
        if network.weights is not None and max(self.ratios) > 1.0:
            raise UsageError(
                "open-width: weights cannot grow; ratios above 1 want a network without weights",
                hint="use ratios up to 1.0",
            )
        graph = network.graph
        opened = {(prefix + node.name, name) for prefix, node in graph.walk() for name, _ in node.choices}
        widths: dict[str, tuple[int, ...]] = {}
        for group in channel_groups(graph).groups:
            if group.fixed is not None or not matches_where(group.id.rpartition("/")[2], self.where):
                continue
            if any((path, attribute) in opened for path, attribute, _ in group.sources):
                continue
            unit = self.multiple
            values = {max(unit, round(group.width * ratio / unit) * unit) for ratio in self.ratios}
            values = {value for value in values if value <= group.width or max(self.ratios) > 1.0}
            if len(values) > 1:
                widths[group.id] = tuple(sorted(values))
        if not widths:
            return PassResult(network, False, ("no width to open",))
        weights = network.weights
        if weights is not None:
            keep = {name: list(range(values[-1])) for name, values in widths.items()}
            weights = slice_weights(graph, weights, keep)
        result = open_groups(graph, widths)
        return PassResult(Network(result, weights), True, (f"{len(widths)} widths: {', '.join(widths)}",))


def open_groups(
    graph: Graph, widths: dict[str, tuple[int, ...]], logits: dict[str, tuple[float, ...]] | None = None
) -> Graph:
    """Returns the graph with the widths of some channel groups open: group id -> widths (one logit each, else 0)."""
    groups: dict[str, ChannelGroup] = {group.id: group for group in channel_groups(graph).groups}
    assignments: dict[str, dict[str, Choice | AttributeValue]] = {}
    starts: dict[str, tuple[float, ...]] = {}
    for group_id, values in widths.items():
        identifier = free_name(f"{group_id.rpartition('/')[2]}.width", {*graph.choices, *starts})
        starts[identifier] = (logits or {}).get(group_id, (0.0,) * len(values))
        for path, attribute, scale in groups[group_id].sources:
            choice = Choice(identifier, tuple(value * scale for value in values))
            assignments.setdefault(path, {})[attribute] = choice
    return open_attributes(graph, assignments, starts)
