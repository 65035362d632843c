"""Importing ONNX models of several makers: resizes, channels last, where weights lie, and what nodes are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import (
    Build,
    ModelBuilder,
    assert_imported_alike,
    build,
    conv,
    mean,
    ops_of,
    padded,
    save,
    turned,
)

from gensynth.backends.onnx import import_onnx
from gensynth.ir import UsageError

# Resizes: those that the IR has, and no others.


def resize(m: ModelBuilder, scales: list[float] | None, sizes: list[int] | None = None, **attributes: object) -> str:
    if m.opset < 9:
        return m.node("Upsample", "x", scales=[float(scale) for scale in scales or ()], **attributes)
    if m.opset < 11:
        name = "Upsample" if m.opset == 9 else "Resize"
        return m.node(name, "x", m.constant(np.array(scales, np.float32)), **attributes)
    region = m.constant(np.zeros(0, np.float32)) if m.opset < 13 else ""
    if sizes is None:
        return m.node("Resize", "x", region, m.constant(np.array(scales, np.float32)), **attributes)
    none = m.constant(np.zeros(0, np.float32)) if m.opset < 13 else ""
    return m.node("Resize", "x", region, none, m.integers(*sizes), **attributes)


RESIZES: list[tuple[str, Build, tuple[int, ...], str | None]] = [
    ("old", lambda m: resize(m, [1, 1, 2, 3], mode="nearest"), (7, 9, 10), "resize {scale=[2, 3]}"),
    ("smaller", lambda m: resize(m, [1, 1, 0.5, 0.5], mode="nearest"), (10,), "resize {size=4}"),
    ("the default, doubled", lambda m: resize(m, [1, 1, 2, 2]), (11, 13, 19), "resize {scale=2}"),
    ("the default, by three", lambda m: resize(m, [1, 1, 3, 3]), (11, 13, 19), "resize {scale=3}"),
    ("the default, by half", lambda m: resize(m, [1, 1, 0.5, 0.5]), (11, 13), "resize {size=4}"),
    ("the default, by a quarter", lambda m: resize(m, [1, 1, 0.25, 0.25]), (11, 13), None),
    (
        "to a size",
        lambda m: resize(m, None, [2, 4, 13, 11], coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        (11, 13, 18),
        "resize {size=[13, 11]}",
    ),
    (
        "bilinear",
        lambda m: resize(m, [1, 1, 2, 2], mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
        (11, 13, 19),
        "resize {scale=2, mode=bilinear}",
    ),
    (
        "bilinear to a size",
        lambda m: resize(m, None, [2, 4, 5, 13], mode="linear"),
        (11, 13, 19),
        "resize {size=[5, 13], mode=bilinear}",
    ),
    (
        "corners aligned",
        lambda m: resize(m, None, [2, 4, 16, 15], mode="linear", coordinate_transformation_mode="align_corners"),
        (11, 13, 19),
        "resize {size=[16, 15], mode=bilinear, align_corners=true}",
    ),
    ("bilinear from the corner", lambda m: resize(m, [1, 1, 2, 2], mode="linear"), (7, 9, 10), None),
    (
        "nearest pixels of aligned corners",
        lambda m: resize(m, [1, 1, 3, 3], coordinate_transformation_mode="align_corners"),
        (11, 13),
        None,
    ),
    ("cubic", lambda m: resize(m, [1, 1, 2, 2], mode="cubic"), (11, 13), None),
    ("smoothed", lambda m: resize(m, [1, 1, 0.5, 0.5], mode="linear", antialias=1), (18,), None),
    ("channels", lambda m: resize(m, [1, 2, 1, 1]), (11, 13), None),
    (
        "rows and columns",
        lambda m: m.node(
            "Gather",
            m.node("Gather", "x", m.integers(*(index * 8 // 13 for index in range(13))), axis=2),
            m.integers(0, 1, 3, 4, 6),
            axis=3,
        ),
        (7, 13),
        "resize {size=[13, 5]}",
    ),
]


@pytest.mark.parametrize(
    ("function", "opset", "wanted"),
    [pytest.param(f, opset, wanted, id=f"{name}-{opset}") for name, f, opsets, wanted in RESIZES for opset in opsets],
)
def test_a_resize_is_imported_where_the_ir_means_the_same(
    function: Build, opset: int, wanted: str | None, tmp_path: Path
) -> None:
    path = build(function, tmp_path, opset=opset, shape=(2, 4, 8, 8))
    if wanted is None:
        with pytest.raises(UsageError, match=r"model\.onnx: node 'resize\d+' \(Resize\)|\(Upsample\)"):
            import_onnx(path)
    else:
        assert ops_of(assert_imported_alike(path)) == [wanted]


# Channels last, as converters from TensorFlow leave them.


def tensorflow(m: ModelBuilder) -> str:
    """Normalization and explicit padding before the first Transpose; pairs of Transposes; a mean; a dense layer."""
    x = m.node("Mul", "x", m.constant(np.float32(1 / 127.5)), name="model/rescaling/mul")
    x = m.node("Sub", x, m.constant(np.array([0.1, 0.2, 0.3], np.float32)), name="model/rescaling/sub")
    x = padded(m, x, [0, 0, 1, 0, 0, 1, 0, 0])
    x = turned(m, x, 0, 3, 1, 2)
    x = m.node(
        "Conv", x, m.weight(6, 3, 3, 3), m.weight(6), strides=[2, 2], pads=[0, 0, 1, 1], name="model/stem/Conv2D"
    )
    x = turned(m, x, 0, 2, 3, 1)
    gate = mean(m, x, 1, 2)
    gate = m.node("MatMul", m.node("Reshape", gate, m.integers(-1, 6)), m.weight(6, 6), name="model/gate/MatMul")
    gate = m.node("Sigmoid", m.node("Add", gate, m.weight(6), name="model/gate/BiasAdd"))
    x = m.node("Mul", x, m.node("Reshape", gate, m.integers(-1, 1, 1, 6)), name="model/scaled/mul")
    x = m.node("Concat", x, m.node("Relu", x, name="model/act/Relu"), axis=3, name="model/concat/concat")
    x = m.node("MatMul", x, m.weight(12, 7), name="model/pointwise/MatMul")
    x = m.node("Add", x, m.weight(7), name="model/pointwise/BiasAdd")
    x = turned(m, m.node("MaxPool", turned(m, x, 0, 3, 1, 2), kernel_shape=[2, 2], strides=[2, 2]), 0, 2, 3, 1)
    x = m.node("Reshape", x, m.integers(-1, 2 * 3 * 7), name="model/flatten/Reshape")
    x = m.node("MatMul", m.node("Relu", x), m.weight(42, 5), name="model/logits/MatMul")
    return m.node("Softmax", m.node("Add", x, m.weight(5), name="model/logits/BiasAdd"), name="model/softmax/Softmax")


@pytest.mark.parametrize("batch", ["unk__12", 1])
@pytest.mark.parametrize("opset", [9, 11, 13, 18])
def test_a_model_with_channels_last_takes_channels_first(opset: int, batch: int | str, tmp_path: Path) -> None:
    path = build(tensorflow, tmp_path, opset=opset, shape=(batch, 9, 13, 3))
    network = assert_imported_alike(path, channels_last=True)
    assert str(network.graph.inputs[0].type) == "f32[N, 3, 9, 13]"
    assert sum(node.op.name == "reshape" for node in network.graph.nodes) == 1  # [N, C] -> [N, C, 1, 1] of the gate
    names = [node.name for node in network.graph.nodes]
    assert {"model.stem", "model.gate", "model.scaled", "model.act", "model.pointwise", "model.flatten"} <= set(names)
    notes: list[str] = []
    import_onnx(path, on_note=notes.append)
    assert "input 'x' is [N, H, W, C] in the model; the network takes [N, C, H, W]" in notes


def test_an_output_with_channels_last_is_returned_with_channels_first(tmp_path: Path) -> None:
    path = build(lambda m: turned(m, conv(m, "x"), 0, 2, 3, 1), tmp_path, shape=("N", 4, 7, 9))
    notes: list[str] = []
    assert import_onnx(path, on_note=notes.append).graph.outputs[0].type.shape == ("N", 6, 5, 7)
    assert any("the network returns [N, C, H, W]" in note for note in notes)
    assert_imported_alike(path)


def test_a_grey_image_with_channels_last_is_brought_round_by_a_reshape(tmp_path: Path) -> None:
    def grey(m: ModelBuilder) -> str:
        x = m.node("Sub", "x", m.constant(np.float32(0.5)))
        return conv(m, m.node("Reshape", x, m.integers(-1, 1, 8, 9)), inputs=1)

    path = build(grey, tmp_path, shape=("N", 8, 9, 1))
    network = assert_imported_alike(path, channels_last=True)
    assert ops_of(network) == ["batch_norm {epsilon=0.0}", "conv2d {channels=6, kernel=3}"]
    assert network.graph.inputs[0].type.shape == ("N", 1, 8, 9)


def test_a_shuffle_with_channels_last_is_one(tmp_path: Path) -> None:
    def last(m: ModelBuilder) -> str:
        x = m.node("Reshape", turned(m, "x", 0, 2, 3, 1), m.integers(0, 0, 0, 2, 3))
        x = m.node("Reshape", turned(m, x, 0, 1, 2, 4, 3), m.integers(0, 0, 0, 6))
        return m.node("Relu", turned(m, x, 0, 3, 1, 2))

    path = build(last, tmp_path, shape=("N", 6, 4, 5), opset=13)
    assert ops_of(assert_imported_alike(path)) == ["channel_shuffle {groups=2}", "relu"]


# Files: where weights lie, and how constants are written.


def test_constants_are_found_in_nodes_inputs_and_initializers(tmp_path: Path) -> None:
    m = ModelBuilder(opset=13)
    values = m.random.standard_normal((6, 4, 3, 3)).astype(np.float32)
    kernel = m.node("Constant", value=numpy_helper.from_array(values, "kernel"))
    bias = m.node("Constant", value_floats=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    x = m.node("Conv", "x", m.node("Identity", kernel), bias)
    x = m.node("Clip", x, m.node("Constant", value_float=0.0), m.node("Constant", value_float=6.0))
    x = m.node("Reshape", x, m.node("Constant", value_ints=[0, -1]))
    x = m.node("Gemm", x, m.node("Transpose", m.weight(5, 216), perm=[1, 0]))
    assert ops_of(assert_imported_alike(save(m.model(x), tmp_path))) == [
        "conv2d {channels=6, kernel=3, bias=true}",
        "relu6",
        "flatten",
        "dense {features=5, bias=false}",
    ]


def test_weights_listed_as_inputs_are_weights(tmp_path: Path) -> None:
    m = ModelBuilder(opset=8)
    m.weight(6, 4, 3, 3, name="conv.weight")
    m.inputs.append(helper.make_tensor_value_info("conv.weight", TensorProto.FLOAT, (6, 4, 3, 3)))
    model = m.model(m.node("Conv", "x", "conv.weight"))
    model.ir_version = 3
    network = assert_imported_alike(save(model, tmp_path))
    assert list(network.weights or {}) == ["conv.weight"]


def test_weights_are_read_from_files_beside_the_model(tmp_path: Path) -> None:
    m = ModelBuilder()
    model = m.model(conv(m, "x", channels=64))
    path = tmp_path / "model.onnx"
    (tmp_path / "parts").mkdir()
    onnx.save_model(model, path, save_as_external_data=True, location="parts/weights.bin", size_threshold=0)
    assert (tmp_path / "parts" / "weights.bin").stat().st_size > 4 * 64 * 36 - 1
    assert_imported_alike(path)


def test_other_floats_become_float32(tmp_path: Path) -> None:
    m = ModelBuilder()
    m.inputs[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    kernel = m.constant(m.random.standard_normal((2, 4, 1, 1)).astype(np.float16))
    model = m.model(m.node("Cast", m.node("Conv", "x", kernel), to=TensorProto.FLOAT))
    notes: list[str] = []
    network = import_onnx(save(model, tmp_path), on_note=notes.append)
    assert notes == ["input 'x' is float16; the network is float32"]
    assert all(array.dtype == np.float32 for array in (network.weights or {}).values())


# Names.


def test_names_are_those_of_weights_and_modules(tmp_path: Path) -> None:
    m = ModelBuilder()
    m.weight(4, 4, 1, 1, name="layer1.0.conv1.weight")
    m.weight(4, 4, 1, 1, name="onnx::Conv_123")
    x = m.node("Conv", "x", "layer1.0.conv1.weight", name="/layer1/layer1.0/conv1/Conv")
    x = m.node("Relu", x, name="/layer1/layer1.0/relu/Relu")
    x = m.node("Conv", x, "onnx::Conv_123", name="/layer1/layer1.0/conv2/Conv")
    x = m.node("Add", x, "x", name="/layer1/layer1.0/Add")
    x = m.node("Relu", x, name="/layer1/layer1.0/relu/Relu_1")
    x = m.node("Sigmoid", x, name="/0/Sigmoid")
    x = m.node("Relu", x, name="/Relu")
    m.nodes.append(helper.make_node("Relu", [x], ["resnetv1_pool0_fwd"]))
    m.nodes.append(helper.make_node("Sigmoid", ["resnetv1_pool0_fwd"], ["137"]))
    network = import_onnx(save(m.model("137"), tmp_path))
    assert [node.name for node in network.graph.nodes] == [
        "layer1.0.conv1",
        "layer1.0.relu",
        "layer1.0.conv2",
        "layer1.0.add",
        "layer1.0.relu_1",
        "layer0",
        "relu",
        "resnetv1_pool0_fwd",
        "sigmoid",
    ]
    assert list(network.weights or {}) == ["layer1.0.conv1.weight", "layer1.0.conv2.weight"]
    assert network.graph.node("layer1.0.add").origin == "model.onnx: /layer1/layer1.0/Add"
    assert network.name == "model"
    assert import_onnx(tmp_path / "model.onnx", name="other").name == "other"


def test_importing_twice_gives_the_same_text(tmp_path: Path) -> None:
    path = build(tensorflow, tmp_path, shape=("N", 9, 13, 3))
    assert str(import_onnx(path)) == str(import_onnx(path))


def test_open_sizes_can_be_given(tmp_path: Path) -> None:
    path = build(lambda m: conv(m, "x"), tmp_path, shape=("batch", 4, "height", "width"))
    with pytest.raises(UsageError, match=r"input 'x' is \[\?, 4, \?, \?\]: more than the batch is open"):
        import_onnx(path)
    assert import_onnx(path, shapes={"": (4, 10, 12)}).graph.inputs[0].type.shape == ("N", 4, 10, 12)
    assert import_onnx(path, shapes={"x": (4, 10, 12)}).graph.outputs[0].type.shape == ("N", 6, 8, 10)
    with pytest.raises(UsageError, match=r"which \[3, 10, 12\] does not fit"):
        import_onnx(path, shapes={"x": (3, 10, 12)})
    with pytest.raises(UsageError, match="it has no input 'y'"):
        import_onnx(path, shapes={"y": (4, 10, 12)})
