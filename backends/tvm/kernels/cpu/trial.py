"""Running single kernels on this machine: to prove that they compute what they should, and to time them.

trials = compile_trials([(spec, template, schedule), ...], target)
result = trials[0].run([x], weights={"weight": w})
trials[0].seconds()
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...objects import compile_objects, link_shared
from ...targets import Target
from ..specification import Emitted, KernelSpec, Template, View

__all__ = ["Trial", "TrialResult", "compile_trials"]

Floats = npt.NDArray[np.float32]

_MARGIN = 16
"""Elements around an image that may be read: the 64 bytes that the arena has on both sides."""

_UNREADABLE, _UNWRITABLE = np.array(0x7FC0DEAD, np.uint32), np.array(0x7FC0BEEF, np.uint32)
"""NaNs like no others, wherever a kernel has no business around its inputs and its output: what it reads there shows in
the result, and what it writes there is another number."""


@dataclass(frozen=True)
class TrialResult:
    """What a kernel computed, [N, C, H, W], and how many elements outside its output it changed."""

    output: Floats
    strayed: int


class _Memory:
    """An image in memory as a view says, canaries in between."""

    def __init__(self, view: View, batch: int, canary: npt.NDArray[np.uint32] = _UNREADABLE) -> None:
        top, bottom, left, right = view.halo
        before = top * view.row + left * view.pixel
        after = (
            (batch - 1) * view.image
            + (view.height - 1 + bottom) * view.row
            + (view.width - 1 + right) * view.pixel
            + (view.channels - 1) * view.channel
        )
        size = _MARGIN + before + after + 1 + _MARGIN
        raw = np.full(size + 16, canary, np.uint32)
        shift = -(raw.ctypes.data // 4) % 16
        self.words = raw[shift : shift + size]
        self.floats: Floats = self.words.view(np.float32)
        self.view, self.batch, self.origin = view, batch, _MARGIN + before
        if any(view.halo):
            self._window(top, bottom, left, right)[...] = 0.0

    @property
    def image(self) -> Floats:
        """The elements, [N, C, H, W]."""
        return self._window(0, 0, 0, 0)

    def _window(self, top: int, bottom: int, left: int, right: int) -> Floats:
        view = self.view
        first = self.origin - top * view.row - left * view.pixel
        shape = (self.batch, view.channels, view.height + top + bottom, view.width + left + right)
        strides = tuple(4 * stride for stride in (view.image, view.channel, view.row, view.pixel))
        return np.lib.stride_tricks.as_strided(self.floats[first:], shape, strides)

    @property
    def pointer(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.words.ctypes.data + 4 * self.origin)


@dataclass
class Trial:
    """A kernel that was compiled for this machine."""

    spec: KernelSpec
    template: Template
    schedule: Any
    emitted: Emitted
    target: Target
    function: Any
    library: Any = field(repr=False)
    _held: Any = field(default=None, repr=False)

    def run(
        self,
        inputs: Sequence[npt.ArrayLike],
        operands: Sequence[npt.ArrayLike] = (),
        weights: Mapping[str, Floats] | None = None,
    ) -> TrialResult:
        """Runs the kernel on images [N, C, H, W] of the views' sizes, `operands` being those of its steps in order."""
        arguments, memory = self._arguments(inputs, operands, weights or {})
        # in two parts, as two threads would
        middle = self.emitted.tasks // 2
        self.function(*arguments, ctypes.c_int32(middle), ctypes.c_int32(self.emitted.tasks))
        self.function(*arguments, ctypes.c_int32(0), ctypes.c_int32(middle))
        output = memory.image.copy()
        memory.image.view(np.uint32)[...] = _UNWRITABLE
        return TrialResult(output, int(np.count_nonzero(memory.words != _UNWRITABLE)))

    def seconds(self, budget: float = 0.05, weights: Mapping[str, Floats] | None = None) -> float:
        """Returns the least time of one call on one core, measured for about `budget` seconds on arbitrary numbers."""
        random = np.random.default_rng(0)
        views = [*self.spec.inputs, *(step.view for step in self.spec.steps if step.view is not None)]
        images = [
            random.standard_normal((self.spec.batch, view.channels, view.height, view.width), np.float32)
            for view in views
        ]
        count = len(self.spec.inputs)
        arguments, _ = self._arguments(images[:count], images[count:], weights or {})
        arguments += [ctypes.c_int32(0), ctypes.c_int32(self.emitted.tasks)]
        self.function(*arguments)
        start = time.perf_counter()
        self.function(*arguments)
        once = max(time.perf_counter() - start, 1e-7)
        calls = max(1, int(budget / 5 / once))
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(calls):
                self.function(*arguments)
            best = min(best, (time.perf_counter() - start) / calls)
        return best

    def _arguments(
        self, inputs: Sequence[npt.ArrayLike], operands: Sequence[npt.ArrayLike], weights: Mapping[str, Floats]
    ) -> tuple[list[Any], _Memory]:
        views = [*self.spec.inputs, *(step.view for step in self.spec.steps if step.view is not None)]
        memories = []
        for view, values in zip(views, (*inputs, *operands), strict=True):
            memory = _Memory(view, self.spec.batch)
            memory.image[...] = values
            memories.append(memory)
        packed = [_aligned(array) for array in self.template.pack(self.spec, self.schedule, weights, self.target)]
        output = _Memory(replace(self.spec.output, halo=(0, 0, 0, 0)), self.spec.batch, _UNWRITABLE)
        self._held = (memories, packed, output)  # the pointers keep nothing alive
        arguments: list[Any] = [memory.pointer for memory in memories]
        arguments += [ctypes.c_void_p(array.ctypes.data) for array in packed]
        return [*arguments, output.pointer], output


def _aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns a copy that begins at a multiple of 64 bytes."""
    raw = np.zeros(array.nbytes + 128, np.uint8)
    shift = -raw.ctypes.data % 64
    copy = raw[shift : shift + array.nbytes].view(array.dtype)
    copy[...] = array.ravel()
    return copy


def compile_trials(items: Sequence[tuple[KernelSpec, Template, Any]], target: Target) -> tuple[Trial, ...]:
    """Returns the kernels of some (specification, template, schedule), compiled and loaded.

    Raises:
        UsageError: there is no C compiler to link with.
    """
    emitted = [
        template.emit(spec, schedule, target, f"trial{number}")
        for number, (spec, template, schedule) in enumerate(items)
    ]
    code = compile_objects({f"trial{number}": kernel.function for number, kernel in enumerate(emitted)}, target)
    with tempfile.TemporaryDirectory(prefix="gensynth-") as folder:
        path = Path(folder) / "kernels.so"
        link_shared(code, path)
        library = ctypes.CDLL(str(path))  # stays mapped when the file is gone
    trials = []
    for number, ((spec, template, schedule), kernel) in enumerate(zip(items, emitted, strict=True)):
        function = library[f"trial{number}"]
        function.restype = None
        trials.append(Trial(spec, template, schedule, kernel, target, function, library))
    return tuple(trials)
