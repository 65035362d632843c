"""Direct convolution on a CPU.

A tile of outputs, some positions times some vectors of channels, is accumulated in registers over the whole window:

    for tile of rows, columns and output channels:
        accumulators = bias
        for kernel row, kernel column, input channel:
            accumulators[position][vector] += input[position] (broadcast) * weight[vector]
        output = steps(accumulators)

Weights are packed so that the inner loop reads them in order. Each broadcast serves all vectors, each vector of weights
all positions, so that multiply-adds, not loads, bound the loop. Where the machine multiplies by a lane of a register,
four input channels are loaded at once and no broadcast is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tvm.tirx.script.builder as T

from gensynth.ir import pair
from gensynth.ir.ops import Conv2d

from ...targets import Target
from ..specification import Emitted, KernelSpec, Schedule, View, Weights, template
from .emitting import Frame, branch, finish, kernel_function, loop, pack_steps, pieces, span, unravel

__all__ = [
    "Broadcasts",
    "Convolution",
    "ConvolutionSchedule",
    "Vectors",
    "inner_cycles",
    "multiply_channels",
    "op_pads",
    "parts",
]

MOST_SCHEDULES = 24
TASKS = 12
"""Tasks that an image is cut into at least, if it has tiles enough, before it is cut by channels."""

UNROLLED = 160
"""The kernel's columns and few input channels are unrolled up to so many multiply-adds."""


@dataclass(frozen=True)
class ConvolutionSchedule(Schedule):
    """A tile of `rows` x `columns` outputs by `vectors` of `lanes` channels; which loop is outermost.

    With `channels_outside`, all tiles of an image are done for some channels before the next channels, so that their
    weights are read once; else all channels of some rows are done before the next rows, so that the image is.
    """

    template: ClassVar[str] = "convolution"
    rows: int
    columns: int
    vectors: int
    lanes: int
    channels_outside: bool


@dataclass(frozen=True)
class _Shape:
    """The sizes of one convolution, after rows of a 1x1 convolution that lie one after another are joined."""

    batch: int
    height: int
    width: int
    groups: int
    inputs: int
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    source: View
    start: int

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1] * self.inputs


def _joined(spec: KernelSpec) -> KernelSpec:
    """Returns the specification with the rows of a 1x1 convolution joined to one, where memory allows."""
    op = spec.op
    assert isinstance(op, Conv2d)
    views = [spec.inputs[0], spec.output, *(step.view for step in spec.steps if step.view is not None)]
    plain = pair(op.kernel) == (1, 1) and pair(op.stride) == (1, 1) and not any(op_pads(spec))
    if not plain or any(view.row != view.width * view.pixel for view in views if view.height > 1):
        return spec
    if any((view.height, view.width) != (spec.output.height, spec.output.width) for view in views[2:]):
        return spec
    return KernelSpec(
        op,
        spec.batch,
        (_one_row(spec.inputs[0]),),
        _one_row(spec.output),
        tuple(type(step)(step.op, None if step.view is None else _one_row(step.view)) for step in spec.steps),
        spec.dtype,
    )


def _one_row(view: View) -> View:
    count = view.height * view.width
    return View(view.channels, 1, count, view.image, count * view.pixel, view.pixel, dtype=view.dtype)


def op_pads(spec: KernelSpec) -> tuple[int, int, int, int]:
    """Returns the padding of a convolution or pool on its input: (top, bottom, left, right)."""
    from gensynth.ir import TensorType

    view = spec.inputs[0]
    operand = TensorType("f32", ("N", view.channels, view.height, view.width))
    return spec.op.pads(operand)  # type: ignore[attr-defined, no-any-return]


def _shape(spec: KernelSpec) -> tuple[KernelSpec, _Shape]:
    top, _, left, _ = op_pads(spec)
    spec = _joined(spec)
    op, source, output = spec.op, spec.inputs[0], spec.output
    assert isinstance(op, Conv2d)
    return spec, _Shape(
        spec.batch,
        output.height,
        output.width,
        op.groups,
        source.channels // op.groups,
        output.channels // op.groups,
        pair(op.kernel),
        pair(op.stride),
        pair(op.dilation),
        source,
        -top * source.row - left * source.pixel,
    )


def _tiles(outputs: int, schedule: ConvolutionSchedule) -> tuple[int, int]:
    """Returns (full tiles of channels in a group, vectors of the last, narrower one)."""
    full, rest = divmod(outputs, schedule.vectors * schedule.lanes)
    return full, -(-rest // schedule.lanes)


def _chunks(shape: _Shape, schedule: ConvolutionSchedule) -> int:
    """Returns into how many tasks a row of tiles is cut, so that there are enough where rows are few and long."""
    whole = shape.width // schedule.columns
    wanted = min(whole, -(-TASKS // -(-shape.height // schedule.rows)))
    return -(-whole // -(-whole // wanted)) if wanted > 1 else 1


@template("cpu", Conv2d)
class Convolution:
    """Convolutions of any kernel, stride, dilation and groups, depthwise ones aside."""

    name = "convolution"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[ConvolutionSchedule]:
        assert isinstance(spec.op, Conv2d)
        if spec.op.groups > 1 and spec.op.groups == spec.op.channels == spec.inputs[0].channels:
            return ()
        spec, shape = _shape(spec)
        found = {schedule: self._cycles(shape, schedule, target) for schedule in _candidates(shape, target)}
        return sorted(found, key=lambda item: found[item])[:MOST_SCHEDULES]

    def schedule(self, fields: Mapping[str, Any]) -> ConvolutionSchedule:
        return ConvolutionSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: ConvolutionSchedule, target: Target) -> float:
        return self._cycles(_shape(spec)[1], schedule, target)

    @staticmethod
    def _cycles(shape: _Shape, schedule: ConvolutionSchedule, target: Target) -> float:
        full, rest = _tiles(shape.outputs, schedule)
        total = 0.0
        for rows, row_count in parts(shape.height, schedule.rows):
            for columns, column_count in parts(shape.width, schedule.columns):
                for vectors, count in ((schedule.vectors, full), (rest, 1 if rest else 0)):
                    inner = inner_cycles(rows * columns, vectors, schedule.lanes, target)
                    tile = shape.taps * inner + rows * columns * vectors * 2 + 12
                    total += tile * count * row_count * column_count
        weights = 4 * shape.taps * shape.outputs * shape.groups
        image = 4 * shape.batch * shape.source.channels * shape.source.height * shape.source.width
        l2 = target.caches[1] / 2
        again = -(-shape.height // schedule.rows) * shape.batch if weights > l2 else 1
        if schedule.channels_outside:
            traffic = weights + image * (full + bool(rest) if image > l2 else 1)
        else:
            traffic = weights * again + image
        return shape.batch * shape.groups * total + traffic / 16

    def pack(
        self, spec: KernelSpec, schedule: ConvolutionSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[Any], ...]:
        spec, shape = _shape(spec)
        full, rest = _tiles(shape.outputs, schedule)
        width = schedule.vectors * schedule.lanes
        padded = full * width + rest * schedule.lanes
        filters = np.zeros((shape.groups, padded, *shape.kernel, shape.inputs), np.float32)
        filters[:, : shape.outputs] = (
            weights["weight"].reshape(shape.groups, shape.outputs, shape.inputs, *shape.kernel).transpose(0, 1, 3, 4, 2)
        )
        bias = np.zeros((shape.groups, padded), np.float32)
        if "bias" in weights:
            bias[:, : shape.outputs] = weights["bias"].reshape(shape.groups, -1)
        parts = []
        for start, stop, size in _slices(full, rest, width, schedule.lanes):
            tiles = filters[:, start:stop].reshape(shape.groups, -1, size, *shape.kernel, shape.inputs)
            parts.append(tiles.transpose(0, 1, 3, 4, 5, 2).reshape(shape.groups, -1))
        return np.concatenate(parts, axis=1).ravel(), bias.ravel(), *pack_steps(spec, weights, target)

    def emit(self, spec: KernelSpec, schedule: ConvolutionSchedule, target: Target, name: str) -> Emitted:
        spec, shape = _shape(spec)
        full, rest = _tiles(shape.outputs, schedule)
        tiles = shape.groups * (full + bool(rest))
        blocks = -(-shape.height // schedule.rows)
        chunks = _chunks(shape, schedule)
        tasks = shape.batch * blocks * chunks * tiles
        with kernel_function(name, spec, packed=2, target=target) as frame:
            writer = _Writer(frame, spec, shape, schedule, target)
            with T.serial(frame.begin, frame.end) as task:
                if schedule.channels_outside:
                    tile, image, block, chunk = unravel(task, (tiles, shape.batch, blocks, chunks))
                else:
                    image, block, chunk, tile = unravel(task, (shape.batch, blocks, chunks, tiles))
                writer.task(image, block, chunk, tile)
        return Emitted(frame.function, tasks)


def _slices(full: int, rest: int, width: int, lanes: int) -> Iterator[tuple[int, int, int]]:
    """Yields (first channel, last, channels of a tile) for the full tiles and the narrower one."""
    if full:
        yield 0, full * width, width
    if rest:
        yield full * width, full * width + rest * lanes, rest * lanes


def parts(length: int, tile: int) -> Iterator[tuple[int, int]]:
    """Yields (size, count) of the tiles that cover a length: full ones, and one of what is left."""
    if length // tile:
        yield tile, length // tile
    if length % tile:
        yield length % tile, 1


def inner_cycles(positions: int, vectors: int, lanes: int, target: Target) -> float:
    """Returns about how many cycles one input channel of a tile takes: multiply-adds, or loads where they take longer.

    The small terms stand for what was measured: tiles that are long and one vector wide, and those that leave no
    register free, do a little worse than the same work in a tile nearer to a square.
    """
    if vectors == 0 or positions == 0:
        return 0.0
    wide = lanes > 8
    multiplies = positions * vectors * (1.0 if wide or lanes == 4 else 0.55)
    if target.multiplies_by_lane:
        return max(multiplies, positions / 4 + vectors, 4.0) + 0.03 * (positions / 4 + vectors)
    loads = positions * 0.5 + vectors * (1.0 if wide else 0.5)
    crowded = positions * vectors + vectors + 1 > 0.9 * target.registers
    return max(multiplies * (1.08 if crowded else 1.0), loads, 4.0) + 0.03 * (positions + vectors)


def _candidates(shape: _Shape, target: Target) -> Iterator[ConvolutionSchedule]:
    """Yields the tiles that fit into the registers."""
    widths = [lanes for lanes in (16, 8, 4) if lanes <= target.lanes]
    narrow = [lanes for lanes in widths if lanes < 2 * shape.outputs] or widths[-1:]
    sides = sorted({*range(1, min(16, shape.width) + 1), *(shape.width // n for n in (2, 3, 4))} - {0})
    for lanes in narrow[:2]:
        for vectors in (1, 2, 3, 4, 6):
            if vectors > 1 and (vectors - 1) * lanes >= shape.outputs:
                break
            for columns in sides:
                for rows in (1, 2, 4) if columns == shape.width else (1,):
                    positions = rows * columns
                    inputs = positions if target.multiplies_by_lane else 1
                    if rows > shape.height or positions * vectors + vectors + inputs > target.registers:
                        continue
                    for outside in (False, True):
                        yield ConvolutionSchedule(rows, columns, vectors, lanes, outside)


@dataclass(frozen=True)
class Broadcasts:
    """What a tile multiplies by single elements: for each position an offset from `base`; channels lie side by side."""

    buffer: Any
    base: Any
    offsets: Sequence[int]


@dataclass(frozen=True)
class Vectors:
    """What a tile multiplies by vectors: for each channel, so many vectors in a row, from `base` on."""

    buffer: Any
    base: Any
    count: int
    lanes: int

    @property
    def width(self) -> int:
        return self.count * self.lanes


def multiply_channels(
    accumulators: Any, left: Broadcasts, right: Vectors, channels: int, *, by_lane: bool, unroll: bool = False
) -> None:
    """Writes accumulators[position][vector] += sum over channels of left[position][channel] right[channel][vector]."""
    step = 4 if by_lane else 1
    whole, rest = divmod(channels, step)
    if unroll or whole == 1:
        for number in range(whole):
            _multiply(accumulators, left, right, number * step, step, step)
    elif whole:
        with T.serial(0, whole) as number:
            _multiply(accumulators, left, right, number * step, step, step)
    if rest:
        _multiply(accumulators, left, right, whole * step, rest, step)


def _multiply(accumulators: Any, left: Broadcasts, right: Vectors, first: Any, channels: int, step: int) -> None:
    """Writes the multiply-adds of `channels` channels from `first` on; `step` are loaded at once."""
    lanes, held = right.lanes, None
    if step > 1:
        held = T.alloc_buffer((len(left.offsets) * step,), "float32", scope="local")
        for position, offset in enumerate(left.offsets):
            value = left.buffer[span(left.base + offset + first, step)]
            T.buffer_store(held, value, [span(position * step, step)])
    for channel in range(channels):
        start = right.base + (first + channel) * right.width
        weights = [right.buffer[span(start + vector * lanes, lanes)] for vector in range(right.count)]
        for position, offset in enumerate(left.offsets):
            if held is None:
                scalar = left.buffer[left.base + offset + first + channel]
            else:
                scalar = held[position * step + channel]
            for vector, weight in enumerate(weights):
                place = span(position * right.width + vector * lanes, lanes)
                T.buffer_store(accumulators, accumulators[place] + T.Broadcast(scalar, lanes) * weight, [place])


class _Writer:
    """Writes the tiles of one kernel, each with the sizes that it has at its place."""

    def __init__(
        self, frame: Frame, spec: KernelSpec, shape: _Shape, schedule: ConvolutionSchedule, target: Target
    ) -> None:
        self.frame, self.spec, self.shape, self.schedule, self.target = frame, spec, shape, schedule, target
        self.full, self.rest = _tiles(shape.outputs, schedule)

    def task(self, image: Any, block: Any, chunk: Any, tile: Any) -> None:
        """Writes the tiles of one block of rows, one chunk of its columns and one tile of channels."""
        count = self.full + bool(self.rest)
        group, tile = unravel(tile, (self.shape.groups, count))
        whole, left = divmod(self.shape.height, self.schedule.rows)

        def with_rows(rows: int) -> None:
            branch(
                tile,
                (self.full, lambda: self._columns(image, block, chunk, group, tile, rows, False)),
                (bool(self.rest), lambda: self._columns(image, block, chunk, group, tile, rows, True)),
            )

        branch(block, (whole, lambda: with_rows(self.schedule.rows)), (bool(left), lambda: with_rows(left)))

    def _columns(self, image: Any, block: Any, chunk: Any, group: Any, tile: Any, rows: int, last: bool) -> None:
        vectors = self.rest if last else self.schedule.vectors
        columns = self.schedule.columns
        whole, left = divmod(self.shape.width, columns)
        row = block * self.schedule.rows
        chunks = _chunks(self.shape, self.schedule)
        each = -(-whole // chunks)

        def full_tiles(number: Any) -> None:
            self._tile(image, row, number * columns, group, tile, rows, columns, vectors, last)

        def narrow_tile() -> None:
            self._tile(image, row, whole * columns, group, tile, rows, left, vectors, last)

        if chunks == 1:
            if whole:
                with loop(whole) as number:
                    full_tiles(number)
            if left:
                narrow_tile()
            return
        with T.serial(chunk * each, T.min((chunk + 1) * each, whole)) as number:
            full_tiles(number)
        if left:
            with T.If(chunk == chunks - 1), T.Then():
                narrow_tile()

    def _tile(
        self,
        image: Any,
        row: Any,
        column: Any,
        group: Any,
        tile: Any,
        rows: int,
        columns: int,
        vectors: int,
        last: bool,
    ) -> None:
        shape, lanes = self.shape, self.schedule.lanes
        width = vectors * lanes
        positions = [(y, x) for y in range(rows) for x in range(columns)]
        bias = self.frame.packed[1]
        channel = tile * (self.schedule.vectors * lanes)
        padded = self.full * self.schedule.vectors * lanes + self.rest * lanes
        first = (group * padded + channel) * shape.taps
        accumulators = T.alloc_buffer((len(positions) * width,), "float32", scope="local")
        for vector in range(vectors):
            start = bias[T.Ramp(group * padded + channel + vector * lanes, 1, lanes)]
            for position in range(len(positions)):
                T.buffer_store(accumulators, start, [T.Ramp(position * width + vector * lanes, 1, lanes)])
        view = shape.source
        origin = (
            image * view.image
            + shape.start
            + row * (shape.stride[0] * view.row)
            + column * (shape.stride[1] * view.pixel)
            + group * shape.inputs
        )
        offsets = [y * shape.stride[0] * view.row + x * shape.stride[1] * view.pixel for y, x in positions]
        self._window(accumulators, origin, offsets, first, width, vectors)
        start_channel = group * shape.outputs + channel
        valid = shape.outputs - self.full * self.schedule.vectors * lanes if last else width
        for position, (y, x) in enumerate(positions):
            for begin, size in pieces(valid, lanes):
                value = accumulators[span(position * width + begin, size)]
                finish(self.frame, value, image, row + y, column + x, start_channel + begin)

    def _window(self, accumulators: Any, origin: Any, offsets: list[int], first: Any, width: int, vectors: int) -> None:
        """Writes the sum over the window."""
        shape, view = self.shape, self.shape.source
        work = len(offsets) * vectors
        by_lane = self.target.multiplies_by_lane and shape.inputs > 1
        few = shape.inputs * work <= UNROLLED and shape.inputs <= 4
        unroll_columns = not self.target.multiplies_by_lane and (few or shape.kernel[1] * work <= UNROLLED * 2)
        columns = T.unroll if unroll_columns else T.serial
        with T.serial(0, shape.kernel[0]) as u, columns(0, shape.kernel[1]) as v:
            base = origin + u * (shape.dilation[0] * view.row) + v * (shape.dilation[1] * view.pixel)
            taps = first + (u * shape.kernel[1] + v) * (shape.inputs * width)
            multiply_channels(
                accumulators,
                Broadcasts(self.frame.inputs[0], base, offsets),
                Vectors(self.frame.packed[0], taps, vectors, self.schedule.lanes),
                shape.inputs,
                by_lane=by_lane,
                unroll=few,
            )
