"""What the CPU templates share: the function around a kernel, vectors of channels, and the steps after the anchor.

A kernel's buffers are flat: their index is the distance in elements from where the pointer points, negative in a halo.
An index, a task or a coordinate is an int or an int32 expression; a value is a float32 expression of one or more lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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

from ...targets import Target
from ..specification import KernelSpec, View, Weights
from .arithmetic import constant, lanes_of, largest, logistic, smallest, spread

__all__ = [
    "Frame",
    "apply_steps",
    "branch",
    "element",
    "finish",
    "kernel_function",
    "load",
    "loop",
    "over_channels",
    "pack_steps",
    "padded",
    "pieces",
    "span",
    "store",
    "unravel",
]

Expression = Any
"""An int32 or float32 expression of TVM; tvm has no types."""

UNKNOWN = 1 << 30
"""The size of a buffer whose end nobody asks for."""


@dataclass
class Frame:
    """The pointers of a kernel under construction, as flat buffers; `function` is there once it is written.

    `operands` and `affine` are by step: the other operand of an `add` or `mul`, the (scale, shift) of a `batch_norm`.
    `packed` are the anchor's arrays of weights.
    """

    spec: KernelSpec
    target: Target | None
    inputs: tuple[Any, ...]
    operands: dict[int, Any]
    packed: tuple[Any, ...]
    affine: dict[int, tuple[Any, Any]]
    output: Any
    begin: Expression
    end: Expression
    _function: list[PrimFunc] = field(default_factory=list)

    @property
    def function(self) -> PrimFunc:
        """The kernel, after its `with` block."""
        return self._function[0]


@contextmanager
def kernel_function(
    name: str, spec: KernelSpec, packed: int | Sequence[str] = 0, target: Target | None = None
) -> Iterator[Frame]:
    """Opens the function of a kernel; what is written inside is its body.

    Its pointers are the specification's, in order, then `begin` and `end`. `packed` says how many arrays the anchor
    packs, or gives their dtypes (`float32` or `int32`); those of `pack_steps` follow.
    """
    dtypes = ("float32",) * packed if isinstance(packed, int) else tuple(packed)
    with IRBuilder() as builder, T.prim_func():
        T.func_name(name)
        T.func_attr({"global_symbol": name, "tirx.noalias": True})

        def pointer(label: str, dtype: str = "float32") -> Any:
            return T.arg(label, T.handle(dtype))

        inputs = [pointer(f"input{number}") for number in range(len(spec.inputs))]
        operands = {
            number: pointer(f"operand{number}") for number, step in enumerate(spec.steps) if step.view is not None
        }
        arrays = [pointer(f"weights{number}", dtype) for number, dtype in enumerate(dtypes)]
        affine = {
            number: (pointer(f"scale{number}"), pointer(f"shift{number}"))
            for number, step in enumerate(spec.steps)
            if isinstance(step.op, BatchNorm)
        }
        output = pointer("output")
        begin, end = T.arg("begin", T.int32()), T.arg("end", T.int32())

        def buffer(data: Any, dtype: str = "float32") -> Any:
            return T.decl_buffer((UNKNOWN,), dtype, data=data)

        frame = Frame(
            spec,
            target,
            tuple(buffer(data) for data in inputs),
            {number: buffer(data) for number, data in operands.items()},
            tuple(buffer(data, dtype) for data, dtype in zip(arrays, dtypes, strict=True)),
            {number: (buffer(scale), buffer(shift)) for number, (scale, shift) in affine.items()},
            buffer(output),
            begin,
            end,
        )
        yield frame
    frame._function.append(builder.get())


# Indices.


def pieces(channels: int, lanes: int) -> Iterator[tuple[int, int]]:
    """Yields the vectors that cover so many channels exactly, as (first channel, width): full ones, then powers of two.

    13 channels in vectors of 8 are (0, 8), (8, 4), (12, 1).
    """
    start = 0
    while start < channels:
        while lanes > channels - start:
            lanes //= 2
        yield start, lanes
        start += lanes


def padded(channels: int, lanes: int) -> int:
    """Returns the number of channels in whole vectors."""
    return -(-channels // lanes) * lanes


def span(start: Expression, lanes: int, stride: int = 1) -> Expression:
    """Returns the index of `lanes` elements from `start` on, `stride` apart."""
    return start if lanes == 1 else T.Ramp(start, stride, lanes)


def element(view: View, n: Expression, h: Expression, w: Expression, c: Expression = 0) -> Expression:
    """Returns where an element lies in a view's buffer."""
    return n * view.image + h * view.row + w * view.pixel + c * view.channel


def load(buffer: Any, view: View, n: Expression, h: Expression, w: Expression, c: Expression, lanes: int) -> Expression:
    """Returns `lanes` channels of a view from channel `c` on."""
    start = element(view, n, h, w, c)
    return spread(buffer[start], lanes) if view.channel == 0 else buffer[span(start, lanes, view.channel)]


def store(frame: Frame, value: Expression, n: Expression, h: Expression, w: Expression, c: Expression) -> None:
    """Writes a vector of channels, from channel `c` on, to the output and nowhere else."""
    view = frame.spec.output
    T.buffer_store(frame.output, value, [span(element(view, n, h, w, c), lanes_of(value), view.channel)])


def finish(frame: Frame, value: Expression, n: Expression, h: Expression, w: Expression, c: Expression) -> None:
    """Applies the steps to a vector of channels of the anchor's result, and writes it to the output."""
    store(frame, apply_steps(frame, value, n, h, w, c, lanes_of(value)), n, h, w, c)


def unravel(index: Expression, sizes: Sequence[int]) -> tuple[Expression, ...]:
    """Returns the coordinates of a non-negative index in an array of these sizes, the last fastest."""
    coordinates: list[Expression] = []
    for number, size in reversed(list(enumerate(sizes))):
        if size == 1:
            coordinates.append(0)
        elif number == 0 or all(before == 1 for before in sizes[:number]):
            coordinates.append(index)
            index = 0
        else:
            # not //, which for an index that could be negative takes several instructions more
            coordinates.append(T.bind(T.truncmod(index, size)))
            index = T.bind(T.truncdiv(index, size))
    return tuple(reversed(coordinates))


# Loops.


@contextmanager
def loop(count: int, unroll: bool = False) -> Iterator[Expression]:
    """Opens a loop; of one turn, none: the index is then 0."""
    if count == 1:
        yield 0
    else:
        with (T.unroll if unroll else T.serial)(0, count) as index:
            yield index


def over_channels(channels: int, lanes: int, body: Callable[[Expression, int], None], at_once: int = 1) -> None:
    """Writes a loop over vectors of channels, `at_once` in each turn, and then what is left, each vector exactly.

    `body` takes the first channel and the width, which is `at_once` vectors in the loop: it cuts them by `pieces`.
    """
    block = lanes * at_once
    whole = channels // block
    if whole:
        with loop(whole) as number:
            body(number * block, block)
    start, rest = whole * block, channels % block
    if rest >= lanes:
        body(start, rest // lanes * lanes)
        start, rest = start + rest // lanes * lanes, rest % lanes
    for begin, width in pieces(rest, lanes):
        body(start + begin, width)


def branch(index: Expression, first: tuple[int, Callable[[], None]], second: tuple[int, Callable[[], None]]) -> None:
    """Writes `first` for an index below its count and `second` for one beyond, with no test where one count is 0."""
    if first[0] and second[0]:
        with T.If(index < first[0]):
            with T.Then():
                first[1]()
            with T.Else():
                second[1]()
    elif first[0]:
        first[1]()
    elif second[0]:
        second[1]()


# Steps.


def pack_steps(spec: KernelSpec, weights: Weights, target: Target) -> tuple[npt.NDArray[np.float32], ...]:
    """Returns the arrays that the steps read, after the anchor's own: scale and shift of each batch norm."""
    arrays = []
    for number, step in enumerate(spec.steps):
        if isinstance(step.op, BatchNorm):
            for name in ("scale", "shift"):
                array = np.zeros(padded(spec.output.channels, target.lanes), np.float32)
                array[: spec.output.channels] = weights[f"{number}.{name}"]
                arrays.append(array)
    return tuple(arrays)


def apply_steps(
    frame: Frame, value: Expression, n: Expression, h: Expression, w: Expression, c: Expression, lanes: int
) -> Expression:
    """Returns the steps' result for `lanes` channels of the anchor's, from channel `c` on, at a place of the output."""
    for number, step in enumerate(frame.spec.steps):
        # bound to a name, since an activation reads its operand more than once
        value = T.bind(value)
        op = step.op
        if isinstance(op, BatchNorm):
            scale, shift = frame.affine[number]
            value = value * scale[span(c, lanes)] + shift[span(c, lanes)]
        elif isinstance(op, (Add, Mul)) and step.view is not None:
            other = _operand(frame, number, step.view, n, h, w, c, lanes)
            value = value + other if isinstance(op, Add) else value * other
        else:
            value = _activated(frame, op, value, lanes)
    return value


def _operand(
    frame: Frame,
    number: int,
    view: View,
    n: Expression,
    h: Expression,
    w: Expression,
    c: Expression,
    lanes: int,
) -> Expression:
    """Returns a step's other operand, repeated along the axes where it has one element and the output more."""
    output = frame.spec.output
    start = n * view.image
    if view.height == output.height:
        start += h * view.row
    if view.width == output.width:
        start += w * view.pixel
    buffer = frame.operands[number]
    if view.channels != output.channels or view.channel == 0:
        return spread(buffer[start], lanes)
    return buffer[span(start + c * view.channel, lanes, view.channel)]


def _activated(frame: Frame, op: Any, x: Expression, lanes: int) -> Expression:
    def number(value: float) -> Expression:
        return constant(value, lanes)

    def clipped(value: Expression) -> Expression:
        return smallest(largest(value, number(0.0), frame.target), number(6.0), frame.target)

    if isinstance(op, Relu):
        return largest(x, number(0.0), frame.target)
    if isinstance(op, Relu6):
        return clipped(x)
    if isinstance(op, LeakyRelu):
        if 0.0 <= op.slope <= 1.0:
            return largest(x, x * number(op.slope), frame.target)
        return T.Select(x >= number(0.0), x, x * number(op.slope))
    if isinstance(op, Sigmoid):
        return logistic(x)
    if isinstance(op, Silu):
        return x * logistic(x)
    if isinstance(op, HardSigmoid):
        return clipped(x + number(3.0)) * number(1.0 / 6.0)
    if isinstance(op, HardSwish):
        return x * (clipped(x + number(3.0)) * number(1.0 / 6.0))
    raise UsageError(
        f"there is no CPU code for {op.name} as a step after another op",
        hint="it has to be an activation, batch_norm, or add or mul with another operand",
    )
