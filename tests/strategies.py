"""Hypothesis strategies of random networks and generators, for the tests of every layer."""

from __future__ import annotations

from hypothesis import strategies as st
from random_graphs import grow_generator, grow_network, random_generator, random_network

from gensynth.ir import Graph

__all__ = ["generators", "networks", "random_generator", "random_network"]


class _Drawn:
    """Decisions drawn by hypothesis, so that failing graphs shrink."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))


@st.composite
def networks(draw: st.DrawFn, size: int = 12) -> Graph:
    """Random valid networks over all ops: scopes, several inputs and outputs, splits, residual adds, odd windows."""
    return grow_network(_Drawn(draw), size)


@st.composite
def generators(draw: st.DrawFn, size: int = 8) -> Graph:
    """Random valid generators: open attributes with shared ids, nested `choose`, logits, requirements."""
    return grow_generator(_Drawn(draw), size)
