"""Convolutions as matrix products on a GPU, without a matrix of patches (implicit GEMM).

Pixels times terms (taps and input channels) is multiplied by terms times output channels. A block of threads makes a
tile of pixels by channels, a thread a smaller tile in registers:

    for chunk of terms:
        shared = the patches' elements and the weights of this chunk        (the next chunk is on its way meanwhile)
        for term in chunk:
            sums[pixel][channel] += patch[pixel] * weight[channel]
    output = steps(sums + bias), through shared memory, so that neighbouring threads write neighbouring channels

Where a map is too small to fill the GPU, groups of threads (`slices`) make the same tile, each from its part of every
chunk, and their sums are added at the end.

float16: patches and weights are multiplied for two output channels at once, in float16; after `CHAIN` products the sums
are added to float32 ones. On GPUs of compute capability 6.2 that takes half as many multiply-adds. Rounding costs about
5e-4 of a chain's size, which averages out over chains; a chain whose sum is beyond 65504 is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm.tirx.script.builder as T

from gensynth.ir.ops import Conv2d, ConvTranspose2d, Dense

from ...targets import Target
from ..specification import Emitted, KernelSpec, Weights, template
from .costs import MEMORY_LATENCY, SCHEDULERS, Work, grid_cycles, memory_cycles, step_instructions
from .emitting import (
    Frame,
    element,
    finish,
    guarded,
    inside,
    kernel_function,
    pack_steps,
    quotient,
    remainder,
    sync,
    unravel,
    when,
)
from .problems import Problem, as_memory, bias_of, filters_of, problem_of
from .register_tiles import CHAIN, ConvolutionSchedule, HalfSums, Sums, vector

__all__ = ["Convolution", "ConvolutionSchedule"]

Expression = Any

MOST_SCHEDULES = 6


@dataclass(frozen=True)
class _Sizes:
    """How a schedule cuts a problem: terms of a tap as they are padded, chunks, tiles."""

    tap: int
    chunks: int
    tiles: int
    grid: tuple[int, int, int]

    @classmethod
    def of(cls, problem: Problem, schedule: ConvolutionSchedule) -> _Sizes:
        chunk = schedule.chunk
        # chunks that lie in one tap need fewer instructions; taps of few channels share chunks
        tap = -(-problem.inputs // chunk) * chunk
        if problem.taps * tap * 0.85 > -(-problem.terms // chunk) * chunk:
            tap = problem.inputs
        chunks = -(-problem.taps * tap // chunk)
        tiles = -(-problem.outputs // schedule.channels)
        blocks = -(-problem.pixels // schedule.pixels)
        return cls(tap, chunks, tiles, (blocks, tiles, problem.groups * problem.phases))


def _shared_words(schedule: ConvolutionSchedule, dtype: str) -> tuple[int, int]:
    """Returns the 32-bit words of one buffer of patches and of weights."""
    weights = schedule.chunk * schedule.channels
    return schedule.chunk * schedule.line, weights // 2 if dtype == "f16" else weights


def _shared_bytes(schedule: ConvolutionSchedule, dtype: str) -> int:
    tiles = 2 * sum(_shared_words(schedule, dtype))
    return 4 * max(tiles, schedule.slices * schedule.pixels * schedule.channels)


def _candidates(problem: Problem, dtype: str, target: Target) -> Iterator[ConvolutionSchedule]:
    assert target.cuda is not None
    for thread_pixels in (1, 2, 4, 8):
        for thread_channels in (2, 4, 8):
            for across in (1, 2, 4, 8, 16):
                channels = across * thread_channels
                for down in (2, 4, 8, 16, 32):
                    pixels = down * thread_pixels
                    if pixels >= 2 * max(problem.pixels, 8) or channels >= 2 * max(problem.outputs, 4):
                        continue
                    for slices in (1, 2, 4, 8, 16):
                        for depth in (4, 8, 16):
                            schedule = ConvolutionSchedule(
                                pixels, channels, thread_pixels, thread_channels, depth, slices
                            )
                            if _fits(schedule, problem, dtype, target):
                                yield schedule


def _fits(schedule: ConvolutionSchedule, problem: Problem, dtype: str, target: Target) -> bool:
    assert target.cuda is not None
    threads, chunk = schedule.threads, schedule.chunk
    if not 32 <= threads <= min(256, target.cuda.threads) or schedule.channels < 4:
        return False
    # each thread loads terms of one number, so that it finds out once in a chunk which tap that is
    if threads % chunk or chunk * schedule.pixels % threads or chunk * schedule.pixels // threads > 16:
        return False
    if chunk > 8 and chunk >= 2 * problem.terms:
        return False
    return _shared_bytes(schedule, dtype) <= min(target.cuda.shared_bytes, 24 * 1024)


@template("cuda", Conv2d, ConvTranspose2d, Dense)
class Convolution:
    """Convolutions and transposed ones of any kernel, stride, dilation and groups, and dense layers of many images."""

    name = "convolution"

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[ConvolutionSchedule]:
        problem = problem_of(spec)
        if problem.groups * problem.phases >= 1 << 16:
            return ()
        found = {
            schedule: self._cycles(spec, problem, schedule, target)
            for schedule in _candidates(problem, spec.dtype, target)
        }
        return sorted(found, key=lambda item: found[item])[:MOST_SCHEDULES]

    def schedule(self, fields: Mapping[str, Any]) -> ConvolutionSchedule:
        return ConvolutionSchedule(**fields)

    def cost(self, spec: KernelSpec, schedule: ConvolutionSchedule, target: Target) -> float:
        return self._cycles(spec, problem_of(spec), schedule, target)

    @staticmethod
    def _cycles(spec: KernelSpec, problem: Problem, schedule: ConvolutionSchedule, target: Target) -> float:
        sizes = _Sizes.of(problem, schedule)
        threads, half = schedule.threads, spec.dtype == "f16"
        warps = -(-threads // 32)
        p, c = schedule.thread_pixels, schedule.thread_channels
        multiplies = p * c * (0.5 + 5.0 / CHAIN) if half else p * c
        vectors = -(-p // 4) + (-(-c // 8) if half else -(-c // 4))
        copied = schedule.chunk * schedule.pixels / threads
        weights = sum(_shared_words(schedule, spec.dtype)[1:]) / threads / 4
        checks = 0 if problem.rows.within and problem.columns.within else 4
        overhead = 20 + copied * (6 + checks) + weights * 3 + (15 if sizes.tap != problem.inputs else 0)
        outputs = schedule.pixels * schedule.channels / threads
        epilogue = outputs * (step_instructions(spec) + 8 + 2 * schedule.slices) + p * c * 2 + 30
        start = 40 + copied * 12
        instructions = sizes.chunks * (schedule.depth * (multiplies + vectors) + overhead) + epilogue + start
        # vectors of 16 bytes take two cycles of shared memory for a warp
        shared = warps * sizes.chunks * (schedule.depth * vectors * 2.0 + copied * 1.5)
        latency = MEMORY_LATENCY * 2 + sizes.chunks * (60 + 12 * schedule.depth)
        registers = int(p * c * (1.5 if half else 1) + 2 * (p + c) + copied * 4 + 28)
        work = Work(threads, instructions, latency, registers, _shared_bytes(schedule, spec.dtype), shared)
        blocks = sizes.grid[0] * sizes.grid[1] * sizes.grid[2]
        size = 2 if half else 4
        chunks = size * blocks * sizes.chunks * schedule.chunk
        filters = size * sizes.grid[1] * sizes.grid[2] * sizes.chunks * schedule.chunk * schedule.channels
        memory = memory_cycles(spec, target, filters, chunks * (schedule.pixels + schedule.channels))
        idle = (threads % 32) / 32 / SCHEDULERS
        return max(grid_cycles(work, blocks, target), memory) * (1.0 + idle) + 0.1 * memory

    def pack(
        self, spec: KernelSpec, schedule: ConvolutionSchedule, weights: Weights, target: Target
    ) -> tuple[npt.NDArray[Any], ...]:
        problem = problem_of(spec)
        sizes = _Sizes.of(problem, schedule)
        filters = filters_of(spec, problem, weights)
        images = problem.phases * problem.groups
        padded = np.zeros((images, sizes.tiles * schedule.channels, sizes.chunks * schedule.chunk), np.float32)
        terms = np.zeros((images, problem.outputs, problem.taps, sizes.tap), np.float32)
        terms[..., : problem.inputs] = filters.reshape(images, problem.outputs, problem.taps, problem.inputs)
        padded[:, : problem.outputs, : problem.taps * sizes.tap] = terms.reshape(images, problem.outputs, -1)
        tiles = padded.reshape(images, sizes.tiles, schedule.channels, sizes.chunks, schedule.chunk)
        packed = as_memory(spec, tiles.transpose(0, 1, 3, 4, 2))
        if spec.dtype == "f16":
            packed = packed.reshape(-1).view(np.uint32)
        bias = bias_of(weights, (problem.groups, sizes.tiles * schedule.channels), problem.outputs)
        return packed.ravel(), bias.ravel(), *pack_steps(spec, weights)

    def emit(self, spec: KernelSpec, schedule: ConvolutionSchedule, target: Target, name: str) -> Emitted:
        problem = problem_of(spec)
        sizes = _Sizes.of(problem, schedule)
        weights = "uint32" if spec.dtype == "f16" else "float32"
        with kernel_function(name, spec, sizes.grid, schedule.threads, (weights, "float32")) as frame:
            _Writer(frame, problem, schedule, sizes).write()
        return Emitted(frame.function, grid=sizes.grid, block=(schedule.threads, 1, 1))


class _Writer:
    """Writes the kernel: what one thread does."""

    def __init__(self, frame: Frame, problem: Problem, schedule: ConvolutionSchedule, sizes: _Sizes) -> None:
        self.frame, self.problem, self.schedule, self.sizes = frame, problem, schedule, sizes
        self.half = frame.spec.dtype == "f16"
        self.word = "uint32" if self.half else "float32"
        thread = frame.thread
        self.patch_words, self.weight_words = _shared_words(schedule, frame.spec.dtype)
        self.buffers = 2 if sizes.chunks > 1 else 1
        words = max(
            self.buffers * (self.patch_words + self.weight_words),
            schedule.slices * schedule.pixels * schedule.channels,
        )
        self.shared = T.alloc_buffer((words,), self.word, scope="shared")
        # a thread's part of a chunk: terms of one number, of `copied` pixels
        self.copied = schedule.chunk * schedule.pixels // schedule.threads
        self.term = remainder(thread, schedule.chunk) if schedule.threads > schedule.chunk else thread
        self.first_pixel = quotient(thread, schedule.chunk) if schedule.threads > schedule.chunk else 0
        self.pixel_step = schedule.threads // schedule.chunk
        self.patches = T.alloc_buffer((self.copied,), "uint16" if self.half else "float32", scope="local")
        self.weight_lanes, self.weight_loads = self._weight_vectors()
        self.weights = T.alloc_buffer((self.weight_lanes * self.weight_loads,), self.word, scope="local")
        self.phase = quotient(frame.block[2], problem.groups) if problem.phases > 1 else 0
        self.group = remainder(frame.block[2], problem.groups) if problem.groups > 1 else 0

    def _weight_vectors(self) -> tuple[int, int]:
        """Returns how many lanes a thread copies at once of a chunk's weights, and how often."""
        lanes = 4
        while lanes > 1 and self.weight_words < lanes * self.schedule.threads:
            lanes //= 2
        return lanes, max(1, self.weight_words // (lanes * self.schedule.threads))

    def write(self) -> None:
        schedule, sizes = self.schedule, self.sizes
        self._place_patches()
        sums = self._sums()
        self._fetch(0)
        self._keep(0)
        sync()
        if sizes.chunks == 1:
            sums.multiply(0)
        else:
            with T.serial(0, sizes.chunks) as chunk:
                more = chunk + 1 < sizes.chunks
                with guarded(more):
                    self._fetch(chunk + 1)
                sums.multiply(remainder(chunk, 2))
                sums.flush(chunk, schedule.depth, sizes.chunks)
                with guarded(more):
                    self._keep(remainder(chunk + 1, 2))
                sync()
        if sizes.chunks == 1:
            sync()
        sums.flush_rest(schedule.depth, sizes.chunks)
        self._finish(sums)

    def _sums(self) -> Sums:
        kind = HalfSums if self.half else Sums
        return kind(self.frame.thread, self.schedule, self.shared, self.patch_words, self.weight_words)

    # Loading.

    def _phases(self) -> tuple[Expression, Expression]:
        columns = self.problem.columns.phases
        if self.problem.phases == 1:
            return 0, 0
        return quotient(self.phase, columns), remainder(self.phase, columns)

    def _place_patches(self) -> None:
        """Finds out where the patches of this thread's pixels begin."""
        problem, schedule = self.problem, self.schedule
        rows, columns, source = problem.rows, problem.columns, problem.source
        row_phase, column_phase = self._phases()
        first_row, first_column = rows.start(row_phase), columns.start(column_phase)
        self.places = []
        whole = problem.pixels % schedule.pixels == 0
        for number in range(self.copied):
            pixel = self.frame.block[0] * schedule.pixels + self.first_pixel + number * self.pixel_step
            n, i, j = unravel(pixel, (problem.batch, rows.count, columns.count))
            h, w = i * rows.stride + first_row, j * columns.stride + first_column
            exists = None if whole else pixel < problem.pixels
            h, w = T.bind(T.int32(0) + h), T.bind(T.int32(0) + w)
            start = element(source, n, h, w, self.group * problem.inputs)
            self.places.append((T.bind(T.int32(0) + start), h, w, exists))

    def _fetch(self, chunk: Expression) -> None:
        """Reads this thread's part of a chunk from memory."""
        problem, schedule, sizes = self.problem, self.schedule, self.sizes
        rows, columns, source = problem.rows, problem.columns, problem.source
        term = T.bind(T.int32(0) + chunk * schedule.chunk + self.term)
        u, v, c = unravel(term, (rows.window, columns.window, sizes.tap))
        row, column = u * rows.step, v * columns.step
        offset = T.bind(T.int32(0) + row * source.row + column * source.pixel + c * source.channel)
        padded_tap = None if sizes.tap == problem.inputs else c < problem.inputs
        padded_end = (
            None if problem.taps * sizes.tap == sizes.chunks * schedule.chunk else term < problem.taps * sizes.tap
        )
        common = when(padded_tap, padded_end)
        common = None if common is None else T.bind(common)
        zero = T.uint16(0) if self.half else T.float32(0)
        for number, (start, h, w, exists) in enumerate(self.places):
            condition = when(
                common,
                exists,
                None if rows.within else inside(h + row, rows.length),
                None if columns.within else inside(w + column, columns.length),
            )
            value = self.frame.inputs[0][start + offset]
            T.buffer_store(
                self.patches, value if condition is None else T.if_then_else(condition, value, zero), [number]
            )
        tile = self.frame.block[2] * sizes.tiles + self.frame.block[1]
        begin = (tile * sizes.chunks + chunk) * self.weight_words
        lanes = self.weight_lanes
        with guarded(self._copies_weights()):
            for number in range(self.weight_loads):
                at = begin + (self.frame.thread + number * schedule.threads) * lanes
                T.buffer_store(self.weights, self.frame.packed[0][vector(at, lanes)], [vector(number * lanes, lanes)])

    def _copies_weights(self) -> Expression:
        few = self.weight_words < self.weight_lanes * self.schedule.threads
        return self.frame.thread < self.weight_words // self.weight_lanes if few else None

    def _keep(self, buffer: Expression) -> None:
        """Puts what was read into a buffer of shared memory."""
        schedule = self.schedule
        start = buffer * (self.patch_words + self.weight_words)
        for number in range(self.copied):
            value = self.patches[number]
            if self.half:
                # twice in one word, for two output channels
                value = T.Cast("uint32", value) * T.uint32(0x10001)
            at = start + self.term * schedule.line + self.first_pixel + number * self.pixel_step
            T.buffer_store(self.shared, value, [at])
        lanes = self.weight_lanes
        with guarded(self._copies_weights()):
            for number in range(self.weight_loads):
                at = start + self.patch_words + (self.frame.thread + number * schedule.threads) * lanes
                T.buffer_store(self.shared, self.weights[vector(number * lanes, lanes)], [vector(at, lanes)])

    # What comes after.

    def _finish(self, sums: Sums) -> None:
        """Adds the slices, and writes the outputs, neighbouring channels by neighbouring threads."""
        problem, schedule, frame = self.problem, self.schedule, self.frame
        sums.share()
        sync()
        tile = schedule.pixels * schedule.channels
        count = -(-tile // schedule.threads)
        row_phase, column_phase = self._phases()
        with T.serial(0, count) as number:
            place = T.bind(number * schedule.threads + frame.thread)
            pixel, channel = unravel(place, (schedule.pixels, schedule.channels))
            total = sums.shared_sum(place)
            for part in range(1, schedule.slices):
                total = total + sums.shared_sum(part * tile + place)
            output = T.bind(frame.block[0] * schedule.pixels + pixel)
            c = T.bind(frame.block[1] * schedule.channels + channel)
            n, i, j = unravel(output, (problem.batch, problem.rows.count, problem.columns.count))
            h, w = i * problem.rows.phases + row_phase, j * problem.columns.phases + column_phase
            condition = when(
                None if tile % schedule.threads == 0 else place < tile,
                None if problem.pixels % schedule.pixels == 0 else output < problem.pixels,
                None if problem.outputs % schedule.channels == 0 else c < problem.outputs,
                None if problem.rows.exact else h < problem.rows.outputs,
                None if problem.columns.exact else w < problem.columns.outputs,
            )
            with guarded(condition):
                bias = frame.packed[1][self.group * (self.sizes.tiles * schedule.channels) + c]
                finish(frame, total + bias, n, h, w, self.group * problem.outputs + c)
