"""Resizing on a CPU: by the nearest element, or bilinear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tvm.tirx.script.builder as T

from gensynth.ir.ops import Resize

from ...targets import Target
from ..specification import Emitted, KernelSpec, Schedule, Weights, template
from .arithmetic import spread
from .costs import CYCLES_PER_TASK, output_cycles, traffic_cycles
from .emitting import Frame, finish, kernel_function, load, loop, over_channels, pack_steps, pieces, unravel

__all__ = ["Resizing", "ResizingSchedule"]

Expression = Any


@dataclass(frozen=True)
class ResizingSchedule(Schedule):
    """`vectors` vectors of channels are made in a turn of the inner loop."""

    template: ClassVar[str] = "resize"
    vectors: int


def _positions(length: int, size: int, align_corners: bool) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Returns, for each output along an axis, the elements below and above [size, 2] and the share of that above."""
    index = np.arange(size)
    if align_corners:
        at = index * ((length - 1) / max(1, size - 1))
    else:
        at = np.clip((index + 0.5) * length / size - 0.5, 0.0, length - 1)
    low = np.minimum(at.astype(np.int64), length - 1)
    high = np.minimum(low + 1, length - 1)
    return np.stack([low, high], axis=1).astype(np.int32), (at - low).astype(np.float32)


@template("cpu", Resize)
class Resizing:
    """Resizing; a task is a row of outputs."""

    name = "resize"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[ResizingSchedule]:
        return [ResizingSchedule(vectors) for vectors in (2, 1, 4)]

    def schedule(self, fields: Mapping[str, Any]) -> ResizingSchedule:
        return ResizingSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: ResizingSchedule, target: Target) -> float:
        assert isinstance(spec.op, Resize)
        each = 1.5 if spec.op.mode == "nearest" else 5.0
        tasks = spec.batch * spec.output.height
        return each * output_cycles(spec, target) + traffic_cycles(spec) + CYCLES_PER_TASK * tasks

    def pack(
        self, spec: KernelSpec, schedule: ResizingSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[Any], ...]:
        op, source, output = spec.op, spec.inputs[0], spec.output
        assert isinstance(op, Resize)
        steps = pack_steps(spec, weights, target)
        if op.mode == "nearest":
            return steps
        rows = _positions(source.height, output.height, op.align_corners)
        columns = _positions(source.width, output.width, op.align_corners)
        return rows[0].ravel(), rows[1], columns[0].ravel(), columns[1], *steps

    def emit(self, spec: KernelSpec, schedule: ResizingSchedule, target: Target, name: str) -> Emitted:
        op, output = spec.op, spec.output
        assert isinstance(op, Resize)
        nearest = op.mode == "nearest"
        packed = () if nearest else ("int32", "float32", "int32", "float32")
        with kernel_function(name, spec, packed, target) as frame, T.serial(frame.begin, frame.end) as task:
            n, h = unravel(task, (spec.batch, output.height))
            (_nearest if nearest else _bilinear)(frame, schedule, target, n, h)
        return Emitted(frame.function, spec.batch * output.height)


def _nearest(frame: Frame, schedule: ResizingSchedule, target: Target, n: Expression, h: Expression) -> None:
    source, output = frame.spec.inputs[0], frame.spec.output
    row = T.bind(T.truncdiv(h * source.height, output.height))
    # where every input column becomes as many outputs, it is read once
    repeated, rest = divmod(output.width, source.width)
    if rest:
        repeated = 1
    with loop(output.width // repeated) as number:
        column = number if not rest else T.bind(T.truncdiv(number * source.width, output.width))

        def channels(c: Expression, width: int) -> None:
            for begin, lanes in pieces(width, target.lanes):
                value = T.bind(load(frame.inputs[0], source, n, row, column, c + begin, lanes))
                for copy in range(repeated):
                    finish(frame, value, n, h, number * repeated + copy, c + begin)

        over_channels(output.channels, target.lanes, channels, schedule.vectors)


def _bilinear(frame: Frame, schedule: ResizingSchedule, target: Target, n: Expression, h: Expression) -> None:
    source, output = frame.spec.inputs[0], frame.spec.output
    rows, row_shares, columns, column_shares = frame.packed
    top, bottom, down = T.bind(rows[h * 2]), T.bind(rows[h * 2 + 1]), T.bind(row_shares[h])
    with loop(output.width) as w:
        left, right, along = T.bind(columns[w * 2]), T.bind(columns[w * 2 + 1]), T.bind(column_shares[w])

        def channels(c: Expression, width: int) -> None:
            for begin, lanes in pieces(width, target.lanes):

                def at(row: Expression, column: Expression) -> Expression:
                    return T.bind(load(frame.inputs[0], source, n, row, column, c + begin, lanes))  # noqa: B023

                def between(low: Expression, high: Expression, share: Expression) -> Expression:
                    return T.bind(low + (high - low) * spread(share, lanes))  # noqa: B023

                west = between(at(top, left), at(bottom, left), down)
                east = between(at(top, right), at(bottom, right), down)
                finish(frame, between(west, east, along), n, h, w, c + begin)

        over_channels(output.channels, target.lanes, channels, schedule.vectors)
