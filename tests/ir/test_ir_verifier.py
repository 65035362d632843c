"""Each invariant of the IR, broken once."""

import pytest

from gensynth.ir import Alternative, Builder, Choice, Graph, Node, TensorType, Value, VerifyError, make_node, verify
from gensynth.ir.ops import Choose, Conv2d, Relu, Split

IMAGE = TensorType("f32", ("N", 4, 8, 8))
X = Value("x", IMAGE)
Y = Value("y", IMAGE)
RELU = make_node(Relu(), (X,), ("y",))


def graph(nodes=(RELU,), outputs=(Y,), inputs=(X,), **rest):
    return Graph("g", inputs, nodes, outputs, **rest)


def body(label="one", name=None, **rest):
    return Alternative(label, Graph(name or label, (X,), (RELU,), (Y,), **rest))


def choose(*alternatives, results=(Y,)):
    return Node(Choose(choice="c"), (X,), results, (), alternatives)


OPEN = make_node(Conv2d(channels=4, kernel=1), (X,), ("y",), choices=(("channels", Choice("w", (4, 8))),))
OTHER = make_node(Conv2d(channels=4, kernel=1), (X,), ("z",), choices=(("channels", Choice("w", (4, 8, 9))),))

BROKEN = {
    "is not a name": Graph("1g", (X,), (RELU,), (Y,)),
    "value name 'a b' is not a name": graph(inputs=(X, Value("a b", IMAGE))),
    "%x is defined twice": graph(inputs=(X, X)),
    "%y is defined twice": graph(nodes=(RELU, RELU)),
    "reads %z, which is not defined before it": graph(nodes=(Node(Relu(), (Value("z", IMAGE),), (Y,)),)),
    "reads %x as f32[N, 2], it is f32[N, 4, 8, 8]": graph(
        nodes=(Node(Relu(), (Value("x", TensorType("f32", ("N", 2))),), (Value("y", TensorType("f32", ("N", 2))),)),)
    ),
    "%y is typed f32[N, 2]; relu gives f32[N, 4, 8, 8]": graph(
        nodes=(Node(Relu(), (X,), (Value("y", TensorType("f32", ("N", 2))),)),)
    ),
    "split has 2 results, not 1": graph(nodes=(Node(Split(), (X,), (Y,)),)),
    "relu: wants 1 operand, got 2": graph(nodes=(Node(Relu(), (X, X), (Y,)),)),
    "returns nothing": graph(outputs=()),
    "returns %z, which is not defined": graph(outputs=(Value("z", IMAGE),)),
    "logits for 'w', which no node waits for": graph(logits={"w": (0.0,)}),
    "has 2 alternatives and 3 logits": graph(nodes=(OPEN,), outputs=OPEN.results, logits={"w": (0.0, 0.0, 0.0)}),
    "has 2 alternatives in one place and 3": graph(nodes=(OPEN, OTHER), outputs=OTHER.results),
    "does not hold the first of its values": graph(
        nodes=(Node(Conv2d(channels=9, kernel=1), (X,), OPEN.results, OPEN.choices),), outputs=OPEN.results
    ),
    "choice id 'a b' is not a name": graph(
        nodes=(make_node(Conv2d(channels=4, kernel=1), (X,), ("y",), choices=(("channels", Choice("a b", (4, 8))),)),),
        outputs=(X,),
    ),
    "choose 'y' has no alternatives": graph(nodes=(choose(),)),
    "relu has alternatives; only choose may": graph(nodes=(Node(Relu(), (X,), (Y,), (), (body(),)),)),
    "two alternatives of one label": graph(nodes=(choose(body(), body()),)),
    "label 'a b' is not a name": graph(nodes=(choose(body("a b")),)),
    "alternative 'one' takes": graph(
        inputs=(Value("x", TensorType("f32", ("N", 2))),),
        nodes=(Node(Choose(choice="c"), (Value("x", TensorType("f32", ("N", 2))),), (Y,), (), (body(),)),),
    ),
    "is typed f32[N, 2]; choose gives": graph(
        nodes=(choose(body(), results=(Value("y", TensorType("f32", ("N", 2))),)),)
    ),
    "a body bears its alternative's label": graph(nodes=(choose(body(name="other")),)),
    "logits or requirements of its own": graph(nodes=(choose(body(requirements=("macs <= 1M",))),)),
    "cannot be written": graph(requirements=('a "quoted" one',)),
    "requirement 'a\\nb' cannot": graph(requirements=("a\nb",)),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_invariant_is_named(message):
    with pytest.raises(VerifyError) as caught:
        verify(BROKEN[message])
    assert message in str(caught.value)


def test_what_is_whole_verifies():
    for whole in (
        graph(),
        graph(nodes=(OPEN,), outputs=OPEN.results, logits={"w": (0.0, 1.0)}),
        graph(nodes=(choose(body()),)),
    ):
        verify(whole)


def test_a_logit_must_be_finite():
    with pytest.raises(VerifyError, match="finite"):
        graph(logits={"w": (float("nan"),)})


def test_the_builder_refuses_a_name_given_twice_and_numbers_those_it_makes():
    builder = Builder("g")
    x = builder.input("x", (4, 8, 8))
    assert builder.emit(Relu(), x).name == "relu"
    assert builder.emit(Relu(), x).name == "relu_1"
    with builder.scope("stage1"), builder.scope("block1"):
        assert builder.emit(Relu(), x).name == "stage1.block1.relu"
        assert builder.emit(Relu(), x, name="act").name == "stage1.block1.act"
    with pytest.raises(VerifyError, match="defined twice"):
        builder.emit(Relu(), x, name="relu")
    with pytest.raises(VerifyError, match="returns nothing"):
        builder.build()


def test_the_builder_notes_the_line_that_made_a_node():
    builder = Builder("g")
    parts = builder.emit_all(Split(), builder.input("x", (4, 8, 8)), names=("a", "b"))
    builder.output(*parts)
    built = builder.build()
    assert built.node("a").origin.startswith(__file__)
    assert [value.name for value in built.outputs] == ["a", "b"]
    with pytest.raises(VerifyError, match="no node 'c'"):
        built.node("c")
