"""Running single GPU kernels on the CPU, to prove that they compute what they should.

trials = compile_trials([(spec, template, schedule), ...], target)
result = trials[0].run([x], weights={"weight": w})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cuda import cuda_source
from ...shim import Launch, Place, Shim, build_shim
from ...targets import Target
from ..specification import Emitted, KernelSpec, Template, View

__all__ = ["Trial", "TrialResult", "compile_trials"]

Floats = npt.NDArray[np.float32]

_MARGIN = 16
"""Elements around a value that no kernel has business with."""


@dataclass(frozen=True)
class TrialResult:
    """What a kernel computed, [N, C, H, W], and how many elements outside its output it changed."""

    output: Floats
    strayed: int


class _Memory:
    """A value in memory as a view says, NaNs in between."""

    def __init__(self, view: View, batch: int) -> None:
        self.dtype: Any = np.float16 if view.dtype == "f16" else np.float32
        last = (
            (batch - 1) * view.image
            + (view.height - 1) * view.row
            + (view.width - 1) * view.pixel
            + (view.channels - 1) * view.channel
        )
        self.elements = np.full(last + 1 + 2 * _MARGIN, np.nan, self.dtype)
        self.view, self.batch = view, batch

    @property
    def image(self) -> npt.NDArray[Any]:
        """The elements, [N, C, H, W]."""
        view, size = self.view, self.elements.itemsize
        shape = (self.batch, view.channels, view.height, view.width)
        strides = tuple(size * stride for stride in (view.image, view.channel, view.row, view.pixel))
        return np.lib.stride_tricks.as_strided(self.elements[_MARGIN:], shape, strides)

    @property
    def offset(self) -> int:
        return _MARGIN * self.elements.itemsize


@dataclass
class Trial:
    """A kernel that was compiled for this machine."""

    spec: KernelSpec
    template: Template
    schedule: Any
    emitted: Emitted
    target: Target
    name: str
    source: str = field(repr=False)
    _shim: Shim = field(repr=False)

    def run(
        self,
        inputs: Sequence[npt.ArrayLike],
        operands: Sequence[npt.ArrayLike] = (),
        weights: Mapping[str, Floats] | None = None,
        *,
        backward: bool = False,
    ) -> TrialResult:
        """Runs the kernel on images [N, C, H, W] of the views' sizes, `operands` being those of its steps in order.

        With `backward` the threads of a block run in the opposite order between barriers.
        """
        views = [*self.spec.inputs, *(step.view for step in self.spec.steps if step.view is not None)]
        buffers: dict[str, npt.NDArray[Any]] = {}
        places = []
        for number, (view, values) in enumerate(zip(views, (*inputs, *operands), strict=True)):
            memory = _Memory(view, self.spec.batch)
            memory.image[...] = np.asarray(values, memory.dtype)
            buffers[f"value{number}"] = memory.elements
            places.append(Place(f"value{number}", memory.offset))
        for number, array in enumerate(self.template.pack(self.spec, self.schedule, weights or {}, self.target)):
            raw = np.zeros(array.nbytes + 64, np.uint8)
            start = -raw.ctypes.data % 64
            raw[start : start + array.nbytes] = np.ascontiguousarray(array).view(np.uint8).ravel()
            buffers[f"weights{number}"] = raw
            places.append(Place(f"weights{number}", start))
        output = _Memory(self.spec.output, self.spec.batch)
        buffers["output"] = output.elements
        places.append(Place("output", output.offset))
        launch = Launch(self.name, self.emitted.grid, self.emitted.block, tuple(places))
        self._shim.launch([launch], buffers, backward=backward)
        found = output.image.astype(np.float32)
        output.image[...] = np.nan
        return TrialResult(found, int(np.count_nonzero(~np.isnan(output.elements))))


def compile_trials(items: Sequence[tuple[KernelSpec, Template, Any]], target: Target) -> tuple[Trial, ...]:
    """Returns the kernels of some (specification, template, schedule), compiled for this machine.

    Raises:
        UsageError: there is no C++ compiler.
    """
    emitted = [
        template.emit(spec, schedule, target, f"trial{number}")
        for number, (spec, template, schedule) in enumerate(items)
    ]
    source = cuda_source({f"trial{number}": kernel.function for number, kernel in enumerate(emitted)}, target)
    # they run once or twice: less work for the compiler is more than made up for
    shim = build_shim(source, ("-O0",))
    return tuple(
        Trial(spec, template, schedule, kernel, target, f"trial{number}", source, shim)
        for number, ((spec, template, schedule), kernel) in enumerate(zip(items, emitted, strict=True))
    )
