"""Softmax and local response normalization on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tvm.tirx.script.builder as T

from gensynth.ir.ops import LocalResponseNorm, Softmax

from ...targets import Target
from ..specification import Emitted, KernelSpec, Schedule, Weights, template
from .costs import MEMORY_LATENCY, Work, grid_cycles, memory_cycles, step_instructions
from .elements import Elements
from .emitting import (
    LOWEST,
    Frame,
    constant,
    external,
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

__all__ = ["NormalizeResponses", "SoftmaxChannels", "SoftmaxSchedule"]

Expression = Any


@template("cuda", LocalResponseNorm)
class NormalizeResponses(Elements):
    """Local response normalization."""

    name = "normalize_responses"

    def instructions(self, spec: KernelSpec) -> float:
        assert isinstance(spec.op, LocalResponseNorm)
        return 40.0 + 5.0 * spec.op.size

    def write(self, frame: Frame, n: Expression, h: Expression, w: Expression, c: Expression) -> None:
        op, source = frame.spec.op, frame.spec.inputs[0]
        assert isinstance(op, LocalResponseNorm)
        total = T.alloc_buffer((1,), "float32", scope="local")
        T.buffer_store(total, T.float32(0), [0])
        reach = op.size // 2
        with (T.unroll if op.size <= 9 else T.serial)(0, op.size) as number:
            channel = c + number - reach
            x = T.bind(load(frame.inputs[0], source, n, h, w, channel, inside(channel, source.channels)))
            T.buffer_store(total, total[0] + x * x, [0])
        base = constant(op.k) + constant(op.alpha / op.size) * total[0]
        x = load(frame.inputs[0], source, n, h, w, c)
        finish(frame, x / external("float32", "powf", base, constant(op.beta)), n, h, w, c)


@dataclass(frozen=True)
class SoftmaxSchedule(Schedule):
    """Blocks of `threads`; so many of them, `across`, share the channels of one place."""

    template: ClassVar[str] = "softmax_channels"
    threads: int
    across: int


@template("cuda", Softmax)
class SoftmaxChannels:
    """Softmax over the channels."""

    name = "softmax_channels"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[SoftmaxSchedule]:
        found = [
            SoftmaxSchedule(max(threads, across), across)
            for across in (1, 4, 16, 32, 128, 256)
            for threads in (32, 128)
            if across <= max(1, spec.output.channels)
        ]
        return sorted(dict.fromkeys(found), key=lambda schedule: self.cost(spec, schedule, target))[:6]

    def schedule(self, fields: Mapping[str, Any]) -> SoftmaxSchedule:
        return SoftmaxSchedule(**fields)

    @staticmethod
    def _blocks(spec: KernelSpec, schedule: SoftmaxSchedule) -> int:
        places = spec.batch * spec.output.height * spec.output.width
        return -(-places // (schedule.threads // schedule.across))

    def cost(self, spec: KernelSpec, schedule: SoftmaxSchedule, target: Target) -> float:
        turns = -(-spec.output.channels // schedule.across)
        # a place's channels lie together: threads alone on a place read far apart
        reads = 3.0 if schedule.across >= 8 else 10.0
        reductions = 2 * 12 * schedule.across.bit_length() if schedule.across > 1 else 0
        instructions = 40 + turns * (2 * reads + 50 + step_instructions(spec)) + reductions
        latency = 3 * MEMORY_LATENCY + turns * 40 + 2 * 30 * schedule.across.bit_length()
        work = Work(schedule.threads, instructions, latency)
        return max(grid_cycles(work, self._blocks(spec, schedule), target), memory_cycles(spec, target))

    def pack(
        self, spec: KernelSpec, schedule: SoftmaxSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[np.float32], ...]:
        return pack_steps(spec, weights)

    def emit(self, spec: KernelSpec, schedule: SoftmaxSchedule, target: Target, name: str) -> Emitted:
        source, output = spec.inputs[0], spec.output
        channels, across = output.channels, schedule.across
        places = spec.batch * output.height * output.width
        down = schedule.threads // across
        grid = (self._blocks(spec, schedule), 1, 1)
        with kernel_function(name, spec, grid, schedule.threads) as frame:
            first = remainder(frame.thread, across)
            place = T.bind(frame.block[0] * down + quotient(frame.thread, across))
            n, h, w = unravel(place, (spec.batch, output.height, output.width))
            exists = None if places % down == 0 else place < places
            group = _Group(frame, across) if across > 1 else None

            def each(body: Callable[[Expression], None]) -> None:
                with T.serial(0, -(-channels // across)) as turn:
                    c = T.bind(turn * across + first)
                    with guarded(when(exists, None if channels % across == 0 else c < channels)):
                        body(c)

            def x(c: Expression) -> Expression:
                return load(frame.inputs[0], source, n, h, w, c)

            held = T.alloc_buffer((2,), "float32", scope="local")
            T.buffer_store(held, constant(LOWEST), [0])
            each(lambda c: T.buffer_store(held, T.max(held[0], x(c)), [0]))
            if group is not None:
                T.buffer_store(held, group.reduce(held[0], T.max), [0])
            T.buffer_store(held, T.float32(0), [1])
            each(lambda c: T.buffer_store(held, held[1] + external("float32", "expf", x(c) - held[0]), [1]))
            if group is not None:
                T.buffer_store(held, group.reduce(held[1], lambda a, b: a + b), [1])
            each(lambda c: finish(frame, external("float32", "expf", x(c) - held[0]) / held[1], n, h, w, c))
        return Emitted(frame.function, grid=grid, block=(schedule.threads, 1, 1))


class _Group:
    """Threads side by side that reduce a value each to one for all, through shared memory."""

    def __init__(self, frame: Frame, across: int) -> None:
        self.thread, self.across = frame.thread, across
        self.shared = T.alloc_buffer((frame.threads,), "float32", scope="shared")

    def reduce(self, value: Expression, combine: Callable[[Expression, Expression], Expression]) -> Expression:
        """Returns the combination of all threads' values."""
        T.buffer_store(self.shared, value, [self.thread])
        sync()
        distance = self.across // 2
        while distance:
            with guarded(remainder(self.thread, self.across) < distance):
                both = combine(self.shared[self.thread], self.shared[self.thread + distance])
                T.buffer_store(self.shared, both, [self.thread])
            sync()
            distance //= 2
        found = T.alloc_buffer((1,), "float32", scope="local")
        T.buffer_store(found, self.shared[quotient(self.thread, self.across) * self.across], [0])
        # all have read before the next reduction writes
        sync()
        return found[0]
