"""The times of single kernels on this machine, for choosing among schedules."""

from __future__ import annotations

import _ctypes
import ctypes
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gensynth.ir import UsageError

from .generating import MAX_POINTERS
from .toolchain import find_toolchain, host_triple

__all__ = ["KernelBuffer", "KernelCall", "time_kernels"]

_RUNTIME = Path(__file__).parent / "runtime"
_MARGIN = 64

_ROUNDS = 5
_HOPELESS = 1.5
"""A kernel that takes so many times as long as the best of its group after a round is not timed further."""


@dataclass(frozen=True)
class KernelBuffer:
    """Memory that one pointer argument points to: `bytes` from the pointer on, and `before` in front of it.

    `cold` says that its content shall not be in the caches that `evict` empties: weights, in a network of many layers.
    """

    bytes: int
    before: int = 0
    cold: bool = False


@dataclass(frozen=True)
class KernelCall:
    """One call of a kernel: the function's name, memory for each of its pointers, its tasks, threads that share them.

    Calls of one `group` compute the same; those much slower than the best of their group are timed but roughly.
    """

    name: str
    buffers: tuple[KernelBuffer, ...]
    tasks: int
    threads: int = 1
    group: int | None = None


def time_kernels(
    object_code: bytes, calls: Sequence[KernelCall], *, sample: float = 2e-4, evict: int = 0
) -> list[float]:
    """Returns the nanoseconds of each call: the least of several samples, taken in turns.

    `object_code` is an object file for this machine, with kernels in C's calling convention: pointers, then two int32
    (the first task to do, and the one after the last). A sample takes `sample` seconds, or one call where that is
    longer.
    With `evict` bytes (twice the L2 cache, say), so much other memory is read before each call, and then what is not
    cold; a sample is then of one call, and the clock adds some 50 ns to it.

    Raises:
        UsageError: there is no C compiler to link with, or the object has no such kernel.
    """
    for call in calls:
        if not 1 <= len(call.buffers) <= MAX_POINTERS or call.tasks < 1 or call.threads < 1:
            raise UsageError(
                f"{call.name} cannot be timed with {len(call.buffers)} pointers, {call.tasks} tasks and "
                f"{call.threads} threads",
                hint=f"give 1 to {MAX_POINTERS} pointers, and tasks and threads from 1 on",
            )
    best = [float("inf")] * len(calls)
    with _library(object_code) as library, _pools(library, calls) as pools:
        memory = _Memory(evict)
        trials = [_Trial(library, pools[call.threads], call, memory) for call in calls]
        for number in range(_ROUNDS):
            leaders: dict[int | None, float] = {}
            for call, time in zip(calls, best, strict=True):
                leaders[call.group] = min(time, leaders.get(call.group, float("inf")))
            for index, (call, trial) in enumerate(zip(calls, trials, strict=True)):
                if number and call.group is not None and best[index] > _HOPELESS * leaders[call.group]:
                    continue
                best[index] = min(best[index], trial.sample(sample * 1e9))
    return best


class _Memory:
    """Memory for kernels to run on. They run one after another, so that those of equal shapes share it."""

    def __init__(self, evict: int) -> None:
        self.evict = evict
        self._kept: dict[tuple[int, KernelBuffer], npt.NDArray[np.uint8]] = {}
        self._scratch: list[npt.NDArray[np.uint8]] = []

    def pointer(self, index: int, buffer: KernelBuffer) -> int:
        """Returns the address for an argument."""
        memory = self._kept.get((index, buffer))
        if memory is None:
            memory = self._kept[index, buffer] = _floats(buffer.before + buffer.bytes + 2 * _MARGIN)
        return _address(memory) + _MARGIN + buffer.before

    def scratch(self, thread: int) -> int:
        """Returns the address of what a thread reads to empty its caches."""
        while len(self._scratch) <= thread:
            # not zeros: the system would give one page of them for all
            self._scratch.append(np.ones(max(self.evict, 1), np.uint8))
        return _address(self._scratch[thread])


class _Trial:
    """A kernel and its arguments."""

    def __init__(self, library: ctypes.CDLL, pool: ctypes.c_void_p, call: KernelCall, memory: _Memory) -> None:
        try:
            self._function = ctypes.cast(getattr(library, call.name), ctypes.c_void_p)
        except AttributeError:
            raise UsageError(f"the object has no kernel {call.name}", hint="name one of its functions") from None
        self._library, self._pool, self._call, self._evict = library, pool, call, memory.evict
        count = len(call.buffers)
        self._pointers = (ctypes.c_void_p * count)(*(memory.pointer(i, each) for i, each in enumerate(call.buffers)))
        self._bytes = (ctypes.c_size_t * count)(*(buffer.bytes for buffer in call.buffers))
        self._cold = (ctypes.c_int * count)(*(int(buffer.cold) for buffer in call.buffers))
        self._scratch = (ctypes.c_void_p * call.threads)(*map(memory.scratch, range(call.threads)))

    def sample(self, least: float) -> float:
        """Returns the least nanoseconds per call of a few samples that last `least` nanoseconds each."""
        samples = (ctypes.c_double * 3)()
        self._library.gs_time_kernel(
            self._pool,
            self._function,
            ctypes.c_int(len(self._call.buffers)),
            self._pointers,
            self._bytes,
            self._cold,
            ctypes.c_int(self._call.tasks),
            ctypes.c_int(self._call.threads),
            ctypes.c_size_t(self._evict),
            self._scratch,
            ctypes.c_double(least),
            ctypes.c_int(len(samples)),
            samples,
        )
        return min(float(each) for each in samples)


def _floats(size: int) -> npt.NDArray[np.uint8]:
    """Returns memory aligned to 64 bytes, full of numbers from -1 to 1: none slows a kernel."""
    raw = np.empty(size + 128, np.uint8)
    start = -_address(raw) % 64
    memory = raw[start : start + (size + 63) // 64 * 64]
    memory.view(np.float32)[...] = np.random.default_rng(0).uniform(-1, 1, len(memory) // 4)
    return memory


def _address(memory: npt.NDArray[np.uint8]) -> int:
    return int(memory.ctypes.data)


@contextmanager
def _library(object_code: bytes) -> Iterator[ctypes.CDLL]:
    toolchain = find_toolchain(host_triple(), portable=False)
    with tempfile.TemporaryDirectory(prefix="gensynth-") as folder:
        objects = []
        for name in ("timing.c", "threads.c"):
            objects.append(Path(folder) / f"{name}.o")
            objects[-1].write_bytes(toolchain.compile_cached(_RUNTIME / name))
        objects.append(Path(folder) / "kernels.o")
        objects[-1].write_bytes(object_code)
        path = Path(folder) / "kernels.so"
        toolchain.link(objects, path, "-shared")
        library = ctypes.CDLL(str(path))
    library.gs_timing_open.restype = ctypes.c_void_p
    library.gs_time_kernel.restype = library.gs_timing_close.restype = None
    try:
        yield library
    finally:
        _ctypes.dlclose(library._handle)


@contextmanager
def _pools(library: ctypes.CDLL, calls: Sequence[KernelCall]) -> Iterator[dict[int, ctypes.c_void_p]]:
    """Yields threads for each number of threads that calls ask for."""
    pools: dict[int, ctypes.c_void_p] = {}
    try:
        for threads in sorted({call.threads for call in calls}):
            pool = library.gs_timing_open(ctypes.c_int(threads))
            if pool is None:
                raise UsageError(f"the system gives no {threads} threads", hint="time with fewer")
            pools[threads] = ctypes.c_void_p(pool)
        yield pools
    finally:
        for made in pools.values():
            library.gs_timing_close(made)
