"""Chains of pointwise ops, and copies from any order of elements and dtype in memory to any other, on a GPU."""

from __future__ import annotations

from typing import Any

from gensynth.ir.ops import Identity

from ..specification import template
from .elements import Elements
from .emitting import Frame, finish, load

__all__ = ["Pointwise"]

Expression = Any


@template("cuda", Identity)
class Pointwise(Elements):
    """Pointwise ops after one another, and copies."""

    name = "pointwise"

    def write(self, frame: Frame, n: Expression, h: Expression, w: Expression, c: Expression) -> None:
        finish(frame, load(frame.inputs[0], frame.spec.inputs[0], n, h, w, c), n, h, w, c)
