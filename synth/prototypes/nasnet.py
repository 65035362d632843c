"""NASNet-A: cells found by architecture search."""

from __future__ import annotations

from gensynth.ir import Builder, Graph, Value
from gensynth.ir.ops import Add, AvgPool, BatchNorm, Concat, Conv2d, MaxPool, Relu, Split

from .layers import channels_of, conv_norm, head, require, settle
from .registry import Image, register_prototype

Operation = tuple[str, int]
"""`separable` with a kernel, `average` or `max` with a window, or `none`."""

SEPARABLE3, SEPARABLE5, SEPARABLE7 = (("separable", 3), ("separable", 5), ("separable", 7))
AVERAGE, MAXIMUM, NONE = ("average", 3), ("max", 3), ("none", 0)

NORMAL: tuple[tuple[Operation, int, Operation, int], ...] = (
    (SEPARABLE5, 0, SEPARABLE3, 1),
    (SEPARABLE5, 1, SEPARABLE3, 1),
    (AVERAGE, 0, NONE, 1),
    (AVERAGE, 1, AVERAGE, 1),
    (SEPARABLE3, 0, NONE, 0),
)
"""The blocks of a normal cell: left op and state, right op and state (arXiv 1707.07012, figure 4).

States 0 and 1 are the cell before and the one before that; each block adds a state.
"""

REDUCTION: tuple[tuple[Operation, int, Operation, int], ...] = (
    (SEPARABLE5, 0, SEPARABLE7, 1),
    (MAXIMUM, 0, SEPARABLE7, 1),
    (AVERAGE, 0, SEPARABLE5, 1),
    (NONE, 3, AVERAGE, 2),
    (SEPARABLE3, 2, MAXIMUM, 0),
)
"""The blocks of a reduction cell."""

STACKS = 3
STEM_MULTIPLIER = 3
FILTERS_PER_CHANNEL = 24
"""The last cells leave 6 states of 4 times the width of the first."""


class _Cell:
    """One cell under construction."""

    def __init__(self, builder: Builder, channels: int, stride: int) -> None:
        self.builder = builder
        self.channels = channels
        self.stride = stride
        self.activated: dict[str, Value] = {}

    def relu(self, value: Value, name: str) -> Value:
        """Emits the rectifier in front of an op, once for each state."""
        if value.name not in self.activated:
            self.activated[value.name] = self.builder.emit(Relu(), value, name=f"{name}_act")
        return self.activated[value.name]

    def reduce(self, value: Value, name: str) -> Value:
        """Halves height and width without losing positions: two subsamplings, one of them moved by one pixel."""
        builder, half = self.builder, self.channels // 2
        _, _, height, width = value.type.sizes()
        require(
            height % 2 == 0 and width % 2 == 0,
            f"a map of {height} x {width} cannot be halved",
            "give an image whose height and width are multiples of 4",
        )
        _, moved = builder.emit_all(Split(sizes=(1, height - 1), axis=2), value, names=(f"{name}_row", f"{name}_rows"))
        _, moved = builder.emit_all(
            Split(sizes=(1, width - 1), axis=3), moved, names=(f"{name}_column", f"{name}_moved")
        )
        conv = Conv2d(channels=half, kernel=1, stride=2)
        left = builder.emit(conv, value, name=f"{name}_conv1")
        right = builder.emit(conv, moved, name=f"{name}_conv2")
        value = builder.emit(Concat(), left, right, name=f"{name}_concat")
        return builder.emit(BatchNorm(), value, name=f"{name}_norm")

    def separable(self, value: Value, kernel: int, stride: int, name: str) -> Value:
        """Emits relu, depthwise and pointwise convolution and batch norm, twice; the stride is in the first."""
        for layer in (1, 2):
            before = channels_of(value)
            value = self.relu(value, f"{name}{layer}")
            depthwise = Conv2d(
                channels=before, kernel=kernel, stride=stride if layer == 1 else 1, padding="same", groups=before
            )
            value = self.builder.emit(depthwise, value, name=f"{name}{layer}_depthwise")
            value = self.builder.emit(Conv2d(channels=self.channels, kernel=1), value, name=f"{name}{layer}_pointwise")
            value = self.builder.emit(BatchNorm(), value, name=f"{name}{layer}_norm")
        return value

    def operation(self, operation: Operation, value: Value, stride: int, name: str) -> Value:
        kind, size = operation
        if kind == "separable":
            return self.separable(value, size, stride, name)
        if kind == "average":
            value = self.builder.emit(AvgPool(kernel=size, stride=stride, padding="same"), value, name=f"{name}_pool")
        elif kind == "max":
            value = self.builder.emit(MaxPool(kernel=size, stride=stride, padding="same"), value, name=f"{name}_pool")
        elif channels_of(value) != self.channels:
            value = self.relu(value, name)
        if channels_of(value) != self.channels:
            value = conv_norm(self.builder, value, self.channels, 1, prefix=f"{name}_")
        return value

    def fit(self, previous: Value | None, value: Value) -> Value:
        """Brings the output of the cell before the last to this cell's width and size."""
        if previous is None:
            return value
        if previous.type.shape[2] != value.type.shape[2]:
            return self.reduce(self.relu(previous, "previous"), "previous")
        if channels_of(previous) != self.channels:
            return conv_norm(self.builder, self.relu(previous, "previous"), self.channels, 1, prefix="previous_")
        return previous

    def build(self, value: Value, previous: Value | None) -> Value:
        blocks = NORMAL if self.stride == 1 else REDUCTION
        second = self.fit(previous, value)
        first = conv_norm(self.builder, self.relu(value, "current"), self.channels, 1, prefix="current_")
        states = [first, second]
        for index, state in enumerate(states):
            self.relu(state, f"state{index}")
        for index, (left, left_state, right, right_state) in enumerate(blocks, start=1):
            with self.builder.scope(f"block{index}"):
                branches = []
                for side, operation, read in (("left", left, left_state), ("right", right, right_state)):
                    stride = self.stride if read < 2 else 1
                    branches.append(self.operation(operation, states[read], stride, side))
                states.append(self.builder.emit(Add(), *branches, name="add"))
        kept = []
        for index in range(1 if self.stride == 1 else 3, len(states)):
            state = states[index]
            if channels_of(state) != self.channels:
                state = conv_norm(self.builder, state, self.channels, 1, prefix=f"state{index}_")
            kept.append(state)
        return self.builder.emit(Concat(), *kept, name="concat")


@register_prototype("nasnet-a")
def nasnet_a(*, cells: int = 6, filters: int = 768, classes: int = 10, image: Image = (3, 32, 32)) -> Graph:
    """NASNet-A for CIFAR: stacks of searched cells; cells=6 filters=768 is "NASNet-A (6 @ 768)".

    Zoph et al. (arXiv 1707.07012), figure 4, and its reference implementation (tensorflow/models,
    slim/nets/nasnet): `cells` normal cells a stack, three stacks with reduction cells between them, `filters` channels
    before the last pool (a multiple of 48). For inference: without drop path and auxiliary head. 3.3 M parameters at
    6 @ 768 (paper, table 1).
    """
    classes, image = settle("cifar", classes, image)
    require(cells >= 1, f"cells must be at least 1, got {cells}", "6 is the published number of cells a stack")
    require(
        filters >= 2 * FILTERS_PER_CHANNEL and filters % (2 * FILTERS_PER_CHANNEL) == 0,
        f"filters={filters} is not a multiple of {2 * FILTERS_PER_CHANNEL}",
        "768 and 2304 are published",
    )
    channels = filters // FILTERS_PER_CHANNEL
    builder = Builder("nasnet_a")
    value = builder.input("image", image)
    with builder.scope("stem"):
        value = conv_norm(builder, value, STEM_MULTIPLIER * channels, 3)
    previous: Value | None = None
    for stack in range(1, STACKS + 1):
        width = channels * 2 ** (stack - 1)
        if stack > 1:
            with builder.scope(f"reduction{stack - 1}"):
                previous, value = value, _Cell(builder, width, 2).build(value, previous)
        for index in range(1, cells + 1):
            with builder.scope(f"stack{stack}.cell{index}"):
                previous, value = value, _Cell(builder, width, 1).build(value, previous)
    with builder.scope("last"):
        value = builder.emit(Relu(), value, name="act")
    head(builder, value, classes)
    return builder.build()
