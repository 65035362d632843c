"""LeNet-5."""

from __future__ import annotations

from typing import Literal

from gensynth.ir import Builder, Graph, Op
from gensynth.ir.ops import AvgPool, Conv2d, Dense, Flatten, MaxPool, Relu

from .layers import settle
from .registry import Image, register_prototype


@register_prototype("lenet")
def lenet(*, classes: int = 10, image: Image = (1, 32, 32), pool: Literal["average", "max"] = "average") -> Graph:
    """LeNet-5: two convolutions, two pools, three dense layers.

    LeCun et al., "Gradient-based learning applied to document recognition" (1998), in the form commonly taught: the
    second convolution sees all maps, and rectifiers stand for the scaled tanh. 61,706 parameters and 416,520 MACs for
    1 x 32 x 32 and 10 classes.
    """
    classes, image = settle("cifar", classes, image)
    builder = Builder("lenet")

    def pooled(size: int) -> Op:
        return AvgPool(kernel=size) if pool == "average" else MaxPool(kernel=size)

    value = builder.input("image", image)
    for stage, channels in enumerate((6, 16), start=1):
        with builder.scope(f"stage{stage}"):
            value = builder.emit(Conv2d(channels=channels, kernel=5, bias=True), value, name="conv")
            value = builder.emit(Relu(), value, name="act")
            value = builder.emit(pooled(2), value, name="pool")
    with builder.scope("head"):
        value = builder.emit(Flatten(), value, name="flatten")
        for layer, features in enumerate((120, 84), start=1):
            value = builder.emit(Dense(features=features), value, name=f"dense{layer}")
            value = builder.emit(Relu(), value, name=f"act{layer}")
        builder.output(builder.emit(Dense(features=classes), value, name="logits"))
    return builder.build()
