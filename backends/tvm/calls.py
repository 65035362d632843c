"""From a network to calls of kernels: what each computes, on which views of which storages, with which weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gensynth.ir import Graph, Network, Node, UsageError, Value
from gensynth.ir.ops import BatchNorm, Concat, Dense, Flatten, Identity, Reshape, Softmax, Split
from gensynth.passes.analyses import Kernel, group_kernels

from .kernels import KernelSpec, Step, View, Weights, ZeroHalo
from .layout import Layout, Storage, distinct, image_of

__all__ = ["Call", "Place", "calls_of"]

Place = tuple[Storage, int]
"""A storage, and an element of it."""


@dataclass
class Call:
    """A kernel's call before memory is planned: places are (storage, element offset) or an array of weights."""

    spec: KernelSpec
    reads: list[Place]
    writes: Place
    nodes: tuple[Node, ...]
    weights: Weights
    barrier: bool = True
    phase: int = 0


def calls_of(network: Network, layout: Layout, *, batch: int, dtype: str) -> list[Call]:
    """Returns the calls that compute a prepared network, in an order in which they can run.

    Raises:
        UsageError: a node is of a form that has no kernel.
    """
    return _Calls(network, layout, batch, dtype).all()


class _Calls:
    def __init__(self, network: Network, layout: Layout, batch: int, dtype: str) -> None:
        assert network.weights is not None
        self.graph: Graph = network.graph
        self.values = network.weights
        self.layout, self.batch, self.dtype = layout, batch, dtype
        self.calls: list[Call] = []

    def all(self) -> list[Call]:
        """Returns the calls in an order in which they can run, those that zero halos first."""
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
                self.calls.append(Call(spec, [], (storage, storage.interior), (), {}))
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
        return self.calls

    def _inside(self, value: Value) -> tuple[View, Place]:
        home = self.layout.storages[value.name]
        dtype = self.dtype if home.space == "arena" else "f32"
        return self.layout.view(value, dtype), (home, self.layout.offset(value))

    def _outside(self, value: Value, space: str, index: int) -> tuple[View, Place]:
        """Returns the caller's array of an input or output: NCHW, contiguous, float32."""
        channels, height, width = image_of(value)
        area = height * width
        storage = Storage(value.name, channels, height, width, self.batch, space=space, index=index)
        if value.type.rank == 4:
            return View(channels, height, width, channels * area, width, 1, area), (storage, 0)
        return View(channels, height, width, channels * area, width * channels, channels), (storage, 0)

    def _copy(self, source: tuple[View, Place], to: tuple[View, Place], nodes: tuple[Node, ...]) -> None:
        spec = KernelSpec(Identity(), self.batch, (_plain(source[0]),), _plain(to[0]), dtype=self.dtype)
        self.calls.append(Call(spec, [source[1]], to[1], nodes, {}))

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

    def _part(self, whole: Value, part: Value, axis: int, start: int) -> tuple[View, Place]:
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
            self.calls.append(Call(spec, list(places[:1]), place, kernel.nodes[:1], {}))
            if not steps:
                return
            op, inputs, places = Identity(), (_plain(out),), (place, *places[1:])
        nodes = kernel.nodes[isinstance(kernel.nodes[0].op, Softmax) :]
        spec = KernelSpec(op, self.batch, inputs, _plain(out), tuple(steps), self.dtype)
        self.calls.append(Call(spec, list(places), place, nodes, weights))

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


def _plain(view: View) -> View:
    """Returns the view without its halo, which only readers of padding look at."""
    return replace(view, halo=(0, 0, 0, 0))


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
