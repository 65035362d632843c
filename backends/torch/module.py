"""Networks as PyTorch modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gensynth.ir import Array, Graph, Network, Node, UsageError, Weights, check_weights, initialize

from .lowerings import Run, Scope, lower

__all__ = ["NetworkModule", "Observer", "Scope", "device_of", "to_torch", "weights_of"]


class Observer:
    """Watches a forward pass, every vertex and every edge of the graph. The base class does nothing."""

    def on_value(self, name: str, tensor: Tensor) -> None:
        """Is called with every value, inputs included, as it is made."""

    def on_operand(self, node: Node, index: int, tensor: Tensor) -> Tensor:
        """Is called with every operand of every node before it runs; what it returns is what the node reads."""
        return tensor


@dataclass(slots=True)
class _Step:
    """One node, compiled: run(scope, values at `operands`) goes to the slots `results`, then `dead` are let go."""

    run: Run
    scope: Scope
    operands: tuple[int, ...]
    results: tuple[int, ...]
    dead: tuple[int, ...]
    node: Node


class NetworkModule(Scope):
    """A network as an `nn.Module`; the keys of its `state_dict` are the names of the network's weights.

    Called with one tensor [n, ...] an input, it returns one tensor, or a tuple where the graph has several outputs.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph
        self._steps: list[_Step] = []
        self._observer: Observer | None = None
        self._inputs: tuple[int, ...] = tuple(range(len(graph.inputs)))
        self._shapes = tuple(value.type.shape[1:] for value in graph.inputs)
        self._outputs: tuple[int, ...] = ()
        self._slot_count = 0

    @property
    def graph(self) -> Graph:
        """The graph that the module computes."""
        return self._graph

    @contextmanager
    def observe(self, observer: Observer) -> Iterator[None]:
        """Lets `observer` watch every forward pass inside the `with`."""
        before, self._observer = self._observer, observer
        try:
            yield
        finally:
            self._observer = before

    def use_batch_statistics(self) -> None:
        """Lets batch normalization work as in training and dropout as in inference, as probes want it."""
        self.train()
        self.__dict__["training"] = False  # nodes with statistics have scopes of their own; dropout reads the root's

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        if len(inputs) != len(self._shapes):
            raise UsageError(
                f"@{self._graph.name} has {len(self._shapes)} inputs, got {len(inputs)}",
                hint=f"they are {', '.join(map(str, self._graph.inputs))}",
            )
        for tensor, shape, value in zip(inputs, self._shapes, self._graph.inputs, strict=True):
            if tensor.shape[1:] != shape:
                raise UsageError(
                    f"input '{value.name}' has shape {list(tensor.shape)}, @{self._graph.name} wants {value.type}",
                    hint="the first axis is the batch",
                )
        values: list[Tensor | None] = [None] * self._slot_count
        values[: len(inputs)] = inputs
        if self._observer is None:
            self._run(values)
        else:
            self._run_observed(values, self._observer)
        results = tuple([values[slot] for slot in self._outputs])
        return results[0] if len(results) == 1 else results  # type: ignore[return-value]

    def _run(self, values: list[Tensor | None]) -> None:
        step: _Step | None = None
        try:
            for step in self._steps:
                operands = step.operands
                if len(operands) == 1:
                    found = step.run(step.scope, values[operands[0]])
                else:
                    found = step.run(step.scope, *[values[slot] for slot in operands])
                results = step.results
                if len(results) == 1 and not isinstance(found, (tuple, list)):
                    values[results[0]] = found
                else:
                    for slot, result in zip(results, found, strict=True):
                        values[slot] = result
                for slot in step.dead:
                    values[slot] = None
        except Exception as error:
            if step is not None:
                error.add_note(f"while running {step.node!r} of @{self._graph.name}")
            raise

    def _run_observed(self, values: list[Tensor | None], observer: Observer) -> None:
        def made(name: str, slot: int) -> None:
            tensor = values[slot]
            assert tensor is not None
            observer.on_value(name, tensor)

        for value, slot in zip(self._graph.inputs, self._inputs, strict=True):
            made(value.name, slot)
        for step in self._steps:
            operands = []
            for index, slot in enumerate(step.operands):
                tensor = values[slot]
                assert tensor is not None
                operands.append(observer.on_operand(step.node, index, tensor))
            found = step.run(step.scope, *operands)
            results: Sequence[Tensor] = found if isinstance(found, (tuple, list)) else (found,)
            for value, slot, result in zip(step.node.results, step.results, results, strict=True):
                values[slot] = result
                made(value.name, slot)
            for slot in step.dead:
                values[slot] = None


def to_torch(network: Network, *, seed: int = 0) -> NetworkModule:
    """Returns a network as a module in training mode on the CPU, with its weights or, where it has none, fresh ones.

    Raises:
        UsageError: the network has open choices, or an op without a lowering.
        WeightsError: its weights do not fit.
    """
    graph = network.graph
    if graph.is_generator:
        raise UsageError(
            f"@{graph.name} has open choices, so there is nothing to run yet", hint="materialize it with a seed first"
        )
    if network.weights is not None:
        check_weights(graph, network.weights)
    weights = initialize(graph, seed) if network.weights is None else network.weights
    module = NetworkModule(graph)
    slots = {value.name: slot for slot, value in enumerate(graph.inputs)}
    last_use = {operand.name: index for index, node in enumerate(graph.nodes) for operand in node.operands}
    for index, node in enumerate(graph.nodes):
        for value in node.results:
            slots[value.name] = len(slots)
        names = dict.fromkeys([*(value.name for value in node.operands), *(value.name for value in node.results)])
        dead = [name for name in names if last_use.get(name, index) == index and name not in graph.output_names]
        module._steps.append(
            _Step(
                lower(node.name, node.op, node.operand_types),
                _scope_with_weights(module, node, weights),
                tuple(slots[value.name] for value in node.operands),
                tuple(slots[value.name] for value in node.results),
                tuple(slots[name] for name in dead),
                node,
            )
        )
    module._slot_count = len(slots)
    module._outputs = tuple(slots[value.name] for value in graph.outputs)
    return module


def _scope_with_weights(root: NetworkModule, node: Node, weights: Weights) -> Scope:
    """Returns the scope that owns a node's weights, made with all scopes around it; the root where it has none."""
    parameters = node.op.parameters(node.operand_types)
    if not parameters:
        return root
    scope: Scope = root
    for part in node.name.split("."):
        # add_module refuses names that nn.Module has methods of ("half", "type"), which are good names of scopes
        found = scope._modules.get(part)
        if found is None:
            found = scope._modules[part] = Scope()
        assert isinstance(found, Scope)
        scope = found
    for parameter in parameters:
        tensor = torch.from_numpy(np.array(weights[f"{node.name}.{parameter.name}"], np.float32))
        if parameter.trainable:
            scope._parameters[parameter.name] = nn.Parameter(tensor)
        else:
            scope._buffers[parameter.name] = tensor
    return scope


def weights_of(module: nn.Module) -> dict[str, Array]:
    """Returns a module's weights and running statistics by name, as float32 copies on the CPU."""
    return {
        name: np.array(tensor.detach().to(device="cpu", dtype=torch.float32).numpy())
        for name, tensor in module.state_dict().items()
    }


def device_of(device: str | torch.device) -> torch.device:
    """Returns a device, its number included.

    Raises:
        UsageError: there is none of that name.
    """
    try:
        where = torch.device(device)
    except RuntimeError:
        raise UsageError(f"'{device}' is no device", hint="write cpu, cuda or cuda:0") from None
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"there is no device '{device}'", hint=f"{torch.cuda.device_count()} CUDA devices were found")
    return torch.device("cuda", where.index or 0) if where.type == "cuda" else where
