"""Types of values: tensors with a symbolic batch and, in a generator, dimensions that wait for a decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

__all__ = ["BATCH", "DTYPE_BYTES", "Dim", "OpenDim", "TensorType"]

BATCH = "N"
"""The symbolic batch dimension."""

DTYPE_BYTES: Mapping[str, int] = {"f32": 4, "f16": 2, "bf16": 2, "i64": 8, "i32": 4, "u8": 1, "i8": 1}
"""Bytes of one element, by dtype name."""


@dataclass(frozen=True, slots=True)
class OpenDim:
    """A dimension that depends on choices not yet decided: `base` plus, for every choice, an offset by its index.

    `terms` holds (choice id, offsets), sorted by id; offsets start with 0, so `base` is the dimension when every
    choice takes its first alternative. Printed `8|12|16` for one choice, `24+{0|4|8}+{0|8}` for several.
    """

    base: int
    terms: tuple[tuple[str, tuple[int, ...]], ...]

    def at(self, decisions: Mapping[str, int]) -> int:
        """Returns the dimension under `decisions` (choice id -> index; an id not given counts as index 0)."""
        return self.base + sum(offsets[decisions.get(identifier, 0)] for identifier, offsets in self.terms)

    @property
    def smallest(self) -> int:
        """The least value the dimension can take."""
        return self.base + sum(min(offsets) for _, offsets in self.terms)

    @property
    def largest(self) -> int:
        """The greatest value the dimension can take."""
        return self.base + sum(max(offsets) for _, offsets in self.terms)

    def __str__(self) -> str:
        if len(self.terms) == 1:
            return "|".join(str(self.base + offset) for offset in self.terms[0][1])
        return "+".join([str(self.base), *("{" + "|".join(map(str, offsets)) + "}" for _, offsets in self.terms)])


Dim = int | str | OpenDim
"""A size, the batch symbol `"N"`, or a size that waits for a decision."""


class TensorType:
    """An element type and a shape, e.g. `f32[N, 16, 8, 8]` (layout NCHW). Interned: equal types are one object."""

    __slots__ = ("dtype", "is_open", "shape", "text")
    _interned: ClassVar[dict[tuple[str, tuple[Dim, ...]], TensorType]] = {}

    dtype: str
    shape: tuple[Dim, ...]
    is_open: bool
    text: str

    def __new__(cls, dtype: str, shape: tuple[Dim, ...]) -> TensorType:
        found = cls._interned.get((dtype, shape))
        if found is None:
            found = super().__new__(cls)
            object.__setattr__(found, "dtype", dtype)
            object.__setattr__(found, "shape", shape)
            object.__setattr__(found, "is_open", any(isinstance(dim, OpenDim) for dim in shape))
            object.__setattr__(found, "text", f"{dtype}[{', '.join(map(str, shape))}]")
            cls._interned[dtype, shape] = found
        return found

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"TensorType is immutable; make a new one instead of setting '{name}'")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"TensorType is immutable; make a new one instead of deleting '{name}'")

    def __reduce__(self) -> tuple[type[TensorType], tuple[str, tuple[Dim, ...]]]:
        return TensorType, (self.dtype, self.shape)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"TensorType({self.text})"

    @property
    def rank(self) -> int:
        """How many dimensions the shape has, the batch included."""
        return len(self.shape)

    def at(self, decisions: Mapping[str, int]) -> TensorType:
        """Returns the type under `decisions`, with no open dimension left."""
        if not self.is_open:
            return self
        return TensorType(
            self.dtype, tuple(dim.at(decisions) if isinstance(dim, OpenDim) else dim for dim in self.shape)
        )

    def sizes(self, batch: int = 1) -> tuple[int, ...]:
        """Returns the shape in plain integers, with `batch` for `N` and the largest value of open dimensions."""
        return tuple(
            batch if isinstance(dim, str) else dim.largest if isinstance(dim, OpenDim) else dim for dim in self.shape
        )

    def elements(self, batch: int = 1) -> int:
        """Returns the number of elements (open dimensions at their largest)."""
        count = 1
        for size in self.sizes(batch):
            count *= size
        return count

    def bytes(self, batch: int = 1) -> int:
        """Returns the size in bytes of one such tensor."""
        return self.elements(batch) * DTYPE_BYTES[self.dtype]
