"""How long kernels take on a GPU, roughly, in cycles of its clock: what schedules are ranked by without measurement.

Figures are those of Pascal (the Tegra X2's GP10B; NVIDIA's CUDA C Programming Guide, compute capability 6.2): four
schedulers a multiprocessor that each issue one instruction of a warp a cycle, 64K registers, 64 KB of shared memory, 64
warps and 32 blocks at once. Starting a kernel is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from gensynth.ir.ops import Add, BatchNorm, Mul, Sigmoid, Silu

from ...targets import Target
from ..specification import KernelSpec

__all__ = ["Work", "grid_cycles", "memory_cycles", "step_instructions"]

WARP = 32
SCHEDULERS = 4
REGISTERS = 65536
SHARED = 65536
WARPS = 64
BLOCKS = 32

BYTES_PER_CYCLE = 40.0
"""What memory delivers in one cycle of the GPU: 58 GB/s at 1.3 GHz on the Tegra X2, and a little less."""

CACHE_BYTES_PER_CYCLE = 96.0
"""What the L2 cache delivers."""

MEMORY_LATENCY = 350.0


@dataclass(frozen=True)
class Work:
    """What one block does: threads, instructions a thread issues, cycles it waits at least, and what it takes."""

    threads: int
    instructions: float
    latency: float
    registers: int = 32
    shared: int = 0
    shared_cycles: float = 0.0


def grid_cycles(work: Work, blocks: int, target: Target) -> float:
    """Returns the cycles in which a grid of equal blocks is done, were memory infinitely wide."""
    assert target.cuda is not None
    processors = target.cuda.multiprocessors
    warps = -(-work.threads // WARP)
    at_once = min(
        BLOCKS,
        WARPS // warps,
        REGISTERS // (warps * WARP * max(work.registers, 16)),
        SHARED // work.shared if work.shared else BLOCKS,
    )
    at_once = max(1, at_once)
    share = -(-blocks // processors)
    rounds = -(-share // at_once)
    busy = max(warps * work.instructions / SCHEDULERS, work.shared_cycles) * share
    # a warp issues at most one instruction in about two cycles, and waits for memory
    alone = rounds * (2.0 * work.instructions + work.latency)
    return max(busy, alone)


def memory_cycles(spec: KernelSpec, target: Target, weights: float = 0.0, read: float = 0.0) -> float:
    """Returns the cycles in which values, bytes of weights, and bytes `read` again from the cache come and go."""
    size = {"f32": 4, "f16": 2}
    views = [*spec.inputs, spec.output, *(step.view for step in spec.steps if step.view is not None)]
    moved = sum(size[view.dtype] * spec.batch * view.channels * view.height * view.width for view in views)
    scale = 1.0 if target.cuda is None else max(1.0, target.cuda.multiprocessors / 2)
    return max((moved + weights) / BYTES_PER_CYCLE, read / CACHE_BYTES_PER_CYCLE) / scale


def step_instructions(spec: KernelSpec) -> float:
    """Returns about how many instructions the steps and the store of one element take."""
    each = 4.0
    for step in spec.steps:
        if isinstance(step.op, (Sigmoid, Silu)):
            each += 20.0
        elif isinstance(step.op, (Add, Mul, BatchNorm)):
            each += 4.0
        else:
            each += 2.0
    return each
