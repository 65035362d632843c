"""Programs: a network as the executor runs it. Kernels, the steps that call them, memory and weights, all static."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gensynth.ir import TensorType

from .kernels.specification import Emitted, KernelSpec, Schedule
from .targets import Target

__all__ = ["CompiledKernel", "Placement", "Pointer", "Program", "ProgramStep", "Tensor"]


@dataclass(frozen=True)
class Tensor:
    """An input or output as the caller sees it: float32, NCHW, contiguous, `shape` with all images of a run for N."""

    name: str
    type: TensorType
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Pointer:
    """Where a kernel's argument points: an offset in bytes into the arena or the weights, or into a caller's array."""

    space: Literal["arena", "weights", "input", "output"]
    offset: int
    index: int = 0


@dataclass(frozen=True)
class CompiledKernel:
    """One kernel: its function's name, what it computes, by which template and schedule, and as it was written.

    `macs` and `bytes` (of activations and weights, read and written) are those of one call, `cycles` about how many
    cycles of one core it takes.
    """

    name: str
    spec: KernelSpec
    template: str
    schedule: Schedule
    emitted: Emitted
    macs: int
    bytes: int
    cycles: float = 0.0


@dataclass(frozen=True)
class ProgramStep:
    """One call of a kernel. `nodes` are the IR nodes that it computes.

    `barrier` says that all threads must have finished the steps before it. `threads` is the most threads it is worth.
    """

    kernel: int
    arguments: tuple[Pointer, ...]
    nodes: tuple[str, ...]
    barrier: bool = True
    threads: int = 1


@dataclass(frozen=True)
class Placement:
    """Where a value lies in the arena, in bytes, and in which phases (steps between barriers) it must be kept."""

    value: str
    offset: int
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Program:
    """A network as the executor runs it.

    `weights` is one blob, each array aligned to 64 bytes; `arena` the bytes of all activations, aligned to 64 and
    readable for 64 bytes on both sides.

    A run takes `repeats` times `batch` images. With `repeats` over 1 the steps are run so many times, each time for the
    next `batch` images: an input's or output's pointer moves on by `batch` images. Repeats do not depend on each other,
    so threads take repeats, not tasks: each has an arena of its own and needs no barriers. Activations stay in caches.
    """

    name: str
    architecture_hash: str
    target: Target
    batch: int
    dtype: str
    kernels: tuple[CompiledKernel, ...]
    steps: tuple[ProgramStep, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    weights: bytes
    arena: int
    placements: tuple[Placement, ...] = ()
    repeats: int = 1

    @property
    def images(self) -> int:
        """How many images a run takes."""
        return self.batch * self.repeats
