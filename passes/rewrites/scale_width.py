"""`scale-width`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gensynth.ir import Graph, InferenceError, Network, UsageError
from gensynth.passes.analyses import (
    ChannelGroup,
    channel_groups,
    channel_importance,
    permute_channels,
    slice_channels,
)

from ..base import PassResult, option
from ..rules import Carry, Rule, Verdict, matches_where
from .spots import require_ratio

__all__ = ["ScaleWidth"]


class ScaleWidth(Rule, name="scale-width"):
    """Keeps the important channels of a group of widths that must agree, and cuts the rest.

        %a = conv2d(%x) {channels=16, kernel=3}
        %b = conv2d(%a) {channels=10, kernel=1}
        -->                                          with ratio=0.5
        %a = conv2d(%x) {channels=8, kernel=3}       : the group of %a has 8 channels; %b reads 8
        %b = conv2d(%a) {channels=10, kernel=1}

    A spot is a channel group (see `channel_groups`), named after the first node that makes its channels. Weights: the
    filters of greatest norm stay, with what reads them; without weights, the first. Exact where those cut are 0.
    """

    carries: ClassVar[Carry] = Carry.APPROXIMATE
    ratio: float = option(default=0.5, help="the share of the channels to keep")
    multiple: int = option(default=1, help="round the number of channels to a multiple of this")

    def __post_init__(self) -> None:
        require_ratio(self.name, self.ratio)
        if self.multiple < 1:
            raise UsageError(f"scale-width: multiple must be at least 1, got {self.multiple}", hint="write multiple=4")

    def why(self, network: Network) -> tuple[Verdict, ...]:
        """Returns the verdict on every channel group."""
        return tuple(Verdict(_name(group), f"width {group.width}", reason) for group, reason in self._spots(network))

    def run(self, network: Network) -> PassResult:
        """Cuts every group that `where` lets through and whose width is free.

        Raises:
            PassError: the network has open choices.
        """
        keep = {
            group.id: _most_important(network, group, self._target(group))
            for group, reason in self._spots(network)
            if reason is None
        }
        if not keep:
            return PassResult(network, False, ("no spot",))
        groups = ", ".join(f"{name} to {len(positions)}" for name, positions in keep.items())
        return PassResult(slice_channels(network, keep), True, (f"{len(keep)} widths: {groups}",))

    def offer(self, network: Network, *, logit: float = 0.0) -> PassResult:
        """Opens every such width between the scaled and the original; the important channels go first."""
        from ..choices.open_width import open_groups

        widths: dict[str, tuple[int, ...]] = {}
        logits: dict[str, tuple[float, ...]] = {}
        orders: dict[str, list[int]] = {}
        for group, reason in self._spots(network):
            if reason is not None:
                continue
            widths[group.id] = (self._target(group), group.width)
            logits[group.id] = (logit, 0.0)
            if network.weights is not None and group.exact:
                orders[group.id] = np.argsort(-channel_importance(network, group), kind="stable").tolist()
        if not widths:
            return PassResult(network, False, ("no spot",))
        sorted_network = permute_channels(network, orders)
        opened = sorted_network.with_graph(open_groups(network.graph, widths, logits))
        return PassResult(opened, True, (f"{len(widths)} choices: {', '.join(widths)}",))

    def _target(self, group: ChannelGroup) -> int:
        return max(1, round(group.width * self.ratio / self.multiple)) * self.multiple

    def _spots(self, network: Network) -> Iterator[tuple[ChannelGroup, str | None]]:
        opened = {prefix + node.name for prefix, node in network.graph.walk() if node.choices}
        for group in channel_groups(network.graph).groups:
            if not matches_where(_name(group), self.where):
                continue
            waiting = next((path for path, _, _ in group.sources if path in opened), None)
            if group.fixed is not None:
                yield group, group.fixed
            elif waiting is not None:
                yield group, f"%{waiting} has open attributes"
            elif self._target(group) >= group.width:
                yield group, f"{self.ratio:g} of {group.width} is no fewer, in multiples of {self.multiple}"
            else:
                yield group, self._misfit(network.graph, group)

    def _misfit(self, graph: Graph, group: ChannelGroup) -> str | None:
        """Returns why the other ops do not take the new width, as a shuffle of 4 groups does not take 2 channels."""
        from ..choices.open_width import open_groups

        target = self._target(group)
        try:
            if graph.is_generator:
                open_groups(graph, {group.id: (target, group.width)})
            else:
                bare = Network(graph)
                slice_channels(bare, {group.id: _most_important(bare, group, target)})
        except InferenceError as error:
            return f"a width of {target} does not fit: {error.message}"
        return None


def _name(group: ChannelGroup) -> str:
    return group.id.rpartition("/")[2]


def _most_important(network: Network, group: ChannelGroup, count: int) -> list[int]:
    """Returns the positions to keep, ascending: the blocks of greatest mean importance, the last one cut if need be."""
    if network.weights is None:
        importance: npt.NDArray[np.float64] = -np.arange(group.width, dtype=np.float64)
    else:
        importance = channel_importance(network, group)
    blocks = sorted(group.blocks, key=lambda block: -float(np.mean(importance[list(block)])))
    return sorted([position for block in blocks for position in block][:count])
