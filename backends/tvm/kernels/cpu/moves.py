"""Channel shuffles and padding on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tvm.tirx.script.builder as T

from gensynth.ir.ops import ChannelShuffle, Pad

from ...targets import Target
from ..specification import Emitted, KernelSpec, Schedule, Weights, template
from .arithmetic import constant
from .costs import CYCLES_PER_TASK, output_cycles, traffic_cycles
from .emitting import finish, kernel_function, load, loop, over_channels, pack_steps, pieces, unravel

__all__ = ["Padding", "PaddingSchedule", "Shuffle", "ShuffleSchedule"]

Expression = Any

MOST_INTERLEAVED = 4
"""Vectors of up to so many groups are interleaved in registers."""


@dataclass(frozen=True)
class ShuffleSchedule(Schedule):
    """Vectors of `lanes` channels of every group are read at once."""

    template: ClassVar[str] = "channel_shuffle"
    lanes: int


@template("cpu", ChannelShuffle)
class Shuffle:
    """Channel shuffles: the groups' channels are interleaved."""

    name = "channel_shuffle"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[ShuffleSchedule]:
        op = spec.op
        assert isinstance(op, ChannelShuffle)
        each = spec.output.channels // op.groups
        widths = [lanes for lanes in (16, 8, 4) if lanes <= target.lanes and lanes <= each]
        if not 2 <= op.groups <= MOST_INTERLEAVED:
            widths = []
        return [ShuffleSchedule(lanes) for lanes in widths or [1]]

    def schedule(self, fields: Mapping[str, Any]) -> ShuffleSchedule:
        return ShuffleSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: ShuffleSchedule, target: Target) -> float:
        output = spec.output
        pixels = spec.batch * output.height * output.width
        work = pixels * output.channels / schedule.lanes * 2.5
        return work + output_cycles(spec, target) + traffic_cycles(spec) + CYCLES_PER_TASK * spec.batch * output.height

    def pack(
        self, spec: KernelSpec, schedule: ShuffleSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[np.float32], ...]:
        return pack_steps(spec, weights, target)

    def emit(self, spec: KernelSpec, schedule: ShuffleSchedule, target: Target, name: str) -> Emitted:
        op, source, output = spec.op, spec.inputs[0], spec.output
        assert isinstance(op, ChannelShuffle)
        groups, each = op.groups, output.channels // op.groups
        with kernel_function(name, spec, target=target) as frame, T.serial(frame.begin, frame.end) as task:
            n, h = unravel(task, (spec.batch, output.height))
            with loop(output.width) as w:

                def channels(c: Expression, width: int) -> None:
                    """Writes the channels of `width` positions in every group from position `c` on."""
                    for begin, lanes in pieces(width, target.lanes):
                        parts = [
                            T.bind(load(frame.inputs[0], source, n, h, w, group * each + c + begin, lanes))
                            for group in range(groups)
                        ]
                        # element j of the interleaved parts is element j // groups of part j mod groups
                        for start, size in pieces(lanes * groups, target.lanes):
                            order = [T.int32(j % groups * lanes + j // groups) for j in range(start, start + size)]
                            value = parts[0] if lanes * groups == 1 else T.Shuffle(parts, order)
                            finish(frame, value, n, h, w, (c + begin) * groups + start)

                if schedule.lanes == 1:
                    with loop(groups) as group, loop(each) as c:
                        value = load(frame.inputs[0], source, n, h, w, group * each + c, 1)
                        finish(frame, value, n, h, w, c * groups + group)
                else:
                    over_channels(each, schedule.lanes, channels)
        return Emitted(frame.function, spec.batch * output.height)


@dataclass(frozen=True)
class PaddingSchedule(Schedule):
    """`vectors` vectors of channels are moved in a turn of the inner loop."""

    template: ClassVar[str] = "pad"
    vectors: int


@template("cpu", Pad)
class Padding:
    """Padding by a value."""

    name = "pad"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[PaddingSchedule]:
        return [PaddingSchedule(2), PaddingSchedule(1), PaddingSchedule(4)]

    def schedule(self, fields: Mapping[str, Any]) -> PaddingSchedule:
        return PaddingSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: PaddingSchedule, target: Target) -> float:
        tasks = spec.batch * spec.output.height
        return 1.5 * output_cycles(spec, target) + traffic_cycles(spec) + CYCLES_PER_TASK * tasks

    def pack(
        self, spec: KernelSpec, schedule: PaddingSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[np.float32], ...]:
        return pack_steps(spec, weights, target)

    def emit(self, spec: KernelSpec, schedule: PaddingSchedule, target: Target, name: str) -> Emitted:
        op, source, output = spec.op, spec.inputs[0], spec.output
        assert isinstance(op, Pad)
        top, _, left, _ = op.pads()
        with kernel_function(name, spec, target=target) as frame, T.serial(frame.begin, frame.end) as task:
            n, h = unravel(task, (spec.batch, output.height))

            def run(start: int, stop: int, inside: bool) -> None:
                """Writes the columns from `start` to before `stop`."""
                if stop <= start:
                    return
                with loop(stop - start) as number:

                    def channels(c: Expression, width: int) -> None:
                        for begin, lanes in pieces(width, target.lanes):
                            value = constant(op.value, lanes)
                            if inside:
                                w = start - left + number
                                value = load(frame.inputs[0], source, n, h - top, w, c + begin, lanes)
                            finish(frame, value, n, h, start + number, c + begin)

                    over_channels(output.channels, target.lanes, channels, schedule.vectors)

            with T.If(T.And(h >= top, h < top + source.height)):
                with T.Then():
                    run(0, left, False)
                    run(left, left + source.width, True)
                    run(left + source.width, output.width, False)
                with T.Else():
                    run(0, output.width, False)
        return Emitted(frame.function, spec.batch * output.height)
