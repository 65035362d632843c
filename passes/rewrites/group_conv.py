"""`group-conv`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gensynth.ir import Graph, Node, UsageError, Value
from gensynth.ir.ops import ChannelShuffle, Conv2d

from ..base import option
from ..rules import Carry, Match, Rewriter, RewriteRule, matches_op
from .spots import one_node

__all__ = ["GroupConv"]


class GroupConv(RewriteRule, name="group-conv"):
    """Cuts a convolution into groups that see only their own inputs, and shuffles what they give.

        %y = conv2d(%x) {channels=32, kernel=3, padding=same}
        -->
        %y.grouped = conv2d(%x) {channels=32, kernel=3, padding=same, groups=2}
        %y         = channel_shuffle(%y.grouped) {groups=2}

    Weights: each output channel keeps those to the inputs of its group, and its bias; exact where the others are 0.
    The shuffle (arXiv 1707.01083, section 3.1) lets every later group see all groups; the output channels keep their
    places, so output channel j belongs to group j mod g, and without the shuffle to group j // (channels / g).
    """

    carries: ClassVar[Carry] = Carry.APPROXIMATE
    groups: int = option(default=2, help="how many groups")
    shuffle: bool = option(default=True, help="put a channel shuffle after the convolution")

    def __post_init__(self) -> None:
        if self.groups < 2:
            raise UsageError(f"group-conv: groups must be at least 2, got {self.groups}", hint="write groups=2")

    def match(self, graph: Graph, node: Node) -> Match | None:
        return one_node(graph, node) if matches_op(node, Conv2d) else None

    def check(self, graph: Graph, match: Match) -> str | None:
        op = match.root.op
        assert isinstance(op, Conv2d)
        if op.groups > 1:
            return f"it has {op.groups} groups already"
        inputs = op.image(match.inputs[0].type)[0]
        if inputs % self.groups or op.channels % self.groups:
            return f"{self.groups} groups do not divide its {inputs} input and {op.channels} output channels"
        return None

    def rewrite(self, match: Match, build: Rewriter) -> Value:
        op = match.root.op
        assert isinstance(op, Conv2d)
        grouped = value = build.emit(op.with_attributes({"groups": self.groups}), match.inputs[0], name="grouped")
        shuffled = self.shuffle and op.channels > self.groups
        if shuffled:
            value = build.emit(ChannelShuffle(groups=self.groups), value, name="shuffled")
        if build.has_weights:
            weight = build.weight(match.root, "weight")
            order = np.arange(op.channels)
            if shuffled:
                order = order.reshape(-1, self.groups).T.reshape(-1)
            columns = np.arange(weight.shape[1]).reshape(self.groups, -1)
            own = np.repeat(columns, op.channels // self.groups, axis=0)
            build.carry(grouped, "weight", np.ascontiguousarray(weight[order[:, None], own]))
            if op.bias:
                build.carry(grouped, "bias", build.weight(match.root, "bias")[order])
        return value
