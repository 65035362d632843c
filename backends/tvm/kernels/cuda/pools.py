"""Pools on a GPU: one thread makes one output of a window; the threads of a block share a global mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tvm.tirx.script.builder as T

from gensynth.ir import TensorType, pair
from gensynth.ir.ops import AvgPool, GlobalAvgPool, MaxPool

from ...targets import Target
from ..specification import Emitted, KernelSpec, Schedule, Weights, template
from .costs import MEMORY_LATENCY, Work, grid_cycles, memory_cycles, step_instructions
from .elements import Elements
from .emitting import (
    LOWEST,
    Frame,
    constant,
    finish,
    guarded,
    inside,
    kernel_function,
    load,
    pack_steps,
    quotient,
    remainder,
    sync,
    unravel,
    when,
)

__all__ = ["GlobalPool", "GlobalPoolSchedule", "WindowPool"]

Expression = Any

MOST_UNROLLED = 25


@dataclass(frozen=True)
class _Axis:
    """The windows along one axis: window i covers elements [i stride - before, i stride - before + kernel)."""

    kernel: int
    stride: int
    before: int
    after: int
    length: int
    count: int

    @property
    def within(self) -> bool:
        """Whether all windows lie inside the image."""
        return self.before == 0 and (self.count - 1) * self.stride + self.kernel <= self.length

    def counted(self, index: Expression, count_padding: bool) -> Expression:
        """Returns how many elements of a window count for its mean."""
        first, beyond = (-self.before, self.length + self.after) if count_padding else (0, self.length)
        start = index * self.stride - self.before
        if self.within or (
            first == -self.before and (self.count - 1) * self.stride + self.kernel <= beyond + self.before
        ):
            return self.kernel
        return T.min(start + self.kernel, beyond) - T.max(start, first)


@template("cuda", MaxPool, AvgPool)
class WindowPool(Elements):
    """Max and average pools."""

    name = "window_pool"

    def instructions(self, spec: KernelSpec) -> float:
        rows, columns = self._axes(spec)
        return 4.0 * rows.kernel * columns.kernel + 10.0

    @staticmethod
    def _axes(spec: KernelSpec) -> tuple[_Axis, _Axis]:
        op, source, output = spec.op, spec.inputs[0], spec.output
        assert isinstance(op, (MaxPool, AvgPool))
        pads = op.pads(TensorType("f32", ("N", source.channels, source.height, source.width)))
        kernel, stride = pair(op.kernel), pair(op.steps)
        return (
            _Axis(kernel[0], stride[0], pads[0], pads[1], source.height, output.height),
            _Axis(kernel[1], stride[1], pads[2], pads[3], source.width, output.width),
        )

    def write(self, frame: Frame, n: Expression, h: Expression, w: Expression, c: Expression) -> None:
        op, source = frame.spec.op, frame.spec.inputs[0]
        rows, columns = self._axes(frame.spec)
        start = LOWEST if isinstance(op, MaxPool) else 0.0
        held = T.alloc_buffer((1,), "float32", scope="local")
        T.buffer_store(held, constant(start), [0])
        loop = T.unroll if rows.kernel * columns.kernel <= MOST_UNROLLED else T.serial
        with loop(0, rows.kernel) as u, loop(0, columns.kernel) as v:
            row, column = h * rows.stride - rows.before + u, w * columns.stride - columns.before + v
            condition = when(
                None if rows.within else inside(row, source.height),
                None if columns.within else inside(column, source.width),
            )
            value = load(frame.inputs[0], source, n, row, column, c, condition, start)
            T.buffer_store(held, T.max(held[0], value) if isinstance(op, MaxPool) else held[0] + value, [0])
        result = held[0]
        if isinstance(op, AvgPool):
            count = rows.counted(h, op.count_padding) * columns.counted(w, op.count_padding)
            if isinstance(count, int):
                result = result * constant(1.0 / count)
            else:
                result = result / T.Cast("float32", count)
        finish(frame, result, n, h, w, c)


@dataclass(frozen=True)
class GlobalPoolSchedule(Schedule):
    """A block makes `channels` means of an image; `parts` threads share the pixels of each."""

    template: ClassVar[str] = "global_pool"
    channels: int
    parts: int


@template("cuda", GlobalAvgPool)
class GlobalPool:
    """Global average pools."""

    name = "global_pool"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[GlobalPoolSchedule]:
        pixels = spec.inputs[0].height * spec.inputs[0].width
        found = [
            GlobalPoolSchedule(channels, parts)
            for channels in (8, 16, 32, 64)
            for parts in (1, 2, 4, 8, 16, 32)
            if 32 <= channels * parts <= 512 and parts < 2 * pixels and channels < 2 * max(32, spec.output.channels)
        ]
        return sorted(found, key=lambda schedule: self.cost(spec, schedule, target))[:6]

    def schedule(self, fields: Mapping[str, Any]) -> GlobalPoolSchedule:
        return GlobalPoolSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: GlobalPoolSchedule, target: Target) -> float:
        turns = -(-spec.inputs[0].height * spec.inputs[0].width // schedule.parts)
        instructions = 40 + 6 * turns + 3 * schedule.parts + step_instructions(spec)
        latency = 2 * MEMORY_LATENCY + turns * 30 + schedule.parts * 8
        work = Work(schedule.channels * schedule.parts, instructions, latency)
        blocks = spec.batch * -(-spec.output.channels // schedule.channels)
        return max(grid_cycles(work, blocks, target), memory_cycles(spec, target))

    def pack(
        self, spec: KernelSpec, schedule: GlobalPoolSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[np.float32], ...]:
        return pack_steps(spec, weights)

    def emit(self, spec: KernelSpec, schedule: GlobalPoolSchedule, target: Target, name: str) -> Emitted:
        source = spec.inputs[0]
        channels, parts = schedule.channels, schedule.parts
        pixels = source.height * source.width
        grid = (-(-source.channels // channels), min(spec.batch, 65535), -(-spec.batch // 65535))
        with kernel_function(name, spec, grid, channels * parts) as frame:
            n = frame.block[1] + frame.block[2] * 65535
            c = T.bind(frame.block[0] * channels + remainder(frame.thread, channels))
            part = quotient(frame.thread, channels)
            exists = when(
                None if source.channels % channels == 0 else c < source.channels,
                None if grid[1] * grid[2] == spec.batch else n < spec.batch,
            )
            held = T.alloc_buffer((1,), "float32", scope="local")
            T.buffer_store(held, T.float32(0), [0])
            with T.serial(0, -(-pixels // parts)) as turn:
                pixel = T.bind(turn * parts + part)
                h, w = unravel(pixel, (source.height, source.width))
                with guarded(when(exists, None if pixels % parts == 0 else pixel < pixels)):
                    T.buffer_store(held, held[0] + load(frame.inputs[0], source, n, h, w, c), [0])
            total = held[0]
            if parts > 1:
                shared = T.alloc_buffer((channels * parts,), "float32", scope="shared")
                T.buffer_store(shared, held[0], [frame.thread])
                sync()
                exists = when(exists, frame.thread < channels)
            with guarded(exists):
                for other in range(1, parts):
                    T.buffer_store(held, held[0] + shared[frame.thread + other * channels], [0])
                finish(frame, total * constant(1.0 / pixels), n, 0, 0, c)
        return Emitted(frame.function, grid=grid, block=(channels * parts, 1, 1))
