"""Depthwise convolution on a CPU: vectors run over channels, a tile of positions shares what it loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tvm.tirx.script.builder as T

from gensynth.ir import pair
from gensynth.ir.ops import Conv2d

from ...targets import Target
from ..specification import Emitted, KernelSpec, Schedule, Weights, template
from .convolution import op_pads, parts
from .emitting import Frame, branch, finish, kernel_function, loop, pack_steps, pieces, span, unravel

__all__ = ["Depthwise", "DepthwiseSchedule"]

UNROLLED_TAPS = 9
"""Kernels of so many taps at most are unrolled whole, larger ones a row at a time."""


@dataclass(frozen=True)
class DepthwiseSchedule(Schedule):
    """A tile of `rows` x `columns` outputs of `lanes` channels."""

    template: ClassVar[str] = "depthwise"
    rows: int
    columns: int
    lanes: int


@template("cpu", Conv2d)
class Depthwise:
    """Convolutions with one filter for each channel.

    for tile of rows and columns, vector of channels:
        accumulators = bias
        for kernel row, kernel column:  (unrolled where the kernel is small)
            accumulators[position] += input[position] * weight
        output = steps(accumulators)
    """

    name = "depthwise"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[DepthwiseSchedule]:
        op = spec.op
        assert isinstance(op, Conv2d)
        if not (op.groups == op.channels == spec.inputs[0].channels) or op.groups == 1:
            return ()
        height, width = spec.output.height, spec.output.width
        found = [
            DepthwiseSchedule(rows, columns, lanes)
            for lanes in (16, 8, 4)
            if lanes <= target.lanes and (lanes < 2 * op.channels or lanes == 4)
            for rows in (1, 2, 3, 4)
            if rows <= height
            for columns in range(1, min(8, width) + 1)
            if rows * columns <= target.registers * 3 // 8
        ]
        return sorted(found, key=lambda item: self.cost(spec, item, target))[:20]

    def schedule(self, fields: Mapping[str, Any]) -> DepthwiseSchedule:
        return DepthwiseSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: DepthwiseSchedule, target: Target) -> float:
        op, out = spec.op, spec.output
        assert isinstance(op, Conv2d)
        kernel, stride, dilation = pair(op.kernel), pair(op.stride), pair(op.dilation)
        rate = 1.0 if schedule.lanes in (16, 4) else 0.5
        total = 0.0
        for rows, row_count in parts(out.height, schedule.rows):
            for columns, column_count in parts(out.width, schedule.columns):
                seen = ((rows - 1) * stride[0] + dilation[0] * (kernel[0] - 1) + 1) * (
                    (columns - 1) * stride[1] + dilation[1] * (kernel[1] - 1) + 1
                )
                loads = min(seen, rows * columns * kernel[0] * kernel[1]) + kernel[0] * kernel[1]
                multiplies = rows * columns * kernel[0] * kernel[1]
                tile = max(loads, multiplies, 4.0 * kernel[0] * kernel[1] / 2) * rate + rows * columns * 2 + 10
                total += tile * row_count * column_count
        return spec.batch * total * -(-op.channels // schedule.lanes)

    def pack(
        self, spec: KernelSpec, schedule: DepthwiseSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[Any], ...]:
        op = spec.op
        assert isinstance(op, Conv2d)
        lanes = schedule.lanes
        padded = -(-op.channels // lanes) * lanes
        taps = pair(op.kernel)[0] * pair(op.kernel)[1]
        filters = np.zeros((padded, taps), np.float32)
        filters[: op.channels] = weights["weight"].reshape(op.channels, taps)
        bias = np.zeros(padded, np.float32)
        if "bias" in weights:
            bias[: op.channels] = weights["bias"]
        packed = filters.reshape(-1, lanes, taps).transpose(0, 2, 1).ravel()
        return np.ascontiguousarray(packed), bias, *pack_steps(spec, weights, target)

    def emit(self, spec: KernelSpec, schedule: DepthwiseSchedule, target: Target, name: str) -> Emitted:
        op, out = spec.op, spec.output
        assert isinstance(op, Conv2d)
        full, rest = divmod(op.channels, schedule.lanes)
        blocks = -(-out.height // schedule.rows)
        with kernel_function(name, spec, packed=2, target=target) as frame, T.serial(frame.begin, frame.end) as task:
            image, block = unravel(task, (spec.batch, blocks))
            whole, left = divmod(out.height, schedule.rows)
            writer = _Writer(frame, spec, op, schedule, image)

            def with_rows(rows: int) -> None:
                if full:
                    with loop(full) as vector:
                        writer.columns(block, vector, rows, schedule.lanes)
                if rest:
                    writer.columns(block, full, rows, rest)

            branch(block, (whole, lambda: with_rows(schedule.rows)), (bool(left), lambda: with_rows(left)))
        return Emitted(frame.function, spec.batch * blocks)


class _Writer:
    """Writes the tiles of one image."""

    def __init__(self, frame: Frame, spec: KernelSpec, op: Conv2d, schedule: DepthwiseSchedule, image: Any) -> None:
        self.frame, self.spec, self.op, self.schedule, self.image = frame, spec, op, schedule, image

    def columns(self, block: Any, vector: Any, rows: int, channels: int) -> None:
        """Writes a block of rows for one vector of channels, of which `channels` are there."""
        whole, left = divmod(self.spec.output.width, self.schedule.columns)
        row = block * self.schedule.rows
        if whole:
            with loop(whole) as number:
                self._tile(row, number * self.schedule.columns, vector, rows, self.schedule.columns, channels)
        if left:
            self._tile(row, whole * self.schedule.columns, vector, rows, left, channels)

    def _tile(self, row: Any, column: Any, vector: Any, rows: int, columns: int, channels: int) -> None:
        source, lanes = self.spec.inputs[0], self.schedule.lanes
        kernel, stride, dilation = pair(self.op.kernel), pair(self.op.stride), pair(self.op.dilation)
        top, _, left, _ = op_pads(self.spec)
        taps = kernel[0] * kernel[1]
        positions = [(y, x) for y in range(rows) for x in range(columns)]
        filters, bias = self.frame.packed[:2]
        accumulators = T.alloc_buffer((len(positions) * lanes,), "float32", scope="local")
        for position in range(len(positions)):
            T.buffer_store(accumulators, bias[span(vector * lanes, lanes)], [span(position * lanes, lanes)])
        origin = (
            self.image * source.image
            + (row * stride[0] - top) * source.row
            + (column * stride[1] - left) * source.pixel
            + vector * lanes
        )

        def multiply(u: Any, v: Any) -> None:
            weight = filters[span((vector * taps + u * kernel[1] + v) * lanes, lanes)]
            base = origin + u * (dilation[0] * source.row) + v * (dilation[1] * source.pixel)
            for position, (y, x) in enumerate(positions):
                offset = y * stride[0] * source.row + x * stride[1] * source.pixel
                place = span(position * lanes, lanes)
                value = self.frame.inputs[0][span(base + offset, lanes)]
                T.buffer_store(accumulators, accumulators[place] + value * weight, [place])

        with (T.unroll if taps <= UNROLLED_TAPS else T.serial)(0, kernel[0]) as u:
            for v in range(kernel[1]):
                multiply(u, v)
        for position, (y, x) in enumerate(positions):
            for begin, size in pieces(channels, lanes):
                value = accumulators[span(position * lanes + begin, size)]
                finish(self.frame, value, self.image, row + y, column + x, vector * lanes + begin)
