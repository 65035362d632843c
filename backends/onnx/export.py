"""Writing a network as an ONNX model: in memory, and as a file with its weights inside or beside it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from gensynth.ir import (
    Array,
    GenSynthError,
    Graph,
    Network,
    Parameter,
    TensorType,
    UsageError,
    WeightsError,
    check_weights,
    parameters_of,
)
from gensynth.ir.network import write_atomically

from .emission import Emission
from .lowerings import lower

__all__ = ["DEFAULT_OPSET", "HASH_KEY", "NEWEST_OPSET", "OLDEST_OPSET", "export_onnx", "to_onnx"]

OLDEST_OPSET = 11
"""The first opset with explicit sizes in Resize and bounds of Clip as inputs, on which everything here rests."""

DEFAULT_OPSET = 21
"""The newest that ONNX Runtime 1.20 loads, the oldest which the extra `onnx` allows; tried with 1.20.1 and 1.32.0."""

NEWEST_OPSET = onnx.defs.onnx_opset_version()
"""The newest that the installed onnx knows and can check."""

HASH_KEY = "gensynth.architecture_hash"
"""The key of the model's metadata under which the architecture hash of the network stands."""

_MOST_INLINE = 2**31 - 2**24
"""Bytes of weights that a single file can take: protobuf ends at 2 GiB, and the nodes want some of it."""

_LEAST_EXTERNAL = 1024
"""Smaller tensors stay in the model, among them all that shapes are inferred from."""

_SAMPLE_BATCH = 97
"""Stands for a symbolic batch where shapes are checked: a number that no other size is likely to be."""

_PAGE = 4096
"""External tensors start at multiples of this many bytes, so that runtimes can map them into memory."""


def to_onnx(network: Network, *, opset: int = DEFAULT_OPSET, batch: int | None = None) -> ModelProto:
    """Returns a network as an ONNX model, with its weights inside, checked by onnx (above 2 GB its shapes only).

    Nodes, values and weights keep their names. The batch is symbolic (`N`) unless a number is given. The model is for
    inference: batch norms use their running statistics, dropout does nothing.

    Raises:
        UsageError: an opset or batch out of range, a generator, an op without a lowering, values that are not float32.
        WeightsError: the network has no weights, or they do not fit.
    """
    model = _build(network, opset, batch)
    _check_shapes(network, model, batch)
    _fill(model, network)
    if _weight_bytes(network) <= _MOST_INLINE:
        _check(network.graph, model)
    return model


def export_onnx(
    network: Network,
    path: str | os.PathLike[str],
    *,
    opset: int = DEFAULT_OPSET,
    batch: int | None = None,
    external_data: bool = False,
) -> tuple[Path, ...]:
    """Writes a network as an ONNX file and returns the files written, the model first; see `to_onnx`.

    With `external_data`, and always where the weights would not fit into one file (2 GB), they go into `PATH.data`
    beside it. A reader sees the old file or the new; with external data both files are complete before they are put in
    place, weights first.

    Raises:
        UsageError: as `to_onnx` does, or the file cannot be written.
        WeightsError: the network has no weights, or they do not fit.
    """
    target = Path(path)
    if target.suffix != ".onnx":
        raise UsageError(f"{target} does not end in .onnx", hint=f"write {target.with_suffix('.onnx')}")
    model = _build(network, opset, batch)
    _check_shapes(network, model, batch)
    if external_data or _weight_bytes(network) > _MOST_INLINE:
        data = target.with_name(f"{target.name}.data")
        _write_external(model, network, target, data)
        return target, data
    _fill(model, network)
    _check(network.graph, model)
    write_atomically(target, model.SerializeToString())
    return (target,)


def _build(network: Network, opset: int, batch: int | None) -> ModelProto:
    """Returns the model with weights declared but empty: name, dtype and shape only."""
    graph = network.graph
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise UsageError(
            f"opset {opset} cannot be written: onnx {onnx.__version__} and GenSynth have {OLDEST_OPSET} to"
            f" {NEWEST_OPSET} in common",
            hint=f"use {DEFAULT_OPSET}, or what the runtime that the model is for supports"
            + ("; a newer onnx may know more" if opset > NEWEST_OPSET else ""),
        )
    if batch is not None and batch < 1:
        raise UsageError(f"a batch of {batch} is none", hint="give at least 1, or leave it out for a symbolic batch")
    if graph.is_generator:
        raise UsageError(
            f"@{graph.name} has open choices, so there is no single network to export",
            hint="materialize it with a seed first: gensynth generate, or Generator.generate(seed)",
        )
    if network.weights is None:
        raise WeightsError(
            f"@{graph.name} has no weights to export",
            hint="train it, give --weights FILE, or start with fresh ones: --seed 0, or gensynth.initialize(graph, 0)",
        )
    check_weights(graph, network.weights)
    for value in graph.values.values():
        if value.type.dtype != "f32":
            raise UsageError(
                f"%{value.name} is {value.type}; ONNX models are exported in float32",
                hint="make the network's inputs f32, and convert the model afterwards",
            )
    emission = Emission(graph, opset, batch)
    for node in graph.nodes:
        lower(emission, node)
    outputs = _outputs(emission)
    body = helper.make_graph(
        emission.nodes,
        graph.name,
        [_declare(emission, value.name, value.type) for value in graph.inputs],
        outputs,
        [_empty(emission.weight(name), parameter) for name, parameter in parameters_of(graph)] + emission.constants,
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        body,
        opset_imports=imports,
        producer_name="gensynth",
        producer_version=_version(),
        ir_version=helper.find_min_ir_version_for(imports),
    )
    helper.set_model_props(model, {HASH_KEY: network.hash})
    return model


def _declare(emission: Emission, name: str, type: TensorType) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, emission.shape(type))


def _outputs(emission: Emission) -> list[ValueInfoProto]:
    """Returns the outputs; one that is an input, or an output already, becomes a copy, for ONNX has each name once."""
    graph = emission.graph
    taken = {value.name for value in graph.inputs}
    outputs = []
    for index, value in enumerate(graph.outputs):
        name = value.name
        if name in taken:
            name = f"{value.name}/output{index}"
            emission.nodes.append(helper.make_node("Identity", [value.name], [name], name))
        taken.add(name)
        outputs.append(_declare(emission, name, value.type))
    return outputs


def _empty(name: str, parameter: Parameter) -> TensorProto:
    return TensorProto(name=name, data_type=TensorProto.FLOAT, dims=parameter.shape)


def _fill(model: ModelProto, network: Network) -> None:
    """Puts the values of the weights into the model."""
    for tensor, array in _weights_of(model, network):
        tensor.raw_data = np.ascontiguousarray(array, np.dtype("<f4")).tobytes()


def _weights_of(model: ModelProto, network: Network) -> Iterator[tuple[TensorProto, Array]]:
    """Yields each weight's tensor in the model and its values; they stand in front, in the order of the graph."""
    assert network.weights is not None
    for (name, _), tensor in zip(parameters_of(network.graph), model.graph.initializer, strict=False):
        yield tensor, network.weights[name]


def _weight_bytes(network: Network) -> int:
    return sum(array.nbytes for array in (network.weights or {}).values())


# Checks.


def _check(graph: Graph, model: ModelProto | str) -> None:
    """Has onnx check the whole model, in memory or, with its external data, in a file."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise _refused(graph, error) from error


def _refused(graph: Graph, error: Exception) -> GenSynthError:
    return GenSynthError(
        f"onnx {onnx.__version__} refuses the model of @{graph.name}: {error}",
        hint="a lowering to ONNX is wrong for this opset: try another opset, and mend the lowering",
    )


def _check_shapes(network: Network, model: ModelProto, batch: int | None) -> None:
    """Checks that onnx infers for every value the shape that it has in the IR, and notes the shapes in the model.

    Works on a copy whose weights are inputs, so that how large they are does not matter, and whose batch is fixed, for
    onnx loses sight of a symbolic one in Resize.
    """
    graph = network.graph
    sample = Emission(graph, 0, _SAMPLE_BATCH if batch is None else batch)
    copy = ModelProto()
    copy.CopyFrom(model)
    count = len(network.weights or {})
    copy.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in copy.graph.initializer[:count]
    )
    del copy.graph.initializer[:count]
    for info in copy.graph.input[: len(graph.inputs)]:
        batch_dim = info.type.tensor_type.shape.dim[0]
        if batch_dim.HasField("dim_param"):
            batch_dim.dim_value = _SAMPLE_BATCH
    for info in copy.graph.output:
        info.type.tensor_type.ClearField("shape")  # to be found, and compared with the rest
    try:
        inferred = onnx.shape_inference.infer_shapes(copy, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise _refused(graph, error) from error
    found = {info.name: info for info in (*inferred.graph.value_info, *inferred.graph.output)}
    emission = Emission(graph, 0, batch)
    outputs = {info.name for info in model.graph.output}
    for node in graph.nodes:
        for value in node.results:
            wanted, shape = sample.shape(value.type), _shape_of(found.get(value.name))
            if shape != wanted:
                raise GenSynthError(
                    f"%{value.name} is {list(wanted)} in the IR, but onnx {onnx.__version__} infers {list(shape)}",
                    hint=f"the lowering of {node.op.name} to ONNX is wrong for opset {model.opset_import[0].version}:"
                    " try another opset, and mend the lowering",
                )
            if value.name not in outputs:
                model.graph.value_info.append(_declare(emission, value.name, value.type))


def _shape_of(info: ValueInfoProto | None) -> tuple[int | str, ...]:
    if info is None:
        return ()
    dims = info.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)


# External data.


def _write_external(model: ModelProto, network: Network, target: Path, data: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            parts = {path: Path(folder, path.name) for path in (data, target)}
            _write_weights(model, network, parts[data])
            _write(parts[target], model.SerializeToString())
            _check(network.graph, str(parts[target]))
            for path, part in parts.items():
                part.chmod(0o644)
                part.replace(path)
    except OSError as error:
        raise UsageError(
            f"cannot write {target}: {error.strerror}", hint="choose a folder that can be written and has the space"
        ) from None


def _write_weights(model: ModelProto, network: Network, path: Path) -> None:
    """Writes the large weights one after another, and tells the model where each lies; the small ones go into it."""
    with path.open("wb") as file:
        for tensor, array in _weights_of(model, network):
            content = np.ascontiguousarray(array, np.dtype("<f4"))
            if content.nbytes < _LEAST_EXTERNAL:
                tensor.raw_data = content.tobytes()
                continue
            offset = -(-file.tell() // _PAGE) * _PAGE
            file.write(bytes(offset - file.tell()))
            file.write(content.data)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", path.name), ("offset", offset), ("length", content.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _version() -> str:
    try:
        return version("gensynth")
    except PackageNotFoundError:
        return "0+source"
