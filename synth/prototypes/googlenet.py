"""GoogLeNet, that is Inception v1."""

from __future__ import annotations

from collections.abc import Collection

from gensynth.ir import Builder, Graph, Padding, Value
from gensynth.ir.ops import BatchNorm, Concat, Dense, Dropout, GlobalAvgPool, LocalResponseNorm, MaxPool

from .layers import conv_act, require, scaled
from .registry import Image, register_prototype

Widths = tuple[int, int, int, int, int, int]
"""1 x 1; reduction before the 3 x 3, 3 x 3; reduction before the 5 x 5, 5 x 5; projection after the pool."""

MODULES: tuple[tuple[str, Widths], ...] = (
    ("3a", (64, 96, 128, 16, 32, 32)),
    ("3b", (128, 128, 192, 32, 96, 64)),
    ("4a", (192, 96, 208, 16, 48, 64)),
    ("4b", (160, 112, 224, 24, 64, 64)),
    ("4c", (128, 128, 256, 24, 64, 64)),
    ("4d", (112, 144, 288, 32, 64, 64)),
    ("4e", (256, 160, 320, 32, 128, 128)),
    ("5a", (256, 160, 320, 32, 128, 128)),
    ("5b", (384, 192, 384, 48, 128, 128)),
)
"""The inception modules and their widths (arXiv 1409.4842, table 1)."""

POOLED = ("3b", "4e")
"""A pool follows these modules."""


class Trunk:
    """GoogLeNet up to its last module, under construction. Nodes have the same names wherever it is used."""

    def __init__(self, builder: Builder, width: float, batch_norm: bool) -> None:
        require(0.1 <= width <= 4, f"width={width:g} is not between 0.1 and 4", "1 is the published width")
        self.builder = builder
        self.width = width
        self.norm = BatchNorm(epsilon=1e-3) if batch_norm else None

    def conv(
        self, value: Value, channels: int, kernel: int, name: str, *, stride: int = 1, padding: Padding = "same"
    ) -> Value:
        return conv_act(
            self.builder,
            value,
            scaled(channels * self.width),
            kernel,
            name,
            stride=stride,
            padding=padding,
            bias=self.norm is None,
            norm=self.norm,
        )

    def local_norm(self, value: Value, name: str) -> Value:
        return value if self.norm is not None else self.builder.emit(LocalResponseNorm(size=5), value, name=name)

    def stem(self, value: Value) -> Value:
        pool = MaxPool(kernel=3, stride=2, ceil=True)
        value = self.conv(value, 64, 7, "conv1", stride=2, padding=3)
        value = self.local_norm(self.builder.emit(pool, value, name="pool1"), "norm1")
        value = self.conv(value, 64, 1, "reduce2")
        value = self.local_norm(self.conv(value, 192, 3, "conv2"), "norm2")
        return self.builder.emit(pool, value, name="pool2")

    def inception(self, value: Value, widths: Widths) -> Value:
        conv1, reduce3, conv3, reduce5, conv5, projection = widths
        branches = (
            self.conv(value, conv1, 1, "conv1"),
            self.conv(self.conv(value, reduce3, 1, "reduce3"), conv3, 3, "conv3"),
            self.conv(self.conv(value, reduce5, 1, "reduce5"), conv5, 5 if self.norm is None else 3, "conv5"),
            self.conv(
                self.builder.emit(MaxPool(kernel=3, stride=1, padding="same"), value, name="pool"),
                projection,
                1,
                "project",
            ),
        )
        return self.builder.emit(Concat(), *branches, name="concat")

    def build(self, value: Value, pooled: Collection[str] = POOLED) -> Value:
        """Emits stem and modules, with a pool after the modules `pooled`, and returns the last module's result."""
        with self.builder.scope("stem"):
            value = self.stem(value)
        for name, widths in MODULES:
            with self.builder.scope(f"inception{name}"):
                value = self.inception(value, widths)
            if name in pooled:
                kernel = 2 if self.norm is not None and name == POOLED[-1] else 3
                with self.builder.scope(f"stage{name[0]}"):
                    value = self.builder.emit(MaxPool(kernel=kernel, stride=2, ceil=True), value, name="pool")
        return value


@register_prototype("googlenet")
def googlenet(
    *, batch_norm: bool = False, width: float = 1.0, classes: int = 1000, image: Image = (3, 224, 224)
) -> Graph:
    """GoogLeNet (Inception v1): nine modules of 1 x 1, 3 x 3 and 5 x 5 convolutions side by side.

    Szegedy et al., "Going deeper with convolutions" (arXiv 1409.4842), table 1 and figure 3, as it infers: without the
    auxiliary heads. Biases, local response normalization in the stem, and pools that round up, as in the Caffe model
    `bvlc_googlenet`. With `batch_norm` it is torchvision's network: batch norm after every convolution, 3 x 3
    convolutions where the paper has 5 x 5, a 2 x 2 last pool, no local response normalization. `width` multiplies all
    widths, rounded to multiples of 8.

    At ImageNet 6,998,552 parameters and 1.583 G MACs (Open Model Zoo: 6.999 M and 3.266 G operations); with
    `batch_norm` 6,624,904 and 1.498 G (torchvision).
    """
    require(classes >= 1, f"classes must be at least 1, got {classes}", "give the number of classes of the task")
    builder = Builder("googlenet_bn" if batch_norm else "googlenet")
    value = Trunk(builder, width, batch_norm).build(builder.input("image", image))
    with builder.scope("head"):
        value = builder.emit(GlobalAvgPool(), value, name="pool")
        value = builder.emit(Dropout(rate=0.2 if batch_norm else 0.4), value, name="dropout")
        builder.output(builder.emit(Dense(features=classes), value, name="logits"))
    return builder.build()
