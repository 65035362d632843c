"""Winograd's convolution on a CPU: 3x3 kernels with 2.25 times fewer multiplications.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308), F(2x2, 3x3): of every 4x4 patch
d of the input and 3x3 filter g, a 2x2 patch of the output is A^T [(G g G^T) * (B^T d B)] A, * element by element, with

    B^T = 1  0 -1  0    G = 1    0    0     A^T = 1  1  1  0
          0  1  1  0        1/2  1/2  1/2         0  1 -1 -1
          0 -1  1  0        1/2 -1/2  1/2
          0  1  0 -1        0    0    1

Summed over input channels, the 16 products of many patches are 16 products of matrices [patches, inputs] x [inputs,
outputs], done in the same tiles as direct convolution. The filters are transformed when weights are packed.
"""

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
from .convolution import Broadcasts, Vectors, inner_cycles, multiply_channels, op_pads, parts
from .emitting import Frame, branch, finish, kernel_function, loop, pack_steps, padded, pieces, span, unravel

__all__ = ["Winograd", "WinogradSchedule"]

POINTS = 16
"""Products for each patch."""

_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])

SCRATCH = 256 * 1024
"""The most bytes of transformed patches that a task holds on its stack."""


@dataclass(frozen=True)
class WinogradSchedule(Schedule):
    """A task transforms `patch_rows` rows of patches, `patches` in each; tiles are `block` patches by `vectors`."""

    template: ClassVar[str] = "winograd"
    patch_rows: int
    patches: int
    block: int
    vectors: int
    lanes: int


@template("cpu", Conv2d)
class Winograd:
    """Convolutions of 3x3 with stride 1, not grouped and not dilated."""

    name = "winograd"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[WinogradSchedule]:
        op, out = spec.op, spec.output
        assert isinstance(op, Conv2d)
        if not (pair(op.kernel) == (3, 3) and pair(op.stride) == pair(op.dilation) == (1, 1) and op.groups == 1):
            return ()
        source = spec.inputs[0]
        top, _, left, _ = op_pads(spec)
        rows, columns = -(-out.height // 2), -(-out.width // 2)
        bottom, right = source.halo[1], source.halo[3]
        if 2 * rows + 2 - top > source.height + bottom or 2 * columns + 2 - left > source.width + right:
            return ()
        if source.channels < 8 or op.channels < target.lanes // 2:
            return ()
        found = []
        inputs = padded(source.channels, target.lanes)
        for lanes in {target.lanes, max(4, target.lanes // 2)}:
            for vectors in (1, 2, 3, 4):
                if vectors > 1 and (vectors - 1) * lanes >= op.channels:
                    break
                for patches in {min(columns, size) for size in (2, 4, 7, 8, 14, 16, 28)}:
                    for patch_rows in (1, 2, 4):
                        count = patches * patch_rows
                        if patch_rows > rows or (patch_rows > 1 and patches < columns) or count > 28:
                            continue
                        if POINTS * 4 * count * (inputs + vectors * lanes) > SCRATCH:
                            continue
                        held = 4 if target.multiplies_by_lane else 1
                        for block in {-(-count // n) for n in (1, 2, 3, 4)}:
                            inner = block if target.multiplies_by_lane else held
                            if block * vectors + vectors + inner <= target.registers:
                                found.append(WinogradSchedule(patch_rows, patches, block, vectors, lanes))
        return sorted(found, key=lambda item: (self.cost(spec, item, target), str(item)))[:16]

    def schedule(self, fields: Mapping[str, Any]) -> WinogradSchedule:
        return WinogradSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: WinogradSchedule, target: Target) -> float:
        op, out = spec.op, spec.output
        assert isinstance(op, Conv2d)
        inputs = spec.inputs[0].channels
        rate = 1.0 if schedule.lanes > 8 or target.lanes == 4 else 0.6
        vectors_in = -(-inputs // target.lanes)
        whole, rest = divmod(op.channels, schedule.vectors * schedule.lanes)
        tiles = [(schedule.vectors, whole), (-(-rest // schedule.lanes), 1 if rest else 0)]
        total = 0.0
        for rows, row_count in parts(-(-out.height // 2), schedule.patch_rows):
            for columns, column_count in parts(-(-out.width // 2), schedule.patches):
                count = rows * columns
                work = count * vectors_in * 52.0
                for vectors, times in tiles:
                    for block, blocks in parts(count, schedule.block):
                        inner = inputs * inner_cycles(block, vectors, schedule.lanes, target) + 3 * block * vectors + 12
                        work += times * POINTS * blocks * inner
                    work += times * count * vectors * 48.0 * rate
                total += work * row_count * column_count
        packed = 4 * POINTS * inputs * op.channels
        image = 4 * inputs * spec.inputs[0].height * spec.inputs[0].width
        tasks = -(-out.height // 2 // schedule.patch_rows)
        traffic = image + packed * (tasks if packed > target.caches[1] / 2 else 1)
        return spec.batch * (total + traffic / 12)

    def pack(
        self, spec: KernelSpec, schedule: WinogradSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[Any], ...]:
        filters = weights["weight"].astype(np.float64)
        outputs, inputs = filters.shape[:2]
        width = schedule.vectors * schedule.lanes
        whole, rest = divmod(outputs, width)
        size = whole * width + padded(rest, schedule.lanes)
        points = np.zeros((size, inputs, POINTS), np.float32)
        points[:outputs] = (_G @ filters @ _G.T).reshape(outputs, inputs, POINTS)
        bias = np.zeros(size, np.float32)
        if "bias" in weights:
            bias[:outputs] = weights["bias"]
        packed = [
            points[start : start + tile].transpose(2, 1, 0).ravel()
            for start, tile in [(number * width, width) for number in range(whole)]
            + ([(whole * width, size - whole * width)] if rest else [])
        ]
        return np.concatenate(packed), bias, *pack_steps(spec, weights, target)

    def emit(self, spec: KernelSpec, schedule: WinogradSchedule, target: Target, name: str) -> Emitted:
        rows, columns = -(-spec.output.height // 2), -(-spec.output.width // 2)
        bands, strips = -(-rows // schedule.patch_rows), -(-columns // schedule.patches)
        tasks = spec.batch * bands * strips
        with kernel_function(name, spec, packed=2, target=target) as frame:
            writer = _Writer(frame, spec, schedule, target)
            with T.serial(frame.begin, frame.end) as task:
                image, band, strip = unravel(task, (spec.batch, bands, strips))
                writer.task(image, band, strip)
        return Emitted(frame.function, tasks)


class _Writer:
    def __init__(self, frame: Frame, spec: KernelSpec, schedule: WinogradSchedule, target: Target) -> None:
        self.frame, self.spec, self.schedule, self.target = frame, spec, schedule, target
        self.source, self.out = spec.inputs[0], spec.output
        self.inputs = self.source.channels
        self.pitch = padded(self.inputs, target.lanes)
        self.rows, self.columns = -(-self.out.height // 2), -(-self.out.width // 2)
        top, _, left, _ = op_pads(spec)
        self.start = -top * self.source.row - left * self.source.pixel

    def task(self, image: Any, band: Any, strip: Any) -> None:
        """Writes the patches of one band of rows and one strip of columns."""
        schedule = self.schedule

        def with_rows(rows: int) -> None:
            whole, left = divmod(self.columns, schedule.patches)
            branch(
                strip,
                (whole, lambda: self._patches(image, band, strip, rows, schedule.patches)),
                (bool(left), lambda: self._patches(image, band, strip, rows, left)),
            )

        whole, left = divmod(self.rows, schedule.patch_rows)
        branch(band, (whole, lambda: with_rows(schedule.patch_rows)), (bool(left), lambda: with_rows(left)))

    def _patches(self, image: Any, band: Any, strip: Any, rows: int, columns: int) -> None:
        schedule, count = self.schedule, rows * columns
        width = schedule.vectors * schedule.lanes
        patches = T.alloc_buffer((POINTS * count * self.pitch,), "float32", scope="local")
        products = T.alloc_buffer((POINTS * count * width,), "float32", scope="local")
        first_row, first_column = band * schedule.patch_rows, strip * schedule.patches
        with loop(rows) as y, loop(columns) as x:
            origin = (
                image * self.source.image
                + self.start
                + (first_row + y) * (2 * self.source.row)
                + (first_column + x) * (2 * self.source.pixel)
            )
            self._transform_patch(patches, origin, y * columns + x, count)
        whole, rest = divmod(self.spec.output.channels, width)
        narrow = padded(rest, schedule.lanes)

        def channels(start: Any, size: int, valid: int) -> None:
            self._multiply(patches, products, start * (POINTS * self.inputs), count, size // schedule.lanes)
            with loop(rows) as y, loop(columns) as x:
                self._transform_products(
                    products, image, first_row + y, first_column + x, y * columns + x, count, start, size, valid
                )

        if whole:
            with loop(whole) as number:
                channels(number * width, width, width)
        if rest:
            channels(whole * width, narrow, rest)

    def _transform_patch(self, patches: Any, origin: Any, number: Any, count: int) -> None:
        """Writes B^T d B of one patch, vectors over channels."""
        lanes = self.target.lanes
        with loop(self.pitch // lanes) as vector:
            rows = []
            for y in range(4):
                d = [
                    T.bind(
                        self.frame.inputs[0][
                            span(origin + y * self.source.row + x * self.source.pixel + vector * lanes, lanes)
                        ]
                    )
                    for x in range(4)
                ]
                rows.append([T.bind(value) for value in _transformed(d)])
            for x in range(4):
                for y, value in enumerate(_transformed([rows[y][x] for y in range(4)])):
                    place = ((y * 4 + x) * count + number) * self.pitch + vector * lanes
                    T.buffer_store(patches, value, [span(place, lanes)])

    def _multiply(self, patches: Any, products: Any, first: Any, count: int, vectors: int) -> None:
        """Writes the 16 products of matrices for one tile of output channels."""
        lanes = self.schedule.lanes
        width = vectors * lanes
        by_lane = self.target.multiplies_by_lane
        with T.serial(0, POINTS) as point:
            whole, rest = divmod(count, self.schedule.block)

            def block(start: Any, size: int) -> None:
                accumulators = T.alloc_buffer((size * width,), "float32", scope="local")
                zero = T.Broadcast(T.float32(0), lanes)
                for place in range(0, size * width, lanes):
                    T.buffer_store(accumulators, zero, [span(place, lanes)])
                base = (point * count + start) * self.pitch
                multiply_channels(
                    accumulators,
                    Broadcasts(patches, base, [position * self.pitch for position in range(size)]),
                    Vectors(self.frame.packed[0], first + point * (self.inputs * width), vectors, lanes),
                    self.inputs,
                    by_lane=by_lane,
                )
                for place in range(0, size * width, lanes):
                    target = (point * count + start) * width + place
                    T.buffer_store(products, accumulators[span(place, lanes)], [span(target, lanes)])

            if whole:
                with loop(whole) as number:
                    block(number * self.schedule.block, self.schedule.block)
            if rest:
                block(whole * self.schedule.block, rest)

    def _transform_products(
        self,
        products: Any,
        image: Any,
        patch_row: Any,
        patch_column: Any,
        number: Any,
        count: int,
        channel: Any,
        width: int,
        valid: int,
    ) -> None:
        """Writes A^T m A of one patch, with the bias and the steps, as far as it lies within the output."""
        for begin, size in pieces(valid, self.schedule.lanes):
            columns = []
            for x in range(4):
                m = [T.bind(products[span(((y * 4 + x) * count + number) * width + begin, size)]) for y in range(4)]
                columns.append([T.bind(m[0] + m[1] + m[2]), T.bind(m[1] - m[2] - m[3])])
            bias = self.frame.packed[1][span(channel + begin, size)]
            for y in range(2):
                m = [columns[x][y] for x in range(4)]
                for x, value in enumerate((m[0] + m[1] + m[2] + bias, m[1] - m[2] - m[3] + bias)):
                    self._store(value, image, patch_row * 2 + y, patch_column * 2 + x, channel + begin, y, x)

    def _store(self, value: Any, image: Any, row: Any, column: Any, channel: Any, y: int, x: int) -> None:
        inside = []
        if y and self.out.height % 2:
            inside.append(row < self.out.height)
        if x and self.out.width % 2:
            inside.append(column < self.out.width)
        if not inside:
            finish(self.frame, value, image, row, column, channel)
            return
        with T.If(inside[0] if len(inside) == 1 else T.And(*inside)), T.Then():
            finish(self.frame, value, image, row, column, channel)


def _transformed(d: Sequence[Any]) -> list[Any]:
    """Returns B^T d."""
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]
