"""Receptive fields: which part of the input image each value sees.

For every layer with kernel k (dilated: d (k - 1) + 1), stride s and padding p, with jump j, size r and start a of what
it reads: r' = r + (k - 1) j, j' = j s, a' = a - p j (Araujo, Norris, Sim, "Computing Receptive Fields of Convolutional
Neural Networks", Distill 2019, equations 1 to 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from gensynth.ir import Graph, Node, PassError, pair
from gensynth.ir.ops import AvgPool, Concat, Conv2d, ConvTranspose2d, GlobalAvgPool, MaxPool, Pad, Resize, Split

__all__ = ["Field", "ReceptiveField", "receptive_fields"]


@dataclass(frozen=True)
class Field:
    """What element i of a value sees along one axis: input elements from `start + i * jump`, `size` of them."""

    size: Fraction
    jump: Fraction
    start: Fraction


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field along both axes."""

    height: Field
    width: Field


def receptive_fields(graph: Graph) -> Mapping[str, ReceptiveField | None]:
    """Returns the receptive field of every value of a network, by name.

    None where it is the whole image or undefined: after a global pool, flatten, reshape or dense layer, for values
    that are no images, and where operands see the image at different jumps. After transposed convolutions and resizes
    elements differ in how much they see; the field then holds what any of them sees and may be wider, and fractions
    are of input elements. What it holds beyond the image's border is padding.

    Raises:
        PassError: the graph is a generator.
    """
    if graph.is_generator:
        raise PassError(
            f"@{graph.name} has open choices, so its values have no single receptive fields",
            hint="materialize it with a seed first",
        )
    one, none = Fraction(1), Fraction(0)
    found: dict[str, ReceptiveField | None] = {}
    for value in graph.inputs:
        field = Field(one, one, none)
        found[value.name] = ReceptiveField(field, field) if value.type.rank == 4 else None
    for node in graph.nodes:
        fields = [found[value.name] for value in node.operands]
        result = None
        if all(value.type.rank == 4 for value in (*node.operands, *node.results)):
            known = [field for field in fields if field is not None]
            if len(known) == len(fields):
                result = _through(node, known)
        for value in node.results:
            found[value.name] = result
    return found


def _through(node: Node, fields: list[ReceptiveField]) -> ReceptiveField | None:
    op, type = node.op, node.operands[0].type
    first = fields[0]
    if isinstance(op, GlobalAvgPool) or (isinstance(op, (Concat, Split)) and op.axis != 1):
        return None
    if isinstance(op, (Conv2d, MaxPool, AvgPool)):
        dilation = pair(op.dilation) if isinstance(op, Conv2d) else (1, 1)
        stride = pair(op.stride) if isinstance(op, Conv2d) else pair(op.steps)
        top, _, left, _ = op.pads(type)
        spans = [d * (k - 1) + 1 for d, k in zip(dilation, pair(op.kernel), strict=True)]
        return ReceptiveField(
            _window(first.height, spans[0], stride[0], top), _window(first.width, spans[1], stride[1], left)
        )
    if isinstance(op, ConvTranspose2d):
        top, _, left, _ = op.pads(type)
        spans = [d * (k - 1) + 1 for d, k in zip(pair(op.dilation), pair(op.kernel), strict=True)]
        stride = pair(op.stride)
        return ReceptiveField(
            _spread(first.height, spans[0], stride[0], top), _spread(first.width, spans[1], stride[1], left)
        )
    if isinstance(op, Pad):
        top, _, left, _ = op.pads()
        return ReceptiveField(_window(first.height, 1, 1, top), _window(first.width, 1, 1, left))
    if isinstance(op, Resize):
        sizes, results = type.sizes()[2:], node.result.type.sizes()[2:]
        return ReceptiveField(
            _resized(first.height, sizes[0], results[0], op), _resized(first.width, sizes[1], results[1], op)
        )
    height, width = _union([field.height for field in fields]), _union([field.width for field in fields])
    return None if height is None or width is None else ReceptiveField(height, width)


def _window(field: Field, span: int, stride: int, before: int) -> Field:
    return Field(field.size + (span - 1) * field.jump, field.jump * stride, field.start - before * field.jump)


def _spread(field: Field, span: int, stride: int, before: int) -> Field:
    # Element i gathers the inputs m with 0 <= i + before - m * stride < span.
    jump = field.jump / stride
    return Field(field.size + (span - 1) * jump, jump, field.start + (before - span + 1) * jump)


def _resized(field: Field, size: int, result: int, op: Resize) -> Field:
    if size == result:
        return field
    if op.mode == "nearest":
        # Element i takes floor(i * size / result), which lies below its place by at most the largest fraction.
        ratio = Fraction(size, result)
        below = field.jump * Fraction(ratio.denominator - 1, ratio.denominator)
        return Field(field.size + below, field.jump * ratio, field.start - below)
    ratio = Fraction(size - 1, max(1, result - 1)) if op.align_corners else Fraction(size, result)
    shift = Fraction(0) if op.align_corners else (ratio - 1) / 2
    return Field(field.size + 2 * field.jump, field.jump * ratio, field.start + (shift - 1) * field.jump)


def _union(fields: list[Field]) -> Field | None:
    if len({field.jump for field in fields}) > 1:
        return None
    start = min(field.start for field in fields)
    stop = max(field.start + field.size for field in fields)
    return Field(stop - start, fields[0].jump, start)
