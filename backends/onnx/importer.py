"""Networks from ONNX models."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from onnx import TensorProto

from gensynth.ir import (
    BATCH,
    Array,
    Graph,
    Network,
    Node,
    TensorType,
    Value,
    check_weights,
    nearest,
    verify,
)

from .importer_arithmetic import ARITHMETIC
from .importer_cleaning import clean
from .importer_folding import fold_constants
from .importer_layers import LAYERS
from .importer_layout import View, plain
from .importer_model import OnnxInput, OnnxModel, integers_of, read_model
from .importer_names import Names, clean_name, unique
from .importer_patterns import find_patterns
from .importer_pools import POOLS
from .importer_shapes import SHAPES
from .importer_translation import DATA_DECIDES, Draft, Translation, Translator

__all__ = ["import_onnx"]

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)

_CHANNELS_LAST = (0, 2, 3, 1)
_CHANNELS_FIRST = (0, 3, 1, 2)


def import_onnx(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Network:
    """Returns the network that an ONNX model of opset 7 or later computes in inference, with its weights.

    A fixed batch becomes `N`. An image that the model takes or returns as [N, H, W, C] is [N, C, H, W] in the network;
    `on_note` is told so, and other things that a user should know. Nodes are called after the model's: by the names of
    their weights, of the modules that the exporter wrote down, or of what they make. `name` names the network; by
    default the file does. `shapes` gives inputs whose sizes the model leaves open these sizes, the batch left out:
    (C, H, W); the empty name stands for the only input.

    Raises:
        UsageError: the file cannot be read, is no ONNX model or a damaged one, lacks its weights, or has something that
            the IR cannot express: says which node, which operator, why, and what to do.
    """
    tell = on_note or (lambda note: None)
    model = read_model(path)
    _check_kind(model)
    fold_constants(model)
    find_patterns(model)
    batch = _batch_of(model)
    translation = Translation(model, batch)
    inputs = _inputs(model, translation, batch, dict(shapes or {}), tell)
    translation.run(_translators(), _why_not)
    outputs = []
    for output in model.outputs:
        found = translation.imported(output)
        if not isinstance(found, View):
            raise model.fail(None, f"the output '{output}' is constant", "export the model with its computation")
        value = translation.materialized(found)
        if value is None:
            if found.order != _CHANNELS_LAST:
                translation.value(found)  # says what is wrong with it
            tell(f"output '{output}' is [N, H, W, C] in the model; the network returns [N, C, H, W]")
            value = found.base
        outputs.append(value)
    drafts, outputs = clean(translation.drafts, outputs, model.is_own)
    return _network(model, name or _name_of(model, Path(path)), inputs, drafts, outputs)


def _name_of(model: OnnxModel, path: Path) -> str:
    if model.is_own:
        return clean_name(model.name)
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    return name if re.match(r"[A-Za-z_]", name) else f"network_{name}"


def _network(
    model: OnnxModel, name: str, inputs: Sequence[Value], drafts: Sequence[Draft], outputs: Sequence[Value]
) -> Network:
    """Names everything, and returns the verified network."""
    names, taken = Names(model, [draft.node for draft in drafts]), set[str]()
    renamed: dict[str, Value] = {}
    for item, value in zip(inputs, _open_inputs(model), strict=True):
        renamed[item.name] = Value(unique([clean_name(value.name)], taken)[0], item.type)
    nodes = []
    weights: dict[str, Array] = {}
    for draft in drafts:
        found = unique(names.results(draft.node, draft.op.name, len(draft.results)), taken)
        results = tuple(Value(name, value.type) for name, value in zip(found, draft.results, strict=True))
        renamed.update((old.name, new) for old, new in zip(draft.results, results, strict=True))
        operands = tuple(renamed[value.name] for value in draft.operands)
        node = Node(draft.op, operands, results, origin=f"{Path(model.source).name}: {draft.node.label}")
        nodes.append(node)
        for parameter in draft.op.parameters(node.operand_types):
            weights[f"{node.name}.{parameter.name}"] = draft.weights[parameter.name]
    graph = Graph(
        name, tuple(renamed[item.name] for item in inputs), tuple(nodes), tuple(renamed[v.name] for v in outputs)
    )
    verify(graph)
    check_weights(graph, weights, model.source)
    return Network(graph, weights)


# Inputs.


def _open_inputs(model: OnnxModel) -> list[OnnxInput]:
    """Returns the inputs that something reads, and in models of our own all."""
    if model.is_own:
        return model.inputs
    read = {name for node in model.nodes for name in node.inputs} | set(model.outputs)
    return [item for item in model.inputs if item.name in read]


def _batch_of(model: OnnxModel) -> int | None:
    """Returns the batch that the model is fixed to, None where it is free."""
    batches = {item.shape[0] for item in _open_inputs(model) if item.shape}
    if len(batches) > 1:
        shown = ", ".join("free" if batch is None else str(batch) for batch in batches)
        raise model.fail(
            None, f"its inputs have different batches ({shown})", "export it with one batch for all inputs"
        )
    return next(iter(batches), None)


def _inputs(
    model: OnnxModel,
    translation: Translation,
    batch: int | None,
    shapes: dict[str, Sequence[int]],
    tell: Callable[[str], None],
) -> list[Value]:
    values = []
    items = _open_inputs(model)
    if not items:
        raise model.fail(None, "it reads no input", "export the model with its input")
    if batch is not None and batch > 1:
        tell(f"the model is fixed to a batch of {batch}; the network takes any")
    if len(items) == 1 and "" in shapes:
        shapes[items[0].name] = shapes.pop("")
    for key in shapes:
        if key not in {item.name for item in items}:
            raise model.fail(
                None, f"it has no input '{key}'", nearest(key, [item.name for item in items], what="inputs")
            )
    for item in items:
        if item.dtype not in _FLOATS:
            kind = TensorProto.DataType.Name(item.dtype).lower() if item.dtype in TensorProto.DataType.values() else "?"
            raise model.fail(
                None,
                f"input '{item.name}' holds {kind}",
                "a network takes float32 images: take the conversion out of the model, and do it before",
            )
        if item.dtype != TensorProto.FLOAT:
            tell(f"input '{item.name}' is {TensorProto.DataType.Name(item.dtype).lower()}; the network is float32")
        order = _CHANNELS_LAST if _is_channels_last(model, item) else None
        sizes = _sizes(model, item, order, shapes.get(item.name))
        value = translation.fresh(TensorType("f32", (BATCH, *sizes)))
        whole = plain(value)
        translation.define(item.name, whole if order is None else whole.transposed(order, None))
        if order is not None:
            tell(f"input '{item.name}' is [N, H, W, C] in the model; the network takes [N, C, H, W]")
        values.append(value)
    return values


def _sizes(
    model: OnnxModel, item: OnnxInput, order: tuple[int, ...] | None, given: Sequence[int] | None
) -> tuple[int, ...]:
    """Returns the sizes of an input without the batch, channels first."""
    if given is not None:
        sizes = tuple(given)
        if not sizes or min(sizes) < 1:
            raise model.fail(None, f"the shape {list(sizes)} for input '{item.name}' is none", "give (C, H, W)")
        declared = list(item.shape or (None, *(None for _ in sizes)))
        if order is not None and len(declared) == 4:
            declared = [declared[order.index(axis)] for axis in range(4)]
        fits = len(declared) == len(sizes) + 1 and all(
            size in (None, wanted) for size, wanted in zip(declared[1:], sizes, strict=True)
        )
        if not fits:
            raise model.fail(
                None,
                f"input '{item.name}' is {_shown(declared)}, which {list(sizes)} does not fit",
                "give the sizes that are open, without the batch and with the channels first",
            )
        return sizes
    shape = item.shape
    if shape is None or len(shape) < 2:
        shown = "of unknown shape" if shape is None else f"{_shown(shape)}"
        raise model.fail(
            None,
            f"input '{item.name}' is {shown}",
            "an input has the batch first and one axis more; give an unknown shape: --shape 3x224x224",
        )
    known = [size for size in shape[1:] if size is not None]
    if len(known) != len(shape) - 1:
        raise model.fail(
            None,
            f"input '{item.name}' is {_shown(shape)}: more than the batch is open",
            "a network is for one size of image: give it, channels first, by --shape 3x224x224",
        )
    return tuple(known[axis - 1] for axis in (3, 1, 2)) if order is not None else tuple(known)


def _shown(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


_LAYOUT_BLIND = ("Add", "Cast", "Clip", "Div", "Dropout", "Identity", "Mul", "Neg", "Pad", "Relu", "Sub")


def _is_channels_last(model: OnnxModel, item: OnnxInput) -> bool:
    """Returns whether an image is turned to channels first before anything looks at its axes."""
    if item.shape is not None and len(item.shape) != 4:
        return False
    readers = model.readers()
    seen: set[str] = set()
    waiting = [item.name]
    found = False
    while waiting:
        name = waiting.pop()
        for node in readers.get(name, []):
            if (node.operator in _LAYOUT_BLIND and node.inputs[0] == name) or node.operator in ("Add", "Mul", "Sub"):
                waiting += [output for output in node.outputs if output not in seen]
                seen.update(node.outputs)
            elif node.operator == "Shape":
                continue
            elif node.operator == "Transpose" and node.attributes.get("perm") == list(_CHANNELS_FIRST):
                found = True
            elif node.operator == "Reshape" and item.shape is not None and item.shape[3] == 1:
                target = model.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
                wanted = None if target is None else integers_of(target)
                if wanted is None or len(wanted) != 4 or wanted[1] != 1 or wanted[2:] != item.shape[1:3]:
                    return False
                found = True
            else:
                return False
    return found


# Operators.


@cache
def _translators() -> dict[str, Translator]:
    return {**ARITHMETIC, **LAYERS, **POOLS, **SHAPES}


_QUANTIZED = re.compile(r"Quantize|QLinear|Integer$")

_REASONS = {
    "LogSoftmax": ("the IR has no logarithm", "export the model with softmax, or without: ranks stay the same"),
    "InstanceNormalization": ("statistics of each image", "use batch normalization, whose statistics are fixed"),
    "GroupNormalization": ("statistics of each image", "use batch normalization, whose statistics are fixed"),
    "LayerNormalization": ("statistics of each image", "use batch normalization, whose statistics are fixed"),
    "DepthToSpace": ("elements moved between channels and places", "use a transposed convolution instead"),
    "SpaceToDepth": ("elements moved between channels and places", "use a convolution with a stride instead"),
}


def _check_kind(model: OnnxModel) -> None:
    """Checks for what would otherwise be told at a node that is not to blame."""
    data = {item.name for item in model.inputs}
    for node in model.nodes:
        if node.operator not in ("Shape", "Size") and any(name in data for name in node.inputs):
            data.update(node.outputs)
        if node.operator == "If" and node.inputs[0] in data:
            raise model.fail(node, *DATA_DECIDES)
    for node in model.nodes:
        if _QUANTIZED.search(node.operator):
            raise model.fail(node, "the model is quantized", "import the float32 model that it was made from")


def _why_not(operator: str) -> tuple[str, str]:
    """Returns what is wrong with an operator that has no translator, and what to do."""
    if operator in _REASONS:
        return _REASONS[operator]
    near = nearest(operator, _translators(), what="operators that can be imported")
    return "an operator that the IR does not have", f"replace it in the model, or cut the model before it; {near}"
