"""Static memory plans: offsets for buffers whose lifetimes are known, so that nothing is allocated while running."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Buffer", "MemoryPlan", "plan_memory"]


@dataclass(frozen=True)
class Buffer:
    """A buffer of `size` bytes that must be kept from phase `start` to phase `end`, both included."""

    name: str
    size: int
    start: int
    end: int

    def meets(self, other: Buffer) -> bool:
        """Whether both must be kept at some time."""
        return self.start <= other.end and other.start <= self.end


@dataclass(frozen=True)
class MemoryPlan:
    """Where each buffer lies, in bytes, in the order given, and how many bytes all take.

    `least` is the most bytes live in any one phase: no plan can take less.
    """

    offsets: tuple[int, ...]
    size: int
    least: int


def plan_memory(buffers: Sequence[Buffer], *, alignment: int = 64) -> MemoryPlan:
    """Returns offsets at which no two buffers overlap that live at the same time.

    Greedy by size (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", arXiv 2001.03288,
    section 5): the largest first, each at the lowest gap that holds it among those placed and live with it.
    """
    sizes = [-(-buffer.size // alignment) * alignment for buffer in buffers]
    placed: list[int] = []
    offsets = [0] * len(buffers)
    for index in sorted(range(len(buffers)), key=lambda i: (-sizes[i], buffers[i].start, i)):
        taken = sorted((offsets[other], sizes[other]) for other in placed if buffers[other].meets(buffers[index]))
        best, gap, end = None, None, 0
        for offset, size in taken:
            free = offset - end
            if free >= sizes[index] and (gap is None or free < gap):
                best, gap = end, free
            end = max(end, offset + size)
        offsets[index] = end if best is None else best
        placed.append(index)
    size = max((offsets[index] + sizes[index] for index in placed), default=0)
    return MemoryPlan(tuple(offsets), size, _least(buffers, sizes))


def _least(buffers: Sequence[Buffer], sizes: Sequence[int]) -> int:
    changes: dict[int, int] = {}
    for buffer, size in zip(buffers, sizes, strict=True):
        changes[buffer.start] = changes.get(buffer.start, 0) + size
        changes[buffer.end + 1] = changes.get(buffer.end + 1, 0) - size
    live = most = 0
    for phase in sorted(changes):
        live += changes[phase]
        most = max(most, live)
    return most
