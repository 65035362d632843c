"""Lowering: a network becomes a program of kernels on one static arena."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from gensynth.ir import Graph, Network, UsageError, Value, WeightsError, architecture_hash, check_weights
from gensynth.passes import run_pipeline
from gensynth.passes.analyses import Buffer, plan_memory
from gensynth.passes.cost import node_cost

from .calls import Call, Place, calls_of
from .kernels import KernelSpec, ZeroHalo
from .layout import Layout, Storage, lay_out
from .program import CompiledKernel, Placement, Pointer, Program, ProgramStep, Tensor
from .scheduling import Chosen, Schedules, default_schedule, load_templates
from .targets import Target

__all__ = ["lower", "prepare"]

ALIGNMENT = 64

WEIGHTS_READ_AGAIN = 16 * 2**20
"""Networks with at most so many bytes of weights run a batch image by image: what that costs in reading weights again,
activations that stay in the cache more than pay."""

CYCLES_PER_THREAD = 6000
"""A step is shared among threads where each gets at least so much work: several times what a barrier costs."""


def prepare(network: Network) -> Network:
    """Returns the network as it is compiled: batch norms folded into convolutions, what only training needs gone.

    Raises:
        UsageError: the network has open choices.
        WeightsError: it has no weights.
    """
    graph = network.graph
    if graph.is_generator:
        raise UsageError(f"@{graph.name} has open choices, so it cannot be compiled", hint="materialize it with a seed")
    if network.weights is None:
        raise WeightsError(f"@{graph.name} has no weights", hint="train it, give weights, or draw fresh ones by a seed")
    check_weights(graph, network.weights)
    for value in graph.inputs:
        if value.type.dtype != "f32":
            raise UsageError(f"input '{value.name}' is {value.type}", hint="only float32 networks can be compiled")
    return run_pipeline(network, "strip-dropout,fold-batch-norm,canonicalize")


def lower(
    network: Network,
    target: Target,
    *,
    batch: int = 1,
    dtype: str = "f32",
    schedules: Schedules | None = None,
) -> Program:
    """Returns a network's program for a target and a fixed batch size.

    `schedules` are preferred to the templates' own first choices. `dtype` is that of weights and activations.

    Raises:
        UsageError: the network cannot be compiled for the target; the message says which node and why.
        WeightsError: it has no weights.
    """
    if dtype not in target.dtypes:
        raise UsageError(f"{target.name} has no {dtype} kernels", hint=f"it has {', '.join(target.dtypes)}")
    load_templates(target)
    prepared = prepare(network)
    assert prepared.weights is not None
    size = sum(array.nbytes for array in prepared.weights.values())
    alone = target.kind == "cpu" and size <= WEIGHTS_READ_AGAIN
    at_once = 1 if alone else batch
    return _Lowering(prepared, target, at_once, dtype, schedules or {}).program(network, batch // at_once)


class _Lowering:
    def __init__(self, network: Network, target: Target, batch: int, dtype: str, schedules: Schedules) -> None:
        self.graph: Graph = network.graph
        self.target, self.batch, self.dtype = target, batch, dtype
        self.schedules = dict(schedules)
        on_cpu = target.kind == "cpu"
        self.layout: Layout = lay_out(self.graph, batch=batch, halo=on_cpu, borrow=dtype == "f32")
        self.calls = calls_of(network, self.layout, batch=batch, dtype=dtype)

    def program(self, original: Network, repeats: int) -> Program:
        self._order()
        kernels, numbers = self._choose()
        offsets, arena, placements = self._plan_memory()
        blob = _Blob()
        steps = []
        for call in self.calls:
            kernel = kernels[numbers[call.spec]]
            chosen = self._chosen(call.spec)
            packed = chosen.template.pack(call.spec, chosen.schedule, call.weights, self.target)
            arguments = [self._pointer(place, offsets) for place in call.reads]
            arguments += [Pointer("weights", blob.add(array)) for array in packed]
            arguments.append(self._pointer(call.writes, offsets))
            cycles = chosen.template.cost(call.spec, chosen.schedule, self.target)
            threads = max(1, min(int(cycles / CYCLES_PER_THREAD), kernel.emitted.tasks))
            names = tuple(node.name for node in call.nodes)
            steps.append(ProgramStep(numbers[call.spec], tuple(arguments), names, call.barrier, threads))
        return Program(
            name=self.graph.name,
            architecture_hash=architecture_hash(original.graph),
            target=self.target,
            batch=self.batch,
            dtype=self.dtype,
            kernels=tuple(kernels),
            steps=tuple(steps),
            inputs=self._tensors(self.graph.inputs, repeats),
            outputs=self._tensors(self.graph.outputs, repeats),
            weights=blob.bytes(),
            arena=arena,
            placements=placements,
            repeats=repeats,
        )

    def _tensors(self, values: tuple[Value, ...], repeats: int) -> tuple[Tensor, ...]:
        images = self.batch * repeats
        return tuple(Tensor(value.name, value.type, (images, *value.type.sizes(1)[1:])) for value in values)

    # Order, kernels, memory.

    def _order(self) -> None:
        """Puts each zeroed halo beside the first step that writes its image, and sets barriers and phases."""
        halos = {id(call.writes[0]): call for call in self.calls if isinstance(call.spec.op, ZeroHalo)}
        ordered: list[Call] = []
        for call in self.calls:
            if not isinstance(call.spec.op, ZeroHalo):
                ordered.append(call)
                halo = halos.pop(id(call.writes[0]), None)
                if halo is not None:
                    ordered.append(halo)
        self.calls = ordered
        written: set[int] = set()
        read: set[int] = set()
        phase = 0
        for call in self.calls:
            reads, writes = {id(storage) for storage, _ in call.reads}, id(call.writes[0])
            call.barrier = bool(reads & written) or writes in read
            if call.barrier:
                phase += 1
                written, read = set(), set()
            written.add(writes)
            read |= reads
            call.phase = phase

    def _chosen(self, spec: KernelSpec) -> Chosen:
        found = self.schedules.get(spec)
        if found is None:
            found = self.schedules[spec] = default_schedule(spec, self.target)
        return found

    def _choose(self) -> tuple[list[CompiledKernel], dict[KernelSpec, int]]:
        kernels: list[CompiledKernel] = []
        numbers: dict[KernelSpec, int] = {}
        for call in self.calls:
            if call.spec in numbers:
                continue
            chosen = self._chosen(call.spec)
            label = call.nodes[0].op.name if call.nodes else call.spec.op.name
            name = f"k{len(kernels)}_{label}"
            emitted = chosen.template.emit(call.spec, chosen.schedule, self.target, name)
            cost = [
                node_cost(node.op, node.operand_types, tuple(value.type for value in node.results), self.batch)
                for node in call.nodes
            ]
            moved = _bytes(call.spec) + sum(array.nbytes for array in call.weights.values())
            numbers[call.spec] = len(kernels)
            cycles = chosen.template.cost(call.spec, chosen.schedule, self.target)
            kernels.append(
                CompiledKernel(
                    name,
                    call.spec,
                    chosen.template.name,
                    chosen.schedule,
                    emitted,
                    sum(item.macs for item in cost),
                    moved,
                    cycles,
                )
            )
        return kernels, numbers

    def _plan_memory(self) -> tuple[dict[int, int], int, tuple[Placement, ...]]:
        spans: dict[int, list[int]] = {}
        homes: dict[int, Storage] = {}
        for call in self.calls:
            for storage, _ in (*call.reads, call.writes):
                if storage.space == "arena":
                    homes[id(storage)] = storage
                    span = spans.setdefault(id(storage), [call.phase, call.phase])
                    span[1] = call.phase
        size = 4 if self.dtype == "f32" else 2
        buffers = [Buffer(homes[key].name, homes[key].elements * size, *spans[key]) for key in spans]
        plan = plan_memory(buffers, alignment=ALIGNMENT)
        placements = tuple(
            Placement(buffer.name, offset, buffer.size, buffer.start, buffer.end)
            for buffer, offset in zip(buffers, plan.offsets, strict=True)
        )
        return dict(zip(spans, plan.offsets, strict=True)), plan.size, placements

    def _pointer(self, place: Place, offsets: Mapping[int, int]) -> Pointer:
        storage, element = place
        if storage.space == "arena":
            size = 4 if self.dtype == "f32" else 2
            return Pointer("arena", offsets[id(storage)] + element * size)
        return Pointer("input" if storage.space == "input" else "output", element * 4, storage.index)


class _Blob:
    """The weights of all kernels in one run of bytes; equal arrays are kept once."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._known: dict[tuple[int, int], list[tuple[int, bytes]]] = {}

    def add(self, array: npt.NDArray[np.generic]) -> int:
        data = np.ascontiguousarray(array).tobytes()
        key = len(data), zlib.crc32(data)
        for offset, known in self._known.setdefault(key, []):
            if known == data:
                return offset
        offset = self._size
        self._known[key].append((offset, data))
        padding = -len(data) % ALIGNMENT
        self._parts += [data, bytes(padding)]
        self._size += len(data) + padding
        return offset

    def bytes(self) -> bytes:
        return b"".join(self._parts)


def _bytes(spec: KernelSpec) -> int:
    size = {"f32": 4, "f16": 2}
    views = [*spec.inputs, *(step.view for step in spec.steps if step.view is not None), spec.output]
    return sum(spec.batch * view.channels * view.height * view.width * size[view.dtype] for view in views)
