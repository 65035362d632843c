"""SqueezeNet."""

from __future__ import annotations

from gensynth.ir import Builder, Graph, Value
from gensynth.ir.ops import Concat, Conv2d, Dropout, GlobalAvgPool, MaxPool, Relu

from .layers import Dataset, require, settle
from .registry import Image, register_prototype

FIRES = {
    1.0: (((16, 64), (16, 64), (32, 128)), ((32, 128), (48, 192), (48, 192), (64, 256)), ((64, 256),)),
    1.1: (((16, 64), (16, 64)), ((32, 128), (32, 128)), ((48, 192), (48, 192), (64, 256), (64, 256))),
}
"""(squeeze, expand) widths of the fire modules between the pools (arXiv 1602.07360, table 1; 1.1: its repository)."""


def _conv(builder: Builder, value: Value, channels: int, kernel: int, name: str, stride: int = 1) -> Value:
    padding = "valid" if stride > 1 else "same"
    op = Conv2d(channels=channels, kernel=kernel, stride=stride, padding=padding, bias=True)
    return builder.emit(Relu(), builder.emit(op, value, name=name), name=f"{name}_act")


def _fire(builder: Builder, value: Value, squeeze: int, expand: int) -> Value:
    value = _conv(builder, value, squeeze, 1, "squeeze")
    left = _conv(builder, value, expand, 1, "expand1")
    right = _conv(builder, value, expand, 3, "expand3")
    return builder.emit(Concat(), left, right, name="concat")


@register_prototype("squeezenet")
def squeezenet(
    *, version: float = 1.1, dataset: Dataset = "cifar", classes: int | None = None, image: Image | None = None
) -> Graph:
    """SqueezeNet: fire modules that squeeze to few channels and expand by 1 x 1 and 3 x 3 convolutions.

    Iandola et al. (arXiv 1602.07360), version 1.0 and the cheaper 1.1. The CIFAR form has no stride in its first
    convolution. At ImageNet 1,248,424 parameters and 0.819 G MACs (1.0), 1,235,496 and 0.349 G (1.1), as in
    torchvision.
    """
    classes, image = settle(dataset, classes, image)
    require(version in FIRES, f"version={version:g} is not 1.0 or 1.1", "SqueezeNet has version=1.0 and version=1.1")
    builder = Builder(f"squeezenet_{'1_0' if version == 1.0 else '1_1'}")
    value = builder.input("image", image)
    with builder.scope("stem"):
        channels, kernel = (96, 7) if version == 1.0 else (64, 3)
        value = _conv(builder, value, channels, kernel, "conv", stride=1 if dataset == "cifar" else 2)
    for stage, fires in enumerate(FIRES[version], start=1):
        with builder.scope(f"stage{stage}"):
            value = builder.emit(MaxPool(kernel=3, stride=2, ceil=True), value, name="pool")
        for index, (squeeze, expand) in enumerate(fires, start=1):
            with builder.scope(f"stage{stage}.fire{index}"):
                value = _fire(builder, value, squeeze, expand)
    with builder.scope("head"):
        value = builder.emit(Dropout(rate=0.5), value, name="dropout")
        value = _conv(builder, value, classes, 1, "conv")
        builder.output(builder.emit(GlobalAvgPool(), value, name="logits"))
    return builder.build()
