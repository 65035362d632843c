"""RefineNet, which labels every pixel."""

from __future__ import annotations

from dataclasses import dataclass

from gensynth.ir import Builder, Graph, Value
from gensynth.ir.ops import Add, BatchNorm, Conv2d, Dropout, MaxPool, Relu, Resize

from .layers import channels_of, require
from .registry import Image, register_prototype
from .resnet import IMAGENET_BLOCKS, imagenet_trunk

DROPPED = (3, 4)
"""The stages of the backbone with dropout behind them: those of more than 512 channels (the authors' code)."""


def _resized(builder: Builder, value: Value, rows: int, columns: int) -> Value:
    if value.type.sizes()[2:] == (rows, columns):
        return value
    op = Resize(size=(rows, columns), mode="bilinear", align_corners=True)
    return builder.emit(op, value, name="resize")


@dataclass(frozen=True)
class _Decoder:
    """The parts of a RefineNet block (arXiv 1611.06612, figure 3); batch norm may follow each convolution."""

    builder: Builder
    pools: int
    batch_norm: bool

    def conv(self, value: Value, channels: int, name: str, bias: bool = False) -> Value:
        conv = Conv2d(channels=channels, kernel=3, padding="same", bias=bias and not self.batch_norm)
        value = self.builder.emit(conv, value, name=name)
        return self.builder.emit(BatchNorm(), value, name=f"{name}_norm") if self.batch_norm else value

    def units(self, value: Value, count: int) -> Value:
        """Emits residual convolution units (figure 3b)."""
        channels = channels_of(value)
        for unit in range(1, count + 1):
            with self.builder.scope(f"unit{unit}"):
                branch = self.builder.emit(Relu(), value, name="act1")
                branch = self.conv(branch, channels, "conv1", bias=True)
                branch = self.builder.emit(Relu(), branch, name="act2")
                branch = self.conv(branch, channels, "conv2")
                value = self.builder.emit(Add(), branch, value, name="add")
        return value

    def fuse(self, value: Value, deep: Value) -> Value:
        """Emits multi-resolution fusion (figure 3c): the deeper path is brought to the size of the other and added."""
        channels = min(channels_of(value), channels_of(deep))
        _, _, rows, columns = value.type.sizes()
        with self.builder.scope("fuse"):
            value = self.conv(value, channels, "conv")
            deep = _resized(self.builder, self.conv(deep, channels, "deep_conv"), rows, columns)
            return self.builder.emit(Add(), value, deep, name="add")

    def pool(self, value: Value) -> Value:
        """Emits chained residual pooling (figure 3d): each pool and convolution goes on from the one before."""
        channels = channels_of(value)
        with self.builder.scope("pool"):
            value = link = self.builder.emit(Relu(), value, name="act")
            for index in range(1, self.pools + 1):
                link = self.builder.emit(MaxPool(kernel=5, stride=1, padding="same"), link, name=f"pool{index}")
                link = self.conv(link, channels, f"conv{index}")
                value = self.builder.emit(Add(), value, link, name=f"add{index}")
        return value

    def block(self, value: Value, channels: int, deep: Value | None) -> Value:
        """Emits a RefineNet block (figure 3a) of a backbone's stage and, but for the deepest, the block below."""
        value = self.units(self.conv(value, channels, "adapt"), 2)
        if deep is not None:
            with self.builder.scope("deep"):
                deep = self.units(deep, 2)
            value = self.fuse(value, deep)
        value = self.pool(value)
        with self.builder.scope("out"):
            return self.units(value, 1)


@register_prototype("refinenet")
def refinenet(
    *,
    depth: int = 101,
    width: int = 64,
    features: int = 256,
    pools: int = 2,
    batch_norm: bool = False,
    upsample: bool = True,
    classes: int = 21,
    image: Image = (3, 512, 512),
) -> Graph:
    """RefineNet: a ResNet whose four stages are refined from the deepest to the finest, for semantic segmentation.

    Lin et al., "RefineNet: multi-path refinement networks for high-resolution semantic segmentation" (arXiv
    1611.06612), figures 2c and 3, and its authors' code (guosheng/refinenet) where the paper is silent: 3 x 3
    convolutions to the decoder's widths and to the classes, biases in the first convolution of a residual unit only,
    dropout behind stages 3 and 4 and before the classes. `depth` and `width` are those of `resnet` at ImageNet.
    `features` is the decoder's width, twice that in the deepest block; `pools` the pooling blocks in a chain, 2 in the
    paper and 2 or 4 in the code. `batch_norm` follows the decoder's convolutions with batch norm, which the paper has
    not: it starts from a trained backbone and small weights, and training from scratch wants it. The logits are at 1/4
    of the image; `upsample` brings them to its size, bilinearly. Images may have any size.

    With 4 pools and 21 classes at 512 x 512 the 118 M parameters and 263 G MACs of RefineNet-101 in "Light-weight
    RefineNet" (arXiv 1810.03272, table 1).
    """
    depths = ", ".join(map(str, IMAGENET_BLOCKS))
    require(depth in IMAGENET_BLOCKS, f"depth={depth} is not one of {depths}", "101 is the depth most measured")
    require(width >= 1, f"width must be at least 1, got {width}", "64 is the published width of the first stage")
    require(features >= 1, f"features must be at least 1, got {features}", "256 is the published width of the decoder")
    require(pools >= 1, f"pools must be at least 1, got {pools}", "2 and 4 are published")
    require(classes >= 1, f"classes must be at least 1, got {classes}", "give the number of classes of the task")
    builder = Builder(f"refinenet{depth}")
    decoder = _Decoder(builder, pools, batch_norm)
    stages = imagenet_trunk(builder, builder.input("image", image), depth, width)
    value: Value | None = None
    for stage, path in reversed(tuple(enumerate(stages, start=1))):
        with builder.scope(f"refine{stage}"):
            if stage in DROPPED:
                path = builder.emit(Dropout(rate=0.5), path, name="dropout")
            value = decoder.block(path, 2 * features if value is None else features, value)
    assert value is not None
    with builder.scope("head"):
        value = builder.emit(Dropout(rate=0.5), decoder.units(value, 2), name="dropout")
        value = builder.emit(Conv2d(channels=classes, kernel=3, padding="same", bias=True), value, name="logits")
        builder.output(_resized(builder, value, *image[1:]) if upsample else value)
    return builder.build()
