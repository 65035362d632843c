"""Inception v3 and v4: modules of factorized convolutions side by side, read from tables of text."""

from __future__ import annotations

import re

from gensynth.ir import Builder, Graph, Padding, Pair, Value
from gensynth.ir.ops import AvgPool, BatchNorm, Concat, Dense, Dropout, GlobalAvgPool, MaxPool

from .layers import conv_act, require, scaled
from .registry import Image, register_prototype

Module = tuple[str, ...]
"""The branches of a module, from the same value, concatenated. A branch is a chain of steps, `64@1x1 96@3x3/2`.

`64@1x7` is a convolution of 64 channels and a kernel of 1 x 7 with batch norm and rectifier, `/2` a stride of 2 and
`/1` one of 1, both without padding; `256@1x3|256@3x1` are two convolutions of one value, concatenated. `avg` is a pool
of 3 x 3 at stride 1, `max` one at stride 2 without padding.
"""


def _v3_first(pooled: int) -> Module:
    return ("64@1x1", "48@1x1 64@5x5", "64@1x1 96@3x3 96@3x3", f"avg {pooled}@1x1")


def _v3_middle(width: int) -> Module:
    long = f"{width}@1x1 {width}@7x1 {width}@1x7 {width}@7x1 192@1x7"
    return ("192@1x1", f"{width}@1x1 {width}@1x7 192@7x1", long, "avg 192@1x1")


V3_LAST: Module = ("320@1x1", "384@1x1 384@1x3|384@3x1", "448@1x1 384@3x3 384@1x3|384@3x1", "avg 192@1x1")

V3: tuple[Module, ...] = (
    ("32@3x3/2 32@3x3/1 64@3x3",),
    ("max",),
    ("80@1x1 192@3x3/1",),
    ("max",),
    *(_v3_first(pooled) for pooled in (32, 64, 64)),
    ("384@3x3/2", "64@1x1 96@3x3 96@3x3/2", "max"),
    *(_v3_middle(width) for width in (128, 160, 160, 192)),
    ("192@1x1 320@3x3/2", "192@1x1 192@1x7 192@7x1 192@3x3/2", "max"),
    *(V3_LAST,) * 2,
)
"""arXiv 1512.00567, table 1 and figures 5 to 7, with the widths of the reference (tensorflow/models, slim)."""

V4_FIRST: Module = ("96@1x1", "64@1x1 96@3x3", "64@1x1 96@3x3 96@3x3", "avg 96@1x1")
V4_MIDDLE: Module = (
    "384@1x1",
    "192@1x1 224@1x7 256@7x1",
    "192@1x1 192@7x1 224@1x7 224@7x1 256@1x7",
    "avg 128@1x1",
)
V4_LAST: Module = ("256@1x1", "384@1x1 256@1x3|256@3x1", "384@1x1 448@3x1 512@1x3 256@1x3|256@3x1", "avg 256@1x1")

V4: tuple[Module, ...] = (
    ("32@3x3/2 32@3x3/1 64@3x3",),
    ("max", "96@3x3/2"),
    ("64@1x1 96@3x3/1", "64@1x1 64@1x7 64@7x1 96@3x3/1"),
    ("192@3x3/2", "max"),
    *(V4_FIRST,) * 4,
    ("384@3x3/2", "192@1x1 224@3x3 256@3x3/2", "max"),
    *(V4_MIDDLE,) * 7,
    ("192@1x1 192@3x3/2", "256@1x1 256@1x7 320@7x1 320@3x3/2", "max"),
    *(V4_LAST,) * 3,
)
"""arXiv 1602.07261, figures 3 to 9."""

VERSIONS = {3: V3, 4: V4}


class _Network:
    """An Inception network under construction."""

    def __init__(self, builder: Builder, width: float) -> None:
        self.builder = builder
        self.width = width

    def conv(self, value: Value, text: str, name: str) -> Value:
        found = re.fullmatch(r"(\d+)@(\d)x(\d)(?:/(\d))?", text)
        assert found is not None
        channels, height, width = (int(part) for part in found.groups()[:3])
        kernel: Pair = height if height == width else (height, width)
        padding: Padding = "same" if found[4] is None else "valid"
        return conv_act(
            self.builder,
            value,
            scaled(channels * self.width),
            kernel,
            name,
            stride=int(found[4] or 1),
            padding=padding,
            bias=False,
            norm=BatchNorm(epsilon=1e-3),
        )

    def step(self, value: Value, text: str, index: int) -> Value:
        if text == "max":
            return self.builder.emit(MaxPool(kernel=3, stride=2), value, name="pool")
        if text == "avg":
            return self.builder.emit(AvgPool(kernel=3, stride=1, padding="same"), value, name="pool")
        forks = text.split("|")
        if len(forks) == 1:
            return self.conv(value, text, f"conv{index}")
        values = [self.conv(value, fork, f"conv{index}{'abc'[place]}") for place, fork in enumerate(forks)]
        return self.builder.emit(Concat(), *values, name=f"concat{index}")

    def module(self, value: Value, module: Module) -> Value:
        results = []
        for number, branch in enumerate(module, start=1):
            result = value
            with self.builder.scope(f"branch{number}"):
                for index, text in enumerate(branch.split(), start=1):
                    result = self.step(result, text, index)
            results.append(result)
        return results[0] if len(results) == 1 else self.builder.emit(Concat(), *results, name="concat")


@register_prototype("inception")
def inception(*, version: int = 3, width: float = 1.0, classes: int = 1000, image: Image = (3, 299, 299)) -> Graph:
    """Inception: modules whose large kernels are factorized into small and flat ones, version 3 or 4.

    Szegedy et al. (arXiv 1512.00567 and 1602.07261), as they infer: without the auxiliary head. Averages leave padding
    out, as in the reference (tensorflow/models, slim). `width` multiplies all widths, rounded to multiples of 8.
    Version 1 is `googlenet`.

    At ImageNet version 3 has 23,834,568 parameters and 5.713 G MACs (torchvision, which counts the auxiliary head's
    3.3 M parameters too), version 4 42,679,816 and 12.25 G (timm: 12.3).
    """
    require(
        version in VERSIONS, f"version={version} is not 3 or 4", "Inception has version=3 and version=4; 1 is googlenet"
    )
    require(0.1 <= width <= 4, f"width={width:g} is not between 0.1 and 4", "1 is the published width")
    require(classes >= 1, f"classes must be at least 1, got {classes}", "give the number of classes of the task")
    builder = Builder(f"inception_v{version}")
    network = _Network(builder, width)
    value = builder.input("image", image)
    for number, module in enumerate(VERSIONS[version], start=1):
        with builder.scope(f"module{number}"):
            value = network.module(value, module)
    with builder.scope("head"):
        value = builder.emit(GlobalAvgPool(), value, name="pool")
        value = builder.emit(Dropout(rate=0.2), value, name="dropout")
        builder.output(builder.emit(Dense(features=classes), value, name="logits"))
    return builder.build()
