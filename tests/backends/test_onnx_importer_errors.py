"""ONNX models that cannot be imported: one error each, with file, node, operator, reason and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper
from onnx_models import ModelBuilder, save

from gensynth.backends.onnx import import_onnx
from gensynth.ir import GenSynthError, UsageError


def refused(path: Path) -> UsageError:
    """Imports a model that cannot be, and returns the error."""
    with pytest.raises(UsageError) as raised:
        import_onnx(path)
    assert raised.value.hint
    assert str(path) in raised.value.message
    return raised.value


def branch(name: str, operator: str) -> onnx.GraphProto:
    info = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node(operator, ["x"], [name])], name, [], [info])


def conditional(m: ModelBuilder) -> str:
    condition = m.node("Greater", m.node("ReduceMax", "x", keepdims=0), m.constant(np.float32(0)))
    return m.node("If", condition, then_branch=branch("then", "Relu"), else_branch=branch("other", "Sigmoid"))


def training_norm(m: ModelBuilder) -> str:
    weights = [m.weight(4, low=0.1) for _ in range(4)]
    return m.node("BatchNormalization", "x", *weights, outputs=3, training_mode=1)


def training_dropout(m: ModelBuilder) -> str:
    return m.node("Dropout", "x", m.constant(np.float32(0.5)), m.constant(np.array(True)))


def from_elsewhere(m: ModelBuilder) -> str:
    m.nodes.append(helper.make_node("FusedConv", ["x"], ["y"], "fused", domain="com.microsoft"))
    return "y"


def custom(operator: str, *constants: object, **attributes: object) -> Callable[[ModelBuilder], str]:
    return lambda m: m.node(operator, "x", *(m.constant(item) for item in constants), **attributes)  # type: ignore[arg-type]


ints = np.int64

REFUSED: list[tuple[Callable[[ModelBuilder], str], str, str]] = [
    (custom("Erf"), "an operator that the IR does not have", "cut the model before it"),
    (custom("LogSoftmax", axis=1), "the IR has no logarithm", "softmax"),
    (custom("InstanceNormalization", np.ones(4), np.ones(4)), "statistics of each image", "batch normalization"),
    (custom("DepthToSpace", blocksize=2), "moved between channels", "transposed convolution"),
    (custom("Clip", np.float32(-1), np.float32(1)), r"values clipped to \[-1, 1\]", "relu6"),
    (custom("QuantizeLinear", np.float32(1), np.int8(0)), "the model is quantized", "float32 model"),
    (conditional, "which branch runs depends on the data", "take the branch out"),
    (training_norm, "normalization in training", "inference"),
    (training_dropout, "dropout in training", "inference"),
    (from_elsewhere, "an operator of 'com.microsoft'", "ONNX's own operators"),
    (custom("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1], ints), mode="reflect"), "in mode 'reflect'", "with a constant"),
    (custom("Pad", np.array([0, 0, -1, 0, 0, 0, 0, 0], ints)), r"padding \[0, 0, -1", "with a constant"),
    (custom("ReduceMean", axes=[1]), r"a mean over axes \[1\]", "height and width"),
    (custom("Add", np.ones((4, 8, 8))), r"a constant of shape \[4, 8, 8\]", "per channel"),
    (custom("Mul", np.full((1, 4, 8, 1), 2.0)), r"a constant of shape \[1, 4, 8, 1\]", "per channel"),
    (custom("Div", np.zeros(1)), "a division by zero", "mend"),
    (lambda m: m.node("Div", m.constant(np.float32(1)), "x"), "a division by a computed value", "constants only"),
    (custom("PRelu", np.linspace(0.1, 0.4, 4).reshape(4, 1, 1)), "a slope for each channel", "leaky_relu"),
    (custom("LRN", size=4), "size=4 has no middle", "odd"),
    (custom("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), "a dilated pool", "dilations of 1"),
    (custom("MaxPool", kernel_shape=[2, 2], pads=[2, 2, 2, 2]), "padding must be smaller", "other operands"),
    (custom("Slice", *(np.array([n], ints) for n in (0, 8, 2, 2))), "a step of 2", "without gaps"),
    (custom("Slice", *(np.array([n], ints) for n in (0, 1, 0))), "a slice of the batch", "whole"),
    (custom("Gather", np.array([3, 1], ints), axis=1), "an order of its own", "neighbours"),
    (custom("Reshape", np.array([-1], ints)), "without the batch|joins the batch", "keeps the batch"),
    (custom("Reshape", np.array([-1, 2, 8, 8], ints)), "without the batch", "keeps the batch"),
    (custom("Reshape", np.array([0, 5, 7], ints)), "cannot bring", "damaged"),
    (custom("Conv", np.ones((6, 3, 3, 3))), "wants", "damaged"),
    (custom("Conv", np.ones((6, 4, 3))), "not 4 axes", "2-d images"),
    (custom("Conv", np.full((6, 4, 3, 3), np.nan)), "infinity or no number", "train"),
    (lambda m: m.node("Conv", "x", "x"), "its weight .* is computed", "constant weight"),
    (lambda m: m.node("Conv", m.node("Transpose", "x", perm=[0, 2, 3, 1]), m.weight(6, 8, 1, 1)), "in the order NHWC",
     "keeps N, C, H, W"),
    (lambda m: m.node("Concat", "x", m.weight(2, 4, 8, 8), axis=1), "it reads the constant", "weights of layers"),
    (lambda m: m.node("Concat", "x", "x", axis=0), "along the batch", "channels"),
    (custom("Transpose", perm=[0, 2, 1, 3]), "in the order NHCW", "keeps N, C, H, W"),
    (custom("Cast", to=TensorProto.INT64), "as integers", "float32"),
    (custom("Gemm", np.ones((4, 5))), "a dense layer on 4 axes", "flatten"),
    (custom("Softmax", axis=9), "axis 9 of a tensor of 4 axes", "damaged"),
]  # fmt: skip

_TOLD_BY_THE_READER = ("in the order NHWC", "in the order NHCW")
"""A Transpose is a view; it is the node that reads it which cannot be."""


@pytest.mark.parametrize(("function", "what", "remedy"), REFUSED)
def test_what_cannot_be_imported_is_named_with_reason_and_remedy(
    function: Callable[[ModelBuilder], str], what: str, remedy: str, tmp_path: Path
) -> None:
    m = ModelBuilder((2, 4, 8, 8), opset=13)
    path = save(m.model(m.node("Relu", function(m))), tmp_path)
    error = refused(path)
    node = m.nodes[-2]
    if what not in _TOLD_BY_THE_READER:
        assert f"node '{node.name or node.output[0]}' ({node.op_type})" in error.message
    assert re.search(what, error.message)
    assert remedy in (error.hint or "")


# Files.


def plain_model(**options: object) -> tuple[ModelBuilder, str]:
    m = ModelBuilder(**options)  # type: ignore[arg-type]
    return m, m.node("Conv", "x", m.weight(6, 4, 3, 3, name="kernel"))


def test_files_that_are_no_models_are_told_so(tmp_path: Path) -> None:
    m, y = plain_model()
    content = m.model(y).SerializeToString()
    path = tmp_path / "model.onnx"
    for damaged in (b"", b"PK\x03\x04 something else entirely", content[: len(content) // 2], content[:-1]):
        path.write_bytes(damaged)
        assert "is no ONNX model, or is cut short" in refused(path).message
    path.write_text("gensynth 1\n\nnetwork @tiny(%image: f32[N, 1, 8, 8])")
    assert "is no ONNX model" in refused(path).message
    with pytest.raises(UsageError, match="cannot read"):
        import_onnx(tmp_path / "none.onnx")
    with pytest.raises(UsageError, match="cannot read"):
        import_onnx(tmp_path)


def test_opsets_that_are_not_known_are_refused(tmp_path: Path) -> None:
    for opset in (1, 6, 99):
        m, y = plain_model()
        model = m.model(y)
        model.opset_import[0].version = opset
        assert f"opset {opset}; this version reads 7 to" in refused(save(model, tmp_path)).message


def test_models_for_training_are_refused(tmp_path: Path) -> None:
    m, y = plain_model()
    model = m.model(y)
    model.training_info.add()
    assert "the model is for training" in refused(save(model, tmp_path)).message


@pytest.mark.parametrize(
    ("kind", "shape", "what"),
    [
        (TensorProto.INT64, ("N", 4, 8, 8), "input 'x' holds int64"),
        (TensorProto.UINT8, ("N", 4, 8, 8), "input 'x' holds uint8"),
        (TensorProto.STRING, ("N",), "input 'x' holds string"),
        (TensorProto.FLOAT, ("N",), r"input 'x' is \[\?\]"),
        (TensorProto.FLOAT, None, "input 'x' is of unknown shape"),
    ],
)
def test_inputs_that_are_no_images_are_refused(
    kind: int, shape: tuple[int | str, ...] | None, what: str, tmp_path: Path
) -> None:
    m, y = plain_model()
    m.inputs[0] = helper.make_tensor_value_info("x", kind, shape)
    assert re.search(what, refused(save(m.model(y), tmp_path)).message)


def external(location: str, folder: Path, **places: int) -> Path:
    """Writes a model whose kernel lies elsewhere."""
    m, y = plain_model()
    model = m.model(y)
    tensor = model.graph.initializer[0]
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **places}.items():
        tensor.external_data.add(key=key, value=str(value))
    inside = folder / "inside"
    inside.mkdir(exist_ok=True)
    for file in (folder / "outside.bin", inside / "weights.bin"):
        file.write_bytes(content)
    return save(model, inside)


def test_weights_outside_of_the_models_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link.bin").symlink_to(tmp_path / "outside.bin")
    for location in ("../outside.bin", str(tmp_path / "outside.bin"), "link.bin", "", "a/../../outside.bin"):
        error = refused(external(location, tmp_path))
        assert f"weight 'kernel' is said to lie in '{location}', outside of the model's folder" in error.message
    import_onnx(external("weights.bin", tmp_path))
    import_onnx(external("./weights.bin", tmp_path, offset=0, length=864))


def test_weights_that_are_missing_or_cut_short_are_told(tmp_path: Path) -> None:
    assert "cannot read weight 'kernel' from 'none.bin'" in refused(external("none.bin", tmp_path)).message
    error = refused(external("weights.bin", tmp_path, offset=4, length=864))
    assert "'weights.bin' is cut short: weight 'kernel' ends at byte 868, the file has 864" in error.message
    assert "does not hold [6, 4, 3, 3] numbers" in refused(external("weights.bin", tmp_path, length=860)).message


def test_weights_of_another_size_than_they_say_are_refused(tmp_path: Path) -> None:
    m, y = plain_model()
    model = m.model(y)
    model.graph.initializer[0].dims[0] = 10**12
    assert "does not hold" in refused(save(model, tmp_path)).message
    model.graph.initializer[0].dims[0] = -1
    assert "has shape [-1, 4, 3, 3]" in refused(save(model, tmp_path)).message


def broken_order(model: ModelProto) -> None:
    model.graph.node[0].input[0] = "nothing"


def made_twice(model: ModelProto) -> None:
    model.graph.node.add().CopyFrom(model.graph.node[0])


def unknown_output(model: ModelProto) -> None:
    model.graph.output[0].name = "nothing"


def huge_constant(model: ModelProto) -> None:
    size = helper.make_tensor("size", TensorProto.INT64, [2], [10**6, 10**6])
    model.graph.initializer.append(size)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["size"], ["huge"]))
    model.graph.node[1].input[1] = "huge"


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (broken_order, "it reads 'nothing', which nothing makes before it"),
        (made_twice, "is made twice"),
        (unknown_output, "nothing makes the output 'nothing'"),
        (huge_constant, "a constant of no sane size"),
    ],
)
def test_graphs_that_are_damaged_are_refused(damage: Callable[[ModelProto], None], what: str, tmp_path: Path) -> None:
    m, y = plain_model()
    model = m.model(y)
    damage(model)
    assert what in refused(save(model, tmp_path)).message


def test_no_damage_to_a_file_makes_anything_but_an_error_of_ours(tmp_path: Path) -> None:
    m = ModelBuilder(opset=13)
    x = m.node("Conv", "x", m.weight(6, 4, 3, 3), m.weight(6), pads=[1, 1, 1, 1])
    x = m.node("MaxPool", m.node("Clip", x, m.constant(np.float32(0))), kernel_shape=[2, 2], strides=[2, 2])
    x = m.node("Reshape", x, m.integers(0, -1))
    content = m.model(m.node("Softmax", m.node("Gemm", x, m.weight(96, 5)), axis=-1)).SerializeToString()
    small = [index for index in range(len(content)) if index < 64 or content[max(0, index - 8) : index + 8].isascii()]
    random = np.random.default_rng(0)
    path = tmp_path / "model.onnx"
    outcomes = {"imported": 0, "refused": 0}
    for _ in range(400):
        damaged = bytearray(content)
        for index in random.choice(small, random.integers(1, 3)):
            damaged[index] = random.integers(128)  # text stays text, so that more than names is tried
        path.write_bytes(damaged)
        try:
            import_onnx(path)
            outcomes["imported"] += 1
        except GenSynthError:
            outcomes["refused"] += 1
    assert all(outcomes.values())
