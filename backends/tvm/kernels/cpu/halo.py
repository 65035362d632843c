"""Zeroing the halo of an image on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt
import tvm.tirx.script.builder as T

from ...targets import Target
from ..specification import Emitted, KernelSpec, Schedule, Weights, ZeroHalo, template
from .arithmetic import constant
from .emitting import kernel_function, over_channels, span, unravel

__all__ = ["HaloTemplate"]


@dataclass(frozen=True)
class HaloSchedule(Schedule):
    """There is one way."""

    template: ClassVar[str] = "zero_halo"


@template("cpu", ZeroHalo)
class HaloTemplate:
    """Writes zeros above, below and beside an image that fills its storage; a task is a row of memory."""

    name = "zero_halo"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[HaloSchedule]:
        return (HaloSchedule(),)

    def schedule(self, fields: Mapping[str, Any]) -> HaloSchedule:
        return HaloSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: HaloSchedule, target: Target) -> float:
        view = spec.output
        top, bottom, left, right = view.halo
        zeros = (top + bottom) * view.row + view.height * (left + right) * view.pixel
        return spec.batch * (zeros / 8 + 4 * view.height)

    def pack(
        self, spec: KernelSpec, schedule: HaloSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[Any], ...]:
        return ()

    def emit(self, spec: KernelSpec, schedule: HaloSchedule, target: Target, name: str) -> Emitted:
        view = spec.output
        top, bottom, left, right = view.halo
        rows = top + view.height + bottom
        with kernel_function(name, spec, target=target) as frame:

            def zero(start: Any, count: int) -> None:
                def write(begin: Any, size: int) -> None:
                    T.buffer_store(frame.output, constant(0.0, size), [span(start + begin, size)])

                over_channels(count, target.lanes, write)

            with T.serial(frame.begin, frame.end) as task:
                image, row = unravel(task, (spec.batch, rows))
                start = image * view.image + (row - top) * view.row - left * view.pixel
                with T.If(T.And(row >= top, row < top + view.height)):
                    with T.Then():
                        if left:
                            zero(start, left * view.pixel)
                        if right:
                            zero(start + (left + view.width) * view.pixel, right * view.pixel)
                    with T.Else():
                        zero(start, view.row)
        return Emitted(frame.function, spec.batch * rows)
