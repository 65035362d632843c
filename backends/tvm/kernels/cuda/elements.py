"""Kernels whose threads make elements of the output one by one, neighbouring threads neighbouring elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tvm.tirx.script.builder as T

from ...targets import Target
from ..specification import Emitted, KernelSpec, Schedule, Weights
from .costs import MEMORY_LATENCY, Work, grid_cycles, memory_cycles, step_instructions
from .emitting import Frame, guarded, kernel_function, pack_steps, unravel

__all__ = ["ElementSchedule", "Elements", "output_order"]

Expression = Any


@dataclass(frozen=True)
class ElementSchedule(Schedule):
    """Blocks of `threads`, each of which makes `elements`."""

    template: ClassVar[str] = "elements"
    threads: int
    elements: int


def output_order(spec: KernelSpec) -> tuple[tuple[str, int], ...]:
    """Returns the axes of the output with their sizes, the one whose elements lie closest together last."""
    view = spec.output
    axes = [("h", view.height, view.row), ("w", view.width, view.pixel), ("c", view.channels, view.channel)]
    axes.sort(key=lambda axis: -axis[2])
    return (("n", spec.batch), *((name, size) for name, size, _ in axes))


class Elements:
    """Base of these templates: `write` makes one element."""

    name = "elements"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[ElementSchedule]:
        found = [ElementSchedule(threads, each) for threads in (64, 128, 256) for each in (1, 2, 4)]
        return sorted(found, key=lambda schedule: self.cost(spec, schedule, target))[:6]

    def schedule(self, fields: Mapping[str, Any]) -> ElementSchedule:
        return ElementSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: ElementSchedule, target: Target) -> float:
        each = 14.0 + step_instructions(spec) + self.instructions(spec)
        latency = MEMORY_LATENCY * 1.5
        work = Work(schedule.threads, 20 + each * schedule.elements, latency)
        return max(grid_cycles(work, self._blocks(spec, schedule), target), memory_cycles(spec, target))

    def instructions(self, spec: KernelSpec) -> float:
        """Returns about how many instructions the anchor takes for one element."""
        return 4.0

    def pack(
        self, spec: KernelSpec, schedule: ElementSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[np.float32], ...]:
        return pack_steps(spec, weights)

    @staticmethod
    def _count(spec: KernelSpec) -> int:
        return spec.batch * spec.output.height * spec.output.width * spec.output.channels

    def _blocks(self, spec: KernelSpec, schedule: ElementSchedule) -> int:
        return -(-self._count(spec) // (schedule.threads * schedule.elements))

    def emit(self, spec: KernelSpec, schedule: ElementSchedule, target: Target, name: str) -> Emitted:
        grid = (self._blocks(spec, schedule), 1, 1)
        count = self._count(spec)
        order = output_order(spec)
        tile = schedule.threads * schedule.elements
        with kernel_function(name, spec, grid, schedule.threads) as frame:
            for number in range(schedule.elements):
                index = frame.block[0] * tile + number * schedule.threads + frame.thread
                with guarded(None if count % tile == 0 else index < count):
                    places = unravel(T.bind(index), [size for _, size in order])
                    at = {axis: place for (axis, _), place in zip(order, places, strict=True)}
                    self.write(frame, at["n"], at["h"], at["w"], at["c"])
        return Emitted(frame.function, grid=grid, block=(schedule.threads, 1, 1))

    def write(self, frame: Frame, n: Expression, h: Expression, w: Expression, c: Expression) -> None:
        """Writes what makes an element."""
        raise NotImplementedError
