"""ONNX models as the importer sees them: plain nodes and arrays, read from a file that nobody vouches for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from gensynth.ir import UsageError

__all__ = [
    "NEWEST_OPSET",
    "OLDEST_OPSET",
    "AnyArray",
    "Branch",
    "OnnxInput",
    "OnnxModel",
    "OnnxNode",
    "integers_of",
    "read_model",
    "scalar_of",
]

OLDEST_OPSET = 7
"""Before it, operators broadcast by attributes of their own."""

NEWEST_OPSET = onnx.defs.onnx_opset_version()

AnyArray = npt.NDArray[np.generic]
"""An array of any type of number."""

_DEFAULT_DOMAINS = ("", "ai.onnx")
_TRAINING_DOMAIN = "ai.onnx.preview.training"


@dataclass(eq=False)
class Branch:
    """What an If may run: nodes in order, with constants of its own, and the names of its results."""

    nodes: list[OnnxNode]
    constants: dict[str, AnyArray]
    outputs: list[str]


@dataclass(eq=False)
class OnnxNode:
    """One node: its operator, the names of what it reads and makes ("" for what is left out), and its attributes.

    `scope` says where in the modules of its maker it stands, where the model tells (a path with slashes). `written` is
    what the model has in its place, where it stands for a pattern of several nodes.
    """

    name: str
    operator: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, object] = field(default_factory=dict)
    scope: str = ""
    written: str = ""

    @property
    def reads(self) -> list[str]:
        """The names of all that it reads, its branches included."""
        branches = [item for item in self.attributes.values() if isinstance(item, Branch)]
        inner = [name for branch in branches for node in branch.nodes for name in node.reads]
        return [*self.inputs, *inner, *(name for branch in branches for name in branch.outputs)]

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.name or next((output for output in self.outputs if output), "(unnamed)")


@dataclass(frozen=True)
class OnnxInput:
    """An input: its shape has None where a size is free, and is None where the model does not tell it."""

    name: str
    dtype: int
    shape: tuple[int | None, ...] | None


@dataclass
class OnnxModel:
    """A model: nodes in order, constants by name, inputs without those that are constants, and names of outputs.

    `origins` names, for a constant that was computed by moving a weight, that weight.
    """

    source: str
    name: str
    producer: str
    opset: int
    inputs: list[OnnxInput]
    outputs: list[str]
    constants: dict[str, AnyArray]
    nodes: list[OnnxNode]
    origins: dict[str, str] = field(default_factory=dict)

    @property
    def is_own(self) -> bool:
        """Whether GenSynth wrote it: names are then those of the IR, and a slash parts a step from its node."""
        return self.producer == "gensynth"

    def fail(self, node: OnnxNode | None, what: str, hint: str) -> UsageError:
        """Returns the error for something that cannot be imported, at a node where there is one."""
        where = "" if node is None else f"node '{node.label}' ({node.written or node.operator}): "
        return UsageError(f"{self.source}: {where}{what}", hint=hint)

    def readers(self) -> dict[str, list[OnnxNode]]:
        """Returns the nodes that read each value, a node as often as it does."""
        readers: dict[str, list[OnnxNode]] = {}
        for node in self.nodes:
            for name in node.reads:
                readers.setdefault(name, []).append(node)
        return readers


def read_model(path: str | os.PathLike[str]) -> OnnxModel:
    """Reads a model from a file, weights beside it included.

    Raises:
        UsageError: the file cannot be read, is no model or a damaged one, its weights are missing or lie outside of its
            folder, or it is for another opset, for training, or has control flow.
    """
    file = Path(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", hint="give the path of an .onnx file") from None
    proto = ModelProto()
    broken = UsageError(
        f"{file} is no ONNX model, or is cut short", hint="write it again from its source, and compare its size"
    )
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise broken from None
    if not all(isinstance(text, str) for text in (*_texts(proto.graph), proto.producer_name)):
        raise broken  # protobuf hands out what is no UTF-8 as bytes
    if not proto.HasField("graph") or not proto.graph.output or not proto.opset_import:
        raise broken
    return _Reader(proto, file).model()


class _Reader:
    """Turns one protobuf into an `OnnxModel`, checking on the way."""

    def __init__(self, proto: ModelProto, path: Path) -> None:
        self._path = path
        self._domains = _DEFAULT_DOMAINS
        self._proto = proto

    def model(self) -> OnnxModel:
        proto = self._proto
        opset = self._opset(proto)
        if proto.training_info or any(item.domain == _TRAINING_DOMAIN for item in proto.opset_import):
            raise self._fail("the model is for training", "export the model in inference (model.eval() in PyTorch)")
        if proto.functions:
            proto = self._inlined(proto)
        graph = proto.graph
        if graph.sparse_initializer:
            raise self._fail(
                f"'{graph.sparse_initializer[0].values.name}' is a sparse weight", "export the model with dense weights"
            )
        constants = {tensor.name: self._array(tensor, f"weight '{tensor.name}'") for tensor in graph.initializer}
        nodes = [self._node(node) for node in _needed(graph)]
        inputs = [self._input(info) for info in graph.input if info.name not in constants]
        for node in nodes:
            if node.operator == "Constant":
                constants[node.outputs[0]] = self._constant(node)
        model = OnnxModel(
            source=str(self._path),
            name=graph.name,
            producer=proto.producer_name,
            opset=opset,
            inputs=inputs,
            outputs=[info.name for info in graph.output],
            constants=constants,
            nodes=[node for node in nodes if node.operator != "Constant"],
        )
        _check_order(model)
        return model

    def _fail(self, what: str, hint: str, node: NodeProto | OnnxNode | None = None) -> UsageError:
        if node is None:
            return UsageError(f"{self._path}: {what}", hint=hint)
        operator = node.operator if isinstance(node, OnnxNode) else node.op_type
        outputs = node.outputs if isinstance(node, OnnxNode) else list(node.output)
        return UsageError(f"{self._path}: node '{node.name or ''.join(outputs[:1])}' ({operator}): {what}", hint=hint)

    def _opset(self, proto: ModelProto) -> int:
        versions = [item.version for item in proto.opset_import if item.domain in _DEFAULT_DOMAINS]
        if not versions:
            domains = ", ".join(item.domain for item in proto.opset_import)
            raise self._fail(f"no operators of ONNX, but of {domains}", "export the model with ONNX's own operators")
        if not OLDEST_OPSET <= versions[0] <= NEWEST_OPSET:
            raise self._fail(
                f"opset {versions[0]}; this version reads {OLDEST_OPSET} to {NEWEST_OPSET}",
                "export the model for opset 17, or convert it: onnx.version_converter.convert_version(model, 17)",
            )
        return int(versions[0])

    def _inlined(self, proto: ModelProto) -> ModelProto:
        """Returns the model with the functions that it brings written out."""
        from onnx import inliner

        try:
            return inliner.inline_local_functions(proto)
        except Exception as error:  # of C++, and of no class of its own
            told = str(error).strip().partition("\n")[0]
            raise self._fail(
                f"its functions cannot be written out: {told[:200]}", "export it without functions"
            ) from None

    def _input(self, info: onnx.ValueInfoProto) -> OnnxInput:
        if info.type.WhichOneof("value") != "tensor_type":
            raise self._fail(f"input '{info.name}' is no tensor", "an input is a float32 tensor with the batch first")
        tensor = info.type.tensor_type
        shape = None
        if tensor.HasField("shape"):
            shape = tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
                          for dim in tensor.shape.dim)  # fmt: skip
        return OnnxInput(info.name, tensor.elem_type, shape)

    def _node(self, proto: NodeProto) -> OnnxNode:
        if proto.domain == _TRAINING_DOMAIN:
            raise self._fail("an operator of training", "export the model in inference", proto)
        has_body = any(item.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for item in proto.attribute)
        if has_body and proto.op_type != "If":
            raise self._fail(
                "control flow",
                "a network runs every node once: unroll the loop where the model is made",
                proto,
            )
        if proto.domain not in self._domains:
            raise self._fail(
                f"an operator of '{proto.domain}'",
                "export the model with ONNX's own operators, and not one that a runtime has optimized already",
                proto,
            )
        attributes = {item.name: self._attribute(proto, item) for item in proto.attribute}
        props = {item.key: item.value for item in proto.metadata_props}
        scope = _scope_of(props.get("pkg.torch.onnx.name_scopes", ""), proto.op_type)
        return OnnxNode(proto.name, proto.op_type, list(proto.input), list(proto.output), attributes, scope)

    def _attribute(self, node: NodeProto, item: AttributeProto) -> object:
        if item.type == AttributeProto.TENSOR:
            return self._array(item.t, f"the constant of node '{node.name or ''.join(node.output[:1])}'")
        if item.type == AttributeProto.GRAPH:
            return self._branch(item.g)
        if item.type not in _PLAIN:
            raise self._fail(
                f"attribute '{item.name}' is of a kind that no operator here takes", "check the model", node
            )
        value = helper.get_attribute_value(item)
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        return list(value) if not isinstance(value, (int, float, str)) else value

    def _branch(self, graph: GraphProto) -> Branch:
        constants = {tensor.name: self._array(tensor, f"weight '{tensor.name}'") for tensor in graph.initializer}
        nodes = [self._node(node) for node in graph.node]
        for node in nodes:
            if node.operator == "Constant":
                constants[node.outputs[0]] = self._constant(node)
        return Branch([node for node in nodes if node.operator != "Constant"], constants,
                      [info.name for info in graph.output])  # fmt: skip

    def _constant(self, node: OnnxNode) -> AnyArray:
        kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
        for name, value in node.attributes.items():
            if name == "value" and isinstance(value, np.ndarray):
                return value
            if name in kinds and not isinstance(value, str):
                return np.array(value, kinds[name])
        raise self._fail("a constant that is no tensor of numbers", "export the model with dense constants", node)

    # Weights.

    def _array(self, tensor: TensorProto, what: str) -> AnyArray:
        """Returns the values of a tensor, from the model or from the file that it names."""
        shape = tuple(tensor.dims)
        if any(size < 0 for size in shape):
            raise self._fail(f"{what} has shape {list(shape)}", "write the model again from its source")
        if tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
            raise self._fail(f"{what} holds no numbers", "write the model again from its source")
        if tensor.data_location == TensorProto.EXTERNAL:
            stored = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=self._external(tensor, what))
        else:
            stored = tensor
        try:
            array: AnyArray = np.asarray(numpy_helper.to_array(stored))
        except (ValueError, TypeError, KeyError) as error:
            told = str(error).strip().partition("\n")[0]
            raise self._fail(f"{what} does not hold {list(shape)} numbers: {told[:120]}",
                             "the file is damaged: write it again from its source") from None  # fmt: skip
        if array.size != math.prod(shape):
            raise self._fail(f"{what} does not hold {list(shape)} numbers", "write the model again from its source")
        return array.reshape(shape)

    def _external(self, tensor: TensorProto, what: str) -> bytes:
        entries = {item.key: item.value for item in tensor.external_data}
        location = entries.get("location", "")
        folder = self._path.parent.resolve()
        path = folder / location
        inside = location and not Path(location).is_absolute() and path.resolve().is_relative_to(folder)
        if not inside:
            raise self._fail(
                f"{what} is said to lie in '{location}', outside of the model's folder",
                "weights are read from the folder of the model only: put them there, and save the model anew",
            )
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, offset))
                content: bytes = file.read(size if length < 0 else min(length, size))
        except ValueError:
            raise self._fail(f"{what} has no place in '{location}'", "write the model again from its source") from None
        except OSError as error:
            raise self._fail(
                f"cannot read {what} from '{location}': {error.strerror}", "put that file beside the model again"
            ) from None
        if offset < 0 or (length >= 0 and len(content) != length):
            raise self._fail(
                f"'{location}' is cut short: {what} ends at byte {offset + length:,}, the file has {size:,}",
                "write the model and its weights again from their source",
            )
        return content


_PLAIN = (AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING, AttributeProto.FLOATS, AttributeProto.INTS,
          AttributeProto.STRINGS)  # fmt: skip


def _needed(graph: GraphProto) -> Iterator[NodeProto]:
    """Yields the nodes that the outputs depend on, in order."""
    wanted = {info.name for info in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(name in wanted for name in node.output if name):
            kept.append(node)
            wanted.update(name for name in node.input if name)
            for attribute in node.attribute:  # branches read values of the graph around them
                wanted.update(_outer(attribute.g))
    yield from reversed(kept)


def _texts(graph: GraphProto) -> Iterator[object]:
    """Yields every name of a graph."""
    yield graph.name
    yield from (item.name for item in (*graph.initializer, *graph.input, *graph.output))
    yield from (entry.value for tensor in graph.initializer for entry in tensor.external_data)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (text for entry in node.metadata_props for text in (entry.key, entry.value))
        for attribute in node.attribute:
            yield attribute.name
            yield from _texts(attribute.g)


def _outer(graph: GraphProto) -> Iterator[str]:
    yield from (info.name for info in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            yield from _outer(attribute.g)


def _check_order(model: OnnxModel) -> None:
    """Checks that every value is made once, before it is read."""
    known = {"", *model.constants, *(item.name for item in model.inputs)}
    _check_nodes(model, model.nodes, known)
    for name in model.outputs:
        if name not in known or not name:
            raise model.fail(None, f"nothing makes the output '{name}'", "the model is damaged: export it again")


def _check_nodes(model: OnnxModel, nodes: Sequence[OnnxNode], known: set[str]) -> None:
    """Checks nodes, and adds what they make to what is known."""
    for node in nodes:
        for name in node.inputs:
            if name not in known:
                raise model.fail(
                    node, f"it reads '{name}', which nothing makes before it", "the model is damaged: export it again"
                )
        for name in node.outputs:
            if name and name in known:
                raise model.fail(node, f"'{name}' is made twice", "the model is damaged: export it again")
            known.add(name)
        if not any(node.outputs):
            raise model.fail(node, "it makes nothing", "the model is damaged: export it again")
        for branch in node.attributes.values():
            if isinstance(branch, Branch):
                inside = {*known, *branch.constants}
                _check_nodes(model, branch.nodes, inside)
                if not inside.issuperset(branch.outputs):
                    raise model.fail(node, "a branch does not make what it returns", "export the model again")


def _scope_of(text: str, operator: str) -> str:
    """Returns the module that PyTorch's newer exporter notes for a node ("['', 'layer1', 'layer1.0', 'add']")."""
    if not (text.startswith("[") and text.endswith("]")):
        return ""
    parts = [part.strip().strip("'\"") for part in text[1:-1].split(",")]
    modules = [part for part in parts[:-1] if part]
    return "/".join([*modules[-1:], operator]) if modules else ""


def scalar_of(array: AnyArray) -> float | None:
    """Returns the number that an array of one element holds, None for any other."""
    if array.size != 1 or array.dtype.kind not in "fiu":
        return None
    return float(array.reshape(()))


def integers_of(array: AnyArray) -> tuple[int, ...] | None:
    """Returns the integers that an array holds, None where it is more than one axis or no integers."""
    if array.ndim > 1 or array.dtype.kind not in "iu":
        return None
    return tuple(int(item) for item in np.atleast_1d(array))
