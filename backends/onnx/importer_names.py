"""Names: what the nodes of an ONNX model are called in the IR, after where they come from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from .importer_model import OnnxModel, OnnxNode

__all__ = ["Names", "clean_name", "unique"]

_UNFIT = re.compile(r"[^A-Za-z0-9_]+")
_COUNTER = re.compile(r"(?:__\d+|_\d+|\.\d+|:\d+)$")
_PARTS_OF_TENSORFLOW = frozenset({
    "Add", "AddV2", "AvgPool", "BatchMatMulV2", "BiasAdd", "Conv2D", "Conv2DBackpropInput", "Conv2d",
    "DepthwiseConv2dNative", "FusedBatchNorm", "FusedBatchNormV3", "MatMul", "MaxPool", "Mean", "ReadVariableOp",
    "Relu", "Relu6", "Reshape", "Softmax", "depthwise", "separable_conv2d", "convolution",
})  # fmt: skip
_WRAPPERS = frozenset(("StatefulPartitionedCall", "PartitionedCall", "Identity"))
_PARAMETERS = frozenset({
    "weight", "bias", "weights", "biases", "kernel", "gamma", "beta", "running_mean", "running_var", "moving_mean",
    "moving_variance", "running_variance", "scale", "mean", "variance", "W", "B", "w", "b",
})  # fmt: skip


def clean_name(text: str) -> str:
    """Returns a text as a name of the IR: scopes parted by dots, each of letters, digits and underscores."""
    parts = [_UNFIT.sub("_", part).strip("_") or "_" for part in re.split(r"[./]", text) if part.strip("_")]
    if not parts:
        return "value"
    if not (parts[0][0].isascii() and (parts[0][0].isalpha() or parts[0][0] == "_")):
        parts[0] = f"layer{parts[0]}"
    return ".".join(parts)


class Names:
    """Names for the nodes of one model.

    A node is called after its weights, where they are its alone and named as PyTorch and Keras do (`conv1.weight`),
    else after the module that its own name tells (`/layer1/conv/Conv`), with the op behind it where that module holds
    others; without such names, after what it makes.
    """

    def __init__(self, model: OnnxModel, nodes: Sequence[OnnxNode]) -> None:
        """Prepares names for `nodes`, which are those of the model that became something."""
        self._model = model
        self._labels = {node.label for node in nodes}
        counts = Counter(model.origins.get(name, name) for node in model.nodes for name in set(node.reads))
        self._single = {name for name, count in counts.items() if count == 1}
        self._scopes: set[tuple[str, ...]] = set()
        for node in model.nodes:
            path = self._path(node)
            self._scopes.update(tuple(path[:count]) for count in range(1, len(path)))
            owner = self._owner(node)
            if owner:
                parts = clean_name(owner).split(".")
                self._scopes.update(tuple(parts[:count]) for count in range(1, len(parts)))

    def of(self, node: OnnxNode, op: str) -> str:
        """Returns the name that a node, which became `op`, should have; others may have the same."""
        if self._model.is_own:
            name = node.label.partition("/")[0]
            return clean_name(node.label if node.label != name and name in self._labels else name)
        owner = self._owner(node)
        if owner:
            return clean_name(owner)
        path = self._path(node)
        if path and tuple(path) not in self._scopes:
            return clean_name(".".join(path))
        if path:
            return clean_name(".".join([*path, op]))
        if node.scope or "/" in node.name:
            return op
        made = next((name for name in node.outputs if name), "")
        made = _COUNTER.sub("", made.rpartition("/")[2])
        return clean_name(made) if re.search("[A-Za-z]{2}", made) and "::" not in made else op

    def results(self, node: OnnxNode, op: str, count: int) -> list[str]:
        """Returns the names that the results of a node should have."""
        if self._model.is_own and count > 1:
            return [clean_name(name.partition("/")[0]) for name in node.outputs]
        base = self.of(node, op)
        return [base] if count == 1 else [f"{base}_{index}" for index in range(count)]

    def _owner(self, node: OnnxNode) -> str:
        """Returns the layer that a node's weights belong to by their names, empty where they do not tell."""
        for name in node.inputs[1:]:
            origin = self._model.origins.get(name, name)
            if name not in self._model.constants or origin not in self._single:
                continue
            text = re.sub(r":\d+$", "", origin)
            scope, _, local = text.replace("/", ".").rpartition(".")
            if scope and local in _PARAMETERS and "::" not in scope:
                return scope
        return ""

    def _path(self, node: OnnxNode) -> list[str]:
        """Returns the path of modules that a node's name tells, without its operator, each part a name of the IR."""
        text = node.scope or node.name
        if not text or "/" not in text.strip("/"):
            # A bare name, unless it is but a number: `node_relu_3` is what PyTorch's newer exporter makes up.
            bare = text.strip("/")
            if not bare or bare.startswith("node_") or _is_operator(bare, node.written or node.operator):
                return []
            return clean_name(bare).split(".") if re.search("[A-Za-z]{2}", bare) else []
        parts: list[str] = []
        for part in text.split("/"):
            if not part or part in _WRAPPERS:
                continue
            if parts and part.startswith(parts[-1] + "."):
                parts[-1] = part  # PyTorch: /layer1/layer1.0/conv1/Conv
            else:
                parts.append(part)
        if parts and _is_operator(parts[-1], node.written or node.operator):
            parts.pop()
        return clean_name("/".join(parts)).split(".") if parts else []


def _is_operator(part: str, operator: str) -> bool:
    bare = _COUNTER.sub("", part)
    return bare.lower() == operator.lower() or bare in _PARTS_OF_TENSORFLOW


def unique(wanted: Sequence[str], taken: set[str]) -> list[str]:
    """Returns names as wanted, those that are taken with a number behind them, and notes them as taken."""
    found = []
    for name in wanted:
        candidate, count = name, 0
        while candidate in taken:
            count += 1
            candidate = f"{name}_{count}"
        taken.add(candidate)
        found.append(candidate)
    return found
