"""GPU kernels beside the reference: specifications with arbitrary numbers, and what they should compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gensynth.backends.reference import run_reference
from gensynth.backends.tvm.kernels import KernelSpec, Step, View, templates_of
from gensynth.backends.tvm.kernels.cuda.trial import compile_trials
from gensynth.backends.tvm.targets import CudaTarget, Target
from gensynth.ir import Builder, Network, Op
from gensynth.ir.ops import BatchNorm

TX2 = Target(
    "tegra-x2-gpu",
    "two multiprocessors of compute capability 6.2",
    "aarch64",
    {"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a57"},
    "aarch64-linux-gnu.2.27",
    lanes=4,
    registers=32,
    cores=4,
    cuda=CudaTarget("sm_62", 2),
    dtypes=("f32", "f16"),
)


@dataclass(frozen=True)
class Case:
    """An op on random images of `shape` [C, H, W] (or [C] for a dense layer), and steps after it.

    A step is an op, or (op, shape of its other operand). `slack` elements lie between pixels of all values.
    """

    op: Op
    shape: tuple[int, ...]
    steps: tuple[Op | tuple[Op, tuple[int, ...]], ...] = ()
    batch: int = 1
    slack: int = 0
    dtype: str = "f32"
    seed: int = 0


def view_of(shape: Sequence[int], slack: int = 0, dtype: str = "f32", planar: bool = False) -> View:
    """Returns a view of [C, H, W] or [C]: channels last with `slack` elements between pixels, or planar."""
    channels, height, width = shape if len(shape) == 3 else (*shape, 1, 1)
    if planar:
        area = height * width
        return View(channels, height, width, channels * area, width, 1, area, dtype=dtype)
    pixel = channels + slack
    row = width * pixel + slack
    return View(channels, height, width, height * row + slack, row, pixel, dtype=dtype)


@dataclass(frozen=True)
class Prepared:
    """A case's specification, numbers, and the reference's result [N, C, H, W]."""

    spec: KernelSpec
    inputs: list[np.ndarray]
    operands: list[np.ndarray]
    weights: dict[str, np.ndarray]
    expected: np.ndarray


def _image(array: np.ndarray) -> np.ndarray:
    return array if array.ndim == 4 else array.reshape(*array.shape, 1, 1)


def prepare(case: Case) -> Prepared:
    """Draws numbers for a case and asks the reference."""
    random = np.random.default_rng(case.seed)
    builder = Builder("case")
    value = builder.input("x", case.shape)
    arrays = {"x": random.standard_normal((case.batch, *case.shape), np.float32)}
    value = builder.emit(case.op, value, name="anchor")
    steps, operands = [], []
    for number, item in enumerate(case.steps):
        op, shape = item if isinstance(item, tuple) else (item, None)
        if shape is None:
            value = builder.emit(op, value, name=f"step{number}")
            steps.append(Step(op))
            continue
        other = builder.input(f"operand{number}", shape)
        arrays[f"operand{number}"] = random.standard_normal((case.batch, *shape), np.float32)
        operands.append(_image(arrays[f"operand{number}"]))
        value = builder.emit(op, value, other, name=f"step{number}")
        steps.append(Step(op, view_of(shape, case.slack, case.dtype)))
    builder.output(value)
    graph = builder.build()
    values: dict[str, np.ndarray] = {}
    weights: dict[str, np.ndarray] = {}
    for node in graph.nodes:
        for parameter in node.op.parameters(node.operand_types):
            drawn = random.standard_normal(parameter.shape).astype(np.float32)
            if parameter.name == "weight":
                drawn = (drawn / np.sqrt(np.prod(parameter.shape[1:]))).astype(np.float32)
            if parameter.name == "variance":
                drawn = (np.abs(drawn) + 0.5).astype(np.float32)
            if case.dtype == "f16":
                drawn = drawn.astype(np.float16).astype(np.float32)
            values[f"{node.name}.{parameter.name}"] = drawn
            if node.name == "anchor":
                weights[parameter.name] = drawn
    for number, step in enumerate(steps):
        if isinstance(step.op, BatchNorm):
            scale, bias, mean, variance = (
                values[f"step{number}.{name}"] for name in ("scale", "bias", "mean", "variance")
            )
            gain = scale / np.sqrt(variance + step.op.epsilon)
            weights[f"{number}.scale"], weights[f"{number}.shift"] = gain, bias - mean * gain
    if case.dtype == "f16":
        arrays = {name: array.astype(np.float16).astype(np.float32) for name, array in arrays.items()}
        operands = [array.astype(np.float16).astype(np.float32) for array in operands]
    (expected,) = run_reference(Network(graph, values), arrays)
    expected = _image(expected)
    output = view_of(expected.shape[1:], case.slack, case.dtype)
    source = view_of(case.shape, case.slack, case.dtype)
    spec = KernelSpec(case.op, case.batch, (source,), output, tuple(steps), case.dtype)
    return Prepared(spec, [_image(arrays["x"])], operands, weights, expected)


def errors_of(cases: Sequence[Case], most: int = 1, target: Target = TX2) -> list[tuple[str, float, int]]:
    """Runs each case by the first `most` schedules of every template that takes it.

    Returns, for each, its name, the largest error relative to the output's range, and how many elements it changed that
    are not its own. A case that no template takes counts as an infinite error.
    """
    prepared = [prepare(case) for case in cases]
    items, owners, missing = [], [], []
    for number, one in enumerate(prepared):
        found = False
        for template in templates_of(one.spec, target):
            for schedule in template.schedules(one.spec, target)[:most]:
                items.append((one.spec, template, schedule))
                owners.append(number)
                found = True
        if not found:
            missing.append((str(cases[number]), float("inf"), 0))
    results = []
    for trial, number in zip(compile_trials(items, target), owners, strict=True):
        one = prepared[number]
        result = trial.run(one.inputs, one.operands, one.weights)
        other = trial.run(one.inputs, one.operands, one.weights, backward=True)
        span = max(float(np.abs(one.expected).max()), 1e-6)
        error = np.abs(result.output.astype(np.float64) - one.expected).max() / span
        name = f"{cases[number]} by {trial.schedule}"
        # threads that race give other numbers in another order
        wrong = np.isnan(error) or not np.array_equal(result.output, other.output)
        results.append((name, float("inf") if wrong else float(error), result.strayed))
    return results + missing
