"""Views: how the axes of a tensor of ONNX lie in a value of the IR, through any row of Reshape and Transpose.

Every size of a view is made of atoms. An atom is a stretch of one axis of the value, taken with a stride; a whole axis
is one atom, and an axis of size 1 none. A Transpose orders the groups of atoms anew, a Reshape cuts and joins them.
What comes out in the end is often something that the IR has: the value itself, its elements in another shape, or a
channel shuffle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gensynth.ir import TensorType, Value

from .importer_model import OnnxNode

__all__ = ["Atom", "Axes", "View", "plain", "regrouped"]


class Atom(NamedTuple):
    """Elements of an axis of a value: `size` of them, `stride` apart; the size of the batch is 0."""

    axis: int
    stride: int
    size: int


BATCH_ATOM = Atom(0, 1, 0)

Axes = tuple[tuple[Atom, ...], ...]


@dataclass(frozen=True, eq=False)
class View:
    """A tensor of ONNX as a value of the IR and the atoms of each of the tensor's axes.

    `order` says which axis of the value each axis is, where they are the same but for their order; `by` is the node
    that a reshape or shuffle gets its name from.
    """

    base: Value
    axes: Axes
    order: tuple[int, ...] | None
    by: OnnxNode | None = None

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The tensor's shape, the batch as None."""
        return tuple(None if BATCH_ATOM in atoms else math.prod(atom.size for atom in atoms) for atoms in self.axes)

    @property
    def is_plain(self) -> bool:
        """Whether the tensor is the value as it is."""
        return self.order == tuple(range(len(self.axes)))

    @property
    def is_in_order(self) -> bool:
        """Whether the elements lie as those of the value do, so that a reshape is all between them."""
        return _merged(_flat(self.axes)) == _merged(_flat(_axes_of(self.base.type)))

    @property
    def shuffled_groups(self) -> int:
        """The groups of the channel shuffle that the tensor is of the value; 0 where it is none."""
        base = self.base.type
        if base.rank != 4 or len(self.axes) != 4 or len(self.axes[1]) != 2:
            return 0
        inner, outer = self.axes[1]
        wanted = _axes_of(base)
        if (*self.axes[:1], *self.axes[2:]) != (*wanted[:1], *wanted[2:]) or inner.axis != 1 or outer.axis != 1:
            return 0
        fits = inner.stride == 1 and outer.stride == inner.size and inner.size * outer.size == base.shape[1]
        return outer.size if fits else 0

    def transposed(self, permutation: Sequence[int], by: OnnxNode | None) -> View:
        """Returns the view with its axes in another order, as ONNX's Transpose has it."""
        axes = tuple(self.axes[axis] for axis in permutation)
        order = None if self.order is None else tuple(self.order[axis] for axis in permutation)
        if order is None and axes == _axes_of(self.base.type):
            order = tuple(range(len(axes)))
        return View(self.base, axes, order, by)

    def sorted_axes(self) -> tuple[int, ...]:
        """Returns the order of axes in which the elements lie most as those of the value do."""
        last = (self.base.type.rank, 0)
        keys = [min(((atom.axis, -atom.stride) for atom in atoms), default=last) for atoms in self.axes]
        return tuple(sorted(range(len(self.axes)), key=lambda axis: keys[axis]))

    def flat_positions(self, axis: int) -> npt.NDArray[np.int64]:
        """Returns, for each index along an axis of the tensor, the position of its element in the flattened value."""
        sizes = self.base.type.sizes()[1:]
        strides = {index + 1: math.prod(sizes[index + 1 :]) for index in range(len(sizes))}
        positions = np.zeros(1, np.int64)
        for atom in self.axes[axis]:
            steps = np.arange(atom.size, dtype=np.int64) * atom.stride * strides[atom.axis]
            positions = (positions[:, None] + steps[None, :]).reshape(-1)
        return positions


def plain(value: Value) -> View:
    """Returns a value as a tensor."""
    return View(value, _axes_of(value.type), tuple(range(value.type.rank)))


def regrouped(view: View, shape: Sequence[int | None], by: OnnxNode | None) -> View | None:
    """Returns the view in another shape (None is the batch), or None where its atoms cannot be cut so."""
    left = list(reversed(_flat(view.axes)))
    axes: list[tuple[Atom, ...]] = []
    for size in shape:
        taken: list[Atom] = []
        if size is None:
            if not left or left.pop() != BATCH_ATOM:
                return None
            axes.append((BATCH_ATOM,))
            continue
        while size > 1:
            if not left or left[-1] == BATCH_ATOM:
                return None
            atom = left.pop()
            if size % atom.size == 0:
                size //= atom.size
            elif atom.size % size == 0:
                rest = atom.size // size
                left.append(Atom(atom.axis, atom.stride, rest))
                atom, size = Atom(atom.axis, atom.stride * rest, size), 1
            else:
                return None
            taken.append(atom)
        axes.append(tuple(_merged(taken)))
    if left:
        return None
    found = tuple(axes)
    order = tuple(range(len(found))) if found == _axes_of(view.base.type) else None
    return View(view.base, found, order, by)


def _axes_of(type: TensorType) -> Axes:
    return tuple(
        (BATCH_ATOM,) if axis == 0 else (Atom(axis, 1, size),) if size > 1 else ()
        for axis, size in enumerate(type.sizes())
    )


def _flat(axes: Axes) -> list[Atom]:
    return [atom for atoms in axes for atom in atoms]


def _merged(atoms: Sequence[Atom]) -> list[Atom]:
    """Returns atoms with those joined that go on where the one before ends."""
    merged: list[Atom] = []
    for atom in atoms:
        before = merged[-1] if merged else None
        if before is not None and before.axis == atom.axis and before.stride == atom.stride * atom.size:
            merged[-1] = Atom(atom.axis, atom.stride, before.size * atom.size)
        else:
            merged.append(atom)
    return merged
