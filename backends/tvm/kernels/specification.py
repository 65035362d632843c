"""What a kernel is to compute, and the protocol of the templates that write it.

A kernel is one op, its *anchor*, and the pointwise *steps* that follow it, on values that lie in memory as `View`s. Two
spots of a network with equal specifications share one kernel. A `Template` writes it as a TVM PrimFunc, by a
*schedule*: a frozen dataclass of plain fields that says how to tile, vectorize and unroll.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from tvm.tirx import PrimFunc

from gensynth.ir import Op, UsageError

from ..targets import Target

__all__ = [
    "Emitted",
    "KernelSpec",
    "Schedule",
    "Step",
    "Template",
    "View",
    "Weights",
    "ZeroHalo",
    "template",
    "templates_of",
]

Weights = Mapping[str, npt.NDArray[np.float32]]
"""A kernel's weights: the anchor's by local name (`weight`, `bias`), and for the batch norm of step i, already brought
to y = scale x + shift, `i.scale` and `i.shift`, each [channels]."""


@dataclass(frozen=True)
class View:
    """How a kernel sees one value: an image of channels in memory, strides in elements.

    A value [N, C] is an image of height and width 1; one of another rank is one whose channels are the last axis. A
    kernel's pointer points at element [0, 0, 0, 0]; element [n, h, w, c] lies `n image + h row + w pixel + c channel`
    further. `halo` says how many zero elements lie around the image in memory, (top, bottom, left, right): a kernel may
    read there, and never writes there. `channel` is 1 but for the caller's own NCHW arrays, which are float32 (`dtype`)
    also where activations are float16. A stride of 0 repeats elements.
    """

    channels: int
    height: int
    width: int
    image: int
    row: int
    pixel: int
    channel: int = 1
    halo: tuple[int, int, int, int] = (0, 0, 0, 0)
    dtype: str = "f32"


@dataclass(frozen=True)
class Step:
    """One pointwise op after the anchor: an activation, `batch_norm`, or `add` or `mul` with another operand.

    The other operand, `view`, has the output's channels or 1, and its height and width or 1 (broadcast).
    """

    op: Op
    view: View | None = None


@dataclass(frozen=True)
class KernelSpec:
    """One kernel: `output = steps(op(inputs))`, for `batch` images.

    `op` is `identity` where there is no anchor but steps alone. `dtype` is that of weights in memory, and of
    activations but for the caller's arrays, which only `identity` reads or writes (it converts). On a CPU an input's
    halo holds at least the zeros that a convolution reads; other kernels, and all on a GPU, check bounds.

    The function that a template writes takes pointers to the inputs, to the steps' operands in order, to the arrays
    that `pack` returns in order, and to the output; on a CPU then two int32, `begin` and `end`: it is to do the tasks
    in [begin, end). Tasks may run at the same time in any order.
    """

    op: Op
    batch: int
    inputs: tuple[View, ...]
    output: View
    steps: tuple[Step, ...] = ()
    dtype: str = "f32"


class ZeroHalo(Op):
    """The anchor of kernels that write zeros around the image of their output, and nothing else. No op of the IR."""

    name = "zero_halo"
    attributes: ClassVar = {}
    _key = ("zero_halo",)
    _hash = hash("zero_halo")


class Schedule:
    """Base of schedules, frozen dataclasses whose fields are int, bool or str."""

    template: ClassVar[str] = ""

    def as_dict(self) -> dict[str, int | bool | str]:
        """Returns the fields, for a tuning record."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.template}{{{', '.join(f'{name}={value}' for name, value in self.as_dict().items())}}}"


@dataclass(frozen=True)
class Emitted:
    """A kernel as written: the function, on a CPU how many tasks it has, on a GPU its launch, in blocks and threads."""

    function: PrimFunc
    tasks: int = 1
    grid: tuple[int, int, int] = (1, 1, 1)
    block: tuple[int, int, int] = (1, 1, 1)


class Template(Protocol):
    """Writes kernels for some specifications."""

    name: str
    """The template's name, unique for its kind of target; kernels' names begin with it."""

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[Any]:
        """Returns the schedules worth trying, the best guess first; none where the template does not take the spec."""

    def schedule(self, fields: Mapping[str, Any]) -> Any:
        """Returns the schedule with these fields, as a tuning record has them."""

    def cost(self, spec: KernelSpec, schedule: Any, target: Target) -> float:
        """Returns about how many cycles of one core the kernel takes: what templates are ranked by without tuning."""

    def pack(self, spec: KernelSpec, schedule: Any, weights: Weights, target: Target) -> tuple[npt.NDArray[Any], ...]:
        """Returns the arrays of weights as the kernel reads them, in the order of its pointers."""

    def emit(self, spec: KernelSpec, schedule: Any, target: Target, name: str) -> Emitted:
        """Returns the kernel as a function called `name`."""


_templates: dict[tuple[str, type[Op]], list[Template]] = {}


def template(kind: str, *ops: type[Op]) -> Callable[[type[Any]], type[Any]]:
    """Registers the template class below it for these anchors, on targets of `kind` (`cpu` or `cuda`)."""

    def register(cls: type[Any]) -> type[Any]:
        made = cls()
        for op in ops:
            _templates.setdefault((kind, op), []).append(made)
        return cls

    return register


def templates_of(spec: KernelSpec, target: Target) -> tuple[Template, ...]:
    """Returns the templates for a specification's anchor.

    Raises:
        UsageError: none is registered.
    """
    found = _templates.get((target.kind, type(spec.op)))
    if not found:
        raise UsageError(
            f"there is no {target.kind} kernel for {spec.op.name}",
            hint=f"register one: @gensynth.backends.tvm.kernels.template({target.kind!r}, {type(spec.op).__name__})",
        )
    return tuple(found)
