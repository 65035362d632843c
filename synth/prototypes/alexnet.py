"""AlexNet."""

from __future__ import annotations

from gensynth.ir import Builder, Graph, Padding
from gensynth.ir.ops import LocalResponseNorm, MaxPool

from .layers import conv_act, dense_head, require, scaled
from .registry import Image, register_prototype

Layer = tuple[int, int, int, Padding, bool, bool]
"""Channels, kernel, stride, padding, whether the two towers are kept apart, and whether a pool follows."""

TWO_TOWERS: tuple[Layer, ...] = (
    (96, 11, 4, "valid", False, True),
    (256, 5, 1, "same", True, True),
    (384, 3, 1, "same", False, False),
    (384, 3, 1, "same", True, False),
    (256, 3, 1, "same", True, True),
)
"""The convolutions of the 2012 network, both towers together (figure 2 of the paper)."""

ONE_TOWER: tuple[Layer, ...] = (
    (64, 11, 4, 2, False, True),
    (192, 5, 1, "same", False, True),
    (384, 3, 1, "same", False, False),
    (256, 3, 1, "same", False, False),
    (256, 3, 1, "same", False, True),
)
"""The convolutions of the one-tower network of 2014 (arXiv 1404.5997, as torchvision has it)."""

NORMALIZED = 2
"""So many convolutions of the 2012 network are followed by local response normalization."""

FEATURES = 4096


@register_prototype("alexnet")
def alexnet(*, towers: int = 2, width: float = 1.0, classes: int = 1000, image: Image | None = None) -> Graph:
    """AlexNet: five convolutions and three dense layers; with two towers the network of 2012.

    Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks" (NIPS 2012).
    `towers=2` is that network, its halves on two GPUs being groups of convolutions 2, 4 and 5, with local response
    normalization (size 5, k 2, alpha 1e-4, beta 0.75) before the first two pools, at 227 x 227, the size that its
    shapes need. `towers=1` is the ungrouped network of arXiv 1404.5997, narrower and without normalization, as
    torchvision has it. `width` multiplies all widths, rounded to multiples of 8.

    At ImageNet: two towers 60,965,224 parameters and 724 M MACs, 666 M of them in convolutions (Sze et al., arXiv
    1703.09039, table II); one tower 61,100,840 and 0.714 G (torchvision).
    """
    require(towers in (1, 2), f"towers={towers} is not 1 or 2", "2 is the network of 2012, 1 that of torchvision")
    require(0.1 <= width <= 4, f"width={width:g} is not between 0.1 and 4", "1 is the published width")
    require(classes >= 1, f"classes must be at least 1, got {classes}", "give the number of classes of the task")
    if image is None:
        image = (3, 227, 227) if towers == 2 else (3, 224, 224)
    builder = Builder("alexnet" if towers == 2 else "alexnet_one_tower")
    value = builder.input("image", image)
    layers = TWO_TOWERS if towers == 2 else ONE_TOWER
    for index, (channels, kernel, stride, padding, apart, pooled) in enumerate(layers, start=1):
        with builder.scope(f"stage{index}"):
            groups = towers if apart else 1
            value = conv_act(
                builder, value, scaled(channels * width), kernel, "conv", stride=stride, padding=padding, groups=groups
            )
            if towers == 2 and index <= NORMALIZED:
                # The op divides alpha by the size of the window; the paper does not.
                value = builder.emit(LocalResponseNorm(size=5, alpha=5e-4, beta=0.75, k=2.0), value, name="norm")
            if pooled:
                value = builder.emit(MaxPool(kernel=3, stride=2), value, name="pool")
    dense_head(builder, value, scaled(FEATURES * width), classes)
    return builder.build()
