"""Chains of pointwise ops, and copies from any order of elements in memory to any other, on a CPU.

Loops over elements that lie alike in all arrays are joined first, up to one loop over everything. Where channels lie
one after another on both sides, vectors run over channels; where one side is planar (NCHW, as callers have it) and the
other channels last, blocks are transposed in registers; else elements are gathered and scattered one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tvm.tirx.script.builder as T

from gensynth.ir.ops import BatchNorm, Identity

from ...targets import Target
from ..specification import Emitted, KernelSpec, Schedule, Step, View, Weights, template
from .costs import CYCLES_PER_TASK, output_cycles, traffic_cycles
from .emitting import (
    Frame,
    branch,
    element,
    finish,
    kernel_function,
    load,
    over_channels,
    pack_steps,
    pieces,
    span,
    unravel,
)

__all__ = ["Pointwise", "PointwiseSchedule", "joined_rows", "transposed"]

Expression = Any

INTERLEAVED = 4
"""Up to so many channels, a whole vector of pixels is put in order at once."""


@dataclass(frozen=True)
class PointwiseSchedule(Schedule):
    """About how many `elements` a task has, and how many vectors a turn of the inner loop."""

    template: ClassVar[str] = "pointwise"
    elements: int
    vectors: int


def _views(spec: KernelSpec) -> list[View]:
    return [*spec.inputs, spec.output, *(step.view for step in spec.steps if step.view is not None)]


def _mapped(spec: KernelSpec, change: Any) -> KernelSpec:
    """Returns the specification with every view changed."""
    steps = tuple(Step(step.op, None if step.view is None else change(step.view)) for step in spec.steps)
    return replace(spec, inputs=tuple(change(view) for view in spec.inputs), output=change(spec.output), steps=steps)


def _usual(view: View) -> View:
    """Returns the view with the strides of axes of one element as if their neighbours lay one after another."""
    channel = 1 if view.channels == 1 else view.channel
    pixel, row = view.pixel, view.row
    if view.width == 1:
        pixel = view.row if view.height > 1 else view.channels * channel
    if view.height == 1:
        row = view.width * pixel
    return replace(view, channel=channel, pixel=pixel, row=row, halo=(0, 0, 0, 0))


def joined_rows(spec: KernelSpec) -> KernelSpec:
    """Returns the specification with all rows joined to one, where that is so in memory of every view."""
    height, width = spec.output.height, spec.output.width

    def broadcast(view: View) -> bool:
        return (view.height, view.width) == (1, 1)

    for view in _views(spec):
        whole = (view.height, view.width) == (height, width) and view.row == width * view.pixel
        if not whole and not (broadcast(view) and view is not spec.output):
            return spec
    if height == 1:
        return spec
    return _mapped(
        spec,
        lambda view: (
            view if broadcast(view) else replace(view, height=1, width=height * width, row=height * width * view.pixel)
        ),
    )


def _joined(spec: KernelSpec) -> KernelSpec:
    """Returns the specification with rows, then pixels, then images joined, as far as memory and steps allow."""
    spec = joined_rows(_mapped(spec, _usual))
    output, views = spec.output, _views(spec)
    alike = all(
        (view.channels, view.height, view.width) == (output.channels, 1, output.width)
        and (view.channel, view.pixel) == (1, view.channels)
        for view in views
    )
    if not alike or any(isinstance(step.op, BatchNorm) for step in spec.steps):
        return spec
    count, batch = output.width * output.channels, spec.batch
    if all(view.image == count for view in views):
        count, batch = count * batch, 1
    spec = _mapped(spec, lambda view: View(count, 1, 1, view.image, count, count))
    return replace(spec, batch=batch)


def _swapped(view: View) -> View:
    """Returns the view with its width as channels."""
    return _usual(
        replace(view, channels=view.width, channel=view.pixel, width=view.channels, pixel=view.channel, row=view.row)
    )


def _form(spec: KernelSpec) -> tuple[str, KernelSpec]:
    """Returns how the elements are to be moved, and the joined specification.

    `vectors` over channels, `to_channels_last`, `to_planar`, or `strided`, element by element.
    """
    spec = _joined(spec)
    source, output = spec.inputs[0], spec.output
    if output.channel == 1 and source.channel in (0, 1):
        return "vectors", spec
    if not spec.steps:
        if source.pixel == 1 and output.pixel == 1:
            return "vectors", _joined(_mapped(spec, _swapped))
        if source.pixel == 1 and output.channel == 1:
            return "to_channels_last", spec
        if source.channel == 1 and output.pixel == 1:
            return "to_planar", spec
    return "strided", spec


@template("cpu", Identity)
class Pointwise:
    """Pointwise ops after one another, and copies."""

    name = "pointwise"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[PointwiseSchedule]:
        return [
            PointwiseSchedule(elements, vectors)
            for elements, vectors in ((4096, 4), (4096, 2), (4096, 1), (1024, 4), (1024, 1), (16384, 4))
        ]

    def schedule(self, fields: Mapping[str, Any]) -> PointwiseSchedule:
        return PointwiseSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: PointwiseSchedule, target: Target) -> float:
        form, spec = _form(spec)
        output = spec.output
        elements = spec.batch * output.channels * output.height * output.width
        if form == "strided":
            work = elements * 1.5 + output_cycles(spec, target)
        elif form == "vectors":
            work = output_cycles(spec, target) * (1.0 + 0.5 / schedule.vectors)
        else:
            work = elements / min(target.lanes, 8) * 4.0
        return work + traffic_cycles(spec) + CYCLES_PER_TASK * (1 + elements / schedule.elements)

    def pack(
        self, spec: KernelSpec, schedule: PointwiseSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[np.float32], ...]:
        return pack_steps(spec, weights, target)

    def emit(self, spec: KernelSpec, schedule: PointwiseSchedule, target: Target, name: str) -> Emitted:
        form, spec = _form(spec)
        output = spec.output
        pixels = max(1, min(output.width, schedule.elements // output.channels))
        if form.startswith("to_"):
            pixels = min(output.width, -(-pixels // target.lanes) * target.lanes)
        channels = output.channels
        if pixels == 1 and form == "vectors" and channels > schedule.elements:
            channels = -(-schedule.elements // target.lanes) * target.lanes
        runs, blocks = -(-output.width // pixels), -(-output.channels // channels)
        with kernel_function(name, spec, target=target) as frame, T.serial(frame.begin, frame.end) as task:
            n, h, run, block = unravel(task, (spec.batch, output.height, runs, blocks))
            whole, left = divmod(output.width, pixels)

            def write(count: int) -> None:
                start = run * pixels
                if form == "to_channels_last":
                    _transpose(frame, n, h, start, count, target, planar_source=True)
                elif form == "to_planar":
                    _transpose(frame, n, h, start, count, target, planar_source=False)
                else:
                    _run(frame, n, h, start, count, block, channels, schedule, target)

            branch(run, (whole, lambda: write(pixels)), (bool(left), lambda: write(left)))
        return Emitted(frame.function, spec.batch * output.height * runs * blocks)


def _run(
    frame: Frame,
    n: Expression,
    h: Expression,
    start: Expression,
    pixels: int,
    block: Expression,
    channels: int,
    schedule: PointwiseSchedule,
    target: Target,
) -> None:
    """Writes some pixels of a row, vectors running over some of the channels."""
    source = frame.spec.inputs[0]
    whole, left = divmod(frame.spec.output.channels, channels)

    def write(count: int) -> None:
        with T.serial(0, pixels) as number:
            w = start + number

            def vectors(c: Expression, width: int) -> None:
                for begin, lanes in pieces(width, target.lanes):
                    at = block * channels + c + begin
                    finish(frame, load(frame.inputs[0], source, n, h, w, at, lanes), n, h, w, at)

            over_channels(count, target.lanes, vectors, schedule.vectors)

    branch(block, (whole, lambda: write(channels)), (bool(left), lambda: write(left)))


def transposed(rows: Sequence[Expression], width: int) -> list[Expression]:
    """Returns the columns of a block in registers: of k vectors of `width` lanes, `width` vectors of k lanes."""
    count = len(rows)
    if count == 1:
        return [rows[0]] if width == 1 else [T.Shuffle([rows[0]], [T.int32(lane)]) for lane in range(width)]
    if width == 1:
        return [T.Shuffle(list(rows), [T.int32(row) for row in range(count)])]
    if count != width:
        return [T.Shuffle(list(rows), [T.int32(row * width + lane) for row in range(count)]) for lane in range(width)]
    # of a square block, log2(width) rounds of interleaving halves
    low = [T.int32(lane // 2 + width * (lane % 2)) for lane in range(width)]
    high = [T.int32(width // 2 + lane // 2 + width * (lane % 2)) for lane in range(width)]
    block = list(rows)
    for _ in range(width.bit_length() - 1):
        block = [
            T.bind(T.Shuffle([block[row], block[row + width // 2]], lanes))
            for row in range(width // 2)
            for lanes in (low, high)
        ]
    return block


def _transpose(
    frame: Frame, n: Expression, h: Expression, start: Expression, pixels: int, target: Target, *, planar_source: bool
) -> None:
    """Copies some pixels of a row from planar to channels last, or back."""
    source, output = frame.spec.inputs[0], frame.spec.output
    channels = output.channels
    packed = output if planar_source else source
    if channels <= INTERLEAVED and packed.pixel == channels:
        over_channels(pixels, target.lanes, lambda w, width: _interleave(frame, n, h, start + w, width, planar_source))
        return
    tile = min(target.lanes, 8)

    def block(c: Expression, count: int) -> None:
        def move(w: Expression, width: int) -> None:
            column = start + w
            if planar_source:
                lines = [
                    T.bind(frame.inputs[0][span(element(source, n, h, column, c + row), width)]) for row in range(count)
                ]
                for pixel, value in enumerate(transposed(lines, width)):
                    T.buffer_store(frame.output, value, [span(element(output, n, h, column + pixel, c), count)])
            else:
                lines = [
                    T.bind(frame.inputs[0][span(element(source, n, h, column + pixel, c), count)])
                    for pixel in range(width)
                ]
                for row, value in enumerate(transposed(lines, count)):
                    T.buffer_store(frame.output, value, [span(element(output, n, h, column, c + row), width)])

        over_channels(pixels, tile, move)

    over_channels(channels, tile, block)


def _interleave(frame: Frame, n: Expression, h: Expression, w: Expression, width: int, planar_source: bool) -> None:
    """Copies `width` pixels of few channels, which on one side lie one after another."""
    source, output = frame.spec.inputs[0], frame.spec.output
    channels, buffer = output.channels, frame.inputs[0]
    if planar_source:
        planes = [buffer[span(element(source, n, h, w, c), width)] for c in range(channels)]
        order = [T.int32(c * width + pixel) for pixel in range(width) for c in range(channels)]
        T.buffer_store(frame.output, T.Shuffle(planes, order), [span(element(output, n, h, w), width * channels)])
        return
    pixels = T.bind(buffer[span(element(source, n, h, w), width * channels)])
    for c in range(channels):
        plane = T.Shuffle([pixels], [T.int32(pixel * channels + c) for pixel in range(width)])
        T.buffer_store(frame.output, plane, [span(element(output, n, h, w, c), width)])
