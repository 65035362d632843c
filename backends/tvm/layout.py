"""Layout: where every value of a network lies.

Images are held channels last, [n, h, w, c], so that vectors run over channels. Values of other ranks are held in
row-major order, as an image whose channels are the last axis. On a CPU, images that a padded convolution reads stand in
a halo of zeros. Operands of a concatenation are made where the result wants them, parts of a split are read where they
lie; a copy is made only where a value would have to be in two places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from gensynth.ir import Graph, Node, Value, pair
from gensynth.ir.ops import Concat, Conv2d, Dense, Dropout, Flatten, Identity, Reshape, Split

from .kernels.specification import View

__all__ = ["Layout", "Storage", "image_of", "lay_out", "padding_read"]

Halo = tuple[int, int, int, int]


@dataclass
class Storage:
    """Memory of one value, and of all values that lie inside it: an image with `halo` zero elements around it.

    `space` says whose memory it is: the arena's, or the caller's array number `index`.
    """

    name: str
    channels: int
    height: int
    width: int
    batch: int
    halo: Halo = (0, 0, 0, 0)
    space: str = "arena"
    index: int = 0

    @property
    def pitch(self) -> int:
        """Elements from one row to the next."""
        return (self.width + self.halo[2] + self.halo[3]) * self.channels

    @property
    def image(self) -> int:
        """Elements from one image of the batch to the next."""
        return (self.height + self.halo[0] + self.halo[1]) * self.pitch

    @property
    def elements(self) -> int:
        """Elements in all, the halo's included."""
        return self.batch * self.image

    @property
    def interior(self) -> int:
        """The element at which the image begins."""
        return self.halo[0] * self.pitch + self.halo[2] * self.channels


@dataclass
class Layout:
    """The storage of every value and the channel at which it begins there.

    `copied` are operands of concatenations that have to be copied into place, as (node, operand number).
    `permuted` are flattened images that stay channels last: value -> (channels, height, width).
    """

    storages: dict[str, Storage] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)
    copied: set[tuple[str, int]] = field(default_factory=set)
    renamed: set[str] = field(default_factory=set)
    permuted: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def view(self, value: Value, dtype: str) -> View:
        """Returns how a kernel sees a value."""
        channels, height, width = image_of(value)
        home = self.storages[value.name]
        if value.name in self.permuted or (height, width) != (home.height, home.width):
            return View(channels, height, width, home.image, width * channels, channels, dtype=dtype)
        return View(channels, height, width, home.image, home.pitch, home.channels, halo=home.halo, dtype=dtype)

    def offset(self, value: Value) -> int:
        """Returns the element of its storage at which a value begins."""
        return self.storages[value.name].interior + self.channels[value.name]


def image_of(value: Value) -> tuple[int, int, int]:
    """Returns a value's (channels, height, width): its own for an image, else (last axis, all others, 1)."""
    sizes = value.type.sizes(1)[1:]
    if len(sizes) == 3:
        return sizes[0], sizes[1], sizes[2]
    if not sizes:
        return 1, 1, 1
    return sizes[-1], prod(sizes[:-1]), 1


def padding_read(node: Node) -> Halo:
    """Returns how many zero elements a node reads around its operand on a CPU: (top, bottom, left, right)."""
    op = node.op
    if not isinstance(op, Conv2d):
        return 0, 0, 0, 0
    kernel, stride, dilation = pair(op.kernel), pair(op.stride), pair(op.dilation)
    top, _, left, _ = op.pads(node.operands[0].type)
    _, height, width = image_of(node.operands[0])
    _, rows, columns = image_of(node.result)
    bottom = (rows - 1) * stride[0] + dilation[0] * (kernel[0] - 1) + 1 - height - top
    right = (columns - 1) * stride[1] + dilation[1] * (kernel[1] - 1) + 1 - width - left
    if kernel == (3, 3) and stride == dilation == (1, 1):
        # winograd's patches of 2 x 2 outputs may overhang an odd image
        bottom, right = bottom + rows % 2, right + columns % 2
    return top, max(0, bottom), left, max(0, right)


class _Planner:
    def __init__(self, graph: Graph, batch: int, halo: bool, borrow: bool) -> None:
        self.graph, self.batch, self.halo, self.borrow = graph, batch, halo, borrow
        self.parents: dict[str, tuple[str, int]] = {}
        self.layout = Layout()
        self.inputs = {value.name for value in graph.inputs}
        self.flattened: set[str] = set()

    def plan(self) -> Layout:
        for node in self.graph.nodes:
            if isinstance(node.op, (Identity, Dropout)):
                self._adopt(node.result.name, node.operands[0].name, 0)
            elif isinstance(node.op, Split) and self._on_channels(node, node.op.axis):
                start = 0
                for part in node.results:
                    self._adopt(part.name, node.operands[0].name, start)
                    start += image_of(part)[0]
            elif isinstance(node.op, (Flatten, Reshape)):
                self._flatten(node)
        for node in reversed(self.graph.nodes):
            if isinstance(node.op, Concat):
                self._join(node)
        self._make_storages()
        return self.layout

    def _adopt(self, value: str, parent: str, channel: int) -> None:
        self.parents[value] = (parent, channel)
        self.layout.renamed.add(value)

    @staticmethod
    def _on_channels(node: Node, axis: int) -> bool:
        return axis == 1 and node.result.type.rank in (2, 4)

    def _flatten(self, node: Node) -> None:
        """An image of one pixel is flat already; one that only dense layers read stays channels last."""
        operand, result = node.operands[0], node.result
        channels, height, width = image_of(operand)
        if result.type.rank == 2 and height == width == 1:
            self._adopt(result.name, operand.name, 0)
        elif (
            isinstance(node.op, Flatten)
            and operand.type.rank == 4
            and operand.name in self.graph.producers
            and not self._is_renamed(operand)
            and self.graph.users[operand.name] == (node,)
            and not {operand.name, result.name} & self.graph.output_names
            and all(isinstance(user.op, Dense) for user in self.graph.users.get(result.name, ()))
        ):
            self._adopt(result.name, operand.name, 0)
            self.layout.permuted[result.name] = (channels, height, width)
            self.flattened.add(operand.name)

    def _is_renamed(self, value: Value) -> bool:
        return isinstance(self.graph.producers[value.name].op, (Identity, Dropout, Split, Concat, Flatten, Reshape))

    def _join(self, node: Node) -> None:
        """Puts operands where the result wants them; one that has a place already, or that comes twice, is copied."""
        start = 0
        for number, operand in enumerate(node.operands):
            free = (
                self._on_channels(node, node.op.axis)  # type: ignore[attr-defined]
                and operand.name not in self.parents
                and operand.name not in self.inputs
                and operand.name not in self.flattened
            )
            if free:
                self.parents[operand.name] = (node.result.name, start)
            else:
                self.layout.copied.add((node.name, number))
            start += image_of(operand)[0]

    def _root(self, name: str) -> tuple[str, int]:
        channel = 0
        while name in self.parents:
            name, start = self.parents[name]
            channel += start
        return name, channel

    def _make_storages(self) -> None:
        layout = self.layout
        halos: dict[str, Halo] = {}
        for node in self.graph.nodes if self.halo else ():
            for value in node.operands[:1]:
                root, _ = self._root(value.name)
                a, b = halos.get(root, (0, 0, 0, 0)), padding_read(node)
                halos[root] = (max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
        for name in self.graph.values:
            root, channel = self._root(name)
            if root not in layout.storages:
                channels, height, width = image_of(self.graph.values[root])
                halo = halos.get(root, (0, 0, 0, 0))
                layout.storages[root] = Storage(root, channels, height, width, self.batch, halo)
            layout.storages[name] = layout.storages[root]
            layout.channels[name] = channel
        if self.borrow:
            self._place_outside(halos)

    def _place_outside(self, halos: dict[str, Halo]) -> None:
        """Values that the caller's arrays hold in the same order need no copy: they lie there."""
        members: dict[str, list[str]] = {}
        for name in self.graph.values:
            members.setdefault(self._root(name)[0], []).append(name)
        for space, values in (("input", self.graph.inputs), ("output", self.graph.outputs)):
            for index, value in enumerate(values):
                home = self.layout.storages[value.name]
                alone = space == "input" or members[home.name] == [value.name]
                if home.space == "arena" and home.name == value.name and alone and self._is_flat(value):
                    if any(halos.get(value.name, ())) or (space == "output" and value.name in self.inputs):
                        continue
                    home.space, home.index = space, index

    @staticmethod
    def _is_flat(value: Value) -> bool:
        channels, height, width = image_of(value)
        return value.type.rank != 4 or channels == 1 or height == width == 1


def lay_out(graph: Graph, *, batch: int, halo: bool, borrow: bool) -> Layout:
    """Returns where every value of a network lies.

    With `halo`, images that are read beyond their edge stand in zeros. With `borrow`, inputs and outputs may lie in the
    caller's arrays, where the order of elements is the same.
    """
    return _Planner(graph, batch, halo, borrow).plan()


def distinct(layout: Layout) -> Iterator[Storage]:
    """Yields each storage once, in order of first use."""
    seen: set[int] = set()
    for storage in layout.storages.values():
        if id(storage) not in seen:
            seen.add(id(storage))
            yield storage
