"""What a lowering writes to: the ONNX nodes and initializers of one network, node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from gensynth.ir import Graph, Node, TensorType

__all__ = ["Attribute", "Emission", "NodeEmission"]

Attribute = int | float | str | Sequence[int] | Sequence[float]
"""What an attribute of an ONNX node may hold."""

Constant = npt.NDArray[np.float32] | npt.NDArray[np.int64]


class Emission:
    """The nodes and constants of a graph in ONNX's terms, in order, for one opset and one batch.

    Values are called as in the IR. A weight is called as in the IR too, but where a value has that name already: there
    a slash stands for the last dot. What a lowering adds besides has a slash behind the name of its node, and no name
    of the IR has a slash.
    """

    def __init__(self, graph: Graph, opset: int, batch: int | None = None) -> None:
        self.graph = graph
        self.opset = opset
        self.batch = batch
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def weight(self, name: str) -> str:
        """Returns what the initializer of a weight is called."""
        if name not in self.graph.values:
            return name
        owner, _, local = name.rpartition(".")
        return f"{owner}/{local}"

    def shape(self, type: TensorType) -> tuple[int | str, ...]:
        """Returns the shape of a value in the model: `N` or the fixed batch, then sizes."""
        batch, *sizes = type.shape
        first = self.batch if isinstance(batch, str) and self.batch is not None else batch
        return tuple(dim if isinstance(dim, int) else str(dim) for dim in (first, *sizes))


class NodeEmission:
    """One node of the IR on its way into ONNX: what a lowering reads, and how it says what to write.

    `operands` and `results` are names of values, `operand_types` and `result_types` their types in the IR; `opset` is
    the version of ONNX's operators to write for, `batch` the number of images where it is fixed.
    """

    def __init__(self, emission: Emission, node: Node) -> None:
        self._emission = emission
        self._node = node
        self.name = node.name
        self.opset = emission.opset
        self.batch = emission.batch
        self.operands = tuple(value.name for value in node.operands)
        self.operand_types: tuple[TensorType, ...] = node.operand_types
        self.results = tuple(value.name for value in node.results)
        self.result_types: tuple[TensorType, ...] = tuple(value.type for value in node.results)

    def weight(self, local: str) -> str:
        """Returns the name of one of the node's weights, `weight` for the weight of a convolution."""
        return self._emission.weight(f"{self.name}.{local}")

    def integers(self, step: str, values: Sequence[int]) -> str:
        """Adds a constant int64 [len(values)], called `NODE/STEP`, and returns its name."""
        return self._constant(step, np.array(values, np.int64))

    def number(self, step: str, value: float) -> str:
        """Adds a constant float32 scalar, called `NODE/STEP`, and returns its name."""
        return self._constant(step, np.array(value, np.float32))

    def numbers(self, step: str, values: Sequence[float]) -> str:
        """Adds a constant float32 [len(values)], called `NODE/STEP`, and returns its name."""
        return self._constant(step, np.array(values, np.float32))

    def array(self, step: str, values: npt.NDArray[np.float32]) -> str:
        """Adds a constant float32 array, called `NODE/STEP`, and returns its name."""
        return self._constant(step, values)

    def _constant(self, step: str, array: Constant) -> str:
        name = f"{self.name}/{step}"
        self._emission.constants.append(numpy_helper.from_array(array, name))
        return name

    def step(self, step: str, operator: str, inputs: Sequence[str], **attributes: Attribute) -> str:
        """Adds an ONNX node before the last one, called `NODE/STEP` as its only result is, and returns that name."""
        name = f"{self.name}/{step}"
        self._add(operator, name, inputs, (name,), attributes)
        return name

    def emit(self, operator: str, inputs: Sequence[str], **attributes: Attribute) -> None:
        """Adds the ONNX node that makes the results of the IR's node and has its name."""
        self._add(operator, self.name, inputs, self.results, attributes)

    def _add(
        self,
        operator: str,
        name: str,
        inputs: Sequence[str],
        results: Sequence[str],
        attributes: Mapping[str, Attribute],
    ) -> None:
        node = NodeProto(op_type=operator, name=name, input=inputs, output=results)
        node.attribute.extend(_attribute(key, value) for key, value in attributes.items())
        self._emission.nodes.append(node)


def _attribute(name: str, value: Attribute) -> AttributeProto:
    return helper.make_attribute(name, value)
