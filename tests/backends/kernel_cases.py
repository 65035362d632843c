"""Specifications of CPU kernels to be tried: ops on images of awkward sizes, any steps after them, any views."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from gensynth.backends.reference import reference_values
from gensynth.ir import Builder, Network, Op
from gensynth.ir.ops import (
    Add,
    BatchNorm,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyRelu,
    Mul,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
)

pytest.importorskip("tvm")

from gensynth.backends.tvm.host import vector_registers
from gensynth.backends.tvm.kernels import KernelSpec, Step, View
from gensynth.backends.tvm.kernels.cpu.trial import Trial
from gensynth.backends.tvm.objects import host_llvm
from gensynth.backends.tvm.targets import Target

CHANNELS = (1, 3, 10, 16, 17, 58)

UNARY: tuple[Op, ...] = (
    BatchNorm(epsilon=0.01),
    Relu(),
    Relu6(),
    LeakyRelu(slope=0.1),
    LeakyRelu(slope=-0.5),
    LeakyRelu(slope=1.5),
    Silu(),
    Sigmoid(),
    HardSigmoid(),
    HardSwish(),
)

BROADCASTS = ((1, 1, 1), (0, 1, 1), (1, 0, 0), (1, 1, 0), (0, 0, 0), (1, 0, 1))
"""Whether a step's other operand has the output's (channels, height, width), or 1."""


def host() -> Target:
    """Returns this machine as a target."""
    lanes, registers = vector_registers()
    return Target("host", "this machine", platform.machine(), host_llvm(), "", lanes, registers, 1)


HASWELL = Target("haswell", "AVX2", "x86_64", {"mcpu": "haswell"}, "x86_64-linux-gnu", 8, 16, 1)

CORTEX_A57 = Target(
    "tegra-x2-cpu",
    "Cortex-A57",
    "aarch64",
    {"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a57", "mattr": ["+neon"]},
    "aarch64-linux-gnu",
    4,
    32,
    4,
    multiplies_by_lane=True,
)


def channels_last(
    channels: int, height: int, width: int, more: int = 0, halo: tuple[int, int, int, int] = (0, 0, 0, 0)
) -> View:
    """Returns an NHWC image: part of one of `more` channels more, in a halo."""
    top, bottom, left, right = halo
    pixel = channels + more
    row = (left + width + right) * pixel
    return View(channels, height, width, (top + height + bottom) * row, row, pixel, halo=halo)


def planar(channels: int, height: int, width: int) -> View:
    """Returns an NCHW image."""
    area = height * width
    return View(channels, height, width, channels * area, width, 1, area)


@dataclass(frozen=True)
class Case:
    """A kernel's specification, its operands and weights, and what it is to compute, [N, C, H, W]."""

    spec: KernelSpec
    inputs: tuple[np.ndarray, ...]
    operands: tuple[np.ndarray, ...]
    weights: dict[str, np.ndarray]
    expected: np.ndarray

    def error(self, trial: Trial) -> float:
        """Returns the largest error of a trial's result, relative to the largest element, and asserts that it stays inside."""
        result = trial.run(self.inputs, self.operands, self.weights)
        assert result.strayed == 0, f"{self} by {trial.schedule} wrote {result.strayed} elements outside its output"
        scale = max(1.0, float(np.abs(self.expected).max()))
        error = float(np.abs(result.output - self.expected).max()) / scale
        return error if np.isfinite(error) else np.inf

    def __str__(self) -> str:
        spec = self.spec
        steps = ", ".join(step.op.text() for step in spec.steps)
        return f"{spec.op.text()} of {spec.inputs[0]} for {spec.batch} images, then [{steps}], to {spec.output}"


def image(values: np.ndarray) -> np.ndarray:
    return values if values.ndim == 4 else values[:, :, None, None]


def make(
    op: Op,
    shape: tuple[int, ...],
    *,
    batch: int = 1,
    steps: Sequence[Op | tuple[Op, tuple[int, int, int]]] = (),
    more: int = 0,
    halo: tuple[int, int, int, int] = (0, 0, 0, 0),
    layouts: str = "hh",
    seed: int = 0,
) -> Case:
    """Returns the case of an op on [N, *shape], then steps; `layouts` are of input and output, `h` NHWC or `c` NCHW."""
    random = np.random.default_rng(seed)
    builder = Builder("case")
    value = builder.input("x", shape)
    value = builder.emit(op, value, name="anchor")
    arrays = {"x": random.standard_normal((batch, *shape), np.float32)}
    out = value.type.sizes(1)[1:]
    size = (*out, 1, 1)[:3]
    described: list[Step] = []
    for number, step in enumerate(steps):
        if isinstance(step, tuple):
            step, kept = step
            other = tuple(length if keep else 1 for length, keep in zip(size, kept, strict=True))
            operand = builder.input(f"o{number}", other[: len(out)])
            arrays[operand.name] = random.standard_normal((batch, *other[: len(out)]), np.float32)
            value = builder.emit(step, value, operand, name=f"s{number}")
            described.append(Step(step, channels_last(*other, more=more)))
        else:
            value = builder.emit(step, value, name=f"s{number}")
            described.append(Step(step))
    builder.output(value)
    graph = builder.build()
    weights = {}
    for node in graph.nodes:
        for parameter in node.op.parameters(node.operand_types):
            drawn = random.standard_normal(parameter.shape).astype(np.float32) * 0.5
            weights[f"{node.name}.{parameter.name}"] = np.abs(drawn) + 0.5 if parameter.name == "variance" else drawn
    expected = reference_values(Network(graph, weights), arrays)[value.name]
    local = {name.removeprefix("anchor."): array for name, array in weights.items() if name.startswith("anchor.")}
    for number, step in enumerate(steps):
        if isinstance(step, BatchNorm):
            scale, bias, mean, variance = (
                weights[f"s{number}.{name}"].astype(np.float64) for name in ("scale", "bias", "mean", "variance")
            )
            gain = scale / np.sqrt(variance + step.epsilon)
            local[f"{number}.scale"] = gain.astype(np.float32)
            local[f"{number}.shift"] = (bias - mean * gain).astype(np.float32)
    source = (*shape, 1, 1)[:3]
    views = [
        planar(*lengths) if layout == "c" else channels_last(*lengths, more=more, halo=halo)
        for layout, lengths in zip(layouts, (source, size), strict=True)
    ]
    spec = KernelSpec(op, batch, (views[0],), views[1], tuple(described))
    operands = tuple(image(array) for name, array in arrays.items() if name != "x")
    return Case(spec, (image(arrays["x"]),), operands, local, image(expected))


def spread(op: Op, shapes: Sequence[tuple[int, ...]], seed: int = 0) -> list[Case]:
    """Returns a case for each shape, with batch, steps and views drawn at random."""
    random = np.random.default_rng(seed)
    cases = []
    for number, shape in enumerate(shapes):
        steps: list[Op | tuple[Op, tuple[int, int, int]]] = []
        for _ in range(random.integers(0, 3)):
            if random.random() < 0.4:
                kept = BROADCASTS[random.integers(len(BROADCASTS))]
                steps.append(((Add(), Mul())[random.integers(2)], kept))
            else:
                steps.append(UNARY[random.integers(len(UNARY))])
        cases.append(
            make(
                op,
                shape,
                batch=(1, 3)[number % 2],
                steps=steps,
                more=(0, 5)[random.integers(2)],
                halo=((0, 0, 0, 0), (1, 2, 0, 3))[random.integers(2)],
                layouts=("hh", "hh", "hh", "ch", "hc")[random.integers(5)],
                seed=number,
            )
        )
    return cases


def copied(source: View, output: View, batch: int) -> Case:
    """Returns the case of a copy from one view to another of the same sizes."""
    shape = (batch, source.channels, source.height, source.width)
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    return Case(KernelSpec(Identity(), batch, (source,), output), (x,), (), {}, x)


def swapped(view: View) -> View:
    """Returns the view with its width as channels."""
    return replace(view, channels=view.width, channel=view.pixel, width=view.channels, pixel=view.channel)
