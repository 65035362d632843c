"""Binary elementwise ops with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..op import Op
from ..types import Dim, TensorType


class _Broadcast(Op):
    arity: ClassVar[int | None] = 2
    commutative: ClassVar[bool] = True

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        left, right = operands
        if left is right:
            return (left,)
        hint = "the shapes must agree, or be 1, from the last dimension on; both operands carry the batch first"
        if left.dtype != right.dtype or left.rank != right.rank:
            raise self.fail(f"cannot combine {left} with {right}", hint=hint)
        shape: list[Dim] = []
        for a, b in zip(left.shape, right.shape, strict=True):
            if a != b and a != 1 and b != 1:
                raise self.fail(f"cannot combine {left} with {right}: {a} against {b}", hint=hint)
            shape.append(b if a == 1 else a)
        return (TensorType(left.dtype, tuple(shape)),)


class Add(_Broadcast, name="add"):
    """y = a + b, broadcast as in NumPy over equal ranks."""


class Mul(_Broadcast, name="mul"):
    """y = a * b, broadcast as in NumPy over equal ranks (squeeze-and-excitation scales [N, C, 1, 1])."""
