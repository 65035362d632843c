"""Ops that move elements without arithmetic, and resize."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from ..attributes import (
    BoolKind,
    FloatKind,
    IntKind,
    IntsKind,
    Kind,
    Padding,
    PaddingKind,
    Pair,
    PairKind,
    WordKind,
    attribute,
    pair,
)
from ..op import Op
from ..types import Dim, TensorType
from .windows import resolve_padding


class Identity(Op, name="identity"):
    """y = x."""

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        return (operands[0],)


class Concat(Op, name="concat"):
    """y = the operands one after another along `axis` (1 is the channel axis)."""

    arity: ClassVar[int | None] = None
    axis: int = attribute(IntKind(1), default=1)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        first = operands[0]
        if self.axis >= first.rank:
            raise self.fail(f"axis {self.axis} is not one of {first}", attribute="axis")
        total = 0
        for operand in operands:
            same = operand.rank == first.rank and operand.dtype == first.dtype
            if not same or any(
                a != b for axis, (a, b) in enumerate(zip(operand.shape, first.shape, strict=True)) if axis != self.axis
            ):
                raise self.fail(f"{operand} and {first} differ on another axis than {self.axis}")
            total += cast(int, operand.shape[self.axis])
        return (TensorType(first.dtype, (*first.shape[: self.axis], total, *first.shape[self.axis + 1 :])),)


MOST_SECTIONS = 65536
"""A split into more is taken for a mistake before it fills the memory."""


class Split(Op, name="split"):
    """y_1, ..., y_k = x cut along `axis` into `sections` equal parts, or into parts of the given `sizes`."""

    sections: int = attribute(IntKind(), default=2)
    sizes: tuple[int, ...] = attribute(IntsKind(), default=())
    axis: int = attribute(IntKind(1), default=1)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        operand = operands[0]
        if self.axis >= operand.rank:
            raise self.fail(f"axis {self.axis} is not one of {operand}", attribute="axis")
        length = cast(int, operand.shape[self.axis])
        if self.sizes:
            if sum(self.sizes) != length:
                raise self.fail(f"sizes sum to {sum(self.sizes)}, the axis has {length}", attribute="sizes")
            sizes = self.sizes
        else:
            if self.sections > MOST_SECTIONS:
                raise self.fail(f"cuts into at most {MOST_SECTIONS} sections", attribute="sections")
            if length % self.sections:
                raise self.fail(f"cannot cut {length} into {self.sections} equal sections", attribute="sections")
            sizes = (length // self.sections,) * self.sections
        return tuple(
            TensorType(operand.dtype, (*operand.shape[: self.axis], size, *operand.shape[self.axis + 1 :]))
            for size in sizes
        )


class ChannelShuffle(Op, name="channel_shuffle"):
    """y = x with channel p (C / g) + q moved to q g + p, for g groups (ShuffleNet, arXiv 1707.01083, section 3.1)."""

    groups: int = attribute(IntKind())

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        channels, _, _ = self.image(operands[0])
        if channels % self.groups:
            raise self.fail(f"groups={self.groups} must divide {channels} channels", attribute="groups")
        return (operands[0],)


class Pad(Op, name="pad"):
    """y = x with `value` around height and width."""

    padding: Padding = attribute(PaddingKind("an integer, [height, width] or [top, bottom, left, right]", words=()))
    value: float = attribute(FloatKind(), default=0.0)

    def pads(self) -> tuple[int, int, int, int]:
        """Returns (top, bottom, left, right)."""
        return resolve_padding(self.padding, (1, 1), 1, 1)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        channels, height, width = self.image(operands[0])
        top, bottom, left, right = self.pads()
        return self.with_channels(operands[0], channels, height + top + bottom, width + left + right)


class Resize(Op, name="resize"):
    """y = x resampled to `size` [height, width], or to `scale` times its size.

    `nearest` takes x[floor(i * H / H')]. `bilinear` samples at (i + 0.5) H / H' - 0.5 clamped to the image (half-pixel
    centres), or with `align_corners` at i (H - 1) / (H' - 1).
    """

    size: Pair = attribute(PairKind(0), default=0)
    scale: Pair = attribute(PairKind(0), default=0)
    mode: str = attribute(WordKind(("nearest", "bilinear")), default="nearest")
    align_corners: bool = attribute(BoolKind(), default=False)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        channels, height, width = self.image(operands[0])
        if (self.size == 0) == (self.scale == 0):
            raise self.fail("wants either size or scale", hint="write size=[32, 32] or scale=2", attribute="size")
        if self.align_corners and self.mode != "bilinear":
            raise self.fail("align_corners goes with mode=bilinear", attribute="align_corners")
        if self.size != 0:
            rows, columns = pair(self.size)
        else:
            rows, columns = height * pair(self.scale)[0], width * pair(self.scale)[1]
        if rows < 1 or columns < 1:
            raise self.fail("height and width must be positive", attribute="size")
        return self.with_channels(operands[0], channels, rows, columns)


class Flatten(Op, name="flatten"):
    """y[n, c H W + h W + w] = x[n, c, h, w]: everything but the batch in one axis."""

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        operand = operands[0]
        if operand.rank < 2:
            raise self.fail(f"wants a batch and at least one more axis, got {operand}")
        length = 1
        for dim in operand.shape[1:]:
            length *= cast(int, dim)
        return (TensorType(operand.dtype, (operand.shape[0], length)),)


@dataclass(frozen=True)
class _ShapeKind(Kind["tuple[int, ...]"]):
    expected: str = "a list of positive integers with at most one -1, the batch left out, such as [16, -1]"

    def normalize(self, value: object) -> tuple[int, ...]:
        if not isinstance(value, (tuple, list)) or not value:
            raise self.refuse(value)
        if not all(isinstance(dim, int) and not isinstance(dim, bool) and (dim > 0 or dim == -1) for dim in value):
            raise self.refuse(tuple(value))
        if list(value).count(-1) > 1:
            raise self.refuse(tuple(value))
        return tuple(value)


class Reshape(Op, name="reshape"):
    """y = the elements of x, row-major, in another `shape`; the batch stays and is left out, -1 takes what remains."""

    shape: tuple[int, ...] = attribute(_ShapeKind())

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        operand = operands[0]
        have = 1
        for dim in operand.shape[1:]:
            have *= cast(int, dim)
        known = 1
        for dim in self.shape:
            known *= dim if dim != -1 else 1
        if have % known or (-1 not in self.shape and have != known):
            raise self.fail(f"cannot bring {operand} into {list(self.shape)}", attribute="shape")
        shape: tuple[Dim, ...] = tuple(have // known if dim == -1 else dim for dim in self.shape)
        return (TensorType(operand.dtype, (operand.shape[0], *shape)),)
