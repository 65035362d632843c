"""How long kernels take, roughly, in cycles of one core: what schedules are ranked by before anything is measured."""

from __future__ import annotations

from gensynth.ir.ops import Add, BatchNorm, Mul, Sigmoid, Silu

from ...targets import Target
from ..specification import KernelSpec
from .emitting import pieces

__all__ = ["BYTES_PER_CYCLE", "CYCLES_PER_TASK", "output_cycles", "traffic_cycles", "vectors_of"]

BYTES_PER_CYCLE = 32.0
"""What a core streams from its outer caches."""

CYCLES_PER_TASK = 12.0


def vectors_of(channels: int, lanes: int) -> int:
    """Returns how many vectors cover so many channels exactly."""
    return sum(1 for _ in pieces(channels, lanes))


def output_cycles(spec: KernelSpec, target: Target) -> float:
    """Returns the cycles of the steps and stores of the whole output."""
    each = 1.0
    for step in spec.steps:
        if isinstance(step.op, (Sigmoid, Silu)):
            each += 14.0
        elif isinstance(step.op, (Add, Mul, BatchNorm)):
            each += 1.5
        else:
            each += 1.0
    output = spec.output
    return spec.batch * output.height * output.width * vectors_of(output.channels, target.lanes) * each


def traffic_cycles(spec: KernelSpec, weights: int = 0) -> float:
    """Returns the cycles in which the values, and so many elements of weights, pass between core and caches."""
    views = [*spec.inputs, spec.output, *(step.view for step in spec.steps if step.view is not None)]
    elements = sum(spec.batch * view.channels * view.height * view.width for view in views)
    return 4 * (elements + weights) / BYTES_PER_CYCLE
