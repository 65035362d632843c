"""Small networks, one for each way in which widths are tied; shared by the tests of channel groups and slicing."""

from __future__ import annotations

from collections.abc import Callable

from gensynth.ir import Builder, Graph, Value
from gensynth.ir.ops import (
    Add,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Flatten,
    GlobalAvgPool,
    LocalResponseNorm,
    MaxPool,
    Mul,
    Relu,
    Sigmoid,
    Split,
)


def conv(
    b: Builder, x: Value, channels: int, kernel: int = 1, *, name: str, groups: int = 1, norm: bool = True
) -> Value:
    x = b.emit(Conv2d(channels=channels, kernel=kernel, padding="same", groups=groups, bias=not norm), x, name=name)
    return b.emit(Relu(), b.emit(BatchNorm(), x)) if norm else x


def head(b: Builder, x: Value) -> Graph:
    b.output(b.emit(Dense(features=3), b.emit(GlobalAvgPool(), x), name="logits"))
    return b.build()


def residual() -> Graph:
    b = Builder("residual")
    x = conv(b, b.input("image", (3, 6, 6)), 8, 3, name="stem")
    with b.scope("block"):
        y = conv(b, x, 6, 3, name="conv1")
        y = b.emit(BatchNorm(), b.emit(Conv2d(channels=8, kernel=3, padding="same"), y, name="conv2"))
        x = b.emit(Relu(), b.emit(Add(), x, y))
    return head(b, x)


def inverted_residual() -> Graph:
    """MobileNet's block with a depth multiplier of 2 and squeeze-and-excitation."""
    b = Builder("inverted_residual")
    x = conv(b, b.input("image", (3, 6, 6)), 4, 3, name="stem")
    y = conv(b, x, 8, name="expand")
    y = conv(b, y, 16, 3, name="depthwise", groups=8)
    s = b.emit(GlobalAvgPool(keep=True), y)
    s = b.emit(Relu(), conv(b, s, 4, name="squeeze", norm=False))
    s = b.emit(Sigmoid(), conv(b, s, 16, name="excite", norm=False))
    y = b.emit(Mul(), y, s)
    y = b.emit(BatchNorm(), b.emit(Conv2d(channels=4, kernel=1), y, name="project"))
    return head(b, b.emit(Add(), x, y))


def concat() -> Graph:
    b = Builder("concat")
    x = conv(b, b.input("image", (3, 6, 6)), 6, 3, name="stem")
    left, right = conv(b, x, 4, name="left"), conv(b, x, 6, 3, name="right")
    x = b.emit(Concat(), left, right, name="joined")
    x = b.emit(MaxPool(kernel=2), b.emit(BatchNorm(), x))
    one, two = conv(b, x, 4, name="one"), conv(b, x, 8, name="two")
    x = conv(b, b.emit(Concat(), one, two), 12, 3, name="mixed", groups=12)
    return head(b, x)


def shuffle_v1(channels: int = 16) -> Graph:
    """ShuffleNet's unit (arXiv 1707.01083, figure 2b) with two groups."""
    b = Builder("shuffle_v1")
    x = conv(b, b.input("image", (3, 6, 6)), 8, 3, name="stem")
    y = conv(b, x, channels, name="squeeze", groups=2)
    y = b.emit(ChannelShuffle(groups=2), y)
    y = conv(b, y, channels, 3, name="depthwise", groups=channels)
    y = b.emit(BatchNorm(), b.emit(Conv2d(channels=8, kernel=1, groups=2), y, name="expand"))
    return head(b, b.emit(Relu(), b.emit(Add(), x, y)))


def shuffle_v2(units: int = 1) -> Graph:
    """ShuffleNet v2's unit (arXiv 1807.11164, figure 3c), once or several times in a row."""
    b = Builder("shuffle_v2")
    x = conv(b, b.input("image", (3, 6, 6)), 16, 3, name="stem")
    for unit in range(units):
        with b.scope(f"unit{unit}"):
            kept, y = b.emit_all(Split(sections=2), x)
            y = conv(b, y, 8, name="first")
            y = conv(b, y, 8, 3, name="depthwise", groups=8)
            y = conv(b, y, 8, name="last")
            x = b.emit(ChannelShuffle(groups=2), b.emit(Concat(), kept, y))
    return head(b, conv(b, x, 8, name="final"))


def flat() -> Graph:
    b = Builder("flat")
    x = conv(b, b.input("image", (3, 6, 6)), 6, 3, name="stem")
    x = b.emit(AvgPool(kernel=2), x)
    x = b.emit(Relu(), b.emit(BatchNorm(), b.emit(Dense(features=10), b.emit(Flatten(), x), name="hidden")))
    b.output(b.emit(Dense(features=3), x, name="logits"))
    return b.build()


def transposed() -> Graph:
    b = Builder("transposed")
    x = conv(b, b.input("image", (3, 4, 4)), 8, 3, name="stem")
    x = b.emit(Relu(), b.emit(ConvTranspose2d(channels=6, kernel=2, stride=2, bias=True), x, name="up"))
    x = b.emit(ConvTranspose2d(channels=12, kernel=2, stride=2, groups=6, bias=True), x, name="spread")
    x = b.emit(BatchNorm(), b.emit(ConvTranspose2d(channels=8, kernel=3, padding="same", groups=2), x, name="grouped"))
    b.output(b.emit(ConvTranspose2d(channels=2, kernel=3, padding="same"), x, name="out"))
    return b.build()


def local_norm() -> Graph:
    """AlexNet's beginning: the norm makes neighbours of channels."""
    b = Builder("local_norm")
    x = b.emit(Relu(), conv(b, b.input("image", (3, 6, 6)), 8, 3, name="stem", norm=False))
    x = b.emit(MaxPool(kernel=2), b.emit(LocalResponseNorm(size=3, alpha=0.5), x, name="local"))
    return head(b, conv(b, x, 6, 3, name="second"))


NETWORKS: dict[str, Callable[[], Graph]] = {
    "residual": residual,
    "inverted_residual": inverted_residual,
    "concat": concat,
    "shuffle_v1": shuffle_v1,
    "shuffle_v2": shuffle_v2,
    "shuffle_v2_twice": lambda: shuffle_v2(2),
    "shuffle_v2_thrice": lambda: shuffle_v2(3),
    "flat": flat,
    "transposed": transposed,
    "local_norm": local_norm,
}
