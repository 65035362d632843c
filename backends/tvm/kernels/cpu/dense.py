"""Dense layers on a CPU.

    for tile of features, tile of images:
        accumulators = bias
        for input:
            accumulators[image][vector] += x[image] (broadcast) * weight[vector]
        output = steps(accumulators)

Weights are packed by tiles of features, so that they are read once, in order. For few images the accumulators are too
few to hide the latency of multiply-adds: then several partial sums are kept, of every second, fourth, ... input.
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
from .arithmetic import constant, spread
from .costs import BYTES_PER_CYCLE, CYCLES_PER_TASK, output_cycles
from .emitting import Frame, branch, element, finish, kernel_function, loop, pack_steps, span, unravel
from .feature_tiles import FeatureTiles, Tile

__all__ = ["DenseLayer", "DenseSchedule"]

Expression = Any

LATENCY = 8
"""So many independent multiply-adds keep the machine busy."""


@dataclass(frozen=True)
class DenseSchedule(Schedule):
    """A task is `rows` images by `vectors` vectors of features, in `partial` partial sums."""

    template: ClassVar[str] = "dense"
    rows: int
    vectors: int
    partial: int


def _tiles(spec: KernelSpec, schedule: DenseSchedule, target: Target) -> FeatureTiles:
    return FeatureTiles(spec.output.channels, schedule.vectors, target.lanes)


@template("cpu", Dense)
class DenseLayer:
    """Dense layers, for one image or many."""

    name = "dense"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[DenseSchedule]:
        most = -(-spec.output.channels // target.lanes)
        found = {}
        for rows in (1, 2, 3, 4, 6, 8, 12):
            for vectors in (1, 2, 3, 4, 6, 8):
                for partial in (1, 2, 4, 8):
                    sums = rows * vectors * partial
                    if rows > spec.batch or vectors > most or (partial > 1 and sums > LATENCY):
                        continue
                    kept = rows if target.multiplies_by_lane else min(vectors, rows)
                    if sums + kept + 1 <= target.registers or sums == 1:
                        schedule = DenseSchedule(rows, vectors, partial)
                        found[schedule] = self.cost(spec, schedule, target)
        return sorted(found, key=lambda schedule: found[schedule])[:8]

    def schedule(self, fields: Mapping[str, Any]) -> DenseSchedule:
        return DenseSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: DenseSchedule, target: Target) -> float:
        tiles = _tiles(spec, schedule, target)
        terms = spec.inputs[0].channels
        total = 0.0
        for rows, blocks in ((schedule.rows, spec.batch // schedule.rows), (spec.batch % schedule.rows, 1)):
            for tile, count in ((tiles.tile, tiles.full), (tiles.last, 1)):
                if rows == 0 or tile is None or count == 0:
                    continue
                vectors = len(tile.vectors)
                multiplies = rows * vectors * (0.5 if target.lanes == 8 else 1.0)
                loads = vectors * 4 * target.lanes / 64 + rows * (0.25 if target.multiplies_by_lane else 0.5)
                chains = min(schedule.partial * rows * vectors, LATENCY)
                cycles = max(multiplies, loads, rows * vectors * 4.0 / chains / (2 if target.lanes < 16 else 1))
                ends = rows * vectors * (2 + 2 * schedule.partial) + CYCLES_PER_TASK
                total += blocks * count * (terms * cycles + ends)
        traffic = 4 * tiles.padded * terms / BYTES_PER_CYCLE
        if 4 * tiles.padded * terms < target.caches[0] / 2:
            traffic = 0.0
        return max(total, traffic) + min(total, traffic) / 8 + output_cycles(spec, target)

    def pack(
        self, spec: KernelSpec, schedule: DenseSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[np.float32], ...]:
        tiles = _tiles(spec, schedule, target)
        return (
            tiles.pack(weights["weight"]),
            tiles.pack_bias(weights.get("bias")),
            *pack_steps(spec, weights, target),
        )

    def emit(self, spec: KernelSpec, schedule: DenseSchedule, target: Target, name: str) -> Emitted:
        tiles = _tiles(spec, schedule, target)
        whole, left = divmod(spec.batch, schedule.rows)
        blocks = whole + bool(left)
        with kernel_function(name, spec, packed=2, target=target) as frame, T.serial(frame.begin, frame.end) as task:
            number, block = unravel(task, (tiles.count, blocks))

            def write(tile: Tile) -> None:
                def rows(count: int) -> None:
                    _Block(frame, schedule, target, tiles, tile, number, block * schedule.rows, count).write()

                branch(block, (whole, lambda: rows(schedule.rows)), (bool(left), lambda: rows(left)))

            tiles.write(number, write)
        return Emitted(frame.function, tiles.count * blocks)


class _Block:
    """Writes some features of some images."""

    def __init__(
        self,
        frame: Frame,
        schedule: DenseSchedule,
        target: Target,
        tiles: FeatureTiles,
        tile: Tile,
        number: Expression,
        image: Expression,
        rows: int,
    ) -> None:
        self.frame, self.target, self.tile, self.image, self.rows = frame, target, tile, image, rows
        self.partial = schedule.partial
        self.view = frame.spec.inputs[0]
        self.terms = self.view.channels
        self.feature = number * tiles.tile.width
        self.weights = self.feature * self.terms
        self.sums = T.alloc_buffer((self.partial * rows * tile.width,), "float32", scope="local")

    def write(self) -> None:
        for part in range(self.partial):
            for start, lanes in self.tile.vectors:
                bias = self.frame.packed[1][span(self.feature + start, lanes)]
                for row in range(self.rows):
                    at = self._place(part, row, start, lanes)
                    T.buffer_store(self.sums, bias if part == 0 else constant(0.0, lanes), [at])
        by_lane = self.target.multiplies_by_lane and self.view.channel == 1
        step = max(self.partial, 4 if by_lane else 1)
        whole, left = divmod(self.terms, step)
        if whole:
            with loop(whole) as number:
                self._multiply(number * step, step, by_lane)
        if left:
            self._multiply(whole * step, left, False)
        for start, lanes in self.tile.stored():
            for row in range(self.rows):
                result = self.sums[self._place(0, row, start, lanes)]
                for part in range(1, self.partial):
                    result = result + self.sums[self._place(part, row, start, lanes)]
                finish(self.frame, result, self.image + row, 0, 0, self.feature + start)

    def _place(self, part: int, row: int, start: int, lanes: int) -> Expression:
        return span((part * self.rows + row) * self.tile.width + start, lanes)

    def _multiply(self, first: Expression, count: int, by_lane: bool) -> None:
        """Writes the multiply-adds of `count` inputs from `first` on."""
        source, packed = self.frame.inputs[0], self.frame.packed[0]
        held = None
        if by_lane:
            held = T.alloc_buffer((self.rows * count,), "float32", scope="local")
            for row in range(self.rows):
                for begin in range(0, count, 4):
                    at = element(self.view, self.image + row, 0, 0, first + begin)
                    T.buffer_store(held, source[span(at, 4)], [span(row * count + begin, 4)])
        for term in range(count):
            # of inputs and weights, what the inner loop runs over stays in registers: let that be the fewer, or the
            # inputs where they are there anyway
            order = [(row, vector) for row in range(self.rows) for vector in self.tile.vectors]
            if held is not None or len(self.tile.vectors) > self.rows:
                order = [(row, vector) for vector in self.tile.vectors for row in range(self.rows)]
            for row, (start, lanes) in order:
                weight = packed[span(self.weights + (first + term) * self.tile.width + start, lanes)]
                if held is None:
                    x = source[element(self.view, self.image + row, 0, 0, first + term)]
                else:
                    x = held[row * count + term]
                at = self._place(term % self.partial, row, start, lanes)
                T.buffer_store(self.sums, self.sums[at] + spread(x, lanes) * weight, [at])
