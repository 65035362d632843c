"""NAS-Bench-201: one generator program of six choices, and the 15,625 networks that it emits."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from gensynth.ir import Alternative, Builder, Graph, Node, UsageError, Value, choose_node, nearest, verify
from gensynth.ir.ops import Add, AvgPool, BatchNorm, Conv2d, Identity, Pad, Relu, Split
from gensynth.passes import Materializer, fold_zeros

from .layers import conv_norm, head, require, settle
from .registry import Image, register_prototype

__all__ = ["nas_bench_201", "nas_bench_201_generator"]

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""What an edge may be, in the order of the benchmark (arXiv 2001.00326, section 2.1)."""

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""The edges of a cell, from node to node, in the order of an architecture's text."""

STAGES = 3
CHANNELS = 16
CELLS = 5
BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
OPEN = "open"

Dead = Literal["kept", "removed"]


def _choice(source: int, target: int) -> str:
    return f"edge{source}_{target}"


def _relu_conv_norm(
    builder: Builder, value: Value, channels: int, kernel: int, *, stride: int = 1, prefix: str = ""
) -> Value:
    value = builder.emit(Relu(), value, name=f"{prefix}relu")
    # A stride of 2 with padding=same would pad at the bottom and right only.
    conv = Conv2d(channels=channels, kernel=kernel, stride=stride, padding="same" if stride == 1 else kernel // 2)
    value = builder.emit(conv, value, name=f"{prefix}conv")
    return builder.emit(BatchNorm(), value, name=f"{prefix}norm")


def _zeros(builder: Builder, value: Value) -> Value:
    """Emits zeros of the value's shape: as many rows of padding as it has rows, and these cut off."""
    _, _, height, _ = value.type.sizes()
    padded = builder.emit(Pad(padding=(height, 0, 0, 0)), value, name="padded")
    return builder.emit_all(Split(sizes=(height, height), axis=2), padded, names=("zeros", "rest"))[0]


def _operation(builder: Builder, label: str, value: Value) -> Value:
    channels = value.type.sizes()[1]
    if label == "none":
        return _zeros(builder, value)
    if label == "skip_connect":
        return builder.emit(Identity(), value, name="skip")
    if label == "avg_pool_3x3":
        return builder.emit(AvgPool(kernel=3, stride=1, padding="same"), value, name="pool")
    return _relu_conv_norm(builder, value, channels, 1 if label == "nor_conv_1x1" else 3)


def _edge(node: Node, choice: str) -> Node:
    """Returns the choice between the five operations in place of a node of one operand."""
    alternatives = []
    for label in OPERATIONS:
        argument = Value("x", node.operands[0].type)
        builder = Builder(label, values=[argument])
        with builder.scope(node.name):
            builder.output(_operation(builder, label, argument))
        alternatives.append(Alternative(label, builder.build()))
    return choose_node(choice, node.operands, (node.name,), tuple(alternatives), origin=node.origin)


def _cell(builder: Builder, value: Value, edges: dict[str, str]) -> Value:
    """Emits a cell whose edges are still identities, and notes each one's choice in `edges`."""
    nodes = [value]
    for target in range(1, 4):
        total: Value | None = None
        for source in range(target):
            name = _choice(source, target)
            edge = builder.emit(Identity(), nodes[source], name=name)
            edges[edge.name] = name
            total = edge if total is None else builder.emit(Add(), total, edge, name=f"sum{source}_{target}")
        assert total is not None
        nodes.append(total)
    return nodes[-1]


def _reduction(builder: Builder, value: Value, channels: int) -> Value:
    """Emits the residual block that halves the resolution."""
    branch = _relu_conv_norm(builder, value, channels, 3, stride=2, prefix="first_")
    branch = _relu_conv_norm(builder, branch, channels, 3, prefix="second_")
    shortcut = builder.emit(AvgPool(kernel=2, stride=2), value, name="shortcut_pool")
    shortcut = builder.emit(Conv2d(channels=channels, kernel=1), shortcut, name="shortcut_conv")
    return builder.emit(Add(), shortcut, branch, name="add")


@lru_cache(maxsize=8)
def nas_bench_201_generator(
    *, channels: int = CHANNELS, cells: int = CELLS, classes: int = 10, image: Image = (3, 32, 32)
) -> Graph:
    """Returns the generator program whose networks are all those of NAS-Bench-201.

    Its six choices `edge0_1`, `edge0_2`, `edge1_2`, `edge0_3`, `edge1_3` and `edge2_3` have the five operations as
    alternatives, all of them equally likely; one choice decides its edge in every cell. `channels` is the width of
    the first stage and doubles from stage to stage, `cells` the number of cells in each of the three.

    Raises:
        UsageError: a number is less than 1, or height or width is no multiple of 4.
    """
    classes, image = settle("cifar", classes, image)
    require(channels >= 1, f"channels must be at least 1, got {channels}", "16 is the published width")
    require(cells >= 1, f"cells must be at least 1, got {cells}", "5 is the published number of cells a stage")
    require(
        image[1] % 4 == 0 and image[2] % 4 == 0,
        f"an image of {image[1]} x {image[2]} cannot be halved twice",
        "give an image whose height and width are multiples of 4",
    )
    builder = Builder("nas_bench_201")
    value = builder.input("image", image)
    edges: dict[str, str] = {}
    with builder.scope("stem"):
        value = conv_norm(builder, value, channels, 3)
    for stage in range(1, STAGES + 1):
        if stage > 1:
            with builder.scope(f"reduction{stage - 1}"):
                value = _reduction(builder, value, channels * 2 ** (stage - 1))
        for index in range(1, cells + 1):
            with builder.scope(f"stage{stage}.cell{index}"):
                value = _cell(builder, value, edges)
    with builder.scope("last"):
        value = builder.emit(BatchNorm(), value, name="norm")
        value = builder.emit(Relu(), value, name="act")
    head(builder, value, classes)
    graph = builder.build()
    nodes = tuple(_edge(node, edges[node.name]) if node.name in edges else node for node in graph.nodes)
    graph = graph.replace(nodes=nodes)
    verify(graph)
    return graph


@lru_cache(maxsize=8)
def _materializer(channels: int, cells: int, classes: int, image: Image) -> Materializer:
    return Materializer(nas_bench_201_generator(channels=channels, cells=cells, classes=classes, image=image))


def _read(arch: str) -> dict[str, int]:
    """Returns the decisions that an architecture's text stands for."""
    form = f"write |OP~0|+|OP~0|OP~1|+|OP~0|OP~1|OP~2|, each OP one of {', '.join(OPERATIONS)}; or {OPEN}"
    nodes = arch.split("+")
    require(len(nodes) == 3, f"arch '{arch}' has {len(nodes)} nodes, not 3", form)
    decisions = {}
    for target, text in enumerate(nodes, start=1):
        found = re.fullmatch(r"\|((?:[^|~]+~\d+\|)+)", text)
        parts = [] if found is None else [part.split("~") for part in found[1].rstrip("|").split("|")]
        require(
            [source for _, source in parts] == [str(source) for source in range(target)],
            f"arch: '{text}' does not name one operation for each of the nodes 0 to {target - 1}",
            form,
        )
        for operation, source in parts:
            if operation not in OPERATIONS:
                raise UsageError(
                    f"arch: unknown operation '{operation}'", hint=nearest(operation, OPERATIONS, what="operations")
                )
            decisions[_choice(int(source), target)] = OPERATIONS.index(operation)
    return decisions


@register_prototype("nas-bench-201")
def nas_bench_201(
    *,
    arch: str = BEST,
    dead: Dead = "kept",
    channels: int = CHANNELS,
    cells: int = CELLS,
    classes: int = 10,
    image: Image = (3, 32, 32),
) -> Graph:
    """NAS-Bench-201: the network of an architecture text, or with arch=open the generator of all 15,625.

    Dong and Yang (arXiv 2001.00326). `arch` is as in the benchmark, `|OP~0|+|OP~0|OP~1|+|OP~0|OP~1|OP~2|`: for each
    node of a cell an operation on every node before it, one of `none`, `skip_connect`, `nor_conv_1x1`,
    `nor_conv_3x3` and `avg_pool_3x3`. The default is the best on CIFAR-100 (73.51 %). Cells stand in three
    stages of `cells` cells, the first `channels` wide, with residual blocks between them.

    `none` gives zeros of its operand's shape (rows of padding, cut off), which take part in sums as in the benchmark.
    So parameters and MACs are the benchmark's: what is multiplied by zero is counted. With `dead=removed`, zeros are
    not added and what only fed them goes; zeros stay where a convolution reads them, since its batch norm shifts them,
    and each shape's are made once. The function is the same, bit by bit, on the same weights.

    At CIFAR-10 from 73,306 parameters and 7,783,040 MACs to 1,531,546 and 220,119,680 (benchmark).
    """
    if arch == OPEN:
        require(dead == "kept", "dead=removed goes with an architecture", "leave it out, or name an architecture")
        return nas_bench_201_generator(channels=channels, cells=cells, classes=classes, image=image)
    graph = _materializer(channels, cells, classes, image).build(_read(arch))
    if dead == "removed":
        graph = fold_zeros(graph)
    verify(graph)
    return graph
