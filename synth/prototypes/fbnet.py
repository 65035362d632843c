"""FBNet: one generator program of 22 choices of nine operations, and the networks that it emits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from gensynth.ir import Alternative, Builder, Graph, Node, Op, Padding, Value, choose_node, verify
from gensynth.ir.ops import Add, ChannelShuffle, Conv2d, Identity, Relu
from gensynth.passes import Materializer

from .layers import Dataset, channels_of, conv_norm, head, require, settle
from .registry import Image, register_prototype

__all__ = ["fbnet", "fbnet_generator"]


@dataclass(frozen=True)
class _Block:
    """An operation that computes: its kernel, how many times it widens, and the groups of its 1 x 1 convolutions."""

    kernel: int
    expansion: int
    groups: int = 1


OPERATIONS: dict[str, _Block | None] = {
    "k3_e1": _Block(3, 1),
    "k3_e1_g2": _Block(3, 1, groups=2),
    "k3_e3": _Block(3, 3),
    "k3_e6": _Block(3, 6),
    "k5_e1": _Block(5, 1),
    "k5_e1_g2": _Block(5, 1, groups=2),
    "k5_e3": _Block(5, 3),
    "k5_e6": _Block(5, 6),
    "skip": None,
}
"""What a layer may be (arXiv 1812.03443, table 2), in the order of HW-NAS-Bench: the digits 0 to 8."""

STAGES = ((16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1))
"""(channels, layers, first stride) of each stage (arXiv 1812.03443, table 1)."""

LAYERS = sum(layers for _, layers, _ in STAGES)
STEM = 16
LAST: dict[Dataset, int] = {"cifar": 1504, "imagenet": 1984}
"""The width of the last convolution, as in HW-NAS-Bench."""

FBNET_C = "0380076737677777677773"
"""As facebookresearch/mobile-vision has it (`fbnet_c`)."""

OPEN = "open"


def _layers(dataset: Dataset) -> Iterator[tuple[str, int, int]]:
    """Yields name, channels and stride of every layer; the CIFAR form keeps stem and stage 2 at full resolution."""
    for stage, (channels, layers, first) in enumerate(STAGES, start=1):
        for layer in range(1, layers + 1):
            down = layer == 1 and not (dataset == "cifar" and stage == 2)
            yield f"stage{stage}.layer{layer}", channels, first if down else 1


def _conv(
    builder: Builder,
    value: Value,
    channels: int,
    kernel: int = 1,
    *,
    prefix: str = "",
    stride: int = 1,
    groups: int = 1,
    activation: Op | None = None,
) -> Value:
    # A stride of 2 with padding=same would pad at the bottom and right only.
    padding: Padding = "same" if stride == 1 else kernel // 2
    return conv_norm(
        builder,
        value,
        channels,
        kernel,
        prefix=prefix,
        stride=stride,
        padding=padding,
        groups=groups,
        activation=activation,
    )


def _operation(builder: Builder, block: _Block | None, value: Value, channels: int, stride: int) -> Value:
    before = channels_of(value)
    same = stride == 1 and channels == before
    if block is None:
        if same:
            return builder.emit(Identity(), value, name="skip")
        return _conv(builder, value, channels, prefix="skip_", stride=stride, activation=Relu())
    hidden = before * block.expansion
    branch = _conv(builder, value, hidden, prefix="expand_", groups=block.groups, activation=Relu())
    if block.groups > 1:
        branch = builder.emit(ChannelShuffle(groups=block.groups), branch, name="shuffle")
    branch = _conv(
        builder, branch, hidden, block.kernel, prefix="depthwise_", stride=stride, groups=hidden, activation=Relu()
    )
    branch = _conv(builder, branch, channels, prefix="project_", groups=block.groups)
    return builder.emit(Add(), branch, value, name="add") if same else branch


def _choice(node: Node) -> Node:
    """Returns the choice between the nine operations in place of a convolution of one layer's width and stride."""
    assert isinstance(node.op, Conv2d) and isinstance(node.op.stride, int)
    alternatives = []
    for label, block in OPERATIONS.items():
        argument = Value("x", node.operands[0].type)
        builder = Builder(label, values=[argument])
        with builder.scope(node.name):
            builder.output(_operation(builder, block, argument, channels_of(node.results[0]), node.op.stride))
        alternatives.append(Alternative(label, builder.build()))
    return choose_node(node.name, node.operands, (node.name,), tuple(alternatives), origin=node.origin)


@lru_cache(maxsize=8)
def fbnet_generator(*, dataset: Dataset = "cifar", classes: int | None = None, image: Image | None = None) -> Graph:
    """Returns the generator program whose networks are all 9^22 of FBNet's search space.

    Its choices `stage1.layer1`, `stage2.layer1` to `stage2.layer4`, ... `stage7.layer1` have the nine operations as
    alternatives, all of them equally likely.

    Raises:
        UsageError: there are no classes.
    """
    if classes is None and dataset == "cifar":
        classes = 100
    classes, image = settle(dataset, classes, image)
    builder = Builder("fbnet")
    value = builder.input("image", image)
    with builder.scope("stem"):
        value = _conv(builder, value, STEM, 3, stride=1 if dataset == "cifar" else 2, activation=Relu())
    layers = set()
    for name, channels, stride in _layers(dataset):
        value = builder.emit(Conv2d(channels=channels, kernel=1, stride=stride), value, name=name)
        layers.add(name)
    with builder.scope("last"):
        value = _conv(builder, value, LAST[dataset], activation=Relu())
    head(builder, value, classes)
    graph = builder.build()
    graph = graph.replace(nodes=tuple(_choice(node) if node.name in layers else node for node in graph.nodes))
    verify(graph)
    return graph


@lru_cache(maxsize=8)
def _materializer(dataset: Dataset, classes: int | None, image: Image | None) -> Materializer:
    return Materializer(fbnet_generator(dataset=dataset, classes=classes, image=image))


@register_prototype("fbnet")
def fbnet(
    *, arch: str = FBNET_C, dataset: Dataset = "cifar", classes: int | None = None, image: Image | None = None
) -> Graph:
    """FBNet: the network of 22 digits, or with arch=open the generator of all 9^22 of the search space.

    Wu et al. (arXiv 1812.03443), tables 1 and 2, as HW-NAS-Bench (Li et al., arXiv 2103.10584) has it. `arch` names the
    operation of each layer: 0 `k3_e1`, 1 `k3_e1_g2`, 2 `k3_e3`, 3 `k3_e6`, 4 `k5_e1`, 5 `k5_e1_g2`, 6 `k5_e3`,
    7 `k5_e6`, 8 `skip`. The operations are inverted residuals of a kernel (k), an expansion (e) and groups (g) of their
    1 x 1 convolutions, with a channel shuffle where there are groups; `skip` is nothing, and where size or width change
    a 1 x 1 convolution with batch norm and rectifier. The default is FBNet-C.

    The CIFAR form is HW-NAS-Bench's: CIFAR-100, stem and stage 2 at full resolution, 1504 instead of 1984 channels at
    the end. At ImageNet FBNet-C has 5,572,200 parameters (osmr/imgclsmob) and 0.385 G MACs, 383.0 M of them outside the
    dense layer (facebookresearch/mobile-vision).
    """
    if arch == OPEN:
        return fbnet_generator(dataset=dataset, classes=classes, image=image)
    require(
        re.fullmatch(f"[0-8]{{{LAYERS}}}", arch) is not None,
        f"arch '{arch}' is not {LAYERS} digits from 0 to 8",
        f"write a digit for each layer: {', '.join(f'{digit} {label}' for digit, label in enumerate(OPERATIONS))};"
        f" or {OPEN}",
    )
    materializer = _materializer(dataset, classes, image)
    graph = materializer.build(dict(zip(materializer.identifiers, map(int, arch), strict=True)))
    verify(graph)
    return graph
