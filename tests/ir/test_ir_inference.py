"""Result types of every op, by tables worked by hand, and of nodes with open choices."""

import pytest

from gensynth.ir import Choice, InferenceError, OpenDim, TensorType, Value, all_ops, infer_types, make_node, op_class
from gensynth.ir.ops import Add, AvgPool, Concat, Conv2d, Dense, Flatten, Relu, Split

IMAGE = (4, 7, 9)

TABLE = [
    ("conv2d", {"channels": 6, "kernel": 3}, [IMAGE], [(6, 5, 7)]),
    ("conv2d", {"channels": 6, "kernel": 3, "padding": "same"}, [IMAGE], [(6, 7, 9)]),
    ("conv2d", {"channels": 6, "kernel": 3, "padding": "same", "stride": 2}, [IMAGE], [(6, 4, 5)]),
    ("conv2d", {"channels": 6, "kernel": [3, 1], "stride": [2, 1], "padding": [2, 0]}, [IMAGE], [(6, 5, 9)]),
    ("conv2d", {"channels": 8, "kernel": 3, "dilation": 2, "padding": [0, 1, 2, 0]}, [IMAGE], [(8, 4, 7)]),
    ("conv2d", {"channels": 8, "kernel": 1, "stride": 3, "groups": 4}, [IMAGE], [(8, 3, 3)]),
    ("conv_transpose2d", {"channels": 6, "kernel": 3}, [IMAGE], [(6, 9, 11)]),
    ("conv_transpose2d", {"channels": 6, "kernel": 3, "stride": 2, "padding": "same"}, [IMAGE], [(6, 14, 18)]),
    (
        "conv_transpose2d",
        {"channels": 4, "kernel": 3, "stride": 2, "padding": 1, "output_padding": 1},
        [IMAGE],
        [(4, 14, 18)],
    ),
    ("dense", {"features": 5}, [(7,)], [(5,)]),
    ("batch_norm", {}, [IMAGE], [IMAGE]),
    ("batch_norm", {}, [(6,)], [(6,)]),
    ("local_response_norm", {"size": 5}, [IMAGE], [IMAGE]),
    ("dropout", {"rate": 0.3}, [IMAGE], [IMAGE]),
    ("relu", {}, [IMAGE], [IMAGE]),
    ("relu6", {}, [IMAGE], [IMAGE]),
    ("leaky_relu", {"slope": 0.2}, [(3,)], [(3,)]),
    ("silu", {}, [IMAGE], [IMAGE]),
    ("sigmoid", {}, [IMAGE], [IMAGE]),
    ("hard_sigmoid", {}, [IMAGE], [IMAGE]),
    ("hard_swish", {}, [IMAGE], [IMAGE]),
    ("softmax", {"axis": 3}, [IMAGE], [IMAGE]),
    ("add", {}, [IMAGE, (1, 7, 1)], [IMAGE]),
    ("mul", {}, [(4, 1, 1), IMAGE], [IMAGE]),
    ("concat", {}, [IMAGE, (2, 7, 9), IMAGE], [(10, 7, 9)]),
    ("concat", {"axis": 2}, [IMAGE, (4, 1, 9)], [(4, 8, 9)]),
    ("split", {}, [IMAGE], [(2, 7, 9), (2, 7, 9)]),
    ("split", {"sizes": [2, 3, 4], "axis": 3}, [IMAGE], [(4, 7, 2), (4, 7, 3), (4, 7, 4)]),
    ("channel_shuffle", {"groups": 2}, [IMAGE], [IMAGE]),
    ("max_pool", {"kernel": 2}, [IMAGE], [(4, 3, 4)]),
    ("max_pool", {"kernel": 2, "ceil": True}, [IMAGE], [(4, 4, 5)]),
    ("max_pool", {"kernel": 3, "stride": 2, "padding": 1}, [(4, 8, 8)], [(4, 4, 4)]),
    ("max_pool", {"kernel": 3, "stride": 2, "padding": 1, "ceil": True}, [(4, 8, 8)], [(4, 5, 5)]),
    ("avg_pool", {"kernel": 3, "stride": 1, "padding": "same"}, [IMAGE], [IMAGE]),
    ("global_avg_pool", {}, [IMAGE], [(4,)]),
    ("global_avg_pool", {"keep": True}, [IMAGE], [(4, 1, 1)]),
    ("resize", {"scale": [2, 3]}, [IMAGE], [(4, 14, 27)]),
    ("resize", {"size": 5, "mode": "bilinear"}, [IMAGE], [(4, 5, 5)]),
    ("pad", {"padding": [1, 0, 2, 3]}, [IMAGE], [(4, 8, 14)]),
    ("flatten", {}, [IMAGE], [(252,)]),
    ("reshape", {"shape": [2, -1, 9]}, [IMAGE], [(2, 14, 9)]),
    ("identity", {}, [IMAGE], [IMAGE]),
]

REFUSED = [
    ("conv2d", {"channels": 6, "kernel": 9}, [IMAGE], "does not fit", "kernel"),
    ("conv2d", {"channels": 6, "kernel": 1, "groups": 4}, [IMAGE], "must divide", "groups"),
    ("conv2d", {"channels": 6, "kernel": 1}, [(4,)], "wants an image", None),
    (
        "conv_transpose2d",
        {"channels": 2, "kernel": 1, "stride": 2, "padding": "same"},
        [IMAGE],
        "at least the",
        "kernel",
    ),
    ("dense", {"features": 5}, [IMAGE], r"wants \[N, C\]", None),
    ("batch_norm", {}, [(3, 4)], "wants", None),
    ("softmax", {"axis": 4}, [IMAGE], "is not one of", "axis"),
    ("local_response_norm", {"size": 4}, [IMAGE], "has no middle", "size"),
    ("local_response_norm", {"size": 3}, [(6,)], "wants an image", None),
    ("add", {}, [IMAGE, (4, 7)], "cannot combine", None),
    ("add", {}, [IMAGE, (4, 7, 3)], "9 against 3", None),
    ("add", {}, [IMAGE], "wants 2 operands, got 1", None),
    ("concat", {}, [], "wants one operand or more", None),
    ("concat", {}, [IMAGE, (4, 7, 8)], "differ on another axis", None),
    ("split", {"sections": 3}, [IMAGE], "equal sections", "sections"),
    ("split", {"sections": 10**9}, [IMAGE], "at most", "sections"),
    ("split", {"sizes": [1, 2]}, [IMAGE], "sum to 3", "sizes"),
    ("channel_shuffle", {"groups": 3}, [IMAGE], "must divide", "groups"),
    ("max_pool", {"kernel": 8}, [IMAGE], "does not fit", "kernel"),
    ("max_pool", {"kernel": 2, "padding": 2}, [IMAGE], "smaller than the kernel", "padding"),
    ("resize", {}, [IMAGE], "either size or scale", "size"),
    ("resize", {"scale": 2, "align_corners": True}, [IMAGE], "bilinear", "align_corners"),
    ("resize", {"scale": 2**62}, [IMAGE], "2\\^63", None),
    ("reshape", {"shape": [5, -1]}, [IMAGE], "cannot bring", "shape"),
]


def types(shapes):
    return tuple(TensorType("f32", ("N", *shape)) for shape in shapes)


@pytest.mark.parametrize(("name", "attributes", "operands", "results"), TABLE)
def test_an_op_gives_the_types_worked_by_hand(name, attributes, operands, results):
    assert infer_types(op_class(name)(**attributes), types(operands)) == types(results)


def test_every_op_but_choose_stands_in_the_table():
    assert {op.name for op in all_ops()} - {row[0] for row in TABLE} == {"choose"}


@pytest.mark.parametrize(("name", "attributes", "operands", "message", "attribute"), REFUSED)
def test_an_op_refuses_what_does_not_fit_and_names_the_attribute(name, attributes, operands, message, attribute):
    with pytest.raises(InferenceError, match=message) as caught:
        infer_types(op_class(name)(**attributes), types(operands))
    assert caught.value.attribute == attribute


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("conv2d", {"channels": 0, "kernel": 3}),
        ("conv2d", {"channels": True, "kernel": 3}),
        ("conv2d", {"channels": 4, "kernel": (1, 2, 3)}),
        ("conv2d", {"channels": 4, "kernel": 3, "padding": "sane"}),
        ("conv2d", {"channels": 4, "kernel": 3, "padding": -1}),
        ("dropout", {"rate": 1.0}),
        ("leaky_relu", {"slope": float("nan")}),
        ("leaky_relu", {"slope": 10**400}),
        ("resize", {"mode": "cubic"}),
        ("reshape", {"shape": (-1, -1)}),
        ("split", {"sizes": (1, 0)}),
    ],
)
def test_an_attribute_of_a_wrong_kind_is_refused_at_construction(name, attributes):
    with pytest.raises(InferenceError, match="expected"):
        op_class(name)(**attributes)


def test_attributes_come_in_normal_form():
    assert Conv2d(channels=4, kernel=(3, 3), padding=(1, 1, 1, 1)).explicit() == {
        "channels": 4,
        "kernel": 3,
        "padding": 1,
    }
    assert Conv2d(channels=4, kernel=3, padding=(2, 2, 0, 0)).padding == (2, 0)
    assert Conv2d(channels=4, kernel=3, padding=0).padding == "valid"
    assert AvgPool(kernel=2).steps == 2


def conv(x, name, choice, **attributes):
    op = Conv2d(channels=1, kernel=1, **attributes)
    return make_node(op, (x,), (name,), choices=(("channels", choice),)).result


def image(channels=4):
    return Value("x", TensorType("f32", ("N", channels, 8, 8)))


def test_an_open_width_passes_through_ops_as_an_open_dimension():
    wide = conv(image(), "wide", Choice("w", (8, 12, 16)))
    assert wide.type.shape[1] == OpenDim(8, (("w", (0, 4, 8)),))
    assert str(wide.type) == "f32[N, 8|12|16, 8, 8]"
    assert make_node(Relu(), (wide,), ("y",)).result.type is wide.type
    assert str(make_node(Flatten(), (wide,), ("y",)).result.type) == "f32[N, 512|768|1024]"
    assert make_node(Dense(features=3), (make_node(Flatten(), (wide,), ("f",)).result,), ("y",)).result.type.shape == (
        "N",
        3,
    )


def test_concatenated_open_widths_sum_their_terms():
    first, second = conv(image(), "a", Choice("w", (8, 12))), conv(image(), "b", Choice("v", (4, 6, 9)))
    both = make_node(Concat(), (first, second, first), ("y",)).result.type
    assert both.shape[1] == OpenDim(20, (("v", (0, 2, 5)), ("w", (0, 8))))
    assert str(both) == "f32[N, 20+{0|2|5}+{0|8}, 8, 8]"
    assert (both.sizes()[1], both.at({"w": 1, "v": 2}).shape[1], both.shape[1].smallest) == (33, 33, 20)


def test_an_add_of_widths_that_one_choice_decides_is_open_and_of_two_is_refused():
    first, second = conv(image(), "a", Choice("w", (8, 12))), conv(image(), "b", Choice("w", (8, 12)))
    assert make_node(Add(), (first, second), ("y",)).result.type is first.type
    with pytest.raises(InferenceError, match="alternative 1"):
        make_node(Add(), (first, conv(image(), "c", Choice("v", (8, 12)))), ("y",))


def test_a_product_of_two_choices_is_no_sum_and_is_refused():
    wide = conv(image(), "a", Choice("w", (8, 12)))
    pooled = make_node(
        AvgPool(kernel=1, stride=1), (wide,), ("p",), choices=(("kernel", Choice("k", ((1, 1), (2, 1)))),)
    ).result
    with pytest.raises(InferenceError, match="no sum over the choices k, w"):
        make_node(Flatten(), (pooled,), ("y",))


def test_a_choice_must_have_as_many_alternatives_everywhere():
    with pytest.raises(InferenceError, match="3 and 2 alternatives"):
        conv(conv(image(), "a", Choice("w", (8, 12))), "b", Choice("w", (1, 2, 3)))


def test_a_choice_that_changes_how_many_axes_there_are_is_refused():
    with pytest.raises(InferenceError):
        make_node(
            op_class("reshape")(shape=(4,)), (image(),), ("y",), choices=(("shape", Choice("s", ((256,), (4, 64)))),)
        )


def test_values_of_a_choice_come_in_the_normal_form_of_their_attribute():
    choices = (("kernel", Choice("k", ((3, 3), 5))), ("channels", Choice("w", (1, 2))))
    node = make_node(Conv2d(channels=9, kernel=1, padding="same"), (image(),), ("y",), choices=choices)
    assert node.choices == (("channels", Choice("w", (1, 2))), ("kernel", Choice("k", (3, 5))))
    assert (node.op.channels, node.op.kernel) == (1, 3)
    with pytest.raises(InferenceError, match="no attribute 'width'"):
        make_node(Relu(), (image(),), ("y",), choices=(("width", Choice("w", (1, 2))),))


def test_parts_of_a_split_with_an_open_length_are_open():
    wide = conv(image(), "a", Choice("w", (8, 12)))
    parts = make_node(Split(sections=2), (wide,), ("a1", "a2")).results
    assert [str(part.type) for part in parts] == ["f32[N, 4|6, 8, 8]"] * 2
