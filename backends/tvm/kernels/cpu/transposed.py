"""Transposed convolution on a CPU.

Along one axis, output y reads input i through tap u where y + cut = i stride + u dilation. Outputs with the same
remainder of y + cut by the stride, a *phase*, so read the input through the same taps, as an ordinary convolution does:

    for row of outputs, tile of channels:
        for phase of columns, tile of outputs of that phase:
            accumulators = bias
            for tap of the row's phase inside the image, tap of the column's phase, input channel:
                accumulators[output][vector] += input[output] (broadcast) * weight[vector]
            output = steps(accumulators)

A row's phase is known when it runs: its taps are every m-th from a first one. Columns are written phase by phase; those
whose taps lie beyond the image on one side are written one by one with the taps that they have. Where every channel is
a group of its own, vectors run over channels and nothing is broadcast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tvm.tirx.script.builder as T

from gensynth.ir import TensorType, pair
from gensynth.ir.ops import ConvTranspose2d

from ...targets import Target
from ..specification import Emitted, KernelSpec, Schedule, Weights, template
from .arithmetic import spread
from .costs import BYTES_PER_CYCLE, CYCLES_PER_TASK, output_cycles, traffic_cycles
from .emitting import Frame, element, finish, kernel_function, load, loop, pack_steps, span, unravel
from .feature_tiles import FeatureTiles, Tile

__all__ = ["TransposedConvolution", "TransposedSchedule"]

Expression = Any


@dataclass(frozen=True)
class TransposedSchedule(Schedule):
    """A tile is `columns` outputs of one phase by `vectors` vectors of channels."""

    template: ClassVar[str] = "transposed"
    columns: int
    vectors: int


@dataclass(frozen=True)
class _Axis:
    """One axis: output y reads input i through tap u where y + cut = i stride + u dilation."""

    kernel: int
    stride: int
    dilation: int
    cut: int
    length: int
    count: int

    @property
    def common(self) -> int:
        """Phases that are no multiple of it read nothing."""
        return gcd(self.stride, self.dilation)

    @property
    def every(self) -> int:
        """From one tap of a phase to the next; the input element moves back by `dilation / common`."""
        return self.stride // self.common

    @property
    def inverse(self) -> int:
        """First tap of phase r: (r / common) inverse mod every."""
        return pow(self.dilation // self.common, -1, self.every) if self.every > 1 else 0

    def taps(self, phase: int) -> list[tuple[int, int]]:
        """Returns the (tap, distance) of a phase: output q stride + phase - cut reads input q - distance through it."""
        return [
            (tap, (tap * self.dilation - phase) // self.stride)
            for tap in range(self.kernel)
            if (tap * self.dilation - phase) % self.stride == 0
        ]

    def places(self, phase: int) -> range:
        """Returns the q for which q stride + phase - cut is an output."""
        first = -(-(self.cut - phase) // self.stride)
        return range(first, max(first, -(-(self.count + self.cut - phase) // self.stride)))


@dataclass(frozen=True)
class _Shape:
    rows: _Axis
    columns: _Axis
    groups: int
    inputs: int
    outputs: int
    depthwise: bool


def _shape(spec: KernelSpec) -> _Shape:
    op, source, output = spec.op, spec.inputs[0], spec.output
    assert isinstance(op, ConvTranspose2d)
    top, _, left, _ = op.pads(TensorType("f32", ("N", source.channels, source.height, source.width)))
    kernel, stride, dilation = pair(op.kernel), pair(op.stride), pair(op.dilation)
    depthwise = op.groups > 1 and op.groups == op.channels == source.channels
    return _Shape(
        _Axis(kernel[0], stride[0], dilation[0], top, source.height, output.height),
        _Axis(kernel[1], stride[1], dilation[1], left, source.width, output.width),
        1 if depthwise else op.groups,
        1 if depthwise else source.channels // op.groups,
        op.channels if depthwise else op.channels // op.groups,
        depthwise,
    )


@template("cpu", ConvTranspose2d)
class TransposedConvolution:
    """Transposed convolutions of any kernel, stride, dilation and groups."""

    name = "transposed"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[TransposedSchedule]:
        shape = _shape(spec)
        most = -(-shape.outputs // target.lanes)
        widest = max(1, -(-shape.columns.count // shape.columns.stride))
        found = {}
        for vectors in (1, 2, 3, 4, 6):
            for columns in (1, 2, 3, 4, 6, 7, 8, 12, 14):
                kept = columns if target.multiplies_by_lane else min(vectors, columns)
                fits = columns * vectors + kept + 1 <= target.registers * 7 // 8
                if shape.depthwise:
                    fits = columns * vectors <= target.registers * 3 // 8
                if vectors <= most and columns <= widest and (fits or columns * vectors == 1):
                    schedule = TransposedSchedule(columns, vectors)
                    found[schedule] = self.cost(spec, schedule, target)
        return sorted(found, key=lambda schedule: found[schedule])[:8]

    def schedule(self, fields: Mapping[str, Any]) -> TransposedSchedule:
        return TransposedSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: TransposedSchedule, target: Target) -> float:
        shape = _shape(spec)
        tiles = FeatureTiles(shape.outputs, schedule.vectors, target.lanes)
        rows = shape.rows
        row_taps = sum(len(rows.taps(phase)) * len(rows.places(phase)) for phase in range(rows.stride))
        each = 0.0
        for tile, times in ((tiles.tile, tiles.full), (tiles.last, 1)):
            if tile is None or times == 0:
                continue
            for phase in range(shape.columns.stride):
                taps, places = shape.columns.taps(phase), shape.columns.places(phase)
                whole, left = divmod(len(places), schedule.columns)
                for columns, count in ((schedule.columns, whole), (left, 1)):
                    vectors = len(tile.vectors)
                    multiplies = columns * vectors * (0.5 if target.lanes == 8 else 1.0)
                    loads = vectors * target.lanes / 16 + columns * (0.25 if target.multiplies_by_lane else 0.5)
                    if columns:
                        inner = 0.0 if not taps else shape.inputs * max(multiplies, loads, 4.0) + 6.0
                        each += times * count * (len(taps) * inner + 6.0)
        weights = shape.groups * tiles.padded * shape.inputs * rows.kernel * shape.columns.kernel
        tasks = spec.batch * rows.count * shape.groups * tiles.count
        work = spec.batch * shape.groups * row_taps * each + 2 * output_cycles(spec, target)
        return work + 4 * weights / BYTES_PER_CYCLE + traffic_cycles(spec) + 2 * CYCLES_PER_TASK * tasks

    def pack(
        self, spec: KernelSpec, schedule: TransposedSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[np.float32], ...]:
        shape = _shape(spec)
        tiles = FeatureTiles(shape.outputs, schedule.vectors, target.lanes)
        filters = weights["weight"]
        if shape.depthwise:
            filters = filters.reshape(1, shape.outputs, 1, *filters.shape[2:]).transpose(0, 1, 3, 4, 2)
        else:
            filters = filters.reshape(shape.groups, shape.inputs, shape.outputs, *filters.shape[2:])
            filters = filters.transpose(0, 2, 3, 4, 1)
        bias = weights.get("bias")
        biases = [None] * shape.groups if bias is None else list(bias.reshape(shape.groups, shape.outputs))
        return (
            np.concatenate([tiles.pack(group.reshape(shape.outputs, -1)) for group in filters]),
            np.concatenate([tiles.pack_bias(group) for group in biases]),
            *pack_steps(spec, weights, target),
        )

    def emit(self, spec: KernelSpec, schedule: TransposedSchedule, target: Target, name: str) -> Emitted:
        shape = _shape(spec)
        tiles = FeatureTiles(shape.outputs, schedule.vectors, target.lanes)
        sizes = (shape.groups, tiles.count, spec.batch, shape.rows.count)
        with kernel_function(name, spec, packed=2, target=target) as frame, T.serial(frame.begin, frame.end) as task:
            group, number, n, y = unravel(task, sizes)
            tiles.write(
                number, lambda tile: _Row(frame, shape, schedule, target, tiles, tile, group, number, n, y).write()
            )
        return Emitted(frame.function, int(np.prod(sizes)))


class _Row:
    """Writes one row of outputs, of one tile of channels."""

    def __init__(
        self,
        frame: Frame,
        shape: _Shape,
        schedule: TransposedSchedule,
        target: Target,
        tiles: FeatureTiles,
        tile: Tile,
        group: Expression,
        number: Expression,
        n: Expression,
        y: Expression,
    ) -> None:
        self.frame, self.shape, self.target, self.tile, self.n, self.y = frame, shape, target, tile, n, y
        self.columns = schedule.columns
        self.view = frame.spec.inputs[0]
        terms = shape.rows.kernel * shape.columns.kernel * shape.inputs
        first = group * tiles.padded + number * tiles.tile.width
        self.bias, self.weights = first, first * terms
        self.feature = group * shape.outputs + number * tiles.tile.width
        self.source = self.feature if shape.depthwise else group * shape.inputs
        self._row_taps()

    def _row_taps(self) -> None:
        """Finds the row's taps: `first_tap + t every`, which read input rows `last_row - t back`, t in [low, high)."""
        rows = self.shape.rows
        place = self.y + rows.cut
        phase, quotient = T.bind(T.truncmod(place, rows.stride)), T.bind(T.truncdiv(place, rows.stride))
        first = T.truncmod(T.truncdiv(phase, rows.common) * rows.inverse, rows.every) if rows.every > 1 else 0
        self.first_tap = T.bind(T.int32(0) + first)
        self.back = rows.dilation // rows.common
        self.last_row = T.bind(quotient - T.truncdiv(self.first_tap * rows.dilation - phase, rows.stride))
        # input rows from 0 to length - 1, taps below the kernel's height
        self.low = T.bind(_ceiling(self.last_row - (rows.length - 1), self.back))
        taps = T.truncdiv(rows.kernel - 1 - self.first_tap + rows.every, rows.every)
        inside = T.min(_ceiling(self.last_row + 1, self.back), taps)
        if rows.common > 1:
            inside = T.Select(T.truncmod(phase, rows.common) == 0, inside, 0)
        self.high = T.bind(T.max(inside, self.low))

    def write(self) -> None:
        columns = self.shape.columns
        for phase in range(columns.stride):
            taps, places = columns.taps(phase), columns.places(phase)
            nearest = min((distance for _, distance in taps), default=0)
            furthest = max((distance for _, distance in taps), default=0)
            first = min(max(places.start, furthest), places.stop)
            last = max(first, min(places.stop, columns.length + nearest))
            for place in (*range(places.start, first), *range(last, places.stop)):
                inside = [(tap, distance) for tap, distance in taps if 0 <= place - distance < columns.length]
                self._tile(phase, place, 1, inside)
            whole, left = divmod(last - first, self.columns)
            if whole:
                with loop(whole) as number:
                    self._tile(phase, first + number * self.columns, self.columns, taps)
            if left:
                self._tile(phase, first + whole * self.columns, left, taps)

    def _tile(self, phase: int, place: Expression, count: int, taps: Sequence[tuple[int, int]]) -> None:
        """Writes `count` outputs of a phase from q = `place` on, which read columns inside the image by these taps."""
        tile, shape = self.tile, self.shape
        sums = T.alloc_buffer((count * tile.width,), "float32", scope="local")

        def at(column: int, start: int, lanes: int) -> Expression:
            return span(column * tile.width + start, lanes)

        for start, lanes in tile.vectors:
            for column in range(count):
                T.buffer_store(sums, self.frame.packed[1][span(self.bias + start, lanes)], [at(column, start, lanes)])
        if taps:
            with T.serial(self.low, self.high) as number:
                row = self.last_row - number * self.back
                line = (self.first_tap + number * shape.rows.every) * shape.columns.kernel
                for tap, distance in taps:
                    weights = self.weights + (line + tap) * (shape.inputs * tile.width)
                    self._multiply(sums, at, row, place - distance, count, weights)
        for start, lanes in tile.stored():
            for column in range(count):
                w = (place + column) * shape.columns.stride + (phase - shape.columns.cut)
                finish(self.frame, sums[at(column, start, lanes)], self.n, self.y, w, self.feature + start)

    def _multiply(
        self, sums: Any, at: Any, row: Expression, column: Expression, count: int, weights: Expression
    ) -> None:
        """Writes the multiply-adds of all input channels through one tap."""
        tile, inputs = self.tile, self.shape.inputs
        source, packed = self.frame.inputs[0], self.frame.packed[0]
        if self.shape.depthwise:
            for start, lanes in tile.vectors:
                for number in range(count):
                    for begin, width in _exact(tile, start, lanes):
                        place = at(number, begin, width)
                        x = load(source, self.view, self.n, row, column + number, self.source + begin, width)
                        T.buffer_store(sums, sums[place] + x * packed[span(weights + begin, width)], [place])
            return
        by_lane = self.target.multiplies_by_lane and self.view.channel == 1 and inputs >= 4
        step = 4 if by_lane else 1
        whole, left = divmod(inputs, step)
        order = [(number, vector) for number in range(count) for vector in tile.vectors]
        if by_lane or len(tile.vectors) > count:
            order = [(number, vector) for vector in tile.vectors for number in range(count)]

        def write(first: Expression, channels: int) -> None:
            held = None
            if channels == 4:
                held = T.alloc_buffer((count * 4,), "float32", scope="local")
                for number in range(count):
                    start = element(self.view, self.n, row, column + number, self.source + first)
                    T.buffer_store(held, source[span(start, 4)], [span(number * 4, 4)])
            for channel in range(channels):
                for number, (start, lanes) in order:
                    if held is None:
                        x = source[element(self.view, self.n, row, column + number, self.source + first + channel)]
                    else:
                        x = held[number * 4 + channel]
                    weight = packed[span(weights + (first + channel) * tile.width + start, lanes)]
                    place = at(number, start, lanes)
                    T.buffer_store(sums, sums[place] + spread(x, lanes) * weight, [place])

        if whole:
            with loop(whole) as number:
                write(number * step, step)
        if left:
            write(whole * step, left)


def _exact(tile: Tile, start: int, lanes: int) -> list[tuple[int, int]]:
    """Returns the pieces of a vector that are real features, since depthwise loads are of real channels."""
    return [(begin, width) for begin, width in tile.stored() if start <= begin < start + lanes]


def _ceiling(value: Expression, divisor: int) -> Expression:
    """Returns ceil(value / divisor) where that is positive, else 0."""
    return T.max(0, value if divisor == 1 else T.truncdiv(value + (divisor - 1), divisor))
