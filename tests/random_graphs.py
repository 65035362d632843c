"""Random valid networks and generators over every op, grown from any source of decisions.

The source is a seeded stream for large counts, or hypothesis where a failing graph should shrink (see `strategies`).
Images stay small, so that every network can also be run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from gensynth.ir import (
    Alternative,
    AttributeValue,
    Choice,
    Graph,
    InferenceError,
    Node,
    Op,
    OpenDim,
    TensorType,
    Value,
    choose_node,
    make_node,
    op_class,
)
from gensynth.ir.ops import (
    Add,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Identity,
    LeakyRelu,
    LocalResponseNorm,
    MaxPool,
    Mul,
    Pad,
    Relu,
    Reshape,
    Resize,
    Softmax,
    Split,
)

__all__ = ["Decisions", "Seeded", "grow_generator", "grow_network", "random_generator", "random_network"]

T = TypeVar("T")
LARGEST = 1500
"""Values with more elements than this are not made larger."""

REQUIREMENTS = ("macs <= 5M", "params <= 0.5M", "accuracy >= 0.90", "energy <= 2mJ @ tegra-x2-gpu", "# none // at all")


class Decisions(Protocol):
    """A source of decisions: an integer within bounds, low ones being the simple ones."""

    def integer(self, low: int, high: int) -> int: ...


class Seeded:
    """Decisions from a seeded stream."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return low + int(self._random.random() * (high - low + 1))


class _Theta:
    """The choices of one generator, all bodies together."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.values: dict[str, list[Choice]] = {}


class _Growth:
    def __init__(self, decisions: Decisions, theta: _Theta | None = None, depth: int = 0) -> None:
        self.decisions = decisions
        self.theta = theta
        self.depth = depth
        self.values: list[Value] = []
        self.nodes: list[Node] = []
        self.names: set[str] = set()
        self.scope = ""
        self.steps: list[Callable[[], Value | None]] = [
            self.conv, self.conv, self.depthwise, self.norm, self.activation, self.activation, self.join, self.join,
            self.pool, self.global_pool, self.dense, self.split, self.concat, self.shuffle, self.squeeze_excite,
            self.pad, self.resize, self.flatten, self.reshape, self.transpose, self.dropout, self.softmax,
            self.local_norm,
        ]  # fmt: skip
        if theta is not None:
            self.steps += [self.open_width, self.open_width, self.open_kernel, self.open_other, self.reuse_choice]
            if depth < 2:
                self.steps += [self.choose] * 3

    # Decisions.

    def pick(self, items: Sequence[T]) -> T:
        return items[self.decisions.integer(0, len(items) - 1)]

    def chance(self, one_in: int) -> bool:
        return self.decisions.integer(0, one_in - 1) == one_in - 1

    def some(self, fits: Callable[[Value], bool] = lambda value: True) -> Value | None:
        """Returns a value that fits, the latest ones first."""
        found = [value for value in reversed(self.values[-8:]) if fits(value)]
        return self.pick(found) if found else None

    def image(self, *, closed: bool = False) -> Value | None:
        return self.some(lambda value: value.type.rank == 4 and not (closed and value.type.is_open))

    def divisor(self, number: int) -> int:
        return self.pick([d for d in range(1, number + 1) if number % d == 0])

    # Nodes.

    def fresh(self, base: str) -> str:
        qualified = f"{self.scope}.{base}" if self.scope else base
        name, count = qualified, 0
        while name in self.names:
            count += 1
            name = f"{qualified}{count}"
        self.names.add(name)
        return name

    def emit(
        self,
        op: Op,
        *operands: Value | None,
        count: int = 1,
        choices: tuple[tuple[str, Choice], ...] = (),
        name: str | None = None,
    ) -> Value | None:
        """Adds a node where the op fits its operands; returns its first result, or None where it does not fit."""
        given = tuple(value for value in operands if value is not None)
        if len(given) != len(operands):
            return None
        try:
            types = make_node(op, given, tuple(f"r{i}" for i in range(count)), choices=choices)
        except InferenceError:
            return None
        bases = [name or op.name] if count == 1 else [f"part{index}" for index in range(count)]
        results = tuple(Value(self.fresh(base), result.type) for base, result in zip(bases, types.results, strict=True))
        self.nodes.append(Node(types.op, given, results, types.choices, (), "random"))
        self.values.extend(results)
        return results[0]

    def grow(self, size: int) -> None:
        """Takes steps until there are `size` nodes; a step that fits nothing becomes an activation."""
        while len(self.nodes) < size:
            if self.depth == 0 and self.chance(5):
                self.scope = self.pick(["", "stage1", "stage1.block1", "stage2.block1", "head"])
            if self.pick(self.steps)() is None:
                self.emit(Relu(), self.some())

    def windows(self) -> dict[str, AttributeValue]:
        return {
            "kernel": self.pick([1, 3, 2, (3, 1), (1, 2), 5]),
            "stride": self.pick([1, 1, 2, (2, 1)]),
            "padding": self.pick(["same", "valid", 1, (1, 0), (0, 1, 2, 0)]),
        }

    def conv(self) -> Value | None:
        x = self.image()
        if x is None:
            return None
        channels = x.type.shape[1]
        groups = self.divisor(channels) if isinstance(channels, int) and self.chance(3) else 1
        attributes = self.windows() | {
            "channels": groups * self.decisions.integer(1, max(1, 12 // groups)),
            "groups": groups,
            "dilation": self.pick([1, 1, 2]),
            "bias": self.chance(2),
        }
        made = self.emit(Conv2d(**attributes), x) or self.emit(Conv2d(**attributes | {"padding": "same"}), x)
        if made is not None and self.chance(4):
            self.emit(BatchNorm(), made)
        return made

    def transpose(self) -> Value | None:
        x = self.image(closed=True)
        if x is None or x.type.elements() > LARGEST // 4:
            return None
        channels = x.type.sizes()[1]
        groups = self.divisor(channels)
        return self.emit(
            ConvTranspose2d(
                channels=groups * self.decisions.integer(1, max(1, 8 // groups)),
                kernel=self.pick([2, 3, (3, 2)]),
                stride=self.pick([1, 2]),
                padding=self.pick(["same", "valid", 1, (0, 1, 1, 0)]),
                output_padding=self.pick([0, 0, 1]),
                groups=groups,
                bias=self.chance(2),
            ),
            x,
        )

    def depthwise(self) -> Value | None:
        x = self.image(closed=True)
        if x is None:
            return None
        channels = x.type.sizes()[1]
        times = 1 if channels > 12 else self.pick([1, 1, 2])
        return self.emit(Conv2d(channels=channels * times, groups=channels, kernel=3, padding="same"), x)

    def norm(self) -> Value | None:
        x = self.some(lambda value: value.type.rank in (2, 4))
        return self.emit(BatchNorm(epsilon=self.pick([1e-5, 1e-3, 0.01]), momentum=self.pick([0.1, 0.01])), x)

    def activation(self) -> Value | None:
        name = self.pick(
            ["relu", "relu6", "leaky_relu", "silu", "sigmoid", "hard_sigmoid", "hard_swish", "identity"]
        )  # fmt: skip
        if name == "leaky_relu":
            return self.emit(LeakyRelu(slope=self.pick([0.01, 0.2, 1 / 3])), self.some())
        return self.emit(op_class(name)(), self.some())

    def softmax(self) -> Value | None:
        x = self.some()
        return None if x is None else self.emit(Softmax(axis=self.decisions.integer(1, x.type.rank - 1)), x)

    def local_norm(self) -> Value | None:
        op = LocalResponseNorm(size=self.pick([3, 1, 5]), alpha=self.pick([1e-4, 0.5]), k=self.pick([1.0, 2.0]))
        return self.emit(op, self.image())

    def dropout(self) -> Value | None:
        return self.emit(Dropout(rate=self.pick([0.5, 0.0, 0.125])), self.some())

    def join(self) -> Value | None:
        """A residual add or a product with a value of the same type, itself, or a broadcast one."""
        left = self.some()
        if left is None:
            return None
        op = self.pick([Add(), Mul()])
        for right in self.values[::-1]:
            if right is not left and right.type is left.type and self.emit(op, left, right) is not None:
                return self.values[-1]
        if left.type.rank == 4 and not left.type.is_open and self.chance(2):
            gate = self.emit(Conv2d(channels=1, kernel=1, bias=True), left, name="gate")
            return self.emit(op, *((gate, left) if self.chance(2) else (left, gate)))
        return self.emit(op, left, left)

    def squeeze_excite(self) -> Value | None:
        x = self.image(closed=True)
        if x is None:
            return None
        channels = x.type.sizes()[1]
        gate = self.emit(GlobalAvgPool(keep=True), x, name="squeeze")
        gate = self.emit(Conv2d(channels=channels, kernel=1, bias=True), gate, name="excite")
        return self.emit(Mul(), x, self.emit(op_class("hard_sigmoid")(), gate, name="gate"))

    def pool(self) -> Value | None:
        x = self.image()
        attributes = self.windows() | {"stride": self.pick([0, 1, 2]), "ceil": self.chance(3)}
        if self.chance(2):
            attributes["count_padding"] = self.chance(2)
            return self.emit(AvgPool(**attributes), x) or self.emit(AvgPool(kernel=3, stride=1, padding="same"), x)
        return self.emit(MaxPool(**attributes), x) or self.emit(MaxPool(kernel=3, stride=1, padding="same"), x)

    def global_pool(self) -> Value | None:
        return self.emit(GlobalAvgPool(keep=self.chance(2)), self.image())

    def flat(self) -> Value | None:
        found = self.some(lambda value: value.type.rank == 2)
        return found or self.emit(GlobalAvgPool(), self.image(), name="pool")

    def dense(self) -> Value | None:
        return self.emit(Dense(features=self.decisions.integer(1, 12), bias=not self.chance(3)), self.flat())

    def flatten(self) -> Value | None:
        return self.emit(Flatten(), self.some())

    def reshape(self) -> Value | None:
        x = self.some(lambda value: not value.type.is_open)
        if x is None:
            return None
        first = self.divisor(x.type.elements())
        rest = x.type.elements() // first
        second = self.divisor(rest)
        shape = self.pick([(first, second, rest // second), (first, -1), (-1, 1, second), (first, second, -1)])
        return self.emit(Reshape(shape=shape), x)

    def split(self) -> Value | None:
        x = self.some(lambda value: not value.type.is_open)
        if x is None:
            return None
        axis = self.decisions.integer(1, x.type.rank - 1)
        length = x.type.sizes()[axis]
        if length > 1 and self.chance(2):
            cut = self.decisions.integer(1, length - 1)
            return self.emit(Split(sizes=(cut, length - cut), axis=axis), x, count=2)
        sections = self.pick([d for d in (2, 3, 4, 1) if length % d == 0])
        return self.emit(Split(sections=sections, axis=axis), x, count=sections)

    def concat(self) -> Value | None:
        x = self.some(lambda value: value.type.elements() <= LARGEST)
        if x is None:
            return None
        axis = self.pick([1, 1, self.decisions.integer(1, x.type.rank - 1)])
        for y in self.values[::-1]:
            if y is not x and y.type.elements() <= LARGEST and self.emit(Concat(axis=axis), x, y) is not None:
                return self.values[-1]
        return self.emit(Concat(axis=axis), *[x] * self.decisions.integer(1, 3))

    def shuffle(self) -> Value | None:
        x = self.image(closed=True)
        return None if x is None else self.emit(ChannelShuffle(groups=self.divisor(x.type.sizes()[1])), x)

    def pad(self) -> Value | None:
        x = self.image()
        if x is None or x.type.elements() > LARGEST:
            return None
        return self.emit(Pad(padding=self.pick([1, (1, 0), (0, 1, 2, 0)]), value=self.pick([0.0, -1.5, 1e-7])), x)

    def resize(self) -> Value | None:
        x = self.image()
        if x is None or x.type.elements() > LARGEST // 4:
            return None
        mode = self.pick(["nearest", "bilinear"])
        size: dict[str, AttributeValue] = self.pick([{"scale": 2}, {"size": 5}, {"size": (3, 7)}, {"scale": (1, 2)}])
        return self.emit(Resize(mode=mode, align_corners=mode == "bilinear" and self.chance(2), **size), x)

    # Choices.

    def declare(self, base: str, values: tuple[AttributeValue, ...]) -> Choice:
        """Returns a new choice."""
        assert self.theta is not None
        prefix = f"{self.scope}.{base}" if self.scope else base
        identifier, count = prefix, 0
        while identifier in self.theta.counts:
            count += 1
            identifier = f"{prefix}{count}"
        choice = Choice(identifier, values)
        self.theta.counts[identifier] = len(values)
        self.theta.values[identifier] = [choice]
        return choice

    def widths(self) -> tuple[AttributeValue, ...]:
        count = self.decisions.integer(1, 4)
        start, step = self.decisions.integer(1, 4), self.decisions.integer(1, 4)
        values: list[AttributeValue] = [start + step * index for index in range(count)]
        return tuple(values[::-1] if self.chance(4) else values)

    def open_width(self) -> Value | None:
        """An open convolution, then perhaps a depthwise one and a residual add that share its choice."""
        x = self.image()
        if x is None:
            return None
        width = self.declare("width", self.widths())
        op = Conv2d(channels=1, kernel=self.pick([1, 3]), padding="same")
        y = self.emit(op, x, choices=(("channels", width),))
        if self.chance(2):
            y = self.emit(self.pick([Relu(), BatchNorm()]), y) or y
        if self.chance(2):
            pair_of_choices = (("channels", width), ("groups", width))
            y = self.emit(Conv2d(channels=1, kernel=3, padding="same"), y, choices=pair_of_choices) or y
        if self.chance(2):
            other = self.emit(Conv2d(channels=1, kernel=1), x, choices=(("channels", width),))
            y = self.emit(Add(), y, other) or y
        return y

    def open_kernel(self) -> Value | None:
        x = self.image(closed=True)
        if x is None:
            return None
        kernel = self.declare("kernel", self.pick([(1, 3), (3, 5, 1), ((3, 1), 3, (1, 3))]))
        op = Conv2d(channels=self.decisions.integer(1, 6), kernel=1, padding="same")
        return self.emit(op, x, choices=(("kernel", kernel),))

    def open_other(self) -> Value | None:
        kind = self.pick(["slope", "rate", "features", "pool", "bias"])
        if kind == "slope":
            return self.emit(LeakyRelu(), self.some(), choices=(("slope", self.declare(kind, (0.1, 0, 1.5))),))
        if kind == "rate":
            return self.emit(Dropout(), self.some(), choices=(("rate", self.declare(kind, (0.0, 0.25))),))
        if kind == "features":
            return self.emit(Dense(features=1), self.flat(), choices=(("features", self.declare(kind, self.widths())),))
        if kind == "bias":
            return self.emit(Dense(features=4), self.flat(), choices=(("bias", self.declare(kind, (False, True))),))
        op = AvgPool(kernel=1, stride=1, padding="same")
        return self.emit(op, self.image(), choices=(("kernel", self.declare(kind, (2, 3))),))

    def reuse_choice(self) -> Value | None:
        """Another convolution whose width follows a choice that exists, perhaps with values of its own."""
        assert self.theta is not None
        if not self.theta.counts:
            return None
        identifier = self.pick(list(self.theta.counts))
        values: list[AttributeValue] = [2 * index + 1 for index in range(self.theta.counts[identifier])]
        choice = Choice(identifier, tuple(values))
        return self.emit(Conv2d(channels=1, kernel=1), self.image(), choices=(("channels", choice),))

    def choose(self) -> Value | None:
        """A choice between sub-graphs, whose bodies may hold choices again."""
        x = self.image()
        if x is None:
            return None
        assert self.theta is not None
        second = self.some(lambda value: value.type is x.type) if self.chance(3) else None
        operands = (x,) if second is None else (x, second)
        strides = not x.type.is_open and self.chance(2)
        channels = self.decisions.integer(1, 8)
        stride = self.pick([1, 2])
        count = self.decisions.integer(1, 3)
        identifier = self.declare("choose", (0,) * count).id
        twice = self.chance(4)
        alternatives = []
        for label in ("original", "separate_conv", "bypass_block")[:count]:
            body = _Growth(self.decisions, self.theta, self.depth + 1)
            arguments = tuple(Value(name, x.type) for name in ("a", "b")[: len(operands)])
            body.values.extend(arguments)
            body.names.update(value.name for value in arguments)
            body.grow(self.decisions.integer(0, 2))
            last = body.strided(arguments[0], channels, stride) if strides else body.preserving(arguments)
            outputs = (last, last if strides else arguments[0]) if twice else (last,)
            alternatives.append(Alternative(label, Graph(label, arguments, tuple(body.nodes), outputs)))
        names = tuple(self.fresh("chosen") for _ in range(2 if twice else 1))
        node = choose_node(identifier, operands, names, tuple(alternatives), origin="random")
        self.nodes.append(node)
        self.values.extend(node.results)
        return node.result

    def strided(self, x: Value, channels: int, stride: int) -> Value:
        """Adds what brings an argument to `channels` at `stride`."""
        if self.chance(2):
            pooled = self.emit(MaxPool(kernel=3, stride=stride, padding="same"), x, name="pool")
            made = self.emit(Conv2d(channels=channels, kernel=1), pooled)
        else:
            made = self.emit(Conv2d(channels=channels, kernel=3, stride=stride, padding="same"), x)
        assert made is not None
        return made

    def preserving(self, arguments: tuple[Value, ...]) -> Value:
        """Adds what keeps the first argument's type, perhaps nothing."""
        x = arguments[0]
        kind = self.decisions.integer(0, 3)
        channels = x.type.shape[1]
        made: Value | None = None
        if kind == 1:
            made = self.emit(Identity(), x)
        elif kind == 2:
            made = self.emit(Add(), x, arguments[-1])
        elif kind == 3 and isinstance(channels, int):
            made = self.emit(Conv2d(channels=channels, kernel=3, padding="same"), x)
        elif kind == 3 and isinstance(channels, OpenDim) and len(channels.terms) == 1:
            identifier, offsets = channels.terms[0]
            width = Choice(identifier, tuple(channels.base + offset for offset in offsets))
            made = self.emit(Conv2d(channels=1, kernel=3, padding="same"), x, choices=(("channels", width),))
        return x if made is None else made


def _grow(decisions: Decisions, size: int, theta: _Theta | None) -> Graph:
    growth = _Growth(decisions, theta)
    inputs = []
    for index in range(growth.pick([1, 1, 2])):
        rank_two = index > 0 and growth.chance(3)
        shape: tuple[int, ...] = (decisions.integer(1, 8),)
        if not rank_two:
            shape = (*shape, growth.pick([8, 7, 4]), growth.pick([8, 5, 4]))
        inputs.append(Value(growth.fresh("image" if index == 0 else "other"), TensorType("f32", ("N", *shape))))
    growth.values.extend(inputs)
    growth.grow(decisions.integer(1, size))
    outputs = [growth.values[-1]]
    for _ in range(growth.pick([0, 0, 1, 2])):
        outputs.append(growth.pick(growth.values))
    logits = {}
    requirements: tuple[str, ...] = ()
    if theta is not None:
        logits = {
            identifier: tuple(growth.pick([0.0, 0.1, -0.2, 0.75, 0.1234, -3.5, 12.0]) for _ in range(count))
            for identifier, count in _reachable(growth.nodes).items()
        }
        requirements = tuple(text for text in REQUIREMENTS if growth.chance(4))
    return Graph("random", tuple(inputs), tuple(growth.nodes), tuple(outputs), logits, requirements)


def _reachable(nodes: Sequence[Node]) -> dict[str, int]:
    """Returns how many alternatives each choice has that made it into a node."""
    graph = Graph("random", (), tuple(nodes), ())
    return {identifier: len(choice.labels) for identifier, choice in graph.choices.items()}


def grow_network(decisions: Decisions, size: int) -> Graph:
    """Returns a random concrete network of at most about `size` nodes."""
    return _grow(decisions, size, None)


def grow_generator(decisions: Decisions, size: int) -> Graph:
    """Returns a random generator; now and then it has no choice at all."""
    return _grow(decisions, size, _Theta())


def random_network(seed: int, size: int = 20) -> Graph:
    """Returns the random network of a seed, fast and the same on every machine."""
    return grow_network(Seeded(seed), size)


def random_generator(seed: int, size: int = 20) -> Graph:
    """Returns the random generator of a seed, fast and the same on every machine."""
    return grow_generator(Seeded(seed), size)
