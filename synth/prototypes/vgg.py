"""VGG networks."""

from __future__ import annotations

from gensynth.ir import Builder, Graph
from gensynth.ir.ops import BatchNorm, MaxPool

from .layers import conv_act, dense_head, require, scaled
from .registry import Image, register_prototype

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions a stage, by depth (arXiv 1409.1556, table 1, columns A, B, D and E)."""

CHANNELS = (64, 128, 256, 512, 512)
FEATURES = 4096


@register_prototype("vgg")
def vgg(
    *,
    depth: int = 16,
    batch_norm: bool = False,
    width: float = 1.0,
    classes: int = 1000,
    image: Image = (3, 224, 224),
) -> Graph:
    """VGG: stages of 3 x 3 convolutions with a pool after each, and three dense layers (depth 11, 13, 16, 19).

    Simonyan and Zisserman (arXiv 1409.1556), table 1. With `batch_norm` a batch norm follows every convolution, which
    keeps its bias, as in torchvision's `vgg16_bn`. `width` multiplies all widths, rounded to multiples of 8. Images are
    at least 32 x 32.

    Parameters at ImageNet: 132,863,336 (11), 133,047,848 (13), 138,357,544 (16) and 143,667,240 (19), with 7.609,
    11.308, 15.47 and 19.632 G MACs (torchvision).
    """
    require(depth in CONVOLUTIONS, f"depth={depth} is not one of 11, 13, 16, 19", "16 and 19 are the usual depths")
    require(0.05 <= width <= 4, f"width={width:g} is not between 0.05 and 4", "1 is the published width")
    require(classes >= 1, f"classes must be at least 1, got {classes}", "give the number of classes of the task")
    builder = Builder(f"vgg{depth}_bn" if batch_norm else f"vgg{depth}")
    norm = BatchNorm() if batch_norm else None
    value = builder.input("image", image)
    for stage, (count, channels) in enumerate(zip(CONVOLUTIONS[depth], CHANNELS, strict=True), start=1):
        with builder.scope(f"stage{stage}"):
            for index in range(1, count + 1):
                value = conv_act(builder, value, scaled(channels * width), 3, f"conv{index}", norm=norm)
            value = builder.emit(MaxPool(kernel=2), value, name="pool")
    dense_head(builder, value, scaled(FEATURES * width), classes)
    return builder.build()
