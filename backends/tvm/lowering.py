"""Lowering: a network becomes a program of kernels on one static arena."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gensynth.ir import Graph, Network, Node, UsageError, Value, WeightsError, architecture_hash, check_weights
from gensynth.ir.ops import BatchNorm, Concat, Dense, Flatten, Identity, Reshape, Softmax, Split
from gensynth.ir.plugins import load_plugins
from gensynth.passes import run_pipeline
from gensynth.passes.analyses.kernels import Kernel, group_kernels
from gensynth.passes.analyses.memory_plan import Buffer, plan_memory
from gensynth.passes.cost import node_cost

from .kernels import Schedule, Step, Template, View, Weights, ZeroHalo, templates_of
from .kernels.specification import KernelSpec
from .layout import Layout, Storage, distinct, image_of, lay_out
from .program import CompiledKernel, Placement, Pointer, Program, ProgramStep, Tensor
from .targets import Target

__all__ = ["Chosen", "Schedules", "lower"]

ALIGNMENT = 64

PLUGINS = "gensynth.kernels"
"""Entry-point group of modules that register kernel templates for ops of others."""

WEIGHTS_READ_AGAIN = 16 * 2**20
"""Networks with at most so many bytes of weights run a batch image by image: what that costs in reading weights again,
activations that stay in the cache more than pay."""

CYCLES_PER_THREAD = 3000
"""A step is shared among threads where each gets at least so much work: a barrier costs about half of it."""


@dataclass(frozen=True)
class Chosen:
    """A template and the schedule it is to use."""

    template: Template
    schedule: Schedule


Schedules = Mapping[KernelSpec, Chosen]
"""What tuning found, by specification."""


@dataclass
class _Call:
    """A kernel's call before memory is planned: places are (storage, element offset) or an array of weights."""

    spec: KernelSpec
    reads: list[tuple[Storage, int]]
    writes: tuple[Storage, int]
    nodes: tuple[Node, ...]
    weights: Weights
    barrier: bool = True
    phase: int = 0


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
        assert network.weights is not None
        self.values = network.weights
        self.target, self.batch, self.dtype = target, batch, dtype
        self.schedules = dict(schedules)
        on_cpu = target.kind == "cpu"
        self.layout: Layout = lay_out(self.graph, batch=batch, halo=on_cpu, borrow=dtype == "f32")
        self.calls: list[_Call] = []

    def program(self, original: Network, repeats: int) -> Program:
        self._calls()
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

    # Calls.

    def _calls(self) -> None:
        for storage in distinct(self.layout):
            if any(storage.halo):
                view = View(
                    storage.channels,
                    storage.height,
                    storage.width,
                    storage.image,
                    storage.pitch,
                    storage.channels,
                    halo=storage.halo,
                    dtype=self.dtype,
                )
                spec = KernelSpec(ZeroHalo(), self.batch, (), view, dtype=self.dtype)
                self.calls.append(_Call(spec, [], (storage, storage.interior), (), {}))
        for index, value in enumerate(self.graph.inputs):
            if self.layout.storages[value.name].space == "arena":
                self._copy(self._outside(value, "input", index), self._inside(value), ())
        for kernel in group_kernels(self.graph):
            if kernel.renames:
                self._rename(kernel.nodes[0])
            else:
                self._kernel(kernel)
        for index, value in enumerate(self.graph.outputs):
            home = self.layout.storages[value.name]
            if home.space != "output" or home.index != index:
                self._copy(self._inside(value), self._outside(value, "output", index), ())

    def _inside(self, value: Value) -> tuple[View, tuple[Storage, int]]:
        home = self.layout.storages[value.name]
        dtype = self.dtype if home.space == "arena" else "f32"
        return self.layout.view(value, dtype), (home, self.layout.offset(value))

    def _outside(self, value: Value, space: str, index: int) -> tuple[View, tuple[Storage, int]]:
        """Returns the caller's array of an input or output: NCHW, contiguous, float32."""
        channels, height, width = image_of(value)
        area = height * width
        storage = Storage(value.name, channels, height, width, self.batch, space=space, index=index)
        if value.type.rank == 4:
            return View(channels, height, width, channels * area, width, 1, area), (storage, 0)
        return View(channels, height, width, channels * area, width * channels, channels), (storage, 0)

    def _copy(
        self, source: tuple[View, tuple[Storage, int]], to: tuple[View, tuple[Storage, int]], nodes: tuple[Node, ...]
    ) -> None:
        spec = KernelSpec(Identity(), self.batch, (_plain(source[0]),), _plain(to[0]), dtype=self.dtype)
        self.calls.append(_Call(spec, [source[1]], to[1], nodes, {}))

    def _rename(self, node: Node) -> None:
        op = node.op
        if isinstance(op, Concat):
            start = 0
            for number, operand in enumerate(node.operands):
                if (node.name, number) in self.layout.copied:
                    self._copy(self._inside(operand), self._part(node.result, operand, op.axis, start), (node,))
                start += operand.type.sizes(1)[op.axis]
        elif isinstance(op, Split):
            start = 0
            for part in node.results:
                if part.name not in self.layout.renamed:
                    self._copy(self._part(node.operands[0], part, op.axis, start), self._inside(part), (node,))
                start += part.type.sizes(1)[op.axis]
        elif isinstance(op, (Flatten, Reshape)) and node.result.name not in self.layout.renamed:
            self._reshape(node)

    def _reshape(self, node: Node) -> None:
        """Copies a value to one of another shape, element by element in row-major order (of NCHW)."""
        source, result = self._inside(node.operands[0]), self._inside(node.result)
        if node.operands[0].type.rank == 4 and node.result.type.rank == 4:
            view = source[0]
            line = Storage(f"{node.name}.line", view.channels * view.height * view.width, 1, 1, self.batch)
            self._copy(source, (_row_major(view, line.image), (line, 0)), (node,))
            self._copy((_row_major(result[0], line.image), (line, 0)), result, (node,))
        elif node.operands[0].type.rank == 4:
            self._copy(source, (_row_major(source[0], result[0].image), result[1]), (node,))
        elif node.result.type.rank == 4:
            self._copy((_row_major(result[0], source[0].image), source[1]), result, (node,))
        else:
            self._copy((_line(source[0]), source[1]), (_line(result[0]), result[1]), (node,))

    def _part(self, whole: Value, part: Value, axis: int, start: int) -> tuple[View, tuple[Storage, int]]:
        """Returns the slice of `whole` along `axis` that begins at `start` and is as large as `part`."""
        view, (storage, offset) = self._inside(whole)
        channels, height, width = image_of(part)
        rank = whole.type.rank
        if (rank, axis) in ((4, 1), (2, 1), (3, 2)):
            step = view.channel
        elif (rank, axis) in ((4, 2), (3, 1)):
            step = view.row
        elif (rank, axis) == (4, 3):
            step = view.pixel
        else:
            raise UsageError(
                f"%{part.name}: a slice of {whole.type} along axis {axis} cannot be compiled",
                hint="reshape to four dimensions or less before it",
            )
        return replace(view, channels=channels, height=height, width=width), (storage, offset + start * step)

    def _kernel(self, kernel: Kernel) -> None:
        anchor = kernel.anchor
        op = Identity() if anchor is None else anchor.op
        operands = list(kernel.operands)
        views, places = zip(*(self._inside(value) for value in operands), strict=True)
        count = 1 if anchor is None else len(anchor.operands)
        out, place = self._inside(kernel.result)
        weights: dict[str, npt.NDArray[np.float32]] = {}
        if anchor is not None:
            for parameter in anchor.op.parameters(anchor.operand_types):
                weights[parameter.name] = self.values[f"{anchor.name}.{parameter.name}"]
            shape = self.layout.permuted.get(operands[0].name)
            if isinstance(op, Dense) and shape is not None:
                filters = weights["weight"]
                weights["weight"] = np.ascontiguousarray(
                    filters.reshape(len(filters), *shape).transpose(0, 2, 3, 1).reshape(filters.shape)
                )
        steps, used = [], count
        for number, node in enumerate(kernel.steps):
            other = None
            if len(node.operands) == 2:
                other = self._broadcast(node, views[used], operands[used])
                used += 1
            if isinstance(node.op, BatchNorm):
                scale, shift = self._affine(node)
                weights[f"{number}.scale"], weights[f"{number}.shift"] = scale, shift
            steps.append(Step(node.op, other))
        inputs = tuple(_spread(view, out) if anchor is None else view for view in views[:count])
        if isinstance(op, Softmax):
            turn = self._turn(kernel.nodes[0])
            spec = KernelSpec(Softmax(axis=1), self.batch, (turn(inputs[0]),), turn(out), (), self.dtype)
            self.calls.append(_Call(spec, list(places[:1]), place, kernel.nodes[:1], {}))
            if not steps:
                return
            op, inputs, places = Identity(), (_plain(out),), (place, *places[1:])
        nodes = kernel.nodes[isinstance(kernel.nodes[0].op, Softmax) :]
        spec = KernelSpec(op, self.batch, inputs, _plain(out), tuple(steps), self.dtype)
        self.calls.append(_Call(spec, list(places), place, nodes, weights))

    def _broadcast(self, node: Node, view: View, value: Value) -> View:
        ranks = {operand.type.rank for operand in node.operands}
        if value.type is not node.result.type and max(ranks) > 4:
            raise UsageError(f"%{node.name}: {node.op.name} of {value.type} cannot be compiled with broadcasting")
        return _plain(view)

    def _affine(self, node: Node) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        op = node.op
        assert isinstance(op, BatchNorm)
        scale, bias, mean, variance = (
            self.values[f"{node.name}.{name}"].astype(np.float64) for name in ("scale", "bias", "mean", "variance")
        )
        gain = scale / np.sqrt(variance + op.epsilon)
        return gain.astype(np.float32), (bias - mean * gain).astype(np.float32)

    def _turn(self, node: Node) -> Callable[[View], View]:
        """Returns what makes the axis of a softmax the channels."""
        op, rank = node.op, node.result.type.rank
        assert isinstance(op, Softmax)
        if op.axis == (1 if rank == 4 else rank - 1):
            return _plain
        if rank > 4:
            raise UsageError(
                f"%{node.name}: softmax over axis {op.axis} of {node.result.type} cannot be compiled",
                hint="reshape to four dimensions or less before it",
            )
        return _columns_first if op.axis == 3 else _rows_first

    # Order, kernels, memory.

    def _order(self) -> None:
        """Puts each zeroed halo beside the first step that writes its image, and sets barriers and phases."""
        halos = {id(call.writes[0]): call for call in self.calls if isinstance(call.spec.op, ZeroHalo)}
        ordered: list[_Call] = []
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

    def _pointer(self, place: tuple[Storage, int], offsets: Mapping[int, int]) -> Pointer:
        storage, element = place
        if storage.space == "arena":
            size = 4 if self.dtype == "f32" else 2
            return Pointer("arena", offsets[id(storage)] + element * size)
        return Pointer("input" if storage.space == "input" else "output", element * 4, storage.index)


def load_templates(target: Target) -> None:
    """Loads the templates for a target's kind: the built-in ones, and those of plug-ins."""
    importlib.import_module(f".kernels.{target.kind}", __package__)
    load_plugins(PLUGINS)


def default_schedule(spec: KernelSpec, target: Target) -> Chosen:
    """Returns the template and schedule that are best by the templates' own estimates.

    Raises:
        UsageError: no template takes the specification.
    """
    best: tuple[float, Chosen] | None = None
    for template in templates_of(spec, target):
        for schedule in template.schedules(spec, target)[:1]:
            cost = template.cost(spec, schedule, target)
            if best is None or cost < best[0]:
                best = cost, Chosen(template, schedule)
    if best is None:
        raise UsageError(
            f"no {target.kind} kernel takes {spec.op.text()} with {len(spec.steps)} steps after it",
            hint="rewrite the network with other ops there",
        )
    return best[1]


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


def _plain(view: View) -> View:
    """Returns the view without its halo, which only readers of padding look at."""
    return replace(view, halo=(0, 0, 0, 0))


def _bytes(spec: KernelSpec) -> int:
    size = {"f32": 4, "f16": 2}
    views = [*spec.inputs, *(step.view for step in spec.steps if step.view is not None), spec.output]
    return sum(spec.batch * view.channels * view.height * view.width * size[view.dtype] for view in views)


def _row_major(view: View, image: int) -> View:
    """Returns how elements of the view's shape lie one after another in NCHW order."""
    area = view.height * view.width
    return View(view.channels, view.height, view.width, image, view.width, 1, area, dtype=view.dtype)


def _line(view: View) -> View:
    """Returns a view whose elements lie one after another as one of channels alone."""
    count = view.channels * view.height * view.width
    return View(count, 1, 1, view.image, count, count, dtype=view.dtype)


def _spread(view: View, over: View) -> View:
    """Returns the view repeated along the axes where it has one element and `over` has more."""
    return replace(
        _plain(view),
        channels=over.channels,
        height=over.height,
        width=over.width,
        channel=view.channel if view.channels == over.channels else 0,
        row=view.row if view.height == over.height else 0,
        pixel=view.pixel if view.width == over.width else 0,
    )


def _columns_first(view: View) -> View:
    """Returns the view with its width as channels."""
    return replace(
        view,
        channels=view.width,
        channel=view.pixel,
        width=view.channels,
        pixel=view.channel,
        halo=(0, 0, 0, 0),
    )


def _rows_first(view: View) -> View:
    """Returns the view with its height as channels."""
    return replace(
        view,
        channels=view.height,
        channel=view.row,
        height=view.channels,
        row=view.channel,
        halo=(0, 0, 0, 0),
    )
