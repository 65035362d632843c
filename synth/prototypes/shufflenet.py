"""ShuffleNets: channel shuffles between cheap convolutions."""

from __future__ import annotations

from gensynth.ir import Builder, Graph, Value
from gensynth.ir.ops import Add, AvgPool, BatchNorm, ChannelShuffle, Concat, Conv2d, MaxPool, Relu, Split

from .layers import Dataset, channels_of, conv_norm, head, require, settle
from .registry import Image, register_prototype

BLOCKS = (4, 8, 4)
"""Blocks of the three stages, in both versions."""

V1_CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
"""Width of the first stage by groups; it doubles from stage to stage (arXiv 1707.01083, table 1)."""

V2_CHANNELS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
"""Widths of the three stages and of the last convolution (arXiv 1807.11164, table 5; 2x as torchvision has it)."""


def _stem(builder: Builder, value: Value, channels: int, dataset: Dataset) -> Value:
    with builder.scope("stem"):
        value = conv_norm(builder, value, channels, 3, stride=1 if dataset == "cifar" else 2, activation=Relu())
        if dataset == "imagenet":
            value = builder.emit(MaxPool(kernel=3, stride=2, padding="same"), value, name="pool")
    return value


def _grouped_unit(builder: Builder, value: Value, channels: int, groups: int, first_of_all: bool, down: bool) -> Value:
    hidden = channels // 4
    stride = 2 if down else 1
    branch_channels = channels - channels_of(value) if down else channels
    branch = conv_norm(builder, value, hidden, 1, suffix="1", groups=1 if first_of_all else groups, activation=Relu())
    if groups > 1:
        branch = builder.emit(ChannelShuffle(groups=groups), branch, name="shuffle")
    branch = conv_norm(builder, branch, hidden, 3, suffix="2", stride=stride, groups=hidden)
    branch = conv_norm(builder, branch, branch_channels, 1, suffix="3", groups=groups)
    if down:
        pooled = builder.emit(AvgPool(kernel=3, stride=2, padding="same", count_padding=True), value, name="pool")
        value = builder.emit(Concat(), branch, pooled, name="concat")
    else:
        value = builder.emit(Add(), branch, value, name="add")
    return builder.emit(Relu(), value, name="act")


def _split_unit(builder: Builder, value: Value, channels: int, down: bool) -> Value:
    half = channels // 2
    if down:
        stride, kept, branch = 2, value, value
        groups = channels_of(kept)
        kept = builder.emit(
            Conv2d(channels=groups, kernel=3, stride=2, padding="same", groups=groups), kept, name="kept_conv1"
        )
        kept = builder.emit(BatchNorm(), kept, name="kept_norm1")
        kept = conv_norm(builder, kept, half, 1, prefix="kept_", suffix="2", activation=Relu())
    else:
        stride = 1
        kept, branch = builder.emit_all(Split(), value, names=("kept", "branch"))
    branch = conv_norm(builder, branch, half, 1, suffix="1", activation=Relu())
    branch = conv_norm(builder, branch, half, 3, suffix="2", stride=stride, groups=half)
    branch = conv_norm(builder, branch, half, 1, suffix="3", activation=Relu())
    value = builder.emit(Concat(), kept, branch, name="concat")
    return builder.emit(ChannelShuffle(groups=2), value, name="shuffle")


@register_prototype("shufflenet")
def shufflenet(
    *,
    version: int = 2,
    width: float = 1.0,
    groups: int | None = None,
    dataset: Dataset = "cifar",
    classes: int | None = None,
    image: Image | None = None,
) -> Graph:
    """ShuffleNet: grouped convolutions with channel shuffle (version 1), channel split (version 2).

    Zhang et al. (arXiv 1707.01083) and Ma et al. (arXiv 1807.11164). `width` scales version 1 freely and is 0.5, 1, 1.5
    or 2 in version 2; `groups` (version 1 only) is 1, 2, 3, 4 or 8. The CIFAR form has no stride in its stem.

    Trainable parameters at ImageNet: version 1 with 1, 2, 3, 4, 8 groups 1,531,936, 1,733,848, 1,865,728, 1,968,344 and
    2,434,768 (osmr/imgclsmob), about 140 M MACs each (paper, table 1); version 2 at 0.5, 1, 1.5, 2: 1,366,792,
    2,278,604, 3,503,624 and 7,393,996, with 0.04, 0.145, 0.296 and 0.583 G MACs (torchvision).
    """
    classes, image = settle(dataset, classes, image)
    require(version in (1, 2), f"version={version} is not 1 or 2", "ShuffleNet has version=1 and version=2")
    builder = Builder(f"shufflenet_v{version}")
    value = builder.input("image", image)
    if version == 1:
        groups = 3 if groups is None else groups
        require(groups in V1_CHANNELS, f"groups={groups} is not one of 1, 2, 3, 4, 8", "3 is the usual number")
        stem, last = int(24 * width), None
        widths: tuple[int, ...] = tuple(int(V1_CHANNELS[groups] * 2**stage * width) for stage in range(3))
        require(
            0.1 <= width <= 4
            and all(channels % groups == 0 and channels // 4 % groups == 0 for channels in widths)
            and (widths[0] - stem) % groups == 0,
            f"width={width:g} leaves widths that {groups} groups do not divide",
            "published widths are 0.25, 0.5, 0.75 and 1",
        )
    else:
        require(groups is None, "groups goes with version=1", "leave it out, or write version=1")
        require(
            width in V2_CHANNELS,
            f"width={width:g} is not one of 0.5, 1, 1.5, 2",
            "version 2 is published at these widths",
        )
        stem, (*narrow, last) = 24, V2_CHANNELS[width]
        widths = tuple(narrow)
    value = _stem(builder, value, stem, dataset)
    for stage, (count, channels) in enumerate(zip(BLOCKS, widths, strict=True), start=1):
        for index in range(1, count + 1):
            with builder.scope(f"stage{stage}.block{index}"):
                if groups is not None:
                    value = _grouped_unit(builder, value, channels, groups, stage == index == 1, index == 1)
                else:
                    value = _split_unit(builder, value, channels, index == 1)
    if last is not None:
        with builder.scope("last"):
            value = conv_norm(builder, value, last, 1, activation=Relu())
    head(builder, value, classes)
    return builder.build()
