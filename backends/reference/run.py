"""Running a whole network by the reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from gensynth.ir import Array, Graph, Network, UsageError, Value, WeightsError, check_weights, nearest

from .meanings import Tensor, meaning_of

__all__ = ["reference_values", "run_reference"]

_DTYPES: Mapping[str, npt.DTypeLike] = {
    "f32": np.float32,
    "f16": np.float16,
    "bf16": np.float32,  # NumPy has no bfloat16
    "i64": np.int64,
    "i32": np.int32,
    "u8": np.uint8,
    "i8": np.int8,
}


def run_reference(network: Network, inputs: Array | Mapping[str, Array]) -> tuple[Array, ...]:
    """Returns the outputs of a network in inference, computed in float64 and rounded to float32 at the end.

    `inputs` is one array for a network of one input, else a mapping by input name; [n, ...], n the same for all.

    Raises:
        WeightsError: the network has no weights, or they do not fit.
        UsageError: open choices, inputs of another name, shape or dtype, or an op that the reference does not know.
    """
    values = reference_values(network, inputs)
    return tuple(values[value.name] for value in network.graph.outputs)


def reference_values(network: Network, inputs: Array | Mapping[str, Array]) -> dict[str, Array]:
    """Returns every value of a network by name, inputs included; see `run_reference`."""
    graph = network.graph
    if graph.is_generator:
        raise UsageError(
            f"@{graph.name} has open choices, so there is nothing to run yet", hint="materialize it with a seed first"
        )
    if network.weights is None:
        raise WeightsError(
            f"@{graph.name} has no weights",
            hint="train it, load its weights, or start with gensynth.ir.initialize(graph, seed)",
        )
    check_weights(graph, network.weights)
    values: dict[str, Tensor] = {name: array.astype(np.float64) for name, array in _named(graph, inputs).items()}
    for node in graph.nodes:
        weights = {
            parameter.name: network.weights[f"{node.name}.{parameter.name}"].astype(np.float64)
            for parameter in node.op.parameters(node.operand_types)
        }
        found = meaning_of(node)(node.op, [values[value.name] for value in node.operands], weights)
        results = found if isinstance(found, tuple) else (found,)
        for value, result in zip(node.results, results, strict=True):
            _check_result(value, result, node.op.name)
            values[value.name] = result
    return {name: values[name].astype(_DTYPES[value.type.dtype]) for name, value in graph.values.items()}


def _named(graph: Graph, inputs: Array | Mapping[str, Array]) -> dict[str, Array]:
    names = [value.name for value in graph.inputs]
    if isinstance(inputs, np.ndarray):
        if len(names) != 1:
            raise UsageError(
                f"@{graph.name} has {len(names)} inputs, one array was given",
                hint=f"give a mapping with {', '.join(names)}",
            )
        inputs = {names[0]: inputs}
    for name in inputs:
        if name not in names:
            raise UsageError(f"@{graph.name} has no input '{name}'", hint=nearest(name, names, what="inputs"))
    batch: int | None = None
    for value in graph.inputs:
        array = inputs.get(value.name)
        if array is None:
            raise UsageError(f"input '{value.name}' of @{graph.name} is missing", hint=f"it is {value.type}")
        if array.dtype != _DTYPES[value.type.dtype]:
            raise UsageError(
                f"input '{value.name}' is {array.dtype}, @{graph.name} wants {value.type}",
                hint=f"convert it: array.astype(numpy.{np.dtype(_DTYPES[value.type.dtype])})",
            )
        if array.ndim != value.type.rank or array.shape[1:] != value.type.shape[1:]:
            raise UsageError(
                f"input '{value.name}' has shape {list(array.shape)}, @{graph.name} wants {value.type}",
                hint="the first axis is the batch",
            )
        if batch is not None and len(array) != batch:
            raise UsageError(
                f"input '{value.name}' has a batch of {len(array)}, '{names[0]}' one of {batch}",
                hint="all inputs carry the same batch",
            )
        batch = len(array)
    return dict(inputs)


def _check_result(value: Value, result: Tensor, op: str) -> None:
    if result.shape[1:] != value.type.shape[1:]:
        raise UsageError(
            f"%{value.name}: the meaning of {op} gives shape {list(result.shape)}, its type is {value.type}",
            hint="mend the registered meaning, or the op's infer",
        )
