"""Softmax and local response normalization on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tvm.tirx.script.builder as T

from gensynth.ir import UsageError
from gensynth.ir.ops import LocalResponseNorm, Softmax

from ...targets import Target
from ..specification import Emitted, KernelSpec, Schedule, View, Weights, template
from .arithmetic import constant, exponential, lanes_of, largest, power, spread
from .costs import CYCLES_PER_TASK, output_cycles, traffic_cycles, vectors_of
from .emitting import (
    Frame,
    element,
    finish,
    kernel_function,
    load,
    loop,
    over_channels,
    pack_steps,
    padded,
    span,
    store,
    unravel,
)

__all__ = ["ResponseNorm", "ResponseNormSchedule", "SoftmaxKernel", "SoftmaxSchedule"]

Expression = Any

LOWEST = -3.4e38


@dataclass(frozen=True)
class SoftmaxSchedule(Schedule):
    """Vectors run over the channels, or, with `over_pixels`, over pixels side by side."""

    template: ClassVar[str] = "softmax"
    over_pixels: bool


@template("cpu", Softmax)
class SoftmaxKernel:
    """Softmax over the channels of the views, whichever axis they are of; a task is a row."""

    name = "softmax"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[SoftmaxSchedule]:
        assert isinstance(spec.op, Softmax)
        if spec.op.axis != 1:
            raise UsageError(
                f"a softmax kernel runs over channels, not axis {spec.op.axis}",
                hint="give it views with that axis as channels",
            )
        source, output = spec.inputs[0], spec.output
        planar = source.pixel == 1 and output.pixel == 1 and output.width > 1
        if planar and not spec.steps and (source.channel, output.channel) != (1, 1):
            return [SoftmaxSchedule(True), SoftmaxSchedule(False)]
        return [SoftmaxSchedule(False)]

    def schedule(self, fields: Mapping[str, Any]) -> SoftmaxSchedule:
        return SoftmaxSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: SoftmaxSchedule, target: Target) -> float:
        output = spec.output
        rows = spec.batch * output.height
        if schedule.over_pixels:
            vectors = rows * output.channels * vectors_of(output.width, target.lanes)
        else:
            vectors = rows * output.width * (vectors_of(output.channels, target.lanes) + 2)
        return vectors * 14.0 + output_cycles(spec, target) + 2 * traffic_cycles(spec) + CYCLES_PER_TASK * rows

    def pack(
        self, spec: KernelSpec, schedule: SoftmaxSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[np.float32], ...]:
        return pack_steps(spec, weights, target)

    def emit(self, spec: KernelSpec, schedule: SoftmaxSchedule, target: Target, name: str) -> Emitted:
        output = spec.output
        with kernel_function(name, spec, target=target) as frame, T.serial(frame.begin, frame.end) as task:
            n, h = unravel(task, (spec.batch, output.height))
            if schedule.over_pixels:
                over_channels(output.width, target.lanes, lambda w, lanes: _planar(frame, n, h, w, lanes))
            else:
                with loop(output.width) as w:
                    _one_pixel(frame, target, n, h, w)
        return Emitted(frame.function, spec.batch * output.height)


def _planar(frame: Frame, n: Expression, h: Expression, w: Expression, lanes: int) -> None:
    """Writes `lanes` pixels side by side, which lie one after another on both sides."""
    source, output = frame.spec.inputs[0], frame.spec.output
    everything = span(0, lanes)
    most = T.alloc_buffer((lanes,), "float32", scope="local")
    total = T.alloc_buffer((lanes,), "float32", scope="local")
    T.buffer_store(most, constant(LOWEST, lanes), [everything])
    T.buffer_store(total, constant(0.0, lanes), [everything])

    def place(view: View, c: Expression) -> Expression:
        return span(element(view, n, h, w, c), lanes)

    with loop(output.channels) as c:
        x = frame.inputs[0][place(source, c)]
        T.buffer_store(most, largest(most[everything], x, frame.target), [everything])
    with loop(output.channels) as c:
        y = T.bind(exponential(frame.inputs[0][place(source, c)] - most[everything]))
        T.buffer_store(frame.output, y, [place(output, c)])
        T.buffer_store(total, total[everything] + y, [everything])
    share = T.bind(constant(1.0, lanes) / total[everything])
    with loop(output.channels) as c:
        T.buffer_store(frame.output, frame.output[place(output, c)] * share, [place(output, c)])


def _one_pixel(frame: Frame, target: Target, n: Expression, h: Expression, w: Expression) -> None:
    source, output = frame.spec.inputs[0], frame.spec.output

    def read(c: Expression, lanes: int) -> Expression:
        return load(frame.inputs[0], source, n, h, w, c, lanes)

    most = _reduced(output.channels, target, LOWEST, read, lambda a, b: largest(a, b, frame.target))

    def powers(c: Expression, lanes: int) -> Expression:
        y = T.bind(exponential(read(c, lanes) - spread(most, lanes)))
        store(frame, y, n, h, w, c)
        return y

    total = _reduced(output.channels, target, 0.0, powers, lambda a, b: a + b)
    share = T.bind(T.float32(1.0) / total)

    def scale(c: Expression, width: int) -> None:
        y = load(frame.output, output, n, h, w, c, width)
        finish(frame, y * spread(share, width), n, h, w, c)

    over_channels(output.channels, target.lanes, scale)


def _reduced(
    channels: int,
    target: Target,
    start: float,
    read: Callable[[Expression, int], Expression],
    combine: Callable[[Expression, Expression], Expression],
) -> Expression:
    """Returns what all channels' values combine to."""
    lanes = min(target.lanes, 1 << (channels.bit_length() - 1))
    everything = span(0, lanes)
    held = T.alloc_buffer((lanes,), "float32", scope="local")
    rest = T.alloc_buffer((1,), "float32", scope="local")
    T.buffer_store(held, constant(start, lanes), [everything])
    T.buffer_store(rest, T.float32(start), [0])

    def take(c: Expression, width: int) -> None:
        value = read(c, width)
        if width == lanes:
            T.buffer_store(held, combine(held[everything], value), [everything])
        else:
            T.buffer_store(rest, combine(rest[0], _across(value, combine)), [0])

    over_channels(channels, lanes, take)
    return T.bind(combine(_across(held[everything], combine), rest[0]))


def _across(value: Expression, combine: Callable[[Expression, Expression], Expression]) -> Expression:
    """Returns what the lanes of a vector combine to: halves with halves, down to one."""
    lanes = lanes_of(value)
    while lanes > 1:
        value, lanes = T.bind(value), lanes // 2
        low = T.Shuffle([value], [T.int32(lane) for lane in range(lanes)])
        high = T.Shuffle([value], [T.int32(lanes + lane) for lane in range(lanes)])
        value = combine(low, high)
    return T.bind(value)


@dataclass(frozen=True)
class ResponseNormSchedule(Schedule):
    """Nothing to choose."""

    template: ClassVar[str] = "local_response_norm"


@template("cpu", LocalResponseNorm)
class ResponseNorm:
    """Local response normalization; a task is a row. A pixel's squares stand between zeros, where the window runs."""

    name = "local_response_norm"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[ResponseNormSchedule]:
        return [ResponseNormSchedule()]

    def schedule(self, fields: Mapping[str, Any]) -> ResponseNormSchedule:
        return ResponseNormSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: ResponseNormSchedule, target: Target) -> float:
        assert isinstance(spec.op, LocalResponseNorm)
        output = spec.output
        rows = spec.batch * output.height
        vectors = rows * output.width * vectors_of(output.channels, target.lanes)
        work = vectors * (spec.op.size * 0.75 + 24.0)
        return work + output_cycles(spec, target) + traffic_cycles(spec) + CYCLES_PER_TASK * rows

    def pack(
        self, spec: KernelSpec, schedule: ResponseNormSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[np.float32], ...]:
        return pack_steps(spec, weights, target)

    def emit(self, spec: KernelSpec, schedule: ResponseNormSchedule, target: Target, name: str) -> Emitted:
        op, source, output = spec.op, spec.inputs[0], spec.output
        assert isinstance(op, LocalResponseNorm)
        reach, count = op.size // 2, output.channels
        size = padded(count + 2 * reach, target.lanes)
        with kernel_function(name, spec, target=target) as frame, T.serial(frame.begin, frame.end) as task:
            n, h = unravel(task, (spec.batch, output.height))
            squares = T.alloc_buffer((size,), "float32", scope="local")
            over_channels(size, target.lanes, lambda c, lanes: _fill(squares, c, lanes))
            with loop(output.width) as w:

                def square(c: Expression, lanes: int) -> None:
                    x = T.bind(load(frame.inputs[0], source, n, h, w, c, lanes))
                    T.buffer_store(squares, x * x, [span(c + reach, lanes)])

                def divide(c: Expression, lanes: int) -> None:
                    total = squares[span(c, lanes)]
                    for distance in range(1, op.size):
                        total = total + squares[span(c + distance, lanes)]
                    base = total * constant(op.alpha / op.size, lanes) + constant(op.k, lanes)
                    x = load(frame.inputs[0], source, n, h, w, c, lanes)
                    finish(frame, x * power(base, -op.beta), n, h, w, c)

                over_channels(count, target.lanes, square)
                over_channels(count, target.lanes, divide)
        return Emitted(frame.function, spec.batch * output.height)


def _fill(buffer: Any, c: Expression, lanes: int) -> None:
    T.buffer_store(buffer, constant(0.0, lanes), [span(c, lanes)])
