"""What all prototypes share: resolutions, scaled widths, and the usual chains of layers.

Windows are padded `same`: the sizes are those of symmetric padding by half the kernel, and stay valid when a kernel is
changed later.
"""

from __future__ import annotations

from typing import Literal

from gensynth.ir import Builder, Op, Padding, Pair, UsageError, Value
from gensynth.ir.ops import BatchNorm, Conv2d, Dense, Dropout, Flatten, GlobalAvgPool, Relu

from .registry import Image

__all__ = ["Dataset", "channels_of", "conv_act", "conv_norm", "dense_head", "head", "require", "scaled", "settle"]

Dataset = Literal["cifar", "imagenet"]
"""Which of a family's published forms is built: for small images (32 x 32) or for large ones (224 x 224)."""


def settle(dataset: Dataset, classes: int | None, image: Image | None) -> tuple[int, Image]:
    """Returns classes and image with the dataset's own where none are given.

    Raises:
        UsageError: there are no classes.
    """
    if classes is None:
        classes = 10 if dataset == "cifar" else 1000
    if image is None:
        image = (3, 32, 32) if dataset == "cifar" else (3, 224, 224)
    require(classes >= 1, f"classes must be at least 1, got {classes}", "give the number of classes of the task")
    return classes, image


def require(condition: bool, message: str, hint: str) -> None:
    """Raises UsageError unless the condition holds."""
    if not condition:
        raise UsageError(message, hint=hint)


def scaled(channels: float, divisor: int = 8) -> int:
    """Returns channels rounded to a multiple of `divisor`, never more than 10 % down.

    The rounding of MobileNetV2's reference implementation (tensorflow/models, slim/nets/mobilenet, `_make_divisible`).
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def channels_of(value: Value) -> int:
    """Returns the channels of an image."""
    channels = value.type.shape[1]
    assert isinstance(channels, int)
    return channels


def conv_norm(
    builder: Builder,
    value: Value,
    channels: int,
    kernel: int,
    *,
    suffix: str = "",
    prefix: str = "",
    stride: int = 1,
    padding: Padding = "same",
    groups: int = 1,
    activation: Op | None = None,
) -> Value:
    """Emits convolution, batch norm and, where given, an activation: `PREFIXconvSUFFIX`, `...norm...`, `...act...`."""
    conv = Conv2d(channels=channels, kernel=kernel, stride=stride, padding=padding, groups=groups)
    value = builder.emit(conv, value, name=f"{prefix}conv{suffix}")
    value = builder.emit(BatchNorm(), value, name=f"{prefix}norm{suffix}")
    return value if activation is None else builder.emit(activation, value, name=f"{prefix}act{suffix}")


def conv_act(
    builder: Builder,
    value: Value,
    channels: int,
    kernel: Pair,
    name: str,
    *,
    stride: int = 1,
    padding: Padding = "same",
    groups: int = 1,
    bias: bool = True,
    norm: BatchNorm | None = None,
) -> Value:
    """Emits convolution `NAME`, where given a batch norm `NAME_norm`, and a rectifier `NAME_act`."""
    conv = Conv2d(channels=channels, kernel=kernel, stride=stride, padding=padding, groups=groups, bias=bias)
    value = builder.emit(conv, value, name=name)
    if norm is not None:
        value = builder.emit(norm, value, name=f"{name}_norm")
    return builder.emit(Relu(), value, name=f"{name}_act")


def dense_head(builder: Builder, value: Value, features: int, classes: int) -> None:
    """Emits the head of the first networks, two wide dense layers before the logits, and makes these the output."""
    with builder.scope("head"):
        value = builder.emit(Flatten(), value, name="flatten")
        for layer in (1, 2):
            value = builder.emit(Dense(features=features), value, name=f"dense{layer}")
            value = builder.emit(Relu(), value, name=f"act{layer}")
            value = builder.emit(Dropout(rate=0.5), value, name=f"dropout{layer}")
        builder.output(builder.emit(Dense(features=classes), value, name="logits"))


def head(builder: Builder, value: Value, classes: int) -> None:
    """Emits the usual head, global average pool and a dense layer, and makes the logits the output."""
    with builder.scope("head"):
        value = builder.emit(GlobalAvgPool(), value, name="pool")
        builder.output(builder.emit(Dense(features=classes), value, name="logits"))
