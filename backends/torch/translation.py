"""One exported program on its way into the IR: values, weights, names, and places in the user's code."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node as FxNode

from gensynth.ir import (
    BATCH,
    Array,
    Dim,
    GenSynthError,
    Graph,
    Network,
    Node,
    Op,
    TensorType,
    UsageError,
    Value,
    check_weights,
    make_node,
    nearest,
    verify,
)

__all__ = ["Arguments", "Constant", "Deferred", "Imported", "Translation", "Translator", "WeightSources"]


@dataclass(frozen=True)
class Constant:
    """A weight or buffer of the program; `transposed` where the program has turned it."""

    name: str
    tensor: torch.Tensor
    transposed: bool = False


@dataclass(frozen=True)
class Deferred:
    """A step of a pattern that is no op by itself: which one, of which value, with which number or settings so far."""

    kind: str
    value: Value
    number: int = 0
    settings: tuple[float, ...] = ()


Imported = Value | Constant | Deferred | tuple["Imported", ...]
"""What a node of the program becomes."""

Arguments = list[object]
"""The arguments of an aten op in the order of its schema, None where one was not given."""

Translator = Callable[["Translation", Arguments], Imported]

WeightSources = dict[str, Constant | Array]
"""A node's weights by local name: from the program, or made up where the program has none."""

_PART = re.compile(r"[^A-Za-z0-9_]")


class Translation:
    """Walks the nodes of a program; translators ask it for values and weights and give it ops."""

    def __init__(self, program: ExportedProgram, name: str) -> None:
        self._program = program
        self._name = name
        self._environment: dict[FxNode, Imported] = {}
        self._inputs: list[Value] = []
        self._nodes: list[Node] = []
        self._names: set[str] = set()
        self._weights: dict[str, Array] = {}
        self._batch: object = None
        self.current: FxNode

    def network(self, known: Mapping[str, Translator]) -> Network:
        """Returns the whole program's network, its ops translated by `known` (aten name -> translator)."""
        constants = self._constants()
        inputs = set(self._program.graph_signature.user_inputs)
        mutations = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION)
        kept = [spec.kind not in mutations for spec in self._program.graph_signature.output_specs]
        outputs: list[Value] = []
        for node in self._program.graph.nodes:
            self.current = node
            if node.op == "placeholder":
                if node.name in constants:
                    self._environment[node] = constants[node.name]
                elif node.name in inputs:
                    self._environment[node] = self._input(node)
            elif node.op == "output":
                found = [item for item, keep in zip(node.args[0], kept, strict=True) if keep]
                outputs = [self.value(item) for item in found]
            elif node.op != "call_function":
                raise self.fail(f"a node of kind '{node.op}'", "export the module again with torch.export.export")
            elif node.target is operator.getitem:
                self._environment[node] = self._item(node)
            elif self._is_needed(node):
                target = str(node.target).removeprefix("aten.")
                translate = known.get(target) or known.get(target.partition(".")[0])
                if translate is None:
                    near = nearest(target.partition(".")[0], known, what="aten ops that can be imported")
                    raise self.fail("an op that the IR does not have", f"rewrite that line with ops of the IR; {near}")
                self._environment[node] = translate(self, _arguments(node))
        return self._finish(outputs)

    def _finish(self, outputs: list[Value]) -> Network:
        wanted = {value.name for value in outputs}
        kept: list[Node] = []
        for node in reversed(self._nodes):
            if any(value.name in wanted for value in node.results):
                kept.append(node)
                wanted.update(value.name for value in node.operands)
        graph = Graph(self._name, tuple(self._inputs), tuple(reversed(kept)), tuple(outputs))
        verify(graph)
        names = {node.name for node in kept}
        weights = {name: array for name, array in self._weights.items() if name.rpartition(".")[0] in names}
        check_weights(graph, weights, "the exported program")
        return Network(graph, weights)

    # The program's side.

    def _constants(self) -> dict[str, Constant]:
        program, constants = self._program, {}
        for spec in program.graph_signature.input_specs:
            if spec.kind is not InputKind.USER_INPUT and spec.target is not None:
                tensor = program.state_dict.get(spec.target, program.constants.get(spec.target))
                if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                    constants[spec.arg.name] = Constant(spec.target, tensor)
        return constants

    def _is_needed(self, node: FxNode) -> bool:
        """Whether a node computes data: not shapes, not checks, not what training counts in buffers."""
        if isinstance(node.meta.get("val"), (torch.SymInt, torch.SymBool, torch.SymFloat, int, float, bool)):
            return False
        read = [self._environment.get(item) for item in node.all_input_nodes]
        return any(item is not None for item in read)

    def _input(self, node: FxNode) -> Value:
        tensor = node.meta.get("val")
        if not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.float32 or tensor.ndim < 2:
            shown = f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, torch.Tensor) else repr(tensor)
            raise self.fail(
                f"an input that is {shown}", "an input is a float32 tensor with the batch first and one axis more"
            )
        batch = tensor.shape[0]
        if self._batch is not None and str(batch) != str(self._batch):
            raise self.fail(f"a batch of {batch} beside one of {self._batch}", "give all example inputs the same batch")
        self._batch = batch
        value = Value(self._unique(_clean(node.name)), TensorType("f32", (BATCH, *self._sizes(tensor.shape[1:]))))
        self._inputs.append(value)
        return value

    def _sizes(self, sizes: tuple[object, ...]) -> tuple[int, ...]:
        if not all(isinstance(size, int) for size in sizes):
            raise self.fail(f"a size {list(sizes)} that is not fixed", "leave only the batch dynamic in torch.export")
        return tuple(int(str(size)) for size in sizes)

    def shape(self) -> tuple[Dim, ...]:
        """Returns the shape of the current node's result, the batch as `N`."""
        tensor = self.current.meta["val"]
        batch, *rest = tensor.shape
        if str(batch) != str(self._batch):
            raise self.fail(f"a result {list(tensor.shape)} whose first axis is no batch", "keep the batch in axis 0")
        return BATCH, *self._sizes(tuple(rest))

    def _item(self, node: FxNode) -> Imported:
        whole, index = self._environment.get(node.args[0]), node.args[1]  # type: ignore[arg-type]
        if isinstance(whole, tuple):
            return whole[index]  # type: ignore[index]
        if index == 0 and whole is not None:
            return whole
        return ()

    def fail(self, what: str, hint: str) -> GenSynthError:
        """Returns the error for something that cannot be imported at the current node."""
        node = self.current
        place = self._place()
        where = f" ({place})" if place else ""
        op = f" ({node.target})" if node.op == "call_function" else ""
        return UsageError(f"cannot import %{node.name}{op}{where}: {what}", hint=hint)

    def _place(self) -> str:
        """Returns the innermost line of code outside PyTorch that made the current node, as file:line."""
        trace = self.current.meta.get("stack_trace") or ""
        places = re.findall(r'File "([^"]+)", line (\d+)', trace)
        own = [place for place in places if "/torch/" not in place[0]]
        return ":".join(own[-1]) if own else ""

    # What translators ask.

    def value(self, argument: object) -> Value:
        """Returns the value that an argument is."""
        found = self._environment.get(argument) if isinstance(argument, FxNode) else None
        if isinstance(found, Value):
            return found
        if isinstance(found, Deferred):
            raise self.fail(
                f"it reads half of a pattern ({found.kind})",
                "the IR has only the whole (channel_shuffle, hard_swish, local_response_norm)",
            )
        shown = f"the weight {found.name}" if isinstance(found, Constant) else repr(argument)
        raise self.fail(f"it reads {shown} where an op of the IR has a value", "combine computed values only")

    def imported(self, argument: object) -> Imported | None:
        """Returns what an argument has become, None where it is no node."""
        return self._environment.get(argument) if isinstance(argument, FxNode) else None

    def producer(self, value: Value) -> Node | None:
        """Returns the node that makes a value, None for an input."""
        return next((node for node in reversed(self._nodes) if value in node.results), None)

    def constant(self, argument: object) -> Constant | None:
        """Returns the weight that an argument is, None for None."""
        if argument is None:
            return None
        found = self.imported(argument)
        if not isinstance(found, Constant):
            raise self.fail("a weight that is computed", "use weights that are parameters or buffers of the module")
        return found

    def integers(self, argument: object) -> tuple[int, ...]:
        """Returns a list of plain integers."""
        items: list[object] = list(argument) if isinstance(argument, (list, tuple)) else [argument]
        integers = tuple(item for item in items if isinstance(item, int))
        if len(integers) != len(items):
            raise self.fail(f"{items} where plain integers are wanted", "make only the batch dynamic")
        return integers

    def pair(self, argument: object, default: tuple[int, int]) -> tuple[int, int]:
        """Returns (height, width) of an argument of one or two integers, or none."""
        items = self.integers(argument) if argument is not None else ()
        return default if not items else (items[0], items[-1])

    def emit(self, op: Op, *operands: Value, weights: WeightSources | None = None, results: int = 1) -> Imported:
        """Adds a node with its weights and returns its result, or a tuple of them."""
        base = self._base_name(op, weights or {})
        names = [self._unique(base)] if results == 1 else [self._unique(f"{base}_{index}") for index in range(results)]
        try:
            node = make_node(op, operands, tuple(names), origin=self._place())
        except GenSynthError as error:
            raise self.fail(error.message, error.hint or "the IR wants other operands here") from None
        self._nodes.append(node)
        for local, item in (weights or {}).items():
            array = item if isinstance(item, np.ndarray) else _array(item)
            self._weights[f"{node.name}.{local}"] = array
        return node.results[0] if results == 1 else tuple(node.results)

    def _base_name(self, op: Op, weights: WeightSources) -> str:
        owners = [item.name.rpartition(".")[0] for item in weights.values() if isinstance(item, Constant)]
        if owners and owners[0]:
            return _clean(owners[0])
        stack = list((self.current.meta.get("nn_module_stack") or {}).values())
        path, kind = stack[-1] if stack else ("", "")
        path = "" if path.startswith("_empty_nn_module_stack") else path
        is_layer = str(kind).startswith("torch.nn.modules.") and ".container." not in str(kind)
        return _clean(path if is_layer and path else f"{path}.{op.name}" if path else op.name)

    def _unique(self, name: str) -> str:
        candidate, count = name, 0
        while candidate in self._names:
            count += 1
            candidate = f"{name}_{count}"
        self._names.add(candidate)
        return candidate


def _arguments(node: FxNode) -> Arguments:
    schema = getattr(node.target, "_schema").arguments  # noqa: B009
    given = dict(zip([argument.name for argument in schema], node.args, strict=False)) | dict(node.kwargs)
    return [given.get(argument.name) for argument in schema]


def _clean(path: str) -> str:
    parts = [_PART.sub("_", part) for part in path.split(".") if part]
    if not parts[0][0].isalpha() and parts[0][0] != "_":
        parts[0] = f"layer{parts[0]}"
    return ".".join(parts)


def _array(constant: Constant) -> Array:
    tensor = constant.tensor.detach().to(device="cpu", dtype=torch.float32)
    return np.ascontiguousarray((tensor.T if constant.transposed else tensor).numpy())
