"""`pool-early`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gensynth.ir import AttributeValue, Graph, InferenceError, Node, Op, Pair, TensorType, Value, infer_types, pair
from gensynth.ir.ops import AvgPool, BatchNorm, ChannelShuffle, Conv2d, Dropout, Identity, MaxPool

from ..rules import Carry, Match, Rewriter, RewriteRule, matches_op
from .spots import ACTIVATIONS, read_outside_reason, times

__all__ = ["PoolEarly"]

_BETWEEN = (*ACTIVATIONS, BatchNorm, ChannelShuffle, Dropout, Identity)
"""Ops that give the same whatever the size of the map."""


class PoolEarly(RewriteRule, name="pool-early"):
    """Moves a stride forward: the convolution before a strided one (or a pool) takes it, on a smaller map from there.

        %a = conv2d(%x) {channels=16, kernel=3, padding=same}             : f32[N, 16, 32, 32]
        %b = relu(%a)                                                     : f32[N, 16, 32, 32]
        %y = max_pool(%b) {kernel=3, stride=2, padding=same}              : f32[N, 16, 16, 16]
        -->
        %y.early = conv2d(%x) {channels=16, kernel=3, stride=2, padding=same}   : f32[N, 16, 16, 16]
        %y.relu  = relu(%y.early)                                               : f32[N, 16, 16, 16]
        %y       = max_pool(%y.relu) {kernel=3, stride=1, padding=same}         : f32[N, 16, 16, 16]

    Only norms, activations, dropout and shuffles may stand between, and nothing else may read them. The later op keeps
    its padding where the sizes then agree, else takes padding=same. Weights are all carried as they are; exact where
    the later op has a 1 x 1 window, for then what was skipped is what is no longer made.
    """

    carries: ClassVar[Carry] = Carry.APPROXIMATE

    def match(self, graph: Graph, node: Node) -> Match | None:
        if pair(_stride(node.op)) == (1, 1):
            return None
        chain = [node]
        while chain[-1] is node or matches_op(chain[-1], *_BETWEEN):
            earlier = graph.producers.get(chain[-1].operands[0].name)
            if earlier is None:
                return None
            chain.append(earlier)
        return Match.of(graph, tuple(chain)) if matches_op(chain[-1], Conv2d) else None

    def check(self, graph: Graph, match: Match) -> str | None:
        first = match.nodes[0]
        if pair(_stride(first.op)) != (1, 1):
            return f"%{first.name} has a stride of {times(_stride(first.op))} already"
        reason = read_outside_reason(graph, match)
        if reason is None and _later(match) is None:
            return "no padding makes the sizes agree"
        return reason

    def rewrite(self, match: Match, build: Rewriter) -> Value:
        first, *between, last = match.nodes
        later = _later(match)
        assert later is not None
        value = build.emit(_early(match), *first.operands, name="early")
        build.carry_all(first, value)
        for node in between:
            value = build.emit(node.op, value)
            build.carry_all(node, value)
        value = build.emit(later, value, name="later")
        build.carry_all(last, value)
        return value


def _stride(op: Op) -> Pair:
    if isinstance(op, Conv2d):
        return op.stride
    return op.steps if isinstance(op, (MaxPool, AvgPool)) else 1


def _early(match: Match) -> Op:
    return match.nodes[0].op.with_attributes({"stride": _stride(match.root.op)})


def _later(match: Match) -> Op | None:
    """Returns the last op without its stride, such that the sizes agree, or None where there is none."""
    wanted = match.root.results[0].type
    for op in _without_stride(match.root.op):
        try:
            (early,) = infer_types(_early(match), match.nodes[0].operand_types)
            _, _, height, width = early.shape
            given = match.root.operand_types[0]
            (found,) = infer_types(op, (TensorType(given.dtype, (*given.shape[:2], height, width)),))
        except InferenceError:  # a window that does not fit into the smaller map
            continue
        if found is wanted:
            return op
    return None


def _without_stride(op: Op) -> Iterator[Op]:
    changes: dict[str, AttributeValue] = {"stride": 1}
    yield op.with_attributes(changes)
    yield op.with_attributes({**changes, "padding": "same"})
