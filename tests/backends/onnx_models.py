"""ONNX models written node by node, as exporters of all kinds leave them, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from gensynth.backends.onnx import import_onnx, run_onnx
from gensynth.backends.reference import run_reference
from gensynth.ir import Network

FloatArray = npt.NDArray[np.float32]


class ModelBuilder:
    """A model under construction: one input `x`, then nodes, whose results are named after their operators."""

    def __init__(self, shape: tuple[int | str, ...] = ("N", 4, 8, 8), opset: int = 13, seed: int = 0) -> None:
        self.opset = opset
        self.shape = shape
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self.random = np.random.default_rng(seed)
        self._count = 0

    def weight(self, *shape: int, name: str = "", low: float = -0.5) -> str:
        """Adds a constant of uniform noise from `low` to 1."""
        return self.constant(self.random.uniform(low, 1.0, shape).astype(np.float32), name)

    def constant(self, array: npt.ArrayLike, name: str = "") -> str:
        """Adds an initializer and returns its name."""
        values = np.asarray(array)
        values = values.astype(np.float32) if values.dtype == np.float64 else values
        self._count += 1
        name = name or f"c{self._count}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def integers(self, *values: int) -> str:
        """Adds an int64 list."""
        return self.constant(np.array(values, np.int64))

    def node(self, operator: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: object) -> str:
        """Adds a node and returns the name of its first result; the others end in _1, _2, ..."""
        self._count += 1
        first = f"{operator.lower()}{self._count}"
        results = [first, *(f"{first}_{index}" for index in range(1, outputs))]
        self.nodes.append(helper.make_node(operator, list(inputs), results, name, **attributes))
        return first

    def model(self, *outputs: str) -> ModelProto:
        """Returns the model."""
        graph = helper.make_graph(
            self.nodes,
            "model",
            self.inputs,
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.constants,
        )
        imports = [helper.make_opsetid("", self.opset)]
        return helper.make_model(
            graph, opset_imports=imports, ir_version=max(4, helper.find_min_ir_version_for(imports))
        )


def save(model: ModelProto, folder: Path) -> Path:
    """Writes a model."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def assert_imported_alike(
    path: Path, *, channels_last: bool = False, tolerance: float = 1e-5, low: float = -4.0
) -> Network:
    """Imports a model, compares all its outputs under ONNX Runtime with the reference, and returns the network.

    `channels_last` says that the model takes its images as [N, H, W, C]. Inputs are uniform from `low` to 4.
    """
    network = import_onnx(path)
    declared = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in declared.initializer}
    inputs = [info for info in declared.input if info.name not in constants]
    random = np.random.default_rng(1)
    given, fed = {}, {}
    for value, info in zip(network.graph.inputs, inputs, strict=True):
        batch = info.type.tensor_type.shape.dim[0].dim_value or 3
        array = random.uniform(low, 4.0, value.type.sizes(batch)).astype(np.float32)
        given[value.name] = array
        fed[info.name] = np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if channels_last else array
    wanted = run_onnx(path, fed, threads=1)
    found = run_reference(network, given)
    for one, other in zip(found, wanted, strict=True):
        if one.shape != other.shape and one.ndim == 4:
            one = one.transpose(0, 2, 3, 1)
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max()
    return network


def ops_of(network: Network) -> list[str]:
    """Returns the texts of a network's ops, in order."""
    return [node.op.text() for node in network.graph.nodes]


# Nodes as their opset has them.

Build = Callable[[ModelBuilder], "str | tuple[str, ...]"]


def build(function: Build, folder: Path, **options: object) -> Path:
    """Writes the model whose nodes `function` makes."""
    builder = ModelBuilder(**options)  # type: ignore[arg-type]
    outputs = function(builder)
    return save(builder.model(*((outputs,) if isinstance(outputs, str) else outputs)), folder)


def dense(m: ModelBuilder, value: str, inputs: int, features: int = 5) -> str:
    return m.node("Gemm", value, m.weight(features, inputs), m.weight(features), transB=1)


def conv(m: ModelBuilder, value: str, inputs: int = 4, channels: int = 6, kernel: int = 3, **attributes: object) -> str:
    return m.node("Conv", value, m.weight(channels, inputs, kernel, kernel), **attributes)


def spoken(m: ModelBuilder, low: float, high: float) -> str:
    """A Clip as the opset has it."""
    if m.opset < 11:
        return m.node("Clip", "x", min=float(low), max=float(high))
    return m.node("Clip", "x", m.constant(np.float32(low)), m.constant(np.float32(high)))


def padded(m: ModelBuilder, value: str, pads: list[int], fill: float = 0.0) -> str:
    """A Pad as the opset has it."""
    if m.opset < 11:
        return m.node("Pad", value, mode="constant", pads=pads, value=fill)
    return m.node("Pad", value, m.integers(*pads), m.constant(np.float32(fill)))


def squeezed(m: ModelBuilder, value: str, *axes: int) -> str:
    """A Squeeze as the opset has it."""
    if m.opset < 13:
        return m.node("Squeeze", value, axes=list(axes))
    return m.node("Squeeze", value, m.integers(*axes))


def mean(m: ModelBuilder, value: str, *axes: int, keepdims: int = 1) -> str:
    """A ReduceMean as the opset has it."""
    if m.opset < 18:
        return m.node("ReduceMean", value, axes=list(axes), keepdims=keepdims)
    return m.node("ReduceMean", value, m.integers(*axes), keepdims=keepdims)


def cut(m: ModelBuilder, value: str, axis: int, start: int, end: int) -> str:
    """A Slice as the opset has it."""
    if m.opset < 10:
        return m.node("Slice", value, axes=[axis], starts=[start], ends=[end])
    return m.node("Slice", value, m.integers(start), m.integers(end), m.integers(axis))


def turned(m: ModelBuilder, value: str, *order: int) -> str:
    return m.node("Transpose", value, perm=list(order))
