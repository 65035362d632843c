"""What the GPU templates share: the function around a kernel, threads, loads and stores, the steps after the anchor.

A kernel's buffers are flat: their index is the distance in elements from where the pointer points. Values are float32
scalars; float16 numbers lie in memory as the bits of 16-bit integers and are converted where they are read and written.
Thread blocks have one dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm.tirx.script.builder as T
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import PrimFunc

from gensynth.ir import UsageError
from gensynth.ir.ops import Add, BatchNorm, HardSigmoid, HardSwish, LeakyRelu, Mul, Relu, Relu6, Sigmoid, Silu

from ..specification import KernelSpec, View, Weights

__all__ = [
    "LOWEST",
    "Frame",
    "apply_steps",
    "constant",
    "element",
    "external",
    "finish",
    "guarded",
    "inside",
    "kernel_function",
    "load",
    "loaded",
    "pack_steps",
    "quotient",
    "remainder",
    "store",
    "sync",
    "unravel",
    "when",
]

Expression = Any
"""An int32 or float32 expression of TVM; tvm has no types."""

UNKNOWN = 1 << 30
"""The size of a buffer whose end nobody asks for."""

LOWEST = float(np.finfo(np.float32).min)
"""Less than or equal to every number; minus infinity has no spelling in C without a header."""

MEMORY = {"f32": "float32", "f16": "uint16"}
"""What elements are in memory, as TVM knows them."""


@dataclass
class Frame:
    """A kernel under construction: its pointers as flat buffers, where a thread stands. `function` is there at the end.

    `operands` and `affine` are by step: the other operand of an `add` or `mul`, the (scale, shift) of a `batch_norm`.
    `packed` are the anchor's arrays of weights.
    """

    spec: KernelSpec
    inputs: tuple[Any, ...]
    operands: dict[int, Any]
    packed: tuple[Any, ...]
    affine: dict[int, tuple[Any, Any]]
    output: Any
    block: tuple[Expression, Expression, Expression]
    thread: Expression
    grid: tuple[int, int, int]
    threads: int
    _function: list[PrimFunc] = field(default_factory=list)

    @property
    def function(self) -> PrimFunc:
        """The kernel, after its `with` block."""
        return self._function[0]


@contextmanager
def kernel_function(
    name: str, spec: KernelSpec, grid: tuple[int, int, int], threads: int, packed: Sequence[str] = ()
) -> Iterator[Frame]:
    """Opens the function of a kernel of `grid` blocks of `threads`; what is written inside is what one thread does.

    Its pointers are the specification's, in order. `packed` are the TVM dtypes of the arrays that the anchor packs;
    those of `pack_steps` follow.

    Raises:
        UsageError: a value is too large for 32-bit indices, or the grid for the GPU.
    """
    _check_sizes(spec, grid)
    with IRBuilder() as builder, T.prim_func():
        T.func_name(name)
        T.func_attr({"global_symbol": name, "tirx.noalias": True})

        def pointer(label: str, dtype: str) -> Any:
            return T.arg(label, T.handle(dtype)), dtype

        inputs = [pointer(f"input{number}", MEMORY[view.dtype]) for number, view in enumerate(spec.inputs)]
        operands = {
            number: pointer(f"operand{number}", MEMORY[step.view.dtype])
            for number, step in enumerate(spec.steps)
            if step.view is not None
        }
        arrays = [pointer(f"weights{number}", dtype) for number, dtype in enumerate(packed)]
        affine = {
            number: (pointer(f"scale{number}", "float32"), pointer(f"shift{number}", "float32"))
            for number, step in enumerate(spec.steps)
            if isinstance(step.op, BatchNorm)
        }
        output = pointer("output", MEMORY[spec.output.dtype])

        def buffer(argument: tuple[Any, str]) -> Any:
            data, dtype = argument
            return T.decl_buffer((UNKNOWN,), dtype, data=data)

        with (
            T.launch_thread("blockIdx.x", grid[0]) as x,
            T.launch_thread("blockIdx.y", grid[1]) as y,
            T.launch_thread("blockIdx.z", grid[2]) as z,
            T.launch_thread("threadIdx.x", threads) as thread,
        ):
            frame = Frame(
                spec,
                tuple(buffer(item) for item in inputs),
                {number: buffer(item) for number, item in operands.items()},
                tuple(buffer(item) for item in arrays),
                {number: (buffer(scale), buffer(shift)) for number, (scale, shift) in affine.items()},
                buffer(output),
                (x, y, z),
                thread,
                grid,
                threads,
            )
            yield frame
    frame._function.append(builder.get())


def _check_sizes(spec: KernelSpec, grid: tuple[int, int, int]) -> None:
    views = [*spec.inputs, spec.output, *(step.view for step in spec.steps if step.view is not None)]
    if any(spec.batch * view.image >= 1 << 31 for view in views):
        raise UsageError(
            f"{spec.op.name}: a value of {spec.batch} images has more elements than a kernel can count",
            hint="compile for a smaller batch",
        )
    if grid[0] >= 1 << 31 or max(grid[1:]) >= 1 << 16:
        raise UsageError(
            f"{spec.op.name}: a grid of {grid} blocks is more than a GPU takes", hint="compile for a smaller batch"
        )


# Indices, loads and stores.


def element(view: View, n: Expression, h: Expression, w: Expression, c: Expression = 0) -> Expression:
    """Returns where an element lies in a view's buffer."""
    return n * view.image + h * view.row + w * view.pixel + c * view.channel


def unravel(index: Expression, sizes: Sequence[int]) -> tuple[Expression, ...]:
    """Returns the coordinates of a non-negative index in an array of these sizes, the last fastest."""
    coordinates: list[Expression] = []
    for number, size in reversed(list(enumerate(sizes))):
        if size == 1:
            coordinates.append(0)
        elif all(before == 1 for before in sizes[:number]):
            coordinates.append(index)
            index = 0
        else:
            coordinates.append(T.bind(T.truncmod(index, size)))
            index = T.bind(T.truncdiv(index, size))
    return tuple(reversed(coordinates))


def quotient(index: Expression, by: int) -> Expression:
    """Returns a non-negative index divided by a number."""
    return index if by == 1 else T.truncdiv(index, by)


def remainder(index: Expression, by: int) -> Expression:
    """Returns what a non-negative index leaves when divided by a number."""
    return 0 if by == 1 else T.truncmod(index, by)


def inside(index: Expression, length: int) -> Expression:
    """Returns whether an index, which may be negative, lies in [0, length)."""
    return T.And(index >= 0, index < length)


def when(*conditions: Expression) -> Expression:
    """Returns whether all of some conditions hold; None stands for one that always does, and is returned for none."""
    result = None
    for condition in conditions:
        if condition is not None:
            result = condition if result is None else T.And(result, condition)
    return result


@contextmanager
def guarded(condition: Expression) -> Iterator[None]:
    """Opens an `if`, or nothing where the condition is None."""
    if condition is None:
        yield
    else:
        with T.If(condition), T.Then():
            yield


def external(dtype: str, function: str, *arguments: Expression) -> Expression:
    """Returns the call of a device function without effects."""
    return T.call_pure_extern(dtype, function, *arguments)


def constant(value: float) -> Expression:
    """Returns a float32 number."""
    return T.float32(float(np.float32(value)))


def loaded(buffer: Any, view: View, index: Expression) -> Expression:
    """Returns an element as float32."""
    return external("float32", "half_to_float", buffer[index]) if view.dtype == "f16" else buffer[index]


def load(
    buffer: Any,
    view: View,
    n: Expression,
    h: Expression,
    w: Expression,
    c: Expression,
    condition: Expression = None,
    otherwise: float = 0.0,
) -> Expression:
    """Returns an element as float32, or `otherwise`, without touching memory, where `condition` does not hold."""
    value = loaded(buffer, view, element(view, n, h, w, c))
    return value if condition is None else T.if_then_else(condition, value, constant(otherwise))


def store(frame: Frame, value: Expression, n: Expression, h: Expression, w: Expression, c: Expression) -> None:
    """Writes an element of the output."""
    view = frame.spec.output
    if view.dtype == "f16":
        value = external("uint16", "float_to_half", value)
    T.buffer_store(frame.output, value, [element(view, n, h, w, c)])


def finish(frame: Frame, value: Expression, n: Expression, h: Expression, w: Expression, c: Expression) -> None:
    """Applies the steps to an element of the anchor's result, and writes it to the output."""
    store(frame, apply_steps(frame, value, n, h, w, c), n, h, w, c)


def sync() -> None:
    """Waits for all threads of the block."""
    T.evaluate(T.tvm_storage_sync("shared"))


# Steps.


def pack_steps(spec: KernelSpec, weights: Weights) -> tuple[npt.NDArray[np.float32], ...]:
    """Returns the arrays that the steps read, after the anchor's own: scale and shift of each batch norm, float32."""
    return tuple(
        np.ascontiguousarray(weights[f"{number}.{name}"], np.float32)
        for number, step in enumerate(spec.steps)
        if isinstance(step.op, BatchNorm)
        for name in ("scale", "shift")
    )


def apply_steps(
    frame: Frame, value: Expression, n: Expression, h: Expression, w: Expression, c: Expression
) -> Expression:
    """Returns the steps' result for an element of the anchor's, at a place of the output."""
    for number, step in enumerate(frame.spec.steps):
        # bound to a name, since an activation reads its operand more than once
        value = T.bind(value)
        op = step.op
        if isinstance(op, BatchNorm):
            scale, shift = frame.affine[number]
            value = value * scale[c] + shift[c]
        elif isinstance(op, (Add, Mul)) and step.view is not None:
            other = _operand(frame, number, step.view, n, h, w, c)
            value = value + other if isinstance(op, Add) else value * other
        else:
            value = _activated(op, value)
    return value


def _operand(
    frame: Frame, number: int, view: View, n: Expression, h: Expression, w: Expression, c: Expression
) -> Expression:
    """Returns a step's other operand, repeated along the axes where it has one element and the output more."""
    output = frame.spec.output
    return load(
        frame.operands[number],
        view,
        n,
        h if view.height == output.height else 0,
        w if view.width == output.width else 0,
        c if view.channels == output.channels else 0,
    )


def _activated(op: Any, x: Expression) -> Expression:
    def clipped(value: Expression) -> Expression:
        return T.min(T.max(value, constant(0.0)), constant(6.0))

    def logistic() -> Expression:
        return constant(1.0) / (constant(1.0) + external("float32", "expf", constant(0.0) - x))

    if isinstance(op, Relu):
        return T.max(x, constant(0.0))
    if isinstance(op, Relu6):
        return clipped(x)
    if isinstance(op, LeakyRelu):
        return T.Select(x >= constant(0.0), x, x * constant(op.slope))
    if isinstance(op, Sigmoid):
        return logistic()
    if isinstance(op, Silu):
        return x * logistic()
    if isinstance(op, HardSigmoid):
        return clipped(x + constant(3.0)) * constant(1.0 / 6.0)
    if isinstance(op, HardSwish):
        return x * (clipped(x + constant(3.0)) * constant(1.0 / 6.0))
    raise UsageError(
        f"there is no GPU code for {op.name} as a step after another op",
        hint="it has to be an activation, batch_norm, or add or mul with another operand",
    )
