"""Convolutions, transposed convolutions and dense layers as one problem.

    y[n, i P + p, j Q + q, o] = bias[o] + sum over taps (u, v) and channels c of o's group of
                                filters[p, q][o, u, v, c] x[n, i S + a_p + u D, j T + b_q + v E, c]

A convolution has one phase (P = Q = 1) and starts at minus its padding. The rows of a transposed convolution with
stride s fall into s phases, each an ordinary convolution with some of the taps. A dense layer is a convolution of one
tap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm.tirx.script.builder as T

from gensynth.ir import TensorType, UsageError, pair
from gensynth.ir.ops import Conv2d, ConvTranspose2d, Dense

from ..specification import KernelSpec, View, Weights

__all__ = ["Axis", "Problem", "as_memory", "bias_of", "filters_of", "problem_of"]

Expression = Any


@dataclass(frozen=True)
class Axis:
    """One axis: `count` outputs in each of `phases` that make `outputs` together; see the module's formula.

    Tap u of phase p is number `taps[p][u]` of the filter, or None: then its weights are zero.
    """

    outputs: int
    length: int
    phases: int
    stride: int
    step: int
    starts: tuple[int, ...]
    taps: tuple[tuple[int | None, ...], ...]

    @property
    def count(self) -> int:
        """Outputs in a phase, at most."""
        return -(-self.outputs // self.phases)

    @property
    def window(self) -> int:
        """Taps in a phase."""
        return len(self.taps[0])

    @property
    def exact(self) -> bool:
        """Whether every phase has as many outputs as the others."""
        return self.outputs % self.phases == 0

    @property
    def within(self) -> bool:
        """Whether every tap of every output reads inside the image."""
        reach = [start + tap * self.step for start in self.starts for tap in (0, self.window - 1)]
        return min(reach) >= 0 and max(reach) + (self.count - 1) * self.stride < self.length

    def start(self, phase: Expression) -> Expression:
        """Returns where the first tap of a phase's first output reads."""
        if len(set(self.starts)) == 1:
            return self.starts[0]
        chosen: Expression = T.int32(self.starts[-1])
        for number, start in reversed(list(enumerate(self.starts[:-1]))):
            chosen = T.Select(phase == number, T.int32(start), chosen)
        return T.bind(chosen)


@dataclass(frozen=True)
class Problem:
    """See the module's formula. `inputs` and `outputs` are channels of a group."""

    batch: int
    rows: Axis
    columns: Axis
    groups: int
    inputs: int
    outputs: int
    source: View
    output: View

    @property
    def phases(self) -> int:
        """Phases of rows times phases of columns."""
        return self.rows.phases * self.columns.phases

    @property
    def taps(self) -> int:
        """Taps of a phase."""
        return self.rows.window * self.columns.window

    @property
    def terms(self) -> int:
        """Products that one output is the sum of."""
        return self.taps * self.inputs

    @property
    def pixels(self) -> int:
        """Outputs of a phase and channel."""
        return self.batch * self.rows.count * self.columns.count


def _forward(outputs: int, length: int, kernel: int, stride: int, dilation: int, before: int) -> Axis:
    return Axis(outputs, length, 1, stride, dilation, (-before,), (tuple(range(kernel)),))


def _transposed(outputs: int, length: int, kernel: int, stride: int, dilation: int, cut: int) -> Axis:
    # output y is made by taps k and inputs i with i stride + k dilation = y + cut
    common = gcd(stride, dilation)
    starts, taps = [], []
    for phase in range(stride):
        fitting = [k for k in range(kernel) if (phase + cut - k * dilation) % stride == 0]
        starts.append((phase + cut - fitting[0] * dilation) // stride if fitting else 0)
        taps.append(fitting)
    most = max(1, *(len(fitting) for fitting in taps))
    padded = tuple((*fitting, *(None,) * (most - len(fitting))) for fitting in taps)
    return Axis(outputs, length, stride, 1, -(dilation // common), tuple(starts), padded)


def problem_of(spec: KernelSpec) -> Problem:
    """Returns a specification's problem; its op is a convolution, a transposed one or a dense layer."""
    op, source, output = spec.op, spec.inputs[0], spec.output
    if isinstance(op, Dense):
        one = _forward(1, 1, 1, 1, 1, 0)
        return Problem(spec.batch, one, one, 1, source.channels, output.channels, source, output)
    assert isinstance(op, (Conv2d, ConvTranspose2d))
    top, _, left, _ = op.pads(TensorType("f32", ("N", source.channels, source.height, source.width)))
    axis = _forward if isinstance(op, Conv2d) else _transposed
    kernel, stride, dilation = pair(op.kernel), pair(op.stride), pair(op.dilation)
    return Problem(
        spec.batch,
        axis(output.height, source.height, kernel[0], stride[0], dilation[0], top),
        axis(output.width, source.width, kernel[1], stride[1], dilation[1], left),
        op.groups,
        source.channels // op.groups,
        output.channels // op.groups,
        source,
        output,
    )


def filters_of(spec: KernelSpec, problem: Problem, weights: Weights) -> npt.NDArray[np.float32]:
    """Returns the weights as [phases, groups, outputs of a group, taps, inputs of a group]."""
    weight = np.asarray(weights["weight"], np.float32)
    groups, inputs, outputs = problem.groups, problem.inputs, problem.outputs
    if isinstance(spec.op, Dense):
        return weight.reshape(1, 1, outputs, 1, inputs)
    kernel = weight.shape[2:]
    if isinstance(spec.op, ConvTranspose2d):
        whole = weight.reshape(groups, inputs, outputs, *kernel).transpose(0, 2, 3, 4, 1)
    else:
        whole = weight.reshape(groups, outputs, inputs, *kernel).transpose(0, 1, 3, 4, 2)
    found = np.zeros((problem.phases, groups, outputs, problem.rows.window, problem.columns.window, inputs), np.float32)
    for p, row_taps in enumerate(problem.rows.taps):
        for q, column_taps in enumerate(problem.columns.taps):
            part = found[p * problem.columns.phases + q]
            for u, row in enumerate(row_taps):
                for v, column in enumerate(column_taps):
                    if row is not None and column is not None:
                        part[:, :, u, v] = whole[:, :, row, column]
    return found.reshape(problem.phases, groups, outputs, problem.taps, inputs)


def as_memory(spec: KernelSpec, array: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Returns weights in the dtype that the kernel holds them in: float32, or the bits of float16.

    Raises:
        UsageError: a weight is too large for float16.
    """
    if spec.dtype == "f32":
        return np.ascontiguousarray(array, np.float32)
    with np.errstate(over="ignore"):
        halves = np.ascontiguousarray(array, np.float16)
    if not np.isfinite(halves).all():
        raise UsageError(
            f"{spec.op.text()}: a weight of {np.abs(array).max():.4g} is beyond float16's 65504",
            hint="compile with dtype f32",
        )
    return halves.view(np.uint16)


def bias_of(weights: Weights, shape: Sequence[int], channels: int) -> npt.NDArray[np.float32]:
    """Returns the bias, or zeros, as `shape`, whose last axis holds `channels` of a group and then zeros."""
    found = np.zeros(tuple(shape), np.float32)
    if "bias" in weights:
        found[..., :channels] = np.asarray(weights["bias"], np.float32).reshape(*shape[:-1], channels)
    return found
