"""Folding: what a node of constants comes to, by the reference that ONNX brings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from .importer_model import AnyArray, OnnxModel, OnnxNode, integers_of, scalar_of

__all__ = ["FOLDED", "fold", "fold_constants"]

FOLDED = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "ConstantOfShape", "Div", "Equal", "Exp", "Expand",
    "Flatten", "Floor", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log", "MatMul",
    "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Round", "ScatterND", "Shape", "Sigmoid", "Sign",
    "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tile", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
"""The operators that are folded where all they read is constant: arithmetic of shapes, and of weights."""

_MOST_ELEMENTS = 2**28
"""A constant with more is taken for a mistake before it fills the memory."""


def fold(model: OnnxModel, node: OnnxNode, arrays: Sequence[AnyArray | None]) -> list[AnyArray]:
    """Returns what a node makes of constants; None stands for an input that is left out.

    Raises:
        UsageError: the node cannot be computed.
    """
    _check_size(model, node, arrays)
    names = ["" if array is None else f"i{index}" for index, array in enumerate(arrays)]
    feeds = {name: array for name, array in zip(names, arrays, strict=True) if array is not None}
    outputs = [f"o{index}" for index in range(len(node.outputs))]
    proto = helper.make_node(node.operator, names, outputs)
    for name, value in node.attributes.items():
        item = numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        proto.attribute.append(
            helper.make_attribute(name, item, attr_type=4 if isinstance(item, TensorProto) else None)
        )
    graph = helper.make_graph(
        [proto],
        "constant",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in feeds.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
    )
    try:
        with np.errstate(all="ignore"):
            imports = [helper.make_opsetid("", model.opset)]
            found = ReferenceEvaluator(helper.make_model(graph, opset_imports=imports)).run(None, feeds)
    except Exception as error:  # NumPy's and ONNX's, of many classes
        told = str(error).strip().partition("\n")[0]
        raise model.fail(
            node, f"its constants cannot be computed: {told[:200]}", "check the model with onnx.checker"
        ) from None
    return [np.asarray(item) for item in found]


def _check_size(model: OnnxModel, node: OnnxNode, arrays: Sequence[AnyArray | None]) -> None:
    """Checks that what the operators make whose results can be larger than all they read is of a sane size."""
    given = [array for array in arrays if array is not None]
    wanted: tuple[int, ...] | None = (0,)
    if node.operator == "ConstantOfShape" and given:
        wanted = integers_of(given[0])
    elif node.operator == "Expand" and len(given) == 2:
        wanted = integers_of(given[1])
    elif node.operator == "Tile" and len(given) == 2:
        repeats = integers_of(given[1])
        wanted = None if repeats is None else (*repeats, given[0].size)
    elif node.operator == "Range" and len(given) == 3:
        numbers = [scalar_of(array) for array in given]
        start, limit, delta = (math.nan if number is None else number for number in numbers)
        count = (limit - start) / delta if delta else math.inf
        wanted = (int(max(0.0, count)) + 1,) if math.isfinite(count) else None
    elif node.operator not in ("Reshape", "Concat", "Split", "Gather") and len(given) > 1:
        wanted = (_broadcast(given),)
    if wanted is None or math.prod(wanted) > _MOST_ELEMENTS or min(wanted, default=0) < 0:
        raise model.fail(node, "a constant of no sane size", "the model is damaged: export it again")


def _broadcast(arrays: Sequence[AnyArray]) -> int:
    """Returns at most how many elements arrays have together when they are broadcast."""
    rank = max(array.ndim for array in arrays)
    shapes = [(1,) * (rank - array.ndim) + array.shape for array in arrays]
    return math.prod(max(sizes) for sizes in zip(*shapes, strict=True))


def fold_constants(model: OnnxModel) -> None:
    """Computes, in place, every node that reads constants only. A weight that is merely moved is noted as an origin."""
    kept = []
    for node in model.nodes:
        arrays = [model.constants.get(name) if name else None for name in node.inputs]
        whole = all(array is not None or not name for name, array in zip(node.inputs, arrays, strict=True))
        if node.operator not in FOLDED or not whole or not node.inputs:
            kept.append(node)
            continue
        for name, array in zip(node.outputs, fold(model, node, arrays), strict=True):
            if name:
                model.constants[name] = array
                if node.operator in _MOVES:
                    model.origins[name] = model.origins.get(node.inputs[0], node.inputs[0])
    model.nodes = kept


_MOVES = ("Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
