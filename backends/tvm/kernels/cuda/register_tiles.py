"""What one thread holds of a matrix product: its tile of sums in registers, and how chunks are multiplied into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import tvm.tirx.script.builder as T

from ..specification import Schedule
from .emitting import external, guarded, quotient, remainder

__all__ = ["CHAIN", "ConvolutionSchedule", "HalfSums", "Sums", "vector"]

Expression = Any

CHAIN = 16
"""Products that are added up in float16 before they go to float32."""

PADDING = 4
"""Words after each line of patches in shared memory, so that threads write to different banks."""


@dataclass(frozen=True)
class ConvolutionSchedule(Schedule):
    """A block makes `pixels` x `channels` outputs, a thread `thread_pixels` x `thread_channels`. All are powers of 2.

    `depth` terms are in shared memory at once for each of `slices`.
    """

    template: ClassVar[str] = "convolution"
    pixels: int
    channels: int
    thread_pixels: int
    thread_channels: int
    depth: int
    slices: int

    @property
    def tile_threads(self) -> int:
        """Threads of one slice."""
        return self.pixels // self.thread_pixels * (self.channels // self.thread_channels)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.tile_threads * self.slices

    @property
    def chunk(self) -> int:
        """Terms in shared memory at once."""
        return self.depth * self.slices

    @property
    def line(self) -> int:
        """Words of one term's patches in shared memory."""
        return self.pixels + PADDING


def vector(start: Expression, lanes: int) -> Expression:
    """Returns the index of `lanes` elements side by side."""
    return start if lanes == 1 else T.Ramp(start, 1, lanes)


class Sums:
    """A thread's sums, [pixel][channel], in float32."""

    word: ClassVar[str] = "float32"

    def __init__(
        self,
        thread: Expression,
        schedule: ConvolutionSchedule,
        shared: Any,
        patch_words: int,
        weight_words: int,
    ) -> None:
        self.schedule, self.shared = schedule, shared
        self.patch_words, self.weight_words = patch_words, weight_words
        self.pixels, self.channels = schedule.thread_pixels, schedule.thread_channels
        across = schedule.channels // self.channels
        inner = remainder(thread, schedule.tile_threads) if schedule.slices > 1 else thread
        self.slice = quotient(thread, schedule.tile_threads) if schedule.slices > 1 else 0
        self.down, self.across = quotient(inner, across), remainder(inner, across)
        # a thread's channels are vectors of at most 4, the next one after those of all threads: no two read one bank
        self.lanes = min(4, self.channels)
        self.stride = across * self.lanes
        self.sums = T.alloc_buffer((self.pixels * self.channels,), "float32", scope="local")
        with T.unroll(0, self.pixels * self.channels) as number:
            T.buffer_store(self.sums, T.float32(0), [number])
        self.left = T.alloc_buffer((self.pixels,), self.word, scope="local")
        self.prepare()

    def prepare(self) -> None:
        """Allocates what the products need besides."""
        self.right = T.alloc_buffer((self.channels,), "float32", scope="local")

    def multiply(self, buffer: Expression) -> None:
        """Writes the multiply-adds of the chunk in a buffer of shared memory."""
        schedule = self.schedule
        start = buffer * (self.patch_words + self.weight_words)
        with T.unroll(0, schedule.depth) as number:
            term = self.slice * schedule.depth + number
            lanes = min(4, self.pixels)
            for pixel in range(0, self.pixels, lanes):
                at = start + term * schedule.line + self.down * self.pixels + pixel
                T.buffer_store(self.left, self.shared[vector(at, lanes)], [vector(pixel, lanes)])
            self.load_weights(start + self.patch_words, term)
            self.multiply_term()

    def load_weights(self, start: Expression, term: Expression) -> None:
        """Reads the weights of a term for this thread's channels."""
        for number in range(self.channels // self.lanes):
            at = start + term * self.schedule.channels + number * self.stride + self.across * self.lanes
            T.buffer_store(self.right, self.shared[vector(at, self.lanes)], [vector(number * self.lanes, self.lanes)])

    def multiply_term(self) -> None:
        """Writes the multiply-adds of a term."""
        with T.unroll(0, self.pixels) as pixel, T.unroll(0, self.channels) as channel:
            at = pixel * self.channels + channel
            T.buffer_store(self.sums, self.sums[at] + self.left[pixel] * self.right[channel], [at])

    def flush(self, chunk: Expression, depth: int, chunks: int) -> None:
        """Adds what was summed in less precision to the sums, where it is time for that."""

    def flush_rest(self, depth: int, chunks: int) -> None:
        """Does so after the last chunk."""

    def share(self) -> None:
        """Writes the sums to shared memory, [slice][pixel][channel]."""
        schedule = self.schedule
        with T.unroll(0, self.pixels) as pixel:
            line = (self.slice * schedule.pixels + self.down * self.pixels + pixel) * schedule.channels
            for number in range(self.channels // self.lanes):
                at = line + number * self.stride + self.across * self.lanes
                self._share_vector(at, pixel * self.channels + number * self.lanes)

    def _share_vector(self, at: Expression, place: Expression) -> None:
        value = self.sums[vector(place, self.lanes)]
        T.buffer_store(self.shared, value, [vector(at, self.lanes)])

    def shared_sum(self, place: Expression) -> Expression:
        """Returns a sum that some thread has written to shared memory."""
        return self.shared[place]


class HalfSums(Sums):
    """Sums of two channels in float16, added to those in float32 after each chain."""

    word: ClassVar[str] = "uint32"

    def prepare(self) -> None:
        self.pairs = self.channels // 2
        self.right = T.alloc_buffer((self.pairs,), "uint32", scope="local")
        self.halves = T.alloc_buffer((self.pixels * self.pairs,), "uint32", scope="local")
        self._clear()

    def _clear(self) -> None:
        with T.unroll(0, self.pixels * self.pairs) as number:
            T.buffer_store(self.halves, T.uint32(0), [number])

    def load_weights(self, start: Expression, term: Expression) -> None:
        # as for float32, but of 8 channels at most: 4 words
        schedule = self.schedule
        for number in range(self.channels // self.lanes):
            words = self.lanes // 2
            at = start + term * (schedule.channels // 2) + number * (self.stride // 2) + self.across * words
            T.buffer_store(self.right, self.shared[vector(at, words)], [vector(number * words, words)])

    def multiply_term(self) -> None:
        with T.unroll(0, self.pixels) as pixel, T.unroll(0, self.pairs) as pair:
            at = pixel * self.pairs + pair
            value = external("uint32", "multiply_add_halves", self.left[pixel], self.right[pair], self.halves[at])
            T.buffer_store(self.halves, value, [at])

    def flush(self, chunk: Expression, depth: int, chunks: int) -> None:
        every = max(1, CHAIN // depth)
        if every < chunks:
            with guarded(None if every == 1 else remainder(chunk, every) == every - 1):
                self._flush()
                self._clear()

    def flush_rest(self, depth: int, chunks: int) -> None:
        every = max(1, CHAIN // depth)
        if every >= chunks or chunks % every:
            self._flush()

    def _flush(self) -> None:
        with T.unroll(0, self.pixels * self.pairs) as number:
            for half, function in enumerate(("low_half", "high_half")):
                at = number * 2 + half
                value = self.sums[at] + external("float32", function, self.halves[number])
                T.buffer_store(self.sums, value, [at])

    def _share_vector(self, at: Expression, place: Expression) -> None:
        for lane in range(self.lanes):
            bits = external("uint32", "float_bits", self.sums[place + lane])
            T.buffer_store(self.shared, bits, [at + lane])

    def shared_sum(self, place: Expression) -> Expression:
        return external("float32", "bits_float", self.shared[place])
