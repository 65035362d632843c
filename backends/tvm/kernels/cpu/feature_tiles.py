"""Tiles of output features: how weights are packed for loops that accumulate some vectors of features at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .emitting import branch, pieces

__all__ = ["FeatureTiles", "Tile"]

Floats = npt.NDArray[np.float32]
Expression = Any


@dataclass(frozen=True)
class Tile:
    """Vectors of features, as (start, lanes) within the tile; the first `features` are real, the rest zeros."""

    vectors: tuple[tuple[int, int], ...]
    features: int

    @property
    def width(self) -> int:
        """Features of all vectors."""
        return sum(lanes for _, lanes in self.vectors)

    def stored(self) -> list[tuple[int, int]]:
        """Returns the (start, lanes) that cover the real features exactly."""
        found = []
        for start, lanes in self.vectors:
            found += [(start + begin, width) for begin, width in pieces(min(lanes, self.features - start), lanes)]
        return found


@dataclass(frozen=True)
class FeatureTiles:
    """`features` in tiles of `vectors` vectors of `lanes`; the last tile is as narrow as what is left allows."""

    features: int
    vectors: int
    lanes: int

    @property
    def tile(self) -> Tile:
        """A full tile."""
        return Tile(tuple((n * self.lanes, self.lanes) for n in range(self.vectors)), self.vectors * self.lanes)

    @property
    def full(self) -> int:
        """How many full tiles there are."""
        return self.features // (self.vectors * self.lanes)

    @property
    def last(self) -> Tile | None:
        """The narrower tile at the end; its last vector has a power of two of lanes."""
        rest = self.features % (self.vectors * self.lanes)
        if not rest:
            return None
        whole, left = divmod(rest, self.lanes)
        vectors = [(n * self.lanes, self.lanes) for n in range(whole)]
        if left:
            vectors.append((whole * self.lanes, 1 << (left - 1).bit_length()))
        return Tile(tuple(vectors), rest)

    @property
    def count(self) -> int:
        """How many tiles there are in all."""
        return self.full + (self.last is not None)

    @property
    def padded(self) -> int:
        """Features in all tiles, zeros included."""
        return self.full * self.tile.width + (self.last.width if self.last else 0)

    def pack(self, weights: Floats) -> Floats:
        """Returns [features, terms] as the tiles one after another, each [terms, width]."""
        terms = weights.shape[1]
        padded = np.zeros((self.padded, terms), np.float32)
        padded[: self.features] = weights
        parts, start = [], 0
        for tile in (*[self.tile] * self.full, *([self.last] if self.last else [])):
            parts.append(padded[start : start + tile.width].T.ravel())
            start += tile.width
        return np.concatenate(parts)

    def pack_bias(self, bias: Floats | None) -> Floats:
        """Returns [features], zeros where there is none, padded like the tiles."""
        padded = np.zeros(self.padded, np.float32)
        if bias is not None:
            padded[: self.features] = bias
        return padded

    def write(self, number: Expression, body: Callable[[Tile], None]) -> None:
        """Writes `body` for the tile of this number, once for full tiles and once for the last."""
        last = self.last
        branch(
            number,
            (self.full, lambda: body(self.tile)),
            (int(last is not None), lambda: body(last) if last is not None else None),
        )
