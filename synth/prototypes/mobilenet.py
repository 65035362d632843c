"""MobileNets of depthwise separable convolutions."""

from __future__ import annotations

from gensynth.ir import Builder, Graph, Value
from gensynth.ir.ops import Add, Dense, Dropout, GlobalAvgPool, Relu, Relu6

from .layers import Dataset, channels_of, conv_norm, head, require, scaled, settle
from .registry import Image, register_prototype

V1_STAGES = (
    ((64, 1),),
    ((128, 2), (128, 1)),
    ((256, 2), (256, 1)),
    ((512, 2), *((512, 1),) * 5),
    ((1024, 2), (1024, 1)),
)
"""(channels, stride) of each block, by resolution (arXiv 1704.04861, table 1)."""

V2_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""(expansion, channels, blocks, first stride) of each stage (arXiv 1801.04381, table 2)."""


def _version1(builder: Builder, value: Value, width: float, dataset: Dataset, classes: int) -> None:
    def channels(full: int) -> int:
        return max(8, int(full * width))

    with builder.scope("stem"):
        value = conv_norm(builder, value, channels(32), 3, stride=1 if dataset == "cifar" else 2, activation=Relu())
    for stage, blocks in enumerate(V1_STAGES, start=1):
        for index, (full, stride) in enumerate(blocks, start=1):
            with builder.scope(f"stage{stage}.block{index}"):
                groups = channels_of(value)
                value = conv_norm(
                    builder, value, groups, 3, suffix="1", stride=stride, groups=groups, activation=Relu()
                )
                value = conv_norm(builder, value, channels(full), 1, suffix="2", activation=Relu())
    head(builder, value, classes)


def _inverted_residual(builder: Builder, value: Value, channels: int, expansion: int, stride: int) -> Value:
    before = channels_of(value)
    hidden = before * expansion
    branch = value
    if expansion != 1:
        branch = conv_norm(builder, branch, hidden, 1, prefix="expand_", activation=Relu6())
    branch = conv_norm(
        builder, branch, hidden, 3, prefix="depthwise_", stride=stride, groups=hidden, activation=Relu6()
    )
    branch = conv_norm(builder, branch, channels, 1, prefix="project_")
    return builder.emit(Add(), branch, value, name="add") if stride == 1 and before == channels else branch


def _version2(builder: Builder, value: Value, width: float, dataset: Dataset, classes: int) -> None:
    with builder.scope("stem"):
        stride = 1 if dataset == "cifar" else 2
        value = conv_norm(builder, value, scaled(32 * width), 3, stride=stride, activation=Relu6())
    for stage, (expansion, channels, blocks, first) in enumerate(V2_STAGES, start=1):
        if dataset == "cifar" and stage == 2:
            first = 1
        for index in range(1, blocks + 1):
            with builder.scope(f"stage{stage}.block{index}"):
                stride = first if index == 1 else 1
                value = _inverted_residual(builder, value, scaled(channels * width), expansion, stride)
    with builder.scope("head"):
        value = conv_norm(builder, value, scaled(1280 * max(1.0, width)), 1, activation=Relu6())
        value = builder.emit(GlobalAvgPool(), value, name="pool")
        value = builder.emit(Dropout(rate=0.2), value, name="dropout")
        builder.output(builder.emit(Dense(features=classes), value, name="logits"))


@register_prototype("mobilenet")
def mobilenet(
    *,
    version: int = 2,
    width: float = 1.0,
    dataset: Dataset = "cifar",
    classes: int | None = None,
    image: Image | None = None,
) -> Graph:
    """MobileNet: depthwise separable convolutions (version 1), inverted residuals (version 2).

    Howard et al. (arXiv 1704.04861) and Sandler et al. (arXiv 1801.04381). `width` multiplies all widths; version 2
    rounds them to multiples of 8. The CIFAR form keeps the stem, and stage 2 of version 2, at full resolution.

    At ImageNet: version 1 has 4.2 M parameters and 569 M MACs (paper, table 4; 4,231,976 trainable in Keras), version 2
    3,504,872 and 0.301 G (torchvision).
    """
    classes, image = settle(dataset, classes, image)
    require(version in (1, 2), f"version={version} is not 1 or 2", "MobileNet has version=1 and version=2")
    require(0.1 <= width <= 4, f"width={width:g} is not between 0.1 and 4", "published: 0.25, 0.5, 0.75, 1, 1.4")
    builder = Builder(f"mobilenet_v{version}")
    value = builder.input("image", image)
    (_version1 if version == 1 else _version2)(builder, value, width, dataset, classes)
    return builder.build()
