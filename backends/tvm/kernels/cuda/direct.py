"""Convolutions of groups of few channels, above all depthwise ones, on a GPU.

A thread makes a tile of outputs of one channel, its neighbours those of the next channels, so that they read and write
next to each other:

    for input channel of the group:
        for element of the patch under the tile:
            x = input
            for output of the tile and tap of the filter that meet there:
                sum[output] += x * weight[tap]

Memory bounds these kernels: sums and products are float32 also where memory holds float16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt
import tvm.tirx.script.builder as T

from gensynth.ir.ops import Conv2d, ConvTranspose2d

from ...targets import Target
from ..specification import Emitted, KernelSpec, Schedule, Weights, template
from .costs import MEMORY_LATENCY, Work, grid_cycles, memory_cycles, step_instructions
from .emitting import (
    Frame,
    element,
    external,
    finish,
    guarded,
    inside,
    kernel_function,
    loaded,
    pack_steps,
    quotient,
    remainder,
    unravel,
    when,
)
from .problems import Axis, Problem, as_memory, bias_of, filters_of, problem_of

__all__ = ["Direct", "DirectSchedule"]

Expression = Any

MOST_UNROLLED = 320
"""A window is unrolled where that makes at most so many multiply-adds and loads."""


@dataclass(frozen=True)
class DirectSchedule(Schedule):
    """A thread makes `rows` x `columns` outputs of a channel; blocks have `threads`."""

    template: ClassVar[str] = "direct"
    rows: int
    columns: int
    threads: int


def _patch(axis: Axis, tile: int) -> int:
    return (tile - 1) * axis.stride + (axis.window - 1) * abs(axis.step) + 1


def _tiles(axis: Axis, tile: int) -> int:
    return -(-axis.outputs // tile)


def _count(problem: Problem, schedule: DirectSchedule) -> int:
    tiles = _tiles(problem.rows, schedule.rows) * _tiles(problem.columns, schedule.columns)
    return problem.batch * tiles * problem.groups * problem.outputs


@template("cuda", Conv2d, ConvTranspose2d)
class Direct:
    """Convolutions and transposed ones of many groups."""

    name = "direct"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[DirectSchedule]:
        problem = problem_of(spec)
        if problem.groups == 1 or problem.inputs > 16:
            return ()
        tiles = ((1, 1), (1, 2), (1, 4), (2, 2), (2, 4), (1, 8))
        found = {}
        for rows, columns in tiles if problem.phases == 1 else ((1, 1),):
            if rows >= 2 * problem.rows.outputs or columns >= 2 * problem.columns.outputs:
                continue
            if rows * columns > 1 and not _unrolls(problem, rows, columns):
                continue
            for threads in (64, 128, 256):
                schedule = DirectSchedule(rows, columns, threads)
                found[schedule] = self._cycles(spec, problem, schedule, target)
        return sorted(found, key=lambda item: found[item])[:6]

    def schedule(self, fields: Mapping[str, Any]) -> DirectSchedule:
        return DirectSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: DirectSchedule, target: Target) -> float:
        return self._cycles(spec, problem_of(spec), schedule, target)

    @staticmethod
    def _cycles(spec: KernelSpec, problem: Problem, schedule: DirectSchedule, target: Target) -> float:
        outputs = schedule.rows * schedule.columns
        patch = _elements(problem, schedule.rows, schedule.columns)
        checks = 0 if problem.rows.within and problem.columns.within else 2
        # what neighbours load too comes from the cache, a word a thread
        loads = patch * (2.0 + checks) + problem.taps * 2.0
        instructions = 50 + problem.inputs * (loads + outputs * problem.taps) + outputs * (4 + step_instructions(spec))
        latency = 2 * MEMORY_LATENCY + problem.inputs * 100
        work = Work(schedule.threads, instructions, latency, 30 + outputs + patch // 2)
        count = _count(problem, schedule)
        blocks = -(-count // schedule.threads)
        size = 2 if spec.dtype == "f16" else 4
        weights = size * problem.phases * problem.groups * problem.outputs * problem.terms
        memory = memory_cycles(spec, target, weights, size * count * problem.inputs * (patch + problem.taps))
        return max(grid_cycles(work, blocks, target), memory)

    def pack(
        self, spec: KernelSpec, schedule: DirectSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[Any], ...]:
        problem = problem_of(spec)
        # [phase][input channel][tap][output channel]
        filters = filters_of(spec, problem, weights).transpose(0, 4, 3, 1, 2)
        bias = bias_of(weights, (problem.groups, problem.outputs), problem.outputs)
        return as_memory(spec, filters).ravel(), bias.ravel(), *pack_steps(spec, weights)

    def emit(self, spec: KernelSpec, schedule: DirectSchedule, target: Target, name: str) -> Emitted:
        problem = problem_of(spec)
        count = _count(problem, schedule)
        grid = (-(-count // schedule.threads), 1, 1)
        weights = "uint16" if spec.dtype == "f16" else "float32"
        with kernel_function(name, spec, grid, schedule.threads, (weights, "float32")) as frame:
            index = frame.block[0] * schedule.threads + frame.thread
            with guarded(None if count % schedule.threads == 0 else index < count):
                _Tile(frame, problem, schedule, T.bind(index)).write()
        return Emitted(frame.function, grid=grid, block=(schedule.threads, 1, 1))


def _elements(problem: Problem, rows: int, columns: int) -> int:
    """Returns how many elements of the input a tile meets."""
    high, wide = _patch(problem.rows, rows), _patch(problem.columns, columns)
    if rows == 1:
        high = problem.rows.window
    if columns == 1:
        wide = problem.columns.window
    return high * wide


def _unrolls(problem: Problem, rows: int, columns: int) -> bool:
    return _elements(problem, rows, columns) + rows * columns * problem.taps <= MOST_UNROLLED


class _Tile:
    """Writes the outputs of one thread."""

    def __init__(self, frame: Frame, problem: Problem, schedule: DirectSchedule, index: Expression) -> None:
        self.frame, self.problem, self.schedule = frame, problem, schedule
        rows, columns = problem.rows, problem.columns
        sizes = (
            problem.batch,
            _tiles(rows, schedule.rows),
            _tiles(columns, schedule.columns),
            problem.groups * problem.outputs,
        )
        self.n, down, across, self.channel = unravel(index, sizes)
        self.h, self.w = down * schedule.rows, across * schedule.columns
        self.group = quotient(self.channel, problem.outputs)
        # outputs of a transposed convolution take turns in phases
        row_phase, column_phase = remainder(self.h, rows.phases), remainder(self.w, columns.phases)
        self.phase = row_phase * columns.phases + column_phase
        self.top = T.bind(T.int32(0) + quotient(self.h, rows.phases) * rows.stride + rows.start(row_phase))
        self.left = T.bind(T.int32(0) + quotient(self.w, columns.phases) * columns.stride + columns.start(column_phase))
        self.sums = T.alloc_buffer((schedule.rows * schedule.columns,), "float32", scope="local")

    def write(self) -> None:
        problem, schedule = self.problem, self.schedule
        with T.unroll(0, schedule.rows * schedule.columns) as number:
            T.buffer_store(self.sums, T.float32(0), [number])
        if problem.inputs == 1:
            self._multiply(0)
        else:
            with T.serial(0, problem.inputs) as channel:
                self._multiply(channel)
        for row in range(schedule.rows):
            for column in range(schedule.columns):
                h, w = self.h + row, self.w + column
                condition = when(
                    None if problem.rows.outputs % schedule.rows == 0 else h < problem.rows.outputs,
                    None if problem.columns.outputs % schedule.columns == 0 else w < problem.columns.outputs,
                )
                with guarded(condition):
                    total = self.sums[row * schedule.columns + column] + self.frame.packed[1][self.channel]
                    finish(self.frame, total, self.n, h, w, self.channel)

    def _weight(self, channel: Expression, tap: Expression) -> Expression:
        problem = self.problem
        at = ((self.phase * problem.inputs + channel) * problem.taps + tap) * (problem.groups * problem.outputs)
        value = self.frame.packed[0][at + self.channel]
        return external("float32", "half_to_float", value) if self.frame.spec.dtype == "f16" else value

    def _multiply(self, channel: Expression) -> None:
        """Writes the multiply-adds of one input channel."""
        problem, schedule = self.problem, self.schedule
        rows, columns = problem.rows, problem.columns
        if not _unrolls(problem, schedule.rows, schedule.columns):
            with T.serial(0, rows.window) as u, T.serial(0, columns.window) as v:
                x = self._input(channel, u * rows.step, v * columns.step)
                weight = self._weight(channel, u * columns.window + v)
                T.buffer_store(self.sums, self.sums[0] + x * weight, [0])
            return
        met: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for row in range(schedule.rows):
            for column in range(schedule.columns):
                for u in range(rows.window):
                    for v in range(columns.window):
                        place = row * rows.stride + u * rows.step, column * columns.stride + v * columns.step
                        met.setdefault(place, []).append((row * schedule.columns + column, u * columns.window + v))
        held = None
        if schedule.rows * schedule.columns > 1:
            # a weight that is used once is loaded where it is used: registers for all of them would be spilled
            held = T.alloc_buffer((problem.taps,), "float32", scope="local")
            for tap in range(problem.taps):
                T.buffer_store(held, self._weight(channel, tap), [tap])
        for (row, column), pairs in sorted(met.items()):
            x = T.bind(self._input(channel, row, column))
            for output, tap in pairs:
                weight = self._weight(channel, tap) if held is None else held[tap]
                T.buffer_store(self.sums, self.sums[output] + x * weight, [output])

    def _input(self, channel: Expression, row: Expression, column: Expression) -> Expression:
        problem = self.problem
        source = problem.source
        h, w = self.top + row, self.left + column
        condition = when(
            None if self._within(problem.rows, self.schedule.rows) else inside(h, problem.rows.length),
            None if self._within(problem.columns, self.schedule.columns) else inside(w, problem.columns.length),
        )
        at = element(source, self.n, h, w, self.group * problem.inputs + channel)
        value = loaded(self.frame.inputs[0], source, at)
        return value if condition is None else T.if_then_else(condition, value, T.float32(0))

    @staticmethod
    def _within(axis: Axis, tile: int) -> bool:
        # a tile that overhangs the output may reach beyond the image
        return axis.within and axis.outputs % tile == 0
