"""Dense layers of few images on a GPU.

Such a layer reads each weight once, so memory bounds it. Neighbouring threads read weights of neighbouring features;
the inputs are dealt out to groups of threads (`slices`), whose sums are added through shared memory. Layers of many
images are matrix products, and done as convolutions of one tap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tvm.tirx.script.builder as T

from gensynth.ir.ops import Dense

from ...targets import Target
from ..specification import Emitted, KernelSpec, Schedule, Weights, template
from .costs import MEMORY_LATENCY, Work, grid_cycles, memory_cycles, step_instructions
from .emitting import (
    external,
    finish,
    guarded,
    kernel_function,
    load,
    pack_steps,
    quotient,
    remainder,
    sync,
    unravel,
    when,
)
from .problems import as_memory, bias_of

__all__ = ["DenseLayer", "DenseSchedule"]

UNROLLED = 4
"""Inputs that a thread takes in one turn of its loop, so that so many loads are under way."""


@dataclass(frozen=True)
class DenseSchedule(Schedule):
    """A block makes `features` of `images`; `slices` threads share the inputs of each feature."""

    template: ClassVar[str] = "dense"
    features: int
    slices: int
    images: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.features * self.slices


def _turns(spec: KernelSpec, schedule: DenseSchedule) -> int:
    return -(-spec.inputs[0].channels // (schedule.slices * UNROLLED))


def _grid(spec: KernelSpec, schedule: DenseSchedule) -> tuple[int, int, int]:
    return -(-spec.output.channels // schedule.features), -(-spec.batch // schedule.images), 1


@template("cuda", Dense)
class DenseLayer:
    """Dense layers of few images."""

    name = "dense"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[DenseSchedule]:
        found = [
            DenseSchedule(features, slices, images)
            for features in (8, 16, 32, 64)
            for slices in (1, 2, 4, 8, 16, 32)
            for images in (1, 2, 4, 8)
            if 32 <= features * slices <= 512
            and images < 2 * spec.batch
            and features < 2 * max(8, spec.output.channels)
            and (slices == 1 or slices * UNROLLED < 2 * spec.inputs[0].channels or features * slices == 32)
            and -(-spec.batch // images) < 1 << 16
        ]
        return sorted(found, key=lambda schedule: self.cost(spec, schedule, target))[:6]

    def schedule(self, fields: Mapping[str, Any]) -> DenseSchedule:
        return DenseSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: DenseSchedule, target: Target) -> float:
        turns, images = _turns(spec, schedule), schedule.images
        finishing = images / schedule.slices * (3 * schedule.slices + step_instructions(spec) + 10)
        instructions = 40 + turns * UNROLLED * (4 + 4 * images) + finishing
        latency = 2 * MEMORY_LATENCY + turns * MEMORY_LATENCY * 0.6
        work = Work(schedule.threads, instructions, latency, 32 + 6 * images)
        grid = _grid(spec, schedule)
        size = 2 if spec.dtype == "f16" else 4
        weights = size * spec.inputs[0].channels * grid[0] * schedule.features
        return max(
            grid_cycles(work, grid[0] * grid[1], target), memory_cycles(spec, target, weights, weights * grid[1])
        )

    def pack(
        self, spec: KernelSpec, schedule: DenseSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[Any], ...]:
        features, inputs = weights["weight"].shape
        tiles = _grid(spec, schedule)[0]
        terms = _turns(spec, schedule) * schedule.slices * UNROLLED
        padded = np.zeros((tiles * schedule.features, terms), np.float32)
        padded[:features, :inputs] = weights["weight"]
        packed = as_memory(spec, padded.reshape(tiles, schedule.features, terms).transpose(0, 2, 1))
        bias = bias_of(weights, (1, tiles * schedule.features), features)
        return packed.ravel(), bias.ravel(), *pack_steps(spec, weights)

    def emit(self, spec: KernelSpec, schedule: DenseSchedule, target: Target, name: str) -> Emitted:
        source, half = spec.inputs[0], spec.dtype == "f16"
        features, slices, images = schedule.features, schedule.slices, schedule.images
        turns, grid = _turns(spec, schedule), _grid(spec, schedule)
        terms = turns * slices * UNROLLED
        with kernel_function(name, spec, grid, schedule.threads, ("uint16" if half else "float32", "float32")) as frame:
            first, part = remainder(frame.thread, features), quotient(frame.thread, features)
            sums = T.alloc_buffer((images,), "float32", scope="local")
            with T.unroll(0, images) as image:
                T.buffer_store(sums, T.float32(0), [image])
            weight = T.alloc_buffer((1,), "float32", scope="local")
            with T.serial(0, turns) as turn, T.unroll(0, UNROLLED) as number:
                term = T.bind((turn * UNROLLED + number) * slices + part)
                value = frame.packed[0][(frame.block[0] * terms + term) * features + first]
                T.buffer_store(weight, external("float32", "half_to_float", value) if half else value, [0])
                with T.unroll(0, images) as image:
                    n = frame.block[1] * images + image
                    condition = when(
                        None if terms == source.channels else term < source.channels,
                        None if spec.batch % images == 0 else n < spec.batch,
                    )
                    x = load(frame.inputs[0], source, n, 0, 0, term, condition)
                    T.buffer_store(sums, sums[image] + x * weight[0], [image])
            shared = T.alloc_buffer((schedule.threads * images,), "float32", scope="shared")
            with T.unroll(0, images) as image:
                T.buffer_store(shared, sums[image], [image * schedule.threads + frame.thread])
            sync()
            count = images * features
            with T.serial(0, -(-count // schedule.threads)) as number:
                place = T.bind(number * schedule.threads + frame.thread)
                image, feature = unravel(place, (images, features))
                n, c = T.bind(frame.block[1] * images + image), T.bind(frame.block[0] * features + feature)
                condition = when(
                    None if count % schedule.threads == 0 else place < count,
                    None if spec.batch % images == 0 else n < spec.batch,
                    None if spec.output.channels % features == 0 else c < spec.output.channels,
                )
                with guarded(condition):
                    total = frame.packed[1][c]
                    for part in range(slices):
                        total = total + shared[image * schedule.threads + part * features + feature]
                    finish(frame, total, n, 0, 0, c)
        return Emitted(frame.function, grid=grid, block=(schedule.threads, 1, 1))
