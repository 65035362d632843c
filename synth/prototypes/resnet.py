"""Residual networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gensynth.ir import Builder, Graph, Value
from gensynth.ir.ops import Add, MaxPool, Pad, Relu, Reshape

from .layers import Dataset, channels_of, conv_norm, head, require, settle
from .registry import Image, register_prototype

Shortcut = Literal["projection", "pad"]

IMAGENET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks a stage, by depth (arXiv 1512.03385, table 1)."""

EXPANSION = 4
"""How much wider a bottleneck block leaves than its 3 x 3 convolution is."""


def _shortcut(builder: Builder, value: Value, channels: int, stride: int, kind: Shortcut) -> Value:
    if stride == 1 and channels_of(value) == channels:
        return value
    if kind == "projection":
        return conv_norm(builder, value, channels, 1, prefix="shortcut_", stride=stride)
    if stride > 1:
        value = builder.emit(MaxPool(kernel=1, stride=stride), value, name="shortcut_subsample")
    _, before, height, width = value.type.sizes()
    extra = channels - before
    for name, op in (
        ("shortcut_rows", Reshape(shape=(1, before, height * width))),
        ("shortcut_zeros", Pad(padding=(extra // 2, extra - extra // 2, 0, 0))),
        ("shortcut", Reshape(shape=(channels, height, width))),
    ):
        value = builder.emit(op, value, name=name)
    return value


def _basic(builder: Builder, value: Value, channels: int, stride: int, shortcut: Shortcut) -> Value:
    branch = conv_norm(builder, value, channels, 3, suffix="1", stride=stride, activation=Relu())
    branch = conv_norm(builder, branch, channels, 3, suffix="2")
    value = builder.emit(Add(), branch, _shortcut(builder, value, channels, stride, shortcut), name="add")
    return builder.emit(Relu(), value, name="act")


def _bottleneck(builder: Builder, value: Value, channels: int, stride: int, shortcut: Shortcut) -> Value:
    branch = conv_norm(builder, value, channels, 1, suffix="1", activation=Relu())
    branch = conv_norm(builder, branch, channels, 3, suffix="2", stride=stride, activation=Relu())
    branch = conv_norm(builder, branch, EXPANSION * channels, 1, suffix="3")
    identity = _shortcut(builder, value, EXPANSION * channels, stride, shortcut)
    value = builder.emit(Add(), branch, identity, name="add")
    return builder.emit(Relu(), value, name="act")


def _stages(
    builder: Builder, value: Value, blocks: Sequence[int], width: int, shortcut: Shortcut, bottleneck: bool
) -> tuple[Value, ...]:
    """Emits stages of so many blocks, each twice as wide and half as large as the one before; returns their results."""
    block = _bottleneck if bottleneck else _basic
    results = []
    for stage, count in enumerate(blocks, start=1):
        for index in range(1, count + 1):
            stride = 2 if stage > 1 and index == 1 else 1
            with builder.scope(f"stage{stage}.block{index}"):
                value = block(builder, value, width * 2 ** (stage - 1), stride, shortcut)
        results.append(value)
    return tuple(results)


def imagenet_trunk(
    builder: Builder, value: Value, depth: int, width: int, shortcut: Shortcut = "projection"
) -> tuple[Value, ...]:
    """Emits the ImageNet form up to its last stage and returns what the four stages make, 1/4 to 1/32 of the image.

    `depth` is one of IMAGENET_BLOCKS. Nodes have the names of `resnet`, so that its trained weights fit.
    """
    with builder.scope("stem"):
        value = conv_norm(builder, value, width, 7, stride=2, activation=Relu())
        value = builder.emit(MaxPool(kernel=3, stride=2, padding="same"), value, name="pool")
    return _stages(builder, value, IMAGENET_BLOCKS[depth], width, shortcut, bottleneck=depth >= 50)


@register_prototype("resnet")
def resnet(
    *,
    depth: int = 20,
    dataset: Dataset = "cifar",
    width: int | None = None,
    shortcut: Shortcut = "projection",
    classes: int | None = None,
    image: Image | None = None,
) -> Graph:
    """ResNet: residual blocks, as for CIFAR (depth 6n + 2) or for ImageNet (18, 34, 50, 101, 152).

    He et al., "Deep residual learning for image recognition" (arXiv 1512.03385), sections 4.1 and 4.2. `width` is the
    width of the first stage (16 for CIFAR, 64 for ImageNet). `shortcut` is a 1 x 1 convolution with batch norm where
    shapes change (option B), or subsampling and zero channels (option A, which the paper takes for CIFAR). The stride
    of a bottleneck block is in its 3 x 3 convolution, as in torchvision.

    Parameters with option A at CIFAR: depth 20 0.27 M, 32 0.46 M, 44 0.66 M, 56 0.85 M, 110 1.7 M (paper, table 6). At
    ImageNet, torchvision's own counts: 11,689,512 (18), 21,797,672 (34), 25,557,032 (50), 44,549,160 (101) and
    60,192,808 (152), with 1.814, 3.664, 4.089, 7.801 and 11.514 G MACs.
    """
    classes, image = settle(dataset, classes, image)
    width = (16 if dataset == "cifar" else 64) if width is None else width
    require(width >= 1, f"width must be at least 1, got {width}", "16 is the width of the CIFAR form")
    builder = Builder(f"resnet{depth}")
    value = builder.input("image", image)
    if dataset == "cifar":
        require(
            depth >= 8 and (depth - 2) % 6 == 0,
            f"depth={depth} is not 6n + 2",
            "depths of the CIFAR form are 8, 14, 20, 26, 32, ..., 110; dataset=imagenet has 18, 34, 50, 101 and 152",
        )
        with builder.scope("stem"):
            value = conv_norm(builder, value, width, 3, activation=Relu())
        value = _stages(builder, value, ((depth - 2) // 6,) * 3, width, shortcut, bottleneck=False)[-1]
    else:
        require(
            depth in IMAGENET_BLOCKS,
            f"depth={depth} is not one of {', '.join(map(str, IMAGENET_BLOCKS))}",
            "dataset=cifar takes any depth of 6n + 2",
        )
        value = imagenet_trunk(builder, value, depth, width, shortcut)[-1]
    head(builder, value, classes)
    return builder.build()
