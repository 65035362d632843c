"""Pools on a CPU.

Of a window, first the columns are reduced over its rows and then these over the window, so that windows side by side
share their columns:

    for row of outputs, tile of outputs side by side, vector of channels:
        columns = input row 0, each combined with rows 1, 2, ...
        output[i] = columns[i stride] combined with the next ones of the window

Windows are clipped to the image: rows by the bounds of the loop, columns where they are written, tile by tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tvm.tirx.script.builder as T

from gensynth.ir import TensorType, pair
from gensynth.ir.ops import AvgPool, GlobalAvgPool, MaxPool

from ...targets import Target
from ..specification import Emitted, KernelSpec, Schedule, Weights, template
from .arithmetic import constant, largest, spread
from .costs import CYCLES_PER_TASK, output_cycles, traffic_cycles, vectors_of
from .emitting import (
    Frame,
    branch,
    finish,
    kernel_function,
    load,
    loop,
    over_channels,
    pack_steps,
    pieces,
    unravel,
)

__all__ = ["GlobalPool", "GlobalPoolSchedule", "WindowPool", "WindowPoolSchedule"]

Expression = Any

MOST_UNROLLED_ROWS = 4
"""A window of at most so many rows is unrolled where it lies inside the image."""


@dataclass(frozen=True)
class WindowPoolSchedule(Schedule):
    """`columns` outputs side by side are made at once."""

    template: ClassVar[str] = "window_pool"
    columns: int


@dataclass(frozen=True)
class _Axis:
    """The windows along one axis: window i covers elements [i stride - before, i stride - before + kernel)."""

    kernel: int
    stride: int
    before: int
    after: int
    length: int
    count: int

    def clipped(self, index: int) -> tuple[int, int]:
        """Returns the elements (first, last + 1) of a window that lie inside the image."""
        start = index * self.stride - self.before
        return max(0, start), min(self.length, start + self.kernel)

    @property
    def inside(self) -> tuple[int, int]:
        """The windows [first, last + 1) that lie wholly inside the image."""
        first = min(self.count, -(-self.before // self.stride))
        last = (self.length + self.before - self.kernel) // self.stride + 1
        return first, max(first, min(self.count, last))

    def divisor(self, index: int, count_padding: bool) -> int:
        """Returns how many elements of a window count for its mean."""
        start = index * self.stride - self.before
        if not count_padding:
            first, last = self.clipped(index)
            return last - first
        return min(start + self.kernel, self.length + self.after) - start


def _axes(spec: KernelSpec) -> tuple[_Axis, _Axis]:
    op, source, output = spec.op, spec.inputs[0], spec.output
    assert isinstance(op, (MaxPool, AvgPool))
    pads = op.pads(TensorType("f32", ("N", source.channels, source.height, source.width)))
    kernel, stride = pair(op.kernel), pair(op.steps)
    return (
        _Axis(kernel[0], stride[0], pads[0], pads[1], source.height, output.height),
        _Axis(kernel[1], stride[1], pads[2], pads[3], source.width, output.width),
    )


@template("cpu", MaxPool, AvgPool)
class WindowPool:
    """Max and average pools."""

    name = "window_pool"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[WindowPoolSchedule]:
        _, columns = _axes(spec)
        fitting = [
            count
            for count in (1, 2, 3, 4, 6, 8)
            if count <= columns.count and (count - 1) * columns.stride + columns.kernel + 3 <= target.registers
        ]
        found = [WindowPoolSchedule(count) for count in fitting or [1]]
        return sorted(found, key=lambda schedule: self.cost(spec, schedule, target))

    def schedule(self, fields: Mapping[str, Any]) -> WindowPoolSchedule:
        return WindowPoolSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: WindowPoolSchedule, target: Target) -> float:
        rows, columns = _axes(spec)
        tile = schedule.columns
        loads = ((tile - 1) * columns.stride + columns.kernel) * rows.kernel
        each = (loads + tile * columns.kernel + 4) / tile
        left = (columns.inside[1] - columns.inside[0]) % tile / max(1, columns.count)
        each *= 1.0 + 0.3 * left
        vectors = spec.batch * rows.count * columns.count * vectors_of(spec.output.channels, target.lanes)
        work = vectors * each * 0.6 + output_cycles(spec, target)
        return work + traffic_cycles(spec) + CYCLES_PER_TASK * spec.batch * rows.count

    def pack(
        self, spec: KernelSpec, schedule: WindowPoolSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[np.float32], ...]:
        return pack_steps(spec, weights, target)

    def emit(self, spec: KernelSpec, schedule: WindowPoolSchedule, target: Target, name: str) -> Emitted:
        rows, columns = _axes(spec)
        with kernel_function(name, spec, target=target) as frame, T.serial(frame.begin, frame.end) as task:
            n, h = unravel(task, (spec.batch, rows.count))
            writer = _Windows(frame, target, rows, columns, n, h)
            first, last = rows.inside
            unrolled = rows.kernel <= MOST_UNROLLED_ROWS and last > first
            if unrolled and (first, last) != (0, rows.count):
                with T.If(T.And(h >= first, h < last)):
                    with T.Then():
                        writer.row(schedule.columns, inside=True)
                    with T.Else():
                        writer.row(schedule.columns, inside=False)
            else:
                writer.row(schedule.columns, inside=unrolled)
        return Emitted(frame.function, spec.batch * rows.count)


class _Windows:
    """Writes one row of windows."""

    def __init__(self, frame: Frame, target: Target, rows: _Axis, columns: _Axis, n: Expression, h: Expression) -> None:
        self.frame, self.target, self.rows, self.columns, self.n, self.h = frame, target, rows, columns, n, h
        self.first: Expression = 0
        self.height: Expression = 0
        self.counted: Expression = 0
        self.average = isinstance(frame.spec.op, AvgPool)
        self.count_padding = isinstance(frame.spec.op, AvgPool) and frame.spec.op.count_padding

    def row(self, tile: int, *, inside: bool) -> None:
        """Writes the row's windows, `tile` at once; `inside` says that all their rows lie inside the image."""
        rows, columns = self.rows, self.columns
        start = self.h * rows.stride - rows.before
        if inside:
            self.first, self.height = start, rows.kernel
        else:
            self.first = T.bind(T.max(start, 0))
            self.height = T.bind(T.min(start + rows.kernel, rows.length) - self.first)
        self.counted = self._counted_rows(start)
        first, last = columns.inside
        for w in range(first):
            self._columns(w, 1, columns.clipped(w), columns.divisor(w, self.count_padding))
        whole, left = divmod(last - first, tile)
        if whole:
            with loop(whole) as number:
                self._inside(first + number * tile, tile)
        if left:
            self._inside(first + whole * tile, left)
        for w in range(last, columns.count):
            self._columns(w, 1, columns.clipped(w), columns.divisor(w, self.count_padding))

    def _counted_rows(self, start: Expression) -> Expression:
        """Returns how many rows of these windows count for a mean."""
        rows = self.rows
        counts = {rows.divisor(index, self.count_padding) for index in range(rows.count)}
        if len(counts) == 1:
            return counts.pop()
        if self.count_padding:
            return T.bind(T.min(start + rows.kernel, rows.length + rows.after) - start)
        return self.height

    def _inside(self, w: Expression, tile: int) -> None:
        start = w * self.columns.stride - self.columns.before
        width = (tile - 1) * self.columns.stride + self.columns.kernel
        self._columns(w, tile, (start, start + width), self.columns.kernel)

    def _columns(self, w: Expression, tile: int, extent: tuple[Expression, Expression], counted: int) -> None:
        """Writes `tile` windows from column `w` on, which read the columns of `extent`; `counted` go into a mean."""
        frame, (first, last) = self.frame, extent
        share: Expression = None
        if self.average and isinstance(self.counted, int):
            share = T.float32(1.0 / (self.counted * counted))
        elif self.average:
            share = T.bind(T.float32(1.0) / T.Cast("float32", self.counted * counted))
        width = (tile - 1) * self.columns.stride + self.columns.kernel if tile > 1 else None
        window = self.columns.kernel

        def vectors(c: Expression, lanes: int) -> None:
            count = width if width is not None else _difference(last, first, window)
            reduced = self._reduced(first, count, c, lanes)
            for number in range(tile):
                place = number * self.columns.stride
                result = reduced[place]
                for value in reduced[place + 1 : place + window]:
                    result = self._combined(result, value)
                if self.average:
                    result = result * spread(share, lanes)
                finish(frame, result, self.n, self.h, w + number, c)

        over_channels(frame.spec.output.channels, self.target.lanes, vectors)

    def _combined(self, a: Expression, b: Expression) -> Expression:
        return a + b if self.average else largest(a, b, self.target)

    def _reduced(self, first: Expression, count: int, c: Expression, lanes: int) -> list[Expression]:
        """Returns `count` columns of the input from `first` on, each reduced over the rows of the windows."""

        def at(row: Expression, column: int) -> Expression:
            view = self.frame.spec.inputs[0]
            return load(self.frame.inputs[0], view, self.n, self.first + row, first + column, c, lanes)

        if isinstance(self.height, int):
            found = []
            for column in range(count):
                value = at(0, column)
                for row in range(1, self.height):
                    value = self._combined(value, at(row, column))
                found.append(T.bind(value))
            return found
        held = T.alloc_buffer((count * lanes,), "float32", scope="local")
        places = [T.Ramp(column * lanes, 1, lanes) if lanes > 1 else column for column in range(count)]
        for column, place in enumerate(places):
            T.buffer_store(held, at(0, column), [place])
        with T.serial(1, self.height) as row:
            for column, place in enumerate(places):
                T.buffer_store(held, self._combined(held[place], at(row, column)), [place])
        return [held[place] for place in places]


def _difference(last: Expression, first: Expression, otherwise: int) -> int:
    return last - first if isinstance(last, int) and isinstance(first, int) else otherwise


@dataclass(frozen=True)
class GlobalPoolSchedule(Schedule):
    """A task is `vectors` vectors of channels of an image, summed in `partial` sums each."""

    template: ClassVar[str] = "global_pool"
    vectors: int
    partial: int


@template("cpu", GlobalAvgPool)
class GlobalPool:
    """Global average pools."""

    name = "global_pool"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[GlobalPoolSchedule]:
        most = -(-spec.output.channels // target.lanes)
        found = [
            GlobalPoolSchedule(min(vectors, most), partial)
            for vectors, partial in ((4, 2), (2, 4), (8, 1), (1, 8), (2, 2), (1, 4))
        ]
        return list(dict.fromkeys(found))

    def schedule(self, fields: Mapping[str, Any]) -> GlobalPoolSchedule:
        return GlobalPoolSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: GlobalPoolSchedule, target: Target) -> float:
        source = spec.inputs[0]
        vectors = spec.batch * source.height * source.width * vectors_of(source.channels, target.lanes)
        tasks = spec.batch * -(-source.channels // (schedule.vectors * target.lanes))
        latency = max(0.7, 4.0 / (schedule.vectors * schedule.partial))
        return vectors * latency + traffic_cycles(spec) + output_cycles(spec, target) + CYCLES_PER_TASK * tasks

    def pack(
        self, spec: KernelSpec, schedule: GlobalPoolSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[np.float32], ...]:
        return pack_steps(spec, weights, target)

    def emit(self, spec: KernelSpec, schedule: GlobalPoolSchedule, target: Target, name: str) -> Emitted:
        source = spec.inputs[0]
        block = schedule.vectors * target.lanes
        blocks = -(-source.channels // block)
        whole, left = divmod(source.channels, block)
        with kernel_function(name, spec, target=target) as frame, T.serial(frame.begin, frame.end) as task:
            n, number = unravel(task, (spec.batch, blocks))

            def write(channels: int) -> None:
                for start, widths in _sums(channels, target.lanes, schedule.vectors):
                    self._sum(frame, n, number * block + start, widths, schedule.partial)

            branch(number, (whole, lambda: write(block)), (bool(left), lambda: write(left)))
        return Emitted(frame.function, spec.batch * blocks)

    @staticmethod
    def _sum(frame: Frame, n: Expression, c: Expression, widths: Sequence[int], partial: int) -> None:
        """Writes the means of the channels from `c` on, in vectors of these widths."""
        source = frame.spec.inputs[0]
        height, width = source.height, source.width
        if source.row == width * source.pixel:
            height, width = 1, height * width
        partial = max(1, min(partial, width))
        total = sum(widths)
        held = T.alloc_buffer((partial * total,), "float32", scope="local")
        vectors = [(sum(widths[:number]), lanes) for number, lanes in enumerate(widths)]

        def place(number: int, start: int, lanes: int) -> Expression:
            first = number * total + start
            return first if lanes == 1 else T.Ramp(first, 1, lanes)

        for number in range(partial):
            for start, lanes in vectors:
                T.buffer_store(held, constant(0.0, lanes), [place(number, start, lanes)])

        def add(h: Expression, w: Expression, number: int) -> None:
            for start, lanes in vectors:
                at = place(number, start, lanes)
                value = load(frame.inputs[0], source, n, h, w, c + start, lanes)
                T.buffer_store(held, held[at] + value, [at])

        with loop(height) as h:
            with loop(width // partial) as step:
                for number in range(partial):
                    add(h, step * partial + number, number)
            for w in range(width // partial * partial, width):
                add(h, w, 0)
        for start, lanes in vectors:
            result = held[place(0, start, lanes)]
            for number in range(1, partial):
                result = result + held[place(number, start, lanes)]
            mean = result * constant(1.0 / (source.height * source.width), lanes)
            finish(frame, mean, n, 0, 0, c + start)


def _sums(channels: int, lanes: int, most: int) -> Iterator[tuple[int, list[int]]]:
    """Yields (first channel, widths of vectors) of the groups that are summed together, at most so many each."""
    widths = list(pieces(channels, lanes))
    for number in range(0, len(widths), most):
        group = widths[number : number + most]
        yield group[0][0], [width for _, width in group]
