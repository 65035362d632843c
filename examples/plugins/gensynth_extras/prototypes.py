"""A prototype: a function from keyword arguments to a graph, built with the public builder."""

from __future__ import annotations

from gensynth.ir import Builder, Graph
from gensynth.ir.ops import Conv2d, Dense, GlobalAvgPool, Relu
from gensynth.synth.prototypes import Image, register_prototype


@register_prototype("plain")
def plain(*, depth: int = 3, width: int = 16, classes: int = 10, image: Image = (1, 8, 8)) -> Graph:
    """Convolutions and relus in a row, each of the same width, and the usual head."""
    builder = Builder("plain")
    value = builder.input("image", image)
    for layer in range(1, depth + 1):
        suffix = "" if depth == 1 else str(layer)
        value = builder.emit(Conv2d(channels=width, kernel=3, padding="same"), value, name=f"conv{suffix}")
        value = builder.emit(Relu(), value, name=f"act{suffix}")
    value = builder.emit(GlobalAvgPool(), value, name="pool")
    builder.output(builder.emit(Dense(features=classes), value, name="logits"))
    return builder.build()
