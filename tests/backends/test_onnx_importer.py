"""Importing ONNX models node by node: the same numbers as ONNX Runtime, in the fewest ops of the IR that say it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from onnx_models import (
    Build,
    ModelBuilder,
    assert_imported_alike,
    build,
    conv,
    cut,
    dense,
    mean,
    ops_of,
    padded,
    spoken,
    squeezed,
    turned,
)


def gate(m: ModelBuilder, value: str) -> str:
    shifted = m.node("Add", value, m.constant(np.float32(3)))
    return m.node("Clip", shifted, m.constant(np.float32(0)), m.constant(np.float32(6)))


def shuffle(m: ModelBuilder, batch: int = -1) -> str:
    parted = m.node("Reshape", "x", m.integers(batch, 2, 2, 8, 8))
    return m.node("Reshape", turned(m, parted, 0, 2, 1, 3, 4), m.integers(batch, 4, 8, 8))


def local_norm(m: ModelBuilder) -> str:
    square = m.node("Pow", "x", m.constant(np.float32(2)))
    volume = m.node("Unsqueeze", square, m.integers(1))
    around = padded(m, volume, [0, 0, 1, 0, 0, 0, 0, 1, 0, 0])
    means = m.node("AveragePool", around, kernel_shape=[3, 1, 1], strides=[1, 1, 1])
    scaled = m.node("Mul", squeezed(m, means, 1), m.constant(np.float32(0.5)))
    power = m.node("Pow", m.node("Add", scaled, m.constant(np.float32(2))), m.constant(np.float32(0.75)))
    return m.node("Div", "x", power)


def flattened_by_its_shape(m: ModelBuilder) -> str:
    batch = m.node("Gather", m.node("Shape", "x"), m.constant(np.array(0, np.int64)), axis=0)
    if m.opset < 13:
        batch = m.node("Unsqueeze", batch, axes=[0])
    else:
        batch = m.node("Unsqueeze", batch, m.integers(0))
    return dense(m, m.node("Reshape", "x", m.node("Concat", batch, m.integers(-1), axis=0)), 256)


def squeeze_excite(m: ModelBuilder) -> str:
    gated = m.node("Conv", mean(m, "x", 2, 3), m.weight(4, 4, 1, 1), m.weight(4))
    return m.node("Mul", "x", m.node("Sigmoid", gated))


ALL = (7, 9, 11, 13, 18, 23)
NEW = (11, 13, 18, 23)

CASES: list[tuple[str, Build, tuple[int, ...], list[str] | None]] = [
    ("a convolution", lambda m: conv(m, "x", pads=[1, 1, 1, 1]), ALL, ["conv2d {channels=6, kernel=3, padding=1}"]),
    (
        "uneven pads, strides and dilations",
        lambda m: conv(m, "x", pads=[0, 1, 2, 3], strides=[2, 1], dilations=[1, 2]),
        ALL,
        ["conv2d {channels=6, kernel=3, stride=[2, 1], padding=[0, 2, 1, 3], dilation=[1, 2]}"],
    ),
    (
        "groups",
        lambda m: m.node("Conv", "x", m.weight(8, 2, 3, 3), m.weight(8), group=2),
        ALL,
        ["conv2d {channels=8, kernel=3, groups=2, bias=true}"],
    ),
    (
        "auto_pad SAME_UPPER",
        lambda m: conv(m, "x", kernel=4, auto_pad="SAME_UPPER", strides=[2, 2]),
        ALL,
        ["conv2d {channels=6, kernel=4, stride=2, padding=same}"],
    ),
    (
        "auto_pad SAME_LOWER",
        lambda m: conv(m, "x", kernel=4, auto_pad="SAME_LOWER"),
        ALL,
        ["conv2d {channels=6, kernel=4, padding=[2, 1, 2, 1]}"],
    ),
    ("auto_pad VALID", lambda m: conv(m, "x", auto_pad="VALID"), ALL, ["conv2d {channels=6, kernel=3}"]),
    (
        "a bias added after a convolution",
        lambda m: m.node("Add", conv(m, "x"), m.weight(6, 1, 1)),
        ALL,
        ["conv2d {channels=6, kernel=3, bias=true}"],
    ),
    (
        "a scale and a shift after a convolution",
        lambda m: m.node("Sub", m.node("Mul", m.weight(1, 6, 1, 1), conv(m, "x")), m.weight(6, 1, 1)),
        ALL,
        ["conv2d {channels=6, kernel=3, bias=true}"],
    ),
    (
        "a convolution that others read, and a bias",
        lambda m: (c := conv(m, "x"), m.node("Add", c, m.weight(6, 1, 1))),
        ALL,
        ["conv2d {channels=6, kernel=3}", "batch_norm {epsilon=0.0}"],
    ),
    (
        "normalized images",
        lambda m: conv(m, m.node("Div", m.node("Sub", "x", m.weight(1, 4, 1, 1)), m.weight(4, 1, 1, low=0.2))),
        ALL,
        ["batch_norm {epsilon=0.0}", "conv2d {channels=6, kernel=3}"],
    ),
    (
        "numbers on both sides",
        lambda m: m.node("Sub", m.constant(np.float32(1)), m.node("Div", "x", m.constant(np.float32(255)))),
        ALL,
        ["batch_norm {epsilon=0.0}"],
    ),
    (
        "a transposed convolution",
        lambda m: m.node(
            "ConvTranspose",
            "x",
            m.weight(4, 3, 3, 3),
            strides=[2, 2],
            pads=[1, 0, 1, 1],
            output_padding=[1, 1],
            group=2,
        ),
        ALL,
        ["conv_transpose2d {channels=6, kernel=3, stride=2, padding=[1, 1, 0, 1], output_padding=1, groups=2}"],
    ),
    (
        "a scaled transposed convolution in groups",
        lambda m: m.node("Mul", m.node("ConvTranspose", "x", m.weight(4, 3, 2, 2), group=2), m.weight(6, 1, 1)),
        ALL,
        ["conv_transpose2d {channels=6, kernel=2, groups=2}"],
    ),
    (
        "a transposed convolution to a size",
        lambda m: m.node("ConvTranspose", "x", m.weight(4, 3, 3, 3), strides=[2, 2], output_shape=[16, 16]),
        ALL,
        ["conv_transpose2d {channels=3, kernel=3, stride=2, padding=[1, 0, 1, 0]}"],
    ),
    (
        "a transposed convolution of the same size",
        lambda m: m.node("ConvTranspose", "x", m.weight(4, 3, 4, 4), strides=[2, 2], auto_pad="SAME_UPPER"),
        ALL,
        ["conv_transpose2d {channels=3, kernel=4, stride=2, padding=1}"],
    ),
    (
        "a batch norm",
        lambda m: m.node(
            "BatchNormalization", "x", *(m.weight(4, low=0.1) for _ in range(4)), epsilon=1e-3, momentum=0.99
        ),
        ALL,
        ["batch_norm {epsilon=0.001, momentum=0.01}"],
    ),
    (
        "Caffe's batch norm and scale",
        lambda m: m.node(
            "Add",
            m.node(
                "Mul",
                m.node("BatchNormalization", "x", *(m.weight(4, low=0.1) for _ in range(4))),
                m.weight(4, 1, 1),
            ),
            m.weight(4, 1, 1),
        ),
        ALL,
        ["batch_norm"],
    ),
    (
        "a dense layer of all kinds",
        lambda m: m.node("Gemm", m.node("Flatten", "x"), m.weight(256, 5), m.weight(1, 5), alpha=0.5, beta=2.0),
        ALL,
        ["flatten", "dense {features=5}"],
    ),
    (
        "a product and a sum",
        lambda m: m.node("Add", m.node("MatMul", m.node("Flatten", "x"), m.weight(256, 5)), m.weight(5)),
        ALL,
        ["flatten", "dense {features=5}"],
    ),
    (
        "a norm after a dense layer",
        lambda m: m.node(
            "BatchNormalization", dense(m, m.node("Flatten", "x"), 256), *(m.weight(5, low=0.1) for _ in range(4))
        ),
        ALL,
        ["flatten", "dense {features=5}", "batch_norm"],
    ),
    (
        "a dense layer without bias",
        lambda m: m.node("MatMul", squeezed(m, m.node("GlobalAveragePool", "x"), 2, 3), m.weight(4, 5)),
        ALL,
        ["global_avg_pool", "dense {features=5, bias=false}"],
    ),
    ("a flatten by sizes", flattened_by_its_shape, ALL, ["flatten", "dense {features=5}"]),
    (
        "relu6, silu, hard_swish by steps",
        lambda m: (
            spoken(m, 0, 6),
            m.node("Mul", "x", m.node("Sigmoid", "x")),
            m.node("Mul", m.node("HardSigmoid", "x", alpha=1 / 6, beta=0.5), "x"),
        ),
        ALL,
        ["relu6", "silu", "hard_swish"],
    ),
    ("relu as a clip", lambda m: spoken(m, 0, 3.4028235e38), ALL, ["relu"]),
    (
        "a bound above a relu",
        lambda m: m.node("Min", m.node("Relu", "x"), m.constant(np.float32(6))),
        (8, 13, 23),
        ["relu6"],
    ),
    (
        "hard_swish by arithmetic",
        lambda m: (
            m.node("Mul", "x", m.node("Div", gate(m, "x"), m.constant(np.float32(6)))),
            m.node("Div", m.node("Mul", "x", gate(m, "x")), m.constant(np.float32(6))),
            m.node("Mul", gate(m, "x"), m.constant(np.float32(1 / 6))),
        ),
        NEW,
        ["hard_swish", "hard_swish", "hard_sigmoid"],
    ),
    ("Keras's hard sigmoid", lambda m: m.node("HardSigmoid", "x"), ALL, ["batch_norm {epsilon=0.0}", "hard_sigmoid"]),
    (
        "slopes below zero",
        lambda m: (
            m.node("LeakyRelu", "x", alpha=0.1),
            m.node("PRelu", "x", m.constant(np.full((4, 1, 1), 0.25, np.float32))),
            m.node("Max", "x", m.node("Mul", "x", m.constant(np.float32(0.2)))),
        ),
        (8, 13, 23),
        ["leaky_relu {slope=0.1}", "leaky_relu {slope=0.25}", "leaky_relu {slope=0.2}"],
    ),
    (
        "pools",
        lambda m: (
            m.node("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
            m.node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2], count_include_pad=1),
            m.node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
            m.node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
        ),
        ALL,
        [
            "max_pool {kernel=[3, 2], stride=2, padding=[1, 1, 0, 1]}",
            "avg_pool {kernel=2}",
            "avg_pool {kernel=3, stride=1, padding=1, count_padding=true}",
            "max_pool {kernel=3, stride=2, padding=[1, 0, 1, 0]}",
        ],
    ),
    (
        "pools with ceil",
        lambda m: (
            m.node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
            m.node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1], ceil_mode=1),
        ),
        (10, 13, 23),
        [
            "max_pool {kernel=3, stride=2, ceil=true}",
            "avg_pool {kernel=3, stride=2, padding=[0, 1, 0, 1], ceil=true}",
        ],
    ),
    (
        "whole-image pools",
        lambda m: (m.node("GlobalMaxPool", "x"), mean(m, "x", 2, 3), mean(m, "x", -1, -2, keepdims=0)),
        ALL,
        ["max_pool {kernel=8}", "global_avg_pool {keep=true}", "global_avg_pool"],
    ),
    (
        "a mean over height and width joined",
        lambda m: mean(m, m.node("Reshape", "x", m.integers(0, 4, -1)), 2, keepdims=0),
        ALL,
        ["global_avg_pool"],
    ),
    (
        "padding before a convolution",
        lambda m: conv(m, padded(m, "x", [0, 0, 1, 2, 0, 0, 3, 0]), auto_pad="VALID"),
        ALL,
        ["conv2d {channels=6, kernel=3, padding=[1, 3, 2, 0]}"],
    ),
    (
        "padding before pools",
        lambda m: (
            m.node("MaxPool", padded(m, m.node("Relu", "x"), [0, 0, 1, 1, 0, 0, 1, 1]), kernel_shape=[3, 3]),
            m.node("AveragePool", padded(m, "x", [0, 0, 1, 1, 0, 0, 1, 1]), kernel_shape=[3, 3]),
            m.node("MaxPool", padded(m, "x", [0, 0, 1, 1, 0, 0, 1, 1]), kernel_shape=[3, 3]),
        ),
        ALL,
        [
            "relu",
            "max_pool {kernel=3, stride=1, padding=1}",
            "avg_pool {kernel=3, stride=1, padding=1, count_padding=true}",
            "pad {padding=1}",
            "max_pool {kernel=3, stride=1}",
        ],
    ),
    (
        "repeated edges before a max pool",
        lambda m: m.node(
            "MaxPool",
            m.node("Pad", "x", m.integers(0, 0, 0, 1, 0, 0, 1, 1), mode="edge"),
            kernel_shape=[3, 2],
            strides=[2, 1],
        ),
        (11, 13, 23),
        ["max_pool {kernel=[3, 2], stride=[2, 1], padding=[0, 1, 1, 1]}"],
    ),
    (
        "more channels",
        lambda m: padded(m, "x", [0, 1, 0, 0, 0, 2, 0, 0]),
        ALL,
        ["reshape {shape=[1, 4, 64]}", "pad {padding=[1, 2, 0, 0]}", "reshape {shape=[7, 8, 8]}"],
    ),
    (
        "a local response norm",
        lambda m: m.node("LRN", "x", size=3, alpha=0.5, beta=0.6, bias=2.0),
        ALL,
        ["local_response_norm {size=3, alpha=0.5, beta=0.6, k=2.0}"],
    ),
    (
        "a local response norm by steps",
        local_norm,
        (13, 18, 23),
        ["local_response_norm {size=3, alpha=0.5, k=2.0}"],
    ),
    ("dropout", lambda m: m.node("Dropout", "x", outputs=2), ALL, ["dropout"]),
    ("a channel shuffle", shuffle, ALL, ["channel_shuffle {groups=2}"]),
    (
        "sums, products and joins",
        lambda m: m.node("Concat", m.node("Sum", "x", "x", "x"), m.node("Mul", "x", "x"), axis=-3),
        (11, 13, 23),
        ["add", "add", "mul", "concat"],
    ),
    (
        "a difference",
        lambda m: m.node("Sub", m.node("Relu", "x"), conv(m, "x", channels=4, pads=[1, 1, 1, 1])),
        ALL,
        ["relu", "conv2d {channels=4, kernel=3, padding=1}", "add"],
    ),
    (
        "squeeze and excitation",
        squeeze_excite,
        ALL,
        ["global_avg_pool {keep=true}", "conv2d {channels=4, kernel=1, bias=true}", "sigmoid", "mul"],
    ),
    (
        "slices that make a split",
        lambda m: m.node("Concat", cut(m, "x", 1, 2, 2**31 - 1), cut(m, "x", 1, 0, 2), axis=1),
        ALL,
        ["split", "concat"],
    ),
    (
        "slices with a rest",
        lambda m: m.node("Concat", cut(m, "x", 1, 1, 2), cut(m, "x", 1, -2, 4), axis=1),
        ALL,
        ["split {sizes=[1, 1, 2]}", "concat"],
    ),
    (
        "picked channels",
        lambda m: m.node("Gather", "x", m.integers(1, 2), axis=1),
        ALL,
        ["split {sizes=[1, 2, 1]}"],
    ),
    (
        "softmax over channels",
        lambda m: m.node("Softmax", dense(m, m.node("Flatten", "x"), 256), axis=1),
        ALL,
        ["flatten", "dense {features=5}", "softmax"],
    ),
    (
        "identities, casts and moves that undo each other",
        lambda m: m.node(
            "Identity", m.node("Cast", turned(m, turned(m, "x", 0, 2, 3, 1), 0, 3, 1, 2), to=TensorProto.FLOAT)
        ),
        ALL,
        [],
    ),
]


@pytest.mark.parametrize("batch", ["N", 1, 2])
@pytest.mark.parametrize(
    ("function", "opset", "wanted"),
    [pytest.param(f, opset, wanted, id=f"{name}-{opset}") for name, f, opsets, wanted in CASES for opset in opsets],
)
def test_a_model_becomes_the_ops_that_compute_the_same(
    function: Build, opset: int, wanted: list[str], batch: int | str, tmp_path: Path
) -> None:
    path = build(function, tmp_path, opset=opset, shape=(batch, 4, 8, 8))
    assert ops_of(assert_imported_alike(path)) == wanted
